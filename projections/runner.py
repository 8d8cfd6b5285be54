"""The projector: follows the log, keeps a node's read model, announces how far it has come.

Beside that it keeps who asked what (``projections.access``), for which nobody waits.

Invariant: an ordinal is announced only after everything up to it can be read. One transaction holds
all the commits that were waiting, with the position; a kill at any moment loses nothing but work.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from engine.bus.client import Bus, BusError
from engine.bus.metrics import Reading, answer_for
from engine.log.jetstream import JetStreamLog
from engine.log.port import LogError, StoredCommit
from projections import access, files, proving
from projections.history import History, history_path
from projections.models import LogDiffers, apply_commit
from projections.numbers import GAPS, Resources, lag
from projections.reader import Reader
from projections.store import Superseded, Writer
from projections.timemachine.service import TimeMachine
from schemas.config import Config

log = structlog.get_logger(__name__)

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
# A log that differs may be one that was read amiss; the third time in a row it is true.
DIFFERENCES_MAX = 3
CHECKPOINT_COMMITS = 250

type Work = Coroutine[object, object, None]


class Announcer(Protocol):
    """Who is told how far the read model has come."""

    async def __call__(self, ordinal: int) -> None:
        """Tell; must not fail."""
        ...


class Followed(proving.Ended, Protocol):
    """The part of ``engine.log.jetstream.JetStreamLog`` that a projector needs."""

    def read_batches(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncIterator[list[StoredCommit]]:
        """Yield what follows ``after_seq``; with ``follow``, for ever."""
        ...


def read_model_path(config: Config) -> Path:
    """Return where a node's read model lies."""
    return Path(config.state_dir) / "read" / f"{config.node}.sqlite"


async def run(config: Config) -> None:
    """Be the projector of a node until SIGTERM or SIGINT.

    Raises:
        LogDiffers: the log is not the one that the read model was made of.
    """
    bus = await Bus.configured(config, f"projector-{config.node}")
    source = JetStreamLog(bus, archived=History(history_path(config)).commits_after)
    reader = Reader(read_model_path(config))
    resources = Resources(reader)

    async def numbers() -> list[Reading]:
        head = reader.head()
        behind = await lag("read_model", head.ordinal, head.at, source.last)
        return [*behind, *await resources.readings()]

    subject = bus.subjects.metrics(f"projector-{config.node}")
    await answer_for(bus, subject, "projector", numbers)
    following = follow(bus, source, read_model_path(config), config.node)
    keeping = access.keep(bus, access.access_path(config))
    moments = TimeMachine(config, reader.position).serve(bus)
    try:
        await until_stopped(following, keeping, moments)
    finally:
        await bus.close()
        reader.end()


async def until_stopped(work: Work, *beside: Work) -> None:
    """Do ``work`` until it ends, or the process is told to stop by SIGTERM or SIGINT.

    What goes on ``beside`` it is ended with it, and nobody waits for its end.

    Raises:
        Exception: what ``work`` has ended with.
    """
    stopping, working = asyncio.create_task(_stopped()), asyncio.create_task(work)
    tasks = [stopping, working, *map(asyncio.create_task, beside)]
    try:
        await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stopped() -> None:
    """Return once the process is told to stop by SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def follow(bus: Bus, source: Followed, path: Path, node: str) -> None:
    """Keep the read model at ``path``, announce it on the bus and prove that it is whole, for ever.

    Raises:
        LogDiffers: the log is not the one that the read model was made of.
    """
    subject = bus.subjects.projected(node)

    async def announce(ordinal: int) -> None:
        try:
            await bus.publish(subject, b"%d" % ordinal)
        except BusError as error:
            # Whoever waits looks at the file itself from time to time.
            log.warning("not_announced", ordinal=ordinal, error=str(error))

    async def say(proof: proving.Proof) -> None:
        try:
            await bus.publish(bus.subjects.proven(node), proving.encode_proof(proof))
        except BusError as error:
            log.warning("proof_not_announced", error=str(error))  # The next one follows soon.

    projector = Projector(source, path, announce)
    bus.on_reconnect.append(projector.announce_again)
    proofs = asyncio.create_task(proving.prove(source, projector, say))
    try:
        await projector.run()
    finally:
        proofs.cancel()
        await asyncio.gather(proofs, return_exceptions=True)
        bus.on_reconnect.remove(projector.announce_again)
        projector.close()


class Projector:
    """Follows one log into one read model. Only one task may run it."""

    def __init__(self, source: Followed, path: Path, announce: Announcer) -> None:
        self._source = source
        self._path = path
        self._announce = announce
        self._writer: Writer | None = None
        self._since_checkpoint = 0
        self._checkpointing: asyncio.Task[None] | None = None
        self._advanced = asyncio.Event()

    @property
    def reached(self) -> tuple[int, int]:
        """See ``proving.Followed``."""
        writer = self._writer
        return (-1, 0) if writer is None else (writer.position.seq, writer.position.ordinal)

    async def advanced(self) -> None:
        """See ``proving.Followed``."""
        await self._advanced.wait()

    def _tell_advanced(self) -> None:
        self._advanced.set()
        self._advanced = asyncio.Event()

    async def run(self) -> None:
        """Follow for ever; read again from the position after whatever interrupts.

        Raises:
            LogDiffers: the log is not the one that the read model was made of.
        """
        differences = 0
        wait_s = RETRY_FIRST_S
        while True:
            try:
                writer = self._writer = self._writer or await self._open()
            except (LogError, BusError) as error:
                log.warning("log_not_read", error=str(error))
                await asyncio.sleep(RETRY_MAX_S)
                continue
            start = writer.position.ordinal
            self._tell_advanced()
            await self._announce(start)
            try:
                await self._follow(writer)
            except Superseded:
                log.info("read_model_switched")
                self.close()
            except LogDiffers as error:
                GAPS.inc()
                differences += 1
                if differences == DIFFERENCES_MAX:
                    raise
                log.warning("log_differs", error=str(error))
            except (LogError, BusError) as error:
                log.warning("log_not_read", error=str(error))
            if writer.position.ordinal > start:
                differences, wait_s = 0, RETRY_FIRST_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def announce_again(self) -> None:
        """Tell anew how far the read model has come: who listens may have missed it."""
        if self._writer is not None:
            await self._announce(self._writer.position.ordinal)

    def close(self) -> None:
        """Let go of the file; ``run`` opens it again."""
        if self._writer is not None:
            self._writer.db.close()
            self._writer = None

    async def _open(self) -> Writer:
        writer = files.open_current(self._path)
        if writer is not None:
            return writer
        if files.generation(self._path):
            await self._build_beside()
        else:
            files.open_next(self._path).db.close()
            files.switch_to_next(self._path)
        writer = files.open_current(self._path)
        assert writer is not None, "what was just laid out is there"
        return writer

    async def _build_beside(self) -> None:
        """Build a read model of this version while readers keep the old one."""
        writer = files.open_next(self._path)
        log.info("read_model_rebuilding", path=str(self._path))
        try:
            async for batch in self._source.read_batches(0):
                _apply(writer, batch)
        finally:
            writer.db.close()
        files.switch_to_next(self._path)
        log.info("read_model_rebuilt", ordinal=writer.position.ordinal)

    async def _follow(self, writer: Writer) -> None:
        batches = self._source.read_batches(writer.position.seq, follow=True)
        try:
            async for batch in batches:
                _apply(writer, batch)
                self._tell_advanced()
                await self._announce(writer.position.ordinal)
                self._since_checkpoint += 1
                if self._since_checkpoint >= CHECKPOINT_COMMITS:
                    self._checkpoint()
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()

    def _checkpoint(self) -> None:
        """Have the journal copied beside the work, so that no commit has to wait for it."""
        if self._checkpointing is None or self._checkpointing.done():
            self._since_checkpoint = 0
            self._checkpointing = asyncio.create_task(
                asyncio.to_thread(files.checkpoint, self._path)
            )


def _apply(writer: Writer, batch: list[StoredCommit]) -> None:
    try:
        for commit in batch:
            apply_commit(writer, commit.seq, commit.data)
        writer.commit()
    except (LogDiffers, msgspec.ValidationError, AssertionError):
        writer.abandon()
        raise
