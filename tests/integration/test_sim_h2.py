"""belfry-sim's HTTP/2 by hand-made frames (RFC 9113): what breaks a rule, and what is legal but rare.

A row is bytes after a good preface and the error that the RFC names for them, as GOAWAY or RST_STREAM.
"""
import socket
import ssl
import struct
import time

import pytest

from sim import Sim, WAIT_S

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PROTOCOL, _, FLOW, _, _, SIZE, REFUSED, _, COMPRESSION, _, CALM = range(1, 12)


@pytest.fixture(scope="module")
def sim():
    with Sim() as running:
        yield running


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


BLOCK = b"\x83\x87" + literal(b":path", b"/push/x") + literal(b":authority", b"x")  # POST, https
HELLO = PREFACE + frame(SETTINGS, 0, 0)
REQUEST = frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)


class Raw:
    """TLS socket that speaks frames; answers without a VAPID token are 401, which is answer enough."""

    def __init__(self, sim, provider="webpush"):
        context = ssl.create_default_context(cafile=sim.ready["ca"])
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", sim.port(provider)), timeout=WAIT_S)
        self.tls, self.buffer = context.wrap_socket(raw, server_hostname="localhost"), b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tls.close()

    def read(self, count):
        while len(self.buffer) < count:
            part = self.tls.recv(65536)
            if not part:
                raise EOFError
            self.buffer += part
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def next(self):
        head = self.read(9)
        length = int.from_bytes(head[:3], "big")
        return head[3], head[4], int.from_bytes(head[5:], "big"), self.read(length)

    def until(self, *kinds):
        """The next frame of one of these kinds."""
        while True:
            kind, flags, stream, payload = self.next()
            if kind in kinds and not (kind == SETTINGS and flags & ACK and SETTINGS not in kinds):
                return kind, flags, stream, payload


def code(answer):
    kind, _, _, payload = answer
    return int.from_bytes(payload[4:8] if kind == GOAWAY else payload, "big")


LOST = {
    "no preface": (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", PROTOCOL),
    "first frame is no SETTINGS": (PREFACE + frame(PING, 0, 0, b"12345678"), PROTOCOL),
    "DATA on stream 0": (HELLO + frame(DATA, 0, 0, b"x"), PROTOCOL),
    "DATA on an idle stream": (HELLO + frame(DATA, 0, 5, b"x"), PROTOCOL),
    "DATA padding beyond it": (HELLO + frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, PADDED, 1, b"\x05abc"), PROTOCOL),
    "HEADERS on stream 0": (HELLO + frame(HEADERS, 5, 0, BLOCK), PROTOCOL),
    "HEADERS on an even stream": (HELLO + frame(HEADERS, 5, 2, BLOCK), PROTOCOL),
    "HEADERS padding beyond it": (HELLO + frame(HEADERS, 5 | PADDED, 1, b"\xff" + BLOCK), PROTOCOL),
    "trailers without an end": (HELLO + frame(HEADERS, END_HEADERS, 1, BLOCK) * 2, PROTOCOL),
    "a block cut by another frame": (HELLO + frame(HEADERS, 0, 1, BLOCK[:9]) + frame(PING, 0, 0, b"12345678"), PROTOCOL),
    "a block cut by another stream": (HELLO + frame(HEADERS, 0, 1, BLOCK[:9]) + frame(CONTINUATION, 4, 3, BLOCK[9:]), PROTOCOL),
    "CONTINUATION of nothing": (HELLO + frame(CONTINUATION, END_HEADERS, 1, BLOCK), PROTOCOL),
    "a block without end": (HELLO + frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, b"\0" * 16000) * 3, CALM),
    "HPACK index beyond the table": (HELLO + frame(HEADERS, 5, 1, b"\xff\xff\x03"), COMPRESSION),
    "HPACK string cut": (HELLO + frame(HEADERS, 5, 1, BLOCK[:-1]), COMPRESSION),
    "SETTINGS on a stream": (HELLO + frame(SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of 5 bytes": (HELLO + frame(SETTINGS, 0, 0, b"12345"), SIZE),
    "SETTINGS ACK with payload": (HELLO + frame(SETTINGS, ACK, 0, b"123456"), SIZE),
    "SETTINGS push 2": (HELLO + frame(SETTINGS, 0, 0, b"\0\x02\0\0\0\x02"), PROTOCOL),
    "SETTINGS window of 2 GB": (HELLO + frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0"), FLOW),
    "SETTINGS frame of 16 KB less one": (HELLO + frame(SETTINGS, 0, 0, b"\0\x05\0\0\x3f\xff"), PROTOCOL),
    "PING of 7 bytes": (HELLO + frame(PING, 0, 0, b"1234567"), SIZE),
    "PING on a stream": (HELLO + frame(PING, 0, 1, b"12345678"), PROTOCOL),
    "WINDOW_UPDATE of 0": (HELLO + frame(WINDOW, 0, 0, b"\0\0\0\0"), PROTOCOL),
    "WINDOW_UPDATE of 3 bytes": (HELLO + frame(WINDOW, 0, 0, b"\0\0\1"), SIZE),
    "WINDOW_UPDATE beyond 2 GB": (HELLO + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), FLOW),
    "WINDOW_UPDATE of an idle stream": (HELLO + frame(WINDOW, 0, 7, b"\0\0\0\1"), PROTOCOL),
    "RST_STREAM of an idle stream": (HELLO + frame(RST, 0, 3, b"\0\0\0\x08"), PROTOCOL),
    "RST_STREAM of 3 bytes": (HELLO + frame(RST, 0, 1, b"\0\0\x08"), SIZE),
    "PRIORITY of 4 bytes": (HELLO + frame(PRIORITY, 0, 1, b"1234"), SIZE),
    "PUSH_PROMISE": (HELLO + frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + BLOCK), PROTOCOL),
    "a frame of 16 KB and one": (HELLO + frame(DATA, 0, 1, b"x" * 16385), SIZE),
}


@pytest.mark.parametrize("row", LOST.values(), ids=LOST.keys())
def test_connection_error(sim, row):
    bytes_, error = row
    before = sim.stats("webpush")["protocol_errors"]
    with Raw(sim) as raw:
        raw.tls.sendall(bytes_)
        assert code(raw.until(GOAWAY)) == error
        with pytest.raises((EOFError, OSError)):
            while True:
                raw.next()
    assert sim.stats("webpush")["protocol_errors"] == before + 1


MALFORMED = {
    "no :path": b"\x83\x87" + literal(b":authority", b"x"),
    "no :method": b"\x87" + literal(b":path", b"/"),
    "no :scheme": b"\x83" + literal(b":path", b"/"),
    "two :path": BLOCK + literal(b":path", b"/"),
    "pseudo field behind others": b"\x83\x87" + literal(b"ttl", b"1") + literal(b":path", b"/"),
    "unknown pseudo field": BLOCK + literal(b":colour", b"red"),
    "capitals": BLOCK + literal(b"TTL", b"1"),
    "connection": BLOCK + literal(b"connection", b"close"),
    "an empty name": BLOCK + literal(b"", b"x"),
    "a length that lies": BLOCK + literal(b"content-length", b"5"),
    "a length that is none": BLOCK + literal(b"content-length", b"x"),
}


@pytest.mark.parametrize("block", MALFORMED.values(), ids=MALFORMED.keys())
def test_stream_error_and_the_connection_goes_on(sim, block):
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO + frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        answer = raw.until(RST, GOAWAY)
        assert answer[0] == RST and answer[2] == 1 and code(answer) == PROTOCOL
        raw.tls.sendall(frame(HEADERS, END_HEADERS | END_STREAM, 3, BLOCK))
        assert raw.until(HEADERS, RST, GOAWAY)[0] == HEADERS


def answered(raw, stream=1):
    kind, _, got, payload = raw.until(HEADERS, RST, GOAWAY)
    return kind == HEADERS and got == stream and payload[:1] == b"\x08"


LEGAL = {
    "padding": frame(HEADERS, 5 | PADDED, 1, b"\x03" + BLOCK + b"\0\0\0"),
    "priority": frame(HEADERS, 5 | 32, 1, b"\0\0\0\0\x10" + BLOCK),
    "PRIORITY of an idle stream": frame(PRIORITY, 0, 9, b"12345") + REQUEST,
    "unknown frame": frame(0xBE, 0xFF, 77, b"greased") + REQUEST,
    "unknown setting": frame(SETTINGS, 0, 0, b"\xba\xba\0\0\0\1") + REQUEST,
    "CONTINUATION by bytes": frame(HEADERS, END_STREAM, 1, BLOCK[:1])
    + b"".join(frame(CONTINUATION, 0, 1, BLOCK[i:i + 1]) for i in range(1, len(BLOCK)))
    + frame(CONTINUATION, END_HEADERS, 1),
    "trailers": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, 0, 1, b"x") + frame(HEADERS, 5, 1, literal(b"x", b"y")),
    "empty DATA ends it": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, END_STREAM, 1),
    "padding only": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, END_STREAM | PADDED, 1, b"\x02\0\0"),
    "host for :authority": frame(HEADERS, 5, 1, b"\x83\x87" + literal(b":path", b"/push/x") + literal(b"host", b"x")),
    "a smaller table": frame(HEADERS, 5, 1, b"\x20" + BLOCK),
}


@pytest.mark.parametrize("bytes_", LEGAL.values(), ids=LEGAL.keys())
def test_legal(sim, bytes_):
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO + bytes_)
        assert answered(raw)


def test_every_byte_by_itself(sim):
    with Raw(sim) as raw:
        for byte in HELLO + REQUEST:
            raw.tls.sendall(bytes([byte]))
        assert answered(raw)


def test_ping_is_answered(sim):
    before = sim.stats("webpush")
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO + 2 * frame(PING, 0, 0, b"abcdefgh"))
        assert raw.until(PING)[1:] == (ACK, 0, b"abcdefgh")
        assert raw.until(PING)[1:] == (ACK, 0, b"abcdefgh")
    after = sim.stats("webpush")
    assert (after["pings"] - before["pings"], after["conns_pinged"] - before["conns_pinged"]) == (2, 1)


def test_body_waits_for_window(sim):
    """A stream window of 0, then 10 bytes at a time."""
    with Raw(sim) as raw:
        raw.tls.sendall(PREFACE + frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0") + REQUEST)
        assert answered(raw)
        raw.tls.sendall(frame(PING, 0, 0, b"12345678"))
        assert raw.until(PING, DATA)[0] == PING  # nothing yet
        body, ended = b"", False
        while not ended:
            raw.tls.sendall(frame(WINDOW, 0, 1, b"\0\0\0\x0a"))
            _, flags, _, part = raw.until(DATA)
            assert 0 < len(part) <= 10
            body, ended = body + part, flags & END_STREAM
        assert body == b'{"code":401,"message":"MissingVapid"}'


def test_settings_widen_open_streams(sim):
    with Raw(sim) as raw:
        raw.tls.sendall(PREFACE + frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\0") + REQUEST)
        assert answered(raw)
        raw.tls.sendall(frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff"))
        assert raw.until(DATA)[1] & END_STREAM


def test_stream_window_is_enforced(sim):
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO + frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, 0, 1, b"x" * 16384) * 65)
        answer = raw.until(RST, GOAWAY)
        assert (answer[0], code(answer)) == (RST, FLOW)


def test_connection_window_is_given_back(sim):
    """100 MB in bodies over one connection whose window is 64 MB."""
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO)
        for i in range(100):
            stream = 2 * i + 1
            raw.tls.sendall(frame(HEADERS, END_HEADERS, stream, BLOCK) + frame(DATA, 0, stream, b"x" * 16384) * 63
                            + frame(DATA, END_STREAM, stream))
            assert answered(raw, stream)


def test_streams_above_the_limit(sim):
    """APNs allows one: refused before the peer has acknowledged that, a violation afterwards."""
    sim.faults(latency={"apns": {"ms": 60000}})
    with Raw(sim, "apns") as raw:
        raw.tls.sendall(HELLO + REQUEST + frame(HEADERS, 5, 3, BLOCK))
        answer = raw.until(RST, GOAWAY)
        assert answer[0] == RST and answer[2] == 3 and code(answer) == REFUSED
        raw.tls.sendall(frame(SETTINGS, ACK, 0) + frame(HEADERS, 5, 5, BLOCK))
        answer = raw.until(RST, GOAWAY)
        assert answer[0] == GOAWAY and code(answer) == REFUSED
        assert answer[3][8:] == b"Maximum active streams violated"
    sim.faults(latency={"all": {"ms": 0}})


def test_client_reset_while_it_waits(sim):
    sim.faults(latency={"webpush": {"ms": 200}})
    late = sim.stats("webpush")["answers_late"]
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO + REQUEST + frame(RST, 0, 1, b"\0\0\0\x08") + frame(HEADERS, 5, 3, BLOCK))
        assert answered(raw, 3)
    sim.faults(latency={"all": {"ms": 0}})
    assert sim.stats("webpush")["answers_late"] == late + 1


def test_client_goaway_ends_when_all_is_answered(sim):
    sim.faults(latency={"webpush": {"ms": 100}})
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO + REQUEST + frame(GOAWAY, 0, 0, b"\0" * 8))
        assert answered(raw)
        with pytest.raises((EOFError, OSError)):
            while True:
                raw.next()
    sim.faults(latency={"all": {"ms": 0}})


def test_peer_that_reads_nothing_is_left(sim):
    """Answers pile up to a bound, then the connection is gone and memory with it."""
    with Raw(sim) as raw:
        raw.tls.sendall(HELLO)
        raw.tls.setblocking(False)
        closed = sim.stats("webpush")["conns_closed"]
        deadline = time.monotonic() + WAIT_S * 4
        pings = frame(PING, 0, 0, b"12345678") * 1000
        while sim.stats("webpush")["conns_closed"] == closed:
            assert time.monotonic() < deadline
            try:
                while True:
                    raw.tls.send(pings)
            except (ssl.SSLWantWriteError, ssl.SSLError, OSError):
                pass
