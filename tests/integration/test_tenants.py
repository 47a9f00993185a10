"""One tenant never sees another's. Two tenants with equal users, topics, device tokens, idempotency, dedup and collapse
keys go through every route and channel; whatever either sees is kept and compared with all that is the other's: the
word in its notifications, and every id that it was given. The last test prints the number of comparisons.

The admin port is not on the loopback here, so that admin calls take a key: an operator's sees all, a tenant's its own."""
import json
import re

import pytest

from harness import Client, until
from phones import KINDS, PushNode
from test_sse import Events

CONFIG = {"admin": {"host": "0.0.0.0"}, "api": {"rate_per_min": 0}, "topics": {"broadcast": ["news"], "public": ["news"]}}
SCOPES = ("send", "broadcast", "events", "users", "status", "critical", "admin")
TOKENS = {"ios": "ab" * 32, "android": "fcm-" + "cd" * 16 + ":APA91b"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Tenant:
    """One of the two: its key, its people's tokens, and every text that was shown to it."""

    def __init__(self, node, name, word):
        self.node, self.name, self.word = node, name, word
        args = [a for scope in SCOPES for a in ("--scope", scope)]
        out = node.ctl("key", "create", "--tenant", name, "--rate", "1000000", *args).stdout
        self.key = re.search(r"bfk_\w+", out).group(0)
        self.seen = {}  # where -> texts
        self.ids = set()
        self.sent = {}

    def see(self, where, what):
        text = what if isinstance(what, str) else json.dumps(what)
        self.seen.setdefault(where, []).append(text)
        return what

    def call(self, method, path, body=None, key=None, expect=(200, 201, 202, 204), headers=None):
        answer = self.node.request(method, path, body, key=key or self.key, headers=headers)
        self.see(f"{method} {re.sub(UUID, '{id}', path.split('?')[0])}",
                 answer.body.decode() + json.dumps(dict(answer.headers)))
        assert expect is None or answer.status in expect, (self.name, method, path, answer)
        return answer

    def token(self, user, **claims):
        return self.node.token(user, tenant=self.name, **claims)

    def client(self, user, **options):
        return Client(self.node, user, token=self.token(user, topics=["team", "news"]), **options)

    def send(self, label, **fields):
        event = {"type": "test", "title": f"{label} {self.word}", "body": self.word, "data": {"of": self.word}, **fields}
        answer = self.call("POST", "/v1/notifications", event)
        self.sent[label] = answer.json["notification_id"]
        self.ids.add(self.sent[label])
        return self.sent[label]

    def take(self, where, client, count):
        """So many notifications, and nothing after them."""
        frames = []
        while len([f for f in frames if f["t"] in ("n", "b")]) < count:
            frames.append(self.see(where, client.recv()))
        self.ids |= {f["id"] for f in frames if "id" in f}
        client.send({"t": "ping"})
        while (frame := self.see(where, client.recv()))["t"] != "pong":
            assert frame["t"] not in ("n", "b"), f"{self.name} at {where}: one too many: {frame}"
        return [f for f in frames if f["t"] in ("n", "b")]


@pytest.fixture(scope="module")
def node():
    with PushNode(apps={"ios": "apns", "android": "fcm"}, config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def pair(node):
    both = Tenant(node, "acme", "ALPHA"), Tenant(node, "bolt", "BRAVO")
    for tenant in both:
        for user in ("ann", "bob"):
            tenant.call("PUT", f"/v1/users/{user}", {"email": f"{user}@{tenant.word.lower()}.example"})
        tenant.call("PUT", "/v1/topics/team", {"carriage": "inbox"})
        tenant.call("PUT", "/v1/topics/news", {"carriage": "broadcast"})
        tenant.call("PUT", f"/v1/topics/own-{tenant.word}", {})
        tenant.call("PUT", "/v1/topics/team/subscriptions/ann", {})
    return both


def test_a_broadcast_reaches_its_tenant_alone(pair):
    """Everyone's and a topic's; every tenant's sockets are open, and the default tenant's too."""
    a, b = pair
    with a.client("ann", topics=["news"]) as mine, b.client("ann", topics=["news"]) as theirs, \
            Client(a.node, "ann", topics=["news"]) as nobodys, \
            Events(a.node, "bob", token=a.token("bob")) as stream:
        stream.welcome()
        for client in (mine, theirs):
            client.send({"t": "sub", "topic": "news", "ref": "s"})
            client.expect("ok")
        for tenant, client in ((a, mine), (b, theirs)):
            tenant.send("all", broadcast=True)
            tenant.call("POST", "/v1/events", {"type": "t", "topic": "news", "title": tenant.word, "data": {"x": tenant.word}})
        for tenant, client in ((a, mine), (b, theirs)):
            frames = tenant.take("ws broadcast", client, 2)
            assert {f["title"] for f in frames} == {f"all {tenant.word}", tenant.word}, frames
            assert {f.get("topic") for f in frames} == {None, "news"}
        nobodys.quiet()
        a.see("sse broadcast", stream.expect("b", title="all ALPHA"))


def test_resume_replays_its_tenants_broadcasts(pair):
    a, b = pair
    resumes = []
    for tenant in pair:
        with tenant.client("bob") as client:
            resumes.append(client.resume(b=client.welcome["b"]))
    for i in range(3):
        for tenant in pair:
            tenant.send(f"missed {i}", broadcast=True)
    until(lambda: all("bseq" in t.call("GET", f"/v1/notifications/{t.sent['missed 2']}/status").json for t in pair), 10,
          "both are on the log")
    for tenant, resume in zip(pair, resumes):
        with tenant.client("bob", resume=resume) as client:
            frames = tenant.take("ws resume", client, 3)
            assert [f["title"] for f in frames] == [f"missed {i} {tenant.word}" for i in range(3)]


def test_targeted_topic_inbox_and_marks(pair):
    for tenant in pair:
        with tenant.client("ann") as client:
            tenant.send("one", user_id="ann", source="shop", id="42", collapse_key="c", priority="high")
            tenant.send("several", recipients=["ann", "bob"])
            tenant.send("team", topic="team")
            frames = tenant.take("ws", client, 3)
            assert all(tenant.word in f["title"] for f in frames)
            client.send({"t": "read", "id": frames[0]["id"], "ref": "r"})
            while tenant.see("ws read", client.recv())["t"] != "ok":
                continue
    a, b = pair
    assert a.sent["one"] != b.sent["one"], "the same source and id in two tenants are two events"
    for tenant in pair:
        items = tenant.call("GET", "/v1/users/ann/notifications").json
        tenant.ids |= {i["id"] for i in items["notifications"]}
        assert len(items["notifications"]) == 3 and items["unread_count"] == 2
        mine = tenant.call("GET", "/v1/users/ann/notifications", key=tenant.token("ann")).json
        assert mine["notifications"] == items["notifications"]


def test_ids_of_the_other_are_unknown(pair):
    """Every route that takes an id, with the other's id, by key and by the token of the same user."""
    a, b = pair
    for tenant, other in ((a, b), (b, a)):
        items = tenant.call("GET", "/v1/users/ann/notifications").json
        theirs = [i["id"] for i in other.call("GET", "/v1/users/ann/notifications").json["notifications"]]
        for which in theirs + [other.sent["one"], other.sent["all"]]:
            tried = [("GET", f"/v1/users/ann/notifications/{which}", None),
                     ("DELETE", f"/v1/users/ann/notifications/{which}", None),
                     ("PATCH", f"/v1/notifications/{which}?user_id=ann", {"read": True}),
                     ("PATCH", f"/v1/notifications/{which}/read?user_id=ann", {}),
                     ("DELETE", f"/v1/notifications/{which}?user_id=ann", {}),
                     ("POST", f"/v1/notifications/{which}/events?user_id=ann", {"event": "received"}),
                     ("GET", f"/v1/notifications/{which}/status", None),
                     ("GET", f"/v1/notifications/{which}/status?user_id=ann", None)]
            for method, path, body in tried:
                tenant.call(method, path, body, expect=(404,))
                if "/status" not in path:
                    tenant.call(method, path, body, key=tenant.token("ann"), expect=(404,))
        with tenant.client("ann") as client:
            client.send({"t": "read", "id": theirs[0], "ref": "r"})
            assert tenant.see("ws read", client.recv())["t"] == "error"
        after = tenant.call("GET", "/v1/users/ann/notifications").json
        assert after == items, "trying changed nothing"


def test_idempotency_and_dedup_are_a_tenants_own(pair):
    for tenant in pair:
        first = tenant.call("POST", "/v1/notifications", {"type": "t", "title": tenant.word, "user_id": "bob",
                                                          "dedup_key": "d-1"}, headers={"Idempotency-Key": "k-1"})
        assert "Idempotency-Replay" not in first.headers
        again = tenant.call("POST", "/v1/notifications", {"type": "t", "title": tenant.word, "user_id": "bob",
                                                          "dedup_key": "d-1"}, headers={"Idempotency-Key": "k-1"})
        assert again.json == first.json and again.headers["Idempotency-Replay"] == "true"
        tenant.ids.add(first.json["notification_id"])
        until(lambda: any(i["title"] == tenant.word
                          for i in tenant.call("GET", "/v1/users/bob/notifications").json["notifications"]),
              10, "the other's dedup_key did not swallow it")


def test_preferences_subscriptions_and_topics(pair):
    a, b = pair
    assert a.call("PUT", "/v1/users/bob/preferences", {"types": {"only-ALPHA": {"push": False}}}).status == 200
    for tenant in pair:
        prefs = tenant.call("GET", "/v1/users/bob/preferences").json
        assert ("only-ALPHA" in json.dumps(prefs)) == (tenant is a)
        names = [t["topic"] for t in tenant.call("GET", "/v1/topics").json["topics"]]
        assert f"own-{tenant.word}" in names and len([n for n in names if n.startswith("own-")]) == 1
        tenant.call("GET", "/v1/topics/team")
        tenant.call("GET", "/v1/users/ann/subscriptions", key=tenant.token("ann"))
        tenant.call("GET", "/v1/users/ann")
    b.call("GET", "/v1/topics/own-ALPHA", expect=(404,))
    b.seen.pop("GET /v1/topics/own-ALPHA")  # says the name that was asked for
    a.call("DELETE", "/v1/topics/team/subscriptions/ann")
    assert b.call("GET", "/v1/users/ann/subscriptions").json["subscriptions"], "the other's subscription stays"
    a.call("PUT", "/v1/topics/team/subscriptions/ann", {})


def test_one_phone_in_two_tenants(pair, node):
    """The same token registered by both: each keeps its device, and each push carries its own content."""
    devices = {}
    for tenant in pair:
        for app, token in TOKENS.items():
            body = {"platform": KINDS[node.apps[app]], "app": app, "token": token, "device": "phone"}
            devices[tenant.name, app] = tenant.call("POST", "/v1/users/bob/devices", body).json["id"]
            tenant.ids.add(devices[tenant.name, app])
    for tenant in pair:
        listed = tenant.call("GET", "/v1/users/bob/devices").json["devices"]
        assert {d["id"] for d in listed} == {devices[tenant.name, app] for app in TOKENS}, "neither took the other's away"
        other = pair[1] if tenant is pair[0] else pair[0]
        for app in TOKENS:
            tenant.call("GET", f"/v1/users/bob/devices/{devices[other.name, app]}", expect=(404,))
            tenant.call("DELETE", f"/v1/users/bob/devices/{devices[other.name, app]}", expect=(404,))
            tenant.call("DELETE", f"/v1/devices/{devices[other.name, app]}", key=tenant.token("bob"), expect=(404,))
    for tenant in pair:
        tenant.send("push", user_id="bob", channels=["push"], collapse_key="same")
        tenant.send("push all", broadcast=True, channels=["inapp", "push"], collapse_key="same for all")
    lines = until(lambda: len(found := [x for app, token in TOKENS.items()
                                        for x in node.record.of(node.apps[app], token)]) >= 8 and found, 20, "eight pushes")
    assert len(lines) == 8, "each tenant's two, at two providers"
    by_word = {t.word: [json.dumps(x) for x in lines if t.word in json.dumps(x)] for t in pair}
    assert [len(texts) for texts in by_word.values()] == [4, 4]
    for tenant in pair:
        for text in by_word[tenant.word]:
            tenant.see("push", text)
    keys = {t.word: set(re.findall(r'collapse_key\\?": ?\\?"([^"\\]+)', " ".join(by_word[t.word]))) for t in pair}
    assert all(keys.values()) and not keys["ALPHA"] & keys["BRAVO"], f"one collapse key, two tenants: {keys}"


def test_dead_letters_and_admin(pair, node):
    """An admin key of a tenant lists, redrives, traces and purges its own; what is the whole node's is for operators."""
    a, b = pair
    node.providers.faults(*({"provider": "apns", "kind": "answer", "token": TOKENS["ios"], "status": 400,
                             "reason": "BadPriority"} for _ in range(1)))
    for tenant in pair:
        tenant.send("dead", user_id="bob", channels=["push"])

    def letters(tenant):
        answer = node.admin("GET", "/admin/dlq?channel=push&limit=1000", key=tenant.key)
        assert answer.status == 200, answer
        return tenant.see("GET /admin/dlq", answer.json)["letters"]
    until(lambda: all(len(letters(t)) == 1 for t in pair), 20, "each sees its one letter")
    node.providers.calm()
    assert len(node.admin("GET", "/admin/dlq?channel=push").json["letters"]) == 2, "an operator sees both"
    for tenant, other in ((a, b), (b, a)):
        for path in ("/admin/dlq/redrive", "/admin/dlq/purge"):
            done = node.admin("POST", path, {"event_id": other.sent["dead"]}, key=tenant.key)
            assert done.status == 200 and done.json.get("redriven", done.json.get("purged")) == 0, done
        assert node.admin("GET", f"/admin/trace/{other.sent['dead']}", key=tenant.key).status == 404
        tenant.see("GET /admin/trace", node.admin("GET", f"/admin/trace/{tenant.sent['dead']}", key=tenant.key).body.decode())
        for method, path in (("GET", "/admin/status"), ("POST", "/admin/drain"), ("POST", "/admin/config/reload")):
            answer = node.admin(method, path, {} if method == "POST" else None, key=tenant.key)
            assert answer.status == 403 and answer.json["type"].endswith("operators-only"), answer
    with a.client("ann", device="here"), b.client("ann", device="here"):
        for tenant in pair:
            rows = tenant.see("GET /admin/connections",
                              node.admin("GET", "/admin/connections?limit=100", key=tenant.key).json)["connections"]
            assert {r["tenant"] for r in rows} == {tenant.name}
            rows = node.admin("GET", f"/admin/connections?user_id=ann&tenant={'bolt' if tenant is a else 'acme'}",
                              key=tenant.key).json["connections"]
            assert {r["tenant"] for r in rows} == {tenant.name}, "another tenant cannot be asked for"
    for tenant in pair:
        keys = tenant.see("GET /admin/keys", node.admin("GET", "/admin/keys", key=tenant.key).json)["keys"]
        assert {k["tenant"] for k in keys} == {tenant.name}
    stolen = node.admin("POST", "/admin/keys", {"scopes": ["send"], "tenant": "bolt"}, key=a.key)
    assert stolen.status == 403, stolen
    made = node.admin("POST", "/admin/keys", {"scopes": ["send"]}, key=a.key)
    assert made.status == 201 and made.json["tenant"] == "acme"
    done = node.admin("POST", "/admin/dlq/redrive", {"event_id": a.sent["dead"]}, key=a.key)
    assert done.json["redriven"] == 1, done
    assert [x["event_id"] for x in letters(b)] == [b.sent["dead"]], "the other's letter stays"
    assert node.admin("POST", "/admin/dlq/purge", {"channel": "push"}, key=b.key).json["purged"] == 1


def test_status_shows_a_tenants_own_recipients(pair):
    for tenant in pair:
        for label, which in tenant.sent.items():
            until(lambda: tenant.call("GET", f"/v1/notifications/{which}/status").json.get("complete"), 10, label)
            tenant.call("GET", f"/v1/notifications/{which}/status?user_id=ann")


def test_erasing_one_leaves_the_other(pair):
    a, b = pair
    with b.client("bob") as client:
        a.call("DELETE", "/v1/users/bob")
        a.call("GET", "/v1/users/bob", expect=(404,))
        b.send("still here", user_id="bob")
        b.take("ws", client, 1)
    assert b.call("GET", "/v1/users/bob/devices").json["devices"]


def test_opting_out_one_leaves_the_other(pair):
    a, b = pair
    a.call("PUT", "/v1/users/ann/preferences", {"opt_out": True})
    with a.client("ann") as mine, b.client("ann") as theirs:
        for tenant in pair:
            tenant.send("after", user_id="ann")
            tenant.send("after all", broadcast=True)
        b.take("ws", theirs, 2)
        mine.quiet()


def test_everything_that_was_seen(pair, capsys):
    """Last: each text that one was shown, against the other's word and each of the other's ids."""
    a, b = pair
    compared = 0
    assert a.ids and b.ids and not a.ids & b.ids
    for tenant, other in ((a, b), (b, a)):
        for where, texts in tenant.seen.items():
            for text in texts:
                for secret in [other.word, other.word.lower(), f'"{other.name}"', *other.ids]:
                    compared += 1
                    assert secret not in text, f"{tenant.name} saw {secret} of {other.name} at {where}: {text[:600]}"
    assert len(a.seen) >= 30 and compared > 5000, (len(a.seen), compared)
    with capsys.disabled():
        print(f"\n  two tenants: {compared} comparisons over {len(a.seen)} routes and channels")
