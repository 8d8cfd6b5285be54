"""A node's time machine on the bus: the projector answers for it, and its worker does the work.

Edges ask ``<cell>.moment.<node>`` with a ``worker.Asked`` and are answered with a ``worker.Told``.
Invariant: questions are answered one after another, the same one once; of those that wait there are
never more than ``WAITING_MAX``. Every ``moments.SNAPSHOT_ORDINALS`` a snapshot is taken, so that
no moment is far from one.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

import msgspec
import structlog

from engine.bus.client import Bus, BusError, Message
from projections.timemachine.moments import SNAPSHOT_ORDINALS
from projections.timemachine.worker import Asked, Told, decode_asked, decode_told, encode, refusal
from schemas.config import Config
from schemas.errors import InvalidInput, Unavailable
from schemas.units import Ordinal

log = structlog.get_logger(__name__)

WAITING_MAX = 32
ANSWER_S = 900.0  # of one moment, when there is no snapshot and all of the log must be folded
IDLE_S = 120.0  # how long a worker waits for the next question
LOOK_S = 5.0
LINE_BYTES_MAX = 2**16


class TimeMachine:
    """Has moments built. One for each node."""

    def __init__(self, config: Config, position: Callable[[], Ordinal]) -> None:
        """``position`` is the read model's."""
        self._config = config
        self._position = position
        self._worker: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting: dict[Asked, asyncio.Task[Told]] = {}
        self._used_at = 0.0
        self._snapshot: Ordinal = 0

    async def serve(self, bus: Bus) -> None:
        """Answer and take snapshots, for ever."""
        subject = bus.subjects.moment(self._config.node)
        while True:
            try:
                subscription = await bus.subscribe(subject, self._heard, concurrency=WAITING_MAX)
                break
            except BusError as error:
                log.warning("moments_not_served", error=str(error))
                await asyncio.sleep(LOOK_S)
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self._look()
        finally:
            await subscription.stop()
            await self.close()

    async def close(self) -> None:
        """End the worker; what it is building is lost."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    async def answer(self, asked: Asked) -> Told:
        """Have a question answered; whoever asks the same at once shares the answer."""
        task = self._waiting.get(asked)
        if task is None:
            if len(self._waiting) >= WAITING_MAX:
                return Told(error=refusal(Unavailable("too many moments are being built")))
            task = asyncio.create_task(self._ask(asked))
            self._waiting[asked] = task
            task.add_done_callback(lambda _: self._waiting.pop(asked, None))
        return await asyncio.shield(task)

    async def _heard(self, message: Message) -> None:
        try:
            asked = decode_asked(message.payload)
        except msgspec.DecodeError:
            asked = Asked()
        if asked.ordinal >= 1:
            told = await self.answer(asked)
        else:
            told = Told(error=refusal(InvalidInput("the question is for an ordinal from 1 on")))
        try:
            await message.respond(encode(told))
        except BusError as error:
            log.warning("moment_not_told", error=str(error))

    async def _look(self) -> None:
        """Take a snapshot if one is due; let a worker go that has nothing to do."""
        if self._position() >= self._snapshot + SNAPSHOT_ORDINALS:
            told = await self._ask(Asked())
            if told.error is not None:
                log.warning("snapshot_not_taken", error=told.error.reason)
            elif told.snapshot:
                self._snapshot = told.snapshot
                log.info("snapshot_taken", ordinal=told.snapshot)
        elif not self._turn.locked() and time.monotonic() - self._used_at > IDLE_S:
            await self.close()

    async def _ask(self, asked: Asked) -> Told:
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await self._answer(asked)
            except (OSError, TimeoutError, msgspec.DecodeError, ValueError) as error:
                log.warning("worker_lost", asked=asked.ordinal, error=repr(error))
                await self.close()
                return Told(error=refusal(Unavailable("the moment could not be built")))
            finally:
                self._used_at = time.monotonic()

    async def _answer(self, asked: Asked) -> Told:
        if self._worker is None or self._worker.returncode is not None:
            self._worker = await self._start()
        worker = self._worker
        assert worker.stdin is not None, "it was given a pipe"
        assert worker.stdout is not None, "it was given a pipe"
        worker.stdin.write(encode(asked) + b"\n")
        await worker.stdin.drain()
        line = await worker.stdout.readline()
        if not line:
            raise ChildProcessError("the worker has ended")
        return decode_told(line)

    async def _start(self) -> asyncio.subprocess.Process:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "projections.timemachine.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        assert worker.stdin is not None, "it was given a pipe"
        # Not in an argument: it holds the password to the log.
        worker.stdin.write(encode(self._config) + b"\n")
        return worker
