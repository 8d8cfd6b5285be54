"""Dry run: the decision of a request, shown with what it would mean, and not written. Pure.

It is the very decision that the request for good would get at this moment, so what is shown is what
would be done: only ids and times are drawn anew.
"""

from collections.abc import Callable, Iterator

from engine.decider import authenticate, decide, refusal, stamped
from engine.domain.billing import in_force, list_of
from engine.domain.quota import limit_of
from engine.domain.state import Cell
from engine.domain.usage import usage_after
from schemas.compute import ServerFailed, ServerPlaced
from schemas.dry_run import DryRun, QuotaUse
from schemas.envelope import Record, Refused, Request
from schemas.errors import Rejected
from schemas.units import Micros


def dry_run(cell: Cell, request: Request, *, now: Micros, new_id: Callable[[], str]) -> DryRun:
    """Return what would follow from a user's request. Nothing is changed, not even the index."""
    actor = request.actor
    at = max(now, cell.state.at)
    request = stamped(request)
    try:
        roles = authenticate(cell, actor)
    except Rejected as rejected:
        record = Record(salt="", request=request, verdict=refusal(rejected))
    else:
        record = decide(cell, request, now=at, new_id=new_id, roles=roles, salt="")
    held = usage_after(cell, record.facts, actor.project_id, actor.user_id)
    return DryRun(
        ordinal=cell.state.ordinal,
        at=at,
        verdict=record.verdict,
        facts=record.facts,
        reasons=tuple(_reasons(record)),
        quota_after={
            name: QuotaUse(used=used, limit=limit_of(cell.state, actor.project_id, name))
            for name, used in held.items()
        },
        price_list=in_force(cell, list_of(cell, actor.project_id, at), at),
    )


def _reasons(record: Record) -> Iterator[str]:
    if isinstance(record.verdict, Refused):
        yield record.verdict.reason
    for fact in record.facts:
        if isinstance(fact, ServerFailed):
            yield fact.message
        if isinstance(fact, ServerPlaced):
            chosen = next(w for w in fact.weighed if w.host_id == fact.host_id)
            yield f"host {fact.host_id} is chosen: it weighs most, {_thousandths(chosen.score)}"
            for host in fact.weighed:
                if host.host_id != fact.host_id:
                    yield f"host {host.host_id} weighs {_thousandths(host.score)}"
        if isinstance(fact, ServerFailed | ServerPlaced):
            for host_removed in fact.removed:
                what, why = host_removed.filter, host_removed.reason
                yield f"host {host_removed.host_id} is left out by {what}: {why}"


def _thousandths(score: int) -> str:
    return f"{score // 1000}.{score % 1000:03d}"
