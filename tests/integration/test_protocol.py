"""docs/PROTOCOL.md is what the node does: its examples run, and its tables name every frame, code and limit of the source."""
import re

import harness
import pytest
import wire_script
from harness import ROOT
from test_sse import Events

DOC = (ROOT / "docs/PROTOCOL.md").read_text()
SCRIPTS = wire_script.blocks(DOC)
CONFIG = {"topics": {"broadcast": ["news", "news.*", "team.*"], "public": ["news", "news.*"]}}


class Stream(Events):
    """An event stream of a script: opened by a path with a query, opened again with the id that it had."""

    def __init__(self, node, path, person, status, last=None):
        self.made_of = (node, path, person, status)
        query = dict(p.split("=", 1) for p in path.partition("?")[2].split("&") if p)
        super().__init__(node, person, last=last, query=query, expect=status)

    def again(self):
        self.close()
        return Stream(*self.made_of, last=self.last_id)


@pytest.mark.parametrize("number,lines", SCRIPTS, ids=[f"line-{n}" for n, _ in SCRIPTS])
def test_examples_run(request, number, lines):
    options = wire_script.options_of(lines)
    if options is None:
        wire_script.Script(request.getfixturevalue("embedded"), lines, Stream).run()
        return
    with harness.Node(config=harness.merge(CONFIG, options), single=True) as node:
        wire_script.Script(node, lines, Stream).run()


def test_an_example_that_lies_fails(embedded):
    """The runner compares whole frames, values and codes."""
    for lie in (["a opens as ann", 'a > {"t":"connect"}', 'a < {"t":"welcome"}'],
                ["a opens as ann", 'a > {"t":"ping"}', "a closed 4401"],
                ["a opens as ann by nothing", 'a > {"t":"connect"}', 'a < {"t":"pong"}'],
                ["a opens as ann", 'a > {"t":"ack","seq":0}', "a closed 4400", 'a < {"t":"pong"}'],
                ["a opens /v1/sse as ann = 403"], ['api POST /v1/notifications {"user_id":"ann","type":"t","title":"x"} = 400']):
        with pytest.raises(AssertionError):
            wire_script.Script(embedded, lie, Stream).run()
    assert len(SCRIPTS) >= 12


def source(path):
    return (ROOT / path).read_text()


def test_every_frame_and_code_is_in_the_tables():
    rows = {cell.strip(" `") for line in DOC.splitlines() if line.startswith("|") for cell in line.split("|")[1:2]}
    named = {word.strip("` ") for row in rows for word in re.split(r"[,/]| or ", row)}
    kinds = re.findall(r'\[BF_CM_\w+\] = \{"(\w+)"', source("dataplane/session/client_msg.c"))
    assert len(kinds) == 9 and set(kinds) <= named, set(kinds) - named
    server = set(re.findall(r'\{\\"t\\":\\"(\w+)\\"', source("ctrlplane/publish/frames.c") + source("dataplane/session/client_msg.c")))
    assert {"welcome", "n", "goaway"} <= server and server <= named, server - named
    closes = set(re.findall(r"BF_CLOSE_\w+ = (\d+)", source("include/belfry/base/limits.h")))
    closes |= {"1000", "1002", "1003", "1007", "1009"}
    assert len(closes) > 12 and closes <= named, closes - named
    errors = set(re.findall(r'answer_error\(s, slot, "(\w+)"', source("dataplane/session/session.c")))
    errors |= set(re.findall(r'refuse\(\w+, "(\w+)"', source("dataplane/session/client_msg.c")))
    errors |= set(re.findall(r'bf_frame_error\(frame, sizeof\(frame\), "(\w+)"', source("ctrlplane/fanout/connect.c")))
    assert {"not_found", "rate_limited", "bad_field"} <= errors and errors | {"bad_json"} <= named, errors - named


def test_limits_are_those_of_the_source():
    """Rows of the limit table: a constant of base/limits.h, or an option with its default."""
    text = source("include/belfry/base/limits.h")
    constants = {name: eval(value.replace("u", ""))  # noqa: S307 (numbers of our own header)
                 for name, value in re.findall(r"#define (BF_\w+_(?:MAX|MS|S)) +(\(?[\d\w* ]+\)?)$", text, re.M)}
    options = dict(re.findall(r'X\(\w+, "([\w.]+)", \w+, \d+, \d+, "?([\w.]*)"?,', source("include/belfry/conf/options.def")))
    limits = re.findall(r"^\|[^|]+\| ([\d,]+) ?(\w*) \| `([\w.]+)` \|", DOC, re.M)
    assert len(limits) >= 14
    for number, unit, name in limits:
        value = int(number.replace(",", "")) * {"KiB": 1024, "MiB": 1024 * 1024}.get(unit, 1)
        value *= 1000 if unit == "s" and not name.endswith("_S") and name != "websocket.lifetime" else 1
        known = constants[name] if name in constants else int(options[name])
        assert value == known, f"{name} is {known}, the document says {number} {unit}"
