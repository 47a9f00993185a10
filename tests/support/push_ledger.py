"""The ledger checker for push (DESIGN 9): each accepted (event, device) comes to exactly one end.

A producer names up to hundreds of people an event; the phones lie at belfry-sim, which goes through a script of faults;
somebody kills processes meanwhile. At the end every line of the simulator's record is read: who was sent what, under
which id, and what was answered. What the simulator never took must have another end in the node's own status: device
dead, failed (dead letter), expired, suppressed.

A push that the simulator took twice is legal only where a process died, or a connection ended without an answer (the
declared window, DESIGN 4.4), always under the same id, and is counted.
"""
import array
import asyncio
import collections
import json
import multiprocessing
import os
import pickle
import random
import re
import signal
import tempfile
import threading
import time

import harness
from ledger import HttpLane
from phones import ACCEPTED, Phone, read_line

PRIORITIES = (("critical", 5), ("high", 15), ("normal", 50), ("low", 30))
SIZES = ((1, 50), (10, 25), (50, 15), (200, 10))  # recipients of an event
SHORT_TTL_S, SHORT_TTL_SHARE = 25, 0.03           # these may expire while a provider is away
# Kinds of phones among 20 people: mostly APNs and FCM; the last has two.
PEOPLE = (("ios",),) * 11 + (("android",),) * 7 + (("web",),) + (("ios", "android"),)
DEAD_SHARE = 0.01

KILL_BEFORE_S, KILL_BEHIND_S = 1.0, 2.0  # around a kill, and until the node is ready again: results may be lost
FAULT_BEHIND_S = 6.0                     # an answer that does not come is given up after BF_PUSH_DEADLINE_MS
DEAD_USED_S = 15.0                       # after a dead answer; what was in flight or lay in a dead process has gone by
UNKNOWN = {"reset", "half_open", "stall", "goaway", "outage", "nonsense"}

# provider, from, for (shares of the time in which events come), fault. First what a provider does every day, last what
# opens its breaker.
SCRIPT = [
    ("apns", .05, .08, {"kind": "throttle", "per_s": 60, "retry_after_s": 2}),
    ("fcm", .05, .08, {"kind": "storm", "status": 503, "rate": .3, "retry_after_s": 2}),
    ("webpush", .05, .08, {"kind": "storm", "status": 500, "rate": .3, "retry_after_s": 1}),
    ("apns", .15, .08, {"kind": "storm", "status": 503, "rate": .3, "retry_after_s": 2}),
    ("fcm", .15, .08, {"kind": "throttle", "per_s": 60, "retry_after_s": 2}),
    ("webpush", .15, .08, {"kind": "throttle", "per_s": 5, "retry_after_s": 1}),
    ("apns", .25, .08, {"kind": "goaway", "after_streams": 100, "drop": 3}),
    ("fcm", .25, .08, {"kind": "stream_limit", "limit": 4, "after_streams": 20}),
    ("webpush", .25, .08, {"kind": "refuse_stream", "rate": .1}),
    ("apns", .35, .08, {"kind": "stream_limit", "limit": 4, "after_streams": 20}),
    ("fcm", .35, .08, {"kind": "goaway", "after_streams": 100, "drop": 3}),
    ("webpush", .35, .08, {"kind": "reset", "how": "stream", "rate": .1}),
    ("apns", .45, .08, {"kind": "refuse_stream", "rate": .05}),
    ("fcm", .45, .08, {"kind": "reset", "how": "stream", "rate": .03}),
    ("apns", .55, .05, {"kind": "reset", "how": "mid", "rate": .03}),
    ("fcm", .55, .08, {"kind": "refuse_stream", "rate": .05}),
    ("webpush", .55, .05, {"kind": "reset", "how": "mid", "rate": .1}),
    ("apns", .62, .03, {"kind": "reset", "after_streams": 200}),
    ("fcm", .66, .03, {"kind": "half_open", "after_streams": 100}),
    ("webpush", .66, .05, {"kind": "goaway", "after_streams": 20, "drop": 1}),
    ("apns", .72, .03, {"kind": "half_open", "after_streams": 100}),
    ("fcm", .74, .03, {"kind": "stall", "rate": .02}),
    ("apns", .80, .05, {"kind": "outage", "how": "refuse"}),
    ("webpush", .80, .05, {"kind": "outage", "how": "reset"}),
    ("fcm", .86, .03, {"kind": "nonsense", "after_streams": 100}),
]

Event = collections.namedtuple("Event", "n users priority ttl")


def script(duration, seed):
    """The simulator's faults over |duration| seconds, the dead tokens from a third on."""
    faults = [{"provider": p, "start_s": at * duration, "duration_s": length * duration, **fault}
              for p, at, length, fault in SCRIPT]
    faults += [{"provider": p, "kind": "dead", "rate": DEAD_SHARE, "start_s": duration / 3, **more} for p, more in (
        ("apns", {"timestamp_ms": 4102444800000}), ("fcm", {}), ("webpush", {"status": 410, "reason": "Gone"}))]
    latency = {p: {"min_ms": 1, "max_ms": 20} for p in ("apns", "fcm", "webpush")}
    return {"seed": seed, "latency": latency, "faults": faults}


def unknown_windows(began, duration):
    """provider -> [(from, to)]: when an answer may have got lost on its way."""
    out = collections.defaultdict(list)
    for provider, at, length, fault in SCRIPT:
        if fault["kind"] in UNKNOWN:
            out[provider].append((began + at * duration - .5, began + (at + length) * duration + FAULT_BEHIND_S))
    return out


def plan(pushes, people, seed):
    """Events for at least this many pushes; |people|: the phones that each has, by number."""
    dice = random.Random(seed)
    names, weights = zip(*PRIORITIES)
    sizes, shares = zip(*SIZES)
    everyone = range(len(people))
    out, total = [], 0
    while total < pushes:
        size = min(dice.choices(sizes, shares)[0], len(people))
        users = [dice.randrange(len(people))] if size == 1 else dice.sample(everyone, size)
        ttl = SHORT_TTL_S if dice.random() < SHORT_TTL_SHARE else None
        out.append(Event(len(out), users, dice.choices(names, weights)[0], ttl))
        total += sum(len(people[user]) for user in users)
    return out


def body_of(event):
    body = {"type": "ledger", "title": f"number {event.n}", "priority": event.priority, "channels": ["push"],
            "data": {"n": event.n}}
    if event.ttl:
        body["ttl"] = event.ttl
    names = [f"u{user}" for user in event.users]
    return {**body, "recipients": names} if len(names) > 1 else {**body, "user_id": names[0]}


def produce(api, key, events, connections, duration, out):
    """A process: all events over keep-alive connections, paced over |duration| seconds."""
    started, last = time.monotonic(), len(events)

    async def pace(event):
        wait = started + duration * event.n / last - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)

    async def everything():
        lanes = [HttpLane(api, key, events[i::connections], accepted, trouble, pace, "push", body_of)
                 for i in range(connections)]
        await asyncio.gather(*(lane.run() for lane in lanes))
    accepted, trouble = [], collections.Counter()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(everything())
    with open(out, "wb") as f:
        pickle.dump((accepted, trouble, time.monotonic() - started), f)


# ---- the judge --------------------------------------------------------------------------------------

class Judge:
    """Reads the record line by line, then judges every pair (event, phone).

    phones: objects with kind, token and subscription; people: the numbers of each user's phones; times are told
    from |began| on.
    """

    def __init__(self, events, people, phones, began=0.0):
        self.events, self.people, self.phones, self.began = events, people, phones, began
        self.number_of = {(phone.kind, phone.token): i for i, phone in enumerate(phones)}
        self.pair_of, self.pairs = {}, []
        for event in events:
            for user in event.users:
                for phone in people[user]:
                    self.pair_of[event.n, phone] = len(self.pairs)
                    self.pairs.append((event.n, user, phone))
        count = len(self.pairs)
        self.attempts = array.array("H", bytes(2 * count))
        self.taken = array.array("d", bytes(8 * count))  # when the simulator accepted it, 0: not
        self.again = []                                  # (pair, when): accepted once more
        self.history = collections.defaultdict(list)     # pair -> [(when, status)]: not accepted so far
        self.ids = [None] * count
        self.owner = set()
        self.died = {}                                   # phone -> first dead answer
        self.bad = []
        self.lines = self.used_dead = 0
        self.statuses = collections.Counter()

    def say(self, text):
        self.bad.append(text)

    def feed(self, text):
        line = read_line(text)
        if line["provider"] == "oauth":
            return
        phone = self.number_of.get((line["provider"], line["token"]))
        if phone is None:
            self.say(f"a push to a token that nobody registered: {text[:300]}")
            return
        n, message_id = self.message(line, phone)
        pair = self.pair_of.get((n, phone))
        if pair is None:
            self.say(f"event {n} was pushed to phone {phone}, which is none of its recipients'")
            return
        self.take(pair, phone, message_id, line)

    def message(self, line, phone):
        """Number of the event, and id of the message, as the app finds them."""
        if line["provider"] == "webpush":
            tree = json.loads(self.phones[phone].subscription.open(line["payload"].encode("latin-1")))
            return tree["data"]["n"], tree["id"]
        n = int(re.search(r'"n":"?(\d+)', line["payload"]).group(1))
        if line["provider"] == "apns":
            return n, line["id"]
        return n, re.search(r'"belfry_id":"([^"]+)"', line["payload"]).group(1)

    def take(self, pair, phone, message_id, line):
        at, status = line["t"] / 1e6, line["status"]
        self.lines += 1
        self.statuses[f"{line['provider']} {status}"] += 1
        if self.attempts[pair] < 65535:
            self.attempts[pair] += 1
        if self.ids[pair] is None:
            self.ids[pair] = message_id
            if message_id in self.owner:
                self.say(f"id {message_id} is of two pairs, one of them {self.pairs[pair]}")
            self.owner.add(message_id)
        elif self.ids[pair] != message_id:
            self.say(f"{self.pairs[pair]} was sent as {self.ids[pair]} and as {message_id}")
        if status in ACCEPTED:
            if self.taken[pair]:
                self.again.append((pair, at))
            else:
                self.taken[pair] = at
                self.history.pop(pair, None)
        elif not self.taken[pair]:
            self.history[pair].append((at, status))
        if status in (404, 410):
            self.died.setdefault(phone, at)
        if phone in self.died and at > self.died[phone] + DEAD_USED_S:
            self.used_dead += 1
            self.say(f"phone {phone} was used {at - self.died[phone]:.1f} s after it was found dead")

    # -- why twice
    def explain(self, pair, kills, windows):
        """dataplane or ctrlplane (what died then), fault or None: why what was accepted then could be sent again."""
        at = self.taken[pair]
        kind = self.phones[self.pairs[pair][2]].kind
        if any(start <= at <= end for start, end in windows.get(kind, ())):
            return "fault"
        dead = {side for down, up, side in kills
                if down - KILL_BEFORE_S <= at <= max(down + KILL_BEHIND_S, up + KILL_BEFORE_S)}
        return "dataplane" if "dataplane" in dead else "ctrlplane" if dead else None

    def judge_doubles(self, report, kills, windows):
        doubles = collections.Counter({"dataplane": 0, "ctrlplane": 0, "fault": 0, "unexplained": 0})
        for pair, at in self.again:
            why = self.explain(pair, kills, windows)
            doubles[why or "unexplained"] += 1
            if not why:
                self.say(f"{self.pairs[pair]} was accepted at {self.taken[pair]:.3f} and again at {at:.3f}: nothing explains it")
        report["duplicates"] = dict(doubles)

    # -- what was not taken
    def judge_ends(self, report, channels_of):
        """channels_of(n, users) -> {user: the push channel in the status, or None}."""
        ends = collections.Counter()
        open_pairs = collections.defaultdict(list)
        for pair, (n, user, phone) in enumerate(self.pairs):
            if self.taken[pair]:
                ends["accepted"] += 1
            else:
                open_pairs[n].append((pair, user, phone))
        for n, rows in open_pairs.items():
            channels = channels_of(n, {user for _, user, _ in rows})
            for pair, user, phone in rows:
                end = self.end_of(channels.get(user), user, phone)
                ends[end] += 1
                if end == "lost":
                    tries = [(round(at - self.began, 2), status) for at, status in self.history[pair]]
                    self.say(f"lost: event {n}, {self.phones[phone].kind} phone {phone} of u{user}: answers {tries}, "
                             f"status {channels.get(user)}")
        report["ends"] = dict(ends)
        report["lost"] = ends["lost"]

    def end_of(self, channel, user, phone):
        """The end of a push that no provider took. A person's other phone may have ended otherwise."""
        said = [a["status"] for a in channel["attempts"]] if channel else []
        if channel and "expired" in said:
            return "expired"
        if channel and "suppressed" in said and any(p in self.died for p in self.people[user]):
            return "no_device"
        if phone in self.died:
            return "dead"
        if channel and "failed" in said:
            return "failed"
        return "lost"

    def judge_status(self, report, kills, windows, channels_of, sample):
        """One terminal outcome in the node's own books for each phone of somebody who has one."""
        looked = 0
        for n in sample:
            event = self.events[n]
            single = [user for user in event.users if len(self.people[user]) == 1]
            channels = channels_of(n, set(single))
            for user in single:
                pair = self.pair_of[n, self.people[user][0]]
                said = [a["status"] for a in (channels.get(user) or {"attempts": []})["attempts"]]
                ended = [s for s in said if s in ("sent", "delivered", "failed", "expired", "suppressed")]
                looked += 1
                if len(ended) != 1:
                    self.say(f"event {n} of u{user} has {len(ended)} ends in its status: {said}")
                elif (ended[0] in ("sent", "delivered")) != bool(self.taken[pair]) and not (
                        self.taken[pair] and self.explain(pair, kills, windows)):  # its answer was lost: it cannot know
                    self.say(f"event {n} of u{user}: the status says {ended[0]}, the provider took it: {bool(self.taken[pair])}")
        report["statuses_looked_at"] = looked

    def verdict(self, kills, windows, channels_of, sample=()):
        report = {"events": len(self.events), "pushes": len(self.pairs), "requests": self.lines,
                  "answers": dict(sorted(self.statuses.items())), "kills": dict(collections.Counter(k[2] for k in kills)),
                  "phones_dead": len(self.died), "used_dead": self.used_dead,
                  "attempts_most": max(self.attempts, default=0)}
        self.judge_doubles(report, kills, windows)
        self.judge_ends(report, channels_of)
        self.judge_status(report, kills, windows, channels_of, sample)
        report["ok"], report["violation_count"], report["violations"] = not self.bad, len(self.bad), self.bad[:30]
        return report


# ---- the run ----------------------------------------------------------------------------------------

class PushLedger:
    """people: how many users. Registers them and their phones, then start(), kill(), finish()."""

    def __init__(self, node, pushes, people=1500, duration=60, seed=1, connections=16):
        self.node, self.duration, self.seed, self.connections = node, duration, seed, connections
        self.phones, self.people = [], []
        for user in range(people):
            apps = PEOPLE[user % len(PEOPLE)]
            self.people.append(list(range(len(self.phones), len(self.phones) + len(apps))))
            self.phones += [Phone(node, f"u{user}", app) for app in apps]
        self.events = plan(pushes, self.people, seed)
        self.kills = []  # (from, to, side), wall
        self.directory = tempfile.TemporaryDirectory(prefix="belfry-push-ledger-")
        self.producer = None

    def register(self, threads=4):
        def some(first):
            for user in range(first, len(self.people), threads):
                self.node.put_user(f"u{user}")
                for phone in self.people[user]:
                    self.phones[phone].register()
        workers = [threading.Thread(target=some, args=(i,)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(phone.id for phone in self.phones), "every phone is registered"

    def start(self):
        self.register()
        status, text = self.node.providers.control("POST", "/faults", script(self.duration, self.seed))
        assert status == 200, text
        self.began = time.time()
        self.out = os.path.join(self.directory.name, "accepted")
        self.producer = multiprocessing.get_context("fork").Process(
            target=produce, args=(self.node.info["api"], self.node.key, self.events, self.connections, self.duration, self.out))
        self.producer.start()
        return self

    def kill(self, *sides):
        """Kills; `restarted` says when the node was ready again."""
        at = time.time()
        for side in sides:
            os.kill(self.node.pid(side), signal.SIGKILL)
        for side in sides:
            harness.until(lambda s=side: not self.node.is_alive(s), 10, f"{side} is gone", poll=0.002)
        self.kills += [(at, at, side) for side in sides]

    def restarted(self):
        now = time.time()
        self.kills = [(at, now if at == up else up, side) for at, up, side in self.kills]

    def depth(self):
        """Rows of the push queue, and what the workers have in hand."""
        metrics = self.node.metrics()
        queued = self.node.metric("belfry_push_queue_depth", metrics)
        return queued + self.node.metric("belfry_dataplane_push_in_flight", metrics) + self.node.metric(
            "belfry_dataplane_push_waiting", metrics)

    def finish(self, seconds):
        """Waits until everything was accepted, then until nothing waits any more; returns the report."""
        harness.until(lambda: not self.producer.is_alive(), self.duration + 60, "all events are accepted", poll=0.1)
        self.producer.join()
        with open(self.out, "rb") as f:
            accepted, trouble, produced_s = pickle.load(f)
        self.ids = dict(accepted)
        self.drain(seconds)
        drained_s = time.time() - self.began
        self.node.providers.control("GET", "/record?tail=1")  # answers when all of it is in the file
        judge = Judge(self.events, self.people, self.phones, self.began)
        with open(self.node.providers.record_file, "rb") as f:
            for line in f:
                judge.feed(line)
        for event in self.events:
            if event.n not in self.ids:
                judge.say(f"event {event.n} was never accepted")
        sample = random.Random(self.seed).sample(range(len(self.events)), min(2000, len(self.events)))
        report = judge.verdict(self.kills, unknown_windows(self.began, self.duration), self.channels_of, sample)
        report.update(producer_trouble={str(k): v for k, v in trouble.items()}, produced_s=round(produced_s, 1),
                      drained_s=round(drained_s, 1), left_in_queue=int(self.depth()), seed=self.seed,
                      killed=[(round(at - self.began, 2), round(up - self.began, 2), side) for at, up, side in self.kills])
        return report

    def drain(self, seconds):
        """Until the queue and the workers' hands are empty, for a second."""
        empty_since = None
        deadline = time.monotonic() + seconds * harness.TIMES
        while time.monotonic() < deadline:
            if self.depth() > 0:
                empty_since = None
            else:
                empty_since = empty_since or time.monotonic()
                if time.monotonic() - empty_since > 1.0:
                    return
            time.sleep(0.1)

    def channels_of(self, n, users):
        names = {f"u{user}": user for user in users}
        answer = self.node.request("GET", f"/v1/notifications/{self.ids[n]}/status", timeout=60)
        if answer.status != 200:
            return {}
        return {names[r["user_id"]]: next((c for c in r["channels"] if c["channel"] == "push"), None)
                for r in answer.json["recipients"] if r["user_id"] in names}

    def close(self):
        if self.producer and self.producer.is_alive():
            self.producer.terminate()
        self.directory.cleanup()
