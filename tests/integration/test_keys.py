"""API keys over their life, and who may use the admin port. SEC-1, SEC-2."""
import http.client
import json
import os
import pathlib
import stat
import time
import urllib.parse

import pytest
from harness import http_request, until

# ---- API keys -------------------------------------------------------------------------------------


def make(node, *args):
    done = node.ctl("key", "create", "--scope", "send", "--scope", "users", *args, "--json")
    return json.loads(done.stdout)


def is_taken(node, key):
    status = node.request("GET", "/v1/users/nobody-here", key=key).status
    assert status in (401, 404), status
    return status == 404


def listed(node, key_id):
    found = json.loads(node.ctl("key", "list", "--json").stdout)["keys"]
    return next(row for row in found if row["id"] == key_id)


def test_a_revoked_key_stops_at_once(embedded):
    """Both server threads have it cached; each refuses it with the first request after the answer."""
    key = make(embedded, "--name", "revoked")
    assert all(is_taken(embedded, key["key"]) for _ in range(20))
    embedded.ctl("key", "revoke", key["id"])
    began = time.monotonic()
    assert not any(is_taken(embedded, key["key"]) for _ in range(20))
    assert time.monotonic() - began < 20
    assert listed(embedded, key["id"])["state"] == "revoked"
    embedded.ctl("key", "revoke", key["id"])  # again: it is as it was
    embedded.restart("ctrlplane")
    assert not is_taken(embedded, key["key"])


def test_a_key_expires_though_it_is_cached(embedded):
    key = make(embedded, "--ttl", "2")
    made = time.monotonic()
    assert is_taken(embedded, key["key"]) and listed(embedded, key["id"])["expires_at"]
    until(lambda: not is_taken(embedded, key["key"]), 5, "its time is over")
    assert 1 < time.monotonic() - made
    assert listed(embedded, key["id"])["state"] == "expired"


def test_rotation_leaves_two_valid_keys_and_ends_the_former(embedded):
    old = make(embedded, "--name", "shop", "--rate", "100000")
    new = json.loads(embedded.ctl("key", "rotate", old["id"], "--overlap", "3", "--json").stdout)
    assert new["replaces"] == old["id"] and new["name"] == "shop" and new["scopes"] == old["scopes"]
    assert new["rate_per_min"] == old["rate_per_min"]
    assert is_taken(embedded, old["key"]) and is_taken(embedded, new["key"]), "two valid at once"
    again = embedded.ctl("key", "rotate", old["id"], check=False)
    assert again.returncode != 0 and new["id"] in again.stderr, "the successor is the one to rotate"
    until(lambda: not is_taken(embedded, old["key"]), 6, "the former key's end")
    assert is_taken(embedded, new["key"])
    assert listed(embedded, old["id"])["replaced_by"] == new["id"]
    over = embedded.ctl("key", "rotate", old["id"], check=False)
    assert over.returncode != 0 and "over" in over.stderr


def test_last_use_is_listed(embedded):
    """Written once a minute and at the stop, never by a request."""
    key = make(embedded, "--name", "used")
    idle = make(embedded, "--name", "idle")
    before = time.time()
    assert is_taken(embedded, key["key"])
    assert "last_used_at" not in listed(embedded, key["id"]), "a request writes nothing"
    embedded.restart("ctrlplane")
    used = listed(embedded, key["id"])["last_used_at"]
    assert abs(time.mktime(time.strptime(used[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - before) < 60
    assert "last_used_at" not in listed(embedded, idle["id"])
    shown = embedded.ctl("key", "list").stdout
    assert used[:19] in shown and "never" in shown


def test_unknown_keys_are_named(embedded):
    for command in (("revoke", "0123456789abcdef"), ("rotate", "no/such key")):
        done = embedded.ctl("key", *command, check=False)
        assert done.returncode == 1 and "key list" in done.stderr, done
    assert embedded.ctl("key", "revoke", check=False).returncode == 2
    assert embedded.admin("POST", "/admin/keys", {"scopes": ["send"], "ttl_s": -1}).status == 400
    misspelt = embedded.admin("POST", "/admin/keys", {"scopes": ["send"], "ttl": 60})
    assert misspelt.status == 400 and "ttl_s" in json.loads(misspelt.body)["detail"], "else the key would have no end"


# ---- the admin port -------------------------------------------------------------------------------

GUARDED = [("GET", "/admin/status"), ("GET", "/admin/connections"), ("GET", "/admin/keys"), ("GET", "/admin/dlq"),
           ("POST", "/admin/keys"), ("POST", "/admin/drain"), ("POST", "/admin/config/reload"),
           ("POST", "/admin/dlq/purge"), ("POST", "/admin/dlq/redrive"), ("GET", "/admin/trace/01234567-89ab-4cde-8f01-23456789abcd"),
           ("POST", "/admin/keys/x/revoke"), ("POST", "/admin/keys/x/rotate")]
BODY = {"scopes": ["admin"], "rate": 0}


@pytest.mark.parametrize("method,path", GUARDED)
def test_admin_calls_want_the_token(embedded, method, path):
    """The header of before, a user's token, a wrong token, a key without the scope: none of them is a credential."""
    weak = make(embedded)["key"]
    refused = [{"X-Belfry-Admin": "1"}, {"Authorization": "Bearer bfa_" + "0" * 48},
               {"Authorization": "Bearer " + embedded.token("eve")}, {"Authorization": f"Bearer {weak}"},
               {"Authorization": "Bearer "}, {"Authorization": embedded.admin_token}]
    for headers in refused:
        answer = http_request(embedded.info["admin"], method, path, BODY if method == "POST" else None, headers)
        assert answer.status in (401, 403), (headers, answer)
        assert answer.json["detail"] and "keys" not in answer.json


def test_a_limit_is_a_number(embedded):
    for limit in ("abc", "-5", "0", "5x", ""):
        answer = embedded.admin("GET", f"/admin/dlq?limit={limit}")
        assert answer.status == 400 and answer.json["field"] == "limit", limit
    assert embedded.admin("GET", "/admin/dlq?limit=100000").status == 200, "as many as there may be"


def test_metrics_and_health_are_open(embedded):
    for path in ("/metrics", "/healthz", "/readyz"):
        assert http_request(embedded.info["admin"], "GET", path).status == 200
    for path in ("/healthz", "/readyz"):  # balancers have names of their own for us
        assert http_request(embedded.info["admin"], "GET", path, headers={"Host": "probe.example"}).status == 200


def with_host(node, path, host, origin=None):
    url = urllib.parse.urlsplit(node.info["admin"])
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=15)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in (("Host", host), ("Origin", origin), ("Authorization", f"Bearer {node.admin_token}")):
        if value is not None:
            connection.putheader(name, value.replace("PORT", str(url.port)))
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_host_and_origin_are_checked(embedded):
    for host in ("localhost", "localhost:PORT", "127.0.0.1:PORT", "[::1]:PORT", "LocalHost"):
        for path in ("/metrics", "/admin/status"):
            assert with_host(embedded, path, host) == 200, host
    for host in ("evil.example", "evil.example:PORT", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1",
                 "10.0.0.1:PORT", "belfry"):
        for path in ("/metrics", "/admin/status"):
            assert with_host(embedded, path, host) in (400, 403), host
    assert with_host(embedded, "/admin/status", "localhost:PORT", "http://localhost:PORT") == 200
    for origin in ("http://evil.example", "null", "http://localhost:1", "file://localhost:PORT", "http://localhost:PORT.evil"):
        assert with_host(embedded, "/admin/status", "localhost:PORT", origin) == 403, origin


def test_a_key_of_a_tenant_is_no_operator(embedded):
    def make(*tenant):
        key = json.loads(embedded.ctl("key", "create", "--scope", "admin", *tenant, "--json").stdout)
        return key["key"], key["id"]

    def asks(key, method, path):
        return embedded.admin(method, path, headers={"Authorization": f"Bearer {key}"}).status
    (operator, operator_id), (acme, acme_id) = make(), make("--tenant", "acme")
    assert asks(operator, "GET", "/admin/status") == 200
    assert asks(acme, "GET", "/admin/status") == 403
    assert asks(acme, "GET", "/admin/backup") == 403
    assert asks(acme, "POST", f"/admin/keys/{operator_id}/revoke") == 404, "another tenant's key is not there"
    assert asks(acme, "POST", f"/admin/keys/{operator_id}/rotate") == 404
    assert asks(operator, "GET", "/admin/keys") == 200
    assert asks(acme, "POST", f"/admin/keys/{acme_id}/revoke") == 200, "its own"
    assert asks(acme, "GET", "/admin/keys") == 401


def test_a_token_that_others_could_read_is_replaced(embedded):
    path = embedded.state / "data/admin.token"
    before = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    embedded.restart("ctrlplane")
    assert path.read_text() == before, "it stays over a restart"
    path.chmod(0o644)
    embedded.restart("ctrlplane")
    assert path.read_text() != before and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert embedded.admin("GET", "/admin/status").status == 200
    path.unlink()
    missing = embedded.ctl("status", check=False)
    assert missing.returncode == 1 and "admin.token" in missing.stderr
    embedded.restart("ctrlplane")


def test_nothing_is_open_to_other_users(embedded):
    """What scripts/dev and the processes write: keys, inboxes, logs."""
    with embedded.client("u") as client:
        embedded.send("u")
        client.expect("n")
    open_files = []
    for top, dirs, files in os.walk(embedded.state):
        for name in dirs + files:
            path = pathlib.Path(top) / name
            if not path.is_symlink() and name != "given.yaml":  # that one the test wrote
                mode = stat.S_IMODE(path.lstat().st_mode)
                open_files += [f"{path.relative_to(embedded.state)} {mode:o}"] if mode & 0o077 else []
    assert not open_files
