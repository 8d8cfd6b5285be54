"""Billing periods: calendar months in UTC, half-open, each as long as it really is."""

from datetime import UTC, datetime

from schemas.units import SECOND, Micros


def month_of(at: Micros) -> str:
    """Return the month that a time lies in, as 2026-10."""
    moment = datetime.fromtimestamp(at // SECOND, UTC)
    return f"{moment.year:04d}-{moment.month:02d}"


def month_bounds(month: str) -> tuple[Micros, Micros]:
    """Return when a month begins and ends, exclusive.

    Raises:
        ValueError: it is none, or not one of the years 1970 to 2200.
    """
    year_text, dash, month_text = month.partition("-")
    if not (dash and len(month) == 7 and year_text.isdecimal() and month_text.isdecimal()):
        raise ValueError(f"{month[:20]!r} is no month; one looks like 2026-10")
    year, number = int(year_text), int(month_text)
    if not (1970 <= year <= 2200 and 1 <= number <= 12):
        raise ValueError(f"{month!r} is no month between 1970-01 and 2200-12")
    return _begins(year, number), _begins(year + number // 12, number % 12 + 1)


def next_month(month: str) -> str:
    """Return the month after one."""
    return month_of(month_bounds(month)[1])


def _begins(year: int, month: int) -> Micros:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * SECOND
