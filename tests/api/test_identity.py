"""Identity over HTTP: tokens and what they are good for, projects, users, roles."""

import pytest

from tests.api.conftest import Api, Cloud, credentials, fresh

TOKENS = "/identity/v3/auth/tokens"


def test_a_token_is_shown_as_it_was_made(cloud: Cloud):
    auth = cloud.clouds["cumulog-demo"]["auth"]
    made = cloud.anyone("POST", TOKENS, credentials(auth["username"], auth["password"], "demo"))
    token = made.headers["x-subject-token"]

    shown = Api(cloud.url, token)("GET", TOKENS, headers={"X-Subject-Token": token})

    assert shown.status == 200
    assert shown.body == made.body
    assert shown.headers["x-subject-token"] == token
    body = made.body["token"]
    assert body["project"]["name"] == "demo"
    assert [r["name"] for r in body["roles"]] == ["member", "reader"]
    assert body["expires_at"] > body["issued_at"]
    assert body["expires_at"].endswith("Z")
    assert {s["type"] for s in body["catalog"]} == {"identity", "compute", "image", "network"}


def test_an_unscoped_token_has_no_catalog(cloud: Cloud):
    name = fresh("nobody")
    user = {"user": {"name": name, "password": "pw"}}
    cloud.admin.made("/identity/v3/users", user)

    body = cloud.anyone("POST", TOKENS, credentials(name, "pw")).body["token"]

    assert body.keys().isdisjoint({"catalog", "project", "roles"})


def test_head_of_a_token_has_no_body(demo: Api):
    reply = demo("HEAD", TOKENS, headers={"X-Subject-Token": demo.token})

    assert (reply.status, reply.raw) == (200, b"")


def test_a_deleted_token_is_good_for_nothing_at_once(cloud: Cloud):
    api = cloud.sign_in("cumulog-demo")
    assert api("GET", "/compute/v2.1/servers").status == 200

    assert api("DELETE", TOKENS, headers={"X-Subject-Token": api.token}).status == 204

    for path in ("/compute/v2.1/servers", "/network/v2.0/networks", "/image/v2/images"):
        assert api("GET", path).status == 401
    shown = cloud.admin("GET", TOKENS, headers={"X-Subject-Token": api.token})
    assert shown.status == 404


def test_a_token_gives_another_that_ends_with_it(cloud: Cloud):
    api = cloud.sign_in("cumulog-demo")
    first = api("GET", TOKENS, headers={"X-Subject-Token": api.token}).body["token"]
    auth = {"identity": {"methods": ["token"], "token": {"id": api.token}}, "scope": "unscoped"}

    second = cloud.anyone("POST", TOKENS, {"auth": auth}).body["token"]

    assert second["methods"] == ["password", "token"]
    assert second["expires_at"] == first["expires_at"]
    assert "project" not in second


WRONG = [
    ("demo", "not it", "demo"),
    ("nobody-here", "not it", "demo"),
    ("demo", None, "no-such-project"),
    ("demo", None, "admin"),
]


@pytest.mark.parametrize(("user", "password", "project"), WRONG)
def test_signing_in_fails_without_telling_why(cloud: Cloud, user, password, project):
    right = cloud.clouds["cumulog-demo"]["auth"]["password"]

    reply = cloud.anyone("POST", TOKENS, credentials(user, password or right, project))

    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith('Keystone uri="')
    error = reply.body["error"]
    assert (error["code"], error["title"]) == (401, "Unauthorized")
    assert error["message"].startswith("The user, password or scope is not right.")


def test_what_ends_a_users_tokens(cloud: Cloud):
    api = cloud.stranger()
    me = api("GET", TOKENS, headers={"X-Subject-Token": api.token}).body["token"]["user"]
    path = f"/identity/v3/users/{me['id']}"

    change = {"user": {"original_password": "pw", "password": "other"}}
    assert api("POST", f"{path}/password", change).status == 204
    assert api("GET", "/compute/v2.1/servers").status == 401

    again = cloud.login(me["name"], "other", me["name"])
    assert cloud.admin("PATCH", path, {"user": {"enabled": False}}).status == 200
    assert again("GET", "/compute/v2.1/servers").status == 401
    assert cloud.anyone("POST", TOKENS, credentials(me["name"], "other")).status == 401

    assert cloud.admin("PATCH", path, {"user": {"enabled": True}}).status == 200
    last = cloud.login(me["name"], "other", me["name"])
    assert cloud.admin("DELETE", path).status == 204
    assert last("GET", "/compute/v2.1/servers").status == 401
    assert cloud.anyone("POST", TOKENS, credentials(me["name"], "other")).status == 401


def test_a_taken_role_takes_the_projects_tokens_away(cloud: Cloud):
    api = cloud.stranger()
    token = api("GET", TOKENS, headers={"X-Subject-Token": api.token}).body["token"]
    role = cloud.admin("GET", "/identity/v3/roles?name=member").body["roles"][0]["id"]
    path = (
        f"/identity/v3/projects/{token['project']['id']}/users/{token['user']['id']}/roles/{role}"
    )
    assert cloud.admin("HEAD", path).status == 204

    assert cloud.admin("DELETE", path).status == 204

    assert cloud.admin("HEAD", path).status == 404
    assert api("GET", "/compute/v2.1/servers").status == 401


def test_passwords_are_never_shown(cloud: Cloud):
    name = fresh("user")
    made = cloud.admin("POST", "/identity/v3/users", {"user": {"name": name, "password": "hush!"}})
    user = made.body["user"]

    seen = made.raw + cloud.admin("GET", f"/identity/v3/users/{user['id']}").raw
    seen += cloud.admin("GET", f"/v1/events?resource_id={user['id']}").raw

    assert b"hush!" not in seen
    assert b"argon2" not in seen
    assert "password" not in user


def test_members_do_not_see_other_people(cloud: Cloud):
    demo = cloud.demo
    for path in ("users", "projects", "domains", "role_assignments", "services", "endpoints"):
        assert demo("GET", f"/identity/v3/{path}").status == 403, path
    me = demo("GET", TOKENS, headers={"X-Subject-Token": demo.token}).body["token"]
    assert demo("GET", f"/identity/v3/users/{me['user']['id']}").status == 200
    assert demo("GET", f"/identity/v3/projects/{me['project']['id']}").status == 200
    mine = demo("GET", "/identity/v3/auth/projects").body["projects"]
    assert [p["name"] for p in mine] == ["demo"]
    other = cloud.admin("GET", "/identity/v3/users?name=admin").body["users"][0]["id"]
    assert demo("GET", f"/identity/v3/users/{other}").status == 403


def test_names_are_taken_once(cloud: Cloud):
    for path, kind in (("projects", "project"), ("users", "user")):
        name = fresh(kind)
        made = cloud.admin.made(f"/identity/v3/{path}", {kind: {"name": name}})
        again = cloud.admin("POST", f"/identity/v3/{path}", {kind: {"name": name}})
        assert again.status == 409
        assert again.body["error"]["title"] == "Conflict"
        assert cloud.admin("DELETE", f"/identity/v3/{path}/{made['id']}").status == 204
        assert cloud.admin("GET", f"/identity/v3/{path}/{made['id']}").status == 404


def test_role_assignments_have_names_when_asked(cloud: Cloud):
    found = cloud.admin("GET", "/identity/v3/role_assignments?include_names=true").body

    users = [a for a in found["role_assignments"] if "user" in a]
    (demo,) = [a for a in users if a["user"]["name"] == "demo"]
    assert demo["role"]["name"] == "member"
    assert demo["scope"]["project"]["name"] == "demo"
