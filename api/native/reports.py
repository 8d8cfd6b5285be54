"""Reports that people look at: what costs, who spends most, what is idle, what belongs to nobody.

Money is the archiver's answer about bills, grouped and never computed anew. Everybody is told of
their own project, auditors of all.
"""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from api.errors import Denied
from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.history import ANSWER_S, ask, billed
from api.native.log import number
from api.native.people import names_of
from api.routing import Routes
from projections import costs
from projections.costs import DIMENSIONS, Bills, Costs, Dimension
from projections.idle import Idle
from projections.orphans import Orphan
from schemas.errors import InvalidInput, NotFound
from schemas.units import DAY

READ = "billing:usage:read"
TOP_MAX = 100_000
DAYS = 7  # how long something must have been idle, where nothing is said


async def cost(call: Call) -> Answer:
    """GET /v1/reports/cost: what things cost ``by`` project, day, meter, kind, resource or user.

    ``by`` takes several, with commas; ``top`` is how many, the dearest.
    """
    by = _dimensions(call.param("by") or "project")
    top = number(call, "top") or None
    if top is not None and top > TOP_MAX:
        raise InvalidInput(f"top is at most {TOP_MAX}")
    bills = await _bills(call)
    found = await asyncio.to_thread(
        costs.by_group, bills, by, call.edge.reader.made_by, top if top is not None else TOP_MAX
    )
    return json_answer(
        {
            "as_of": bills.as_of,
            "start": bills.start,
            "end": bills.end,
            **msgspec.structs.asdict(found),
            "names": _names(call, found),
        }
    )


def _dimensions(text: str) -> tuple[Dimension, ...]:
    """Return what to group by.

    Raises:
        InvalidInput: something that nothing is grouped by, or the same twice.
    """
    asked = [word.strip() for word in text.split(",")]
    known = tuple(name for word in asked for name in DIMENSIONS if name == word)
    if len(known) != len(asked) or len(set(known)) != len(known):
        raise InvalidInput(f"by takes {', '.join(DIMENSIONS)}, each once")
    return known


def _names(call: Call, found: Costs) -> dict[str, str]:
    """Return names of the projects and users in a report, of those the caller may know."""
    names: dict[str, str] = {}
    if "user" in found.by:
        names |= names_of(call, {cost.group["user"] for cost in found.costs})
    if "project" in found.by:
        for project_id in {cost.group["project"] for cost in found.costs}:
            project = call.edge.reader.project(project_id)
            if project is not None:
                names[project_id] = project.name
    return names


async def idle(call: Call) -> Answer:
    """GET /v1/reports/idle: what has been stopped, failed or unused for ``days``, and its cost."""
    project_id, days = own_project(call), number(call, "days", DAYS)
    before = call.edge.reader.now() - days * DAY
    found = await asyncio.to_thread(call.edge.reader.idle, project_id, before=before)
    bills = await _bills(call)
    resources = costs.Resources(bills)
    body = {
        "as_of": bills.as_of,
        "start": bills.start,
        "end": bills.end,
        "before": before,
        "idle": [_with_cost(one, resources.cost(one.id, one.since)) for one in found],
        "names": names_of(call, {one.user_id for one in found}),
    }
    return json_answer(body)


async def orphans(call: Call) -> Answer:
    """GET /v1/reports/orphans: whose project or parent is gone, which event did it, its cost."""
    project_id = own_project(call)
    found = await asyncio.to_thread(call.edge.reader.orphans, project_id)
    bills = await _bills(call)
    resources = costs.Resources(bills)
    body = {
        "as_of": bills.as_of,
        "start": bills.start,
        "end": bills.end,
        "orphans": [_with_cost(one, resources.cost(one.id)) for one in found],
        "names": names_of(call, {one.left_by.user_id for one in found if one.left_by is not None}),
    }
    return json_answer(body)


def _with_cost(one: Idle | Orphan, amounts: dict[str, Decimal]) -> dict[str, Any]:
    cost = {currency: f"{amount:f}" for currency, amount in sorted(amounts.items())}
    return {**msgspec.structs.asdict(one), "cost": cost}


async def _bills(call: Call) -> Bills:
    """Return the bills of the window that is asked about; none where there are no prices."""
    question = billed(call)
    try:
        answer = await ask(call, "bill", question, ANSWER_S)
    except Denied as denied:
        if "price_list" in question or denied.problem.code != NotFound.code:
            raise
        return Bills(as_of=0, start=question.get("start", 0), end=question.get("end", 0), bills=())
    return await asyncio.to_thread(costs.decode, answer.body)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    window = ("start", "end", "project", "project_id", "price_list")
    for path, handler, more in _ROUTES:
        routes.add("GET", path, handler, READ, query=(*window, *more))


_ROUTES: Sequence[Any] = (
    ("/v1/reports/cost", cost, ("by", "top")),
    ("/v1/reports/idle", idle, ("days",)),
    ("/v1/reports/orphans", orphans, ()),
)
