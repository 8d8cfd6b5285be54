"""An invoice as people read it: HTML, and PDF. Pure.

Names and addresses are put in here and nowhere before: what is derived and hashed has ids alone.
Times are shown in the customer's zone, with its name, since a month that is billed is one of UTC.
Amounts are the exact ones, so that a reader can add them up; rounding is a line of its own.
"""

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

import jinja2
from msgspec import Struct

from projections.invoice import Document, Line
from schemas.billing import BillingSettings, Customer, Invoice
from schemas.units import Micros

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ p.title }}</title>
<style>
body { font: 10pt/1.45 "DejaVu Sans", Helvetica, Arial, sans-serif; color: #111; margin: 18mm; }
h1 { font-size: 18pt; margin: 0 0 6mm; }
.parties { display: flex; gap: 20mm; margin-bottom: 8mm; }
.parties div { white-space: pre-line; }
h2 { font-size: 8pt; text-transform: uppercase; color: #555; margin: 0 0 1mm; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 1.2mm 2mm; border-bottom: 0.2mm solid #ccc; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.total td { font-weight: bold; border-top: 0.5mm solid #111; }
.facts td { border: 0; padding: 0 6mm 0 0; }
footer { color: #555; font-size: 8pt; margin-top: 8mm; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ p.title }}</h1>
<div class="parties">
<div><h2>From</h2>{{ p.issuer }}</div>
<div><h2>To</h2>{{ p.customer }}</div>
</div>
<table class="facts">
{% for name, value in p.facts %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
<h2 style="margin-top: 8mm">Charges</h2>
<table>
<tr><th>#</th><th>What</th><th>Project</th><th class="n">Quantity</th><th>Unit</th>
<th class="n">Price</th><th class="n">Amount ({{ p.currency }})</th></tr>
{% for line in p.lines %}<tr><td>{{ line.number }}</td><td>{{ line.what }}</td>
<td>{{ line.project }}</td><td class="n">{{ line.quantity }}</td><td>{{ line.unit }}</td>
<td class="n">{{ line.price }}</td><td class="n">{{ line.amount }}</td></tr>
{% endfor %}<tr class="total"><td></td><td colspan="5">{{ p.total_word }}</td>
<td class="n">{{ p.total }}</td></tr>
</table>
{% if p.terms %}<p>{{ p.terms }}</p>{% endif %}
<footer>{{ p.proof }}</footer>
</body>
</html>
"""
_template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)


class PaperLine(Struct, frozen=True, kw_only=True):
    """A line as it is printed."""

    number: int
    what: str
    project: str
    quantity: str
    unit: str
    price: str
    amount: str


class Paper(Struct, frozen=True, kw_only=True):
    """All that is printed, in words."""

    title: str
    issuer: str
    customer: str
    facts: tuple[tuple[str, str], ...]
    currency: str
    lines: tuple[PaperLine, ...]
    total_word: str
    total: str
    terms: str
    proof: str


def paper(
    document: Document,
    customer: Customer,
    settings: BillingSettings,
    invoice: Invoice | None,
    projects: Mapping[str, str],
) -> Paper:
    """Return what is to be printed.

    Args:
        document: what is owed.
        customer: to whom it goes; its newest name and address.
        settings: who issues it.
        invoice: as it stands; None for a draft.
        projects: their names, where they are known.
    """
    zone = ZoneInfo(customer.zone)
    status = "draft" if invoice is None else invoice.status
    word = "Credit note" if document.total.startswith("-") else "Invoice"
    number = invoice.number if invoice is not None else ""
    facts = [
        ("Billing period", f"{_shown(document.start, zone)} to {_shown(document.end, zone)}"),
        ("Status", status),
    ]
    if invoice is not None and invoice.issued_at is not None:
        facts.append(("Issued", _day(invoice.issued_at, zone)))
    if invoice is not None and invoice.due_at is not None:
        facts.append(("Payable until", _day(invoice.due_at, zone)))
    if invoice is not None and invoice.void_reason:
        facts.append(("Voided", invoice.void_reason))
    if customer.reference:
        facts.append(("Your reference", customer.reference))
    return Paper(
        title=f"{word} {number}" if number else f"{word} {document.period} ({status})",
        issuer=_party(settings.issuer_name, settings.issuer_address, settings.issuer_tax_id),
        customer=_party(customer.name, customer.address, customer.tax_id),
        facts=tuple(facts),
        currency=document.currency,
        lines=tuple(_line(line, projects) for line in document.lines),
        total_word="To be paid back" if word == "Credit note" else "To be paid",
        total=document.total,
        terms=settings.payment_terms,
        proof=(
            f"{document.invoice_id}: {document.rows} rows from the log up to ordinal "
            f"{document.ordinal}, SHA-256 {document.rows_digest}"
        ),
    )


def as_html(printed: Paper) -> bytes:
    """Return a page that stands by itself."""
    return _template.render(p=printed).encode()


def as_pdf(printed: Paper) -> bytes:
    """Return pages of A4; the same invoice gives the same bytes."""
    from reportlab.lib import colors  # noqa: PLC0415  # a third of a second, and rarely needed
    from reportlab.lib.pagesizes import A4  # noqa: PLC0415  # as above
    from reportlab.lib.styles import getSampleStyleSheet  # noqa: PLC0415  # as above
    from reportlab.lib.units import mm  # noqa: PLC0415  # as above
    from reportlab.platypus import (  # noqa: PLC0415  # as above
        Paragraph,
        SimpleDocTemplate,
        Spacer,
        Table,
        TableStyle,
    )

    styles = getSampleStyleSheet()
    small = styles["BodyText"].clone("small", fontSize=8, leading=10)
    right = small.clone("right", alignment=2)

    def words(text: str, style: Any = small) -> Any:
        return Paragraph(escape(text).replace("\n", "<br/>"), style)

    heads = ("#", "What", "Project", "Quantity", "Unit", "Price", f"Amount ({printed.currency})")
    rows = [[words(head, right if n in {3, 5, 6} else small) for n, head in enumerate(heads)]]
    rows += [
        [
            words(str(line.number)),
            words(line.what),
            words(line.project),
            words(line.quantity, right),
            words(line.unit),
            words(line.price, right),
            words(line.amount, right),
        ]
        for line in printed.lines
    ]
    rows.append([words(""), words(printed.total_word), *[""] * 4, words(printed.total, right)])
    rule = [
        ("LINEBELOW", (0, 0), (-1, -2), 0.25, colors.lightgrey),
        ("LINEABOVE", (0, -1), (-1, -1), 1, colors.black),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ]
    top = TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP")])
    widths = [width * mm for width in (8, 42, 34, 26, 22, 20, 26)]
    parties = [[words(f"From\n{printed.issuer}"), words(f"To\n{printed.customer}")]]
    facts = [[words(name), words(value)] for name, value in printed.facts]
    out = io.BytesIO()
    SimpleDocTemplate(
        out, pagesize=A4, title=printed.title, author=printed.issuer.partition("\n")[0],
        leftMargin=16 * mm, rightMargin=16 * mm, invariant=1,
    ).build(
        [
            words(printed.title, styles["Title"]),
            Table(parties, colWidths=[89 * mm] * 2, style=top),
            Spacer(1, 6 * mm),
            Table(facts, colWidths=[40 * mm, 138 * mm]),
            Spacer(1, 6 * mm),
            Table(rows, colWidths=widths, style=TableStyle(rule), repeatRows=1),
            Spacer(1, 6 * mm),
            words(printed.terms),
            words(printed.proof),
        ]
    )  # fmt: skip
    return out.getvalue()


def _party(name: str, address: str, tax_id: str) -> str:
    return "\n".join(part for part in (name, address, tax_id) if part)


def _shown(at: Micros, zone: ZoneInfo) -> str:
    moment = datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(zone)
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname()}"


def _day(at: Micros, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(zone):%Y-%m-%d}"


def _line(line: Line, projects: Mapping[str, str]) -> PaperLine:
    whole, point, rest = line.quantity.partition(".")
    quantity = (whole + point + rest.rstrip("0")).rstrip(".") if point else whole
    of = f" (invoice {line.of_invoice})" if line.of_invoice else ""
    return PaperLine(
        number=line.line,
        what=f"{line.description}{of}",
        project=projects.get(line.project_id, line.project_id),
        quantity=quantity,
        unit=line.unit,
        price=", ".join(line.prices),
        amount=line.amount,
    )
