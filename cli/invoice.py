"""Commands about invoices: drafted, closed, issued, explained, verified. Amounts are text."""

import json
from datetime import datetime
from itertools import batched, groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Client, quoted
from cli.customer import CUSTOMERS
from cli.output import Column, Output, Row, when
from cli.problem import REFUSED, USAGE, Problem
from cli.session import Session, command, group

invoice_app = group("What customers owe for a month: drafts, invoices, and why.")
WALK_S = 700.0
ISSUED_AT_ONCE = 1000  # as many as the API takes

Month = Annotated[str | None, typer.Option(help="A month, as 2026-10; none: the last one.")]
OfCustomer = Annotated[str | None, typer.Option("--customer", help="Of this customer alone.")]
AnInvoice = Annotated[
    str, typer.Argument(metavar="INVOICE", help="Its number, or MONTH.CUSTOMER, a draft's too.")
]


def _dated(row: Row, name: str) -> str:
    return when(row.get(name))[:10]


LIST_COLUMNS: list[Column] = [
    ("NUMBER", "number"),
    ("ID", "id"),
    ("MONTH", "period"),
    ("CUSTOMER", "customer_name"),
    ("STATUS", "status"),
    ("NET", "net"),
    ("TAX", "tax"),
    ("TOTAL", "total"),
    ("CURRENCY", "currency"),
    ("ISSUED", lambda row: _dated(row, "issued_at")),
    ("DUE", lambda row: _dated(row, "due_at")),
]
DRAFT_COLUMNS: list[Column] = [
    ("ID", "invoice_id"),
    ("CUSTOMER", "customer_name"),
    ("NET", "net"),
    ("TAX", "tax"),
    ("TOTAL", "total"),
    ("CURRENCY", "currency"),
    ("LINES", lambda row: len(row["lines"])),
    ("ROWS", "rows"),
]
LINE_COLUMNS: list[Column] = [
    ("LINE", "line"),
    ("PROJECT", "project_id"),
    ("WHAT", "description"),
    ("QUANTITY", lambda row: _short(row.get("quantity", ""))),
    ("UNIT", "unit"),
    ("PRICE", lambda row: ", ".join(row.get("prices", ()))),
    ("AMOUNT", "amount"),
]
HELD_COLUMNS: list[Column] = [
    ("RESOURCE", lambda row: f"{row['resource_kind']} {row['resource_id']}"),
    ("FROM", lambda row: when(row["start"])),
    ("TO", lambda row: when(row["end"])),
    ("QUANTITY", lambda row: _short(row["quantity"])),
    ("AMOUNT", "amount"),
    ("BEGUN BY", lambda row: _cause(row["begun_by"])),
    ("ENDED BY", lambda row: _cause(row["ended_by"])),
]
MONTH_COLUMNS: list[Column] = [
    ("MONTH", "period"),
    ("ORDINAL", "ordinal"),
    ("CHAIN", lambda row: row["chain_hash"][:16]),
    ("ROWS DIGEST", lambda row: row["rows_digest"][:16]),
    ("PRICES", lambda row: ", ".join(f"{n} {v}" for n, v in row["price_list_versions"].items())),
]


def _short(quantity: str) -> str:
    """Return a quantity without the zeros that say nothing."""
    whole, point, rest = quantity.partition(".")
    return (whole + point + rest.rstrip("0")).rstrip(".") if point else quantity


def _cause(cause: Row | None) -> str:
    if cause is None:
        return ""
    said = f"{cause['fact']} @{cause['ordinal']}"
    if cause.get("request_id"):
        by = f" by {cause['user_id']}" if cause.get("user_id") else ""  # a host is no user
        said += f" ← {cause['action']}{by} ({cause['request_id']})"
    return said


def last_month(now: datetime) -> str:
    """Return the month before a time's."""
    year, month = (now.year, now.month - 1) if now.month > 1 else (now.year - 1, 12)
    return f"{year:04d}-{month:02d}"


def _named(client: Client, rows: list[Row]) -> list[Row]:
    names = {row["id"]: row["name"] for row in CUSTOMERS.list(client)}
    return [
        {**row, "customer_name": names.get(row["customer_id"], row["customer_id"])} for row in rows
    ]


def identify(client: Client, reference: str) -> str:
    """Return an invoice's id, by its number or as it is."""
    found = client.get("/v1/invoices", number=reference)["invoices"]
    return str(found[0]["id"]) if found else reference


@command(invoice_app, "list", reads=True)
def list_(session: Session, *, month: Month = None, customer: OfCustomer = None) -> None:
    """List the invoices of closed months, the newest first."""
    who = CUSTOMERS.identify(session.client, customer) if customer else None
    found = _listed(session.client, month=month, customer=who)
    session.show_all(_named(session.client, found), LIST_COLUMNS)


def _listed(client: Client, **asked: str | None) -> list[Row]:
    """Return invoices of closed months, page by page, the newest first."""
    found: list[Row] = []
    marker = None
    while page := client.get("/v1/invoices", marker=marker, limit=1000, **asked)["invoices"]:
        found += page
        marker = page[-1]["id"]
    return found


@command(invoice_app, "months", reads=True)
def months(session: Session) -> None:
    """List closed months, and what each was closed with."""
    session.show_all(session.client.get("/v1/billing/months")["months"], MONTH_COLUMNS)


@command(invoice_app, "draft", reads=True)
def draft(session: Session, *, month: Month = None, customer: OfCustomer = None) -> None:
    """Show what a month comes to so far, by customer, and what nobody pays for.

    Example: cumulog invoice draft --month 2026-10
    """
    who = CUSTOMERS.identify(session.client, customer) if customer else None
    session.client.timeout_s = WALK_S
    path = f"/v1/billing/months/{quoted(month or last_month(session.now))}"
    told = session.client.get(path, customer=who)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    session.show_all(_named(session.client, told["invoices"]), DRAFT_COLUMNS)
    for invoice in told["invoices"]:
        for problem in invoice["problems"]:
            print(f"{invoice['invoice_id']}: {problem}")
    for row in told["unassigned"]:
        print(f"nobody pays for {row['meter']} of project {row['project_id']}")


@command(invoice_app, "show", reads=True)
def show(session: Session, reference: AnInvoice) -> None:
    """Show an invoice, line by line; or the draft of one, as 2026-11.CUSTOMER."""
    session.client.timeout_s = WALK_S
    path = f"/v1/invoices/{quoted(identify(session.client, reference))}"
    invoice = session.client.get(path)["invoice"]
    if session.output is not Output.TABLE:
        session.show(invoice)
        return
    print(
        f"{invoice.get('number') or invoice['invoice_id']}: {invoice['status']}, "
        f"month {invoice['period']}, customer {invoice['customer_id']}\n"
    )
    session.show_all(invoice["lines"], LINE_COLUMNS)
    print(f"\nTotal {invoice['total']} {invoice['currency']}")
    for problem in invoice["problems"]:
        print(f"not charged: {problem}")


@command(invoice_app, "print", reads=True)
def print_(
    session: Session,
    reference: AnInvoice,
    *,
    out: Annotated[Path, typer.Option(help="Where to write it: a name in .pdf or .html.")],
) -> None:
    """Write an invoice, or a draft, as a page that a customer can read.

    Example: cumulog invoice print INV-2026-000001 --out november.pdf
    """
    form = out.suffix.removeprefix(".").lower()
    if form not in {"pdf", "html"}:
        raise Problem("--out ends in .pdf or .html", exit_code=USAGE)
    session.client.timeout_s = WALK_S
    identity = identify(session.client, reference)
    _write(out, session.client.content(f"/v1/invoices/{quoted(identity)}/page", format=form))
    session.say(f"wrote {out}")


@command(invoice_app, "focus", reads=True)
def focus(
    session: Session,
    *,
    out: Annotated[Path, typer.Option(help="Where to write it: a name in .csv or .parquet.")],
    month: Month = None,
    customer: OfCustomer = None,
    dataset: Annotated[
        str, typer.Option(help="cost-and-usage, invoice-detail or billing-period.")
    ] = "cost-and-usage",
    version: Annotated[str, typer.Option("--focus", help="1.4, or 1.2.")] = "1.4",
) -> None:
    """Write a month's invoices as a FOCUS dataset, with its metadata beside (OUT.json).

    Drafts while the month is open (replace the file each time), final once it is closed.

    Example: cumulog invoice focus --month 2026-10 --out october.parquet
    """
    form = out.suffix.removeprefix(".").lower()
    if form not in {"csv", "parquet"}:
        raise Problem("--out ends in .csv or .parquet", exit_code=USAGE)
    client = session.client
    client.timeout_s = WALK_S
    path = f"/v1/billing/months/{quoted(month or last_month(session.now))}/focus"
    asked = {
        "customer": CUSTOMERS.identify(client, customer) if customer else None,
        "dataset": dataset,
        "version": version,
        "format": form,
    }
    unfinished = out.with_name(f".{out.name}.part")
    try:
        with unfinished.open("wb") as file:
            told = client.download(path, file, **asked)["x-cumulog-focus-metadata"]
        unfinished.replace(out)
    except OSError as error:
        raise Problem(f"cannot write {out}: {error.strerror or error}", exit_code=USAGE) from None
    finally:
        unfinished.unlink(missing_ok=True)
    beside = out.with_name(out.name + ".json")
    _write(beside, json.dumps(json.loads(told), indent=1).encode())
    session.say(f"wrote {out} and {beside}")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror or error}", exit_code=USAGE) from None


@command(invoice_app, "explain", reads=True)
def explain(
    session: Session,
    reference: AnInvoice,
    line: Annotated[int, typer.Argument(min=1, help="The line's number.")],
) -> None:
    """Show what is behind a line: stretches of use, the facts that bound them, and who asked.

    Example: cumulog invoice explain INV-2026-000001 2
    """
    session.client.timeout_s = WALK_S
    identity = identify(session.client, reference)
    told = session.client.get(f"/v1/invoices/{quoted(identity)}/lines/{line}")
    if session.output is not Output.TABLE:
        session.show(told)
        return
    said = f"{told['description']}: {told['amount']}, {told['rows_total']} rows"
    print(f"Line {told['line']}, {said}\n")
    session.show_all(told["held"], HELD_COLUMNS)


@command(invoice_app, "close")
def close(
    session: Session,
    month: Annotated[str, typer.Argument(help="The month, as 2026-10.")],
) -> None:
    """Close a month: what it comes to is recorded, and is the same for ever.

    The log is verified first. What is found later is billed in the next month.
    """
    session.client.timeout_s = WALK_S
    told = session.client.post(f"/v1/billing/months/{quoted(month)}/close", {})
    if session.output is not Output.TABLE:
        session.show(told)
        return
    closing = told["closing"]
    print(
        f"closed {month} at ordinal {closing['ordinal']} with {len(closing['invoices'])} invoices, "
        f"rows {closing['rows_digest']}"
    )


@command(invoice_app, "issue")
def issue(
    session: Session,
    references: Annotated[
        list[str] | None, typer.Argument(metavar="[INVOICE...]", help="Ids; none: see --month.")
    ] = None,
    *,
    month: Annotated[
        str | None, typer.Option(help="All of this month that are not issued yet.")
    ] = None,
) -> None:
    """Give invoices their numbers, once the month has been derived anew and come out the same."""
    client = session.client
    client.timeout_s = WALK_S
    wanted = list(references or ())
    if month:
        found = _listed(client, month=month, status="closed")
        wanted += [row["id"] for row in reversed(found)]
    elif not wanted:
        raise Problem("say which invoices, or --month", exit_code=USAGE)
    issued: list[Row] = []
    for _, of_month in groupby(wanted, key=lambda each: each.partition(".")[0]):
        for first, *also in batched(of_month, ISSUED_AT_ONCE):
            path = f"/v1/invoices/{quoted(first)}/issue"
            issued += client.post(path, {"also": also})["issued"]
    session.show_all(issued, [("NUMBER", "number"), ("ID", "invoice_id")])


@command(invoice_app, "void")
def void(
    session: Session,
    reference: AnInvoice,
    *,
    reason: Annotated[str, typer.Option(help="Why.")],
) -> None:
    """Let an invoice be owed no longer. It keeps its number, and its credits come back."""
    identity = identify(session.client, reference)
    session.client.submit({"type": "VoidInvoice", "invoice_id": identity, "reason": reason})
    session.say(f"voided {reference}")


@command(invoice_app, "correct")
def correct(
    session: Session,
    reference: AnInvoice,
    line: Annotated[int, typer.Argument(min=1, help="The line's number.")],
    amount: Annotated[str, typer.Argument(help="What it should have been.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it stands on the next invoice.")],
) -> None:
    """Settle a dispute: the next invoice reverses the line and has it as it should have been.

    Example: cumulog invoice correct INV-2026-000001 2 10.00 --reason "the server was down"
    """
    action = {
        "type": "CorrectLine",
        "invoice_id": identify(session.client, reference),
        "line": line,
        "amount": amount,
        "reason": reason,
    }
    session.show(session.client.submit(action)["reply"])


@command(invoice_app, "verify")
def verify(
    session: Session,
    reference: Annotated[
        str, typer.Argument(metavar="INVOICE|MONTH", help="An invoice, or a closed month.")
    ],
) -> None:
    """Derive an invoice's month anew from the log and compare, to the byte. Exit code 1 if not.

    Example: cumulog invoice verify 2026-10
    """
    session.client.timeout_s = WALK_S
    month = identify(session.client, reference).partition(".")[0]
    told = session.client.post(f"/v1/billing/months/{quoted(month)}/verify", {})
    if session.output is Output.TABLE:
        for found in told["differences"]:
            print(f"{found['what']}: recorded {found['recorded']}, derived {found['derived']}")
        said = "comes out as it was recorded" if told["verified"] else "comes out as another"
        print(f"{month} {said}: ordinal {told['ordinal']}, rows {told['rows_digest']}")
    else:
        session.show(told)
    if not told["verified"]:
        raise typer.Exit(REFUSED)


@command(invoice_app, "settings")
def settings(
    session: Session,
    *,
    issuer: Annotated[str | None, typer.Option(help="Who issues invoices.")] = None,
    address: Annotated[str | None, typer.Option(help="The issuer's address.")] = None,
    tax_id: Annotated[str | None, typer.Option(help="The issuer's tax number.")] = None,
    terms: Annotated[str | None, typer.Option(help="What invoices say of payment.")] = None,
    days: Annotated[int | None, typer.Option(help="Days until payment is due.")] = None,
    grace: Annotated[
        int | None, typer.Option(help="Hours after a month's end that reports are waited for.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="What numbers begin with.")] = None,
) -> None:
    """Set what holds for all invoices; what is not named stays."""
    given: dict[str, Any] = {
        "issuer_name": issuer,
        "issuer_address": address,
        "issuer_tax_id": tax_id,
        "payment_terms": terms,
        "payment_days": days,
        "grace_hours": grace,
        "prefix": prefix,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        raise Problem("say what to set", exit_code=USAGE)
    session.client.submit({"type": "SetBilling", **changed})
    session.say("set")
