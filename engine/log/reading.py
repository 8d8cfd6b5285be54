"""Reading the log on JetStream, whatever streams it lies in (see ``streams``).

Readers ask for messages by sequence and are told of new ones by announcements, which may be lost:
they look by themselves too. Invariant: every sequence is yielded once, in order, without a gap.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

import msgspec
from msgspec import Struct

from engine.bus.client import STATUS, Bus, BusError, BusTimeout, Disconnected, Message, NoResponders
from engine.bus.stored import ApiError
from engine.log.accounts import feed as feed_prefix
from engine.log.port import LogGone, LogRefused, LogUnavailable, StoredCommit
from engine.log.streams import (
    NAMES,
    Archived,
    Stream,
    first_request,
    holding,
    names_request,
    numbers_in,
    rolls_to,
    until,
)

BATCH_MAX = 256
BATCH_BYTES_MAX = 4 * 1024 * 1024
# A node that is paused takes what is sent and says nothing.
ATTEMPT_S = 2.0
RETRY_S = 0.05
POLL_S = 1.0
# Which streams there are is looked up anew when nothing came for as long.
LOOK_S = 5.0
ANNOUNCED_BYTES_MAX = 2 * 1024 * 1024
ANNOUNCED_BYTES_KEPT = 64 * 1024 * 1024
ENTRY_BYTES = 128
NOT_FOUND = "404"
END_OF_BATCH = "204"


class _Names(Struct, frozen=True):
    streams: tuple[str, ...] | None = None
    error: ApiError | None = None


_decode_names = msgspec.json.Decoder(_Names).decode


class LogReader:
    """The reading half of ``port.Log``.

    What lies in no stream any more is read from ``archived``, in threads; without it, ``LogGone``.
    """

    def __init__(self, bus: Bus, *, patience_s: float, archived: Archived | None = None) -> None:
        self._bus = bus.store
        self._feed = bus
        self._patience_s = patience_s
        self._archived = archived
        self._names = bus.subjects
        self._streams: list[Stream] = []
        self._looked_at = -LOOK_S
        self._newest = 0  # the highest number that a commit speaks of
        self._prefix = feed_prefix(bus.cell)

    async def _pause(self, deadline: float, error: Exception) -> None:
        if asyncio.get_running_loop().time() > deadline:
            raise LogUnavailable(f"no outcome in {self._patience_s} s: {error}") from error
        await asyncio.sleep(RETRY_S)

    async def read(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncGenerator[StoredCommit]:
        """See ``port.Log.read``."""
        async with contextlib.aclosing(self.read_batches(after_seq, follow=follow)) as batches:
            async for batch in batches:
                for commit in batch:
                    yield commit

    async def read_batches(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncGenerator[list[StoredCommit]]:
        """See ``port.Log.read_batches``."""
        while True:
            try:
                reading = self._follow(after_seq) if follow else self._up_to_now(after_seq)
                async with contextlib.aclosing(reading) as batches:
                    async for batch in batches:
                        yield batch
                        after_seq = batch[-1].seq
            except LogGone as error:
                if self._archived is None:
                    raise
                gone = until(self._archived, after_seq, error.first)
            else:
                return
            with contextlib.closing(gone) as messages:
                while batch := await asyncio.to_thread(_portion, messages):
                    yield batch
                    after_seq = batch[-1].seq

    async def _up_to_now(self, after_seq: int) -> AsyncGenerator[list[StoredCommit]]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        end = await self._patiently(self.last, deadline)
        while end is not None and after_seq < end.seq:
            batch = await self._patiently(partial(self._batch, after_seq + 1), deadline)
            if wanted := [commit for commit in batch if commit.seq <= end.seq]:
                yield wanted
                after_seq = wanted[-1].seq
                deadline = loop.time() + self._patience_s
            else:  # a replica that lags behind the one that told of the end
                await self._pause(deadline, LogRefused(f"{after_seq + 1} is not there"))

    async def _patiently[T](self, ask: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Ask again while nobody answers, as when a node of a cluster is away. LogUnavailable."""
        while True:
            try:
                return await ask()
            except (BusTimeout, Disconnected, NoResponders) as error:
                await self._pause(deadline, error)

    async def last(self) -> StoredCommit | None:
        """See ``port.Log.last``. On a cluster this may lag behind the leader by a moment."""
        streams = await self._known()
        while True:
            found = await self._last_in(streams)
            if found is None:
                return None
            self._note([found])
            if self._newest <= streams[-1].number:
                return found
            before, streams = streams, await self._look()
            if before[-1].number == streams[-1].number:
                return found

    async def _last_in(self, streams: Sequence[Stream]) -> StoredCommit | None:
        for stream in reversed(streams):
            subject = self._names.log_subject(stream.number)
            request = msgspec.json.encode({"last_by_subj": subject})
            if found := _direct_commit(await self._direct(stream, request)):
                return found
        return None

    async def _direct(self, stream: Stream, request: bytes) -> Message:
        try:
            return await self._bus.ask(
                f"$JS.API.DIRECT.GET.{stream.name}", request, timeout_s=ATTEMPT_S
            )
        except NoResponders:
            self._looked_at = -LOOK_S  # it may have been dropped
            raise

    async def _known(self) -> list[Stream]:
        """Return the streams there are, as they were found lately."""
        now = asyncio.get_running_loop().time()
        known = self._streams[-1].number if self._streams else 0
        if not known or known < self._newest or now - self._looked_at > LOOK_S:
            return await self._look()
        return self._streams

    async def _look(self) -> list[Stream]:
        """Find out which streams there are, and where each begins."""
        firsts = {stream.number: stream.first for stream in self._streams}
        streams: list[Stream] = []
        for number in await self._listed():
            stream = Stream(number, self._names.log_stream_of(number), firsts.get(number, 0))
            if not stream.first:
                request = first_request(self._names.cell, number)
                if found := _direct_commit(await self._direct(stream, request)):
                    stream = Stream(number, stream.name, found.seq)
            streams.append(stream)
        if not streams:
            raise NoResponders("there is no log")
        self._streams = streams
        self._looked_at = asyncio.get_running_loop().time()
        return streams

    async def _listed(self) -> list[int]:
        request = names_request(self._names.cell)
        found = _decode_names(await self._bus.request(NAMES, request, timeout_s=ATTEMPT_S))
        if found.error is not None:  # no leader yet, on a cluster
            raise BusTimeout(str(found.error))
        return numbers_in(self._names.cell, found.streams or ())

    async def _batch(self, first_seq: int) -> list[StoredCommit]:
        """Read what there is from ``first_seq`` on, bounded in number and bytes."""
        for stream in holding(await self._known(), first_seq):
            batch = await self._batch_of(stream, first_seq)
            # One that begins later: what is wanted is in a stream whose replica lags.
            if batch and batch[0].seq == first_seq:
                self._note(batch)
                return batch
        return []

    async def _batch_of(self, stream: Stream, first_seq: int) -> list[StoredCommit]:
        request = msgspec.json.encode(
            {"seq": first_seq, "batch": BATCH_MAX, "max_bytes": BATCH_BYTES_MAX}
        )
        batch: list[StoredCommit] = []
        answers = self._bus.ask_many(
            f"$JS.API.DIRECT.GET.{stream.name}", request, timeout_s=ATTEMPT_S
        )
        try:
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    commit = _direct_commit(answer)
                    if commit is None:
                        break
                    batch.append(commit)
        except NoResponders:
            self._looked_at = -LOOK_S  # it may have been dropped
            raise
        return batch

    def _note(self, batch: Sequence[StoredCommit]) -> None:
        """Notice that the log goes on in another stream."""
        for commit in batch:
            self._newest = max(self._newest, rolls_to(commit.data))

    async def _follow(self, after_seq: int) -> AsyncGenerator[list[StoredCommit]]:
        announced = _Announced()
        subscription = await self._feed.subscribe(f"{self._prefix}.*", announced.take)
        self._bus.on_reconnect.append(announced.look)
        try:
            while True:
                batch = announced.pop(after_seq + 1)
                self._note(batch)
                if not batch and announced.must_look:
                    announced.must_look = False
                    batch = await self._patient_batch(after_seq + 1)
                    announced.must_look = len(batch) > 0
                if batch:
                    yield batch
                    after_seq = batch[-1].seq
                else:
                    await announced.wait()
        finally:
            self._bus.on_reconnect.remove(announced.look)
            await subscription.stop()

    async def _patient_batch(self, first_seq: int) -> list[StoredCommit]:
        while True:
            try:
                return await self._batch(first_seq)
            except (BusTimeout, Disconnected, NoResponders):
                await asyncio.sleep(RETRY_S)


class _Announced:
    """Commits heard of and not yet taken; ``must_look`` says that some may be missing."""

    def __init__(self) -> None:
        self.must_look = True  # at the start
        self._commits: dict[int, bytes] = {}
        self._bytes = 0
        self._woken = asyncio.Event()

    async def take(self, message: Message) -> None:
        if self._bytes < ANNOUNCED_BYTES_KEPT:
            self._commits[int(message.subject.rpartition(".")[2])] = message.payload
            self._bytes += len(message.payload) + ENTRY_BYTES
        else:  # A reader that lags finds the rest in the log.
            self.must_look = True
        self._woken.set()

    async def look(self) -> None:
        self.must_look = True
        self._woken.set()

    def pop(self, seq: int) -> list[StoredCommit]:
        """Take the commits from ``seq`` on that were announced with their bytes."""
        batch: list[StoredCommit] = []
        while (data := self._commits.pop(seq, None)) is not None:
            if not data:  # too big to be announced whole
                self.must_look = True
                self._bytes -= ENTRY_BYTES
                break
            batch.append(StoredCommit(seq, data))
            self._bytes -= len(data) + ENTRY_BYTES
            seq += 1
        if self._commits and not batch:
            # What is left is behind us, or beyond a gap, or too big to be announced whole.
            self.must_look |= max(self._commits) >= seq
            self._commits.clear()
            self._bytes = 0
        return batch

    async def wait(self) -> None:
        """Wait for an announcement; after a silence, the log is to be looked at."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._woken.wait()
        except TimeoutError:
            self.must_look = True
        self._woken.clear()


def _portion(messages: Iterator[tuple[int, bytes]]) -> list[StoredCommit]:
    """Take as many as a batch may have."""
    batch: list[StoredCommit] = []
    size = 0
    for seq, data in itertools.islice(messages, BATCH_MAX):
        batch.append(StoredCommit(seq, data))
        size += len(data)
        if size >= BATCH_BYTES_MAX:
            break
    return batch


def _direct_commit(answer: Message) -> StoredCommit | None:
    """Read an answer of direct get (NATS ADR-31); None at the end, or where nothing is."""
    status = answer.headers.get(STATUS)
    if status in (NOT_FOUND, END_OF_BATCH):
        return None
    if status is not None:
        raise BusError(f"direct get: {status} {answer.headers.get('Description', '')}")
    seq = int(answer.headers["Nats-Sequence"])
    return StoredCommit(seq, answer.payload, micros(answer.headers["Nats-Time-Stamp"]))


def micros(text: str) -> int:
    """Read RFC 3339 with up to nine digits of a second, cut to microseconds."""
    at = datetime.fromisoformat(text)
    return int(at.timestamp()) * 1_000_000 + at.microsecond
