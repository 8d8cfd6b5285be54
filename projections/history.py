"""History: the log as sealed, immutable Parquet segments that any DuckDB can read.

A segment holds whole commits and is named by its first and last ordinal; a manifest of the same
name holds its SHA-256 and its place in the hash chain, and is written last: what has no manifest is
no segment. Invariant: segments follow each other without gap or overlap from ordinal 1, and hold
all that is needed to write the same commits again, byte for byte (``commits``).

Columns: ``ordinal, seq, commit_id, epoch, hash, salt, ts`` (the commit's time, microseconds),
``kind`` (request, fact), ``tag, resource_kind, resource_id, project_id, user_id, request_id, cause,
verdict`` (accepted, refused), ``code, body`` (JSON: request and verdict, or the fact).
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from engine.log.commit import GENESIS, ChainBroken, check_commit
from projections.timeline import request_body
from schemas.units import Micros, Ordinal

if TYPE_CHECKING:
    import duckdb

FORMAT = 1
MEMORY_LIMIT = "256MB"
FETCH_ROWS = 10_000
TEMPORARY = ".sealing-"

type AboutRow = tuple[int, str, str, str, str, str, str, str, str, str, str]

_TABLE = (
    "CREATE TABLE sealing (ordinal BIGINT, seq BIGINT, commit_id VARCHAR, epoch BIGINT, "
    "hash VARCHAR, salt VARCHAR, ts BIGINT, kind VARCHAR, tag VARCHAR, resource_kind VARCHAR, "
    "resource_id VARCHAR, project_id VARCHAR, user_id VARCHAR, request_id VARCHAR, "
    "cause VARCHAR, verdict VARCHAR, code VARCHAR, body VARCHAR)"
)
_ABOUT = (
    "SELECT ordinal, kind, tag, resource_kind, resource_id, project_id, user_id, request_id, "
    "cause, outcome, code FROM timeline WHERE ordinal >= ? ORDER BY ordinal"
)


class HistoryBroken(Exception):
    """A segment is missing, or is not what was sealed."""


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


class SaltedRecord(Struct, frozen=True):
    """A record with its parts as they lie in the log."""

    salt: str
    request: msgspec.Raw
    verdict: msgspec.Raw
    facts: tuple[msgspec.Raw, ...] = ()


class SaltedCommit(Struct, frozen=True):
    """A commit whose records keep their bytes."""

    at: Micros
    commit: str
    epoch: int
    records: tuple[SaltedRecord, ...]


class _RequestBody(Struct, frozen=True):
    request: msgspec.Raw
    verdict: msgspec.Raw


_decode_commit = msgspec.json.Decoder(SaltedCommit).decode
_decode_segment = msgspec.json.Decoder(Segment).decode
_decode_body = msgspec.json.Decoder(_RequestBody).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class History:
    """The segments of one directory. One process may seal; any may read. DuckDB loads on use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def segments(self) -> list[Segment]:
        """Return all segments in order.

        Raises:
            HistoryBroken: they do not follow each other from ordinal 1.
        """
        manifests = sorted(self.directory.glob("*.json"))
        segments = [_decode_segment(path.read_bytes()) for path in manifests]
        last, link = 0, GENESIS
        for segment in segments:
            if segment.first != last + 1 or segment.prev_hash != link:
                raise HistoryBroken(f"segment {segment.name} does not follow ordinal {last}")
            last, link = segment.last, segment.last_hash
        return segments

    def path(self, segment: Segment) -> Path:
        """Return where a segment lies."""
        return self.directory / f"{segment.name}.parquet"

    def seal(
        self,
        messages: Iterable[tuple[int, bytes]],
        about: Iterable[AboutRow],
        *,
        ordinals_max: int,
        through: Ordinal,
    ) -> Segment | None:
        """Seal the next segment, or return None if there is nothing to seal.

        A kill at any moment leaves the next call to do the same again. Sealing stops at the end of
        a commit, before ``ordinals_max`` or ``through`` would be passed, but after one at least.

        Args:
            messages: (sequence, commit) of what follows the last segment, in order.
            about: for each ordinal from there on, what the timeline says of it.
            ordinals_max: how many ordinals a segment shall hold at most.
            through: the last ordinal that may be sealed.

        Raises:
            ChainBroken: the log is not what was written; nothing was sealed.
            NotProjected: ``about`` ended too early; nothing was sealed.
        """
        segments = self.segments()
        after = segments[-1] if segments else None
        self.directory.mkdir(parents=True, exist_ok=True)
        self._clean(segments)
        temporary = self.directory / f"{TEMPORARY}{os.getpid()}.parquet"
        with _database(self.directory) as db:
            sealing = _Sealing(db, after, about)
            for seq, data in messages:
                if not sealing.add(seq, data, ordinals_max, through):
                    break
            if sealing.commits == 0:
                return None
            sealing.write(temporary)
        segment = sealing.segment(temporary)
        _sync(temporary)
        temporary.replace(self.path(segment))
        manifest = self.directory / f"{TEMPORARY}{os.getpid()}.json"
        manifest.write_bytes(_encode(segment))
        _sync(manifest)
        manifest.replace(self.directory / f"{segment.name}.json")
        _sync(self.directory)
        return segment

    def facts(
        self, tags: Sequence[str], segments: Sequence[Segment] | None = None
    ) -> Iterator[tuple[Ordinal, Micros, str, str]]:
        """Yield (ordinal, commit's time, tag, JSON) of the sealed facts with these tags."""
        marks = ", ".join("?" * len(tags))
        select = f"SELECT ordinal, ts, tag, body FROM read_parquet(?) WHERE tag IN ({marks})"  # noqa: S608  # question marks
        with _database(self.directory) as db:
            for segment in self.segments() if segments is None else segments:
                path = str(self.path(segment))
                yield from _fetch(db, f"{select} ORDER BY ordinal", [path, *tags])

    def commits(self, segment: Segment) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, commit) of a segment as they lay in the log, byte for byte."""
        select = (
            "SELECT seq, commit_id, epoch, hash, ts, ordinal, salt, kind, body "
            "FROM read_parquet(?) ORDER BY ordinal"
        )
        prev = segment.prev_hash
        rows: list[Any] = []
        with _database(self.directory) as db:
            for row in _fetch(db, select, [str(self.path(segment))]):
                if rows and row[0] != rows[0][0]:
                    yield rows[0][0], _rewritten(rows, prev)
                    prev = rows[0][3]
                    rows = []
                rows.append(row)
            if rows:
                yield rows[0][0], _rewritten(rows, prev)

    def verify(self) -> list[Segment]:
        """Check every segment against its manifest and the hash chain; return them.

        Raises:
            HistoryBroken: names the first segment that is not what was sealed.
        """
        segments = self.segments()
        for segment in segments:
            try:
                if _sha256(self.path(segment)) != segment.sha256:
                    raise HistoryBroken(f"segment {segment.name} has other bytes than were sealed")
                self._verify_chain(segment)
            except (OSError, ChainBroken) as error:
                raise HistoryBroken(f"segment {segment.name}: {error}") from error
        return segments

    def _verify_chain(self, segment: Segment) -> None:
        first, prev = segment.first, segment.prev_hash
        for _, data in self.commits(segment):
            head = check_commit(data, prev, first)
            first, prev = head.next_first, head.hash
        if (first, prev) != (segment.last + 1, segment.last_hash):
            raise HistoryBroken(f"segment {segment.name} ends at ordinal {first - 1}")

    def _clean(self, segments: Sequence[Segment]) -> None:
        """Remove what a kill left: files without a manifest."""
        sealed = {segment.name for segment in segments}
        for path in self.directory.glob("*.parquet"):
            if path.stem not in sealed:
                path.unlink()
        for path in self.directory.glob(f"{TEMPORARY}*"):
            path.unlink()


def about_rows(db: Any, first: Ordinal) -> Iterator[AboutRow]:
    """Yield what a read model's timeline says of each ordinal from ``first`` on."""
    yield from db.execute(_ABOUT, (first,))


class _Sealing:
    """A segment in the making."""

    def __init__(
        self, db: "duckdb.DuckDBPyConnection", after: Segment | None, about: Iterable[AboutRow]
    ) -> None:
        self._db = db
        self._about = iter(about)
        db.execute(_TABLE)
        self._append = db.appender("sealing").append_row
        self._flush = db.appender("sealing").flush
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
        """Add a commit; False if it does not belong into this segment any more."""
        head = check_commit(data, self._hash, self._next)
        size = head.next_first - self._first
        if head.next_first - 1 > through or (self.commits and size > ordinals_max):
            return False
        ordinal = head.first
        for record in _decode_commit(data).records:
            common = (seq, head.commit, head.epoch, head.hash)
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
        self._append(ordinal, *common, salt, at, *about[1:], body)

    def write(self, path: Path) -> None:
        """Write the rows as Parquet."""
        self._db.execute(
            "COPY (SELECT * FROM sealing ORDER BY ordinal) TO "  # noqa: S608  # a quoted path
            f"'{_quoted(path)}' (FORMAT parquet, COMPRESSION zstd)"
        )

    def segment(self, path: Path) -> Segment:
        """Return the manifest of what was written."""
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
            sha256=_sha256(path),
        )


def _database(directory: Path) -> "duckdb.DuckDBPyConnection":
    """Open a database of one's own, bounded in memory, that spills beside the segments."""
    # Loading DuckDB takes memory that an idle archiver need not hold.
    import duckdb  # noqa: PLC0415

    db = duckdb.connect(":memory:")
    db.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    db.execute(f"SET temp_directory = '{_quoted(directory)}/{TEMPORARY}spill'")
    db.execute("SET threads = 1")
    return db


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _fetch(db: "duckdb.DuckDBPyConnection", sql: str, parameters: Sequence[Any]) -> Iterator[Any]:
    db.execute(sql, parameters)
    while rows := db.fetchmany(FETCH_ROWS):
        yield from rows


def _rewritten(rows: Sequence[Any], prev: str) -> bytes:
    """Write a commit again from its rows; the inverse of what ``_Sealing.add`` takes apart."""
    seq, commit_id, epoch, link, at, first, *_ = rows[0]
    del seq
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
