"""What an operator is told: config check, config reload, start-up errors, the log. OPS-1, OPS-2."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import harness
import pytest
import yaml
from harness import until
from test_ports import Dev, certificate

CTL = str(harness.BUILD / "belfryctl")


def check(tmp_path, tree, *args):
    base = {"node": {"run_dir": str(tmp_path / "run"), "state_dir": str(tmp_path / "data")}}
    path = tmp_path / "checked.yaml"
    path.write_text(yaml.safe_dump(harness.merge(base, tree)))
    return subprocess.run([CTL, "--config", str(path), *args, "config", "check"], capture_output=True, text=True)


def vapid(tmp_path, subject, key=None):
    if key is None:
        key = tmp_path / "vapid.pem"
        harness.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))
    return {"push": {"apps": [{"name": "site", "kind": "webpush", "key": str(key), "subject": subject}]}}


# ---- check ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("tree,words", [
    ({"api": {"port": 9000}, "admin": {"port": 9000}}, ["api.port and admin.port are both 9000"]),
    ({"websocket": {"port": 8080}}, ["websocket.port and api.port are both 8080"]),
    ({"node": {"state_dir": "/proc/belfry"}}, ["node.state_dir", "/proc/belfry"]),
    ({"node": {"state_dir": "/no/such/place"}}, ["node.state_dir", "directory above"]),
    ({"node": {"run_dir": "/etc/passwd"}}, ["node.run_dir", "/etc/passwd", "Not a directory"]),
    ({"node": {"run_dir": "/tmp", "state_dir": "/tmp/belfry-state"}}, ["node.state_dir", "reboot"]),
    ({"dev": {"api_key_file": "/no/key"}}, ["dev.api_key_file", "/no/key", "No such file"]),
    ({"push": {"apps": [{"name": "a", "kind": "fcm", "service_account": "/no/fcm.json"}]}}, ["/no/fcm.json", "No such file"]),
    ({"tls": {"certificates": [{"cert": "/no/c.pem", "key": "/no/k.pem"}]}}, ["/no/c.pem", "No such file"]),
    ({"log": {"level": "loud"}}, ["log.level", "debug"]), ({"log": {"format": "xml"}}, ["log.format", "json"]),
    ({"websocket": {"ping_interval": "10 s"}}, ["websocket.ping_interval: '10 s'", "100ms to 1h", "e.g. 30s"]),
    ({"fanout": {"inbox_ttl": "3mo"}}, ["fanout.inbox_ttl: '3mo'", "'mo'", "m, min, h, d or w", "e.g. 90d"]),
    ({"api": {"head_timeout": "1500ms"}}, ["api.head_timeout: '1500ms' is not a whole number of s", "e.g. 10s"]),
    ({"store": {"cache": "256MB"}}, ["store.cache: '256MB'", "write MiB", "e.g. 256MiB"]),
    ({"store": {"cache": "-1GiB"}}, ["store.cache: '-1GiB' is negative", "8MiB to 1TiB"]),
    ({"fanout": {"rate": "5/min"}}, ["fanout.rate: '5/min'", "e.g. 50000/s"]),
])
def test_check_finds(tmp_path, tree, words):
    done = check(tmp_path, tree)
    assert done.returncode == 1, done
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize("subject", ["mailto:ops@localhost", "mailto:ops", "mailto: ops@example.com", "mailto:<ops@example.com>",
                                     "https://localhost/contact", "https://127.0.0.1", "https://intranet", "mailto:a@b.local"])
def test_check_finds_subjects_that_services_refuse(tmp_path, subject):
    done = check(tmp_path, vapid(tmp_path, subject))
    assert done.returncode == 1 and "subject" in done.stderr and "site" in done.stderr, done


@pytest.mark.parametrize("subject", ["mailto:ops@example.com", "https://example.com/contact"])
def test_check_takes_good_subjects(tmp_path, subject):
    done = check(tmp_path, vapid(tmp_path, subject))
    assert done.returncode == 0, done


def escaped(path):
    """The PEM as it stands in a JSON string: backslash, n."""
    path.write_text(path.read_text().replace("\n", "\\n"))
    return path


def test_check_finds_unusable_pem(tmp_path):
    """A service account's key copied out of its JSON is one line with \\n in it."""
    key = tmp_path / "k8.pem"
    harness.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key))
    done = check(tmp_path, vapid(tmp_path, "mailto:ops@example.com", escaped(key)))
    assert done.returncode == 1 and "\\n" in done.stderr and "printf" in done.stderr, done
    pair = harness.KeyPair(tmp_path, "ES256", "web")
    escaped(pair.public)
    done = check(tmp_path, {"websocket": {"jwt_keys": [pair.conf()]}})
    assert done.returncode == 1 and "'web'" in done.stderr and "\\n" in done.stderr, done
    certs = certificate(tmp_path)
    escaped(pathlib.Path(certs[0]["key"]))
    done = check(tmp_path, {"tls": {"certificates": certs}})
    assert done.returncode == 1 and "k.pem" in done.stderr and "\\n" in done.stderr, done
    other = tmp_path / "other.pem"
    other.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    done = check(tmp_path, {"websocket": {"jwt_keys": [{"kid": "x", "alg": "ES256", "file": str(other)}]}})
    assert done.returncode == 1 and "'x'" in done.stderr, done


def test_check_says_all_at_once_and_as_json(tmp_path):
    tree = harness.merge(vapid(tmp_path, "mailto:ops@localhost"),
                         {"dev": {"api_key_file": "/no/key"}, "dataplane": {"push_connections_max": 0}})
    done = check(tmp_path, tree)
    assert done.returncode == 1 and done.stderr.count("wrong:") == 3 and "3 things are wrong" in done.stderr, done
    told = json.loads(check(tmp_path, tree, "--json").stdout)
    assert not told["ok"] and sum("wrong" in f for f in told["findings"]) == 3
    good = check(tmp_path, {})
    assert good.returncode == 0 and "is right" in good.stdout and "note: websocket.jwt_keys" in good.stderr, good
    assert not (tmp_path / "data").exists(), "a check makes nothing"


def test_check_takes_amounts_with_units(tmp_path):
    tree = {"websocket": {"ping_interval": "10s", "presence_timeout": "1min", "queue_bytes": "1MiB"},
            "fanout": {"inbox_ttl": "90d", "rate": "500/s"}, "push": {"device_stale": "38w"},
            "api": {"rate_min": "1KiB/s", "rate_per_min": "60/min"}, "store": {"cache": "1GiB"}}
    done = check(tmp_path, tree)
    assert done.returncode == 0, done


# ---- reload ---------------------------------------------------------------------------------------

@pytest.fixture
def file(embedded):
    """The node's configuration as a tree, a function that writes one, and the former text put back at the end."""
    path = pathlib.Path(embedded.info["config"])
    before = path.read_text()

    class File:
        tree = yaml.safe_load(before)

        def reload(self, over, *args):
            path.write_text(yaml.safe_dump(harness.merge(self.tree, over)))
            return embedded.ctl(*args, "config", "reload", check=False)
    yield File()
    path.write_text(before)
    embedded.ctl("config", "reload")


def test_reload_says_what_waits_for_which_restart(embedded, file):
    over = {"websocket": {"ping_interval": 900, "backlog": 100}, "api": {"connections_max": 77}}
    done = file.reload(over)
    assert done.returncode == 0 and "taken: websocket.ping_interval" in done.stdout, done
    lines = [line for line in done.stdout.splitlines() if line.startswith("not taken: ")]
    assert len(lines) == 2
    assert any("websocket.backlog: '4096' is in force, '100' is wanted; restart belfry-dataplane" in x for x in lines), lines
    assert any("api.connections_max: '4096' is in force, '77' is wanted; restart belfry-ctrlplane" in x for x in lines)
    again = json.loads(file.reload(over, "--json").stdout)
    assert again["taken"] == [] and len(again["waiting"]) == 2, "they wait still"
    embedded.restart("ctrlplane")
    waiting = json.loads(file.reload(over, "--json").stdout)["waiting"]
    assert [w["option"] for w in waiting] == ["websocket.backlog"] and waiting[0]["restart"] == "dataplane"
    embedded.restart("dataplane")
    assert json.loads(file.reload(over, "--json").stdout)["waiting"] == []
    back = json.loads(file.reload({}, "--json").stdout)
    assert back["taken"] == ["websocket.ping_interval"]
    assert {w["option"]: w["restart"] for w in back["waiting"]} == {"websocket.backlog": "dataplane",
                                                                    "api.connections_max": "ctrlplane"}


def test_reload_compares_values_not_spellings(embedded, file):
    """As do the options that a dataplane left which was built before values had units."""
    def reload(over):
        told = json.loads(file.reload({"websocket": over}, "--json").stdout)
        return told["taken"], [w for w in told["waiting"] if w["option"] == "websocket.deflate_min"]
    assert reload({"ping_interval": 9000, "deflate_min": 1024}) == (["websocket.ping_interval"], [])
    assert reload({"ping_interval": "9s", "deflate_min": "1KiB"}) == ([], [])
    options = embedded.state / "run/dataplane.options"
    before = options.read_text()
    assert "websocket.deflate_min\t1KiB\n" in before
    try:
        options.write_text(before.replace("\t1KiB\n", "\t1024\n"))
        assert reload({"ping_interval": "9s"}) == ([], []) == reload({"ping_interval": "9s", "deflate_min": "1KiB"})
        done = file.reload({"websocket": {"deflate_min": "2KiB"}})
        assert "websocket.deflate_min: '1KiB' is in force, '2KiB' is wanted; restart belfry-dataplane" in done.stdout, done
    finally:
        options.write_text(before)


def test_a_time_with_a_unit_is_in_force(embedded, file):
    embedded.put_user("u")
    file.reload({"websocket": {"ping_interval": "700ms"}})
    with embedded.client("u") as client:
        assert client.welcome["ping_ms"] == 700


def test_reload_says_which_lists_it_took(embedded, file, tmp_path):
    pair = harness.KeyPair(tmp_path, "ES256", "web")
    keys = file.tree["websocket"]["jwt_keys"] + [pair.conf()]
    assert "taken: websocket.jwt_keys, topics.public" in file.reload(
        {"websocket": {"jwt_keys": keys}, "topics": {"public": ["other"]}}).stdout


def test_reload_fails_where_a_key_is_unusable(embedded, file, tmp_path):
    """The old one stays in force: tokens are accepted as before."""
    embedded.put_user("u")
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    certs = certificate(tmp_path)
    harness.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", certs[0]["key"])
    for over, word in (({"websocket": {"jwt_keys": [{"kid": "x", "alg": "ES256", "file": str(bad)}]}}, "'x'"),
                       ({"tls": {"certificates": certs}}, "does not belong"),
                       (vapid(tmp_path, "mailto:ops@example.com", bad), "P-256")):
        done = file.reload(over)
        assert done.returncode == 1 and word in done.stderr and "stays in force" in done.stderr, done
        assert embedded.request("GET", "/v1/users/u/notifications", key=embedded.token("u")).status == 200
        with embedded.client("u"):
            pass


# ---- starting -------------------------------------------------------------------------------------

def test_a_start_is_three_lines(tmp_path):
    """What a newcomer reads; all else at log.level debug."""
    with Dev() as node:
        node.ready()
        until(lambda: " ready: " in node.text(), 10, "it is ready")
        lines = [line for line in node.text().splitlines() if " dataplane " in line]
        assert len(lines) == 3 and "listening" in lines[1], lines
    with Dev(log={"level": "debug"}) as node:
        node.ready()
        assert "memory:" in node.text()
    with Dev(log={"level": "warn"}) as node:
        until(lambda: (node.dir / "run/ctrlplane.ports").exists(), 10, "it listens")
        assert " info " not in node.text()


@pytest.mark.parametrize("program", ["belfry-dataplane", "belfry-ctrlplane", "belfry-dev"])
def test_a_start_refuses_a_value_with_a_wrong_unit(tmp_path, program):
    config = tmp_path / "c.yaml"
    config.write_text(f"node: {{run_dir: {tmp_path}/run, state_dir: {tmp_path}/data}}\nwebsocket:\n  ping_interval: 10 sec\n")
    done = subprocess.run([str(harness.BUILD / program), "--config", str(config)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1, done
    for words in ("c.yaml:3: websocket.ping_interval: '10 sec'", "100ms to 1h", "ms, s, m, min, h, d or w", "e.g. 30s"):
        assert words in done.stderr, done.stderr


def test_the_log_as_json():
    with harness.Node(config={"log": {"format": "json", "level": "debug"}}) as node:
        with node.client("u"):
            pass
        node.restart("ctrlplane")
        texts = [(node.state / f"{side}.log").read_text() for side in ("dataplane", "ctrlplane")
                 if (node.state / f"{side}.log").exists()]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    assert lines and all(set(x) == {"time", "level", "plane", "message"} for x in lines)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", x["time"]) for x in lines)
    assert {"info", "debug"} <= {x["level"] for x in lines} and {"dataplane", "ctrlplane"} == {x["plane"] for x in lines}


def test_the_level_is_live(embedded, file):
    """Both processes take it with a reload: a line is made that was not before."""
    log = embedded.state / "ctrlplane.log"
    file.reload({"log": {"level": "error"}})
    size = log.stat().st_size
    embedded.ctl("key", "create", "--scope", "send")
    assert log.stat().st_size == size
    file.reload({"log": {"level": "info", "format": "json"}})
    embedded.ctl("key", "create", "--scope", "send")
    assert json.loads(log.read_text().splitlines()[-1])["message"].startswith("API key")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
@pytest.mark.parametrize("program", ["belfry-dataplane", "belfry-ctrlplane", "belfry-dev"])
def test_a_start_without_permission_says_so(program):
    """It said that hugepages were missing, or nothing that a newcomer could act on."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="belfry-eacces-"))
    try:
        home.chmod(0o755)
        (home / "own").mkdir(mode=0o700)
        os.chown(home / "own", 65534, 65534)
        tree = {"node": {"run_dir": str(home / "run"), "state_dir": str(home / "data")}, "api": {"port": 0},
                "admin": {"port": 0}, "websocket": {"port": 0}}

        def start(over):
            (home / "c.yaml").write_text(yaml.safe_dump(harness.merge(tree, over)))
            (home / "c.yaml").chmod(0o644)
            done = subprocess.run([str(harness.BUILD / program), "--config", str(home / "c.yaml")], capture_output=True,
                                  text=True, timeout=30, user=65534, group=65534)
            assert done.returncode == 1, done
            return done.stderr
        text = start({})
        assert "EACCES" in text and "uid 65534" in text and "node.run_dir" in text and "hugepages" not in text, text
        run = {"node": {"run_dir": str(home / "own/run")}}
        if program == "belfry-dataplane":
            text = start(harness.merge(run, {"node": {"huge_dir": str(home)}}))
            assert "EACCES" in text and "uid 65534" in text and str(home) in text, text
        else:
            text = start(run)
            assert "EACCES" in text and "node.state_dir" in text, text
    finally:
        shutil.rmtree(home)


def test_without_a_configuration_it_says_that_it_runs_on_defaults(tmp_path):
    """Defaults are /run and /var/lib and fixed ports: in a mount and network namespace of the test's own."""
    script = f"mount -t tmpfs none /run && mount -t tmpfs none /var/lib && ip link set lo up; exec {harness.BUILD}/belfry-ctrlplane"
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-mn", "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here")
    log = tmp_path / "log"
    with open(log, "wb") as out:
        process = subprocess.Popen([unshare, "-mn", "sh", "-c", script], stderr=out, stdout=out)
    try:
        until(lambda: process.poll() is not None or "listening" in log.read_text(), 20, "it says where it listens")
        text = log.read_text()
        assert process.poll() is None, text
        assert "no --config" in text and "built-in defaults" in text and "/var/lib/belfry" in text
        assert "API 0.0.0.0 port 8080, admin 127.0.0.1 port 9090" in text or "API 127.0.0.1 port 8080" in text
    finally:
        process.terminate()
        process.wait()


def test_an_unusable_key_at_the_start_leads_to_the_check(tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with Dev(websocket={"jwt_keys": [{"kid": "x", "alg": "ES256", "file": str(bad)}]}, dataplane={"workers": 8}) as node:
        text = node.refused()
    assert "belfryctl config check" in text and "'x'" in text, text
    assert text.count("share cores") <= 1 and "is not available" not in text, "one line, not one a worker"


def test_two_nodes_on_one_state_directory(tmp_path):
    with Dev() as one:
        one.ready()
        until(lambda: (one.dir / "run/ctrlplane.ports").exists(), 10, "it listens")
        with Dev(node={"state_dir": str(one.dir / "data")}) as two:
            text = two.refused()
        assert "another process" in text and str(one.dir / "data") in text, text
