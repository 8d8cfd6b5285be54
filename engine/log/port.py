"""The log, as the engine and its readers see it: append under a fence, read in order.

Kept by ``jetstream.JetStreamLog`` and its twin in memory, ``memory.MemoryLog``, both under
``tests/contracts/test_log.py``. What an append has returned is durable and never moves.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct


class LogError(Exception):
    """The log could not do it."""


class WrongLastSequence(LogError):
    """Somebody else appended first: nothing of ours was stored."""

    def __init__(self, expected: int, found: int | None = None) -> None:
        super().__init__(f"expected the log to end at {expected}, it ends at {found or '?'}")
        self.expected = expected
        self.found = found


class LogUnavailable(LogError):
    """No answer in time. Whether the commit is stored is NOT known: stop, and fold again."""


class LogGone(LogError):
    """What was to be read lies in a stream that was dropped: it is in the history only."""

    def __init__(self, wanted: int, first: int) -> None:
        super().__init__(f"the broker has the log from {first} on, not {wanted}; see the history")
        self.first = first


class LogRefused(LogError):
    """The broker refused to store it (full, too big): nothing of ours was stored."""


class StoredCommit(Struct, frozen=True, array_like=True):
    """A commit as it lies in the log. ``seq`` is the stream's sequence, from 1, without gaps.

    ``ts`` is when the broker stored it, microseconds since the epoch, 0 where it was not told; the
    product's time is the commit's own ``at``.
    """

    seq: int
    data: bytes
    ts: int = 0


class _CommitId(Struct, frozen=True):
    commit: str


_decode_id = msgspec.json.Decoder(_CommitId).decode


def is_same(stored: StoredCommit, data: bytes, commit_id: str | None) -> bool:
    """Whether what is stored is what was to be appended: by its id if given, else by its bytes."""
    if commit_id is None:
        return stored.data == data
    try:
        return _decode_id(stored.data).commit == commit_id
    except msgspec.DecodeError:
        return False


class Log(Protocol):
    """An append-only log of commits in one total order."""

    async def append(
        self,
        data: bytes,
        *,
        expected_last: int,
        commit_id: str | None = None,
        pipelined: bool = False,
    ) -> int:
        """Store ``data`` after ``expected_last`` and return its sequence, ``expected_last + 1``.

        Repeating it is safe: what lies in its place already is not stored again. It is the same if
        it has the same ``commit_id``, or, with none given, the same bytes.

        Several may be under way, each with the predicted sequence; ``pipelined`` says that what
        goes before is under way too, so a log that ends too early is waited for. Once one is
        refused, so is every later one, unless others have meanwhile appended just as many as it
        expects (see ``append_all``): so one counts as stored only when all before it are.

        Raises:
            WrongLastSequence: the log does not end there.
            LogRefused: it cannot be stored.
            LogUnavailable: the outcome is unknown.
        """
        ...

    async def append_all(self, datas: Sequence[bytes], *, expected_last: int) -> int:
        """Store several after ``expected_last``, all at once or none; return the last's sequence.

        Nothing lies between them, and the log never ends among them: so a writer that appends as
        many as another may have under way voids all of those.

        Raises:
            WrongLastSequence: the log does not end there.
            LogRefused: they cannot be stored.
            LogUnavailable: the outcome is unknown.
        """
        ...

    async def end(self) -> int:
        """Return the last sequence as whoever orders the appends knows it; 0 of an empty log.

        Every append that was acknowledged before this call is counted.

        Raises:
            LogUnavailable: no answer in time.
        """
        ...

    async def roll(self, number: int) -> None:
        """Append to the stream of this number from now on; waits until it is there.

        Sequences go on. For after the commit that closes the stream before it.

        Raises:
            LogUnavailable: it was not there in time.
        """
        ...

    def read(self, after_seq: int = 0, *, follow: bool = False) -> AsyncGenerator[StoredCommit]:
        """Yield what follows ``after_seq``, up to the end as of now; with ``follow``, for ever."""
        ...

    def read_batches(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncGenerator[list[StoredCommit]]:
        """As ``read``, in lists of what is there, for readers that save once per batch."""
        ...

    async def last(self) -> StoredCommit | None:
        """Return the newest commit, None if there is none."""
        ...
