"""Quotas as network's clients know them: of what this cloud has."""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from api.exchange import Answer, Call, json_answer
from api.quota import Limit, number, readable_project
from api.routing import Routes
from api.writing import write
from schemas.quota import ResetQuota, SetQuota
from schemas.units import Text

READ, READ_DEFAULTS = "network:quotas:read", "network:quota_defaults:read"
NAMES: dict[str, str] = {
    "network": "networks",
    "subnet": "subnets",
    "port": "ports",
    "security_group": "security_groups",
    "security_group_rule": "security_group_rules",
}


class _Quota(Struct, frozen=True, forbid_unknown_fields=True):
    network: Limit | UnsetType = UNSET
    subnet: Limit | UnsetType = UNSET
    port: Limit | UnsetType = UNSET
    security_group: Limit | UnsetType = UNSET
    security_group_rule: Limit | UnsetType = UNSET
    check_limit: bool = False
    force: bool = False  # the same, the other way round
    project_id: Text | None = None  # taken where clients repeat what the path says
    tenant_id: Text | None = None


class _QuotaBody(Struct, frozen=True, forbid_unknown_fields=True):
    quota: _Quota


_quota = msgspec.json.Decoder(_QuotaBody)


def _view(limits: dict[str, int]) -> dict[str, int]:
    return {name: limits[inside] for name, inside in NAMES.items()}


async def list_all(call: Call) -> Answer:
    """GET /quotas: of the projects that have limits of their own."""
    owners = call.edge.reader.quota_owners(call.sight)
    views: list[dict[str, Any]] = [
        {**_view(call.edge.reader.quota_limits(owner)), "project_id": owner, "tenant_id": owner}
        for owner in owners
    ]
    return json_answer({"quotas": views})


async def show_own(call: Call) -> Answer:
    """GET /quotas/tenant and /quotas/project: whose token this is."""
    call.allow(READ_DEFAULTS)
    word = call.path.rpartition("/")[2]
    own = call.principal.project_id
    return json_answer({word: {f"{word}_id": own}})


async def show(call: Call) -> Answer:
    """GET /quotas/{project}."""
    project_id = readable_project(call, _bare(call.args[0]), READ)
    return json_answer({"quota": _view(call.edge.reader.quota_limits(project_id))})


async def details(call: Call) -> Answer:
    """GET /quotas/{project}/details: with what is used."""
    reader = call.edge.reader
    project_id = readable_project(call, call.args[0], READ)
    with reader.snapshot():
        limits = _view(reader.quota_limits(project_id))
        used = _view(reader.quota_use(project_id))
    views = {
        name: {"limit": limit, "used": used[name], "reserved": 0} for name, limit in limits.items()
    }
    return json_answer({"quota": views})


async def show_default(call: Call) -> Answer:
    """GET /quotas/{project}/default: what would hold without limits of its own."""
    return json_answer({"quota": _view(call.edge.reader.quota_defaults())})


async def update(call: Call) -> Answer:
    """PUT /quotas/{project}. Limits may go below what is used, but for ``check_limit``."""
    body = (await call.decode(_quota)).quota
    project_id = _bare(call.args[0])
    limits = {
        inside: number(value)
        for name, inside in NAMES.items()
        if (value := getattr(body, name)) is not UNSET
    }
    check = body.check_limit and not body.force
    await write(call, SetQuota(project_id=project_id, limits=limits, check_limit=check))
    return json_answer({"quota": _view({**call.edge.reader.quota_limits(project_id), **limits})})


async def reset(call: Call) -> Answer:
    """DELETE /quotas/{project}: network's quotas alone."""
    await write(call, ResetQuota(project_id=_bare(call.args[0]), names=tuple(NAMES.values())))
    return Answer(204)


def _bare(project: str) -> str:
    """Return the project without the ``.json`` that older clients add."""
    return project.removesuffix(".json")


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one = "/v2.0/quotas/{}"
    routes.add("GET", "/v2.0/quotas", list_all, READ)
    for word in ("tenant", "project"):
        routes.add("GET", f"/v2.0/quotas/{word}", show_own, READ_DEFAULTS)
    routes.add("GET", one, show, READ)
    for ending in ("", ".json"):
        routes.add("GET", f"{one}/details{ending}", details, READ)
        routes.add("GET", f"{one}/default{ending}", show_default, READ_DEFAULTS)
    routes.add("PUT", one, update, "SetQuota", body=_quota)
    routes.add("DELETE", one, reset, "ResetQuota", status=204)
