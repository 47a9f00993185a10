"""What could never reach anybody is refused when it comes in, with the reason, and not at each push: over HTTP as a
problem, of Kafka as a dead letter with the same word. And what is meant is named: a channel, a field or a path that is
nearly right, or not built yet."""
import json
import urllib.parse

import pytest

import harness
from harness import until
from phones import PushNode, Subscription

APPS = {"ios": "apns", "android": "fcm", "web": "webpush"}


@pytest.fixture(scope="module")
def pushes():
    with PushNode(APPS) as node:
        node.put_user("all", "apple", "nobody")
        for app in APPS:
            node.phone("all", app)
        node.phone("apple", "ios")
        yield node


PUSH = {"title": "hello", "channels": ["push"]}
LARGE = "x" * 4200

REFUSED = {
    # overrides that no adapter knows
    "an unknown override of apns": ({**PUSH, "overrides": {"push": {"apns": {"collapse": "x"}}}}, 400, "bad-override", "overrides.push.apns"),
    "an unknown override of fcm": ({**PUSH, "overrides": {"push": {"fcm": {"ttl": "3s"}}}}, 400, "bad-override", "overrides.push.fcm"),
    "an unknown override of webpush": ({**PUSH, "overrides": {"push": {"webpush": {"icon": "x"}}}}, 400, "bad-override", "overrides.push.webpush"),
    "a provider in two spellings": ({**PUSH, "overrides": {"push": {"apns": {}, "APNs": {}}}}, 400, "bad-override", "overrides.push"),
    "an unknown provider": ({**PUSH, "overrides": {"push": {"hms": {}}}}, 400, "bad-override", "overrides.push"),
    "an override of another kind": ({**PUSH, "overrides": {"push": {"apns": {"priority": "high"}}}}, 400, "bad-override", "overrides.push.apns"),
    "an override though push is not used": ({"title": "x", "channels": ["inapp"], "overrides": {"push": {"apns": {"x": 1}}}}, 400,
                                            "bad-override", "overrides.push.apns"),
    "an android ttl beyond four weeks": ({**PUSH, "overrides": {"push": {"fcm": {"android": {"ttl": "9999999s"}}}}}, 400, "bad-override", "overrides.push.fcm"),
    # keys that FCM keeps for itself
    **{f"data.{key}": ({**PUSH, "data": {key: "x"}}, 400, "reserved-key", "data")
       for key in ("from", "message_type", "gcm.x", "google.y", "belfry_id")},
    "data.from where push is not named": ({"title": "x", "data": {"from": "x"}}, 400, "reserved-key", "data"),
    "a reserved key within an override": ({**PUSH, "overrides": {"push": {"fcm": {"android": {"data": {"gcm.x": "1"}}}}}}, 400, "reserved-key", "overrides.push.fcm"),
    # too large for every provider of the person
    "a body that APNs does not take": ({"user_id": "apple", "title": "x", "body": LARGE, "channels": ["push"]}, 413, "payload-too-large", "body"),
    "a body that nobody takes": ({**PUSH, "body": LARGE}, 413, "payload-too-large", "body"),
    "data that nobody takes": ({**PUSH, "data": {"x": LARGE}, "channels": ["inapp", "push"]}, 413, "payload-too-large", "body"),
    # numbers
    **{f"data with {text}": ('{"user_id":"all","type":"t","title":"x","data":{"n":[1,%s]}}' % text, 400, "out-of-range", "data")
       for text in ("1e400", "-1E+999", "1" + "0" * 400)},
    "an override with 1e400": ('{"user_id":"all","type":"t","title":"x","overrides":{"push":{"apns":{"payload":{"n":1e400}}}}}', 400, "out-of-range", "overrides"),
    # nothing to see
    "a push of data alone": ({"data": {"a": 1}, "channels": ["push"]}, 400, "shows-nothing", "title"),
    "a push of data alone beside in-app": ({"data": {"a": 1}, "channels": ["inapp", "push"]}, 400, "shows-nothing", "title"),
    # links that leave the site or run
    **{f"action_url {url!r}": ({**PUSH, "action_url": url}, 400, "bad-value", "action_url")
       for url in ("//host/x", "/\\host", "/\\/host", "\\\\host", "/x\\..", "https:\\\\host", "javascript:alert(1)", "JaVaScRiPt:x", "data:text/html,x",
                   "vbscript:x", "file:///etc/passwd", "blob:x", "about:blank", "view-source:https://x", " /x", "/x y", "nothing")},
    **{f"action_url {url!r}": ({**PUSH, "action_url": url}, 400, "bad-character", "action_url") for url in ("/\t/host", "/x\ny", "java\tscript:x", "\x01/x")},
    "an action's url": ({**PUSH, "actions": [{"label": "x", "url": "//host"}]}, 400, "bad-value", "actions[0]"),
    # ids
    **{f"{field} with {ord(c):#x}": ({**PUSH, field: f"a{c}b"}, 400, "bad-character", field)
       for field in ("user_id", "type", "category", "topic", "collapse_key", "dedup_key", "id", "source") for c in ("\n", "\x1b", "\x7f", "\0")},
    "a recipient with an escape": ({"recipients": ["all", "x\x1b[2J"], "title": "x"}, 400, "bad-character", "recipients[1]"),
    # near misses
    **{f"{given} is {meant}": ({**PUSH, given: "x"}, 400, "unknown-field", given, meant)
       for given, meant in (("template_vars", "data"), ("variables", "data"), ("payload", "data"), ("recipient_ids", "recipients"), ("userIds", "recipients"),
                            ("segment_id", "segment"), ("in_app", "channels"), ("titel", "title"), ("bodi", "body"), ("userid", "user_id"), ("user-id", "user_id"),
                            ("colapse_key", "collapse_key"), ("expire_at", "expires_at"), ("idempotencyKey", "idempotency_key"), ("scheduledAt", "scheduled_at"))},
    "a field that is like none": ({**PUSH, "xyzzy": 1}, 400, "unknown-field", "xyzzy"),
    **{f"channel {given} is {meant}": ({"title": "x", "channels": [given]}, 400, "unknown-channel", "channels[0]", meant)
       for given, meant in (("in_app", "inapp"), ("in-app", "inapp"), ("InApp", "inapp"), ("websocket", "inapp"), ("fcm", "push"), ("pusch", "push"), ("mail", "email"))},
    **{f"channel {name}": ({"title": "x", "channels": [name]}, 400, "unsupported-channel", "channels[0]", name) for name in ("email", "sms", "webhook")},
}

TAKEN = {
    "a silent push of apns": {"data": {"a": 1}, "channels": ["push"], "overrides": {"push": {"apns": {"push_type": "background"}}}},
    "a silent push of fcm": {"data": {"a": 1}, "channels": ["push"], "overrides": {"push": {"fcm": {"data_only": True}}}},
    "a payload for a service worker": {"data": {"a": 1}, "channels": ["push"], "overrides": {"push": {"webpush": {"payload": {"k": 1}}}}},
    "data alone in-app": {"data": {"a": 1}},
    "data.from without push": {"title": "x", "data": {"from": "x"}, "channels": ["inapp"]},
    "data.fromage": {**PUSH, "data": {"fromage": "brie"}},
    "providers in any case": {**PUSH, "overrides": {"push": {"APNs": {"priority": 5}}}},
    "large in-app": {"title": "x", "body": LARGE},
    "large for one who has no device": {"user_id": "nobody", "title": "x", "body": LARGE, "channels": ["push"]},
    "numbers that doubles hold": {"title": "x", "data": {"a": 1e308, "b": 12345678901234567890, "c": 1e-400}},
    **{f"action_url {url}": {**PUSH, "action_url": url} for url in ("/orders/17?a=b#c", "/", "https://shop.example/x", "myapp://open/1", "mailto:a@b.example")},
    "an action with a path": {**PUSH, "actions": [{"label": "x", "url": "/x"}]},
    "a text of many lines": {**PUSH, "body": "one\ntwo"},
}


def event(fields):
    if isinstance(fields, str):
        return fields.encode()
    targeted = fields if {"user_id", "recipients"} & set(fields) else {"user_id": "all", **fields}
    return json.dumps({"type": "test", **targeted}).encode()


def post(node, fields):
    return node.request("POST", "/v1/notifications", event(fields), headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("name", REFUSED)
def test_refused(pushes, name):
    fields, status, kind, field, *words = REFUSED[name]
    answer = post(pushes, fields)
    assert answer.status == status, answer
    problem = answer.json
    assert problem["type"].endswith(f":{kind}") and problem["field"] == field, problem
    assert all(word in problem["detail"] for word in words), problem


@pytest.mark.parametrize("name", TAKEN)
def test_taken(pushes, name):
    answer = post(pushes, TAKEN[name])
    assert answer.status == 202, answer


def test_the_limit_is_named(pushes):
    detail = post(pushes, {**PUSH, "body": LARGE}).json["detail"]
    assert all(number in detail for number in ("4096", "3993")), detail
    assert "4096" in post(pushes, {"user_id": "apple", "title": "x", "body": LARGE, "channels": ["push"]}).json["detail"]
    voip = {"user_id": "apple", "channels": ["push"], "overrides": {"push": {"apns": {"push_type": "voip"}}}}
    assert post(pushes, {**voip, "data": {"x": "y" * 4500}}).status == 202
    assert "5120" in post(pushes, {**voip, "data": {"x": "y" * 5200}}).json["detail"]


def test_one_provider_is_enough(pushes):
    """A body that Web Push does not take (3,993) and APNs does (4,096) goes out where it can."""
    answer = post(pushes, {**PUSH, "data": {"x": "y" * 3700}})
    assert answer.status == 202, answer


@pytest.fixture(scope="module")
def broker():
    with PushNode(APPS, engine="kafka") as node:
        node.put_user("all", "apple", "nobody")
        for app in APPS:
            node.phone("all", app)
        node.phone("apple", "ios")
        yield node


def test_behind_kafka(broker):
    """The same table as records: each is a dead letter whose reason begins with the same word."""
    rows = {name: row for name, row in REFUSED.items() if row[2] != "unknown-field"}  # Kafka skips and counts those
    broker.produce("belfry.events.social", [("k", event(row[0]).decode()) for row in rows.values()])
    letters = until(lambda: len(found := broker.letters("ingest")) >= len(rows) and found, 60, "a letter for each")
    reasons = sorted(letter["reason"].split(":")[0] for letter in letters)
    assert reasons == sorted(row[2] for row in rows.values())


ENDPOINTS = ["https://127.0.0.1/x", "https://10.0.0.1/x", "https://169.254.169.254/latest/meta-data", "https://[::1]/x", "https://[::ffff:10.0.0.1]/x",
             "https://[64:ff9b::a00:1]/x", "https://100.64.0.1/x", "https://224.0.0.1/x", "https://2130706433/x", "https://0x7f.1/x", "https://127.1/x",
             "https://localhost/x", "https://LOCALHOST./x", "https://db.internal/x", "https://printer/x", "https://push.evil.example/x"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoints_of_private_networks(pushes, endpoint):
    body = {"platform": "web", "app": "web", "token": endpoint, "keys": Subscription().public()}
    answer = pushes.request("POST", "/v1/users/nobody/devices", body)
    assert answer.status == 422 and answer.json["field"] == "token", answer
    assert answer.json["type"].endswith("endpoint-not-allowed")


@pytest.fixture(scope="module")
def plain():
    with harness.Node(config={"egress": {"allow": "localhost, 10.1.0.0/16"}}) as node:
        node.put_user("ann")
        yield node


def test_exceptions(plain):
    """egress.allow; a node without apps, where devices may come first."""
    def register(endpoint):
        return plain.request("POST", "/v1/users/ann/devices",
                             {"platform": "web", "app": "site", "token": endpoint, "keys": Subscription().public()}).status
    assert [register(f"https://{host}/x") for host in ("localhost:9999", "10.1.2.3", "push.example.net")] == [201] * 3
    assert [register(f"https://{host}/x") for host in ("127.0.0.1", "10.2.0.1", "a.localhost")] == [422] * 3


def test_egress_is_checked(plain):
    done = plain.ctl("config", "reload", check=False)
    assert done.returncode == 0, done


@pytest.mark.parametrize("channel", ["email", "sms", "webhook", "in_app", "smoke"])
def test_subscriptions_that_reach_nobody(plain, channel):
    answer = plain.request("PUT", "/v1/topics/news/subscriptions/ann", {"channels": ["inapp", channel]})
    assert answer.status == 400 and answer.json["field"] == "channels", answer
    assert answer.json["type"].endswith("unsupported-channel" if channel in ("email", "sms", "webhook") else "unknown-channel")
    assert channel != "in_app" or "inapp" in answer.json["detail"]


def test_zones(plain):
    for zone in ("Europe/Berlin", "UTC", "America/Argentina/Buenos_Aires"):
        assert plain.request("PUT", "/v1/users/ann", {"zone": zone}).status == 200, zone
    for zone in ("Europe/Bonn", "Mars/Phobos", "Europe", "europe/berlin", "../etc/passwd", "posix/UTC", "tzdata.zi", "zone.tab", "", "Europe//Berlin"):
        answer = plain.request("PUT", "/v1/users/ann", {"zone": zone})
        assert answer.status == 400 and answer.json["field"] == "zone", (zone, answer)


CONTROLS = ["\n", "\r", "\x00", "\x1b", "\x7f", "\x1f"]


@pytest.mark.parametrize("c", CONTROLS, ids=[f"{ord(c):#x}" for c in CONTROLS])
def test_ids_with_control_characters(plain, c):
    """One set, wherever an id comes in: paths, bodies, tokens of the API and of sockets."""
    name = f"a{c}b"
    quoted = urllib.parse.quote(name, safe="")
    assert plain.request("PUT", f"/v1/users/{quoted}", {}).status == 400
    assert plain.request("GET", f"/v1/users/{quoted}").status == 400
    assert plain.request("PUT", f"/v1/topics/{quoted}", {}).status == 400
    assert plain.request("GET", f"/v1/devices?user_id={quoted}").status == 400
    assert plain.request("POST", "/v1/notifications", {"type": "t", "title": "x", "user_id": name}).status == 400
    assert plain.request("POST", "/v1/users/ann/devices", {"platform": "ios", "app": "x", "token": "aa", "device": name}).status == 400
    assert plain.request("GET", "/v1/devices", key=plain.token(name)).status == 401
    with harness.RawSocket(plain) as raw:
        _, _, behind = raw.upgrade(token=plain.token(name)).partition(b"\r\n\r\n")
        is_closed = behind[2:4] == (4401).to_bytes(2, "big") if behind else raw.close_code() == 4401
        assert is_closed, "the socket's token says the same"
    with plain.client("ann") as client:
        answer = client.call({"t": "sub", "topic": f"news.{name}"})
        assert answer["t"] == "error", answer


def test_dedup_key_is_per_recipient(plain):
    plain.put_user("bob", "cid")
    first = plain.send(recipients=["ann", "bob"], title="from billing", dedup_key="invoice-9")
    second = plain.send(recipients=["bob", "cid"], title="from shipping", dedup_key="invoice-9")
    assert [i["title"] for i in plain.stored("cid", 1)] == ["from shipping"], "who has not had it gets it"
    assert [i["title"] for i in plain.stored("bob", 1)] == ["from billing"]
    assert first != second

    def suppressed():
        status = plain.request("GET", f"/v1/notifications/{second}/status").json
        return {r["user_id"]: r["channels"][0]["status"] for r in status["recipients"]}
    assert until(lambda: suppressed().get("bob") == "suppressed", 10, "bob's repetition is suppressed")


LATER = ["/v1/notifications/bulk", "/v1/batches", "/v1/batches/17", "/v1/templates", "/v1/templates/x/preview", "/v1/types", "/v1/categories",
         "/v1/segments", "/v1/segments/vip", "/v1/webhooks", "/v1/webhooks/1/test", "/v1/deliveries", "/v1/callbacks/twilio", "/v1/unsubscribe",
         "/v1/unsubscribe?token=x", "/v1/users/ann/export"]


@pytest.mark.parametrize("path", LATER)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_not_built_yet(plain, path, method):
    answer = plain.request(method, path, {} if method in ("POST", "PUT") else None)
    assert answer.status == 501 and answer.json["type"].endswith("not-built"), answer
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert "not built yet" in answer.json["detail"] and "Today:" in answer.json["detail"], answer.json


NEAR = {
    "/api/v1/notifications": "/v1/notifications", "/api/v1/users/ann": "/v1/users/ann", "/v1/notification": "/v1/notifications",
    "/notifications": "/v1/notifications", "/v1/event": "/v1/events", "/v1/user/ann": "/v1/users/ann", "/v1/users/ann/device": "/v1/users/ann/devices",
    "/v1/users/ann/preference": "/v1/users/ann/preferences", "/v1/topic/x": "/v1/topics/x", "/v1//notifications": "/v1/notifications",
    "/api/notifications": "/v1/notifications", "/v1/notifications/": "/v1/notifications", "/v1/template": "/v1/templates",
}


@pytest.mark.parametrize("path", NEAR)
def test_near_misses_of_paths(plain, path):
    answer = plain.request("POST", path, {})
    assert answer.status == 404 and f"did you mean {NEAR[path]}?" in answer.json["detail"], answer


def test_paths_that_are_nothing(plain):
    answer = plain.request("POST", "/wp-login.php", {}, key="")
    assert answer.status == 404 and "did you mean" not in answer.json["detail"], answer
    assert plain.request("POST", "/v1/notifications/read-all", {"user_id": "ann"}).status == 200
    assert plain.request("PATCH", "/v1/users/ann", {}).status == 405


def test_near_misses_of_other_bodies(plain):
    answer = plain.request("POST", "/v1/users/ann/devices", {"platform": "ios", "app": "x", "tokn": "aa"})
    assert answer.status == 400 and "did you mean token?" in answer.json["detail"], answer
