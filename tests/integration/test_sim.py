"""belfry-sim against the providers' documents, row by row, by an independent HTTP/2 client (Python's h2).

One parameter is one row: the request that brings it about and the answer that the document names. Faults
follow, then the record, the control port, and other clients (curl, Node).
"""
import json
import pathlib
import shutil
import ssl
import subprocess
import time

import h2.exceptions
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sim import Closed, Sim, WAIT_S, b64, jwt, load_key

TOKEN = "a1" * 32
ALERT = b'{"aps":{"alert":"hello"}}'
UUID = "123e4567-e89b-42d3-a456-426614174000"
FCM_TOKEN = "f" * 60 + ":APA91b-_x"
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@pytest.fixture(scope="module")
def sim():
    with Sim("--topics", "com.example.app,com.example.two", "--payload") as running:
        yield running


@pytest.fixture(autouse=True)
def calm(request):
    yield
    if "sim" in request.fixturenames:
        request.getfixturevalue("sim").calm()


# ---- APNs: answers ----------------------------------------------------------------------------------

def push(sim, body=ALERT, token=TOKEN, method="POST", path=None, fields=None, cert=None, **over):
    with sim.connect("apns", cert=cert) as client:
        return client.ask(method, path or f"/3/device/{token}", fields or sim.apns(**over), body)


LIVE = "com.example.app.push-type.liveactivity"
APNS_ROWS = {
    "accepted": (200, "", {}),
    "accepted with everything": (200, "", {"apns_id": UUID, "apns_collapse_id": "c" * 64, "apns_priority": "5",
                                           "apns_expiration": "1999999999"}),
    "priority 1": (200, "", {"apns_priority": "1"}),
    "no push type": (200, "", {"apns_push_type": None}),
    "token not hex": (400, "BadDeviceToken", {"token": "z" * 64}),
    "token too short": (400, "BadDeviceToken", {"token": "a1" * 10}),
    "collapse id of 65 bytes": (400, "BadCollapseId", {"apns_collapse_id": "c" * 65}),
    "expiration no number": (400, "BadExpirationDate", {"apns_expiration": "tomorrow"}),
    "expiration in milliseconds": (400, "BadExpirationDate", {"apns_expiration": "1700000000000000"}),
    "apns-id in capitals": (400, "BadMessageId", {"apns_id": UUID.upper()}),
    "priority 7": (400, "BadPriority", {"apns_priority": "7"}),
    "background at 10": (400, "BadPriority", {"apns_push_type": "background"}),
    "content-available only at 10": (400, "BadPriority", {"body": b'{"aps":{"content-available":1}}'}),
    "background at 5": (200, "", {"apns_push_type": "background", "apns_priority": "5",
                                  "body": b'{"aps":{"content-available":1}}'}),
    "topic with a blank": (400, "BadTopic", {"apns_topic": "com example"}),
    "voip without its suffix": (400, "BadTopic", {"apns_push_type": "voip"}),
    "voip": (200, "", {"apns_push_type": "voip", "apns_topic": "com.example.app.voip"}),
    "complication": (200, "", {"apns_push_type": "complication", "apns_topic": "com.example.app.complication"}),
    "file provider": (200, "", {"apns_push_type": "fileprovider", "apns_topic": "com.example.app.pushkit.fileprovider"}),
    "location": (200, "", {"apns_push_type": "location", "apns_topic": "com.example.app.location-query"}),
    "live activity": (200, "", {"apns_push_type": "liveactivity", "apns_topic": LIVE}),
    "widgets": (200, "", {"apns_push_type": "widgets", "apns_topic": "com.example.app.push-type.widgets"}),
    "controls": (200, "", {"apns_push_type": "controls", "apns_topic": "com.example.app.push-type.controls"}),
    "push to talk": (200, "", {"apns_push_type": "pushtotalk", "apns_topic": "com.example.app.voip-ptt"}),
    "push to talk at 5": (400, "BadPriority", {"apns_push_type": "pushtotalk", "apns_priority": "5",
                                               "apns_topic": "com.example.app.voip-ptt"}),
    "push to talk stored": (400, "BadExpirationDate", {"apns_push_type": "pushtotalk", "apns_expiration": "1999999999",
                                                       "apns_topic": "com.example.app.voip-ptt"}),
    "unknown push type": (400, "InvalidPushType", {"apns_push_type": "loud"}),
    "no topic": (400, "MissingTopic", {"apns_topic": None}),
    "topic of nobody": (400, "TopicDisallowed", {"apns_topic": "com.example.three"}),
    "no device token": (400, "MissingDeviceToken", {"token": ""}),
    "no payload": (400, "PayloadEmpty", {"body": b""}),
    "payload of 4096": (200, "", {"body": b"{" + b" " * 4094 + b"}"}),
    "payload of 4097": (413, "PayloadTooLarge", {"body": b"{" + b" " * 4095 + b"}"}),
    "voip of 5120": (200, "", {"apns_push_type": "voip", "apns_topic": "com.example.app.voip",
                               "body": b"{" + b" " * 5118 + b"}"}),
    "voip of 5121": (413, "PayloadTooLarge", {"apns_push_type": "voip", "apns_topic": "com.example.app.voip",
                                              "body": b"{" + b" " * 5119 + b"}"}),
    "other path": (404, "BadPath", {"path": "/2/device/x"}),
    "other method": (405, "MethodNotAllowed", {"method": "PUT"}),
    "no provider token": (403, "MissingProviderToken", {"authorization": None}),
    "provider token nonsense": (403, "InvalidProviderToken", {"authorization": "bearer abc"}),
    "provider token unsigned": (403, "InvalidProviderToken", {"authorization": "bearer e30.e30.e30"}),
    "revoked key": (403, "InvalidProviderToken", {"key_id": "REVOKEDKEY"}),
    "key of the sandbox": (403, "BadEnvironmentKeyIdInToken", {"key_id": "SANDBOXKEY"}),
    "key of production": (200, "", {"key_id": "PRODUCTKEY"}),
}


@pytest.mark.parametrize("row", APNS_ROWS.values(), ids=APNS_ROWS.keys())
def test_apns_row(sim, row):
    status, reason, over = row
    answer = push(sim, **over)
    assert (answer.status, answer.reason()) == (status, reason)
    assert len(answer.fields["apns-id"]) == 36
    if over.get("apns_id") == UUID:
        assert answer.fields["apns-id"] == UUID
    assert (answer.body == b"") == (status == 200)
    (line,) = sim.record()
    assert (line["status"], line.get("reason", ""), line["id"]) == (status, reason, answer.fields["apns-id"])


@pytest.mark.parametrize("claims, reason", [
    ({"age_s": 3700}, "ExpiredProviderToken"), ({"age_s": -600}, "InvalidProviderToken"),
    ({"iss": "OTHERTEAM0"}, "InvalidProviderToken"), ({"iat": None}, "InvalidProviderToken"),
], ids=["an hour old", "from the future", "another team's name", "no iat"])
def test_apns_token_claims(sim, claims, reason):
    answer = push(sim, authorization=f"bearer {sim.apns_token(**claims)}")
    assert (answer.status, answer.reason()) == (403, reason)


def test_apns_token_wrong_signature(sim):
    token = jwt({"alg": "ES256", "kid": "BELFRYKEY1"}, {"iss": "BELFRYTEAM", "iat": int(time.time())},
                ec.generate_private_key(ec.SECP256R1()))
    answer = push(sim, authorization=f"bearer {token}")
    assert (answer.status, answer.reason()) == (403, "InvalidProviderToken")


def test_apns_duplicate_headers(sim):
    answer = push(sim, fields=[*sim.apns().items(), ("apns-priority", "5")])
    assert (answer.status, answer.reason()) == (400, "DuplicateHeaders")


@pytest.mark.parametrize("second, reason", [
    ("TOPICKEY01", "UnrelatedKeyIdInToken"), ("OTHERKEY01", "InvalidProviderToken"),
    ("BELFRYKEY1", "TooManyProviderTokenUpdates"), ("BELFRYKEY2", "TooManyProviderTokenUpdates"),
], ids=["unrelated key", "another team", "a new token at once", "a related key at once"])
def test_apns_connection_is_bound(sim, second, reason):
    with sim.connect("apns") as client:
        fields = sim.apns()
        assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200
        other = sim.apns(authorization=f"bearer {sim.apns_token(second, age_s=5)}")
        answer = client.ask("POST", f"/3/device/{TOKEN}", other, ALERT)
        assert answer.reason() == reason
        assert answer.status == (429 if reason == "TooManyProviderTokenUpdates" else 403)
        # the token in use goes on
        assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200


def test_apns_token_update_allowed():
    with Sim("--token-update-s", "0") as sim, sim.connect("apns") as client:
        for age_s in (5, 0):
            fields = sim.apns(authorization=f"bearer {sim.apns_token(age_s=age_s)}")
            assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200


def test_apns_streams_open_after_the_first_good_answer(sim):
    with sim.connect("apns") as client:
        assert client.limits == [1]
        bad = sim.apns(authorization=None)
        assert client.ask("POST", f"/3/device/{TOKEN}", bad, ALERT).status == 403
        assert client.limits == [1]
        client.ask("POST", f"/3/device/{TOKEN}", sim.apns(), ALERT)
        client.until(lambda: client.limits == [1, 1000])
        streams = [client.send("POST", f"/3/device/{TOKEN}", sim.apns(), ALERT) for _ in range(50)]
        assert {client.wait(s).status for s in streams} <= {200, 429}


def test_apns_second_stream_before_that_is_refused(sim):
    with sim.connect("apns", settled=False) as client:
        streams = [client.send("POST", f"/3/device/{TOKEN}", sim.apns(), ALERT) for _ in range(3)]
        answers = [client.wait(s) for s in streams]
        assert answers[0].status == 200
        assert {a.reset for a in answers[1:]} <= {7, None}
        assert all(a.reset == 7 or a.status for a in answers)


def cert_of(sim, name):
    return sim.ready["apns"][name], sim.ready["apns"][name + "_key"]


def test_apns_certificate(sim):
    with sim.connect("apns", cert=cert_of(sim, "cert")) as client:
        client.until(lambda: client.limits == [1000])
        fields = sim.apns(authorization=None)
        assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200
        assert client.ask("POST", f"/3/device/{TOKEN}", {}, ALERT).status == 200  # one topic: it is the default
        fields["apns-topic"] = "com.example.two"
        assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).reason() == "TopicDisallowed"
        live = sim.apns(authorization=None, apns_push_type="location", apns_topic="com.example.app.location-query")
        assert client.ask("POST", f"/3/device/{TOKEN}", live, ALERT).reason() == "InvalidPushType"


def test_apns_certificate_of_the_sandbox(sim):
    answer = push(sim, cert=cert_of(sim, "cert_sandbox"))
    assert (answer.status, answer.reason()) == (403, "BadCertificateEnvironment")


def test_apns_certificate_of_nobody(sim):
    with Sim() as other:
        answer = push(sim, cert=cert_of(other, "cert"))
    assert (answer.status, answer.reason()) == (403, "BadCertificate")


def test_apns_sandbox():
    with Sim("--environment", "sandbox") as sim:
        answer = push(sim, key_id="SANDBOXKEY")
        assert answer.status == 200 and len(answer.fields["apns-unique-id"]) == 36
        assert push(sim, key_id="PRODUCTKEY").reason() == "BadEnvironmentKeyIdInToken"
        assert push(sim, cert=cert_of(sim, "cert_sandbox")).status == 200


REASONS = ["BadDeviceToken", "DeviceTokenNotForTopic", "IdleTimeout", "Forbidden", "ExpiredToken", "Unregistered",
           "TooManyRequests", "InternalServerError", "ServiceUnavailable", "Shutdown", "BadCertificate"]
STATUSES = [400, 400, 400, 403, 410, 410, 429, 500, 503, 503, 403]


@pytest.mark.parametrize("reason, status", zip(REASONS, STATUSES), ids=REASONS)
def test_apns_any_answer_by_script(sim, reason, status):
    sim.faults({"provider": "apns", "kind": "answer", "reason": reason, "token": TOKEN, "timestamp_ms": 1700000000000})
    answer = push(sim)
    assert (answer.status, answer.reason()) == (status, reason)
    assert answer.json().get("timestamp") == (1700000000000 if status == 410 else None)
    assert push(sim, token="b2" * 32).status == 200


def test_an_answer_so_many_times(sim):
    sim.faults({"provider": "apns", "kind": "answer", "reason": "Shutdown", "token": TOKEN, "times": 2})
    assert [push(sim).status for _ in range(4)] == [503, 503, 200, 200]


def test_apns_token_rules(sim):
    sim.faults(tokens=[{"provider": "apns", "token": TOKEN, "topic": "com.example.two"},
                       {"provider": "apns", "token": "c3" * 32, "reason": "Unregistered", "timestamp_ms": 1650000000000}])
    assert push(sim).reason() == "DeviceTokenNotForTopic"
    assert push(sim, apns_topic="com.example.two").status == 200
    dead = push(sim, token="c3" * 32)
    assert (dead.status, dead.json()) == (410, {"reason": "Unregistered", "timestamp": 1650000000000})


# ---- APNs: channels ---------------------------------------------------------------------------------

APP = "/1/apps/com.example.app"


def channel(client, auth, policy=1):
    body = json.dumps({"message-storage-policy": policy, "push-type": "LiveActivity"}).encode()
    made = client.ask("POST", f"{APP}/channels", auth, body)
    assert made.status == 201, made.body
    return made.fields["apns-channel-id"]


def test_apns_channels(sim):
    with sim.connect("apns") as client:
        auth = {"authorization": sim.apns()["authorization"]}
        id = channel(client, auth)
        both = {**auth, "apns-channel-id": id}
        assert client.ask("GET", f"{APP}/channels", both).json() == {"message-storage-policy": 1,
                                                                     "push-type": "LiveActivity"}
        assert id in client.ask("GET", f"{APP}/all-channels", auth).json()["channels"]
        send = {**both, "apns-push-type": "liveactivity", "apns-expiration": "1999999999", "apns-priority": "10"}
        path = "/4/broadcasts/apps/com.example.app"
        assert client.ask("POST", path, send, ALERT).status == 200
        assert client.ask("DELETE", f"{APP}/channels", both).status == 204
        assert client.ask("POST", path, send, ALERT).reason() == "ChannelNotRegistered"
        assert client.ask("GET", f"{APP}/channels", both).reason() == "ChannelNotRegistered"


@pytest.mark.parametrize("over, reason", [
    ({"apns-channel-id": None}, "MissingChannelId"), ({"apns-channel-id": "no base64!"}, "BadChannelId"),
    ({"apns-push-type": None}, "MissingPushType"), ({"apns-push-type": "alert"}, "InvalidPushType"),
    ({"apns-expiration": None}, "BadExpirationDate"), ({"apns-expiration": "99"}, "BadExpirationDate"),
    ({"body": b" " * 5121}, "PayloadTooLarge"), ({"body": b""}, "PayloadEmpty"), ({}, ""),
], ids=["no channel", "bad channel", "no push type", "other push type", "no expiration", "stored without storage",
        "5121 bytes", "no payload", "accepted"])
def test_apns_broadcast_row(sim, over, reason):
    with sim.connect("apns") as client:
        auth = {"authorization": sim.apns()["authorization"]}
        fields = {**auth, "apns-channel-id": channel(client, auth, policy=0),
                  "apns-push-type": "liveactivity", "apns-expiration": "0", **over}
        body = fields.pop("body", ALERT)
        fields = {name: value for name, value in fields.items() if value is not None}
        answer = client.ask("POST", "/4/broadcasts/apps/com.example.app", fields, body)
        assert answer.reason() == reason
        assert len(answer.fields["apns-request-id"]) == 36


# ---- FCM and OAuth ------------------------------------------------------------------------------------

def access_token(sim):
    form = f"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={sim.assertion()}"
    with sim.connect("oauth") as client:
        answer = client.ask("POST", "/token", {"content-type": "application/x-www-form-urlencoded"}, form.encode())
    assert answer.status == 200, answer.body
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3599)
    return answer.json()["access_token"]


@pytest.fixture(scope="module")
def bearer(sim):
    return f"Bearer {access_token(sim)}"


def send_fcm(sim, bearer, message=None, raw=None, path="/v1/projects/belfry-sim/messages:send", method="POST", **top):
    fields = {"authorization": bearer, "content-type": "application/json"}
    if not bearer:
        del fields["authorization"]
    body = raw if raw is not None else json.dumps({"message": message, **top}).encode()
    with sim.connect("fcm") as client:
        return client.ask(method, path, fields, body)


def detail(answer):
    """(HTTP status, RPC status, errorCode or BadRequest)"""
    error = answer.json()["error"]
    assert error["code"] == answer.status
    found = [d.get("errorCode", d["@type"]) for d in error.get("details", [])]
    return answer.status, error["status"], found[0] if found else None


def test_fcm_accepted(sim, bearer):
    answer = send_fcm(sim, bearer, {"token": FCM_TOKEN, "data": {"k": "v"}, "android": {"ttl": "3.5s", "priority": "high"}})
    assert answer.status == 200
    assert answer.json()["name"].startswith("projects/belfry-sim/messages/")
    (line,) = sim.record()
    assert (line["token"], line["id"]) == (FCM_TOKEN, answer.json()["name"])


def test_fcm_targets(sim, bearer):
    for message in ({"topic": "news"}, {"condition": "'a' in topics"}):
        assert send_fcm(sim, bearer, {**message, "data": {"k": "v"}}).status == 200
    assert send_fcm(sim, bearer, {"token": FCM_TOKEN}, validate_only=True).json()["name"].endswith("fake_message_id")


FIELD = (400, "INVALID_ARGUMENT", BAD_REQUEST)
TOKEN_BAD = (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
FCM_ROWS = {
    "no JSON": (FIELD, {"raw": b"{"}),
    "no message": (FIELD, {"raw": b"{}"}),
    "no target": (FIELD, {"message": {"data": {}}}),
    "two targets": (FIELD, {"message": {"token": FCM_TOKEN, "topic": "x"}}),
    "data of numbers": (FIELD, {"message": {"token": FCM_TOKEN, "data": {"n": 1}}}),
    "data key from": (TOKEN_BAD, {"message": {"token": FCM_TOKEN, "data": {"from": "x"}}}),
    "data key google": (TOKEN_BAD, {"message": {"token": FCM_TOKEN, "data": {"googlex": "x"}}}),
    "ttl of five weeks": (FIELD, {"message": {"token": FCM_TOKEN, "android": {"ttl": "3024000s"}}}),
    "ttl without unit": (FIELD, {"message": {"token": FCM_TOKEN, "android": {"ttl": "30"}}}),
    "priority urgent": (FIELD, {"message": {"token": FCM_TOKEN, "android": {"priority": "urgent"}}}),
    "token too short": (TOKEN_BAD, {"message": {"token": "abc"}}),
    "token with a blank": (TOKEN_BAD, {"message": {"token": "a b" * 30}}),
    "4097 bytes": (TOKEN_BAD, {"message": {"token": FCM_TOKEN, "data": {"k": "v" * 4096}}}),
    "2049 bytes for a topic": (TOKEN_BAD, {"message": {"topic": "t", "data": {"k": "v" * 2048}}}),
    "another project": ((403, "PERMISSION_DENIED", None), {"message": {}, "path": "/v1/projects/x/messages:send"}),
    "legacy path": ((404, "NOT_FOUND", None), {"message": {}, "path": "/fcm/send"}),
    "other method": ((405, "UNIMPLEMENTED", None), {"message": {}, "method": "PUT"}),
}


@pytest.mark.parametrize("row", FCM_ROWS.values(), ids=FCM_ROWS.keys())
def test_fcm_row(sim, bearer, row):
    expected, request = row
    answer = send_fcm(sim, bearer, **request)
    assert detail(answer) == expected
    if expected == TOKEN_BAD and "token" in request["message"] and len(request["message"]) == 1:
        assert "not a valid FCM registration token" in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", [None, "Bearer nonsense", "Bearer ya29.sim." + "A" * 43],
                         ids=["none", "nonsense", "forged"])
def test_fcm_credentials(sim, value):
    assert detail(send_fcm(sim, value, {"token": FCM_TOKEN})) == (401, "UNAUTHENTICATED", None)


def test_fcm_access_token_expires():
    with Sim("--access-ttl-s", "0") as sim:
        form = f"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={sim.assertion()}".encode()
        with sim.connect("oauth") as client:
            token = client.ask("POST", "/token", {"content-type": "application/x-www-form-urlencoded"}, form).json()
        answer = send_fcm(sim, f"Bearer {token['access_token']}", {"token": FCM_TOKEN})
        assert detail(answer) == (401, "UNAUTHENTICATED", None)


FCM_CODES = {"THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED"), "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED"),
             "UNREGISTERED": (404, "NOT_FOUND"), "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED"),
             "INTERNAL": (500, "INTERNAL"), "UNAVAILABLE": (503, "UNAVAILABLE"),
             "UNSPECIFIED_ERROR": (500, "UNKNOWN"), "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT")}


@pytest.mark.parametrize("code", FCM_CODES)
def test_fcm_any_answer_by_script(sim, bearer, code):
    sim.faults({"provider": "fcm", "kind": "answer", "reason": code, "retry_after_s": 30})
    answer = send_fcm(sim, bearer, {"token": FCM_TOKEN})
    assert detail(answer) == (*FCM_CODES[code], code)
    assert answer.fields["retry-after"] == "30"


OAUTH_ROWS = {
    "another key": ("invalid_grant", lambda sim: sim.assertion(key=rsa.generate_private_key(65537, 2048))),
    "another account": ("invalid_grant", lambda sim: sim.assertion(iss="x@example.com")),
    "another audience": ("invalid_grant", lambda sim: sim.assertion(aud="https://example.com/token")),
    "two hours": ("invalid_grant", lambda sim: sim.assertion(exp=int(time.time()) + 7200)),
    "out of date": ("invalid_grant", lambda sim: sim.assertion(iat=1600000000, exp=1600003600)),
    "no scope": ("invalid_scope", lambda sim: sim.assertion(scope="email")),
    "nonsense": ("invalid_request", lambda sim: "abc"),
}


@pytest.mark.parametrize("row", OAUTH_ROWS.values(), ids=OAUTH_ROWS.keys())
def test_oauth_row(sim, row):
    error, make = row
    form = f"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={make(sim)}".encode()
    with sim.connect("oauth") as client:
        answer = client.ask("POST", "/token", {"content-type": "application/x-www-form-urlencoded"}, form)
    assert (answer.status, answer.json()["error"]) == (400, error)


def test_oauth_grant_type(sim):
    with sim.connect("oauth") as client:
        answer = client.ask("POST", "/token", {"content-type": "application/x-www-form-urlencoded"}, b"grant_type=password")
    assert answer.json()["error"] == "unsupported_grant_type"


# ---- Web Push -----------------------------------------------------------------------------------------

def encrypted(bytes_=200):
    """The form of an aes128gcm body (RFC 8291 4): the service cannot look further."""
    return b"s" * 16 + (4096).to_bytes(4, "big") + bytes([65, 4]) + b"k" * 64 + b"x" * (bytes_ - 86)


def send_web(sim, body=None, path="/push/sub-1", method="POST", **over):
    fields = {"authorization": sim.vapid(), "ttl": "60", "content-encoding": "aes128gcm",
              **{name.replace("_", "-"): value for name, value in over.items()}}
    fields = {name: value for name, value in fields.items() if value is not None}
    with sim.connect("webpush") as client:
        return client.ask(method, path, fields, encrypted() if body is None else body)


WEB_ROWS = {
    "accepted": (201, "", {}),
    "accepted with everything": (201, "", {"urgency": "very-low", "topic": "A" * 32}),
    "no data": (201, "", {"body": b"", "content_encoding": None}),
    "4096 bytes": (201, "", {"body": encrypted(4096)}),
    "4097 bytes": (413, "PayloadTooLarge", {"body": encrypted(4097)}),
    "no TTL": (400, "MissingTTL", {"ttl": None}),
    "bad TTL": (400, "BadTTL", {"ttl": "-1"}),
    "unknown urgency": (400, "BadUrgency", {"urgency": "now"}),
    "two urgencies": (400, "BadUrgency", {"urgency": "low,high"}),
    "topic of 33": (400, "BadTopic", {"topic": "A" * 33}),
    "topic alphabet": (400, "BadTopic", {"topic": "a/b"}),
    "old encoding": (400, "BadContentEncoding", {"content_encoding": "aesgcm"}),
    "no encryption header": (400, "BadEncryption", {"body": b"x" * 120}),
    "no VAPID": (401, "MissingVapid", {"authorization": None}),
    "other scheme": (403, "MalformedVapid", {"authorization": "WebPush abc"}),
    "other path": (404, "NotFound", {"path": "/else"}),
    "other method": (405, "MethodNotAllowed", {"method": "GET"}),
}


@pytest.mark.parametrize("row", WEB_ROWS.values(), ids=WEB_ROWS.keys())
def test_webpush_row(sim, row):
    status, message, over = row
    answer = send_web(sim, **over)
    assert (answer.status, answer.json()["message"] if answer.body else "") == (status, message)
    if status == 201:
        assert answer.fields["location"].startswith(f"https://localhost:{sim.port('webpush')}/m/")
        assert answer.fields["ttl"] == "60"


@pytest.mark.parametrize("make, message", [
    (lambda sim: sim.vapid(aud="https://example.com"), "VapidAudience"),
    (lambda sim: sim.vapid(exp=int(time.time()) - 1), "VapidExpiry"),
    (lambda sim: sim.vapid(exp=int(time.time()) + 90000), "VapidExpiry"),
    (lambda sim: sim.vapid(sub="me"), "VapidSubject"),
    (lambda sim: sim.vapid(signer=ec.generate_private_key(ec.SECP256R1())), "VapidSignature"),
    (lambda sim: "vapid t=a.b.c, k=AAAA", "MalformedVapid"),
], ids=["audience", "expired", "over a day", "subject", "signature", "nonsense"])
def test_webpush_vapid(sim, make, message):
    answer = send_web(sim, authorization=make(sim))
    assert (answer.status, answer.json()["message"]) == (403, message)


def test_webpush_ttl_shortened_and_receipt(sim):
    answer = send_web(sim, ttl="31536000", prefer="respond-async")
    assert (answer.status, answer.fields["ttl"]) == (202, "2419200")
    assert "urn:ietf:params:push:receipt" in answer.fields["link"]


@pytest.mark.parametrize("status", [404, 410])
def test_webpush_gone(sim, status):
    sim.faults({"provider": "webpush", "kind": "dead", "status": status})
    assert send_web(sim).status == status


def test_webpush_throttled(sim):
    sim.faults({"provider": "webpush", "kind": "throttle", "per_s": 1, "retry_after_s": 7})
    answers = [send_web(sim) for _ in range(4)]
    assert answers[-1].status == 429 and answers[-1].fields["retry-after"] == "7"


# ---- faults ---------------------------------------------------------------------------------------------

def test_fault_storm_and_its_end(sim):
    sim.faults({"provider": "apns", "kind": "storm", "status": 500, "duration_s": 0.3})
    assert push(sim).reason() == "InternalServerError"
    deadline = time.monotonic() + WAIT_S
    while push(sim).status != 200:
        assert time.monotonic() < deadline


def test_fault_dead_is_by_token(sim):
    sim.faults({"provider": "apns", "kind": "dead", "rate": 0.3}, seed=9)
    with sim.connect("apns") as client:
        fields = sim.apns()
        first = [client.ask("POST", f"/3/device/{i:064x}", fields, ALERT).status for i in range(100)]
        again = [client.ask("POST", f"/3/device/{i:064x}", fields, ALERT).status for i in range(100)]
    assert first == again
    assert 15 <= first.count(410) <= 45 and set(first) == {200, 410}


def test_fault_throttle_per_token(sim):
    sim.faults({"provider": "apns", "kind": "throttle", "per_s": 0.01, "per": "token"})
    assert push(sim).status == 200
    assert push(sim).reason() == "TooManyRequests"
    assert push(sim, token="d4" * 32).status == 200


def unlocked(sim, client):
    """One good push, then the stream limit is open."""
    fields = sim.apns()
    assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200
    client.until(lambda: client.limits[-1] > 1)
    return fields


def test_fault_goaway_leaves_streams_unprocessed(sim):
    with sim.connect("apns") as client:
        fields = unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": "goaway", "after_streams": 5, "drop": 3})
        streams = [client.send("POST", f"/3/device/{TOKEN}", fields, ALERT) for _ in range(7)]
        client.until(lambda: client.goaway)
        last = client.goaway.last_stream_id
        assert json.loads(client.goaway.additional_data) == {"reason": "Shutdown"}
        assert last == streams[3]
        with pytest.raises(Closed):
            while True:
                client.turn()
        assert [client.answers[s].status for s in streams] == [200] * 4 + [0] * 3
    lines = sim.record(7)
    assert [line["status"] for line in lines] == [200] * 4 + [0] * 3
    assert {line["reason"] for line in lines[4:]} == {"goaway"}


def test_fault_stream_limit(sim):
    with sim.connect("apns") as client:
        unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": "stream_limit", "limit": 1})
        client.until(lambda: client.limits[-1] == 1)
        sim.calm()
        client.until(lambda: client.limits[-1] == 1000)


@pytest.mark.parametrize("how, code", [("stream", 2), ("mid", 2)])
def test_fault_reset_stream(sim, how, code):
    with sim.connect("fcm") as client:
        sim.faults({"provider": "fcm", "kind": "reset", "how": how})
        answer = client.ask("POST", "/v1/projects/belfry-sim/messages:send", {}, b"{}")
        assert answer.reset == code
        assert answer.status == (200 if how == "mid" else 0)


def test_fault_refused_stream(sim):
    sim.faults({"provider": "apns", "kind": "refuse_stream"})
    assert push(sim).reset == 7


def test_fault_reset_connection(sim):
    with sim.connect("apns") as client:
        fields = unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": "reset", "after_streams": 2})
        assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200
        client.send("POST", f"/3/device/{TOKEN}", fields, ALERT)
        with pytest.raises((Closed, OSError)):
            while True:
                client.turn()


@pytest.mark.parametrize("kind", ["half_open", "stall"])
def test_fault_no_answer(sim, kind):
    with sim.connect("apns") as client:
        fields = unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": kind})
        stream = client.send("POST", f"/3/device/{TOKEN}", fields, ALERT)
        client.tls.settimeout(0.3)
        with pytest.raises(TimeoutError):
            while True:
                client.turn()
        assert not client.answers[stream].ended
        sim.calm()
        client.h2.ping(b"12345678")
        client.flush()
        if kind == "half_open":
            with pytest.raises(TimeoutError):
                client.turn()
        else:
            client.turn()
    assert sim.record()[-1]["status"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_fault_nonsense(seed):
    with Sim("--seed", str(seed)) as sim, sim.connect("apns") as client:
        fields = unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": "nonsense"})
        client.send("POST", f"/3/device/{TOKEN}", fields, ALERT)
        client.tls.settimeout(1)
        # a client either sees the breach or waits for the rest of a frame that never comes
        with pytest.raises((h2.exceptions.ProtocolError, Closed, TimeoutError)):
            while True:
                client.turn()


def test_fault_endless_headers(sim):
    with sim.connect("apns") as client:
        fields = unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": "endless_headers"})
        stream = client.send("POST", f"/3/device/{TOKEN}", fields, ALERT)
        got = 0
        while got < 1 << 20:
            got += len(client.tls.recv(65536))
        assert not client.answers[stream].ended


@pytest.mark.parametrize("how", ["", "reset", "silent"])
def test_fault_outage(sim, how):
    with sim.connect("apns") as client:
        unlocked(sim, client)
        sim.faults({"provider": "apns", "kind": "outage", "how": how})
        client.tls.settimeout(0.5)
        with pytest.raises(TimeoutError if how == "silent" else (Closed, OSError)):
            while True:
                client.turn()
        with pytest.raises(OSError):
            push_quickly(sim)
        assert send_web(sim).status == 201  # nobody else suffers
        sim.calm()
        deadline = time.monotonic() + WAIT_S
        while not reachable(sim):
            assert time.monotonic() < deadline


def push_quickly(sim):
    import socket
    with socket.create_connection(("127.0.0.1", sim.port("apns")), timeout=0.5) as raw:
        context = ssl.create_default_context(cafile=sim.ready["ca"])
        with context.wrap_socket(raw, server_hostname="localhost"):
            pass


def reachable(sim):
    try:
        return push(sim).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("how", ["", "none", "alert"])
def test_fault_wrong_alpn(sim, how):
    sim.faults({"provider": "apns", "kind": "wrong_alpn", "how": how})
    if how != "none":  # OpenSSL's client gives up when it gets what it did not offer
        with pytest.raises(ssl.SSLError):
            sim.connect("apns", settled=False)
        return
    with sim.connect("apns", settled=False) as client:
        assert client.tls.selected_alpn_protocol() is None


def test_fault_slow_tls(sim):
    sim.faults({"provider": "apns", "kind": "slow_tls", "delay_ms": 300})
    begun = time.monotonic()
    sim.connect("apns").close()
    assert time.monotonic() - begun >= 0.3


def test_latency(sim):
    sim.faults(latency={"apns": {"ms": 200}, "webpush": {"p50_ms": 50, "p99_ms": 51}})
    with sim.connect("apns") as client:
        begun = time.monotonic()
        unlocked(sim, client)
        assert 0.2 <= time.monotonic() - begun
    begun = time.monotonic()
    send_web(sim)
    assert 0.045 <= time.monotonic() - begun
    sim.faults(latency={"all": {"ms": 0}})


@pytest.mark.parametrize("script, says", [
    ({"faults": [{"kind": "storm", "rat": 1}]}, "rat"), ({"faults": [{"kind": "rain"}]}, "kind"),
    ({"faults": [{"kind": "throttle"}]}, "per_s"), ({"fault": []}, "fault"),
    ({"latency": {"apns": {"p50_ms": 9, "p99_ms": 1}}}, "latency"), ({"tokens": [{"token": "x"}]}, "tokens"),
])
def test_bad_script_is_refused(sim, script, says):
    status, text = sim.control("POST", "/faults", script)
    assert status == 400 and says in json.loads(text)["error"]


# ---- record, control, protocol, other clients -------------------------------------------------------

def test_record(sim):
    push(sim, apns_id=UUID, apns_collapse_id="score")
    (line,) = sim.record()
    assert line["provider"] == "apns" and line["token"] == TOKEN and line["id"] == UUID
    assert (line["topic"], line["type"], line["priority"]) == ("com.example.app", "alert", "10")
    assert (line["collapse"], line["bytes"], line["payload"]) == ("score", len(ALERT), ALERT.decode())
    assert abs(line["t"] / 1e6 - time.time()) < 60 and len(line["hash"]) == 16
    whole = json.loads(sim.control("GET", "/record")[1])
    assert whole["lines"] == len(pathlib.Path(whole["file"]).read_text().splitlines())


def test_stats(sim):
    before = sim.stats("apns")
    push(sim)
    push(sim, token="zz")
    after = sim.stats("apns")
    assert after["accepted"] - before["accepted"] == 1 and after["rejected"] - before["rejected"] == 1
    assert after["bytes_body"] - before["bytes_body"] == 2 * len(ALERT)


def test_stats_of_connections(sim):
    """What a connection has done is counted once for it: a benchmark holds many and asks whether each did."""
    names = ("handshakes_h2", "conns_settled", "conns_used", "conns_pinged", "pings")
    before, fields = sim.stats("apns"), sim.apns()
    with sim.connect("apns") as client:
        for _ in range(2):
            assert client.ask("POST", f"/3/device/{TOKEN}", fields, ALERT).status == 200
    after = sim.stats("apns")
    assert [after[n] - before[n] for n in names] == [1, 1, 1, 0, 0]


def test_restart_keeps_credentials(tmp_path):
    with Sim(state=str(tmp_path)) as sim:
        ca, token = pathlib.Path(sim.ready["ca"]).read_text(), access_token(sim)
    with Sim(state=str(tmp_path)) as sim:
        assert pathlib.Path(sim.ready["ca"]).read_text() == ca
        assert send_fcm(sim, f"Bearer {token}", {"token": FCM_TOKEN}).status == 200


def test_own_key(tmp_path, sim):
    path = sim.ready["apns"]["keys"][0]["key"]
    with Sim("--apns-key", f"OWNKEY0001:OWNTEAM001:{path}") as own:
        token = jwt({"alg": "ES256", "kid": "OWNKEY0001"}, {"iss": "OWNTEAM001", "iat": int(time.time())}, load_key(path))
        assert push(own, authorization=f"bearer {token}").status == 200


def test_body_in_pieces_and_threads():
    with Sim("--threads", "2") as sim, sim.connect("webpush") as client:
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, [(":method", "POST"), (":scheme", "https"), (":path", "/push/x"),
                                        (":authority", f"localhost:{client.port}"), ("authorization", sim.vapid()),
                                        ("ttl", "1"), ("content-encoding", "aes128gcm")])
        for byte in encrypted(150):
            client.h2.send_data(stream, bytes([byte]))
            client.flush()
        client.h2.send_data(stream, b"", end_stream=True)
        import sim as support
        client.answers[stream] = support.Answer()
        client.flush()
        assert client.wait(stream).status == 201


def test_fields_too_large(sim):
    answer = push(sim, apns_collapse_id="x" * 3500)
    assert answer.status == 431


@pytest.mark.parametrize("version", ["--http2", "--http1.1"])
def test_curl(sim, version):
    data = f"grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={sim.assertion()}"
    done = subprocess.run(["curl", "-sS", version, "--cacert", sim.ready["ca"], "-w", " %{http_version}", "-d", data,
                           sim.ready["oauth"]["token_uri"]], capture_output=True, text=True)
    text, shown = done.stdout.rsplit(" ", 1)
    assert json.loads(text)["access_token"].startswith("ya29.") and shown == version[6:]


NODE = """
const http2 = require('http2'), fs = require('fs');
const [url, ca, path, fields, body, count] = JSON.parse(fs.readFileSync(0));
const client = http2.connect(url, {ca: fs.readFileSync(ca)});
let left = count; const statuses = {};
function one() {
  const request = client.request({':method': 'POST', ':path': path, ...fields});
  request.on('response', (h) => { statuses[h[':status']] = (statuses[h[':status']] || 0) + 1; });
  request.on('close', () => { if (--left === 0) { client.close(); console.log(JSON.stringify(statuses)); } });
  request.resume(); request.end(body);
}
client.on('remoteSettings', function begin() { client.off('remoteSettings', begin); for (let i = 0; i < count; i++) one(); });
"""


def test_node_http2(sim):
    """300 requests at once: Node queues at the limit of one stream, then at that of 1000."""
    assert shutil.which("node"), "scripts/setup installs it"
    request = [f"https://localhost:{sim.port('apns')}", sim.ready["ca"], f"/3/device/{TOKEN}", sim.apns(),
               ALERT.decode(), 300]
    done = subprocess.run(["node", "-e", NODE], input=json.dumps(request), capture_output=True, text=True, timeout=WAIT_S * 4)
    assert json.loads(done.stdout) == {"200": 300}, done.stderr


def test_load_by_h2load(sim):
    """Somebody else's load generator: every request answered, every one in the record."""
    assert shutil.which("h2load"), "scripts/setup installs it"
    before = sim.stats("webpush")["accepted"]
    done = subprocess.run(["h2load", "-n", "20000", "-c", "4", "-m", "50", "-H", f"authorization: {sim.vapid()}",
                           "-H", "ttl: 5", "-H", ":method: POST", f"https://localhost:{sim.port('webpush')}/push/load"],
                          capture_output=True, text=True, timeout=WAIT_S * 12)
    assert "20000 succeeded" in done.stdout, done.stdout
    assert sim.stats("webpush")["accepted"] - before == 20000
    assert json.loads(sim.control("GET", "/record")[1])["lines"] >= 20000
