"""Text that meets a bound or a terminal: cut between characters, shown escaped (belfryctl and logs)."""
import contextlib
import json
import re
import unicodedata

import pytest
from harness import Closed, quote, until

CONFIG = {"users": {"auto_create": True}}
EVIL = "ann\x1b[2J\x1b]0;owned\x07\n2026-01-01T00:00:00.000Z error ctrlplane forged\u202egpj.\u009b31m"
TITLE = "title \x1b[31m\nred\u2066"
SEEN = r"ann\x1b[2J\x1b]0;owned\x07\n2026-01-01T00:00:00.000Z error ctrlplane forged\u{202e}gpj.\u{9b}31m"
CHARACTERS = ("a", "\u00e9", "\u20ac", "\U0001f514")


def is_clean(text):
    """Nothing but what a terminal shows, and the ends of lines."""
    return not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")]


# ids that would move a terminal, and how each is shown; a node may refuse some of them at the door
IDS = [(EVIL, SEEN), ("ann\u202egpj.exe", r"ann\u{202e}gpj.exe"), ("ann", "ann")]
DEVICES = [("\x1b]0;x\x07", r"\x1b]0;x\x07"), ("tab\u2066let", r"tab\u{2066}let"), ("d", "d")]


def first_user(node):
    for user, seen in IDS:
        if node.request("PUT", f"/v1/users/{quote(user)}", {}).status in (200, 201, 204):
            return user, seen
    raise AssertionError("not even a plain id is taken")


def first_socket(node):
    for user, seen in IDS:
        for device, device_seen in DEVICES:
            with contextlib.suppress(Closed):
                return node.client(user, device=device), seen, device_seen
    raise AssertionError("not even a plain id is taken")


def test_trace_shows_ids_and_titles_escaped(node):
    user, seen = first_user(node)
    event = node.send(user, title=TITLE)
    node.stored(user, 1)
    trace = node.ctl("trace", event).stdout
    assert seen in trace and is_clean(trace), trace
    inbox = node.ctl("trace", "--user", user).stdout
    assert r"title \x1b[31m\nred\u{2066}" in inbox and is_clean(inbox), inbox
    as_json = json.loads(node.ctl("--json", "trace", event).stdout)
    assert as_json["recipients"][0]["user_id"] == user, "--json is for programs: as it is"


def test_connections_show_ids_and_devices_escaped(node):
    client, seen, device = first_socket(node)
    with client:
        shown = until(lambda: (text := node.ctl("connections").stdout) and seen in text and text, 10, "the connection")
        assert is_clean(shown) and device in shown, shown


def test_dead_letters_show_reasons_and_bodies_escaped(kafka):
    """What came from Kafka could not be refused at a door."""
    bad = json.dumps({"type": "t", "title": "x", "user_id": "u", "channels": [EVIL]}, ensure_ascii=False)
    kafka.produce("belfry.events.transactional", [("u", bad)])
    text = until(lambda: (out := kafka.ctl("dlq", "list").stdout) and r"\x1b[2J" in out and out, 20, "the letters")
    assert is_clean(text), text
    event = re.search(r"ingest +(\S+)", text).group(1)
    assert is_clean(kafka.ctl("dlq", "show", event).stdout)


def test_refusals_on_a_terminal(embedded):
    done = embedded.ctl("trace", "--user", EVIL.replace("\n", "\x1b"), "--\x1b[31mwhat", check=False)
    assert done.returncode != 0 and is_clean(done.stderr) and r"\x1b[31m" in done.stderr, done.stderr


@pytest.mark.parametrize("character", CHARACTERS[1:])
def test_problems_quote_whole_characters(embedded, character):
    """A field's name of any length: the problem names it up to a bound, never half a character, and goes on after it."""
    for length in range(12, 72):
        name = "x" * (length % 4) + character * length
        answer = embedded.request("POST", "/v1/notifications", json.dumps({"type": "t", "user_id": "u", name: 1}).encode())
        assert answer.status == 400, answer
        detail = json.loads(answer.body.decode("utf-8"))["detail"]
        quoted = re.match(r"'(.*)' is no field of an event; the API description lists them$", detail)
        assert quoted, detail
        assert name.startswith(quoted.group(1)) and len(quoted.group(1).encode()) > 60 - 4 or quoted.group(1) == name


def test_log_lines_are_lines(embedded):
    """Whatever was sent in this module, the log has one well-formed entry a line."""
    for log in embedded.state.glob("*plane.log"):
        for line in log.read_text(encoding="utf-8").splitlines():
            assert re.match(r"\d{4}-\d\d-\d\dT\S+Z (error|warn|info|debug) (ctrlplane|dataplane) |\{|\[|EAL|TELEMETRY", line), line
            assert is_clean(line), line
