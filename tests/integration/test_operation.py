"""What whoever operates a node uses: health, metrics, belfryctl, reload, dead letters, drain, ports. OPS-1..3, REL-3."""
import json
import os
import pathlib
import re
import signal

import harness
import pytest
import yaml
from harness import http_request, until


def test_health(node):
    assert node.admin("GET", "/healthz").status == 200
    assert node.admin("GET", "/readyz").status == 200
    assert http_request(node.info["api"], "GET", "/metrics").status in (401, 404), "not on the public port"


def test_metrics_are_prometheus_text(node, user):
    with node.client(user) as client:
        node.send(user)
        client.expect("n")
        client.ack()
        client.quiet()
    text = node.admin("GET", "/metrics").body.decode()
    typed = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram", "summary") and name not in typed, line
            typed[name] = kind
        elif line and not line.startswith("#"):
            assert re.match(r'^[a-zA-Z_:][\w:]*(\{(\w+="(\\.|[^"\\])*",?)*\})? (NaN|[+-]?Inf|[-+0-9.eE]+)$', line), line
            base = re.sub(r"_(bucket|sum|count)$", "", line.split("{")[0].split(" ")[0])
            assert base in typed or line.split("{")[0].split(" ")[0] in typed, f"no TYPE for {line}"
    metrics = node.metrics()
    assert node.metric("belfry_log_appends", metrics) >= 1
    assert node.metric("belfry_dataplane_connects_ok", metrics) >= 1
    assert node.metric("belfry_dataplane_commands_bad_slot", metrics) == 0
    assert node.metric("belfry_dataplane_wakes_by_timeout", metrics) == 0
    assert node.metric("belfry_receipts_wakes_by_timeout", metrics) == 0
    for word in ("accepted", "delivered", "lag", "depth"):
        assert any(word in name for name in metrics), f"no metric speaks of {word}"


def test_status_says_how_it_is(node):
    status = json.loads(node.ctl("status", "--json").stdout)
    assert status
    assert node.ctl("status").stdout.strip()


def test_ctl_token_and_send(node, user):
    token = node.ctl("token", "--sub", user, "--ttl", "60").stdout
    assert token.count("\n") == 1 and token.count(".") == 2, "the bare token on one line"
    with node.client(user, token=token.strip()) as client:
        out = node.ctl("send", "--user", user, "--title", "from the shell", "--json", check=False)
        if out.returncode:
            pytest.fail(f"belfryctl send: {out.stdout}{out.stderr}")
        client.expect("n", title="from the shell")


def test_ctl_connections_and_trace(node, user):
    with node.client(user, device="dev-x"):
        assert user in node.ctl("connections", "--json").stdout
        sent = node.send(user)
        assert sent in node.ctl("trace", sent, "--json").stdout


UNKNOWN = "01234567-89ab-4cde-8f01-23456789abcd"


@pytest.mark.parametrize("command", [
    ("dlq", "show", UNKNOWN), ("dlq", "inspect", UNKNOWN), ("dlq", "redrive", UNKNOWN), ("dlq", "purge", UNKNOWN),
    ("dlq", "show", "no-id"), ("dlq", "redrive", "no-id"), ("dlq", "list", "--channel", "fax"),
    ("dlq", "redrive", "--channel", "fax"), ("trace", UNKNOWN), ("trace", "--user", "nobody-here"),
    ("connections", "--user", "nobody-here"), ("key", "revoke", "no-key"), ("send", "--user", "nobody-here", "--title", "x")])
def test_what_does_not_exist_is_an_error(embedded, command):
    """Not an empty list and exit code 0: scripts would take a mistyped id for success."""
    for flags in ((), ("--json",)):
        done = embedded.ctl(*command, *flags, check=False)
        assert done.returncode == 1 and done.stderr.startswith("belfryctl: "), done
        assert len(done.stderr.split()) > 4 and not done.stdout.strip().startswith("redriven"), done


def test_versions(embedded):
    told = embedded.admin("GET", "/healthz").json["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", told)
    for args in (("version",), ("--version",)):
        assert embedded.ctl(*args).stdout == f"belfryctl {told}\n"
        assert json.loads(embedded.ctl(*args, "--json").stdout) == {"version": told}
    for program in ("belfry-dataplane", "belfry-ctrlplane", "belfry-dev"):
        done = harness.subprocess.run([str(harness.BUILD / program), "--version"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"{program} {told}\n")


def test_ctl_top(embedded):
    out = embedded.ctl("top", "--json", "--count", "1", check=False)
    assert out.returncode == 0, out.stderr


def test_config_check(embedded, tmp_path):
    assert embedded.ctl("config", "check").returncode == 0
    bad = tmp_path / "bad.yaml"
    for text, word in (("websocket:\n  prot: 1\n", "prot"), ("websocket:\n  port: 70000\n", "65535"), ("a: [", "YAML"),
                       ("dataplane:\n  workers: many\n", "workers")):
        bad.write_text(text)
        done = harness.subprocess.run([str(harness.BUILD / "belfryctl"), "--config", str(bad), "config", "check"],
                                      capture_output=True, text=True)
        assert done.returncode != 0 and word in done.stdout + done.stderr, done


def test_a_bad_configuration_stops_the_start(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("websocket:\n  port: x\n")
    for program in ("belfry-dataplane", "belfry-ctrlplane", "belfry-dev"):
        done = harness.subprocess.run([str(harness.BUILD / program), "--config", str(bad)], capture_output=True, text=True,
                                      timeout=20)
        assert done.returncode == 1 and "websocket.port" in done.stderr, done


def test_reload_takes_live_options_and_keeps_sockets(node, user):
    path = pathlib.Path(node.info["config"])
    before = path.read_text()
    tree = yaml.safe_load(before)
    with node.client(user) as client:
        tree["users"] = {"auto_create": True}
        tree.setdefault("websocket", {})["ping_interval"] = 700
        path.write_text(yaml.safe_dump(tree))
        node.ctl("config", "reload")
        node.send("made-by-the-event")
        until(lambda: node.request("GET", "/v1/users/made-by-the-event").status == 200, 10, "auto_create is on")
        node.stored("made-by-the-event", 1)
        with node.client(f"{user}-2") as other:
            assert other.welcome["ping_ms"] == 700
        node.send(user)
        client.expect("n")
        tree["websocket"]["ping_interval"] = "soon"
        path.write_text(yaml.safe_dump(tree))
        refused = node.ctl("config", "reload", check=False)
        assert refused.returncode != 0 and "ping_interval" in refused.stdout + refused.stderr
        node.send(user)
        client.expect("n")
        path.write_text(before)
        node.ctl("config", "reload")
        client.quiet()


def test_dead_letters(kafka):
    """What could not be delivered can be once its cause is gone (REL-3)."""
    event = {"id": "g1", "type": "t", "title": "late arrival", "user_id": "ghost"}
    kafka.produce("belfry.events.social", [("ghost", event)])

    def letters():
        return [x for x in rows(kafka.ctl("dlq", "list", "--json").stdout) if "unknown_user" in json.dumps(x)]
    until(letters, 10, "the event for nobody is a dead letter")
    kafka.put_user("ghost")
    kafka.ctl("dlq", "redrive", "--json")
    assert [i["title"] for i in kafka.stored("ghost", 1)] == ["late arrival"]
    until(lambda: not letters(), 5, "it is no dead letter any more")


def test_records_from_kafka_are_counted_once(kafka):
    kafka.put_user("counted")
    before = kafka.metric("belfry_ingest_kafka_records")
    kafka.produce("belfry.events.social", [("counted", {"type": "t", "title": str(i), "user_id": "counted"}) for i in range(10)])
    kafka.stored("counted", 10)
    assert kafka.metric("belfry_ingest_kafka_records") == before + 10


BINARY = {"ce_specversion": "1.0", "ce_source": "/shop", "ce_type": "order.shipped", "content-type": "application/json"}


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_cloudevent_comes_back_from_the_dead_letters(kafka, mode):
    """What its headers say is kept with the letter, or is in it already: redriving needs no Kafka headers."""
    name = f"ghost-{mode}"
    data = {"title": "late", "user_id": name}
    if mode == "binary":
        event, headers = data, {**BINARY, "ce_id": name}
    else:
        event = {"specversion": "1.0", "source": "/shop", "type": "order.shipped", "id": name, "data": data}
        headers = {"content-type": "application/cloudevents+json"}
    kafka.produce("belfry.events.social", [(name, event)], headers)

    def letters():
        return [x for x in rows(kafka.ctl("dlq", "list", "--json").stdout) if name in json.dumps(x)]
    until(letters, 10, "the event for nobody is a dead letter")
    kafka.put_user(name)
    kafka.ctl("dlq", "redrive", "--json")
    item = kafka.stored(name, 1)[0]
    assert (item["title"], item["type"]) == ("late", "order.shipped")
    until(lambda: not letters(), 5, "it is no dead letter any more")
    kafka.produce("belfry.events.social", [(name, event)], headers)  # its id is that of source and id, as it was
    kafka.produce("belfry.events.social", [(name, {"type": "t", "title": "behind", "user_id": name})])
    assert [i["title"] for i in kafka.stored(name, 2)] == ["behind", "late"]


def test_a_broken_cloudevent_keeps_its_headers(kafka):
    """Shown in the list, carried on belfry.dlq, and redriven in vain it stays where it is."""
    kafka.put_user("broken")
    headers = {**BINARY, "ce_id": "b1", "ce_time": "yesterday"}
    kafka.produce("belfry.events.social", [("broken", {"title": "x", "user_id": "broken"})], headers)

    def letters():
        return [x for x in rows(kafka.ctl("dlq", "list", "--json").stdout) if "RFC 3339" in json.dumps(x)]
    letter = until(letters, 10, "it is a dead letter")[0]
    assert letter["headers"] == headers and letter["channel"] == "ingest"

    def on_topic():
        lines = kafka.kafka_tool("consume", kafka.info["kafka"], "belfry.dlq").splitlines()
        return [found for found in map(json.loads, lines) if found["headers"].get("ce_time") == "yesterday"]
    found = until(on_topic, 10, "it is on belfry.dlq")[0]["headers"]
    assert "RFC 3339" in found["belfry-reason"] and {k: found[k] for k in headers} == headers
    assert kafka.ctl("dlq", "redrive", "--channel", "ingest", "--json", check=False).returncode != 0
    assert len(letters()) == 1, "as broken as it was: it stays"


def test_cloudevents_to_a_topic_over_a_kill(kafka):
    """Jobs of a topic's events are read again from the store, without the headers that the events came with."""
    people, events = [f"reader-{i}" for i in range(500)], 30
    for person in people:
        kafka.put_user(person)
        assert kafka.request("PUT", f"/v1/topics/digest/subscriptions/{person}", {}).status == 200
    harness.pause(kafka.pid("ctrlplane"))  # it finds them all at once
    for i in range(events):  # no id in the data: the headers have it
        kafka.produce("belfry.events.social", [("digest", {"title": f"weekly {i}", "topic": "digest"})],
                      {**BINARY, "ce_id": f"d{i}"})
    os.kill(kafka.pid("ctrlplane"), signal.SIGCONT)
    until(lambda: kafka.metric("belfry_jobs") > 1, 20, "jobs wait", poll=0.002)
    kafka.kill("ctrlplane")
    kafka.restart("ctrlplane")
    for person in people[::25]:
        assert len({i["title"] for i in kafka.stored(person, events, seconds=30, limit=100)}) == events


def rows(text):
    """A list, an object with one list, or one JSON object a line."""
    try:
        tree = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(tree, list):
        return tree
    return next((v for v in tree.values() if isinstance(v, list)), [])


def test_drain(node):
    clients = [node.client(f"drained-{i}") for i in range(10)]
    node.ctl("drain", "--rate", "100")
    for client in clients:
        goaway = client.expect("goaway")
        assert goaway["reconnect_after_ms"] >= 0 and goaway["reason"]
        client.expect_close(4000)
    node.ctl("drain", "--rate", "0")
    with node.client("drained-0"):
        pass


def test_second_start_is_refused(node):
    """Each side is owned by whoever holds its lock: a second process says so and changes nothing."""
    for program in ("belfry-dataplane", "belfry-ctrlplane"):
        done = harness.subprocess.run([str(harness.BUILD / program), "--config", node.info["config"]], capture_output=True,
                                      text=True, timeout=20)
        assert done.returncode == 1 and done.stderr.strip(), done
    assert node.is_ready()


def test_port_zero_is_announced():
    with harness.Node(config={"api": {"port": 0}, "admin": {"port": 0}, "websocket": {"port": 0}}) as node:
        run = node.state / "run"
        assert json.loads((run / "dataplane.ports").read_text())["ws"] > 0
        ports = json.loads((run / "ctrlplane.ports").read_text())
        assert ports["api"] > 0 and ports["admin"] > 0


def test_one_process_node(tmp_path):
    """belfry-dev: the same node without hugepages, both planes in one process."""
    with harness.Node(single=True) as node:
        assert node.pid("dataplane") == node.pid("ctrlplane")
        with node.client("u") as client:
            node.send("u", title="x")
            client.expect("n", title="x")
            client.ack()
        node.restart("ctrlplane")
        assert len(node.stored("u", 1)) == 1
