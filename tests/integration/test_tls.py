"""WebSocket over TLS: delivery as on the plain port, certificates by name and their reload, tickets, client
certificates, and what bad input gets. Python's ssl is the client throughout.

Covers WS-1, WS-6 (admission apart), OPS-1 (certificates), SEC-2; DESIGN 2 (snapshot).
"""
import json
import os
import socket
import ssl
import struct
import time
import urllib.parse

import harness
import pytest
import yaml
from harness import openssl, until
from tls_peer import connect, tls_port, upgrade, ws_read, ws_text


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


class Authority:
    """A CA with the openssl program; make() gives files of a certificate that it signed."""

    def __init__(self, directory):
        self.dir = directory
        self.cert, self.key = directory / "ca.pem", directory / "ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2",
                "-subj", "/CN=Test CA", "-keyout", str(self.key), "-out", str(self.cert))

    def make(self, name, san=None, days=2):
        key, request, cert = (self.dir / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extensions = self.dir / f"{name}.ext"
        extensions.write_text(f"subjectAltName={san or 'DNS:' + name}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", f"/CN={name}",
                "-keyout", str(key), "-out", str(request))
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.cert), "-CAkey", str(self.key), "-CAcreateserial",
                "-days", str(days), "-extfile", str(extensions), "-out", str(cert))
        return {"cert": str(cert), "key": str(key)}


def served(node, context, name="localhost"):
    """The common name of the certificate that the node shows for |name|."""
    with connect(node, context, name) as s:
        return dict(pair[0] for pair in s.getpeercert()["subject"])["commonName"]


def configure(node, **tls):
    """Writes the node's tls section anew and reloads; returns what belfryctl said."""
    path = node.info["config"]
    tree = yaml.safe_load(open(path))
    tree["tls"].update(tls)
    with open(path, "w") as f:
        yaml.safe_dump(tree, f)
    return node.ctl("config", "reload", check=False)


# ---- delivery ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_delivery(embedded, user, version):
    context = embedded.trust()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1"])
    with embedded.client(user, device="d", tls=context) as client:
        over = client.socket.transport.get_extra_info("ssl_object")
        assert over.version() == {772: "TLSv1.3", 771: "TLSv1.2"}[version.value]
        assert over.selected_alpn_protocol() == "http/1.1"
        for i in range(20):
            embedded.send(user, title=f"t{i}")
        assert [n["title"] for n in client.expect_n(20)] == [f"t{i}" for i in range(20)]
        client.seq["normal"] = 15
        client.ack()
        client.quiet()
        resume = client.resume()
        client.abort()
    with embedded.client(user, device="d", resume=resume, tls=context) as client:
        assert client.welcome["resumed"] is True
        assert [n["title"] for n in client.expect_n(5)] == [f"t{i}" for i in range(15, 20)]


def test_plain_and_tls_side_by_side(embedded, user):
    with embedded.client(user, device="a", tls=embedded.trust()) as over_tls, embedded.client(user, device="b") as plain:
        embedded.send(user, title="both")
        over_tls.expect("n", title="both")
        plain.expect("n", title="both")


def test_large_frames_both_ways(embedded, user):
    text = os.urandom(15000).hex()
    with embedded.client(user, tls=embedded.trust()) as client:
        for i in range(5):  # several records each
            embedded.send(user, title=f"t{i}", body="z" * 4000, data={"text": text})
        for i in range(5):
            assert client.expect("n", title=f"t{i}")["data"]["text"] == text
        answer = client.call({"t": "sub", "topic": "news"})
        assert answer["t"] == "ok"
        client.send({"t": "ping", "pad": "x" * 12000})
        client.expect("pong")


def test_slow_reader_gets_everything_in_order(embedded, user):
    """Sends that come short: the rest of a record waits, the next follows it."""
    text = "y" * 30000
    count = 200  # 6 MB: more than the kernel's buffers take
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    raw.settimeout(20 * harness.TIMES)
    raw.connect(("127.0.0.1", tls_port(embedded)))
    short = embedded.metric("belfry_dataplane_sends_short")
    with embedded.trust().wrap_socket(raw, server_hostname="localhost") as s:
        upgrade(embedded, s, user)
        s.sendall(ws_text({"t": "connect"}))
        assert ws_read(s)["t"] == "welcome"
        for i in range(count):
            embedded.send(user, title=f"t{i}", data={"text": text})
        until(lambda: embedded.metric("belfry_dataplane_sends_short") > short, what="a short send")
        got = []
        while len(got) < count:
            frame = ws_read(s)
            if frame["t"] == "n":
                assert frame["data"]["text"] == text
                got.append(frame["title"])
                s.sendall(ws_text({"t": "ack", "seq": frame["seq"]}))
        assert got == [f"t{i}" for i in range(count)]


def test_close_says_goodbye(embedded, user):
    """Our close frame, then close_notify: the client sees an end, not a cut."""
    context = embedded.trust()
    with connect(embedded, context) as s:
        upgrade(embedded, s, user)
        s.sendall(bytes([0x88, 0x80, 0, 0, 0, 0]))
        data = b""
        while True:
            more = s.recv(4096)  # a cut would raise SSLEOFError
            if not more:
                break
            data += more
        assert data[:1] == b"\x88"


# ---- what bad input gets ------------------------------------------------------------------------------

def read_to_end(s):
    data = b""
    try:
        while True:
            more = s.recv(4096)
            if not more:
                return data
            data += more
    except ConnectionResetError:
        return data


@pytest.mark.parametrize("garbage", [b"\0" * 5000, os.urandom(5000), b"\x16\x03\x01\xff\xff" + b"a" * 5000,
                                     b"\x16\x03\x01\x00\x05hello", b"\x17\x03\x03\x00\x20" + b"b" * 32],
                         ids=["zeros", "random", "record-too-long", "hello", "early-data"])
def test_garbage(embedded, user, garbage):
    failed = embedded.metric("belfry_dataplane_tls_handshakes_failed")
    with embedded.client(user, tls=embedded.trust()) as client:
        with socket.create_connection(("127.0.0.1", tls_port(embedded)), timeout=10 * harness.TIMES) as s:
            s.sendall(garbage)
            assert len(read_to_end(s)) < 100, "an alert at most"
        until(lambda: embedded.metric("belfry_dataplane_tls_handshakes_failed") == failed + 1)
        embedded.send(user, title="still here")
        client.expect("n", title="still here")


def test_plain_http_is_told(embedded):
    with socket.create_connection(("127.0.0.1", tls_port(embedded)), timeout=10 * harness.TIMES) as s:
        s.sendall(b"GET /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_to_end(s)
    assert answer.startswith(b"HTTP/1.1 400") and b"this port speaks TLS" in answer


def test_tls_on_the_plain_port_is_refused(embedded):
    port = urllib.parse.urlsplit(embedded.info["ws"]).port
    with socket.create_connection(("127.0.0.1", port), timeout=10 * harness.TIMES) as s:
        with pytest.raises((ssl.SSLError, ConnectionResetError, OSError)):
            embedded.trust().wrap_socket(s, server_hostname="localhost")


def test_bad_record_ends_one_connection(embedded, user):
    bad = embedded.metric("belfry_dataplane_tls_records_bad")
    with connect(embedded, embedded.trust()) as s:
        upgrade(embedded, s, user)
        raw = socket.socket(fileno=os.dup(s.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x40" + os.urandom(64))
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            while s.recv(4096):
                pass
        raw.close()
    until(lambda: embedded.metric("belfry_dataplane_tls_records_bad") == bad + 1)


def test_handshakes_that_stall_meet_the_deadline(embedded):
    """A silent one, half a ClientHello, and one that drips: all are gone 8 s after their connect."""
    hello_in, hello_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = embedded.trust().wrap_bio(hello_in, hello_out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    hello = hello_out.read()
    sockets = [socket.create_connection(("127.0.0.1", tls_port(embedded))) for _ in range(3)]
    start = time.monotonic()
    sockets[1].sendall(hello[:100])
    ended, drip = {}, iter(hello)
    for s in sockets:
        s.setblocking(False)

    def poll():
        if 2 not in ended:
            try:
                sockets[2].send(bytes([next(drip)]))
            except OSError:
                pass
        for i, s in enumerate(sockets):
            try:
                if i not in ended and s.recv(100) == b"":
                    ended[i] = time.monotonic() - start
            except BlockingIOError:
                pass
            except ConnectionResetError:
                ended[i] = time.monotonic() - start
        return len(ended) == 3
    until(poll, 15, "all three are closed", poll=0.1)
    assert all(7 <= seconds <= 10 * harness.TIMES for seconds in ended.values()), ended
    for s in sockets:
        s.close()


# ---- keys only ----------------------------------------------------------------------------------------

def set_lean(node, on):
    snapshots = node.metric("belfry_dataplane_snapshots")
    done = configure(node, lean=on)
    assert done.returncode == 0, done.stderr
    until(lambda: node.metric("belfry_dataplane_snapshots") > snapshots, what="the snapshot")


def test_lean_delivery_over_reloads(embedded, user):
    """Delivery, acknowledgement and resume on sessions without OpenSSL, which outlive the option's end."""
    set_lean(embedded, True)
    try:
        bad = embedded.metric("belfry_dataplane_tls_records_bad")
        with embedded.client(user, device="d", tls=embedded.trust()) as client:
            for i in range(20):
                embedded.send(user, title=f"t{i}", body="z" * 3000)
            assert [n["title"] for n in client.expect_n(20)] == [f"t{i}" for i in range(20)]
            client.send({"t": "ping", "pad": "x" * 12000})
            client.expect("pong")
            set_lean(embedded, False)
            embedded.send(user, title="lean still")
            client.expect("n", title="lean still")
            set_lean(embedded, True)
            embedded.send(user, title="and now")
            client.expect("n", title="and now")
            client.seq["normal"] = 15
            client.ack()
            client.quiet()
            resume = client.resume()
            client.abort()
        with embedded.client(user, device="d", resume=resume, tls=embedded.trust()) as client:
            assert client.welcome["resumed"] is True
            assert [n["title"] for n in client.expect_n(7)] == [f"t{i}" for i in range(15, 20)] + ["lean still", "and now"]
        assert embedded.metric("belfry_dataplane_tls_records_bad") == bad
    finally:
        set_lean(embedded, False)


def test_lean_bad_record_and_close(embedded, user):
    set_lean(embedded, True)
    try:
        bad = embedded.metric("belfry_dataplane_tls_records_bad")
        context = embedded.trust()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        with connect(embedded, context) as s:
            upgrade(embedded, s, user)
            raw = socket.socket(fileno=os.dup(s.fileno()))
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac"):
                while s.recv(100):
                    pass
            raw.close()
        until(lambda: embedded.metric("belfry_dataplane_tls_records_bad") == bad + 1, what="the count")
    finally:
        set_lean(embedded, False)


# ---- certificates -------------------------------------------------------------------------------------

def test_reload_swaps_certificates_and_drops_nobody(embedded, user, ca):
    own = {"cert": str(embedded.state / "tls.pem"), "key": str(embedded.state / "tls.key")}
    both = ssl.create_default_context(cafile=str(ca.cert))
    both.load_verify_locations(own["cert"])
    assert served(embedded, both) == "localhost"
    with embedded.client(user, tls=both) as client:
        fresh = ca.make("renewed", "DNS:localhost,IP:127.0.0.1")
        try:
            done = configure(embedded, certificates=[fresh])
            assert done.returncode == 0, done.stderr
            until(lambda: served(embedded, both) == "renewed", what="the new certificate")
            embedded.send(user, title="after the reload")
            client.expect("n", title="after the reload")
            client.quiet()
        finally:
            assert configure(embedded, certificates=[own]).returncode == 0
        until(lambda: served(embedded, both) == "localhost", what="the old certificate")
        client.quiet()


@pytest.mark.parametrize("fault,says", [("key", "does not belong"), ("text", "not a PEM file"), ("missing", "cannot read"),
                                        ("damaged", "not a certificate")])
def test_bad_certificate_is_refused_and_the_old_one_stays(embedded, ca, fault, says):
    own = {"cert": str(embedded.state / "tls.pem"), "key": str(embedded.state / "tls.key")}
    good = ca.make("good")
    bad = dict(good)
    if fault == "key":
        bad["key"] = ca.make("other")["key"]
    elif fault == "missing":
        bad["cert"] = str(ca.dir / "nowhere.pem")
    else:
        bad["cert"] = str(ca.dir / "bad.pem")
        text = open(good["cert"]).read()
        (ca.dir / "bad.pem").write_text("hello" if fault == "text" else text[:200] + "!!!" + text[203:])
    done = configure(embedded, certificates=[bad])
    try:
        assert done.returncode != 0 and says in done.stderr, done.stderr
        check = embedded.ctl("config", "check", check=False)
        assert check.returncode != 0 and says in check.stderr
        assert served(embedded, embedded.trust()) == "localhost"
    finally:
        assert configure(embedded, certificates=[own]).returncode == 0


def test_certificates_by_name(embedded, ca):
    own = {"cert": str(embedded.state / "tls.pem"), "key": str(embedded.state / "tls.key")}
    one = ca.make("one.example")
    wild = {**ca.make("wild.example", "DNS:*.wild.example"), "names": ["*.wild.example"]}
    context = ssl.create_default_context(cafile=str(ca.cert))
    context.load_verify_locations(own["cert"])
    assert configure(embedded, certificates=[own, one, wild]).returncode == 0
    try:
        until(lambda: served_or_none(embedded, context, "one.example") == "one.example", what="the reload")
        assert served(embedded, context, "a.wild.example") == "wild.example"
        assert served(embedded, context, "localhost") == "localhost"
        with pytest.raises(ssl.SSLCertVerificationError):
            served(embedded, context, "unknown.example")
    finally:
        assert configure(embedded, certificates=[own]).returncode == 0


def served_or_none(node, context, name):
    try:
        return served(node, context, name)
    except ssl.SSLCertVerificationError:
        return None


def test_client_certificates(embedded, user, ca):
    mine = ca.make("me")
    plain, with_mine = embedded.trust(), embedded.trust()
    with_mine.load_cert_chain(mine["cert"], mine["key"])
    assert configure(embedded, client_ca=str(ca.cert), client_required=True).returncode == 0
    try:
        def is_refused():
            try:
                with connect(embedded, plain) as s:
                    s.sendall(b"x")
                    s.recv(1)  # TLS 1.3: the client learns it with the first read
                return False
            except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
                return True
        until(is_refused, what="clients without a certificate are refused")
        with embedded.client(user, tls=with_mine) as client:
            client.quiet()
    finally:
        assert configure(embedded, client_ca="", client_required=False).returncode == 0
    until(lambda: not is_refused_now(embedded, plain, user), what="no certificate is needed again")


def is_refused_now(node, context, user):
    try:
        with connect(node, context) as s:
            upgrade(node, s, user)
        return False
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError, IndexError):
        return True


# ---- tickets ------------------------------------------------------------------------------------------

def ticket_of(node, context, user, session=None):
    """(was resumed, session) of a connection that was used."""
    with connect(node, context, session=session) as s:
        upgrade(node, s, user)
        return s.session_reused, s.session


def test_tickets_survive_the_control_process(embedded, user):
    context = embedded.trust()
    resumed, session = ticket_of(embedded, context, user)
    assert not resumed and session.has_ticket
    assert ticket_of(embedded, context, user, session)[0] is True
    embedded.restart("ctrlplane")
    assert ticket_of(embedded, context, user, session)[0] is True, "its snapshot goes on with the keys"
    before = embedded.metric("belfry_dataplane_tls_handshakes_resumed")
    assert before >= 2
    assert configure(embedded, tickets=False).returncode == 0
    try:
        until(lambda: ticket_of(embedded, context, user, session)[0] is False, what="tickets are off")
    finally:
        assert configure(embedded, tickets=True).returncode == 0


def test_no_certificates_no_port(tmp_path):
    with harness.Node(config={"tls": {"certificates": []}}, single=True) as node:
        assert "wss" not in node.info or not node.info["wss"]


# ---- admission ----------------------------------------------------------------------------------------

def accepts(node):
    metrics = node.metrics()
    return sum(node.metric(f"belfry_dataplane_{name}", metrics)
               for name in ("accepts", "accepts_refused"))


def open_many(node, port, count):
    """Sockets to the port; those that the node resets are left out."""
    before, sockets, kept = accepts(node), [], []
    for _ in range(count):
        try:
            sockets.append(socket.create_connection(("127.0.0.1", port), timeout=10 * harness.TIMES))
        except ConnectionResetError:
            pass  # refused while connect() returned
    until(lambda: accepts(node) >= before + count, what="all are decided upon")
    node.metrics()  # an answer about an address comes a turn later: this is many turns
    for s in sockets:
        s.setblocking(False)
        try:
            s.recv(1)
        except BlockingIOError:
            kept.append(s)
        except ConnectionResetError:
            s.close()
    return kept


def set_admission(node, **options):
    path = node.info["config"]
    tree = yaml.safe_load(open(path))
    tree["admission"] = options
    with open(path, "w") as f:
        yaml.safe_dump(tree, f)
    snapshots = node.metric("belfry_dataplane_snapshots")
    assert node.ctl("config", "reload").returncode == 0
    until(lambda: node.metric("belfry_dataplane_snapshots") > snapshots, what="the snapshot")


@pytest.mark.parametrize("port", ["ws", "wss"])
def test_connections_of_one_address(embedded, user, port):
    number = urllib.parse.urlsplit(embedded.info[port]).port
    handshakes = embedded.metric("belfry_dataplane_tls_handshakes")
    refused = embedded.metric("belfry_dataplane_admission_refused_address")
    # those of tests before may still be in their close or their 8 s to connect
    until(lambda: embedded.metric("belfry_dataplane_connections") == 0, 40, "no connections")
    set_admission(embedded, per_address=5)
    try:
        kept = open_many(embedded, number, 12)
        assert len(kept) == 5
        assert embedded.metric("belfry_dataplane_admission_refused_address") == refused + 7
        kept.pop().close()
        until(lambda: embedded.metric("belfry_dataplane_connections") == 4, what="one is gone")
        with embedded.client(user, tls=embedded.trust() if port == "wss" else None) as client:
            client.quiet()
        for s in kept:
            s.close()
        assert embedded.metric("belfry_dataplane_tls_handshakes") == handshakes + (port == "wss")
    finally:
        set_admission(embedded)


def test_connections_of_one_address_on_all_workers():
    """The number is the node's, however the kernel spreads the connections over its workers."""
    with harness.Node(config={"dataplane": {"workers": 2}}) as node:
        number = urllib.parse.urlsplit(node.info["ws"]).port
        set_admission(node, per_address=6)
        kept = open_many(node, number, 40)
        assert len(kept) == 6
        until(lambda: node.metric("belfry_dataplane_admission_refused_address") == 34, what="the others are counted")
        for s in kept:
            s.close()
        until(lambda: node.metric("belfry_dataplane_connections") == 0, 20, "all are gone")
        again = open_many(node, number, 6)
        assert len(again) == 6, "those that ended do not count any more"
        for s in again:
            s.close()


def test_rate_of_accepts(embedded, user):
    refused = embedded.metric("belfry_dataplane_admission_refused_rate")
    set_admission(embedded, accept_rate=20)
    try:
        kept = open_many(embedded, tls_port(embedded), 100)
        assert 16 <= len(kept) < 90, "a burst of 16, and what the time of the test lets in"
        assert embedded.metric("belfry_dataplane_admission_refused_rate") == refused + 100 - len(kept)
        for s in kept:
            s.close()

        def gets_in():
            try:
                with embedded.client(user, tls=embedded.trust()) as client:
                    client.quiet()
                return True
            except (OSError, harness.TimedOut):
                return False
        until(gets_in, what="the rate lets somebody in again", poll=0.1)
    finally:
        set_admission(embedded)


def test_what_the_kernel_offers_is_reported(embedded):
    """Kernel TLS: nothing is offered where a connected socket of ours says no; where it says yes, it takes the socket
    commands of Linux 6.7 besides."""
    with socket.create_connection(("127.0.0.1", tls_port(embedded)), timeout=10 * harness.TIMES) as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, 31, b"tls")  # TCP_ULP
            has_commands = [int(part) for part in os.uname().release.split("-")[0].split(".")[:2]] >= [6, 7]
            offered = 1 if has_commands else 0
        except OSError:
            offered = 0
    assert embedded.metric("belfry_dataplane_ktls_offered") == offered
