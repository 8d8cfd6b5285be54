"""What tokens are for: projects, domains, the system, nothing; and what they were got with."""

import pytest

from tests.api.conftest import Api, Cloud, credentials, fresh

TOKENS = "/identity/v3/auth/tokens"


def scoped(cloud: Cloud, scope: object, name: str = "cumulog") -> dict:
    """Return the body that asks for a token of an account with a scope."""
    auth = cloud.clouds[name]["auth"]
    body = credentials(auth["username"], auth["password"])
    body["auth"]["scope"] = scope
    return body


def sign_in(cloud: Cloud, body: dict) -> tuple[Api, dict]:
    reply = cloud.anyone("POST", TOKENS, body)
    assert reply.status == 201, reply
    api = Api(cloud.url, reply.headers["x-subject-token"])
    shown = api("GET", TOKENS, headers={"X-Subject-Token": api.token})
    assert shown.body == reply.body
    return api, reply.body["token"]


def me(api: Api) -> dict:
    return api("GET", TOKENS, headers={"X-Subject-Token": api.token}).body["token"]


def test_a_token_of_the_system(cloud: Cloud):
    api, token = sign_in(cloud, scoped(cloud, {"system": {"all": True}}))

    assert token["system"] == {"all": True}
    assert token.keys().isdisjoint({"project", "domain", "is_domain"})
    assert [r["name"] for r in token["roles"]] == ["admin", "manager", "member", "reader"]
    assert token["catalog"]
    assert api("GET", "/identity/v3/auth/system").body["system"] == [{"all": True}]
    assert cloud.demo("GET", "/identity/v3/auth/system").body["system"] == []


def test_a_token_of_a_domain(cloud: Cloud):
    admin = me(cloud.admin)["user"]["id"]
    domain = cloud.admin("POST", "/v1/actions", {"type": "CreateDomain", "name": fresh("domain")})
    domain_id = domain.body["reply"]["domain_id"]
    role = cloud.admin("GET", "/identity/v3/roles?name=reader").body["roles"][0]["id"]
    grant = {"type": "GrantRole", "user_id": admin, "domain_id": domain_id, "role_id": role}
    assert cloud.admin("POST", "/v1/actions", grant).status == 200

    api, token = sign_in(cloud, scoped(cloud, {"domain": {"id": domain_id}}))

    assert token["domain"]["id"] == domain_id
    assert [r["name"] for r in token["roles"]] == ["reader"]
    mine = api("GET", "/identity/v3/auth/domains").body["domains"]
    assert domain_id in [d["id"] for d in mine]
    assert cloud.demo("GET", "/identity/v3/auth/domains").body["domains"] == []


@pytest.mark.parametrize(
    "scope",
    [
        {"system": {"all": True}},
        {"system": {"all": False}},
        {"domain": {"name": "Default"}},
        {"domain": {"name": "no-such-domain"}},
        {"project": {"id": "no-such-project"}},
        {"OS-TRUST:trust": {"id": "no-such-trust"}},
    ],
)
def test_who_has_no_role_there_is_told_what_a_wrong_password_is_told(cloud: Cloud, scope: dict):
    reply = cloud.anyone("POST", TOKENS, scoped(cloud, scope, "cumulog-demo"))

    assert reply.status == 401
    message = reply.body["error"]["message"]
    assert message.startswith("The user, password or scope is not right.")


def test_a_scope_is_told_in_one_way(cloud: Cloud):
    both = {"system": {"all": True}, "domain": {"id": "default"}}

    assert cloud.anyone("POST", TOKENS, scoped(cloud, both)).status == 400
    assert cloud.anyone("POST", TOKENS, scoped(cloud, "scoped")).status == 400


def test_the_default_project_is_what_a_token_is_for_unless_told(cloud: Cloud):
    _, token = sign_in(cloud, scoped(cloud, None, "cumulog-demo"))
    _, unscoped = sign_in(cloud, scoped(cloud, "unscoped", "cumulog-demo"))
    _, also = sign_in(cloud, scoped(cloud, {"unscoped": {}}, "cumulog-demo"))

    assert token["project"]["name"] == "demo"
    assert "project" not in unscoped
    assert "project" not in also


def test_a_token_names_the_one_that_it_was_got_with(cloud: Cloud):
    api = cloud.sign_in("cumulog-demo")
    first = me(api)
    identity = {"methods": ["token"], "token": {"id": api.token}}
    scope = {"project": {"id": first["project"]["id"]}}

    _, second = sign_in(cloud, {"auth": {"identity": identity, "scope": scope}})

    assert len(first["audit_ids"]) == 1
    assert second["audit_ids"][1:] == first["audit_ids"]
    assert second["expires_at"] == first["expires_at"]


def test_the_catalog_is_left_out_when_asked(cloud: Cloud):
    auth = cloud.clouds["cumulog-demo"]["auth"]
    body = credentials(auth["username"], auth["password"], "demo")

    reply = cloud.anyone("POST", f"{TOKENS}?nocatalog", body)

    assert reply.status == 201
    assert "catalog" not in reply.body["token"]
    token = reply.headers["x-subject-token"]
    shown = Api(cloud.url, token)("GET", f"{TOKENS}?nocatalog", headers={"X-Subject-Token": token})
    assert shown.body == reply.body


def test_several_methods_must_prove_the_same_user(cloud: Cloud):
    auth = cloud.clouds["cumulog-demo"]["auth"]
    body = credentials(auth["username"], auth["password"])
    identity = body["auth"]["identity"]
    identity["methods"] = ["password", "token"]
    identity["token"] = {"id": cloud.sign_in("cumulog-demo").token}

    assert cloud.anyone("POST", TOKENS, body).body["token"]["methods"] == ["password", "token"]
    identity["token"] = {"id": cloud.sign_in("cumulog").token}
    assert cloud.anyone("POST", TOKENS, body).status == 401
    del identity["token"]
    assert cloud.anyone("POST", TOKENS, body).status == 400
    identity["methods"] = ["saml2"]
    assert cloud.anyone("POST", TOKENS, body).status == 401
