"""Unread counts of a whole node: list, welcome, sockets and badges say what the list shows (INB-1, INB-3, PSH-6).

The model beside it is a dict; the seed is printed and taken from BELFRY_SEED. BELFRY_UNREAD_STEPS sets its length.
"""
import contextlib
import http.client
import os
import random
import threading
import time
import urllib.parse

import harness
import pytest
from harness import TimedOut, until
from phones import Phone, PushNode

STEPS = int(os.environ.get("BELFRY_UNREAD_STEPS", "120"))


def page(node, user, **query):
    args = urllib.parse.urlencode({"limit": 100, **query})
    answer = node.request("GET", f"/v1/users/{user}/notifications?{args}")
    assert answer.status == 200, answer
    return answer.json


def shown(node, user):
    """Unread items of the whole list; the count of each page is that of the whole."""
    return sum(not item["read"] for item in node.inbox(user))


def mark(node, user, item, **what):
    return node.request("PATCH", f"/v1/notifications/{item}", what, key=node.token(user))


def delete(node, user, item):
    return node.request("DELETE", f"/v1/users/{user}/notifications/{item}")


class Socket:
    """A client that reads all the time, as an app does: what it was last told, and by which frames."""

    def __init__(self, node, user, device=None):
        self.client = node.client(user, device=device)
        self.unread, self.states, self.answers, self.closed = self.client.welcome["unread"], [], [], None
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while True:
            try:
                frame = self.client.recv(1)
            except TimedOut:
                continue
            except Exception as e:  # the socket's end, whoever ended it
                self.closed = e
                return
            if frame["t"] == "state":
                self.states.append(frame)
            if frame["t"] in ("ok", "error"):
                self.answers.append(frame)
            if "unread" in frame:
                self.unread = frame["unread"]
            elif frame["t"] == "n":
                self.unread += 1

    def close(self):
        with contextlib.suppress(Exception):
            self.client.close()


def test_what_is_gone_is_not_found(node, user):
    """Deleted, unknown, expired: 404 and no frame; a mark that changes nothing: 200 and no frame."""
    for title in ("deleted", "stays"):
        node.send(user, title=title)
    node.stored(user, 2)
    ids = {}
    while "short" not in ids:  # on a slow machine one may expire before it is seen
        node.send(user, title="short", ttl=3)
        with contextlib.suppress(TimedOut):
            ids = {i["title"]: i["id"] for i in node.stored(user, 3, 3 / harness.TIMES)}
    assert delete(node, user, ids["deleted"]).status == 200
    until(lambda: len(node.inbox(user)) == 1, 10, "the short one has expired")
    assert mark(node, user, ids["stays"], read=True).status == 200
    with node.client(user) as client:
        for item in (ids["deleted"], ids["short"], "01234567-89ab-8def-8123-456789abcdef"):
            for what in ({"read": True}, {"read": False}, {"seen": True}, {"archived": True}):
                answer = mark(node, user, item, **what)
                assert answer.status == 404 and answer.headers.get_content_type() == "application/problem+json", answer
            assert delete(node, user, item).status == 404
            for event in ("received", "opened", "dismissed"):
                answer = node.request("POST", f"/v1/notifications/{item}/events", {"event": event}, key=node.token(user))
                assert answer.status == 404, (event, answer)
            for kind in ("read", "seen", "archive"):
                answer = client.call({"t": kind, "id": item})
                assert answer["t"] == "error" and answer["code"] == "not_found", answer
        answer = mark(node, user, ids["stays"], read=True)
        assert answer.status == 200 and answer.json["unread_count"] == 0
        assert client.call({"t": "read", "id": ids["stays"]})["t"] == "ok"
        client.quiet()


def test_archived_is_not_unread(node, user):
    """Archived items have left the list: they count nowhere, also after the count was taken anew."""
    for _ in range(3):
        node.send(user)
    ids = [i["id"] for i in node.stored(user, 3)]
    assert mark(node, user, ids[0], archived=True).json["unread_count"] == 2
    node.send(user, ttl=1)
    node.stored(user, 3)
    until(lambda: len(node.inbox(user)) == 2, 10, "the short one has expired: the count is taken anew")
    assert page(node, user)["unread_count"] == 2
    assert [i["id"] for i in page(node, user, unread_only="true")["notifications"]] == ids[1:]
    answer = node.request("POST", "/v1/notifications/read-all", {}, key=node.token(user))
    assert answer.json == {"changed": 2, "unread_count": 0}
    assert mark(node, user, ids[0], archived=False).json["unread_count"] == 1, "it was never read"


def test_open_sockets_hear_of_expiry(node, user):
    first, second = Socket(node, user), Socket(node, user)
    node.send(user, ttl=2)
    node.send(user, ttl=600)
    until(lambda: first.unread == second.unread == 2, 10, "both arrive")
    until(lambda: first.unread == second.unread == 1, 30, "both hear that one has gone")
    assert page(node, user)["unread_count"] == 1
    first.close(), second.close()


def test_hundreds_at_once_reach_a_slow_socket(node, user):
    """Read-all of 600 while a socket does not read: once it does, its last number is right."""
    count = 600
    for i in range(count):
        node.send(user, title=str(i))
    node.stored(user, count, 60)
    quick, slow = Socket(node, user), node.client(user)
    assert slow.welcome["unread"] == count
    answer = node.request("POST", "/v1/notifications/read-all", {}, key=node.token(user), timeout=60)
    assert answer.json == {"changed": count, "unread_count": 0}
    ids = [i["id"] for i in node.inbox(user)]
    for item in ids[:200]:
        assert mark(node, user, item, read=False).status == 200
    until(lambda: quick.unread == 200, 30, "the quick one is right")
    last = None
    with contextlib.suppress(TimedOut):
        while True:
            last = slow.recv(1)
    assert last["t"] == "state" and last["unread"] == 200 == page(node, user)["unread_count"]
    quick.close(), slow.close()


def test_a_page_agrees_with_its_count(node, user):
    """While events arrive and are read, each answer's count is the number of unread items that it shows."""
    stop = threading.Event()

    def pour():
        while not stop.is_set():
            node.send(user)
    thread = threading.Thread(target=pour)
    thread.start()
    try:
        compared = 0
        while compared < 60:
            got = page(node, user)
            if got["next_cursor"]:
                node.request("POST", "/v1/notifications/read-all", {}, key=node.token(user))
                for item in got["notifications"]:
                    delete(node, user, item["id"])
                continue
            assert got["unread_count"] == sum(not i["read"] for i in got["notifications"])
            compared += 1
    finally:
        stop.set()
        thread.join()


def test_a_kill_between_mark_and_frame(embedded, user):
    """The control process dies when the mark is durable and before the sockets are told: they are told afterwards."""
    node = embedded
    for i in range(3):
        node.send(user, title=str(i))
    ids = [i["id"] for i in node.stored(user, 3)]
    client = node.client(user)
    assert client.welcome["unread"] == 3
    missed = 0
    for n in range(4, 11):  # the n-th commit of the process: the first ones are of its start
        client.last = drained(client)
        node.kill("ctrlplane")
        try:
            node.restart("ctrlplane", env={"BELFRY_FAULT": f"shard_commit:{n}"})
        except AssertionError:  # died while it started
            node.restart("ctrlplane")
            continue
        with contextlib.suppress(OSError, http.client.HTTPException):
            for turn in range(20):
                mark(node, user, ids[turn % 3], read=turn % 6 < 3)
        until(lambda: not node.is_alive("ctrlplane"), 10, "it dies at its commit")
        told = drained(client)["unread"]
        node.restart("ctrlplane")
        want = shown(node, user)
        missed += told != want
        assert page(node, user)["unread_count"] == want
        until(lambda: drained(client)["unread"] == want, 15, f"the socket is told {want}", poll=0.05)
    assert missed > 0, "no death fell between a mark and its frame"
    client.close()


def drained(client):
    """The last number that the socket was told, kept on it."""
    client.last = getattr(client, "last", {"unread": client.welcome["unread"]})
    with contextlib.suppress(TimedOut):
        while True:
            frame = client.recv(0.1)
            if "unread" in frame:
                client.last = frame
    return client.last


# ---- the model -----------------------------------------------------------------------------------------

class Model:
    """Items by id: [read, archived, when it expires]. What is deleted is not there any more."""

    def __init__(self, node, user, rng):
        self.node, self.user, self.rng = node, user, rng
        self.items, self.sockets, self.titles = {}, [], 0

    def alive(self):
        return {k: v for k, v in self.items.items() if v[2] > time.time()}

    def unread(self):
        return sum(not read and not archived for read, archived, _ in self.alive().values())

    def arrive(self):
        """Some, with an item that lives for ever or for seconds."""
        for _ in range(self.rng.choice((1, 1, 1, 5, 20))):
            ttl = self.rng.choice((None, None, 3, 6))
            event = self.node.send(self.user, **({"ttl": ttl} if ttl else {}))
            item = until(lambda: self.find(event), 10, "the event is in the inbox")
            self.items[item["id"]] = [False, False, expiry(item)]

    def find(self, event):
        return next((i for i in self.node.inbox(self.user) if i["notification_id"] == event), None)

    def mark(self):
        if not self.items:
            return
        item = self.rng.choice(list(self.items))
        what = self.rng.choice(({"read": True}, {"read": False}, {"archived": True}, {"archived": False}, {"seen": True}))
        if abs(self.items[item][2] - time.time()) < 1:
            return  # about to expire: either answer is right
        answer = mark(self.node, self.user, item, **what)
        assert answer.status == (200 if item in self.alive() else 404), answer
        if answer.status == 200:
            self.items[item][0] = what.get("read", self.items[item][0])
            self.items[item][1] = what.get("archived", self.items[item][1])

    def delete(self):
        if self.items:
            item = self.rng.choice(list(self.items))
            if abs(self.items[item][2] - time.time()) < 1:
                return
            assert delete(self.node, self.user, item).status == (200 if item in self.alive() else 404)
            del self.items[item]

    def read_all(self):
        answer = self.node.request("POST", "/v1/notifications/read-all", {}, key=self.node.token(self.user))
        assert answer.status == 200 and answer.json["unread_count"] == 0
        for value in self.items.values():
            value[0] = value[0] or (not value[1] and value[2] > time.time())

    def open(self):
        if len(self.sockets) < 4:
            self.sockets.append(Socket(self.node, self.user))

    def close(self):
        if self.sockets:
            self.sockets.pop(self.rng.randrange(len(self.sockets))).close()

    def kill_control(self):
        self.node.kill("ctrlplane")
        self.node.restart("ctrlplane")

    def restart_control(self):
        self.node.restart("ctrlplane")

    def kill_dataplane(self):
        self.node.kill("dataplane")
        self.node.restart("dataplane")
        self.node.wait_ready(30)
        for socket in self.sockets:
            until(lambda s=socket: s.closed, 10, "the socket has ended")
        self.sockets = [Socket(self.node, self.user) for _ in self.sockets]

    def check(self):
        """Everything says the same, once; what expires in between is asked for again."""
        def agree():
            want = self.unread()
            said = {"list": shown(self.node, self.user), "count": page(self.node, self.user)["unread_count"],
                    **{f"socket {i}": s.unread for i, s in enumerate(self.sockets)}}
            self.said = (want, said)
            return want == self.unread() and set(said.values()) == {want}
        try:
            until(agree, 15, "all agree", poll=0.03)
        except TimedOut:
            raise AssertionError(f"the model counts {self.said[0]}, the node says {self.said[1]}") from None
        most = self.unread()  # one may expire while the socket opens
        socket = Socket(self.node, self.user)
        assert self.unread() <= socket.client.welcome["unread"] <= most, "the welcome says it too"
        socket.close()


def expiry(item):
    text = item.get("expires_at")
    if not text:
        return float("inf")
    import datetime
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_model_with_kills(embedded):
    seed = int(os.environ.get("BELFRY_SEED", time.time_ns() % 10**9))
    print(f"BELFRY_SEED={seed} BELFRY_UNREAD_STEPS={STEPS}")
    rng = random.Random(seed)
    user = f"model-{seed}"
    embedded.put_user(user)
    model = Model(embedded, user, rng)
    weights = {"arrive": 30, "mark": 40, "delete": 5, "read_all": 3, "open": 8, "close": 5, "kill_control": 3,
               "restart_control": 2, "kill_dataplane": 1}
    done = {}
    for step in range(STEPS):
        name = rng.choices(list(weights), weights.values())[0]
        done[name] = done.get(name, 0) + 1
        try:
            getattr(model, name)()
            model.check()
        except AssertionError as e:
            raise AssertionError(f"BELFRY_SEED={seed} step {step} ({name}): {e}") from e
    print(done)
    for socket in model.sockets:
        socket.close()


# ---- the badge -----------------------------------------------------------------------------------------

def test_the_badge_is_the_count():
    """What a phone shows beside the app's icon: reads, archives and expiry are off it at the next push."""
    with PushNode() as node:
        node.put_user("ann")
        phone = Phone(node, "ann").register()
        for i in range(3):
            node.send("ann", title=str(i), channels=["inapp", "push"])
        phone.got(3)
        ids = [i["id"] for i in node.stored("ann", 3)]
        mark(node, "ann", ids[0], archived=True)
        node.send("ann", ttl=2, channels=["inapp", "push"])
        phone.got(4)
        until(lambda: len(node.inbox("ann")) == 2, 10, "the short one has expired")
        node.send("ann", title="last", channels=["inapp", "push"])
        badges = [phone.payload(line)["aps"]["badge"] for line in phone.got(5)]
        assert badges[-1] == 3 == page(node, "ann")["unread_count"] and badges[3] == 3, badges
        node.kill("ctrlplane")
        node.restart("ctrlplane")
        node.send("ann", title="after a kill", channels=["inapp", "push"])
        assert phone.payload(phone.got(6)[-1])["aps"]["badge"] == 4 == page(node, "ann")["unread_count"]
