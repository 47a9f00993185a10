"""RFC 6455 and RFC 7692 as a table: what is sent, what must come back. One test a row.

Rows are numbered after the sections of the Autobahn suite (1 framing, 2 pings, 3 reserved bits, 4 opcodes,
5 fragmentation, 6 UTF-8, 7 close, 9 limits, 10 misc, 12 and 13 compression), with section 0 for the opening
handshake (RFC 6455 4.2). They run against `belfry-dataplane --echo`, one process for all. After the steps of
a row that ends well, a closing handshake shows that nothing else was sent and nothing was left over.
test_rfc6455_live.py has what the live endpoint restricts.

Steps: Send(bytes, piece) in one write or in pieces; Text, Binary, Pong: this must come; Fails(codes): a close
frame with such a code, then the end of the stream; Drops: the end without a close frame.
"""
import collections
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile

import harness
import pytest
from ws_peer import (BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, Wrong, close_body, deflate, frame)

Case = collections.namedtuple("Case", "id what steps offer")
Send = collections.namedtuple("Send", "data piece", defaults=[None])
Got = collections.namedtuple("Got", "opcode payload packed", defaults=[None])
Fails = collections.namedtuple("Fails", "codes")
CASES = []
RANDOM = random.Random(6455)


def case(number, what, *steps, offer=None):
    CASES.append(Case(number, what, steps, offer))


def Text(payload, packed=None):
    return Got(TEXT, payload, packed)


def Binary(payload, packed=None):
    return Got(BINARY, payload, packed)


def Pong(payload=b""):
    return Got(PONG, payload)


def fails(*codes):
    return Fails(codes or (1002,))


# ---- the server -----------------------------------------------------------------------------------

class Echo:
    """belfry-dataplane --echo on a free port."""

    def __init__(self, config=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="belfry-test-"))
        over = harness.merge({"node": {"run_dir": str(self.dir / "run")},
                              "websocket": {"host": "127.0.0.1", "port": 0},
                              "dataplane": {"connections_max": 2000, "ring_connections_max": 2000}}, config or {})
        (self.dir / "echo.yaml").write_text(harness.yaml.safe_dump(over))
        self.log = (self.dir / "echo.log").open("wb")
        self.process = subprocess.Popen([str(harness.BUILD / "belfry-dataplane"), "--echo", "--config",
                                         str(self.dir / "echo.yaml")], stderr=self.log)
        ports = self.dir / "run/dataplane.ports"
        harness.until(lambda: ports.exists() or self.process.poll() is not None, 20, "the echo server listens")
        assert self.process.poll() is None, (self.dir / "echo.log").read_text()
        self.port = harness.json.loads(ports.read_text())["ws"]

    def memory_kb(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20 * harness.TIMES)
        self.log.close()
        log = (self.dir / "echo.log").read_text(errors="replace")
        shutil.rmtree(self.dir, ignore_errors=True)
        assert code == 0, f"exit code {code}\n{log}"


@pytest.fixture(scope="module")
def echo():
    server = Echo({"websocket": {"deflate_min": 128}})
    yield server
    server.stop()


def run(peer, steps):
    for step in steps:
        if isinstance(step, Send):
            peer.send(step.data, step.piece)
        elif isinstance(step, Got):
            peer.expect(step.opcode, step.payload)
            if step.packed is not None and peer.compressed != step.packed:
                raise Wrong(f"compressed: {peer.compressed}, expected {step.packed}")
        else:
            peer.expect_close(*step.codes)
            return
    peer.send(frame(CLOSE, close_body(1000)))
    peer.expect_close(1000)


# ---- 0 opening handshake ----------------------------------------------------------------------------

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD = {"Host": "x", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY}


def head(line="GET /v1/ws HTTP/1.1", **over):
    """A request head; a header over None is left out."""
    fields = {**GOOD, **{k.replace("_", "-"): v for k, v in over.items()}}
    return (line + "\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items() if v is not None) + "\r\n").encode()


# ---- 1 framing ------------------------------------------------------------------------------------

SIZES = [0, 1, 125, 126, 127, 128, 4082, 4096, 65535, 65536, 65537]
for section, opcode, got, letter in (("1.1", TEXT, Text, b"*"), ("1.2", BINARY, Binary, b"\xfe")):
    for i, size in enumerate(SIZES, 1):
        case(f"{section}.{i}", f"a message of {size} bytes", Send(frame(opcode, letter * size)), got(letter * size))
    case(f"{section}.{len(SIZES) + 1}", "65536 bytes in writes of 997", Send(frame(opcode, letter * 65536), 997),
         got(letter * 65536))
    case(f"{section}.{len(SIZES) + 2}", "300 bytes, byte by byte", Send(frame(opcode, letter * 300), 1),
         got(letter * 300))
    case(f"{section}.{len(SIZES) + 3}", "20 messages in one write",
         Send(b"".join(frame(opcode, letter * n) for n in range(20))), *[got(letter * n) for n in range(20)])
    case(f"{section}.{len(SIZES) + 4}", "an all-zero mask", Send(frame(opcode, letter * 70, key=b"\0\0\0\0")),
         got(letter * 70))
case("1.3.1", "an unmasked message", Send(frame(TEXT, "hello", mask=False)), fails())
case("1.3.2", "an unmasked ping", Send(frame(PING, "hello", mask=False)), fails())
case("1.3.3", "an unmasked close", Send(frame(CLOSE, close_body(1000), mask=False)), fails())
case("1.3.4", "10 bytes as a 16-bit length", Send(frame(TEXT, "x" * 10, form=16)), fails())
case("1.3.5", "10 bytes as a 64-bit length", Send(frame(TEXT, "x" * 10, form=64)), fails())
case("1.3.6", "126 bytes as a 64-bit length", Send(frame(BINARY, "x" * 126, form=64)), fails())
case("1.3.7", "65535 bytes as a 64-bit length", Send(frame(BINARY, claim=65535, form=64)), fails())
case("1.3.8", "a length with its top bit set", Send(frame(BINARY, claim=1 << 63, form=64)), fails())
case("1.3.9", "a length of 2^63 - 1", Send(frame(BINARY, claim=(1 << 63) - 1, form=64)), fails(1009))
case("1.3.10", "0 bytes as a 16-bit length", Send(frame(BINARY, b"", form=16)), fails())

# ---- 2 pings and pongs ----------------------------------------------------------------------------

case("2.1", "a ping without payload", Send(frame(PING)), Pong())
case("2.2", "a ping with text", Send(frame(PING, "Hello, world!")), Pong(b"Hello, world!"))
case("2.3", "a ping with bytes that are not text", Send(frame(PING, b"\0\xff\xfe\xfd\xfc\xfb\0\xff")),
     Pong(b"\0\xff\xfe\xfd\xfc\xfb\0\xff"))
case("2.4", "a ping of 125 bytes", Send(frame(PING, b"\xfe" * 125)), Pong(b"\xfe" * 125))
case("2.5", "a ping of 126 bytes", Send(frame(PING, b"\xfe" * 126)), fails())
case("2.6", "a ping of 125 bytes, byte by byte", Send(frame(PING, b"\xfe" * 125), 1), Pong(b"\xfe" * 125))
case("2.7", "an unsolicited pong", Send(frame(PONG)))
case("2.8", "an unsolicited pong with payload", Send(frame(PONG, "unsolicited")))
case("2.9", "an unsolicited pong, then a ping", Send(frame(PONG, "unsolicited") + frame(PING, "ping")), Pong(b"ping"))
case("2.10", "10 pings in one write", Send(b"".join(frame(PING, f"payload-{i}") for i in range(10))),
     *[Pong(f"payload-{i}".encode()) for i in range(10)])
case("2.11", "10 pings, byte by byte", Send(b"".join(frame(PING, f"payload-{i}") for i in range(10)), 1),
     *[Pong(f"payload-{i}".encode()) for i in range(10)])
case("2.12", "a fragmented ping", Send(frame(PING, "a", fin=False)), fails())
case("2.13", "a fragmented pong", Send(frame(PONG, "a", fin=False)), fails())
case("2.14", "a pong of 126 bytes", Send(frame(PONG, b"x" * 126)), fails())
case("2.15", "a ping that claims a 64-bit length", Send(frame(PING, claim=70000, form=64)), fails())
case("2.16", "200 pings", Send(b"".join(frame(PING, f"{i}") for i in range(200))),
     *[Pong(f"{i}".encode()) for i in range(200)])

# ---- 3 reserved bits ------------------------------------------------------------------------------

for rsv in range(1, 8):
    case(f"3.1.{rsv}", f"a text with reserved bits {rsv:03b}", Send(frame(TEXT, "hello", rsv=rsv)), fails())
    case(f"3.2.{rsv}", f"a text, then one with reserved bits {rsv:03b}, then a ping: the first is answered",
         Send(frame(TEXT, "first") + frame(TEXT, "hello", rsv=rsv) + frame(PING)), Text(b"first"), fails())
    case(f"3.3.{rsv}", f"reserved bits {rsv:03b} byte by byte", Send(frame(TEXT, "hello", rsv=rsv)[:2], 1), fails())
    case(f"3.4.{rsv}", f"an empty binary with reserved bits {rsv:03b}", Send(frame(BINARY, rsv=rsv)), fails())
    case(f"3.5.{rsv}", f"a ping with reserved bits {rsv:03b}", Send(frame(PING, "hello", rsv=rsv)), fails())
    case(f"3.6.{rsv}", f"a close with reserved bits {rsv:03b}", Send(frame(CLOSE, rsv=rsv)), fails())
    case(f"3.7.{rsv}", f"a continuation with reserved bits {rsv:03b}",
         Send(frame(TEXT, "a", fin=False) + frame(CONT, "b", rsv=rsv)), fails())

# ---- 4 opcodes ------------------------------------------------------------------------------------

for i, opcode in enumerate([3, 4, 5, 6, 7, 11, 12, 13, 14, 15], 1):
    case(f"4.1.{i}", f"opcode {opcode} without payload", Send(frame(opcode)), fails())
    case(f"4.2.{i}", f"opcode {opcode} with payload", Send(frame(opcode, "reserved")), fails())
    case(f"4.3.{i}", f"a text, then opcode {opcode}, then a ping: the text is answered",
         Send(frame(TEXT, "hello") + frame(opcode, "x") + frame(PING)), Text(b"hello"), fails())
    case(f"4.4.{i}", f"opcode {opcode} between fragments", Send(frame(TEXT, "a", fin=False) + frame(opcode)), fails())

# ---- 5 fragmentation ------------------------------------------------------------------------------

A, B = frame(TEXT, "fragment1", fin=False), frame(CONT, "fragment2")
case("5.1", "a ping in two fragments", Send(frame(PING, "a", fin=False) + frame(CONT, "b")), fails())
case("5.2", "a pong in two fragments", Send(frame(PONG, "a", fin=False) + frame(CONT, "b")), fails())
case("5.3", "a text in two fragments", Send(A + B), Text(b"fragment1fragment2"))
case("5.4", "the same in two writes", Send(A), Send(B), Text(b"fragment1fragment2"))
case("5.5", "the same byte by byte", Send(A + B, 1), Text(b"fragment1fragment2"))
case("5.6", "a ping between fragments", Send(A + frame(PING, "ping") + B), Pong(b"ping"), Text(b"fragment1fragment2"))
case("5.7", "the same in writes", Send(A), Send(frame(PING, "ping")), Pong(b"ping"), Send(B), Text(b"fragment1fragment2"))
case("5.8", "the same byte by byte", Send(A + frame(PING, "ping") + B, 1), Pong(b"ping"), Text(b"fragment1fragment2"))
LOOSE = frame(CONT, "non-continuation", fin=True)
case("5.9", "a continuation of nothing, then a text", Send(LOOSE + frame(TEXT, "hello")), fails())
case("5.10", "the same in two writes", Send(LOOSE), fails())
case("5.11", "the same byte by byte", Send(LOOSE, 1), fails())
LOOSE = frame(CONT, "non-continuation", fin=False)
case("5.12", "an open continuation of nothing, then a text", Send(LOOSE + frame(TEXT, "hello")), fails())
case("5.13", "the same alone", Send(LOOSE), fails())
case("5.14", "the same byte by byte", Send(LOOSE, 1), fails())
case("5.15", "a whole message, a continuation of nothing, a text: the first is answered",
     Send(A + B + LOOSE + frame(TEXT, "no")), Text(b"fragment1fragment2"), fails())
case("5.16", "continuations of nothing around a message", Send(LOOSE + A + B), fails())
case("5.17", "a final continuation of nothing, then a message", Send(frame(CONT, "x") + A + B), fails())
case("5.18", "a text inside a fragmented text", Send(A + frame(TEXT, "fragment2")), fails())
PINGS = frame(PING, "pongme 1!"), frame(PING, "pongme 2!")
case("5.19", "5 fragments with pings between", Send(frame(TEXT, "f1", fin=False) + frame(CONT, "f2", fin=False) + PINGS[0]),
     Pong(b"pongme 1!"), Send(frame(CONT, "f3", fin=False) + frame(CONT, "f4", fin=False) + PINGS[1] + frame(CONT, "f5")),
     Pong(b"pongme 2!"), Text(b"f1f2f3f4f5"))
case("5.20", "the same in one write",
     Send(frame(TEXT, "f1", fin=False) + frame(CONT, "f2", fin=False) + PINGS[0] + frame(CONT, "f3", fin=False)
          + frame(CONT, "f4", fin=False) + PINGS[1] + frame(CONT, "f5")),
     Pong(b"pongme 1!"), Pong(b"pongme 2!"), Text(b"f1f2f3f4f5"))
case("5.21", "a binary in 3 fragments", Send(frame(BINARY, b"\xff", fin=False) + frame(CONT, b"\xfe", fin=False)
                                             + frame(CONT, b"\xfd")), Binary(b"\xff\xfe\xfd"))
case("5.22", "empty fragments only", Send(frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT)), Text(b""))
case("5.23", "empty fragments around one with text",
     Send(frame(TEXT, fin=False) + frame(CONT, "middle", fin=False) + frame(CONT)), Text(b"middle"))
case("5.24", "a binary inside a fragmented text", Send(A + frame(BINARY, "x")), fails())
case("5.25", "a pong between fragments", Send(A + frame(PONG, "x") + B), Text(b"fragment1fragment2"))
case("5.26", "a close between fragments", Send(A + frame(CLOSE, close_body(1000))), fails(1000))
case("5.27", "500 fragments of one byte", Send(frame(TEXT, "x", fin=False) + frame(CONT, "x", fin=False) * 498
                                               + frame(CONT, "x")), Text(b"x" * 500))
case("5.28", "two fragmented messages in one write", Send(A + B + A + B), Text(b"fragment1fragment2"),
     Text(b"fragment1fragment2"))
case("5.29", "an unmasked continuation", Send(A + frame(CONT, "x", mask=False)), fails())
case("5.30", "fragments of 40,000 bytes", Send(frame(BINARY, b"a" * 40000, fin=False) + frame(CONT, b"b" * 40000)),
     Binary(b"a" * 40000 + b"b" * 40000))

# ---- 6 UTF-8 --------------------------------------------------------------------------------------

case("6.1.1", "an empty text", Send(frame(TEXT)), Text(b""))
case("6.1.2", "an empty text in three fragments", Send(frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT)),
     Text(b""))
case("6.1.3", "a text between empty fragments", Send(frame(TEXT, fin=False) + frame(CONT, "µ", fin=False) + frame(CONT)),
     Text("µ".encode()))
HELLO = "Hello-µ@ßöäüàá-UTF-8!!".encode()
case("6.2.1", "a valid text", Send(frame(TEXT, HELLO)), Text(HELLO))
case("6.2.2", "in two fragments on a code point", Send(frame(TEXT, HELLO[:12], fin=False) + frame(CONT, HELLO[12:])),
     Text(HELLO))
case("6.2.3", "a fragment a byte", Send(b"".join(frame(TEXT if i == 0 else CONT, HELLO[i:i + 1], fin=i == len(HELLO) - 1)
                                                 for i in range(len(HELLO)))), Text(HELLO))
case("6.2.4", "three-byte letters, a fragment a byte", Send(
    b"".join(frame(TEXT if i == 0 else CONT, "κόσμε".encode()[i:i + 1], fin=i == 9) for i in range(10))),
    Text("κόσμε".encode()))
BAD = "κόσμε".encode() + b"\xed\xa0\x80" + b"edited"
case("6.3.1", "a surrogate in the middle", Send(frame(TEXT, BAD)), fails(1007))
case("6.3.2", "the same, a fragment a byte",
     Send(b"".join(frame(TEXT if i == 0 else CONT, BAD[i:i + 1], fin=i == len(BAD) - 1) for i in range(len(BAD)))),
     fails(1007))
# fail fast: the verdict comes although the message, or the frame, goes on
PART = "κόσμε".encode() + b"\xf4\x90\x80\x80"
case("6.4.1", "invalid in the second fragment, the third is never sent",
     Send(frame(TEXT, "κόσμε", fin=False) + frame(CONT, b"\xf4\x90\x80\x80", fin=False)), fails(1007))
case("6.4.2", "invalid at the third byte of a code point",
     Send(frame(TEXT, "κόσμε".encode() + b"\xf4", fin=False) + frame(CONT, b"\x90", fin=False)), fails(1007))
case("6.4.3", "invalid inside one frame whose rest is never sent", Send(frame(TEXT, PART + b"more", key=b"\1\2\3\4")[:-4]),
     fails(1007))
case("6.4.4", "the same, byte by byte, up to the byte that decides",
     Send(frame(TEXT, PART + b"more", key=b"\1\2\3\4")[:-6], 1), fails(1007))

VALID = {
    "5": ["κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "日本語テキスト", "👩‍🚀🚀"],
    "6": [b"\xce\xba", b"\xce\xba\xe1\xbd\xb9", b"\xce\xba\xe1\xbd\xb9\xcf\x83",
          b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"],
    "7": [b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],  # first of each length
    "9": [b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],  # last of each length
    "11": [b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf", b"\xf3\xbf\xbf\xbf"],
    "22": [chr(plane << 16 | last).encode() for plane in range(17) for last in (0xfffe, 0xffff)],  # non-characters are valid
}
INVALID = {
    "6": [b"\xce", b"\xce\xba\xe1", b"\xce\xba\xe1\xbd", b"\xce\xba\xe1\xbd\xb9\xcf"],  # ends inside a code point
    "8": [b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],  # five and six bytes
    "10": [b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf", b"\xf4\x90\x80\x80"],
    "12": [b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", b"\x80\xbf\x80\xbf", b"\x80\xbf\x80\xbf\x80",
           bytes(range(0x80, 0xc0))],  # continuations without a start
    "13": [b"".join(bytes([c, 0x20]) for c in range(0xc0, 0xe0)), b"".join(bytes([c, 0x20]) for c in range(0xe0, 0xf0)),
           b"".join(bytes([c, 0x20]) for c in range(0xf0, 0xf8)), b"\xf8 ", b"\xfc "],  # starts without continuations
    "14": [b"\xc0", b"\xe0\x80", b"\xf0\x80\x80", b"\xdf", b"\xef\xbf", b"\xf7\xbf\xbf"],
    "15": [b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xfc\x80\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf"],
    "16": [b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
    "17": [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"],
    "18": [b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf"],
    "19": [b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80", b"\xfc\x80\x80\x80\x80\x80"],
    "20": [b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbe\x80",
           b"\xed\xbf\xbf"],  # single surrogates
    "21": [b"\xed\xa0\x80\xed\xb0\x80", b"\xed\xa0\x80\xed\xbf\xbf", b"\xed\xad\xbf\xed\xb0\x80",
           b"\xed\xad\xbf\xed\xbf\xbf", b"\xed\xae\x80\xed\xb0\x80", b"\xed\xae\x80\xed\xbf\xbf",
           b"\xed\xaf\xbf\xed\xb0\x80", b"\xed\xaf\xbf\xed\xbf\xbf"],  # surrogate pairs
}


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def dead_at(data):
    """Bytes after which no continuation could make |data| valid; len(data) if only its end is missing."""
    for n in range(1, len(data) + 1):
        try:
            data[:n].decode()
        except UnicodeDecodeError as e:
            if e.reason != "unexpected end of data":
                return n
    return len(data)


for section, texts in VALID.items():
    for i, text in enumerate(texts, 1):
        text = text.encode() if isinstance(text, str) else text
        assert is_utf8(text), (section, text)
        half = len(text) // 2
        case(f"6.{section}.{i}", f"valid {text[:12].hex(' ')}", Send(frame(TEXT, text)), Text(text))
        case(f"6.{section}.{i}f", f"valid {text[:12].hex(' ')}, in two fragments",
             Send(frame(TEXT, text[:half], fin=False) + frame(CONT, text[half:])), Text(text))
for section, texts in INVALID.items():
    for i, text in enumerate(texts, 1):
        assert not is_utf8(text), (section, text)
        n = dead_at(text)
        number = f"6.{section}.{i}" if section != "6" else f"6.6.{i + 5}"
        case(number, f"invalid {text[:12].hex(' ')}", Send(frame(TEXT, text)), fails(1007))
        case(f"{number}f", f"invalid {text[:12].hex(' ')}, a fragment a byte",
             Send(b"".join(frame(TEXT if k == 0 else CONT, text[k:k + 1], fin=k == len(text) - 1)
                           for k in range(len(text)))), fails(1007))
        if n < len(text) or section in ("16", "12"):  # the byte that decides is there: the rest is never sent
            case(f"{number}s", f"invalid {text[:12].hex(' ')}, the frame's rest is never sent",
                 Send(frame(TEXT, text[:n] + b"rest", key=b"\5\6\7\10")[:-4], 1), fails(1007))
case("6.23.1", "what is not UTF-8 as binary", Send(frame(BINARY, b"\xff\xfe\xc0")), Binary(b"\xff\xfe\xc0"))
case("6.23.2", "40,000 bytes of two-byte letters across reads", Send(frame(TEXT, "é" * 20000), 4095),
     Text("é".encode() * 20000))
case("6.23.3", "one bad byte at the end of 60,000", Send(frame(TEXT, b"a" * 59999 + b"\xc3")), fails(1007))
case("6.23.4", "one bad byte in 60,000, in fragments",
     Send(frame(TEXT, b"a" * 30000, fin=False) + frame(CONT, b"a" * 100 + b"\xff" + b"a" * 29899)), fails(1007))

# ---- 7 close --------------------------------------------------------------------------------------

BYE = frame(CLOSE, close_body(1000))
case("7.1.1", "a message, then a close", Send(frame(TEXT, "Hello World!") + BYE), Text(b"Hello World!"), fails(1000))
case("7.1.2", "two closes", Send(BYE + BYE), fails(1000))
case("7.1.3", "a ping after a close is not answered", Send(BYE + frame(PING)), fails(1000))
case("7.1.4", "a message after a close is not answered", Send(BYE + frame(TEXT, "Hello World!")), fails(1000))
case("7.1.5", "a fragment, a close, the other fragment", Send(A + BYE + frame(CONT, "x")), fails(1000))
case("7.1.6", "256 KiB, a close, a ping", Send(frame(TEXT, b"BAsd7&jh23" * 26214) + BYE + frame(PING)),
     Text(b"BAsd7&jh23" * 26214), fails(1000))
case("7.1.7", "garbage after a close", Send(BYE + b"\xff" * 100), fails(1000))
case("7.3.1", "an empty close is answered by an empty close", Send(frame(CLOSE)), fails(None))
case("7.3.2", "a close body of one byte", Send(frame(CLOSE, b"a")), fails())
case("7.3.3", "a code without reason", Send(frame(CLOSE, close_body(1000))), fails(1000))
case("7.3.4", "a code with a reason", Send(frame(CLOSE, close_body(1000, "Hello World!"))), fails(1000))
case("7.3.5", "a reason of 123 bytes", Send(frame(CLOSE, close_body(1000, "*" * 123))), fails(1000))
case("7.3.6", "a reason of 124 bytes", Send(frame(CLOSE, close_body(1000, "*" * 124))), fails())
case("7.3.7", "a close byte by byte", Send(frame(CLOSE, close_body(1000, "bye")), 1), fails(1000))
case("7.3.8", "a fragmented close", Send(frame(CLOSE, close_body(1000), fin=False)), fails())
case("7.5.1", "a reason that is not UTF-8", Send(frame(CLOSE, close_body(1000, BAD))), fails(1007))
case("7.5.2", "a reason that ends inside a code point", Send(frame(CLOSE, close_body(1000, b"ab\xc3"))), fails(1007))
case("7.5.3", "a reason in UTF-8", Send(frame(CLOSE, close_body(1000, HELLO))), fails(1000))
GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32768, 65535]
for i, code in enumerate(GOOD_CODES, 1):
    case(f"7.7.{i}", f"code {code}", Send(frame(CLOSE, close_body(code))), fails(code))
for i, code in enumerate(BAD_CODES, 1):
    case(f"7.9.{i}", f"code {code}, which may not be on the wire", Send(frame(CLOSE, close_body(code))), fails())
    case(f"7.9.{i}r", f"code {code} with a reason", Send(frame(CLOSE, close_body(code, "why"))), fails())

# ---- 9 limits -------------------------------------------------------------------------------------

MIB = 1 << 20
for i, size in enumerate([64 << 10, 256 << 10, MIB, 4 * MIB, 8 * MIB, 16 * MIB], 1):
    case(f"9.1.{i}", f"a text of {size} bytes", Send(frame(TEXT, b"*" * size)), Text(b"*" * size))
    case(f"9.2.{i}", f"a binary of {size} bytes", Send(frame(BINARY, b"\xfe" * size)), Binary(b"\xfe" * size))
for i, piece in enumerate([64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, MIB, 4 * MIB], 1):
    whole = 256 << 10 if piece < 4096 else 4 * MIB
    for section, opcode, got in (("9.3", TEXT, Text), ("9.4", BINARY, Binary)):
        count = whole // piece
        case(f"{section}.{i}", f"{whole} bytes in fragments of {piece}",
             Send(b"".join(frame(CONT if k else opcode, b"*" * piece, fin=k == count - 1, key=b"\0\0\0\0")
                           for k in range(count))), got(b"*" * whole))
for i, piece in enumerate([64, 128, 256, 512, 1024, 2048], 1):
    whole = 64 << 10 if piece < 256 else MIB
    case(f"9.5.{i}", f"a text of {whole} bytes in writes of {piece}", Send(frame(TEXT, b"*" * whole), piece),
         Text(b"*" * whole))
    case(f"9.6.{i}", f"a binary of {whole} bytes in writes of {piece}", Send(frame(BINARY, b"*" * whole), piece),
         Binary(b"*" * whole))
for i, size in enumerate([0, 16, 64, 256, 1024, 4096], 1):
    steps = [step for _ in range(200) for step in (Send(frame(TEXT, b"*" * size)), Text(b"*" * size))]
    case(f"9.7.{i}", f"200 texts of {size} bytes, one after the other", *steps)
    steps = [step for _ in range(200) for step in (Send(frame(BINARY, b"*" * size)), Binary(b"*" * size))]
    case(f"9.8.{i}", f"200 binaries of {size} bytes, one after the other", *steps)
case("9.9.1", "one byte above 16 MiB is refused by its header", Send(frame(BINARY, claim=16 * MIB + 1, form=64)), fails(1009))
case("9.9.2", "fragments that pass 16 MiB are refused by the header that passes it",
     Send(frame(BINARY, b"x" * 65536, fin=False) + frame(CONT, claim=16 * MIB - 65535, form=64)), fails(1009))
case("9.9.3", "16 MiB in two fragments", Send(frame(BINARY, b"x" * 8 * MIB, fin=False, key=b"\0\0\0\0")
                                              + frame(CONT, b"x" * 8 * MIB, key=b"\0\0\0\0")), Binary(b"x" * 16 * MIB))
case("9.9.4", "2,000 tiny messages in one write", Send(frame(TEXT, "x") * 2000), *[Text(b"x")] * 2000)

# ---- 10 misc --------------------------------------------------------------------------------------

case("10.1.1", "65536 bytes in fragments of 1300",
     Send(b"".join(frame(CONT if at else TEXT, b"*" * min(1300, 65536 - at), fin=at + 1300 >= 65536)
                   for at in range(0, 65536, 1300))), Text(b"*" * 65536))
for i in range(1, 9):
    seed = random.Random(i)
    parts, expected = [], []
    for k in range(40):
        kind = seed.choice(["text", "binary", "ping", "pong", "fragments"])
        data = bytes(seed.randrange(32, 127) for _ in range(seed.choice([0, 1, 100, 125])))
        if kind == "fragments":
            cut = seed.randrange(len(data) + 1)
            parts.append(frame(TEXT, data[:cut], fin=False) + frame(PING, str(k)) + frame(CONT, data[cut:]))
            expected += [Pong(str(k).encode()), Text(data)]
        else:
            parts.append(frame({"text": TEXT, "binary": BINARY, "ping": PING, "pong": PONG}[kind], data))
            expected += {"text": [Text(data)], "binary": [Binary(data)], "ping": [Pong(data)], "pong": []}[kind]
    case(f"10.2.{i}", f"a mix of 40 (seed {i}) in writes of {3 ** i % 1024}", Send(b"".join(parts), 3 ** i % 1024), *expected)


# ---- 12 compression: messages -----------------------------------------------------------------------

PMD = "permessage-deflate"
RSV1 = 4


def packed(payload, opcode=TEXT, bits=15, level=6, **more):
    return frame(opcode, deflate(payload, bits, level), rsv=RSV1, **more)


def texts(seed):
    """Payloads of each kind by size: JSON-like text, one letter, noise."""
    rng = random.Random(seed)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(2, 9))) for _ in range(60)]

    def json_like(n):
        out = b""
        while len(out) < n:
            out += b'{"' + rng.choice(words) + b'":"' + b" ".join(rng.choice(words) for _ in range(5)) + b'"},'
        return out[:n]
    return {"json": json_like, "letter": lambda n: b"*" * n, "noise": rng.randbytes}


SIZES = [0, 1, 16, 64, 127, 128, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072]
for k, (kind, make) in enumerate(texts(12).items(), 1):
    for i, size in enumerate(SIZES, 1):
        data = make(size)
        opcode, got = (BINARY, Binary) if kind == "noise" else (TEXT, Text)
        pays = size >= 128 and kind != "noise"  # the server's threshold in this table; noise does not shrink
        case(f"12.{k}.{i}", f"{size} bytes of {kind}, compressed", Send(packed(data, opcode)), got(data, pays), offer=PMD)
        if size in (1024, 65536):
            half = len(deflate(data)) // 2
            z = deflate(data)
            case(f"12.{k}.{i}f", f"{size} bytes of {kind}, compressed, in fragments with a ping between",
                 Send(frame(opcode, z[:half], rsv=RSV1, fin=False) + frame(PING, "p") + frame(CONT, z[half:])),
                 Pong(b"p"), got(data, pays), offer=PMD)
            case(f"12.{k}.{i}b", f"{size} bytes of {kind}, compressed, in writes of 61", Send(packed(data, opcode), 61),
                 got(data, pays), offer=PMD)
JSON = texts(4)["json"](3000)
case("12.4.1", "not compressed, although agreed", Send(frame(TEXT, JSON)), Text(JSON, True), offer=PMD)
case("12.4.2", "compressed and not, mixed", Send(packed(JSON) + frame(TEXT, "a") + packed("b") + frame(BINARY, JSON)),
     Text(JSON, True), Text(b"a", False), Text(b"b", False), Binary(JSON, True), offer=PMD)
case("12.4.3", "100 compressed messages in one write", Send(packed(JSON[:500]) * 100), *[Text(JSON[:500])] * 100, offer=PMD)
case("12.4.4", "16 MiB of one letter, compressed", Send(packed(b"*" * 16 * MIB, level=1)), Text(b"*" * 16 * MIB, True), offer=PMD)
case("12.4.5", "each fragment a byte", Send(b"".join(
    frame(CONT if k else TEXT, deflate(JSON[:200])[k:k + 1], rsv=0 if k else RSV1, fin=k == len(deflate(JSON[:200])) - 1)
    for k in range(len(deflate(JSON[:200]))))), Text(JSON[:200]), offer=PMD)
case("12.4.6", "an empty last fragment", Send(frame(TEXT, deflate(JSON), rsv=RSV1, fin=False) + frame(CONT)),
     Text(JSON), offer=PMD)
case("12.5.1", "the RFC's Hello", Send(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1)), Text(b"Hello"), offer=PMD)
case("12.5.2", "the RFC's Hello in two fragments", Send(frame(TEXT, bytes.fromhex("f248cd"), rsv=RSV1, fin=False)
                                                       + frame(CONT, bytes.fromhex("c9c90700"))), Text(b"Hello"), offer=PMD)
case("12.5.3", "the RFC's Hello in a stored block", Send(frame(TEXT, bytes.fromhex("000500faff48656c6c6f00"), rsv=RSV1)),
     Text(b"Hello"), offer=PMD)
case("12.5.4", "the RFC's Hello with BFINAL", Send(frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=RSV1)),
     Text(b"Hello"), offer=PMD)
case("12.5.5", "the RFC's Hello in two blocks", Send(frame(TEXT, bytes.fromhex("f248050000" "00ffffcac9c90700"), rsv=RSV1)),
     Text(b"Hello"), offer=PMD)
case("12.5.6", "an empty message", Send(frame(TEXT, b"\0", rsv=RSV1)), Text(b""), offer=PMD)
case("12.5.7", "an empty message without a byte", Send(frame(TEXT, b"", rsv=RSV1)), Text(b""), offer=PMD)
case("12.6.1", "a reserved block type", Send(frame(TEXT, b"\x06", rsv=RSV1)), fails(1007), offer=PMD)
case("12.6.2", "noise", Send(frame(BINARY, random.Random(1).randbytes(500), rsv=RSV1)), fails(1007), offer=PMD)
case("12.6.3", "a message cut in the middle of a block", Send(frame(TEXT, deflate(JSON)[:-40], rsv=RSV1)), fails(1007), offer=PMD)
case("12.6.4", "a distance beyond the message: no context was kept",
     Send(packed("Hello") + frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)), Text(b"Hello"), fails(1007), offer=PMD)
case("12.6.5", "not UTF-8 once inflated", Send(frame(TEXT, deflate(BAD), rsv=RSV1)), fails(1007), offer=PMD)
case("12.6.6", "the same as binary", Send(packed(BAD, BINARY)), Binary(BAD), offer=PMD)
case("12.6.7", "valid UTF-8 whose compressed bytes are not", Send(packed("κόσμε" * 40)), Text(("κόσμε" * 40).encode()), offer=PMD)
case("12.6.8", "a bomb: 17 MiB in 17 KiB", Send(packed(b"*" * 17 * MIB)), fails(1009), offer=PMD)
case("12.6.9", "a bomb in fragments", *[Send(f) for f in (
    frame(BINARY, deflate(b"*" * 64 * MIB, level=9)[:1000], rsv=RSV1, fin=False),
    frame(CONT, deflate(b"*" * 64 * MIB, level=9)[1000:]))], fails(1009), offer=PMD)
case("12.6.10", "a message of exactly 16 MiB passes, one byte more does not",
     Send(packed(b"x" * 16 * MIB, BINARY)), Binary(b"x" * 16 * MIB), Send(packed(b"x" * (16 * MIB + 1), BINARY)), fails(1009), offer=PMD)
for i, (what, data) in enumerate([
        ("RSV1 on a continuation", frame(TEXT, deflate("a"), rsv=RSV1, fin=False) + frame(CONT, b"", rsv=RSV1)),
        ("RSV1 on a continuation of a plain message", frame(TEXT, "a", fin=False) + frame(CONT, deflate("b"), rsv=RSV1)),
        ("RSV1 on a ping", frame(PING, "a", rsv=RSV1)), ("RSV1 on a pong", frame(PONG, "a", rsv=RSV1)),
        ("RSV1 on a close", frame(CLOSE, close_body(1000), rsv=RSV1)),
        ("RSV1 and RSV2", frame(TEXT, deflate("a"), rsv=6)), ("RSV2", frame(TEXT, "a", rsv=2)),
        ("RSV3", frame(TEXT, "a", rsv=1)), ("RSV1 on a reserved opcode", frame(3, "a", rsv=RSV1)),
        ("an unmasked compressed message", frame(TEXT, deflate("a"), rsv=RSV1, mask=False)),
        ("a new compressed message inside a message", frame(TEXT, deflate("a"), rsv=RSV1, fin=False) + packed("b"))], 1):
    case(f"12.7.{i}", what, Send(data), fails(), offer=PMD)

# ---- 13 compression: parameters ---------------------------------------------------------------------

TAKEOVER = "server_no_context_takeover; client_no_context_takeover"
OFFERS = [  # offer, what the server agrees to (None: no extension), server's window, client's window
    (PMD, "", 15, 15),
    (f"{PMD}; server_no_context_takeover", "", 15, 15),
    (f"{PMD}; client_no_context_takeover", "", 15, 15),
    (f"{PMD}; client_no_context_takeover; server_no_context_takeover", "", 15, 15),
    (f"{PMD}; client_max_window_bits", "", 15, 15),
    *[(f"{PMD}; server_max_window_bits={n}", f"; server_max_window_bits={n}", n, 15) for n in range(8, 16)],
    *[(f"{PMD}; client_max_window_bits={n}", f"; client_max_window_bits={n}" if n < 15 else "", 15, n) for n in range(8, 16)],
    (f"{PMD}; server_max_window_bits=9; client_max_window_bits=9; {TAKEOVER}",
     "; server_max_window_bits=9; client_max_window_bits=9", 9, 9),
    (f"{PMD};server_max_window_bits=\"10\";client_max_window_bits=\"11\"",
     "; server_max_window_bits=10; client_max_window_bits=11", 10, 11),
    (f"{PMD}; server_max_window_bits=16, {PMD}", "", 15, 15),
    (f"{PMD}; server_max_window_bits=9, {PMD}", "; server_max_window_bits=9", 9, 15),
    (f"x-other; a=b, {PMD}; client_max_window_bits", "", 15, 15),
    (f",, {PMD} ,", "", 15, 15),
    (f"{PMD}; server_max_window_bits=7", None, 0, 0),
    (f"{PMD}; server_max_window_bits=16", None, 0, 0),
    (f"{PMD}; server_max_window_bits=08", None, 0, 0),
    (f"{PMD}; server_max_window_bits", None, 0, 0),
    (f"{PMD}; client_max_window_bits=16", None, 0, 0),
    (f"{PMD}; client_max_window_bits=x", None, 0, 0),
    (f"{PMD}; server_no_context_takeover=1", None, 0, 0),
    (f"{PMD}; server_no_context_takeover; server_no_context_takeover", None, 0, 0),
    (f"{PMD}; unknown", None, 0, 0),
    (f"{PMD}; unknown=1", None, 0, 0),
    ("permessage-bzip2", None, 0, 0),
    ("x-webkit-deflate-frame", None, 0, 0),
    ("Permessage-Deflate", None, 0, 0),
]


@pytest.mark.parametrize("n", range(len(OFFERS)), ids=[f"13.1.{i + 1}" for i in range(len(OFFERS))])
def test_offer(echo, n):
    """What is agreed, word by word, and messages of each size under it, compressed both ways."""
    offer, agreed, server_bits, client_bits = OFFERS[n]
    with Peer(echo.port) as peer:
        headers = peer.upgrade(extensions=offer)
        answer = headers.get("sec-websocket-extensions")
        if agreed is None:
            assert answer is None, answer
            run(peer, [Send(frame(TEXT, JSON)), Text(JSON, False)])
            return
        assert answer == f"{PMD}; {TAKEOVER}{agreed}"
        assert peer.bits == server_bits
        make = texts(n)["json"]
        for size in (0, 10, 200, 300, 5000, 40000, 100000):
            data = make(size)
            # a window of 8 bits: zlib makes none, so such a client would send stored or run-length blocks
            peer.send(packed(data, bits=client_bits, level=0 if client_bits == 8 else 6))
            peer.expect(TEXT, data)  # inflated with a window of server_bits: more would fail
        run(peer, [])


@pytest.mark.parametrize("value", ["permessage-deflate;", ";", "permessage-deflate; =9", "a b", 'x; y="', 'x; y="a b"',
                                   "permessage-deflate; server_max_window_bits=", "@", "x; y=,", '"permessage-deflate"', ","])
def test_offer_malformed(echo, value):
    with Peer(echo.port) as peer:
        status, _ = peer.request(head(Sec_WebSocket_Extensions=value))
        assert status == 400


def test_two_extension_headers(echo):
    """A list may span headers (RFC 6455 9.1); the first offer that can be met counts."""
    with Peer(echo.port) as peer:
        request = head()[:-2] + f"Sec-WebSocket-Extensions: x-a\r\nSec-WebSocket-Extensions: {PMD}; " \
                  f"server_max_window_bits=12\r\nSec-WebSocket-Extensions: {PMD}\r\n\r\n".encode()
        status, headers = peer.request(request)
        assert status == 101 and headers["sec-websocket-extensions"].endswith("server_max_window_bits=12")


def test_memory_of_idle_compressed_connections(echo):
    """No context is kept: 300 connections that have all exchanged compressed messages hold no windows."""
    peers = [Peer(echo.port) for _ in range(300)]
    try:
        data = texts(99)["json"](20000)
        for peer in peers[:10]:
            peer.upgrade(extensions=PMD)
            peer.send(packed(data))
            peer.expect(TEXT, data)
        before = echo.memory_kb()
        for peer in peers[10:]:
            peer.upgrade(extensions=PMD)
            peer.send(packed(data))
            peer.expect(TEXT, data)
            assert peer.compressed
        assert echo.memory_kb() - before < 290 * 4, "a window would be 32 KiB a connection"
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("row", CASES, ids=lambda row: row.id)
def test_case(echo, row):
    with Peer(echo.port) as peer:
        peer.upgrade(extensions=row.offer)
        try:
            run(peer, row.steps)
        except (Wrong, UnicodeDecodeError, OSError) as e:
            raise Wrong(f"{row.id} ({row.what}): {e!r}") from None


def test_table_is_whole():
    """Numbers are unique, each section is there, and there are as many as the issue asks for."""
    ids = [row.id for row in CASES]
    assert len(set(ids)) == len(ids), [i for i, n in collections.Counter(ids).items() if n > 1]
    assert len(ids) + len(HANDSHAKES) >= 247
    assert {i.split(".")[0] for i in ids} >= {"1", "2", "3", "4", "5", "6", "7", "9", "10", "12"}


HANDSHAKES = [  # number, what, request, status
    ("0.1.1", "a good one", head(), 101),
    ("0.1.2", "names and tokens in another case", head(Upgrade="WebSocket", Connection="upgrade"), 101),
    ("0.1.3", "Connection is a list", head(Connection="keep-alive, Upgrade"), 101),
    ("0.1.4", "a query", head("GET /v1/ws?x=1 HTTP/1.1"), 101),
    ("0.1.5", "absolute form", head("GET http://x/v1/ws HTTP/1.1"), 101),
    ("0.1.6", "other headers", head(Cookie="a=b", User_Agent="t"), 101),
    ("0.1.7", "an extension that nobody knows", head(Sec_WebSocket_Extensions="x-unknown; a=1"), 101),
    ("0.2.1", "POST", head("POST /v1/ws HTTP/1.1"), 405),
    ("0.2.2", "HTTP/1.0", head("GET /v1/ws HTTP/1.0"), 505),
    ("0.2.3", "another path", head("GET /nowhere HTTP/1.1"), 404),
    ("0.2.4", "not a request", b"hello\r\n\r\n", 400),
    ("0.2.5", "TLS bytes", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ("0.2.6", "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("0.3.1", "no Host", head(Host=None), 400),
    ("0.3.2", "no Upgrade", head(Upgrade=None), 426),
    ("0.3.3", "Upgrade to something else", head(Upgrade="h2c"), 426),
    ("0.3.4", "Connection without Upgrade", head(Connection="keep-alive"), 400),
    ("0.3.5", "no key", head(Sec_WebSocket_Key=None), 400),
    ("0.3.6", "a key of 15 bytes", head(Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAA"), 400),
    ("0.3.7", "a key that is not base64", head(Sec_WebSocket_Key="!!!!!!!!!!!!!!!!!!!!!!=="), 400),
    ("0.3.8", "two keys", head() [:-2] + f"Sec-WebSocket-Key: {KEY}\r\n\r\n".encode(), 400),
    ("0.3.9", "no version", head(Sec_WebSocket_Version=None), 400),
    ("0.3.10", "version 8", head(Sec_WebSocket_Version="8"), 426),
    ("0.3.11", "version 14", head(Sec_WebSocket_Version="14"), 426),
    ("0.4.1", "a folded header", head()[:-2] + b"X: a\r\n b\r\n\r\n", 400),
    ("0.4.2", "a space before the colon", head()[:-2] + b"X : a\r\n\r\n", 400),
    ("0.4.3", "a bare LF", head().replace(b"\r\n", b"\n"), 400),
    ("0.4.4", "a NUL in a header", head(X="a\0b"), 400),
    ("0.4.5", "a body", head(Content_Length="5") + b"hello", 400),
    ("0.4.6", "chunked", head(Transfer_Encoding="chunked"), 400),
    ("0.4.7", "a head above 8 KiB", head(X="a" * 9000), 431),
    ("0.4.8", "65 headers", head(**{f"X{i}": "a" for i in range(65)}), 431),
]


@pytest.mark.parametrize("number,what,request_head,status", HANDSHAKES, ids=[h[0] for h in HANDSHAKES])
@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "bytes"])
def test_handshake(echo, number, what, request_head, status, piece):
    with Peer(echo.port) as peer:
        try:
            peer.send(request_head, piece)
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before it was all sent; the answer is there
        got, headers = peer.response()
        assert got == status, f"{number} ({what}): {got} {headers} {peer.data!r}"
        if status == 101:
            assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            run(peer, [Send(frame(TEXT, "on")), Text(b"on")])
        elif status == 426:
            assert headers["sec-websocket-version"] == "13"
        if status != 101:
            assert "close" in headers["connection"]


def test_frames_behind_the_request(echo):
    """Frames in the same segment as the request belong to the WebSocket."""
    with Peer(echo.port) as peer:
        peer.send(head() + frame(TEXT, "early") + frame(PING, "p"))
        assert peer.response()[0] == 101
        run(peer, [Text(b"early"), Pong(b"p")])


def test_many_at_once(echo):
    """30 connections, each inside a fragmented message (there is room for 32): all are answered, in any order."""
    peers = [Peer(echo.port) for _ in range(30)]
    try:
        for peer in peers:
            peer.upgrade()
        for i, peer in enumerate(peers):
            peer.send(frame(TEXT, f"{i}-", fin=False) + frame(CONT, "x" * 100, fin=False))
        order = list(enumerate(peers))
        RANDOM.shuffle(order)
        for i, peer in order:
            peer.send(frame(CONT, "end"))
        for i, peer in order:
            run(peer, [Text(f"{i}-{'x' * 100}end".encode())])
    finally:
        for peer in peers:
            peer.close()


def test_a_client_that_does_not_read(echo):
    """It is not read either: memory stays bounded, and the others feel nothing."""
    big = frame(BINARY, b"x" * MIB, key=b"\0\0\0\0")
    before = echo.memory_kb()
    with Peer(echo.port) as deaf, Peer(echo.port) as other:
        deaf.upgrade()
        other.upgrade()
        deaf.s.setblocking(False)
        sent = 0
        for _ in range(400):
            try:
                sent += deaf.s.send(big[sent % len(big):])
            except BlockingIOError:
                run_some(other)
        assert sent < 200 * MIB
        assert echo.memory_kb() - before < 200 * 1024
        run(other, [Send(frame(TEXT, "still here")), Text(b"still here")])


def run_some(peer):
    peer.send(frame(TEXT, "other"))
    peer.expect(TEXT, b"other")


def test_help_speaks_of_it():
    done = subprocess.run([str(harness.BUILD / "belfry-dataplane"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--echo" in done.stdout
