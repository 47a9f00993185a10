"""What integration tests stand on: a node of their own, HTTP, WebSocket clients, tokens.

A node is started by scripts/dev, so the tests go the way that people go. Nothing here waits by
sleeping: `until` polls a condition against a deadline. Every deadline is stretched by BELFRY_TIMES
(a number), so that slow machines and sanitizer builds need no other change.
"""
import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
import warnings

import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # newer releases keep this client, with a warning
    from websockets.exceptions import ConnectionClosed
    from websockets.legacy.client import connect as ws_connect

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BELFRY_BUILD") or ROOT / "build/release")
TIMES = float(os.environ.get("BELFRY_TIMES", "1"))
POLL_S = 0.01
LANES = ("critical", "normal", "bulk")

# Smaller than the defaults, so that two generations and several nodes fit into a test machine.
SMALL = {
    "dataplane": {"connections_max": 2000, "ring_connections_max": 2000},
    "shm": {"blocks_256": 4096, "blocks_1k": 4096, "blocks_4k": 512, "blocks_16k": 128, "blocks_80k": 32,
            "attaches_max": 100},
    "store": {"cache": 32, "write_buffer": 16},
    # a broker on a slow machine is slow, not away
    "log": {"disk_reserve": 64, "kafka": {"append_timeout": min(60000, int(1500 * max(1, TIMES)))}},
    # on a slow machine nothing is sent again because the test was slow to acknowledge
    "fanout": {"ack_deadline": min(300000, int(10000 * TIMES))},
}


class TimedOut(AssertionError):
    """A condition did not come true in time."""


def pause(pid):
    """SIGSTOP, and back once every thread stands still: the signal alone is only on its way. The kernel's own
    workers of io_uring are no matter."""
    os.kill(pid, signal.SIGSTOP)

    def stands(task):
        name, rest = (task / "stat").read_text().rsplit(")", 1)
        return rest.split()[0] in "tTZX" or "(iou-" in name
    until(lambda: all(stands(task) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()), 10,
          f"process {pid} stands still", poll=0.001)


def until(condition, seconds=10, what="the condition", poll=POLL_S):
    """Polls until condition() is truthy and returns that; TimedOut says what was waited for."""
    deadline = time.monotonic() + seconds * TIMES
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOut(f"{what}: not within {seconds * TIMES:.0f} s (last: {value!r})")
        time.sleep(poll)


def merge(base, over):
    """Dict |over| laid over |base|, recursively; neither is changed."""
    out = dict(base)
    for key, value in (over or {}).items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merge(out[key], value) if both else value
    return out


# ---- tokens ---------------------------------------------------------------------------------------

def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def jwt_input(header, claims):
    compact = {"separators": (",", ":")}
    return b64url(json.dumps(header, **compact).encode()) + b"." + b64url(json.dumps(claims, **compact).encode())


def jwt_hs256(secret, claims, kid="dev", alg="HS256"):
    text = jwt_input({"alg": alg, "typ": "JWT", "kid": kid}, claims)
    return (text + b"." + b64url(hmac.new(secret, text, hashlib.sha256).digest())).decode()


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *args], input=stdin, check=True, capture_output=True).stdout


class KeyPair:
    """An asymmetric JWT key made by the openssl program: RS256, ES256, EdDSA."""

    def __init__(self, directory, alg, kid):
        self.alg, self.kid = alg, kid
        self.private = pathlib.Path(directory) / f"{kid}.pem"
        self.public = pathlib.Path(directory) / f"{kid}.pub.pem"
        make = {"RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                "EdDSA": ["-algorithm", "ED25519"]}[alg]
        openssl("genpkey", *make, "-out", str(self.private))
        openssl("pkey", "-in", str(self.private), "-pubout", "-out", str(self.public))

    def conf(self):
        return {"kid": self.kid, "alg": self.alg, "file": str(self.public)}

    def token(self, claims):
        text = jwt_input({"alg": self.alg, "typ": "JWT", "kid": self.kid}, claims)
        if self.alg == "EdDSA":
            with tempfile.NamedTemporaryFile() as f:  # ED25519 signs from a file only
                f.write(text)
                f.flush()
                signature = openssl("pkeyutl", "-sign", "-inkey", str(self.private), "-rawin", "-in", f.name)
        else:
            signature = openssl("dgst", "-sha256", "-sign", str(self.private), stdin=text)
            if self.alg == "ES256":
                signature = ecdsa_raw(signature)
        return (text + b"." + b64url(signature)).decode()


def ecdsa_raw(der):
    """ASN.1 SEQUENCE of two INTEGERs -> r||s, 32 bytes each (RFC 7518 3.4)."""
    at, parts = 2, []
    for _ in range(2):
        size = der[at + 1]
        parts.append(der[at + 2:at + 2 + size].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + size
    return b"".join(parts)


# ---- HTTP -----------------------------------------------------------------------------------------

class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


def http_request(base, method, path, body=None, headers=None, timeout=15):
    url = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout * TIMES)
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def quote(text):
    return urllib.parse.quote(text, safe="")


# ---- a node ---------------------------------------------------------------------------------------

class Node:
    """One node in a directory of its own. Use as a context manager, or call up() and down()."""

    def __init__(self, engine="embedded", config=None, single=False, state=None, env=None, sim=False, under=()):
        self.under = list(under)  # a program with arguments that starts the others: old_kernel.py
        self.engine, self.single, self.sim = engine, single, sim
        self.config_over = merge(SMALL, config)
        self._is_ours = state is None
        self.state = pathlib.Path(state or tempfile.mkdtemp(prefix="belfry-test-")).resolve()
        self.env = env or {}
        self.info = {}

    def _dev(self, *args, env=None, check=True):
        done = subprocess.run([*self.under, str(ROOT / "scripts/dev"), *args, "--state", str(self.state)],
                              capture_output=True, text=True, env={**os.environ, **self.env, **(env or {})})
        if check and done.returncode:
            raise AssertionError(f"scripts/dev {' '.join(args)} failed:\n{done.stderr}")
        return done

    def up(self, env=None):
        given = self.state / "given.yaml"
        given.write_text(yaml.safe_dump(self.config_over))
        args = ["up", "--engine", self.engine, "--config", str(given), *(["--sim"] if self.sim else [])]
        self.info = json.loads(self._dev(*args, *(["--single"] if self.single else []), env=env).stdout)
        return self

    def down(self):
        if self.info:
            self._dev("down", check=False)
        if self._is_ours and not os.environ.get("BELFRY_KEEP"):
            shutil.rmtree(self.state, ignore_errors=True)

    def __enter__(self):
        return self.up()

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print(self.logs())
        self.down()

    def restart(self, side, env=None):
        self.info = json.loads(self._dev("restart", side, env=env).stdout)
        return self

    def pid(self, side):
        return self.info["pids"][side]

    def is_alive(self, side):
        try:
            stat = pathlib.Path(f"/proc/{self.pid(side)}/stat").read_text()
            return stat.rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def kill(self, side, sig=signal.SIGKILL):
        os.kill(self.pid(side), sig)
        if sig == signal.SIGKILL:
            until(lambda: not self.is_alive(side), 10, f"{side} is gone", poll=0.002)

    def is_ready(self):
        """/readyz says 200 and speaks of the dataplane that is announced now."""
        try:
            if http_request(self.info["admin"], "GET", "/readyz", timeout=2).status != 200:
                return False
            if self.single:
                return True
            generation, _, pid, _ = (self.state / "run/current").read_text().split()
            status = self.admin("GET", "/admin/status").json
            return int(pid) == self.pid("dataplane") and status["dataplane"]["generation"] == generation
        except (OSError, ValueError, KeyError):
            return False

    def wait_ready(self, seconds=10):
        until(self.is_ready, seconds, "/readyz says 200")

    def logs(self, lines=25):
        out = []
        for path in sorted(self.state.glob("*.log")):
            out.append(f"--- {path.name}")
            out += path.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(out)

    # -- API
    @property
    def key(self):
        return self.info["api_key"]

    def request(self, method, path, body=None, key=None, headers=None, timeout=15):
        auth = {} if key == "" else {"Authorization": f"Bearer {key or self.key}"}
        return http_request(self.info["api"], method, path, body, {**auth, **(headers or {})}, timeout)

    @property
    def admin_token(self):
        return (self.state / "data/admin.token").read_text().strip()

    def admin(self, method, path, body=None, headers=None, key=None):
        """A call of the admin port with its credential, or with the API key |key|; |headers| are laid over that."""
        return http_request(self.info["admin"], method, path, body,
                            {"Authorization": f"Bearer {key or self.admin_token}", **(headers or {})})

    def put_user(self, *users):
        for user in users:
            answer = self.request("PUT", f"/v1/users/{quote(user)}", {})
            assert answer.status in (200, 201, 204), answer

    def send(self, user=None, **fields):
        """POST /v1/notifications that must be accepted; returns its notification_id."""
        headers = fields.pop("headers", None)
        event = {"type": "test", "title": "hello", **fields}
        if user is not None:
            event["user_id"] = user
        answer = self.request("POST", "/v1/notifications", event, headers=headers)
        assert answer.status == 202, answer
        return answer.json["notification_id"]

    def inbox(self, user, token=None, **query):
        """All items of a user's inbox, newest first, over every page."""
        items, cursor = [], None
        while True:
            args = {"limit": 100, **query, **({"cursor": cursor} if cursor else {})}
            answer = self.request("GET", f"/v1/users/{quote(user)}/notifications?{urllib.parse.urlencode(args)}",
                                  key=token)
            assert answer.status == 200, answer
            items += answer.json["notifications"]
            cursor = answer.json.get("next_cursor")
            if not cursor:
                return items

    def stored(self, user, count, seconds=10, **query):
        """The inbox once it holds |count| items: a 202 says durable in the log, the inbox follows."""
        return until(lambda: len(items := self.inbox(user, **query)) >= count and items, seconds,
                     f"{count} items in the inbox of {user}")

    # -- tokens and clients
    @property
    def secret(self):
        return (self.state / "jwt_secret").read_bytes()

    def token(self, user, ttl=3600, **claims):
        now = int(time.time())
        return jwt_hs256(self.secret, {"sub": user, "iat": now, "exp": now + ttl, **claims})

    def client(self, user, **options):
        return Client(self, user, **options)

    def trust(self, cert=None):
        """An ssl.SSLContext that trusts this certificate file (default: the node's own)."""
        return ssl.create_default_context(cafile=str(cert or self.state / "tls.pem"))

    def kafka_tool(self, *args, stdin=None):
        done = subprocess.run([str(BUILD / "kafka_tool"), *args], input=stdin, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def produce(self, topic, events, headers=None):
        """Puts (key, event) pairs on a Kafka topic, each with these headers; returns when the broker has them all."""
        lines = "".join(f"{key}\t{json.dumps(e) if isinstance(e, dict) else e}\n" for key, e in events)
        pairs = [f"{name}={value}" for name, value in (headers or {}).items()]
        return self.kafka_tool("produce", self.info["kafka"], topic, *pairs, stdin=lines)

    def ctl(self, *args, check=True):
        done = subprocess.run([str(BUILD / "belfryctl"), "--config", self.info["config"], *args],
                              capture_output=True, text=True, timeout=60 * TIMES)
        if check:
            assert done.returncode == 0, f"belfryctl {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    # -- metrics
    def metrics(self):
        """Every sample of /metrics: {'name{labels}': value}."""
        answer = self.admin("GET", "/metrics")
        assert answer.status == 200, answer
        out = {}
        for line in answer.body.decode().splitlines():
            match = re.match(r"^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)", line)
            if match:
                out[match.group(1)] = float(match.group(2))
        return out

    def metric(self, name, metrics=None, **labels):
        """Sum of a metric over all label sets that contain |labels|. A metric that is not there is an error."""
        metrics = metrics if metrics is not None else self.metrics()
        found = [value for sample, value in metrics.items()
                 if sample.split("{")[0] in (name, name + "_total")
                 and all(f'{k}="{v}"' in sample for k, v in labels.items())]
        assert found, f"no metric {name} {labels or ''}"
        return sum(found)


# ---- WebSocket clients ------------------------------------------------------------------------------

class _Loop:
    """One asyncio loop in a thread of its own: tests are written one step after the other."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, coroutine, seconds):
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(seconds)
        except TimeoutError as e:
            future.cancel()
            raise TimedOut("no answer from the socket") from e


_loop = None


def loop():
    global _loop
    if _loop is None:
        _loop = _Loop()
    return _loop


class Closed(Exception):
    """The server closed the connection."""

    def __init__(self, code, reason):
        super().__init__(f"closed {code} {reason}")
        self.code, self.reason = code, reason


class Client:
    """A belfry.v1.json client on python3-websockets, which nobody here wrote.

    auth: "header", "protocol" (second sub-protocol), "frame" (token in the connect frame), or None.
    connect=False stops before the connect frame. tls: an ssl.SSLContext, and the TLS port.
    """

    def __init__(self, node, user, device=None, resume=None, topics=None, token=None, auth="header", connect=True,
                 seconds=10, welcome=True, tls=None):
        self.node, self.user, self.seconds = node, user, seconds
        self.token = token or node.token(user)
        headers, protocols = {}, ["belfry.v1.json"]
        if auth == "header":
            headers["Authorization"] = f"Bearer {self.token}"
        if auth == "protocol":
            protocols.append(f"bearer.{self.token}")
        url = node.info["wss"] if tls else node.info["ws"]
        self.socket = self._run(lambda: ws_connect(url, ssl=tls, subprotocols=protocols, extra_headers=headers,
                                                   ping_interval=None, max_size=None, max_queue=None,
                                                   open_timeout=seconds * TIMES, close_timeout=2))
        self.seq = {lane: 0 for lane in LANES}
        self.welcome = None
        if not connect:
            return
        frame = {"t": "connect"}
        if auth == "frame":
            frame["token"] = self.token
        if device:
            frame["device"] = device
        if resume is not None:
            frame["resume"] = resume
        if topics is not None:
            frame["topics"] = topics
        self.send(frame)
        if welcome:
            self.welcome = self.expect("welcome")

    def _run(self, make, seconds=None):
        async def wrap():  # made inside the loop: the library binds to the running one
            return await make()
        try:
            return loop().run(wrap(), (seconds or self.seconds) * TIMES + 5)
        except ConnectionClosed:
            raise Closed(self.socket.close_code, self.socket.close_reason) from None

    def send(self, frame):
        self._run(lambda: self.socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame)))

    def recv(self, seconds=None):
        """Next frame as a dict; Closed when the server closed; TimedOut when nothing came."""
        try:
            text = self._run(lambda: asyncio.wait_for(self.socket.recv(), (seconds or self.seconds) * TIMES), seconds)
        except (asyncio.TimeoutError, TimeoutError):
            raise TimedOut(f"{self.user}: no frame within {(seconds or self.seconds) * TIMES:.1f} s") from None
        frame = json.loads(text)
        if frame.get("t") == "n" and "seq" in frame:  # a transient one has none
            self.seq[frame.get("lane", "normal")] = frame["seq"]
        return frame

    def expect(self, kind, seconds=None, **fields):
        """The next frame must be of this kind and hold these fields."""
        frame = self.recv(seconds)
        assert frame.get("t") == kind, f"expected {kind}, got {frame}"
        for name, value in fields.items():
            assert frame.get(name) == value, f"expected {name}={value!r} in {frame}"
        return frame

    def expect_n(self, count, seconds=None):
        return [self.expect("n", seconds) for _ in range(count)]

    def quiet(self, seconds=0.3):
        """Nothing more comes: what was sent before a ping would be here before its pong."""
        self.send({"t": "ping"})
        self.expect("pong")
        try:
            frame = self.recv(seconds / TIMES)
        except TimedOut:
            return
        raise AssertionError(f"unexpected frame {frame}")

    def call(self, frame, ref="r1"):
        """Sends with a ref; returns the ok or error that answers it, and drops nothing else silently."""
        self.send({**frame, "ref": ref})
        answer = self.recv()
        assert answer.get("t") in ("ok", "error") and answer.get("ref") == ref, answer
        return answer

    def ack(self, seq=None, lane="normal"):
        frame = {"t": "ack", "seq": self.seq[lane] if seq is None else seq}
        if lane != "normal":
            frame["lane"] = lane
        self.send(frame)

    def expect_close(self, code, seconds=None):
        """The server closes with this code; frames before it are returned."""
        frames = []
        try:
            while True:
                frames.append(self.recv(seconds))
        except Closed as closed:
            assert closed.code == code, f"expected close {code}, got {closed}; before it {frames}"
        return frames

    def resume(self, lanes=True, b=None):
        """What this client would put into the connect frame of its next connection."""
        out = {"epoch": self.welcome["epoch"], "seq": self.seq["normal"]}
        if lanes:
            out["lanes"] = {"critical": self.seq["critical"], "bulk": self.seq["bulk"]}
        if b is not None:
            out["b"] = b
        return out

    @property
    def is_open(self):
        return self.socket.open

    def close(self):
        with contextlib.suppress(Exception):
            self._run(self.socket.close, 5)

    def abort(self):
        """The network dies: no close frame."""
        loop().loop.call_soon_threadsafe(self.socket.transport.abort)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class RawSocket:
    """Bytes to the WebSocket port, for what a good client never sends."""

    def __init__(self, node, seconds=10):
        port = urllib.parse.urlsplit(node.info["ws"]).port
        self.s = socket.create_connection(("127.0.0.1", port), timeout=seconds * TIMES)

    def upgrade(self, path="/v1/ws", token=None, extra=""):
        auth = f"Authorization: Bearer {token}\r\n" if token else ""
        self.s.sendall((f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        f"Sec-WebSocket-Protocol: belfry.v1.json\r\n{auth}{extra}\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.s.recv(4096)
            if not more:
                break
            head += more
        return head

    def frame(self, payload, opcode=1, fin=True, mask=True, rsv=0):
        key = os.urandom(4)
        size = len(payload)
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if mask else 0
        if size < 126:
            head += bytes([bit | size])
        elif size < 65536:
            head += bytes([bit | 126]) + struct.pack(">H", size)
        else:
            head += bytes([bit | 127]) + struct.pack(">Q", size)
        body = bytes(b ^ key[i % 4] for i, b in enumerate(payload)) if mask else payload
        return head + (key if mask else b"") + body

    def send(self, data):
        self.s.sendall(data)

    def read_frame(self):
        """(opcode, payload), or None at the end of the stream."""
        head = self._exactly(2)
        if head is None:
            return None
        size = head[1] & 0x7f
        if size == 126:
            size = struct.unpack(">H", self._exactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self._exactly(8))[0]
        return head[0] & 0x0f, self._exactly(size) if size else b""

    def close_code(self):
        """Reads to the close frame; None when the stream just ended."""
        try:
            while True:
                got = self.read_frame()
                if got is None:
                    return None
                if got[0] == 8:
                    return struct.unpack(">H", got[1][:2])[0] if len(got[1]) >= 2 else 1005
        except ConnectionResetError:
            return None

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.s.recv(n - len(data))
            if not more:
                return None
            data += more
        return data

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
