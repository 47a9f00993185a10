"""The device registry over HTTP (PSH-5): register, refresh, list, delete; limits; tokens sealed at rest; erased with the
user; a token has one holder; over kill -9 of the control process."""
import os
import pathlib
import stat

import pytest

APNS = "a1" * 32
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
KEYS = {"p256dh": P256DH, "auth": "BTBZMqHH6r4Tts7J_aSIgg"}


def ios(token=APNS, **more):
    return {"platform": "ios", "app": "shop", "token": token, **more}


def register(node, user, body, status=201, **args):
    answer = node.request("POST", f"/v1/users/{user}/devices", body, **args)
    assert answer.status == status, answer
    return answer.json


def devices(node, user):
    answer = node.request("GET", f"/v1/users/{user}/devices")
    assert answer.status == 200, answer
    return answer.json["devices"]


def token_of(user, n):
    """64 hex digits of its own for each user and number."""
    return (f"{n:02x}" + user.encode().hex())[:64].ljust(64, "0")


def test_register_list_get_delete(node, user):
    assert devices(node, user) == []
    made = register(node, user, ios(token_of(user, 1), locale="de-AT", device="phone"))
    assert made["state"] == "live" and made["provider"] == "apns" and made["locale"] == "de-AT"
    assert "token" not in made
    register(node, user, {"platform": "android", "app": "shop", "token": f"fcm:{user}"})
    register(node, user, {"platform": "web", "app": "site", "token": f"https://push.example.net/{user}", "keys": KEYS})
    register(node, user, {"platform": "ios", "provider": "fcm", "app": "shop", "token": f"fcm:ios-{user}"})
    listed = devices(node, user)
    assert sorted((d["platform"], d["provider"]) for d in listed) == [
        ("android", "fcm"), ("ios", "apns"), ("ios", "fcm"), ("web", "webpush")]
    one = node.request("GET", f"/v1/users/{user}/devices/{made['id']}")
    assert one.status == 200 and one.json == made
    assert node.request("DELETE", f"/v1/users/{user}/devices/{made['id']}").status == 204
    assert node.request("DELETE", f"/v1/users/{user}/devices/{made['id']}").status == 404
    assert node.request("GET", f"/v1/users/{user}/devices/{made['id']}").status == 404
    assert made["id"] not in [d["id"] for d in devices(node, user)]


def test_refresh(node, user):
    first = register(node, user, ios(token_of(user, 1), device="phone"))
    again = register(node, user, ios(token_of(user, 1), device="phone"), status=200)
    assert again["id"] == first["id"] and again["created_at"] == first["created_at"]
    assert again["last_seen_at"] >= first["last_seen_at"]
    fresh = register(node, user, ios(token_of(user, 2), device="phone", locale="fr"), status=200)
    assert fresh["id"] == first["id"] and fresh["locale"] == "fr", "a refreshed token replaces the old one"
    assert len(devices(node, user)) == 1
    unnamed = register(node, user, ios(token_of(user, 3)))
    assert register(node, user, ios(token_of(user, 3)), status=200)["id"] == unnamed["id"]
    assert len(devices(node, user)) == 2


def test_a_token_has_one_holder(node, user):
    other = f"{user}-other"
    assert node.request("PUT", f"/v1/users/{other}", {}).status == 201
    register(node, user, ios(token_of(user, 1)))
    register(node, other, ios(token_of(user, 1)))
    assert devices(node, user) == [], "the phone has changed hands"
    assert len(devices(node, other)) == 1


def test_a_users_own_token(node, user):
    mine = node.token(user)
    made = node.request("POST", "/v1/devices", ios(token_of(user, 1)), key=mine)
    assert made.status == 201, made
    assert [d["id"] for d in node.request("GET", "/v1/devices", key=mine).json["devices"]] == [made.json["id"]]
    register(node, user, ios(token_of(user, 2)), key=mine)
    assert node.request("GET", f"/v1/users/{user}-x/devices", key=mine).status == 403
    assert node.request("POST", "/v1/devices", ios(token_of(user, 3), user_id="somebody"), key=mine).status == 403
    assert node.request("DELETE", f"/v1/devices/{made.json['id']}", key=mine).status == 204
    assert len(devices(node, user)) == 1
    # with an API key the call says whose
    assert node.request("GET", "/v1/devices").status == 400
    assert len(node.request("GET", f"/v1/devices?user_id={user}").json["devices"]) == 1
    assert node.request("POST", "/v1/devices", ios(token_of(user, 4), user_id=user)).status == 201


BAD = [
    ({}, "platform"),
    ({"platform": "tv"}, "platform"),
    ({"platform": 1}, "platform"),
    ({"platform": "ios", "provider": "webpush"}, "provider"),
    ({"platform": "web", "provider": "apns"}, "provider"),
    ({"platform": "ios"}, "app"),
    ({"platform": "ios", "app": "x" * 65}, "app"),
    ({"platform": "ios", "app": "shop"}, "token"),
    (ios("xyz"), "token"),
    (ios("a"), "token"),
    (ios("a" * 600), "token"),
    (ios(""), "token"),
    (ios(APNS, locale="de AT"), "locale"),
    (ios(APNS, locale="x" * 36), "locale"),
    (ios(APNS, device="x" * 65), "device"),
    (ios(APNS, keys=KEYS), "keys"),
    (ios(APNS, colour="red"), "colour"),
    (ios(APNS, user_id="x"), "user_id"),
    ({"platform": "android", "app": "shop", "token": "a b"}, "token"),
    ({"platform": "web", "app": "site", "token": "https://push.example.net/x"}, "keys"),
    ({"platform": "web", "app": "site", "token": "http://push.example.net/x", "keys": KEYS}, "token"),
    ({"platform": "web", "app": "site", "token": "https://push.example.net/x", "keys": {"p256dh": "x", "auth": "y"}}, "keys"),
]


@pytest.mark.parametrize("body,field", BAD)
def test_bad_devices(node, user, body, field):
    answer = node.request("POST", f"/v1/users/{user}/devices", body)
    assert answer.status == 400 and answer.json["field"] == field, answer
    assert devices(node, user) == []


def test_limit(node, user):
    for n in range(32):
        register(node, user, ios(token_of(user, n)))
    answer = node.request("POST", f"/v1/users/{user}/devices", ios(token_of(user, 99)))
    assert answer.status == 409 and answer.json["type"].endswith("too-many-devices"), answer
    register(node, user, ios(token_of(user, 5)), status=200)  # one of them may always come again
    victim = devices(node, user)[0]["id"]
    assert node.request("DELETE", f"/v1/users/{user}/devices/{victim}").status == 204
    register(node, user, ios(token_of(user, 99)))


def test_unknown_user(node):
    assert node.request("POST", "/v1/users/nobody-at-all/devices", ios()).status == 404
    assert node.request("GET", "/v1/users/nobody-at-all/devices").status == 404


def test_erased_with_the_user(node, user):
    register(node, user, ios(token_of(user, 1)))
    assert node.request("DELETE", f"/v1/users/{user}").status == 200
    assert node.request("PUT", f"/v1/users/{user}", {}).status == 201
    assert devices(node, user) == []
    register(node, user, ios(token_of(user, 1)))  # the token's index is gone too


def test_sealed_at_rest(node, user):
    state = pathlib.Path(node.state)
    token = token_of(user, 7)
    register(node, user, ios(token))
    register(node, user, {"platform": "android", "app": "shop", "token": f"secret-token-of-{user}"})
    key = next(state.rglob("device.key"))
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    for path in state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert token.encode() not in content, path
            assert f"secret-token-of-{user}".encode() not in content, path


def test_over_a_kill(node, user):
    made = register(node, user, ios(token_of(user, 1), device="phone"))
    node.kill("ctrlplane")
    node.restart("ctrlplane")
    assert devices(node, user) == [made]
    assert register(node, user, ios(token_of(user, 1), device="phone"), status=200)["id"] == made["id"]
