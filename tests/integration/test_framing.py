"""Where a request ends: every port of a node judges the rows of tests/support/framing.tsv alike (issue: two parsers disagree).

Each row goes to the WebSocket port, the API and the admin port by a raw socket, with a second request after it. A refusal
is one answer and a close, and the second request is never looked at; after a good request it is answered.
"""
import json
import re
import socket
import urllib.parse

import pytest
from harness import ROOT, TIMES

REFUSALS = {400, 414, 431, 501, 505}
PATHS = {"ws": "/v1/ws", "api": "/v1/topics", "admin": "/healthz"}


def rows():
    out = []
    for line in (ROOT / "tests/support/framing.tsv").read_text().splitlines():
        if not line.startswith("#"):
            name, verdict, ports, text = line.split("\t")
            out.append((name, int(verdict), ports, text))
    return out


def expand(text, path):
    """The bytes of a row's text; see the head of the table."""
    def one(match):
        token = match.group(0)
        if token in ("{{", "}}"):
            return token[0].encode()
        if token == "{path}":
            return path.encode()
        if token.startswith("{pad:"):
            return b"a" * int(token[5:-1])
        if token.startswith("{headers:"):
            return b"".join(b"X-%d: y\r\n" % i for i in range(int(token[9:-1])))
        if token.startswith("\\x"):
            return bytes([int(token[2:], 16)])
        return {"\\r": b"\r", "\\n": b"\n", "\\t": b"\t", '\\"': b'"'}[token]
    out, at = b"", 0
    for match in re.finditer(r"\{\{|\}\}|\{[a-z]+(?::\d+)?\}|\\x[0-9a-f]{2}|\\.", text):
        out += text[at:match.start()].encode() + one(match)
        at = match.end()
    return out + text[at:].encode()


def exchange(url, sent, wanted=1):
    """All that comes back until the server closes, or |wanted| answers are here and nothing follows."""
    url = urllib.parse.urlsplit(url)
    got = b""
    with socket.create_connection((url.hostname, url.port), timeout=10 * TIMES) as sock:
        try:
            sock.sendall(sent)
        except OSError:
            pass  # refused before the end of it
        try:
            while chunk := sock.recv(65536):
                got += chunk
                if wanted > 1 and len(answers(got)) >= wanted:
                    return got, False
        except ConnectionResetError:
            return got, True
        return got, True


def answers(got):
    """Status of each answer that is not interim."""
    return [int(s) for s in re.findall(rb"HTTP/1\.1 (\d{3}) ", got) if not s.startswith(b"1")]


def judge(node, port, row):
    name, verdict, _, text = row
    first = expand(text, PATHS[port])
    second = f"GET {PATHS[port]}?second HTTP/1.1\r\nHost: b\r\n\r\n".encode()
    got, is_closed = exchange(node.info[port].replace("ws:", "http:"), first + second,
                              2 if verdict == 200 and port != "ws" and "http/1.0" not in name else 1)
    statuses = answers(got)
    if verdict == 200:
        assert statuses and statuses[0] not in REFUSALS, f"{port}: {name}: {got!r}"
        assert port == "ws" or is_closed or len(statuses) == 2, f"{port}: {name}: {got!r}"
        return 200
    assert is_closed and len(statuses) == 1, f"{port}: {name}: {got!r}"
    head = got.split(b"\r\n\r\n")[0].lower()
    assert b"connection: close" in head or b"connection: upgrade, close" in head, f"{port}: {name}: {got!r}"
    if port != "ws":
        assert b"content-type: application/problem+json" in head, f"{port}: {name}: {got!r}"
        body = json.loads(got.split(b"\r\n\r\n", 1)[1])
        assert body["status"] == statuses[0] and len(body["detail"]) > 10, body
        assert body["title"] != "Internal error", body  # it is the client's
    return statuses[0]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_port_gives_this_verdict(embedded, row):
    ports = ("api", "admin", "ws") if row[2] == "all" else ("api", "admin")
    verdicts = {port: judge(embedded, port, row) for port in ports}
    assert set(verdicts.values()) == {row[1]}, verdicts


def test_the_table_is_large_enough():
    table = rows()
    assert len(table) >= 60 and len({row[0] for row in table}) == len(table)
    assert sum(1 for row in table if row[2] == "all" and row[1] != 200) >= 60
