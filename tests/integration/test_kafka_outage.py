"""The broker goes away and comes back: the node heals by itself, says the truth meanwhile, and loses nothing accepted.

Each outage has events accepted before it, tried during it and accepted after it. A ledger holds what was answered: a
202 is in the inbox exactly once; a 503 that was sent again with its Idempotency-Key once; a 503 that nobody repeated
at most once (the answer said that it was not accepted, and the record may have reached the broker all the same).

Outages of 1 s and 25 s always run; BELFRY_OUTAGE_SECONDS="45 300" adds others.
"""
import os
import pathlib
import signal
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
