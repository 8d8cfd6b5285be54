"""Usage as compute's clients know it (os-simple-tenant-usage), from exact intervals.

A server counts from its first start until it is deleted or fails, with the size it was made with.
Hours are floating-point numbers there; what is billed is in ``/v1/usage``.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.native.history import asked
from api.routing import Routes
from api.times import micros_naive, time_asked
from projections.compute import DELETED
from projections.server_hours import PAGE_MAX
from schemas.compute import Flavor, Server
from schemas.errors import Forbidden, InvalidInput
from schemas.units import HOUR, SECOND, Micros

type View = dict[str, Any]

READ, READ_ALL = "compute:usage:read", "compute:usage:read_all"
TOTALS: dict[str, Callable[[Flavor], int]] = {
    "total_hours": lambda _: 1,
    "total_vcpus_usage": lambda flavor: flavor.vcpus,
    "total_memory_mb_usage": lambda flavor: flavor.memory_mib,
    "total_local_gb_usage": lambda flavor: flavor.disk_gib,
}


class Period(Struct, frozen=True, kw_only=True):
    """The time that is asked about, no later than now."""

    start: Micros
    end: Micros
    now: Micros


async def list_all(call: Call) -> Answer:
    """GET /os-simple-tenant-usage: of each project that had servers."""
    period = _period(call)
    found = await _found(call, period, None)
    detailed = call.param("detailed").lower() in {"1", "true"}
    usages: dict[str, View] = {}
    for row in found:
        summary = usages.setdefault(row["project_id"], _summary(row["project_id"], period))
        _add(summary, row, period, detailed=detailed)
    return json_answer({"tenant_usages": list(usages.values())})


async def show(call: Call) -> Answer:
    """GET /os-simple-tenant-usage/{project}: with each server; empty if there were none."""
    project_id = call.args[0]
    reach = call.allow(READ)
    if not reach.any and not (reach.project and project_id == call.principal.project_id):
        raise Forbidden("another project's usage is read by administrators only")
    period = _period(call)
    found = await _found(call, period, project_id)
    summary = _summary(project_id, period) if found else {}
    for row in found:
        _add(summary, row, period, detailed=True)
    return json_answer({"tenant_usage": summary})


def _period(call: Call) -> Period:
    """Return the time that is asked about.

    Raises:
        InvalidInput: it ends before it begins, or is no time.
    """
    now = call.edge.reader.now()
    start, end = (
        time_asked(text, name) if (text := call.param(name)) else now for name in ("start", "end")
    )
    if start > end or (start == end and call.param("start")):
        raise InvalidInput("Invalid start time. The start time cannot occur after the end time.")
    return Period(start=start, end=min(end, now), now=now)


async def _found(call: Call, period: Period, project_id: str | None) -> list[View]:
    """Return all servers that were there, with how long; asked for page by page."""
    if period.start >= period.end:
        return []
    question: View = {"start": period.start, "end": period.end, "limit": PAGE_MAX}
    if project_id is not None:
        question["project"] = project_id
    found: list[View] = []
    while True:
        rows: list[View] = (await asked(call, "server_hours", question))["servers"]
        views = call.edge.reader.server_views(ids=[row["server_id"] for row in rows], deleted=None)
        servers = {view.server.server_id: view.server for view in views}
        # One that this node has not read yet is told of the next time.
        found += [
            {**row, "server": servers[row["server_id"]]}
            for row in rows
            if row["server_id"] in servers
        ]
        if len(rows) < PAGE_MAX:
            return found
        question["marker"] = rows[-1]["server_id"]


def _summary(project_id: str, period: Period) -> View:
    return {
        "tenant_id": project_id,
        "start": micros_naive(period.start),
        "stop": micros_naive(period.end),
        **dict.fromkeys(TOTALS, 0.0),
    }


def _add(summary: View, row: View, period: Period, *, detailed: bool) -> None:
    server: Server = row["server"]
    hours = row["held_us"] / HOUR
    for name, size in TOTALS.items():
        summary[name] += size(server.flavor) * hours
    if detailed:
        summary.setdefault("server_usages", []).append(_server(server, hours, period))


def _server(server: Server, hours: float, period: Period) -> View:
    started = server.launched_at or server.created_at
    ended = server.terminated_at if server.vm_state == DELETED else None
    return {
        "instance_id": server.server_id,
        "name": server.name,
        "tenant_id": server.project_id,
        "flavor": server.flavor.name,
        "vcpus": server.flavor.vcpus,
        "memory_mb": server.flavor.memory_mib,
        "local_gb": server.flavor.disk_gib,
        "hours": hours,
        "started_at": micros_naive(started),
        "ended_at": None if ended is None else micros_naive(ended),
        "state": server.vm_state if ended is None else "terminated",
        "uptime": max(0, (period.now if ended is None else ended) - started) // SECOND,
    }


def add(routes: Routes) -> None:
    """Route what this module answers."""
    query = ("start", "end")
    path = "/v2.1/os-simple-tenant-usage"
    routes.add("GET", path, list_all, READ_ALL, query=(*query, "detailed"))
    routes.add("GET", f"{path}/{{}}", show, READ, query=query)
