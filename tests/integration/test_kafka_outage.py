"""The broker goes away and comes back: the node heals by itself, says the truth meanwhile, and loses nothing accepted.

Each outage has events accepted before it, tried during it and accepted after it. A ledger holds what was answered: a
202 is in the inbox exactly once; a 503 that was sent again with its Idempotency-Key once; a 503 that nobody repeated
at most once (the answer said that it was not accepted, and the record may have reached the broker all the same).

Outages of 1 s and 25 s always run; BELFRY_OUTAGE_SECONDS="45 300" adds others.
"""
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time

import harness
import pytest
from harness import TIMES, until

KAFKA = str(harness.ROOT / "tests/support/kafka/kafka")
USERS = 5
LONG = [int(s) for s in os.environ.get("BELFRY_OUTAGE_SECONDS", "").split()]
# What a caller may wait for an answer while the broker is away (the bar), stretched on slow machines.
ANSWER_S = 2.0 * max(1.0, TIMES)
CONFIG = {"users": {"auto_create": True}}


def broker(node, sig):
    os.kill(int((node.state / "kafka/pid").read_text()), sig)


def kill_broker(node):
    pid = int((node.state / "kafka/pid").read_text())
    os.kill(pid, signal.SIGKILL)
    until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or "Z" in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0],
          10, "the broker is gone")


def start_broker(node):
    subprocess.run([KAFKA, "start", "--dir", str(node.state / "kafka")], check=True, capture_output=True)


class Ledger(threading.Thread):
    """Posts an event every few milliseconds, for ever; each third refused one is sent again until it is taken."""

    def __init__(self, node, pause=0.03):
        super().__init__(daemon=True)
        self.node, self.pause, self.stopping = node, pause, threading.Event()
        self.accepted, self.refused, self.slowest, self.odd = set(), set(), 0.0, []
        self.n = 0

    def post(self, title):
        started = time.monotonic()
        answer = self.node.request("POST", "/v1/notifications", {"type": "t", "title": title, "user_id": f"u{self.n % USERS}"},
                                   headers={"Idempotency-Key": title}, timeout=60)
        self.slowest = max(self.slowest, time.monotonic() - started)
        if answer.status == 202:
            self.accepted.add(title)
            return True
        if answer.status != 503 or int(answer.headers["Retry-After"]) < 1 or \
                answer.headers.get_content_type() != "application/problem+json":
            self.odd.append(answer)
        return False

    def run(self):
        again = []
        while not self.stopping.is_set():
            self.n += 1
            title = f"e{self.n}"
            if not self.post(title):
                self.refused.add(title)
                if self.n % 3 == 0:
                    again.append((self.n, title))
            elif again:
                n, title = again.pop()
                now, self.n = self.n, n  # to the user that it was for
                if self.post(title):
                    self.refused.discard(title)
                else:
                    again.append((n, title))
                self.n = now
            time.sleep(self.pause)

    def finish(self):
        self.stopping.set()
        self.join(60)

    def counts(self):
        """How often each title is in the inboxes."""
        seen = {}
        for user in range(USERS):
            for item in self.node.inbox(f"u{user}"):
                seen[item["title"]] = seen.get(item["title"], 0) + 1
        return seen

    def judge(self, others=()):
        wanted = self.accepted | set(others)
        until(lambda: wanted <= set(self.counts()), 60, "all that was accepted is in the inboxes")
        seen = self.counts()
        assert not self.odd, self.odd[:3]
        doubled = {t: n for t, n in seen.items() if n > 1}
        assert not doubled, doubled
        assert set(seen) <= wanted | self.refused, "nothing but what was sent"
        return len(self.accepted), len(self.refused), len(set(seen) & self.refused)


def takes(node, title, user="u0"):
    return node.request("POST", "/v1/notifications", {"type": "t", "title": title, "user_id": user},
                        headers={"Idempotency-Key": title}, timeout=60).status == 202


def foreign(node, name, count=20):
    """Events that another program puts on Kafka: they show that the node reads again."""
    titles = [f"{name}-{i}" for i in range(count)]
    node.produce("belfry.events.social", [(f"u{i % USERS}", {"type": "t", "title": t, "user_id": f"u{i % USERS}", "id": t,
                                                             "source": "test"}) for i, t in enumerate(titles)])
    return titles


def is_reading(node, metrics=None):
    return node.metric("belfry_log_reads", metrics) == 1


def outage(node, seconds):
    """The whole of it; returns the ledger's numbers."""
    ledger = Ledger(node)
    pid = node.pid("ctrlplane")
    ledger.start()
    until(lambda: len(ledger.accepted) > 20, 20, "events are accepted before it")
    others = foreign(node, "before")
    kill_broker(node)
    ended = time.monotonic() + seconds
    until(lambda: ledger.refused, 20, "events are refused while the broker is away")
    until(lambda: not node.is_ready(), 10, "a node that reads nothing is not ready")
    assert node.admin("GET", "/healthz").status == 200, "nothing is wrong with the process: no restart would help"
    metrics = node.metrics()
    assert not is_reading(node, metrics)
    lag = node.metric("belfry_log_lag_events", metrics)
    assert lag != lag, f"the lag is not known, but it says {lag}"
    while time.monotonic() < ended:  # the outage itself is the subject: time must pass
        assert node.is_alive("ctrlplane")
        time.sleep(0.2)
    start_broker(node)
    until(lambda: takes(node, "healed"), 60, "events are taken again")
    others += foreign(node, "after")
    node.wait_ready(60)
    until(lambda: is_reading(node), 60, "and read")
    until(lambda: len(ledger.accepted) > 60, 60, "events are accepted after it")
    ledger.finish()
    numbers = ledger.judge(others + ["healed"])
    assert node.pid("ctrlplane") == pid and node.is_alive("ctrlplane"), "it healed in place"
    assert ledger.slowest <= ANSWER_S, f"an answer took {ledger.slowest:.1f} s"
    until(lambda: node.metric("belfry_log_lag_events") == 0, 30, "the lag is known again, and 0")
    said = [line for line in (node.state / "ctrlplane.log").read_text().splitlines() if " kafka: " in line]
    assert len(said) <= 30 + seconds, said  # some lines a minute for each client, not several a second
    return (*numbers, ledger.slowest)


@pytest.mark.parametrize("seconds", [25, *LONG])
def test_outage(seconds):
    with harness.Node(engine="kafka", config=CONFIG) as node:
        accepted, refused, landed, slowest = outage(node, seconds)
        print(f"outage of {seconds} s: {accepted} accepted, {refused} refused, {landed} of them landed, slowest {slowest:.2f} s")


def test_first_post_into_an_outage_answers_soon():
    """The broker hangs, or is killed, and the very first request finds it so."""
    with harness.Node(engine="kafka", config=CONFIG) as node:
        until(lambda: takes(node, "one"), 10, "a node that works")
        for how in (signal.SIGSTOP, signal.SIGKILL):
            broker(node, how)
            started = time.monotonic()
            answer = node.request("POST", "/v1/notifications", {"type": "t", "title": how.name, "user_id": "u0"},
                                  headers={"Idempotency-Key": how.name}, timeout=60)
            took = time.monotonic() - started
            assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1, answer
            assert took <= ANSWER_S, f"{how.name}: {took:.1f} s"
            if how == signal.SIGSTOP:
                broker(node, signal.SIGCONT)
            else:
                start_broker(node)
            # the record of the first try may have reached the broker: with the same key it is one event all the same
            until(lambda: takes(node, how.name), 60, "taken again")
            node.wait_ready(60)
        titles = [i["title"] for i in node.stored("u0", 3, seconds=30)]
        assert sorted(titles) == ["SIGKILL", "SIGSTOP", "one"], titles


def test_a_blip_of_a_second_is_not_seen():
    """A broker that pauses for a second: everything is accepted, nobody sees an unready node."""
    with harness.Node(engine="kafka", config=CONFIG) as node:
        ledger = Ledger(node)
        ledger.start()
        until(lambda: len(ledger.accepted) > 20, 20, "events are accepted before it")
        states = []
        broker(node, signal.SIGSTOP)
        ended = time.monotonic() + 1
        try:
            while time.monotonic() < ended:
                states.append(node.is_ready())
                time.sleep(0.05)
        finally:
            broker(node, signal.SIGCONT)
        before = len(ledger.accepted)
        until(lambda: len(ledger.accepted) > before + 20, 20, "events are accepted after it")
        ledger.finish()
        ledger.judge(foreign(node, "after"))
        assert all(states), "a short pause makes nobody send people elsewhere"


# ---- fatal states of each client, as librdkafka itself reports them -------------------------------------

@pytest.mark.parametrize("point", ["kafka_consumer_fatal:100", "kafka_producer_fatal:30"])
def test_a_client_in_a_fatal_state_is_made_anew(point):
    """librdkafka calls it fatal (fenced, out of sequence): only another client helps. The process stays."""
    with harness.Node(engine="kafka", config=CONFIG, env={"BELFRY_FAULT": point}) as node:
        pid = node.pid("ctrlplane")
        ledger = Ledger(node)
        ledger.start()
        until(lambda: node.metric("belfry_log_clients_renewed") == 1, 60, "a client is made anew")
        before = len(ledger.accepted)
        until(lambda: len(ledger.accepted) > before + 30, 30, "events are accepted after it")
        others = foreign(node, "after")
        until(lambda: node.is_ready() and is_reading(node), 30, "ready and reading again")
        ledger.finish()
        ledger.judge(others)
        assert node.pid("ctrlplane") == pid and node.is_alive("ctrlplane") and node.admin("GET", "/healthz").status == 200
        assert node.metric("belfry_log_clients_renewed") == 1, "once is enough"


@pytest.mark.parametrize("point", ["kafka_blog_fatal:3", "kafka_mirror_fatal:20"])
def test_the_broadcast_log_s_clients_are_made_anew(point):
    with harness.Node(engine="kafka", config=CONFIG, env={"BELFRY_FAULT": point}) as node, node.client("u0", device="d") as client:
        def broadcast(title):
            assert node.request("POST", "/v1/notifications", {"type": "t", "title": title, "broadcast": True}).status == 202
            return client.expect("b", title=title, seconds=30)["bseq"]
        seqs = [broadcast(f"b{i}") for i in range(4)]
        until(lambda: node.metric("belfry_log_clients_renewed") == 1, 60, "a client is made anew")
        seqs += [broadcast(f"c{i}") for i in range(4)]
        assert seqs == sorted(set(seqs)), "one order, each once"
        client.quiet()


def test_a_broadcast_into_an_outage_waits():
    """It was accepted, so it goes out when the broker is back; the process does not end over it."""
    with harness.Node(engine="kafka", config=CONFIG) as node, node.client("u0", device="d") as client:
        pid = node.pid("ctrlplane")
        node.produce("belfry.events.social", [("k", {"type": "t", "title": f"b{i}", "broadcast": True}) for i in range(50)])
        client.expect("b", seconds=30)
        kill_broker(node)
        until(lambda: not node.is_ready(), 20, "not ready")
        time.sleep(6)  # longer than one append to the broadcast log is tried for
        assert node.is_alive("ctrlplane")
        start_broker(node)
        node.wait_ready(60)
        node.produce("belfry.events.social", [("k", {"type": "t", "title": "last", "broadcast": True})])
        titles = ["b"]
        while titles[-1] != "last":
            titles.append(client.expect("b", seconds=60)["title"])
        assert len(set(titles)) == len(titles) == 51, "each once"
        assert node.pid("ctrlplane") == pid and node.is_alive("ctrlplane")


# ---- topics made anew --------------------------------------------------------------------------------------

def remake(node, topic, partitions):
    brokers = node.info["kafka"]
    node.kafka_tool("delete", brokers, topic)
    until(lambda: subprocess.run([str(harness.BUILD / "kafka_tool"), "topics", brokers, f"{topic}:{partitions}"],
                                 capture_output=True).returncode == 0, 30, "the topic is made anew")


def nameless(node, titles, topic="belfry.events.social", user="u0"):
    """Events without an id of their own: told apart by where they lie."""
    node.produce(topic, [(user, {"type": "t", "title": t, "user_id": user}) for t in titles])
    return titles


def test_a_topic_made_anew_is_read_from_its_beginning():
    """Deleted and created while the node runs: its offsets begin again, its events are other events."""
    with harness.Node(engine="kafka", config=CONFIG) as node:
        pid = node.pid("ctrlplane")
        wanted = nameless(node, [f"first-{i}" for i in range(30)])
        node.put_user("u0")
        until(lambda: len(node.inbox("u0")) == 30, 30, "the first topic's events")
        assert takes(node, "over http", user="u0")
        wanted.append("over http")
        for round_ in range(2):
            remake(node, "belfry.events.social", 4)
            wanted += nameless(node, [f"round-{round_}-{i}" for i in range(12)])  # the same offsets as before
            until(lambda: takes(node, f"http-{round_}", user="u0"), 60, "the API's events are taken on the new topic")
            wanted.append(f"http-{round_}")
            until(lambda: len(node.inbox("u0")) >= len(wanted), 90, "all events of the new topic")
            assert sorted(i["title"] for i in node.inbox("u0")) == sorted(wanted)
            node.wait_ready(60)
        node.restart("ctrlplane")  # and nothing comes twice after a restart
        wanted += nameless(node, ["last"])
        until(lambda: len(node.inbox("u0")) >= len(wanted), 60, "the last one")
        assert sorted(i["title"] for i in node.inbox("u0")) == sorted(wanted)
        assert pid != node.pid("ctrlplane")


def test_a_broadcast_topic_made_anew_goes_on_above_the_head():
    with harness.Node(engine="kafka", config=CONFIG) as node, node.client("u0", device="d") as client:
        def broadcast(title):
            until(lambda: node.request("POST", "/v1/notifications", {"type": "t", "title": title, "broadcast": True},
                                       headers={"Idempotency-Key": title}).status == 202, 30, "taken")
            return client.expect("b", title=title, seconds=60)["bseq"]
        seqs = [broadcast(f"b{i}") for i in range(5)]
        remake(node, "belfry.broadcast", 1)
        seqs += [broadcast(f"c{i}") for i in range(3)]
        assert seqs == sorted(set(seqs)), seqs
        node.restart("ctrlplane")
        seqs.append(broadcast("after a restart"))
        assert seqs == sorted(set(seqs)), seqs


def test_records_lost_to_retention_are_told():
    """A partition whose unread records Kafka has deleted goes on at what is left, and says how many are gone."""
    with harness.Node(engine="kafka", config=CONFIG) as node:
        node.put_user("u0")
        nameless(node, ["a"])
        node.stored("u0", 1, seconds=30)
        until(lambda: '"lag":0' in node.kafka_tool("lag", node.info["kafka"], "belfry", "belfry.events.social"), 20, "committed")
        node.kill("ctrlplane")
        nameless(node, [f"lost-{i}" for i in range(10)])
        delete_records(node, "belfry.events.social")
        nameless(node, ["left"])
        node.restart("ctrlplane")
        until(lambda: [i["title"] for i in node.inbox("u0")] == ["left", "a"], 60, "what is left is read")
        assert node.metric("belfry_log_records_lost") == 10 and node.metric("belfry_log_places_lost") == 1
        assert "retention has deleted" in (node.state / "ctrlplane.log").read_text()


def delete_records(node, topic):
    node.kafka_tool("truncate", node.info["kafka"], topic)


# ---- transactions ---------------------------------------------------------------------------------------------

def test_aborted_records_are_no_lag_and_are_passed():
    """What a producer takes back, and the marks that Kafka writes for it, are no events: no lag, no repetition."""
    with harness.Node(engine="kafka", config=CONFIG) as node:
        brokers, topic = node.info["kafka"], "belfry.events.social"

        def transact(end, titles):
            lines = "".join(f'u0\t{{"type":"t","title":"{t}","user_id":"u0"}}\n' for t in titles)
            node.kafka_tool("transact", brokers, topic, end, stdin=lines)
        node.put_user("u0")
        transact("commit", ["one", "two"])
        transact("abort", [f"taken back {i}" for i in range(7)])
        node.stored("u0", 2, seconds=30)
        until(lambda: node.metric("belfry_log_lag_events") == 0, 20, "no lag is left")
        until(lambda: '"lag":0' in node.kafka_tool("lag", brokers, "belfry", topic), 20, "and the group's offset is behind it")
        node.restart("ctrlplane")
        transact("abort", ["taken back too"])
        transact("commit", ["three"])
        until(lambda: len(node.inbox("u0")) >= 3, 30, "events go on")
        assert sorted(i["title"] for i in node.inbox("u0")) == ["one", "three", "two"]
        until(lambda: '"lag":0' in node.kafka_tool("lag", brokers, "belfry", topic), 20, "and so does the offset")


# ---- a broker that lives and cannot be reached ----------------------------------------------------------------

class Door(threading.Thread):
    """Stands between the node and the broker: open, or shut (connections are cut, new ones refused)."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.to, self.pairs, self.listener, self.lock = port, None, set(), None, threading.Lock()
        self.open()

    def open(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.listener = listener

    def shut(self):
        with self.lock:
            listener, self.listener = self.listener, None
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for pair in list(self.pairs):
                for end in pair:
                    self.cut(end)

    def run(self):
        while True:
            listener = self.listener
            if listener is None:
                time.sleep(0.02)
                continue
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                time.sleep(0.02)
                continue
            with self.lock:
                self.pairs.add((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(a, b, (near, far)), daemon=True).start()

    @staticmethod
    def cut(end):
        """Ends both directions of a connection, which its other side may have ended a moment ago."""
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def pump(self, a, b, pair):
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        with self.lock:
            self.pairs.discard(pair)
        self.cut(a)
        self.cut(b)


def free_port():
    """Below the ephemeral range: no outgoing connection takes it while the door is shut."""
    while True:
        port = random.SystemRandom().randrange(15000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def test_broker_restarted_with_its_port_refused_for_a_while(tmp_path):
    """The broker is back, and for some seconds nobody gets to it: refused at once, then as if nothing had been."""
    door = Door(free_port())
    started = subprocess.run([KAFKA, "start", "--dir", str(tmp_path), "--advertise", str(door.port), "--told-only"],
                             capture_output=True, text=True)
    door.to = int((tmp_path / "port").read_text())
    assert started.returncode == 0, started.stderr
    door.start()
    try:
        subprocess.run([KAFKA, "start", "--dir", str(tmp_path)], check=True, capture_output=True)
        with harness.Node(engine="kafka", config=harness.merge(CONFIG, {"log": {"kafka": {"brokers": f"127.0.0.1:{door.port}"}}})) as node:
            node.info["kafka"] = f"127.0.0.1:{door.port}"
            ledger = Ledger(node)
            ledger.start()
            until(lambda: len(ledger.accepted) > 20, 20, "events are accepted before it")
            others = foreign(node, "before")
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            door.shut()
            until(lambda: ledger.refused, 20, "events are refused")
            restarted = subprocess.run([KAFKA, "start", "--dir", str(tmp_path), "--told-only"], capture_output=True)
            assert restarted.returncode == 0
            ended = time.monotonic() + 8  # it is there, and refused: time must pass
            while time.monotonic() < ended:
                assert not takes(node, f"shut-{time.monotonic()}") and node.is_alive("ctrlplane")
                time.sleep(0.3)
            assert not node.is_ready()
            door.open()
            until(lambda: takes(node, "healed"), 60, "events are taken again")
            others += foreign(node, "after")
            node.wait_ready(60)
            before = len(ledger.accepted)
            until(lambda: len(ledger.accepted) > before + 20, 30, "and accepted")
            ledger.finish()
            seen = set(ledger.counts())
            ledger.refused |= {t for t in seen if t.startswith("shut-")}  # refused, and landed: at most once each
            ledger.judge(others + ["healed"])
            assert ledger.slowest <= ANSWER_S, f"an answer took {ledger.slowest:.1f} s"
    finally:
        subprocess.run([KAFKA, "stop", "--dir", str(tmp_path)], check=False)
