"""What the live endpoint makes of bad and unusual peers (RFC 6455, RFC 7692, DESIGN 5): a close code or a
reset within a bounded time, bounded memory, and others feel nothing. The table itself is test_rfc6455.py.
"""
import json
import os
import re
import time

import pytest
from harness import until
from ws_peer import BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, close_body, deflate, frame, wait_dead

CONFIG = {"websocket": {"client_frames_per_s": 400, "deflate_min": 512}}
PMD = "permessage-deflate"
KIB = 1024


def port(node):
    return int(re.search(r":(\d+)", node.info["ws"].split("//")[1]).group(1))


def connect(node, user, offer=None, welcome=True, device=None, resume=None):
    """A Peer that is connected; returns it with its welcome in .welcome."""
    peer = Peer(port(node))
    peer.upgrade(extensions=offer, extra=f"Sec-WebSocket-Protocol: belfry.v1.json\r\nAuthorization: Bearer {node.token(user)}\r\n")
    say = {"t": "connect", **({"device": device} if device else {}), **({"resume": resume} if resume else {})}
    peer.send(frame(TEXT, json.dumps(say)))
    if welcome:
        peer.welcome = json.loads(peer.expect(TEXT))
        assert peer.welcome["t"] == "welcome", peer.welcome
    return peer


def still_serves(node, user):
    with node.client(user) as client:
        client.quiet(0.05)


# ---- frames that the live protocol refuses ----------------------------------------------------------

REFUSED = [
    ("unmasked", frame(TEXT, '{"t":"ping"}', mask=False), 1002),
    ("binary", frame(BINARY, b"x"), 1003),
    ("binary in fragments", frame(BINARY, b"x", fin=False) + frame(CONT, b"y"), 1003),
    ("above 16 KiB, said by the header", frame(TEXT, claim=16 * KIB + 1), 1009),
    ("above 16 KiB in fragments", frame(TEXT, b" " * 9000, fin=False) + frame(CONT, b" " * 9000), 1009),
    ("2^62 bytes", frame(TEXT, claim=1 << 62, form=64), 1009),
    ("not UTF-8", frame(TEXT, b"\xff"), 1007),
    ("RSV1 that was not agreed", frame(TEXT, deflate("{}"), rsv=4), 1002),
    ("a reserved opcode", frame(5, b"x"), 1002),
    ("a fragmented ping", frame(PING, b"x", fin=False), 1002),
    ("a continuation of nothing", frame(CONT, b"x"), 1002),
    ("a close code nobody may send", frame(CLOSE, close_body(1005)), 1002),
]


@pytest.mark.parametrize("name,data,code", REFUSED, ids=[r[0] for r in REFUSED])
@pytest.mark.parametrize("state", ["before connect", "live"])
def test_refused(embedded, user, name, data, code, state):
    peer = connect(embedded, user) if state == "live" else Peer(port(embedded))
    with peer:
        if state != "live":
            peer.upgrade()
        peer.send(data)
        peer.expect_close(code)


def test_16_kib_pass(embedded, user):
    with connect(embedded, user) as peer:
        text = json.dumps({"t": "ping", "x": "y" * (16 * KIB - 25)})
        assert len(text) <= 16 * KIB
        peer.send(frame(TEXT, text[:5000], fin=False) + frame(PING, "p") + frame(CONT, text[5000:]))
        peer.expect(PONG, b"p")
        assert json.loads(peer.expect(TEXT))["t"] == "pong"


# ---- peers that never end -----------------------------------------------------------------------------

def test_fragmented_forever(embedded, user):
    """Empty fragments never grow a message and never end it: closed 1008 after 10 s."""
    with connect(embedded, user) as peer:
        start = time.monotonic()
        peer.send(frame(TEXT, "{", fin=False))
        peer.s.settimeout(0.2)
        while time.monotonic() - start < 14:
            peer.send(frame(CONT, fin=False) * 20)
            try:
                peer.data += peer.s.recv(KIB)
                break
            except TimeoutError:
                continue
        peer.s.settimeout(5)
        peer.expect_close(1008)
        assert 8 < time.monotonic() - start < 14


def test_contexts_are_not_for_ever(embedded, user):
    """More half messages than there is room for: whoever needs a context waits a second for it, not longer."""
    hogs = []
    try:
        for i in range(140):
            peer = Peer(port(embedded))
            peer.upgrade()
            peer.send(frame(TEXT, "{", fin=False))
            hogs.append(peer)
        start = time.monotonic()
        with connect(embedded, user, welcome=False) as peer:  # its connect is whole: needs none
            peer.expect(TEXT)
            text = json.dumps({"t": "ping"})
            peer.send(frame(TEXT, text[:5], fin=False) + frame(CONT, text[5:]))
            assert json.loads(peer.expect(TEXT))["t"] == "pong"
        assert time.monotonic() - start < 5
    finally:
        for peer in hogs:
            peer.close()


def test_slow_loris(embedded):
    """A request that comes byte by byte and never ends: the socket dies at 8 s; one without any byte too."""
    with Peer(port(embedded), 20) as slow, Peer(port(embedded), 20) as silent, Peer(port(embedded), 20) as open_:
        start = time.monotonic()
        open_.upgrade()  # upgraded, and then nothing
        slow.s.settimeout(0.25)
        for byte in (b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200)[:60]:
            slow.send(bytes([byte]))
            try:
                if slow.s.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        took = time.monotonic() - start
        assert 7 < took < 12, took
        silent.expect_drop()
        open_.expect_close(4408)


def test_million_tiny_frames(embedded, user):
    """Text, ping or pong: above the rate they are not answered, above twice the rate it ends in a close."""
    for opcode, payload in ((TEXT, '{"t":"ping"}'), (PING, ""), (PONG, "")):
        with connect(embedded, user) as peer:
            burst = frame(opcode, payload, key=b"abcd") * 1000
            try:
                for _ in range(1000):
                    peer.send(burst)
            except (ConnectionResetError, BrokenPipeError):
                pass  # closed with bytes of ours unread: a reset may overtake the close frame
            assert wait_dead(peer, 5) < 5
    still_serves(embedded, user)


def test_half_open(embedded, user):
    """A client that vanished without a FIN: its newer connection of the same device takes over at once."""
    stale = connect(embedded, user, device="phone")
    stale.s.setblocking(True)
    with connect(embedded, user, device="phone"):
        stale.expect_close(4003)
    stale.close()


def test_shut_for_writing(embedded, user):
    """A peer that ends its side only: we end ours."""
    with connect(embedded, user) as peer:
        peer.s.shutdown(1)
        peer.expect_drop()


def test_reset_in_the_middle_of_a_message(embedded, user):
    import socket
    import struct
    with connect(embedded, user) as peer:
        peer.send(frame(TEXT, "{", fin=False))
        peer.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    still_serves(embedded, user)


# ---- compression --------------------------------------------------------------------------------------

BODY = " ".join(f"line {i} of a long text that compresses well;" for i in range(60))


def test_large_frames_come_compressed(embedded, user):
    with connect(embedded, user, PMD) as packed, connect(embedded, user) as plain, \
            connect(embedded, user, f"{PMD}; server_max_window_bits=9") as narrow:
        assert not packed.compressed, "a welcome is small"
        embedded.send(user, title="long", body=BODY)
        embedded.send(user, title="short")
        frames = []
        for peer, is_packed in ((packed, True), (plain, False), (narrow, True)):
            long = peer.expect(TEXT)
            assert peer.compressed == is_packed
            assert json.loads(long)["body"] == BODY
            assert json.loads(peer.expect(TEXT))["title"] == "short" and not peer.compressed
            frames.append(long)
        assert frames[0] == frames[1] == frames[2]


def test_a_broadcast_is_compressed_once(embedded, user):
    before = embedded.metrics()
    peers = [connect(embedded, user, PMD) for _ in range(20)]
    narrow = [connect(embedded, user, f"{PMD}; server_max_window_bits=10") for _ in range(5)]
    try:
        answer = embedded.request("POST", "/v1/notifications", {"type": "test", "broadcast": True, "title": "b", "body": BODY})
        assert answer.status == 202, answer
        for peer in peers + narrow:
            got = json.loads(peer.expect(TEXT))
            assert got["t"] == "b" and got["body"] == BODY and peer.compressed
    finally:
        for peer in peers + narrow:
            peer.close()

    def grew(name):
        return embedded.metric(f"belfry_dataplane_{name}") - embedded.metric(f"belfry_dataplane_{name}", before)
    until(lambda: grew("frames_packed") == 25, 5, "25 frames packed")
    assert grew("blocks_packed") == 2, "once for each window"
    assert grew("packed_saved") > 25 * 1000


def test_resume_replays_to_a_compressing_client(embedded, user):
    """A replay is several frames in a block: they come as they are, and in order."""
    with connect(embedded, user, PMD) as peer:
        resume = {"epoch": peer.welcome["epoch"], "seq": 0}
    for i in range(3):
        embedded.send(user, title=f"r{i}", body=BODY)
    embedded.stored(user, 3)
    with connect(embedded, user, PMD, resume=resume) as peer:
        assert [json.loads(peer.expect(TEXT))["title"] for _ in range(3)] == ["r0", "r1", "r2"]
        embedded.send(user, title="live", body=BODY)
        assert json.loads(peer.expect(TEXT))["title"] == "live" and peer.compressed


def test_compressed_client_frames(embedded, user):
    with connect(embedded, user, PMD) as peer:
        z = deflate(json.dumps({"t": "ping", "pad": "x" * 5000}))
        peer.send(frame(TEXT, z, rsv=4) + frame(TEXT, z[:9], rsv=4, fin=False) + frame(CONT, z[9:]))
        for _ in range(2):
            assert json.loads(peer.expect(TEXT))["t"] == "pong"


def test_bomb(embedded, user):
    """16 MiB in 16 KiB stop at the limit of a message: 1009."""
    with connect(embedded, user, PMD) as peer:
        peer.send(frame(TEXT, deflate(b" " * (15 << 20), level=9), rsv=4))
        peer.expect_close(1009)
    with connect(embedded, user, PMD) as peer:
        peer.send(frame(TEXT, deflate('{"t":"ping","x":"' + " " * 16300 + '"}'), rsv=4))
        assert json.loads(peer.expect(TEXT))["t"] == "pong"


def test_damaged(embedded, user):
    with connect(embedded, user, PMD) as peer:
        peer.send(frame(TEXT, os.urandom(300), rsv=4))
        peer.expect_close(1007)
