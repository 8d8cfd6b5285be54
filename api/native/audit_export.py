"""The audit log as a stream, oldest first: CloudEvents, CADF, JSON lines or CSV.

Memory is bounded by a page, whatever is asked for. What comes in after that is left out.
Invariant: whoever reads is let in anew before each page, and an export that breaks off ends without
the end of its chunked body, so that no reader takes a part for the whole.
"""

import asyncio
import csv
import heapq
import io
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from itertools import batched
from typing import Any

import msgspec
from msgspec.structs import replace

from api.auth import now
from api.exchange import Answer, Call
from api.native.audit import AUDITED_BY, READ, entries_by, logged_by, place_of, rows, shown_by
from api.routing import Routes
from projections import cloudevents
from projections.access import Found
from projections.answers import Event, OperationState
from projections.asked import Asked, of_access, of_log
from projections.cadf import cadf_event
from projections.cloudevents import rfc3339
from projections.redaction import shown
from projections.spreadsheet import harmless
from schemas.config import REGION
from schemas.errors import InvalidInput

PAGE = 200  # requests
LINES, CSV = b"application/jsonl", b"text/csv; charset=utf-8"
COLUMNS = (
    "at", "ordinal", "source", "tag", "outcome", "code", "status", "count", "user_id", "actor",
    "host_id", "roles", "address", "agent", "api", "version", "edge", "method", "route",
    "resource_kind", "resource_id", "project_id", "request_id", "cause", "rule", "reason",
    "total_us", "max_us", "dry_run", "repeated", "gathered",
)  # fmt: skip

type Some = Event | Found
type Form = Callable[[Call, Sequence[Some]], bytes]

_encode = msgspec.json.Encoder().encode


class _Reply(msgspec.Struct, frozen=True):
    operation_id: str = ""


class _Verdict(msgspec.Struct, frozen=True):
    reply: _Reply = _Reply()


class _Body(msgspec.Struct, frozen=True):
    verdict: _Verdict


_decode_body = msgspec.json.Decoder(_Body).decode


async def export(call: Call) -> Answer:
    """GET /v1/audit/export: what ``GET /v1/audit`` lists, all of it, the oldest first.

    ``format`` is one of jsonl (the default), csv, cadf and cloudevents.
    """
    form = FORMS.get(call.param("format") or "jsonl")
    if form is None:
        raise InvalidInput(f"format must be one of {', '.join(FORMS)}")
    wanted = shown_by(call)
    if form is _as_cloud_events and wanted != "mutations":
        raise InvalidInput("reads are not events of the log: export them as cadf, jsonl or csv")
    pages = batched(_found(call, wanted), PAGE)
    first = await asyncio.to_thread(_next, call, pages, form)  # it may fail, and is then no answer
    head = [",".join(COLUMNS).encode() + b"\r\n"] if form is _as_csv else []
    return Answer(
        200,
        content_type=CSV if form is _as_csv else LINES,
        headers=[(b"cache-control", b"no-store")],
        stream=_stream(call, [*head, first], pages, form),
    )


async def _stream(
    call: Call, first: list[bytes], pages: Iterator[tuple[Some, ...]], form: Form
) -> AsyncGenerator[bytes]:
    for part in first:
        if part:
            yield part
    while True:
        call.principal, _ = await call.edge.authenticate(call)
        call.need_still()
        part = await asyncio.to_thread(_next, call, pages, form)
        if not part:
            return
        yield part


def _next(call: Call, pages: Iterator[tuple[Some, ...]], form: Form) -> bytes:
    """Return the next page as it is sent; nothing after the last."""
    page = next(pages, None)
    return b"" if page is None else form(call, page)


def _found(call: Call, wanted: str) -> Iterator[Some]:
    """Return what is asked for and the caller's to read, from both records, in order of time."""
    logged, entries = logged_by(call), entries_by(call)
    through, until = call.edge.reader.position(), now()

    def of_the_log() -> Iterator[Some]:
        after = 0
        while page := call.edge.reader.audit_log(**logged, after=after, limit=PAGE):
            for event in page:
                if event.ordinal > through:
                    return
                yield event
            after = page[-1].ordinal

    def of_access_() -> Iterator[Some]:
        assert entries is not None, "asked for where there is anything"
        bounded = replace(entries, until=min(until, entries.until or until))
        after = (0, 0)
        while page := call.edge.audit.entries(replace(bounded, after=after), PAGE):
            yield from page
            after = (page[-1].entry.at, page[-1].id)

    return heapq.merge(
        of_the_log() if wanted != "reads" else iter(()),
        of_access_() if wanted != "mutations" and entries is not None else iter(()),
        key=place_of,
    )


def _as_lines(call: Call, page: Sequence[Some]) -> bytes:
    return b"".join(_encode(row) + b"\n" for row in rows(call, page))


def _as_csv(call: Call, page: Sequence[Some]) -> bytes:
    text = io.StringIO(newline="")
    write = csv.writer(text).writerow
    for row in rows(call, page):
        write([_cell(name, getattr(row, name)) for name in COLUMNS])
    return text.getvalue().encode()


def _cell(name: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int():
            return rfc3339(value) if name == "at" else str(value)
        case tuple():
            return " ".join(value)
        case _:
            return harmless(str(value))


def _as_cadf(call: Call, page: Sequence[Some]) -> bytes:
    cell = call.edge.config.cell
    lines: list[bytes] = []
    for one in page:
        if isinstance(one, Found):
            event = cadf_event(of_access(one), cell)
        else:
            asked = of_log(one, None)  # not how long it took: that is forgotten in time
            operation = _begun(call, asked)
            event = cadf_event(asked, cell, recorded=bytes(one.body), operation=operation)
        lines.append(_encode(event) + b"\n")
    return b"".join(lines)


def _begun(call: Call, asked: Asked) -> OperationState | None:
    """Return the operation that a request began or, asking for it again, was told of."""
    if asked.outcome != "accepted" or asked.body is None:
        return None
    operation_id = _decode_body(asked.body).verdict.reply.operation_id
    return call.edge.reader.operation(operation_id) if operation_id else None


def _as_cloud_events(call: Call, page: Sequence[Some]) -> bytes:
    """Return requests as CloudEvents, each with its facts."""
    reader = call.edge.reader
    found = reader.records([one for one in page if isinstance(one, Event)])
    source = cloudevents.source(call.edge.config.cell, REGION)
    told = cloudevents.cloud_events([shown(event) for event in found], source, reader.asked)
    return b"".join(cloudevents.encode(event) + b"\n" for event in told)


FORMS: dict[str, Form] = {
    "jsonl": _as_lines,
    "csv": _as_csv,
    "cadf": _as_cadf,
    "cloudevents": _as_cloud_events,
}


def add(routes: Routes) -> None:
    """Route what this module answers."""
    query = ("format", *(name for name in AUDITED_BY if name not in {"before", "limit"}))
    routes.add("GET", "/v1/audit/export", export, READ, query=query, gives=LINES.decode())
