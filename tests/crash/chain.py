"""Recomputes the log's hash chain from its documented format, and takes the commits apart.

Part of the checker: written from the description at the head of ``engine/log/commit.py``, and
imports nothing of it. What is hashed are the bytes as they lie in the message, never as they would
be written anew.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.crash.stream import Stored

GENESIS = "0" * 64
HEADER = ("at", "commit", "count", "epoch", "first", "prev", "root")
FIELDS = ["at", "commit", "epoch", "first", "hash", "prev", "records"]
_decode = json.JSONDecoder()


class Entry(NamedTuple):
    """A record of the log: a request, its verdict, its facts, and the ordinals they took."""

    first: int
    last: int
    at: int
    record: dict[str, Any]


class Walked(NamedTuple):
    """What a walk along the chain found. ``broken`` is empty if all of it holds."""

    entries: list[Entry]
    broken: list[str]
    head: str


def walk(log: Iterable[Stored]) -> Walked:
    """Check every link, every hash, every ordinal, every time and epoch, from the first commit on.

    Evidence begins with the first ordinal that cannot be trusted. What an altered commit says is
    left out; the walk goes on behind it from what the next one says, so that the rest can still be
    compared.
    """
    entries: list[Entry] = []
    broken: list[str] = []
    prev, first, at, epoch, sequence = GENESIS, 1, 0, 0, 0
    lost_track = False  # the commit before was altered: what should follow it is not known
    for stored in log:
        where = f"ordinal {first} ({stored.stream}, sequence {stored.sequence})"
        try:
            head, records = _checked(stored.data)
        except (ValueError, TypeError) as error:
            broken.append(f"{where}: {error}")
            lost_track = True
            continue
        follows = (
            (stored.sequence == sequence + 1, f"the message before has sequence {sequence}"),
            (head["first"] == first, f"the commit found begins at ordinal {head['first']}"),
            (head["prev"] == prev, f"does not follow {prev}, but {head['prev']}"),
        )
        never_back = (
            (bool(records), "holds no record"),
            (head["at"] >= at, "its time lies before that of the commit before"),
            (head["epoch"] >= epoch, "its epoch lies before that of the commit before"),
        )
        claims = never_back if lost_track else follows + never_back
        broken += [f"{where}: {why}" for holds, why in claims if not holds]
        ordinal = head["first"]
        for raw in records:
            record = json.loads(raw)
            last = ordinal + len(record["facts"])
            entries.append(Entry(ordinal, last, head["at"], record))
            ordinal = last + 1
        prev, first, at, epoch = head["hash"], ordinal, head["at"], head["epoch"]
        sequence, lost_track = stored.sequence, False
    return Walked(entries, broken, prev)


def _checked(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    head, records = split(data)
    if head["hash"] != digest(head, records):
        raise ValueError("its hash is not that of its bytes")
    return head, records


def split(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Return a commit's own fields and its records as the bytes that lie in the message.

    Raises:
        ValueError: it is not one object in canonical form.
    """
    text = data.decode()
    head: dict[str, Any] = {}
    records: list[bytes] = []
    at = _after(text, 0, "{")
    while True:
        key, at = _decode.raw_decode(text, at)
        if key in head:
            raise ValueError(f"{key} is there twice")
        at = _after(text, at, ":")
        if key == "records":
            head[key] = None
            records, at = _array(text, at)
        else:
            head[key], at = _decode.raw_decode(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    if text[at:] != "}":
        raise ValueError("there is more behind its end")
    if list(head) != FIELDS:
        raise ValueError(f"its fields are {', '.join(head)}")
    return head, records


def _array(text: str, at: int) -> tuple[list[bytes], int]:
    items: list[bytes] = []
    at = _after(text, at, "[")
    while text[at : at + 1] != "]":
        if items:
            at = _after(text, at, ",")
        _, end = _decode.raw_decode(text, at)
        items.append(text[at:end].encode())
        at = end
    return items, at + 1


def _after(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"{text[at : at + 1]!r} at {at} is not {sign!r}")
    return at + 1


def digest(head: dict[str, Any], records: Sequence[bytes]) -> str:
    """Return the hash that a commit with this header and these records must have."""
    root = _root([hashlib.sha256(b"\x00" + record).digest() for record in records])
    covered = head | {"count": len(records), "root": root.hex()}
    header = {name: covered[name] for name in HEADER}
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(encoded.encode()).hexdigest()


def _root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle root (RFC 6962, 2.1): split at the largest power of two below n."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256().digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])).digest()
