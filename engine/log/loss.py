"""What was acknowledged and cannot be had back: found, and accepted by an operator if need be.

Invariant: a log that is shorter than what was acknowledged starts nothing until somebody has said
that the rest is lost; that is signed and kept with the checkpoints for ever.
"""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from engine.log.checkpoint import Book, Checkpoint, Held, Loss, held, sign
from engine.log.salvage import unused
from engine.log.signing import SigningKeys
from engine.log.witness import Seen, Witness
from schemas.units import Micros, Ordinal


class End(Struct, frozen=True, kw_only=True):
    """Where a log ends."""

    sequence: int
    ordinal: Ordinal
    hash: str


def marks(kept: Held, seen: Seen | None) -> list[Checkpoint]:
    """Return what a log must contain, in order: what was signed, and what was acknowledged last."""
    known = list(kept.checkpoints)
    if seen is not None:
        known.append(
            Checkpoint(
                at=0,
                cell="",
                hash=seen.hash,
                key="",
                ordinal=seen.ordinal,
                sequence=seen.sequence,
            )
        )
    return sorted(known, key=lambda said: said.ordinal)


def lost_after(end: End, known: Sequence[Checkpoint], read: Ordinal) -> Ordinal:
    """Return the last ordinal that was signed, acknowledged or read beyond the end; 0 if none."""
    last = max(read, *(said.ordinal for said in known), 0)
    return last if last > end.ordinal else 0


def accept(
    root: Path, cell: str, end: End, lost: Ordinal, *, now: Micros, stamp: str
) -> tuple[Loss, Path]:
    """Sign that what follows ``end`` up to ``lost`` is lost, so that the cloud can go on.

    What has seen more and would contradict the log, read models and how far the agent has come, is
    moved to ``restore/<stamp>/``, whose path is returned. Can be repeated.
    """
    keys = SigningKeys(root / "keys")
    book = Book(root / "checkpoints")
    key_id, key = keys.current()
    known = held(book.lines(), keys.public())
    said = next(
        (loss for loss in known.losses if (loss.hash, loss.lost) == (end.hash, lost)),
        None,
    )
    if said is None:
        said = Loss(
            at=max([now, *(each.at for each in known.checkpoints)]),
            cell=cell,
            hash=end.hash,
            key=key_id,
            ordinal=end.ordinal,
            sequence=end.sequence,
            lost=lost,
        )
        book.append(sign(said, key))
    aside = root / "restore" / stamp
    for path in (*root.glob("read/*"), *root.glob("host/position")):
        moved = aside / path.relative_to(root)
        moved.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.rename(unused(moved))
    # Last: from here on the engine starts.
    witness = Witness(root / "run" / "acknowledged")
    witness.note(end.sequence, end.ordinal, end.hash)
    witness.close()
    return said, aside
