"""A state and where in the log it stands: what a candidate follows with and a leader begins from.

Invariant: the state is the fold of exactly the commits up to ``sequence``, whose chain was checked
and ends in ``prev``.
"""

from msgspec import Struct, field

from engine.domain.fold import apply_commit, decode_for_fold
from engine.domain.state import Cell
from engine.log.commit import GENESIS, ChainBroken, check_commit
from engine.log.witness import Seen


class Folded(Struct, kw_only=True):
    """See the module. ``prev`` is the hash of the last commit, ``sequence`` its place."""

    cell: Cell = field(default_factory=Cell)
    prev: str = GENESIS
    sequence: int = 0

    def take(self, sequence: int, data: bytes, seen: Seen | None = None) -> None:
        """Check the next commit and fold it. ``seen`` is what was once acknowledged.

        Raises:
            ChainBroken: it does not follow, was altered, or another was acknowledged in its place.
            msgspec.ValidationError: it holds facts that this version does not know.
        """
        first = self.cell.state.ordinal + 1
        if sequence != self.sequence + 1:
            raise ChainBroken(first, f"message {self.sequence + 1} is missing; found {sequence}")
        head = check_commit(data, self.prev, first)
        if head.epoch < self.cell.state.epoch:
            raise ChainBroken(
                first, f"epoch goes back, from {self.cell.state.epoch} to {head.epoch}"
            )
        if head.at < self.cell.state.at:
            raise ChainBroken(first, f"time goes back, from {self.cell.state.at} to {head.at}")
        if seen is not None and sequence == seen.sequence and head.hash != seen.hash:
            raise ChainBroken(first, f"ordinal {seen.ordinal} was acknowledged as another")
        apply_commit(self.cell, decode_for_fold(data))
        self.prev, self.sequence = head.hash, sequence

    def require(self, seen: Seen | None) -> None:
        """Check that the log, all of which was folded, reaches as far as was acknowledged.

        Raises:
            ChainBroken: it ends before.
        """
        if seen is not None and self.sequence < seen.sequence:
            raise ChainBroken(
                self.cell.state.ordinal + 1,
                f"the log ends before it, but was acknowledged to ordinal {seen.ordinal}; "
                "its store has lost the rest and must be restored from a copy",
            )
