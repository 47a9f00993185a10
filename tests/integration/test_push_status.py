"""What operators see of push: pools, credentials, connections and what last went wrong, in `belfryctl status`,
/admin/status and /metrics; known again after the control process was restarted; one line where no app is configured."""
import json
import re
import subprocess

import pytest

import harness
from harness import until
from sim import Running, Sim


@pytest.fixture(scope="module")
def node():
    with harness.Node(sim=True) as running:
        yield running


@pytest.fixture(scope="module")
def sim(node):
    return Running(node.info["sim"])


@pytest.fixture(autouse=True)
def calm(request):
    yield
    if "sim" in request.fixturenames:
        request.getfixturevalue("sim").calm()


def push(node):
    return node.admin("GET", "/admin/status").json["push"]


def pool(node, kind):
    return next(p for p in push(node)["pools"] if p["kind"] == kind)


def connected(node, kind, seconds=10):
    return until(lambda: (p := pool(node, kind))["connections"] > 0 and p, seconds, f"{kind} is connected")


def test_status_names_every_pool(node, sim):
    assert push(node)["apps"] == 3
    assert push(node)["queue"] == {"critical": 0, "normal": 0, "bulk": 0}
    apns = connected(node, "apns")
    assert apns["app"] == "demo" and apns["authority"] == f"localhost:{sim.port('apns')}"
    assert apns["ready"] and apns["why"] == "" and apns["breaker"] == "closed" and apns["breaker_opened"] == 0
    assert apns["credential"]["kind"] == "token" and apns["credential"]["renews_at"] > apns["credential"]["renewed_at"]
    assert apns["streams"] == 0 and apns["streams_max"] == 1, "Apple: one until good credentials were seen"
    fcm = connected(node, "fcm")
    assert fcm["streams_max"] == 1000 and fcm["credential"]["expires_at"] > fcm["credential"]["renews_at"]
    web = pool(node, "webpush")
    assert web["app"] == "demo-web" and web["pool"] == 0 and not web["ready"]


def test_status_is_readable(node):
    connected(node, "apns")
    connected(node, "fcm")
    text = node.ctl("status").stdout
    assert "push: 3 apps; in the queue: critical 0, normal 0, bulk 0" in text
    assert re.search(r"^demo +apns +localhost:\d+ +1 .* ok$", text, re.M), text
    assert re.search(r"^demo +fcm +localhost:\d+ +1 .* ok$", text, re.M), text
    assert re.search(r"^demo-web +webpush +- .* unused$", text, re.M), text
    assert "\033" not in text, "colours are for terminals"
    assert json.loads(node.ctl("status", "--json").stdout)["push"]["apps"] == 3


def test_an_outage_shows(node, sim):
    connected(node, "apns")
    before = node.metric("belfry_push_pool_failures", kind="apns")
    sim.faults({"provider": "apns", "kind": "outage", "how": "refuse"})
    down = until(lambda: (p := pool(node, "apns"))["connections"] == 0 and p["failures"] > before and p, 15, "it is down")
    assert down["last"] and down["last_at"]
    assert pool(node, "fcm")["connections"] == 1, "another provider has nothing to do with it"
    text = node.ctl("status").stdout
    assert re.search(r"^demo +apns .* no connection\n    at \d{4}-.*: Connection refused$", text, re.M), text
    metrics = node.metrics()
    assert metrics['belfry_push_pool_connections{app="demo",kind="apns"}'] == 0
    assert metrics['belfry_push_pool_connections{app="demo",kind="fcm"}'] == 1
    assert node.metric("belfry_push_pool_failures", metrics, kind="apns") > before
    sim.calm()
    connected(node, "apns", 30)


def test_known_again_after_a_restart(node):
    before = connected(node, "fcm")
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    after = connected(node, "fcm")
    assert after["pool"] == before["pool"]
    assert after["failures"] == before["failures"], "the connection stayed open"
    connected(node, "apns", 30)


def test_labels_are_bounded(node):
    labels = {re.search(r'app="([^"]*)",kind="([^"]*)"', s).groups() for s in node.metrics()
              if s.startswith("belfry_push_") and "app=" in s}
    assert labels == {("demo", "apns"), ("demo", "fcm"), ("demo-web", "webpush")}


def test_one_line_without_apps():
    with harness.Node() as plain:
        assert push(plain) == {"apps": 0, "queue": {"critical": 0, "normal": 0, "bulk": 0}, "pools": []}
        assert "push: no apps are configured (push.apps), so no push is sent" in plain.ctl("status").stdout.splitlines()
        assert not any("app=" in s for s in plain.metrics() if s.startswith("belfry_push_"))


def test_no_token():
    """The pool that cannot get one says why; nothing is reported of it by any worker."""
    with Sim(faults={"faults": [{"provider": "oauth", "kind": "storm", "status": 503}]}) as sim:
        app = {"name": "shop", "kind": "fcm", "service_account": sim.ready["fcm"]["service_account"],
               "host": "localhost", "port": sim.port("fcm"), "ca": sim.ready["ca"]}
        with harness.Node(config={"push": {"apps": [app]}}) as node:
            fcm = until(lambda: (p := pool(node, "fcm"))["why"] and p, 15, "it says why")
            assert "no access token" in fcm["why"] and not fcm["ready"] and fcm["connections"] == 0
            assert fcm["credential"]["failures"] > 0 and "renewed_at" not in fcm["credential"]
            assert re.search(r"^shop +fcm .* NOT READY\n    no access token: ", node.ctl("status").stdout, re.M)
            assert node.metric("belfry_push_pool_unready", app="shop") == 1
            sim.calm()
            connected(node, "fcm", 90)
            assert pool(node, "fcm")["why"] == ""


# ---- registration ---------------------------------------------------------------------------------

def register(node, **fields):
    node.put_user("ann")
    return node.request("POST", "/v1/users/ann/devices", fields)


def test_a_device_of_an_unknown_app_is_refused(node):
    answer = register(node, platform="ios", app="shop", token="a1" * 32)
    assert answer.status == 422, answer
    assert answer.json["type"] == "urn:belfry:problem:unknown-app" and answer.json["field"] == "app"
    assert "'shop' for apns; it has demo" in answer.json["detail"], answer.json
    assert register(node, platform="ios", app="demo", token="a1" * 32).status == 201
    assert register(node, platform="android", app="demo", token="fcm:" + "b" * 40).status == 201
    assert register(node, platform="ios", provider="fcm", app="demo", token="fcm:" + "c" * 40).status == 201


def test_the_app_belongs_to_its_provider(node):
    """demo-web is for Web Push alone, demo for APNs and FCM."""
    answer = register(node, platform="android", app="demo-web", token="fcm:" + "d" * 40)
    assert answer.status == 422 and "for fcm; it has demo" in answer.json["detail"]
    assert [d["app"] for d in node.request("GET", "/v1/users/ann/devices").json["devices"]].count("demo-web") == 0


# ---- scripts/demo, which scripts/quickstart runs ----------------------------------------------------

def demo(node, *options):
    return subprocess.run([str(harness.ROOT / "scripts/demo"), "--state", str(node.state), "--count", "50", "--people", "5",
                           "--json", *options], capture_output=True, text=True, timeout=120 * harness.TIMES)


def test_the_demo_reaches_every_phone(node):
    connected(node, "apns", 30)
    done = demo(node)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["push"] == {"in": 300, "lost": 0, "apns": 100, "fcm": 100, "webpush": 100}
    web = connected(node, "webpush")
    assert web["authority"].startswith("localhost:") and web["ready"]
    until(lambda: all(p["waiting"] == p["streams"] == p["flights"] == 0 for p in push(node)["pools"]), 10, "all is quiet")
    assert node.metric("belfry_funnel", stage="sent", channel="push") == 300
    delivered = [m for m in node.metrics() if "funnel" in m and 'stage="delivered"' in m and 'channel="push"' in m]
    assert not delivered, "no phone has said anything: a count of 0 is left out"


def test_the_demo_sees_what_is_missing(node, sim):
    sim.faults({"provider": "fcm", "kind": "storm", "status": 503, "rate": 1})
    done = demo(node, "--seconds", "5")
    assert done.returncode == 1 and "NOT everything arrived" in done.stderr
    result = json.loads(done.stdout)["push"]
    assert result["fcm"] == 0 and result["lost"] == 100 and result["apns"] == result["webpush"] == 100
    fcm = pool(node, "fcm")
    assert fcm["breaker"] == "open" and fcm["breaker_opened"] >= 1
    text = node.ctl("status").stdout
    assert re.search(r"^demo +fcm .* OPEN\n    breaker open; it has opened \d+ times", text, re.M), text
    assert node.metric("belfry_push_breaker_state", kind="fcm") == 3
    assert sum(push(node)["queue"].values()) > 0 and node.metric("belfry_push_queue_depth") > 0
