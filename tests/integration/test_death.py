"""Death tests (DESIGN 2 "Ownership and death", 4.10; REL-1, REL-7): real processes, kill -9, SIGSTOP, injected faults.

What must hold afterwards, whatever died: nothing lost or doubled, sockets kept when only the control process died,
no stale slot taken, every block free again, no sleep ended only by its timeout, no hugepage file left behind.
"""
import collections
import glob
import http.client
import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time
import urllib.parse

import harness
import pytest
from harness import until
from ledger import Ledger

CONTROL_KILLS = int(os.environ.get("BELFRY_DEATH_KILLS", "200"))
# EAL heap that one start of the control process takes for good (DESIGN 2: about 156 KB).
HEAP_PER_ATTACH = 200 * 1024


def shm(node, *args, check=True):
    done = subprocess.run([str(harness.BUILD / "shm_tool"), args[0], str(node.state / "run"), *map(str, args[1:])],
                          capture_output=True, text=True, timeout=30)
    if check:
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return done


def relaunch(node, side, **env):
    """Starts a side without waiting for readiness; returns the process (ours: it leaves no zombie behind)."""
    with open(node.state / f"{side}.log", "ab") as log:
        process = subprocess.Popen([str(harness.BUILD / f"belfry-{side}"), "--config", node.info["config"]],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=node.state,
                                   start_new_session=True, env={**os.environ, **env})
    adopt(node, side, process.pid)
    return process


def adopt(node, side, pid):
    note = node.state / "dev.json"
    info = json.loads(note.read_text())
    info["pids"][side] = node.info["pids"][side] = pid
    note.write_text(json.dumps(info))


def sound(node, stale=0):
    """The metrics and the shared memory of a node at rest show no trace of a death."""
    def free():
        held = shm(node, "info")["blocks_held"]
        return held == 0 or None
    until(free, 10, "every block is free again")
    metrics = node.metrics()
    assert node.metric("belfry_dataplane_commands_bad_slot", metrics) == stale
    assert node.metric("belfry_dataplane_wakes_by_timeout", metrics) == 0
    assert node.metric("belfry_receipts_wakes_by_timeout", metrics) == 0
    assert node.metric("belfry_dataplane_io_cq_overflow", metrics) == 0


def huge_files(prefix):
    """Files that a generation has on any hugetlbfs mount, and its EAL run directory."""
    mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()
              if line.split()[2] == "hugetlbfs"]
    found = [p for m in mounts for p in glob.glob(f"{m}/**/*{prefix}*", recursive=True)]
    return found + glob.glob(f"/var/run/dpdk/{prefix}*")


def prefix_of(node):
    return (node.state / "run/current").read_text().split()[1]


def node_of(**config):
    return harness.Node(config=harness.merge({"users": {"auto_create": True}}, config))


# ---- the control process, again and again ---------------------------------------------------------------

@pytest.mark.slow
def test_ctrlplane_killed_200_times_in_a_row():
    dice = random.Random(7)
    with node_of(shm={"attaches_max": CONTROL_KILLS + 50}) as node:
        ledger = Ledger(node, 6000, users=20, devices=2, duration=CONTROL_KILLS * 0.4, connections=4).start()
        try:
            before = shm(node, "info")
            for _ in range(CONTROL_KILLS):
                time.sleep(dice.random() * 0.05)  # anywhere in its life, its start included
                ledger.kill("ctrlplane")
                node.restart("ctrlplane")
            report = ledger.finish()
            after = shm(node, "info")
            assert report["ok"], json.dumps(report, indent=1)
            assert report["closes"] == 0, "every socket stayed open"
            assert after["generation"] == before["generation"]
            grown = after["heap_used"] - before["heap_used"]
            per_start = grown / (CONTROL_KILLS + 1)  # the second look is an attach too
            print(f"EAL heap: {per_start / 1024:.0f} KiB a start, {after['heap_free'] >> 20} MiB free")
            assert per_start < HEAP_PER_ATTACH
            sound(node)
        finally:
            ledger.close()


def test_ctrlplane_killed_while_it_starts():
    """Killed at every stage of its start: 0 to 400 ms after exec."""
    with node_of() as node, node.client("u", device="d") as client:
        node.kill("ctrlplane")
        for step in range(20):
            process = relaunch(node, "ctrlplane")
            time.sleep(step * 0.02)
            process.kill()
            process.wait()
        relaunch(node, "ctrlplane")
        node.wait_ready()
        node.send("u", title="after all that")
        client.expect("n", title="after all that")
        client.ack()
        client.quiet()
        sound(node)


# ---- SIGSTOP ------------------------------------------------------------------------------------------------

def test_stopped_ctrlplane_keeps_its_lock():
    """A stopped process is not dead: its successor must refuse, and touch nothing. Let go, it goes on."""
    with node_of() as node, node.client("u", device="d") as client:
        node.send("u", title="before")
        client.expect("n", title="before")
        harness.pause(node.pid("ctrlplane"))
        rings = shm(node, "info")["commands"]
        successor = subprocess.run([str(harness.BUILD / "belfry-ctrlplane"), "--config", node.info["config"]],
                                   capture_output=True, text=True, timeout=20 * harness.TIMES)
        assert successor.returncode == 1 and successor.stderr.strip(), "it refuses and says why"
        assert shm(node, "scribble", 1, 1, check=False).returncode == 1, "nobody else gets the lock either"
        after = shm(node, "info")
        assert [r["head"] for r in after["commands"]] == [r["head"] for r in rings], "no ring was touched"
        assert client.is_open
        os.kill(node.pid("ctrlplane"), signal.SIGCONT)
        node.wait_ready()
        node.send("u", title="let go")
        client.expect("n", title="let go")
        client.ack()
        client.quiet()
        sound(node)


def test_stopped_ctrlplane_dies_beside_its_waiting_successor():
    with node_of() as node, node.client("u", device="d") as client:
        for i in range(10):
            harness.pause(node.pid("ctrlplane"))
            refused = subprocess.run([str(harness.BUILD / "belfry-ctrlplane"), "--config", node.info["config"]],
                                     capture_output=True, timeout=20 * harness.TIMES)
            assert refused.returncode == 1
            node.kill("ctrlplane")
            node.restart("ctrlplane")
            node.send("u", title=str(i))
            client.expect("n", title=str(i))
        client.ack()
        client.quiet()
        sound(node)


def test_stopped_dataplane_is_not_taken_for_dead():
    with node_of() as node, node.client("u", device="d") as client:
        generation = shm(node, "info")["generation"]
        harness.pause(node.pid("dataplane"))
        sent = [node.send("u", title=str(i)) for i in range(20)]  # accepted meanwhile
        time.sleep(3)  # longer than any heartbeat's patience; nothing to poll: nothing must happen
        os.kill(node.pid("dataplane"), signal.SIGCONT)
        assert [n["title"] for n in client.expect_n(20)] == [str(i) for i in range(len(sent))]
        assert shm(node, "info")["generation"] == generation
        client.ack()
        client.quiet()


# ---- between reserve and publish ------------------------------------------------------------------------------

@pytest.mark.parametrize("publish", [1, 2, 3, 5, 10, 30, 80])
def test_killed_between_reserve_and_publish(publish):
    """BELFRY_FAULT=ring_publish:N: SIGKILL in the N-th publish, the slots reserved and filled but not published."""
    with node_of() as node, node.client("u", device="d") as client:
        node.kill("ctrlplane")
        process = relaunch(node, "ctrlplane", BELFRY_FAULT=f"ring_publish:{publish}")
        accepted, stop = [], threading.Event()

        def pour():
            n = 0
            while not stop.is_set():
                headers = {"Idempotency-Key": f"f{n}"}
                try:
                    answer = node.request("POST", "/v1/notifications", {"type": "t", "title": str(n), "user_id": "u"},
                                          headers=headers)
                    if answer.status == 202:
                        accepted.append(n)
                        n += 1
                        continue
                except OSError:
                    pass
                time.sleep(0.005)
        thread = threading.Thread(target=pour)
        thread.start()
        until(lambda: process.poll() is not None, 20, "the fault strikes")
        assert process.returncode == -signal.SIGKILL
        relaunch(node, "ctrlplane")
        node.wait_ready()
        until(lambda: len(accepted) >= publish + 20, 20, "it goes on")
        stop.set()
        thread.join()
        got = client.expect_n(len(accepted))
        assert [n["title"] for n in got] == [str(n) for n in accepted]
        assert [n["seq"] for n in got] == list(range(1, len(accepted) + 1))
        client.ack()
        client.quiet()
        sound(node)


def test_random_bytes_in_every_ring():
    """A slot survives any bytes: counted, dropped, and the next control process goes on."""
    with node_of() as node, node.client("u", device="d") as client:
        written = 0
        for seed in range(1, 6):
            node.kill("ctrlplane")
            written += shm(node, "scribble", 50, seed)["written"]
            until(lambda: all(r["taken"] == r["published"] for r in shm(node, "info")["commands"]), 5, "all slots are taken")
            relaunch(node, "ctrlplane")
            node.wait_ready()
            node.send("u", title=f"after {seed}")
            client.expect("n", title=f"after {seed}")
        client.ack()
        client.quiet()
        assert node.metric("belfry_dataplane_commands_bad_slot") == written
        assert node.is_alive("dataplane")


# ---- the dataplane ----------------------------------------------------------------------------------------------

def test_dataplane_killed_with_receipts_unread():
    """What clients said before the death is in the dead region: it is drained, not lost."""
    with node_of() as node:
        client = node.client("u", device="d")
        events = [node.send("u", title=str(i)) for i in range(10)]
        got = client.expect_n(10)
        harness.pause(node.pid("ctrlplane"))
        client.ack(7)
        client.send({"t": "read", "id": got[0]["id"], "ref": "r"})
        until(lambda: sum(r["published"] - r["released"] for r in shm(node, "info")["receipts"]) >= 2, 5,
              "receipts wait in the ring")
        node.kill("dataplane")
        os.kill(node.pid("ctrlplane"), signal.SIGCONT)
        relaunch(node, "dataplane")
        node.wait_ready()
        until(lambda: next(i for i in node.inbox("u") if i["seq"] == 1)["read"], 5, "the read mark is stored")

        def delivered(event):
            answer = node.request("GET", f"/v1/notifications/{event}/status").json
            state = answer["recipients"][0]["channels"][0]["status"]
            return state in ("delivered", "opened")  # read says more than delivered
        until(lambda: all(delivered(e) for e in events[:7]), 5,
              "the acknowledged ones are delivered")
        assert not any(delivered(e) for e in events[7:])
        resume = client.resume()
        with node.client("u", device="d", resume={**resume, "seq": 7}) as again:
            assert [n["seq"] for n in again.expect_n(3)] == [8, 9, 10]
            again.ack()
            again.quiet()


def test_dataplane_death_keeps_the_api_open():
    """Detached: the API accepts, the log holds, nothing is delivered; then everything is."""
    with node_of() as node:
        client = node.client("u", device="d")
        resume = client.resume()
        pid = node.pid("ctrlplane")
        node.kill("dataplane")
        until(lambda: not node.is_ready(), 5, "/readyz says that the dataplane is away")
        for i in range(20):
            until(lambda i=i: node.request("POST", "/v1/notifications", {"type": "t", "title": str(i), "user_id": "u"},
                                           headers={"Idempotency-Key": f"k{i}"}).status == 202, 5, "accepted meanwhile")
        relaunch(node, "dataplane")
        node.wait_ready()
        assert node.is_alive("ctrlplane") and node.pid("ctrlplane") == pid, "it re-executed itself, it did not die"
        with node.client("u", device="d", resume=resume) as again:
            assert [n["title"] for n in again.expect_n(20)] == [str(i) for i in range(20)]
            again.ack()
            again.quiet()
            sound(node)


def test_dataplane_killed_many_times():
    prefixes = set()
    with node_of() as node:
        seq, resume = 0, None
        for i in range(15):
            prefixes.add(prefix_of(node))
            client = node.client("u", device="d", resume=resume)
            node.send("u", title=str(i))
            seq = client.expect("n", title=str(i))["seq"]
            client.ack()
            client.quiet()
            resume = client.resume()
            node.kill("dataplane")
            node.restart("dataplane")
        assert seq == 15
        alive = prefix_of(node)
        assert len(prefixes) == 15 and alive not in prefixes, "a fresh prefix each start"
        left = [f for p in prefixes for f in huge_files(p)]
        assert not left, f"files of dead generations: {left[:5]}"
        assert huge_files(alive), "the living one has files (or this test looks in the wrong place)"
    assert not huge_files(alive), "a stopped node leaves nothing"


def test_both_killed_at_once():
    prefixes = set()
    with node_of() as node:
        resume, total = None, 0
        for i in range(8):
            prefixes.add(prefix_of(node))
            client = node.client("u", device="d", resume=resume)
            for k in range(25):
                node.send("u", title=f"{i}.{k}")
                total += 1
            client.expect_n(25)
            resume = client.resume()
            for side in ("dataplane", "ctrlplane"):
                os.kill(node.pid(side), signal.SIGKILL)
            until(lambda: not node.is_alive("dataplane") and not node.is_alive("ctrlplane"), 5, "both are gone", poll=0.002)
            for side in random.Random(i).sample(["dataplane", "ctrlplane"], 2):  # either may come first
                relaunch(node, side)
            node.wait_ready()
        with node.client("u", device="d", resume=resume) as client:
            client.ack()
            client.quiet()
            sound(node)
        items = node.inbox("u")
        assert [i["seq"] for i in reversed(items)] == list(range(1, total + 1))
        left = [f for p in prefixes for f in huge_files(p)]
        assert not left, f"files of dead generations: {left[:5]}"
        alive = prefix_of(node)
    assert not huge_files(alive)


def test_killed_node_cleans_up_at_its_next_start():
    """Both killed and nobody there to tidy up: the next start does."""
    with node_of() as node:
        old = prefix_of(node)
        for side in ("dataplane", "ctrlplane"):
            os.kill(node.pid(side), signal.SIGKILL)
        until(lambda: not node.is_alive("dataplane") and not node.is_alive("ctrlplane"), 5, "both are gone")
        assert huge_files(old), "nobody has tidied up yet (or this test looks in the wrong place)"
        relaunch(node, "dataplane")
        relaunch(node, "ctrlplane")
        node.wait_ready()
        until(lambda: not huge_files(old), 5, "the dead generation's files are gone")


def test_contract_of_another_build_is_refused():
    """A region of another layout: the control process says so and the dataplane goes on serving."""
    with node_of() as node, node.client("u", device="d") as client:
        node.kill("ctrlplane")
        current = node.state / "run/current"
        text = current.read_text()
        parts = text.split()
        current.write_text(" ".join(parts[:3] + ["%016x" % (int(parts[3], 16) ^ 1)]) + "\n")
        process = relaunch(node, "ctrlplane")
        try:
            until(lambda: "restart the dataplane" in (node.state / "ctrlplane.log").read_text(), 10, "it says what to do")
            assert client.is_open
        finally:
            process.kill()
            process.wait()
        current.write_text(text)
        relaunch(node, "ctrlplane")
        node.wait_ready()
        node.send("u", title="x")
        client.expect("n", title="x")


@pytest.mark.parametrize("stop", ["a clean stop", "the dataplane's death"])
def test_a_kill_behind_a_clean_stop_keeps_every_message(stop):
    """A clean stop says where a user's sequence ends; what comes after it must not be forgotten by a kill, or its seq
    is given again and the next message takes its place. The control process also stops cleanly, to start over, when
    its dataplane has died."""
    with harness.Node() as node:
        node.put_user("u")
        want = []
        for n in range(3):
            want.append(f"before {n}")
            node.send("u", title=want[-1])
            node.stored("u", len(want))
            if stop == "a clean stop":
                node.restart("ctrlplane")
            else:
                node.kill("dataplane")
                node.restart("dataplane")
            want.append(f"behind {n}")
            node.send("u", title=want[-1])
            node.stored("u", len(want))
            node.kill("ctrlplane")
            node.restart("ctrlplane")
        node.send("u", title="last")
        until(lambda: any(i["title"] == "last" for i in node.inbox("u")), 10, "the last is there")
        items = sorted(node.inbox("u"), key=lambda i: i["seq"])
        assert [i["title"] for i in items] == [*want, "last"]
        assert [i["seq"] for i in items] == list(range(1, len(items) + 1))


def test_the_control_process_starts_over_under_load():
    """When its dataplane dies it executes itself anew, with requests in every stage: those that come meanwhile are told
    to come back (503), none makes it end. Whoever connects anew is answered, by this process or by the next."""
    answers, unanswered, stop = collections.Counter(), [], threading.Event()

    def connect(node):
        url = urllib.parse.urlsplit(node.info["api"])
        return http.client.HTTPConnection(url.hostname, url.port, timeout=10 * harness.TIMES)

    def post(node, connection):
        connection.request("POST", "/v1/notifications", json.dumps({"type": "t", "title": "x", "user_id": "u"}),
                           {"Authorization": f"Bearer {node.key}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        answers[answer.status] += 1

    def ask(node):
        while not stop.is_set():
            try:
                connection = connect(node)
                while not stop.is_set():
                    post(node, connection)
            except (OSError, http.client.HTTPException):
                stop.wait(0.02)  # it is starting over, and the connection has ended

    def ask_anew(node):
        while not stop.is_set():
            connection = connect(node)
            try:
                connection.connect()
                time.sleep(random.random() * 0.01)  # a question that takes its time on the way
                post(node, connection)
            except (OSError, http.client.HTTPException) as why:
                unanswered.append(repr(why))
            connection.close()
    with harness.Node() as node:
        node.put_user("u")
        threads = [threading.Thread(target=how, args=(node,)) for how in (ask, ask_anew) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for n in range(1, 6):
                until(lambda want=answers[202] + 50: answers[202] >= want, 20, "requests are taken")
                before = node.pid("ctrlplane")
                node.kill("dataplane")
                node.restart("dataplane")
                assert node.pid("ctrlplane") == before and node.is_alive("ctrlplane"), f"it ended at death {n}"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(answers) <= {202, 503}, answers
        assert unanswered == []
