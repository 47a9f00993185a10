"""The ledger checker (DESIGN 9): the judge of "nothing accepted is ever lost, nothing doubled undeclared".

Producers put numbered events in over HTTP (and Kafka), clients on real sockets take, acknowledge and
resume, somebody kills processes meanwhile. At the end each accepted event is looked up: exactly one
place in the inbox of each recipient, received by each connected device, in the order of its
(user, topic, lane). Whoever runs it decides what is killed: `Ledger.kill` also writes down when, because
a closed socket is legal only where a dataplane died.

Devices are of two kinds. The even ones resume from the last message received: they must never see an id
twice. The odd ones resume from the last one acknowledged: they may see again exactly what they had not
acknowledged, with the same id and seq (the declared replay).
"""
import asyncio
import collections
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import warnings

import harness

PRIORITIES = (("critical", 10), ("high", 10), ("normal", 50), ("low", 30))
KAFKA_TOPICS = {"k-tx": "belfry.events.transactional", "k-so": "belfry.events.social", "k-ma": "belfry.events.marketing"}
GROUP_SIZE = 5  # recipients of an event to several
ACK_EVERY_S = 0.1
RETRY_S = 0.05
HTTP_TIMEOUT_S = 30
# A socket may be closed this long after a dataplane's death, and for no other reason.
CLOSE_WINDOW_S = 6

Event = collections.namedtuple("Event", "n users topic priority k via")


def plan(events, users, seed, kafka_share):
    """All events, in the order in which each of their sources sends them."""
    dice = random.Random(seed)
    names, weights = zip(*PRIORITIES)
    counters = collections.Counter()
    out = []
    for n in range(events):
        via = "kafka" if dice.random() < kafka_share else "http"
        user = f"u{dice.randrange(users)}"
        priority = dice.choices(names, weights)[0]
        if via == "http" and dice.random() < 0.02:
            group = sorted({user, *(f"u{dice.randrange(users)}" for _ in range(GROUP_SIZE - 1))})
            out.append(Event(n, group, "group", priority, 0, via))
            continue
        topic = dice.choice(tuple(KAFKA_TOPICS)) if via == "kafka" else dice.choice(("", "a", "b"))
        if via == "kafka" and topic != "k-tx" and priority == "critical":
            priority = "high"  # critical needs a topic with that scope: elsewhere it is a dead letter
        counters[user, topic] += 1
        out.append(Event(n, [user], topic, priority, counters[user, topic], via))
    return out


def body_of(event):
    body = {"type": "ledger", "title": str(event.n), "priority": event.priority, "data": {"k": event.k, "topic": event.topic}}
    if event.topic:
        body["topic"] = event.topic
    if len(event.users) == 1:
        body["user_id"] = event.users[0]
    else:
        body["recipients"] = event.users
    return body


# ---- producers over HTTP ----------------------------------------------------------------------------

class HttpLane:
    """One keep-alive connection that sends its events one after the other, each until it is accepted."""

    def __init__(self, api, key, events, accepted, trouble, pace, prefix="ledger", body=body_of):
        self.prefix, self.body = prefix, body
        url = urllib.parse.urlsplit(api)
        self.host, self.port, self.key = url.hostname, url.port, key
        self.events, self.accepted, self.trouble, self.pace = events, accepted, trouble, pace
        self.reader = self.writer = None

    async def run(self):
        for event in self.events:
            await self.pace(event)
            body = json.dumps(self.body(event)).encode()
            request = (f"POST /v1/notifications HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {self.key}\r\n"
                       f"Content-Type: application/json\r\nIdempotency-Key: {self.prefix}-{event.n}\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n").encode() + body
            while True:
                try:
                    status, answer = await asyncio.wait_for(self.once(request), HTTP_TIMEOUT_S)
                except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError, IndexError):
                    self.trouble["connection"] += 1
                    self.drop()
                    await asyncio.sleep(RETRY_S)
                    continue
                if status == 202:
                    self.accepted.append((event.n, json.loads(answer)["notification_id"]))
                    break
                self.trouble[status] += 1
                if status not in (409, 429, 503):
                    self.trouble[f"{status} {answer[:200]!r}"] += 1
                    return
                await asyncio.sleep(RETRY_S)
        self.drop()

    def drop(self):
        if self.writer:
            self.writer.close()
        self.reader = self.writer = None

    async def once(self, request):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        size = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        answer = await self.reader.readexactly(size) if size else b""
        if b"connection: close" in head.lower():
            self.drop()
        return status, answer


def produce_http(api, key, events, connections, duration, seed, out):
    """A process: all HTTP events, spread over connections by user, over about |duration| seconds."""
    started = time.monotonic()
    last = max((e.n for e in events), default=0) + 1

    async def pace(event):
        wait = started + duration * event.n / last - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)

    async def all_lanes():
        parts = [[] for _ in range(connections)]
        for event in events:
            parts[hash_user(event.users[0]) % connections].append(event)
        lanes = [HttpLane(api, key, part, accepted, trouble, pace) for part in parts]
        await asyncio.gather(*(lane.run() for lane in lanes))
    accepted, trouble = [], collections.Counter()
    asyncio.run(all_lanes())
    with open(out, "wb") as f:
        pickle.dump((accepted, trouble), f)


def hash_user(name):
    return int(name[1:])


# ---- producers over Kafka ---------------------------------------------------------------------------

class KafkaFeed(threading.Thread):
    """Feeds kafka_tool, one a topic, over about |duration| seconds; delivered = every one acknowledged."""

    def __init__(self, node, events, duration):
        super().__init__(daemon=True)
        self.events, self.duration, self.report = events, duration, {}
        self.tools = {topic: subprocess.Popen([find_kafka_tool(), "produce", node.info["kafka"], name], text=True,
                                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                      for topic, name in KAFKA_TOPICS.items()}

    def run(self):
        started, last = time.monotonic(), max((e.n for e in self.events), default=0) + 1
        for event in self.events:
            wait = started + self.duration * event.n / last - time.monotonic()
            if wait > 0.01:
                for tool in self.tools.values():
                    tool.stdin.flush()
                time.sleep(wait)
            body = {**body_of(event), "id": f"ledger-{event.n}", "source": "ledger"}
            self.tools[event.topic].stdin.write(f"{event.users[0]}\t{json.dumps(body)}\n")
        for topic, tool in self.tools.items():
            out, err = tool.communicate()
            self.report[topic] = json.loads(out) if tool.returncode == 0 else {"error": out + err}


def find_kafka_tool():
    import pathlib
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return str(sorted(cache.glob("belfry/kafka-*/kafka_tool"))[-1])


# ---- clients ----------------------------------------------------------------------------------------

class Device:
    """One device: connects for ever, resumes, acknowledges, writes down each frame."""

    def __init__(self, url, user, index, token):
        self.url, self.user, self.index, self.token = url, user, index, token
        self.frames = []     # (session, lane, seq, id, title, k, topic)
        self.closes = []     # (opened, closed, code)
        self.sessions = []   # (resumed, what was asked, welcome seq heads)
        self.epoch = None
        self.received = dict.fromkeys(harness.LANES, 0)
        self.acked = dict.fromkeys(harness.LANES, 0)
        self.session_sent = {}
        self.socket = None
        self.errors = []
        self.distinct = set()

    def resume(self):
        if self.epoch is None:
            return None
        at = self.received if self.index % 2 == 0 else self.acked
        return {"epoch": self.epoch, "seq": at["normal"], "lanes": {"critical": at["critical"], "bulk": at["bulk"]}}

    async def run(self, stop, progress):
        while not stop.is_set():
            opened = None
            try:
                async with harness.ws_connect(
                        self.url, subprotocols=["belfry.v1.json"], extra_headers={"Authorization": f"Bearer {self.token}"},
                        ping_interval=None, max_queue=None, open_timeout=30, close_timeout=1) as socket:
                    opened = time.monotonic()
                    await self.session(socket, progress)
            except harness.ConnectionClosed as e:
                if not stop.is_set():
                    code = e.rcvd.code if e.rcvd else 1006
                    self.closes.append((opened, time.monotonic(), code))
            except Exception as e:  # refused while the dataplane is away: try again
                if opened is not None and not stop.is_set():
                    self.errors.append(repr(e))
            self.socket = None
            await asyncio.sleep(RETRY_S * random.random())

    async def session(self, socket, progress):
        frame = {"t": "connect", "device": f"d{self.index}"}
        asked = self.resume()
        if asked:
            frame["resume"] = asked
        await socket.send(json.dumps(frame))
        welcome = json.loads(await socket.recv())
        assert welcome["t"] == "welcome", welcome
        number = len(self.sessions)
        self.sessions.append((welcome["resumed"], asked, {"normal": welcome["seq"], **welcome["lanes"]}))
        self.epoch = self.epoch or welcome["epoch"]
        assert self.epoch == welcome["epoch"], "the epoch changed without a restore or a reboot"
        self.socket = socket
        self.session_sent = {}
        while True:
            got = json.loads(await socket.recv())
            if got["t"] != "n":
                if got["t"] not in ("state", "b", "pong"):
                    self.errors.append(f"unexpected frame {got}")
                continue
            lane = got.get("lane", "normal")
            data = got.get("data") or {}
            self.frames.append((number, lane, got["seq"], got["id"], got["title"], data.get("k"), data.get("topic")))
            self.received[lane] = max(self.received[lane], got["seq"])
            self.session_sent[lane] = got["seq"]
            if got["id"] not in self.distinct:
                self.distinct.add(got["id"])
                progress()

    async def acknowledge(self):
        socket, sent = self.socket, dict(self.session_sent)
        for lane, seq in sent.items():
            if socket and seq > self.acked[lane]:
                frame = {"t": "ack", "seq": seq, **({"lane": lane} if lane != "normal" else {})}
                try:
                    await socket.send(json.dumps(frame))
                    self.acked[lane] = seq
                except harness.ConnectionClosed:
                    return


def consume(url, devices, stop, counter, out):
    """A process: its share of the devices until told to stop."""
    def progress():
        counter.value += 1  # this process is the only writer of its counter

    async def acks(all_devices):
        while not stop.is_set():
            await asyncio.sleep(ACK_EVERY_S)
            await asyncio.gather(*(d.acknowledge() for d in all_devices))

    async def until_stopped(tasks):
        while not stop.is_set():
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def everything():
        all_devices = [Device(url, *d) for d in devices]
        tasks = [asyncio.create_task(d.run(stop, progress)) for d in all_devices]
        tasks.append(asyncio.create_task(acks(all_devices)))
        await until_stopped(tasks)
        return all_devices
    warnings.simplefilter("ignore", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    done = asyncio.run(everything())
    keep = [(d.user, d.index, d.frames, d.closes, d.sessions, d.errors) for d in done]
    with open(out, "wb") as f:
        pickle.dump(keep, f)


# ---- killing ----------------------------------------------------------------------------------------

SIDES = ("ctrlplane", "ctrlplane", "dataplane", "both")


def one_kill(ledger, node, dice):
    """Kills a side or both, and starts what was killed. `ledger.kill` writes it down."""
    side = dice.choice(SIDES)
    sides = ("dataplane", "ctrlplane") if side == "both" else (side,)
    ledger.kill(*sides)
    time.sleep(dice.random() * 0.5)  # how long it is away is part of what is drawn
    for name in sides:
        # with both dead, the dataplane alone can never be ready: wait for readiness at the last one
        if name != sides[-1]:
            relaunch(node, name)
        else:
            node.restart(name)


def relaunch(node, side):
    """Starts a side without waiting for the node to be ready."""
    log = open(node.state / f"{side}.log", "ab")
    process = subprocess.Popen([str(harness.BUILD / f"belfry-{side}"), "--config", node.info["config"]],
                               stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=node.state, start_new_session=True)
    note = node.state / "dev.json"
    info = json.loads(note.read_text())
    info["pids"][side] = node.info["pids"][side] = process.pid
    note.write_text(json.dumps(info))
    return process


# ---- the run ----------------------------------------------------------------------------------------

class Ledger:
    def __init__(self, node, events, users=100, devices=2, duration=60, seed=1, kafka_share=0.0, connections=32,
                 processes=1):
        self.node, self.users, self.devices, self.seed, self.duration = node, users, devices, seed, duration
        self.events = plan(events, users, seed, kafka_share)
        self.connections, self.processes = connections, processes
        self.kills = []  # (time, side)
        self.directory = tempfile.TemporaryDirectory(prefix="belfry-ledger-")
        self.context = multiprocessing.get_context("fork")

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def start(self):
        node = self.node
        node.put_user(*(f"u{i}" for i in range(self.users)))
        self.stop_clients = self.context.Event()
        devices = [(f"u{i}", d, node.token(f"u{i}", ttl=86400)) for i in range(self.users) for d in range(self.devices)]
        self.counters = [self.context.Value("L", 0, lock=False) for _ in range(self.processes)]
        self.clients = [self.context.Process(target=consume, args=(node.info["ws"], devices[i::self.processes],
                                                                   self.stop_clients, self.counters[i],
                                                                   self.path(f"clients{i}")))
                        for i in range(self.processes)]
        for client in self.clients:
            client.start()
        want = self.users * self.devices
        harness.until(lambda: node.metric("belfry_dataplane_connections_welcomed") >= want, 60, f"{want} devices are welcomed")
        http = [e for e in self.events if e.via == "http"]
        self.producer = self.context.Process(target=produce_http,
                                             args=(node.info["api"], node.key, http, self.connections, self.duration,
                                                   self.seed, self.path("accepted")))
        self.producer.start()
        kafka = [e for e in self.events if e.via == "kafka"]
        self.feed = KafkaFeed(node, kafka, self.duration) if kafka else None
        if self.feed:
            self.feed.start()
        return self

    @property
    def producing(self):
        return self.producer.is_alive() or bool(self.feed and self.feed.is_alive())

    def kill(self, *sides, sig=signal.SIGKILL):
        """Kills and writes it down; the caller restarts."""
        now = time.monotonic()
        self.kills += [(now, side) for side in sides]
        for side in sides:
            os.kill(self.node.pid(side), sig)
        for side in sides:
            harness.until(lambda s=side: not self.node.is_alive(s), 10, f"{side} is gone", poll=0.002)

    def received(self):
        return sum(c.value for c in self.counters)

    def finish(self, seconds=120):
        """Waits for the producers, then for the last delivery; stops the clients. Returns the report."""
        harness.until(lambda: not self.producing, self.duration + seconds, "all events are accepted", poll=0.1)
        self.producer.join()
        with open(self.path("accepted"), "rb") as f:
            accepted, self.trouble = pickle.load(f)
        self.accepted = dict(accepted)
        recipients = sum(len(e.users) for e in self.events)
        want = recipients * self.devices
        last, at = -1, time.monotonic()
        while self.received() < want and time.monotonic() - at < 30 * harness.TIMES:  # 30 s without any progress: judge it
            if self.received() != last:
                last, at = self.received(), time.monotonic()
            time.sleep(0.05)
        time.sleep(2 * ACK_EVERY_S)  # the last acknowledgements go out
        self.stop_clients.set()
        for client in self.clients:
            client.join(60)
        self.devices_done = []
        for i in range(self.processes):
            with open(self.path(f"clients{i}"), "rb") as f:
                self.devices_done += pickle.load(f)
        return self.judge()

    def close(self):
        self.stop_clients.set()
        for process in [*self.clients, self.producer]:
            if process.is_alive():
                process.terminate()
        if self.feed:
            for tool in self.feed.tools.values():
                if tool.poll() is None:
                    tool.terminate()
        self.directory.cleanup()

    # -- judging
    def judge(self):
        report = {"events": len(self.events), "accepted_http": len(self.accepted),
                  "kills": dict(collections.Counter(side for _, side in self.kills)),
                  "producer_trouble": {str(k): v for k, v in self.trouble.items()}, "violations": []}
        bad = report["violations"]
        by_number = {e.n: e for e in self.events}
        for event in self.events:
            if event.via == "http" and event.n not in self.accepted:
                bad.append(f"event {event.n} was never accepted")
        if self.feed:
            report["accepted_kafka"] = sum(r.get("delivered", 0) for r in self.feed.report.values())
            bad += [f"kafka producer {t}: {r}" for t, r in self.feed.report.items() if r.get("failed") or "error" in r]
        inboxes = self.judge_inboxes(report, bad)
        self.judge_devices(report, bad, by_number, inboxes)
        self.judge_closes(report, bad)
        report["ok"] = not bad
        report["violation_count"] = len(bad)
        report["violations"] = bad[:40]
        return report

    def judge_inboxes(self, report, bad):
        """Each event once in the inbox of each recipient; order of each (user, topic, lane) kept."""
        wanted = collections.defaultdict(set)
        for event in self.events:
            for user in event.users:
                wanted[user].add(event.n)
        inboxes, lost, doubled, strange = {}, 0, 0, 0
        lost_of, by_number = collections.Counter(), {e.n: e for e in self.events}
        for user in (f"u{i}" for i in range(self.users)):
            items = self.node.inbox(user)
            inboxes[user] = {(i["lane"], i["seq"]): i for i in items}
            have = collections.Counter(int(i["title"]) for i in items)
            missing = wanted[user] - set(have)
            lost += len(missing)
            lost_of.update(f"{by_number[n].via} {by_number[n].topic or '-'} {by_number[n].priority}" for n in missing)
            bad += [f"lost: event {n} is not in the inbox of {user}" for n in sorted(missing)[:5]]
            twice = [n for n, count in have.items() if count > 1]
            doubled += len(twice)
            bad += [f"doubled: event {n} is {have[n]} times in the inbox of {user}" for n in twice[:5]]
            extra = set(have) - wanted[user]
            strange += len(extra)
            bad += [f"event {n} in the inbox of {user}, who is no recipient" for n in sorted(extra)[:5]]
            if len({i["id"] for i in items}) != len(items):
                bad.append(f"{user}: two inbox items share an id")
            last = {}
            for item in sorted(items, key=lambda i: i["seq"]):
                data = item.get("data") or {}
                group = (data.get("topic"), item["lane"])
                if data.get("topic") not in (None, "group"):
                    if data["k"] <= last.get(group, 0):
                        bad.append(f"order: {user} {group}: k={data['k']} after {last[group]}")
                    last[group] = max(data["k"], last.get(group, 0))
        report["recipients"] = sum(len(w) for w in wanted.values())
        report["lost"], report["doubled_in_inbox"], report["lost_of"] = lost, doubled, dict(lost_of)
        return inboxes

    def judge_devices(self, report, bad, by_number, inboxes):
        frames = declared = undeclared = unreceived = resets = 0
        for user, index, got, _, sessions, errors in self.devices_done:
            name = f"{user}/d{index}"
            bad += [f"{name}: {e}" for e in errors[:3]]
            asked_of = [asked for _, asked, _ in sessions]
            resets += sum(1 for resumed, asked, _ in sessions if asked and not resumed)
            seen, last = {}, {}
            for session, lane, seq, message, title, _, _ in got:
                frames += 1
                if seq <= last.get((session, lane), 0):
                    bad.append(f"{name}: seq {seq} after {last[session, lane]} in lane {lane} of one connection")
                last[session, lane] = seq
                item = inboxes[user].get((lane, seq))
                if item is None or item["id"] != message or item["title"] != title:
                    bad.append(f"{name}: frame {message} seq {seq} {lane} is not what the inbox holds there")
                if message in seen:
                    asked = asked_of[session] or {}
                    floor = asked.get("seq", 0) if lane == "normal" else asked.get("lanes", {}).get(lane, 0)
                    if index % 2 == 1 and seen[message] == (lane, seq) and seq > floor:
                        declared += 1
                    else:
                        undeclared += 1
                        bad.append(f"{name}: {message} twice (seq {seq} {lane}, session {session}, resumed from {floor})")
                seen[message] = (lane, seq)
            missing = set(inboxes[user]) - set(seen.values())
            unreceived += len(missing)
            if missing:
                bad.append(f"{name}: {len(missing)} messages never came, e.g. {sorted(missing)[:3]}")
        if resets:
            bad.append(f"{resets} resumes were answered by resumed:false")
        report.update(frames=frames, duplicates_declared=declared, duplicates_undeclared=undeclared, unreceived=unreceived,
                      resumes_refused=resets)

    def judge_closes(self, report, bad):
        """A socket closes because its dataplane died, never because a control process did."""
        deaths = [at for at, side in self.kills if side in ("dataplane", "single")]
        closes = 0
        for user, index, _, closed, _, _ in self.devices_done:
            for opened, at, code in closed:
                closes += 1
                if not any(at - CLOSE_WINDOW_S * harness.TIMES <= death <= at for death in deaths):
                    bad.append(f"{user}/d{index}: closed {code} although no dataplane died")
        report["closes"] = closes


def main():
    """By hand: ledger.py [embedded|kafka] EVENTS."""
    engine, events = (sys.argv + ["embedded", "2000"])[1:3]
    with harness.Node(engine=engine) as node:
        ledger = Ledger(node, int(events), users=20, duration=5, kafka_share=0.5 if engine == "kafka" else 0).start()
        try:
            print(json.dumps(ledger.finish(), indent=1))
        finally:
            ledger.close()


if __name__ == "__main__":
    main()
