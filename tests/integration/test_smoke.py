"""A node from start to stop: the short pass that also runs under sanitizers (one process, BELFRY_SINGLE=1).

Under a sanitizer any finding ends the process, so "still alive, stopped with code 0, nothing in the log" is the
judgement; the traffic is chosen to pass through every module once.
"""
import os
import re
import signal
import threading

import harness
import pytest
from harness import RawSocket, until

SINGLE = os.environ.get("BELFRY_SINGLE") == "1"


@pytest.fixture(scope="module")
def single():
    config = {"topics": {"broadcast": ["news"], "public": ["news"]}, "users": {"auto_create": True}}
    node = harness.Node(config=config, single=SINGLE)
    with node:
        yield node
        for side in set(node.info["pids"]):
            assert node.is_alive(side), node.logs()
    text = "".join(p.read_text(errors="replace") for p in node.state.glob("*.log")) if node.state.exists() else ""
    assert not re.search(r"Sanitizer|runtime error:|belfry: bug:", text), text


def test_traffic(single):
    with single.client("a", device="1") as one, single.client("a", device="2", auth="frame") as two:
        for i in range(100):
            single.send("a", title=str(i), priority=("critical", "normal", "low")[i % 3], data={"i": i})
        assert len({n["id"] for n in one.expect_n(100)}) == 100
        two.expect_n(100)
        one.ack()
        assert one.call({"t": "read", "id": single.inbox("a")[0]["id"]})["t"] == "ok"
        two.expect("state")
        assert one.call({"t": "sub", "topic": "news"})["t"] == "ok"
        single.request("POST", "/v1/events", {"type": "t", "title": "n", "topic": "news"})
        one.expect("b", title="n")
        single.request("POST", "/v1/notifications", {"type": "t", "title": "all", "broadcast": True})
        two.expect("b", title="all")
        resume = two.resume()
    single.send("a", title="missed")
    with single.client("a", device="2", resume=resume) as two:
        assert two.expect("n", title="missed")
    with single.client("b") as b:
        single.send("b", title="t", transient=True)
        b.expect("n", title="t")


def test_bad_input(single):
    for body in (b"{", b"\xff", b'{"user_id":5}', b"x" * 70000, b'{"user_id":"a","type":"t","segment":"s"}'):
        assert single.request("POST", "/v1/notifications", body).status in (400, 413)
    for data in (b"\x00" * 300 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n" + b"a" * 9000):
        with RawSocket(single) as raw:
            raw.send(data)
            raw.s.recv(100)
    for payload in (b"\xff\xfe", b"{", b'{"t":"connect","token":"a.b.c"}', b'{"t":"connect"}' * 3):
        with RawSocket(single) as raw:
            raw.upgrade()
            raw.send(raw.frame(payload))
            raw.close_code()


def test_preferences_erasure_and_admin(single):
    single.put_user("c")
    assert single.request("PUT", "/v1/users/c/preferences", {"types": {"x": False}}).status == 200
    single.send("c", type="x")
    single.send("c", type="y")
    until(lambda: len(single.inbox("c")) == 1, 5, "one is suppressed")
    assert single.request("PUT", "/v1/users/c/preferences", {"opt_out": True}).status == 200
    assert single.request("DELETE", "/v1/users/c").status in (200, 204)
    assert single.metrics()
    single.ctl("config", "reload")
    assert single.ctl("status", "--json").stdout


def test_many_at_once(single):
    clients = [single.client(f"m{i}", device="d") for i in range(40)]
    threads = [threading.Thread(target=lambda k=k: [single.send(f"m{i}", title=str(k)) for i in range(40)]) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for client in clients:
        assert sorted(n["title"] for n in client.expect_n(4)) == ["0", "1", "2", "3"]
        client.abort()


def test_restart_and_stop(single):
    single.send("z", title="kept")
    single.restart("ctrlplane")
    assert [i["title"] for i in single.stored("z", 1)] == ["kept"]
    if not SINGLE:
        single.kill("dataplane", signal.SIGTERM)
        until(lambda: not single.is_alive("dataplane"), 10, "it stops when asked to")
        single.restart("dataplane")
