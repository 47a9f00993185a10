"""The ledger of push: kill -9 of anything at random instants while providers go through all that can go wrong; nothing
lost, nothing doubled undeclared.

REL-1, REL-2, PSH-5; DESIGN 4.2 to 4.4, 9. The seed is printed and BELFRY_SEED repeats kills, events and faults.
BELFRY_PUSH_LEDGER_EVENTS (60000 pushes), _KILLS (20), _SECONDS (60, in which the events come), _PEOPLE (1500) and
_ENGINES (embedded; or embedded,kafka) size the run.
"""
import json
import os
import pathlib
import random
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from ledger import one_kill  # noqa: E402
from phones import PushNode, Subscription  # noqa: E402
from push_ledger import Event, Judge, PushLedger  # noqa: E402

PUSHES = int(os.environ.get("BELFRY_PUSH_LEDGER_EVENTS", "60000"))
KILLS = int(os.environ.get("BELFRY_PUSH_LEDGER_KILLS", "20"))
SECONDS = float(os.environ.get("BELFRY_PUSH_LEDGER_SECONDS", "60"))
PEOPLE = int(os.environ.get("BELFRY_PUSH_LEDGER_PEOPLE", "1500"))
ENGINES = os.environ.get("BELFRY_PUSH_LEDGER_ENGINES", "embedded").split(",")
SEED = int(os.environ.get("BELFRY_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
DRAIN_S = 240  # after the last event: open breakers (60 s), their ramp, and the third wait of a retry (45 s)
# Each start of the control process takes EAL heap for good; requests have 1 to 2 KB.
CONFIG = {"shm": {"attaches_max": 400, "blocks_1k": 16384, "blocks_4k": 16384}}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_no_push_is_lost_under_kills_and_faults(engine):
    dice = random.Random(SEED)
    print(f"seed {SEED}")
    with PushNode(engine=engine, config=CONFIG) as node:
        ledger = PushLedger(node, PUSHES, people=PEOPLE, duration=SECONDS, seed=SEED).start()
        try:
            started = time.monotonic()
            for number in range(KILLS):
                # the random instants: one in each of as many equal parts of the time in which events come
                due = started + SECONDS * (number + dice.random()) / KILLS
                time.sleep(max(0.0, due - time.monotonic()))
                one_kill(ledger, node, dice)
                ledger.restarted()
            report = ledger.finish(DRAIN_S)
            report["engine"] = engine
            print(json.dumps(report))
            out = os.environ.get("BELFRY_LEDGER_REPORT")
            if out:
                with open(out, "a") as f:
                    f.write(json.dumps(report) + "\n")
            assert report["ok"], json.dumps(report, indent=1)
            assert report["lost"] == 0 and report["left_in_queue"] == 0, report
            assert sum(report["kills"].values()) >= KILLS
            assert report["phones_dead"] > 0 and report["ends"]["accepted"] > 0.9 * report["pushes"], report
        finally:
            ledger.close()


# ---- the judge himself ------------------------------------------------------------------------------

class FakePhone:
    def __init__(self, kind, token):
        self.kind, self.token, self.subscription = kind, token, Subscription() if kind == "webpush" else None


def line(phone, n, message_id, status=200, at=100.0):
    kind = phone.kind
    payload = {"apns": {"aps": {}, "data": {"n": n}},
               "fcm": {"message": {"token": phone.token, "data": {"n": str(n), "belfry_id": message_id}}}}[kind]
    return json.dumps({"t": int(at * 1e6), "provider": kind, "status": status, "token": phone.token, "id": message_id,
                       "payload": json.dumps(payload, separators=(",", ":"))}).encode()


def judged(*lines, kills=(), windows=None, channels=None, sample=()):
    phones = [FakePhone("apns", "aa"), FakePhone("fcm", "bb")]
    events = [Event(0, [0, 1], "normal", None)]
    judge = Judge(events, [[0], [1]], phones)
    for text in lines:
        judge.feed(text)
    return judge.verdict(list(kills), windows or {}, lambda n, users: channels or {}, sample)


def said(status):
    return {"attempts": [{"attempt": 1, "status": status}], "status": status}


def test_the_push_judge_sees_what_is_wrong():
    """A lost, a doubled, a renamed, a strange push, one id for two, a dead phone used again: all found."""
    ios, android = FakePhone("apns", "aa"), FakePhone("fcm", "bb")
    one, two = line(ios, 0, "i1"), line(android, 0, "i2")
    good = judged(one, two)
    assert good["ok"] and good["ends"] == {"accepted": 2} and good["lost"] == 0
    assert judged(one)["lost"] == 1
    for end in ("expired", "failed"):
        assert judged(one, channels={1: said(end)})["ends"][end] == 1
    assert judged(one, channels={1: said("sent")})["lost"] == 1, "the node says sent, and nobody has it"
    assert judged(one, channels={1: said("suppressed")})["lost"] == 1, "suppressed, and the phone lives"
    dead = judged(one, line(android, 0, "i2", 404))
    assert dead["ok"] and dead["ends"]["dead"] == 1 and dead["phones_dead"] == 1
    again = line(ios, 0, "i1", at=108.0)
    assert judged(one, two, again)["duplicates"]["unexplained"] == 1
    assert not judged(one, two, again)["ok"]
    assert judged(one, two, again, kills=[(100.5, 101.0, "dataplane")])["duplicates"]["dataplane"] == 1
    assert judged(one, two, again, kills=[(90.0, 91.0, "dataplane")])["duplicates"]["unexplained"] == 1
    assert judged(one, two, again, windows={"apns": [(99, 101)]})["duplicates"]["fault"] == 1
    assert judged(one, two, again, windows={"fcm": [(99, 101)]})["duplicates"]["unexplained"] == 1
    kills = [(100.5, 101.0, "dataplane")]
    assert not judged(one, two, line(ios, 0, "i9", at=108.0), kills=kills)["ok"], "another id"
    assert not judged(one, line(android, 0, "i1"))["ok"], "one id for two"
    assert not judged(one, two, line(ios, 7, "i7"))["ok"], "an event that nobody sent"
    assert not judged(one, two, line(FakePhone("apns", "cc"), 0, "i8"))["ok"], "a phone that nobody has"
    assert not judged(one, line(android, 0, "i2", 404), line(android, 0, "i2", 404, at=130.0))["ok"], "dead, and used"
    assert judged(one, two, channels={0: said("sent"), 1: said("sent")}, sample=[0])["ok"]
    assert not judged(one, two, channels={0: said("sent"), 1: said("failed")}, sample=[0])["ok"], "two ends"
    assert not judged(one, two, channels={0: said("sent")}, sample=[0])["ok"], "no end in the status"
