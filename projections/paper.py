"""An invoice as people read it: in words, and as HTML (``projections.pdf`` prints it). Pure.

Names and addresses are put in here and nowhere before: what is derived and hashed has ids alone.
Times are shown in the customer's zone, with its name, since a month that is billed is one of UTC.
Amounts are the exact ones, so that a reader can add them up; rounding is a line of its own.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import jinja2
from msgspec import Struct

from projections.invoice import ROUNDING, Document, Line
from schemas.billing import BillingSettings, Customer, Invoice
from schemas.units import Micros

PARTY_LINES = 12  # of a name and an address, each on one of its own

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
td, .parties div, p { overflow-wrap: anywhere; unicode-bidi: plaintext; }
thead { display: table-header-group; } tr { break-inside: avoid; }
@page { size: A4; margin: 12mm; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.sum td { border-top: 0.3mm solid #111; }
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
<thead><tr><th>#</th><th>What</th><th>Project</th><th class="n">Quantity</th><th>Unit</th>
<th class="n">Price</th><th class="n">Amount ({{ p.currency }})</th></tr></thead>
{% for line in p.lines %}<tr{% if not line.number %} class="sum"{% endif %}>
<td>{{ line.number or "" }}</td><td>{{ line.what }}</td>
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
    """A line as it is printed; ``number`` 0 is a sum of those before."""

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
    numbers: Mapping[str, str] | None = None,
) -> Paper:
    """Return what is to be printed.

    Args:
        document: what is owed.
        customer: to whom it goes; its newest name and address.
        settings: who issues it.
        invoice: as it stands; None for a draft.
        projects: their names, where they are known.
        numbers: those of invoices that lines correct.
    """
    zone = ZoneInfo(customer.zone)
    status = "draft" if invoice is None else invoice.status
    word = "Credit note" if document.total.startswith("-") else "Invoice"
    number = invoice.number if invoice is not None else ""
    facts = [
        ("Number", number or f"{document.invoice_id} ({status})"),
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
    if invoice is None or invoice.status == "closed":
        total_word = "So far" if invoice is None else "To be paid, once it is issued"
    elif invoice.status == "voided":
        total_word = "Nothing is to be paid: it was voided. It said"
    else:
        total_word = "To be paid back" if word == "Credit note" else "To be paid"
    return Paper(
        title=f"{word} {number}{' (voided)' if status == 'voided' else ''}"
        if number
        else f"{word} {document.period} ({status})",
        issuer=_party(settings.issuer_name, settings.issuer_address, settings.issuer_tax_id),
        customer=_party(customer.name, customer.address, customer.tax_id),
        facts=tuple(facts),
        currency=document.currency,
        lines=_lines(document, projects, numbers or {}),
        total_word=total_word,
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


def _party(name: str, address: str, tax_id: str) -> str:
    lines = [name, *address.splitlines()]
    if len(lines) > PARTY_LINES:  # no word is lost, but no page is filled with it
        lines[PARTY_LINES - 1 :] = [", ".join(lines[PARTY_LINES - 1 :])]
    lines.append(f"Tax ID {tax_id}" if tax_id else "")
    return "\n".join(line for line in lines if line.strip())


def _shown(at: Micros, zone: ZoneInfo) -> str:
    moment = datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(zone)
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname()}"


def _day(at: Micros, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(at // 1_000_000, UTC).astimezone(zone):%Y-%m-%d}"


def _lines(
    document: Document, projects: Mapping[str, str], numbers: Mapping[str, str]
) -> tuple[PaperLine, ...]:
    """Return the lines, with their sum before credits, tax and rounding, if there is any."""
    lines = [_line(line, projects, numbers) for line in document.lines]
    after = [n for n, line in enumerate(document.lines) if _is_after(line)]
    if after:
        lines.insert(after[0], _sum(document))
    return tuple(lines)


def _is_after(line: Line) -> bool:
    return line.category in {"Credit", "Tax"} or line.description == ROUNDING


def _sum(document: Document) -> PaperLine:
    return PaperLine(
        number=0, what="Subtotal", project="", quantity="", unit="", price="", amount=document.net
    )


def _line(line: Line, projects: Mapping[str, str], numbers: Mapping[str, str]) -> PaperLine:
    whole, point, rest = line.quantity.partition(".")
    quantity = (whole + point + rest.rstrip("0")).rstrip(".") if point else whole
    corrected = numbers.get(line.of_invoice) or line.of_invoice
    of = f" (invoice {corrected})" if corrected else ""
    return PaperLine(
        number=line.line,
        what=f"{line.description}{of}",
        project=projects.get(line.project_id, line.project_id),
        quantity=quantity,
        unit=line.unit,
        price=", ".join(line.prices),
        amount=line.amount,
    )
