"""An opt-out means nothing more. After its 200 no notification comes to the person, whatever its way: targeted, topic,
broadcast, broadcast topic, resume, what a connection lacked, copies sent again, transient, push at once, by the queue, as
a fallback, retried, redriven; on sockets and event streams that were open and on those opened later, after either process
was killed. Beside each proof another person gets the same. Answers and states are no notifications and go on; an opt-in
brings the next notification and nothing of before."""
import contextlib
import http.client
import threading
import time

import pytest

from harness import TIMES, quote, until
from phones import PushNode
from test_sse import Events

SLOW = 200  # messages of 30 KB: 6 MB, far more than the buffers of two sockets take, one of them small

CONFIG = {"fanout": {"ack_deadline": 2000}, "topics": {"broadcast": ["news"], "public": ["news"]}}


@pytest.fixture(scope="module")
def node():
    with PushNode(apps={"ios": "apns"}, config=CONFIG) as running:
        running.request("PUT", "/v1/topics/news", {"carriage": "broadcast"})
        yield running


@pytest.fixture(autouse=True)
def calm(node):
    yield
    node.providers.calm()


def opt(node, user, out, expect=200):
    answer = node.request("PUT", f"/v1/users/{quote(user)}/preferences", {"opt_out": out})
    assert answer.status == expect, answer


PATHS = {
    "targeted": lambda node, users: node.send(recipients=users, title="targeted"),
    "critical": lambda node, users: node.send(recipients=users, title="critical", priority="critical"),
    "bulk": lambda node, users: node.send(recipients=users, title="bulk", priority="low"),
    "transient": lambda node, users: node.send(recipients=users, title="transient", channels=["inapp"], transient=True),
    "topic": lambda node, users: node.send(topic=f"team-{users[0]}", title="topic"),
    "broadcast": lambda node, users: node.send(broadcast=True, title="broadcast"),
    "broadcast topic": lambda node, users: node.send(topic="news", title="broadcast topic"),
}


def subscribe(node, *users):
    """To a topic of this test alone: the log gives events again after a kill, also to who subscribed since."""
    for user in users:
        assert node.request("PUT", f"/v1/topics/team-{users[0]}/subscriptions/{user}", {}).status == 200


def send_all(node, users):
    for path in PATHS.values():
        path(node, users)


def titles(client, count):
    return sorted(client.recv()["title"] for _ in range(count))


def all_arrive(client):
    assert titles(client, len(PATHS)) == sorted(PATHS)


@pytest.fixture
def two(node, user):
    """The person and another one."""
    other = f"{user}-other"
    node.put_user(other)
    subscribe(node, user, other)
    return user, other


def test_every_path_to_open_sockets(node, two):
    user, other = two
    with node.client(user, topics=["news"]) as client, node.client(other, topics=["news"]) as control, \
            Events(node, user) as stream:
        stream.welcome()
        opt(node, user, True)
        for name, path in PATHS.items():
            path(node, [user, other])
            control.expect("b" if "broadcast" in name else "n", title=name)
            client.quiet(0.1)
        with node.client(user, topics=["news"]) as later:
            send_all(node, [user, other])
            all_arrive(control)
            later.quiet()
            client.quiet()
            opt(node, user, False)
            send_all(node, [user])
            all_arrive(later)
        assert titles(client, len(PATHS)) == sorted(PATHS), "nothing of before, each of now once"
        got = [stream.next()[1]["title"] for _ in range(len(PATHS) - 1)]
        assert sorted(got) == sorted(set(PATHS) - {"broadcast topic"}), "the event stream too"


def test_states_and_answers_go_on(node, two):
    user, other = two
    with node.client(user) as one, node.client(user) as two_:
        node.send(user, title="before")
        item = one.expect("n")["id"]
        two_.expect("n")
        opt(node, user, True)
        one.send({"t": "read", "id": item, "ref": "r"})
        assert one.recv()["t"] == "ok"
        two_.expect("state", id=item, read=True)
        two_.send({"t": "ping"})
        two_.expect("pong")
    with node.client(user) as again:
        assert again.welcome["unread"] == 0


@pytest.mark.parametrize("side", ["ctrlplane", "dataplane"])
def test_after_a_kill(node, two, side):
    """The mask is there again for connections that outlived the control process, and for those of a new dataplane."""
    user, other = two
    client, control = node.client(user, topics=["news"]), node.client(other, topics=["news"])
    opt(node, user, True)
    node.kill(side)
    node.restart(side)
    if side == "dataplane":
        node.wait_ready(30)
        client, control = node.client(user, topics=["news"]), node.client(other, topics=["news"])
    send_all(node, [user, other])
    all_arrive(control)
    client.quiet()
    opt(node, user, False)
    send_all(node, [user])
    all_arrive(client)
    client.close()
    control.close()


@pytest.mark.parametrize("point", ["shard_commit", "ring_publish"])
def test_killed_within_a_change(node, user, point):
    """The control process dies while it changes the preference, between store and worker or before either. Whatever
    the store says afterwards holds on a socket that was open all the time."""
    other = f"{user}-other"
    node.put_user(other)
    said = []
    with node.client(user) as client, node.client(other) as control:
        for number in range(1, 7):
            node.kill("ctrlplane")
            with contextlib.suppress(AssertionError):  # it may die before it is ready: as good as any other moment
                node.restart("ctrlplane", env={"BELFRY_FAULT": f"{point}:{number}"})
            with contextlib.suppress(OSError, http.client.HTTPException):
                for out in (True, False, True, False, True):
                    node.request("PUT", f"/v1/users/{user}/preferences", {"opt_out": out}, timeout=5)
            if node.is_alive("ctrlplane"):
                node.kill("ctrlplane")
            node.restart("ctrlplane")
            said.append(node.request("GET", f"/v1/users/{user}/preferences").json.get("opt_out", False))
            node.send(broadcast=True, title=str(number))
            control.expect("b", title=str(number))
            if said[-1]:
                client.quiet(0.2)
            else:
                client.expect("b", title=str(number))
            opt(node, user, False)
            node.send(broadcast=True, title="in")
            control.expect("b", title="in")
            client.expect("b", title="in")


def test_resume_and_what_was_missed(node, two):
    user, other = two
    clients = {}
    for who in (user, other):
        with node.client(who) as client:
            node.send(who, title="seen")
            client.expect("n")
            client.ack()
            clients[who] = client.resume(b=client.welcome["b"])
    for who in (user, other):
        node.send(who, title="missed")
    node.send(broadcast=True, title="missed by all")
    node.stored(user, 2)
    opt(node, user, True)
    with node.client(other, resume=clients[other]) as control:
        assert titles(control, 2) == ["missed", "missed by all"]
    with node.client(user, resume=clients[user]) as client, \
            Events(node, user, last=None) as stream:
        stream.welcome()
        client.quiet(1)
        opt(node, user, False)
        client.quiet()
        node.send(user, title="new")
        client.expect("n", title="new")
        stream.expect("n", title="new")


def test_copies_of_what_was_not_acknowledged(node, two):
    """Sent again at the deadline (2 s): to the other one, not to who opted out meanwhile."""
    user, other = two
    with node.client(user) as client, node.client(other) as control:
        for who, socket in ((user, client), (other, control)):
            node.send(who, title="once", channels=["inapp"])
            socket.expect("n", title="once")
        opt(node, user, True)
        control.expect("n", seconds=10, title="once")
        client.quiet(1)


def test_a_slow_reader_gets_nothing_of_before(node, two):
    """Frames that wait in the worker's queue, because the socket takes nothing, are withdrawn; what it lacked
    besides is not replayed by itself after the opt-in."""
    user, other = two
    with Events(node, user, buffer=4096) as stream, Events(node, other, buffer=4096) as control:
        for events in (stream, control):
            events.expect("welcome")  # what is stored before it would not be sent
        for i in range(SLOW):
            node.send(recipients=[user, other], title=str(i), data={"x": "x" * 30000}, channels=["inapp"])
        until(lambda: node.request("GET", f"/v1/users/{user}/notifications?limit=1").json["unread_count"] == SLOW, 20,
              "all are stored")
        opt(node, user, True)
        opt(node, user, False)
        node.send(recipients=[user, other], title="after", channels=["inapp"])
        for events, is_out in ((control, False), (stream, True)):
            got = []
            while not got or got[-1] != "after":
                got.append(events.next()[1]["title"])
            assert got[:-1] == [str(i) for i in range(len(got) - 1)], got
            assert (len(got) < SLOW // 2) == is_out, (is_out, len(got))


def test_racing_broadcasts(node, two):
    """Broadcasts all the time: between the 200 of the opt-out and the opt-in none comes, before and after they do."""
    user, other = two
    stop = threading.Event()

    def talk():
        while not stop.is_set():
            node.send(broadcast=True, title=f"{time.monotonic():.6f}")
            node.send(user, title=f"{time.monotonic():.6f}", channels=["inapp"], transient=True)
    with node.client(user) as client:
        talker = threading.Thread(target=talk)
        talker.start()
        try:
            for _ in range(5):
                client.recv()
                opt(node, user, True)
                client.send({"t": "ping"})
                while client.recv()["t"] != "pong":
                    continue  # had left before the 200
                client.quiet(1 * TIMES)
                before = time.monotonic()
                opt(node, user, False)
                # what was on its way through the API and the log just then may come, nothing of the second before
                assert float(client.recv()["title"]) > before - 0.5 * TIMES, "made before the opt-in"
        finally:
            stop.set()
            talker.join()


def test_opting_out_twice_and_in_twice(node, two):
    user, other = two
    with node.client(user) as client:
        for out in (True, True, False, False, True, False):
            opt(node, user, out)
        node.send(user, title="in")
        client.expect("n", title="in")


def suppressed(node, sent, user):
    """Its push ended so, whatever attempts of before stand beside it."""
    until(lambda: any(a["status"] == "suppressed" and a["reason"] == "opt_out"
                      for a in (node.push_status(sent, user) or {"attempts": []})["attempts"]), 40, "suppressed by the opt-out")


# ---- push ---------------------------------------------------------------------------------------------------

def test_push_at_once_topic_and_broadcast(node, two):
    user, other = two
    phone, control = node.phone(user), node.phone(other)
    opt(node, user, True)
    for channels in (["push"], ["inapp", "push"]):
        node.send(recipients=[user, other], channels=channels)
        node.send(topic=f"team-{user}", channels=channels, title="t")
        node.send(broadcast=True, channels=channels)
    control.got(6)
    assert phone.pushes == []
    opt(node, user, False)
    node.send(user, channels=["push"], title="back")
    assert phone.payload(phone.got()[0])["aps"]["alert"]["title"] == "back"


def test_a_fallback_that_waits(node, two):
    user, other = two
    phone, control = node.phone(user), node.phone(other)
    with node.client(user) as client, node.client(other) as other_client:
        node.send(recipients=[user, other], title="behind")
        client.expect("n")
        other_client.expect("n")
        opt(node, user, True)
        control.got(1, 20)
    assert phone.pushes == []


@pytest.mark.parametrize("how", ["retry", "kill"])
def test_a_retry_that_waits(node, two, how):
    user, other = two
    phone, control = node.phone(user), node.phone(other)
    node.providers.faults({"provider": "apns", "kind": "reset", "how": "stream"})
    sent = node.send(recipients=[user, other], channels=["push"])
    until(lambda: phone.pushes and control.pushes, 10, "an attempt each")
    opt(node, user, True)
    if how == "kill":
        node.kill("ctrlplane")
    seen = len(phone.pushes)
    node.providers.calm()
    if how == "kill":
        node.restart("ctrlplane")
    until(lambda: control.accepted, 60, "the other one's retry")
    suppressed(node, sent, user)
    assert len(phone.pushes) == seen, "attempts of before the opt-out, and no other"


def test_a_redriven_letter(node, two):
    user, other = two
    phone, control = node.phone(user), node.phone(other)
    node.providers.faults(phone.answer(400, "BadPriority"), control.answer(400, "BadPriority"))
    sent = node.send(recipients=[user, other], channels=["push"])
    until(lambda: len(node.letters(notification=sent)) == 2, 10, "two letters")
    node.providers.calm()
    opt(node, user, True)
    assert node.admin("POST", "/admin/dlq/redrive", {"event_id": sent}).json["redriven"] == 2
    until(lambda: control.accepted, 10, "the other one's")
    suppressed(node, sent, user)
    assert phone.accepted == []


def test_pushes_that_wait_in_the_dataplane(node, two):
    """Nobody listens at the provider for a moment: the worker holds what it was given. The opt-out takes it back."""
    user, other = two
    phone, control = node.phone(user), node.phone(other)
    node.providers.faults({"provider": "apns", "kind": "outage", "how": "refuse"})
    sent = [node.send(recipients=[user, other], channels=["push"], title=str(i), priority=("low", "normal", "high")[i % 3])
            for i in range(9)]
    opt(node, user, True)
    node.providers.calm()
    until(lambda: len(control.accepted) == len(sent), 60, "the other one gets all")
    for which in sent:
        suppressed(node, which, user)
    assert phone.pushes == []
