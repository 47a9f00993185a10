"""TLS and SASL to a real broker: what gets in, what is refused and how clearly, and that no password is ever shown."""
import json
import pathlib
import subprocess
import tempfile

import harness
import pytest
import yaml
from harness import until

KAFKA = str(harness.ROOT / "tests/support/kafka/kafka")
USER, PASSWORD = "belfry", "s3cret-of-the-test"


@pytest.fixture(scope="module")
def secure():
    """A broker with a listener that wants TLS and a password."""
    with tempfile.TemporaryDirectory(prefix="belfry-kafka-") as directory:
        done = subprocess.run([KAFKA, "start", "--dir", directory, "--scram", f"{USER}:{PASSWORD}"], stdout=subprocess.PIPE,
                              check=True)
        try:
            yield json.loads(done.stdout)
        finally:
            subprocess.run([KAFKA, "stop", "--dir", directory], check=False)


def config(secure, directory, mechanism="SCRAM-SHA-512", password=PASSWORD, **security):
    path = pathlib.Path(directory) / "password"
    path.write_text(password + "\n")
    return {"users": {"auto_create": True},
            "log": {"kafka": {"brokers": secure["sasl"], "security": {"protocol": "sasl_ssl", "ca_file": secure["ca"], **security},
                              "sasl": {"mechanism": mechanism, "username": USER, "password_file": str(path)}}}}


def shows_no_password(node):
    assert PASSWORD not in "".join(p.read_text(errors="replace") for p in node.state.glob("*.log"))
    argv = pathlib.Path(f"/proc/{node.pid('ctrlplane')}/cmdline").read_bytes()
    assert PASSWORD.encode() not in argv
    for path in ("/admin/status", "/metrics", "/readyz"):
        assert PASSWORD.encode() not in node.admin("GET", path).body


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_delivers_over_tls_with_a_password(secure, tmp_path, mechanism):
    given = harness.merge(config(secure, tmp_path, mechanism), {"log": {"kafka": {
        "group": f"belfry-{mechanism}", "topics": {"broadcast": f"broadcast-{mechanism}"}}}})
    user = f"u-{mechanism}"  # one broker for all of them
    with harness.Node(engine="kafka", config=given) as node, node.client(user, device="d") as client:
        node.info["kafka"] = secure["bootstrap"]

        def got(kind, title):  # what the tests before left on the broker's topics comes too
            while (frame := client.recv(30)).get("title") != title or frame["t"] != kind:
                pass
        node.send(user, title="by http")
        got("n", "by http")
        node.produce("belfry.events.social", [(user, {"type": "t", "title": "by kafka", "user_id": user})])
        got("n", "by kafka")
        assert node.request("POST", "/v1/notifications", {"type": "t", "title": f"all {mechanism}", "broadcast": True}).status == 202
        got("b", f"all {mechanism}")
        shows_no_password(node)


def test_a_wrong_password_is_told_and_a_right_one_is_taken(secure, tmp_path):
    """Never a hang: 503 at once, a clear word in health and log; the file's new content needs no restart."""
    given = harness.merge(config(secure, tmp_path), {"log": {"kafka": {"group": "belfry-wrong"}}})
    with harness.Node(engine="kafka", config=given) as node:
        (tmp_path / "password").write_text("something else\n")
        node.kill("ctrlplane")
        import test_death
        test_death.relaunch(node, "ctrlplane")

        def health():
            try:
                return node.admin("GET", "/readyz")
            except OSError:
                return None
        answer = until(lambda: (a := health()) and b"refuses us" in a.body and a, 30, "health says that we are refused")
        assert answer.status == 503 and b"uthentication" in answer.body, answer
        answer = node.request("POST", "/v1/notifications", {"type": "t", "title": "x", "user_id": "u"}, timeout=10)
        assert answer.status == 503 and answer.headers["Retry-After"], answer
        assert node.is_alive("ctrlplane")
        assert "uthentication failed" in (node.state / "ctrlplane.log").read_text()
        assert "something else" not in (node.state / "ctrlplane.log").read_text()
        (tmp_path / "password").write_text(PASSWORD)
        node.wait_ready(60)
        node.send("u", title="in again")
        node.stored("u", 1, seconds=30)
        shows_no_password(node)


def test_a_certificate_of_a_stranger_is_refused(secure, tmp_path):
    """Verification is on by default; a name that the certificate does not have is a stranger too."""
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "30", "-subj", "/CN=other", "-keyout",
                    str(tmp_path / "other.key"), "-out", str(other)], check=True, capture_output=True)
    given = config(secure, tmp_path)
    with harness.Node(engine="kafka", config=given) as node:
        path = pathlib.Path(node.info["config"])
        tree = yaml.safe_load(path.read_text())
        tree["log"]["kafka"]["security"]["ca_file"] = str(other)
        path.write_text(yaml.safe_dump(tree))
        node.kill("ctrlplane")
        import test_death
        test_death.relaunch(node, "ctrlplane")
        until(lambda: "certificate verify failed" in (node.state / "ctrlplane.log").read_text(), 30, "it says why")
        assert not node.is_ready()


def check(tmp_path, tree, env=None):
    path = tmp_path / "check.yaml"
    path.write_text(yaml.safe_dump({"log": {"engine": "kafka", **tree}}))
    import os
    return subprocess.run([str(harness.BUILD / "belfryctl"), "--config", str(path), "config", "check"], capture_output=True,
                          text=True, env={**os.environ, **(env or {})})


def test_config_check_finds_what_cannot_work(tmp_path):
    (tmp_path / "pem").write_text("no certificate\n")
    (tmp_path / "empty").write_text("\n")
    sasl = {"username": "u"}
    cases = [
        ({"security": {"protocol": "tls"}}, "sasl_ssl"),
        ({"security": {"protocol": "ssl", "ca_file": "/no/such"}}, "No such file"),
        ({"security": {"protocol": "ssl", "ca_file": str(tmp_path / "pem")}}, "log.kafka.security"),
        ({"security": {"protocol": "ssl", "cert_file": str(tmp_path / "pem")}}, "come together"),
        ({"security": {"ca_file": str(tmp_path / "pem")}}, "uses none"),
        ({"security": {"protocol": "sasl_ssl"}}, "username"),
        ({"security": {"protocol": "sasl_ssl"}, "sasl": sasl}, "BELFRY_KAFKA_PASSWORD"),
        ({"security": {"protocol": "sasl_ssl"}, "sasl": {**sasl, "password_file": str(tmp_path / "empty")}}, "holds no password"),
        ({"security": {"protocol": "sasl_ssl"}, "sasl": {**sasl, "password_file": "/no/such"}}, "No such file"),
        ({"security": {"protocol": "sasl_ssl"}, "sasl": {**sasl, "mechanism": "MD5"}}, "SCRAM-SHA-256"),
        ({"sasl": sasl}, "asks for none"),
    ]
    for kafka, word in cases:
        done = check(tmp_path, {"kafka": {"brokers": "127.0.0.1:1", **kafka}})
        assert done.returncode != 0 and word in done.stderr + done.stdout, (kafka, done)
    good = {"kafka": {"brokers": "127.0.0.1:1", "security": {"protocol": "sasl_ssl"}, "sasl": sasl}}
    done = check(tmp_path, good, {"BELFRY_KAFKA_PASSWORD": "from the environment"})
    assert done.returncode == 0, done
