"""What can still be read of a log: from a stopped broker's files, and from copies, put in order.

nats-server cuts a damaged file off at the damage when it opens it. Here the files are only read, so
that what lies behind a damage is found too. Invariant: nothing counts because of where it was
found; a commit is taken only if it follows the one before by the hash chain.

A record in a block (``msgs/<n>.blk``, nats-server 2.15, filestore.go, ``writeMsgRecord``), numbers
little-endian: length (4, highest bit: has headers), sequence (8), time (8), length of the subject
(2), subject, [length of the headers (4), headers,] message, checksum (8).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from struct import Struct as Layout

from engine.log.commit import ChainBroken
from engine.log.verify import Walk

ACCOUNT = "STORE"
HEAD = Layout("<IQQH")
CHECKSUM_BYTES = 8
HAS_HEADERS = 1 << 31


def streams(nats: Path, prefix: str) -> list[Path]:
    """Return the folders of a broker's streams whose names begin with ``prefix``, in order."""
    folder = nats / "store" / "jetstream" / ACCOUNT / "streams"
    return sorted(path for path in folder.glob(f"{prefix}*") if path.is_dir())


def stored(folders: Sequence[Path], subject: str) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, message) of what lies in streams' files under this subject or below it."""
    for folder in folders:
        blocks = [path for path in (folder / "msgs").glob("*.blk") if path.stem.isdecimal()]
        for path in sorted(blocks, key=lambda path: int(path.stem)):
            yield from records(path.read_bytes(), subject.encode())


def records(block: bytes, subject: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, message) of a block's records, also of those behind a damaged one."""
    at = 0
    while (end := at + HEAD.size) < len(block):
        length, sequence, _, named = HEAD.unpack_from(block, at)
        total = length & ~HAS_HEADERS
        start, stop = end + named, at + total - CHECKSUM_BYTES
        if length & HAS_HEADERS and start + 4 <= stop:
            start += 4 + int.from_bytes(block[start : start + 4], "little")
        if block.startswith(subject, end) and start <= stop <= len(block) - CHECKSUM_BYTES:
            yield sequence, block[start:stop]
            at += total
            continue
        # Not a record, or not a whole one: the next begins before the next subject.
        found = block.find(subject, end + 1)
        if found < 0:
            return
        at = found - HEAD.size


def unused(path: Path) -> Path:
    """Return a path that nothing has, beginning with this one: what is moved there stays alone."""
    numbers = itertools.count(1)
    name = path
    while name.exists():
        name = path.with_name(f"{path.name}.{next(numbers)}")
    return name


def join(
    walk: Walk, sources: Sequence[Iterable[tuple[int, bytes]]]
) -> Iterator[tuple[int, bytes, int]]:
    """Yield the commits that follow where ``walk`` stands, each from the first source that has it.

    With each goes the source's number. Sources yield in ascending order, and may have gaps; numbers
    in the last one may be damaged. Ends where none has the next commit.
    """
    heads = [_Head(source) for source in sources]
    while True:
        wanted = walk.commits + 1
        for number, head in enumerate(heads):
            data = head.take(walk, wanted)
            if data is None and number == len(heads) - 1:
                # A damaged number looks like a gap; what is wanted may lie behind it.
                data = head.seek(walk, wanted)
            if data is not None:
                yield wanted, data, number
                break
        else:
            return


class _Head:
    """The next item of a source."""

    def __init__(self, source: Iterable[tuple[int, bytes]]) -> None:
        self._items = iter(source)
        self._item = next(self._items, None)

    def take(self, walk: Walk, wanted: int) -> bytes | None:
        """Return the commit with this sequence if it is next and follows."""
        while self._item is not None and self._item[0] <= wanted:
            sequence, data = self._item
            self._item = next(self._items, None)
            if sequence == wanted and _follows(walk, sequence, data):
                return data
        return None

    def seek(self, walk: Walk, wanted: int) -> bytes | None:
        """As ``take``, whatever lies in between."""
        while self._item is not None:
            sequence, data = self._item
            self._item = next(self._items, None)
            if sequence == wanted and _follows(walk, sequence, data):
                return data
        return None


def _follows(walk: Walk, sequence: int, data: bytes) -> bool:
    try:
        walk.add(sequence, data)
    except ChainBroken:
        return False
    return True
