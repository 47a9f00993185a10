"""Clients of the TLS port that see the ends of things: Python's ssl over a socket and openssl s_client, WebSocket by
hand."""
import json
import os
import select
import socket
import ssl
import struct
import subprocess
import urllib.parse

import harness


def tls_port(node):
    return urllib.parse.urlsplit(node.info["wss"]).port


def connect(node, context, name="localhost", session=None, seconds=10, buffer=None):
    """A TLS socket; the caller closes it. An end that TLS does not say raises SSLEOFError, which Python hides unless told."""
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    raw = socket.socket()
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(seconds * harness.TIMES)
    raw.connect(("127.0.0.1", tls_port(node)))
    return context.wrap_socket(raw, server_hostname=name, session=session, suppress_ragged_eofs=False)


def upgrade(node, s, user):
    s.sendall((f"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
               f"Sec-WebSocket-Protocol: belfry.v1.json\r\nAuthorization: Bearer {node.token(user)}\r\n\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += s.recv(1)
    assert head.startswith(b"HTTP/1.1 101")


def ws_text(frame):
    body = json.dumps(frame).encode()
    assert len(body) < 126
    return bytes([0x81, 0x80 | len(body), 0, 0, 0, 0]) + body


def ws_read(s):
    def exactly(n):
        data = b""
        while len(data) < n:
            more = s.recv(n - len(data))
            assert more, "the stream ended"
            data += more
        return data
    while True:
        head = exactly(2)
        size = head[1] & 0x7f
        if size >= 126:
            size = struct.unpack(">H" if size == 126 else ">Q", exactly(2 if size == 126 else 8))[0]
        body = exactly(size)
        if head[0] & 0x0f == 1:
            return json.loads(body)
        if head[0] & 0x0f == 8:
            return {"t": "close", "code": struct.unpack(">H", body[:2])[0]}


class SClient:
    """openssl s_client as a socket. Single letters on its input are commands: key_update() types one."""

    def __init__(self, node, *args, seconds=10):
        self.seconds = seconds * harness.TIMES
        self.p = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{tls_port(node)}", "-servername", "localhost", "-CAfile",
             str(node.state / "tls.pem"), "-verify_return_error", "-quiet", "-no_ign_eof", *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)

    def sendall(self, data):
        self.p.stdin.write(data)

    def recv(self, size):
        ready, _, _ = select.select([self.p.stdout], [], [], self.seconds)
        if not ready:
            raise TimeoutError("s_client gives nothing")
        return os.read(self.p.stdout.fileno(), size)

    def key_update(self, wants_ours):
        self.sendall(b"K\n" if wants_ours else b"k\n")

    def end(self):
        """What it says once the other side has ended the connection; it must have been told so by TLS."""
        _, said = self.p.communicate(timeout=self.seconds)
        assert self.p.returncode == 0 and b"unexpected eof" not in said, (self.p.returncode, said)
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.kill()
        self.p.communicate()
