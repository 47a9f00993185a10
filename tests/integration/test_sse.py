"""Server-sent events at /v1/sse: the same sessions as on the WebSocket, for clients that cannot do WebSocket.

The client is http.client and a parser of the event-stream format (WHATWG HTML 9.2.6) written here; one test
uses the standard library's urllib, to see that nothing special is needed.
"""
import http.client
import json
import socket
import time
import urllib.parse
import urllib.request

import pytest
from harness import TIMES, until

CONFIG = {"websocket": {"ping_interval": 300, "presence_timeout": 1000}, "fanout": {"ack_deadline": 2000},
          "topics": {"broadcast": ["news", "news.*", "team.*"], "public": ["news", "news.*"]}}


class Events:
    """One event stream. next() gives (event, data, id); comments are counted."""

    def __init__(self, node, user, last=None, token=None, query=None, headers=None, auth="header", expect=200,
                 buffer=None, tls=False):
        url = urllib.parse.urlsplit(node.info["wss" if tls else "ws"])
        if tls:
            self.http = http.client.HTTPSConnection("localhost", url.port, timeout=10 * TIMES, context=node.trust())
        else:
            self.http = http.client.HTTPConnection(url.hostname, url.port, timeout=10 * TIMES)
        if buffer:
            self.http.sock = socket.socket()
            self.http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self.http.sock.settimeout(10 * TIMES)
            self.http.sock.connect((url.hostname, url.port))
        token = token or node.token(user)
        query = dict(query or {})
        headers = {"Accept": "text/event-stream", **(headers or {})}
        if auth == "header":
            headers["Authorization"] = f"Bearer {token}"
        elif auth == "query":
            query["token"] = token
        if last:
            headers["Last-Event-ID"] = last
        self.http.request("GET", "/v1/sse" + (f"?{urllib.parse.urlencode(query)}" if query else ""), headers=headers)
        self.answer = self.http.getresponse()
        assert self.answer.status == expect, (self.answer.status, self.answer.read())
        self.last_id, self.comments = last, 0

    def next(self):
        """The next event, or None at the end of the stream."""
        event, data, seen_id = None, [], None
        while True:
            line = self.answer.fp.readline()
            if not line:
                return None
            assert line.endswith(b"\n"), line
            line = line[:-1].decode()
            if line == "":
                if seen_id is not None:
                    self.last_id = seen_id
                if data:
                    return event, json.loads("\n".join(data)), seen_id
                event, seen_id = None, None
            elif line.startswith(":"):
                self.comments += 1
            else:
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    data.append(value)
                elif name == "id":
                    seen_id = value
                else:
                    raise AssertionError(f"a line nobody knows: {line!r}")

    def expect(self, kind, **fields):
        got = self.next()
        assert got and got[0] == kind == got[1]["t"], f"expected {kind}, got {got}"
        for name, value in fields.items():
            assert got[1].get(name) == value, f"expected {name}={value!r} in {got}"
        return got[1]

    def welcome(self):
        w = self.expect("welcome")
        self.pause()  # the id that a client has before its first event
        return w

    def pause(self):
        """Reads on until there is an id: the heartbeat after the welcome brings it."""
        while self.last_id is None or self.comments == 0:
            line = self.answer.fp.readline().decode().rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
            elif line.startswith("id: "):
                self.last_id = line[4:]
            elif line == "" and self.comments and self.last_id:
                return
            assert line == "" or line[0] == ":" or line.startswith("id: "), line

    def close(self):
        self.answer.close()
        self.http.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("auth", ["header", "query"])
def test_connect_and_receive(embedded, user, auth):
    with Events(embedded, user, auth=auth) as events:
        assert events.answer.headers["Content-Type"] == "text/event-stream"
        assert events.answer.headers["Cache-Control"] == "no-store"
        w = events.expect("welcome", user=user, resumed=False, seq=0)
        assert w["epoch"]
        for i in range(3):
            embedded.send(user, title=f"t{i}", body="zwei\nZeilen ☃")
        ids = []
        for i in range(3):
            n = events.expect("n", title=f"t{i}", body="zwei\nZeilen ☃", seq=i + 1)
            ids.append(events.last_id)
            assert n["id"]
        assert len(set(ids)) == 3 and all(i.startswith(w["epoch"] + ";n=0-") for i in ids)


def test_same_frames_as_the_websocket(embedded, user):
    with embedded.client(user) as client, Events(embedded, user) as events:
        events.welcome()
        embedded.send(user, title="both", priority="high", data={"a": [1, 2, {"b": None}]}, actions=[{"id": "x", "title": "X"}])
        assert client.expect("n") == events.expect("n", lane="critical")


def test_resume(embedded, user):
    with Events(embedded, user) as events:
        events.welcome()
        embedded.send(user, title="a")
        embedded.send(user, title="b", priority="low")
        embedded.send(user, title="c", priority="high")
        got = {events.next()[1]["title"] for _ in range(3)}
        assert got == {"a", "b", "c"}
        last = events.last_id
    for title, priority in (("d", "normal"), ("e", "low"), ("f", "high")):
        embedded.send(user, title=title, priority=priority)
    embedded.stored(user, 6)
    for again in range(2):  # what was not seen to the end of an event is there again
        with Events(embedded, user, last=last) as events:
            events.expect("welcome", resumed=True)
            assert {events.next()[1]["title"] for _ in range(3)} == {"d", "e", "f"}
            if again:
                last = events.last_id
    with Events(embedded, user, query={"last_event_id": last}) as events:  # a page that knows where it was
        events.expect("welcome", resumed=True)
        embedded.send(user, title="g")
        events.expect("n", title="g")


def test_resume_before_the_first_event(embedded, user):
    """The id that follows the welcome is enough."""
    with Events(embedded, user) as events:
        events.welcome()
        last = events.last_id
    embedded.send(user, title="missed")
    embedded.stored(user, 1)
    with Events(embedded, user, last=last) as events:
        events.expect("welcome", resumed=True)
        events.expect("n", title="missed")


def test_resume_acknowledges(embedded, user):
    """What Last-Event-ID covers has been taken: nothing of it is due any more."""
    with Events(embedded, user) as events:
        events.welcome()
        ids = [embedded.send(user, title=f"t{i}") for i in range(4)]
        for i in range(3):
            events.expect("n", title=f"t{i}")
        last = events.last_id

    def statuses():
        return [embedded.request("GET", f"/v1/notifications/{i}/status").json for i in ids]
    assert "delivered" not in json.dumps(statuses()[0])
    with Events(embedded, user, last=last) as events:
        events.expect("welcome", resumed=True)
        events.expect("n", title="t3")
        until(lambda: all("delivered" in json.dumps(s) for s in statuses()[:3]), 5, "the first three are delivered")
        assert "delivered" not in json.dumps(statuses()[3])


@pytest.mark.parametrize("change", ["epoch", "above the head", "garbage"])
def test_resume_that_cannot_be(embedded, user, change):
    with Events(embedded, user) as events:
        events.welcome()
        notification = embedded.send(user, title="a")
        events.expect("n", title="a")
        last = events.last_id
    last = {"epoch": "0123456789abcdef-0" + last[last.index(";"):], "above the head": last.replace("n=0-1", "n=0-77"),
            "garbage": "42"}[change]
    with Events(embedded, user, last=last) as events:
        events.expect("welcome", resumed=False)
        embedded.send(user, title="b")
        events.expect("n", title="b")
    assert "delivered" not in json.dumps(embedded.request("GET", f"/v1/notifications/{notification}/status").json)


def test_no_second_time_on_the_same_stream(embedded, user):
    """A deadline of acknowledgement sends nothing again to a stream that cannot acknowledge."""
    with Events(embedded, user) as events:
        events.welcome()
        embedded.send(user, title="once")
        events.expect("n", title="once")
        time.sleep(2.5)  # past the deadline of 2 s: what must not happen has no event to wait for
        embedded.send(user, title="next")
        events.expect("n", title="next")


def test_broadcast_and_topics(embedded, user):
    with Events(embedded, user, query={"topics": "news,news.local"}) as mine, Events(embedded, user) as other:
        mine.welcome()
        other.welcome()
        assert embedded.request("POST", "/v1/notifications", {"type": "t", "broadcast": True, "title": "all"}).status == 202
        b = mine.expect("b", title="all")
        other.expect("b", title="all")
        assert mine.last_id.endswith(f";b={b['bseq']}")
        assert embedded.request("POST", "/v1/notifications", {"type": "t", "topic": "news", "title": "news"}).status == 202
        mine.expect("b", title="news")
        embedded.send(user, title="end")
        other.expect("n", title="end")
        last = other.last_id
    assert embedded.request("POST", "/v1/notifications", {"type": "t", "broadcast": True, "title": "later"}).status == 202

    def in_the_log():
        with embedded.client(f"{user}-probe") as probe:
            return probe.welcome["b"] > b["bseq"] + 1
    until(in_the_log, 10, "the broadcast is in its log")
    with Events(embedded, user, last=last) as events:
        events.expect("welcome", resumed=True)
        events.expect("b", title="later")


def test_forbidden_topic(embedded, user):
    with Events(embedded, user, query={"topics": "team.secret"}) as events:
        seen = [events.next()[0] for _ in range(2)]
        assert sorted(seen) == ["error", "welcome"]


def test_heartbeat(embedded, user):
    """Comments while nothing is sent; a stream that only listens is alive beyond the presence timeout."""
    with Events(embedded, user) as events:
        events.welcome()
        start = time.monotonic()
        before = events.comments
        while events.comments < before + 6:
            line = events.answer.fp.readline()
            assert line, "the stream ended"
            events.comments += line.startswith(b":")
        assert 1.2 < time.monotonic() - start < 5 * TIMES
        embedded.send(user, title="still")
        events.expect("n", title="still")


def test_expiry_ends_the_stream(embedded, user):
    with Events(embedded, user, token=embedded.token(user, ttl=2)) as events:
        events.expect("welcome")
        start = time.monotonic()
        events.expect("close", code=4002)
        assert events.next() is None
        assert time.monotonic() - start < 5 * TIMES


def test_a_newer_stream_of_the_device_replaces(embedded, user):
    with Events(embedded, user, query={"device": "tab"}) as old:
        old.welcome()
        with Events(embedded, user, query={"device": "tab"}) as new:
            new.expect("welcome")
            old.expect("close", code=4003)
            assert old.next() is None


def test_state_of_another_device(embedded, user):
    with embedded.client(user) as client, Events(embedded, user) as events:
        events.welcome()
        notification = embedded.send(user, title="x")
        n = client.expect("n")
        events.expect("n", id=n["id"])
        assert client.call({"t": "read", "id": n["id"]})["t"] == "ok"
        events.expect("state", id=n["id"], read=True)
        assert notification


def test_over_tls(embedded, user):
    with Events(embedded, user, tls=True) as events:
        events.welcome()
        for i in range(20):
            embedded.send(user, title=f"t{i}", body="z" * 15000)
        for i in range(20):
            events.expect("n", title=f"t{i}")
        last = events.last_id
    embedded.send(user, title="later")
    embedded.stored(user, 21)
    with Events(embedded, user, tls=True, last=last) as events:
        events.expect("welcome", resumed=True)
        events.expect("n", title="later")


def test_large_and_many(embedded, user):
    """Frames larger than a send, and a reader with a small buffer: every byte in its place."""
    bodies = [f"{i}:" + "0123456789ä" * 1200 for i in range(12)]
    data = {"filler": "x" * 30000}
    with Events(embedded, user, buffer=4096) as events:
        events.welcome()
        for body in bodies:
            embedded.send(user, title="big", body=body, data=data)
        for body in bodies:
            events.expect("n", body=body, data=data)
        last = events.last_id.replace("n=0-12", "n=0-0")
    with Events(embedded, user, last=last, buffer=4096) as events:
        events.expect("welcome", resumed=True)
        for body in bodies:
            events.expect("n", body=body, data=data)


def test_urllib(embedded, user):
    base = embedded.info["ws"].replace("ws://", "http://").rsplit("/v1", 1)[0].rstrip("/")
    with urllib.request.urlopen(f"{base}/v1/sse?token={embedded.token(user)}", timeout=10 * TIMES) as stream:
        assert stream.readline() == b"event: welcome\n"


@pytest.mark.parametrize("what,kwargs,status", [
    ("no token", {"auth": None}, 401),
    ("a bad token", {"token": "a.b.c"}, 401),
    ("a bad token in the query", {"token": "x", "auth": "query"}, 401),
    ("a device too long", {"query": {"device": "d" * 65}}, 400),
    ("too many topics", {"query": {"topics": ",".join("news" for _ in range(65))}}, 400),
])
def test_refused(embedded, user, what, kwargs, status):
    with Events(embedded, user, expect=status, **kwargs) as events:
        assert events.answer.read()
        if status == 401:
            assert events.answer.headers["WWW-Authenticate"] == "Bearer"


def test_bad_requests(embedded, user):
    url = urllib.parse.urlsplit(embedded.info["ws"])
    for method, path, status in (("POST", "/v1/sse", 405), ("GET", "/v1/ssex", 404), ("GET", "/v1/sse?token=%zz", 400),
                                 ("GET", "/v1/sse?token=%0", 400), ("OPTIONS", "/v1/sse", 405)):
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10 * TIMES)
        connection.request(method, path)
        assert connection.getresponse().status == status, (method, path)
        connection.close()


def test_origin_is_named(embedded, user):
    with Events(embedded, user, headers={"Origin": "https://app.example"}) as events:
        assert events.answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert events.answer.headers["Vary"] == "Origin"


def test_what_the_client_sends_is_ignored(embedded, user):
    with Events(embedded, user) as events:
        events.welcome()
        sock = events.answer.fp.raw._sock
        sock.sendall(b"\x81\x00garbage" * 1000)
        embedded.send(user, title="on")
        events.expect("n", title="on")


def test_ctrlplane_away(embedded, user):
    """Streams stay open while the control process is gone, and take what comes afterwards."""
    with Events(embedded, user) as events:
        events.welcome()
        embedded.kill("ctrlplane")
        embedded.restart("ctrlplane")
        embedded.wait_ready(20)
        embedded.send(user, title="after")
        events.expect("n", title="after")


def test_a_client_that_leaves(embedded, user):
    before = embedded.metric("belfry_dataplane_connections_welcomed")
    with Events(embedded, user) as events:
        events.welcome()
        until(lambda: embedded.metric("belfry_dataplane_connections_welcomed") > before, 5, "it is counted")
    until(lambda: embedded.metric("belfry_dataplane_connections_welcomed") <= before, 5, "it is gone")
