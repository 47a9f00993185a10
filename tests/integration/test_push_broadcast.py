"""Push for everybody: a broadcast goes to the devices of those who are not connected, walked in chunks (FAN-2, DESIGN
4.9), each of them once whatever dies meanwhile; and an APNs broadcast channel gets one request for all who follow it."""
import concurrent.futures
import datetime
import json

import pytest

from harness import until
from phones import PushNode

CROWD = 1100  # more than the 1,000 of a chunk
TENANT = "com.example.ios"


@pytest.fixture(scope="module")
def node():
    with PushNode(apps={"ios": "apns", "android": "fcm"}, config={"topics": {"public": ["match"]}}) as running:
        yield running


@pytest.fixture(autouse=True)
def calm(node):
    yield
    node.providers.calm()


def everybody(node, **fields):
    return node.send(broadcast=True, **{"channels": ["inapp", "push"], **fields})


def accepted(node, notification):
    at = node.status(notification)["accepted_at"].replace("Z", "+00:00")
    return datetime.datetime.fromisoformat(at).timestamp()


def attempts(node, notification, user=""):
    channel = node.push_status(notification, user)
    return channel and [a["status"] for a in channel["attempts"]]


def test_who_is_offline(node):
    node.put_user("away", "there", "nobody", "out")
    away, there, out = node.phones("away"), node.phone("there"), node.phone("out")
    assert node.request("PUT", "/v1/users/out/preferences", {"channels": {"push": False}}).status == 200
    with node.client("there") as client:
        sent = everybody(node, title="to all", collapse_key="news")
        frame = client.expect("b", title="to all")
        assert node.status(sent)["bseq"] == frame["bseq"]
        lines = [phone.got()[0] for phone in away]
        assert len({phone.message_id(line) for phone, line in zip(away, lines)}) == 2
        node.outcome(sent, "away", "sent")
        node.outcome(sent, "out", "suppressed")
        until(lambda: node.metric("belfry_jobs") == 0, 10, "all have been walked")
        assert there.pushes == [] and out.pushes == []
    recipients = node.status(sent)["recipients"]
    assert {r["user_id"] for r in recipients} == {"away", "out"}
    assert all([c["channel"] for c in r["channels"]] == ["push"] for r in recipients), "a broadcast has no inbox"


def test_not_asked_for(node):
    node.put_user("quiet")
    phone = node.phone("quiet")
    for channels in ({}, {"channels": ["inapp"]}):
        node.send(broadcast=True, title="no push", **channels)
    everybody(node, title="push")
    line = phone.got()[0]
    assert phone.payload(line)["aps"]["alert"]["title"] == "push" and len(phone.pushes) == 1


def test_a_broadcast_topic(node):
    """Its subscribers who are not connected; what a subscriber chose counts, and who only watches is nobody's subscriber."""
    node.put_user("fan", "here", "always", "never", "muted", "denied", "stranger")
    users = {user: node.phone(user) for user in ("fan", "here", "always", "never", "muted", "denied", "stranger")}
    assert node.request("PUT", "/v1/topics/match", {"carriage": "broadcast"}).status == 201
    chosen = {"fan": {}, "here": {}, "always": {"channels": ["push"]}, "never": {"channels": ["inapp"]}, "muted": {},
              "denied": {"allow": False}}
    for user, body in chosen.items():
        answer = node.request("PUT", f"/v1/topics/match/subscriptions/{user}", body)
        assert answer.status == 200, answer
    assert node.request("PUT", "/v1/users/muted/preferences", {"topics": {"match": "mute"}}).status == 200
    with node.client("here", topics=["match"]) as here, node.client("always", topics=["match"]) as always:
        silent = node.send(topic="match", title="no push named")
        sent = node.send(topic="match", title="goal", channels=["inapp", "push"])
        for client in (here, always):
            assert client.expect("b", title="no push named") and client.expect("b", title="goal")
        for user in ("fan", "always"):
            line = users[user].got()[0]
            assert users[user].payload(line)["aps"]["alert"]["title"] == "goal"
            node.outcome(sent, user, "sent")
        node.outcome(sent, "muted", "suppressed", "topic_muted")
        until(lambda: node.metric("belfry_jobs") == 0, 10, "all have been walked")
        assert [user for user, phone in users.items() if phone.pushes] == ["fan", "always"]
    recipients = node.status(sent)["recipients"]
    assert {r["user_id"] for r in recipients} == {"fan", "always", "muted"}
    assert all([c["channel"] for c in r["channels"]] == ["push"] for r in recipients), "a broadcast has no inbox"
    assert node.status(silent)["recipients"] == [] and node.inbox("fan") == []


def test_a_broadcast_topic_over_a_kill(node):
    """The job knows that it is for push alone, also when it is read again: nothing lands in an inbox."""
    people = [f"follower-{i}" for i in range(CROWD)]
    assert node.request("PUT", "/v1/topics/final", {"carriage": "broadcast"}).status == 201
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(node.put_user, people))
        phones = list(pool.map(node.phone, people))
        list(pool.map(lambda p: node.request("PUT", f"/v1/topics/final/subscriptions/{p}", {}), people))
    node.send(topic="final", title="won", channels=["push"])
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    until(lambda: not [p for p in phones if not p.accepted], 60, "everyone has it")
    assert [p for p in phones if len({p.message_id(line) for line in p.accepted}) != 1] == []
    assert all(node.inbox(person) == [] for person in people[::100])


def test_nobody_knows_who_is_there(node):
    """Right after a dataplane's death everybody is about to come back: who has come by then needs no push (DESIGN 4.8)."""
    node.put_user("returns", "stays-away")
    returns, away = node.phone("returns"), node.phone("stays-away")
    with node.client("returns"):
        pass
    node.kill("dataplane")
    node.restart("dataplane")
    sent = everybody(node, title="just after")
    with node.client("returns") as client:
        line = away.got(seconds=40)[0]
        assert line["t"] / 1e6 - accepted(node, sent) > 5, "it has waited for them"
        assert returns.pushes == [], client


def test_all_of_a_crowd_once_over_a_kill(node):
    """Killed as soon as it has answered, again while it walks: everyone gets it, under one id each."""
    people = [f"crowd-{i}" for i in range(CROWD)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(node.put_user, people))
        phones = list(pool.map(node.phone, people))
    everybody(node, title="crowd")
    for _ in range(2):
        node.kill("ctrlplane")
        node.restart("ctrlplane")

    def missing():
        return [p for p in phones if not p.accepted]
    until(lambda: not missing(), 60, "everyone has it")
    until(lambda: node.metric("belfry_push_queue_depth") == 0, 30, "nothing waits")
    assert [p for p in phones if len({p.message_id(line) for line in p.accepted}) != 1] == []
    assert [p for p in phones if len(p.accepted) > 1] == [], "only a dataplane's death may double one"


# ---- Live Activities --------------------------------------------------------------------------------

STATE = {"push_type": "liveactivity", "aps": {"event": "update", "timestamp": 1700000000, "content-state": {"score": 2}}}


@pytest.fixture(scope="module")
def channel(node):
    auth = {"authorization": f"bearer {node.providers.apns_token()}"}
    body = json.dumps({"message-storage-policy": 0, "push-type": "LiveActivity"}).encode()
    with node.providers.connect("apns") as client:
        made = client.ask("POST", f"/1/apps/{TENANT}/channels", auth, body)
    assert made.status == 201, made.body
    return made.fields["apns-channel-id"]


def to_channel(node, channel, app="ios", **fields):
    return node.send(broadcast=True, channels=["push"], title="score",
                     overrides={"push": {"apns": {**STATE, "channel": channel, "app": app}}}, **fields)


def requests(node, channel):
    node.record.refresh()
    return [line for line in node.record.lines if line["token"] == channel.rsplit("/", 1)[-1]]


def test_a_broadcast_channel(node, channel):
    sent = to_channel(node, channel)
    line = until(lambda: requests(node, channel), 10, "APNs has it")[0]
    assert line["status"] == 200 and line["type"] == "liveactivity"
    assert json.loads(line["payload"])["aps"]["content-state"] == {"score": 2}
    until(lambda: attempts(node, sent) == ["sent"], 10, "the status says so")
    assert len(requests(node, channel)) == 1


def test_a_channel_has_its_retries(node, channel):
    before = len(requests(node, channel))
    node.providers.faults({"provider": "apns", "kind": "storm", "status": 503, "retry_after_s": 1})
    sent = to_channel(node, channel)
    until(lambda: (attempts(node, sent) or [])[:1] == ["queued"], 10, "it waits")
    node.kill("ctrlplane")
    node.providers.calm()
    node.restart("ctrlplane")
    until(lambda: (attempts(node, sent) or [])[-1:] == ["sent"], 30, "it is sent")
    assert [line["status"] for line in requests(node, channel)[before:]] == [503, 200]


def test_a_channel_that_is_gone_is_a_dead_letter(node, channel):
    gone = "bm8gc3VjaCBjaGFubmVsIQ=="
    sent = to_channel(node, gone)
    letters = until(lambda: node.letters(notification=sent), 10, "a dead letter")
    assert letters[0]["reason"].startswith("ChannelNotRegistered"), letters
    done = json.loads(node.ctl("dlq", "redrive", sent, "--channel", "push", "--json").stdout)
    assert done["redriven"] == 1, done
    until(lambda: len(requests(node, gone)) == 2, 10, "it is tried again")
    ids = [line["id"] for line in requests(node, gone)]
    assert len(set(ids)) == 2, "under another id"


def test_an_unknown_app_is_a_dead_letter(node, channel):
    sent = to_channel(node, channel, app="nobodys")
    letters = until(lambda: node.letters(notification=sent), 10, "a dead letter")
    assert letters[0]["reason"].startswith("unknown_app")


@pytest.mark.parametrize("fields, field", [
    ({"user_id": "ann"}, "channel"), ({"broadcast": True}, "channel"), ({"topic": "t"}, "channel"),
    ({"broadcast": True, "channels": ["inapp", "push"]}, "channel"),
    ({"broadcast": True, "channels": ["push"], "app": None}, "app"),
    ({"broadcast": True, "channels": ["push"], "channel": 7}, "app"),
], ids=["a user", "channels not named", "a topic", "in-app too", "no app", "not a text"])
def test_what_a_channel_does_not_take(node, fields, field):
    fields = dict(fields)
    said = {"channel": fields.pop("channel", "AAAA"), "app": fields.pop("app", "ios")}
    said = {name: value for name, value in said.items() if value is not None}
    event = {"type": "t", "title": "x", **fields, "overrides": {"push": {"apns": said}}}
    answer = node.request("POST", "/v1/notifications", event)
    assert answer.status == 400 and answer.json["field"] == f"overrides.push.apns.{field}", answer
