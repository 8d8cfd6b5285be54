"""Projects, which lie in domains and in one another."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import uuid_utils
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.attributes import Attributes
from api.identity.lists import BY_NAME, domain_asked, in_domain, listing, unseen
from api.identity.views import View, domain_as_project_view, project_view
from api.pagination import flag
from api.routing import Routes
from api.writing import write
from engine.domain.context import Reach
from engine.domain.identity.directory import ancestors, roles_on
from schemas.errors import InvalidInput, NotFound
from schemas.identity import CreateProject, DeleteProject, Project, UpdateProject
from schemas.ids import DEFAULT_DOMAIN
from schemas.units import LongText, Text


class _NewProject(Struct, frozen=True):
    name: Text
    description: LongText | None = None
    domain_id: Text | None = None
    parent_id: Text | None = None
    enabled: bool = True
    is_domain: bool | None = None
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] = ()
    options: Annotated[dict[str, msgspec.Raw], Meta(max_length=64)] = {}


class _ProjectChange(Struct, frozen=True):
    name: Text | None = None
    description: LongText | None = None
    domain_id: Text | None = None
    parent_id: Text | None = None
    enabled: bool | None = None
    is_domain: bool | None = None
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] | None = None
    options: Annotated[dict[str, msgspec.Raw], Meta(max_length=64)] = {}


_new = Attributes("project", _NewProject)
_change = Attributes("project", _ProjectChange)

BY_TAGS = ("tags", "tags-any", "not-tags", "not-tags-any")
RELATED = ("subtree_as_list", "subtree_as_ids", "parents_as_list", "parents_as_ids")


def need_no_options(options: Mapping[str, object]) -> None:
    """Refuse options of domains, projects and roles: there are none.

    Raises:
        InvalidInput: some are given.
    """
    if options:
        raise InvalidInput(f"the option {next(iter(options))[:64]!r} is not offered")


async def list_projects(call: Call) -> Answer:
    """GET /projects."""
    domain_id = domain_asked(call, call.allow("identity:projects:list"))
    reader = call.edge.reader
    name, enabled = call.param("name") or None, flag(call, "enabled")
    if flag(call, "is_domain"):
        domains = reader.domains(
            ids=None if domain_id is None else [domain_id], name=name, enabled=enabled
        )
        return listing(call, "projects", [domain_as_project_view(d, call.base) for d in domains])
    projects = reader.projects(
        name=name,
        domain_id=domain_id,
        parent_id=call.param("parent_id") or None,
        enabled=enabled,
    )
    tagged = _tagged(call)
    views = [project_view(p, call.base) for p in projects if tagged(frozenset(p.tags))]
    return listing(call, "projects", views)


def _tagged(call: Call) -> Any:
    """Return whether tags are as the query asks."""
    words = {name: frozenset(",".join(call.params(name)).split(",")) - {""} for name in BY_TAGS}
    all_of, any_of = words["tags"], words["tags-any"]
    not_all, not_any = words["not-tags"], words["not-tags-any"]

    def tagged(tags: frozenset[str]) -> bool:
        return (
            all_of <= tags
            and (not any_of or bool(any_of & tags))
            and not (not_all and not_all <= tags)
            and not not_any & tags
        )

    return tagged


def find_project(call: Call, action: str = "identity:projects:read") -> Project:
    """Return the project of the path: of a domain that the caller reaches, or its own.

    Raises:
        NotFound: there is none, or it is another's.
        Forbidden: the caller may see only its own.
    """
    reach, ident = call.allow(action), call.args[0]
    project = call.edge.reader.project(ident)
    if project is None or not _sees(call, reach, project):
        raise unseen(reach, "project", ident)
    return project


def _sees(call: Call, reach: Reach, project: Project) -> bool:
    if in_domain(call, reach, project.domain_id):
        return True
    if reach.project and call.principal.project_id == project.project_id:
        return True
    return reach.user and bool(
        roles_on(call.edge.reader, call.principal.user_id, project.project_id)
    )


def _shown(call: Call, project_id: str, status: int = 200) -> Answer:
    project = call.edge.reader.project(project_id)
    if project is None:
        raise NotFound(f"there is no project {project_id[:64]!r}")
    return json_answer({"project": project_view(project, call.base)}, status)


async def create_project(call: Call) -> Answer:
    """POST /projects."""
    wish, extra = await _new.read(call)
    need_no_options(wish.options)
    if wish.is_domain:
        raise InvalidInput("a domain is made with POST /domains")
    call.allow("CreateProject")
    key_id = f"project-{uuid_utils.uuid4().hex}"
    await call.edge.keys.create_key(key_id)
    reply = await write(
        call,
        CreateProject(
            name=wish.name,
            domain_id=_domain_of(call, wish),
            parent_id=wish.parent_id,
            description=wish.description or "",
            enabled=wish.enabled,
            tags=wish.tags,
            key_id=key_id,
            extra=extra,
        ),
    )
    return _shown(call, reply["project_id"], 201)


def _domain_of(call: Call, wish: _NewProject) -> str:
    """Return the domain that is meant: as told, or the parent's, or the token's."""
    if wish.domain_id:
        return wish.domain_id
    if wish.parent_id:
        parent = call.edge.reader.project(wish.parent_id)
        return wish.parent_id if parent is None else parent.domain_id
    return call.principal.token.domain_id or DEFAULT_DOMAIN


async def show_project(call: Call) -> Answer:
    """GET /projects/{id}: those see it who have a role on it.

    What lies in it, and what it lies in, is shown beside it as far as the caller may see that.
    """
    project = find_project(call)
    view = project_view(project, call.base)
    asked = {name for name, _ in call.query}
    for name in ("subtree", "parents"):
        if asked.issuperset({f"{name}_as_list", f"{name}_as_ids"}):
            raise InvalidInput(f"{name} is shown as a list or as ids, not both")
    below = _below(call, project) if asked & {"subtree_as_list", "subtree_as_ids"} else []
    if "subtree_as_list" in asked:
        view["subtree"] = [{"project": project_view(p, call.base)} for p in below]
    elif "subtree_as_ids" in asked:
        view["subtree"] = _nested(project.project_id, below)
    above = ancestors(call.edge.reader, project.project_id)
    if "parents_as_list" in asked:
        view["parents"] = [{"project": v} for v in _above(call, above)]
    elif "parents_as_ids" in asked:
        ids: dict[str, Any] | None = None
        for ident in reversed(above):
            ids = {ident: ids}
        view["parents"] = ids
    return json_answer({"project": view})


def _below(call: Call, project: Project) -> list[Project]:
    reader, reach = call.edge.reader, call.allow("identity:projects:read")
    found = reader.subtree(project.project_id)
    if in_domain(call, reach, project.domain_id):
        return found
    mine = {p.project_id for p in reader.projects(user_id=call.principal.user_id)}
    return [p for p in found if p.project_id in mine]


def _nested(project_id: str, below: list[Project]) -> dict[str, Any] | None:
    children = [p.project_id for p in below if p.parent_id == project_id]
    return {ident: _nested(ident, below) for ident in children} or None


def _above(call: Call, ids: list[str]) -> list[View]:
    reader, reach = call.edge.reader, call.allow("identity:projects:read")
    views: list[View] = []
    for ident in ids:
        project = reader.project(ident)
        if project is not None:
            if _sees(call, reach, project):
                views.append(project_view(project, call.base))
        elif in_domain(call, reach, ident) and (domain := reader.domain(ident)) is not None:
            views.append(domain_as_project_view(domain, call.base))
    return views


async def change_project(call: Call) -> Answer:
    """PATCH /projects/{id}: it stays where it lies."""
    wish, extra = await _change.read(call)
    need_no_options(wish.options)
    project = find_project(call, "UpdateProject")
    if wish.is_domain or wish.domain_id not in {None, project.domain_id}:
        raise InvalidInput("a project stays in its domain")
    if wish.parent_id not in {None, project.parent_id or project.domain_id}:
        raise InvalidInput("a project stays in its parent")
    await write(
        call,
        UpdateProject(
            project_id=project.project_id,
            name=wish.name,
            description=wish.description,
            enabled=wish.enabled,
            tags=wish.tags,
            extra=extra,
        ),
    )
    return _shown(call, project.project_id)


async def delete_project(call: Call) -> Answer:
    """DELETE /projects/{id}."""
    project = find_project(call, "DeleteProject")
    await write(call, DeleteProject(project_id=project.project_id))
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/projects", "/v3/projects/{}"
    asked = (*BY_NAME, "domain_id", "parent_id", "enabled", "is_domain", *BY_TAGS)
    routes.add("GET", every, list_projects, "identity:projects:list", query=asked)
    routes.add(
        "POST", every, create_project, "CreateProject",
        body=_new.decoder, shape=_new.shape, status=201,
    )  # fmt: skip
    routes.add("GET", one, show_project, "identity:projects:read", query=RELATED)
    routes.add(
        "PATCH", one, change_project, "UpdateProject", body=_change.decoder, shape=_change.shape
    )
    routes.add("DELETE", one, delete_project, "DeleteProject", status=204)
