"""The books: months and invoices, open and closed, derived from history as they are asked for.

A closed month is derived from the log up to the ordinal it was closed with, an open one from all of
it, by the same code: what was issued comes out again, to the byte, or the books say what differs.
What was held is asked of ``holdings``, which keep it; who verifies opens the books ``anew``: the
whole log is folded for them alone. Rows lie in a database on disk and are read there; only what it
cannot reckon with, and what was found late, is in memory. A month that is not large is verified by
``pricing`` alone, so that two ways to reckon agree on it.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal, localcontext

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.periods import DIGITS_MAX, terms_digest, versions_before
from engine.domain.fold import EVOLVE
from engine.domain.metering import Versions, ended, with_version
from engine.domain.state import Cell
from projections.answers import Position
from projections.archive import Archive, Reading
from projections.drawn import Drawn
from projections.holdings import Held
from projections.invoice import Document, DrawnUp, closed, draw_up, period_digest, settled
from projections.late import about, changed_since
from projections.ledger import (
    MonthRows,
    Past,
    Prices,
    Row,
    corrections,
    month_rows,
    terms_of,
    total,
    with_rows,
)
from projections.metering import Usage
from projections.scratch import Scratch, room, scratch_in
from projections.tally import Tally, Uncountable, only, simple_meters, tally
from projections.whatif import Forecast, WhatIf, forecast, what_if
from schemas.billing import (
    BillingFact,
    ClosedInvoice,
    Closing,
    Payer,
    PeriodClosed,
    PublishPriceList,
)
from schemas.envelope import members
from schemas.errors import InvalidInput, NotFound
from schemas.metering import BUILT_IN, MeterDefined, MeterDeleted
from schemas.months import month_bounds, month_of
from schemas.units import Micros, Ordinal

MONEY = members(BillingFact)
_FACTS: tuple[type[Struct], ...] = (*MONEY, MeterDefined, MeterDeleted)
# Of what is verified no more than this is reckoned by ``pricing`` alone: some seconds, 130 MB.
BY_PRICING_ROWS = 100_000
_TAGS = [str(fact.__struct_config__.tag) for fact in _FACTS]


class MonthBook(Struct, frozen=True, kw_only=True):
    """A month's invoices by customer, and what nobody pays for, in base units by project and meter.

    A closed month's documents have the digests of their rows that were recorded, others none.
    """

    past: Past
    drawn_up: dict[str, DrawnUp]
    unassigned: dict[tuple[str, str], int]

    @property
    def documents(self) -> dict[str, Document]:
        """The invoices by customer, without their rows."""
        return {customer_id: drawn.document for customer_id, drawn in self.drawn_up.items()}


class Difference(Struct, frozen=True, kw_only=True):
    """Where a derivation is not what was recorded."""

    what: str
    recorded: str
    derived: str


class Books:
    """The books of one reading of history. What was derived is kept for as long as it is read.

    ``look`` returns the intervals there are, at the reading's end or later, and is called once it
    matters. ``scratch`` opens a database and gives its directory. ``anew`` reckons by ``pricing``
    alone what is not too large for that.
    """

    def __init__(
        self,
        reading: Reading,
        look: Callable[[], Held],
        scratch: Callable[[], Scratch],
        now: Micros,
        *,
        anew: bool = False,
    ) -> None:
        self._reading = reading
        self._held = functools.cache(look)
        self._scratch = scratch
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
        past, documents = self.month(month).past, self._digested(month)
        return Closing(
            period=month,
            ordinal=past.ordinal,
            chain_hash=self.chain_hash,
            meter_versions=_meter_versions(past),
            price_list_versions=versions_before(past.state, month_bounds(month)[1]),
            terms_digest=terms_digest(past.state),
            rows_digest=period_digest(documents),
            invoices=tuple(closed(document) for document in documents),
        )

    def _digested(self, month: str) -> list[Document]:
        """Return a month's documents with the digests of their rows as they are derived."""
        return [
            replace(drawn.document, rows_digest=drawn.digest())
            for drawn in self.month(month).drawn_up.values()
        ]

    def differences(self, month: str, chain_hash: str | None) -> list[Difference]:
        """Derive a closed month again and return where it is not what was recorded.

        ``chain_hash`` is the log's, where the month was closed.
        """
        recorded, past = self.past().closings[month], self.month(month).past
        documents = self._digested(month)
        pairs: list[tuple[str, object, object]] = [
            ("chain_hash", recorded.chain_hash, chain_hash),
            ("meter_versions", recorded.meter_versions, _meter_versions(past)),
            (
                "price_list_versions",
                recorded.price_list_versions,
                versions_before(past.state, month_bounds(month)[1]),
            ),
            ("terms_digest", recorded.terms_digest, terms_digest(past.state)),
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

    def what_if(self, month: str, draft: PublishPriceList) -> WhatIf:
        """Return what a month would come to under a draft of prices, by customer.

        Raises:
            InvalidInput: it has not begun, or the draft would not be published.
        """
        past = self._begun(month)
        return what_if(past, month, draft, functools.partial(self._totals, past, month, self._now))

    def forecast(self, month: str) -> tuple[Forecast, ...]:
        """Return what a month will come to for each customer if what is held now stays."""
        past = self.past()
        so_far = self._totals(past, month, self._now, None, ())
        return forecast(past, month, so_far, self._totals(past, month, None, None, ()))

    def _totals(
        self,
        past: Past,
        month: str,
        until: Micros | None,
        prices: Prices | None,
        left_out: Collection[str],
    ) -> dict[str, Decimal]:
        """Return what each customer's use of a month comes to; of who used nothing, nothing."""
        usage, found = self._used(past, month, until, prices, left_out)
        totals = {customer_id: total(rows) for customer_id, rows in usage.rows.items()}
        with localcontext(prec=DIGITS_MAX):
            for customer_id, lines in ({} if found is None else found.tally.lines).items():
                summed = sum((Decimal(each.line.amount) for each in lines), Decimal(0))
                totals[customer_id] = totals.get(customer_id, Decimal(0)) + summed
        return totals

    def _begun(self, month: str) -> Past:
        """Return the past that a month is derived from."""
        start, _ = month_bounds(month)
        if start > self._now:
            raise InvalidInput(f"the month {month} has not begun")
        closings = self.past().closings
        return self.past(closings[month].ordinal if month in closings else None)

    def _derive(self, month: str) -> MonthBook:
        past = self._begun(month)
        closing = self.past().closings.get(month)
        usage, found = self._used(past, month, self._now if closing is None else None)
        drawn_up = self._drawn_up(month, past, usage, found)
        if closing is not None:
            recorded = {i.customer_id: i.rows_digest for i in closing.invoices}
            drawn_up = {
                c: replace(d, document=replace(d.document, rows_digest=recorded.get(c, "")))
                for c, d in drawn_up.items()
            }
        unassigned = _by_meter(usage.unassigned)
        if found is not None:
            unassigned |= found.tally.unassigned
        return MonthBook(past=past, drawn_up=drawn_up, unassigned=unassigned)

    def _used(
        self,
        past: Past,
        month: str,
        until: Micros | None,
        prices: Prices | None = None,
        left_out: Collection[str] = (),
    ) -> tuple[MonthRows, "_Summed | None"]:
        """Return a month's rows that have to be in memory, and the sums of all others."""
        by_pricing = functools.partial(
            month_rows, month=month, until=until, prices=prices, left_out=left_out
        )
        held = self._held().then(past.ordinal)
        try:
            with room("what a month comes to"):
                scratch = self._scratch()
                found = tally(
                    scratch.db, held, past, month, until, prices=prices, left_out=left_out
                )
        except Uncountable:
            return by_pricing(past), None
        count = sum(each.line.rows for lines in found.lines.values() for each in lines)
        if self._anew and count <= BY_PRICING_ROWS:
            return by_pricing(past), None
        drawn = Drawn(scratch.db, found)
        rows = with_rows(by_pricing(only(held, past, found.left)), found.minimums)
        return rows, _Summed(found, drawn)

    def _drawn_up(
        self, month: str, past: Past, usage: MonthRows, found: "_Summed | None"
    ) -> dict[str, DrawnUp]:
        """Draw up a month of rows and, beside them, of lines that were summed up."""
        earlier = sorted(m for m in past.closings if m < month)
        rows: dict[str, list[Row]] = {c: list(of) for c, of in usage.rows.items()}
        lines = {} if found is None else found.tally.lines
        versions = {} if found is None else found.tally.versions
        problems: dict[str, list[str]] = {}
        if earlier and _is_next(past, month):
            self._add_corrections(past, earlier, rows, problems)
        for customer_id, unrated in usage.unrated.items():
            problems.setdefault(customer_id, []).append(
                f"{len(unrated)} pieces of usage from before any price list was in force"
            )
        return {
            customer_id: draw_up(
                terms_of(past, customer_id, month),
                month,
                past.ordinal,
                rows.get(customer_id, ()),
                [each for each in past.state.credits.values() if each.customer_id == customer_id],
                problems.get(customer_id, ()),
                lines.get(customer_id, ()),
                versions.get(customer_id, ()),
                None if found is None else found.drawn,
            )
            for customer_id in sorted(rows.keys() | lines.keys())
        }

    def _add_corrections(
        self,
        past: Past,
        earlier: Sequence[str],
        rows: dict[str, list[Row]],
        problems: dict[str, list[str]],
    ) -> None:
        """Add what was found of closed months since the last of them was closed."""
        before = self.past(past.closings[earlier[-1]].ordinal)
        for each in earlier:
            if (pair := self._may_differ(before, past, each)) is not None:
                for customer_id, found in corrections(*pair, each).items():
                    rows.setdefault(customer_id, []).extend(found)
        disputes = list(past.state.corrections.values())
        settled_before = len(before.state.corrections)
        if len(disputes) > settled_before:
            # Earlier ones about the same lines count, others do not: each is a month to derive.
            wanted = {each.invoice_id for each in disputes[settled_before:]}
            about = {invoice_id: self.invoice(invoice_id) for invoice_id in sorted(wanted)}
            settlements, without = settled(disputes, about, settled_before)
            for customer_id, more in settlements.items():
                rows.setdefault(customer_id, []).extend(more)
            for customer_id in rows:
                problems.setdefault(customer_id, []).extend(without)

    def _may_differ(self, before: Past, now: Past, month: str) -> tuple[Past, Past] | None:
        """Return both pasts, as far as a month may have been used otherwise than was known before.

        None: it was used as was known.
        """
        rows = sum(invoice.rows for invoice in now.closings[month].invoices)
        by_pricing = self._anew and rows <= BY_PRICING_ROWS
        if by_pricing or _paid_for(before, month) != _paid_for(now, month):
            return before, now
        held, earlier = self._held().then(now.ordinal), self._held().then(before.ordinal)
        if held.versions != earlier.versions:
            return before, now
        changed = changed_since(held, before.ordinal, *month_bounds(month))
        if not changed:
            return None
        # Of meters that nothing is counted of, no other resource's rows are others now.
        alone = simple_meters(earlier, before, month) & simple_meters(held, now, month)
        return about((earlier, before), (held, now), month_bounds(month), changed, alone)


class _Summed(Struct, frozen=True):
    tally: Tally
    drawn: Drawn


@contextmanager
def opened(
    archive: Archive, now: Micros, as_of: Position | None = None, *, anew: bool = False
) -> Iterator[Books]:
    """Open the books on history as it is now, or as it was at a moment.

    ``anew`` folds all of it again, for who does not want to rely on what was kept.
    """
    with archive.reading(as_of) as reading, ExitStack() as open_:

        def look() -> Held:
            # Looked at later than the reading was begun, so that it reaches as far.
            holdings = archive.holdings
            return open_.enter_context(holdings.anew() if anew else holdings.look())

        def scratch() -> Scratch:
            return open_.enter_context(scratch_in(archive.scratch))

        yield Books(reading, look, scratch, now if as_of is None else as_of.at, anew=anew)


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


def _paid_for(past: Past, month: str) -> dict[str, tuple[Payer, ...]]:
    """Return who paid for which project by the end of a month, and since when."""
    _, end = month_bounds(month)
    found = {
        project_id: tuple(payer for payer in of if payer.since < end)
        for project_id, of in past.state.payers.items()
    }
    return {project_id: of for project_id, of in found.items() if of}


def _by_meter(used: Iterable[Usage]) -> dict[tuple[str, str], int]:
    totals: dict[tuple[str, str], int] = {}
    for row in used:
        key = row.project_id, row.meter
        totals[key] = totals.get(key, 0) + row.quantity
    return totals


def _meter_versions(past: Past) -> dict[str, int]:
    return {key: meter.version for key, meter in sorted(past.definitions.items())}
