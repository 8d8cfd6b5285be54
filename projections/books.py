"""The books: months and invoices, open and closed, derived from history as they are asked for.

A closed month is derived from the log up to the ordinal it was closed with, an open one from all of
it, by the same code: what was issued comes out again, to the byte, or the books say what differs.
What was held is asked of ``holdings``, which keep it; who verifies opens the books ``anew``: the
whole log is folded for them alone.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.periods import terms_digest, versions_before
from engine.domain.fold import EVOLVE
from engine.domain.metering import Versions, ended, with_version
from engine.domain.state import Cell
from projections.answers import Position
from projections.archive import Archive, Reading
from projections.holdings import Held
from projections.invoice import Document, DrawnUp, closed, draw_up, period_digest, settled
from projections.ledger import MonthRows, Past, Row, corrections, month_rows, terms_of
from projections.metering import Usage
from projections.tally import Tally, Uncountable, only, tally
from schemas.billing import BillingFact, ClosedInvoice, Closing, PeriodClosed
from schemas.envelope import members
from schemas.errors import InvalidInput, NotFound
from schemas.metering import BUILT_IN, MeterDefined, MeterDeleted
from schemas.months import month_bounds, month_of
from schemas.units import Micros, Ordinal

MONEY = members(BillingFact)
_FACTS: tuple[type[Struct], ...] = (*MONEY, MeterDefined, MeterDeleted)
_TAGS = [str(fact.__struct_config__.tag) for fact in _FACTS]


class MonthBook(Struct, frozen=True, kw_only=True):
    """A month's invoices by customer, and what nobody pays for."""

    past: Past
    drawn_up: dict[str, DrawnUp]
    usage: MonthRows


class Summary(Struct, frozen=True, kw_only=True):
    """What a month comes to by customer; an open one has no digests, for no rows are drawn up.

    ``unassigned`` is what nobody pays for, in base units by project and meter.
    """

    past: Past
    documents: dict[str, Document]
    unassigned: dict[tuple[str, str], int]


class Difference(Struct, frozen=True, kw_only=True):
    """Where a derivation is not what was recorded."""

    what: str
    recorded: str
    derived: str


class Books:
    """The books of one reading of history. What was derived is kept for as long as it is read.

    ``look`` returns the intervals there are, at the reading's end or later, and is called once it
    matters. ``anew`` draws up rows where summing up or leaving out would do.
    """

    def __init__(
        self, reading: Reading, look: Callable[[], Held], now: Micros, *, anew: bool = False
    ) -> None:
        self._reading = reading
        self._held = functools.cache(look)
        self._now = now
        self._anew = anew
        self._pasts: dict[Ordinal, Past] = {}
        self._months: dict[str, MonthBook] = {}

    @property
    def chain_hash(self) -> str:
        """The chain's hash where this reading ends."""
        return self._reading.chain_hash

    def past(self, through: Ordinal | None = None) -> Past:
        """Return history up to an ordinal; None is all of it."""
        ordinal = self._reading.ordinal if through is None else through
        if ordinal not in self._pasts:
            self._pasts[ordinal] = _past(self._reading, self._held, ordinal)
        return self._pasts[ordinal]

    def month(self, month: str) -> MonthBook:
        """Return a month: a closed one as it was closed, another as it stands.

        Raises:
            InvalidInput: it has not begun.
        """
        if month not in self._months:
            self._months[month] = self._derive(month)
        return self._months[month]

    def invoice(self, invoice_id: str) -> DrawnUp:
        """Return an invoice, or the draft of one: ids begin with the month.

        Raises:
            NotFound: there is none.
        """
        month, _, customer_id = invoice_id.partition(".")
        try:
            month_bounds(month)
        except ValueError:
            raise NotFound(f"there is no invoice {invoice_id!r}") from None
        found = self.month(month).drawn_up.get(customer_id)
        if found is None:
            raise NotFound(f"there is no invoice {invoice_id!r}")
        return found

    def closing(self, month: str) -> Closing:
        """Return what the month would be closed with now."""
        book = self.month(month)
        documents = [drawn.document for drawn in book.drawn_up.values()]
        return Closing(
            period=month,
            ordinal=book.past.ordinal,
            chain_hash=self.chain_hash,
            meter_versions=_meter_versions(book.past),
            price_list_versions=versions_before(book.past.state, month_bounds(month)[1]),
            terms_digest=terms_digest(book.past.state),
            rows_digest=period_digest(documents),
            invoices=tuple(closed(document) for document in documents),
        )

    def differences(self, month: str, chain_hash: str | None) -> list[Difference]:
        """Derive a closed month again and return where it is not what was recorded.

        ``chain_hash`` is the log's, where the month was closed.
        """
        recorded, book = self.past().closings[month], self.month(month)
        documents = [drawn.document for drawn in book.drawn_up.values()]
        pairs: list[tuple[str, object, object]] = [
            ("chain_hash", recorded.chain_hash, chain_hash),
            ("meter_versions", recorded.meter_versions, _meter_versions(book.past)),
            (
                "price_list_versions",
                recorded.price_list_versions,
                versions_before(book.past.state, month_bounds(month)[1]),
            ),
            ("terms_digest", recorded.terms_digest, terms_digest(book.past.state)),
            ("rows_digest", recorded.rows_digest, period_digest(documents)),
        ]
        before: Mapping[str, ClosedInvoice] = {i.invoice_id: i for i in recorded.invoices}
        after = {d.invoice_id: closed(d) for d in documents}
        for invoice_id in sorted(before.keys() | after.keys()):
            was, is_ = before.get(invoice_id), after.get(invoice_id)
            if was is None or is_ is None:
                pairs.append((invoice_id, was is not None, is_ is not None))
                continue
            pairs += (
                (f"{invoice_id} {name}", getattr(was, name), getattr(is_, name))
                for name in was.__struct_fields__
            )
        return [
            Difference(what=what, recorded=str(was), derived=str(is_))
            for what, was, is_ in pairs
            if was != is_
        ]

    def summary(self, month: str) -> Summary:
        """Return what a month comes to; of an open one, without drawing up each row.

        Raises:
            InvalidInput: it has not begun.
        """
        past = self._begun(month)
        if month in self.past().closings or self._anew:
            return self._summary_of_rows(month, is_open=month not in self.past().closings)
        held = self._held().then(past.ordinal)
        try:
            found = tally(held, past, month, until=self._now)
        except Uncountable:
            return self._summary_of_rows(month, is_open=True)
        usage = month_rows(only(held, past, found.left), month, until=self._now)
        drawn_up = self._drawn_up(month, past, usage, found)
        return Summary(
            past=past,
            documents={c: replace(d.document, rows_digest="") for c, d in drawn_up.items()},
            unassigned=found.unassigned | _by_meter(usage.unassigned),
        )

    def _summary_of_rows(self, month: str, *, is_open: bool) -> Summary:
        book = self.month(month)
        documents = {c: drawn.document for c, drawn in book.drawn_up.items()}
        if is_open:
            documents = {c: replace(each, rows_digest="") for c, each in documents.items()}
        unassigned = _by_meter(book.usage.unassigned)
        return Summary(past=book.past, documents=documents, unassigned=unassigned)

    def _begun(self, month: str) -> Past:
        """Return the past that a month is derived from."""
        start, _ = month_bounds(month)
        if start > self._now:
            raise InvalidInput(f"the month {month} has not begun")
        closings = self.past().closings
        return self.past(closings[month].ordinal if month in closings else None)

    def _derive(self, month: str) -> MonthBook:
        past = self._begun(month)
        until = None if month in self.past().closings else self._now
        usage = month_rows(past, month, until=until)
        return MonthBook(past=past, drawn_up=self._drawn_up(month, past, usage), usage=usage)

    def _drawn_up(
        self, month: str, past: Past, usage: MonthRows, summed: Tally | None = None
    ) -> dict[str, DrawnUp]:
        """Draw up a month of rows and, beside them, of lines that were summed up."""
        earlier = sorted(m for m in past.closings if m < month)
        rows: dict[str, list[Row]] = {c: list(found) for c, found in usage.rows.items()}
        lines = {} if summed is None else summed.lines
        versions = {} if summed is None else summed.versions
        problems: dict[str, list[str]] = {}
        if earlier and _is_next(past, month):
            self._add_corrections(past, earlier, rows, problems)
        for customer_id, unrated in usage.unrated.items():
            problems.setdefault(customer_id, []).append(
                f"{len(unrated)} pieces of usage from before any price list was in force"
            )
        drawn_up: dict[str, DrawnUp] = {}
        for customer_id in sorted(rows.keys() | lines.keys()):
            customer = terms_of(past, customer_id, month)
            credits_ = [
                credit
                for credit in past.state.credits.values()
                if credit.customer_id == customer_id
            ]
            drawn_up[customer_id] = draw_up(
                customer,
                month,
                past.ordinal,
                rows.get(customer_id, ()),
                credits_,
                problems.get(customer_id, ()),
                lines.get(customer_id, ()),
                versions.get(customer_id, ()),
            )
        return drawn_up

    def _add_corrections(
        self,
        past: Past,
        earlier: Sequence[str],
        rows: dict[str, list[Row]],
        problems: dict[str, list[str]],
    ) -> None:
        """Add what was found of closed months since the last of them was closed."""
        before = self.past(past.closings[earlier[-1]].ordinal)
        changed = [month for month in earlier if self._may_differ(before, past, month)]
        for customer_id, found in corrections(before, past, changed).items():
            rows.setdefault(customer_id, []).extend(found)
        disputes = list(past.state.corrections.values())
        settled_before = len(before.state.corrections)
        if len(disputes) > settled_before:
            about = {c.invoice_id: self.invoice(c.invoice_id) for c in disputes}
            settlements, without = settled(disputes, about, settled_before)
            for customer_id, more in settlements.items():
                rows.setdefault(customer_id, []).extend(more)
            for customer_id in rows:
                problems.setdefault(customer_id, []).extend(without)

    def _may_differ(self, before: Past, now: Past, month: str) -> bool:
        """Return whether a month may have been used otherwise than was known before."""
        if self._anew or before.state.payers != now.state.payers:
            return True
        held, earlier = self._held().then(now.ordinal), self._held().then(before.ordinal)
        return held.versions != earlier.versions or held.changed_since(
            before.ordinal, *month_bounds(month)
        )


@contextmanager
def opened(
    archive: Archive, now: Micros, as_of: Position | None = None, *, anew: bool = False
) -> Iterator[Books]:
    """Open the books on history as it is now, or as it was at a moment.

    ``anew`` folds all of it again, for who does not want to rely on what was kept.
    """
    with archive.reading(as_of) as reading, ExitStack() as looks:

        def look() -> Held:
            # Looked at later than the reading was begun, so that it reaches as far.
            holdings = archive.holdings
            return looks.enter_context(holdings.anew() if anew else holdings.look())

        yield Books(reading, look, now if as_of is None else as_of.at, anew=anew)


def _is_next(past: Past, month: str) -> bool:
    """Return whether a month is the one after the last closed: what is found later goes there."""
    last = max((m for m in past.closings if m < month), default=None)
    return last is not None and month == month_of(month_bounds(last)[1])


def _past(reading: Reading, held: Callable[[], Held], through: Ordinal) -> Past:
    """Fold what money goes by, up to an ordinal: prices and terms. What was used is asked for."""
    cell = Cell()
    closings: dict[str, Closing] = {}
    defined: dict[str, Versions] = {key: (meter,) for key, meter in BUILT_IN.items()}
    for ordinal, at, fact in reading.facts(_TAGS):
        if ordinal > through:
            break
        match fact:
            case MeterDefined(meter=meter):
                defined[meter.key] = with_version(defined.get(meter.key, ()), meter)
            case MeterDeleted(key=key):
                defined[key] = ended(defined[key], at)
            case _:
                EVOLVE[type(fact)](cell, fact, at)
                if isinstance(fact, PeriodClosed):
                    closings[fact.closing.period] = fact.closing
    return Past(
        ordinal=through,
        intervals=lambda start, end: held().then(through).intervals(start, end),
        definitions={key: versions[-1] for key, versions in defined.items()},
        state=cell.state,
        closings=closings,
    )


def _by_meter(used: Iterable[Usage]) -> dict[tuple[str, str], int]:
    totals: dict[tuple[str, str], int] = {}
    for row in used:
        key = row.project_id, row.meter
        totals[key] = totals.get(key, 0) + row.quantity
    return totals


def _meter_versions(past: Past) -> dict[str, int]:
    return {key: meter.version for key, meter in sorted(past.definitions.items())}
