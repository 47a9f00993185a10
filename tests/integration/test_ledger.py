"""Ledger tests: kill -9 of anything at random instants while events flow; nothing lost, nothing doubled.

REL-1, REL-7; DESIGN 4.1, 4.2, 4.4, 4.6, 4.10. The seed is printed and BELFRY_SEED repeats it.
BELFRY_LEDGER_EVENTS (50000 an engine: 100,000 together), BELFRY_LEDGER_KILLS (12 an engine: 24 together)
and BELFRY_LEDGER_SECONDS (60) size the run.
"""
import json
import os
import random
import signal
import subprocess
import time

import harness
import pytest
from ledger import Ledger, one_kill

EVENTS = int(os.environ.get("BELFRY_LEDGER_EVENTS", "50000"))
KILLS = int(os.environ.get("BELFRY_LEDGER_KILLS", "12"))
SECONDS = float(os.environ.get("BELFRY_LEDGER_SECONDS", "60"))
SEED = int(os.environ.get("BELFRY_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def restart_broker(node):
    kafka = node.state / "kafka"
    pid = int((kafka / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    done = subprocess.run([str(harness.ROOT / "tests/support/kafka/kafka"), "start", "--dir", str(kafka)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["embedded", "kafka"])
def test_nothing_lost_under_kills(engine):
    dice = random.Random(SEED)
    print(f"seed {SEED}")
    # each start of the control process takes EAL heap for good: room for all of them
    with harness.Node(engine=engine, config={"shm": {"attaches_max": 200}}) as node:
        ledger = Ledger(node, EVENTS, users=100, devices=2, duration=SECONDS, seed=SEED,
                        kafka_share=0.5 if engine == "kafka" else 0.0).start()
        try:
            broker_at = KILLS // 2 if engine == "kafka" else None
            for number in range(KILLS):
                time.sleep(dice.uniform(0.2, max(0.4, 1.6 * SECONDS / KILLS - 1.0)))  # the random instant
                if number == broker_at:
                    restart_broker(node)
                one_kill(ledger, node, dice)
            report = ledger.finish()
            report["metrics"] = {name: node.metric(name) for name in (
                "belfry_dataplane_commands_bad_slot", "belfry_dataplane_wakes_by_timeout",
                "belfry_receipts_wakes_by_timeout")}
            report["seed"], report["engine"] = SEED, engine
            if engine == "kafka":
                topics = [f"belfry.events.{t}" for t in ("transactional", "social", "marketing")]
                report["lag"] = json.loads(node.kafka_tool("lag", node.info["kafka"], "belfry", *topics))
            print(json.dumps(report, indent=1))
            out = os.environ.get("BELFRY_LEDGER_REPORT")
            if out:
                with open(out, "a") as f:
                    f.write(json.dumps(report) + "\n")
            assert report["ok"], json.dumps(report, indent=1)
            assert report["kills"].get("ctrlplane", 0) + report["kills"].get("dataplane", 0) >= KILLS
            assert all(value == 0 for value in report["metrics"].values()), report["metrics"]
        finally:
            ledger.close()


def test_the_checker_sees_what_is_wrong():
    """The judge itself: a lost, a doubled, a reordered, a strange event and an undeclared repeat are all found."""
    from ledger import Event

    class FakeNode:
        def inbox(self, user):
            return self.items

    def judged(items, frames, closes=(), index=0, sessions=((False, None, {}),)):
        ledger = Ledger.__new__(Ledger)
        ledger.node, ledger.users, ledger.kills, ledger.trouble, ledger.feed = FakeNode(), 1, [], {}, None
        ledger.events = [Event(n, ["u0"], "a", "normal", n, "http") for n in (1, 2)]
        ledger.accepted = {1: "x", 2: "y"}
        ledger.node.items = items
        ledger.devices_done = [("u0", index, frames, list(closes), list(sessions), [])]
        return ledger.judge()

    def item(n, seq, k=None):
        return {"title": str(n), "lane": "normal", "seq": seq, "id": f"m{n}", "data": {"k": k or n, "topic": "a"}}

    def frame(n, seq, session=0):
        return (session, "normal", seq, f"m{n}", str(n), n, "a")
    good = [item(1, 1), item(2, 2)]
    both = [frame(1, 1), frame(2, 2)]
    assert judged(good, both)["ok"]
    assert judged(good[:1], both[:1])["lost"] == 1
    assert judged(good + [item(2, 3)], both)["doubled_in_inbox"] == 1
    assert not judged([item(1, 2), item(2, 1)], [frame(2, 1), frame(1, 2)])["ok"], "order"
    assert not judged(good + [item(9, 3)], both + [frame(9, 3)])["ok"], "a strange one"
    assert judged(good, both[:1])["unreceived"] == 1
    assert judged(good, both + [frame(1, 1, 1)], sessions=((False, None, {}), (True, {"seq": 0}, {})))["duplicates_undeclared"] == 1
    again = judged(good, both + [frame(2, 2, 1)], index=1, sessions=((False, None, {}), (True, {"seq": 1}, {})))
    assert again["ok"] and again["duplicates_declared"] == 1
    assert not judged(good, both + [frame(1, 1, 1)], index=1, sessions=((False, None, {}), (True, {"seq": 1}, {})))["ok"]
    assert not judged(good, [frame(2, 2), frame(1, 1)])["ok"], "seq goes back on one connection"
    assert not judged(good, both, closes=[(0.0, 1.0, 1006)])["ok"], "a socket closed for no reason"
