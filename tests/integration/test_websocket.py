"""belfry.v1.json on the wire (DESIGN 5): connect, resume, acknowledge, devices, state, topics, close codes.

Covers WS-1..WS-7, INB-2; DESIGN 4.5, 4.6, 4.7, 4.9. python3-websockets is the client throughout.
"""
import json
import socket
import time

import harness
import pytest
from harness import Client, RawSocket, jwt_hs256, until

CONFIG = {
    "websocket": {"ping_interval": 400, "presence_timeout": 1600, "client_frames_per_s": 400},
}


# ---- connecting -----------------------------------------------------------------------------------

@pytest.mark.parametrize("auth", ["header", "protocol", "frame"])
def test_connect(embedded, user, auth):
    with embedded.client(user, auth=auth, device="d1") as client:
        w = client.welcome
        assert w["user"] == user and w["conn"] and w["epoch"] and w["resumed"] is False
        assert w["seq"] == 0 and w["unread"] == 0 and w["ping_ms"] == 400
        assert set(w["lanes"]) >= {"critical", "bulk"} and "b" in w
        assert client.socket.subprotocol == "belfry.v1.json", "the token is never echoed"


def test_connect_creates_the_user(embedded):
    with embedded.client("walked-in"):
        embedded.send("walked-in")
    assert len(embedded.inbox("walked-in")) == 1


def test_unicode_user(embedded):
    name = "Zoë Ωμέγα/日本"
    with embedded.client(name) as client:
        assert client.welcome["user"] == name
        embedded.send(name, title="x")
        client.expect("n", title="x")


@pytest.fixture(scope="module")
def keyed():
    """A node that trusts one key of each algorithm."""
    import tempfile
    with tempfile.TemporaryDirectory(prefix="belfry-keys-") as directory:
        pairs = [harness.KeyPair(directory, alg, alg.lower()) for alg in ("RS256", "ES256", "EdDSA")]
        node = harness.Node(config={"websocket": {"jwt_keys": [p.conf() for p in pairs], "jwt_audience": "app"}})
        with node:
            yield node, {p.alg: p for p in pairs}


def claims(user, ttl=600, **more):
    now = int(time.time())
    return {"sub": user, "exp": now + ttl, "aud": "app", **more}


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_algorithms(keyed, alg):
    node, pairs = keyed
    with Client(node, f"user-{alg}", token=pairs[alg].token(claims(f"user-{alg}")), auth="frame") as client:
        assert client.welcome["user"] == f"user-{alg}"
    forged = pairs[alg].token(claims("someone"))
    head, body, signature = forged.split(".")
    for bad in (f"{head}.{body[:-4]}AAAA.{signature}", f"{head}.{body}.{signature[:-8]}AAAAAAAA", f"{head}.{body}."):
        refused(node, bad)


def test_algorithm_is_bound_to_the_key(keyed):
    """A public key must not pass as an HMAC secret, nor one key's kid carry another's algorithm."""
    node, pairs = keyed
    public = pairs["RS256"].public.read_bytes()
    refused(node, jwt_hs256(public, claims("u"), kid="rs256"))
    refused(node, jwt_hs256(node.secret, claims("u"), kid="rs256"))
    refused(node, jwt_hs256(node.secret, claims("u", aud="other")))
    refused(node, jwt_hs256(node.secret, {k: v for k, v in claims("u").items() if k != "aud"}))


def refused(node, token, code=4401):
    client = Client(node, "u", token=token, auth="frame", welcome=False)
    client.expect_close(code)


def test_bad_tokens(embedded):
    now = int(time.time())
    secret = embedded.secret
    none = harness.jwt_input({"alg": "none"}, {"sub": "u", "exp": now + 60}).decode() + "."
    for token in ("x", "a.b.c", none, jwt_hs256(b"y" * 32, {"sub": "u", "exp": now + 60}),
                  jwt_hs256(secret, {"sub": "u"}), jwt_hs256(secret, {"exp": now + 60}),
                  jwt_hs256(secret, {"sub": "u", "exp": now - 60}),
                  jwt_hs256(secret, {"sub": "u", "exp": now + 60, "nbf": now + 60}),
                  jwt_hs256(secret, {"sub": "u" * 129, "exp": now + 60}),
                  jwt_hs256(secret, {"sub": "u", "exp": now + 60}, kid="unknown"),
                  jwt_hs256(secret, {"sub": "u", "exp": now + 60}, alg="HS512")):
        refused(embedded, token)


@pytest.mark.parametrize("auth", ["header", "protocol"])
def test_bad_token_at_the_upgrade(embedded, auth):
    bad = jwt_hs256(b"z" * 32, {"sub": "u", "exp": int(time.time()) + 60})
    client = Client(embedded, "u", token=bad, auth=auth, connect=False)
    client.expect_close(4401)  # at once: nothing that the client could say helps


def test_no_token(embedded):
    client = Client(embedded, "u", auth=None, welcome=False)
    client.expect_close(4401)


def test_no_connect_in_time(embedded):
    client = Client(embedded, "u", connect=False, seconds=15)
    started = time.monotonic()
    client.expect_close(4408, 15)
    assert 6.5 < time.monotonic() - started < 11


def test_expiry_closes(embedded, user):
    token = jwt_hs256(embedded.secret, {"sub": user, "exp": int(time.time()) - 28})  # the leeway is 30 s
    with embedded.client(user, token=token) as client:
        assert client.welcome["expires"]
        client.expect_close(4002, 10)


def test_refresh_moves_the_expiry(embedded, user):
    token = jwt_hs256(embedded.secret, {"sub": user, "exp": int(time.time()) - 27})
    with embedded.client(user, token=token) as client:
        assert client.call({"t": "refresh", "token": embedded.token(user)})["t"] == "ok"
        time.sleep(4)  # past the first token's end: nothing to poll for, the point is that nothing happens
        client.quiet()


def test_refresh_for_somebody_else(embedded, user):
    with embedded.client(user) as client:
        client.send({"t": "refresh", "token": embedded.token("another")})
        client.expect_close(4403)


# ---- protocol errors --------------------------------------------------------------------------------

@pytest.mark.parametrize("frame", ['{"t":"ack","seq":1}', '{"t":"ping"}', '{"t":"nonsense"}', "[]", "{", "", "7",
                                   '{"t":"connect","device":"' + "d" * 65 + '"}', '{"t":"connect","topics":"x"}'])
def test_first_frame_must_be_a_good_connect(embedded, user, frame):
    client = Client(embedded, user, connect=False)
    client.send(frame)
    client.expect_close(4400)


def test_second_connect_is_refused(embedded, user):
    with embedded.client(user) as client:
        client.send({"t": "connect"})
        client.expect_close(4400)


def test_ack_beyond_what_was_sent(embedded, user):
    with embedded.client(user) as client:
        client.send({"t": "ack", "seq": 1})
        client.expect_close(4400)


@pytest.mark.parametrize("frame,code", [("{", "bad_json"), ('{"t":"dance"}', "unknown_type"), ('{"t":"ack"}', "bad_field"),
                                        ('{"t":"ack","seq":-1}', "bad_field"), ('{"t":"ack","seq":"1"}', "bad_field"),
                                        ('{"t":"ack","seq":0,"lane":"fast"}', "bad_field"), ('{"t":"read"}', "bad_field"),
                                        ('{"t":"sub"}', "bad_field"), ("[1]", "bad_json")])
def test_bad_frames_are_answered(embedded, user, frame, code):
    """A frame that cannot be understood is an error, and the connection goes on; or a 4400."""
    with embedded.client(user) as client:
        client.send(frame)
        try:
            error = client.expect("error")
        except harness.Closed as closed:
            assert closed.code == 4400
            return
        assert error["message"] and error["temporary"] is False
        embedded.send(user, title="still here")
        client.expect("n", title="still here")


def test_unknown_fields_are_ignored(embedded, user):
    with embedded.client(user) as client:
        client.send({"t": "ping", "something": {"new": [1, 2, 3]}})
        client.expect("pong")


def test_ref_is_echoed_as_it_came(embedded, user):
    with embedded.client(user) as client:
        for ref in ("a", 17, "x" * 60, 'quote " and \\ back'):
            client.send({"t": "sub", "topic": "news", "ref": ref})
            assert client.expect("ok")["ref"] == ref


@pytest.mark.parametrize("name,build,code", [
    ("unmasked", lambda raw: raw.frame(b"{}", mask=False), 1002),
    ("reserved bit", lambda raw: raw.frame(b"{}", rsv=4), 1002),
    ("reserved opcode", lambda raw: raw.frame(b"{}", opcode=3), 1002),
    ("stray continuation", lambda raw: raw.frame(b"{}", opcode=0), 1002),
    ("fragmented ping", lambda raw: raw.frame(b"x", opcode=9, fin=False), 1002),
    ("long ping", lambda raw: raw.frame(b"x" * 126, opcode=9), 1002),
    ("wrong UTF-8", lambda raw: raw.frame(b'{"t":"p\xc0\xafing"}'), 1007),
    ("too large", lambda raw: raw.frame(b'{"t":"ping","x":"' + b"y" * 17000 + b'"}'), 1009),
])
def test_rfc6455_errors(embedded, user, name, build, code):
    with RawSocket(embedded) as raw:
        assert b" 101 " in raw.upgrade(token=embedded.token(user))
        raw.send(build(raw))
        assert raw.close_code() == code, name


def test_fragments_and_pings_between(embedded, user):
    with RawSocket(embedded) as raw:
        raw.upgrade(token=embedded.token(user))
        text = json.dumps({"t": "connect"}).encode()
        raw.send(raw.frame(text[:5], fin=False) + raw.frame(b"hey", opcode=9) + raw.frame(text[5:9], opcode=0, fin=False))
        assert raw.read_frame() == (10, b"hey")
        for byte in raw.frame(text[9:], opcode=0):
            raw.send(bytes([byte]))
        opcode, payload = raw.read_frame()
        assert opcode == 1 and json.loads(payload)["t"] == "welcome"


@pytest.mark.parametrize("request_bytes,status", [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60 + b"\r\n\r\n", b"400"),
    (b"GARBAGE\r\n\r\n", b"400"),
    (b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n", b"4"),
    (b"POST /v1/ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"405"),
    (b"GET /elsewhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", b"404"),
    (b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", b"426"),
    (b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n", b"431"),
])
def test_bad_upgrades(embedded, request_bytes, status):
    with RawSocket(embedded) as raw:
        raw.send(request_bytes)
        head = raw.s.recv(4096)
        assert head.startswith(b"HTTP/1.1 " + status), head
        while raw.s.recv(4096):
            pass  # to the end: the connection is closed, not left open


# ---- receive, acknowledge, resume ---------------------------------------------------------------------

def test_resume_replays_what_was_missed(node, user):
    first = node.client(user, device="phone")
    for i in range(3):
        node.send(user, title=str(i))
    seen = first.expect_n(3)
    first.ack(2)
    resume = first.resume()
    first.abort()
    node.send(user, title="3")
    node.send(user, title="4", priority="critical")
    node.send(user, title="5", priority="low")
    until(lambda: len(node.inbox(user)) == 6, 5, "all are stored")
    with node.client(user, device="phone", resume={**resume, "seq": 2}) as again:
        assert again.welcome["resumed"] is True and again.welcome["seq"] == 4
        got = again.expect_n(4)
        assert {(n["title"], n.get("lane", "normal"), n["seq"]) for n in got} == {
            ("2", "normal", 3), ("3", "normal", 4), ("4", "critical", 1), ("5", "bulk", 1)}
        assert next(n for n in got if n["title"] == "2")["id"] == seen[2]["id"], "a replay has the same id"
        again.quiet()


def test_resume_of_everything_and_of_nothing(node, user):
    with node.client(user) as client:
        for i in range(5):
            node.send(user, title=str(i))
        client.expect_n(5)
        client.ack()
        epoch = client.welcome["epoch"]
    with node.client(user, resume={"epoch": epoch, "seq": 5}) as client:
        assert client.welcome["resumed"] is True
        client.quiet()
    with node.client(user, resume={"epoch": epoch, "seq": 0}) as client:
        assert [n["seq"] for n in client.expect_n(5)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("change", [{"epoch": "another-1"}, {"seq": 99}])
def test_resume_that_cannot_be(embedded, user, change):
    embedded.send(user)
    embedded.stored(user, 1)
    with embedded.client(user) as client:
        resume = {**client.resume(), **change}
    with embedded.client(user, resume=resume) as client:
        assert client.welcome["resumed"] is False and client.welcome["seq"] == 1
        client.quiet()
        embedded.send(user, title="live")
        client.expect("n", title="live", seq=2)


def test_resume_too_far_back(embedded, user):
    """More than 1,000 messages: never partially without saying so (WS-3)."""
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: embedded.send(user, title=str(i)), range(1010)))
    embedded.stored(user, 1010)
    with embedded.client(user) as client:
        epoch = client.welcome["epoch"]
    with embedded.client(user, resume={"epoch": epoch, "seq": 0}) as client:
        assert client.welcome["resumed"] is False and client.welcome["seq"] == 1010
        client.quiet()
    with embedded.client(user, resume={"epoch": epoch, "seq": 15}) as client:
        assert client.welcome["resumed"] is True
        assert [n["seq"] for n in client.expect_n(995)] == list(range(16, 1011))


def test_live_traffic_joins_the_replay(embedded, user):
    """What is sent while a resume replays comes after it, once, in order."""
    from concurrent.futures import ThreadPoolExecutor
    for i in range(300):
        embedded.send(user, title=str(i))
    embedded.stored(user, 300)
    with embedded.client(user) as client:
        epoch = client.welcome["epoch"]
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lambda: [embedded.send(user, title="live") for _ in range(200)])
        with embedded.client(user, resume={"epoch": epoch, "seq": 0}) as client:
            assert [n["seq"] for n in client.expect_n(500)] == list(range(1, 501))
            client.quiet()
        job.result()


def test_unacknowledged_is_sent_again_only_on_resume(embedded, user):
    with embedded.client(user) as client:
        embedded.send(user, title="x")
        n = client.expect("n")
        epoch = client.welcome["epoch"]
    with embedded.client(user, resume={"epoch": epoch, "seq": 0}) as client:
        assert client.expect("n")["id"] == n["id"]


# ---- devices ------------------------------------------------------------------------------------------

def test_every_device_receives(node, user):
    devices = [node.client(user, device=d) for d in ("phone", "tablet", "browser")]
    node.send(user, title="to all")
    assert len({d.expect("n", title="to all")["id"] for d in devices}) == 1
    devices[0].ack()
    for d in devices:
        d.quiet()
        d.close()


def test_other_devices_still_get_what_one_acknowledged(embedded, user):
    with embedded.client(user, device="phone") as phone:
        with embedded.client(user, device="tablet") as tablet:
            resume = tablet.resume()
        embedded.send(user, title="x")
        phone.expect("n")
        phone.ack()
        phone.quiet()
        with embedded.client(user, device="tablet", resume=resume) as tablet:
            tablet.expect("n", title="x")


def test_a_newer_connection_of_the_device_replaces_the_older(node, user):
    old = node.client(user, device="phone")
    other = node.client(user, device="tablet")
    new = node.client(user, device="phone")
    old.expect_close(4003)
    node.send(user, title="x")
    new.expect("n", title="x")
    other.expect("n", title="x")
    new.close()
    other.close()


@pytest.mark.parametrize("op,field", [("read", "read"), ("seen", "seen"), ("archive", "archived")])
def test_state_reaches_the_other_devices(node, user, op, field):
    with node.client(user, device="a") as a, node.client(user, device="b") as b:
        node.send(user, title="x")
        n = a.expect("n")
        b.expect("n")
        assert a.call({"t": op, "id": n["id"]})["t"] == "ok"
        state = b.expect("state", id=n["id"])
        assert state[field] is True
        if op == "read":
            assert state["unread"] == 0 and node.inbox(user)[0]["read"] is True
        a.quiet()


def test_state_of_an_unknown_message(embedded, user):
    with embedded.client(user) as client:
        error = client.call({"t": "read", "id": "00000000-0000-8000-8000-000000000000"})
        assert error["t"] == "error" and error["temporary"] is False
        assert client.call({"t": "read", "id": "not an id"})["t"] == "error"


def test_state_of_somebody_elses_message(embedded, user):
    embedded.put_user("victim")
    embedded.send("victim")
    target = embedded.stored("victim", 1)[0]
    with embedded.client(user) as client:
        assert client.call({"t": "read", "id": target["id"]})["t"] == "error"
    assert embedded.inbox("victim")[0]["read"] is False


# ---- broadcast and topics -------------------------------------------------------------------------------

def publish(node, **fields):
    """A topic's event, or a broadcast to everyone."""
    path = "/v1/events" if "topic" in fields else "/v1/notifications"
    answer = node.request("POST", path, {"type": "t", "title": "x", **fields})
    assert answer.status == 202, answer


def test_broadcast_reaches_everyone(node):
    clients = [node.client(f"b-{i}") for i in range(12)]
    for title in ("one", "two"):
        publish(node, broadcast=True, title=title)
    for client in clients:
        one, two = client.expect("b", title="one"), client.expect("b", title="two")
        assert one["bseq"] < two["bseq"] and one["id"] != two["id"]
        client.quiet()
        client.close()
    assert node.inbox("b-0") == [], "a broadcast is not in the inbox"


def test_topic_on_the_socket(node, user):
    with node.client(user) as inside, node.client(f"{user}-out") as outside, node.client(f"{user}-c", topics=["news.sport"]) as third:
        assert inside.call({"t": "sub", "topic": "news.sport"})["t"] == "ok"
        publish(node, topic="news.sport", title="goal")
        assert inside.expect("b", title="goal")["topic"] == "news.sport"
        third.expect("b", title="goal")
        outside.quiet()
        assert inside.call({"t": "unsub", "topic": "news.sport"})["t"] == "ok"
        publish(node, topic="news.sport", title="again")
        third.expect("b", title="again")
        inside.quiet()


def test_topics_need_permission(embedded, user):
    """Broadcast topics only, allowed by the JWT's claim or by a public prefix (DESIGN 5)."""
    with embedded.client(user, token=embedded.token(user, topics=["team.red", "team.blue.*"])) as client:
        for topic, allowed in (("team.red", True), ("team.blue.a", True), ("team.green", False), ("news", True),
                               ("team.redder", False), ("letters", False)):
            answer = client.call({"t": "sub", "topic": topic})
            assert (answer["t"] == "ok") == allowed, (topic, answer)
        client.quiet()


def test_broadcast_resume(node, user):
    with node.client(user) as client:
        publish(node, broadcast=True, title="b1")
        b1 = client.expect("b", title="b1")
        resume = client.resume(b=b1["bseq"])
    for i in (2, 3):
        publish(node, broadcast=True, title=f"b{i}")

    def are_in_the_log():  # 202 says accepted; the broadcast log follows
        with node.client(f"{user}-probe") as probe:
            return probe.welcome["b"] >= b1["bseq"] + 2
    until(are_in_the_log, 10, "both broadcasts are in their log")
    with node.client(user, resume=resume) as client:
        assert client.welcome["resumed"] is True
        assert [client.expect("b")["title"] for _ in range(2)] == ["b2", "b3"]
        publish(node, broadcast=True, title="b4")
        client.expect("b", title="b4")


def test_a_hole_of_broadcasts_is_told(embedded, user):
    """More broadcasts missed than a resume replays, or a position that never was: resumed is false, as for messages."""
    from concurrent.futures import ThreadPoolExecutor
    with embedded.client(user) as client:
        publish(embedded, broadcast=True, title="the first")
        first = client.expect("b", title="the first")
        resume = client.resume(b=first["bseq"])
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda i: publish(embedded, broadcast=True, title=str(i)), range(1001)))

    def head():
        with embedded.client(f"{user}-probe") as probe:
            return probe.welcome["b"]
    until(lambda: head() >= first["bseq"] + 1001, 20, "all broadcasts are in their log")
    for b in (first["bseq"], head() + 1):
        with embedded.client(user, resume={**resume, "b": b}) as client:
            assert client.welcome["resumed"] is False, b
            client.quiet()
    with embedded.client(user, resume={**resume, "b": head() - 1000}) as client:
        assert client.welcome["resumed"] is True
        assert len([client.expect("b") for _ in range(1000)]) == 1000


def test_inbox_topic_expands_to_subscribers(node):
    topic = f"releases-{node.engine}"
    users = [f"sub-{i}" for i in range(30)]
    node.put_user(*users)
    for user in users:
        answer = node.request("PUT", f"/v1/topics/{topic}/subscriptions/{user}", {})
        assert answer.status in (200, 201, 204), answer
    with node.client(users[0]) as client:
        publish(node, topic=topic, title="v2")
        n = client.expect("n", title="v2", topic=topic)
        assert n["seq"] >= 1
        until(lambda: all(len(node.inbox(u)) == 1 for u in users), 5, "each subscriber has it")
    assert node.request("DELETE", f"/v1/topics/{topic}/subscriptions/{users[0]}").status in (200, 204)
    publish(node, topic=topic, title="v3")
    until(lambda: len(node.inbox(users[1])) == 2, 5, "the others have it")
    assert len(node.inbox(users[0])) == 1


# ---- transient --------------------------------------------------------------------------------------------

def test_transient(node, user):
    with node.client(user) as client:
        node.send(user, title="typing", transient=True)
        n = client.expect("n", title="typing")
        assert not n.get("seq")
        node.send(user, title="kept")
        client.expect("n", title="kept", seq=1)
    node.send(user, title="gone", transient=True)
    node.send(user, title="marker")  # after it in the same partition: once it is stored, the other was dealt with
    node.stored(user, 2)
    with node.client(user, resume={"epoch": client.welcome["epoch"], "seq": 0}) as client:
        client.expect("n", title="kept")
        client.expect("n", title="marker")
        client.quiet()
    assert [i["title"] for i in node.inbox(user)] == ["marker", "kept"]


# ---- heartbeat, slow clients, limits ------------------------------------------------------------------------

def test_heartbeat_and_no_sign_of_life(embedded, user):
    with RawSocket(embedded) as raw:
        raw.upgrade(token=embedded.token(user))
        raw.send(raw.frame(b'{"t":"connect"}'))
        opcodes = []
        started = time.monotonic()
        while True:
            got = raw.read_frame()
            assert got is not None, "the end comes with a close frame"
            opcodes.append(got[0])
            if got[0] == 8:
                assert int.from_bytes(got[1][:2], "big") == 4004
                break
        assert opcodes.count(9) >= 2, "pings went before"
        assert 1.0 < time.monotonic() - started < 6


def test_a_pong_is_a_sign_of_life(embedded, user):
    with embedded.client(user) as client:  # the library answers pings
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            with pytest.raises(harness.TimedOut):
                client.recv(1)
        assert client.is_open


def test_slow_client_is_left_to_the_inbox_then_closed(user_factory):
    node = user_factory
    user = "slow"
    node.put_user(user, "quick")
    with RawSocket(node) as raw, node.client("quick") as quick:
        raw.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.upgrade(token=node.token(user))
        raw.send(raw.frame(b'{"t":"connect"}'))
        big = "x" * 30000
        for i in range(260):
            node.send(user, title=str(i), data={"big": big})
        node.send("quick", title="not delayed")
        quick.expect("n", title="not delayed", seconds=2)
        until(lambda: node.metric("belfry_dataplane_closes_slow") >= 1, 10, "the slow connection is closed 4001")
        assert node.metric("belfry_dataplane_frames_queue_full") > 0
    assert len(node.stored(user, 260)) == 260, "nothing is lost: the inbox has it"


@pytest.fixture(scope="module")
def user_factory():
    with harness.Node(config={"websocket": {"slow_timeout": 1500, "queue_frames": 16, "ping_interval": 2000,
                                            "presence_timeout": 60000}}) as node:
        yield node


def test_collapse_keeps_the_latest(user_factory):
    """A queued frame is replaced by a newer one of the same collapse_key (WS-5)."""
    node = user_factory
    node.put_user("collapsing")
    before = node.metric("belfry_dataplane_frames_collapsed")
    with RawSocket(node) as raw:
        raw.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.upgrade(token=node.token("collapsing"))
        raw.send(raw.frame(b'{"t":"connect"}'))
        for i in range(200):
            node.send("collapsing", title="fill", data={"big": "x" * 30000})
            node.send("collapsing", title=f"score {i}", collapse_key="score")
            if node.metric("belfry_dataplane_frames_collapsed") > before:
                return
    raise AssertionError("no frame was collapsed")


def test_too_many_frames(embedded, user):
    with RawSocket(embedded) as raw:
        raw.upgrade(token=embedded.token(user))
        raw.send(raw.frame(b'{"t":"connect"}'))
        raw.send(raw.frame(b'{"t":"ping"}') * 5000)
        assert raw.close_code() == 4400
    embedded.request("GET", f"/v1/users/{user}")  # the node is well
