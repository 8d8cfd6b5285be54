"""The log on JetStream: one publish, one fsync, one acknowledgement under the fence.

Appends go to one stream, the newest; reading is in ``reading``.

An append whose answer was lost is never repeated blindly: the same fence is sent again, and if the
place is taken, what lies there is read through the leader and compared.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from engine.bus.client import (
    NO_RESPONDERS,
    STATUS,
    Bus,
    BusError,
    BusTimeout,
    Disconnected,
    Message,
    NoResponders,
)
from engine.bus.stored import ApiError, decode_ack
from engine.log.port import LogRefused, LogUnavailable, StoredCommit, WrongLastSequence, is_same
from engine.log.reading import (
    ANNOUNCED_BYTES_MAX,
    ATTEMPT_S,
    BATCH_MAX,
    LogReader,
    micros,
)
from engine.log.streams import Archived

__all__ = ["ANNOUNCED_BYTES_MAX", "BATCH_MAX", "JetStreamLog"]

WRONG_LAST_SEQUENCE = 10071, 10164


class _RawMessage(Struct, frozen=True):
    seq: int
    time: str
    data: bytes = b""


class _RawReply(Struct, frozen=True):
    message: _RawMessage | None = None
    error: ApiError | None = None


class _State(Struct, frozen=True):
    last_seq: int = 0


class _Info(Struct, frozen=True):
    state: _State = _State()
    error: ApiError | None = None


_decode_info = msgspec.json.Decoder(_Info).decode
_decode_raw = msgspec.json.Decoder(_RawReply).decode


class JetStreamLog(LogReader):
    """See ``port.Log``. ``engine`` and ``admin`` may append, and ``edge`` and ``history`` read."""

    def __init__(
        self,
        bus: Bus,
        *,
        append_s: float = 30.0,
        replicas: int = 1,
        archived: Archived | None = None,
    ) -> None:
        """``append_s`` is how long an outcome is waited for; for ``archived`` see ``LogReader``.

        With more than one of ``replicas``, a node may for a moment tell what was long ago.
        """
        super().__init__(bus, patience_s=append_s, archived=archived)
        self._is_replicated = replicas > 1
        self._number = 0  # the stream that takes commits; 0: the newest there is
        self._finding: asyncio.Future[int] | None = None

    async def append(
        self,
        data: bytes,
        *,
        expected_last: int,
        commit_id: str | None = None,
        pipelined: bool = False,
    ) -> int:
        """See ``port.Log.append``."""
        deadline = asyncio.get_running_loop().time() + self._patience_s
        headers = {"Nats-Expected-Last-Sequence": str(expected_last)}
        number = self._number or await self._find_number()
        subject = self._names.log_subject(number)
        unsure = False  # whether an earlier attempt may have been stored
        while True:
            try:
                answer = await self._bus.ask(subject, data, timeout_s=ATTEMPT_S, headers=headers)
            except (BusTimeout, Disconnected) as error:
                unsure = True
                await self._pause(deadline, error)
                continue
            except NoResponders as error:
                await self._pause(deadline, error)
                continue
            except BusError as error:
                raise (LogUnavailable if unsure else LogRefused)(str(error)) from error
            ack = decode_ack(answer.payload)
            if ack.error is None:
                await self._announce(ack.seq, data)
                return ack.seq
            if ack.error.err_code not in WRONG_LAST_SEQUENCE:
                refusal = LogRefused(str(ack.error))
                if not unsure:
                    raise refusal
                await self._pause(deadline, refusal)
                continue
            found = _last_in(ack.error.description)
            early = found is not None and found < expected_last
            if early and (pipelined or self._is_replicated):
                # What goes before it was lost with a connection, and is being sent again; or a
                # node that led, was stopped and has woken up tells of an end that is long past.
                await self._pause(deadline, WrongLastSequence(expected_last, found))
                continue
            # An earlier attempt of ours may have been stored without our hearing of it.
            stored = await self._stored(number, expected_last + 1, deadline)
            if stored is not None and is_same(stored, data, commit_id):
                await self._announce(stored.seq, data)
                return stored.seq
            if stored is None and self._is_replicated and not early:
                await self._pause(deadline, WrongLastSequence(expected_last, found))
                continue  # it is there, if not where we asked
            raise WrongLastSequence(expected_last, found)

    async def append_all(self, datas: Sequence[bytes], *, expected_last: int) -> int:
        """See ``port.Log.append_all``: an atomic batch (NATS ADR-50)."""
        batch = uuid.uuid4().hex
        subject = self._names.log_subject(self._number or await self._find_number())
        heard: asyncio.Queue[Message] = asyncio.Queue()
        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox, heard.put)
        try:
            for number, data in enumerate(datas, start=1):
                headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                if number == 1:
                    headers["Nats-Expected-Last-Sequence"] = str(expected_last)
                if number == len(datas):
                    headers["Nats-Batch-Commit"] = "1"
                # Answers to the first, which names a refusal, and to the last, which commits.
                reply = inbox if number in {1, len(datas)} else ""
                await self._bus.publish(subject, data, headers, reply=reply)
            last = await self._batch_outcome(heard, expected_last)
        except BusError as error:
            raise LogUnavailable(str(error)) from error
        finally:
            await subscription.stop()
        for seq, data in enumerate(datas, start=expected_last + 1):
            await self._announce(seq, data)
        return last

    async def _batch_outcome(self, heard: asyncio.Queue[Message], expected_last: int) -> int:
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    answer = await heard.get()
            except TimeoutError:
                raise LogUnavailable(f"no outcome of a batch in {ATTEMPT_S} s") from None
            if answer.headers.get(STATUS) == NO_RESPONDERS:
                raise LogUnavailable("nobody takes commits")
            if not answer.payload:  # the first has been taken
                continue
            ack = decode_ack(answer.payload)
            if ack.error is None:
                return ack.seq
            if ack.error.err_code in WRONG_LAST_SEQUENCE:
                raise WrongLastSequence(expected_last, _last_in(ack.error.description))
            raise LogRefused(str(ack.error))

    async def end(self) -> int:
        """See ``port.Log.end``: asked of the stream's leader, which alone knows.

        Of a log that others roll, this is the end as long as ``number`` stays what it is while one
        reads so far.
        """
        found = self._number or await self._find_number()
        return await self._end_of(max(found, self._newest))

    @property
    def number(self) -> int:
        """The number of the stream that takes commits, as far as is known here; 0 if it is not."""
        return max(self._number, self._newest)

    async def roll(self, number: int) -> None:
        """See ``port.Log.roll``. The administrator makes the stream: ``engine.log.rollover``."""
        await self._end_of(number)
        self._number = number
        self._newest = max(self._newest, number)

    async def _end_of(self, number: int) -> int:
        """Return the last sequence of a stream, or before its first; waits until it is there."""
        stream = self._names.log_stream_of(number)
        deadline = asyncio.get_running_loop().time() + self._patience_s
        while True:
            try:
                answer = await self._bus.request(
                    f"$JS.API.STREAM.INFO.{stream}", b"", timeout_s=ATTEMPT_S
                )
            except (BusTimeout, Disconnected, NoResponders) as error:
                await self._pause(deadline, error)
                continue
            info = _decode_info(answer)
            if info.error is None:
                return info.state.last_seq
            refusal = LogRefused(str(info.error))
            await self._pause(deadline, refusal)

    async def _find_number(self) -> int:
        """Find the newest stream, once for all who wait, who go on in the order they came in."""
        if self._finding is None:
            self._finding = asyncio.ensure_future(self._newest_there())
        finding = self._finding
        try:
            return await asyncio.shield(finding)
        finally:
            if finding.done():
                self._finding = None

    async def _newest_there(self) -> int:
        deadline = asyncio.get_running_loop().time() + self._patience_s
        while not self._number:
            try:
                numbers = await self._listed()
            except (BusTimeout, Disconnected, NoResponders) as error:
                await self._pause(deadline, error)
                continue
            if numbers:
                self._number = numbers[-1]
            else:
                await self._pause(deadline, LogRefused("there is no log"))
        return self._number

    async def _announce(self, seq: int, data: bytes) -> None:
        announced = data if len(data) <= ANNOUNCED_BYTES_MAX else b""
        with contextlib.suppress(BusError):  # Readers find it by themselves if this is lost.
            await self._feed.publish(f"{self._prefix}.{seq}", announced)

    async def _stored(self, number: int, seq: int, deadline: float) -> StoredCommit | None:
        """Read one message through the stream's leader; a deposed one may not have it yet."""
        request = msgspec.json.encode({"seq": seq})
        stream = self._names.log_stream_of(number)
        while True:
            try:
                answer = await self._bus.request(
                    f"$JS.API.STREAM.MSG.GET.{stream}", request, timeout_s=ATTEMPT_S
                )
            except (BusTimeout, Disconnected, NoResponders) as error:
                await self._pause(deadline, error)
                continue
            message = _decode_raw(answer).message
            if message is None:
                return None
            return StoredCommit(message.seq, message.data, micros(message.time))


def _last_in(description: str) -> int | None:
    """Read the sequence out of "wrong last sequence: 5"."""
    number = description.rpartition(": ")[2]
    return int(number) if number.isdigit() else None
