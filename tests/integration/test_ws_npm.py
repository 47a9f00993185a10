"""npm `ws`, a client nobody here wrote: connect, receive, acknowledge, lose the network, resume (WS-3)."""
import json
import os
import pathlib
import queue
import shutil
import subprocess
import threading

import pytest
from harness import ROOT, TIMES, until

HERE = ROOT / "tests/integration/ws_npm"


@pytest.fixture(scope="module")
def modules():
    """node_modules with `ws`, installed once into the cache."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "belfry/ws_npm"
    manifest = HERE / "package.json"
    base.mkdir(parents=True, exist_ok=True)
    if not (base / "node_modules/ws").exists() or (base / "package.json").read_text() != manifest.read_text():
        shutil.copy(manifest, base)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=base, check=True)
    return base


class NpmClient:
    def __init__(self, modules, node, user):
        self.process = subprocess.Popen(["node", str(HERE / "client.mjs"), node.info["ws"], node.token(user)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**os.environ, "BELFRY_NODE_MODULES": str(modules)})
        self.lines = queue.Queue()
        threading.Thread(target=lambda: [self.lines.put(json.loads(x)) for x in self.process.stdout], daemon=True).start()

    def do(self, what, **fields):
        self.process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
        self.process.stdin.flush()

    def next(self, seconds=10):
        return self.lines.get(timeout=seconds * TIMES)

    def frame(self, kind):
        got = self.next()
        assert got.get("frame", {}).get("t") == kind and got["isBinary"] is False and got["protocol"] == "belfry.v1.json", got
        return got["frame"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def test_npm_ws(node, user, modules):
    client = NpmClient(modules, node, user)
    client.do("open")
    welcome = client.frame("welcome")
    assert welcome["user"] == user
    for i in range(5):
        node.send(user, title=str(i), body="ünïcode 💥")
    got = [client.frame("n") for _ in range(5)]
    assert [n["seq"] for n in got] == [1, 2, 3, 4, 5]
    client.do("send", frame={"t": "ack", "seq": 3})
    client.do("send", frame={"t": "ping", "ref": 1})
    client.frame("pong")
    client.do("drop")
    assert client.next() == {"closed": 1006}
    node.send(user, title="while away")
    until(lambda: len(node.inbox(user)) == 6, 5, "it is stored")
    client.do("open", resume={"epoch": welcome["epoch"], "seq": 3})
    assert client.frame("welcome")["resumed"] is True
    again = [client.frame("n") for _ in range(3)]
    assert [n["seq"] for n in again] == [4, 5, 6]
    assert [n["id"] for n in again[:2]] == [n["id"] for n in got[3:]]
    client.do("send", frame={"t": "ack", "seq": 6})
    client.do("send", frame={"t": "read", "id": again[0]["id"], "ref": "r"})
    client.frame("ok")
    client.do("close")
    assert client.next()["closed"] in (1000, 1005)
    client.close()
