"""Every row of PROVIDERS 1.2, 1.4, 2 and 3 through a whole node: what a provider answers, and what becomes of message,
device and pool; what each kind of push looks like on the wire. The classes are Apple's and Google's words for what to do:

  sent     accepted                              dead     the token is given up, the message has failed
  letter   dead letter, nothing is tried again   later    the message waits, with the reason
  once     tried again once, with a renewed credential or connection; then a dead letter, or failed
  stopped  as later, and the pool sends nothing until its credential is another one
"""
import pytest

from harness import until
from phones import PushNode

FUTURE_MS = 4102444800000  # a token that was dead at any time we can register at
APNS = [
    (200, "", "sent"),
    (400, "BadDeviceToken", "dead"), (400, "DeviceTokenNotForTopic", "dead"),
    *((400, reason, "letter") for reason in
      ("BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "DuplicateHeaders", "InvalidPushType",
       "MissingDeviceToken", "PayloadEmpty", "BadTopic", "MissingTopic", "TopicDisallowed")),
    (400, "IdleTimeout", "later"), (403, "ExpiredProviderToken", "once"), (403, "UnrelatedKeyIdInToken", "once"),
    *((403, reason, "stopped") for reason in
      ("InvalidProviderToken", "MissingProviderToken", "BadCertificate", "BadCertificateEnvironment",
       "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken")),
    (403, "Forbidden", "letter"), (404, "BadPath", "letter"), (405, "MethodNotAllowed", "letter"),
    (410, "Unregistered", "dead"), (410, "ExpiredToken", "dead"), (413, "PayloadTooLarge", "letter"),
    (429, "TooManyRequests", "later"), (429, "TooManyProviderTokenUpdates", "later"),
    (500, "InternalServerError", "later"), (503, "ServiceUnavailable", "later"), (503, "Shutdown", "later"),
]
FCM = [
    (200, "", "sent"), (400, "INVALID_ARGUMENT", "dead"), (401, "THIRD_PARTY_AUTH_ERROR", "letter"),
    (401, "APNS_AUTH_ERROR", "letter"), (401, "UNAUTHENTICATED", "once"), (403, "SENDER_ID_MISMATCH", "dead"),
    (404, "UNREGISTERED", "dead"), (429, "QUOTA_EXCEEDED", "later"), (500, "INTERNAL", "later"),
    (503, "UNAVAILABLE", "later"), (500, "UNSPECIFIED_ERROR", "once"),
]
WEBPUSH = [
    (201, "", "sent"), (202, "", "sent"), (400, "", "letter"), (401, "", "once"), (403, "", "once"), (404, "", "dead"),
    (410, "", "dead"), (413, "", "letter"), (429, "", "later"), (500, "", "later"), (502, "", "later"), (503, "", "later"),
]
ROWS = [("apns", *row) for row in APNS] + [("fcm", *row) for row in FCM] + [("webpush", *row) for row in WEBPUSH]
NAMES = [f"{kind} {status} {reason}".strip() for kind, status, reason, _ in ROWS]
# An app that is stopped, or asks for another credential, is one for its row alone.
OWN = {name: f"own-{i}" for i, name in enumerate(n for n, row in zip(NAMES, ROWS) if row[3] == "stopped")}
SHARED = {kind: f"{kind}-all" for kind in ("apns", "fcm", "webpush")}

# Apple's table of push types: what is added to the bundle id, and what the payload must be allowed to have.
TYPES = [("alert", ""), ("background", ""), ("voip", ".voip"), ("complication", ".complication"),
         ("fileprovider", ".pushkit.fileprovider"), ("location", ".location-query"),
         ("liveactivity", ".push-type.liveactivity"), ("pushtotalk", ".voip-ptt"), ("widgets", ".push-type.widgets"),
         ("controls", ".push-type.controls")]
URGENCIES = ("very-low", "low", "normal", "high")


class Asked:
    """A row's phone, and the push that its provider answers so."""

    def __init__(self, node, name, row):
        kind, self.status, reason, self.becomes = row
        self.word = reason or f"http_{self.status}"
        self.app = OWN.get(name, SHARED[kind])
        self.user = name.replace(" ", "-")
        node.put_user(self.user)
        self.phone = node.phone(self.user, self.app)
        more = {"timestamp_ms": FUTURE_MS} if self.status == 410 and kind == "apns" else {}
        self.fault = None if self.becomes == "sent" and self.status != 202 else self.phone.answer(self.status, reason, **more)
        self.sent = None


@pytest.fixture(scope="module")
def node():
    apps = {**{app: "apns" for app in OWN.values()}, **{app: kind for kind, app in SHARED.items()},
            "ios": "apns", "web": "webpush"}
    with PushNode(apps=apps) as running:
        yield running


@pytest.fixture(scope="module")
def asked(node):
    rows = {name: Asked(node, name, row) for name, row in zip(NAMES, ROWS)}
    node.providers.faults(*(row.fault for row in rows.values() if row.fault))
    for row in rows.values():
        row.sent = node.send(row.user, channels=["push"])
    for name, row in rows.items():
        until(lambda p=row.phone: p.pushes, 15, f"the push that meets {name}")
    yield rows
    node.providers.calm()


@pytest.mark.parametrize("name", NAMES)
def test_what_an_answer_means(node, asked, name):
    row = asked[name]
    if row.becomes == "sent":
        node.outcome(row.sent, row.user, "sent")
    elif row.becomes in ("dead", "letter", "once"):
        node.outcome(row.sent, row.user, "failed", row.word, seconds=40)
    else:
        node.outcome(row.sent, row.user, "queued", row.word)
    letters = node.letters(notification=row.sent)
    is_ours = row.becomes == "letter" or (row.becomes == "once" and row.status < 500)
    assert len(letters) == is_ours, letters
    assert row.phone.state == ("dead" if row.becomes == "dead" else "live")
    if row.becomes in ("sent", "dead", "letter"):
        assert len(row.phone.pushes) == 1, "it is not tried again"
    if row.becomes == "once":
        assert len(row.phone.pushes) == 2


@pytest.mark.parametrize("name", OWN)
def test_a_stopped_pool_sends_nothing(node, asked, name):
    row = asked[name]
    node.outcome(row.sent, row.user, "queued", row.word)
    other = node.phone(row.user, row.app)
    second = node.send(row.user, channels=["push"])
    node.outcome(second, row.user, "queued", "credential_refused")
    assert other.pushes == []


@pytest.mark.parametrize("kind,suffix", TYPES, ids=[row[0] for row in TYPES])
def test_push_types_of_apns(node, kind, suffix):
    user = f"type-{kind}"
    node.put_user(user)
    phone = node.phone(user, "ios")
    more = {"aps": {"event": "update", "timestamp": 1700000000, "content-state": {"score": 1}}}
    node.send(user, channels=["push"],
              overrides={"push": {"apns": {"push_type": kind, **(more if kind == "liveactivity" else {})}}})
    line = phone.got()[0]
    assert (line["type"], line["topic"]) == (kind, f"com.example.ios{suffix}")
    if kind == "background":
        assert line["priority"] == "5" and phone.payload(line)["aps"].get("content-available") == 1
    if kind == "pushtotalk":
        assert (line["priority"], line["expiration"]) == ("10", "0")


@pytest.mark.parametrize("urgency", URGENCIES)
def test_urgencies_of_web_push(node, urgency):
    user = f"urgency-{urgency}"
    node.put_user(user)
    phone = node.phone(user, "web")
    node.send(user, channels=["push"], overrides={"push": {"webpush": {"urgency": urgency}}})
    line = phone.got()[0]
    assert line["type"] == urgency and line["status"] in (201, 202)
