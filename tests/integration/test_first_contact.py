"""What a token may do before anybody has heard of its person, and how many sockets one person may hold; and who may speak
to everyone."""
import contextlib

import pytest

from harness import Closed, until
from test_api import GOOD, make_key, problem
from test_sse import Events

PER_USER = 4
CONFIG = {"websocket": {"per_user": PER_USER}, "users": {"auto_create": False}}


@pytest.mark.parametrize("method,path,body,status", [
    ("GET", "/v1/users/{u}/notifications", None, 200),
    ("GET", "/v1/users/{u}", None, 200),
    ("GET", "/v1/users/{u}/preferences", None, 200),
    ("PUT", "/v1/users/{u}/preferences", {"opt_out": False}, 200),
    ("GET", "/v1/users/{u}/subscriptions", None, 200),
    ("GET", "/v1/users/{u}/devices", None, 200),
    ("GET", "/v1/devices", None, 200),
    ("POST", "/v1/devices", {"platform": "ios", "app": "a", "token": "ab" * 32}, 201),
    ("POST", "/v1/notifications/read-all", {}, 200),
])
def test_a_tokens_first_request_makes_its_person(embedded, method, path, body, status):
    who = f"new-{method}-{path}".replace("/", ".").replace("{u}", "u")
    event = {**GOOD, "user_id": who}
    problem(embedded.request("POST", "/v1/notifications", event), 400, who)
    problem(embedded.request("GET", f"/v1/users/{who}/notifications"), 404)
    answer = embedded.request(method, path.replace("{u}", who), body, key=embedded.token(who))
    assert answer.status == status, answer
    assert embedded.request("POST", "/v1/notifications", event).status == 202
    embedded.kill("ctrlplane")
    embedded.restart("ctrlplane")
    assert len(embedded.stored(who, 1)) == 1, "kept"


def test_a_tokens_request_makes_nobody_else(embedded):
    token = embedded.token("me-only")
    problem(embedded.request("GET", "/v1/users/somebody/notifications", key=token), 403)
    problem(embedded.request("GET", "/v1/users/somebody/notifications"), 404)
    problem(embedded.request("GET", "/v1/devices?user_id=somebody"), 404)


def test_one_person_holds_so_many_sockets(embedded, user):
    """The oldest leaves with 4003 when one more comes, whatever devices they name; event streams count too."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(embedded.client(user, device=f"d{i}" if i % 2 else None)) for i in range(PER_USER)]
        for client in clients:
            client.quiet(0.05)
        stream = stack.enter_context(Events(embedded, user))
        stream.welcome()
        assert clients[0].expect_close(4003) == []
        embedded.send(user, title="to the others")
        for client in clients[1:]:
            client.expect("n", title="to the others")
        stream.expect("n", title="to the others")
        other = f"{user}-other"
        embedded.put_user(other)
        with embedded.client(other) as client:
            client.quiet(0.05)
        for number in range(10):
            clients.append(stack.enter_context(embedded.client(user)))
        left = 0
        for client in clients[1:]:
            try:
                client.send({"t": "ping"})
                while client.recv()["t"] != "pong":
                    continue
                left += 1
            except Closed as closed:
                assert closed.code == 4003
        assert left == PER_USER, "the newest stay"
        until(lambda: len(embedded.admin("GET", f"/admin/connections?user_id={user}").json["connections"]) == PER_USER, 5,
              "nobody else is counted")


def test_broadcast_wants_its_scope(embedded):
    """`send` reaches who it names; everyone takes `broadcast`. Topics go on as before."""
    send, both = make_key(embedded, "send"), make_key(embedded, "send", "broadcast")
    events = make_key(embedded, "events")
    everyone = {**GOOD, "broadcast": True}
    problem(embedded.request("POST", "/v1/notifications", everyone, key=send), 403, "broadcast")
    problem(embedded.request("POST", "/v1/notifications", everyone, key=make_key(embedded, "broadcast")), 403, "send")
    assert embedded.request("POST", "/v1/notifications", everyone, key=both).status == 202
    assert embedded.request("POST", "/v1/notifications", everyone).status == 202, "the development key has all scopes"
    assert embedded.request("POST", "/v1/notifications", {**GOOD, "topic": "t"}, key=send).status == 202
    assert embedded.request("POST", "/v1/events", {**GOOD, "topic": "t"}, key=events).status == 202
    unknown = embedded.admin("POST", "/admin/keys", {"scopes": ["everyone"]})
    assert unknown.status == 400 and "broadcast" in unknown.json["detail"]
