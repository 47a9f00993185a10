"""An erased person's texts are nowhere in the state directory: not in data files, write-ahead logs, manifests or logs
(docs/ERASURE.md). The files are read as bytes. The words are random letters: compression leaves the first
occurrence in a block as it is, which the tests check before they erase."""
import json
import os
import secrets
import signal
import string
import time

import harness
import pytest
from harness import Node, TimedOut, quote, until
from phones import PushNode

OTHERS = 3
OTHERS_ITEMS = 10


class Person:
    """Somebody with words that nobody else has, in every kind of row."""

    def __init__(self):
        word = lambda: "".join(secrets.choice(string.ascii_letters) for _ in range(20))
        self.user = f"u-{word()}"
        self.title, self.body, self.data, self.email, self.late = (word() for _ in range(5))
        self.phone = "+49" + "".join(secrets.choice("0123456789") for _ in range(12))
        self.words = [self.title, self.body, self.data, self.email, self.phone, self.late]
        self.all = [*self.words, self.user]

    def fill(self, node):
        profile = {"email": f"{self.email}@example.org", "phone": self.phone}
        answer = node.request("PUT", f"/v1/users/{quote(self.user)}", profile)
        assert answer.status == 201, answer
        node.send(self.user, title=self.title, body=self.body, data={"x": self.data}, priority="critical")
        node.send(self.user, title=self.title, transient=True)
        for n in range(20):
            node.send(self.user, title=f"{self.title} {n}", body=self.body * 5, collapse_key=self.data)
        node.stored(self.user, 21)

    def erase(self, node):
        answer = node.request("DELETE", f"/v1/users/{quote(self.user)}")
        assert answer.status == 200, answer


@pytest.fixture
def node():
    with Node() as one:
        yield one


@pytest.fixture
def person():
    return Person()


def found(node, words):
    """(file, word) of each word that any file of the state holds. What the test wrote itself is not the node's."""
    out = []
    for path in node.state.rglob("*"):
        if not path.is_file() or path.name in ("given.yaml", "belfry.yaml", "dev.json"):
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # replaced by a newer one meanwhile
        out += [(str(path.relative_to(node.state)), word) for word in words if word.encode() in content]
    return out


def fill_others(node):
    for n in range(OTHERS):
        node.put_user(f"other{n}")
        for i in range(OTHERS_ITEMS):
            node.send(f"other{n}", title=f"bleibt-{n}-{i}", body="weiter " * 20)
        node.stored(f"other{n}", OTHERS_ITEMS)


def check_others(node):
    for n in range(OTHERS):
        titles = sorted(i["title"] for i in node.stored(f"other{n}", OTHERS_ITEMS))
        assert titles == sorted(f"bleibt-{n}-{i}" for i in range(OTHERS_ITEMS))


def check_gone(node, words, seconds=15):
    try:
        until(lambda: not found(node, words), seconds, "the person's words are gone", poll=0.2)
    except TimedOut:
        raise AssertionError(f"still there: {found(node, words)}") from None


def restart(node):
    node._dev("down")
    node.up()


def test_nothing_is_left_anywhere(node, person):
    fill_others(node)
    person.fill(node)
    missing = set(person.all) - {word for _, word in found(node, person.all)} - {person.late}
    assert not missing, "what is not found before says nothing afterwards"
    person.erase(node)
    check_gone(node, person.all)
    check_others(node)
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    check_gone(node, person.all)
    check_others(node)
    assert node.request("GET", f"/v1/users/{quote(person.user)}").status == 404


def test_a_stop_finishes_it(node, person):
    fill_others(node)
    person.fill(node)
    person.erase(node)
    node._dev("down")
    assert not found(node, person.all)
    node.up()
    check_others(node)


def test_data_files_of_former_starts_are_rewritten(node, person):
    person.fill(node)
    restart(node)
    node.send(person.user, title=person.late)
    fill_others(node)
    until(lambda: person.late in [n["title"] for n in node.inbox(person.user)], 10, "the last text is in the store too")
    restart(node)
    inside = {word for name, word in found(node, person.all) if name.endswith(".sst")}
    # a word of which four letters stand earlier in its block may be cut in two by the compression: hardly two of four
    assert len({person.title, person.body, person.late, person.user} & inside) >= 3, "they lie in data files"
    person.erase(node)
    check_gone(node, person.all)
    check_others(node)


@pytest.mark.parametrize("step", range(1, 13))
def test_killed_in_the_middle_it_goes_on(node, person, step):
    """BELFRY_FAULT=erase_step:N: SIGKILL in the N-th step after the answer: rows, log, each data file, the end."""
    fill_others(node)
    person.fill(node)
    node.kill("ctrlplane")
    node.restart("ctrlplane", env={"BELFRY_FAULT": f"erase_step:{step}"})
    person.erase(node)
    until(lambda: not node.is_alive("ctrlplane"), 15, "the fault strikes")
    node.restart("ctrlplane")
    assert node.request("GET", f"/v1/users/{quote(person.user)}").status == 404
    check_gone(node, person.all)
    check_others(node)


@pytest.mark.parametrize("after_s", [0, 2])
def test_killed_before_it_begins_it_begins(node, person, after_s):
    fill_others(node)
    person.fill(node)
    person.erase(node)
    time.sleep(after_s)  # which instant the kill meets is what varies; nothing is waited for
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    check_gone(node, person.all)
    check_others(node)


def test_not_answered_it_is_done_or_not_begun(node, person):
    person.fill(node)
    harness.pause(node.pid("dataplane"))  # nobody confirms: the answer waits
    try:
        answer = node.request("DELETE", f"/v1/users/{quote(person.user)}")
        assert answer.status == 503
        detail = json.loads(answer.body)["detail"]
        assert "nothing was changed" not in detail and "may have been done" in detail, "we were not told"
    finally:
        os.kill(node.pid("dataplane"), signal.SIGCONT)
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    if node.request("GET", f"/v1/users/{quote(person.user)}").status == 200:
        person.erase(node)
    check_gone(node, person.all)


def test_somebody_new_with_the_same_id_keeps_what_is_theirs(node, person):
    person.fill(node)
    person.erase(node)
    node.put_user(person.user)
    node.send(person.user, title="neues Leben", body="ganz anders")
    for _ in range(2):
        assert [i["title"] for i in node.stored(person.user, 1)] == ["neues Leben"]
        check_gone(node, person.words)
        node.kill("ctrlplane")
        node.restart("ctrlplane")


def test_many_at_once_under_load(node):
    fill_others(node)
    people = [Person() for _ in range(6)]
    for one in people:
        one.fill(node)
    for one in people:
        one.erase(node)
        for n in range(OTHERS):
            node.send(f"other{n}", title="dazwischen")
    check_gone(node, [word for one in people for word in one.all])
    for n in range(OTHERS):
        assert len(node.stored(f"other{n}", OTHERS_ITEMS + len(people))) == OTHERS_ITEMS + len(people)
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    for n in range(OTHERS):
        assert len(node.stored(f"other{n}", OTHERS_ITEMS + len(people))) == OTHERS_ITEMS + len(people)


def test_pushes_that_wait_fly_or_died(person):
    """Rows of the queue, dead letters, a push that is at its provider while its user goes."""
    with PushNode() as node:
        node.put_user(person.user)
        dead, waits = (node.phone(person.user) for _ in range(2))
        flies = node.phone(person.user, "android")
        node.providers.faults(dead.answer(400, "BadPriority"), waits.answer(503, "ServiceUnavailable"))
        sent = node.send(person.user, title=person.title, body=person.body, data={"x": person.data})
        until(lambda: node.letters(notification=sent), 10, "a dead letter")
        flies.got(1)
        node.providers.faults({"provider": "fcm", "kind": "stall"})  # and one that is at its provider when they go
        node.send(person.user, title=person.title, body=person.body)
        flies.got(2, attempts=True)
        tokens = [dead.token, waits.token, flies.token]
        person.erase(node)
        words = [person.title, person.body, person.data, person.user, *tokens]
        at_node = lambda: [(name, word) for name, word in found(node, words) if not name.startswith("sim/")]
        until(lambda: not at_node(), 15, "the pushes' words are gone", poll=0.2)
        assert not node.letters(notification=sent)
        node.kill("ctrlplane")
        node.restart("ctrlplane")
        assert not at_node()
