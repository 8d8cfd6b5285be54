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


def about(held: Held, past: Past, resources: Collection[str], alone: Collection[str]) -> Past:
    """Return the past as far as it is about some resources; of meters not ``alone``, all of it."""

    def intervals(start: Micros, end: Micros) -> list[Interval]:
        found = [
            each for each in held.intervals(start, end, resources=resources) if each.meter in alone
        ]
        for meter in sorted(past.definitions.keys() - set(alone)):
            found += held.intervals(start, end, meter=meter)
        return found

    return replace(past, intervals=intervals)


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
