"""Clients that leave (tests/support/hangup.py): the process lives, and no idempotency key stays running for ever.

BELFRY_HANGUPS sets the number of ends; the full size is 20000. The suite's sanitizer part runs this file too.
"""
import os
import time

import hangup
import pytest
from harness import TIMES, until

ENDS = int(os.environ.get("BELFRY_HANGUPS", "4000"))
SEED = int(os.environ.get("BELFRY_SEED", "1"))


def is_key_free(node, path, body, key):
    """A post with this key is accepted, answered again, or refused for its other body: not for ever 'still running'."""
    answer = node.request("POST", path, body, headers={"Idempotency-Key": key})
    assert answer.status in (202, 409, 422), answer
    return answer.status != 409


@pytest.mark.parametrize("engine", ["embedded", "kafka"])
def test_a_client_may_leave_at_any_instant(engine, request):
    node = request.getfixturevalue(engine)
    users = [f"h{i}" for i in range(5)]
    node.put_user(*users)
    pids = dict(node.info["pids"])
    ends = ENDS if engine == "embedded" else min(ENDS, 500)

    def between(i):
        if i % 10 == 0:  # a normal post meets the marks of those that left
            event = {"user_id": users[0], "type": "t", "title": "x"}
            node.request("POST", "/v1/notifications", event, headers={"Idempotency-Key": f"normal-{i % 700}"})

    print("seed", SEED)
    began = time.monotonic()
    counts = hangup.sweep(node.info["api"], node.key, users, ends, SEED, between)
    print(f"{sum(counts.values())} ends of {len(counts)} kinds in {time.monotonic() - began:.1f} s")
    assert node.is_alive("ctrlplane") and node.info["pids"] == pids, "the control process died"
    for number in range(hangup.KEYS):
        event = {"user_id": users[0], "type": "t", "title": "x"}
        until(lambda: is_key_free(node, "/v1/notifications", event, f"hang-{number}"), 5,
              f"the key hang-{number} is free", poll=0.05)
        topical = {"topic": "hang.up", "type": "t", "title": "x"}
        until(lambda: is_key_free(node, "/v1/events", topical, f"hang-{number}-e"), 5,
              f"the key hang-{number}-e is free", poll=0.05)
    until(lambda: sum(node.metric("belfry_api_connections", state=s) for s in ("working", "body", "writing")) == 0,
          10 * TIMES, "no connection is left behind")
