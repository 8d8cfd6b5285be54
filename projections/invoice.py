"""Invoices: rows in lines, credits, tax, and a total that a person can pay. Pure.

Invariant: the rows add up to the lines, and the lines to the total, exactly: what rounding the
total adds or takes is a row of its own. The same past gives the same rows, to the byte, which the
digest says: the SHA-256 over each row as canonical JSON and a newline.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext
from typing import Protocol

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


class Summed(Struct, frozen=True, kw_only=True):
    """A line of usage that was summed up; its rows lie with all that were, ``at`` a place there."""

    line: Line
    at: int


class Elsewhere(Protocol):
    """Rows that are not in memory, by the places of their lines, in the order of these."""

    def texts(self, first: int, last: int) -> Iterator[memoryview]:
        """Yield them as canonical JSON, each with a newline, some at a time."""
        ...

    def rows(self, first: int, last: int) -> Iterator[tuple[int, Row]]:
        """Yield them with their places."""
        ...


class _Few(Struct, frozen=True):
    """Rows in memory, each with its line."""

    numbered: tuple[tuple[int, Row], ...]

    def rows(self, line: int) -> Iterator[tuple[int, Row]]:
        return (each for each in self.numbered if line in {0, each[0]})

    def texts(self) -> Iterator[bytes]:
        return (_encode(row) + b"\n" for _, row in self.numbered)


class _Many(Struct, frozen=True):
    """Rows of lines that lie together elsewhere; ``lines`` are the numbers by the place."""

    source: Elsewhere
    lines: dict[int, int]

    def rows(self, line: int) -> Iterator[tuple[int, Row]]:
        places = [at for at, number in self.lines.items() if line in {0, number}]
        if places:
            for at, row in self.source.rows(min(places), max(places)):
                yield self.lines[at], row

    def texts(self) -> Iterator[memoryview]:
        return self.source.texts(min(self.lines), max(self.lines))


class DrawnUp(Struct, frozen=True, kw_only=True):
    """An invoice, and the rows behind it: read where they lie, as often as somebody asks."""

    document: Document
    pieces: tuple[_Few | _Many, ...]

    def numbered(self, line: int = 0) -> Iterator[tuple[int, Row]]:
        """Yield each row with its line, in their order; of one line, or of all."""
        for piece in self.pieces:
            yield from piece.rows(line)

    @property
    def rows(self) -> Iterator[Row]:
        """Yield each row, in their order."""
        return (row for _, row in self.numbered())

    def digest(self) -> str:
        """Return the SHA-256 (hex) over the rows as canonical JSON, each with a newline."""
        summary = hashlib.sha256()
        for piece in self.pieces:
            for text_ in piece.texts():
                summary.update(text_)
        return summary.hexdigest()


def draw_up(
    customer: Customer,
    month: str,
    ordinal: Ordinal,
    charged: Sequence[Row],
    credits_: Iterable[Credit],
    problems: Sequence[str] = (),
    summed: Sequence[Summed] = (),
    versions: Iterable[int] = (),
    source: Elsewhere | None = None,
) -> DrawnUp:
    """Return the invoice of rows that are usage, adjustments and corrections.

    Args:
        customer: its terms for the month.
        month: as 2026-10.
        ordinal: where the past ends that the rows follow from.
        charged: what is to be paid, in the order in which it is to be shown.
        credits_: those of the customer, in the order in which they are used up.
        problems: what could not be charged, in words.
        summed: lines of usage whose rows are not among those charged.
        versions: those of the price list that priced what was summed up.
        source: where the rows of these lie; None: nowhere.

    The document has no digest: that takes all rows, and who needs it asks for it.
    """
    start, end = month_bounds(month)
    places = Decimal(1).scaleb(-(decimals(customer.currency) + EXTRA_DECIMALS))
    rows = list(charged)
    with localcontext(prec=DIGITS_MAX):
        net = left = total(rows) + sum((Decimal(each.line.amount) for each in summed), Decimal(0))
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
    lines, pieces = _lines(rows, summed, source)
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
        rows=len(rows) + sum(each.line.rows for each in summed),
        rows_digest="",
        problems=tuple(problems),
    )
    return DrawnUp(document=document, pieces=pieces)


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
        _, first = next(invoice.numbered(correction.line))
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


def _lines(
    rows: Sequence[Row], summed: Sequence[Summed], source: Elsewhere | None
) -> tuple[tuple[Line, ...], tuple[_Few | _Many, ...]]:
    """Gather rows in lines, in the order in which these first appear.

    What was summed up has its place among the lines of usage, by project and sku.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_line_key(row), []).append(row)
    found: list[list[Row] | Summed] = list(groups.values())
    if summed:
        usage: list[list[Row] | Summed] = [of for of in groups.values() if _is_use(of[0])]
        others = [of for of in groups.values() if not _is_use(of[0])]
        found = [*sorted([*usage, *summed], key=_place), *others]
    lines: list[Line] = []
    pieces: list[_Few | _Many] = []
    numbers: dict[tuple[str, ...], int] = {}
    for number, each in enumerate(found, 1):
        if isinstance(each, Summed):
            lines.append(replace(each.line, line=number))
            if source is not None:
                _add(pieces, source, each.at, number)
            continue
        lines.append(_line(number, each))
        numbers[_line_key(each[0])] = number
        if summed and _is_use(each[0]):
            pieces.append(_Few(tuple((number, row) for row in each)))
    rest = tuple((numbers[_line_key(row)], row) for row in rows if not (summed and _is_use(row)))
    return tuple(lines), (*pieces, _Few(rest))


def _add(pieces: list[_Few | _Many], source: Elsewhere, at: int, number: int) -> None:
    """Add the rows of a line: to those before, if they lie next to each other."""
    before = pieces[-1] if pieces else None
    if isinstance(before, _Many) and at - 1 in before.lines:
        before.lines[at] = number
    else:
        pieces.append(_Many(source, {at: number}))


def _is_use(row: Row) -> bool:
    return row.category == "Usage" and not row.charge_class


def _place(of: list[Row] | Summed) -> tuple[str, str]:
    first = of.line if isinstance(of, Summed) else of[0]
    return first.project_id, first.sku


def _line_key(row: Row) -> tuple[str, ...]:
    if _is_use(row):
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
