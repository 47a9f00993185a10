"""Clients that leave: requests that end in every way at every instant of their life (issue: a crash from outside).

A request is sent on a socket of its own up to some byte, and left by close, reset (SO_LINGER 0), half-close, or half-close
and reading on; at once or some moments after its last byte, while the log has it. Keys come from a small pool, so that
a mark of one that left meets another request with the same key.
"""
import json
import random
import socket
import struct
import time
import urllib.parse

WAYS = ("close", "reset", "half-close", "half-close, read")
INSTANTS = ("nothing sent", "in the head", "after the head", "in the body", "whole", "whole, and a moment", "two pipelined")
KEYS = 40


def raw(method, path, key, body=b"", headers=()):
    lines = [f"{method} {path} HTTP/1.1", "Host: belfry", f"Authorization: Bearer {key}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n", body


def requests(key, rng, users):
    """Name and bytes (head, body) of one request a route: those that suspend, and some that do not."""
    user = rng.choice(users)
    idem = f"Idempotency-Key: hang-{rng.randrange(KEYS)}"
    event = json.dumps({"user_id": user, "type": "t", "title": "x"}).encode()
    topical = json.dumps({"topic": "hang.up", "type": "t", "title": "x"}).encode()
    people = "".join(json.dumps({"user_id": f"hung-{rng.randrange(50)}"}) + "\n" for _ in range(5)).encode()
    return {
        "notification": raw("POST", "/v1/notifications", key, event),
        "notification with a key": raw("POST", "/v1/notifications", key, event, [idem]),
        "event": raw("POST", "/v1/events", key, topical, [idem + "-e"]),
        "import": raw("POST", "/v1/users/import", key, people),
        "inbox": raw("GET", f"/v1/users/{user}/notifications", key),
        "nobody's key": raw("POST", "/v1/notifications", "bfk_" + "0" * 48, event),
    }


def leave(sock, way, seconds=5):
    if way == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif way.startswith("half-close"):
        try:
            sock.shutdown(socket.SHUT_WR)
            if way.endswith("read"):
                sock.settimeout(seconds)
                while sock.recv(65536):
                    pass
        except OSError:
            pass
    sock.close()


def cut(head, body, instant, rng):
    if instant == "nothing sent":
        return b""
    if instant == "in the head":
        return head[:rng.randrange(1, len(head))]
    if instant == "after the head":
        return head
    if instant == "in the body":
        return head + body[:rng.randrange(len(body) + 1)]
    return (head + body) * (2 if instant == "two pipelined" else 1)


def sweep(api, key, users, ends, seed, step=lambda i: None):
    """|ends| requests that end early; returns how many a (route, instant, way). |step| is called between them."""
    rng = random.Random(seed)
    url = urllib.parse.urlsplit(api)
    counts = {}
    for i in range(ends):
        kinds = requests(key, rng, users)
        # most of what the server holds on to comes after these: a mark, a suspended request, an unread answer
        name = rng.choice(list(kinds) + ["notification with a key"] * 3 + ["event"] * 2)
        head, body = kinds[name]
        instant = rng.choice(INSTANTS + ("whole", "whole, and a moment", "whole, and a moment"))
        way = rng.choice(WAYS + ("reset", "reset"))
        sock = socket.create_connection((url.hostname, url.port), timeout=10)
        try:
            sock.sendall(cut(head, body, instant, rng))
            if instant == "whole, and a moment":
                time.sleep(rng.choice((0.0001, 0.0005, 0.001, 0.002, 0.004)))
        except OSError:
            pass  # refused while it was sent
        leave(sock, way)
        counts[name, instant, way] = counts.get((name, instant, way), 0) + 1
        step(i)
    return counts
