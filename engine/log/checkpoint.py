"""Signed statements about the log: how far it had come, and what its chain's hash was there.

A hash chain shows any change but one: that its end is missing, or was written anew. A checkpoint
that has left the machine shows that too. One statement is one line of canonical JSON (sorted keys,
no spaces)::

    {"signature":"<base64>","statement":{"at":…,"cell":…,"hash":…,"key":…,"ordinal":…,"sequence":…,
     "type":"cumulog.checkpoint.v1"}}

The signature (Ed25519) is over the statement's bytes as they stand in the line. ``ordinal`` is the
last ordinal of the commit with this ``sequence`` and ``hash``, ``key`` the id of the key. A second
kind, ``cumulog.loss.v1``, says that an operator has accepted that all after ``ordinal`` is lost, up
to ``lost``; checkpoints of what was lost, made before, no longer count.

Invariant: lines are only ever appended, each synced; what a kill left half written is cut off.
"""

import base64
import binascii
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Raw, Struct

from engine.log.commit import ChainBroken, check_commit, open_commit
from engine.log.signing import PublicKeys, is_signed
from schemas.units import Micros, Ordinal

FILE = "checkpoints.jsonl"
LINE_START = b'{"signature":'


class CheckpointBroken(Exception):
    """A statement is not what was signed, or is signed by a key that is not known."""


class Checkpoint(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="cumulog.checkpoint.v1",
):
    """The log was seen, and its chain was found whole, up to here."""

    at: Micros
    cell: str
    hash: str
    key: str
    ordinal: Ordinal
    sequence: int


class Loss(
    Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="cumulog.loss.v1",
):
    """What followed ``ordinal``, up to ``lost``, cannot be had back; the log goes on from here."""

    at: Micros
    cell: str
    hash: str
    key: str
    ordinal: Ordinal
    sequence: int
    lost: Ordinal


type Statement = Checkpoint | Loss


class _Line(Struct, frozen=True, forbid_unknown_fields=True):
    signature: str
    statement: Raw


class Held(Struct, frozen=True, kw_only=True):
    """What a log must contain, in the order of ordinals, and what was said to be lost of it."""

    checkpoints: tuple[Checkpoint, ...] = ()
    losses: tuple[Loss, ...] = ()


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_statement = msgspec.json.Decoder(Checkpoint | Loss).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def sign(statement: Statement, key: Ed25519PrivateKey) -> bytes:
    """Return the line of a statement, without its end."""
    said = _encode(statement)
    return _written(key.sign(said), said)


def read_statement(line: bytes, keys: PublicKeys | None) -> Statement:
    """Read a line, checking its signature; with ``keys`` None, only its form.

    Raises:
        CheckpointBroken: it is not what was signed, or not with one of these keys.
    """
    try:
        read = _decode_line(line)
        statement: Statement = _decode_statement(read.statement)
        signature = base64.b64decode(read.signature, validate=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise CheckpointBroken(f"a checkpoint cannot be read: {error}") from error
    said = _encode(statement)
    if _written(signature, said) != line:
        raise CheckpointBroken("a checkpoint is not in canonical form")
    if keys is None:
        return statement
    key = keys.get(statement.key)
    if key is None:
        raise CheckpointBroken(f"a checkpoint is signed with key {statement.key}, which is unknown")
    if not is_signed(key, signature, said):
        raise CheckpointBroken(f"the checkpoint of ordinal {statement.ordinal} has a bad signature")
    return statement


def held(lines: Iterable[bytes], keys: PublicKeys | None) -> Held:
    """Read what a log must contain.

    Raises:
        CheckpointBroken: a line is not what was signed.
    """
    statements = [read_statement(line, keys) for line in lines]
    losses = [said for said in statements if isinstance(said, Loss)]
    checkpoints = [
        said
        for said in statements
        if isinstance(said, Checkpoint)
        and not any(loss.ordinal < said.ordinal and said.at <= loss.at for loss in losses)
    ]
    return Held(
        checkpoints=tuple(sorted(checkpoints, key=lambda said: (said.ordinal, said.at))),
        losses=tuple(sorted(losses, key=lambda said: said.at)),
    )


def require_contained(
    checkpoints: Sequence[Checkpoint], fetch: Callable[[int], bytes | None]
) -> None:
    """Check that a log still contains what was signed, looking only at where that must lie.

    For starts, when walking the whole log would take too long: the newest one that the log contains
    vouches for all before it, by the chain. ``fetch`` returns the message of a sequence, or None.

    Raises:
        ChainBroken: says from which ordinal on the log was cut or written anew.
    """
    missed: Checkpoint | None = None
    kept = 0
    for checkpoint in reversed(checkpoints):
        if is_at(checkpoint, fetch(checkpoint.sequence)):
            kept = checkpoint.ordinal
            break
        missed = checkpoint
    if missed is not None:
        raise ChainBroken(
            kept + 1,
            "from here on the log was cut or written anew: it does not contain what the checkpoint "
            f"of ordinal {missed.ordinal} signs (hash {missed.hash})",
        )


def is_at(checkpoint: Statement, data: bytes | None) -> bool:
    """Return whether a message is the commit that a statement is about."""
    if data is None:
        return False
    try:
        sealed = open_commit(data)
        head = check_commit(data, sealed.prev, sealed.first)
    except ChainBroken:
        return False
    return (head.hash, head.next_first - 1) == (checkpoint.hash, checkpoint.ordinal)


class Book:
    """The statements of one cell: a file, and a copy elsewhere that outlives this machine."""

    def __init__(self, directory: Path, copy: Path | None = None) -> None:
        self._path = directory / FILE
        self._copy = None if copy is None else copy / FILE

    def lines(self) -> list[bytes]:
        """Return all lines, those that only the copy still has among them."""
        lines = _lines(self._path)
        if self._copy is not None:
            known = set(lines)
            with contextlib.suppress(OSError):  # away for now; what is here counts
                lines += [line for line in _lines(self._copy) if line not in known]
        return lines

    def append(self, line: bytes) -> None:
        """Append a line; it is durable when this returns."""
        _append(self._path, [line])

    def mirror(self) -> None:
        """Bring the copy up to date. It is never shortened, and nothing in it is altered.

        Raises:
            OSError: it cannot be written now; the next call makes up for it.
        """
        if self._copy is not None:
            known = set(_lines(self._copy))
            if missing := [line for line in _lines(self._path) if line not in known]:
                _append(self._copy, missing)


def _lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    # What follows the last line's end was cut short by a kill and never counted.
    return content[: content.rfind(b"\n") + 1].splitlines()


def _append(path: Path, lines: Sequence[bytes]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of when it is closed
        whole = path.read_bytes().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(b"".join(line + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _written(signature: bytes, said: bytes) -> bytes:
    return b'{"signature":"%b","statement":%b}' % (base64.b64encode(signature), said)
