"""The archiver: seals history as it grows and answers ``history.<question>`` on the bus.

=============  =================================================  ==============================
question       asked with (JSON; empty means all defaults)        answered with
=============  =================================================  ==============================
``usage``      start, end (microseconds), project                 ``archive.UsageAnswer``
``bill``       start, end, project, price_list                    ``archive.BillAnswer``
``seal``                                                          ``archive.SegmentsAnswer``
``segments``                                                      ``archive.SegmentsAnswer``
``verify``                                                        ``archive.VerifyAnswer``
``replay``                                                        ``archive.ReplayAnswer``
``status``                                                        ``archive.StatusAnswer``
=============  =================================================  ==============================

What cannot be answered is answered with ``{"error": {code, status, reason, hint}}``.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from engine.bus.client import Bus, BusError, Message
from engine.bus.service import ask_engine
from engine.log.commit import ChainBroken
from engine.log.jetstream import JetStreamLog
from engine.log.port import Log, LogError
from engine.log.replay import replay
from projections.archive import Archive, SegmentsAnswer, Window, last_ordinal
from projections.history import History
from projections.models import decode_stored
from projections.reader import Reader
from projections.runner import read_model_path, stopped
from projections.segment import HistoryBroken, NotProjected
from schemas.config import Config
from schemas.errors import InvalidInput, Rejected, Unavailable
from schemas.units import SECOND, Micros, Ordinal

log = structlog.get_logger(__name__)

QUESTIONS_AT_ONCE = 2
CHECK_S_MAX = 30.0
PROJECTED_WITHIN_S = 10.0
PROJECTED_POLL_S = 0.05
# Whoever asked is told rather than kept waiting, and stopping does not wait for a lost broker.
LOST_S = 2.0

type Answer = Struct


class _Digest(Struct, frozen=True):
    ordinal: Ordinal
    digest: str


_decode_window = msgspec.json.Decoder(Window).decode
_decode_digest = msgspec.json.Decoder(_Digest).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def history_path(config: Config) -> Path:
    """Return where a cell's segments lie."""
    return Path(config.state_dir) / "history"


async def run(config: Config) -> None:
    """Be the archiver until SIGTERM or SIGINT."""
    bus = await Bus.connect(
        config.nats_url,
        user=config.nats_user,
        password=config.nats_password,
        name=f"archiver-{config.node}",
        cell=config.cell,
    )

    def read(after_seq: int) -> Iterable[tuple[int, bytes]]:
        return replay(
            config.nats_url,
            config.nats_user,
            config.nats_password,
            bus.subjects.log_stream,
            after_seq,
            lost_s=LOST_S,
        )

    reader = Reader(read_model_path(config))
    archive = Archive(History(history_path(config)), read, reader)
    archiver = Archiver(
        bus,
        JetStreamLog(bus),
        archive,
        reader,
        segment_ordinals=config.segment_ordinals,
        segment_age_s=config.segment_age_s,
    )
    stopping = asyncio.create_task(stopped())
    working = asyncio.create_task(archiver.run())
    try:
        await asyncio.wait({stopping, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (stopping, working):
            task.cancel()
        await asyncio.gather(stopping, working, return_exceptions=True)
        reader.close()
        await bus.close()


class Archiver:
    """Seals by count and age, and answers. One for each cell."""

    def __init__(
        self,
        bus: Bus,
        source: Log,
        archive: Archive,
        reader: Reader,
        *,
        segment_ordinals: int,
        segment_age_s: float,
    ) -> None:
        self._bus = bus
        self._log = source
        self._archive = archive
        self._reader = reader
        self._segment_ordinals = segment_ordinals
        self._segment_age_s = segment_age_s
        self._sealing = asyncio.Lock()
        self._questions: dict[str, Callable[[bytes], Awaitable[Answer]]] = {
            "usage": self._usage,
            "bill": self._bill,
            "seal": self._seal,
            "segments": self._segments,
            "verify": self._verify,
            "replay": self._replay,
            "status": self._status,
        }

    async def run(self) -> None:
        """Answer and seal, for ever."""
        subscription = await self._bus.subscribe(
            self._bus.subjects.history("*"), self._on_question, concurrency=QUESTIONS_AT_ONCE
        )
        try:
            while True:
                try:
                    await self.seal_due(_now())
                except (LogError, BusError, NotProjected, Unavailable) as error:
                    log.warning("not_sealed", error=str(error))
                except (ChainBroken, HistoryBroken):
                    # Nothing is sealed on top of what is broken; whoever asks `verify` is told.
                    log.exception("history_broken")
                except Exception:
                    # A full disk, say: what was not published is begun anew; answers go on.
                    log.exception("not_sealed")
                await asyncio.sleep(min(CHECK_S_MAX, max(1.0, self._segment_age_s / 10)))
        finally:
            await subscription.stop()

    async def seal_due(self, now: Micros) -> bool:
        """Seal if enough waits, or has waited long enough. Return whether anything was sealed."""
        sealed = await asyncio.to_thread(self._archive.segments)
        after_seq = sealed.segments[-1].last_seq if sealed.segments else 0
        head = await self._log.last()
        if head is None or head.seq <= after_seq:
            return False
        waiting = last_ordinal(decode_stored(head.data)) - sealed.ordinal
        if waiting < self._segment_ordinals:
            oldest = await self._first_after(after_seq)
            if oldest is None or now - oldest < self._segment_age_s * SECOND:
                return False
        return len(await self._seal_through(self._reader.position())) > 0

    async def _first_after(self, seq: int) -> Micros | None:
        """Return the time of the oldest commit that is not sealed."""
        async for commit in self._log.read(seq):
            return decode_stored(commit.data).at
        return None

    async def _seal_through(self, through: Ordinal) -> list[Struct]:
        async with self._sealing:
            segments = await asyncio.to_thread(self._archive.seal, self._segment_ordinals, through)
        for segment in segments:
            log.info("sealed", first=segment.first, last=segment.last, bytes=segment.bytes)
        return list(segments)

    async def _on_question(self, message: Message) -> None:
        name = message.subject.rpartition(".")[2]
        question = self._questions.get(name, self._unknown)
        try:
            answer = _encode(await question(message.payload))
        except Rejected as error:
            answer = _refusal(error)
        except (LogError, BusError, NotProjected) as error:
            answer = _refusal(Unavailable(str(error)))
        except (ChainBroken, HistoryBroken) as error:
            log.exception("history_broken", question=name)
            answer = _refusal(Unavailable(f"history is not what was written: {error}"))
        except Exception:
            log.exception("question_failed", question=name)
            answer = _refusal(Unavailable(f"the question {name!r} could not be answered"))
        try:
            await message.respond(answer)
        except BusError as error:
            # Even packed it may be more than one message carries; whoever asks is told at once.
            log.warning("not_answered", question=name, bytes=len(answer), error=str(error))
            too_large = InvalidInput("the answer is too large: ask for one project or less time")
            await message.respond(_refusal(too_large))

    async def _unknown(self, _payload: bytes) -> Answer:
        raise InvalidInput(f"history answers {', '.join(sorted(self._questions))}")

    async def _usage(self, payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.usage, _window(payload), _now())

    async def _bill(self, payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.bill, _window(payload), _now())

    async def _segments(self, _payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.segments)

    async def _verify(self, _payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.verify)

    async def _status(self, _payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.status)

    async def _seal(self, _payload: bytes) -> Answer:
        """Seal everything that was acknowledged before the question."""
        head = await self._log.last()
        if head is None:
            return SegmentsAnswer(ordinal=0, segments=())
        through = last_ordinal(decode_stored(head.data))
        await self._projected(through)
        await self._seal_through(through)
        return await asyncio.to_thread(self._archive.segments)

    async def _replay(self, _payload: bytes) -> Answer:
        engine: tuple[Ordinal, str] | None = None
        with contextlib.suppress(Unavailable, BusError):
            answer = _decode_digest(await ask_engine(self._bus, "digest"))
            engine = answer.ordinal, answer.digest
        return await asyncio.to_thread(self._archive.replay, engine)

    async def _projected(self, ordinal: Ordinal) -> None:
        deadline = time.monotonic() + PROJECTED_WITHIN_S
        while self._reader.position() < ordinal:
            if time.monotonic() > deadline:
                raise Unavailable(f"the read model has not reached ordinal {ordinal}")
            await asyncio.sleep(PROJECTED_POLL_S)


def _now() -> Micros:
    return time.time_ns() // 1000


def _window(payload: bytes) -> Window:
    try:
        return _decode_window(payload or b"{}")
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the question cannot be read: {error}") from error


def _refusal(error: Rejected) -> bytes:
    return _encode(
        {
            "error": {
                "code": error.code,
                "status": error.status,
                "reason": error.reason,
                "hint": error.hint,
            }
        }
    )
