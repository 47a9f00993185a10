"""The main job on both engines: an event goes in by HTTP or Kafka and comes out on a WebSocket and in the inbox.

Covers ING-1, ING-4, ING-9, INB-1, WS-3; DESIGN 4.1, 4.4, 4.5.
"""
import json
import re
import time
import uuid

import pytest
from harness import until

UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def test_http_to_websocket(node, user):
    with node.client(user, device="phone") as client:
        sent = node.send(user, type="order.shipped", title="Shipped", body="It is on its way", category="orders",
                         data={"order": 42, "deep": {"list": [1, "zwei"]}}, action_url="https://example.com/o/42")
        n = client.expect("n", type="order.shipped", title="Shipped", body="It is on its way", category="orders",
                          data={"order": 42, "deep": {"list": [1, "zwei"]}}, action_url="https://example.com/o/42")
        assert n["seq"] == 1 and UUID.match(n["id"]) and UUID.match(sent)
        assert abs(n["ts"] / 1000 - time.time()) < 60
        client.ack()
        client.quiet()
    items = node.inbox(user)
    assert [(i["id"], i["seq"], i["title"]) for i in items] == [(n["id"], 1, "Shipped")]


def test_unicode_survives(node, user):
    text = "Ümläut \u202eRTL 💥 \\ \" \t\n </script> \u0001"
    with node.client(user) as client:
        node.send(user, title=text, data={"k\u00e9y": text})
        client.expect("n", title=text, data={"k\u00e9y": text})
    assert node.inbox(user)[0]["title"] == text


def test_lanes_have_their_own_seq(node, user):
    with node.client(user) as client:
        for priority in ("critical", "high", "normal", "low", "low"):
            node.send(user, priority=priority, title=priority)
        got = {}
        for n in client.expect_n(5):
            got.setdefault(n.get("lane", "normal"), []).append((n["seq"], n["title"]))
        assert got == {"critical": [(1, "critical"), (2, "high")], "normal": [(1, "normal")], "bulk": [(1, "low"), (2, "low")]}


def test_many_recipients(node):
    users = [f"crowd-{node.engine}-{i}" for i in range(20)]
    node.put_user(*users)
    clients = [node.client(u) for u in users[:10]]
    event = node.send(recipients=users, title="to all of you")
    ids = {c.expect("n", title="to all of you")["id"] for c in clients}
    assert len(ids) == 10, "a message id of its own for each recipient"
    for user in users:
        assert len(node.stored(user, 1)) == 1
    status = node.request("GET", f"/v1/notifications/{event}/status")
    assert status.status == 200, status
    for client in clients:
        client.close()


def test_offline_user_gets_it_from_the_inbox(node, user):
    for i in range(3):
        node.send(user, title=str(i))
    assert [i["title"] for i in node.stored(user, 3)] == ["2", "1", "0"], "newest first"
    with node.client(user) as client:
        assert client.welcome["seq"] == 3 and client.welcome["unread"] == 3
        client.quiet()  # no resume asked: nothing replayed


def test_order_of_one_user(node, user):
    with node.client(user) as client:
        for i in range(200):
            node.send(user, title=str(i))
        got = client.expect_n(200)
    assert [n["title"] for n in got] == [str(i) for i in range(200)]
    assert [n["seq"] for n in got] == list(range(1, 201))


def test_status_of_one_delivery(node, user):
    with node.client(user) as client:
        event = node.send(user)
        client.expect("n")
        client.ack()

        def delivered():
            answer = node.request("GET", f"/v1/notifications/{event}/status")
            assert answer.status == 200, answer
            return "delivered" in answer.body.decode() and answer.json
        until(delivered, 5, "status says delivered")


@pytest.mark.parametrize("topic,lane", [("transactional", "critical"), ("social", "normal"), ("marketing", "bulk")])
def test_kafka_to_websocket(kafka, user, topic, lane):
    with kafka.client(user) as client:
        event = {"id": uuid.uuid4().hex, "type": "t", "title": topic, "user_id": user, "priority": "high",
                 "a_field_nobody_knows": 1}
        kafka.produce(f"belfry.events.{topic}", [(user, event)])
        n = client.expect("n", title=topic)
        assert n.get("lane", "normal") == lane, "an event takes the lower lane of topic and priority"
        client.ack(lane=lane)
        # the same event once more: known by its id
        kafka.produce(f"belfry.events.{topic}", [(user, event)])
        client.quiet(0.5)
    assert len(kafka.stored(user, 1)) == 1


def test_kafka_poison_goes_to_the_dead_letters(kafka, user):
    bad = ["{not json", json.dumps({"type": "t", "title": "x"}), json.dumps({"user_id": user, "title": 5, "type": "t"})]
    with kafka.client(user) as client:
        kafka.produce("belfry.events.social", [(user, b) for b in bad])
        kafka.produce("belfry.events.social", [(user, {"type": "t", "title": "after", "user_id": user})])
        client.expect("n", title="after")  # the partition went on

        def letters():
            lines = kafka.kafka_tool("consume", kafka.info["kafka"], "belfry.dlq").splitlines()
            return len(lines) >= len(bad) and [json.loads(line) for line in lines]
        for letter in until(letters, 10, "all bad events are dead letters"):
            assert letter["headers"], "a dead letter says why in its headers"
    listed = kafka.ctl("dlq", "list", "--json").stdout
    assert "title must be a string" in listed or "wrong-type" in listed


def test_kafka_event_for_nobody(kafka, user):
    """Nobody is there to answer by name: a dead letter that says what to do, and the partition goes on."""
    with kafka.client(user) as client:
        kafka.produce("belfry.events.social", [("ghost", {"id": "g", "type": "t", "title": "x", "user_id": "ghost"}),
                                               (user, {"type": "t", "title": "after", "user_id": user})])
        client.expect("n", title="after")
        until(lambda: "unknown_user" in kafka.ctl("dlq", "list", "--json").stdout, 5, "it is a dead letter")


def test_kafka_offsets_follow_the_settled_events(kafka, user):
    kafka.produce("belfry.events.social", [(user, {"type": "t", "title": str(i), "user_id": user}) for i in range(50)])
    until(lambda: len(kafka.inbox(user)) == 50, 10, "all 50 are in the inbox")
    until(lambda: json.loads(kafka.kafka_tool("lag", kafka.info["kafka"], "belfry", "belfry.events.social"))["lag"] == 0,
          15, "the group's lag is 0")


def test_http_events_travel_through_kafka(kafka, user):
    """DESIGN 4.1: with the Kafka engine a 202 means that the broker has it (acks=all)."""
    kafka.send(user, title="by http")
    found = [line for t in ("transactional", "social", "marketing")
             for line in kafka.kafka_tool("consume", kafka.info["kafka"], f"belfry.events.{t}").splitlines()
             if "by http" in line]
    assert found
