"""How far an agent has come: the highest (epoch, ordinal) it was ever sent.

Kept on disk before anything is done about what it came with, so that after any crash an agent
still refuses a leader that was replaced. The file has one length and is overwritten by one write
call: a killed process leaves the old text or the new. It is not synced: after a power failure the
engine's next answer brings it up to date.
"""

import os
from pathlib import Path
from typing import NamedTuple

_WIDTH = 20
_LENGTH = 2 * _WIDTH + 2


class Version(NamedTuple):
    """When something was decided. Compares by leader first, then by place in the log."""

    epoch: int
    ordinal: int


NEVER = Version(0, 0)


class Position:
    """The highest version seen, in memory and in a file (or in memory alone)."""

    def __init__(self, path: Path | None) -> None:
        self.highest = NEVER
        self._descriptor = -1
        if path is None:
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        text = os.pread(self._descriptor, _LENGTH, 0)
        if len(text) == _LENGTH:
            epoch, ordinal = text.split()
            self.highest = Version(int(epoch), int(ordinal))

    def see(self, version: Version) -> None:
        """Remember a version if it is higher than all before."""
        if version <= self.highest:
            return
        self.highest = version
        if self._descriptor >= 0:
            text = f"{version.epoch:>{_WIDTH}} {version.ordinal:>{_WIDTH}}\n"
            os.pwrite(self._descriptor, text.encode(), 0)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
