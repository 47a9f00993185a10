"""Times that others write: a record's timestamp in another unit or none of this world; events too old for a push."""
import re
import time

import pytest
from harness import until
from phones import PushNode

RFC3339 = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
DAY_MS = 86400 * 1000


@pytest.fixture(scope="module")
def node():
    with PushNode(engine="kafka") as running:
        yield running


def produce_at(node, ms, *events, topic="belfry.events.social"):
    import json
    lines = "".join(f"{key}\t{json.dumps(event)}\n" for key, event in events)
    node.kafka_tool("produce-at", node.info["kafka"], topic, str(ms), stdin=lines)


def test_any_timestamp_becomes_a_time_of_this_world(node):
    now = int(time.time() * 1000)
    node.put_user("t")
    given = {"now": now, "in seconds": now // 1000, "in microseconds": now * 1000, "in nanoseconds": now * 1000000,
             "far ahead": now + 400 * DAY_MS, "year 292277": 9223372036854775, "one": 1, "60 days ago": now - 60 * DAY_MS}
    for title, ms in given.items():
        produce_at(node, ms, ("t", {"type": "t", "title": title, "user_id": "t", "channels": ["inapp"]}))
    items = {i["title"]: i for i in node.stored("t", len(given), seconds=30)}
    assert set(items) == set(given)
    for title, item in items.items():
        assert RFC3339.match(item["created_at"]), (title, item["created_at"])
        wanted = now - 60 * DAY_MS if title == "60 days ago" else now
        assert item["created_at"][:10] == time.strftime("%Y-%m-%d", time.gmtime(wanted / 1000)), (title, item["created_at"])
    assert node.metric("belfry_ingest_odd_times") == 6


def test_a_header_of_another_time_is_checked_too(node):
    """CloudEvents: `time` is not used, so the zero time of a program that sets none is no reason to refuse."""
    node.put_user("ce")
    node.produce("belfry.events.social", [("ce", {"title": "zero time", "user_id": "ce"})],
                 headers={"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "t",
                          "ce_time": "0001-01-01T00:00:00Z", "content-type": "application/json"})
    assert RFC3339.match(node.stored("ce", 1, seconds=30)[0]["created_at"])


def test_an_old_event_reaches_the_inbox_and_no_phone(node):
    """DESIGN 4.14: what is older than fanout.event_max_age is in the inbox; its push is a letter that can be redriven."""
    node.put_user("old")
    phone = node.phone("old")
    old = int(time.time() * 1000) - 3 * DAY_MS
    produce_at(node, old, ("old", {"type": "t", "title": "three days old", "user_id": "old", "ttl": 30 * 86400}),
               ("old", {"type": "t", "title": "old, named", "user_id": "old", "channels": ["push"]}))
    items = node.stored("old", 2, seconds=30)
    assert {i["title"] for i in items} == {"three days old", "old, named"}
    letters = until(lambda: len(found := [x for x in node.letters() if x["push"]["user_id"] == "old"]) == 2 and found, 20,
                    "two letters")
    assert all(x["reason"].startswith("stale") for x in letters), letters
    produce_at(node, int(time.time() * 1000), ("old", {"type": "t", "title": "fresh", "user_id": "old", "channels": ["push"]}))
    phone.got(1)  # the fresh one alone: the others were decided before it
    node.ctl("dlq", "redrive", "--all", "--channel", "push")
    phone.got(3)
    assert not [x for x in node.letters() if x["push"]["user_id"] == "old"]
