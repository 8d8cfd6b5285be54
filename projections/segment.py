"""One segment: a run of whole commits as a Parquet file, written once and read back to the byte.

Columns: ``ordinal, seq, commit_id, epoch, hash, salt, ts`` (the commit's time, microseconds),
``kind`` (request, fact), ``tag, resource_kind, resource_id, project_id, user_id, request_id, cause,
verdict`` (accepted, refused), ``code, body`` (JSON: request and verdict, or the fact), and since
format 2 ``address`` (of a request), ``committed_at`` (the same time as a timestamp, UTC) and
``day``, by which readers find what they look for without reading the rest. Rows lie in the order of
their ordinals. DuckDB is loaded when it is used: an idle archiver need not hold it.
"""

import hashlib
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from engine.log.commit import GENESIS, Parts, joined, split_commit
from projections.columns import FORMAT, quoted, rows_of
from projections.timeline import request_body
from schemas.access import RefuseRequest
from schemas.units import DAY, Micros, Ordinal

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "192MB"
FETCH_ROWS = 10_000
# What the Parquet writer holds in memory at once; bodies take about a kilobyte each.
GROUP_ROWS = 20_480
PIECE_ROWS = 2_048

_FACT = ("ordinal", "ts", "tag", "body")
_WHOLE = frozenset({"ordinal", "seq", "epoch", "ts"})  # columns of 64-bit integers
_COMMITS = ["ordinal", "seq", "commit_id", "epoch", "hash", "ts", "salt", "kind", "body"]
_IN_RUNS = {"seq", "commit_id", "epoch", "hash", "ts", "kind"}


class HistoryBroken(Exception):
    """A segment is missing, or is not what was sealed, from ``ordinal`` on (0: not known)."""

    def __init__(self, why: str, ordinal: int = 0) -> None:
        super().__init__(why)
        self.ordinal = ordinal


class NotProjected(Exception):
    """The read model does not reach as far as what is to be sealed; try again later."""


class Segment(Struct, frozen=True, kw_only=True):
    """A manifest. ``prev_hash`` is the chain's hash before the first commit."""

    first: Ordinal
    last: Ordinal
    first_seq: int
    last_seq: int
    commits: int
    first_at: Micros
    last_at: Micros
    prev_hash: str
    last_hash: str
    bytes: int
    sha256: str
    format: int = FORMAT

    @property
    def name(self) -> str:
        """The name that the segment's two files share."""
        return f"{self.first:020d}-{self.last:020d}"


class _RequestBody(Struct, frozen=True):
    request: msgspec.Raw
    verdict: msgspec.Raw


class _Typed(Struct, frozen=True):
    type: str


class _Acting(Struct, frozen=True):
    type: str
    action: msgspec.Raw = msgspec.Raw(b'""')  # of what was refused: what was wished for


class _Wished(Struct, frozen=True):
    action: _Acting


class _Asking(Struct, frozen=True):
    request: _Wished


# What the timeline tells, in its order, behind the ordinal: of each row, of a request for all rows
# of its record, and of a request alone.
EACH = ("tag", "resource_kind", "resource_id", "project_id")
COMMON = ("user_id", "request_id", "cause")
ALONE = ("verdict", "code", "address")
# Columns of few values, and those that somebody looks for one value of.
REPEATED = (
    "commit_id", "hash", "kind", "tag", "resource_kind", "resource_id", "project_id", "user_id",
    "request_id", "cause", "verdict", "code", "address",
)  # fmt: skip
LOOKED_FOR = ("resource_id", "project_id", "user_id", "request_id", "cause", "address")

# What the timeline says of some ordinals, each column as one text: to make Python's values of all
# takes longer. What rows of a record have in common is read with its request alone.
_BETWEEN = "FROM timeline WHERE ordinal BETWEEN ? AND ?"
_OF_EACH, _OF_REQUESTS = (
    f"SELECT {', '.join(f'json_group_array({name})' for name in ('ordinal', *names))} {_BETWEEN}"
    for names in (EACH, ("user_id", "request_id", "cause", "outcome", "code", "address"))
)
_OF_REQUESTS += " AND kind = 'request'"
TOLD_ROWS = 2_048

_decode_ordinals = msgspec.json.Decoder(list[int]).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode
_decode_body = msgspec.json.Decoder(_RequestBody).decode
_decode_fact = msgspec.json.Decoder(_Typed).decode
_decode_asking = msgspec.json.Decoder(_Asking).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class Before(Protocol):
    """What a segment follows: another one, or the end of one that is gone."""

    @property
    def last(self) -> Ordinal:
        """Its last ordinal."""
        ...

    @property
    def last_hash(self) -> str:
        """The chain's hash there."""
        ...


class SegmentWriter:
    """A segment in the making. Takes commits that follow ``after``, checking the hash chain.

    Rows are gathered by column, and written as a row group when there are enough of them.
    """

    def __init__(self, path: Path, after: Before | None, timeline: sqlite3.Connection) -> None:
        """Begin behind ``after``; ``timeline`` says what each ordinal then is about."""
        self._path = path
        self._file: Any = None
        self._timeline = timeline
        self._prev_hash = after.last_hash if after else GENESIS
        self._hash = self._prev_hash
        self._first = after.last + 1 if after else 1
        self._next = self._first
        self._first_seq = 0
        self._seq = 0
        self._first_at = 0
        self._at = 0
        self._heads: list[tuple[int, str, int, str, Micros]] = []
        self._clear()
        self.commits = 0
        self.digest = hashlib.sha256()  # of all that makes commits, as it was written

    def _clear(self) -> None:
        """Forget the rows that were written.

        Of each: its commit and record (indices), its salt, its body.
        """
        self._group_first = self._next
        self._heads.clear()
        self._requests: list[Ordinal] = []
        self._commit: list[int] = []
        self._record: list[int] = []
        self._salts: list[str | None] = []
        self._bodies: list[bytes] = []

    def add(self, seq: int, data: bytes, ordinals_max: int, through: Ordinal) -> bool:
        """Add a commit; False if it does not belong into this segment any more.

        Raises:
            ChainBroken: it was altered, or does not follow.
            NotProjected: the timeline does not hold what was added.
        """
        head, parts = split_commit(data, self._hash, self._next)
        size = head.next_first - self._first
        if head.next_first - 1 > through:
            return False
        # One of another day begins another segment: files can then be chosen by their day.
        if self.commits and (size > ordinals_max or head.at // DAY != self._first_at // DAY):
            return False
        wrong = f"what follows ordinal {self._next - 1} would be written wrongly"
        if parts is None:
            raise HistoryBroken(wrong, self._next)
        for part in parts:
            body = request_body(part.request, part.verdict)
            facts = [bytes(fact) for fact in part.facts]
            # What is read back is these bytes (``_rewritten``): they must give the parts again.
            if body != b'{"request":%b,"verdict":%b}' % (part.request, part.verdict):
                raise HistoryBroken(wrong, self._next)
            self._record += [len(self._requests)] * (1 + len(facts))
            self._requests.append(self._group_first + len(self._bodies))
            self._bodies.append(body)
            self._bodies += facts
            self._salts.append(part.salt)
            self._salts += [None] * len(facts)
        self._commit += [len(self._heads)] * (head.next_first - head.first)
        self._heads.append((seq, head.commit, head.epoch, head.hash, head.at))
        if not self.commits:
            self._first_seq, self._first_at = seq, head.at
        self._seq, self._at = seq, head.at
        self._hash, self._next = head.hash, head.next_first
        self.commits += 1
        if len(self._bodies) >= GROUP_ROWS:
            self._write_group()
        return True

    def _write_group(self) -> None:
        import pyarrow as pa  # noqa: PLC0415  # as DuckDB: an idle archiver need not hold it
        from pyarrow import compute as pc  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415

        first, last = self._group_first, self._next - 1
        told = _told(self._timeline, first, last, self._requests)
        seqs, commits, epochs, hashes, ats = zip(*self._heads, strict=True)
        commit, record = pa.array(self._commit, pa.int32()), pa.array(self._record, pa.int32())
        salt = pa.array(self._salts, pa.string())
        is_fact = salt.is_null()
        nothing = pa.nulls(len(record), pa.int32())
        ts = pa.array(ats, pa.int64()).take(commit)
        at = ts.view(pa.timestamp("us"))
        told |= {name: _spread(told[name], record) for name in COMMON}
        alone = pc.if_else(is_fact, nothing, record)
        told |= {name: _spread(told[name], alone) for name in ALONE}
        table = pa.table(
            {
                "ordinal": pa.array(range(first, last + 1), pa.int64()),
                "seq": pa.array(seqs, pa.int64()).take(commit),
                "commit_id": _spread(pa.array(commits, pa.string()), commit),
                "epoch": pa.array(epochs, pa.int64()).take(commit),
                "hash": _spread(pa.array(hashes, pa.string()), commit),
                "salt": salt,
                "ts": ts,
                "kind": pc.if_else(is_fact, "fact", "request"),
                **{name: told[name] for name in (*EACH, *COMMON, "verdict", "code")},
                "body": pa.array(self._bodies, pa.binary()).cast(pa.string()),
                "address": told["address"],
                "committed_at": at,
                "day": at.cast(pa.date32()),
            }
        )
        if self._file is None:
            self._file = parquet.ParquetWriter(
                self._path,
                table.schema,
                compression="zstd",
                use_dictionary=[*REPEATED],
                bloom_filter_options={key: {"ndv": GROUP_ROWS} for key in LOOKED_FOR},
                store_schema=False,  # whoever reads it gets texts, not how they were put together
            )
        self._file.write_table(table, row_group_size=len(table))
        _digest(self.digest, table)
        self._clear()

    def write(self) -> Segment:
        """Write what is left, and return the manifest. Nothing is synced yet.

        Raises:
            NotProjected: the timeline does not hold what was added.
        """
        if self._bodies:
            self._write_group()
        self._file.close()
        return Segment(
            first=self._first,
            last=self._next - 1,
            first_seq=self._first_seq,
            last_seq=self._seq,
            commits=self.commits,
            first_at=self._first_at,
            last_at=self._at,
            prev_hash=self._prev_hash,
            last_hash=self._hash,
            bytes=self._path.stat().st_size,
            sha256=file_sha256(self._path),
        )

    def discard(self) -> None:
        """Let go of rows that were not written."""
        self._clear()
        if self._file is not None:
            self._file.close()


def _told(
    timeline: sqlite3.Connection, first: Ordinal, last: Ordinal, requests: Sequence[Ordinal]
) -> dict[str, Any]:
    """Return columns of what the timeline says: of each ordinal, or of the requests among them.

    Raises:
        NotProjected: it does not hold all of them.
    """
    import pyarrow as pa  # noqa: PLC0415  # as above

    pieces: list[list[Any]] = []
    for start in range(first, last + 1, TOLD_ROWS):
        end = min(start + TOLD_ROWS - 1, last)
        among = requests[bisect_left(requests, start) : bisect_right(requests, end)]
        each = timeline.execute(_OF_EACH, (start, end)).fetchone()
        of_requests = timeline.execute(_OF_REQUESTS, (start, end)).fetchone()
        pieces.append([*_columns(each, range(start, end + 1)), *_columns(of_requests, among)])
    names = (*EACH, *COMMON, *ALONE)
    columns = map(pa.concat_arrays, zip(*pieces, strict=True))
    return dict(zip(names, columns, strict=True))


def _columns(texts: Sequence[str], ordinals: Sequence[Ordinal]) -> Iterator[Any]:
    """Yield columns from JSON arrays, of which the first says in which order all of them are.

    Raises:
        NotProjected: it is not that of the ordinals.
    """
    import pyarrow as pa  # noqa: PLC0415  # as above
    from pyarrow import compute as pc  # noqa: PLC0415

    if _decode_ordinals(texts[0]) != list(ordinals):
        raise NotProjected("the timeline does not hold all of what is to be sealed")
    for text in texts[1:]:
        if "\\" in text or not ordinals:
            yield pa.array(_decode_texts(text), pa.string())
        else:  # without a backslash there is no quote within a text
            found = pc.split_pattern(pa.array([text[2:-2]], pa.string()), '","').flatten()
            assert len(found) == len(ordinals), "a text of each"
            yield found


def _spread(values: Any, at: Any) -> Any:
    """Return a column that has at each place the value of that number, each value once; else ""."""
    import pyarrow as pa  # noqa: PLC0415  # as above

    coded = pa.concat_arrays([pa.array([""], pa.string()), values]).dictionary_encode()
    at = pa.compute.add(at, 1).fill_null(0)
    return pa.DictionaryArray.from_arrays(coded.indices.take(at), coded.dictionary)


def join(
    db: "duckdb.DuckDBPyConnection", parts: Sequence[tuple[Path, Segment]], into: Path
) -> None:
    """Write the rows of several segments, one after the other, as one. Nothing is synced yet."""
    _copy(db, f"({rows_of([(path, segment.format) for path, segment in parts])})", into)


def read_sequence(path: Path, ordinal: Ordinal) -> int:
    """Return the sequence of the commit that an ordinal of a segment belongs to."""
    with database() as db:
        db.execute("SELECT seq FROM read_parquet(?) WHERE ordinal = ?", [str(path), ordinal])
        row = db.fetchone()
    if row is None:
        raise HistoryBroken(f"ordinal {ordinal} is not in {path.name}", ordinal)
    return int(row[0])


class FactColumns(NamedTuple):
    """Some facts of a segment in order: their ordinals, their commits' times, and their JSON."""

    ordinals: list[Ordinal]
    times: list[Micros]
    bodies: Any  # a pyarrow array

    def lines(self) -> memoryview:
        """Return their JSON, one a line."""
        import pyarrow as pa  # noqa: PLC0415  # as above
        from pyarrow import compute as pc  # noqa: PLC0415

        whole = pa.ListArray.from_arrays(pa.array([0, len(self.bodies)], pa.int32()), self.bodies)
        return memoryview(pc.binary_join(whole, "\n")[0].as_buffer())


def read_facts(path: Path, tags: Sequence[str]) -> Iterator[tuple[Ordinal, Micros, str, str]]:
    """Yield (ordinal, commit's time, tag, JSON) of the facts with these tags, in order.

    Raises:
        HistoryBroken: the file is none, or its rows are out of order.
    """
    for table in _read_facts(path, tags, _FACT):
        yield from zip(*(table[name].to_pylist() for name in _FACT), strict=True)


def read_fact_columns(path: Path, tags: Sequence[str]) -> Iterator[FactColumns]:
    """Yield the same without their tags, as many at once as a processor has near itself.

    Raises:
        HistoryBroken: as ``read_facts``.
    """
    names = ("ordinal", "ts", "body")
    for table in _read_facts(path, tags, names):
        whole = table.combine_chunks()
        for first in range(0, len(whole), PIECE_ROWS):
            piece = whole.slice(first, PIECE_ROWS)
            ordinals, times, bodies = (piece[name].chunk(0) for name in names)
            yield FactColumns(ordinals=_numbers(ordinals), times=_numbers(times), bodies=bodies)


def _read_facts(path: Path, tags: Sequence[str], columns: Sequence[str]) -> Iterator[Any]:
    """Yield tables of the facts with these tags, which none of is empty."""
    import pyarrow as pa  # noqa: PLC0415  # as above
    from pyarrow import ArrowException, parquet  # noqa: PLC0415
    from pyarrow import compute as pc  # noqa: PLC0415

    # Not by SQL: of many tags DuckDB makes a join, and gives small pieces of it out of order.
    wanted = pa.array(tags, pa.string())
    last = 0
    try:
        with parquet.ParquetFile(path) as file:
            _need_columns(file, path, ("tag", *columns))
            for group in range(file.num_row_groups):
                of = file.read_row_group(group, ["tag"], use_threads=False)
                found = pc.is_in(of["tag"], wanted)
                if not pc.any(found).as_py():
                    continue
                table = file.read_row_group(group, list(columns), use_threads=False).filter(found)
                last = _risen(table["ordinal"].combine_chunks(), last)
                yield table
    except (ArrowException, OSError) as error:
        raise HistoryBroken(f"{path.name}: {error}") from error


def _risen(ordinals: Any, last: Ordinal) -> Ordinal:
    """Return the last of some ordinals, each of which must come after the one before."""
    from pyarrow import compute as pc  # noqa: PLC0415  # as above

    first = ordinals[0].as_py()
    if first <= last:
        raise HistoryBroken(f"ordinal {first} comes after {last}")
    if pc.any(pc.less_equal(ordinals[1:], ordinals[:-1])).as_py():
        raise HistoryBroken(f"an ordinal after {first} does not come after the one before")
    return int(ordinals[-1].as_py())


def _numbers(column: Any) -> list[int]:
    """Return a column of 64-bit integers, none of which is missing."""
    assert (str(column.type), column.null_count) == ("int64", 0), "as it is sealed"
    values = memoryview(column.buffers()[1]).cast("q")
    return values[column.offset : column.offset + len(column)].tolist()


def read_commits(path: Path, prev: str) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, commit) as they lay in the log, byte for byte.

    ``prev`` is the chain's hash before the first.

    Raises:
        HistoryBroken: the file is none, or its rows are out of order.
    """
    from pyarrow import ArrowException, parquet  # noqa: PLC0415  # as above

    rows: list[Any] = []
    last = 0
    try:
        with parquet.ParquetFile(path) as file:
            _need_columns(file, path, _COMMITS)
            for batch in file.iter_batches(batch_size=FETCH_ROWS, columns=_COMMITS):
                if any(batch.column(name).null_count for name in _COMMITS if name != "salt"):
                    raise HistoryBroken(f"{path.name} lacks values after ordinal {last}")
                columns = (batch.column(name).to_pylist() for name in _COMMITS)
                for row in zip(*columns, strict=True):
                    if row[0] <= last:
                        raise HistoryBroken(f"ordinal {row[0]} comes after {last}")
                    last = row[0]
                    if rows and row[1] != rows[0][1]:
                        yield rows[0][1], _rewritten(rows, prev)
                        prev = rows[0][4]
                        rows = []
                    rows.append(row)
    except (ArrowException, MemoryError) as error:
        raise HistoryBroken(f"{path.name} cannot be read: {error}") from error
    if rows:
        yield rows[0][1], _rewritten(rows, prev)


def rows_in(path: Path) -> int:
    """Return how many rows a file says it has.

    Raises:
        HistoryBroken: it is no Parquet.
    """
    from pyarrow import ArrowException, parquet  # noqa: PLC0415  # as above

    try:
        return int(parquet.read_metadata(path).num_rows)
    except ArrowException as error:
        raise HistoryBroken(f"{path.name} cannot be read: {error}") from error


def require_tags(path: Path) -> None:
    """Return if each row is tagged as its body says: no hash covers what readers choose rows by.

    Raises:
        HistoryBroken: one is tagged otherwise, so that a reader would miss it or misread it.
    """
    from pyarrow import ArrowException, parquet  # noqa: PLC0415  # as above

    names = ["ordinal", "kind", "tag", "body"]
    try:
        with parquet.ParquetFile(path) as file:
            _need_columns(file, path, names)
            for batch in file.iter_batches(batch_size=FETCH_ROWS, columns=names):
                columns = (batch.column(name).to_pylist() for name in names)
                for ordinal, kind, tag, body in zip(*columns, strict=True):
                    if not _is_tagged(kind, tag, body):
                        raise HistoryBroken(
                            f"ordinal {ordinal} is not tagged as what it is", ordinal
                        )
    except ArrowException as error:
        raise HistoryBroken(f"{path.name} cannot be read: {error}") from error


def _is_tagged(kind: str, tag: str, body: str) -> bool:
    """Return whether a row is tagged as the timeline does, or ever did.

    What an edge refused has the name of what was wished for, if that is known.
    """
    try:
        if kind == "fact":
            return tag == _decode_fact(body).type
        asked = _decode_asking(body).request.action
        if tag == asked.type:
            return True
        wished = asked.type == RefuseRequest.__name__
        return wished and tag == msgspec.json.decode(asked.action, type=str)
    except (msgspec.MsgspecError, TypeError):
        return False


def _need_columns(file: Any, path: Path, names: Iterable[str]) -> None:
    """Return if a Parquet file has columns, of the types that they are sealed with.

    Raises:
        HistoryBroken: it does not.
    """
    types = {field.name: str(field.type) for field in file.schema_arrow}
    for name in names:
        wanted = "int64" if name in _WHOLE else "string"
        if types.get(name) != wanted:
            raise HistoryBroken(
                f"{path.name} is no segment: {name} is {types.get(name, 'missing')}, not {wanted}"
            )


def database(scratch: Path | None = None) -> "duckdb.DuckDBPyConnection":
    """Open a database of one's own, bounded in memory; what is written lies in ``scratch``."""
    import duckdb  # noqa: PLC0415  # see above

    db = duckdb.connect(":memory:" if scratch is None else str(scratch))
    db.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    db.execute("SET threads = 1")
    if scratch is None:
        db.execute("SET temp_directory = ''")
    return db


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(db: "duckdb.DuckDBPyConnection", rows: str, into: Path) -> None:
    db.execute(
        f"COPY {rows} TO '{quoted(into)}' "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {GROUP_ROWS})"
    )


def _rewritten(rows: Sequence[Any], prev: str) -> bytes:
    """Write a commit again from its rows; the inverse of what ``SegmentWriter.add`` takes apart."""
    first, _, commit_id, epoch, link, at, *_ = rows[0]
    records: list[bytes] = []
    facts: list[bytes] = []
    for *_, salt, kind, body in reversed(rows):
        if kind == "fact":
            facts.append(body.encode())
            continue
        facts.reverse()
        records.append(_record(salt, body.encode(), facts))
        facts = []
    return b'{"at":%d,"commit":%b,"epoch":%d,"first":%d,"hash":%b,"prev":%b,"records":[%b]}' % (
        at,
        _encode(commit_id),
        epoch,
        first,
        _encode(link),
        _encode(prev),
        b",".join(reversed(records)),
    )


def _record(salt: str, body: bytes, facts: Sequence[bytes]) -> bytes:
    """Write a record again from its rows."""
    said = _decode_body(body)
    apart = [msgspec.Raw(fact) for fact in facts]
    return joined(Parts(salt=salt, request=said.request, verdict=said.verdict, facts=apart))


def digest_of(path: Path) -> bytes:
    """Return the digest of all that makes commits in a file, group by group.

    Raises:
        HistoryBroken: the file is none.
    """
    from pyarrow import ArrowException, parquet  # noqa: PLC0415  # as above

    digest = hashlib.sha256()
    try:
        with parquet.ParquetFile(path) as file:
            _need_columns(file, path, _COMMITS)
            for group in range(file.num_row_groups):
                _digest(digest, file.read_row_group(group, columns=_COMMITS, use_threads=False))
    except (ArrowException, OSError) as error:
        raise HistoryBroken(f"{path.name} was written wrongly: {error}") from error
    return digest.digest()


def _digest(digest: Any, table: Any) -> None:
    """Add the values of a table that make commits: lengths and bytes, whatever lies between.

    Of what many rows have in common each value is added once, with the place where it ends.
    """
    import pyarrow as pa  # noqa: PLC0415  # as above
    from pyarrow import compute as pc  # noqa: PLC0415

    for name in _COMMITS:
        column = table.column(name)
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        if name == "salt":  # NULL for facts; a salt is never empty
            column = column.fill_null("")
        if name in _IN_RUNS:
            runs = pc.run_end_encode(column)
            digest.update(_bytes_of(runs.run_ends))
            column = runs.values
        if str(column.type) == "string":
            digest.update(memoryview(column.buffers()[1])[: 4 * (len(column) + 1)])
        digest.update(_bytes_of(column))


def _bytes_of(column: Any) -> memoryview:
    """Return the bytes of a column's values, one behind the other."""
    assert (column.offset, column.null_count) == (0, 0), "a column of its own"
    *_, values = column.buffers()
    if str(column.type) == "string":
        offsets = memoryview(column.buffers()[1])[: 4 * (len(column) + 1)]
        return memoryview(values)[: int.from_bytes(offsets[-4:], "little")]
    return memoryview(values)[: len(column) * column.type.bit_width // 8]
