"""What finance gets of a month: a FOCUS dataset as a file, written once and handed over in pieces.

All is of one reading of history, the names too: of the present, or of a moment that is past.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from projections import focus
from projections.accounting import Question, need_month, threaded
from projections.answers import Position
from projections.archive import Archive
from projections.books import Books, opened
from projections.handover import Handover, OfPiece
from projections.ledger import Past, Row, terms_of
from projections.reader import Reader
from projections.timemachine.moments import Moment, moments_path
from projections.timemachine.past import PastReader
from schemas.config import REGION
from schemas.errors import InvalidInput, NotFound
from schemas.months import month_bounds
from schemas.units import Micros, Ordinal

INLINE_BYTES = 4096  # what is not worth another question


class OfExport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question for a FOCUS dataset of a month, of one customer or of all.

    Without ``content`` for its metadata alone. ``as_of`` None means now; else ``moment`` has the
    names of then.
    """

    month: str
    customer: str = ""
    dataset: Literal["cost-and-usage", "invoice-detail", "billing-period"] = "cost-and-usage"
    version: focus.Version = "1.4"
    format: Literal["csv", "parquet"] = "csv"
    content: bool = True
    as_of: Position | None = None
    moment: Moment | None = None


class ExportAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dataset as a file, and the metadata object that goes with it.

    A small file is the ``content``; of a large one that is the beginning, and ``file`` is what to
    ask for the rest of its ``bytes``.
    """

    ordinal: Ordinal
    metadata: dict[str, Any]
    content: bytes = b""  # in base64, as msgspec has bytes in JSON
    file: str = ""
    bytes: int = 0


def questions(
    archive: Archive, reader: Reader, model: Path, directory: Path, now: Callable[[], Micros]
) -> Mapping[str, Question]:
    """Return what the archiver answers about exports.

    Args:
        archive: what was sealed, and the log's tail.
        reader: the node's read model.
        model: where that lies.
        directory: where there is room for large files.
        now: the time.
    """
    handover = Handover(directory)
    exports = Exports(archive, reader, model, handover, now)
    return {
        "focus": threaded(OfExport, exports.exported),
        "piece": threaded(OfPiece, handover.piece),
    }


class Exports:
    """Exports of one cell. Blocking."""

    def __init__(
        self,
        archive: Archive,
        reader: Reader,
        model: Path,
        handover: Handover,
        now: Callable[[], Micros],
    ) -> None:
        self._archive = archive
        self._reader = reader
        self._model = model
        self._handover = handover
        self._now = now

    def exported(self, asked: OfExport) -> ExportAnswer:
        """Return a month's invoices, or drafts while it is open, as a FOCUS dataset.

        Raises:
            InvalidInput: 1.2 has the rows of invoices alone, or the month has not begun.
            NotFound: there is no such customer.
            Unavailable: there is no room for the file.
        """
        need_month(asked.month)
        if asked.version == "1.2" and asked.dataset != focus.DATASETS[0]:
            raise InvalidInput("FOCUS 1.2 has the dataset cost-and-usage alone")
        now = self._now() if asked.as_of is None else asked.as_of.at
        if month_bounds(asked.month)[0] > now:
            raise InvalidInput(f"the month {asked.month} has not begun")
        with opened(self._archive, now, asked.as_of) as books, self._names(asked) as reader:
            past = books.past()
            if asked.customer and asked.customer not in past.state.customers:
                raise NotFound(f"there is no customer {asked.customer!r}")
            export = _export(asked, books, reader, now)
            metadata = focus.metadata(export, past.state.billing.issuer_name)
            if not asked.content:
                return ExportAnswer(ordinal=past.ordinal, metadata=metadata)
            with self._handover.writing() as file:
                focus.FORMATS[asked.format](export, file)
                size = file.tell()
        file.seek(0)
        beginning = file.read(INLINE_BYTES)
        name = ""
        if len(beginning) < size:
            name = self._handover.keep(file)
        else:
            file.close()
        return ExportAnswer(
            ordinal=past.ordinal, metadata=metadata, content=beginning, file=name, bytes=size
        )

    @contextmanager
    def _names(self, asked: OfExport) -> Iterator[Reader]:
        """Give what knows the names: the read model of now, or the one of the moment."""
        if asked.as_of is None or asked.moment is None:
            yield self._reader
            return
        if Path(asked.moment.file).parent != moments_path(self._model):
            raise InvalidInput("that is the file of no moment")
        then = PastReader(self._model, asked.moment, asked.as_of.at)
        try:
            yield then
        finally:
            then.close()


def _export(asked: OfExport, books: Books, reader: Reader, now: Micros) -> focus.Export:
    past = books.past()
    settings, closing = past.state.billing, past.closings.get(asked.month)
    is_closed = closing is not None

    def numbered(invoice_id: str) -> str:
        invoice = past.state.invoices.get(invoice_id)
        return invoice_id if invoice is None else invoice.number or invoice_id

    def named(rows: Sequence[Row]) -> focus.Names:
        return _named(rows, reader)

    match asked.dataset:
        case "cost-and-usage":
            return focus.cost_and_usage(
                [*_issued(asked, books)],
                settings,
                named,
                numbered,
                REGION,
                books.chain_hash if closing is None else closing.chain_hash,
                complete=is_closed,
                updated=now,
                version=asked.version,
            )
        case "invoice-detail":
            issued = [*_issued(asked, books)] if is_closed else []
            return focus.invoice_detail(issued, settings, numbered, complete=is_closed, updated=now)
        case "billing-period":
            months: list[tuple[str, Micros | None]] = [
                (month, _closed_at(past, month, now)) for month in sorted(past.closings)
            ]
            if not is_closed:
                months.append((asked.month, None))
            return focus.billing_period(months, settings, updated=now)


def _issued(asked: OfExport, books: Books) -> Iterator[focus.Issued]:
    """Yield the invoices that are asked for; their rows where these are needed."""
    book, invoices = books.month(asked.month), books.past().state.invoices
    with_rows = asked.content and asked.dataset == focus.DATASETS[0]
    for customer_id, drawn in book.drawn_up.items():
        if asked.customer in {"", customer_id}:
            yield focus.Issued(
                document=drawn.document,
                customer=terms_of(book.past, customer_id, asked.month),
                invoice=invoices.get(drawn.document.invoice_id),
                rows=((row, line) for line, row in drawn.numbered()) if with_rows else (),
            )


def _closed_at(past: Past, month: str, now: Micros) -> Micros:
    """Return when a month was closed, as its invoices say; now if it has none."""
    of = (each.closed_at for each in past.state.invoices.values() if each.period == month)
    return next(of, now)


def _named(rows: Sequence[Row], reader: Reader) -> focus.Names:
    """Return what projects and resources are called, of those that are still known."""
    projects = {row.project_id for row in rows if row.project_id}
    servers = {row.resource_id for row in rows if row.resource_kind == "server"}
    images = {row.resource_id for row in rows if row.resource_kind == "image"}
    named = {i: server.name for i in servers if (server := reader.server(i, deleted=True))}
    named |= {i: image.name for i in images if (image := reader.image(i)) and image.name}
    known = {i: project.name for i in projects if (project := reader.project(i)) is not None}
    return focus.Names(projects=known, resources=named)
