"""What the archiver answers about months and invoices, and how it closes a month.

A month is closed only if the whole log and all of sealed history are what was written. It is then
derived, and the tuple that it follows from is submitted in the archiver's own name: nobody else may
say what a month comes to, and the engine holds it against all that it knows itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from decimal import Decimal, localcontext

import msgspec
import uuid_utils
from msgspec import Struct

from engine.bus.client import Bus
from engine.bus.service import submit_as_history
from engine.domain.billing.periods import DIGITS_MAX, need_closable
from engine.log.checkpoint import Held
from projections import audit
from projections.answers import Event, Position
from projections.archive import Archive
from projections.books import Difference, opened
from projections.invoice import Document
from projections.ledger import Row
from projections.pricing import text
from projections.reader import Reader
from projections.whatif import Forecast, WhatIf
from schemas.billing import ClosePeriod, Closing, PublishPriceList
from schemas.envelope import Actor, Outcome, Refused, Request
from schemas.errors import Conflict, InvalidInput, NotFound, Unavailable
from schemas.ids import SYSTEM_USER
from schemas.months import month_bounds
from schemas.units import Micros, Ordinal

ROWS_MAX = 1000
CLOSE_S = 60.0

type Question = Callable[[bytes], Awaitable[Struct]]


class OfMonth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question about a month, of one customer or of all; ``as_of`` None means now."""

    month: str
    customer: str = ""
    as_of: Position | None = None


class OfInvoice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question about an invoice, and maybe one of its lines; ``as_of`` None means now."""

    invoice: str
    line: int = 0
    as_of: Position | None = None


class ToClose(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose request leads to a month's being closed."""

    month: str
    user_id: str
    request_id: str


class OfDraft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a month would come to under a price list that is not published."""

    month: str
    prices: PublishPriceList


class ForecastAnswer(Struct, frozen=True, kw_only=True):
    """What a month will come to, by customer."""

    month: str
    ordinal: Ordinal
    customers: tuple[Forecast, ...]


class Unassigned(Struct, frozen=True, kw_only=True):
    """What a project used of a meter while nobody paid for it, in base units."""

    project_id: str
    meter: str
    base_quantity: str


class MonthAnswer(Struct, frozen=True, kw_only=True):
    """A month's invoices or drafts, and what nobody pays for."""

    month: str
    closed: bool
    ordinal: Ordinal
    invoices: tuple[Document, ...]
    unassigned: tuple[Unassigned, ...]


class InvoiceAnswer(Struct, frozen=True, kw_only=True):
    """An invoice or a draft."""

    closed: bool
    invoice: Document


class Cause(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact that bounds an interval, and the request of somebody that led to it."""

    ordinal: Ordinal
    fact: str
    at: Micros
    request_ordinal: Ordinal = 0
    request_id: str = ""
    action: str = ""
    user_id: str = ""


class Stretch(Struct, frozen=True, kw_only=True):
    """A stretch of a resource's use behind a line."""

    resource_kind: str
    resource_id: str
    project_id: str
    meter: str
    start: Micros
    end: Micros
    quantity: str
    unit: str
    amount: str
    begun_by: Cause | None
    ended_by: Cause | None


class ExplainAnswer(Struct, frozen=True, kw_only=True):
    """Behind a line: its rows, the stretches they are of, and who caused these."""

    invoice_id: str
    line: int
    description: str
    amount: str
    held: tuple[Stretch, ...]
    rows: tuple[Row, ...]
    rows_total: int


class VerifiedAnswer(Struct, frozen=True, kw_only=True):
    """Whether a closed month comes out again as it was recorded, and the tuple it follows from."""

    verified: bool
    month: str
    ordinal: Ordinal
    chain_hash: str
    rows_digest: str
    differences: tuple[Difference, ...]


class ClosedAnswer(Struct, frozen=True, kw_only=True):
    """A closed month."""

    ordinal: Ordinal
    closing: Closing


def questions(
    bus: Bus,
    archive: Archive,
    reader: Reader,
    held: Callable[[], Held],
    now: Callable[[], Micros],
) -> Mapping[str, Question]:
    """Return what the archiver answers about months; ``held`` are the checkpoints it keeps."""
    books = Accounting(archive, reader, held, now)

    async def close(payload: bytes) -> ClosedAnswer:
        asked = _read(ToClose, payload)
        closing = await asyncio.to_thread(books.closing, asked.month)
        outcome = await submit_as_history(bus, _request(asked, closing, now()), timeout_s=CLOSE_S)
        return ClosedAnswer(ordinal=_accepted(outcome), closing=closing)

    return {
        "month": threaded(OfMonth, books.month),
        "invoice": threaded(OfInvoice, books.invoice),
        "explain": threaded(OfInvoice, books.explain),
        "verify_month": threaded(OfMonth, books.verify),
        "what_if": threaded(OfDraft, books.what_if),
        "forecast": threaded(OfMonth, books.forecast),
        "close": close,
    }


class Accounting:
    """The books as the archiver opens them: anew for each question. Blocking."""

    def __init__(
        self,
        archive: Archive,
        reader: Reader,
        held: Callable[[], Held],
        now: Callable[[], Micros],
    ) -> None:
        self._archive = archive
        self._reader = reader
        self._held = held
        self._now = now

    def month(self, asked: OfMonth) -> MonthAnswer:
        """Return a month's invoices, of one customer or of all."""
        need_month(asked.month)
        with opened(self._archive, self._now(), asked.as_of) as books:
            is_closed = asked.month in books.past().closings
            book = books.month(asked.month)
        documents = [each for c, each in book.documents.items() if asked.customer in {"", c}]
        unassigned = {} if asked.customer else book.unassigned
        return MonthAnswer(
            month=asked.month,
            closed=is_closed,
            ordinal=book.past.ordinal,
            invoices=tuple(documents),
            unassigned=tuple(
                Unassigned(project_id=project_id, meter=meter, base_quantity=str(quantity))
                for (project_id, meter), quantity in sorted(unassigned.items())
            ),
        )

    def invoice(self, asked: OfInvoice) -> InvoiceAnswer:
        """Return one invoice or draft."""
        with opened(self._archive, self._now(), asked.as_of) as books:
            document = books.invoice(asked.invoice).document
            return InvoiceAnswer(closed=document.period in books.past().closings, invoice=document)

    def explain(self, asked: OfInvoice) -> ExplainAnswer:
        """Return what is behind a line, down to the requests of people."""
        with opened(self._archive, self._now(), asked.as_of) as books:
            drawn = books.invoice(asked.invoice)
            line = next((each for each in drawn.document.lines if each.line == asked.line), None)
            if line is None:
                raise NotFound(f"{asked.invoice} has no line {asked.line}")
            rows, stretches = first_rows(row for _, row in drawn.numbered(asked.line))
        return ExplainAnswer(
            invoice_id=asked.invoice,
            line=line.line,
            description=line.description,
            amount=line.amount,
            held=tuple(self._stretch(of) for of in stretches),
            rows=tuple(rows),
            rows_total=line.rows,
        )

    def verify(self, asked: OfMonth) -> VerifiedAnswer:
        """Walk the log, derive a closed month anew, and compare with what was recorded."""
        need_month(asked.month)
        self._need_intact()
        with opened(self._archive, self._now(), anew=True) as books:
            recorded = books.past().closings.get(asked.month)
            if recorded is None:
                raise NotFound(f"the month {asked.month} is not closed")
            found = self._archive.chain_hash_at(recorded.ordinal)
            differences = books.differences(asked.month, found)
        return VerifiedAnswer(
            verified=not differences,
            month=asked.month,
            ordinal=recorded.ordinal,
            chain_hash=recorded.chain_hash,
            rows_digest=recorded.rows_digest,
            differences=tuple(differences),
        )

    def what_if(self, asked: OfDraft) -> WhatIf:
        """Return what a month would come to under a draft of prices, by customer."""
        need_month(asked.month)
        now = self._now()
        with opened(self._archive, now) as books:
            return books.what_if(asked.month, asked.prices)

    def forecast(self, asked: OfMonth) -> ForecastAnswer:
        """Return what a month will come to if all that is held now stays."""
        need_month(asked.month)
        now = self._now() if asked.as_of is None else asked.as_of.at
        with opened(self._archive, now, asked.as_of) as books:
            ordinal, found = books.past().ordinal, books.forecast(asked.month)
        chosen = tuple(each for each in found if asked.customer in {"", each.customer_id})
        return ForecastAnswer(month=asked.month, ordinal=ordinal, customers=chosen)

    def closing(self, month: str) -> Closing:
        """Return what a month is to be closed with.

        Raises:
            Conflict: it is not its turn or time, or the log is not what was written.
        """
        need_month(month)
        now = self._now()
        with opened(self._archive, now) as books:
            need_closable(books.past().state, month, now)
        self._need_intact()
        with opened(self._archive, now) as books:
            return books.closing(month)

    def _need_intact(self) -> None:
        found = self._archive.verify(self._held)
        if not found.intact:
            raise Conflict(
                f"history is not what was written, from ordinal {found.ordinal} on: {found.why}",
                ordinal=found.ordinal,
            )

    def _stretch(self, of: "Interval") -> Stretch:
        """Return an interval with what caused it."""
        first, last = of.row.first_ordinal, of.row.last_ordinal
        return Stretch(
            resource_kind=of.row.resource_kind,
            resource_id=of.row.resource_id,
            project_id=of.row.project_id,
            meter=of.row.meter,
            start=of.start,
            end=of.end,
            quantity=text(of.quantity),
            unit=of.row.unit,
            amount=text(of.amount),
            begun_by=self._cause(first),
            ended_by=self._cause(last) if last != first else None,
        )

    def _cause(self, ordinal: Ordinal) -> Cause | None:
        """Return the fact at an ordinal, and the request that led to it."""
        db = self._reader.db()
        fact = next(iter(audit.events(db, ordinal - 1, 1, None, None)), None)
        if fact is None or fact.ordinal != ordinal:
            return None
        asked = self._asked(fact)
        return Cause(
            ordinal=ordinal,
            fact=fact.tag,
            at=fact.at,
            request_ordinal=0 if asked is None else asked.ordinal,
            request_id="" if asked is None else asked.request_id,
            action="" if asked is None else asked.tag,
            user_id="" if asked is None else asked.user_id,
        )

    def _asked(self, fact: Event) -> Event | None:
        """Return the request behind a fact: a person's, if a report or a deadline came between."""
        story = audit.show(self._reader.db(), fact.cause or fact.request_id, None)
        return next((event for event in story if event.kind == "request"), None)


def need_month(month: str) -> None:
    """Return if a text names a month.

    Raises:
        InvalidInput: it names none.
    """
    try:
        month_bounds(month)
    except ValueError as error:
        raise InvalidInput(str(error)) from None


class Interval(Struct):
    """What a line's rows of one interval come to; ``row`` is the first of them."""

    row: Row
    start: Micros
    end: Micros
    quantity: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)


def first_rows(rows: Iterable[Row]) -> tuple[list[Row], list[Interval]]:
    """Return the first rows of a line, and the first intervals that they are pieces of."""
    shown: list[Row] = []
    found: dict[tuple[str, str, str, int, int], Interval] = {}
    with localcontext(prec=DIGITS_MAX):
        for row in rows:
            if len(shown) < ROWS_MAX:
                shown.append(row)
            if not row.resource_id:
                continue
            key = (
                row.resource_kind, row.resource_id, row.meter, row.first_ordinal, row.last_ordinal
            )  # fmt: skip
            if key not in found:
                if len(found) == ROWS_MAX:
                    continue
                found[key] = Interval(row=row, start=row.start, end=row.end)
            of = found[key]
            of.start, of.end = min(of.start, row.start), max(of.end, row.end)
            of.quantity += Decimal(row.quantity)
            of.amount += Decimal(row.amount)
    return shown, list(found.values())


def _request(asked: ToClose, closing: Closing, now: Micros) -> Request:
    return Request(
        request_id=f"req-{uuid_utils.uuid7()}",
        actor=Actor(kind="system", user_id=SYSTEM_USER),
        action=ClosePeriod(closing=closing, user_id=asked.user_id),
        submitted_at=now,
        cause=asked.request_id,
    )


def _accepted(outcome: Outcome) -> Ordinal:
    verdict = outcome.verdict
    if isinstance(verdict, Refused):
        if verdict.status >= 500:
            raise Unavailable(verdict.reason)
        raise Conflict(verdict.reason)
    return outcome.ordinal


def threaded[A: Struct](of: type[A], answer: Callable[[A], Struct]) -> Question:
    """Return a question that is answered in a thread."""
    decoder = msgspec.json.Decoder(of)

    async def question(payload: bytes) -> Struct:
        return await asyncio.to_thread(answer, _decoded(decoder, payload))

    return question


def _read[A: Struct](of: type[A], payload: bytes) -> A:
    return _decoded(msgspec.json.Decoder(of), payload)


def _decoded[A](decoder: "msgspec.json.Decoder[A]", payload: bytes) -> A:
    try:
        return decoder.decode(payload or b"{}")
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the question cannot be read: {error}") from error
