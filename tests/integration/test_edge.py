"""The API at its edge: slow and greedy clients, keep-alive, pipelining, HEAD, bodies, CORS, and TLS with client certificates.

Covers SEC-1, SEC-2, ING-6, ING-7, OPS-1, OPS-2.
"""
import json
import os
import socket
import ssl
import threading
import time
import urllib.parse

import pytest
import yaml
from harness import TIMES, Node, until
from test_tls import Authority

# Short, so that a test need not wait; stretched where the machine is slow.
HEAD_S = BODY_S = 2 if TIMES < 2 else 4
IDLE_S = 2 * HEAD_S
CONFIG = {"api": {"head_timeout": HEAD_S, "idle_timeout": IDLE_S, "body_timeout": BODY_S, "write_timeout": BODY_S,
                  "per_address": 200, "connections_max": 260, "per_key": 3, "origins": "https://app.example, https://b.example:8443",
                  "rate_min": 1000, "rate_per_min": 0}}


def connect(node, port="api", source=None, seconds=20):
    url = urllib.parse.urlsplit(node.info[port])
    return socket.create_connection((url.hostname, url.port), timeout=seconds * TIMES,
                                    source_address=(source, 0) if source else None)


def head(node, method="GET", path="/v1/topics", *lines, key=None):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: belfry", f"Authorization: Bearer {key or node.key}", *lines,
                        "", ""]).encode()


def read_answer(sock, has_body=True):
    """(status, headers, body) of one answer; None at the end."""
    got = b""
    while b"\r\n\r\n" not in got:
        more = sock.recv(1)
        if not more:
            assert not got, got
            return None
        got += more
    lines = got.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:] if line)}
    body = b""
    while has_body and len(body) < int(headers.get("content-length", 0)):
        body += sock.recv(int(headers["content-length"]) - len(body))
    return int(lines[0].split()[1]), headers, body


def talk(node, data, port="api", source=None):
    with connect(node, port, source) as sock:
        sock.sendall(data)
        return read_answer(sock)


def states(node):
    metrics = node.metrics()
    return {s: node.metric("belfry_api_connections", metrics, state=s)
            for s in ("head", "body", "working", "writing", "idle", "closing")}


# ---- slow and greedy clients ----------------------------------------------------------------------------

def test_half_requests_of_one_address_stop_nobody_else(embedded):
    before = embedded.metric("belfry_api_refused", reason="address")
    held = []
    for _ in range(4300):
        sock = connect(embedded)
        try:
            sock.sendall(b"POST /v1/notifications HTTP/1.1\r\nHost: b")
        except OSError:
            pass  # refused
        held.append(sock)
        if len(held) > 400:  # those that were turned away
            held.pop(300).close()
    assert embedded.metric("belfry_api_refused", reason="address") - before >= 4300 - 200 * 3
    began = time.monotonic()
    status, _, _ = talk(embedded, head(embedded), source="127.0.0.2")
    assert status == 200 and time.monotonic() - began < 1 * TIMES
    for sock in held:
        sock.close()
    until(lambda: states(embedded)["head"] == 0, 10, "no half request is left")


def test_the_address_is_told_why(embedded):
    held = [connect(embedded) for _ in range(200)]
    until(lambda: sum(states(embedded).values()) >= 200, 5, "all are in")
    status, headers, body = talk(embedded, head(embedded))
    assert status == 503 and headers["connection"] == "close" and "address" in json.loads(body)["detail"]
    for sock in held:
        sock.close()
    until(lambda: sum(states(embedded).values()) < 200, 5, "some have left")
    assert talk(embedded, head(embedded))[0] == 200


def test_one_that_says_nothing_is_idle(embedded):
    """Opened ahead of its first request, as pools and browsers do: it has the time of an idle one, not of a head."""
    before = embedded.metric("belfry_api_timeouts", kind="idle")
    with connect(embedded) as silent:
        time.sleep(HEAD_S + 0.5)
        silent.sendall(head(embedded))
        assert read_answer(silent)[0] == 200, "its first request is served after the deadline of a head"
    with connect(embedded) as silent:
        assert silent.recv(10) == b"", "closed without a word"
    assert embedded.metric("belfry_api_timeouts", kind="idle") - before == 1


def test_a_head_has_a_deadline_however_it_trickles(embedded):
    before = embedded.metric("belfry_api_timeouts", kind="head")
    with connect(embedded) as slow:
        slow.sendall(b"GET /v1/topics HTTP/1.1\r\n")
        began = time.monotonic()
        for _ in range(100):  # a byte now and then earns no more time
            try:
                slow.sendall(b"X")
            except OSError:
                break
            if time.monotonic() - began > HEAD_S * 1.5:
                break
            time.sleep(0.1)
        status, headers, body = read_answer(slow)
        assert status == 408 and headers["connection"] == "close" and json.loads(body)["status"] == 408
        assert HEAD_S * 0.9 <= time.monotonic() - began <= HEAD_S + 2 * TIMES
    assert embedded.metric("belfry_api_timeouts", kind="head") - before == 1


def test_a_head_has_a_deadline_from_its_first_byte(embedded):
    with connect(embedded) as sock:
        sock.sendall(head(embedded))
        assert read_answer(sock)[0] == 200
        time.sleep(IDLE_S / 2)
        sock.sendall(b"GET /v1")
        began = time.monotonic()
        assert read_answer(sock)[0] == 408
        assert HEAD_S * 0.9 <= time.monotonic() - began <= HEAD_S + 2 * TIMES


def test_idle_connections_end(embedded):
    before = embedded.metric("belfry_api_timeouts", kind="idle")
    with connect(embedded) as sock:
        for _ in range(3):  # each request begins the time anew
            sock.sendall(head(embedded))
            assert read_answer(sock)[0] == 200
            began = time.monotonic()
            time.sleep(IDLE_S / 3)
        assert states(embedded)["idle"] >= 1
        assert sock.recv(10) == b"" and IDLE_S * 0.9 <= time.monotonic() - began <= IDLE_S + 2 * TIMES
    assert embedded.metric("belfry_api_timeouts", kind="idle") - before == 1


def test_a_body_has_to_come_at_a_rate(embedded, user):
    body = json.dumps({"user_id": user, "type": "t", "title": "x", "body": "y" * 9000}).encode()
    post = head(embedded, "POST", "/v1/notifications", f"Content-Length: {len(body)}")
    with connect(embedded) as sock:
        sock.sendall(post + body[:100])
        assert states(embedded)["body"] == 1
        began = time.monotonic()
        status, headers, _ = read_answer(sock)
        assert status == 408 and headers["connection"] == "close"
        assert time.monotonic() - began <= BODY_S + 2 * TIMES
    with connect(embedded) as sock:  # slower than a deadline in all, above the rate all the time
        sock.sendall(post)
        for at in range(0, len(body), 1500):
            sock.sendall(body[at:at + 1500])
            time.sleep(BODY_S / 5)
        assert read_answer(sock)[0] == 202


def test_an_answer_has_to_be_taken(embedded, user):
    """More answers are asked for than buffers hold, and none is read: the connection is cut, not kept."""
    before = embedded.metric("belfry_api_timeouts", kind="writing")
    for i in range(40):
        embedded.send(user, title=f"t{i}", body="z" * 4000)
    embedded.stored(user, 40)
    with connect(embedded) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = head(embedded, "GET", f"/v1/users/{user}/notifications?limit=100")
        sock.settimeout(0.2)
        with pytest.raises(OSError):
            for _ in range(100000):
                sock.sendall(ask)
        until(lambda: states(embedded)["writing"] == 1, 5, "the client has to take its answers")
        until(lambda: embedded.metric("belfry_api_timeouts", kind="writing") > before, BODY_S * 3, "it is cut")


def test_one_key_has_so_many_requests_at_once(embedded, user):
    made = json.loads(embedded.admin("POST", "/admin/keys", {"name": "k", "scopes": ["users"]}).body)
    held = [connect(embedded) for _ in range(3)]
    for sock in held:  # a request is one from its head on
        sock.sendall(head(embedded, "PUT", f"/v1/users/{user}", "Content-Length: 10", key=made["key"]))
    until(lambda: states(embedded)["body"] == 3, 5, "three requests run")
    answer = embedded.request("GET", f"/v1/users/{user}", key=made["key"])
    assert answer.status == 429 and "api.per_key" in answer.json["detail"] and answer.headers["Retry-After"] == "1"
    assert embedded.request("GET", f"/v1/users/{user}").status == 200, "another key goes on"
    assert embedded.metric("belfry_api_refused", reason="key") > 0
    for sock in held:
        sock.close()
    until(lambda: embedded.request("GET", f"/v1/users/{user}", key=made["key"]).status == 200, 5,
          "each gives its place back")


def test_a_new_connection_takes_the_place_of_the_longest_idle(embedded):
    held = []
    before = embedded.metric("belfry_api_evicted")
    for i in range(320):  # 260 fit
        sock = connect(embedded, source=f"127.0.0.{3 + i % 3}")
        sock.sendall(head(embedded))
        assert read_answer(sock)[0] == 200, f"number {i}"
        held.append(sock)
    assert embedded.metric("belfry_api_evicted") - before >= 60 - 5
    ends = [sock.recv(1) == b"" for sock in held[:40]]
    assert all(ends), "the oldest have left"
    held[-1].sendall(head(embedded))
    assert read_answer(held[-1])[0] == 200, "the youngest has not"
    for sock in held:
        sock.close()


def test_half_requests_do_not_hide_a_node_from_its_supervisor(embedded):
    """The admin port has 64 connections: who holds them with halves of requests would make /healthz fail."""
    held = []
    for _ in range(100):
        held.append(connect(embedded, "admin"))
        held[-1].sendall(b"GET /hea")
    time.sleep(0.6)  # what a head may take before it gives way
    for _ in range(20):
        assert talk(embedded, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "admin")[0] == 200
    for sock in held:
        sock.close()


# ---- HTTP as it is spoken -------------------------------------------------------------------------------------

def test_pipelined_requests_are_answered_in_order(embedded, user):
    event = json.dumps({"user_id": user, "type": "t", "title": "x"}).encode()
    one = head(embedded, "POST", "/v1/notifications", f"Content-Length: {len(event)}") + event
    with connect(embedded) as sock:
        sock.sendall(one * 50 + head(embedded, "GET", "/v1/topics", "Connection: close"))
        answers = [read_answer(sock) for _ in range(51)]
        assert [a[0] for a in answers] == [202] * 50 + [200]
        assert len({json.loads(a[2])["notification_id"] for a in answers[:50]}) == 50
        assert answers[-1][1]["connection"] == "close" and read_answer(sock) is None
    embedded.stored(user, 50)


def test_who_sends_faster_than_it_is_served_is_not_idle(embedded):
    """Its next request is always there: the connection never waits for one, and no deadline of waiting counts."""
    one = b"GET /v1/x HTTP/1.1\r\nHost: b\r\n\r\n"
    sent = got = 0
    with connect(embedded) as sock:
        def write():
            nonlocal sent
            until_s = time.monotonic() + IDLE_S * 1.3
            while time.monotonic() < until_s:
                sock.sendall(one * 3000)
                sent += 3000
            sock.shutdown(socket.SHUT_WR)
        writer = threading.Thread(target=write)
        writer.start()
        rest = b""
        while more := sock.recv(1 << 20):
            rest += more
            got += rest.count(b"HTTP/1.1 404")
            rest = rest[-11:]
        writer.join()
    assert got == sent, "an answer for each"


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_request_in_pieces(embedded, user, cut):
    event = json.dumps({"user_id": user, "type": "t", "title": "x" * 600}).encode()
    plain = head(embedded, "POST", "/v1/notifications", f"Content-Length: {len(event)}") + event
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(event[i:i + 50]), event[i:i + 50]) for i in range(0, len(event), 50))
    chunked = head(embedded, "POST", "/v1/notifications", "Transfer-Encoding: chunked") + chunks + b"0\r\nX-T: 1\r\n\r\n"
    with connect(embedded) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = plain + chunked + plain
        for at in range(0, len(data), cut):
            sock.sendall(data[at:at + cut])
        assert [read_answer(sock)[0] for _ in range(3)] == [202] * 3


def test_large_bodies_are_taken_and_too_large_ones_refused(embedded):
    lines = "".join(json.dumps({"user_id": f"large-{i}-" + "x" * 40}) + "\n" for i in range(9000)).encode()
    assert len(lines) > 400000
    with connect(embedded, seconds=60) as sock:
        sock.sendall(head(embedded, "POST", "/v1/users/import", f"Content-Length: {len(lines)}") + lines)
        status, _, body = read_answer(sock)
        assert status == 200 and json.loads(body)["created"] == 9000
    for framing in (b"Content-Length: 3000000", b"Transfer-Encoding: chunked"):
        with connect(embedded) as sock:
            sock.sendall(head(embedded, "POST", "/v1/users/import", framing.decode()))
            if b"chunked" in framing:
                for _ in range(3000):
                    try:
                        sock.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                    except OSError:
                        break
            status, headers, body = read_answer(sock)
            assert status == 413 and headers["connection"] == "close", framing
            assert headers["content-type"] == "application/problem+json"


def test_head_is_get_without_the_body(embedded, user):
    for port, path in (("api", f"/v1/users/{user}"), ("api", "/v1/topics"), ("admin", "/healthz"), ("admin", "/metrics"),
                       ("api", "/v1/nothing")):
        with connect(embedded, port) as sock:
            sock.sendall(head(embedded, "HEAD", path) + head(embedded, "GET", path))
            of_head = read_answer(sock, has_body=False)
            of_get = read_answer(sock)
            assert of_head[0] == of_get[0] and of_head[1].get("content-type") == of_get[1].get("content-type")
            if path != "/metrics":
                assert of_head[1]["content-length"] == of_get[1]["content-length"]
    assert talk(embedded, head(embedded, "POST", "/v1/topics"))[1]["allow"] == "GET, HEAD"


def test_a_delete_may_have_an_empty_object(embedded):
    embedded.put_user("deleted-with-a-body")
    with connect(embedded) as sock:
        sock.sendall(head(embedded, "DELETE", "/v1/users/deleted-with-a-body", "Content-Length: 2") + b"{}" +
                     head(embedded, "GET", "/v1/users/deleted-with-a-body"))
        assert read_answer(sock)[0] in (200, 202, 204)
        assert read_answer(sock)[0] == 404, "and the connection goes on"


def test_expect(embedded, user):
    event = json.dumps({"user_id": user, "type": "t", "title": "x"}).encode()
    with connect(embedded) as sock:
        sock.sendall(head(embedded, "POST", "/v1/notifications", f"Content-Length: {len(event)}", "Expect: 100-continue"))
        assert read_answer(sock)[0] == 100
        sock.sendall(event)
        assert read_answer(sock)[0] == 202
    with connect(embedded) as sock:  # refused before the body is asked for: what follows is no body
        sock.sendall(head(embedded, "POST", "/v1/notifications", f"Content-Length: {len(event)}", "Expect: 100-continue",
                          key="bfk_" + "0" * 48))
        status, headers, _ = read_answer(sock)
        assert status == 401 and headers["connection"] == "close" and read_answer(sock) is None
    status, _, body = talk(embedded, head(embedded, "POST", "/v1/notifications", "Content-Length: 2", "Expect: tea") + b"{}")
    assert status == 417 and json.loads(body)["title"] != "Internal error"


def test_a_half_closed_client_reads_its_answers(embedded, user):
    event = json.dumps({"user_id": user, "type": "t", "title": "x"}).encode()
    one = head(embedded, "POST", "/v1/notifications", f"Content-Length: {len(event)}") + event
    with connect(embedded) as sock:
        sock.sendall(one * 3)
        sock.shutdown(socket.SHUT_WR)
        assert [read_answer(sock)[0] for _ in range(3)] == [202] * 3
        assert read_answer(sock) is None


# ---- web pages ----------------------------------------------------------------------------------------------

def test_pages_of_listed_origins_may_ask(embedded, user):
    token = embedded.token(user)
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    path = f"/v1/users/{user}/notifications"
    for origin in ("https://app.example", "https://b.example:8443"):
        answer = embedded.request("OPTIONS", path, key="", headers={"Origin": origin, **preflight})
        assert answer.status == 204 and answer.headers["Access-Control-Allow-Origin"] == origin
        assert "GET" in answer.headers["Access-Control-Allow-Methods"] and answer.headers["Vary"] == "Origin"
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        answer = embedded.request("GET", path, key=token, headers={"Origin": origin})
        assert answer.status == 200 and answer.headers["Access-Control-Allow-Origin"] == origin
        answer = embedded.request("GET", path, key="nonsense", headers={"Origin": origin})
        assert answer.status == 401 and answer.headers["Access-Control-Allow-Origin"] == origin, "errors are read too"
        for bad, status in ((f"{path}/nope", 404), ("/v1/users/a%00/notifications", 400)):
            answer = embedded.request("GET", bad, key=token, headers={"Origin": origin})
            assert answer.status == status and answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers.get_all("Vary") == ["Origin"]
    for origin in ("https://evil.example", "https://app.example.evil", "http://app.example", "null"):
        answer = embedded.request("OPTIONS", path, key="", headers={"Origin": origin, **preflight})
        assert answer.status == 405 and "Access-Control-Allow-Origin" not in answer.headers
        answer = embedded.request("GET", path, key=token, headers={"Origin": origin})
        assert answer.status == 200 and "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Vary"] == "Origin"
    # a producer's route is none of a page's business
    answer = embedded.request("OPTIONS", "/v1/notifications", key="",
                              headers={"Origin": "https://app.example", **preflight})
    assert answer.status == 405 and "Access-Control-Allow-Origin" not in answer.headers
    answer = embedded.request("GET", "/v1/topics", headers={"Origin": "https://app.example"})
    assert answer.status == 200 and "Access-Control-Allow-Origin" not in answer.headers


# ---- TLS ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("api-ca"))


@pytest.fixture(scope="module")
def secure(ca):
    own = ca.make("localhost")
    with Node(config={"api": {"tls": {"cert": own["cert"], "key": own["key"], "client_ca": str(ca.cert)}}}) as node:
        node.put = lambda **tls: change(node, **tls)
        yield node


def change(node, **tls):
    path = node.info["config"]
    with open(path) as f:
        tree = yaml.safe_load(f)
    tree["api"]["tls"].update(tls)
    with open(path, "w") as f:
        yaml.safe_dump(tree, f)
    return node.ctl("config", "reload", check=False)


def tls_context(ca, client=None):
    context = ssl.create_default_context(cafile=str(ca.cert))
    if client:
        context.load_cert_chain(client["cert"], client["key"])
    return context


def secure_call(node, context, method="GET", path="/v1/topics", body=b"", key=None):
    url = urllib.parse.urlsplit(node.info["api"])
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"] + ([f"Authorization: Bearer {key}"] if key else [])
    lines += [f"Content-Length: {len(body)}"] if body else []
    with socket.create_connection(("127.0.0.1", url.port), timeout=10 * TIMES) as raw:
        with context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as sock:
            sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            return read_answer(sock), sock.version(), sock.getpeercert()


def test_the_api_over_tls(secure, ca):
    lines = "".join(json.dumps({"user_id": f"tls-{i}"}) + "\n" for i in range(2000)).encode()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = tls_context(ca)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        answer, spoken, _ = secure_call(secure, context, key=secure.key)
        assert answer[0] == 200 and spoken == {772: "TLSv1.3", 771: "TLSv1.2"}[version.value]
        answer, _, _ = secure_call(secure, context, "POST", "/v1/users/import", lines, key=secure.key)
        assert answer[0] == 200, answer
    old = tls_context(ca)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, OSError)):
        secure_call(secure, old, key=secure.key)
    with connect(secure) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
        try:
            assert plain.recv(100)[:4] != b"HTTP", "no HTTP in clear on this port"
        except ConnectionResetError:
            pass


def test_a_broken_record_in_a_body_ends_the_connection_at_once(secure, ca):
    before = states(secure)["body"]
    with connect(secure) as raw, tls_context(ca).wrap_socket(raw, server_hostname="localhost") as sock:
        sock.sendall(head(secure, "PUT", "/v1/users/broken-record", "Content-Length: 20") + b"{")
        until(lambda: states(secure)["body"] == before + 1)
        with socket.socket(fileno=os.dup(sock.fileno())) as under:
            under.sendall(b"\x17\x03\x03\x00\x40" + b"x" * 64)
        # our socket stays open: the server ends it, and not when the body's time is over
        until(lambda: states(secure)["body"] == before, seconds=5)


def test_a_client_certificate_stands_for_a_key(secure, ca):
    made = json.loads(secure.admin("POST", "/admin/keys", {"name": "orders", "scopes": ["events"]}).body)
    producer = ca.make("orders.internal", san="DNS:orders.internal,URI:spiffe://x/orders")
    other = ca.make("other.internal")
    assert secure_call(secure, tls_context(ca, producer))[0][0] == 401, "nothing is derived from a certificate alone"
    assert secure.put(clients=[{"name": "spiffe://x/orders", "key": made["id"]}]).returncode == 0
    assert secure_call(secure, tls_context(ca, producer))[0][0] == 200
    answer, _, _ = secure_call(secure, tls_context(ca, producer), "GET", "/v1/users/nobody")
    assert answer[0] == 403 and b"scope" in answer[2], "the key's scopes, not all"
    assert secure_call(secure, tls_context(ca, other))[0][0] == 401
    assert secure_call(secure, tls_context(ca))[0][0] == 401
    assert secure_call(secure, tls_context(ca, producer), key="bfk_" + "0" * 48)[0][0] == 401, "what is said counts"
    assert secure.put(clients=[{"name": "other.internal", "key": made["id"]}]).returncode == 0
    assert secure_call(secure, tls_context(ca, other))[0][0] == 200, "by its one common name or SAN"
    assert secure_call(secure, tls_context(ca, producer))[0][0] == 401


def test_a_strange_certificate_is_refused(secure, ca, tmp_path):
    stranger = Authority(tmp_path).make("orders.internal")
    context = tls_context(ca, stranger)
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        secure_call(secure, context, key=secure.key)
    assert secure.put(client_required=True).returncode == 0
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        secure_call(secure, tls_context(ca), key=secure.key)
    assert secure.put(client_required=False).returncode == 0
    assert secure_call(secure, tls_context(ca), key=secure.key)[0][0] == 200


def test_a_reload_takes_the_new_certificate(secure, ca, tmp_path):
    fresh = ca.make("fresh", san="DNS:localhost")
    url = urllib.parse.urlsplit(secure.info["api"])
    with socket.create_connection(("127.0.0.1", url.port), timeout=10 * TIMES) as raw:
        with tls_context(ca).wrap_socket(raw, server_hostname="localhost") as kept:
            kept.sendall(head(secure))
            assert read_answer(kept)[0] == 200
            assert secure.put(cert=fresh["cert"], key=fresh["key"]).returncode == 0
            _, _, shown = secure_call(secure, tls_context(ca), key=secure.key)
            assert dict(pair[0] for pair in shown["subject"])["commonName"] == "fresh"
            kept.sendall(head(secure))
            assert read_answer(kept)[0] == 200, "sessions go on"
    broken = tmp_path / "broken.key"
    broken.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    answer = secure.put(key=str(broken))
    assert answer.returncode != 0 and "api.tls" in answer.stdout + answer.stderr
    assert secure.ctl("config", "check", check=False).returncode != 0
    assert secure_call(secure, tls_context(ca), key=secure.key)[0][0] == 200, "the one before stays"
    assert secure.put(key=fresh["key"]).returncode == 0
