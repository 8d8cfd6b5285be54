"""Bills: one line a resource, whose charges add up to it, and a total that a person can pay.

Invariant: the lines and the adjustment add up to the total, exactly. A bill is derived: from the
same log, window and price list it comes out the same to the byte, which its digest says.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext

import msgspec
from msgspec import Struct

from projections.metering import Usage
from projections.pricing import text
from projections.rating import Charge, Rated, UsageRow, rate, shown, usage_row
from schemas.billing import PriceList
from schemas.currency import decimals
from schemas.metering import BUILT_IN, MeterDefinition
from schemas.units import Micros, Ordinal

# No sum of money comes near it, so no sum is rounded on the way.
DIGITS_MAX = 100
ROUNDING = "Rounding of the total to the currency's smallest unit"

_encode = msgspec.json.Encoder(order="sorted").encode


class Quantity(Struct, frozen=True, kw_only=True):
    """How much of a meter a line is about; ``unit_prices`` are those it was charged at."""

    meter: str
    base_quantity: str
    quantity: str
    unit: str
    unit_prices: tuple[str, ...]
    amount: str


class BillLine(Struct, frozen=True, kw_only=True):
    """What one resource cost, and the first and last fact that it follows from."""

    resource_kind: str
    resource_id: str
    first_ordinal: Ordinal
    last_ordinal: Ordinal
    quantities: tuple[Quantity, ...]
    charges: tuple[Charge, ...]
    amount: str


class Adjustment(Struct, frozen=True, kw_only=True):
    """What rounding the total adds or takes away."""

    description: str
    amount: str


class Bill(Struct, frozen=True, kw_only=True):
    """What a project owes for [start, end), as far as ``end``'s past reaches.

    Amounts are decimal strings. ``unrated`` is usage before any price list was in force: it costs
    nothing, and is named so that nobody wonders. ``digest`` is the SHA-256 (hex) of everything
    else here as canonical JSON. Opaque ids only: no names of people or things.
    """

    project_id: str
    currency: str
    price_list: str
    price_list_versions: tuple[int, ...]
    start: Micros
    end: Micros
    lines: tuple[BillLine, ...]
    subtotal: str
    adjustment: Adjustment
    total: str
    unrated: tuple[UsageRow, ...] = ()
    digest: str = ""


def derive_bill(
    project_id: str,
    rows: Iterable[Usage],
    versions: Sequence[PriceList],
    start: Micros,
    end: Micros,
    definitions: Mapping[str, MeterDefinition] = BUILT_IN,
) -> Bill:
    """Return the bill of a project's usage in a window, by the versions of one price list.

    Raises:
        ValueError: there is no version at all, so not even a currency.
    """
    if not versions:
        raise ValueError("there is no price list to charge by")
    with localcontext(prec=DIGITS_MAX):
        rated = rate(rows, versions, definitions)
        return _derive(project_id, rated, versions, start, end, definitions)


def _derive(
    project_id: str,
    rated: Rated,
    versions: Sequence[PriceList],
    start: Micros,
    end: Micros,
    definitions: Mapping[str, MeterDefinition],
) -> Bill:
    lines = tuple(_line(charges, definitions) for charges in _by_resource(rated.charges))
    currency = versions[-1].currency
    subtotal = sum((Decimal(line.amount) for line in lines), Decimal(0))
    unit = Decimal(1).scaleb(-decimals(currency))
    total = subtotal.quantize(unit, rounding=ROUND_HALF_UP)
    bill = Bill(
        project_id=project_id,
        currency=currency,
        price_list=versions[-1].name,
        price_list_versions=tuple(sorted({charge.price_list_version for charge in rated.charges})),
        start=start,
        end=end,
        lines=lines,
        subtotal=text(subtotal),
        adjustment=Adjustment(description=ROUNDING, amount=text(total - subtotal)),
        total=text(total),
        unrated=tuple(usage_row(row, definitions) for row in rated.unrated),
    )
    return msgspec.structs.replace(bill, digest=hashlib.sha256(_encode(bill)).hexdigest())


def _by_resource(charges: Iterable[Charge]) -> list[list[Charge]]:
    """Group charges by resource, in the order in which these first appear."""
    groups: dict[tuple[str, str], list[Charge]] = {}
    for charge in charges:
        groups.setdefault((charge.resource_kind, charge.resource_id), []).append(charge)
    return list(groups.values())


def _line(charges: list[Charge], definitions: Mapping[str, MeterDefinition]) -> BillLine:
    by_meter: dict[str, list[Charge]] = {}
    for charge in charges:
        by_meter.setdefault(charge.meter, []).append(charge)
    return BillLine(
        resource_kind=charges[0].resource_kind,
        resource_id=charges[0].resource_id,
        first_ordinal=min(charge.first_ordinal for charge in charges),
        last_ordinal=max(charge.last_ordinal for charge in charges),
        quantities=tuple(
            _quantity(definitions[meter], of) for meter, of in sorted(by_meter.items())
        ),
        charges=tuple(charges),
        amount=_sum(charges),
    )


def _quantity(meter: MeterDefinition, charges: list[Charge]) -> Quantity:
    base = sum(int(charge.base_quantity) for charge in charges)
    return Quantity(
        meter=meter.key,
        base_quantity=str(base),
        quantity=shown(meter, base),
        unit=charges[0].unit,
        unit_prices=tuple(dict.fromkeys(charge.unit_price for charge in charges)),
        amount=_sum(charges),
    )


def _sum(charges: Iterable[Charge]) -> str:
    return text(sum((Decimal(charge.amount) for charge in charges), Decimal(0)))
