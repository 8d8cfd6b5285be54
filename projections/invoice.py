"""Invoices: rows in lines, credits, tax, and a total that a person can pay. Pure.

Invariant: the rows add up to the lines, and the lines to the total, exactly: what rounding the
total adds or takes is a row of its own. The same past gives the same rows, to the byte, which the
digest says: the SHA-256 over each row as canonical JSON and a newline.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.periods import DIGITS_MAX, invoice_id_of
from projections.ledger import CORRECTED, REVERSAL, Row, corrected_row, reversed_row, total
from projections.pricing import EXTRA_DECIMALS, text
from schemas.billing import ClosedInvoice, Credit, Customer, LineCorrection
from schemas.currency import decimals
from schemas.months import month_bounds
from schemas.units import Micros, Ordinal

ROUNDING = "Rounding of the total to the currency's smallest unit"

_encode = msgspec.json.Encoder(order="sorted").encode


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one sku costs one project, or a credit, a tax, a correction. Lines count from 1."""

    line: int
    category: str
    charge_class: str = ""
    project_id: str = ""
    sku: str = ""
    description: str
    quantity: str = ""
    unit: str = ""
    prices: tuple[str, ...] = ()
    amount: str
    rows: int
    first_ordinal: Ordinal = 0
    last_ordinal: Ordinal = 0
    of_invoice: str = ""


class Document(Struct, frozen=True, kw_only=True):
    """What a customer owes for a month. Ids only; names are put in when it is shown.

    ``net`` is before credits and tax, ``rows_digest`` over all rows. ``ordinal`` is where the past
    ends that it follows from. ``problems`` are usage and corrections that could not be charged.
    """

    invoice_id: str
    customer_id: str
    period: str
    start: Micros
    end: Micros
    currency: str
    price_list: str
    price_list_versions: tuple[int, ...]
    ordinal: Ordinal
    lines: tuple[Line, ...]
    net: str
    credits: dict[str, str]
    tax: str
    rounding: str
    total: str
    rows: int
    rows_digest: str
    problems: tuple[str, ...] = ()


class DrawnUp(Struct, frozen=True, kw_only=True):
    """An invoice with the rows behind it; ``line_of`` says of each row its line."""

    document: Document
    rows: tuple[Row, ...]
    line_of: tuple[int, ...]


def draw_up(
    customer: Customer,
    month: str,
    ordinal: Ordinal,
    charged: Sequence[Row],
    credits_: Iterable[Credit],
    problems: Sequence[str] = (),
    summed: Sequence[Line] = (),
    versions: Iterable[int] = (),
) -> DrawnUp:
    """Return the invoice of rows that are usage, adjustments and corrections.

    Args:
        customer: its terms for the month.
        month: as 2026-10.
        ordinal: where the past ends that the rows follow from.
        charged: what is to be paid, in the order in which it is to be shown.
        credits_: those of the customer, in the order in which they are used up.
        problems: what could not be charged, in words.
        summed: lines of usage whose rows are not among those charged. There is no digest then.
        versions: those of the price list that priced what was summed up.
    """
    start, end = month_bounds(month)
    places = Decimal(1).scaleb(-(decimals(customer.currency) + EXTRA_DECIMALS))
    rows = list(charged)
    with localcontext(prec=DIGITS_MAX):
        net = left = total(rows) + sum((Decimal(line.amount) for line in summed), Decimal(0))
        used: dict[str, str] = {}
        for credit in credits_:
            taken = min(Decimal(credit.remaining), left)
            if taken <= 0:
                continue
            left -= taken
            used[credit.credit_id] = text(taken)
            rows.append(_sum("Credit", f"Credit: {credit.reason}", -taken, start, end))
        tax = (left * Decimal(customer.tax_percent)).scaleb(-2)
        tax = tax.quantize(places, rounding=ROUND_HALF_EVEN)
        if Decimal(customer.tax_percent):
            named = f"{customer.tax_name or 'Tax'} {customer.tax_percent} %"
            rows.append(_sum("Tax", named, tax, start, end))
        owed = left + tax
        due = owed.quantize(Decimal(1).scaleb(-decimals(customer.currency)), rounding=ROUND_HALF_UP)
        if due != owed:
            rows.append(_sum("Adjustment", ROUNDING, due - owed, start, end))
    lines, line_of = _lines(rows)
    if summed:
        lines, line_of = _with(lines, summed), ()
    document = Document(
        invoice_id=invoice_id_of(month, customer.customer_id),
        customer_id=customer.customer_id,
        period=month,
        start=start,
        end=end,
        currency=customer.currency,
        price_list=customer.price_list,
        price_list_versions=tuple(
            sorted({*versions, *(row.price_list_version for row in rows if row.price_list_version)})
        ),
        ordinal=ordinal,
        lines=lines,
        net=text(net),
        credits=used,
        tax=text(tax),
        rounding=text(due - owed),
        total=text(due),
        rows=len(rows) + sum(line.rows for line in summed),
        rows_digest="" if summed else digest_of(rows),
        problems=tuple(problems),
    )
    return DrawnUp(document=document, rows=tuple(rows), line_of=line_of)


def closed(document: Document) -> ClosedInvoice:
    """Return what is recorded of an invoice when its month is closed."""
    return ClosedInvoice(
        invoice_id=document.invoice_id,
        customer_id=document.customer_id,
        currency=document.currency,
        rows=document.rows,
        rows_digest=document.rows_digest,
        net=document.net,
        tax=document.tax,
        total=document.total,
        credits=document.credits,
    )


def digest_of(rows: Iterable[Row]) -> str:
    """Return the SHA-256 (hex) over rows as canonical JSON, each with a newline."""
    summary = hashlib.sha256()
    for row in rows:
        summary.update(_encode(row) + b"\n")
    return summary.hexdigest()


def period_digest(documents: Iterable[Document]) -> str:
    """Return the SHA-256 (hex) over the digests of a month's invoices, in their order."""
    text_ = "".join(f"{d.invoice_id} {d.rows_digest}\n" for d in documents)
    return hashlib.sha256(text_.encode()).hexdigest()


def settled(
    corrections: Sequence[LineCorrection], drawn_up: Mapping[str, DrawnUp], since: int
) -> tuple[dict[str, list[Row]], list[str]]:
    """Return by customer the rows that settle disputes about lines, and what there is no line for.

    Args:
        corrections: all that were recorded, in their order.
        drawn_up: the invoices that they are about.
        since: how many of them were settled before.
    """
    rows: dict[str, list[Row]] = {}
    problems: list[str] = []
    now: dict[tuple[str, int], str] = {}  # what a line comes to after those before
    for number, correction in enumerate(corrections):
        invoice = drawn_up.get(correction.invoice_id)
        lines = () if invoice is None else invoice.document.lines
        line = next((each for each in lines if each.line == correction.line), None)
        if invoice is None or line is None:
            if number >= since:
                problems.append(
                    f"correction {correction.correction_id}: {correction.invoice_id} has no "
                    f"line {correction.line}"
                )
            continue
        key = correction.invoice_id, correction.line
        before, now[key] = now.get(key, line.amount), correction.amount
        if number < since:
            continue
        first = next(
            row
            for row, of in zip(invoice.rows, invoice.line_of, strict=True)
            if of == correction.line
        )
        row = Row(
            category=first.category,
            project_id=line.project_id,
            sku=line.sku,
            meter=first.meter,
            description=f"{line.description} ({correction.reason})",
            start=invoice.document.start,
            end=invoice.document.end,
            list_amount=before,
            amount=before,
            price_list=first.price_list,
            first_ordinal=line.first_ordinal,
            last_ordinal=line.last_ordinal,
        )
        wanted = replace(row, list_amount=correction.amount, amount=correction.amount)
        rows.setdefault(invoice.document.customer_id, []).extend(
            [
                reversed_row(row, correction.invoice_id),
                corrected_row(wanted, correction.invoice_id),
            ]
        )
    return rows, problems


def _sum(category: str, description: str, amount: Decimal, start: Micros, end: Micros) -> Row:
    said = text(amount)
    return Row(
        category=category,  # type: ignore[arg-type]  # one of those there are
        description=description,
        start=start,
        end=end,
        list_amount=said,
        amount=said,
    )


def _lines(rows: Sequence[Row]) -> tuple[tuple[Line, ...], tuple[int, ...]]:
    """Gather rows in lines, in the order in which these first appear."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_line_key(row), []).append(row)
    numbers = {key: number for number, key in enumerate(groups, 1)}
    lines = tuple(_line(number, groups[key]) for key, number in numbers.items())
    return lines, tuple(numbers[_line_key(row)] for row in rows)


def _with(lines: Sequence[Line], summed: Sequence[Line]) -> tuple[Line, ...]:
    """Return lines with those that were summed up in their places, and number them anew."""
    usage = [line for line in lines if line.category == "Usage" and not line.charge_class]
    others = [line for line in lines if line.category != "Usage" or line.charge_class]
    usage = sorted([*usage, *summed], key=lambda line: (line.project_id, line.sku))
    return tuple(replace(line, line=number) for number, line in enumerate([*usage, *others], 1))


def _line_key(row: Row) -> tuple[str, ...]:
    if row.category == "Usage" and not row.charge_class:
        return "Usage", row.project_id, row.sku
    kind = REVERSAL if row.description.startswith(REVERSAL) else row.charge_class
    if row.category == "Usage":
        return "Usage", kind, row.of_invoice, row.project_id, row.sku
    return row.category, kind, row.of_invoice, row.sku, row.description


def _line(number: int, rows: list[Row]) -> Line:
    first = rows[0]
    quantities = [Decimal(row.quantity) for row in rows if row.quantity]
    sku = first.sku
    described = first.description
    if first.category == "Usage" and first.quantity:
        word = REVERSAL if first.description.startswith(REVERSAL) else CORRECTED
        described = f"{word}{sku}" if first.charge_class else sku
    with localcontext(prec=DIGITS_MAX):
        return Line(
            line=number,
            category=first.category,
            charge_class=first.charge_class,
            project_id=first.project_id,
            sku=sku,
            description=described,
            quantity=text(sum(quantities, Decimal(0))) if quantities else "",
            unit=first.unit,
            prices=tuple(dict.fromkeys(row.price for row in rows if row.price)),
            amount=text(total(rows)),
            rows=len(rows),
            first_ordinal=min(row.first_ordinal for row in rows),
            last_ordinal=max(row.last_ordinal for row in rows),
            of_invoice=first.of_invoice,
        )
