"""Quotas of all services together: what each project holds, and may hold.

They are set by submitting the actions ``SetQuota``, ``ResetQuota`` and ``SetQuotaClass``.
"""

from typing import Any

from api.exchange import Answer, Call, json_answer
from api.pagination import page_of
from api.quota import readable_project
from api.routing import Routes
from engine.domain.usage import BY_USER
from schemas.identity import Project

type View = dict[str, Any]

EACH = {"server_metadata": "server", **dict.fromkeys(BY_USER, "user")}  # else of the project
READ, READ_DEFAULTS = "quota:limits:read", "quota:defaults:read"


async def list_all(call: Call) -> Answer:
    """GET /v1/quotas: of the caller's project, or of all that it may read, by project id."""
    reader, page = call.edge.reader, page_of(call)
    with reader.snapshot():
        projects = reader.quota_projects(call.sight, marker=page.marker, limit=page.limit)
        views = [_view(call, project) for project in projects]
    return json_answer({"quotas": views})


async def show_own(call: Call) -> Answer:
    """GET /v1/quota: of the token's project."""
    return _one(call, call.principal.project_id)


async def show(call: Call) -> Answer:
    """GET /v1/quotas/{project}."""
    return _one(call, call.args[0])


def _one(call: Call, asked: str) -> Answer:
    reader = call.edge.reader
    project_id = readable_project(call, asked, READ)
    with reader.snapshot():
        (project,) = reader.quota_projects(project_id)
        return json_answer({"quota": _view(call, project)})


async def show_class(call: Call) -> Answer:
    """GET /v1/quota-classes/default: what holds where a project has no limit of its own."""
    return json_answer({"quota_class": {"limits": call.edge.reader.quota_defaults()}})


def _view(call: Call, project: Project) -> View:
    """Return limits and use by name; keypairs are the caller's, in its own project only."""
    reader, principal = call.edge.reader, call.principal
    own = project.project_id == principal.project_id
    used = reader.quota_use(project.project_id, principal.user_id if own else "")
    quotas: View = {}
    for name, limit in reader.quota_limits(project.project_id).items():
        quotas[name] = {"limit": limit}
        if name in used and (own or name not in BY_USER):
            quotas[name]["used"] = used[name]
        if name in EACH:
            quotas[name]["each"] = EACH[name]
    return {"project_id": project.project_id, "project_name": project.name, "quotas": quotas}


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/quotas", list_all, READ, query=("limit", "marker"))
    routes.add("GET", "/v1/quota", show_own, READ)
    routes.add("GET", "/v1/quotas/{}", show, READ)
    routes.add("GET", "/v1/quota-classes/default", show_class, READ_DEFAULTS)
