"""A node's time machine on the bus: the projector answers for it, and its worker does the work.

Edges ask ``<cell>.moment.<node>`` with a ``worker.Asked`` and are answered with a ``worker.Told``.
Invariant: questions are answered one after another, the same one once; of those that wait there are
never more than ``WAITING_MAX``. Now and then (``moments.next_snapshot``) a snapshot is taken, so
that no moment is far from one.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

import msgspec
import structlog

from engine.bus.client import Bus, BusError, Message
from engine.bus.life import at_work
from projections.timemachine.moments import next_snapshot
from projections.timemachine.worker import (
    JOBS,
    Asked,
    Job,
    Told,
    decode_asked,
    decode_told,
    encode,
    job_of,
    refusal,
)
from schemas.config import Config
from schemas.errors import InvalidInput, Unavailable
from schemas.units import Ordinal

log = structlog.get_logger(__name__)

WAITING_MAX = 32
ANSWER_S = 900.0  # of one moment, when there is no snapshot and all of the log must be folded
IDLE_S = 120.0  # how long a worker waits for the next question
LOOK_S = 5.0
LINE_BYTES_MAX = 4 * 2**20


class Worker:
    """A process that is asked one thing after another; started when it is needed."""

    def __init__(self, config: Config, job: Job) -> None:
        self._config = config
        self._job = job
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._used_at = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it has had nothing to do for a while."""
        return not self._turn.locked() and time.monotonic() - self._used_at > IDLE_S

    async def close(self) -> None:
        """End the process; what it is doing is lost."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def ask(self, asked: Asked) -> Told:
        """Ask, and return the answer, or why there is none."""
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    return await self._answer(asked)
            except (OSError, TimeoutError, msgspec.DecodeError, ValueError) as error:
                log.warning("worker_lost", job=self._job, asked=asked.ordinal, error=repr(error))
                await self.close()
                return Told(error=refusal(Unavailable("the past could not be looked at")))
            finally:
                self._used_at = time.monotonic()

    async def _answer(self, asked: Asked) -> Told:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._start()
        process = self._process
        assert process.stdin is not None, "it was given a pipe"
        assert process.stdout is not None, "it was given a pipe"
        process.stdin.write(encode(asked) + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ChildProcessError("the worker has ended")
        return decode_told(line)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "projections.timemachine.worker", self._job),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
        )
        assert process.stdin is not None, "it was given a pipe"
        # Not in an argument: it holds the password to the log.
        process.stdin.write(encode(self._config) + b"\n")
        return process


class TimeMachine:
    """Has questions about the past answered. One for each node."""

    def __init__(self, config: Config, position: Callable[[], Ordinal]) -> None:
        """``position`` is the read model's."""
        self._config = config
        self._position = position
        # To compare, or to decide load anew, takes long, and keeps nobody from reading.
        self._workers: dict[Job, Worker] = {job: Worker(config, job) for job in JOBS}
        self._waiting: dict[bytes, asyncio.Task[Told]] = {}
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
            await asyncio.gather(*(worker.close() for worker in self._workers.values()))

    async def answer(self, asked: Asked) -> Told:
        """Have a question answered; whoever asks the same at once shares the answer."""
        key = encode(asked)
        task = self._waiting.get(key)
        if task is None:
            if len(self._waiting) >= WAITING_MAX:
                return Told(error=refusal(Unavailable("too much is asked about the past at once")))
            task = asyncio.create_task(self._workers[job_of(asked)].ask(asked))
            self._waiting[key] = task
            task.add_done_callback(lambda _: self._waiting.pop(key, None))
        return await asyncio.shield(task)

    async def _heard(self, message: Message) -> None:
        async with at_work(message):
            await self._answered(message)

    async def _answered(self, message: Message) -> None:
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
        """Take a snapshot if one is due; let workers go that have nothing to do."""
        if self._position() >= next_snapshot(self._snapshot):
            told = await self._workers["moments"].ask(Asked())
            if told.error is not None:
                log.warning("snapshot_not_taken", error=told.error.reason)
            elif told.snapshot:
                self._snapshot = told.snapshot
                log.info("snapshot_taken", ordinal=told.snapshot)
        for worker in self._workers.values():
            if worker.is_idle:
                await worker.close()
