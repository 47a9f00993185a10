"""Runs the scripts of docs/PROTOCOL.md against a node, so that its examples cannot rot.

A script is a fenced block of kind `wire`; each line is one step, two spaces and # begin a comment:

  node websocket.lifetime=2 ...           first line only: a node of its own with these options
  NAME opens [PATH] as PERSON [by header|protocol|frame|nothing]      a WebSocket (PATH /v1/ws) or event stream (/v1/sse...)
  NAME opens PATH as PERSON = 403         it is refused with this HTTP status
  NAME > {...}                            NAME sends this frame
  NAME < {...}                            the next frame that NAME gets is exactly this: no member more, none less
  NAME closed 4003                        NAME's connection ends with this code; nothing came before
  NAME leaves                             NAME closes
  NAME comes back                         an event stream again, with the last id that it had
  api POST /v1/... {...} = 202            a producer's call
  PERSON has 3 notifications              waits until that many are in the inbox
  ctl drain --rate 100                    belfryctl

In JSON "<word>" stands for any value: the one it had where it came first in the script, from then on. "<token PERSON>"
is a good token, "<token PERSON SECONDS>" one that ends in so many (negative: ended), "<>" any value, "<A+1>" the number A and one.
Persons are those that opened or are named by `person`: each script has people of its own.
"""
import itertools
import json
import re
import time

import harness
from harness import until

_numbers = itertools.count(1)
PEOPLE = ("ann", "ben", "cleo")


def blocks(text, kind="wire"):
    """(line number, lines) of each fenced block of this kind."""
    found, at = [], None
    for number, line in enumerate(text.splitlines(), 1):
        if at is None and line.strip() == f"```{kind}":
            at = (number, [])
        elif at is not None and line.strip() == "```":
            found.append(at)
            at = None
        elif at is not None:
            at[1].append(line)
    return found


class Mismatch(AssertionError):
    pass


class Script:
    def __init__(self, node, lines, open_stream):
        self.node, self.lines, self.open_stream = node, lines, open_stream
        self.suffix = f"-{next(_numbers)}"
        self.bound, self.connections, self.people = {}, {}, {}

    # -- values
    def person(self, name):
        return name + self.suffix

    def fill(self, value):
        """A frame that is sent: every placeholder by its value."""
        if isinstance(value, dict):
            return {k: self.fill(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.fill(v) for v in value]
        if not isinstance(value, str):
            return value
        if value in PEOPLE:
            return self.person(value)
        match = re.fullmatch(r"<token (\w+)(?: (-?\d+))?((?: \S+)*)>", value)
        if match:
            ttl, topics = int(match.group(2) or 3600), match.group(3).split()
            return self.node.token(self.person(match.group(1)), ttl, **({"topics": topics} if topics else {}))
        match = re.fullmatch(r"<(\w+)\+(\d+)>", value)
        if match:
            return self.bound[match.group(1)] + int(match.group(2))
        match = re.fullmatch(r"<(\w+)>", value)
        return self.bound[match.group(1)] if match else value

    def match(self, wanted, got, where):
        if isinstance(wanted, str) and re.fullmatch(r"<\w*>", wanted):
            name = wanted[1:-1]
            if name and name not in self.bound:
                self.bound[name] = got
            if name and self.bound[name] != got:
                raise Mismatch(f"{where}: {wanted} was {self.bound[name]!r}, is {got!r}")
        elif isinstance(wanted, dict) and isinstance(got, dict):
            if set(wanted) != set(got):
                raise Mismatch(f"{where}: members {sorted(set(wanted) ^ set(got))} differ; came: {json.dumps(got)}")
            for key, value in wanted.items():
                self.match(value, got[key], f"{where}.{key}")
        elif self.fill(wanted) != got or isinstance(wanted, bool) != isinstance(got, bool):
            raise Mismatch(f"{where}: expected {self.fill(wanted)!r}, came {got!r}")

    # -- steps
    def run(self):
        try:
            for line in self.lines:
                step = re.sub(r"(^|\s\s)# .*$", "", line).strip()
                if step and not step.startswith("node "):
                    try:
                        self.step(step)
                    except Exception as e:
                        raise Mismatch(f"{line.strip()!r}: {type(e).__name__}: {e}") from e
        finally:
            for connection in self.connections.values():
                connection.close()

    def step(self, step):
        name, verb, rest = (step.split(None, 2) + ["", ""])[:3]
        if name == "api":
            return self.api(step)
        if name == "ctl":
            return self.node.ctl(*step.split()[1:])
        if name == "pause":
            return time.sleep(float(verb))
        if verb == "has":
            return self.node.stored(self.person(name), int(rest.split()[0]))
        return {"opens": self.opens, ">": self.sends, "<": self.gets, "closed": self.closed, "leaves": self.leaves,
                "comes": self.comes_back}[verb](name, rest)

    def api(self, step):
        match = re.fullmatch(r"api (\w+) (\S+)( \{.*\})?(?: = (\d+))?", step)
        method, path, body, status = match.groups()
        path = re.sub(r"\b(" + "|".join(PEOPLE) + r")\b", lambda m: self.person(m.group(1)), path)
        path = re.sub(r"<(\w+)>", lambda m: str(self.bound[m.group(1)]), path)
        body = self.fill(json.loads(body)) if body else None
        for user in [body.get("user_id"), *body.get("recipients", [])] if body else []:
            if user and user not in self.people:
                self.node.put_user(user)
                self.people[user] = True
        answer = self.node.request(method, path, body)
        assert answer.status == int(status or 202), answer

    def opens(self, name, rest):
        match = re.fullmatch(r"(?:(/\S+) )?as (\w+)(?: by (\w+))?(?: = (\d+))?", rest)
        path, person, by, status = match.groups()
        if (path or "").startswith("/v1/sse"):
            self.connections[name] = self.open_stream(self.node, path, self.person(person), int(status or 200))
        elif status:
            with harness.RawSocket(self.node) as raw:
                raw.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert raw.s.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
        else:
            auth = {"nothing": None, None: "header"}.get(by, by)
            self.connections[name] = harness.Client(self.node, self.person(person), auth=auth, connect=False)

    def sends(self, name, rest):
        try:
            self.connections[name].send(self.fill(json.loads(rest)))
        except ValueError:  # what is no JSON goes as it is
            self.connections[name].send(rest)

    def gets(self, name, rest):
        connection = self.connections[name]
        if isinstance(connection, harness.Client):
            self.match(json.loads(rest), connection.recv(), name)
        else:
            event, data = connection.next()[:2]
            wanted, _, text = rest.partition(" ")
            assert event == wanted, f"event {event}: {data}"
            self.match(json.loads(text), data, name)

    def closed(self, name, rest):
        before = self.connections[name].expect_close(int(rest.split()[0]))
        assert not before, f"before the close came {before}"

    def leaves(self, name, _):
        self.connections[name].close()

    def comes_back(self, name, _):
        self.connections[name] = self.connections[name].again()


def options_of(lines):
    """The options of a script's node, as a tree; None: it takes any."""
    match = next((re.fullmatch(r"node (.+)", line.strip()) for line in lines if line.strip()), None)
    if not match:
        return None
    tree = {}
    for pair in match.group(1).split():
        path, value = pair.split("=")
        section, option = path.split(".")
        tree.setdefault(section, {})[option] = json.loads(value)
    return tree


__all__ = ["blocks", "Script", "options_of", "Mismatch", "until"]
