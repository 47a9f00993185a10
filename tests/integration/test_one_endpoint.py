"""One endpoint, one identity: whatever way a token, an endpoint, a key or a provider's name is written in, it is one device;
and a phone that changes hands gets nothing of its former user's any more, in this tenant or another, queued or new."""
import concurrent.futures
import json
import random

import pytest

from harness import quote, until
from phones import PushNode, Subscription

APPS = {"ios": "apns", "android": "fcm", "web": "webpush"}


@pytest.fixture(scope="module")
def pushes():
    with PushNode(APPS, config={"fanout": {"shards": 4}}) as node:
        yield node


@pytest.fixture
def shared():
    """A node whose tenants share their app."""
    with PushNode(APPS, config={"push": {"tenant_tokens": False}}) as node:
        yield node


_count = 0


@pytest.fixture
def people(pushes):
    global _count
    _count += 1
    names = [f"hand-{_count}-{n}" for n in range(2)]
    pushes.put_user(*names)
    return names


def devices(node, user, key=None):
    answer = node.request("GET", f"/v1/users/{quote(user)}/devices", key=key)
    assert answer.status == 200, answer
    return answer.json["devices"]


def register(node, user, body, key=None):
    answer = node.request("POST", f"/v1/users/{quote(user)}/devices", body, key=key)
    assert answer.status in (200, 201), answer
    return answer


def hexadecimal(user):
    return (user.encode().hex() + "ab" * 32)[:64]


def spellings_of_apns(token):
    pairs = [token[i:i + 8] for i in range(0, len(token), 8)]
    return [token, token.upper(), " ".join(pairs), f"<{' '.join(pairs)}>", f"  {token}\n", token[:32] + token[32:].upper()]


def ios(token, **more):
    return {"platform": "ios", "app": "ios", "token": token, **more}


def test_apns_tokens(pushes, people):
    first = register(pushes, people[0], ios(hexadecimal(people[0])))
    assert first.status == 201
    for said in spellings_of_apns(hexadecimal(people[0])):
        again = register(pushes, people[0], ios(said))
        assert (again.status, again.json["id"]) == (200, first.json["id"]), said
    assert len(devices(pushes, people[0])) == 1


def test_provider_and_platform_in_any_case(pushes, people):
    token = hexadecimal(people[0])
    first = register(pushes, people[0], ios(token))
    for platform, provider in (("iOS", "APNs"), ("IOS", "APNS"), ("ios", "Apns")):
        again = register(pushes, people[0], {**ios(token), "platform": platform, "provider": provider})
        assert (again.status, again.json["id"]) == (200, first.json["id"])
        assert (again.json["platform"], again.json["provider"]) == ("ios", "apns")


def test_fcm_tokens(pushes, people):
    body = {"platform": "android", "app": "android", "token": f"fcm:{people[0]}:APA91b"}
    first = register(pushes, people[0], body)
    for said in (f" {body['token']}", f"{body['token']}\n", f"\t{body['token']}\r\n"):
        assert register(pushes, people[0], {**body, "token": said}).json["id"] == first.json["id"]
    # a registration token itself tells upper case from lower: another one
    assert register(pushes, people[0], {**body, "token": body["token"].upper()}).json["id"] != first.json["id"]


def spellings_of_endpoint(port, name):
    path = f"/push/{name}"
    return [f"https://localhost:{port}{path}", f"HTTPS://LocalHost:{port}{path}", f"https://localhost.:{port}{path}",
            f"https://localhost:0{port}{path}", f"https://localhost:{port}{path}#part", f"https://localhost:{port}/push/./{name}",
            f"https://localhost:{port}/x/../push/{name}", f" https://localhost:{port}{path} ",
            f"https://localhost:{port}/%70us%68/{name}", f"https://%6cocalhost:{port}{path}",
            f"https://localhost:{port}/push/%2e/{name}"]


def test_web_push_endpoints_and_keys(pushes, people):
    port = pushes.providers.port("webpush")
    keys = Subscription().public()
    first = register(pushes, people[0], {"platform": "web", "app": "web", "token": spellings_of_endpoint(port, people[0])[0],
                                         "keys": keys})
    standard = {k: v.replace("-", "+").replace("_", "/") + "=" * (-len(v) % 4) for k, v in keys.items()}
    for said in spellings_of_endpoint(port, people[0]):
        for given in (keys, standard):
            again = register(pushes, people[0], {"platform": "Web", "app": "web", "token": said, "keys": given})
            assert (again.status, again.json["id"]) == (200, first.json["id"]), said
    assert len(devices(pushes, people[0])) == 1


def test_a_push_reaches_any_spelling_once(pushes, people):
    phone = pushes.phone(people[0], "web")
    port = pushes.providers.port("webpush")
    for said in spellings_of_endpoint(port, phone.token):
        register(pushes, people[0], {**phone.body, "token": said})
    sent = pushes.send(people[0], title="once", channels=["push"])
    pushes.outcome(sent, people[0], "sent")
    phone.got(1)


def test_spelled_at_random(pushes, people):
    """Property: any mix of case, blanks, escapes and padding is the device that was there."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    dice = random.Random(seed)
    port = pushes.providers.port("webpush")
    keys = Subscription().public()
    for n in range(40):
        token = "".join(dice.choice("0123456789abcdef") for _ in range(64))
        endpoint = f"/push/{token}?a={n}"
        ids = set()
        for _ in range(4):
            mixed = "".join(dice.choice((c, c.upper())) + dice.choice(("", "", "", " ")) for c in token)
            ids.add(register(pushes, people[0], ios(mixed)).json["id"])
        assert len(ids) == 1, (seed, token)
        web = set()
        for _ in range(4):
            host = "".join(dice.choice((c, c.upper())) for c in "localhost") + dice.choice(("", "."))
            escaped = "".join(c if c in "/?&=" or dice.random() < 0.7 else dice.choice(("%{:02x}", "%{:02X}")).format(ord(c))
                              for c in endpoint)
            said = f"{dice.choice(('https', 'HTTPS'))}://{host}:{port}{escaped}{dice.choice(('', '#x'))}"
            web.add(register(pushes, people[0], {"platform": "web", "app": "web", "token": said, "keys": keys}).json["id"])
        assert len(web) == 1, (seed, endpoint)
        for device in devices(pushes, people[0]):
            pushes.request("DELETE", f"/v1/users/{people[0]}/devices/{device['id']}")


# ---- a phone that changes hands ------------------------------------------------------------------------------------


def hand_over(node, phone, to, spelled=lambda token: token, key=None):
    body = {**phone.body, "token": spelled(phone.body["token"])}
    assert register(node, to, body, key=key).status == 201


@pytest.mark.parametrize("app,spelled", [("ios", str.upper), ("android", lambda t: f" {t}\n"),
                                         ("web", lambda t: t.replace("https://localhost", "https://LOCALHOST"))])
def test_in_another_spelling(pushes, people, app, spelled):
    phone = pushes.phone(people[0], app)
    hand_over(pushes, phone, people[1], spelled)
    assert devices(pushes, people[0]) == []
    pushes.outcome(pushes.send(people[0], title="yours no more", channels=["push"]), people[0], "suppressed", "no_device")
    pushes.outcome(pushes.send(people[1], title="yours", channels=["push"]), people[1], "sent")
    assert [phone.payload(line)["title" if app == "web" else "aps" if app == "ios" else "notification"] for line in phone.got(1)]


def test_what_is_queued_for_it(pushes, people):
    """Rows of the push queue: a provider that refuses for a while has them wait; the phone changes hands meanwhile."""
    phone = pushes.phone(people[0], "ios")
    pushes.providers.faults(phone.answer(503, "ServiceUnavailable", retry_after_s=2))
    sent = [pushes.send(people[0], title=f"secret {n}", channels=["push"]) for n in range(5)]
    until(lambda: len(phone.pushes) >= 5, 10, "the first attempts")
    hand_over(pushes, phone, people[1], str.upper)
    pushes.providers.calm()
    assert devices(pushes, people[0]) == []
    pushes.outcome(pushes.send(people[1], title="yours", channels=["push"]), people[1], "sent")
    for notification in sent:
        pushes.outcome(notification, people[0], "suppressed", "device_deleted", seconds=30)
    assert ["secret" in line["payload"] for line in phone.accepted] == [False], "the former user's text on this phone"


def tenant_key(node, tenant):
    made = json.loads(node.ctl("key", "create", "--scope", "admin", "--scope", "users", "--scope", "send", "--scope", "status",
                               "--tenant", tenant, "--json").stdout)
    return made["key"]


def test_across_tenants(shared):
    """push.tenant_tokens: false: a token of an app is one phone, whichever tenant's user is signed in on it."""
    pushes, people = shared, ["ann"]
    pushes.put_user(*people)
    phone = pushes.phone(people[0], "ios")
    key = tenant_key(pushes, "other")
    assert pushes.request("PUT", f"/v1/users/{people[0]}", {}, key=key).status == 201
    hand_over(pushes, phone, people[0], str.upper, key=key)
    assert devices(pushes, people[0]) == []
    assert len(devices(pushes, people[0], key=key)) == 1
    pushes.outcome(pushes.send(people[0], title="of the first tenant", channels=["push"]), people[0], "suppressed", "no_device")
    assert phone.pushes == []


def test_registered_by_many_at_once(pushes):
    """Users of several shards register one phone in the same moment: it is the phone of one of them, the last."""
    names = [f"many-{n}" for n in range(8)]
    pushes.put_user(*names)
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        for n in range(60):
            body = ios(hexadecimal(f"round-{n}"))
            list(pool.map(lambda name: register(pushes, name, body), names))
            owners = [name for name in names if devices(pushes, name)]
            assert len(owners) == 1, (n, owners)
            pushes.request("DELETE", f"/v1/users/{owners[0]}/devices/{devices(pushes, owners[0])[0]['id']}")


def test_a_name_is_given_to_a_phone(pushes, people):
    """The same user's phone under another name stays one device, and what waits for it is not lost."""
    phone = pushes.phone(people[0], "ios")
    pushes.providers.faults(phone.answer(503, "ServiceUnavailable", retry_after_s=2))
    sent = pushes.send(people[0], title="waits", channels=["push"])
    until(lambda: len(phone.pushes) >= 1, 10, "the first attempt")
    register(pushes, people[0], {**phone.body, "device": "phone", "token": phone.token.upper()})
    pushes.providers.calm()
    assert [d.get("device") for d in devices(pushes, people[0])] == ["phone"]
    pushes.outcome(sent, people[0], "sent", seconds=30)
    phone.got(1)
