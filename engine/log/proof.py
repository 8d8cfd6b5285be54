"""A proof that one record is in the log, which shows nothing of its neighbours.

A proof is one JSON object::

    type        "cumulog.proof.v1"
    ordinal     the request's, as stated
    record      the record: salt, request, verdict, facts
    index       the record's place in its commit, from 0
    path        hashes (hex) from the record's leaf to the root, as RFC 9162 section 2.1.3
    header      of its commit: at, commit, count, epoch, first, prev, root
    chain       the headers without ``prev`` of the commits after it, up to the signed one
    checkpoint  a signed line, see ``checkpoint``

Leaf, node and link of the chain are told in ``commit``. A proof shows that the record, with every
byte of it, is the ``index``-th of the commit that begins at ordinal ``first``; the salt in it keeps
those who have only the hash from guessing what is not shown.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Raw, Struct

from engine.log.checkpoint import Checkpoint, CheckpointBroken, read_statement
from engine.log.commit import (
    Header,
    Sealed,
    header_hash,
    leaf_hash,
    merkle_root,
    open_commit,
    size_of,
)
from engine.log.signing import PublicKeys
from schemas.units import Micros, Ordinal

TYPE = "cumulog.proof.v1"


class ProofBroken(Exception):
    """It proves nothing; the message says why."""


class Link(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A commit's header without the hash before it, which is that of the link before."""

    at: Micros
    commit: str
    count: int
    epoch: int
    first: Ordinal
    root: str


class Proof(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the module."""

    ordinal: Ordinal
    record: Raw
    index: int
    path: tuple[str, ...]
    header: Header
    chain: tuple[Link, ...]
    checkpoint: Raw
    type: str = TYPE


class ProofReport(Struct, frozen=True, kw_only=True):
    """What a proof proves: the record of ``request_id`` was there when the checkpoint was made.

    ``signed`` says whether its signature was checked with a key.
    """

    request_id: str
    ordinal: Ordinal
    index: int
    commit_first: Ordinal
    commit_at: Micros
    checkpoint: Ordinal
    checkpoint_at: Micros
    signed: bool


_decode = msgspec.json.Decoder(Proof).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def make_proof(ordinal: Ordinal, commits: Iterable[bytes], checkpoint: bytes) -> bytes:
    """Return the proof of the record that has this ordinal, or one of whose facts has it.

    ``commits`` begin with the one it is in and end with the one that ``checkpoint`` signs.

    Raises:
        ProofBroken: the first commit does not hold the ordinal.
    """
    each = iter(commits)
    sealed = open_commit(next(each))
    records = [bytes(raw) for raw in sealed.records]
    index, first = _place(sealed.first, records, ordinal)
    leaves = [leaf_hash(record) for record in records]
    proof = Proof(
        ordinal=first,
        record=Raw(records[index]),
        index=index,
        path=tuple(node.hex() for node in audit_path(leaves, index)),
        header=_header(sealed),
        chain=tuple(_link(open_commit(data)) for data in each),
        checkpoint=Raw(checkpoint),
    )
    return _encode(proof)


def check_proof(data: bytes, keys: PublicKeys | None) -> ProofReport:
    """Check a proof, with nothing but the public keys; with None, all but the signature.

    Raises:
        ProofBroken: says what does not hold.
    """
    try:
        proof = _decode(data)
        record = _canonical(proof.record)
        path = [bytes.fromhex(node) for node in proof.path]
        checkpoint = read_statement(_canonical(proof.checkpoint), keys)
        request_id = str(msgspec.json.decode(record)["request"]["request_id"])
        size = size_of(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise ProofBroken(f"not a proof: {error}") from error
    except CheckpointBroken as error:
        raise ProofBroken(str(error)) from error
    if proof.type != TYPE or not isinstance(checkpoint, Checkpoint):
        raise ProofBroken("not a proof that this version knows")
    header = proof.header
    if root_of(leaf_hash(record), proof.index, header.count, path).hex() != header.root:
        raise ProofBroken("the record is not in the commit: its hashes do not lead to the root")
    firsts = [header.first, *(link.first for link in proof.chain), checkpoint.ordinal + 1]
    if any(after <= before for before, after in pairwise(firsts)):
        raise ProofBroken("the ordinals of the chain do not grow")
    if proof.ordinal < header.first + proof.index or proof.ordinal + size > firsts[1]:
        raise ProofBroken(f"ordinal {proof.ordinal} cannot be in this commit")
    link = header_hash(header)
    for step in proof.chain:
        link = header_hash(_after(link, step))
    if link != checkpoint.hash:
        raise ProofBroken(f"the chain leads to {link}, but {checkpoint.hash} is signed")
    return ProofReport(
        request_id=request_id,
        ordinal=proof.ordinal,
        index=proof.index,
        commit_first=header.first,
        commit_at=header.at,
        checkpoint=checkpoint.ordinal,
        checkpoint_at=checkpoint.at,
        signed=keys is not None,
    )


def audit_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the nodes that lead from a leaf to the root; RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*audit_path(leaves[:split], index), merkle_root(leaves[split:])]
    return [*audit_path(leaves[split:], index - split), merkle_root(leaves[:split])]


def root_of(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """Return the root that a leaf and its path lead to; RFC 9162 section 2.1.3.2.

    Raises:
        ProofBroken: a tree of ``count`` leaves has no such path.
    """
    if not 0 <= index < count:
        raise ProofBroken(f"there is no record {index} among {count}")
    place, last, node = index, count - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofBroken("the path is too long")
        if place & 1 or place == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        place, last = place >> 1, last >> 1
    if last:
        raise ProofBroken("the path is too short")
    return node


def _place(first: Ordinal, records: Sequence[bytes], ordinal: Ordinal) -> tuple[int, Ordinal]:
    """Return the record's place, and its request's ordinal."""
    for index, record in enumerate(records):
        following = first + size_of(record)
        if first <= ordinal < following:
            return index, first
        first = following
    raise ProofBroken(f"ordinal {ordinal} is not in this commit")


def _header(sealed: Sealed) -> Header:
    return _after(sealed.prev, _link(sealed))


def _link(sealed: Sealed) -> Link:
    leaves = [leaf_hash(bytes(raw)) for raw in sealed.records]
    return Link(
        at=sealed.at,
        commit=sealed.commit,
        count=len(leaves),
        epoch=sealed.epoch,
        first=sealed.first,
        root=merkle_root(leaves).hex(),
    )


def _after(prev: str, link: Link) -> Header:
    return Header(prev=prev, **_fields(link))


def _fields(link: Link) -> dict[str, Any]:
    return {name: getattr(link, name) for name in link.__struct_fields__}


def _canonical(raw: Raw) -> bytes:
    """Return JSON as the log writes it, whoever has laid it out for reading in between."""
    said: Iterator[Any] | Any = msgspec.json.decode(raw)
    return _encode(said)
