"""History: the log as sealed, immutable Parquet segments that any DuckDB can read.

A segment (see ``segment``) is named by its first and last ordinal; a manifest of the same name
holds its SHA-256 and its place in the hash chain, and is written last: what has no manifest is no
segment. Invariant: segments follow each other without gap or overlap from ordinal 1, and hold all
that is needed to write the same commits again, byte for byte.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from engine.log.commit import GENESIS, ChainBroken, check_commit
from projections.segment import (
    AboutRow,
    HistoryBroken,
    Segment,
    SegmentWriter,
    database,
    file_sha256,
    read_commits,
    read_facts,
)
from schemas.units import Micros, Ordinal

TEMPORARY = ".sealing-"

_decode_segment = msgspec.json.Decoder(Segment).decode
_encode = msgspec.json.Encoder(order="sorted").encode


class History:
    """The segments of one directory. One process may seal; any may read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # Files whose bytes were found to be the sealed ones, as they lay there then.
        self._intact: dict[Path, tuple[int, int, int]] = {}

    def segments(self) -> list[Segment]:
        """Return all segments in order.

        Raises:
            HistoryBroken: they do not follow each other from ordinal 1.
        """
        segments: list[Segment] = []
        for path in sorted(self.directory.glob("[0-9]*.json")):
            try:
                segments.append(_decode_segment(path.read_bytes()))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise HistoryBroken(f"manifest {path.stem} cannot be read: {error}") from error
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
        a commit, before ``ordinals_max`` or ``through`` would be passed; a commit that is larger
        than ``ordinals_max`` has a segment to itself.

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
        self.directory.mkdir(parents=True, exist_ok=True)
        self._clean(segments)
        data = self.directory / f"{TEMPORARY}{os.getpid()}.parquet"
        with database(data.with_suffix(".duckdb")) as db:
            writer = SegmentWriter(db, segments[-1] if segments else None, about)
            try:
                for seq, message in messages:
                    if not writer.add(seq, message, ordinals_max, through):
                        break
                segment = writer.write(data) if writer.commits else None
            finally:
                writer.discard()
        if segment is not None:
            self._keep(segment, data)
            segments.append(segment)
        self._clean(segments)
        return segment

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

    def commits(self, segment: Segment) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, commit) of a segment as they lay in the log, byte for byte."""
        return read_commits(self.path(segment), segment.prev_hash)

    def _require_intact(self, segment: Segment) -> None:
        """Check a segment's bytes, once for as long as its file stays the same."""
        path = self.path(segment)
        try:
            status = path.stat()
            file = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._intact.get(path) == file:
                return
            if file_sha256(path) != segment.sha256:
                raise HistoryBroken(f"segment {segment.name} has other bytes than were sealed")
        except OSError as error:
            raise HistoryBroken(f"segment {segment.name}: {error}") from error
        self._intact[path] = file

    def verify(self) -> list[Segment]:
        """Check every segment against its manifest and the hash chain; return them.

        Raises:
            HistoryBroken: names the first segment that is not what was sealed.
        """
        segments = self.segments()
        for segment in segments:
            try:
                if file_sha256(self.path(segment)) != segment.sha256:
                    raise HistoryBroken(f"segment {segment.name} has other bytes than were sealed")
                self._verify_chain(segment, self.path(segment))
            except (OSError, ChainBroken) as error:
                raise HistoryBroken(f"segment {segment.name}: {error}") from error
        return segments

    def _verify_chain(self, segment: Segment, path: Path) -> None:
        first, prev = segment.first, segment.prev_hash
        for _, data in read_commits(path, segment.prev_hash):
            head = check_commit(data, prev, first)
            first, prev = head.next_first, head.hash
        if (first, prev) != (segment.last + 1, segment.last_hash):
            raise HistoryBroken(f"segment {segment.name} ends at ordinal {first - 1}")

    def _keep(self, segment: Segment, data: Path) -> None:
        """Give a written segment its name, then its manifest: from then on it is there.

        What is published was read back first, and is the log byte for byte.

        Raises:
            HistoryBroken: what was written does not hold the commits; nothing was published.
        """
        _sync(data)
        try:
            self._verify_chain(segment, data)
        except ChainBroken as error:
            raise HistoryBroken(f"segment {segment.name} was written wrongly: {error}") from error
        data.replace(self.path(segment))
        manifest = data.with_suffix(".json")
        manifest.write_bytes(_encode(segment))
        _sync(manifest)
        manifest.replace(self.directory / f"{segment.name}.json")
        _sync(self.directory)

    def _clean(self, segments: Sequence[Segment]) -> None:
        """Remove what is only of use while sealing, and what a kill left without a manifest."""
        sealed = {segment.name for segment in segments}
        for path in self.directory.glob("[0-9]*.parquet"):
            if path.stem not in sealed:
                path.unlink()
        for path in self.directory.glob(f"{TEMPORARY}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
