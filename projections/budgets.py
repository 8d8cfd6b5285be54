"""The watch over budgets: finds which months have come to which share, and has it recorded.

What is compared is what the month's drafts come to before credits and tax, of all usage up to now.
That folds history, so it is looked at every few minutes and not with each fact.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal, localcontext

import structlog
import uuid_utils

from engine.bus.client import Bus
from engine.bus.service import submit_as_history
from engine.domain.billing.budgets import is_news
from engine.domain.billing.periods import DIGITS_MAX
from projections.archive import Archive
from projections.books import opened
from projections.invoice import Line
from projections.pricing import text
from schemas.billing import Budget, PassBudget
from schemas.envelope import Actor, Request
from schemas.errors import Unavailable
from schemas.ids import SYSTEM_USER
from schemas.months import month_of
from schemas.units import Micros

log = structlog.get_logger(__name__)

LOOK_S = 300.0


def due(archive: Archive, now: Micros) -> list[PassBudget]:
    """Return what is to be recorded: of each budget the highest share that is news. Blocking."""
    month = month_of(now)
    with opened(archive, now) as books:
        past = books.past()
        if not past.state.budgets:
            return []
        documents = books.month(month).documents
    found: list[PassBudget] = []
    for budget in past.state.budgets.values():
        document = documents.get(budget.customer_id)
        spent = _spent(() if document is None else document.lines, budget.project_id)
        threshold = _reached(budget, spent)
        if threshold and is_news(budget, month, threshold):
            found.append(
                PassBudget(
                    budget_id=budget.budget_id,
                    month=month,
                    threshold=threshold,
                    amount=text(spent),
                )
            )
    return found


async def watch(
    bus: Bus, archive: Archive, now: Callable[[], Micros], *, any_there: Callable[[], bool]
) -> None:
    """Look for ever; ``any_there`` says cheaply whether there is a budget at all."""

    async def submit(action: PassBudget) -> None:
        request = Request(
            request_id=f"req-{uuid_utils.uuid7()}",
            actor=Actor(kind="system", user_id=SYSTEM_USER),
            action=action,
            submitted_at=now(),
        )
        await submit_as_history(bus, request)

    while True:
        await _look(archive, now, submit, any_there)
        await asyncio.sleep(LOOK_S)


async def _look(
    archive: Archive,
    now: Callable[[], Micros],
    submit: Callable[[PassBudget], Awaitable[None]],
    any_there: Callable[[], bool],
) -> None:
    try:
        if await asyncio.to_thread(any_there):
            for action in await asyncio.to_thread(due, archive, now()):
                await submit(action)
    except Unavailable as error:
        log.warning("budgets_not_watched", error=str(error))
    except Exception:
        log.exception("budgets_not_watched")


def _spent(lines: Iterable[Line], project_id: str) -> Decimal:
    """Return what use has come to, of a project or of all: no credit, tax, rounding, correction."""
    with localcontext(prec=DIGITS_MAX):
        return sum(
            (
                Decimal(line.amount)
                for line in lines
                if (line.category == "Usage" or (line.category == "Adjustment" and line.sku))
                and not line.charge_class
                and project_id in {"", line.project_id}
            ),
            Decimal(0),
        )


def _reached(budget: Budget, spent: Decimal) -> int:
    """Return the highest threshold that was reached; 0 if none was."""
    share = spent * 100
    whole = Decimal(budget.amount)
    return max((t for t in budget.thresholds if share >= whole * t), default=0)
