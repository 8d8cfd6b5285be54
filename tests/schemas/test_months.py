"""Months have one name each: what is closed under it cannot be asked for under another."""

import pytest

from schemas.months import month_bounds, month_of, next_month
from schemas.units import DAY


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026", "2026-1", "2026-13", "2026-00", "1969-12", "2201-01", "-2026-1", "02026-1"),
        *(
            "2026-1\n",
            "2026-10\n",
            "\uff12\uff10\uff12\uff16-10",
            "2026-\u0661\u0660",
            "2026\u201310",
            "+026-10",
            "2026-10.x",
        ),
    ],
)
def test_what_is_no_month_is_refused(text):
    with pytest.raises(ValueError, match="is no month"):
        month_bounds(text)


@pytest.mark.parametrize(("month", "days"), [("2024-02", 29), ("2100-02", 28), ("2025-12", 31)])
def test_a_month_is_as_long_as_it_is(month, days):
    start, end = month_bounds(month)

    assert end - start == days * DAY
    assert month_of(start) == month_of(end - 1) == month
    assert month_of(end) == next_month(month)
