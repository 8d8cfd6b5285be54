"""When snapshots are written: beside the work, and without harm to it.

Invariant: what becomes a snapshot's file was durable in the log before.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import structlog

from engine.folded import Folded
from engine.snapshot import SUFFIX, Copied, copy_cell, fold_version, write
from schemas.units import Ordinal

logger = structlog.get_logger(__name__)

EVERY: Ordinal = 50_000


class Snapshotter:
    """Writes snapshots beside the work: when enough was folded, and at the end.

    A snapshot must be of durable state, while a leader's state runs ahead of its log. So both
    ``note`` and ``finish`` are for moments at which all that the cell holds is acknowledged, or
    follows with ``durable``, which must end only once it is. A standby's state is always durable.
    """

    def __init__(
        self, directory: Path, *, cell_name: str, every: Ordinal = EVERY, began: Ordinal = 0
    ) -> None:
        """``began`` is the ordinal of the snapshot that the engine began from."""
        self._directory = directory
        self._cell_name = cell_name
        self._every = every
        self._last = began
        self._writing: asyncio.Task[None] | None = None
        fold_version()

    async def followed(self, folded: Folded) -> None:
        """Do as ``note``, for a candidate that follows, or leads with nothing in flight."""
        self.note(folded)

    def note(self, folded: Folded, durable: asyncio.Future[Any] | None = None) -> bool:
        """Begin a snapshot if enough was folded since the last one; return whether one was begun.

        The copy is taken before this returns, the rest is done in a thread. One is written at a
        time. What goes wrong is logged as ``snapshot_failed`` and harms nobody.

        Args:
            folded: the state as it is after the commit that ``prev`` and ``sequence`` name.
            durable: ends once that commit and all before it are acknowledged; if it fails or is
                cancelled, nothing is written. It must end either way.
        """
        ordinal = folded.cell.state.ordinal
        if ordinal - self._last < self._every or self._busy():
            return False
        self._last = ordinal
        copied = copy_cell(folded.cell, folded.prev, folded.sequence)
        self._writing = asyncio.create_task(self._write(copied, durable))
        return True

    async def finish(self, folded: Folded) -> None:
        """Write a last one, if anything was folded since, and return once it is there."""
        await self.written()
        ordinal = folded.cell.state.ordinal
        if ordinal > self._last:
            self._last = ordinal
            await self._write(copy_cell(folded.cell, folded.prev, folded.sequence), None)

    async def written(self) -> None:
        """Return once nothing is being written."""
        if self._writing is not None:
            await asyncio.wait({self._writing})

    def _busy(self) -> bool:
        return self._writing is not None and not self._writing.done()

    async def _write(self, copied: Copied, durable: asyncio.Future[Any] | None) -> None:
        if durable is not None:
            # Not awaited itself: it is not ours to cancel.
            await asyncio.wait({durable})
            if durable.cancelled() or durable.exception() is not None:
                logger.info("snapshot_dropped", ordinal=copied.scalars.ordinal)
                return
        await asyncio.to_thread(self._write_logged, copied)

    def _write_logged(self, copied: Copied) -> None:
        ordinal, began = copied.scalars.ordinal, time.monotonic()
        try:
            with _alone(self._directory) as alone:
                if not alone:
                    logger.info("snapshot_skipped", ordinal=ordinal, why="another engine writes")
                    return
                path = write(self._directory, self._cell_name, copied)
                size = path.stat().st_size
        except (OSError, msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
            logger.exception("snapshot_failed", ordinal=ordinal, error=str(error))
            return
        seconds = round(time.monotonic() - began, 3)
        logger.info("snapshot_written", ordinal=ordinal, bytes=size, seconds=seconds)


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Yield whether no other process writes here; what one that was killed has left is removed."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        for left_over in directory.glob(f".*{SUFFIX}.next"):
            left_over.unlink(missing_ok=True)
        yield True
    finally:
        os.close(file)
