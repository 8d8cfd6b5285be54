"""Billing periods: calendar months in UTC, half-open, each as long as it really is."""

import re
from datetime import UTC, datetime

from schemas.units import SECOND, Micros

_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")


def month_of(at: Micros) -> str:
    """Return the month that a time lies in, as 2026-10."""
    moment = datetime.fromtimestamp(at // SECOND, UTC)
    return f"{moment.year:04d}-{moment.month:02d}"


def month_bounds(month: str) -> tuple[Micros, Micros]:
    """Return when a month begins and ends, exclusive.

    Raises:
        ValueError: it is none, or not one of the years 1970 to 2200.
    """
    found = _MONTH.fullmatch(month)  # one way to write each: a closed month has no other name
    if found is None:
        raise ValueError(f"{month[:20]!r} is no month; one looks like 2026-10")
    year, number = int(found[1]), int(found[2])
    if not (1970 <= year <= 2200 and 1 <= number <= 12):
        raise ValueError(f"{month!r} is no month between 1970-01 and 2200-12")
    return _begins(year, number), _begins(year + number // 12, number % 12 + 1)


def next_month(month: str) -> str:
    """Return the month after one."""
    return month_of(month_bounds(month)[1])


def _begins(year: int, month: int) -> Micros:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * SECOND
