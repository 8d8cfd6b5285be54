"""History: the log as sealed, immutable Parquet segments that any DuckDB can read.

A segment (see ``segment``) is named by its first and last ordinal; a manifest of the same name
holds its SHA-256 and its place in the hash chain, and is written last: what has no manifest is no
segment. Small ones are merged into bigger ones in time, by the day and by the month: the bigger one
counts as soon as its manifest is there, and those that it covers are removed. Invariant: what
counts follows each other without gap or overlap from ordinal 1, and holds all that is needed to
write the same commits again, byte for byte.
"""

import itertools
import os
import shutil
import sqlite3
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.log.commit import GENESIS, ChainBroken, check_commit
from projections.columns import FORMAT
from projections.segment import (
    FactColumns,
    HistoryBroken,
    Segment,
    SegmentWriter,
    database,
    digest_of,
    file_sha256,
    join,
    read_commits,
    read_fact_columns,
    read_facts,
    read_sequence,
    require_tags,
    rows_in,
)
from schemas.config import Config
from schemas.units import DAY, SECOND, Micros, Ordinal

TEMPORARY = ".sealing-"
FETCHING = ".fetching-"  # what is not cleaned up by who seals
FAN_IN = 8
LISTINGS_MAX = 5

_decode_segment = msgspec.json.Decoder(Segment).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def history_path(config: Config) -> Path:
    """Return where a cell's segments lie."""
    return Path(config.state_dir) / "history"


class _Before(NamedTuple):
    """Where the chain stands before a segment."""

    last: Ordinal
    last_hash: str


class History:
    """The segments of one directory. One process may seal; any may read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Files whose bytes were found to be the sealed ones, as they lay there then.
        self._intact: dict[Path, tuple[int, int, int]] = {}
        self._mutex = threading.Lock()
        self._readers = 0

    def segments(self) -> list[Segment]:
        """Return the segments that count, in order.

        Raises:
            HistoryBroken: they do not follow each other from ordinal 1.
        """
        segments: list[Segment] = []
        last, link = 0, GENESIS
        # Of those that begin at one place the longest counts: the others were merged into it.
        for segment in sorted(self._listed(), key=lambda each: (each.first, -each.last)):
            if segment.last <= last:
                continue
            if segment.first != last + 1 or segment.prev_hash != link:
                raise HistoryBroken(
                    f"segment {segment.name} does not follow ordinal {last}", last + 1
                )
            last, link = segment.last, segment.last_hash
            segments.append(segment)
        return segments

    @contextmanager
    def hold(self) -> Generator[list[Segment]]:
        """Return the segments, and keep their files as long as somebody in this process reads.

        Raises:
            HistoryBroken: they do not follow each other from ordinal 1.
        """
        with self._mutex:
            segments = self.segments()
            self._readers += 1
        try:
            yield segments
        finally:
            with self._mutex:
                self._readers -= 1

    def _listed(self) -> list[Segment]:
        """Return what every manifest says. One removed while we look means to look again."""
        for _ in range(LISTINGS_MAX):
            try:
                return [_read_manifest(path) for path in self.directory.glob("[0-9]*.json")]
            except FileNotFoundError:
                continue
        raise HistoryBroken(f"{self.directory} changes faster than it can be read")

    def path(self, segment: Segment) -> Path:
        """Return where a segment lies."""
        return self.directory / f"{segment.name}.parquet"

    def seal(
        self,
        messages: Iterable[tuple[int, bytes]],
        timeline: sqlite3.Connection,
        *,
        ordinals_max: int,
        through: Ordinal,
    ) -> Segment | None:
        """Seal the next segment, or return None if there is nothing to seal.

        A kill at any moment leaves the next call to do the same again. Sealing stops at the end of
        a commit, before ``ordinals_max`` or ``through`` would be passed; a commit that is larger
        than ``ordinals_max`` has a segment to itself.

        Args:
            messages: (sequence, commit) of what follows the last segment, in order.
            timeline: the read model, whose timeline says what each ordinal is about.
            ordinals_max: how many ordinals a segment shall hold at most.
            through: the last ordinal that may be sealed.

        Raises:
            ChainBroken: the log is not what was written; nothing was sealed.
            NotProjected: ``timeline`` ends too early; nothing was sealed.
        """
        segments = self.segments()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._clean(segments)
        data = self.directory / f"{TEMPORARY}{os.getpid()}.parquet"
        writer = SegmentWriter(data, segments[-1] if segments else None, timeline)
        try:
            for seq, message in messages:
                if not writer.add(seq, message, ordinals_max, through):
                    break
            segment = writer.write() if writer.commits else None
        finally:
            writer.discard()
        if segment is not None:
            self._keep(segment, data, writer.digest.digest())
            segments.append(segment)
        self._clean(segments)
        return segment

    def merge(self, run: Sequence[Segment]) -> Segment:
        """Make one segment of several that follow each other; return it.

        A kill at any moment leaves either those or this one, and the rest to be cleaned up.

        Raises:
            HistoryBroken: one of them is not what was sealed; they stay as they are.
        """
        for before, after in itertools.pairwise(run):
            assert (before.last + 1, before.last_hash) == (after.first, after.prev_hash)
        for segment in run:
            self._require_intact(segment)
        data = self.directory / f"{TEMPORARY}{os.getpid()}.parquet"
        with database(data.with_suffix(".duckdb")) as db:
            join(db, [(self.path(segment), segment) for segment in run], data)
        merged = msgspec.structs.replace(
            run[0],
            last=run[-1].last,
            last_seq=run[-1].last_seq,
            commits=sum(segment.commits for segment in run),
            last_at=run[-1].last_at,
            last_hash=run[-1].last_hash,
            bytes=data.stat().st_size,
            sha256=file_sha256(data),
            format=FORMAT,
        )
        self._keep(merged, data)
        self._clean(self.segments())
        return merged

    def merge_due(self, ordinals_max: int, now: Micros) -> Segment | None:
        """Merge small segments if there are many; None if there is nothing to merge."""
        self.directory.mkdir(parents=True, exist_ok=True)
        segments = self.segments()
        self._clean(segments)
        run = mergeable(segments, ordinals_max, now)
        return self.merge(run) if run else None

    def facts(
        self, tags: Sequence[str], segments: Sequence[Segment]
    ) -> Iterator[tuple[Ordinal, Micros, str, str]]:
        """Yield (ordinal, commit's time, tag, JSON) of the sealed facts with these tags.

        Raises:
            HistoryBroken: a segment is gone, or is not what was sealed.
        """
        for segment in segments:
            self._require_intact(segment)
            yield from read_facts(self.path(segment), tags)

    def fact_columns(
        self, tags: Sequence[str], segments: Sequence[Segment]
    ) -> Iterator[FactColumns]:
        """Yield the same without their tags, many at once.

        Raises:
            HistoryBroken: as ``facts``.
        """
        for segment in segments:
            self._require_intact(segment)
            yield from read_fact_columns(self.path(segment), tags)

    def commits(self, segment: Segment) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, commit) of a segment as they lay in the log, byte for byte."""
        return read_commits(self.path(segment), segment.prev_hash)

    def commits_after(self, seq: int) -> Iterator[tuple[int, bytes]]:
        """Yield all sealed commits after a sequence; another process may merge meanwhile.

        Raises:
            HistoryBroken: a segment is gone, or is not what was sealed.
        """
        failed = 0
        while True:
            segment = next((s for s in self.segments() if s.last_seq > seq), None)
            if segment is None:
                return
            try:
                self._require_intact(segment)
                for at, data in self.commits(segment):
                    if at > seq:
                        yield at, data
                        seq = at
            except (HistoryBroken, OSError):
                failed += 1
                if failed == LISTINGS_MAX or segment in self.segments():
                    raise

    def readable(self) -> Iterator[tuple[int, bytes]]:
        """Yield all commits that can be read, with gaps where a segment is gone or damaged.

        For who puts a log together again, and checks each by the hash chain; some may come twice.
        """
        for segment in sorted(self._listed(), key=lambda each: (each.first, -each.last)):
            with suppress(HistoryBroken):
                self._require_intact(segment)
                yield from self.commits(segment)

    def sequence_of(self, segment: Segment, ordinal: Ordinal) -> int:
        """Return the sequence of the commit in a segment that an ordinal belongs to.

        Raises:
            HistoryBroken: the segment is gone, or is not what was sealed.
        """
        self._require_intact(segment)
        return read_sequence(self.path(segment), ordinal)

    def require_intact(self, segments: Sequence[Segment]) -> None:
        """Check the bytes of segments, of each once for as long as its file stays the same.

        Raises:
            HistoryBroken: one is gone, or is not what was sealed.
        """
        for segment in segments:
            self._require_intact(segment)

    def _require_intact(self, segment: Segment) -> None:
        """Check a segment's bytes, once for as long as its file stays the same."""
        path = self.path(segment)
        try:
            status = path.stat()
            file = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._intact.get(path) == file:
                return
            if file_sha256(path) != segment.sha256:
                raise HistoryBroken(
                    f"segment {segment.name} has other bytes than were sealed", segment.first
                )
        except OSError as error:
            raise HistoryBroken(f"segment {segment.name}: {error}", segment.first) from error
        self._intact[path] = file

    def looked_at(self) -> tuple[list[Segment], list[Segment]]:
        """Return all that can be told of segments here, and those whose bytes are as sealed.

        For who puts back what is gone: nothing is raised, and manifests that nobody can read, which
        keep everybody from reading, are put aside.
        """
        named: list[Segment] = []
        for path in self.directory.glob("[0-9]*.json"):
            try:
                named.append(_read_manifest(path))
            except FileNotFoundError:
                continue
            except HistoryBroken:
                path.replace(path.with_name(f"damaged-{path.name}"))
        good: list[Segment] = []
        for segment in named:
            with suppress(OSError):
                # The bytes themselves: a file may go bad without another time or size.
                if file_sha256(self.path(segment)) == segment.sha256:
                    good.append(segment)
        return named, good

    def require_commits(self, segment: Segment, data: Path) -> None:
        """Return if a file holds the commits of a segment, by its checksum and the hash chain.

        Raises:
            HistoryBroken: it does not.
        """
        try:
            if file_sha256(data) != segment.sha256:
                raise HistoryBroken(f"{segment.name} has other bytes than its manifest says")
            self._verify_chain(segment, data)
        except ChainBroken as error:
            raise HistoryBroken(f"segment {segment.name}: {error}", error.ordinal) from error

    def has_signed(self, segment: Segment, data: Path, signed: Mapping[Ordinal, str]) -> bool:
        """Return whether a file holds commits at which somebody signed just these hashes."""
        found = False
        first, prev = segment.first, segment.prev_hash
        for _, commit in read_commits(data, segment.prev_hash):
            head = check_commit(commit, prev, first)
            first, prev = head.next_first, head.hash
            if first - 1 in signed:
                if signed[first - 1] != prev:
                    return False
                found = True
        return found

    def put_back(self, segment: Segment, data: Path) -> None:
        """Give a file that was fetched from elsewhere, and proven, its place and its manifest.

        Raises:
            HistoryBroken: it does not hold the commits; nothing was changed.
        """
        with self._mutex:  # what has its name and no manifest yet is not cleaned up
            self._keep(segment, data)

    def write_anew(
        self, segment: Segment, data: Path, timeline: sqlite3.Connection
    ) -> list[Segment]:
        """Write the commits of a file into files of our own, by the day; return these.

        What no hash covers in the file is not taken from it, but from the timeline.

        Raises:
            HistoryBroken: it does not hold the commits.
            NotProjected: ``timeline`` ends too early.
        """
        written: list[Segment] = []
        before = _Before(segment.first - 1, segment.prev_hash)
        messages = iter(read_commits(data, segment.prev_hash))
        pending = next(messages, None)
        while pending is not None:
            path = self.directory / f"{FETCHING}{os.getpid()}.parquet"
            writer = SegmentWriter(path, before, timeline)
            try:
                while pending is not None and writer.add(*pending, segment.last, segment.last):
                    pending = next(messages, None)
                made = writer.write()
            finally:
                writer.discard()
            with self._mutex:
                self._keep(made, path, writer.digest.digest())
            before = _Before(made.last, made.last_hash)
            written.append(made)
        return written

    def set_aside(self, segment: Segment) -> None:
        """Let a segment count no more; its data stays, under another name, for who asks why."""
        with self._mutex:
            (self.directory / f"{segment.name}.json").unlink(missing_ok=True)
            path = self.path(segment)
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"damaged-{path.name}"))
            self._intact.pop(path, None)

    def verify(self, held: Sequence[Segment] | None = None) -> Sequence[Segment]:
        """Check every segment against its manifest and the hash chain; return them.

        Raises:
            HistoryBroken: names the first segment that is not what was sealed.
        """
        segments = self.segments() if held is None else held
        for segment in segments:
            try:
                if file_sha256(self.path(segment)) != segment.sha256:
                    raise HistoryBroken(
                        f"segment {segment.name} has other bytes than were sealed", segment.first
                    )
                self._verify_chain(segment, self.path(segment))
                require_tags(self.path(segment))
            except ChainBroken as error:
                raise HistoryBroken(f"segment {segment.name}: {error}", error.ordinal) from error
            except OSError as error:
                raise HistoryBroken(f"segment {segment.name}: {error}", segment.first) from error
        return segments

    def _verify_chain(self, segment: Segment, path: Path) -> None:
        if rows_in(path) != segment.last - segment.first + 1:
            raise HistoryBroken(f"segment {segment.name} has {rows_in(path)} rows", segment.first)
        first, prev = segment.first, segment.prev_hash
        for _, data in read_commits(path, segment.prev_hash):
            head = check_commit(data, prev, first)
            first, prev = head.next_first, head.hash
        if (first, prev) != (segment.last + 1, segment.last_hash):
            raise HistoryBroken(f"segment {segment.name} ends at ordinal {first - 1}")

    def _keep(self, segment: Segment, data: Path, digest: bytes | None = None) -> None:
        """Give a written segment its name, then its manifest: from then on it is there.

        What is published was read back first, and is the log byte for byte: its values have the
        ``digest`` of those that were written, or its commits follow the hash chain.

        Raises:
            HistoryBroken: what was written does not hold the commits; nothing was published.
        """
        _sync(data)
        try:
            if digest is None:
                self._verify_chain(segment, data)
            elif digest != digest_of(data):
                raise HistoryBroken(f"segment {segment.name} was written wrongly: other values")
        except ChainBroken as error:
            raise HistoryBroken(f"segment {segment.name} was written wrongly: {error}") from error
        data.replace(self.path(segment))
        manifest = data.with_suffix(".json")
        manifest.write_bytes(_encode(segment))
        _sync(manifest)
        manifest.replace(self.directory / f"{segment.name}.json")
        _sync(self.directory)

    def _clean(self, segments: Sequence[Segment]) -> None:
        """Remove what no longer counts: merged segments, and what a kill left without a manifest.

        As long as somebody reads, what they may have in hand stays for the next time.
        """
        for path in self.directory.glob(f"{TEMPORARY}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        counting = {segment.name for segment in segments}
        with self._mutex:
            if self._readers:
                return
            # A manifest goes before its data, so that none ever stands for what is not there.
            for suffix in ("json", "parquet"):
                for path in self.directory.glob(f"[0-9]*.{suffix}"):
                    if path.stem not in counting:
                        path.unlink()
                        self._intact.pop(path, None)


def mergeable(segments: Sequence[Segment], ordinals_max: int, now: Micros) -> Sequence[Segment]:
    """Return which segments to merge next, the newest that can be; empty if none.

    What was sealed today is merged by size. A day that is over becomes one file, and then a month
    that is over; or several where it holds more than ``ordinals_max``, which no file does. Each row
    is so written anew some log2 times at most and twice more, and of a history of N ordinals there
    are at most 8 N / ``ordinals_max`` segments, and one a month, one a day of this month, and a few
    dozen.
    """
    periods = [
        list(run)
        for _, run in itertools.groupby(segments, lambda each: _period(each.first_at, now))
    ]
    for run in reversed(periods):
        if found := _small(run, ordinals_max):
            return found
        if run[0].first_at // DAY < now // DAY and (found := _fitting(run, ordinals_max)):
            return found
    return ()


def _period(at: Micros, now: Micros) -> str:
    """Return the month of a time, or its day if the month is not over."""
    day, today = (datetime.fromtimestamp(each // SECOND, UTC) for each in (at, now))
    month = f"{day:%Y-%m}"
    return month if month < f"{today:%Y-%m}" else f"{day:%Y-%m-%d}"


def _small(segments: Sequence[Segment], ordinals_max: int) -> Sequence[Segment]:
    """Return at least ``FAN_IN`` that fit together, the largest no more than half of it all."""
    sizes = [segment.last - segment.first + 1 for segment in segments]
    for first in range(len(sizes) - FAN_IN, -1, -1):
        total = sum(sizes[first : first + FAN_IN])
        end = first + FAN_IN
        while end < len(sizes) and total + sizes[end] <= ordinals_max:
            total += sizes[end]
            end += 1
        if total <= ordinals_max and 2 * max(sizes[first:end]) <= total:
            return segments[first:end]
    return ()


def _fitting(segments: Sequence[Segment], ordinals_max: int) -> Sequence[Segment]:
    """Return the first two or more that fit together, as many as do."""
    for first in range(len(segments) - 1):
        end = first + 1
        while end < len(segments) and segments[end].last < segments[first].first + ordinals_max:
            end += 1
        if end > first + 1:
            return segments[first:end]
    return ()


def _read_manifest(path: Path) -> Segment:
    try:
        return _decode_segment(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HistoryBroken(f"manifest {path.stem} cannot be read: {error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
