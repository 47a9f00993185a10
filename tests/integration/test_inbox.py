"""The inbox and preferences over HTTP: INB-1, INB-2, PRF-1, PRF-5; DESIGN 4.13 (hard stops)."""
import threading
import time

import pytest
from harness import Node, until


def page(node, user, **query):
    args = "&".join(f"{k}={v}" for k, v in query.items())
    answer = node.request("GET", f"/v1/users/{user}/notifications?{args}")
    assert answer.status == 200, answer
    return answer.json


def test_pages(node, user):
    for i in range(45):
        node.send(user, title=str(i), priority=("critical", "normal", "low")[i % 3])
    node.stored(user, 45)
    first = page(node, user)
    assert len(first["notifications"]) == 20, "the default"
    titles, cursor = [], None
    while True:
        got = page(node, user, limit=7, **({"cursor": cursor} if cursor else {}))
        titles += [int(i["title"]) for i in got["notifications"]]
        assert got["unread_count"] == 45
        cursor = got.get("next_cursor")
        if not cursor:
            break
    assert sorted(titles) == list(range(45)) and len(titles) == 45
    # newest first; two of one millisecond may change places across lanes
    assert all(abs(a - b) <= 3 or a > b for a, b in zip(titles, titles[1:])), titles


def test_a_page_is_stable_while_new_ones_arrive(node, user):
    for i in range(10):
        node.send(user, title=str(i))
    node.stored(user, 10)
    first = page(node, user, limit=5)
    node.send(user, title="new")
    node.stored(user, 11)
    second = page(node, user, limit=5, cursor=first["next_cursor"])
    assert [i["title"] for i in second["notifications"]] == ["4", "3", "2", "1", "0"]


def test_marking(node, user):
    for i in range(3):
        node.send(user, title=str(i), action_url="https://example.com/x", actions=[{"id": "a", "title": "A"}])
    ids = [i["id"] for i in node.stored(user, 3)]
    assert node.request("PATCH", f"/v1/notifications/{ids[0]}/read?user_id={user}", {}, key=node.token(user)).status in (200, 204)
    got = page(node, user)
    assert got["unread_count"] == 2
    assert [i["read"] for i in got["notifications"]] == [True, False, False]
    assert [i["id"] for i in page(node, user, unread_only="true")["notifications"]] == ids[1:]
    assert node.request("PATCH", f"/v1/notifications/{ids[1]}", {"archived": True}, key=node.token(user)).status in (200, 204)
    assert ids[1] not in [i["id"] for i in node.inbox(user)], "archived items leave the list"
    answer = node.request("POST", "/v1/notifications/read-all", {}, key=node.token(user))
    assert answer.status in (200, 204), answer
    assert page(node, user)["unread_count"] == 0
    one = node.request("GET", f"/v1/users/{user}/notifications/{ids[2]}")
    assert one.status == 200 and one.json["read"] is True and one.json["action_url"] == "https://example.com/x"


def test_marks_appear_on_the_sockets(node, user):
    with node.client(user) as client:
        node.send(user)
        n = client.expect("n")
        node.request("PATCH", f"/v1/notifications/{n['id']}", {"read": True}, key=node.token(user))
        assert client.expect("state", id=n["id"])["read"] is True


def test_expiry(node, user):
    node.send(user, title="short", ttl=1)
    node.send(user, title="long", ttl=600)
    until(lambda: [i["title"] for i in node.inbox(user)] == ["long"], 5, "the short one is gone")
    with node.client(user) as client:
        epoch = client.welcome["epoch"]
    with node.client(user, resume={"epoch": epoch, "seq": 0}) as client:
        client.expect("n", title="long", seq=2)  # a gap is legal
        client.quiet()


def test_unread_forgets_the_expired(node, user):
    """INB-1, INB-3: the unread count is that of what the inbox shows; drift heals by itself."""
    node.send(user, ttl=1)
    node.send(user, ttl=600)
    node.stored(user, 1)
    until(lambda: page(node, user)["unread_count"] == 1, 15, "one is unread")


def test_preferences_are_stored(node, user):
    path = f"/v1/users/{user}/preferences"
    assert node.request("GET", path).status == 200
    body = {"channels": {"inapp": True}, "categories": {"promo": {"inapp": False}}, "types": {"like": False},
            "topics": {"noise": "mute"}}
    put = node.request("PUT", path, body)
    assert put.status == 200 and put.json["updated_at"], put
    got = node.request("GET", path).json
    assert got["categories"]["promo"]["inapp"] is False and got["updated_at"] == put.json["updated_at"]
    assert node.request("PUT", path, {}).status == 200
    assert not node.request("GET", path).json.get("categories"), "PUT replaces"


@pytest.mark.parametrize("prefs,refused", [
    ({"types": {"like": False}}, {"type": "like"}),
    ({"types": {"like": {"inapp": False}}}, {"type": "like"}),
    ({"categories": {"promo": False}}, {"category": "promo"}),
    ({"categories": {"promo": {"inapp": False}}}, {"category": "promo"}),
    ({"topics": {"noise": "mute"}}, {"topic": "noise"}),
    ({"channels": {"inapp": False}}, {}),
])
def test_preferences_take_effect_within_a_second(node, user, prefs, refused):
    with node.client(user) as client:
        assert node.request("PUT", f"/v1/users/{user}/preferences", prefs).status == 200
        sent = node.send(user, title="unwanted", **refused)
        until(lambda: is_suppressed(node, sent), 5, "the status says suppressed")
        node.request("PUT", f"/v1/users/{user}/preferences", {})
        node.send(user, title="wanted", **refused)
        client.expect("n", title="wanted")
        client.quiet()


def is_suppressed(node, event):
    answer = node.request("GET", f"/v1/notifications/{event}/status")
    return answer.status == 200 and "suppressed" in answer.body.decode()


@pytest.mark.parametrize("body,word", [
    ({"quiet_hours": {"start": "22:00", "end": "07:00", "timezone": "UTC"}}, "quiet_hours"), ({"digest": {"x": 1}}, "digest"),
    ({"channels": {"pigeon": True}}, "pigeon"), ({"opt_out": "yes"}, "opt_out"), ({"colour": 1}, "colour"),
    ({"types": {"x": 3}}, "types"), ({"topics": {"x": "loud"}}, "topics"),
])
def test_bad_preferences(embedded, user, body, word):
    answer = embedded.request("PUT", f"/v1/users/{user}/preferences", body)
    assert answer.status == 400 and word in answer.body.decode(), answer


def test_opt_out_is_a_hard_stop(node, user):
    """After the 200 nothing goes out any more, whatever was under way (DESIGN 4.13)."""
    stop, accepted = threading.Event(), []

    def pour():
        while not stop.is_set():
            accepted.append(node.send(user, title="x"))
    with node.client(user) as client:
        thread = threading.Thread(target=pour)
        thread.start()
        client.expect_n(20)
        answer = node.request("PUT", f"/v1/users/{user}/preferences", {"opt_out": True})
        acknowledged = time.monotonic()
        assert answer.status == 200, answer
        late = 0
        client.send({"t": "ping"})
        while client.recv().get("t") != "pong":
            pass  # sent before the 200
        deadline = acknowledged + 1.0
        while time.monotonic() < deadline:
            try:
                client.recv(0.2)
                late += 1
            except AssertionError:
                continue
        stop.set()
        thread.join()
        until(lambda: is_suppressed(node, accepted[-1]), 5, "what came after the opt-out is suppressed")
        assert late == 0, f"{late} frames after the opt-out was acknowledged"
        assert node.request("PUT", f"/v1/users/{user}/preferences", {"opt_out": False}).status == 200
        node.send(user, title="back again")
        assert client.expect("n")["title"] == "back again"


def test_erasure(node, user):
    for i in range(5):
        node.send(user, title=f"secret {i}")
    node.stored(user, 5)
    node.request("PUT", f"/v1/users/{user}/preferences", {"types": {"x": False}})
    client = node.client(user)
    assert node.request("DELETE", f"/v1/users/{user}").status in (200, 204)
    client.expect_close(4409)
    for path in ("", "/notifications", "/preferences"):
        assert node.request("GET", f"/v1/users/{user}{path}").status == 404, path
    assert node.request("POST", "/v1/notifications", {"type": "t", "title": "x", "user_id": user}).status == 400
    node.put_user(user)
    assert node.inbox(user) == [], "a new user of the same name starts empty"
    with node.client(user) as again:
        assert again.welcome["seq"] == 0 and again.welcome["unread"] == 0


def test_erasure_of_nobody(embedded):
    assert embedded.request("DELETE", "/v1/users/never-was").status == 404


def test_a_full_inbox_drops_its_oldest():
    with Node(config={"fanout": {"inbox_user_max": 40}}) as node:
        node.put_user("cap")
        for i in range(45):
            node.send("cap", title=f"m{i}")
        until(lambda: page(node, "cap")["notifications"][:1] and page(node, "cap")["notifications"][0]["title"] == "m44",
              10, "the last one is stored")
        got = page(node, "cap", limit=100)
        titles = [i["title"] for i in got["notifications"]]
        assert 38 <= len(titles) <= 42, "room for a twentieth is made at once"
        assert titles == [f"m{i}" for i in range(44, 44 - len(titles), -1)]
        assert got["unread_count"] == len(titles)
        assert node.metric("belfry_inbox_trimmed_total") == 45 - len(titles)
