"""Rebuild a broken log from its second copy, and from what its broker's files still hold.

Works while the cloud is down. Invariants: what is put back is the log byte for byte, under the same
sequences, or it is not put back; nothing that was there is deleted, it is moved to
``restore/<time>/``. Every step may be cut short by a kill and taken again:

1. What only the broker's files have is copied to ``restore/salvaged``, a line for each commit with
   its sequence before it, before any server opens, and so changes, them.
2. Is the log whole? Then nothing is done. Else its stream is moved aside, and ``restore/building``
   says so.
3. A broker is started alone, and the commits are appended that it does not have yet.
4. The log is read back and compared; then ``building`` and ``salvaged`` are removed.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from engine.bus.client import Bus
from engine.log import salvage, server
from engine.log.checkpoint import Checkpoint
from engine.log.commit import ChainBroken
from engine.log.export import read_lines
from engine.log.jetstream import JetStreamLog
from engine.log.port import LogError
from engine.log.replay import replay
from engine.log.rollover import open_next
from engine.log.stream import ensure_log
from engine.log.streams import rolls_to
from engine.log.verify import VerifyReport, Walk
from schemas.units import Ordinal

IN_FLIGHT = 64
LOST_S = 2.0
SALVAGED = "salvaged"
BUILDING = "building"


class RestoreFailed(Exception):
    """It could not be restored; what there was is where it was, or under ``restore/``."""


class Restored(Struct, frozen=True, kw_only=True):
    """What is there now: ``commits`` up to ``ordinals``. ``aside`` is where the old one lies.

    ``salvaged`` counts the commits that only the broker's files still had.
    """

    commits: int
    ordinals: Ordinal
    last_hash: str
    was_intact: bool
    salvaged: int = 0
    appended: int = 0
    aside: str = ""


class Place(Protocol):
    """Where a cloud keeps what is restored."""

    @property
    def root(self) -> Path:
        """The state directory."""
        ...

    @property
    def nats(self) -> Path:
        """The broker's folder."""
        ...


class Restore:
    """One restore. ``sealed`` yields what the second copy holds."""

    def __init__(
        self,
        place: Place,
        cell: str,
        host: str,
        sealed: Callable[[], Iterable[tuple[int, bytes]]],
        *,
        known: Sequence[Checkpoint] = (),
        stamp: str,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Name the folder for what is moved aside (``stamp``), and who is told of each step.

        ``known`` is what the log must contain, in order: no commit that contradicts it is taken.
        """
        self._nats = place.nats
        self._folder = place.root / "restore"
        self._cell = cell
        self._host = host
        self._sealed = sealed
        self._known = known
        self._stamp = stamp
        self._tell = tell
        self._prefix = f"LOG-{cell}-"
        self._subject = f"{cell}.log"

    def run(self, *, force: bool = False) -> Restored:
        """Restore the log unless it is whole; with ``force`` even then.

        Raises:
            RestoreFailed: it could not be.
            OSError: a file could not be read or written.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        resumed = (self._folder / BUILDING).exists()
        best, salvaged = self._salvage()
        self._tell(f"found {best.commits} commits, up to ordinal {best.ordinals}")
        aside = ""
        if not resumed:
            if not force and self._is_whole(best):
                self._finish()
                return _told(best, was_intact=True)
            aside = self._move_aside()
        _touch(self._folder / BUILDING)
        appended = self._build(best)
        if appended is None:  # what a cut-short run had built does not hold
            aside = self._move_aside()
            appended = self._build(best)
        if appended is None:
            raise RestoreFailed("what was just written cannot be read back")
        self._finish()
        return _told(best, was_intact=False, salvaged=salvaged, appended=appended, aside=aside)

    def _salvage(self) -> tuple[VerifyReport, int]:
        """Find the longest log there is, and copy what only the broker's files hold of it."""
        kept = self._folder / SALVAGED
        beside = kept.with_suffix(".new")
        walk = Walk(checkpoints=self._known)
        count = 0
        sources = [self._sealed(), self._salvaged(), self._stored()]
        with beside.open("wb") as file:
            for sequence, data, source in salvage.join(walk, sources):
                if source:
                    file.write(b"%d %b\n" % (sequence, data))
                    count += 1
            file.flush()
            os.fsync(file.fileno())
        beside.replace(kept)
        _sync(self._folder)
        return walk.report(), count

    def _best(self, after: int, best: VerifyReport) -> Iterator[tuple[int, bytes]]:
        """Yield the commits after a sequence, of the log that was found."""
        chain = salvage.join(Walk(), [self._sealed(), self._salvaged()])
        for sequence, data, _ in itertools.islice(chain, after, best.commits):
            yield sequence, data

    def _salvaged(self) -> Iterator[tuple[int, bytes]]:
        path = self._folder / SALVAGED
        if path.exists():
            for line in read_lines(path):
                sequence, _, data = line.partition(b" ")
                yield int(sequence), data

    def _stored(self) -> Iterator[tuple[int, bytes]]:
        return salvage.stored(salvage.streams(self._nats, self._prefix), self._subject)

    def _is_whole(self, best: VerifyReport) -> bool:
        """Return whether both the files and what a broker serves of them are all that was found."""
        try:
            walk = self._dropped(best)
            for sequence, data in self._stored():
                walk.add(sequence, data)
        except ChainBroken as error:
            self._tell(f"the broker's files are damaged: {error}")
            return False
        if not walk.commits or walk.report() != best:
            self._tell(f"the broker's files end at ordinal {walk.ordinal}")
            return False
        with self._broker() as nats:
            served = self._served(nats, best)
        if served != best:
            self._tell("the broker does not serve the whole log")
        return served == best

    def _move_aside(self) -> str:
        """Move the log's streams away from the broker; keys and passwords stay."""
        folders = salvage.streams(self._nats, self._prefix)
        if not folders:
            return ""
        aside = self._folder / self._stamp
        aside.mkdir(mode=0o700, exist_ok=True)
        for folder in folders:
            folder.rename(salvage.unused(aside / folder.name))
        _sync(aside)
        _sync(folders[0].parent)
        self._tell(f"the old log was moved to {aside}")
        return str(aside)

    def _build(self, best: VerifyReport) -> int | None:
        """Append what the broker does not have; None if what it has is not of this log."""
        with self._broker() as nats:
            had = self._served(nats, best)
            if had is None or had.commits > best.commits:
                return None
            asyncio.run(self._append(nats, had.commits, best))
            return best.commits - had.commits if self._served(nats, best) == best else None

    async def _append(self, nats: server.NatsServer, after: int, best: VerifyReport) -> None:
        bus = await Bus.connect(
            nats.url,
            user="admin",
            password=nats.credentials["admin"],
            name="restore",
            cell=self._cell,
        )
        try:
            await ensure_log(bus)
            log = JetStreamLog(bus)
            commits = self._best(after, best)
            while True:
                # In the streams in which it lay; one that was dropped is there again.
                number, _ = await open_next(bus)
                await log.roll(number)
                for batch in _batches(commits):
                    # Under the fence: each has the place that it had, or none.
                    await asyncio.gather(
                        *(log.append(d, expected_last=seq - 1) for seq, d in batch)
                    )
                    if rolls_to(batch[-1][1]):
                        break
                else:
                    return
        finally:
            await bus.close()

    def _dropped(self, best: VerifyReport) -> Walk:
        """Walk what lies before the oldest stream: it was archived, and dropped since.

        Raises:
            ChainBroken: what is left of it does not reach the stream.
        """
        walk = Walk()
        folders = salvage.streams(self._nats, self._prefix)
        if folders and folders[0].name != f"{self._prefix}0001":
            first = next(self._stored(), (1, b""))[0]
            for sequence, data in itertools.islice(self._best(0, best), first - 1):
                walk.add(sequence, data)
        return walk

    def _served(self, nats: server.NatsServer, best: VerifyReport) -> VerifyReport | None:
        """Return how far the broker serves a sound log; None if it serves what is not."""
        try:
            walk = self._dropped(best)
            # Numbered streams go on where the one before ends.
            for stream in salvage.streams(self._nats, self._prefix):
                messages = replay(
                    nats.url,
                    "admin",
                    nats.credentials["admin"],
                    stream.name,
                    walk.commits,
                    lost_s=LOST_S,
                )
                for sequence, data in messages:
                    walk.add(sequence, data)
        except (ChainBroken, LogError) as error:
            self._tell(f"the broker serves no sound log: {error}")
            return None
        return walk.report()

    @contextmanager
    def _broker(self) -> Iterator[server.NatsServer]:
        self._nats.mkdir(mode=0o700, exist_ok=True)
        server.end_orphan(self._nats)
        nats = server.start(self._nats, cell=self._cell, host=self._host)
        try:
            yield nats
        finally:
            nats.stop()

    def _finish(self) -> None:
        for name in (BUILDING, SALVAGED):
            (self._folder / name).unlink(missing_ok=True)
        _sync(self._folder)


def _batches(
    commits: Iterator[tuple[int, bytes]],
) -> Iterator[list[tuple[int, bytes]]]:
    """Yield commits that may be appended at once; a stream's last is last in its batch."""
    batch: list[tuple[int, bytes]] = []
    for seq, data in commits:
        batch.append((seq, data))
        if len(batch) == IN_FLIGHT or rolls_to(data):
            yield batch
            batch = []
    if batch:
        yield batch


def _told(
    best: VerifyReport,
    *,
    was_intact: bool,
    salvaged: int = 0,
    appended: int = 0,
    aside: str = "",
) -> Restored:
    return Restored(
        commits=best.commits,
        ordinals=best.ordinals,
        last_hash=best.last_hash,
        was_intact=was_intact,
        salvaged=salvaged,
        appended=appended,
        aside=aside,
    )


def _touch(path: Path) -> None:
    path.touch(mode=0o600)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
