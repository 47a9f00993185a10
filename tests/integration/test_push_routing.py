"""Who gets a push, when, with what in it, and what becomes of those that fail: FAN-7, FAN-8, PSH-5, REL-2, REL-3;
DESIGN 4.2 to 4.8. One test a statement.

A node and belfry-sim as APNs, FCM and Web Push. What waits for a deadline or for a retry is begun at once for all
tests of its kind (fixtures `fallbacks`, `answered`, `stopped`; `spoil`), so that they wait together.
"""
import itertools
import json
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from harness import TIMES, until  # noqa: E402
from phones import APPS, PushNode, Subscription, unb64  # noqa: E402

DEADLINE_S = 2.0  # fanout.ack_deadline, at its least
GRACE_S = 2.0     # BF_PUSH_FALLBACK_GRACE_MS
LATE_S = 4.0      # a fallback comes this long after them at the latest
AT_ONCE_S = 1.5   # before any deadline could have passed
MARGIN_S = 0.5    # what is not pushed beside something due at the same time is not pushed
CONFIG = {"fanout": {"ack_deadline": int(DEADLINE_S * 1000)}, "topics": {"broadcast": ["news"], "public": ["news"]}}
# Each app has a pool, a breaker and a bucket of its own: what a test spoils is spoilt for it alone.
SPOILT = {
    "stall": ("apns", {"kind": "stall"}),
    "half-open": ("fcm", {"kind": "half_open"}),
    "reset": ("webpush", {"kind": "reset"}),
    "goaway": ("apns", {"kind": "goaway", "drop": 2}),
    "refused-stream": ("fcm", {"kind": "refuse_stream"}),
    "reset-stream": ("webpush", {"kind": "reset", "how": "stream"}),
    "reset-amid": ("apns", {"kind": "reset", "how": "mid"}),
    "outage": ("fcm", {"kind": "outage", "how": "refuse"}),
    "nonsense": ("webpush", {"kind": "nonsense"}),
}
QUEUE_APPS = tuple(f"queue-{i}" for i in range(6))
KIND_OF = {**APPS, **{f"{app}-answered": kind for app, kind in APPS.items()}, **dict.fromkeys(QUEUE_APPS, "apns"),
           **{name: kind for name, (kind, _) in SPOILT.items()}, "stop": "apns"}
ALL = tuple(APPS)
_numbers = iter(range(1, 10**6))


@pytest.fixture(scope="module")
def node():
    with PushNode(apps=KIND_OF, config=CONFIG) as running:
        running.spoilt = spoil(running)  # these take longest to heal: they do while others are tested
        yield running


@pytest.fixture
def person(node):
    return make_person(node)


def make_person(node, name="person"):
    name = f"{name}-{next(_numbers)}"
    node.put_user(name)
    return name


def within(line, sent_at, earliest=0.0, latest=AT_ONCE_S):
    """The simulator got it between these times after |sent_at| (wall, s)."""
    waited = line["t"] / 1e6 - sent_at
    assert earliest <= waited <= latest * TIMES, f"it came after {waited:.2f} s; wanted {earliest}..{latest * TIMES}"


def prefer(node, user, **prefs):
    answer = node.request("PUT", f"/v1/users/{user}/preferences", prefs)
    assert answer.status == 200, answer


# ---- the opener of Web Push bodies is right ----------------------------------------------------------

def test_vector_of_rfc_8291():
    subscription = Subscription()
    point = unb64("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4")
    scalar = int.from_bytes(unb64("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big")
    subscription.key = ec.derive_private_key(scalar, ec.SECP256R1())
    subscription.point, subscription.auth = point, unb64("BTBZMqHH6r4Tts7J_aSIgg")
    body = unb64("DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK"
                 "6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
    assert subscription.open(body) == b"When I grow up, I want to be a watermelon"


# ---- at once ----------------------------------------------------------------------------------------

def test_offline_each_device_at_once(node, person):
    phones = node.phones(person, *ALL)
    sent_at = time.time()
    sent = node.send(person, title="hello", body="there", data={"n": 7})
    for phone in phones:
        within(phone.got()[0], sent_at)
    assert [i["title"] for i in node.stored(person, 1)] == ["hello"], "the inbox has it too"
    ids = {phone.message_id(phone.got()[0]) for phone in phones}
    assert len(ids) == 3, "a message id is of one device"
    channel = node.outcome(sent, person, "sent")
    assert len(channel["attempts"]) == 3, channel


def test_what_the_app_finds(node, person):
    """A Web Push body opens with the subscription's keys alone (RFC 8291); the others are plain JSON."""
    ios, android, web = node.phones(person, *ALL)
    node.send(person, title="hello", body="there", data={"n": 7}, action_url="https://example.com/x", type="greeting")
    line = ios.got()[0]
    tree = ios.payload(line)
    assert tree["aps"]["alert"] == {"title": "hello", "body": "there"} and tree["data"] == {"n": 7}
    assert tree["belfry"]["type"] == "greeting" and line["topic"] == "com.example.ios" and line["type"] == "alert"
    message = android.payload(android.got()[0])
    assert message["token"] == android.token and message["notification"] == {"title": "hello", "body": "there"}
    assert message["data"]["n"] == "7" and message["data"]["belfry_action_url"] == "https://example.com/x"
    secret = web.payload(web.got()[0])
    assert secret["title"] == "hello" and secret["body"] == "there" and secret["data"] == {"n": 7}
    assert secret["type"] == "greeting" and web.got()[0]["status"] == 201


@pytest.mark.parametrize("fields", [
    {"channels": ["push"]}, {"channels": ["inapp", "push"]}, {"channels": ["push", "inapp"]},
    {"channels": ["push", "inapp"], "fallback": True}, {"priority": "critical"},
], ids=lambda fields: json.dumps(fields))
def test_connected_and_at_once(node, person, fields):
    """Named, or critical: connected and acknowledged or not."""
    phones = node.phones(person, "ios", "android")
    with node.client(person) as client:
        sent_at = time.time()
        node.send(person, **fields)
        client.expect("n")
        client.ack(lane="critical" if "priority" in fields else "normal")
        for phone in phones:
            within(phone.got()[0], sent_at)
    node.stored(person, 1)


@pytest.mark.parametrize("fields", [{}, {"channels": ["push"]}, {"channels": ["push", "inapp"], "fallback": True},
                                    {"channels": ["inapp", "push"], "fallback": True}, {"priority": "low"}],
                         ids=lambda fields: json.dumps(fields))
def test_offline_and_at_once(node, person, fields):
    phone = node.phone(person)
    sent_at = time.time()
    sent = node.send(person, **fields)
    within(phone.got()[0], sent_at)
    node.outcome(sent, person, "sent")
    node.stored(person, 1)


def test_several_recipients(node):
    people = [make_person(node) for _ in range(5)]
    phones = [node.phone(p, app) for p, app in zip(people, ("ios", "android", "web", "ios", "android"))]
    sent = node.send(recipients=people)
    assert len({phone.message_id(phone.got()[0]) for phone in phones}) == 5
    for person in people:
        node.outcome(sent, person, "sent")


def test_subscribers_of_a_topic(node):
    topic = f"prices-{next(_numbers)}"
    people = [make_person(node) for _ in range(3)]
    for person in people:
        assert node.request("PUT", f"/v1/topics/{topic}/subscriptions/{person}", {}).status in (200, 201, 204)
    phones = [node.phone(person) for person in people]
    node.send(topic=topic)
    for phone in phones:
        phone.got()


def test_a_removed_device_gets_nothing(node, person):
    gone, stays = node.phones(person, "ios", "android")
    gone.remove()
    node.send(person)
    stays.got()
    assert gone.pushes == []


def test_a_repeat_is_pushed_once(node, person):
    phone = node.phone(person)
    first = [node.send(person, headers={"Idempotency-Key": f"again-{person}"}) for _ in range(3)]
    node.send(person, title="behind it")
    lines = until(lambda: len(phone.accepted) >= 2 and phone.accepted, 5, "both arrive")
    assert len(set(first)) == 1 and len(lines) == 2
    assert len({line["id"] for line in lines}) == 2


# ---- what is sent -----------------------------------------------------------------------------------

def test_collapse_key_and_ttl(node, person):
    ios, android, web = node.phones(person, *ALL)
    sent_at = time.time()
    node.send(person, collapse_key="score-7", ttl=600)
    line = ios.got()[0]
    assert line["collapse"] == "score-7" and abs(int(line["expiration"]) - (sent_at + 600)) <= 3
    message = android.payload(android.got()[0])
    assert message["android"]["collapse_key"] == "score-7" and 597 <= float(message["android"]["ttl"][:-1]) <= 600
    line = web.got()[0]
    assert line["collapse"] == "score-7" and 597 <= int(line["expiration"]) <= 600


def test_expires_at(node, person):
    ios = node.phone(person)
    at = int(time.time()) + 900
    node.send(person, expires_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)))
    assert int(ios.got()[0]["expiration"]) == at


def test_a_day_without_ttl(node, person):
    ios, _, web = node.phones(person, *ALL)
    sent_at = time.time()
    node.send(person)
    assert abs(int(ios.got()[0]["expiration"]) - (sent_at + 86400)) <= 3
    assert 86395 <= int(web.got()[0]["expiration"]) <= 86400


def test_overrides(node, person):
    ios, android, web = node.phones(person, *ALL)
    node.send(person, collapse_key="k", overrides={"push": {
        "image": "https://example.com/i.png",
        "apns": {"priority": 5, "collapse_id": "own", "aps": {"sound": "bell.caf"}, "payload": {"deep": {"link": 1}}},
        "fcm": {"priority": "high", "android": {"notification": {"channel_id": "alarms"}}},
        "webpush": {"urgency": "high", "topic": "t1", "payload": {"vibrate": [1, 2]}}}})
    line = ios.got()[0]
    tree = ios.payload(line)
    assert line["priority"] == "5" and line["collapse"] == "own"
    assert tree["aps"]["sound"] == "bell.caf" and tree["deep"] == {"link": 1} and tree["belfry"]["image"].endswith("i.png")
    message = android.payload(android.got()[0])
    assert message["android"]["priority"] == "high" and message["android"]["notification"]["channel_id"] == "alarms"
    assert message["notification"]["image"].endswith("i.png")
    line = web.got()[0]
    assert line["type"] == "high" and line["collapse"] == "t1" and web.payload(line)["vibrate"] == [1, 2]


def test_badge_is_the_unread_count(node, person):
    ios = node.phone(person)
    for count in (1, 2, 3):
        node.send(person)
        assert ios.payload(ios.got(count)[-1])["aps"]["badge"] == count
    read = node.request("POST", f"/v1/notifications/read-all?user_id={person}", {})
    assert read.status == 200, read
    node.send(person)
    assert ios.payload(ios.got(4)[-1])["aps"]["badge"] == 1


# ---- suppressed -------------------------------------------------------------------------------------

SUPPRESSED = [
    ({"channels": {"push": False}}, {}, "channel_off"),
    ({"types": {"like": {"push": False}}}, {"type": "like"}, "type_off"),
    ({"categories": {"promo": {"push": False}}}, {"category": "promo"}, "category_off"),
    ({"topics": {"noise": "mute"}}, {"topic": "noise"}, "topic_muted"),
    ({"opt_out": True}, {}, "opt_out"),
]


@pytest.mark.parametrize("channels", [None, ["push"]], ids=["default", "named"])
@pytest.mark.parametrize("prefs,fields,reason", SUPPRESSED, ids=[row[2] for row in SUPPRESSED])
def test_suppressed(node, person, prefs, fields, reason, channels):
    phone = node.phone(person)
    prefer(node, person, **prefs)
    sent = node.send(person, **fields, **({"channels": channels} if channels else {}))
    node.outcome(sent, person, "suppressed", reason)
    prefer(node, person)
    node.send(person, title="wanted")
    assert phone.payload(phone.got()[0])["aps"]["alert"]["title"] == "wanted"


@pytest.mark.parametrize("prefs", [{"types": {"like": {"push": False}}}, {"channels": {"inapp": False}}],
                         ids=["another type", "another channel"])
def test_not_suppressed(node, person, prefs):
    phone = node.phone(person)
    prefer(node, person, **prefs)
    node.send(person, type="reply")
    phone.got()


def test_a_finer_level_wins(node, person):
    phone = node.phone(person)
    prefer(node, person, channels={"push": False}, types={"alarm": {"push": True}})
    node.send(person, type="alarm")
    phone.got()


@pytest.mark.parametrize("how", ["never had one", "removed it"])
def test_no_device(node, person, how):
    if how != "never had one":
        node.phone(person).remove()
    sent = node.send(person, channels=["push"])
    node.outcome(sent, person, "suppressed", "no_device")
    node.stored(person, 1)


def test_a_subscription_without_push(node, person):
    topic = f"quiet-{next(_numbers)}"
    answer = node.request("PUT", f"/v1/topics/{topic}/subscriptions/{person}", {"channels": ["inapp"]})
    assert answer.status in (200, 201, 204), answer
    phone = node.phone(person)
    node.send(topic=topic, title="inbox alone")
    node.stored(person, 1)
    node.send(person, title="pushed")
    assert phone.payload(phone.got()[0])["aps"]["alert"]["title"] == "pushed"


# ---- the acknowledgement deadline -------------------------------------------------------------------

class Case:
    """One message to somebody connected (or not), and what the phones get of it."""

    def __init__(self, node, apps=("ios",), online=True, **fields):
        self.node = node
        self.user = make_person(node, "case")
        self.phones = node.phones(self.user, *apps)
        self.client = node.client(self.user) if online else None
        self.sent_at = time.time()
        self.sent = node.send(self.user, **fields)
        self.frame = self.client.expect("n") if online else None

    def mark(self, **what):
        answer = self.node.request("PATCH", f"/v1/notifications/{self.frame['id']}", {**what, "user_id": self.user})
        assert answer.status == 200, answer
        return self

    def fell_back(self):
        for phone in self.phones:
            within(phone.got()[0], self.sent_at, DEADLINE_S, DEADLINE_S + GRACE_S + LATE_S)

    def nothing(self):
        assert [phone.pushes for phone in self.phones] == [[]] * len(self.phones)


@pytest.fixture(scope="module")
def fallbacks(node):
    cases = {}

    def add(name, **how):
        cases[name] = Case(node, **how)
        return cases[name]
    ordered = {"channels": ["inapp", "push"], "fallback": True}
    add("unacknowledged", apps=ALL)
    add("high", priority="high")
    add("low", priority="low")
    add("in order", **ordered)
    add("the socket died").client.abort()
    add("in-app alone", channels=["inapp"])
    add("in-app alone, offline", channels=["inapp"], online=False)
    add("acknowledged").client.ack()
    add("acknowledged, in order", **ordered).client.ack()
    add("acknowledged, high", priority="high").client.ack(lane="critical")
    elsewhere = add("acknowledged on another device")
    with node.client(elsewhere.user, device="other", resume={"epoch": elsewhere.client.welcome["epoch"], "seq": 0}) as other:
        other.expect("n")
        other.ack()
        other.quiet(0.05)
    add("read").mark(read=True)
    add("seen").mark(seen=True)
    add("archived").mark(archived=True)
    by_socket = add("read over the socket")
    by_socket.client.call({"t": "read", "id": by_socket.frame["id"]})
    add("transient", transient=True)
    add("transient, offline", transient=True, online=False)
    add("expired", ttl=3)
    muted = add("muted meanwhile")
    prefer(node, muted.user, channels={"push": False})
    stopped = add("opted out meanwhile")
    prefer(node, stopped.user, opt_out=True)
    erased = add("erased meanwhile")
    assert node.request("DELETE", f"/v1/users/{erased.user}").status == 200
    last = add("last")
    last.phones[0].got(1, DEADLINE_S + GRACE_S + LATE_S)
    time.sleep(MARGIN_S * TIMES)  # what must not happen has no event to wait for
    yield cases
    for case in cases.values():
        if case.client:
            case.client.close()


@pytest.mark.parametrize("name", ["unacknowledged", "high", "low", "in order", "the socket died"])
def test_a_push_when_the_deadline_is_over(fallbacks, name):
    fallbacks[name].fell_back()


def test_a_fallback_is_in_the_status(node, fallbacks):
    node.outcome(fallbacks["in order"].sent, fallbacks["in order"].user, "sent")


@pytest.mark.parametrize("name", [
    "acknowledged", "acknowledged, in order", "acknowledged, high", "acknowledged on another device", "read", "seen",
    "archived", "read over the socket", "in-app alone", "in-app alone, offline", "transient", "transient, offline",
    "expired", "muted meanwhile", "opted out meanwhile", "erased meanwhile"])
def test_no_push(fallbacks, name):
    fallbacks[name].nothing()


@pytest.mark.parametrize("name,reason", [("muted meanwhile", "channel_off"), ("opted out meanwhile", "opt_out")])
def test_suppressed_while_it_waited(node, fallbacks, name, reason):
    node.outcome(fallbacks[name].sent, fallbacks[name].user, "suppressed", reason)


def test_no_push_of_a_broadcast(node):
    """Neither to who is connected nor to who is not: both have a phone that a later message reaches first."""
    here, away = make_person(node), make_person(node)
    phones = [node.phone(here), node.phone(away)]
    with node.client(here, topics=["news"]) as client:
        node.send(broadcast=True, title="to everyone")
        client.expect("b")
        node.send(topic="news", title="to the topic")
        client.expect("b")
        for user in (here, away):
            node.send(user, title="pushed", channels=["push"])
        for phone in phones:
            assert phone.payload(phone.got()[0])["aps"]["alert"]["title"] == "pushed"


# ---- answers of providers ---------------------------------------------------------------------------

FUTURE_MS = 4102444800000  # a token that APNs found dead later than it was registered
DEAD = {
    "Unregistered": ("ios", 410, "Unregistered", {"timestamp_ms": FUTURE_MS}),
    "ExpiredToken": ("ios", 410, "ExpiredToken", {"timestamp_ms": FUTURE_MS}),
    "BadDeviceToken": ("ios", 400, "BadDeviceToken", {}),
    "DeviceTokenNotForTopic": ("ios", 400, "DeviceTokenNotForTopic", {}),
    "UNREGISTERED": ("android", 404, "UNREGISTERED", {}),
    "SENDER_ID_MISMATCH": ("android", 403, "SENDER_ID_MISMATCH", {}),
    "a token that FCM does not know": ("android", 400, "INVALID_ARGUMENT", {}),
    "Web Push 404": ("web", 404, "", {}),
    "Web Push 410": ("web", 410, "", {}),
}
BAD = {
    "BadTopic": ("ios", 400, "BadTopic", {}),
    "PayloadEmpty": ("ios", 400, "PayloadEmpty", {}),
    "PayloadTooLarge": ("ios", 413, "PayloadTooLarge", {}),
    "Forbidden": ("ios", 403, "Forbidden", {}),
    "MethodNotAllowed": ("ios", 405, "MethodNotAllowed", {}),
    "THIRD_PARTY_AUTH_ERROR": ("android", 401, "THIRD_PARTY_AUTH_ERROR", {}),
    "Web Push 400": ("web", 400, "", {}),
    "Web Push 413": ("web", 413, "", {}),
}
LATER = {
    "InternalServerError": ("ios", 500, "InternalServerError", {"retry_after_s": 1}),
    "ServiceUnavailable": ("ios", 503, "ServiceUnavailable", {"retry_after_s": 3}),
    "Shutdown": ("ios", 503, "Shutdown", {"retry_after_s": 1}),
    "TooManyRequests": ("ios", 429, "TooManyRequests", {"retry_after_s": 2}),
    "UNAVAILABLE": ("android", 503, "UNAVAILABLE", {"retry_after_s": 1}),
    "INTERNAL": ("android", 500, "INTERNAL", {"retry_after_s": 3}),
    "QUOTA_EXCEEDED": ("android", 429, "QUOTA_EXCEEDED", {"retry_after_s": 2}),
    "Web Push 500": ("web", 500, "", {"retry_after_s": 1}),
    "Web Push 429": ("web", 429, "", {"retry_after_s": 3}),
}
BACKOFF_S = 5.0  # the first wait is at most this long, over what the provider asked for


class Answered:
    """A phone whose provider answers so, and a push to it."""

    def __init__(self, node, app, row):
        _, status, self.reason, self.more = row
        self.user = make_person(node, "answered")
        self.phone = node.phone(self.user, app)
        self.fault = self.phone.answer(status, self.reason, times=1, **self.more)
        self.word = self.reason or f"http_{status}"
        self.sent = None

    def send(self, node, **fields):
        self.sent = node.send(self.user, channels=["push"], **fields)


@pytest.fixture(scope="module")
def answered(node):
    """Every answer once: however late this fixture looks, the second try meets a provider that is well."""
    rows = {name: Answered(node, f"{row[0]}-answered", row) for name, row in {**DEAD, **BAD, **LATER}.items()}
    node.providers.faults(*(row.fault for row in rows.values()))
    try:
        for row in rows.values():
            row.send(node)
        for name, row in rows.items():
            until(lambda p=row.phone: p.pushes, 10, f"the push that meets {name}")
    finally:
        node.providers.calm()
    return rows


@pytest.mark.parametrize("name", DEAD)
def test_a_dead_token_is_never_used_again(node, answered, name):
    row = answered[name]
    node.outcome(row.sent, row.user, "failed", row.word)
    until(lambda: row.phone.state == "dead", 5, "the device is dead")
    again = node.send(row.user, channels=["push"])
    node.outcome(again, row.user, "suppressed", "no_device")
    assert len(row.phone.pushes) == 1
    row.phone.register()
    assert row.phone.state == "live"
    node.send(row.user, channels=["push"])
    row.phone.got()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_a_dead_letter(node, answered, name):
    row = answered[name]
    node.outcome(row.sent, row.user, "failed", row.word)
    letters = until(lambda: node.letters(notification=row.sent), 5, "a dead letter")
    assert len(letters) == 1 and letters[0]["channel"] == "push" and row.word in letters[0]["reason"], letters
    assert row.phone.state == "live" and len(row.phone.pushes) == 1


@pytest.mark.parametrize("name", LATER)
def test_later_means_later(node, answered, name):
    """Tried again not before Retry-After, with the same id, and once it is taken no more."""
    row = answered[name]
    first, second = row.phone.got(2, 20, attempts=True)
    waited = (second["t"] - first["t"]) / 1e6
    asked = row.more["retry_after_s"]
    assert asked - 0.05 <= waited <= (asked + BACKOFF_S + 3) * TIMES, waited
    assert row.phone.message_id(first) == row.phone.message_id(second)
    channel = node.outcome(row.sent, row.user, "sent")
    assert channel["attempts"][-1]["attempt"] == 2, channel
    assert not node.letters(notification=row.sent)


def test_too_large_is_a_dead_letter(node, person):
    """Where push is named it is refused when it comes in (test_refused_at_the_door.py); here in-app takes it, and push does not."""
    phone = node.phone(person)
    sent = node.send(person, body="x" * 5000)
    node.outcome(sent, person, "failed", "payload_too_large")
    letters = until(lambda: node.letters(notification=sent), 5, "a dead letter")
    assert letters[0]["reason"].startswith("payload_too_large") and phone.pushes == []


def test_a_bad_override_is_refused(node, person):
    ios, android = node.phones(person, "ios", "android")
    answer = node.request("POST", "/v1/notifications", {"user_id": person, "type": "t", "title": "x", "channels": ["push"],
                                                        "overrides": {"push": {"apns": {"loudness": 11}}}})
    assert answer.status == 400 and answer.json["field"] == "overrides.push.apns", answer
    node.send(person, channels=["push"])
    android.got()
    ios.got()


def test_other_devices_go_on(node, person):
    dead, lives = node.phones(person, "ios", "android")
    node.providers.faults(dead.answer(410, "Unregistered", timestamp_ms=FUTURE_MS))
    node.send(person)
    lives.got()
    until(lambda: dead.state == "dead", 5, "the device is dead")
    node.providers.calm()
    node.send(person)
    lives.got(2)
    assert len(dead.pushes) == 1 and lives.state == "live"


def test_apns_timestamp_before_the_registration(node, person):
    """The token was registered again after APNs had found it dead: it stays (PROVIDERS 1.4)."""
    phone = node.phone(person, QUEUE_APPS[0])
    node.providers.faults(phone.answer(410, "Unregistered", timestamp_ms=1700000000000))
    node.send(person)
    until(lambda: phone.pushes, 5, "the answer")
    node.providers.calm()
    node.send(person, title="second", channels=["push"])
    phone.got()
    assert phone.state == "live"


def test_a_refused_credential_stops_its_pool_alone(node):
    """Nothing was wrong with the message: it waits until the credential is in order."""
    row = Answered(node, "stop", ("stop", 403, "InvalidProviderToken", {}))
    node.providers.faults(row.fault)
    row.send(node)
    until(lambda: row.phone.pushes, 5, "the answer")
    node.providers.calm()
    other = make_person(node)
    behind = node.phone(other, "stop")
    waiting = node.send(other, channels=["push"])
    well = make_person(node)
    phone = node.phone(well, "ios")
    node.send(well, channels=["push"])
    phone.got()
    for sent, user in ((row.sent, row.user), (waiting, other)):
        channel = node.push_status(sent, user)
        assert channel is None or channel["status"] == "queued", channel
    assert len(row.phone.pushes) == 1 and behind.pushes == []


# ---- what waits in the queue ------------------------------------------------------------------------

_queue_apps = itertools.cycle(QUEUE_APPS[1:])


def waiting(node, retry_after_s=2, **fields):
    """A push that was answered 503 and waits for its second attempt: user, phone, notification."""
    return waiting_all(node, [fields], retry_after_s)[0]


def waiting_all(node, rows, retry_after_s=2):
    people = [make_person(node, "waiting") for _ in rows]
    phones = [node.phone(user, next(_queue_apps)) for user in people]
    node.providers.faults(*(p.answer(503, "ServiceUnavailable", retry_after_s=retry_after_s) for p in phones))
    sent = [node.send(user, **fields) for user, fields in zip(people, rows)]
    for phone in phones:
        until(lambda p=phone: p.pushes, 5, "the first attempt")
    return list(zip(people, phones, sent))


def test_an_attempt_is_in_the_status(node):
    user, phone, sent = waiting(node)
    channel = until(lambda: (c := node.push_status(sent, user)) and c["attempts"] and c, 2, "an attempt is shown")
    node.providers.calm()
    assert channel["status"] == "queued" and "ServiceUnavailable" in channel["attempts"][0]["reason"], channel
    phone.got(1, 15)


@pytest.fixture(scope="module")
def stopped(node):
    """Pushes that wait, of people who then say that they want none."""
    rows = waiting_all(node, [{"channels": ["push"], **fields} for _, fields, _ in SUPPRESSED], 1)
    for (user, _, _), (prefs, _, _) in zip(rows, SUPPRESSED):
        prefer(node, user, **prefs)
    node.providers.calm()
    return {reason: row for row, (_, _, reason) in zip(rows, SUPPRESSED)}


@pytest.mark.parametrize("reason", [row[2] for row in SUPPRESSED])
def test_suppressed_in_the_queue(node, stopped, reason):
    user, phone, sent = stopped[reason]
    node.outcome(sent, user, "suppressed", reason, 15)
    assert len(phone.pushes) == 1


def test_erased_in_the_queue(node):
    user, phone, _ = waiting(node, 1)
    assert node.request("DELETE", f"/v1/users/{user}").status == 200
    node.providers.calm()
    other, second, _ = waiting(node, 1)
    node.providers.calm()
    second.got(1, 15)
    assert len(phone.pushes) == 1


@pytest.mark.parametrize("channels,count", [(None, 0), (["push"], 1)], ids=["default", "named"])
def test_acknowledged_in_the_queue(node, channels, count):
    """An acknowledgement ends a push that nobody named; one that was named is delivered all the same (DESIGN 4.7)."""
    user, phone, sent = waiting(node, 2, **({"channels": channels} if channels else {}))
    with node.client(user, resume={"epoch": epoch(node), "seq": 0}) as client:
        client.expect("n")
        client.ack()
        client.quiet(0.05)
    node.providers.calm()
    if count:
        phone.got(1, 15)
        return
    _, sentinel, _ = waiting(node, 2)
    node.providers.calm()
    sentinel.got(1, 15)
    until(lambda: len(phone.pushes) == 1 and time.time() > phone.pushes[0]["t"] / 1e6 + 2 + BACKOFF_S + MARGIN_S, 15,
          "the time of a second attempt is over")


def epoch(node):
    who = make_person(node)
    with node.client(who) as client:
        return client.welcome["epoch"]


def test_expired_when_no_attempt_is_in_time(node):
    user, phone, sent = waiting(node, 60, ttl=20, channels=["push"])
    node.providers.calm()
    node.outcome(sent, user, "expired", seconds=10)
    assert len(phone.pushes) == 1


def test_expired_in_the_queue(node):
    user, phone, sent = waiting(node, 1, ttl=3, channels=["push"])
    node.outcome(sent, user, "expired", seconds=10)
    node.providers.calm()
    assert all(line["t"] / 1e6 <= phone.pushes[0]["t"] / 1e6 + 3.5 for line in phone.pushes)


def test_collapsed_in_the_queue(node):
    """A newer one replaces an undelivered older one of the same key; another key's stays."""
    user = make_person(node, "collapsed")
    phone = node.phone(user, QUEUE_APPS[0])
    node.providers.faults(phone.answer(503, "ServiceUnavailable", retry_after_s=1))
    for count, (title, key) in enumerate((("old", "score"), ("other", "weather"), ("new", "score")), 1):
        node.send(user, title=title, collapse_key=key, channels=["push"])
        until(lambda n=count: len({line["id"] for line in phone.pushes}) >= n, 5, f"{title} is tried")
    node.providers.calm()
    lines = phone.got(2, 20)
    assert sorted(phone.payload(line)["aps"]["alert"]["title"] for line in lines) == ["new", "other"]


def test_the_queue_outlives_a_kill(node):
    user, phone, sent = waiting(node, 1, channels=["push"])
    node.kill("ctrlplane")
    node.providers.calm()
    node.restart("ctrlplane")
    lines = phone.got(2, 25, attempts=True)
    assert len({line["id"] for line in lines}) == 1
    node.outcome(sent, user, "sent")


# ---- connections that fail --------------------------------------------------------------------------

PUSHES = 3  # of each: below what opens a breaker


def spoil(node):
    """Each failure for a while, three providers at a time; then all is well."""
    cases = {}
    rows = list(SPOILT.items())
    for turn in (rows[:3], rows[3:6], rows[6:]):
        now = []
        for name, (kind, fault) in turn:
            user = make_person(node, "spoilt")
            now.append((name, user, node.phone(user, name), {"provider": kind, **fault}))
        failures = node.metric("belfry_dataplane_push_connection_failures")
        node.providers.faults(*(fault for *_, fault in now))
        try:
            for name, user, phone, _ in now:
                cases[name] = (user, phone, [node.send(user, channels=["push"], title=str(n)) for n in range(PUSHES)])
            for name, _, phone, _ in now:
                until(lambda n=name, p=phone: p.pushes or (  # in an outage nobody is there to write anything down
                    n == "outage" and node.metric("belfry_dataplane_push_connection_failures") > failures), 10,
                      f"a push meets {name}")
        finally:
            node.providers.calm()
    return cases


@pytest.mark.parametrize("name", SPOILT)
def test_a_failed_connection_loses_nothing(node, name):
    user, phone, sent = node.spoilt[name]
    until(lambda: len(phone.accepted) >= PUSHES, 30, f"{PUSHES} pushes after {name}")
    for notification in sent:
        node.outcome(notification, user, "sent")
    ids = [phone.message_id(line) for line in phone.accepted]
    assert len(ids) == len(set(ids)) == PUSHES, "none twice: the simulator had processed none of those it failed"


# ---- the other engine -------------------------------------------------------------------------------

def test_kafka():
    """Push of an event from Kafka; a dead token is told on belfry.tokens."""
    with PushNode(engine="kafka", config=CONFIG) as node:
        node.put_user("ann")
        phone = node.phone("ann")
        event = {"id": "e1", "type": "t", "title": "from Kafka", "user_id": "ann", "channels": ["push"]}
        node.produce("belfry.events.transactional", [("ann", event)])
        assert phone.payload(phone.got()[0])["aps"]["alert"]["title"] == "from Kafka"
        node.providers.faults(phone.answer(410, "Unregistered", timestamp_ms=FUTURE_MS))
        node.produce("belfry.events.social", [("ann", {**event, "id": "e2"})])
        until(lambda: phone.state == "dead", 10, "the device is dead")

        def told():
            lines = node.kafka_tool("consume", node.info["kafka"], "belfry.tokens").splitlines()
            return [line for line in lines if "dead" in line and phone.id in line]
        event = until(told, 15, "belfry.tokens says so", poll=0.5)
        assert phone.token not in event[0]
