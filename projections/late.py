"""What was found late: of which resources a time is known otherwise than it was.

An interval is what the fact that began it says, so only new ones, and those that have ended since,
tell of a time that is over anything else.
"""

from collections.abc import Collection

from msgspec.structs import replace

from projections.holdings import Held
from projections.ledger import Past
from projections.metering import Interval
from projections.segment import database
from schemas.units import Micros, Ordinal


def changed_since(held: Held, ordinal: Ordinal, start: Micros, end: Micros) -> frozenset[str]:
    """Return the resources that may have other intervals in [start, end) than when it ended there.

    Those are of whom one has begun since that touches it, or one that was held then has ended
    before ``end``. Versions of meters are not looked at.
    """
    found = {each.resource_id for each in held.loose if _is_news(each, held, ordinal, start, end)}
    if held.runs:
        began = "first_ordinal > ? AND (end_at >= ? OR last_ordinal > ?)"
        stopped = "last_ordinal > ? AND last_ordinal <= ? AND end_at <= ?"
        with database() as db:
            rows = db.execute(
                "SELECT DISTINCT resource_id FROM read_parquet(?) "  # noqa: S608  # our own words
                f"WHERE start_at <= ? AND first_ordinal <= ? AND (({began}) OR ({stopped}))",
                [
                    [str(path) for path in held.runs], end, held.as_of,
                    ordinal, start, held.as_of, ordinal, held.as_of, end,
                ],
            ).fetchall()  # fmt: skip
        found |= {row[0] for row in rows}
    return frozenset(found)


def about(
    before: tuple[Held, Past],
    now: tuple[Held, Past],
    time: tuple[Micros, Micros],
    resources: Collection[str],
    alone: Collection[str],
) -> tuple[Past, Past]:
    """Return two pasts as far as what some resources used in a time is charged by them.

    Of meters ``alone`` that is what these used; of others, of which something is counted, all that
    their customers did.
    """
    theirs = {
        each.project_id
        for held, _ in (before, now)
        for each in held.intervals(*time, resources=resources)
    }
    projects = _of_their_customers(before[1], theirs) | _of_their_customers(now[1], theirs)

    def narrowed(held: Held, past: Past) -> Past:
        def intervals(start: Micros, end: Micros) -> list[Interval]:
            own = held.intervals(start, end, resources=resources)
            found = [each for each in own if each.meter in alone]
            if past.definitions.keys() - set(alone):
                others = held.intervals(start, end, projects=projects)
                found += (each for each in others if each.meter not in alone)
            return found

        return replace(past, intervals=intervals)

    return narrowed(*before), narrowed(*now)


def _of_their_customers(past: Past, projects: Collection[str]) -> frozenset[str]:
    """Return the projects, and all that anybody pays for who ever paid for one of them."""
    payers = past.state.payers
    customers = {
        payer.customer_id for project_id in projects for payer in payers.get(project_id, ())
    } - {""}
    return frozenset(projects).union(
        project_id
        for project_id, of in payers.items()
        if any(payer.customer_id in customers for payer in of)
    )


def _is_news(each: Interval, held: Held, ordinal: Ordinal, start: Micros, end: Micros) -> bool:
    if each.start > end or each.first_ordinal > held.as_of:
        return False
    ended_later = each.last_ordinal is not None and each.last_ordinal > held.as_of
    if each.first_ordinal > ordinal and (each.end is None or each.end >= start or ended_later):
        return True
    return (
        each.end is not None
        and each.end <= end
        and each.last_ordinal is not None
        and ordinal < each.last_ordinal <= held.as_of
    )
