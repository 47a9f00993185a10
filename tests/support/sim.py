"""belfry-sim for tests: the process, its control port, credentials, and a plain HTTP/2 client.

The client is Python's h2 over ssl, so what the simulator says is judged by somebody else's HTTP/2. Signing
is by `cryptography`. Nothing here knows the product.
"""
import base64
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BELFRY_BUILD") or ROOT / "build/release")
TIMES = float(os.environ.get("BELFRY_TIMES", "1"))
WAIT_S = 5 * TIMES


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(header, claims, key):
    """Signed with |key|: ES256 for an EC key, RS256 for an RSA one."""
    text = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    else:
        signature = key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{b64(signature)}"


def load_key(path):
    return serialization.load_pem_private_key(pathlib.Path(path).read_bytes(), None)


class Running:
    """A simulator that runs; `ready` is its first line (scripts/dev up --sim gives it as "sim")."""

    def __init__(self, ready):
        self.ready = ready

    def port(self, provider):
        return self.ready[provider]["port"]

    def control(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.ready["control"]["port"], timeout=WAIT_S)
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def faults(self, *faults, **rest):
        status, text = self.control("POST", "/faults", {"faults": list(faults), **rest})
        assert status == 200, text

    def calm(self):
        assert self.control("DELETE", "/faults")[0] == 200

    def stats(self, provider):
        return json.loads(self.control("GET", "/stats")[1])[provider]

    def record(self, lines=1):
        """The last lines of the record, oldest first."""
        return [json.loads(line) for line in self.control("GET", f"/record?tail={lines}")[1].splitlines()]


class Sim(Running):
    """A simulator of the test's own."""

    def __init__(self, *options, faults=None, state=None):
        self.own_state = state is None
        self.state = state or tempfile.mkdtemp(prefix="belfry-sim-")
        self.record_file = pathlib.Path(self.state) / "record.jsonl"
        command = [str(BUILD / "belfry-sim"), "--state", self.state, "--record", str(self.record_file), *options]
        if faults:
            script = pathlib.Path(self.state) / "faults.json"
            script.write_text(json.dumps(faults))
            command += ["--faults", str(script)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line, "belfry-sim did not start"
        super().__init__(json.loads(line))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WAIT_S)
        self.process.stdout.close()
        if self.own_state and not os.environ.get("BELFRY_KEEP"):
            shutil.rmtree(self.state, ignore_errors=True)
        assert code == 0, f"belfry-sim ended with {code}"

    def connect(self, provider, **how):
        return Client(self, self.port(provider), **how)

    # ---- credentials --------------------------------------------------------------------------------

    def apns_token(self, key_id="BELFRYKEY1", age_s=0, **claims):
        row = next(k for k in self.ready["apns"]["keys"] if k["key_id"] == key_id)
        body = {"iss": row["team_id"], "iat": int(time.time()) - age_s, **claims}
        return jwt({"alg": "ES256", "kid": key_id}, body, load_key(row["key"]))

    def apns(self, key_id="BELFRYKEY1", **over):
        """Request fields of a good alert; a field of None is left out."""
        fields = {"authorization": f"bearer {self.apns_token(key_id)}", "apns-topic": "com.example.app",
                  "apns-push-type": "alert", "apns-priority": "10", "apns-expiration": "0"}
        fields.update({name.replace("_", "-"): value for name, value in over.items()})
        return {name: value for name, value in fields.items() if value is not None}

    def account(self):
        return json.loads(pathlib.Path(self.ready["fcm"]["service_account"]).read_text())

    def assertion(self, key=None, **over):
        account = self.account()
        now = int(time.time())
        claims = {"iss": account["client_email"], "aud": account["token_uri"], "iat": now, "exp": now + 3600,
                  "scope": "https://www.googleapis.com/auth/firebase.messaging", **over}
        key = key or serialization.load_pem_private_key(account["private_key"].encode(), None)
        return jwt({"alg": "RS256", "typ": "JWT", "kid": account["private_key_id"]}, claims, key)

    def vapid(self, key=None, signer=None, **over):
        key = key or ec.generate_private_key(ec.SECP256R1())
        claims = {"aud": f"https://localhost:{self.port('webpush')}", "exp": int(time.time()) + 3600,
                  "sub": "mailto:ops@example.com", **over}
        point = key.public_key().public_bytes(serialization.Encoding.X962,
                                              serialization.PublicFormat.UncompressedPoint)
        return f"vapid t={jwt({'alg': 'ES256', 'typ': 'JWT'}, claims, signer or key)}, k={b64(point)}"


class Closed(Exception):
    """The peer is gone before it answered."""


class Answer:
    def __init__(self):
        self.status, self.fields, self.body, self.ended, self.reset = 0, {}, b"", False, None

    def json(self):
        return json.loads(self.body)

    def reason(self):
        return self.json()["reason"] if self.body else ""


class Client:
    """One HTTP/2 connection, blocking. Answers are collected per stream."""

    def __init__(self, sim, port, cert=None, alpn=("h2",), settled=True):
        context = ssl.create_default_context(cafile=sim.ready["ca"])
        context.set_alpn_protocols(list(alpn))
        if cert:
            context.load_cert_chain(*cert)
        raw = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.port, self.tls, self.answers, self.goaway, self.ended = port, None, {}, None, False
        try:
            self.tls = context.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8",
                                                                       validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.flush()
        self.limits = []
        if settled:
            self.until(lambda: self.limits)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.tls.close()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.tls.sendall(data)

    def take(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RemoteSettingsChanged):
            limit = event.changed_settings.get(h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS)
            if limit:
                self.limits.append(limit.new_value)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        elif answer and isinstance(event, h2.events.ResponseReceived):
            answer.fields = dict(event.headers)
            answer.status = int(answer.fields.pop(":status"))
        elif answer and isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif answer and isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif answer and isinstance(event, h2.events.StreamReset):
            answer.ended, answer.reset = True, event.error_code

    def turn(self):
        """Reads once. Closed when there is nothing more to come."""
        try:
            data = self.tls.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError) as error:
            raise Closed("reset") from error
        if not data:
            self.ended = True
            raise Closed("end")
        for event in self.h2.receive_data(data):
            self.take(event)
        self.flush()

    def until(self, condition):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "not in time"
            self.turn()

    def send(self, method, path, fields=(), body=b""):
        """Sends a request whole; returns its stream id."""
        stream = self.h2.get_next_available_stream_id()
        fields = list(fields.items()) if isinstance(fields, dict) else list(fields)
        head = [(":method", method), (":scheme", "https"), (":authority", f"localhost:{self.port}"), (":path", path)]
        self.h2.send_headers(stream, head + fields, end_stream=not body)
        if body:
            while body:
                part, body = body[:16000], body[16000:]
                self.h2.send_data(stream, part, end_stream=not body)
        self.answers[stream] = Answer()
        self.flush()
        return stream

    def wait(self, stream):
        self.until(lambda: self.answers[stream].ended)
        return self.answers[stream]

    def ask(self, method, path, fields=(), body=b""):
        return self.wait(self.send(method, path, fields, body))
