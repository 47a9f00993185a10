"""Older kernels: what their io_uring lacks is said at start and done another way, or the start says which kernel is
needed. The lack is played by tests/support/old_kernel.py; scripts/vm runs these and the others on real ones.

Covers DESIGN 7 (features are probed at start and fall back), OPS-1.
"""
import re
import socket
import time
import urllib.parse

import harness
import pytest
from harness import until
from test_tls import open_many, set_admission
from test_tls import test_connections_of_one_address  # noqa: F401  (again, on ordinary descriptors)

REGISTER_PROBE, REGISTER_FILES2 = 8, 13
OLD = harness.ROOT / "tests/support/old_kernel.py"


def refuse(*what):
    return [str(OLD), *(word for refused in what for word in ("--refuse", refused)), "--"]


# neither futex nor direct descriptors, as on Linux 6.1
LINUX_6_1 = refuse(f"register:{REGISTER_PROBE}", f"register:{REGISTER_FILES2}")


@pytest.fixture(scope="module")
def embedded():
    config = {"tls": {"port": 0}, "topics": {"broadcast": ["news"], "public": ["news"]}}
    with harness.Node(config=config, under=LINUX_6_1) as node:
        yield node


def dataplane_log(node):
    return (node.state / "dataplane.log").read_text()


def test_what_is_missing_is_said(embedded):
    log = dataplane_log(embedded)
    assert "has no futex (Linux 6.7 has)" in log, log
    assert "ordinary ones are used" in log, log


def test_commands_arrive_without_a_futex(embedded, user):
    """Each is enqueued while the worker sleeps; nothing but its own look at the rings can wake it."""
    with embedded.client(user) as client:
        for i in range(20):
            sleeps = embedded.metric("belfry_dataplane_sleeps")
            until(lambda: embedded.metric("belfry_dataplane_sleeps") > sleeps + 5, what="the worker sleeps")
            embedded.send(user, title=str(i))
            client.expect("n", title=str(i))
        client.ack()
        assert client.call({"t": "sub", "topic": "news"})["t"] == "ok"
        embedded.request("POST", "/v1/notifications", {"type": "t", "title": "all", "topic": "news"})
        client.expect("b", title="all")


@pytest.mark.parametrize("under", [(), LINUX_6_1], ids=["this", "old"])
def test_several_rings(under):
    """A worker with more connections than a table holds: later rings serve as the first does, and the limit of an
    address counts over all of them. Ordinary descriptors are all on one."""
    config = {"dataplane": {"connections_max": 150, "ring_connections_max": 64}}
    with harness.Node(config=config, under=under) as node:
        port = urllib.parse.urlsplit(node.info["ws"]).port
        filling = open_many(node, port, 80)  # 60 are 95% of the first ring
        assert len(filling) == 80
        node.put_user("last")
        with node.client("last") as client:
            for i in range(5):
                node.send("last", title=str(i))
                client.expect("n", title=str(i))
            client.quiet()
        for s in filling:
            s.close()
        until(lambda: node.metric("belfry_dataplane_connections") == 0, 40, "all are gone")
        set_admission(node, per_address=100)
        kept = open_many(node, port, 110)
        assert len(kept) == 100
        for s in kept:
            s.close()


@pytest.mark.parametrize("under", [(), LINUX_6_1], ids=["this", "old"])
def test_who_is_closed_sees_it_and_is_gone(under):
    """Also while somebody else is idle: kernels before 6.13 kept what a direct descriptor had closed until all requests
    before it had ended, that is as long as an idle connection lives."""
    with harness.Node(under=under) as node:
        node.put_user("idle")
        url = urllib.parse.urlsplit(node.info["ws"])
        with node.client("idle") as idle:
            for _ in range(50):
                with socket.create_connection((url.hostname, url.port), timeout=10 * harness.TIMES) as s:
                    s.sendall(b"\x00\x01 this is no request\r\n\r\n")
                    while s.recv(4096):
                        pass
            until(lambda: node.metric("belfry_dataplane_connections") == 1, what="only the idle one is left")
            until(lambda: sockets_of(url.port) == 1, what="its socket is the only one that the kernel has")
            idle.quiet()


def sockets_of(port):
    """Connected sockets on the server's side that are not ours to wait for (6: TIME_WAIT has no owner)."""
    count = 0
    for line in open("/proc/net/tcp").readlines()[1:]:
        local, state = line.split()[1], int(line.split()[3], 16)
        count += int(local.split(":")[1], 16) == port and state not in (6, 10)
    return count


def test_few_ordinary_descriptors():
    """The limit of open files is that of connections: said at start, and beyond it they wait in the backlog."""
    limit = ["prlimit", "--nofile=1600:1600"]
    with harness.Node(under=[*limit, *LINUX_6_1], config={"dataplane": {"push_connections_max": 0}}) as node:
        log = dataplane_log(node)
        assert "raise the limit of open files" in log, log
        room = int(re.search(r"may have 1600: (\d+) connections a worker", log)[1])
        port = urllib.parse.urlsplit(node.info["ws"]).port
        sockets = [socket.create_connection(("127.0.0.1", port), timeout=10 * harness.TIMES) for _ in range(room + 50)]
        until(lambda: node.metric("belfry_dataplane_accepts") >= room, what="it is full")
        assert node.metric("belfry_dataplane_accepts_refused") == 0, "nobody was thrown away"
        for s in sockets[:room]:
            s.close()
        until(lambda: node.metric("belfry_dataplane_accepts") == room + 50, what="the others get in")
        for s in sockets[room:]:
            s.close()


def test_a_stop_is_clean(embedded):
    began = time.monotonic()
    embedded.restart("dataplane")
    assert time.monotonic() - began < 20 * harness.TIMES
    assert dataplane_log(embedded).count("has no futex") == 2, "the new process looked for itself"


def test_too_old_says_what_is_needed():
    """No ring with the flags that are required: there is no way without, so the start ends and says why."""
    node = harness.Node(under=refuse("setup"))
    try:
        with pytest.raises(AssertionError, match="too old; Belfry needs Linux 6.1 or newer"):
            node.up()
    finally:
        node.down()
