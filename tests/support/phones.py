"""Phones for tests of push: a node beside belfry-sim, devices registered over the API, and what arrives at them.

What a phone got is read from the simulator's record, which is written by nobody of the product. Web Push bodies are
opened with `cryptography`, by RFC 8291 and RFC 8188 and nothing of ours.
"""
import base64
import collections
import itertools
import json
import os
import pathlib
import urllib.parse

import harness
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from harness import until
from sim import Sim, b64

KINDS = {"apns": "ios", "fcm": "android", "webpush": "web"}  # provider: platform
APPS = {"ios": "apns", "android": "fcm", "web": "webpush"}   # app: provider
ACCEPTED = (200, 201, 202)


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Subscription:
    """The keys of a browser: p256dh and auth, and what opens a body that was sealed for them."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.point = self.key.public_key().public_bytes(serialization.Encoding.X962,
                                                        serialization.PublicFormat.UncompressedPoint)
        self.auth = os.urandom(16)

    def public(self):
        return {"p256dh": b64(self.point), "auth": b64(self.auth)}

    def open(self, body):
        """RFC 8188 2 (one record) with the keys of RFC 8291 3.4; raises when a bit is wrong."""
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, sealed = body[21:21 + length], body[21 + length:]
        assert length == 65 and 18 <= len(sealed) <= size, (length, len(sealed), size)
        peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        shared = self.key.exchange(ec.ECDH(), peer)
        secret = derive(shared, self.auth, b"WebPush: info\0" + self.point + sender, 32)
        content = derive(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
        nonce = derive(secret, salt, b"Content-Encoding: nonce\0", 12)
        plain = AESGCM(content).decrypt(nonce, sealed, None).rstrip(b"\0")
        assert plain[-1:] == b"\2", "the delimiter of the last record"
        return plain[:-1]


def derive(secret, salt, info, length):
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


class Phone:
    """A device of a user. `pushes` and `accepted` are lines of the simulator's record."""

    numbers = itertools.count(1)

    def __init__(self, node, user, app="ios", device=None):
        number = next(self.numbers)
        self.node, self.user, self.app, self.kind, self.device = node, user, app, node.apps[app], device
        self.subscription = Subscription() if self.kind == "webpush" else None
        unique = os.urandom(12).hex() + f"{number:08x}"
        self.token = {"apns": unique * 2, "fcm": f"fcm-{unique}:APA91b", "webpush": unique}[self.kind]
        self.id = None

    @property
    def body(self):
        """What the app would register with."""
        body = {"platform": KINDS[self.kind], "app": self.app, "token": self.token}
        if self.kind == "webpush":
            body["token"] = f"https://localhost:{self.node.providers.port('webpush')}/push/{self.token}"
            body["keys"] = self.subscription.public()
        if self.device:
            body["device"] = self.device
        return body

    def register(self):
        answer = self.node.request("POST", f"/v1/users/{harness.quote(self.user)}/devices", self.body)
        assert answer.status in (200, 201), answer
        self.id = answer.json["id"]
        return self

    def remove(self):
        answer = self.node.request("DELETE", f"/v1/users/{harness.quote(self.user)}/devices/{self.id}")
        assert answer.status == 204, answer

    @property
    def state(self):
        answer = self.node.request("GET", f"/v1/users/{harness.quote(self.user)}/devices/{self.id}")
        assert answer.status == 200, answer
        return answer.json["state"]

    @property
    def pushes(self):
        return self.node.record.of(self.kind, self.token)

    @property
    def accepted(self):
        return [line for line in self.pushes if line["status"] in ACCEPTED]

    def got(self, count=1, seconds=10, attempts=False):
        """Waits for this many accepted pushes (or attempts); more are wrong. Returns them, oldest first."""
        lines = until(lambda: len(found := self.pushes if attempts else self.accepted) >= count and found, seconds,
                      f"{count} pushes at the {self.app} phone of {self.user}")
        assert len(lines) == count, lines
        return lines

    def payload(self, line):
        """The body as the app finds it: aps and its neighbours, FCM's message, or the sealed object."""
        if self.kind == "webpush":
            return json.loads(self.subscription.open(line["payload"].encode("latin-1")))
        tree = json.loads(line["payload"])
        return tree["message"] if self.kind == "fcm" else tree

    def message_id(self, line):
        tree = self.payload(line)
        if self.kind == "apns":
            assert tree["belfry"]["id"] == line["id"], "apns-id is the message's id"
        return {"apns": lambda: line["id"], "fcm": lambda: tree["data"]["belfry_id"],
                "webpush": lambda: tree["id"]}[self.kind]()

    def answer(self, status=0, reason="", **more):
        """A fault for this phone alone."""
        said = {"status": status, "reason": reason} if reason else {"status": status}
        return {"provider": self.kind, "kind": "answer", "token": self.token, **said, **more}


def read_line(text):
    """A line of the record. What nobody processed has a path for a token: its last part, or for FCM the body's."""
    line = json.loads(text)
    if line["provider"] == "fcm" and line["status"] == 0 and "payload" in line:
        line["token"] = json.loads(line["payload"])["message"]["token"]
    else:
        line["token"] = line.get("token", "").rsplit("/", 1)[-1]
    return line


class Record:
    """The simulator's record, read as it grows."""

    def __init__(self, path):
        self.file = open(path, "rb")
        self.rest = b""
        self.lines = []
        self.by_token = collections.defaultdict(list)

    def refresh(self):
        data = self.rest + self.file.read()
        *whole, self.rest = data.split(b"\n")
        for text in whole:
            line = read_line(text)
            self.lines.append(line)
            self.by_token[line["provider"], line["token"]].append(line)

    def of(self, kind, token):
        self.refresh()
        return list(self.by_token.get((kind, token), ()))


class PushNode(harness.Node):
    """A node whose apps lie at a simulator of its own. `apps`: name -> provider; each has a pool of its own."""

    def __init__(self, apps=None, sim_options=("--payload",), sim_faults=None, app_options=None, config=None, **rest):
        super().__init__(config=config, **rest)
        self.apps = dict(apps or APPS)
        self.app_options = app_options or {}
        self.sim_options, self.sim_faults = sim_options, sim_faults
        self.providers = self.record = None

    def up(self, env=None):
        self.providers = Sim(*self.sim_options, faults=self.sim_faults, state=str(self.state / "sim"))
        self.record = Record(self.providers.record_file)
        self.config_over = harness.merge(self.config_over, {"push": {"apps": self.app_list()}})
        try:
            return super().up(env)
        except BaseException:
            self.providers.stop()
            raise

    def down(self):
        super().down()
        if self.providers:
            self.record.file.close()
            self.providers.stop()

    def app_list(self):
        return [{"name": name, **self.app(name, kind), **self.app_options.get(name, {})} for name, kind in self.apps.items()]

    def app(self, name, kind):
        fields = {"kind": kind, "host": "localhost", "port": self.providers.port(kind), "ca": self.providers.ready["ca"]}
        if kind == "apns":
            key = next(k for k in self.providers.ready["apns"]["keys"] if k["key_id"] == "BELFRYKEY1")
            fields.update(topic=f"com.example.{name}", team_id=key["team_id"], key_id="BELFRYKEY1", key=key["key"])
        elif kind == "fcm":
            fields.update(service_account=self.providers.ready["fcm"]["service_account"])
        else:
            fields.update(subject="mailto:ops@example.com", key=str(self.vapid_key(name)))
        return fields

    def vapid_key(self, name):
        path = pathlib.Path(self.state) / f"vapid-{name}.pem"
        key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))
        return path

    # -- users and phones
    def phone(self, user, app="ios", **more):
        return Phone(self, user, app, **more).register()

    def phones(self, user, *apps):
        return [self.phone(user, app) for app in apps or self.apps]

    # -- delivery status
    def status(self, notification):
        answer = self.request("GET", f"/v1/notifications/{notification}/status")
        assert answer.status == 200, answer
        return answer.json

    def push_status(self, notification, user):
        """The push channel of one recipient, or None while there is nothing of it."""
        for recipient in self.status(notification)["recipients"]:
            if recipient["user_id"] == user:
                return next((c for c in recipient["channels"] if c["channel"] == "push"), None)
        return None

    def outcome(self, notification, user, status, reason=None, seconds=10):
        """Waits until the push channel has this status, and its last attempt this reason (or begins with it)."""
        def there():
            channel = self.push_status(notification, user)
            if not channel or channel["status"] != status:
                return None
            if reason is None:
                return channel
            said = [a.get("reason", "") for a in channel["attempts"] if a["status"] == status]
            return channel if any(s == reason or s.startswith(f"{reason}:") for s in said) else None
        try:
            return until(there, seconds, f"push of {notification} is {status} {reason or ''}")
        except harness.TimedOut as late:
            raise AssertionError(f"{late}; status {self.status(notification)}") from None

    def letters(self, channel="push", notification=None):
        """Dead letters of a channel."""
        query = {"channel": channel, "limit": 1000, **({"event_id": notification} if notification else {})}
        answer = self.admin("GET", f"/admin/dlq?{urllib.parse.urlencode(query)}")
        assert answer.status == 200, answer
        return answer.json["letters"]
