"""Whoever was let in and is refused a change finds the refusal in the log, whoever refused it."""

import json

import pytest

from api.refusals import unquoted
from tests.api.conftest import Api, Cloud, fresh
from tests.cli.running import eventually

SERVERS = "/compute/v2.1/servers"
ACTIONS = "/v1/actions"
NETWORKS = "/network/v2.0/networks"
USERS = "/identity/v3/users"
SECRET = "correct-horse"
JSON = {"Content-Type": "application/json"}


def recorded(api: Api, reply) -> dict:
    """Wait until a request is in the log, and return its event."""
    request_id = reply.headers["x-openstack-request-id"]
    found: list[dict] = []

    def told() -> bool:
        answer = api("GET", f"/v1/audit/{request_id}")
        found[:] = answer.body["events"] if answer.status == 200 else []
        return found != []

    eventually(told, f"{request_id} is in the log")
    (event,) = found
    return event


INVALID = (400, "InvalidInput")
LONG = 255 * "x"


@pytest.mark.parametrize(
    ("method", "path", "raw", "told", "tag"),
    [
        ("POST", SERVERS, '{"server": {"name": "%s', INVALID, "CreateServer"),
        ("POST", SERVERS, '{"server": {"name": 5, "adminPass": "%s"}}', INVALID, "CreateServer"),
        ("POST", NETWORKS, '{"network": {"%s": 1}}', INVALID, "CreateNetwork"),
        ("POST", NETWORKS, '{"network": {"name": "%s' + LONG + '"}}', INVALID, "CreateNetwork"),
        ("POST", NETWORKS, 2**20 * " " + "%s", (413, "BodyTooLarge"), "CreateNetwork"),
        ("POST", ACTIONS, '{"type": "CreateNetwork", "x": "%s"}', INVALID, "RefuseRequest"),
        ("POST", ACTIONS, '{"type": "RefuseRequest"}', (403, "Forbidden"), "RefuseRequest"),
        ("DELETE", f"{SERVERS}/nothing", "", (404, "NotFound"), "DeleteServer"),
        ("DELETE", f"{NETWORKS}/nothing", "", (404, "NotFound"), "DeleteNetwork"),
    ],
)  # fmt: skip
def test_what_the_edge_refuses_is_recorded_without_the_body(
    demo: Api, method, path, raw, told, tag
):
    status, code = told
    reply = demo(method, path, raw=raw.replace("%s", SECRET).encode(), headers=JSON)
    assert reply.status == status, reply

    event = recorded(demo, reply)

    assert (event["tag"], event["outcome"], event["code"]) == (tag, "refused", code)
    verdict, request = event["body"]["verdict"], event["body"]["request"]
    assert verdict["status"] == status
    assert (request["action"]["method"], request["client"]["address"]) == (method, "127.0.0.1")
    assert SECRET not in json.dumps(event)


@pytest.mark.parametrize(
    "action",
    [
        {"type": "CreateUser", "name": "x", "domain_id": "default", "password": SECRET},
        {
            "type": "CreateIdentityProvider", "idp_id": "x",
            "oidc": {"issuer": "https://x", "client_id": "x", "client_secret": SECRET},
        },
    ],
)  # fmt: skip
def test_nothing_is_sealed_for_who_may_not_have_it_done(demo: Api, action):
    reply = demo("POST", ACTIONS, action)
    assert reply.status == 403

    event = recorded(demo, reply)

    # Sealed under a key of its own, which would be kept, it would be here.
    assert (event["tag"], event["code"]) == (action["type"], "Forbidden")
    assert "key_id" not in json.dumps(event)


def test_a_malformed_users_password_is_not_recorded(admin: Api):
    user = {"user": {"name": 5, "password": SECRET, "domain_id": "default"}}
    reply = admin("POST", USERS, user)
    assert reply.status == 400

    assert SECRET not in json.dumps(recorded(admin, reply))


def test_a_missing_role_is_recorded_with_the_rule(demo: Api):
    reply = demo("POST", "/identity/v3/projects", {"project": {"name": fresh("p")}})
    assert reply.status == 403

    event = recorded(demo, reply)

    assert (event["tag"], event["code"]) == ("CreateProject", "Forbidden")
    assert event["body"]["verdict"]["rule"].startswith("CreateProject: ")


def test_what_the_engine_refuses_is_recorded(cloud: Cloud, demo: Api):
    network = cloud.network(demo, "10.97.0.0/24")
    subnet = {"network_id": network["id"], "cidr": "10.97.0.0/25", "ip_version": 4}
    reply = demo("POST", "/network/v2.0/subnets", {"subnet": subnet})
    assert reply.status == 400

    event = recorded(demo, reply)

    assert (event["tag"], event["code"]) == ("CreateSubnet", "SubnetOverlap")


def test_a_key_with_another_body_is_recorded(demo: Api):
    key = {"Idempotency-Key": fresh("key")}
    first = demo("POST", NETWORKS, {"network": {"name": fresh("one")}}, headers=key)
    other = demo("POST", NETWORKS, {"network": {"name": fresh("two")}}, headers=key)
    assert (first.status, other.status) == (201, 409)

    event = recorded(demo, other)

    assert (event["tag"], event["code"]) == ("CreateNetwork", "KeyReused")


def test_trials_and_strangers_are_not_recorded(cloud: Cloud, demo: Api):
    malformed = b'{"type": "CreateNetwork", "name": 5}'
    replies = [
        demo("POST", "/v1/actions?dry_run=1", raw=malformed, headers=JSON),
        demo("POST", NETWORKS, raw=b"{", headers=JSON | {"X-Cumulog-Dry-Run": "1"}),
        Api(cloud.url, "none")("POST", NETWORKS, {"network": {}}),
        cloud.anyone("POST", "/identity/v3/auth/tokens", raw=b"{", headers=JSON),
        demo("POST", "/network/v2.0/nowhere", {}),
    ]
    recorded(demo, demo("DELETE", f"{NETWORKS}/{fresh('after')}"))

    for reply in replies:
        assert reply.status in {400, 401, 404}
        request_id = reply.headers["x-openstack-request-id"]
        rows = cloud.admin("GET", f"/v1/audit?request_id={request_id}").body["requests"]
        assert rows == []


@pytest.mark.parametrize(
    ("reason", "left"),
    [
        ("Invalid enum value 'hunter2' - at `$.image.visibility`",
         "Invalid enum value … - at `$.image.visibility`"),
        ("Object contains unknown field `hunter2` - at `$.user`",
         "Object contains unknown field … - at `$.user`"),
        ('there is no "hunter2" here', "there is no … here"),
        ("limit must be a whole number", "limit must be a whole number"),
    ],
)  # fmt: skip
def test_reasons_lose_what_they_quote(reason: str, left: str):
    assert unquoted(reason) == left
