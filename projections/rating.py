"""Rating: from usage to charges, under the price list in force while the usage happened.

Each charge is price times quantity, computed exactly and rounded once, half to even, to four
decimals more than the currency has. Money is Decimal, quantities are integers; nothing is a float.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from projections.currency import decimals
from projections.metering import Usage
from schemas.billing import PriceList, PriceRule
from schemas.metering import BUILT_IN, Dimensions, MeterDefinition
from schemas.units import Micros, Ordinal

EXTRA_DECIMALS = 4
SHOWN_DECIMALS = 12


class Charge(Struct, frozen=True, kw_only=True):
    """A stretch of usage under one version of a price list, and what it costs.

    ``base_quantity`` is exact, in the meter's base unit; ``quantity`` is the same in ``unit``,
    for reading, cut to twelve decimals. Numbers are strings: JSON readers keep every digit.
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
) -> Rated:
    """Charge usage by the versions of one price list, cut where a new version comes into force.

    ``versions`` are in the order of their numbers, so of their validity too. What none of them
    names costs nothing.
    """
    named = {rule.meter for version in versions for rule in version.rules}
    charges: list[Charge] = []
    unrated: list[Usage] = []
    for row in rows:
        if row.meter not in named:
            continue
        for part, price_list in _in_force(row, versions):
            if price_list is None:
                unrated.append(part)
            elif (rule := _rule(price_list, part.meter)) is not None:
                charges.append(_charge(part, price_list, rule, definitions[part.meter]))
    return Rated(charges=tuple(charges), unrated=tuple(unrated))


def exact_quotient(numerator: int, denominator: int, places: int) -> Decimal:
    """Return a non-negative quotient to so many decimals, rounded once, half to even."""
    quotient, rest = divmod(numerator * 10**places, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient % 2):
        quotient += 1
    return Decimal(f"{quotient}E-{places}")


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


def text(number: Decimal) -> str:
    """Return a number's digits without an exponent."""
    return f"{number:f}"


def _in_force(row: Usage, versions: Sequence[PriceList]) -> list[tuple[Usage, PriceList | None]]:
    """Cut usage into parts that each lie under one version; None where there was none yet."""
    parts: list[tuple[Usage, PriceList | None]] = []
    current = _version_at(versions, row.start)
    start = row.start
    for version in versions:
        if row.start < version.valid_from < row.end:
            if version.valid_from > start:
                parts.append((_part(row, start, version.valid_from), current))
                start = version.valid_from
            current = version
    parts.append((_part(row, start, row.end), current))
    return parts


def _version_at(versions: Sequence[PriceList], at: Micros) -> PriceList | None:
    return next((v for v in reversed(versions) if v.valid_from <= at), None)


def _part(row: Usage, start: Micros, end: Micros) -> Usage:
    if (start, end) == (row.start, row.end):
        return row  # also what was counted, and has no length
    return replace(row, start=start, end=end, quantity=row.value * (end - start))


def _rule(price_list: PriceList, meter: str) -> PriceRule | None:
    return next((rule for rule in price_list.rules if rule.meter == meter), None)


def _charge(row: Usage, price_list: PriceList, rule: PriceRule, meter: MeterDefinition) -> Charge:
    whole, _, fraction = rule.price.partition(".")
    amount = exact_quotient(
        int(whole + fraction) * row.quantity,
        meter.base_per_unit * 10 ** len(fraction),
        decimals(price_list.currency) + EXTRA_DECIMALS,
    )
    return Charge(
        resource_kind=row.resource_kind,
        resource_id=row.resource_id,
        meter=row.meter,
        sku=rule.sku,
        start=row.start,
        end=row.end,
        base_quantity=str(row.quantity),
        quantity=shown(meter, row.quantity),
        unit=rule.unit,
        unit_price=rule.price,
        price_list=price_list.name,
        price_list_version=price_list.version,
        amount=text(amount),
        first_ordinal=row.first_ordinal,
        last_ordinal=row.last_ordinal,
    )
