"""Snapshots of an engine's folded state, so that a start need not fold the whole log.

A snapshot is derived: whatever is wrong with one, the log is folded from the start instead.
Invariant: one that is used is whole and was made by this very code; it is never used in part.

A file is named after the last ordinal it covers. It holds a header of ``HEADER_BYTES`` (one line of
JSON, filled up with blanks) and a body of frames: the number of a part, a length, MessagePack. Part
0 is the state without its collections; then come one or more frames for each collection. It holds
what the state holds, sealed secrets included, and is for the engine's user alone.
"""

import functools
import gc
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from itertools import batched
from pathlib import Path
from struct import Struct as Layout
from typing import Any, get_origin, get_type_hints

import msgspec
import structlog
from msgspec import Struct

from engine.domain.index import index_of
from engine.domain.state import Cell, State
from engine.fingerprint import fingerprint
from engine.folded import Folded
from engine.log.commit import ChainBroken, check_commit
from schemas.units import Micros, Ordinal

logger = structlog.get_logger(__name__)

FORMAT = "cumulog-snapshot-1"
HEADER_BYTES = 1024
KEPT = 2
# Entries encoded in one go, with the interpreter held: well below a millisecond.
SLICE = 200
# Synced in portions: the log's own syncs on the same disk must not wait for a whole snapshot.
SYNC_BYTES = 8 * 2**20
SUFFIX = ".snapshot"

type Parts = dict[str, Any]

_frame = Layout(">HI")
_encode = msgspec.msgpack.Encoder().encode
_hints = get_type_hints(State)
_QUEUES = ("answered_queue", "keyed_queue")
_COLLECTIONS = tuple(n for n in State.__struct_fields__ if get_origin(_hints[n]) is dict)
_NESTED = frozenset(n for n in _COLLECTIONS if get_origin(_hints[n].__args__[1]) is dict)
_PARTS: tuple[str, ...] = ("", *_COLLECTIONS, *_QUEUES)
_DECODERS: dict[str, Any] = {
    "": msgspec.msgpack.Decoder(State),
    **{name: msgspec.msgpack.Decoder(_hints[name]) for name in _COLLECTIONS},
    **{name: msgspec.msgpack.Decoder(list[tuple[Micros, str]]) for name in _QUEUES},
}


class Header(Struct, frozen=True, kw_only=True):
    """What a snapshot says of itself: whose it is, where it stands, how its body must come out.

    ``sha256`` is over the body and then this header, with ``sha256`` empty.
    """

    format: str
    fold: str
    cell: str
    ordinal: Ordinal
    sequence: int
    hash: str
    at: Micros
    epoch: int
    bytes: int
    sha256: str = ""


class _Claim(Struct, frozen=True):
    """What a commit says it follows."""

    first: Ordinal
    prev: str


class Unusable(Exception):
    """A snapshot that must not be used; the message says why."""


_decode_header = msgspec.json.Decoder(Header).decode
_decode_claim = msgspec.json.Decoder(_Claim).decode


@functools.cache
def fold_version() -> str:
    """Return the SHA-256 (hex) of all that decides what a log folds to, and how that is stored.

    It covers the state's structure and the source of the domain, of the schemas and of this
    module: other code may fold the same log to another state. Asked for when an engine starts, and
    remembered, so that it speaks of the code that runs and not of what is installed meanwhile.
    """
    structure = msgspec.json.encode(msgspec.json.schema(State), order="sorted")
    source = fingerprint("engine.domain", "schemas", "engine.snapshot")
    return hashlib.sha256(structure + source.encode()).hexdigest()


def load_newest(directory: Path, cell_name: str) -> Folded | None:
    """Return what the newest usable snapshot holds; None if there is none. Blocking.

    What is not usable is logged as ``snapshot_ignored``, with the reason, and left alone. Whether
    the log holds its last commit is for the caller to check, with ``stands_on`` and the message at
    ``sequence``: a log that was cut, or restored, may have gone on otherwise.

    Args:
        directory: where the snapshots lie; it need not be there.
        cell_name: the name of the cell whose log is to be gone on with.
    """
    for path in sorted(directory.glob(f"*{SUFFIX}"), reverse=True):
        try:
            folded = _load(path, cell_name)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the log is there
            why = str(error) if isinstance(error, Unusable | OSError) else repr(error)
            logger.warning("snapshot_ignored", path=str(path), why=why)
        else:
            logger.info("snapshot_loaded", path=str(path), ordinal=folded.cell.state.ordinal)
            return folded
    return None


def stands_on(folded: Folded, data: bytes) -> bool:
    """Return whether a message of the log is the commit that a snapshot ends with."""
    first = folded.cell.state.ordinal + 1
    try:
        claimed = _decode_claim(data)
        head = check_commit(data, claimed.prev, claimed.first)
    except (msgspec.MsgspecError, ChainBroken):
        return False
    return (head.hash, head.next_first) == (folded.prev, first)


def read_header(data: bytes) -> Header:
    """Return the header that a snapshot begins with.

    Raises:
        Unusable: it has none.
    """
    head = data[:HEADER_BYTES]
    if len(head) < HEADER_BYTES or not head.endswith(b"\n"):
        raise Unusable("it has no whole header")
    try:
        return _decode_header(head)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unusable(f"its header cannot be read: {error}") from error


def sealed(header: Header, body: "hashlib._Hash") -> Header:
    """Return a header with the hash over what it says and over the body."""
    unsealed = msgspec.structs.replace(header, sha256="")
    summary = body.copy()
    summary.update(msgspec.json.encode(unsealed))
    return msgspec.structs.replace(header, sha256=summary.hexdigest())


def _load(path: Path, cell_name: str) -> Folded:
    data = path.read_bytes()
    header, body = read_header(data), memoryview(data)[HEADER_BYTES:]
    for what, found, expected in (
        ("format", header.format, FORMAT),
        ("version of the fold", header.fold, fold_version()),
        ("cell", header.cell, cell_name),
        ("length", len(body), header.bytes),
    ):
        if found != expected:
            raise Unusable(f"its {what} is {found}, not {expected}")
    if sealed(header, hashlib.sha256(body)) != header:
        raise Unusable("it is not what was written")
    # Nothing of what is made here is garbage, so it is not looked for meanwhile.
    collecting = gc.isenabled()
    gc.disable()
    try:
        cell = _decode_cell(body)
    finally:
        if collecting:
            gc.enable()
    state = cell.state
    if (state.ordinal, state.at, state.epoch) != (header.ordinal, header.at, header.epoch):
        raise Unusable(f"it holds ordinal {state.ordinal}, but says {header.ordinal}")
    return Folded(cell=cell, prev=header.hash, sequence=header.sequence)


def _decode_cell(body: memoryview) -> Cell:
    """Put a cell together; the cell is new, so nothing is left of one that fails half way."""
    cell = Cell()
    at = 0
    while at < len(body):
        number, length = _frame.unpack_from(body, at)
        name = _PARTS[number]
        if (name == "") != (at == 0):
            raise Unusable("its parts are out of order")
        at += _frame.size
        part = _DECODERS[name].decode(body[at : at + length])
        at += length
        if name == "":
            cell.state = part
        elif name in _QUEUES:
            getattr(cell, name).extend(part)
        else:
            getattr(cell.state, name).update(part)
    cell.index = index_of(cell.state)
    return cell


class Copied(Struct, kw_only=True):
    """A cell's collections as they were at one moment. What they hold is frozen, hence shared."""

    scalars: State
    parts: Parts
    prev: str
    sequence: int

    def state(self) -> State:
        """Return the state alone."""
        collections = {name: self.parts[name] for name in _COLLECTIONS}
        return msgspec.structs.replace(self.scalars, **collections)


def copy_cell(cell: Cell, prev: str, sequence: int) -> Copied:
    """Return a copy of a cell that its evolving does not change. Microseconds per thousand."""
    state = cell.state
    parts: Parts = {}
    for name in _COLLECTIONS:
        collection = getattr(state, name)
        parts[name] = (
            {key: inner.copy() for key, inner in collection.items()}
            if name in _NESTED
            else collection.copy()
        )
    for name in _QUEUES:
        parts[name] = getattr(cell, name).copy()
    scalars = {
        name: getattr(state, name) for name in State.__struct_fields__ if name not in _COLLECTIONS
    }
    return Copied(scalars=State(**scalars), parts=parts, prev=prev, sequence=sequence)


def write(directory: Path, cell_name: str, copied: Copied) -> Path:
    """Write a snapshot and let go of all but the last ``KEPT``; return its path. Blocking.

    Encodes slice by slice and lets other threads run in between.

    Raises:
        OSError: it could not be written; nothing is left of it.
    """
    state = copied.scalars
    path = directory / f"{state.ordinal:020d}{SUFFIX}"
    temporary = path.with_name(f".{path.name}.next")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            length, summary = _write_body(file, copied)
            unsealed = Header(
                format=FORMAT,
                fold=fold_version(),
                cell=cell_name,
                ordinal=state.ordinal,
                sequence=copied.sequence,
                hash=copied.prev,
                at=state.at,
                epoch=state.epoch,
                bytes=length,
            )
            line = msgspec.json.encode(sealed(unsealed, summary)).ljust(HEADER_BYTES - 1) + b"\n"
            assert len(line) == HEADER_BYTES, "a cell's name is short"
            os.pwrite(file, line, 0)
            os.fsync(file)
        finally:
            os.close(file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(directory)
    _let_go(directory, path)
    return path


def _write_body(file: int, copied: Copied) -> tuple[int, "hashlib._Hash"]:
    summary, length, unsynced = hashlib.sha256(), 0, 0
    os.lseek(file, HEADER_BYTES, os.SEEK_SET)
    for number, data in _frames(copied):
        piece = _frame.pack(number, len(data)) + data
        _write_all(file, piece)
        summary.update(piece)
        length += len(piece)
        unsynced += len(piece)
        if unsynced >= SYNC_BYTES:
            os.fdatasync(file)
            unsynced = 0
    return length, summary


def _frames(copied: Copied) -> Iterator[tuple[int, bytes]]:
    yield 0, _encode(copied.scalars)
    for number, name in enumerate(_PARTS[1:], 1):
        part = copied.parts.pop(name)
        slices: Iterable[Any] = (
            map(dict, batched(part.items(), SLICE))
            if isinstance(part, dict)
            else batched(part, SLICE)
        )
        for entries in slices:
            yield number, _encode(entries)
            # A thread that waits for the interpreter gets it here, not when our share has run out.
            time.sleep(0)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_directory(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _let_go(directory: Path, written: Path) -> None:
    """Keep what was written and those before it: a later one is of a log that was cut since."""
    paths = sorted(directory.glob(f"*{SUFFIX}"))
    before = [path for path in paths if path < written]
    kept = {written, *before[1 - KEPT :]}
    for path in paths:
        if path not in kept:
            path.unlink(missing_ok=True)
