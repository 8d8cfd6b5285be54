"""Walk the whole log and say whether every byte of it is what was once acknowledged.

Needs nothing but the messages in order: works on a stream, an export, or a segment's source.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence

from msgspec import Struct

from engine.log.checkpoint import Checkpoint, Statement
from engine.log.commit import GENESIS, ChainBroken, CommitHead, Sealed, check_commit, open_commit
from schemas.units import Micros, Ordinal


class VerifyReport(Struct, frozen=True, kw_only=True):
    """What was found intact: up to ``ordinals``, whose chain ends in ``last_hash``."""

    commits: int
    ordinals: Ordinal
    last_hash: str
    last_at: Micros = 0
    epoch: int = 0


def verify(
    messages: Iterable[tuple[int, bytes]],
    *,
    start: VerifyReport | None = None,
    checkpoints: Sequence[Checkpoint] = (),
) -> VerifyReport:
    """Check sequence, ordinals, chain, time and epoch of (sequence, message), in order.

    ``start`` is the report of an earlier walk, to go on from its end. The messages must contain
    those of ``checkpoints`` that lie between there and their own end.

    Raises:
        ChainBroken: names the first ordinal that does not hold.
    """
    walk = Walk(start, checkpoints)
    for seq, data in messages:
        walk.add(seq, data)
    return walk.report()


def require_reached(report: VerifyReport, checkpoints: Sequence[Checkpoint]) -> None:
    """Check that a log does not end before what was signed of it.

    Raises:
        ChainBroken: it does.
    """
    last = max(checkpoints, key=lambda said: said.ordinal, default=None)
    if last is not None and last.ordinal > report.ordinals:
        raise ChainBroken(
            report.ordinals + 1,
            f"the log ends before it: it was cut, for a checkpoint signs ordinal {last.ordinal}",
        )


class Walk:
    """A walk under way: how far all was found to hold."""

    def __init__(
        self, start: VerifyReport | None = None, checkpoints: Sequence[Checkpoint] = ()
    ) -> None:
        self.commits = start.commits if start else 0
        self.ordinal = start.ordinals if start else 0
        self.hash = start.last_hash if start else GENESIS
        self.at = start.last_at if start else 0
        self.epoch = start.epoch if start else 0
        # Up to here not only the chain holds, but also somebody signed for it.
        self.vouched = 0
        self._before: tuple[int, str] | None = None  # where the last commit began, and its prev
        self._due = deque(said for said in checkpoints if said.ordinal > self.ordinal)

    def add(self, seq: int, data: bytes) -> CommitHead:
        """Take the next message.

        Raises:
            ChainBroken: names the first ordinal that does not hold.
        """
        if seq != self.commits + 1:
            raise ChainBroken(
                self.ordinal + 1, f"message {self.commits + 1} is missing; found {seq}"
            )
        try:
            head = check_commit(data, self.hash, self.ordinal + 1)
        except ChainBroken as error:
            raise self._blamed(data, error) from error
        if head.at < self.at:
            raise ChainBroken(head.first, f"time goes back, from {self.at} to {head.at}")
        if head.epoch < self.epoch:
            raise ChainBroken(head.first, f"epoch goes back, from {self.epoch} to {head.epoch}")
        before, ordinal = (head.first, self.hash), head.next_first - 1
        signed = list(itertools.takewhile(lambda said: said.ordinal <= ordinal, self._due))
        for statement in signed:
            self._compare(statement, (seq, ordinal, head.hash), before)
        # Only now: who goes on after an error finds the walk where it was.
        for _ in signed:
            self._due.popleft()
            self.vouched = ordinal
        self._before = before
        self.commits, self.ordinal, self.hash = seq, ordinal, head.hash
        self.at, self.epoch = head.at, head.epoch
        return head

    def vouch(self, statement: Statement) -> None:
        """Compare where the walk stands with what was signed of this place.

        Raises:
            ChainBroken: something was taken out, put in, or all written anew since the last one.
        """
        if statement.ordinal > self.ordinal:
            raise ChainBroken(
                self.ordinal + 1, f"missing, for a checkpoint signs ordinal {statement.ordinal}"
            )
        self._compare(statement, (self.commits, self.ordinal, self.hash), self._before)
        self.vouched = self.ordinal

    def _compare(
        self,
        statement: Statement,
        found: tuple[int, Ordinal, str],
        before: tuple[int, str] | None,
    ) -> None:
        if (statement.sequence, statement.ordinal, statement.hash) == found:
            return
        first = self.vouched + 1
        if before == (statement.ordinal + 1, statement.hash):
            first = statement.ordinal + 1  # what was signed is there, and something behind it
        raise ChainBroken(
            first,
            "from here on something was put in or written anew: the checkpoint of ordinal "
            f"{statement.ordinal} signs hash {statement.hash}",
        )

    def report(self) -> VerifyReport:
        """Return how far it came."""
        return VerifyReport(
            commits=self.commits,
            ordinals=self.ordinal,
            last_hash=self.hash,
            last_at=self.at,
            epoch=self.epoch,
        )

    def _blamed(self, data: bytes, error: ChainBroken) -> ChainBroken:
        """Return the error, or what is true instead: that the commit before was put in.

        A commit that is sound in itself but follows another than the last one shows that one of the
        two is forged. The forged one is the last, if it sits where that one says it belongs itself,
        or else it may be, and nothing from it on can be trusted.
        """
        if self._before is None:
            return error
        first, prev = self._before
        try:
            found: Sealed = open_commit(data)
            check_commit(data, found.prev, found.first)
        except ChainBroken:
            return error
        takes_its_place = (found.first, found.prev) == (first, prev) and found.hash != self.hash
        follows_another = found.first == self.ordinal + 1 and found.prev != self.hash
        if takes_its_place or follows_another:
            return ChainBroken(first, "was put in or written anew: what follows does not follow it")
        return error
