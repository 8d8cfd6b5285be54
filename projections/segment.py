"""One segment: a run of whole commits as a Parquet file, written once and read back to the byte.

Columns: ``ordinal, seq, commit_id, epoch, hash, salt, ts`` (the commit's time, microseconds),
``kind`` (request, fact), ``tag, resource_kind, resource_id, project_id, user_id, request_id, cause,
verdict`` (accepted, refused), ``code, body`` (JSON: request and verdict, or the fact), and since
format 2 ``address`` (of a request), ``committed_at`` (the same time as a timestamp, UTC) and
``day``, by which readers find what they look for without reading the rest. Rows lie in the order of
their ordinals. DuckDB is loaded when it is used: an idle archiver need not hold it.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from engine.log.commit import GENESIS, check_commit
from projections.columns import FORMAT, STORED, quoted, rows_of
from projections.timeline import request_body
from schemas.units import DAY, Micros, Ordinal

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "192MB"
FETCH_ROWS = 10_000
# What the Parquet writer holds in memory at once; bodies take about a kilobyte each.
GROUP_ROWS = 20_480

type AboutRow = tuple[int, str, str, str, str, str, str, str, str, str, str, str]

_TABLE = (
    "CREATE TABLE sealing (ordinal BIGINT, seq BIGINT, commit_id VARCHAR, epoch BIGINT, "
    "hash VARCHAR, salt VARCHAR, ts BIGINT, kind VARCHAR, tag VARCHAR, resource_kind VARCHAR, "
    "resource_id VARCHAR, project_id VARCHAR, user_id VARCHAR, request_id VARCHAR, "
    "cause VARCHAR, verdict VARCHAR, code VARCHAR, address VARCHAR, body VARCHAR)"
)
_ABOUT = (
    "SELECT ordinal, kind, tag, resource_kind, resource_id, project_id, user_id, request_id, "
    "cause, outcome, code, address FROM timeline WHERE ordinal >= ? ORDER BY ordinal"
)
_COMMITS = "SELECT ordinal, seq, commit_id, epoch, hash, ts, salt, kind, body FROM read_parquet(?)"


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


class _SaltedRecord(Struct, frozen=True):
    salt: str
    request: msgspec.Raw
    verdict: msgspec.Raw
    facts: tuple[msgspec.Raw, ...] = ()


class _SaltedCommit(Struct, frozen=True):
    records: tuple[_SaltedRecord, ...]


class _RequestBody(Struct, frozen=True):
    request: msgspec.Raw
    verdict: msgspec.Raw


_decode_commit = msgspec.json.Decoder(_SaltedCommit).decode
_decode_body = msgspec.json.Decoder(_RequestBody).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class SegmentWriter:
    """A segment in the making. Takes commits that follow ``after``, checking the hash chain."""

    def __init__(
        self, db: "duckdb.DuckDBPyConnection", after: Segment | None, about: Iterable[AboutRow]
    ) -> None:
        """Begin behind ``after``; ``about`` is what the timeline says of each ordinal then."""
        self._db = db
        self._about = iter(about)
        db.execute(_TABLE)
        self._appender = db.appender("sealing")
        self._prev_hash = after.last_hash if after else GENESIS
        self._hash = self._prev_hash
        self._first = after.last + 1 if after else 1
        self._next = self._first
        self._first_seq = 0
        self._seq = 0
        self._first_at = 0
        self._at = 0
        self.commits = 0

    def add(self, seq: int, data: bytes, ordinals_max: int, through: Ordinal) -> bool:
        """Add a commit; False if it does not belong into this segment any more.

        Raises:
            ChainBroken: it was altered, or does not follow.
            NotProjected: the timeline does not hold it.
        """
        head = check_commit(data, self._hash, self._next)
        size = head.next_first - self._first
        if head.next_first - 1 > through:
            return False
        # One of another day begins another segment: files can then be chosen by their day.
        if self.commits and (size > ordinals_max or head.at // DAY != self._first_at // DAY):
            return False
        ordinal = head.first
        common = (seq, head.commit, head.epoch, head.hash)
        for record in _decode_commit(data).records:
            body = request_body(record.request, record.verdict).decode()
            self._row(ordinal, common, record.salt, head.at, body)
            for fact in record.facts:
                ordinal += 1
                self._row(ordinal, common, None, head.at, bytes(fact).decode())
            ordinal += 1
        if not self.commits:
            self._first_seq, self._first_at = seq, head.at
        self._seq, self._at = seq, head.at
        self._hash, self._next = head.hash, head.next_first
        self.commits += 1
        return True

    def _row(
        self,
        ordinal: Ordinal,
        common: tuple[int, str, int, str],
        salt: str | None,
        at: Micros,
        body: str,
    ) -> None:
        about = next(self._about, None)
        if about is None or about[0] != ordinal:
            raise NotProjected(f"the timeline does not hold ordinal {ordinal}")
        self._appender.append_row(ordinal, *common, salt, at, *about[1:], body)
        if ordinal % GROUP_ROWS == 0:
            self._appender.flush()

    def write(self, path: Path) -> Segment:
        """Write the rows as Parquet and return the manifest. Nothing is synced yet."""
        self._appender.flush()
        _copy(
            self._db,
            f"(SELECT {STORED}, address, make_timestamp(ts) AS committed_at, "  # noqa: S608  # our own words
            "CAST(make_timestamp(ts) AS DATE) AS day FROM sealing)",
            path,
        )
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
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
        )

    def discard(self) -> None:
        """Let go of rows that were not written."""
        self._appender.clear()


def about_rows(db: Any, first: Ordinal) -> Generator[AboutRow]:
    """Yield what a read model's timeline says of each ordinal from ``first`` on."""
    yield from db.execute(_ABOUT, (first,))


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


def read_facts(path: Path, tags: Sequence[str]) -> Iterator[tuple[Ordinal, Micros, str, str]]:
    """Yield (ordinal, commit's time, tag, JSON) of the facts with these tags, in order."""
    marks = ", ".join("?" * len(tags))
    sql = f"SELECT ordinal, ts, tag, body FROM read_parquet(?) WHERE tag IN ({marks})"  # noqa: S608  # question marks
    yield from _fetch(sql, [str(path), *tags])


def read_commits(path: Path, prev: str) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, commit) as they lay in the log, byte for byte.

    ``prev`` is the chain's hash before the first.
    """
    rows: list[Any] = []
    for row in _fetch(_COMMITS, [str(path)]):
        if rows and row[1] != rows[0][1]:
            yield rows[0][1], _rewritten(rows, prev)
            prev = rows[0][4]
            rows = []
        rows.append(row)
    if rows:
        yield rows[0][1], _rewritten(rows, prev)


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


def _fetch(sql: str, parameters: Sequence[Any]) -> Iterator[Any]:
    """Yield rows that begin with an ordinal, as they lie in the file: in its order."""
    with database() as db:
        db.execute(sql, parameters)
        last = 0
        while rows := db.fetchmany(FETCH_ROWS):
            for row in rows:
                # Sorting would take as much memory as the file has bytes, unpacked.
                if row[0] <= last:
                    raise HistoryBroken(f"ordinal {row[0]} comes after {last}")
                last = row[0]
                yield row


def _rewritten(rows: Sequence[Any], prev: str) -> bytes:
    """Write a commit again from its rows; the inverse of what ``SegmentWriter.add`` takes apart."""
    first, _, commit_id, epoch, link, at, *_ = rows[0]
    records: list[bytes] = []
    facts: list[bytes] = []
    for *_, salt, kind, body in reversed(rows):
        if kind == "fact":
            facts.append(body.encode())
            continue
        said = _decode_body(body)
        records.append(
            b'{"facts":[%b],"request":%b,"salt":%b,"verdict":%b}'
            % (b",".join(reversed(facts)), said.request, _encode(salt), said.verdict)
        )
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
