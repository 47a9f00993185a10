"""A dataplane's push side against real peers: belfry-sim in every bad mood, nghttpd, Node's http2.

push_tool plays the control process: it sends N pushes and counts what each came to. Whatever the peer
does, each push has exactly one result, none is unknown that the peer said it has not processed, and
connections are replaced without churn.
"""
import json
import shutil
import socket
import subprocess

import pytest

from sim import BUILD, Sim, TIMES

NODE_SERVER = """
const fs = require('fs'), http2 = require('http2');
const [key, cert, die] = process.argv.slice(1);
const server = http2.createSecureServer({key: fs.readFileSync(key), cert: fs.readFileSync(cert)});
let n = 0;
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  stream.resume();
  stream.on('end', () => {
    stream.respond({':status': 200, 'content-type': 'application/json'});
    stream.end('{}');
    if (die === 'goaway' && ++n % 40 === 0) stream.session.close();
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""


def tool(port, ca, *options, pushes=300, seconds=30, authorization=None):
    command = [str(BUILD / "push_tool"), "--port", str(port), "--ca", str(ca), "--pushes", str(pushes),
               "--seconds", str(int(seconds * TIMES)), *(str(o) for o in options)]
    if authorization:
        command += ["--authorization", authorization]
    done = subprocess.run(command, capture_output=True, text=True, timeout=(seconds + 60) * TIMES)
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr
    result = json.loads(lines[-1])
    assert done.returncode == 0, (result, done.stderr[-2000:])
    assert result["done"] == pushes and result["twice"] == 0, result
    assert result["answered"] + result["not_sent"] + result["unknown"] == pushes, result
    return result


@pytest.fixture(scope="module")
def sim():
    with Sim() as running:
        yield running


@pytest.fixture(autouse=True)
def calm(request):
    yield
    if "sim" in request.fixturenames:
        request.getfixturevalue("sim").calm()


def send(sim, *options, fault=None, **how):
    if fault:
        sim.faults({"provider": "apns", **fault})
    return tool(sim.port("apns"), sim.ready["ca"], "--streams-first", 1, *options,
                authorization=f"bearer {sim.apns_token()}", **how)


def test_all_is_well(sim):
    result = send(sim, "--min", 2, "--max", 4, "--linger", 1200, pushes=2000)
    assert result["status"] == {"200": 2000}
    assert result["failures"] == 0 and result["goaways"] == 0


def test_answers_are_passed_on(sim):
    result = send(sim, fault={"kind": "storm", "status": 503, "rate": 0.5})
    assert set(result["status"]) <= {"200", "503"} and result["status"]["503"] > 50


def test_goaways_lose_nothing(sim):
    result = send(sim, "--max", 3, "--linger", 1200, fault={"kind": "goaway", "after_streams": 60, "drop": 5},
                  pushes=600)
    # what no connection took in three moves comes back as never sent, which ctrlplane stores and sends again
    assert result["unknown"] == 0, result
    assert result["answered"] + result["not_sent"] == 600, result
    assert result["answered"] > 400, result
    assert result["goaways"] > 2 and result["moved"] > 0
    assert result["connects"] < 40


def test_refused_streams_are_sent_again(sim):
    result = send(sim, fault={"kind": "refuse_stream", "rate": 0.2})
    assert result["unknown"] == 0 and result["moved"] > 20
    assert result["not_sent"] == result["why"]["refused"]
    assert result["answered"] > 280


def test_reset_streams_are_unknown(sim):
    result = send(sim, fault={"kind": "reset", "how": "stream", "rate": 0.1})
    assert result["why"]["reset"] > 5
    assert result["not_sent"] == 0


def test_reset_connections(sim):
    result = send(sim, "--max", 3, "--rate", 300, fault={"kind": "reset", "after_streams": 50}, pushes=600)
    assert result["unknown"] == result["why"]["closed"] > 0, result  # what was in flight had left
    assert result["answered"] > 100, result
    assert result["connects"] < 60


def test_stalled_streams_end_at_their_deadline(sim):
    result = send(sim, "--deadline", 700, fault={"kind": "stall", "rate": 0.1})
    assert result["why"]["timeout"] == result["unknown"] > 5


def test_half_open(sim):
    result = send(sim, "--rate", 200, "--deadline", 700, fault={"kind": "half_open", "after_streams": 40})
    assert result["why"]["timeout"] == result["unknown"] > 0, result
    assert result["answered"] > 20, result


def test_stream_limit_drops(sim):
    result = send(sim, fault={"kind": "stream_limit", "limit": 1, "after_streams": 50})
    assert result["unknown"] == 0, result
    assert result["answered"] == 300


@pytest.mark.parametrize("kind", ["nonsense", "endless_headers"])
def test_a_peer_that_breaks_http2(sim, kind):
    result = send(sim, "--max", 3, "--rate", 300, "--linger", 1200, fault={"kind": kind, "after_streams": 50})
    assert result["answered"] >= 40, result
    assert result["failures"] > 0 and result["text"], result
    assert result["connects"] < 60


@pytest.mark.parametrize("how", ["http/1.1", "none", "alert"])
def test_wrong_alpn(sim, how):
    result = send(sim, "--deadline", 1500, "--linger", 600, fault={"kind": "wrong_alpn", "how": how}, pushes=20)
    assert result["why"]["no_connection"] == 20
    assert "TLS" in result["text"], result
    assert result["connects"] < 12


def test_slow_tls(sim):
    result = send(sim, fault={"kind": "slow_tls", "delay_ms": 600})
    assert result["status"] == {"200": 300}


def test_outage_and_return(sim):
    result = send(sim, "--max", 3, "--rate", 100, "--deadline", 4000,
                  fault={"kind": "outage", "how": "refuse", "start_s": 1, "duration_s": 2}, pushes=600)
    assert result["answered"] > 350, result
    assert result["connects"] < 60


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        result = tool(free.getsockname()[1], "/dev/null", "--deadline", 1000, "--linger", 600, pushes=10)
    assert result["why"]["no_connection"] == 10
    assert result["text"], result


def test_a_certificate_that_nobody_signed(sim, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", str(tmp_path / "k"), "-out", str(tmp_path / "c"), "-subj", "/CN=other"],
                   check=True, capture_output=True)
    result = tool(sim.port("apns"), tmp_path / "c", "--deadline", 1000, "--linger", 600, pushes=10)
    assert result["why"]["no_connection"] == 10
    assert "certificate" in result["text"], result


# ---- other people's servers -------------------------------------------------------------------------

@pytest.fixture
def certificate(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", str(key), "-out", str(cert), "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return key, cert


@pytest.mark.skipif(not shutil.which("nghttpd"), reason="no nghttpd (nghttp2-server)")
def test_nghttpd(certificate, tmp_path):
    key, cert = certificate
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(["nghttpd", "-a", "127.0.0.1", "-d", str(tmp_path), str(port), str(key), str(cert)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        result = tool(port, cert, "--min", 2, "--max", 2, pushes=2000)
    finally:
        server.terminate()
        server.wait()
    assert sum(result["status"].values()) == 2000 and result["answered"] == 2000, result


@pytest.mark.skipif(not shutil.which("node"), reason="no node")
@pytest.mark.parametrize("mood", ["well", "goaway"])
def test_node(certificate, mood):
    key, cert = certificate
    server = subprocess.Popen(["node", "-e", NODE_SERVER, str(key), str(cert), mood], stdout=subprocess.PIPE,
                              text=True)
    try:
        port = int(server.stdout.readline())
        result = tool(port, cert, "--max", 3, pushes=500)
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
    assert result["status"] == {"200": 500}, result
