"""Credentials of push against belfry-sim: tokens minted for APNs and VAPID, an access token fetched, client
certificates; each opens its provider, with a request that the adapters built."""
import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from sim import BUILD, Sim  # noqa: E402


@pytest.fixture(scope="module")
def sim():
    with Sim() as running:
        yield running


def config(sim, directory, **over):
    """One app of each kind, at the simulator."""
    key = ec.generate_private_key(ec.SECP256R1())
    vapid = directory / "vapid.pem"
    vapid.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                        serialization.NoEncryption()))
    apns = next(k for k in sim.ready["apns"]["keys"] if k["key_id"] == "BELFRYKEY1")
    place = lambda provider: {"host": "localhost", "port": sim.port(provider), "ca": sim.ready["ca"]}  # noqa: E731
    apps = {
        "ios": {"kind": "apns", "topic": "com.example.app", "team_id": apns["team_id"], "key_id": "BELFRYKEY1",
                "key": apns["key"], **place("apns")},
        "android": {"kind": "fcm", "service_account": sim.ready["fcm"]["service_account"], **place("fcm")},
        "web": {"kind": "webpush", "key": str(vapid), "subject": "mailto:ops@example.com", **place("webpush")},
    }
    for name, fields in over.items():
        apps[name].update(fields)
    path = directory / "belfry.yaml"
    path.write_text(json.dumps({"push": {"apps": [{"name": n, **a} for n, a in apps.items()]}}))
    return path


def run(sim, path):
    return subprocess.run([str(BUILD / "push_creds_tool"), str(path), f"localhost:{sim.port('webpush')}"], capture_output=True,
                          text=True, timeout=60)


@pytest.fixture(scope="module")
def pools(sim):
    with tempfile.TemporaryDirectory(prefix="belfry-push-") as directory:
        done = run(sim, config(sim, pathlib.Path(directory)))
        assert done.returncode == 0, done.stderr
        for token in (p["authorization"] for p in json.loads(done.stdout)):
            assert token.split()[-1] not in done.stderr, "secrets stay out of the log"
        return {p["name"]: p for p in json.loads(done.stdout)}


def test_records(sim, pools):
    assert {n: p["kind"] for n, p in pools.items()} == {"ios": 0, "android": 1, "web": 2}
    for name, provider in (("ios", "apns"), ("android", "fcm"), ("web", "webpush")):
        pool = pools[name]
        assert pool["tls_name"] == "localhost" and pool["authority"] == f"localhost:{sim.port(provider)}"
        assert ["127.0.0.1", sim.port(provider)] in pool["addresses"]
        assert pool["pool"] == pool["id"] and pool["min"] == 1 and pool["max"] == 8
        assert pool["ca_bytes"] > 500 and pool["cert_bytes"] == pool["key_bytes"] == 0
    assert pools["ios"]["streams_first"] == 1 and pools["android"]["streams_first"] == 0
    assert pools["ios"]["ping_idle_ms"] == 3600000
    assert pools["ios"]["authorization"].startswith("bearer ")
    assert pools["android"]["authorization"].startswith("Bearer ")
    assert pools["web"]["authorization"].startswith("vapid t=")


@pytest.mark.parametrize("name,provider,status", [("ios", "apns", 200), ("android", "fcm", 200), ("web", "webpush", 201)])
def test_each_provider_takes_it(sim, pools, name, provider, status):
    pool = pools[name]
    body = base64.urlsafe_b64decode(pool["body"] + "=" * (-len(pool["body"]) % 4))
    with sim.connect(provider) as client:
        answer = client.ask("POST", pool["path"], {"authorization": pool["authorization"], **pool["fields"]}, body)
        assert answer.status == status, (answer.status, answer.body)


def test_client_certificate(sim, tmp_path):
    cert, key = sim.ready["apns"]["cert"], sim.ready["apns"]["cert_key"]
    path = tmp_path / "belfry.yaml"
    path.write_text(json.dumps({"push": {"apps": [{"name": "ios", "kind": "apns", "topic": "com.example.app", "cert": cert,
                                                   "key": key, "host": "localhost", "port": sim.port("apns"),
                                                   "ca": sim.ready["ca"]}]}}))
    done = run(sim, path)
    assert done.returncode == 0, done.stderr
    pool = json.loads(done.stdout)[0]
    assert pool["authorization"] == "" and pool["cert_bytes"] > 0 and pool["key_bytes"] > 0
    assert pool["streams_first"] == 0
    body = base64.urlsafe_b64decode(pool["body"] + "=" * (-len(pool["body"]) % 4))
    with sim.connect("apns", cert=(cert, key)) as client:
        assert client.ask("POST", pool["path"], pool["fields"], body).status == 200


BAD = [
    ({"ios": {"key": "/nowhere.p8"}}, "cannot read"),
    ({"ios": {"key_id": ""}}, "key_id: 1..255 bytes"),
    ({"ios": {"environment": "test"}}, "environment: test"),
    ({"ios": {"kind": "gcm"}}, "allowed apns, fcm, webpush"),
    ({"ios": {"port": 70000}}, "allowed 1..65535"),
    ({"ios": {"connections_min": 9}}, "connections_min is above"),
    ({"web": {"subject": "ops"}}, "subject"),
    ({"ios": {"colour": "red"}}, "colour"),
    ({"ios": {"failover": "nobody"}}, "no other app of its kind"),
    ({"ios": {"failover": "ios"}}, "no other app of its kind"),
]


@pytest.mark.parametrize("over,words", BAD)
def test_bad_apps(sim, tmp_path, over, words):
    done = run(sim, config(sim, tmp_path, **over))
    assert done.returncode == 1 and words in done.stderr, done.stderr


def test_wrong_kind_of_key(sim, tmp_path):
    rsa = tmp_path / "rsa.pem"
    account = json.loads(pathlib.Path(sim.ready["fcm"]["service_account"]).read_text())
    rsa.write_text(account["private_key"])
    done = run(sim, config(sim, tmp_path, ios={"key": str(rsa)}))
    assert done.returncode == 1 and "P-256" in done.stderr
    assert "PRIVATE" not in done.stderr
    os.unlink(rsa)
