"""Delivery status and dead letters of push against a running node: attempts and what waits, over the API; a letter a
device; redriven when the provider is sane again, under another message id; expired ones stay."""
import json
import pathlib

import pytest
import yaml

from harness import until
from ledger import relaunch
from phones import PushNode


FUTURE_MS = 4102444800000  # after any registration


@pytest.fixture(scope="module")
def node():
    with PushNode() as running:
        yield running


@pytest.fixture(autouse=True)
def calm(node):
    yield
    node.providers.calm()
    node.admin("POST", "/admin/dlq/purge", {"channel": "push"})


def test_sent_shows_as_an_attempt(node, user):
    phone = node.phone(user)
    sent = node.send(user)
    phone.got(1)
    channel = node.outcome(sent, user, "sent")
    assert [(a["attempt"], a["status"]) for a in channel["attempts"]] == [(1, "sent")]
    inapp = node.status(sent)["recipients"][0]["channels"][0]
    assert inapp["channel"] == "inapp" and inapp["status"] == "sent" and inapp["id"]


def test_what_waits_shows_with_its_time(node, user):
    phone = node.phone(user, "android")
    node.providers.faults(phone.answer(503, "UNAVAILABLE"))
    sent = node.send(user)
    channel = until(lambda: (c := node.push_status(sent, user)) and any(a["status"] == "queued" for a in c["attempts"]) and c,
                    10, "it waits")
    waiting = channel["attempts"][-1]
    assert channel["status"] == "queued" and waiting["not_before"] > node.status(sent)["accepted_at"]
    assert waiting["attempt"] == 2 and waiting["reason"], waiting
    text = node.ctl("trace", sent).stdout
    assert "push     queued" in text and f"until {waiting['not_before']}" in text, text


def test_a_letter_a_device_and_back(node, user):
    phones = [node.phone(user), node.phone(user)]
    node.providers.faults(*(p.answer(400, "BadPriority") for p in phones))
    sent = node.send(user, title="bad day", data={"n": 12345678901234567})
    letters = until(lambda: len(found := node.letters(notification=sent)) == 2 and found, 10, "two letters")
    assert {x["push"]["device_id"] for x in letters} == {p.id for p in phones}
    assert all(x["push"]["user_id"] == user and x["push"]["title"] == "bad day" for x in letters)
    assert all(x["reason"].startswith("BadPriority") for x in letters)
    text = node.ctl("dlq", "list", "--channel", "push").stdout
    assert f"to {user}, device {phones[0].id}, lane normal" in text and '"bad day"' in text, text
    assert '"n":12345678901234567' in node.ctl("dlq", "inspect", sent).stdout
    assert node.outcome(sent, user, "failed")
    node.providers.calm()
    done = json.loads(node.ctl("dlq", "redrive", sent, "--channel", "push", "--json").stdout)
    assert done == {"redriven": 2, "failed": 0, "expired": 0}
    for phone in phones:
        lines = until(lambda p=phone: (a := p.accepted) and p.pushes, 15, "the phone got it after all")
        assert lines[0]["status"] == 400 and lines[-1]["status"] == 200 and len(lines) == 2
        assert lines[0]["id"] != lines[-1]["id"], "another redrive number, another message id"
    assert node.letters(notification=sent) == []
    node.outcome(sent, user, "sent")


def test_it_can_die_again(node, user):
    phone = node.phone(user)
    node.providers.faults(phone.answer(400, "BadPriority"))
    sent = node.send(user)
    ids = set()
    for round_ in range(1, 4):
        until(lambda n=round_: len(node.letters(notification=sent)) == 1 and len(phone.pushes) == n, 10, "it is dead")
        ids.add(phone.pushes[-1]["id"])
        if round_ == 3:
            node.providers.calm()
        assert "redriven 1" in node.ctl("dlq", "redrive", sent).stdout
    phone.got(1)
    assert len(ids | {phone.pushes[-1]["id"]}) == 4


def test_an_expired_letter_stays(node, user):
    phone = node.phone(user)
    node.providers.faults(phone.answer(400, "BadPriority"))
    sent = node.send(user, ttl=2)
    letter = until(lambda: node.letters(notification=sent), 10, "it is dead")[0]
    assert letter["push"]["expires_at"]
    said = until(lambda: (r := node.ctl("dlq", "redrive", sent, check=False)).returncode == 1 and r.stdout
                 or (len(phone.pushes) > 50 and "never"), 15, "its time has passed", poll=0.3)
    assert "1 of them have expired" in said, said
    assert len(node.letters(notification=sent)) == 1


def test_a_push_taken_behind_a_death_of_its_phone(node, user):
    """Taken by the provider, its answer hidden by a kill, and by the replay its phone is dead: its status says sent."""
    phone = node.phone(user)
    node.send(user, channels=["push"])
    phone.got(1)  # the connection is open, and takes more than one stream
    node.providers.faults(latency={"apns": {"ms": 4000}})
    slow = node.send(user, channels=["push"])
    until(lambda: node.metric("belfry_dataplane_push_in_flight") > 0, 5, "it is on its way")
    node.providers.faults(phone.answer(410, "Unregistered", timestamp_ms=FUTURE_MS), latency={"apns": {"ms": 0}})
    node.send(user, channels=["push"])
    until(lambda: phone.state == "dead", 3, "another push finds the phone dead")
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    channel = node.outcome(slow, user, "sent", seconds=20)
    assert [a["status"] for a in channel["attempts"]] == ["sent"], channel
    node.providers.faults(latency={"apns": {"ms": 0}})


def test_the_queue_follows_its_shards():
    """Rows queued under one number of fan-out threads are sent under another, and counted once."""
    people = [f"person-{i}" for i in range(9)]  # one failure less than opens a breaker, whose rows would wait a minute
    with PushNode(apps={"ios": "apns"}) as node:
        node.put_user(*people)
        phones = [node.phone(person) for person in people]
        node.providers.faults({"provider": "apns", "kind": "storm", "status": 503, "retry_after_s": 8})
        sent = [node.send(person, channels=["push"]) for person in people]
        until(lambda: node.metric("belfry_push_queue_depth") == len(people), 20, "all wait")
        for side in ("ctrlplane", "dataplane"):
            node.kill(side)
        path = pathlib.Path(node.info["config"])
        tree = yaml.safe_load(path.read_text())
        assert tree.get("fanout", {}).get("shards", 1) != 3
        tree.setdefault("fanout", {})["shards"] = 3
        path.write_text(yaml.safe_dump(tree))
        node.providers.calm()
        relaunch(node, "dataplane")
        node.restart("ctrlplane")
        for person, phone, one in zip(people, phones, sent):
            phone.got(seconds=40)
            node.outcome(one, person, "sent", seconds=20)
        until(lambda: node.metric("belfry_push_queue_depth") == 0, 20, "the queue is empty")
