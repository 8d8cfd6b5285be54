"""Months and invoices: drafts, closing, issuing, and every line down to somebody's request.

Sums are read here; rows are derived by the archiver, which alone can close a month. An invoice is
issued only once its month has been derived anew and has come out as it was recorded. It is voided
and corrected by submitting the actions ``VoidInvoice`` and ``CorrectLine``.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

import msgspec

from api.errors import Denied
from api.exchange import Answer, Call, json_answer
from api.native.actions import unknown_keys
from api.native.history import WALK_S, ask, asked
from api.pagination import page_of
from api.routing import Routes
from api.writing import write
from projections.accounting import InvoiceAnswer
from projections.exports import ExportAnswer
from projections.handover import Piece
from projections.paper import Paper, as_html, paper
from projections.pdf import as_pdf
from projections.timemachine.past import PastReader
from schemas.billing import (
    ISSUED_AT_ONCE,
    STANDARD,
    Currency,
    Invoice,
    IssueInvoice,
    PriceRule,
)
from schemas.envelope import Refused
from schemas.errors import InvalidInput, NotFound, Unavailable
from schemas.ids import Id
from schemas.metering import MeterKey
from schemas.units import Micros, Name

READ, READ_MONTHS = "billing:invoices:read", "billing:periods:read"
BILL_S = 120.0


class Others(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Invoices of the same month that are issued with one: the month is derived once for all."""

    also: Annotated[tuple[Id, ...], msgspec.Meta(max_length=ISSUED_AT_ONCE)] = ()


class Draft(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price list that is not published; see ``PublishPriceList``."""

    name: Name = STANDARD
    currency: Currency
    rules: Annotated[tuple[PriceRule, ...], msgspec.Meta(min_length=1, max_length=1000)]
    valid_from: Micros | None = None
    free: Annotated[tuple[MeterKey, ...], msgspec.Meta(max_length=100)] = ()


PAGES: dict[str, tuple[bytes, Callable[[Paper], bytes]]] = {
    "html": (b"text/html; charset=utf-8", as_html),
    "pdf": (b"application/pdf", as_pdf),
}
# A page loads nothing, and runs nothing.
CSP = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
METADATA = b"x-cumulog-focus-metadata"
FILES = {"csv": b"text/csv; charset=utf-8", "parquet": b"application/vnd.apache.parquet"}

_derived = msgspec.json.Decoder(InvoiceAnswer).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_prices = msgspec.json.Decoder(Draft)
_others = msgspec.json.Decoder(Others)
_nothing = msgspec.json.Decoder(dict[str, Any])


async def list_months(call: Call) -> Answer:
    """GET /v1/billing/months: what closed months were closed with, oldest first."""
    return json_answer({"months": call.edge.reader.periods()})


async def show_month(call: Call) -> Answer:
    """GET /v1/billing/months/{month}: its invoices, or drafts while it is open."""
    asked = {"month": call.args[0], "customer": call.param("customer")}
    return await ask(call, "month", asked, BILL_S)


async def close_month(call: Call) -> Answer:
    """POST /v1/billing/months/{month}/close: derive it, and close it with what it comes to."""
    asked = {
        "month": call.args[0],
        "user_id": call.principal.user_id,
        "request_id": call.request_id,
    }
    answer = await ask(call, "close", asked, WALK_S)
    await ask(call, "checkpoint", {}, WALK_S)  # so that the tuple is signed outside the broker
    return answer


async def what_if(call: Call) -> Answer:
    """POST /v1/billing/months/{month}/what-if: the month under a price list not published."""
    prices = await call.decode(_prices)
    unknown = sorted(unknown_keys(_object(await call.body()), prices))
    if unknown:
        raise InvalidInput(f"a price list has no {', '.join(unknown)[:200]}")
    draft = {"type": "PublishPriceList", **msgspec.to_builtins(prices)}
    asked = {"month": call.args[0], "prices": draft}
    return await ask(call, "what_if", asked, BILL_S)


async def forecast(call: Call) -> Answer:
    """GET /v1/billing/months/{month}/forecast: what it will come to if what is held stays."""
    asked = {"month": call.args[0], "customer": call.param("customer")}
    return await ask(call, "forecast", asked, BILL_S)


async def verify_month(call: Call) -> Answer:
    """POST /v1/billing/months/{month}/verify: derive it anew and compare."""
    return await ask(call, "verify_month", {"month": call.args[0]}, WALK_S)


async def list_all(call: Call) -> Answer:
    """GET /v1/invoices: of closed months, the newest first."""
    page = page_of(call)
    found = call.edge.reader.invoices(
        customer_id=call.param("customer") or None,
        period=call.param("month") or None,
        status=call.param("status") or None,
        number=call.param("number") or None,
        marker=page.marker,
        limit=page.limit,
    )
    return json_answer({"invoices": [_view(invoice) for invoice in found]})


async def show(call: Call) -> Answer:
    """GET /v1/invoices/{id}: with its lines; MONTH.CUSTOMER is the draft of an open month."""
    answer = await ask(call, "invoice", {"invoice": call.args[0]}, BILL_S)
    derived = _nothing.decode(answer.body)
    invoice = call.edge.reader.invoice(call.args[0])
    view: dict[str, Any] = {"status": "draft"} if invoice is None else _view(invoice)
    return json_answer({"invoice": derived["invoice"] | view})


async def page(call: Call) -> Answer:
    """GET /v1/invoices/{id}/page: as people read it; ``format`` is html (or none) or pdf."""
    form = call.param("format") or "html"
    if form not in PAGES:
        raise InvalidInput("format must be html or pdf")
    answer = await ask(call, "invoice", {"invoice": call.args[0]}, BILL_S)
    document = _derived(answer.body).invoice
    reader = call.edge.reader
    with reader.snapshot():
        customer = reader.customer(document.customer_id)
        if customer is None:
            raise NotFound(f"there is no customer {document.customer_id!r}")
        ids = {line.project_id for line in document.lines if line.project_id}
        names = {i: project.name for i in ids if (project := reader.project(i)) is not None}
        corrected = {line.of_invoice for line in document.lines if line.of_invoice}
        printed = paper(
            document,
            customer,
            reader.billing_settings(),
            reader.invoice(document.invoice_id),
            names,
            {i: found.number for i in corrected if (found := reader.invoice(i)) is not None},
        )
    content_type, render = PAGES[form]
    content = await asyncio.to_thread(render, printed)
    return Answer(
        200, content, content_type=content_type, headers=[(b"content-security-policy", CSP)]
    )


async def focus(call: Call) -> Answer:
    """GET /v1/billing/months/{month}/focus: a FOCUS dataset; ``part`` metadata goes with it.

    ``dataset`` cost-and-usage (or none), invoice-detail, billing-period; ``format`` csv or parquet;
    ``version`` 1.4, or 1.2 of cost-and-usage. The metadata of a file is in its header
    ``X-Cumulog-Focus-Metadata`` too.
    """
    names = ("customer", "dataset", "version", "format")
    wanted: dict[str, Any] = {n: value for n in names if (value := call.param(n))}
    part = call.param("part") or "content"
    if part not in {"content", "metadata"}:
        raise InvalidInput("part must be content or metadata")
    wanted |= {"month": call.args[0], "content": part == "content"}
    if isinstance(call.edge.reader, PastReader):
        wanted["moment"] = call.edge.reader.moment
    export = msgspec.convert(await asked(call, "focus", wanted, WALK_S), ExportAnswer)
    if part == "metadata":
        return json_answer({"metadata": export.metadata})
    told = json.dumps(export.metadata, separators=(",", ":")).encode()  # ASCII, as headers are
    return Answer(
        200,
        content_type=FILES[wanted.get("format", "csv")],
        headers=[(METADATA, told), (b"cache-control", b"no-store")],
        stream=_pieces(call, export),
    )


async def _pieces(call: Call, export: ExportAnswer) -> AsyncGenerator[bytes]:
    """Yield a file as the archiver hands it over; what breaks off has no end."""
    yield export.content
    reached = len(export.content)
    while reached < export.bytes:
        question = {"file": export.file, "offset": reached}
        content = msgspec.convert(await asked(call, "piece", question, WALK_S), Piece).content
        if not content:
            raise Unavailable("the file ends early")
        reached += len(content)
        yield content


async def explain(call: Call) -> Answer:
    """GET /v1/invoices/{id}/lines/{line}: its rows, their intervals, and who caused these."""
    try:
        line = int(call.args[1])
    except ValueError:
        raise InvalidInput("a line is a number") from None
    return await ask(call, "explain", {"invoice": call.args[0], "line": line}, BILL_S)


async def issue(call: Call) -> Answer:
    """POST /v1/invoices/{id}/issue: give it its number, once its month has come out again.

    Without a body it is issued alone.
    """
    also = (await call.decode(_others)).also if await call.body() else ()
    wanted = [_known(call, each) for each in (call.args[0], *also)]
    invoice = wanted[0]
    if any(each.period != invoice.period for each in wanted):
        raise InvalidInput("invoices that are issued together are of one month")
    if any(each.status == "closed" for each in wanted):
        answer = await ask(call, "verify_month", {"month": invoice.period}, WALK_S)
        verified = _nothing.decode(answer.body)
        if not verified["verified"]:
            what = ", ".join(d["what"] for d in verified["differences"][:3])
            raise Denied(
                Refused(
                    code="NotVerified",
                    status=409,
                    reason=f"the month {invoice.period} comes out as another: {what}",
                    hint="`cumulog invoice verify` tells what differs.",
                )
            )
    reply = await write(call, IssueInvoice(invoice_id=invoice.invoice_id, also=also))
    numbers = reply.get("numbers", {invoice.invoice_id: reply["number"]})
    issued = [{"invoice_id": each, "number": number} for each, number in numbers.items()]
    one = {"invoice_id": invoice.invoice_id, "number": reply["number"]}
    return json_answer(one | {"issued": issued})


def _known(call: Call, invoice_id: str) -> Invoice:
    invoice = call.edge.reader.invoice(invoice_id)
    if invoice is None:
        raise NotFound(f"there is no invoice {invoice_id[:100]!r} of a closed month")
    return invoice


def _view(invoice: Invoice) -> dict[str, Any]:
    return {name: getattr(invoice, name) for name in invoice.__struct_fields__} | {
        "id": invoice.invoice_id
    }


def add(routes: Routes) -> None:
    """Route what this module answers."""
    month, one = "/v1/billing/months/{}", "/v1/invoices/{}"
    close = "billing:periods:close"
    routes.add("GET", "/v1/billing/months", list_months, READ_MONTHS)
    routes.add("GET", month, show_month, READ, query=("customer",))
    routes.add("POST", f"{month}/close", close_month, close)
    routes.add("POST", f"{month}/verify", verify_month, READ_MONTHS)
    routes.add("POST", f"{month}/what-if", what_if, READ, body=_prices)
    routes.add("GET", f"{month}/forecast", forecast, READ, query=("customer",))
    query = ("customer", "month", "status", "number", "limit", "marker")
    routes.add("GET", "/v1/invoices", list_all, READ, query=query)
    routes.add("GET", one, show, READ)
    routes.add("GET", f"{one}/page", page, READ, query=("format",), gives="text/html")
    parts = ("customer", "dataset", "version", "format", "part")
    routes.add("GET", f"{month}/focus", focus, READ, query=parts, gives="text/csv")
    routes.add("GET", f"{one}/lines/{{}}", explain, READ)
    routes.add("POST", f"{one}/issue", issue, "IssueInvoice", body=_others)
