"""The policy's own calls: shown, tried, why, who, and what if; and nothing of it is written."""

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from api.native.policy import personas
from engine.domain.identity.directory import roles_on
from projections.holders import holders
from projections.reader import Reader
from schemas.policy import DEFAULT, parse
from tests.api.conftest import Api, Cloud, fresh
from tests.api.personas import ID, PASSWORD, TOKENS
from tests.cli.running import eventually

ACTIONS = "/v1/actions"
POLICY = "/v1/policy"
SERVERS = "/compute/v2.1/servers"


@pytest.fixture(scope="module")
def roles(cloud: Cloud) -> dict[str, str]:
    return {r["name"]: r["id"] for r in cloud.admin("GET", f"{ID}/roles").body["roles"]}


class Account:
    """A user with a role somewhere, and a token of that scope."""

    def __init__(self, cloud: Cloud, role_id: str, place: str, scope: object) -> None:
        self.name = fresh("someone")
        wish = {"user": {"name": self.name, "password": PASSWORD}}
        self.user_id = cloud.admin.made(f"{ID}/users", wish)["id"]
        path = f"{ID}/{place}/users/{self.user_id}/roles/{role_id}"
        assert cloud.admin("PUT", path).status == 204
        user = {"id": self.user_id, "password": PASSWORD}
        proof = {"methods": ["password"], "password": {"user": user}}
        reply = cloud.anyone("POST", TOKENS, {"auth": {"identity": proof, "scope": scope}})
        assert reply.status == 201, reply
        self.api = Api(cloud.url, reply.headers["x-subject-token"])


@pytest.fixture(scope="module")
def auditor(cloud: Cloud, roles: dict[str, str]) -> Api:
    return Account(cloud, roles["reader"], "system", {"system": {"all": True}}).api


@pytest.fixture(scope="module")
def project(cloud: Cloud) -> str:
    return cloud.admin.made(f"{ID}/projects", {"project": {"name": fresh("held")}})["id"]


@pytest.fixture(scope="module")
def reader(cloud: Cloud, roles: dict[str, str], project: str) -> Account:
    scope = {"project": {"id": project}}
    return Account(cloud, roles["reader"], f"projects/{project}", scope)


@pytest.fixture
def restored(cloud: Cloud) -> Iterator[None]:
    yield
    held = cloud.admin("GET", POLICY).body["policy"]["rules"]
    changed = {name: None for name, rule in held.items() if rule["changed"]}
    if changed:
        done = cloud.admin("POST", ACTIONS, {"type": "SetPolicy", "rules": changed})
        assert done.status == 200, done


def refused(api: Api) -> str:
    """Return the id of a request that the policy refused."""
    reply = api("POST", "/network/v2.0/networks", {"network": {"name": "x"}})
    assert reply.status == 403, reply
    return reply.headers["x-openstack-request-id"]


def test_the_table_is_shown_to_everybody(cloud: Cloud, reader: Account):
    shown = reader.api("GET", POLICY).body["policy"]

    assert {name: tuple(rule["entries"]) for name, rule in shown["rules"].items()} == DEFAULT
    assert not any(rule["changed"] for rule in shown["rules"].values())


def test_a_rule_is_set_by_an_event_and_counts_at_once(
    cloud: Cloud, reader: Account, restored: None
):
    rules = {"CreateNetwork": ["reader in project"]}
    path, wish = "/network/v2.0/networks", {"network": {"name": fresh("mine")}}
    assert reader.api("POST", path, wish).status == 403

    done = cloud.admin("POST", ACTIONS, {"type": "SetPolicy", "rules": rules})

    assert done.status == 200, done
    allowed = reader.api("POST", path, wish)
    assert allowed.status == 201, allowed
    told = reader.api("GET", f"/v1/audit/{allowed.headers['x-openstack-request-id']}").body
    assert told["events"][0]["body"]["verdict"]["rule"] == "CreateNetwork: reader in project"


def test_a_feed_ends_when_its_rule_does(cloud: Cloud, reader: Account, restored: None):
    connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=60)
    headers = {"X-Auth-Token": reader.api.token}
    connection.request("GET", "/v1/events?follow=1", headers=headers)
    stream = connection.getresponse()
    assert stream.readline() == b": connected\n"

    rules = {"log:events:read": ["admin in cloud"]}
    assert cloud.admin("POST", ACTIONS, {"type": "SetPolicy", "rules": rules}).status == 200

    told = stream.read().decode()
    connection.close()
    assert "event: end\ndata: " in told
    assert "policy.set.v1" not in told


def test_a_check_says_who_gains_and_who_loses_and_changes_nothing(cloud: Cloud, auditor: Api):
    rules = {"DeleteServer": ["manager in project"], "compute:hosts:read": ["reader in project"]}
    before = auditor("GET", POLICY).body

    told = auditor("POST", f"{POLICY}/check", {"rules": rules}).body["changes"]

    by_action = {change["action"]: change for change in told}
    assert by_action.keys() == rules.keys()
    assert "member in project (over project)" in by_action["DeleteServer"]["loses"]
    assert by_action["DeleteServer"]["gains"] == []
    assert (
        "admin in system (over any, domain, project, self)" in (by_action["DeleteServer"]["loses"])
    )
    assert "reader in project (over project)" in by_action["compute:hosts:read"]["gains"]
    assert auditor("GET", POLICY).body == before


@pytest.mark.parametrize(
    "rules",
    [
        {"NoSuchAction": ["admin in cloud"]},
        {"DeleteServer": ["everybody"]},
        {"MarkHost": ["admin in cloud"]},
        {"DeleteServer": ["agent"]},
    ],
)
def test_a_check_refuses_what_could_not_be_set(auditor: Api, rules: dict):
    assert auditor("POST", f"{POLICY}/check", {"rules": rules}).status == 400


def test_a_member_learns_why_its_own_request_was_refused(reader: Account, project: str):
    told = reader.api("GET", f"{POLICY}/why-denied/{refused(reader.api)}").body["why_denied"]

    assert (told["by_policy"], told["action"]) == (True, "CreateNetwork")
    assert told["rule"] == "CreateNetwork: admin in cloud | member in project"
    assert (told["roles"], told["scope"]) == (["reader"], {"project_id": project})
    lacks = {one["entry"]: one["lacks"] for one in told["would_have_let_pass"]}
    assert lacks["member in project"] == "the role member in the token's project"
    assert told["now"] == {"roles": ["reader"], "allowed": False}
    assert "can_grant" not in told


def test_an_auditor_learns_who_can_grant_what_was_missing(
    cloud: Cloud, auditor: Api, reader: Account
):
    path = f"{POLICY}/why-denied/{refused(reader.api)}"

    told = auditor("GET", path).body["why_denied"]

    assert cloud.clouds["cumulog"]["auth"]["username"] in told["can_grant"]
    assert cloud.stranger()("GET", path).status == 404
    assert cloud.demo("GET", path).status == 404


def test_what_failed_for_another_reason_is_not_laid_on_the_policy(cloud: Cloud, auditor: Api):
    reply = cloud.demo("DELETE", f"{SERVERS}/nothing")
    assert reply.status == 404

    path = f"{POLICY}/why-denied/{reply.headers['x-openstack-request-id']}"
    told = auditor("GET", path).body["why_denied"]

    assert (told["by_policy"], told["code"]) == (False, "NotFound")
    assert told["would_have_let_pass"] == []


def test_a_refused_read_is_found_in_the_access_log(cloud: Cloud, reader: Account, project: str):
    reply = reader.api("GET", "/compute/v2.1/os-hypervisors")
    assert reply.status == 403
    path = f"{POLICY}/why-denied/{reply.headers['x-openstack-request-id']}"
    eventually(lambda: reader.api("GET", path).status == 200, "the access log has it")

    told = reader.api("GET", path).body["why_denied"]

    assert (told["source"], told["by_policy"]) == ("access", True)
    assert told["rule"] == "compute:hosts:read: admin in cloud | reader in system"
    assert told["scope"] == {"project_id": project}
    assert cloud.stranger()("GET", path).status == 404


def test_nobody_asks_why_of_what_was_not_refused(cloud: Cloud, auditor: Api):
    made = cloud.demo("POST", ACTIONS, {"type": "CreateNetwork", "name": fresh("good")})

    assert auditor("GET", f"{POLICY}/why-denied/{made.body['request_id']}").status == 404


def test_who_can_follows_groups_inheritance_and_implication(
    cloud: Cloud, auditor: Api, roles: dict[str, str], project: str
):
    admin = cloud.admin
    domain = admin.made(f"{ID}/domains", {"domain": {"name": fresh("above")}})["id"]
    below = admin.made(
        f"{ID}/projects", {"project": {"name": fresh("below"), "domain_id": domain}}
    )["id"]
    user = admin.made(
        f"{ID}/users", {"user": {"name": fresh("far"), "password": PASSWORD, "domain_id": domain}}
    )
    group = admin.made(f"{ID}/groups", {"group": {"name": fresh("crew"), "domain_id": domain}})
    boss = admin.made(f"{ID}/roles", {"role": {"name": fresh("boss")}})["id"]
    assert admin("PUT", f"{ID}/roles/{boss}/implies/{roles['member']}").status == 201
    assert admin("PUT", f"{ID}/groups/{group['id']}/users/{user['id']}").status == 204
    path = f"{ID}/OS-INHERIT/domains/{domain}/groups/{group['id']}/roles/{boss}"
    assert admin("PUT", f"{path}/inherited_to_projects").status == 204

    told = auditor("GET", f"{POLICY}/who-can/DeleteServer?resource={below}").body

    assert (told["project_id"], told["domain_id"]) == (below, domain)
    by_entry = {one["entry"]: one["holders"] for one in told["entries"]}
    (found,) = by_entry["member in project"]
    assert found["user_id"] == user["id"]
    assert found["path"][-1] == "member"
    assert len(found["path"]) == 2
    assert (found["group_id"], found["target"], found["below"]) == (group["id"], domain, True)
    assert by_entry["admin in cloud"] != []
    other = auditor("GET", f"{POLICY}/who-can/DeleteServer?resource={project}").body["entries"]
    assert user["id"] not in str(other)
    assert auditor("GET", f"{POLICY}/who-can/NoSuchAction").status == 404
    assert auditor("GET", f"{POLICY}/who-can/DeleteServer?resource=nothing").status == 404


def test_who_can_agrees_with_what_tokens_go_by(cloud: Cloud, reader: Account, project: str):
    """For every user, place and built-in role: named if and only if the user has it there."""
    path = next((cloud.up.state_dir / "read").glob("*.sqlite"))
    model = Reader(path)
    try:
        users = [user.user_id for user in model.users() if user.enabled]
        places = [(p.project_id, "project") for p in model.projects()]
        places += [(d.domain_id, "domain") for d in model.domains()] + [("system", "system")]
        for place, scope in places:
            has = {user: roles_on(model, user, place) for user in users}
            for role in ("admin", "manager", "member", "reader"):
                who = parse(f"{role} in {scope}")
                given = {f"{scope}_id": place} if scope != "system" else {}
                named = {one.user_id for one in holders(model, who, **given)}
                assert named == {user for user in users if role in has[user]}, (place, role)
    finally:
        model.close()


def test_what_if_counts_what_would_have_been_decided_otherwise(
    cloud: Cloud, auditor: Api, reader: Account, restored: None
):
    ask = f"{POLICY}/what-if"
    first = cloud.demo("POST", ACTIONS, {"type": "CreateNetwork", "name": fresh("if")})
    denied = refused(reader.api)
    after = first.body["ordinal"] - 2  # that is its fact's
    rules = {"CreateNetwork": ["manager in project", "reader in project"]}
    head = cloud.admin("GET", "/v1/status").body["projection"]["ordinal"]

    same = auditor("POST", ask, {"rules": {}, "after": after}).body
    wider = auditor("POST", ask, {"rules": rules, "after": after}).body
    closed = auditor("POST", ask, {"rules": {"CreateNetwork": []}, "after": after}).body

    assert (same["refused"], same["allowed"], same["complete"]) == ([], [], True)
    (allowed,) = wider["allowed"]
    assert (allowed["action"], allowed["persona"]) == ("CreateNetwork", "reader in project")
    assert denied in allowed["examples"]
    assert first.body["request_id"] in closed["refused"][0]["examples"]
    # Hosts and the clock may have gone on; nobody has asked for anything.
    since = cloud.admin("GET", f"/v1/events?after={head}&limit=1000").body["events"]
    assert {event["user_id"] for event in since} <= {"", "system"}
    late = auditor("POST", ask, {"rules": rules, "since": "2999-01-01T00:00:00Z"}).body
    assert late["requests"] == 0
    assert reader.api("POST", ask, {"rules": {}}).status == 403


def test_the_personas_are_all_that_built_in_roles_tell_apart():
    names = [name for name, _, _ in personas()]

    assert len(names) == len(set(names)) == 16
