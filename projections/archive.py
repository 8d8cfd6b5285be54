"""What history can be asked: usage, bills, whether all is intact, whether replays agree.

Every answer is a fold of the sealed segments and the log's tail behind them, so it includes each
ordinal that was acknowledged before the question. Blocking, and pure but for reading: the same log
gives the same answer. ``archiver`` asks it in threads.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.domain.billing.customers import assigned, payer_at
from engine.domain.fold import apply_commit, decode_for_fold
from engine.domain.state import Cell, digest
from engine.log.checkpoint import Checkpoint, CheckpointBroken, Held
from engine.log.commit import GENESIS, ChainBroken
from engine.log.port import LogGone
from engine.log.verify import Walk
from projections.answers import Position, RequestAlarm
from projections.bill import Bill, derive_bill
from projections.history import History
from projections.holdings import Holdings, facts_of
from projections.metering import Interval, Usage, usage
from projections.models import StoredCommit, decode_fact, decode_stored, last_ordinal
from projections.rating import UsageRow, shown, usage_row
from projections.reader import Reader
from projections.segment import HistoryBroken, Segment
from schemas.billing import (
    STANDARD,
    Customer,
    CustomerSaved,
    Payer,
    PriceList,
    PriceListPublished,
    PriceListWithdrawn,
    ProjectAssigned,
)
from schemas.errors import InvalidInput, NotFound, Unavailable
from schemas.metering import ADDITIVE, MeterDefinition
from schemas.units import Micros, Ordinal

# By which prices whose usage is rated.
RATED_BY = [
    str(fact.__struct_config__.tag)
    for fact in (PriceListPublished, PriceListWithdrawn, CustomerSaved, ProjectAssigned)
]

type Read = Callable[[int], Iterable[tuple[int, bytes]]]


class Window(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question about a stretch of time; ``project`` None means all of them.

    ``price_list`` None means of each project the one of who pays for it at the end. ``as_of`` is
    where the log ended and the time it was, None meaning now.
    """

    start: Micros | None = None
    end: Micros | None = None
    project: str | None = None
    price_list: str | None = None
    meter: str | None = None
    as_of: Position | None = None


class MeterTotal(Struct, frozen=True, kw_only=True):
    """What a meter's rows add up to."""

    meter: str
    base_quantity: str
    quantity: str
    unit: str


class UsageAnswer(Struct, frozen=True, kw_only=True):
    """Usage in [start, end); ``as_of`` is the last ordinal that was looked at."""

    as_of: Ordinal
    start: Micros
    end: Micros
    usage: tuple[UsageRow, ...]
    totals: tuple[MeterTotal, ...]


class BillAnswer(Struct, frozen=True, kw_only=True):
    """A bill for the project asked for, or one for each that used anything."""

    as_of: Ordinal
    start: Micros
    end: Micros
    bills: tuple[Bill, ...]


class VerifyAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whether the log and its segments are what was written; if not, from which ordinal on."""

    intact: bool
    commits: int = 0
    ordinals: Ordinal = 0
    last_hash: str = ""
    segments: int = 0
    checkpoints: int = 0
    losses: tuple[tuple[Ordinal, Ordinal], ...] = ()
    alarms: tuple[RequestAlarm, ...] = ()  # request ids that came twice; the chain may hold
    ordinal: Ordinal = 0
    why: str = ""


class ReplayAnswer(Struct, frozen=True, kw_only=True):
    """The state's digest after a replay up to ``ordinal``, beside what the engine says it has.

    ``matches`` is None when the engine could not be asked.
    """

    matches: bool | None
    ordinal: Ordinal
    digest: str
    engine_digest: str | None
    commits: int
    elapsed_ms: int


class SegmentsAnswer(Struct, frozen=True, kw_only=True):
    """The sealed segments, and the last ordinal they hold."""

    ordinal: Ordinal
    segments: tuple[Segment, ...]


class StatusAnswer(Struct, frozen=True, kw_only=True):
    """How far history reaches: sealed, projected, and the log's end."""

    sealed: Ordinal
    projected: Ordinal
    head: Ordinal
    segments: int
    bytes: int


class Metered(Struct, kw_only=True):
    """What was metered in a time, and what it is rated by.

    ``definitions`` and ``customers`` are the newest of each.
    """

    intervals: list[Interval]
    definitions: dict[str, MeterDefinition]
    price_lists: dict[str, list[PriceList]]
    customers: dict[str, Customer]
    payers: dict[str, tuple[Payer, ...]]
    as_of: Ordinal

    def price_list_of(self, project_id: str, at: Micros) -> str:
        """Return the price list that a project's usage is rated by: that of who pays at a time."""
        customer = self.customers.get(payer_at(self.payers.get(project_id, ()), at))
        return STANDARD if customer is None else customer.price_list


class Reading(Struct, frozen=True, kw_only=True):
    """History as it is at one moment: its end, and its facts, to be read as often as needed.

    ``facts`` yields (ordinal, commit's time, fact) of all facts with some tags, in order.
    """

    ordinal: Ordinal
    chain_hash: str
    facts: Callable[[Sequence[str]], Iterator[tuple[Ordinal, Micros, Any]]]


class Archive:
    """Sealed history and the log's tail as one. ``read`` yields what follows a sequence.

    ``metering`` is where ``holdings`` keep what they are; None means in memory. ``scratch`` is for
    what is worked out and thrown away; None means where the system has room for that.
    """

    def __init__(
        self, history: History, read: Read, reader: Reader, metering: Path | None = None
    ) -> None:
        self._history = history
        self._read = read
        self._reader = reader
        self.holdings = Holdings(metering, history, read, remember=RATED_BY)
        self.scratch = None if metering is None else metering / "scratch"

    def usage(self, window: Window, now: Micros) -> UsageAnswer:
        """Return what was used in a window, no later than ``now`` or the moment that is meant.

        Raises:
            InvalidInput: the window ends before it begins.
            NotFound: there is no such meter.
        """
        start, end = _bounds(window, now)
        metered = self.metered(start, end, window.project, window.meter, window.as_of)
        rows = list(usage(metered.intervals, start, end, window.project))
        return UsageAnswer(
            as_of=metered.as_of,
            start=start,
            end=end,
            usage=tuple(usage_row(row, metered.definitions) for row in rows),
            totals=_totals(rows, metered.definitions),
        )

    def bill(self, window: Window, now: Micros) -> BillAnswer:
        """Return bills for a window, no later than ``now`` or the moment that is meant.

        Raises:
            InvalidInput: the window ends before it begins.
            NotFound: there is no such price list.
        """
        start, end = _bounds(window, now)
        metered = self.metered(start, end, window.project, as_of=window.as_of)
        by_project: dict[str, list[Usage]] = {} if window.project is None else {window.project: []}
        for row in usage(metered.intervals, start, end, window.project):
            by_project.setdefault(row.project_id, []).append(row)
        return BillAnswer(
            as_of=metered.as_of,
            start=start,
            end=end,
            bills=tuple(
                derive_bill(
                    project_id,
                    rows,
                    _prices(metered, window, project_id, end),
                    start,
                    end,
                    metered.definitions,
                )
                for project_id, rows in sorted(by_project.items())
            ),
        )

    def seal(self, ordinals_max: int, through: Ordinal) -> list[Segment]:
        """Seal what is not sealed yet, up to ``through``, in segments of bounded size.

        Raises:
            ChainBroken: the log is not what was written.
            NotProjected: this node's read model does not reach as far.
        """
        sealed: list[Segment] = []
        while True:
            segments = self._history.segments()
            last = segments[-1] if segments else None
            if last is not None and last.last >= through:
                return sealed
            segment = self._history.seal(
                self._read(last.last_seq if last else 0),
                self._reader.db(),
                ordinals_max=ordinals_max,
                through=through,
            )
            if segment is None:
                return sealed
            sealed.append(segment)

    def merge(self, ordinals_max: int, now: Micros) -> list[Segment]:
        """Merge small segments until there are few; return those that came of it.

        Raises:
            HistoryBroken: a segment is not what was sealed.
        """
        merged: list[Segment] = []
        while segment := self._history.merge_due(ordinals_max, now):
            merged.append(segment)
        return merged

    def segments(self) -> SegmentsAnswer:
        """Return what is sealed."""
        segments = self._history.segments()
        return SegmentsAnswer(
            ordinal=segments[-1].last if segments else 0, segments=tuple(segments)
        )

    def status(self) -> StatusAnswer:
        """Return how far history reaches."""
        segments = self._history.segments()
        return StatusAnswer(
            sealed=segments[-1].last if segments else 0,
            projected=self._reader.position(),
            head=self._head(segments),
            segments=len(segments),
            bytes=sum(segment.bytes for segment in segments),
        )

    def verify(self, held: Callable[[], Held] = Held) -> VerifyAnswer:
        """Walk the whole log and all segments, and compare the two; find all that was signed.

        ``held`` returns the checkpoints that the log must contain.
        """
        projected = self._reader.position()
        walk = Walk()
        try:
            statements = held()
            walk = Walk(checkpoints=statements.checkpoints)
            with self._history.hold() as segments:
                self._verify_log(walk, segments, projected, statements.checkpoints)
                self._history.verify(segments)
        except ChainBroken as error:
            return VerifyAnswer(intact=False, ordinal=error.ordinal, why=error.why)
        except HistoryBroken as error:
            return VerifyAnswer(intact=False, ordinal=error.ordinal, why=str(error))
        except CheckpointBroken as error:
            return VerifyAnswer(intact=False, why=str(error))
        except LogGone:
            return VerifyAnswer(
                intact=False,
                ordinal=walk.ordinal + 1,
                why="it was dropped from the broker, and sealed history does not hold it; "
                "put history/ back from a copy",
            )
        return VerifyAnswer(
            intact=True,
            commits=walk.commits,
            ordinals=walk.ordinal,
            last_hash=walk.hash,
            segments=len(segments),
            checkpoints=len(statements.checkpoints),
            losses=tuple((loss.ordinal + 1, loss.lost) for loss in statements.losses),
            alarms=tuple(self._reader.request_alarms()),
        )

    def _verify_log(
        self,
        walk: Walk,
        segments: Sequence[Segment],
        projected: Ordinal,
        checkpoints: Sequence[Checkpoint],
    ) -> None:
        """Walk the log, which must hold what was sealed and reach as far as what was read of it.

        Raises:
            ChainBroken: names the first ordinal that does not hold.
        """
        ends = iter(segments)
        segment = next(ends, None)
        for seq, data in self._read(0):
            walk.add(seq, data)
            if segment is not None and seq == segment.last_seq:
                if walk.hash != segment.last_hash:
                    raise ChainBroken(
                        segment.first, "the log is another than the one that was sealed"
                    )
                segment = next(ends, None)
        known = max(
            projected,
            segments[-1].last if segments else 0,
            max((said.ordinal for said in checkpoints), default=0),
        )
        if walk.ordinal < known:
            raise ChainBroken(
                walk.ordinal + 1,
                f"the log ends before it: it was cut, for ordinal {known} was read or signed",
            )

    def replay(self, engine: tuple[Ordinal, str] | None) -> ReplayAnswer:
        """Fold the log anew, up to the ordinal at which the engine gave its digest, and compare.

        Raises:
            Unavailable: the log ends before that ordinal.
        """
        began = time.monotonic()
        cell = Cell()
        commits = 0
        for _, data in self._read(0):
            if engine is not None and cell.state.ordinal >= engine[0]:
                break
            apply_commit(cell, decode_for_fold(data))
            commits += 1
        if engine is not None and cell.state.ordinal != engine[0]:
            raise Unavailable(f"the log was read to {cell.state.ordinal}, not to {engine[0]}")
        found = digest(cell)
        return ReplayAnswer(
            matches=None if engine is None else found == engine[1],
            ordinal=cell.state.ordinal,
            digest=found,
            engine_digest=None if engine is None else engine[1],
            commits=commits,
            elapsed_ms=int((time.monotonic() - began) * 1000),
        )

    @contextlib.contextmanager
    def reading(self, as_of: Position | None = None) -> Iterator[Reading]:
        """Hold history as it is now, or as it was at a moment, for as long as it is read."""
        with self._history.hold() as segments:
            tail = list(self._tail(segments))
            ordinal, chain_hash = 0, GENESIS
            if tail:
                ordinal, chain_hash = last_ordinal(tail[-1]), tail[-1].hash
            elif segments:
                ordinal, chain_hash = segments[-1].last, segments[-1].last_hash
            if as_of is not None:
                ordinal, chain_hash = as_of.ordinal, as_of.hash
            yield Reading(
                ordinal=ordinal,
                chain_hash=chain_hash,
                facts=lambda wanted: itertools.takewhile(
                    lambda fact: fact[0] <= ordinal, self._facts(wanted, segments, tail)
                ),
            )

    def chain_hash_at(self, ordinal: Ordinal) -> str | None:
        """Return the chain's hash behind the commit that ends with an ordinal; None if none does.

        Reads the log from its beginning: segments have the hash of their last commit alone.
        """
        for _, data in self._read(0):
            commit = decode_stored(data)
            if (last := last_ordinal(commit)) >= ordinal:
                return commit.hash if last == ordinal else None
        return None

    def _facts(
        self, wanted: Sequence[str], segments: Sequence[Segment], tail: Sequence[StoredCommit]
    ) -> Iterator[tuple[Ordinal, Micros, Any]]:
        for ordinal, at, _, body in self._history.facts(wanted, segments):
            yield ordinal, at, decode_fact(body)
        tags = frozenset(wanted)
        for commit in tail:
            for ordinal, fact in facts_of(commit, tags):
                yield ordinal, commit.at, fact

    def metered(
        self,
        start: Micros,
        end: Micros,
        project_id: str | None = None,
        meter: str | None = None,
        as_of: Position | None = None,
    ) -> Metered:
        """Return what was metered from ``start`` to ``end``, and by which price lists it is rated.

        Raises:
            NotFound: there is no such meter.
        """
        with self.holdings.look() as now:
            held = now if as_of is None else now.then(as_of.ordinal)
            if meter is not None and meter not in held.versions:
                raise NotFound(f"there is no meter {meter!r}")
            metered = Metered(
                intervals=held.intervals(start, end, project_id=project_id, meter=meter),
                definitions=held.definitions,
                price_lists={},
                customers={},
                payers={},
                as_of=held.as_of,
            )
        for _, _, fact in held.facts:
            match fact:
                case PriceListPublished(price_list=published):
                    metered.price_lists.setdefault(published.name, []).append(published)
                case PriceListWithdrawn(name=name, version=version):
                    versions = metered.price_lists[name]
                    metered.price_lists[name] = [v for v in versions if v.version != version]
                case CustomerSaved(customer=customer):
                    metered.customers[customer.customer_id] = customer
                case ProjectAssigned(project_id=assigned_id, customer_id=paying, since=since):
                    payers = metered.payers.get(assigned_id, ())
                    payer = Payer(customer_id=paying, since=since)
                    metered.payers[assigned_id] = assigned(payers, payer)
                case _:
                    pass  # meters, which ``held`` has looked at
        return metered

    def _tail(self, segments: Sequence[Segment]) -> Iterator[StoredCommit]:
        for _, data in self._read(segments[-1].last_seq if segments else 0):
            yield decode_stored(data)

    def _head(self, segments: Sequence[Segment]) -> Ordinal:
        head = segments[-1].last if segments else 0
        for commit in self._tail(segments):
            head = last_ordinal(commit)
        return head


def _prices(metered: Metered, window: Window, project_id: str, end: Micros) -> Sequence[PriceList]:
    name = window.price_list or metered.price_list_of(project_id, end - 1)
    versions = metered.price_lists.get(name)
    if not versions:
        raise NotFound(f"there is no price list {name!r}")
    return versions


def _bounds(window: Window, now: Micros) -> tuple[Micros, Micros]:
    """Return the window, cut at now: the future has not been used yet."""
    now = now if window.as_of is None else window.as_of.at
    end = now if window.end is None else min(window.end, now)
    start = 0 if window.start is None else window.start
    if window.end is not None and start >= window.end:
        raise InvalidInput("the window must begin before it ends")
    return start, max(start, end)


def _totals(
    rows: Sequence[Usage], definitions: Mapping[str, MeterDefinition]
) -> tuple[MeterTotal, ...]:
    totals: dict[str, int] = {}
    for row in rows:
        if definitions[row.meter].aggregation in ADDITIVE:
            totals[row.meter] = totals.get(row.meter, 0) + row.quantity
    return tuple(
        MeterTotal(
            meter=meter.key,
            base_quantity=str(totals[meter.key]),
            quantity=shown(meter, totals[meter.key]),
            unit=meter.unit,
        )
        for meter in definitions.values()
        if meter.key in totals
    )
