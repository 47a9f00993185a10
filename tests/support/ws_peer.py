"""A WebSocket client made of bytes: says exactly what it is told, and believes nothing it is answered.

Frames are built with any fault a case needs. What the server sends is held against RFC 6455 at every
frame: unmasked, whole, shortest length, no reserved bit but RSV1 on a compressed message. The end of a
stream is told apart: `Close(code)` is a close frame, `END` the end of the stream after it, `DROP` an end
or reset without a close frame.
"""
import base64
import hashlib
import os
import socket
import struct
import time
import zlib

TIMES = float(os.environ.get("BELFRY_TIMES", "1"))
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def masked(payload, key):
    """XOR of any length at the speed of big integers."""
    if not payload or key == b"\0\0\0\0":
        return payload
    n = len(payload)
    pad = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big")


def frame(opcode, payload=b"", fin=True, rsv=0, mask=True, key=None, form=None, claim=None):
    """One client frame. |form|: 7, 16 or 64 bits of length instead of the shortest; |claim|: another length."""
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload) if claim is None else claim
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    head += {7: lambda: bytes([bit | size]), 16: lambda: bytes([bit | 126]) + struct.pack(">H", size),
             64: lambda: bytes([bit | 127]) + struct.pack(">Q", size)}[form]()
    if not mask:
        return head + payload
    key = os.urandom(4) if key is None else key
    return head + key + masked(payload, key)


def close_body(code, reason=b""):
    return struct.pack(">H", code) + (reason.encode() if isinstance(reason, str) else reason)


def deflate(payload, bits=15, level=6):
    """A message as RFC 7692 7.2.1 compresses it: no tail, no context kept."""
    if isinstance(payload, str):
        payload = payload.encode()
    z = zlib.compressobj(level, zlib.DEFLATED, -max(bits, 9))
    out = z.compress(payload) + z.flush(zlib.Z_SYNC_FLUSH)
    assert out.endswith(b"\0\0\xff\xff")
    return out[:-4]


def inflate(payload, bits=15):
    """The reverse; a window of |bits| must do, and nothing may be left over."""
    z = zlib.decompressobj(-bits)
    return z.decompress(payload + b"\0\0\xff\xff") + z.flush()


class Wrong(AssertionError):
    """The server did something that the RFC or the case does not allow."""


class _Word:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


END, DROP = _Word("END"), _Word("DROP")


class Peer:
    """One connection. |port|: of the server on this machine."""

    def __init__(self, port, seconds=10):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=seconds * TIMES)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""
        self.bits = 0  # server's window once permessage-deflate is agreed, 0: not agreed
        self.compressed = None  # whether the last message was

    # -- handshake
    def request(self, head):
        """Sends a request head as given; returns (status, headers in lower case, later bytes are kept)."""
        self.s.sendall(head if isinstance(head, bytes) else head.encode())
        return self.response()

    def response(self):
        while b"\r\n\r\n" not in self.data:
            more = self._recv()
            if not more:
                return None, {}
            self.data += more
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            headers[name] = headers[name] + ", " + value.strip() if name in headers else value.strip()
        return int(lines[0].split()[1]), headers

    def upgrade(self, path="/v1/ws", extensions=None, extra="", key=None):
        key = key or base64.b64encode(os.urandom(16)).decode()
        ext = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
        status, headers = self.request(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{ext}{extra}\r\n")
        if status != 101:
            raise Wrong(f"upgrade answered {status} {headers}")
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        if headers.get("sec-websocket-accept") != accept or headers.get("upgrade", "").lower() != "websocket" \
                or "upgrade" not in headers.get("connection", "").lower():
            raise Wrong(f"not the answer to this handshake: {headers}")
        agreed = headers.get("sec-websocket-extensions")
        if agreed:
            names = dict(p.strip().partition("=")[::2] for p in agreed.split(";")[1:])
            self.bits = int(names.get("server_max_window_bits") or 15)
        return headers

    # -- bytes
    def send(self, data, piece=None):
        """Sends; in segments of |piece| bytes if given."""
        if piece is None:
            self.s.sendall(data)
            return
        for at in range(0, len(data), piece):
            self.s.sendall(data[at:at + piece])

    def _recv(self):
        try:
            return self.s.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            return b""

    def _need(self, n):
        if len(self.data) >= n:
            return True
        parts, have = [self.data], len(self.data)
        while have < n:
            more = self._recv()
            if not more:
                self.data = b"".join(parts)
                return False
            parts.append(more)
            have += len(more)
        self.data = b"".join(parts)
        return True

    def _take(self, n):
        out, self.data = self.data[:n], self.data[n:]
        return out

    # -- what comes
    def next(self):
        """(opcode, payload) of the next message or control frame, or END."""
        if not self._need(2):
            if self.data:
                raise Wrong(f"the stream ends inside a frame: {self.data!r}")
            return END
        head = self._take(2)
        rsv, opcode = head[0] >> 4 & 7, head[0] & 15
        if head[1] & 0x80:
            raise Wrong("a server frame is masked")
        if not head[0] & 0x80:
            raise Wrong("a server frame is a fragment")
        if opcode not in (TEXT, BINARY, CLOSE, PING, PONG):
            raise Wrong(f"opcode {opcode}")
        size = head[1] & 0x7f
        if size >= 126:
            if opcode >= 8:
                raise Wrong("a control frame above 125 bytes")
            width, least = (2, 126) if size == 126 else (8, 65536)
            if not self._need(width):
                raise Wrong("the stream ends inside a header")
            size = int.from_bytes(self._take(width), "big")
            if size < least:
                raise Wrong("length not in its shortest form")
        if rsv and (rsv != 4 or not self.bits or opcode not in (TEXT, BINARY)):
            raise Wrong(f"reserved bits {rsv:03b} on opcode {opcode}")
        if not self._need(size):
            raise Wrong(f"the stream ends inside a payload of {size} bytes ({len(self.data)} came)")
        payload = self._take(size)
        self.compressed = bool(rsv)
        if rsv:
            payload = inflate(payload, self.bits)
        if opcode == TEXT:
            payload.decode()  # UnicodeDecodeError fails the case
        return opcode, payload

    def expect(self, opcode, payload=None):
        got = self.next()
        if isinstance(payload, str):
            payload = payload.encode()
        if got is END or got[0] != opcode or (payload is not None and got[1] != payload):
            raise Wrong(f"expected {opcode} {brief(payload)}, got {brief(got)}")
        return got[1]

    def expect_close(self, *codes):
        """A close frame with one of |codes| (None: empty body), then the end of the stream."""
        got = self.next()
        if got is END:
            raise Wrong(f"dropped without a close frame, expected close {codes}")
        if got[0] != CLOSE:
            raise Wrong(f"expected close {codes}, got {brief(got)}")
        body = got[1]
        code = struct.unpack(">H", body[:2])[0] if body else None
        if len(body) == 1 or code not in codes:
            raise Wrong(f"expected close {codes}, got {code} {body[2:]!r}")
        body[2:].decode()
        after = self.next()
        if after is not END:
            raise Wrong(f"after its close frame the server sent {brief(after)}")
        return body[2:].decode()

    def expect_drop(self):
        """The end of the stream with no close frame before it."""
        got = self.next()
        if got is not END:
            raise Wrong(f"expected the end of the stream, got {brief(got)}")

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def brief(value):
    if isinstance(value, tuple):
        return f"({value[0]}, {brief(value[1])})"
    if isinstance(value, bytes) and len(value) > 60:
        return f"{value[:40]!r}... {len(value)} bytes"
    return repr(value)


def wait_dead(peer, seconds):
    """Seconds until the server ends the stream, whatever it says before."""
    start = time.monotonic()
    peer.s.settimeout(seconds * TIMES)
    while peer._recv():
        pass
    return time.monotonic() - start
