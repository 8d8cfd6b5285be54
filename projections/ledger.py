"""The ledger: what each customer's use of a month comes to, row by row. Pure.

A row is one piece of usage at one price: of one resource, within one day (UTC), under one version
of a price list and in one tier. Rows follow from the past up to an ordinal and from nothing else,
and so does what is found later: the rows of a closed month that are others now are reversed, and
added as they should have been, in the month that is closed next. Ids only: no name of anybody.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.periods import DIGITS_MAX, invoice_id_of
from engine.domain.state import State
from projections.metering import Interval, Usage, usage
from projections.pricing import MINIMUM, Discount, Part, part_of, price, text
from projections.rating import shown
from schemas.billing import Closing, Customer, PriceList
from schemas.metering import ADDITIVE, Dimensions, MeterDefinition
from schemas.months import month_bounds
from schemas.units import Micros, Ordinal

type Prices = Callable[[Customer], Sequence[PriceList]]  # the versions that a customer pays by
type Category = Literal["Usage", "Credit", "Tax", "Adjustment"]
CORRECTION = "Correction"
REVERSAL, CORRECTED = "Reversal: ", "Corrected: "
_encode = msgspec.json.Encoder(order="sorted").encode


class Past(Struct, frozen=True, kw_only=True):
    """History up to an ordinal, as far as money goes by it.

    ``intervals`` returns those that touch a time, in the order in which they began. ``state`` has
    the prices and terms that held there, ``closings`` what months were closed with.
    """

    ordinal: Ordinal
    intervals: Callable[[Micros, Micros], Iterable[Interval]]
    definitions: Mapping[str, MeterDefinition]
    state: State
    closings: Mapping[str, Closing]


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One charge. Numbers are strings, negative where a row takes back what another had.

    ``price`` is for ``per`` units, before the ``discount`` in percent; ``list_amount`` is what it
    would be without. Of a correction, ``of_invoice`` is the invoice whose row it corrects.
    """

    category: Category
    charge_class: str = ""
    project_id: str = ""
    resource_kind: str = ""
    resource_id: str = ""
    meter: str = ""
    meter_version: int = 0
    dimensions: Dimensions = {}
    sku: str = ""
    description: str = ""
    start: Micros
    end: Micros
    base_quantity: str = ""
    quantity: str = ""
    unit: str = ""
    price: str = ""
    per: int = 1
    model: str = ""
    tier: int = 0
    discount: str = ""
    list_amount: str
    amount: str
    price_list: str = ""
    price_list_version: int = 0
    first_ordinal: Ordinal = 0
    last_ordinal: Ordinal = 0
    of_invoice: str = ""


class MonthRows(Struct, frozen=True, kw_only=True):
    """The rows of a month by customer, and the usage that nobody pays for.

    ``unrated`` is a customer's usage from before any version of its price list was in force.
    """

    rows: dict[str, tuple[Row, ...]]
    unrated: dict[str, tuple[Usage, ...]]
    unassigned: tuple[Usage, ...]


def terms_of(past: Past, customer_id: str, month: str) -> Customer:
    """Return a customer's terms for a month: those in force at its end."""
    _, end = month_bounds(month)
    versions = past.state.customers[customer_id]
    return next((v for v in reversed(versions) if v.valid_from < end), versions[0])


def month_rows(
    past: Past,
    month: str,
    *,
    until: Micros | None = None,
    prices: Prices | None = None,
    left_out: Collection[str] = (),
) -> MonthRows:
    """Return what a month comes to.

    Args:
        past: what there is to know.
        month: as 2026-10.
        until: no usage from this time on; None: the whole month.
        prices: the versions of a list by which a customer is to be charged; None: of its own.
        left_out: customers that are not to be charged at all.
    """
    used = dict(month_usage(past, month, until))
    unassigned = tuple(used.pop("", ()))
    rows: dict[str, tuple[Row, ...]] = {}
    unrated: dict[str, tuple[Usage, ...]] = {}
    for customer_id in sorted(used.keys() - set(left_out)):
        terms = terms_of(past, customer_id, month)
        priced = price(
            used[customer_id],
            past.state.price_lists[terms.price_list] if prices is None else prices(terms),
            past.definitions,
            discounts=[Discount(percent=d.percent, sku=d.sku) for d in terms.discounts],
            daily=True,
        )
        found = (row_of(part, past.definitions[part.usage.meter]) for part in priced.parts)
        rows[customer_id] = tuple(sorted(found, key=_order))
        if priced.unrated:
            unrated[customer_id] = priced.unrated
    return MonthRows(rows=rows, unrated=unrated, unassigned=unassigned)


def with_rows(month: MonthRows, more: Mapping[str, Iterable[Row]]) -> MonthRows:
    """Return a month's rows and more of them, in their order."""
    rows = dict(month.rows)
    for customer_id, found in more.items():
        rows[customer_id] = tuple(sorted([*rows.get(customer_id, ()), *found], key=_order))
    return replace(month, rows=rows)


def month_usage(past: Past, month: str, until: Micros | None = None) -> dict[str, list[Usage]]:
    """Return a month's usage by who pays for it; "" is nobody."""
    start, end = month_bounds(month)
    end = end if until is None else max(start, min(end, until))
    used: dict[str, list[Usage]] = {}
    for row in usage(past.intervals(start, end), start, end):
        if past.definitions[row.meter].aggregation in ADDITIVE:
            for customer_id, part in _paid(row, past.state):
                used.setdefault(customer_id, []).append(part)
    return used


def _paid(row: Usage, state: State) -> Iterator[tuple[str, Usage]]:
    """Cut usage where another begins to pay for the project."""
    payers = state.payers.get(row.project_id, ())
    customer_id = next((p.customer_id for p in reversed(payers) if p.since <= row.start), "")
    start = row.start
    for payer in payers:
        if row.start < payer.since < row.end and payer.customer_id != customer_id:
            yield customer_id, part_of(row, start, payer.since)
            start, customer_id = payer.since, payer.customer_id
    yield customer_id, part_of(row, start, row.end)


def corrections(before: Past, now: Past, month: str) -> dict[str, tuple[Row, ...]]:
    """Return by customer what is found now of a closed month, in the accounting style.

    What its rows were when it was last looked at (``before``) and are no more is reversed; what
    they are instead is added. Both are corrections of the month's invoice, for its days.
    """
    if month_usage(before, month) == month_usage(now, month):
        return {}
    found: dict[str, tuple[Row, ...]] = {}
    old, new = month_rows(before, month).rows, month_rows(now, month).rows
    for customer_id in sorted(old.keys() | new.keys()):
        was, is_ = old.get(customer_id, ()), new.get(customer_id, ())
        invoice_id = invoice_id_of(month, customer_id)
        rows = [reversed_row(row, invoice_id) for row in _without(was, is_)]
        rows += (corrected_row(row, invoice_id) for row in _without(is_, was))
        if rows:
            found[customer_id] = tuple(rows)
    return found


def _without(rows: Sequence[Row], others: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows that are not among others, each counted.

    That another fact is known now to have ended an interval changes nothing of what is owed.
    """
    left = Counter(_said(row) for row in others)
    for row in rows:
        said = _said(row)
        if left[said]:
            left[said] -= 1
        else:
            yield row


def _said(row: Row) -> bytes:
    return _encode(replace(row, first_ordinal=0, last_ordinal=0))


def reversed_row(row: Row, invoice_id: str) -> Row:
    """Return the row that takes back another."""
    return replace(
        row,
        charge_class=CORRECTION,
        description=f"{REVERSAL}{row.description}",
        base_quantity=negative(row.base_quantity),
        quantity=negative(row.quantity),
        list_amount=negative(row.list_amount),
        amount=negative(row.amount),
        of_invoice=invoice_id,
    )


def corrected_row(row: Row, invoice_id: str) -> Row:
    """Return a row as it should have been."""
    return replace(
        row,
        charge_class=CORRECTION,
        description=f"{CORRECTED}{row.description}",
        of_invoice=invoice_id,
    )


def negative(number: str) -> str:
    """Return a decimal with the other sign; what is nothing stays."""
    if not number or not Decimal(number):
        return number
    return number.removeprefix("-") if number.startswith("-") else f"-{number}"


def total(rows: Iterable[Row]) -> Decimal:
    """Return what rows add up to, exactly."""
    with localcontext(prec=DIGITS_MAX):
        return sum((Decimal(row.amount) for row in rows), Decimal(0))


def row_of(part: Part, meter: MeterDefinition) -> Row:
    """Return the row of a priced part."""
    of, rule = part.usage, part.rule
    minimum = part.model == MINIMUM
    return Row(
        category="Adjustment" if minimum else "Usage",
        project_id=of.project_id,
        resource_kind="" if minimum else of.resource_kind,
        resource_id="" if minimum else of.resource_id,
        meter=of.meter,
        meter_version=of.meter_version,
        dimensions={} if minimum else of.dimensions,
        sku=rule.sku,
        description=_described(part, meter),
        start=of.start,
        end=of.end,
        base_quantity=str(part.quantity),
        quantity=shown(meter, part.quantity),
        unit=rule.unit,
        price=part.price,
        per=rule.per,
        model=part.model,
        tier=part.tier,
        discount=part.discount,
        list_amount=text(part.list_amount),
        amount=text(part.amount),
        price_list=part.price_list.name,
        price_list_version=part.price_list.version,
        first_ordinal=of.first_ordinal,
        last_ordinal=of.last_ordinal,
    )


def _described(part: Part, meter: MeterDefinition) -> str:
    sku = part.rule.sku
    if part.model == MINIMUM:
        return f"{sku}: what the month lacks to its minimum of {part.price}"
    if part.model == "flat":
        return f"{sku}: {part.price} a month"
    if part.tier == 0 and part.rule.included is not None:
        return f"{sku}: included"
    units = meter.unit if part.rule.per == 1 else f"{part.rule.per} {meter.unit}"
    return f"{sku}: {part.price} for {units}"


def _order(row: Row) -> tuple[object, ...]:
    return (
        row.category == "Adjustment",
        row.project_id,
        row.sku,
        row.resource_kind,
        row.resource_id,
        row.start,
        row.end,
        row.tier,
        row.price_list_version,
        row.first_ordinal,
        row.last_ordinal,
        sorted(row.dimensions.items()),
        row.base_quantity,
    )
