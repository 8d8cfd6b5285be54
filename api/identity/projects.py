"""Projects, domains and roles; who has which role where."""

from typing import Any

import msgspec
import uuid_utils
from msgspec import Struct

from api.errors import NotOffered
from api.exchange import Answer, Call, json_answer
from api.identity.views import domain_view, project_view, role_view
from api.pagination import flag
from api.routing import Routes
from api.writing import write
from engine.domain.identity.directory import roles_on
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.identity import (
    CreateProject,
    DeleteProject,
    Grant,
    GrantRole,
    Project,
    RevokeRole,
    UpdateProject,
)
from schemas.ids import DEFAULT_DOMAIN


class _NewProject(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    domain_id: str | None = None
    enabled: bool = True
    # What other clouds also store; here only the values that say nothing are taken.
    parent_id: str | None = None
    is_domain: bool | None = None
    tags: tuple[str, ...] = ()
    options: dict[str, msgspec.Raw] = {}


class _NewProjectBody(Struct, frozen=True, forbid_unknown_fields=True):
    project: _NewProject


class _ProjectChange(Struct, frozen=True, forbid_unknown_fields=True):
    name: str | None = None
    description: str | None = None
    enabled: bool | None = None


class _ProjectChangeBody(Struct, frozen=True, forbid_unknown_fields=True):
    project: _ProjectChange


PROJECTS_BY = ("name", "domain_id", "parent_id", "enabled", "is_domain")
GRANTS_BY = (
    "user.id", "group.id", "role.id", "scope.project.id", "scope.domain.id", "scope.system",
    "include_names",
)  # fmt: skip

_new_project = msgspec.json.Decoder(_NewProjectBody)
_project_change = msgspec.json.Decoder(_ProjectChangeBody)


def need_admin(call: Call) -> None:
    """Let only administrators pass.

    Raises:
        Forbidden: the caller is none.
    """
    if not call.principal.is_admin:
        raise Forbidden("this needs the role admin")


def listing(call: Call, name: str, items: list[dict[str, Any]]) -> Answer:
    """Return a collection with identity's links."""
    links = {"self": call.base + call.path, "previous": None, "next": None}
    return json_answer({name: items, "links": links})


async def list_projects(call: Call) -> Answer:
    """GET /projects."""
    need_admin(call)
    if flag(call, "is_domain"):
        return listing(call, "projects", [])
    projects = call.edge.reader.projects(
        name=call.param("name") or None,
        domain_id=call.param("domain_id") or call.param("parent_id") or None,
        enabled=flag(call, "enabled"),
    )
    return listing(call, "projects", [project_view(p, call.base) for p in projects])


def find_project(call: Call, project_id: str) -> Project:
    """Return a project.

    Raises:
        NotFound: there is none.
    """
    project = call.edge.reader.project(project_id)
    if project is None:
        raise NotFound(f"there is no project {project_id[:64]!r}")
    return project


async def create_project(call: Call) -> Answer:
    """POST /projects."""
    wish = (await call.decode(_new_project)).project
    domain_id = wish.domain_id or DEFAULT_DOMAIN
    if wish.parent_id not in {None, domain_id} or wish.is_domain or wish.tags or wish.options:
        raise InvalidInput("projects inside projects, tags and options are not offered")
    need_admin(call)
    key_id = f"project-{uuid_utils.uuid4().hex}"
    await call.edge.keys.create_key(key_id)
    reply = await write(
        call,
        CreateProject(
            name=wish.name,
            domain_id=domain_id,
            description=wish.description or "",
            enabled=wish.enabled,
            key_id=key_id,
        ),
    )
    project = find_project(call, reply["project_id"])
    return json_answer({"project": project_view(project, call.base)}, 201)


async def show_project(call: Call) -> Answer:
    """GET /projects/{id}: a project's own members see it."""
    if call.principal.project_id != call.args[0]:
        mine = roles_on(call.edge.reader, call.principal.user_id, call.args[0])
        if not mine:
            need_admin(call)
    return json_answer({"project": project_view(find_project(call, call.args[0]), call.base)})


async def change_project(call: Call) -> Answer:
    """PATCH /projects/{id}."""
    wish = (await call.decode(_project_change)).project
    need_admin(call)
    project = find_project(call, call.args[0])
    await write(
        call,
        UpdateProject(
            project_id=project.project_id,
            name=wish.name,
            description=wish.description,
            enabled=wish.enabled,
        ),
    )
    return json_answer({"project": project_view(find_project(call, call.args[0]), call.base)})


async def delete_project(call: Call) -> Answer:
    """DELETE /projects/{id}."""
    need_admin(call)
    await write(call, DeleteProject(project_id=find_project(call, call.args[0]).project_id))
    return Answer(204)


async def list_domains(call: Call) -> Answer:
    """GET /domains."""
    need_admin(call)
    domains = call.edge.reader.domains(name=call.param("name") or None)
    return listing(call, "domains", [domain_view(d, call.base) for d in domains])


async def show_domain(call: Call) -> Answer:
    """GET /domains/{id}."""
    if call.args[0] != call.principal.user.domain_id:
        need_admin(call)
    domain = call.edge.reader.domain(call.args[0])
    if domain is None:
        raise NotFound(f"there is no domain {call.args[0][:64]!r}")
    return json_answer({"domain": domain_view(domain, call.base)})


async def list_roles(call: Call) -> Answer:
    """GET /roles: everybody may read their names."""
    if call.param("domain_id"):
        return listing(call, "roles", [])  # No role belongs to a domain.
    roles = call.edge.reader.roles(name=call.param("name") or None)
    return listing(call, "roles", [role_view(r, call.base) for r in roles])


async def show_role(call: Call) -> Answer:
    """GET /roles/{id}."""
    role = call.edge.reader.role(call.args[0])
    if role is None:
        raise NotFound(f"there is no role {call.args[0][:64]!r}")
    return json_answer({"role": role_view(role, call.base)})


async def fixed_roles(call: Call) -> Answer:
    """POST, PATCH and DELETE of roles: they are fixed."""
    need_admin(call)
    raise NotOffered("the roles are admin, member and reader; they cannot be changed")


async def grant(call: Call) -> Answer:
    """PUT /projects/{id}/users/{id}/roles/{id}."""
    need_admin(call)
    project_id, user_id, role_id = call.args
    await write(call, GrantRole(user_id=user_id, project_id=project_id, role_id=role_id))
    return Answer(204)


async def revoke(call: Call) -> Answer:
    """DELETE /projects/{id}/users/{id}/roles/{id}."""
    need_admin(call)
    project_id, user_id, role_id = call.args
    await write(call, RevokeRole(user_id=user_id, project_id=project_id, role_id=role_id))
    return Answer(204)


async def check_grant(call: Call) -> Answer:
    """GET and HEAD /projects/{id}/users/{id}/roles/{id}."""
    need_admin(call)
    project_id, user_id, role_id = call.args
    held = call.edge.reader.grants(user_id=user_id, project_id=project_id, role_id=role_id)
    if not held:
        raise NotFound("the user does not have this role on this project")
    return Answer(204)


async def list_grants(call: Call) -> Answer:
    """GET /projects/{id}/users/{id}/roles."""
    need_admin(call)
    project_id, user_id = call.args
    find_project(call, project_id)
    held = {g.role_id for g in call.edge.reader.grants(user_id=user_id, project_id=project_id)}
    roles = [r for r in call.edge.reader.roles() if r.role_id in held]
    return listing(call, "roles", [role_view(r, call.base) for r in roles])


async def list_assignments(call: Call) -> Answer:
    """GET /role_assignments: all for administrators, their own for others."""
    user_id, project_id = call.param("user.id"), call.param("scope.project.id")
    if user_id != call.principal.user_id:
        need_admin(call)
    if any(call.param(name) for name in ("group.id", "scope.domain.id", "scope.system")):
        return listing(call, "role_assignments", [])
    grants = call.edge.reader.grants(
        user_id=user_id or None,
        project_id=project_id or None,
        role_id=call.param("role.id") or None,
    )
    names = _Names(call) if any(k == "include_names" for k, _ in call.query) else None
    return listing(call, "role_assignments", [_assignment(call, g, names) for g in grants])


class _Names:
    """Names of what role assignments speak of, each read once."""

    def __init__(self, call: Call) -> None:
        reader = call.edge.reader
        self.roles = {r.role_id: r.name for r in reader.roles()}
        self.users = {u.user_id: u for u in reader.users()}
        self.projects = {p.project_id: p for p in reader.projects()}
        self.domains = {d.domain_id: d.name for d in reader.domains()}

    def domain(self, domain_id: str) -> dict[str, str]:
        """Return id and name of a domain."""
        return {"id": domain_id, "name": self.domains.get(domain_id, domain_id)}


def _assignment(call: Call, held: Grant, names: _Names | None) -> dict[str, Any]:
    role: dict[str, Any] = {"id": held.role_id}
    user: dict[str, Any] = {"id": held.user_id}
    project: dict[str, Any] = {"id": held.project_id}
    if names is not None:
        role["name"] = names.roles.get(held.role_id, "")
        if (who := names.users.get(held.user_id)) is not None:
            user |= {"name": who.name, "domain": names.domain(who.domain_id)}
        if (where := names.projects.get(held.project_id)) is not None:
            project |= {"name": where.name, "domain": names.domain(where.domain_id)}
    path = f"projects/{held.project_id}/users/{held.user_id}/roles/{held.role_id}"
    return {
        "role": role,
        "user": user,
        "scope": {"project": project},
        "links": {"assignment": f"{call.base}/identity/v3/{path}"},
    }


def add(routes: Routes) -> None:
    """Route what this module answers."""
    projects, roles = "identity:projects:read", "identity:roles:read"
    held = "/v3/projects/{}/users/{}/roles"
    routes.add("GET", "/v3/projects", list_projects, projects, query=PROJECTS_BY)
    routes.add(
        "POST", "/v3/projects", create_project, "CreateProject", body=_new_project, status=201
    )
    routes.add("GET", "/v3/projects/{}", show_project, projects)
    routes.add("PATCH", "/v3/projects/{}", change_project, "UpdateProject", body=_project_change)
    routes.add("DELETE", "/v3/projects/{}", delete_project, "DeleteProject", status=204)
    routes.add("GET", "/v3/domains", list_domains, "identity:domains:read", query=("name",))
    routes.add("GET", "/v3/domains/{}", show_domain, "identity:domains:read")
    routes.add("GET", "/v3/roles", list_roles, roles, query=("name", "domain_id"))
    routes.add("POST", "/v3/roles", fixed_roles, roles, status=501)
    routes.add("GET", "/v3/roles/{}", show_role, roles)
    routes.add("PATCH", "/v3/roles/{}", fixed_roles, roles, status=501)
    routes.add("DELETE", "/v3/roles/{}", fixed_roles, roles, status=501)
    routes.add("GET", held, list_grants, "identity:grants:read")
    routes.add("PUT", f"{held}/{{}}", grant, "GrantRole", status=204)
    routes.add("GET", f"{held}/{{}}", check_grant, "identity:grants:read", status=204)
    routes.add("DELETE", f"{held}/{{}}", revoke, "RevokeRole", status=204)
    routes.add(
        "GET", "/v3/role_assignments", list_assignments, "identity:grants:read", query=GRANTS_BY
    )
