"""The last commit that was acknowledged, noted beside the log and out of the broker's hands.

JetStream that rebuilds its index, as after a kill, cuts a damaged file off at the damage and serves
what is left as if it were all. Its log is then a shorter one whose chain holds. The witness is what
remembers that there was more. Invariant: it is never ahead of the log, for it is written after the
ack; it may lag, and then says less, but nothing wrong.
"""

import contextlib
import os
from pathlib import Path

from msgspec import Struct

from schemas.units import Ordinal


class Seen(Struct, frozen=True, kw_only=True):
    """A commit: its place in the stream, its last ordinal, its link of the chain."""

    sequence: int
    ordinal: Ordinal
    hash: str


class Witness:
    """One small file of fixed size, written over in place. Only the leader writes it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def seen(self) -> Seen | None:
        """Return the last commit noted; None if there is none, or a power cut left no sense."""
        fields = os.pread(self._file, 256, 0).decode("ascii", "replace").split()
        with contextlib.suppress(ValueError):
            sequence, ordinal, link = fields
            return Seen(sequence=int(sequence), ordinal=int(ordinal), hash=link)
        return None

    def note(self, sequence: int, ordinal: Ordinal, link: str) -> None:
        """Note a commit that is durable. One write, not synced: it outlives us, not the power."""
        # A full disk keeps the note from going on, not the acknowledged request from being one.
        with contextlib.suppress(OSError):
            os.pwrite(self._file, b"%020d %020d %s\n" % (sequence, ordinal, link.encode()), 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
