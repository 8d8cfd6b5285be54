"""Holdings: every interval there ever was, kept so that no question folds the whole log again.

The fold of ``metering`` goes on from where it was. What has ended lies in Parquet files (*runs*);
what is held, and how far the log was read, in a *checkpoint*, which names the runs that count. It
is written last and put in place at once, so that a kill at any moment loses work and nothing else.
All of it is derived: with other code, another log, or nothing there, it is made anew. Invariant:
what is answered is what folding the whole log would give.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from engine.domain.metering import Versions, ended, with_version
from engine.fingerprint import fingerprint
from engine.log.commit import GENESIS
from projections.answers import Position
from projections.columns import quoted
from projections.history import History
from projections.metering import Interval, Meters, MeterState, in_order, tags
from projections.models import StoredCommit, decode_fact, decode_stored, last_ordinal
from projections.segment import FactColumns, database, file_sha256
from schemas.config import Config
from schemas.envelope import fact_types
from schemas.metering import BUILT_IN, Dimensions, MeterDefined, MeterDefinition, MeterDeleted
from schemas.units import Micros, Ordinal

log = structlog.get_logger(__name__)

CHECKPOINT = "checkpoint.msgpack"
ANEW = ".anew-"
RUN_ROWS = 50_000
KEEP_EVERY = 20_000  # ordinals between two checkpoints, at least
BYTES_AN_ORDINAL = 100  # that the last one had, at most
FAN_IN = 8
DIGEST_BYTES = 32
MERGED_ROWS_MAX = 1_000_000
# All of our code that has a part in what is kept here.
CODE = ("schemas.metering", "schemas.paths", "projections.metering", "projections.holdings")
BEGINNING = Position(ordinal=0, seq=0, hash=GENESIS, at=0)
DEFINING = [str(fact.__struct_config__.tag) for fact in (MeterDefined, MeterDeleted)]

type Read = Callable[[int], Iterable[tuple[int, bytes]]]

_TYPES = fact_types()
_decode_dimensions = msgspec.json.Decoder(dict[str, str]).decode
_json = msgspec.json.Encoder()


class HoldingsBroken(Exception):
    """What is kept does not go on in this log; it is to be made anew."""


class Run(Struct, frozen=True, kw_only=True):
    """A file of intervals that have ended, and the SHA-256 (hex) of its bytes."""

    name: str
    rows: int
    sha256: str = ""


class _Tagged(Struct, frozen=True):
    type: str


class _Fact(Struct, frozen=True, kw_only=True):
    ordinal: Ordinal
    at: Micros
    body: bytes


class _Kept(Struct, frozen=True, kw_only=True):
    """A checkpoint: the fold up to a position."""

    code: str
    position: Position
    states: list[MeterState]
    facts: list[_Fact]
    runs: list[Run]


class Held(Struct, frozen=True, kw_only=True):
    """What there is at one moment: ``loose`` are intervals that lie in no run.

    ``facts`` are (ordinal, commit's time, fact) of those that were asked to be remembered.
    """

    as_of: Ordinal
    versions: dict[str, Versions]
    runs: tuple[Path, ...]
    loose: tuple[Interval, ...]
    facts: tuple[tuple[Ordinal, Micros, Any], ...]

    @property
    def definitions(self) -> dict[str, MeterDefinition]:
        """The newest version of each meter."""
        return {key: versions[-1] for key, versions in self.versions.items()}

    def then(self, through: Ordinal) -> "Held":
        """Return what there was when the log ended with an ordinal.

        An interval is what the fact that began it says, so it was the same then; if the fact that
        ended it came later, it had no end.
        """
        if through >= self.as_of:
            return self
        facts = tuple(fact for fact in self.facts if fact[0] <= through)
        versions: dict[str, Versions] = {key: (meter,) for key, meter in BUILT_IN.items()}
        for _, at, fact in facts:
            _define(versions, at, fact)
        return replace(self, as_of=through, facts=facts, versions=versions)

    def intervals(
        self,
        start: Micros,
        end: Micros,
        *,
        project_id: str | None = None,
        meter: str | None = None,
        resources: Collection[str] | None = None,
        projects: Collection[str] | None = None,
    ) -> list[Interval]:
        """Return the intervals that touch [start, end], in the order in which they began.

        They are of one project and one meter, or of some resources and projects, where these are
        given.
        """
        definitions = [version for versions in self.versions.values() for version in versions]
        known = {(version.key, version.version) for version in definitions}
        if project_id is not None:
            projects = (project_id,)
        found = list(self._run_rows(start, end, projects, meter, resources))
        found += [
            each
            for each in self.loose
            if each.start <= end
            and each.first_ordinal <= self.as_of
            and (each.end is None or each.end >= start or self._ended_later(each))
            and (projects is None or each.project_id in projects)
            and meter in {None, each.meter}
            and (resources is None or each.resource_id in resources)
        ]
        then = (
            replace(each, end=None, last_ordinal=None) if self._ended_later(each) else each
            for each in found
            if (each.meter, each.meter_version) in known
        )
        return in_order(then, definitions)

    def _ended_later(self, interval: Interval) -> bool:
        return interval.last_ordinal is not None and interval.last_ordinal > self.as_of

    def _run_rows(
        self,
        start: Micros,
        end: Micros,
        projects: Collection[str] | None,
        meter: str | None,
        resources: Collection[str] | None,
    ) -> Iterator[Interval]:
        if not self.runs:
            return
        where = ["start_at <= ?", "first_ordinal <= ?", "(end_at >= ? OR last_ordinal > ?)"]
        values: list[Any] = [[str(path) for path in self.runs], end, self.as_of, start, self.as_of]
        meters = None if meter is None else (meter,)
        only = (("project_id", projects), ("meter", meters), ("resource_id", resources))
        for column, wanted in only:
            if wanted is not None:
                where.append(f"{column} IN (SELECT unnest(?))")
                values.append(sorted(wanted))
        with database() as db:
            db.execute(
                f"SELECT * FROM read_parquet(?) WHERE {' AND '.join(where)}",  # noqa: S608  # our own words
                values,
            )
            known: dict[str, Dimensions] = {}
            while rows := db.fetchmany(10_000):
                yield from _of_rows(rows, known)


def holdings_path(config: Config) -> Path:
    """Return where a cell's holdings lie."""
    return Path(config.state_dir) / "metering"


class Holdings:
    """The fold that goes on. One process keeps it; threads may share it.

    ``remember`` are the tags of facts to be handed out with what is held. Without a directory
    everything is kept in memory.
    """

    def __init__(
        self,
        directory: Path | None,
        history: History,
        read: Read,
        *,
        remember: Sequence[str] = (),
        run_rows: int = RUN_ROWS,
    ) -> None:
        self._directory = directory
        self._history = history
        self._read = read
        self._remember = (*DEFINING, *remember)
        self._run_rows = self._patience = run_rows
        # Of all others only what rules read is decoded.
        self._whole = {_TYPES[tag] for tag in self._remember}
        self._code = fingerprint(*CODE) + ",".join(self._remember)
        self._mutex = threading.RLock()
        self._readers = 0
        self._others: set[Path] = set()
        self._begin()
        self._loaded = False

    def _begin(self) -> None:
        self._position = BEGINNING
        self._meters = Meters()
        self._versions: dict[str, Versions] = {k: (meter,) for k, meter in BUILT_IN.items()}
        self._facts: list[tuple[Ordinal, Micros, Any]] = []
        self._runs: list[Run] = []
        self._intact: dict[str, tuple[int, int, int]] = {}
        self._kept_at: Ordinal = 0
        self._kept_bytes = 0

    @contextlib.contextmanager
    def look(self) -> Iterator[Held]:
        """Return what there is once all that the log holds is folded; its runs stay meanwhile.

        Raises:
            HistoryBroken: a segment is not what was sealed, so nobody is to be billed by it.
        """
        with self._mutex:
            with self._history.hold() as segments:
                self._history.require_intact(segments)
            self.advance()
            held = Held(
                as_of=self._position.ordinal,
                versions=dict(self._versions),
                runs=tuple(self._path(run) for run in self._runs),
                loose=(*self._meters.closed(), *self._meters.still()),
                facts=tuple(self._facts),
            )
            self._readers += 1
        try:
            yield held
        finally:
            with self._mutex:
                self._readers -= 1

    @contextlib.contextmanager
    def anew(self) -> Iterator[Held]:
        """Return what there is by the log and its segments alone: all of it is folded again.

        What has ended meanwhile lies in files of its own, removed afterwards.

        Raises:
            HistoryBroken: as ``look``.
        """
        with contextlib.ExitStack() as done:
            directory = None
            if self._directory is not None:
                with self._mutex:
                    self._sweep()
                    self._directory.mkdir(parents=True, exist_ok=True)
                    directory = Path(tempfile.mkdtemp(prefix=ANEW, dir=self._directory))
                    self._others.add(directory)
                done.callback(self._remove, directory)
            again = Holdings(
                directory,
                self._history,
                self._read,
                remember=self._remember[len(DEFINING) :],
                run_rows=self._run_rows,
            )
            yield done.enter_context(again.look())

    def _remove(self, directory: Path) -> None:
        with self._mutex:
            self._others.discard(directory)
            self._sweep()

    def _sweep(self) -> None:
        """Remove what was folded anew and is not looked at, be it that of a killed process."""
        if self._directory is None:
            return
        for path in self._directory.glob(f"{ANEW}*"):
            if path not in self._others:
                shutil.rmtree(path)

    def advance(self) -> None:
        """Fold what is new in the log."""
        with self._mutex:
            if not self._loaded:
                self._load()
                self._loaded = True
            try:
                self._require_intact()
                self._go_on()
            except HoldingsBroken as error:
                log.warning("holdings_made_anew", why=str(error))
                self._begin()
                self._go_on()
            except BaseException:
                # A part of a segment may have been folded: go on from what is kept.
                self._begin()
                self._loaded = False
                raise

    def keep_up(self) -> None:
        """Fold what is new in the log; keep it if much is not kept yet."""
        with self._mutex:
            self.advance()
            if self._is_due():
                self.keep()

    def _is_due(self) -> bool:
        """Return whether so much is new that a checkpoint, which holds all states, is worth it."""
        new = self._position.ordinal - self._kept_at
        return new >= max(KEEP_EVERY, self._kept_bytes // BYTES_AN_ORDINAL)

    def keep(self) -> None:
        """Write what has ended into a run, and a checkpoint."""
        with self._mutex:
            if self._directory is None or self._position.ordinal == self._kept_at:
                return
            self._directory.mkdir(parents=True, exist_ok=True)
            closed = self._meters.closed()
            runs = list(self._runs)
            if closed:
                runs.append(self._write_run(_as_table(closed)))
            while len(small := _mergeable(runs)) >= FAN_IN:
                at = runs.index(small[0])
                runs[at : at + len(small)] = [self._merge(small)]
            self._checkpoint(runs)
            self._meters.forget_closed()
            self._runs = runs
            self._kept_at = self._position.ordinal
            self._clean()

    # The fold

    def _go_on(self) -> None:
        with self._history.hold() as segments:
            ended = _Ended()
            for segment in segments:
                if segment.last <= self._position.ordinal:
                    continue
                for facts in self._history.fact_columns(self._wanted(), [segment]):
                    self._take_all(facts)
                    self._runs += self._gathered(self._meters, ended)
                self._position = Position(
                    ordinal=segment.last,
                    seq=segment.last_seq,
                    hash=segment.last_hash,
                    at=segment.last_at,
                )
                if self._is_due():
                    self._runs += self._spilled(ended, rows=1)
                    if not ended.rows:
                        self._keep_if_due()
            self._meters.join((), ended.taken())
        self._follow()
        # A meter that was just defined has seen nothing of the log yet.
        known = {(each.key, each.version) for each in self._meters.definitions}
        new = [
            each
            for versions in self._versions.values()
            for each in versions
            if (each.key, each.version) not in known
        ]
        if new:
            self._catch_up(new)

    def _follow(self) -> None:
        """Fold what is not sealed yet."""
        wanted = frozenset(self._wanted())
        for seq, data in self._read(self._position.seq):
            commit = decode_stored(data)
            position = self._position
            if commit.first != position.ordinal + 1 or commit.prev != position.hash:
                raise HoldingsBroken(f"commit {seq} does not follow ordinal {position.ordinal}")
            for ordinal, fact in facts_of(commit, wanted):
                self._meters.apply(ordinal, commit.at, fact)
                self._note(ordinal, commit.at, fact)
            self._position = Position(
                ordinal=last_ordinal(commit), seq=seq, hash=commit.hash, at=commit.at
            )
            self._runs += self._written(self._meters)
            self._keep_if_due()

    def _wanted(self) -> list[str]:
        folded = tags(self._meters.definitions)
        return sorted({*folded, *self._remember})

    def _take_all(self, facts: FactColumns) -> None:
        """Fold those that were not folded yet."""
        new = bisect_right(facts.ordinals, self._position.ordinal)
        found = self._decoded(self._meters, facts)[new:]
        self._meters.apply_all(found)
        for ordinal, at, fact in found:
            if type(fact) in self._whole:
                self._note(ordinal, at, fact)

    def _decoded(self, meters: Meters, columns: FactColumns) -> list[tuple[Ordinal, Micros, Any]]:
        try:
            facts = meters.decoder(self._whole).decode_lines(columns.lines())
            return list(zip(columns.ordinals, columns.times, facts, strict=True))
        except (msgspec.MsgspecError, ValueError) as error:
            log.info("facts_decoded_whole", why=str(error))
        facts = [decode_fact(body) for body in columns.bodies.to_pylist()]
        return list(zip(columns.ordinals, columns.times, facts, strict=True))

    def _note(self, ordinal: Ordinal, at: Micros, fact: Any) -> None:
        _define(self._versions, at, fact)
        if type(fact) in self._whole:
            self._facts.append((ordinal, at, fact))

    def _catch_up(self, new: Sequence[MeterDefinition]) -> None:
        """Fold all of history up to here for meters that it was not folded for."""
        through = self._position.ordinal
        meters = Meters(new)
        wanted = tags(new)
        runs: list[Run] = []
        ended = _Ended()
        with self._history.hold() as segments:
            for facts in self._history.fact_columns(wanted, segments):
                here = bisect_right(facts.ordinals, through)
                meters.apply_all(self._decoded(meters, facts)[:here])
                runs += self._gathered(meters, ended)
            meters.join((), ended.taken())
            after = segments[-1].last_seq if segments else 0
        for _, data in self._read(after):
            commit = decode_stored(data)
            if commit.first > through:
                break
            for ordinal, fact in facts_of(commit, frozenset(wanted)):
                meters.apply(ordinal, commit.at, fact)
            runs += self._written(meters)
        self._meters.join(meters.states, meters.closed())
        self._runs += runs

    def _gathered(self, meters: Meters, ended: "_Ended") -> list[Run]:
        """Put what has just ended into columns, and write a run if it is much."""
        if self._directory is None:
            return []
        ended.add(meters.closed())
        meters.forget_closed()
        return self._spilled(ended, self._patience)

    def _written(self, meters: Meters) -> list[Run]:
        """Write what has ended into a run, if it is much."""
        if self._directory is None or meters.ended() < self._patience:
            return []
        ended = _Ended()
        ended.add(meters.closed())
        if runs := self._spilled(ended, self._patience):
            meters.forget_closed()
        return runs

    def _spilled(self, ended: "_Ended", rows: int) -> list[Run]:
        """Write a run, if there are so many rows; the next checkpoint names it."""
        if self._directory is None or ended.rows < rows:
            return []
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            run = self._write_run(ended.table())
        except OSError as error:  # a full disk, say: what is in memory goes on
            log.warning("holdings_not_kept", error=str(error))
            self._patience = 2 * ended.rows
            return []
        ended.clear()
        self._patience = self._run_rows
        return [run]

    def _keep_if_due(self) -> None:
        if not self._is_due():
            return
        try:
            self.keep()
        except OSError as error:  # as above; it is due again later
            log.warning("holdings_not_kept", error=str(error))
            self._kept_at = self._position.ordinal

    # What is kept

    def _load(self) -> None:
        """Go on from the checkpoint, if it is of this code and this log."""
        if self._directory is None:
            return
        self._sweep()
        path = self._directory / CHECKPOINT
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
            log.warning("holdings_made_anew", why="the checkpoint is damaged")
            return
        try:
            kept = msgspec.msgpack.decode(data[DIGEST_BYTES:], type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.info("holdings_made_anew", why=f"they are of other code: {error}")
            return
        if kept.code != self._code or not self._is_of_this_log(kept.position):
            log.info("holdings_made_anew", why="they are of other code, or of another log")
            return
        self._position, self._runs = kept.position, kept.runs
        self._meters = Meters((), kept.states)
        self._kept_at, self._kept_bytes = kept.position.ordinal, len(data)
        self._facts = [(each.ordinal, each.at, decode_fact(each.body)) for each in kept.facts]
        for _, at, fact in self._facts:
            _define(self._versions, at, fact)

    def _is_of_this_log(self, position: Position) -> bool:
        """Return whether the log has the commit that was folded last."""
        for seq, data in self._read(position.seq - 1):
            return (seq, decode_stored(data).hash) == (position.seq, position.hash)
        return False

    def _require_intact(self) -> None:
        """Check the bytes of runs, once for as long as their files stay the same.

        Raises:
            HoldingsBroken: one is gone, or is not what was written.
        """
        for run in self._runs:
            path = self._path(run)
            try:
                status = path.stat()
                file = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._intact.get(run.name) == file:
                    continue
                if file_sha256(path) != run.sha256:
                    raise HoldingsBroken(f"run {run.name} has other bytes than were written")
            except OSError as error:
                raise HoldingsBroken(f"run {run.name}: {error}") from error
            self._intact[run.name] = file

    def _path(self, run: Run) -> Path:
        assert self._directory is not None, "what is kept in memory alone has no runs"
        return self._directory / f"{run.name}.parquet"

    def _write_run(self, ended: Any) -> Run:
        from pyarrow import parquet  # noqa: PLC0415  # loaded when it is used, as DuckDB

        run = Run(name=self._new_name(), rows=len(ended))
        path = self._path(run)
        temporary = path.with_suffix(".parquet-new")
        parquet.write_table(ended, temporary, compression="zstd")
        temporary.replace(path)
        return replace(run, sha256=file_sha256(path))

    def _merge(self, runs: Sequence[Run]) -> Run:
        merged = Run(name=self._new_name(), rows=sum(run.rows for run in runs))
        path = self._path(merged)
        temporary = path.with_suffix(".parquet-new")
        with database() as db:
            db.execute(
                f"COPY (SELECT * FROM read_parquet(?)) TO '{quoted(temporary)}' "  # noqa: S608  # our own words
                "(FORMAT parquet, COMPRESSION zstd)",
                [[str(self._path(run)) for run in runs]],
            )
        temporary.replace(path)
        return replace(merged, sha256=file_sha256(path))

    def _new_name(self) -> str:
        """Return a name that no run has or had lately."""
        assert self._directory is not None, "what is kept in memory alone has no runs"
        taken = [int(path.stem) for path in self._directory.glob("[0-9]*.parquet")]
        return f"{max(taken, default=0) + 1:08d}"

    def _checkpoint(self, runs: list[Run]) -> None:
        assert self._directory is not None, "what is kept in memory alone has no checkpoint"
        kept = _Kept(
            code=self._code,
            position=self._position,
            states=self._meters.states,
            facts=[
                _Fact(ordinal=ordinal, at=at, body=_json.encode(fact))
                for ordinal, at, fact in self._facts
            ],
            runs=runs,
        )
        path = self._directory / f".{CHECKPOINT}"
        with path.open("wb") as file:
            data = msgspec.msgpack.encode(kept)
            file.write(hashlib.sha256(data).digest())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path.replace(self._directory / CHECKPOINT)
        self._kept_bytes = len(data)

    def _clean(self) -> None:
        """Remove files that no checkpoint names; while somebody reads, they stay."""
        if self._directory is None or self._readers:
            return
        named = {run.name for run in self._runs}
        for path in self._directory.glob("*.parquet*"):
            if path.name.removesuffix(".parquet") not in named:
                path.unlink()


_decode_tagged = msgspec.json.Decoder(_Tagged).decode


def _define(versions: dict[str, Versions], at: Micros, fact: Any) -> None:
    if isinstance(fact, MeterDefined):
        versions[fact.meter.key] = with_version(versions.get(fact.meter.key, ()), fact.meter)
    elif isinstance(fact, MeterDeleted):
        versions[fact.key] = ended(versions[fact.key], at)


def facts_of(commit: StoredCommit, wanted: frozenset[str]) -> Iterator[tuple[Ordinal, Any]]:
    """Yield (ordinal, fact) of a commit's facts with these tags."""
    ordinal = commit.first
    for record in commit.records:
        for number, raw in enumerate(record.facts, ordinal + 1):
            if _decode_tagged(raw).type in wanted:
                yield number, decode_fact(raw)
        ordinal += 1 + len(record.facts)


def _mergeable(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the first runs that follow each other and together are not too large for one."""
    first = next((n for n, run in enumerate(runs) if run.rows < MERGED_ROWS_MAX // FAN_IN), None)
    if first is None:
        return ()
    found: list[Run] = []
    for run in runs[first:]:
        if sum(each.rows for each in found) + run.rows > MERGED_ROWS_MAX:
            break
        found.append(run)
    return found


class _Ended:
    """Intervals that have ended, in columns: what is looked at while it is new is near at hand."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget them."""
        self._tables: list[Any] = []
        self.rows = 0

    def add(self, closed: Sequence[Interval]) -> None:
        """Add some."""
        if closed:
            self._tables.append(_as_table(closed))
            self.rows += len(closed)

    def table(self) -> Any:
        """Return all of them."""
        import pyarrow as pa  # noqa: PLC0415  # as above

        return pa.concat_tables(self._tables)

    def taken(self) -> Iterator[Interval]:
        """Yield them as they were, and forget them."""
        known: dict[str, Dimensions] = {}
        for table in self._tables:
            columns = (column.to_pylist() for column in table.columns)
            yield from _of_rows(zip(*columns, strict=True), known)
        self.clear()


def _as_table(closed: Sequence[Interval]) -> Any:
    import pyarrow as pa  # noqa: PLC0415  # as above

    told = {id(each.dimensions): each.dimensions for each in closed}  # many share theirs
    texts = {key: _json.encode(dimensions).decode() for key, dimensions in told.items()}
    text, number = pa.string(), pa.int64()
    columns = {
        "resource_kind": pa.array([each.resource_kind for each in closed], text),
        "resource_id": pa.array([each.resource_id for each in closed], text),
        "project_id": pa.array([each.project_id for each in closed], text),
        "meter": pa.array([each.meter for each in closed], text),
        "meter_version": pa.array([each.meter_version for each in closed], pa.int32()),
        "dimensions": pa.array([texts[id(each.dimensions)] for each in closed], text),
        "value": pa.array([each.value for each in closed], number),
        "start_at": pa.array([each.start for each in closed], number),
        "end_at": pa.array([each.end for each in closed], number),
        "first_ordinal": pa.array([each.first_ordinal for each in closed], number),
        "last_ordinal": pa.array([each.last_ordinal for each in closed], number),
        "aggregation": pa.array([each.aggregation for each in closed], text),
        "unique_text": pa.array([each.unique for each in closed], text),
    }
    return pa.table(columns)


def _of_rows(rows: Iterable[Sequence[Any]], known: dict[str, Dimensions]) -> Iterator[Interval]:
    """Yield the intervals that a run's rows are; ``known`` are dimensions: few, and many rows."""
    for row in rows:
        dimensions = known.get(row[5])
        if dimensions is None:
            dimensions = known[row[5]] = _decode_dimensions(row[5])
        yield Interval(
            resource_kind=row[0],
            resource_id=row[1],
            project_id=row[2],
            meter=row[3],
            meter_version=row[4],
            dimensions=dimensions,
            value=row[6],
            start=row[7],
            end=row[8],
            first_ordinal=row[9],
            last_ordinal=row[10],
            aggregation=row[11],
            unique=row[12],
        )
