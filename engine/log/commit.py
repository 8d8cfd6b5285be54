r"""Commits as bytes: sealed with a hash chain, and checked without trusting who stored them.

A commit's message is canonical JSON (sorted keys, no spaces; RFC 8785 for our shapes). Its hash
covers the hash before it, the header, and the records through a Merkle tree of the shape of RFC
6962 section 2.1, so one salted record can be proven without showing its neighbours::

    leaf(record)  = SHA-256(0x00 || the record's bytes as they stand in "records")
    node(l, r)    = SHA-256(0x01 || l || r)            over raw 32-byte digests
    root          = the tree over all leaves; a tree of n > 1 leaves is split at the largest power
                    of two below n
    hash          = SHA-256({"at":…,"commit":…,"count":…,"epoch":…,"first":…,"prev":…,"root":…})

where ``count`` is the number of records, ``root`` and ``prev`` are hexadecimal, and ``prev`` of the
first commit is 64 zeros. For a commit of one record, from a shell::

    root=$({ printf '\000'; jq -jcS '.records[0]' c.json; } | sha256sum | cut -d' ' -f1)
    jq -jcS --arg root $root \
        '{at, commit, count: (.records | length), epoch, first, prev, $root}' c.json | sha256sum

equals ``jq -r .hash c.json``.

Ordinals: a request takes one, then each of its facts; ``first`` is that of the first request.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec import Raw, Struct

from schemas.envelope import Record, encode
from schemas.units import Micros, Ordinal

GENESIS = "0" * 64


class ChainBroken(Exception):
    """The log is not what was written. ``ordinal`` is the first that cannot be trusted."""

    def __init__(self, ordinal: int, why: str) -> None:
        super().__init__(f"ordinal {ordinal}: {why}")
        self.ordinal = ordinal
        self.why = why


class CommitHead(Struct, frozen=True, kw_only=True):
    """What a checked commit says of itself. The next one begins at ``next_first``."""

    commit: str
    first: Ordinal
    next_first: Ordinal
    hash: str
    at: Micros
    epoch: int


class Sealed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A commit with its records left as bytes. Fields in the order in which they are written."""

    at: Micros
    commit: str
    epoch: int
    first: Ordinal
    hash: str
    prev: str
    records: list[Raw]


class Header(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the hash covers."""

    at: int
    commit: str
    count: int
    epoch: int
    first: int
    prev: str
    root: str


class _Facts(Struct, frozen=True):
    facts: list[Raw] = []


class Parts(Struct, frozen=True):
    """A record taken apart, each part as its bytes."""

    salt: str
    request: Raw
    verdict: Raw
    facts: list[Raw] = []


class _Apart(Struct, frozen=True):
    """A commit whose records are taken apart at once."""

    at: Micros
    commit: str
    epoch: int
    first: Ordinal
    hash: str
    prev: str
    records: list[Parts]


_decode_sealed = msgspec.json.Decoder(Sealed).decode
_decode_facts = msgspec.json.Decoder(_Facts).decode
_decode_apart = msgspec.json.Decoder(_Apart).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def seal_commit(
    commit_id: str,
    first: Ordinal,
    prev: str,
    epoch: int,
    at: Micros,
    records: Sequence[Record | bytes],
) -> tuple[bytes, str]:
    """Return the message of a commit, and its hash. ``prev`` is the hash before, or ``GENESIS``.

    Records may come encoded already (``schemas.envelope.encode``). Each is encoded once: the bytes
    that are hashed are those that are stored.
    """
    encoded = [record if isinstance(record, bytes) else encode(record) for record in records]
    digest = _hash(commit_id, first, prev, epoch, at, encoded)
    return _message(commit_id, first, prev, digest, epoch, at, encoded), digest


def check_commit(data: bytes, prev: str, first: Ordinal) -> CommitHead:
    """Check a message against the chain: ``prev`` is the hash before it, ``first`` what comes next.

    Raises:
        ChainBroken: it was altered, or does not follow; nothing from its first ordinal on holds.
    """
    try:
        sealed = _decode_sealed(data)
        records = [_decode_facts(raw) for raw in sealed.records]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ChainBroken(first, f"not a commit: {error}") from error
    if sealed.first != first:
        raise ChainBroken(first, f"the commit found begins at ordinal {sealed.first}")
    if sealed.prev != prev:
        raise ChainBroken(first, f"does not follow hash {prev}, but {sealed.prev}")
    if not records:
        raise ChainBroken(first, "holds no record")
    encoded = [bytes(raw) for raw in sealed.records]
    digest = _hash(sealed.commit, first, prev, sealed.epoch, sealed.at, encoded)
    if digest != sealed.hash:
        raise ChainBroken(first, f"has hash {digest}, but says {sealed.hash}")
    # Bytes that no hash covers (spaces, a key given twice) could otherwise differ unseen.
    if data != _message(sealed.commit, first, prev, digest, sealed.epoch, sealed.at, encoded):
        raise ChainBroken(first, "is not in canonical form")
    return _head(sealed, records)


def split_commit(data: bytes, prev: str, first: Ordinal) -> tuple[CommitHead, list[Parts] | None]:
    """Check a message, and return its records taken apart: each is ``joined`` again, to the byte.

    If that is not so they are None.

    Raises:
        ChainBroken: as ``check_commit``.
    """
    try:
        apart = _decode_apart(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return check_commit(data, prev, first), None
    encoded = [joined(part) for part in apart.records]
    digest = _hash(apart.commit, first, prev, apart.epoch, apart.at, encoded)
    # One comparison shows all: what is hashed are the bytes that lie there.
    if (apart.first, apart.prev, apart.hash) == (first, prev, digest) and encoded:
        message = _message(apart.commit, first, prev, digest, apart.epoch, apart.at, encoded)
        if message == data:
            return _head(apart, apart.records), apart.records
    return check_commit(data, prev, first), None


def joined(part: Parts) -> bytes:
    """Return a record from its parts."""
    return b'{"facts":[%b],"request":%b,"salt":%b,"verdict":%b}' % (
        b",".join(part.facts),
        part.request,
        _encode(part.salt),
        part.verdict,
    )


def _head(commit: Sealed | _Apart, records: Sequence[_Facts | Parts]) -> CommitHead:
    return CommitHead(
        commit=commit.commit,
        first=commit.first,
        next_first=commit.first + len(records) + sum([len(record.facts) for record in records]),
        hash=commit.hash,
        at=commit.at,
        epoch=commit.epoch,
    )


def open_commit(data: bytes) -> Sealed:
    """Read a message without checking it.

    Raises:
        ChainBroken: it is no commit; the ordinal is not known, and so 0.
    """
    try:
        return _decode_sealed(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ChainBroken(0, f"not a commit: {error}") from error


def size_of(record: bytes) -> int:
    """Return how many ordinals a record takes: its request, then its facts."""
    return 1 + len(_decode_facts(record).facts)


def header_hash(header: Header) -> str:
    """Return the link of the chain that a commit with this header is."""
    return sha256(_encode(header)).hexdigest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes; RFC 6962 section 2.1. Of none, the hash of nothing."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def leaf_hash(record: bytes) -> bytes:
    """Return the leaf of a record's canonical bytes."""
    return sha256(b"\x00" + record).digest()


def _hash(
    commit_id: str, first: int, prev: str, epoch: int, at: int, records: Sequence[bytes]
) -> str:
    root = merkle_root([leaf_hash(record) for record in records])
    header = Header(
        at=at,
        commit=commit_id,
        count=len(records),
        epoch=epoch,
        first=first,
        prev=prev,
        root=root.hex(),
    )
    return header_hash(header)


def _message(
    commit_id: str,
    first: int,
    prev: str,
    digest: str,
    epoch: int,
    at: int,
    records: Sequence[bytes],
) -> bytes:
    return b"".join(
        (
            b'{"at":%d,"commit":%b,"epoch":%d,"first":%d,"hash":"%b","prev":%b,"records":['
            % (at, _encode(commit_id), epoch, first, digest.encode(), _encode(prev)),
            b",".join(records),
            b"]}",
        )
    )
