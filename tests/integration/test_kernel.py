"""Older kernels: what their io_uring lacks is said at start and done another way, or the start says which kernel is
needed. The lack is played by tests/support/old_kernel.py; scripts/vm runs these and the others on real ones.

Covers DESIGN 7 (features are probed at start and fall back), OPS-1.
"""
import threading
import time
import urllib.parse

import harness
import pytest
from harness import until
from test_tls import open_many, set_admission
from test_tls import test_connections_of_one_address  # noqa: F401  (again, by addresses that come with accepts)

REGISTER_PROBE, REGISTER_FILE_ALLOC_RANGE, REGISTER_FILES2 = 8, 25, 13
OLD = harness.ROOT / "tests/support/old_kernel.py"


def refuse(*what):
    return [str(OLD), *(word for refused in what for word in ("--refuse", refused)), "--"]


@pytest.fixture(scope="module")
def embedded():
    config = {"tls": {"port": 0}, "topics": {"broadcast": ["news"], "public": ["news"]}}
    with harness.Node(config=config, under=refuse(f"register:{REGISTER_PROBE}")) as node:
        yield node


def dataplane_log(node):
    return (node.state / "dataplane.log").read_text()


def test_what_is_missing_is_said(embedded):
    log = dataplane_log(embedded)
    assert "has no futex (Linux 6.7 has)" in log, log
    assert "has no socket options (Linux 6.7 has)" in log, log


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


def test_the_limit_goes_and_accepts_come_in_bursts_again(embedded, user):
    """After test_connections_of_one_address: the one multishot accept serves many at a time."""
    clients = [embedded.client(user, device=str(i)) for i in range(8)]
    threads = [threading.Thread(target=client.__enter__) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    embedded.send(user, title="to all")
    for client in clients:
        client.expect("n", title="to all")
        client.__exit__(None, None, None)


@pytest.mark.parametrize("under", [(), refuse(f"register:{REGISTER_PROBE}")], ids=["this", "old"])
def test_several_rings(under):
    """A worker with more connections than a table holds: later rings serve as the first does, and the limit of an
    address counts over all of them."""
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
        set_admission(node, per_address=100)
        try:
            # those that were there before the limit came are not counted
            more = open_many(node, port, 30)
            assert len(more) == 30
        finally:
            for s in filling + more:
                s.close()
        until(lambda: node.metric("belfry_dataplane_connections") == 0, 40, "all are gone")
        kept = open_many(node, port, 110)
        assert len(kept) == 100
        for s in kept:
            s.close()


def test_a_stop_is_clean(embedded):
    began = time.monotonic()
    embedded.restart("dataplane")
    assert time.monotonic() - began < 20 * harness.TIMES
    assert dataplane_log(embedded).count("has no futex") == 2, "the new process looked for itself"


@pytest.mark.parametrize("refused", ["setup", f"register:{REGISTER_FILES2}", f"register:{REGISTER_FILE_ALLOC_RANGE}"])
def test_too_old_says_what_is_needed(refused):
    """No ring, no sparse table or no range in it: there is no way without, so the start ends and says why."""
    node = harness.Node(under=refuse(refused))
    try:
        with pytest.raises(AssertionError, match="too old; Belfry needs Linux 6.1 or newer"):
            node.up()
    finally:
        node.down()
