"""Walk the whole log and say whether every byte of it is what was once acknowledged.

Needs nothing but the messages in order: works on a stream, an export, or a segment's source.
"""

from collections.abc import Iterable

from msgspec import Struct

from engine.log.commit import GENESIS, ChainBroken, check_commit
from schemas.units import Micros, Ordinal


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What was found intact: up to ``ordinals``, whose chain ends in ``last_hash``."""

    commits: int
    ordinals: Ordinal
    last_hash: str
    last_at: Micros = 0
    epoch: int = 0


def verify(
    messages: Iterable[tuple[int, bytes]], *, start: VerifyReport | None = None
) -> VerifyReport:
    """Check sequence, ordinals, chain, time and epoch of (sequence, message), in order.

    ``start`` is the report of an earlier walk, to go on from its end.

    Raises:
        ChainBroken: names the first ordinal that does not hold.
    """
    commits = start.commits if start else 0
    ordinal = start.ordinals if start else 0
    last = start.last_hash if start else GENESIS
    at = start.last_at if start else 0
    epoch = start.epoch if start else 0
    for seq, data in messages:
        if seq != commits + 1:
            raise ChainBroken(ordinal + 1, f"message {commits + 1} is missing; found {seq}")
        head = check_commit(data, last, ordinal + 1)
        if head.at < at:
            raise ChainBroken(head.first, f"time goes back, from {at} to {head.at}")
        if head.epoch < epoch:
            raise ChainBroken(head.first, f"epoch goes back, from {epoch} to {head.epoch}")
        commits, ordinal, last = seq, head.next_first - 1, head.hash
        at, epoch = head.at, head.epoch
    return VerifyReport(commits=commits, ordinals=ordinal, last_hash=last, last_at=at, epoch=epoch)
