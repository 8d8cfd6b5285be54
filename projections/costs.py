"""What things cost, grouped by what people ask for: project, day, meter, resource, user.

A bill is read as everybody reads it. A charge that spans days is parted by time, each part the
difference of two roundings of what the charge comes to by then. Invariant: whatever it is grouped
by, the parts of a bill add up to its subtotal, to the last digit.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal, localcontext
from fractions import Fraction
from typing import Literal

import msgspec
from msgspec import Struct

from schemas.units import DAY, SECOND

type Dimension = Literal["project", "day", "meter", "kind", "resource", "user"]
DIMENSIONS: tuple[Dimension, ...] = ("project", "day", "meter", "kind", "resource", "user")
DIGITS_MAX = 100
NOBODY = ""  # whose things were made by nobody that is known


class ChargeSeen(Struct, frozen=True):
    """Of a charge, what is grouped by."""

    resource_kind: str
    resource_id: str
    meter: str
    start: int
    end: int
    amount: str


class _Line(Struct, frozen=True):
    charges: tuple[ChargeSeen, ...]


class _Bill(Struct, frozen=True):
    project_id: str
    currency: str
    lines: tuple[_Line, ...]


class Bills(Struct, frozen=True):
    """An answer about bills, as far as it is read here."""

    as_of: int
    start: int
    end: int
    bills: tuple[_Bill, ...]

    def charges(self) -> Iterator[tuple[str, str, ChargeSeen]]:
        """Yield each charge with its project and currency."""
        for bill in self.bills:
            for line in bill.lines:
                for charge in line.charges:
                    yield bill.project_id, bill.currency, charge


class Cost(Struct, frozen=True, kw_only=True):
    """What one group costs. ``share`` is of the currency's total, in percent."""

    group: dict[str, str]
    currency: str
    amount: str
    share: str


class Costs(Struct, frozen=True, kw_only=True):
    """Costs by group, the dearest first, or by day; and the totals by currency."""

    by: tuple[Dimension, ...]
    costs: tuple[Cost, ...]
    totals: dict[str, str]


decode = msgspec.json.Decoder(Bills).decode


def by_group(
    bills: Bills, by: Sequence[Dimension], maker: Callable[[str], str], top: int | None = None
) -> Costs:
    """Return what groups cost.

    Args:
        bills: the bills.
        by: what to group by, in order; days are UTC's.
        maker: gives the user who made a resource; asked only if grouped by user.
        top: how many groups at most, the dearest; the totals are of all.
    """
    sums: dict[tuple[str, ...], Decimal] = defaultdict(Decimal)
    totals: dict[str, Decimal] = defaultdict(Decimal)
    with localcontext(prec=DIGITS_MAX):
        for project_id, currency, charge in bills.charges():
            known: dict[Dimension, str] = {
                "project": project_id,
                "meter": charge.meter,
                "kind": charge.resource_kind,
                "resource": charge.resource_id,
            }
            if "user" in by:
                known["user"] = maker(charge.resource_id)
            for day, amount in parted(charge) if "day" in by else [("", Decimal(charge.amount))]:
                known["day"] = day
                sums[(currency, *(known[name] for name in by))] += amount
                totals[currency] += amount
        order = sorted(sums, key=lambda group: (group[0], -sums[group], group))
        if "day" in by:
            place = 1 + by.index("day")
            order.sort(key=lambda group: group[place])
        costs = tuple(
            Cost(
                group=dict(zip(by, group[1:], strict=True)),
                currency=group[0],
                amount=_text(sums[group]),
                share=_share(sums[group], totals[group[0]]),
            )
            for group in order[:top]
        )
        return Costs(
            by=tuple(by),
            costs=costs,
            totals={currency: _text(totals[currency]) for currency in sorted(totals)},
        )


class Resources:
    """Bills by resource: what each has cost, altogether or from a time on, by currency."""

    def __init__(self, bills: Bills) -> None:
        self._charges: dict[str, list[tuple[str, ChargeSeen]]] = defaultdict(list)
        for _, currency, charge in bills.charges():
            self._charges[charge.resource_id].append((currency, charge))

    def cost(self, resource_id: str, since: int = 0) -> dict[str, Decimal]:
        """Return what a resource has cost since a time."""
        found: dict[str, Decimal] = defaultdict(Decimal)
        with localcontext(prec=DIGITS_MAX):
            for currency, charge in self._charges.get(resource_id, ()):
                if charge.end > since:
                    found[currency] += Decimal(charge.amount) - _by(charge, since)
        return found


def parted(charge: ChargeSeen) -> list[tuple[str, Decimal]]:
    """Return the days that a charge spans, and what of its amount is each one's."""
    parts: list[tuple[str, Decimal]] = []
    at, done = charge.start, Decimal(0)
    with localcontext(prec=DIGITS_MAX):
        while True:
            midnight = (at // DAY + 1) * DAY
            until = min(midnight, charge.end)
            paid = _by(charge, until)
            parts.append((day_of(at), paid - done))
            if until >= charge.end:
                return parts
            at, done = until, paid


def _by(charge: ChargeSeen, at: int) -> Decimal:
    """Return what of a charge has come together by a time, in its own decimals, cut."""
    amount = Decimal(charge.amount)
    if at >= charge.end:
        return amount
    if at <= charge.start:
        return Decimal(0)
    share = Fraction(at - charge.start, charge.end - charge.start) * Fraction(amount)
    exponent = min(int(amount.as_tuple().exponent), 0)
    exact = Decimal(share.numerator) / Decimal(share.denominator)
    return exact.quantize(Decimal(1).scaleb(exponent), rounding=ROUND_DOWN)


def day_of(at: int) -> str:
    """Return a time's day in UTC, as ISO 8601 has it."""
    return f"{datetime.fromtimestamp(at // SECOND, UTC):%Y-%m-%d}"


def _share(amount: Decimal, total: Decimal) -> str:
    return str((100 * amount / total).quantize(Decimal("0.1"))) if total else "0.0"


def _text(amount: Decimal) -> str:
    plain = f"{amount:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
