"""docs/openapi.yaml is the API (ING-10): its calls are the route table's, its event is the field table, and a running
node answers what it says."""
import json
import re

import harness
import pytest
import yaml
from harness import http_request

SPEC = yaml.safe_load((harness.ROOT / "docs/openapi.yaml").read_text())
FIELDS = harness.ROOT / "include/belfry/base/event_fields.def"
METHODS = ("get", "put", "post", "patch", "delete")
UUID = "00000000-0000-8000-8000-000000000000"


def resolve(node):
    while isinstance(node, dict) and "$ref" in node:
        target = SPEC
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def operations():
    return {(method.upper(), path): resolve(op) for path, item in SPEC["paths"].items() for method, op in item.items()
            if method in METHODS}


OPERATIONS = operations()


def fill(path):
    return path.replace("{user}", "me").replace("{topic}", "openapi").replace("{id}", UUID)


# ---- a small checker: what of JSON Schema the description uses -------------------------------------------------

def is_type(value, name):
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[name]) and not (name == "integer" and isinstance(value, bool))


def mismatches(value, schema, where="$"):
    schema = resolve(schema)
    found = []
    types = schema.get("type")
    if types and not any(is_type(value, t) for t in (types if isinstance(types, list) else [types])):
        return [f"{where}: {value!r} is no {types}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{where}: {value!r} not in {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{where}: {value!r} is not {schema['const']!r}")
    if isinstance(value, dict) and "properties" in schema:
        found += [f"{where}: {name} is missing" for name in schema.get("required", []) if name not in value]
        for name, inner in value.items():
            if name in schema["properties"]:
                found += mismatches(inner, schema["properties"][name], f"{where}.{name}")
            else:
                found.append(f"{where}: {name} is not described")
    if isinstance(value, list) and "items" in schema:
        for i, inner in enumerate(value):
            found += mismatches(inner, schema["items"], f"{where}[{i}]")
    return found


def check(method, path, answer):
    """The answer's status, content type and body are described."""
    responses = OPERATIONS[(method, path)]["responses"]
    assert str(answer.status) in responses, f"{method} {path} answered {answer}, which is not described"
    content = resolve(responses[str(answer.status)]).get("content")
    if not content:
        assert answer.body == b""
        return answer
    kind = answer.headers.get_content_type()
    assert kind in content, f"{method} {path}: {kind}"
    found = mismatches(answer.json, content[kind]["schema"])
    assert not found, f"{method} {path} -> {answer.status}: {found}"
    return answer


# ---- the description itself ----------------------------------------------------------------------------------

def test_every_reference_resolves():
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                resolve(node)
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)
    walk(SPEC)
    assert SPEC["openapi"].startswith("3.1")
    ids = [op["operationId"] for op in OPERATIONS.values()]
    assert len(ids) == len(set(ids))


def test_calls_are_those_of_the_route_table():
    done = harness.subprocess.run([str(harness.BUILD / "belfryctl"), "routes"], capture_output=True, text=True, check=True)
    assert {tuple(line.split()) for line in done.stdout.splitlines()} == set(OPERATIONS)


def field_table():
    pattern = r'^X\((\w+), (\w+), (\d+), (\w+),'
    return {m[0]: (m[1], int(m[2]), m[3]) for m in re.findall(pattern, FIELDS.read_text(), re.M)}


def test_the_event_is_the_field_table():
    table, schema = field_table(), SPEC["components"]["schemas"]["Event"]["properties"]
    assert {name for name, row in table.items() if row[2] != "LATER"} == set(schema)
    types = {"STR": "string", "TEXT": "string", "TIME": "string", "BOOL": "boolean", "UINT": "integer", "LIST": "array",
             "OBJECT": "object"}
    limits = {"STR": "maxLength", "TEXT": "maxLength", "TIME": "maxLength", "UINT": "maximum", "LIST": "maxItems"}
    for name, field in schema.items():
        kind, limit, _ = table[name]
        assert field["type"] == types[kind], name
        if kind in limits and "enum" not in field:
            assert field[limits[kind]] == limit, name


# ---- against a node ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method,path", sorted(OPERATIONS))
def test_without_a_key(embedded, method, path):
    answer = http_request(embedded.info["api"], method, fill(path), b"{}" if method != "GET" else None)
    assert check(method, path, answer).status == 401


def call(node, method, path, body=None, status=None, key=None, query="", **names):
    real = path
    for name, value in names.items():
        real = real.replace("{" + name + "}", harness.quote(value))
    answer = check(method, path, node.request(method, real + query, body, key=key))
    assert status is None or answer.status == status, answer
    return answer.json if answer.body else None


def test_a_walk_through_all_calls(embedded):
    node, me = embedded, "walker"
    call(node, "PUT", "/v1/users/{user}", {"locale": "de", "attributes": {"a": 1}}, 201, user=me)
    call(node, "PUT", "/v1/users/{user}", {"zone": "Europe/Berlin"}, 200, user=me)
    call(node, "GET", "/v1/users/{user}", None, 200, user=me)
    call(node, "POST", "/v1/users/import", json.dumps({"user_id": "i1"}) + "\nnope\n", 200)
    call(node, "PUT", "/v1/users/{user}/preferences", {"types": {"x": False}, "topics": {"n": "mute"}}, 200, user=me)
    call(node, "GET", "/v1/users/{user}/preferences", None, 200, user=me)
    call(node, "PUT", "/v1/topics/{topic}", {"carriage": "inbox"}, 201, topic="walk")
    call(node, "GET", "/v1/topics/{topic}", None, 200, topic="walk")
    call(node, "GET", "/v1/topics", None, 200)
    call(node, "PUT", "/v1/topics/{topic}/subscriptions/{user}", {}, 200, topic="walk", user=me)
    call(node, "GET", "/v1/users/{user}/subscriptions", None, 200, user=me)
    call(node, "POST", "/v1/events", {"type": "t", "title": "e", "topic": "walk"}, 202)
    sent = call(node, "POST", "/v1/notifications", {"type": "t", "title": "n", "user_id": me, "data": {"k": 1}}, 202)
    call(node, "GET", "/v1/notifications/{id}/status", None, 200, id=sent["notification_id"])
    call(node, "POST", "/v1/notifications", {"type": "t", "title": "p", "user_id": "i1", "channels": ["inapp", "push"],
                                             "fallback": True, "overrides": {"push": {"apns": {"priority": 5}}}}, 202)
    harness.until(lambda: len(node.inbox(me)) == 2, 5, "both have arrived")
    items = call(node, "GET", "/v1/users/{user}/notifications", None, 200, user=me, query="?limit=1")
    item, token = items["notifications"][0]["id"], node.token(me)
    call(node, "GET", "/v1/users/{user}/notifications/{id}", None, 200, user=me, id=item)
    call(node, "PATCH", "/v1/notifications/{id}", {"seen": True}, 200, key=token, id=item)
    call(node, "PATCH", "/v1/notifications/{id}/read", {"user_id": me}, 200, id=item)
    call(node, "POST", "/v1/notifications/{id}/events", {"event": "received"}, 200, key=token, id=item)
    call(node, "POST", "/v1/notifications/{id}/events", {"event": "clicked"}, 200, key=token, id=item)
    call(node, "POST", "/v1/notifications/read-all", {}, 200, key=token)
    call(node, "GET", "/v1/notifications/{id}/status", None, 200, id=sent["notification_id"])
    call(node, "GET", "/v1/notifications/{id}/status", None, 200, id=item, query=f"?user_id={me}")
    call(node, "DELETE", "/v1/users/{user}/notifications/{id}", None, 200, user=me, id=item)
    call(node, "DELETE", "/v1/notifications/{id}", {}, None, key=token, id=item)
    phone = {"platform": "ios", "app": "shop", "token": "ab" * 32, "locale": "de"}
    device = call(node, "POST", "/v1/users/{user}/devices", phone, 201, user=me)["id"]
    call(node, "POST", "/v1/users/{user}/devices", phone, 200, user=me)
    call(node, "GET", "/v1/users/{user}/devices", None, 200, user=me)
    call(node, "GET", "/v1/users/{user}/devices/{id}", None, 200, user=me, id=device)
    call(node, "DELETE", "/v1/users/{user}/devices/{id}", None, 204, user=me, id=device)
    device = call(node, "POST", "/v1/devices", {**phone, "device": "phone"}, 201, key=token)["id"]
    call(node, "GET", "/v1/devices", None, 200, key=token)
    call(node, "DELETE", "/v1/devices/{id}", None, 204, key=token, id=device)
    call(node, "POST", "/v1/devices", {**phone, "token": "zz"}, 400, key=token)
    call(node, "DELETE", "/v1/topics/{topic}/subscriptions/{user}", None, 204, topic="walk", user=me)
    call(node, "DELETE", "/v1/users/{user}", None, 200, user=me)


def test_refusals_are_described(embedded):
    call(embedded, "PUT", "/v1/topics/{topic}", {"carriage": "broadcast"}, 201, topic="loud")
    embedded.put_user("one")
    call(embedded, "PUT", "/v1/topics/{topic}/subscriptions/{user}", {}, 404, topic="loud", user="nobody")
    call(embedded, "PUT", "/v1/topics/{topic}/subscriptions/{user}", {"filter": {}}, 400, topic="loud", user="one")
    call(embedded, "PATCH", "/v1/notifications/{id}", {"seen": False, "user_id": "one"}, 400, id=UUID)
    call(embedded, "PATCH", "/v1/notifications/{id}", {"read": True, "user_id": "one"}, 404, id=UUID)
    call(embedded, "POST", "/v1/notifications/{id}/events", {"event": "eaten", "user_id": "one"}, 400, id=UUID)
    call(embedded, "POST", "/v1/events", {"type": "t", "title": "x", "user_id": "one"}, 400)
