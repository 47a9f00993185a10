"""A port belongs to one node: whoever comes second is refused, with a sentence that says who holds it. OPS-2."""
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import time

import harness
import pytest
import yaml
from harness import until

DEADLINE_S = 20 * harness.TIMES


class Dev:
    """belfry-dev by itself, so that a start may fail: a directory, a configuration, a process."""

    def __init__(self, **sections):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="belfry-ports-"))
        tree = harness.merge(harness.SMALL, {
            "node": {"run_dir": str(self.dir / "run"), "state_dir": str(self.dir / "data")},
            "api": {"port": 0, "host": "127.0.0.1"}, "admin": {"port": 0},
            "websocket": {"port": 0, "host": "127.0.0.1"}})
        self.config = self.dir / "belfry.yaml"
        self.config.write_text(yaml.safe_dump(harness.merge(tree, sections)))
        self.log = open(self.dir / "log", "ab")
        self.process = None

    def start(self, program="belfry-dev"):
        self.process = subprocess.Popen([str(harness.BUILD / program), "--config", str(self.config)], stderr=self.log,
                                        stdout=self.log, stdin=subprocess.DEVNULL)
        return self

    def text(self):
        return (self.dir / "log").read_text()

    def ready(self):
        until(lambda: self.process.poll() is not None or "listening {" in self.text(), 20, "it listens")
        assert self.process.poll() is None, self.text()
        return json.loads((self.dir / "run/dataplane.ports").read_text())

    def refused(self):
        """Its log, once it has ended with code 1."""
        assert self.process.wait(DEADLINE_S) == 1, self.text()
        return self.text()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        harness.shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def certificate(directory):
    cert, key = directory / "c.pem", directory / "k.pem"
    harness.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30",
                    "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert))
    return [{"cert": str(cert), "key": str(key)}]


@pytest.mark.parametrize("first,second,section", [
    ("127.0.0.1", "127.0.0.1", "websocket"), ("0.0.0.0", "127.0.0.1", "websocket"), ("127.0.0.1", "0.0.0.0", "websocket"),
    ("::", "127.0.0.1", "websocket"), ("127.0.0.1", "127.0.0.1", "tls"), ("0.0.0.0", "127.0.0.1", "api"),
    ("127.0.0.1", "127.0.0.1", "admin")])
def test_a_second_node_on_a_port_is_refused(tmp_path, first, second, section):
    certs = {"tls": {"certificates": certificate(tmp_path), "host": "127.0.0.1", "port": 0}} if section == "tls" else {}
    with Dev(**harness.merge(certs, {section: {"host": first}})) as one:
        ports = one.ready()
        if section in ("api", "admin"):
            until(lambda: (one.dir / "run/ctrlplane.ports").exists(), 10, "the API listens")
            ports = json.loads((one.dir / "run/ctrlplane.ports").read_text())
        port = ports[{"websocket": "ws", "tls": "wss"}.get(section, section)]
        with Dev(**harness.merge(certs, {section: {"host": second, "port": port}})) as two:
            text = two.refused()
        line = next(x for x in text.splitlines() if "cannot listen" in x)
        assert f"port {port}" in line and f"{section}.port" in line and f"pid {one.process.pid} (" in line, line
        assert str(one.config) in line, "its command line tells which node it is"
        assert one.process.poll() is None


def test_other_addresses_of_one_port_are_two_ports():
    with Dev(websocket={"host": "127.0.0.1"}) as one:
        port = one.ready()["ws"]
        with Dev(websocket={"host": "127.0.0.2", "port": port}) as two:
            assert two.ready()["ws"] == port


def test_two_starts_at_once_leave_one_node():
    """Without a lock both would find the port free before either listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            nodes = [stack.enter_context(Dev(websocket={"port": port}, dataplane={"workers": 2})) for _ in range(3)]

            def settled():
                ends = [n.process.poll() for n in nodes]
                listening = [n for n in nodes if "listening {" in n.text() and n.process.poll() is None]
                return ends.count(1) == 2 and len(listening) == 1
            until(settled, 20, "one of three listens, two have ended")


def test_a_killed_node_gives_its_port_back():
    """Its connections and its rings are still being taken down; the next start takes the port all the same."""
    with Dev() as one:
        port = one.ready()["ws"]
        one.config.write_text(one.config.read_text().replace("websocket:\n  host: 127.0.0.1\n  port: 0",
                                                             f"websocket:\n  host: 127.0.0.1\n  port: {port}"))
        for _ in range(5):
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
            one.process.kill()
            one.process.wait()
            began = time.monotonic()
            (one.dir / "log").write_text("")
            one.start()
            assert one.ready()["ws"] == port
            assert time.monotonic() - began < 8 * harness.TIMES
            for c in clients:
                c.close()


def test_a_foreign_program_holds_the_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        with Dev(websocket={"port": s.getsockname()[1]}) as node:
            assert f"pid {os.getpid()} (" in node.refused()


def test_an_address_of_another_machine():
    with Dev(api={"host": "192.0.2.1", "port": 0}) as node:
        text = node.refused()
        assert "does not have that address" in text and "api.port" in text


@pytest.mark.parametrize("option", ["--fcm-port", "--control-port"])
def test_a_second_simulator_on_a_port_is_refused(tmp_path, option):
    def start(name, *args):
        return subprocess.Popen([str(harness.BUILD / "belfry-sim"), "--state", str(tmp_path / name), *args],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    one = start("one")
    try:
        ready = json.loads(one.stdout.readline())
        port = ready["control"]["port"] if option == "--control-port" else ready["fcm"]["port"]
        two = start("two", option, str(port))
        _, error = two.communicate(timeout=DEADLINE_S)
        assert two.returncode == 1 and str(port) in error
    finally:
        one.kill()
        one.communicate()
