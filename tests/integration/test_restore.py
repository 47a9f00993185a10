"""A state directory that was put back from a copy: clients are told so (another epoch, resumed:false), whoever
copied it and however; and what belfryctl backup and restore promise (docs/BACKUP.md)."""
import json
import shutil
import subprocess
import threading

import pytest

from harness import Closed, Node, until


@pytest.fixture
def node():
    with Node() as one:
        yield one


def data(node):
    return node.state / "data"


def stop(node):
    node._dev("down")


def send_and_read(node, client, count):
    for _ in range(count):
        node.send(client.user)
    return client.expect_n(count)


def history(node, user="ann"):
    """Five messages, a copy of the directory, seven more: the epoch that its client knows, at seq 12."""
    node.put_user(user)
    with node.client(user) as client:
        send_and_read(node, client, 5)
        epoch = client.welcome["epoch"]
    stop(node)
    copy = node.state / "yesterday"
    subprocess.run(["cp", "-a", data(node), copy], check=True)
    node.up()
    with node.client(user, resume={"epoch": epoch, "seq": 5}) as client:
        assert client.welcome["resumed"] and client.welcome["epoch"] == epoch, "a clean restart is no restore"
        assert send_and_read(node, client, 7)[-1]["seq"] == 12
    return epoch, copy


def fresh_copy(node, copy):
    shutil.rmtree(data(node))
    subprocess.run(["cp", "-a", copy, data(node)], check=True)


def over_it(node, copy):
    """Files that exist in both keep their inode: they are written over, and get their old times back."""
    subprocess.run(["cp", "-a", f"{copy}/.", data(node)], check=True)
    for path in data(node).rglob("*"):  # what a copier with --delete does
        if not (copy / path.relative_to(data(node))).exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def moved(node, copy):
    shutil.rmtree(data(node))
    shutil.move(copy, data(node))


def tar(node, copy):
    shutil.rmtree(data(node))
    data(node).mkdir()
    packed = subprocess.run(["tar", "-C", copy, "-c", "."], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", data(node), "-x"], input=packed, check=True)


def without_times(node, copy):
    shutil.rmtree(data(node))
    subprocess.run(["cp", "-r", copy, data(node)], check=True)


def check_told(node, epoch, user="ann"):
    """Neither a client above the head nor one inside the numbers that are used again may resume."""
    with node.client(user) as client:
        head = client.welcome["seq"]
        assert client.welcome["epoch"] != epoch, "the epoch of before the restore"
        assert head == 5
        assert [m["seq"] for m in send_and_read(node, client, 4)] == [6, 7, 8, 9]
        fresh = client.welcome["epoch"]
    for seq in (12, 9, 7, 5):
        with node.client(user, device=f"d{seq}", resume={"epoch": epoch, "seq": seq}) as client:
            assert client.welcome["resumed"] is False, f"resumed over a hole at {seq}: {client.welcome}"
            assert client.welcome["epoch"] == fresh and client.welcome["seq"] == 9
    assert len(node.inbox(user)) == 9
    with node.client(user, device="new", resume={"epoch": fresh, "seq": 7}) as client:
        assert client.welcome["resumed"] is True
        assert [m["seq"] for m in client.expect_n(2)] == [8, 9]
    return fresh


@pytest.mark.parametrize("put_back", [fresh_copy, over_it, moved, tar, without_times])
def test_a_copied_directory_begins_an_epoch(node, put_back):
    epoch, copy = history(node)
    stop(node)
    put_back(node, copy)
    node.up()
    fresh = check_told(node, epoch)
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    with node.client("ann", resume={"epoch": fresh, "seq": 9}) as client:
        assert client.welcome["resumed"] and client.welcome["epoch"] == fresh, "told once, not at each start"


def test_the_same_backup_twice_gives_two_epochs(node):
    epoch, copy = history(node)
    seen = {epoch}
    for _ in range(2):
        stop(node)
        fresh_copy(node, copy)
        shutil.rmtree(node.state / "run")  # nothing outside remembers: another machine
        node.up()
        with node.client("ann") as client:
            assert client.welcome["epoch"] not in seen
            seen.add(client.welcome["epoch"])


def test_sockets_that_are_open_through_a_restore_are_told(node):
    epoch, copy = history(node)
    with node.client("ann", resume={"epoch": epoch, "seq": 12}) as client:
        assert client.welcome["resumed"]
        node.kill("ctrlplane")
        fresh_copy(node, copy)
        node.restart("ctrlplane")
        try:
            while True:
                assert client.recv()["t"] == "goaway"
        except Closed as closed:
            assert closed.code == 4000, closed
    check_told(node, epoch)


def test_kill_and_restart_keep_the_epoch(node):
    node.put_user("ann")
    with node.client("ann") as client:
        epoch = client.welcome["epoch"]
        send_and_read(node, client, 2)
    for n in range(4):
        node.kill("ctrlplane")
        node.restart("ctrlplane")
        with node.client("ann", resume={"epoch": epoch, "seq": 2 + n}) as client:
            assert client.welcome["resumed"] and client.welcome["epoch"] == epoch
            send_and_read(node, client, 1)


# ---- belfryctl backup and restore -------------------------------------------------------------------

def test_backup_and_restore(node):
    node.put_user("ann")
    with node.client("ann") as client:
        send_and_read(node, client, 5)
        epoch = client.welcome["epoch"]
    backup = node.state / "backup"
    made = json.loads(node.ctl("--json", "backup", str(backup)).stdout)
    assert made["state"] == "done" and made["bytes_done"] == made["bytes_total"] > 0 and made["epoch"] == epoch
    assert not (data(node) / ".checkpoints").exists()
    assert (backup / "device.key").read_bytes() == (data(node) / "device.key").read_bytes()
    assert json.loads(node.ctl("--json", "restore", str(backup), "--check").stdout)["verified"]
    with node.client("ann", resume={"epoch": epoch, "seq": 5}) as client:
        send_and_read(node, client, 7)
    refused = node.ctl("restore", str(backup), check=False)
    assert refused.returncode != 0 and "stop its control process first" in refused.stderr
    stop(node)
    done = node.ctl("restore", str(backup))
    assert "the former state is in" in done.stdout
    assert len(list(data(node).glob(".before-restore-*/store/CURRENT"))) == 1
    node.up()
    check_told(node, epoch)


def test_a_backup_is_refused_rather_than_half(node):
    there = node.state / "there"
    there.mkdir()
    for dest, why in ((there, "exists already"), (node.state / "no/such", "Make the directory first")):
        done = node.ctl("backup", str(dest), check=False)
        assert done.returncode != 0 and why in done.stderr, done
    assert not list(there.iterdir()) and not list(node.state.glob("*partial*"))
    assert node.admin("POST", "/admin/backup", {"destination": "relative"}).status == 400
    backup = node.state / "backup"
    node.ctl("backup", str(backup))
    stop(node)
    before = sorted(p.name for p in data(node).rglob("*"))
    damaged = next(p for p in (backup / "store").iterdir() if p.suffix == ".sst")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = node.ctl("restore", str(backup), check=False)
    assert done.returncode != 0 and "another checksum" in done.stderr, done
    damaged.unlink()
    done = node.ctl("restore", str(backup), check=False)
    assert done.returncode != 0 and "lacks" in done.stderr, done
    (backup / "MANIFEST.belfry").unlink()
    done = node.ctl("restore", str(backup), check=False)
    assert done.returncode != 0 and "no complete backup" in done.stderr, done
    assert sorted(p.name for p in data(node).rglob("*")) == before, "a refused restore changed the state"
    node.up()


def test_an_interrupted_restore_does_not_start(node):
    backup = node.state / "backup"
    node.ctl("backup", str(backup))
    stop(node)
    (data(node) / "RESTORING").touch()
    done = node._dev("up", "--engine", "embedded", "--config", str(node.state / "given.yaml"), check=False)
    assert done.returncode != 0 and "restore of" in done.stderr, done
    node._dev("down", check=False)
    node.ctl("restore", str(backup))
    node.up()


def test_backup_under_load_holds_all_that_was_accepted_before_it(node):
    users = [f"u{n}" for n in range(8)]
    node.put_user(*users)
    accepted, stop_now = [], threading.Event()

    def write():
        count = 0
        while not stop_now.is_set():
            accepted.append((users[count % len(users)], node.send(users[count % len(users)])))
            count += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len(accepted) > 200, 30, "load")
        for n in range(3):
            before = list(accepted)
            node.ctl("backup", str(node.state / f"backup{n}"))
        until(lambda: len(accepted) > len(before) + 50, 30, "events behind the backup")
    finally:
        stop_now.set()
        writer.join()
    stop(node)
    node.ctl("restore", str(node.state / "backup2"))
    node.up()
    for user in users:
        ids = {event for who, event in before if who == user}
        items = node.stored(user, len(ids), 30)
        seqs = [item["seq"] for item in items]
        assert len(seqs) == len(set(seqs))
        found = {item.get("event_id") or item["id"] for item in items}
        missing = {e for e in ids if not any(f[:16] == e[:16] for f in found)}
        assert not missing, f"{len(missing)} of {len(ids)} events of {user} accepted before the backup are lost"
