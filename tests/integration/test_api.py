"""The HTTP API and what bad input gets: ING-1, ING-3, ING-5, ING-6, ING-7, ING-9, ING-11, SEC-1.

Every refusal is problem+json, names the field, and leaves nothing behind.
"""
import json
import re
import threading
import urllib.parse

import pytest
from harness import http_request, quote, until

CONFIG = {"api": {"rate_per_min": 60}}
GOOD = {"type": "t", "title": "x"}


def problem(answer, status, word=""):
    """The answer is an RFC 9457 problem of this status that names |word|."""
    assert answer.status == status, answer
    assert answer.headers.get_content_type() == "application/problem+json", answer.headers
    body = answer.json
    assert body.get("status") == status and body.get("title") and body.get("type"), body
    assert word in json.dumps(body, ensure_ascii=False), f"{word} is not named in {body}"
    return body


# ---- bad input ----------------------------------------------------------------------------------------

BAD_EVENTS = [
    # body (dict over a good event, or raw bytes), status, what the answer names
    ("not JSON", b"{", 400, ""),
    ("empty", b"", 400, ""),
    ("trailing bytes", b'{"type":"t","title":"x","user_id":"known"} x', 400, ""),
    ("an array", b"[]", 400, ""),
    ("a number", b"1", 400, ""),
    ("wrong UTF-8", b'{"type":"t","title":"\xc3\x28","user_id":"known"}', 400, ""),
    ("lone surrogate", b'{"type":"t","title":"\\ud800","user_id":"known"}', 400, ""),
    ("a duplicated field", b'{"type":"t","title":"x","user_id":"known","user_id":"other"}', 400, "user_id"),
    ("deep nesting", b'{"type":"t","title":"x","user_id":"known","data":' + b"[" * 3000 + b"]" * 3000 + b"}", 400, ""),
    ("unknown field", {"user_id": "known", "colour": 1}, 400, "colour"),
    ("no target", {}, 400, ""),
    ("two targets", {"user_id": "known", "recipients": ["known"]}, 400, ""),
    ("two targets", {"user_id": "known", "broadcast": True}, 400, "broadcast"),
    ("no type", {"user_id": "known", "type": None}, 400, "type"),
    ("type of a wrong type", {"user_id": "known", "type": 7}, 400, "type"),
    ("empty type", {"user_id": "known", "type": ""}, 400, "type"),
    ("type too long", {"user_id": "known", "type": "x" * 129}, 400, "type"),
    ("title of a wrong type", {"user_id": "known", "title": {}}, 400, "title"),
    ("user_id of a wrong type", {"user_id": 5}, 400, "user_id"),
    ("empty user_id", {"user_id": ""}, 400, "user_id"),
    ("user_id too long", {"user_id": "x" * 129}, 400, "user_id"),
    ("unknown user", {"user_id": "nobody"}, 400, "nobody"),
    ("unknown user among others", {"recipients": ["known", "nobody-either"]}, 400, "nobody-either"),
    ("recipients of a wrong type", {"recipients": "known"}, 400, "recipients"),
    ("no recipients", {"recipients": []}, 400, "recipients"),
    ("a number among recipients", {"recipients": ["known", 3]}, 400, "recipients"),
    ("too many recipients", {"recipients": [f"r{i}" for i in range(1001)]}, 400, "recipients"),
    ("broadcast false", {"broadcast": False}, 400, ""),
    ("bad priority", {"user_id": "known", "priority": "urgent"}, 400, "priority"),
    ("bad channel", {"user_id": "known", "channels": ["pigeon"]}, 400, "pigeon"),
    ("empty channels", {"user_id": "known", "channels": []}, 400, "channels"),
    ("channels of a wrong type", {"user_id": "known", "channels": "inapp"}, 400, "channels"),
    ("data of a wrong type", {"user_id": "known", "data": "x"}, 400, "data"),
    ("negative ttl", {"user_id": "known", "ttl": -1}, 400, "ttl"),
    ("ttl of a wrong type", {"user_id": "known", "ttl": "1h"}, 400, "ttl"),
    ("ttl and expires_at", {"user_id": "known", "ttl": 5, "expires_at": "2099-01-01T00:00:00Z"}, 400, ""),
    ("bad expires_at", {"user_id": "known", "expires_at": "tomorrow"}, 400, "expires_at"),
    ("transient of a wrong type", {"user_id": "known", "transient": "yes"}, 400, "transient"),
    ("topic too long", {"user_id": "known", "topic": "x" * 129}, 400, "topic"),
    ("collapse_key of a wrong type", {"user_id": "known", "collapse_key": 1}, 400, "collapse_key"),
    ("actions of a wrong type", {"user_id": "known", "actions": {"a": 1}}, 400, "actions"),
    ("action_url of a wrong type", {"user_id": "known", "action_url": 1}, 400, "action_url"),
    ("too large", {"user_id": "known", "data": {"x": "y" * 70000}}, 413, ""),
    # what later work brings is refused by name, never ignored
    ("a template", {"user_id": "known", "template_id": "welcome"}, 400, "template_id"),
    ("a schedule", {"user_id": "known", "scheduled_at": "2099-01-01T00:00:00Z"}, 400, "scheduled_at"),
    ("a segment", {"segment": "all-of-them"}, 400, "segment"),
    ("push to nobody's socket", {"user_id": "known", "channels": ["push"], "transient": True}, 400, "transient"),
    ("email beside in-app", {"user_id": "known", "channels": ["inapp", "email"]}, 400, "email"),
    ("sms", {"user_id": "known", "channels": ["sms"]}, 400, "sms"),
    ("webhook", {"user_id": "known", "channels": ["webhook"]}, 400, "webhook"),
    ("a fallback to nothing", {"user_id": "known", "fallback": True}, 400, "channels"),
    ("overrides of another channel", {"user_id": "known", "overrides": {"sms": {}}}, 400, "overrides"),
    ("overrides beside push's", {"user_id": "known", "overrides": {"push": {}, "email": {}}}, 400, "overrides"),
    ("overrides of a wrong type", {"user_id": "known", "overrides": []}, 400, "overrides"),
    ("overrides of push, a text", {"user_id": "known", "overrides": {"push": "loud"}}, 400, "overrides"),
    ("too large overrides", {"user_id": "known", "overrides": {"push": {"apns": {"x": "y" * 33000}}}}, 413, "overrides"),
    ("a number among channels", {"user_id": "known", "channels": ["push", 1]}, 400, "channels"),
    ("fallback of a wrong type", {"user_id": "known", "channels": ["inapp", "push"], "fallback": "yes"}, 400, "fallback"),
    ("transient with push", {"user_id": "known", "channels": ["inapp", "push"], "transient": True}, 400, "transient"),
]


@pytest.mark.parametrize("name,body,status,word", BAD_EVENTS, ids=[f"{i}-{b[0]}" for i, b in enumerate(BAD_EVENTS)])
def test_bad_events(embedded, name, body, status, word):
    if isinstance(body, dict):
        body = json.dumps({k: v for k, v in {**GOOD, **body}.items() if v is not None})
    embedded.put_user("known")
    before = embedded.metric("belfry_log_appends")
    problem(embedded.request("POST", "/v1/notifications", body), status, word)
    assert embedded.metric("belfry_log_appends") == before, "nothing half-accepted"


def test_refused_events_leave_nothing(embedded):
    embedded.put_user("known")
    assert embedded.inbox("known") == []


@pytest.mark.parametrize("body", [b'{"x":1', b"\xff\xfe", b'{"unknown":true}', b'["x"]', b"7"])
@pytest.mark.parametrize("method,path", [("PUT", "/v1/users/known"), ("PUT", "/v1/users/known/preferences"),
                                         ("POST", "/v1/events"), ("PUT", "/v1/topics/t/subscriptions/known")])
def test_bad_bodies_elsewhere(embedded, method, path, body):
    embedded.put_user("known")
    problem(embedded.request(method, path, body), 400)


@pytest.mark.parametrize("method,path,status", [
    ("GET", "/", 404), ("GET", "/v1/nothing", 404), ("GET", "/v1/users/unknown-one", 404), ("DELETE", "/v1/notifications", 405),
    ("GET", "/v1/notifications/not-an-id/status", 404), ("POST", "/v1/users/known", 405),
    ("GET", "/v1/notifications/00000000-0000-8000-8000-000000000000/status", 404),
    ("PUT", "/v1/users/" + "x" * 129, 400), ("PUT", "/v1/users/%ff%fe", 400), ("PUT", "/v1/users/a%00b", 400),
    ("GET", "/v1/users/known/notifications?limit=0", 400), ("GET", "/v1/users/known/notifications?limit=101", 400),
    ("GET", "/v1/users/known/notifications?limit=x", 400), ("GET", "/v1/users/known/notifications?cursor=zzz", 400),
])
def test_bad_paths(embedded, method, path, status):
    embedded.put_user("known")
    answer = embedded.request(method, path, {} if method in ("PUT", "POST") else None)
    if path.endswith("not-an-id/status") and answer.status == 400:
        status = 400
    problem(answer, status)


def test_huge_and_slow_requests(embedded):
    """A body of 10 MB is refused without being kept; a request that never ends does not hold others."""
    import socket
    problem_or_reset = None
    try:
        problem_or_reset = embedded.request("POST", "/v1/notifications", b"x" * 10_000_000)
    except OSError:
        pass  # the server answered and closed while we still wrote
    if problem_or_reset is not None:
        assert problem_or_reset.status == 413
    url = urllib.parse.urlsplit(embedded.info["api"])
    slow = [socket.create_connection((url.hostname, url.port)) for _ in range(20)]
    for s in slow:
        s.sendall(b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
    embedded.put_user("known")
    embedded.send("known")
    for s in slow:
        s.close()


# ---- keys -------------------------------------------------------------------------------------------------

def make_key(node, *scopes):
    args = [a for s in scopes for a in ("--scope", s)]
    return re.search(r"bfk_[\w-]+", node.ctl("key", "create", *args).stdout).group(0)


def test_bad_keys(embedded):
    embedded.put_user("known")
    event = {**GOOD, "user_id": "known"}
    for key in ("", "bfk_" + "0" * 48, "nonsense", embedded.key[:-1]):
        answer = embedded.request("POST", "/v1/notifications", event, key=key)
        problem(answer, 401)
        assert "WWW-Authenticate" in answer.headers
    basic = http_request(embedded.info["api"], "POST", "/v1/notifications", event, {"Authorization": "Basic eDp5"})
    problem(basic, 401)


def test_scopes(embedded):
    embedded.put_user("known")
    send, users, status = (make_key(embedded, s) for s in ("send", "users", "status"))
    event = {**GOOD, "user_id": "known"}
    assert embedded.request("POST", "/v1/notifications", event, key=send).status == 202
    problem(embedded.request("POST", "/v1/notifications", event, key=users), 403, "send")
    problem(embedded.request("PUT", "/v1/users/u2", {}, key=send), 403, "users")
    problem(embedded.request("DELETE", "/v1/users/known", key=send), 403, "users")
    problem(embedded.request("POST", "/v1/events", {**GOOD, "topic": "t"}, key=status), 403, "events")
    problem(embedded.request("POST", "/v1/notifications", {**event, "priority": "critical"}, key=send), 403, "critical")
    sent = embedded.request("POST", "/v1/notifications", event, key=send).json["notification_id"]
    problem(embedded.request("GET", f"/v1/notifications/{sent}/status", key=send), 403, "status")
    assert embedded.request("GET", f"/v1/notifications/{sent}/status", key=status).status == 200


def test_users_reach_only_their_own(embedded):
    embedded.put_user("me", "you")
    embedded.send("you")
    token = embedded.token("me")
    assert embedded.request("GET", "/v1/users/me/notifications", key=token).status == 200
    problem(embedded.request("GET", "/v1/users/you/notifications", key=token), 403)
    problem(embedded.request("GET", "/v1/users/you/preferences", key=token), 403)
    problem(embedded.request("PUT", "/v1/users/you/preferences", {"opt_out": True}, key=token), 403)
    yours = embedded.stored("you", 1)[0]["id"]
    answer = embedded.request("PATCH", f"/v1/notifications/{yours}", {"read": True}, key=token)
    assert answer.status in (403, 404), answer
    problem(embedded.request("POST", "/v1/notifications", {**GOOD, "user_id": "you"}, key=token), 403)
    problem(embedded.request("GET", "/v1/users/me/notifications", key=embedded.token("me", ttl=-100)), 401)


# ---- idempotency (ING-5) -------------------------------------------------------------------------------------

def test_idempotency(node, user):
    event = {**GOOD, "user_id": user}
    for headers, extra in (({"Idempotency-Key": f"h-{user}"}, {}), ({}, {"idempotency_key": f"b-{user}"})):
        first = node.request("POST", "/v1/notifications", {**event, **extra}, headers=headers)
        again = node.request("POST", "/v1/notifications", {**event, **extra}, headers=headers)
        assert first.status == again.status == 202
        assert first.json == again.json
        assert again.headers.get("Idempotency-Replay") == "true" and first.headers.get("Idempotency-Replay") is None
        problem(node.request("POST", "/v1/notifications", {**event, **extra, "title": "other"}, headers=headers), 422)
    until(lambda: len(node.inbox(user)) == 2, 5, "each key gave one notification")


def test_idempotency_is_a_keys_own(embedded, user):
    other = make_key(embedded, "send")
    event = {**GOOD, "user_id": user}
    headers = {"Idempotency-Key": "shared"}
    a = embedded.request("POST", "/v1/notifications", event, headers=headers)
    b = embedded.request("POST", "/v1/notifications", event, headers=headers, key=other)
    assert a.status == b.status == 202 and a.json["notification_id"] != b.json["notification_id"]


def test_idempotency_survives_restart(node, user):
    headers = {"Idempotency-Key": f"restart-{user}"}
    event = {**GOOD, "user_id": user}
    first = node.request("POST", "/v1/notifications", event, headers=headers)
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    again = node.request("POST", "/v1/notifications", event, headers=headers)
    assert again.status == 202 and again.json == first.json and again.headers.get("Idempotency-Replay") == "true"
    assert len(node.stored(user, 1)) == 1


def test_one_still_running_is_409(embedded, user):
    """Many at once with one key: each answer is the 202 of the one that ran, or a 409 with Retry-After."""
    event = {**GOOD, "user_id": user}
    answers = []

    def post():
        answers.append(embedded.request("POST", "/v1/notifications", event, headers={"Idempotency-Key": f"race-{user}"}))
    threads = [threading.Thread(target=post) for _ in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {a.status for a in answers} <= {202, 409}
    assert len({a.json["notification_id"] for a in answers if a.status == 202}) == 1
    for a in answers:
        if a.status == 409:
            problem(a, 409)
            assert int(a.headers["Retry-After"]) >= 1
    assert len(embedded.stored(user, 1)) == 1


# ---- rate limit (ING-6) -----------------------------------------------------------------------------------------

def test_rate_limit(embedded, user):
    limited = make_key(embedded, "send")  # the configuration's 60 a minute
    event = {**GOOD, "user_id": user}
    answers = [embedded.request("POST", "/v1/notifications", event, key=limited) for _ in range(75)]
    refused = [a for a in answers if a.status == 429]
    accepted = [a for a in answers if a.status == 202]
    assert len(accepted) + len(refused) == 75 and 55 <= len(accepted) <= 66
    problem(refused[0], 429)
    assert int(refused[0].headers["Retry-After"]) >= 1
    for name in ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"):
        assert name in accepted[0].headers, f"{name} is missing in {dict(accepted[0].headers)}"
    assert embedded.request("POST", "/v1/notifications", event).status == 202, "another key is not held up"
    assert len(embedded.stored(user, len(accepted) + 1)) == len(accepted) + 1, "what was refused left nothing"


# ---- users (ING-11) -------------------------------------------------------------------------------------------------

def test_users(node):
    body = {"locale": "de-DE", "timezone": "Europe/Berlin", "email": "a@example.com", "attributes": {"plan": "pro", "n": 3}}
    name = "Jürgen Ωmega/2"
    path = f"/v1/users/{quote(name)}"
    created = node.request("PUT", path, body)
    if created.status == 400 and "timezone" in created.body.decode():  # ING-11 calls it "zone"
        body["zone"] = body.pop("timezone")
        created = node.request("PUT", path, body)
    assert created.status == 201, created
    assert node.request("PUT", path, body).status == 200
    got = node.request("GET", path).json
    for field, value in body.items():
        assert got[field] == value
    assert node.request("DELETE", path).status in (200, 204)
    problem(node.request("GET", path), 404)
    problem(node.request("POST", "/v1/notifications", {**GOOD, "user_id": name}), 400, "user")


def test_subscriptions(node, user):
    path = f"/v1/topics/prices/subscriptions/{user}"
    assert node.request("PUT", path, {}).status in (200, 201, 204)
    listed = node.request("GET", f"/v1/users/{user}/subscriptions")
    assert listed.status == 200 and "prices" in listed.body.decode()
    assert "prices" in node.request("GET", "/v1/topics").body.decode()
    assert node.request("DELETE", path).status in (200, 204)
    assert "prices" not in node.request("GET", f"/v1/users/{user}/subscriptions").body.decode()


def test_stored_event_says_who_and_when(embedded, user):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = embedded.send(user, headers={"traceparent": trace})
    status = embedded.request("GET", f"/v1/notifications/{sent}/status").body.decode()
    assert "0af7651916cd43dd8448eb211c80319c" in status


def test_dedup_key_is_one_logical_event(node, user):
    """ING-5: several producers raise the same thing; one of them is delivered, the status of the others says why."""
    first = node.send(user, title="from billing", dedup_key="invoice-7")
    second = node.send(user, title="from shipping", dedup_key="invoice-7")
    other = node.send(user, title="another", dedup_key="invoice-8")
    assert len({first, second, other}) == 3
    assert [i["title"] for i in node.stored(user, 2)] == ["another", "from billing"]
    status = node.request("GET", f"/v1/notifications/{second}/status")
    assert status.status == 200 and "duplicate" in status.body.decode(), status
