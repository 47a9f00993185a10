"""Records made by the kernel (option tls.kernel): delivery in every size, order, ends and keys, with Python's ssl and
openssl s_client as the clients. Skips where the kernel makes none (module tls, Linux 6.7); what it does then is tested
everywhere. On such a kernel: scripts/vm --kernel 6.12 --module chacha20poly1305 -- /usr/bin/python3 -m pytest ...

Covers WS-1, SEC-2; DESIGN 7 (kTLS where the kernel has it).
"""
import io
import os
import select
import socket
import ssl

import harness
import pytest
import yaml
from harness import until
from test_sse import Events
from tls_peer import SClient, connect, upgrade, ws_read, ws_text

CONFIG = {"tls": {"kernel": True}, "fanout": {"ack_deadline": 300000},
          "websocket": {"slow_timeout": 60000, "client_frames_per_s": 1000000, "ping_interval": 60000, "presence_timeout": 200000}}
SUITES = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]


def count(node, name):
    return node.metric(f"belfry_dataplane_{name}")


@pytest.fixture
def kernel(embedded):
    """The node, whose kernel makes records."""
    if count(embedded, "ktls_offered") != 1:
        pytest.skip("this kernel makes no TLS records (module tls, Linux 6.7)")
    return embedded


def opened(node, s, user):
    """WebSocket and session over a raw TLS client, whose records the kernel makes from the first data on."""
    upgrade(node, s, user)
    s.sendall(ws_text({"t": "connect"}))
    assert ws_read(s)["t"] == "welcome"


def trust_1_3(node):
    context = node.trust()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


# ---- delivery -------------------------------------------------------------------------------------

def test_delivery_and_resume(kernel, user):
    failed = count(kernel, "ktls_failed")
    with kernel.client(user, device="d", tls=kernel.trust()) as client:
        assert count(kernel, "ktls_connections") == 1
        for i in range(20):
            kernel.send(user, title=f"t{i}")
        assert [n["title"] for n in client.expect_n(20)] == [f"t{i}" for i in range(20)]
        client.seq["normal"] = 15
        client.ack()
        client.quiet()
        resume = client.resume()
        client.abort()
    until(lambda: count(kernel, "ktls_connections") == 0, what="the dead client is seen")
    with kernel.client(user, device="d", resume=resume, tls=kernel.trust()) as client:
        assert client.welcome["resumed"] is True
        assert [n["title"] for n in client.expect_n(5)] == [f"t{i}" for i in range(15, 20)]
    assert count(kernel, "ktls_failed") == failed


@pytest.mark.parametrize("suite", SUITES)
def test_each_cipher(kernel, user, suite):
    failed = count(kernel, "ktls_failed")
    with SClient(kernel, "-ciphersuites", suite) as s:
        opened(kernel, s, user)
        assert count(kernel, "ktls_connections") + count(kernel, "ktls_failed") - failed == 1
        if suite in SUITES[:2]:
            assert count(kernel, "ktls_failed") == failed, "AES-GCM is in every kernel that has TLS"
        for i in range(10):
            kernel.send(user, title=f"t{i}", data={"text": "x" * 3600 * i})
            frame = ws_read(s)
            assert frame["title"] == f"t{i}" and len(frame["data"]["text"]) == 3600 * i


def test_sizes_around_a_record(kernel, user):
    """16,384 bytes are a record: frames below, at and above one, and several."""
    with connect(kernel, trust_1_3(kernel)) as s:
        opened(kernel, s, user)
        for size in [0, 1, 100, 15000, *range(15900, 16500, 24), 32000]:
            kernel.send(user, title="t", data={"text": "x" * size})
            assert ws_read(s)["data"]["text"] == "x" * size
        kernel.send(user, title="t", body="y" * 4000, data={"text": "x" * 32000})
        frame = ws_read(s)
        assert frame["data"]["text"] == "x" * 32000 and frame["body"] == "y" * 4000


def test_thousands_of_records(kernel, user):
    """Each answer a record of its own, then many to a send."""
    bad = count(kernel, "tls_records_bad")
    with connect(kernel, trust_1_3(kernel)) as s:
        opened(kernel, s, user)
        for _ in range(2500):
            s.sendall(ws_text({"t": "ping"}))
            assert ws_read(s) == {"t": "pong"}
        for _ in range(50):
            s.sendall(ws_text({"t": "ping"}) * 60)
            assert [ws_read(s) for _ in range(60)] == [{"t": "pong"}] * 60
        kernel.send(user, title="still here")
        assert ws_read(s)["title"] == "still here"
    assert count(kernel, "tls_records_bad") == bad


def test_broadcast(kernel):
    clients = [kernel.client(f"b-{i}", tls=kernel.trust() if i % 3 else None) for i in range(15)]
    assert count(kernel, "ktls_connections") == 10
    for text in ("small", "x" * 20000):
        answer = kernel.request("POST", "/v1/notifications",
                                {"type": "t", "broadcast": True, "title": "all", "data": {"text": text}})
        assert answer.status == 202
        for client in clients:
            assert client.expect("b", title="all")["data"]["text"] == text
    for client in clients:
        client.close()
    until(lambda: count(kernel, "ktls_connections") == 0)


def test_server_sent_events(kernel, user):
    with Events(kernel, user, tls=True) as events:
        events.welcome()
        assert count(kernel, "ktls_connections") == 1
        for i in range(20):
            kernel.send(user, title=f"t{i}", body="z" * 15000, data={"filler": "x" * 20000})
        for i in range(20):
            events.expect("n", title=f"t{i}", data={"filler": "x" * 20000})
        last = events.last_id
    kernel.send(user, title="later")
    kernel.stored(user, 21)
    with Events(kernel, user, tls=True, last=last) as events:
        events.expect("welcome", resumed=True)
        events.expect("n", title="later")


def test_slow_reader_gets_everything_in_order(kernel, user):
    text = "y" * 30000
    total = 100  # 3 MB: more than the kernel's buffers take
    short = count(kernel, "sends_short")
    with connect(kernel, trust_1_3(kernel), seconds=20, buffer=8192) as s:
        opened(kernel, s, user)
        for i in range(total):
            kernel.send(user, title=f"t{i}", data={"text": text})
        until(lambda: count(kernel, "sends_short") > short, what="a short send")
        got = []
        while len(got) < total:
            frame = ws_read(s)
            if frame["t"] == "n":
                assert frame["data"]["text"] == text
                got.append(frame["title"])
                s.sendall(ws_text({"t": "ack", "seq": frame["seq"]}))
        assert got == [f"t{i}" for i in range(total)]


def test_client_that_dies_with_sends_under_way(kernel, user):
    short = count(kernel, "sends_short")
    s = connect(kernel, trust_1_3(kernel), buffer=8192)
    opened(kernel, s, user)
    for i in range(100):
        kernel.send(user, title=f"t{i}", data={"text": "y" * 30000})
    until(lambda: count(kernel, "sends_short") > short, what="a short send")
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()  # a reset
    until(lambda: count(kernel, "ktls_connections") == 0, what="it is gone")
    with kernel.client(user, tls=kernel.trust()) as client:
        client.quiet()


# ---- ends -----------------------------------------------------------------------------------------

class Recorded(io.BytesIO):
    recv = io.BytesIO.read


def read_to_end(s):
    """All frames up to the end, which TLS must say (else SSLEOFError)."""
    data = Recorded()
    while more := s.recv(65536):
        data.write(more)
    size = data.tell()
    data.seek(0)
    frames = []
    while data.tell() < size:
        frames.append(ws_read(data))
    return frames


def test_close_says_goodbye(kernel, user):
    with connect(kernel, trust_1_3(kernel)) as s:
        opened(kernel, s, user)
        s.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + (1000).to_bytes(2, "big"))
        assert read_to_end(s) == [{"t": "close", "code": 1000}]
    with SClient(kernel) as s:
        opened(kernel, s, user)
        s.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + (1000).to_bytes(2, "big"))
        assert ws_read(s) == {"t": "close", "code": 1000}
        s.end()
    until(lambda: count(kernel, "connections") == 0, what="nothing is left")


def test_refusal_says_goodbye(kernel):
    with connect(kernel, trust_1_3(kernel)) as s:
        s.sendall(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while more := s.recv(4096):
            data += more
        assert data.startswith(b"HTTP/1.1 404")


def test_goaway_behind_a_full_socket(kernel, user):
    """A slow reader is drained: what was queued, the goaway, the close and TLS's end, in order, though the socket was full
    when they were said."""
    short = count(kernel, "sends_short")
    with connect(kernel, trust_1_3(kernel), seconds=20, buffer=4096) as s:
        opened(kernel, s, user)
        for i in range(200):
            kernel.send(user, title=f"t{i}", data={"text": "y" * 30000})
            if count(kernel, "sends_short") > short:
                break
        assert count(kernel, "sends_short") > short
        kernel.ctl("drain", "--rate", "1000")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # it has 3 s to read all that the kernel holds
        frames = read_to_end(s)
    kernel.ctl("drain", "--rate", "0")
    assert [f["t"] for f in frames[-2:]] == ["goaway", "close"] and frames[-1]["code"] == 4000
    assert len(frames) > 10 and [f["title"] for f in frames[:-2]] == [f"t{i}" for i in range(len(frames) - 2)]


def test_bad_record_gets_its_alert(kernel, user):
    bad = count(kernel, "tls_records_bad")
    with connect(kernel, trust_1_3(kernel)) as s:
        opened(kernel, s, user)
        raw = socket.socket(fileno=os.dup(s.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac"):
            while s.recv(100):
                pass
        raw.close()
    until(lambda: count(kernel, "ktls_connections") == 0)
    assert count(kernel, "tls_records_bad") == bad + 1


# ---- keys -----------------------------------------------------------------------------------------

def test_key_update_of_the_client(kernel, user):
    """Its key changes as often as it likes: that is the direction we read."""
    with SClient(kernel) as s:
        opened(kernel, s, user)
        for i in range(5):
            s.key_update(wants_ours=False)
            until(lambda: b"KEYUPDATE" in read_some(s.p.stderr), what="s_client has said it")
            s.sendall(ws_text({"t": "ping"}))
            assert ws_read(s) == {"t": "pong"}
            kernel.send(user, title=f"t{i}")
            assert ws_read(s)["title"] == f"t{i}"


def read_some(stream):
    return os.read(stream.fileno(), 4096) if select.select([stream], [], [], 0.05)[0] else b""


def test_key_update_that_wants_ours_ends_the_connection(kernel, user):
    """The kernel cannot change its key, and data under the old one may not follow: TLS says the end."""
    renewals = count(kernel, "ktls_renewals")
    with SClient(kernel) as s:
        opened(kernel, s, user)
        kernel.send(user, title="before")
        assert ws_read(s)["title"] == "before"
        s.key_update(wants_ours=True)
        assert s.recv(100) == b"", "no data, a close frame neither"
        s.end()
    assert count(kernel, "ktls_renewals") == renewals + 1
    until(lambda: count(kernel, "ktls_connections") == 0)
    with kernel.client(user, tls=kernel.trust()) as client:
        client.quiet()


# ---- what stays as it is ----------------------------------------------------------------------------

def test_resumption(kernel, user):
    resumed = count(kernel, "tls_handshakes_resumed")
    context = trust_1_3(kernel)
    session = None
    for _ in range(3):
        with connect(kernel, context, session=session) as s:
            opened(kernel, s, user)
            session = s.session
            assert count(kernel, "ktls_connections") == 1
        until(lambda: count(kernel, "ktls_connections") == 0)
    assert count(kernel, "tls_handshakes_resumed") == resumed + 2


def test_version_1_2_stays_with_openssl(embedded, user):
    context = embedded.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    failed = count(embedded, "ktls_failed")
    with embedded.client(user, tls=context) as client:
        embedded.send(user, title="x")
        client.expect("n", title="x")
        assert count(embedded, "ktls_connections") == 0 and count(embedded, "ktls_failed") == failed


def test_reload_switches_those_that_come_later(kernel, user):
    def set_option(on):
        snapshots = count(kernel, "snapshots")
        tree = yaml.safe_load(open(kernel.info["config"]))
        tree["tls"]["kernel"] = on
        with open(kernel.info["config"], "w") as f:
            yaml.safe_dump(tree, f)
        assert kernel.ctl("config", "reload").returncode == 0
        until(lambda: count(kernel, "snapshots") > snapshots, what="the snapshot")
    with kernel.client(user, device="a", tls=kernel.trust()) as before:
        set_option(False)
        try:
            with kernel.client(user, device="b", tls=kernel.trust()) as after:
                assert count(kernel, "ktls_connections") == 1
                kernel.send(user, title="both")
                before.expect("n", title="both")
                after.expect("n", title="both")
        finally:
            set_option(True)


# ---- nodes of their own -----------------------------------------------------------------------------

@pytest.fixture
def faulty(request):
    with harness.Node(config=CONFIG, env={"BELFRY_FAULT": request.param}) as node:
        node.put_user("u")
        yield node


@pytest.mark.parametrize("faulty", ["tls_records:100"], indirect=True)
def test_worn_key_ends_in_a_goaway(faulty):
    """Before a key has sealed more than it may: told to come back, and told so by TLS too."""
    if count(faulty, "ktls_offered") != 1:
        pytest.skip("this kernel makes no TLS records (module tls, Linux 6.7)")
    with connect(faulty, trust_1_3(faulty)) as s:
        opened(faulty, s, "u")
        for i in range(100):
            faulty.send("u", title=f"t{i}")
        frames = read_to_end(s)
    kinds = [f["t"] for f in frames]
    assert kinds[-2:] == ["goaway", "close"] and frames[-1]["code"] == 4005
    assert set(kinds[:-2]) == {"n"} and 10 < len(kinds) < 100
    assert count(faulty, "ktls_renewals") == 1


@pytest.mark.parametrize("faulty", ["ktls_offered:7"], indirect=True)
def test_refused_by_the_kernel_it_goes_on(faulty):
    """A kernel that promised and then says no: the records stay ours."""
    with faulty.client("u", tls=faulty.trust()) as client:
        for i in range(20):
            faulty.send("u", title=f"t{i}", data={"text": "x" * 1000 * i})
        assert [n["title"] for n in client.expect_n(20)] == [f"t{i}" for i in range(20)]
        client.quiet()
        assert count(faulty, "ktls_connections") + count(faulty, "ktls_failed") == 1
    with connect(faulty, trust_1_3(faulty)) as s:
        opened(faulty, s, "u")
        s.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + (1000).to_bytes(2, "big"))
        assert read_to_end(s)[-1] == {"t": "close", "code": 1000}


def test_without_the_kernel_it_is_lean(embedded, user):
    if count(embedded, "ktls_offered") == 1:
        pytest.skip("this kernel makes TLS records")
    failed = count(embedded, "ktls_failed")
    with embedded.client(user, tls=embedded.trust()) as client:
        embedded.send(user, title="x")
        client.expect("n", title="x")
    assert count(embedded, "ktls_failed") == failed + 1 and count(embedded, "ktls_connections") == 0
