"""Rating: from usage to charges, under the price list in force while the usage happened.

Each charge is price times quantity, computed exactly and rounded once, half to even, to four
decimals more than the currency has. Money is Decimal, quantities are integers; nothing is a float.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from projections.metering import Usage
from projections.pricing import Discount, Part, exact_quotient, price, text
from schemas.billing import PriceList
from schemas.metering import BUILT_IN, Dimensions, MeterDefinition
from schemas.units import Micros, Ordinal

SHOWN_DECIMALS = 12


class Charge(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stretch of usage under one version of a price list, and what it costs.

    ``base_quantity`` is exact, in the meter's base unit; ``quantity`` is the same in ``unit``,
    for reading, cut to twelve decimals. Numbers are strings: JSON readers keep every digit.

    What is told only where it says more than ``unit_price``: the rule's ``model``, the ``tier``
    (from 1; 0 is what is included), for how many units the price is (``per``), the ``discount`` in
    percent, and what it would be without (``list_amount``).
    """

    resource_kind: str
    resource_id: str
    meter: str
    sku: str
    start: Micros
    end: Micros
    base_quantity: str
    quantity: str
    unit: str
    unit_price: str
    price_list: str
    price_list_version: int
    amount: str
    first_ordinal: Ordinal
    last_ordinal: Ordinal
    model: str = ""
    tier: int = 0
    per: int = 1
    discount: str = ""
    list_amount: str = ""


class UsageRow(Struct, frozen=True, kw_only=True):
    """Usage as others read it: the exact quantity, and the same in the unit that is priced.

    ``dimensions`` has all of the meter's, "" where there is none; keys are sorted.
    """

    resource_kind: str
    resource_id: str
    project_id: str
    meter: str
    meter_version: int
    dimensions: Dimensions
    value: int
    start: Micros
    end: Micros
    base_quantity: str
    base_unit: str
    quantity: str
    unit: str
    first_ordinal: Ordinal
    last_ordinal: Ordinal


class Rated(Struct, frozen=True, kw_only=True):
    """Charges, and the usage that no price list was in force for."""

    charges: tuple[Charge, ...]
    unrated: tuple[Usage, ...]


def rate(
    rows: Iterable[Usage],
    versions: Sequence[PriceList],
    definitions: Mapping[str, MeterDefinition] = BUILT_IN,
    *,
    discounts: Sequence[Discount] = (),
) -> Rated:
    """Charge usage by the versions of one price list, cut where a new version comes into force.

    ``versions`` are in the order of their numbers, so of their validity too. What none of them
    names costs nothing. What rules count over a month (tiers, included units, minima, maxima) they
    count over these rows.
    """
    priced = price(rows, versions, definitions, discounts=discounts)
    charges = tuple(_charge(part, definitions[part.usage.meter]) for part in priced.parts)
    return Rated(charges=charges, unrated=priced.unrated)


def shown(meter: MeterDefinition, base_quantity: int) -> str:
    """Return a quantity in the meter's priced unit, for reading."""
    return text(exact_quotient(base_quantity, meter.base_per_unit, SHOWN_DECIMALS))


def usage_row(row: Usage, definitions: Mapping[str, MeterDefinition] = BUILT_IN) -> UsageRow:
    """Return usage as others read it."""
    meter = definitions[row.meter]
    return UsageRow(
        resource_kind=row.resource_kind,
        resource_id=row.resource_id,
        project_id=row.project_id,
        meter=row.meter,
        meter_version=row.meter_version,
        dimensions=row.dimensions,
        value=row.value,
        start=row.start,
        end=row.end,
        base_quantity=str(row.quantity),
        base_unit=meter.base_unit,
        quantity=shown(meter, row.quantity),
        unit=meter.unit,
        first_ordinal=row.first_ordinal,
        last_ordinal=row.last_ordinal,
    )


def _charge(part: Part, meter: MeterDefinition) -> Charge:
    usage, rule = part.usage, part.rule
    counted = part.model != "unit" or part.tier or rule.included or rule.maximum
    return Charge(
        resource_kind=usage.resource_kind,
        resource_id=usage.resource_id,
        meter=usage.meter,
        sku=rule.sku,
        start=usage.start,
        end=usage.end,
        base_quantity=str(part.quantity),
        quantity=shown(meter, part.quantity),
        unit=rule.unit,
        unit_price=part.price,
        price_list=part.price_list.name,
        price_list_version=part.price_list.version,
        amount=text(part.amount),
        first_ordinal=usage.first_ordinal,
        last_ordinal=usage.last_ordinal,
        model=part.model if counted else "",
        tier=part.tier,
        per=rule.per,
        discount=part.discount,
        list_amount="" if part.list_amount == part.amount else text(part.list_amount),
    )
