"""Many at once: stalled readers, silent sockets, a full node, a drain with progress, what memory will be taken.

The sizes suit a test machine; BELFRY_FULL=1 takes 10,000 stalled sockets (which needs a descriptor limit above it).
"""
import json
import os
import pathlib
import re
import select
import socket
import struct
import subprocess
import threading
import time
import urllib.parse

import pytest

import harness
from harness import RawSocket, until

FULL = bool(os.environ.get("BELFRY_FULL"))
STALLED = 10000 if FULL else 2000
SILENT = 500
# What one stalled socket may cost the dataplane: the queue nodes of what waits for it, never the frames (those are
# shared blocks). 8 frames of 24 bytes, and its own record.
STALLED_BYTES_MAX = 4096

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def rss(node):
    status = pathlib.Path(f"/proc/{node.pid('dataplane')}/status").read_text()
    return sum(int(n) * 1024 for n in re.findall(r"^(?:VmRSS|HugetlbPages):\s+(\d+) kB", status, re.M))


def open_raw(node, user=None, connect=True):
    """A WebSocket that reads as little as it can: the kernel's buffers are small on both sides."""
    port = urllib.parse.urlsplit(node.info["ws"]).port
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    s.settimeout(20 * harness.TIMES)
    s.connect(("127.0.0.1", port))
    auth = f"Authorization: Bearer {node.token(user)}\r\n" if user else ""
    s.sendall((f"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
               f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: belfry.v1.json\r\n{auth}\r\n").encode())
    head = b""
    while b"\r\n\r\n" not in head:
        more = s.recv(512)
        assert more, "the upgrade was refused"
        head += more
    if connect:
        s.sendall(bytes([0x81, 0x80 | 15]) + b"\0\0\0\0" + b'{"t":"connect"}')
    return s


@pytest.fixture(scope="module")
def crowded():
    """A node for many; stalled ones are closed only after the test has looked."""
    config = {"dataplane": {"connections_max": STALLED + 1000, "ring_connections_max": 19000},
              "websocket": {"slow_timeout": 600000, "queue_frames": 8, "presence_timeout": 600000},
              "log": {"level": "debug"},  # the worker's memory, piece by piece, is told at this level
              "topics": {"broadcast": ["news"], "public": ["news"]}}
    with harness.Node(config=config) as node:
        yield node


def test_stalled_sockets_cost_bounded_memory_and_nobody_elses_time(crowded):
    """Sockets that stop reading keep no copy of anything, and those who read are served as before."""
    node = crowded
    reader = node.client("reader")
    before = rss(node)
    stalled = []
    try:
        stalled = [open_raw(node, f"stalled-{i}") for i in range(STALLED)]
        until(lambda: node.metric("belfry_dataplane_connections_welcomed") >= STALLED + 1, 60, "all are welcomed")
        connected = rss(node)
        times = []
        # ever more than the sockets' buffers take: then queues fill, then frames are left to the log
        for i in range(120):
            if i >= 40 and node.metric("belfry_dataplane_frames_queue_full") >= STALLED:
                break
            answer = node.request("POST", "/v1/notifications",
                                  {"broadcast": True, "type": "t", "title": str(i), "data": {"x": "x" * 12000}})
            assert answer.status == 202, answer
            reader.expect("b", 30, title=str(i))
            started = time.monotonic()
            node.send("reader", title=f"direct {i}")
            reader.expect("n", 10, title=f"direct {i}")
            reader.ack()
            times.append(time.monotonic() - started)
        assert node.metric("belfry_dataplane_sends_short") >= STALLED / 2, "the sockets did stall"
        assert node.metric("belfry_dataplane_frames_queue_full") >= STALLED, "queues did fill"
        each = (rss(node) - connected) / STALLED
        assert each < STALLED_BYTES_MAX, f"{each:.0f} B a stalled socket"
        assert node.metric("belfry_dataplane_closes_slow") == 0
        times.sort()
        assert times[len(times) // 2] < 0.25 * harness.TIMES, f"a reader waits: {times}"
        assert (connected - before) / STALLED < 8192, "a connection costs its record, not a buffer"
    finally:
        for s in stalled:
            s.close()
        reader.close()
    until(lambda: node.metric("belfry_dataplane_connections") == 0, 60, "all are gone")
    assert node.metric("belfry_dataplane_io_cq_overflow") == 0


def test_who_comes_back_evicts_the_stale_socket(crowded):
    """A client whose old socket hangs half dead: its new one is served at once, the old one is closed 4003."""
    node = crowded
    stale = [node.client(f"back-{i}", device="phone") for i in range(20)]
    replaced = node.metric("belfry_dataplane_closes_replaced")
    fresh = [node.client(f"back-{i}", device="phone", resume=stale[i].resume()) for i in range(20)]
    for i, client in enumerate(fresh):
        node.send(f"back-{i}", title="here")
        client.expect("n", title="here")
    for client in stale:
        client.expect_close(4003)
    assert node.metric("belfry_dataplane_closes_replaced") - replaced == 20
    for client in fresh:
        client.close()


def test_silent_sockets_die_at_their_deadline(crowded):
    """Half of them say nothing at all, half stop after the upgrade; none keeps its place, others feel nothing."""
    node = crowded
    port = urllib.parse.urlsplit(node.info["ws"]).port
    before = node.metric("belfry_dataplane_closes_no_connect")
    started = time.monotonic()
    mute = [socket.create_connection(("127.0.0.1", port)) for _ in range(SILENT // 2)]
    upgraded = [open_raw(node, connect=False) for _ in range(SILENT // 2)]
    with node.client("lively") as client:
        node.send("lively", title="x")
        client.expect("n", 2, title="x")
    waiting = {s.fileno(): s for s in mute + upgraded}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    first = None
    while waiting and time.monotonic() < started + 20 * harness.TIMES:
        for fd, _ in poll.poll(1000):
            first = first or time.monotonic() - started
            poll.unregister(fd)
            waiting.pop(fd)
    assert not waiting, f"{len(waiting)} silent sockets are still open"
    assert first > 6.5, "nobody was closed early"
    assert time.monotonic() - started < 14 * harness.TIMES
    for s in mute + upgraded:
        s.close()
    until(lambda: node.metric("belfry_dataplane_closes_no_connect") - before >= SILENT // 2, 10, "counted")
    until(lambda: node.metric("belfry_dataplane_connections") == 0, 30, "all are gone")


def test_beyond_connections_max_is_refused_and_counted():
    """A full node refuses at accept; whoever is there stays served, and a place that becomes free is given again."""
    with harness.Node(config={"dataplane": {"connections_max": 100, "ring_connections_max": 100}}) as node:
        port = urllib.parse.urlsplit(node.info["ws"]).port
        inside = [node.client(f"u{i}") for i in range(95)]
        refused_before = node.metric("belfry_dataplane_accepts_refused")
        outside = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        for s in outside:
            s.settimeout(2)
        # those beyond the limit are reset, or wait in the backlog for a place; none gets in
        until(lambda: node.metric("belfry_dataplane_connections") <= 100, 5, "never more than the limit")
        node.send("u0", title="still here")
        inside[0].expect("n", title="still here")
        assert all(c.is_open for c in inside)
        refused = node.metric("belfry_dataplane_accepts_refused") - refused_before
        held = node.metric("belfry_dataplane_connections")
        assert held <= 100 and (refused > 0 or held >= 95), (refused, held)
        for s in outside:
            s.close()
        inside.pop().close()
        with node.client("late", seconds=20) as late:
            node.send("late", title="x")
            late.expect("n", title="x")
        for client in inside:
            client.close()


def test_drain_with_progress(crowded):
    """Everyone is told once, at the rate asked for, with a time to come back that differs; progress is shown."""
    node = crowded
    clients = [node.client(f"drained-{i}") for i in range(60)]
    done = {}

    def drain():
        done["out"] = node.ctl("drain", "--rate", "30", "--reconnect-after", "4000", "--follow", "--timeout", "30", "--json")

    thread = threading.Thread(target=drain)
    started = time.monotonic()
    thread.start()
    times = []
    for client in clients:
        goaway = client.expect("goaway", 20)
        times.append(goaway["reconnect_after_ms"])
        client.expect_close(4000)
    took = time.monotonic() - started
    thread.join(30)
    node.ctl("drain", "--rate", "0")
    assert took > 1.0, "60 at 30 a second are not told at once"
    assert len(set(times)) > 20 and 2000 <= min(times) and max(times) <= 6000, "jitter around what was asked for"
    lines = [json.loads(line) for line in done["out"].stdout.splitlines()]
    left = [line["left"] for line in lines if "left" in line]
    assert left[0] > left[-1] == 0 and left == sorted(left, reverse=True), left
    with node.client("drained-0") as client:
        node.send("drained-0", title="back")
        client.expect("n", title="back")


def test_a_follow_that_cannot_end_says_so(crowded):
    node = crowded
    with node.client("stays"):
        node.ctl("drain", "--rate", "0")
        done = subprocess.run([str(harness.BUILD / "belfryctl"), "--config", node.info["config"], "drain", "--rate", "nine"],
                              capture_output=True, text=True)
        assert done.returncode == 2 and "whole number" in done.stderr


# ---- memory ---------------------------------------------------------------------------------------------------

def memory(node, *args):
    return json.loads(node.ctl("config", "memory", "--json", *args).stdout)


def test_config_memory_is_the_sum_of_the_start(crowded):
    """The same pieces by name as the worker logged when it started with this configuration."""
    said = memory(crowded)
    log = (crowded.state / "dataplane.log").read_text()
    logged = {name.strip(): int(count) * int(size) for name, count, size in
              re.findall(r"worker 0 memory: (.+?)\s+(\d+) x\s+(\d+) B", log)}
    assert {p["holder"]: p["count"] * p["item_bytes"] for p in said["worker"]} == logged
    assert sum(p["bytes"] for p in said["worker"]) == said["worker_bytes_max"]
    assert said["connections"] == STALLED + 1000


def test_config_memory_before_they_come(crowded):
    few, many, secure = memory(crowded), memory(crowded, "--connections", "200000"), memory(
        crowded, "--connections", "200000", "--tls")
    assert many["worker_bytes_max"] > few["worker_bytes_max"]
    assert many["idle_touched_bytes"] <= 256 * 200000
    assert many["idle_total_bytes"] > many["kernel_socket_bytes"] > 600e6
    assert secure["idle_total_bytes"] - many["idle_total_bytes"] == secure["tls_bytes"] > 2e9
    assert "kernel_socket_bytes" in many["measured_elsewhere"]
    text = crowded.ctl("config", "memory", "--connections", "200000").stdout
    assert "connections, hot" in text and "measured elsewhere" in text
    for bad in ("7", "many", "99999999"):
        done = crowded.ctl("config", "memory", "--connections", bad, check=False)
        assert done.returncode == 2 and done.stderr
