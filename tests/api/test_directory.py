"""Domains, projects, users, groups and roles over HTTP, as Keystone's clients know them."""

from typing import Any

import pytest

from tests.api.conftest import Api, Cloud, credentials, fresh

V3 = "/identity/v3"
TOKENS = f"{V3}/auth/tokens"
COLLECTIONS = ("domain", "project", "user", "group", "role", "service", "region")


def role_id(cloud: Cloud, name: str) -> str:
    (role,) = cloud.admin("GET", f"{V3}/roles?name={name}").body["roles"]
    return role["id"]


def my_id(api: Api) -> str:
    shown = api("GET", TOKENS, headers={"X-Subject-Token": api.token})
    return shown.body["token"]["user"]["id"]


def made(cloud: Cloud, kind: str, **more: object) -> dict[str, Any]:
    return cloud.admin.made(f"{V3}/{kind}s", {kind: {"name": fresh(kind), **more}})


def signed_in(cloud: Cloud, user: dict, scope: object) -> Api:
    body = credentials("", "pw")
    body["auth"]["identity"]["password"]["user"] = {"id": user["id"], "password": "pw"}
    body["auth"]["scope"] = scope
    reply = cloud.anyone("POST", TOKENS, body)
    assert reply.status == 201, reply
    return Api(cloud.url, reply.headers["x-subject-token"])


class World:
    """Two domains with a manager each, and an auditor of the whole system."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.domains = [made(cloud, "domain") for _ in range(2)]
        self.managers = [self.persona("manager", d) for d in self.domains]
        self.projects = [made(cloud, "project", domain_id=d["id"]) for d in self.domains]
        auditor = made(cloud, "user", password="pw")
        path = f"{V3}/system/users/{auditor['id']}/roles/{role_id(cloud, 'reader')}"
        assert cloud.admin("PUT", path).status == 204
        self.auditor = signed_in(cloud, auditor, {"system": {"all": True}})

    def persona(self, role: str, domain: dict) -> Api:
        user = made(self.cloud, "user", password="pw", domain_id=domain["id"])
        path = f"{V3}/domains/{domain['id']}/users/{user['id']}/roles/"
        assert self.cloud.admin("PUT", path + role_id(self.cloud, role)).status == 204
        return signed_in(self.cloud, user, {"domain": {"id": domain["id"]}})


@pytest.fixture(scope="module")
def world(cloud: Cloud) -> World:
    return World(cloud)


NEW = {
    "domain": {"description": "d", "colour": "blue"},
    "project": {"description": "d", "colour": "blue", "tags": ["a", "b"]},
    "user": {"description": "d", "colour": "blue", "email": "a@b.c", "number": 5},
    "group": {"description": "d", "colour": "blue"},
    "role": {"description": "d", "colour": "blue"},
    "service": {"description": "d", "colour": "blue", "type": "toaster"},
}


@pytest.mark.parametrize("kind", NEW)
def test_what_is_given_is_kept_and_shown(cloud: Cloud, kind: str):
    """Made, shown, found by name, changed, taken away; unknown attributes among the rest."""
    admin, wish = cloud.admin, NEW[kind]
    thing = made(cloud, kind, **wish)
    path = f"{V3}/{kind}s/{thing['id']}"

    assert thing.items() >= wish.items()
    assert admin("GET", path).body == {kind: thing}
    assert thing["links"]["self"] == cloud.url + path
    found = admin("GET", f"{V3}/{kind}s?name={thing['name']}").body
    assert found[f"{kind}s"] == [thing]
    assert found["links"].keys() == {"self", "previous", "next"}
    part = admin("GET", f"{V3}/{kind}s?name__startswith={thing['name']}").body[f"{kind}s"]
    assert thing in part
    assert admin("GET", f"{V3}/{kind}s?name__contains=~none~").body[f"{kind}s"] == []
    change = {"name": fresh(kind), "colour": None, "size": 7}
    changed = admin("PATCH", path, {kind: change})
    assert changed.status == 200
    wanted = {k: v for k, v in thing.items() if k != "colour"} | {"name": change["name"], "size": 7}
    assert changed.body == {kind: wanted}
    if kind == "domain":
        assert admin("DELETE", path).status == 403
        assert admin("PATCH", path, {kind: {"enabled": False}}).status == 200
    assert admin("DELETE", path).status == 204
    assert admin("GET", path).status == 404
    assert admin("DELETE", path).status == 404
    assert admin("PATCH", path, {kind: {"name": "x"}}).status == 404


@pytest.mark.parametrize("kind", ["domain", "project", "user", "group", "role"])
def test_a_name_is_had_once(cloud: Cloud, kind: str):
    thing = made(cloud, kind)

    again = cloud.admin("POST", f"{V3}/{kind}s", {kind: {"name": thing["name"]}})

    assert again.status == 409
    assert again.body["error"]["title"] == "Conflict"


@pytest.mark.parametrize("kind", COLLECTIONS)
@pytest.mark.parametrize("ident", ["-1", "x" * 300, "%20", "0" * 32])
def test_an_id_of_any_form_is_only_not_found(cloud: Cloud, kind: str, ident: str):
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {kind: {"description": "x"}})):
        assert cloud.admin(method, f"{V3}/{kind}s/{ident}", body).status == 404


def test_projects_lie_in_one_another(cloud: Cloud):
    top = made(cloud, "project")
    middle = made(cloud, "project", parent_id=top["id"])
    leaf = made(cloud, "project", parent_id=middle["id"])
    other = made(cloud, "project", parent_id=top["id"])
    path = f"{V3}/projects/"

    def shown(project: dict, query: str) -> dict:
        return cloud.admin("GET", f"{path}{project['id']}?{query}").body["project"]

    assert (top["parent_id"], leaf["parent_id"]) == ("default", middle["id"])
    ids = {middle["id"]: {leaf["id"]: None}, other["id"]: None}
    assert shown(top, "subtree_as_ids")["subtree"] == ids
    below = {p["project"]["id"] for p in shown(top, "subtree_as_list")["subtree"]}
    assert below == {middle["id"], leaf["id"], other["id"]}
    assert shown(leaf, "parents_as_ids")["parents"] == {
        middle["id"]: {top["id"]: {"default": None}}
    }
    above = [p["project"]["id"] for p in shown(leaf, "parents_as_list")["parents"]]
    assert above == [middle["id"], top["id"], "default"]
    children = cloud.admin("GET", f"{V3}/projects?parent_id={top['id']}").body["projects"]
    assert {p["id"] for p in children} == {middle["id"], other["id"]}
    assert cloud.admin("GET", f"{path}{top['id']}?subtree_as_ids&subtree_as_list").status == 400
    assert cloud.admin("DELETE", path + middle["id"]).status == 403
    moved = {"project": {"parent_id": other["id"]}}
    assert cloud.admin("PATCH", path + leaf["id"], moved).status == 400
    for project in (leaf, middle, other, top):
        assert cloud.admin("DELETE", path + project["id"]).status == 204


def test_tags_of_projects(cloud: Cloud):
    admin = cloud.admin
    project, other = made(cloud, "project", tags=["x"]), made(cloud, "project")
    tags = f"{V3}/projects/{project['id']}/tags"

    assert admin("PUT", f"{tags}/y").status == 201
    assert admin("GET", tags).body["tags"] == ["x", "y"]
    assert admin("GET", f"{tags}/y").status == 204
    assert admin("HEAD", f"{tags}/z").status == 404
    replaced = {"tags": ["blue", "green"]}
    assert admin("PUT", tags, replaced).body["tags"] == ["blue", "green"]
    assert admin("DELETE", f"{tags}/x").status == 404

    def ids(query: str) -> set[str]:
        found = admin("GET", f"{V3}/projects?{query}").body["projects"]
        return {p["id"] for p in found} & {project["id"], other["id"]}

    assert ids("tags=blue,green") == {project["id"]}
    assert ids("tags=blue,red") == set()
    assert ids("tags-any=blue,red") == {project["id"]}
    assert ids("not-tags=blue,red") == {project["id"], other["id"]}
    assert ids("not-tags-any=blue,red") == {other["id"]}
    assert admin("DELETE", tags).status == 204
    assert admin("GET", tags).body["tags"] == []


def test_groups_and_their_members(cloud: Cloud):
    admin = cloud.admin
    group, user = made(cloud, "group"), made(cloud, "user", password="pw")
    member = f"{V3}/groups/{group['id']}/users/{user['id']}"

    assert admin("HEAD", member).status == 404
    assert admin("PUT", member).status == 204
    assert admin("GET", member).status == 204
    listed = admin("GET", f"{V3}/groups/{group['id']}/users").body["users"]
    assert [u["id"] for u in listed] == [user["id"]]
    groups = admin("GET", f"{V3}/users/{user['id']}/groups").body["groups"]
    assert groups == [group]
    assert admin("DELETE", member).status == 204
    assert admin("DELETE", member).status == 404
    assert admin("PUT", f"{V3}/groups/{group['id']}/users/nobody").status == 404
    assert admin("PUT", f"{V3}/groups/none/users/{user['id']}").status == 404


PLACES = [
    "/projects/{project}/users/{user}",
    "/projects/{project}/groups/{group}",
    "/domains/{domain}/users/{user}",
    "/domains/{domain}/groups/{group}",
    "/system/users/{user}",
    "/system/groups/{group}",
    "/OS-INHERIT/projects/{project}/users/{user}",
    "/OS-INHERIT/projects/{project}/groups/{group}",
    "/OS-INHERIT/domains/{domain}/users/{user}",
    "/OS-INHERIT/domains/{domain}/groups/{group}",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_role_is_given_and_taken(cloud: Cloud, world: World, place: str):
    admin, member = cloud.admin, role_id(cloud, "member")
    names = {
        "project": world.projects[0]["id"],
        "domain": world.domains[0]["id"],
        "user": made(cloud, "user")["id"],
        "group": made(cloud, "group")["id"],
    }
    end = "/inherited_to_projects" if "INHERIT" in place else ""
    every = f"{V3}{place.format(**names)}/roles"
    one = f"{every}/{member}{end}"

    assert admin("HEAD", one).status == 404
    assert admin("DELETE", one).status == 404
    assert admin("PUT", one).status == 204
    assert admin("PUT", one).status == 204
    assert admin("HEAD", one).status == 204
    assert admin("GET", one).status == 204
    assert [r["name"] for r in admin("GET", every + end).body["roles"]] == ["member"]
    holder = "user" if "users" in place else "group"
    listed = admin("GET", f"{V3}/role_assignments?{holder}.id={names[holder]}").body
    (assignment,) = listed["role_assignments"]
    assert assignment["links"]["assignment"] == cloud.url + one
    assert assignment[holder] == {"id": names[holder]}
    assert ("OS-INHERIT:inherited_to" in assignment["scope"]) == bool(end)
    assert admin("DELETE", one).status == 204
    assert admin("HEAD", one).status == 404
    nobody = f"{V3}{place.format(**names | {holder: 'nobody'})}/roles/{member}{end}"
    assert admin("PUT", nobody).status == 404
    assert admin("PUT", f"{every}/no-such-role{end}").status == 404
    assert cloud.demo("PUT", one).status == 403
    assert cloud.demo("GET", every + end).status == 403


def test_effective_roles_are_those_that_tokens_have(cloud: Cloud):
    """Through a group, from the domain and the projects above, and by implication."""
    admin = cloud.admin
    domain = made(cloud, "domain")
    top = made(cloud, "project", domain_id=domain["id"])
    leaf = made(cloud, "project", domain_id=domain["id"], parent_id=top["id"])
    user = made(cloud, "user", domain_id=domain["id"], password="pw")
    group = made(cloud, "group", domain_id=domain["id"])
    own, cooking = made(cloud, "role", domain_id=domain["id"]), made(cloud, "role")
    assert admin("PUT", f"{V3}/groups/{group['id']}/users/{user['id']}").status == 204
    assert admin("PUT", f"{V3}/roles/{own['id']}/implies/{cooking['id']}").status == 201
    member = role_id(cloud, "member")
    by_group = f"domains/{domain['id']}/groups/{group['id']}/roles/{own['id']}"
    by_parent = f"projects/{top['id']}/users/{user['id']}/roles/{member}"
    for path in (by_group, by_parent):
        inherited = f"{V3}/OS-INHERIT/{path}/inherited_to_projects"
        assert admin("PUT", inherited).status == 204

    query = f"effective&include_names&user.id={user['id']}"
    found = admin("GET", f"{V3}/role_assignments?{query}").body["role_assignments"]

    listed = sorted((a["scope"]["project"]["name"], a["role"]["name"]) for a in found)
    wanted = {top["name"]: {cooking["name"]}, leaf["name"]: {cooking["name"], "member", "reader"}}
    assert listed == sorted((p, r) for p, roles in wanted.items() for r in roles)
    on_leaf = admin("GET", f"{V3}/role_assignments?effective&scope.project.id={leaf['id']}").body
    assert {a["role"]["id"] for a in on_leaf["role_assignments"]} == {
        cooking["id"], member, role_id(cloud, "reader"),
    }  # fmt: skip
    for project in (top, leaf):
        api = signed_in(cloud, user, {"project": {"id": project["id"]}})
        shown = api("GET", TOKENS, headers={"X-Subject-Token": api.token}).body["token"]
        assert {r["name"] for r in shown["roles"]} == wanted[project["name"]]
        mine = api("GET", f"{V3}/auth/projects").body["projects"]
        assert {p["id"] for p in mine} == {top["id"], leaf["id"]}
    subtree = f"scope.project.id={top['id']}&include_subtree=true&effective"
    all_of_it = admin("GET", f"{V3}/role_assignments?{subtree}").body["role_assignments"]
    assert {a["scope"]["project"]["id"] for a in all_of_it} == {top["id"], leaf["id"]}


def test_questions_about_roles_that_make_no_sense(admin: Api):
    for query in (
        "user.id=a&group.id=b",
        "scope.project.id=a&scope.domain.id=b",
        "effective&group.id=a",
        "include_subtree=true",
    ):
        assert admin("GET", f"{V3}/role_assignments?{query}").status == 400, query


def test_roles_imply_roles(cloud: Cloud):
    admin = cloud.admin
    names = {r["id"]: r["name"] for r in admin("GET", f"{V3}/roles").body["roles"]}
    ids = {name: ident for ident, name in names.items()}
    prior, implied = made(cloud, "role"), made(cloud, "role")
    path = f"{V3}/roles/{prior['id']}/implies"

    found = admin("GET", f"{V3}/role_inferences").body["role_inferences"]
    pairs = {(i["prior_role"]["name"], r["name"]) for i in found for r in i["implies"]}
    assert pairs >= {("admin", "manager"), ("manager", "member"), ("member", "reader")}
    assert admin("GET", path).body["role_inference"]["implies"] == []
    assert admin("HEAD", f"{path}/{implied['id']}").status == 404
    shown = admin("PUT", f"{path}/{implied['id']}")
    assert shown.status == 201
    assert shown.body["role_inference"]["implies"]["id"] == implied["id"]
    assert admin("GET", f"{path}/{implied['id']}").body == shown.body
    assert admin("HEAD", f"{path}/{implied['id']}").status == 204
    back = f"{V3}/roles/{implied['id']}/implies/{prior['id']}"
    assert admin("PUT", back).status == 400
    assert admin("PUT", f"{path}/{ids['admin']}").status == 403
    assert admin("DELETE", f"{path}/{implied['id']}").status == 204
    assert admin("DELETE", f"{path}/{implied['id']}").status == 404
    fixed = f"{V3}/roles/{ids['admin']}/implies/{ids['manager']}"
    assert admin("DELETE", fixed).status == 403


def test_built_in_roles_stay(cloud: Cloud):
    for name in ("admin", "manager", "member", "reader", "service"):
        path = f"{V3}/roles/{role_id(cloud, name)}"
        assert cloud.admin("DELETE", path).status == 403
        assert cloud.admin("PATCH", path, {"role": {"name": "x"}}).status == 403


# Who sees and changes what


def test_a_manager_rules_its_own_domain_only(cloud: Cloud, world: World):
    manager, (own, other) = world.managers[0], world.domains
    mine, others = world.projects

    assert [d["id"] for d in manager("GET", f"{V3}/domains").body["domains"]] == [own["id"]]
    assert [p["id"] for p in manager("GET", f"{V3}/projects").body["projects"]] == [mine["id"]]
    assert manager("GET", f"{V3}/projects?domain_id={other['id']}").body["projects"] == []
    for path in (f"domains/{other['id']}", f"projects/{others['id']}", "users/none"):
        assert manager("GET", f"{V3}/{path}").status == 404
    user = manager.made(f"{V3}/users", {"user": {"name": fresh("user"), "password": "pw"}})
    assert user["domain_id"] == own["id"]
    group = manager.made(f"{V3}/groups", {"group": {"name": fresh("group")}})
    assert manager("PUT", f"{V3}/groups/{group['id']}/users/{user['id']}").status == 204
    project = manager.made(f"{V3}/projects", {"project": {"name": fresh("project")}})
    assert project["domain_id"] == own["id"]
    grant = f"{V3}/projects/{project['id']}/users/{user['id']}/roles/"
    assert manager("PUT", grant + role_id(cloud, "member")).status == 204
    assert manager("PUT", grant + role_id(cloud, "admin")).status == 403
    elsewhere = f"{V3}/projects/{others['id']}/users/{user['id']}/roles/"
    assert manager("PUT", elsewhere + role_id(cloud, "member")).status == 404
    system = f"{V3}/system/users/{user['id']}/roles/"
    assert manager("PUT", system + role_id(cloud, "reader")).status == 403
    seen = manager("GET", f"{V3}/role_assignments").body["role_assignments"]
    assert {a["scope"]["domain"]["id"] for a in seen if "domain" in a["scope"]} == {own["id"]}
    assert {a["scope"]["project"]["id"] for a in seen if "project" in a["scope"]} == {project["id"]}
    into = {"user": {"name": fresh("user"), "domain_id": other["id"]}}
    assert manager("POST", f"{V3}/users", into).status == 400
    for method, path, body in (
        ("POST", "domains", {"domain": {"name": fresh("domain")}}),
        ("PATCH", f"domains/{own['id']}", {"domain": {"name": fresh("domain")}}),
        ("POST", "roles", {"role": {"name": fresh("role")}}),
        ("POST", "services", {"service": {"type": "x"}}),
        ("GET", "services", None),
    ):
        assert manager(method, f"{V3}/{path}", body).status == 403, path


def test_a_reader_of_a_domain_changes_nothing(cloud: Cloud, world: World):
    domain = world.domains[0]
    reader = world.persona("reader", domain)

    assert reader("GET", f"{V3}/users").status == 200
    assert reader("GET", f"{V3}/groups").status == 200
    assert reader("POST", f"{V3}/users", {"user": {"name": fresh("user")}}).status == 403
    project = f"{V3}/projects/{world.projects[0]['id']}"
    assert reader("GET", project).status == 200
    assert reader("PATCH", project, {"project": {"name": "x"}}).status == 403
    assert reader("DELETE", project).status == 403


def test_an_auditor_sees_all_and_changes_nothing(cloud: Cloud, world: World):
    auditor = world.auditor
    network = cloud.network(cloud.demo, "10.123.0.0/24")
    image = cloud.image_id()

    for path in (
        "domains", "projects", "users", "groups", "roles", "regions", "services", "endpoints",
        "role_assignments", "role_inferences", f"users/{my_id(cloud.demo)}",
        f"users/{my_id(cloud.demo)}/application_credentials", "OS-TRUST/trusts",
    ):  # fmt: skip
        assert auditor("GET", f"{V3}/{path}").status == 200, path
    assert auditor("GET", f"{V3}/projects/{world.projects[1]['id']}").status == 200
    changes: list[tuple[str, str, object]] = [
        ("POST", f"{V3}/users", {"user": {"name": fresh("user")}}),
        ("POST", f"{V3}/projects", {"project": {"name": fresh("project")}}),
        ("DELETE", f"{V3}/projects/{world.projects[1]['id']}", None),
        ("POST", f"{V3}/domains", {"domain": {"name": fresh("domain")}}),
        ("POST", "/network/v2.0/networks", {"network": {"name": fresh("net")}}),
        ("DELETE", f"/network/v2.0/networks/{network['id']}", None),
        ("DELETE", f"/image/v2/images/{image}", None),
    ]
    for method, path, body in changes:
        # What it could not change if it saw it may also be hidden from who wants to change it.
        assert auditor(method, path, body).status in {403, 404}, path


def test_options_of_users(cloud: Cloud):
    options = {"ignore_password_expiry": True, "multi_factor_auth_rules": [["password", "totp"]]}
    user = made(cloud, "user", options=options)
    path = f"{V3}/users/{user['id']}"

    assert user["options"] == options
    changed = cloud.admin("PATCH", path, {"user": {"options": {"ignore_password_expiry": None}}})
    assert changed.body["user"]["options"] == {"multi_factor_auth_rules": [["password", "totp"]]}
    unknown = {"user": {"options": {"no_such_option": True}}}
    assert cloud.admin("PATCH", path, unknown).status == 400


def test_a_manager_of_another_domain_gives_itself_no_password_without_the_old(
    cloud: Cloud, world: World
):
    user = made(cloud, "user", password="pw")  # of the domain Default
    domain = world.domains[0]["id"]
    grant = f"{V3}/domains/{domain}/users/{user['id']}/roles/{role_id(cloud, 'manager')}"
    assert cloud.admin("PUT", grant).status == 204
    manager = signed_in(cloud, user, {"domain": {"id": domain}})
    other = manager.made(f"{V3}/users", {"user": {"name": fresh("user")}})

    change = {"type": "UpdateUser", "password": "new", "own": True}
    native = manager("POST", "/v1/actions", change | {"user_id": user["id"]})

    assert native.status == 403
    path = f"{V3}/users/{user['id']}"
    assert manager("PATCH", path, {"user": {"password": "new"}}).status == 403
    assert manager("POST", "/v1/actions", change | {"user_id": other["id"]}).status == 200
    assert signed_in(cloud, user, {"domain": {"id": domain}})


def test_nobody_gives_itself_a_new_password_without_the_old(cloud: Cloud):
    api = cloud.stranger()
    path = f"{V3}/users/{my_id(api)}"

    assert api("PATCH", path, {"user": {"password": "new"}}).status == 403
    assert api("PATCH", path, {"user": {"name": "new"}}).status == 403
    assert api("PATCH", path, {"user": {"email": "new@example.org"}}).status == 200
    wrong = {"user": {"original_password": "wrong", "password": "new"}}
    assert api("POST", f"{path}/password", wrong).status == 401
