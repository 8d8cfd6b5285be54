"""The archiver: seals history as it grows, signs it, answers ``history.<question>`` on the bus.

=============  =================================================  ==============================
question       asked with (JSON; empty means all defaults)        answered with
=============  =================================================  ==============================
``usage``      start, end (microseconds), project, meter          ``archive.UsageAnswer``
``bill``       start, end, project, price_list                    ``archive.BillAnswer``
``server_hours``  start, end, project, marker, limit              ``server_hours.ServerHoursAnswer``
``seal``                                                          ``archive.SegmentsAnswer``
``segments``                                                      ``archive.SegmentsAnswer``
``verify``                                                        ``archive.VerifyAnswer``
``replay``                                                        ``archive.ReplayAnswer``
``status``                                                        ``archive.StatusAnswer``
``agreement``                                                     ``agreement.AgreementAnswer``
``copies``                                                        ``copies.CopiesAnswer``
``copy``                                                          ``copies.CopiesAnswer``
``restore``                                                       ``recovery.RecoveryAnswer``
``checkpoint``                                                    ``checkpoint.Checkpoint``
``checkpoints``  after (ordinal), through (sequence)              ``notary.StatementsAnswer``
``key``                                                           ``notary.KeyAnswer``
``proof``      of (request id or ordinal)                         ``proof.Proof``
=============  =================================================  ==============================

Months and invoices are ``accounting``'s: ``month``, ``invoice``, ``explain``, ``verify_month``,
``what_if``, ``forecast``, and ``close``, which closes a month. ``focus`` is ``exports``'s, and
``piece``, which hands a large file over.

What cannot be answered is answered with ``{"error": {code, status, reason, hint}}``. Until there
is an answer, whoever asks may have signs of life (``engine.bus.life``).
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from engine.bus.client import REQUEST_HEADER, TRACE_HEADER, Bus, BusError, Message
from engine.bus.life import at_work
from engine.bus.metrics import Reading, answer_for
from engine.bus.service import ask_engine
from engine.log.checkpoint import CheckpointBroken
from engine.log.commit import ChainBroken
from engine.log.jetstream import JetStreamLog
from engine.log.port import Log, LogError
from engine.log.replay_all import replay_log
from engine.log.signing import KeysUnreadable
from projections.accounting import questions as about_money
from projections.agreement import questions as about_agreement
from projections.archive import Archive, SegmentsAnswer, Window
from projections.budgets import watch as watch_budgets
from projections.copies import Copies, copies_of
from projections.exports import questions as about_exports
from projections.history import History, history_path
from projections.holdings import holdings_path
from projections.models import decode_stored, last_ordinal
from projections.notary import Notary, book_of, keys_of
from projections.numbers import GAPS, USAGE_ROWS, lag
from projections.project_numbers import questions as about_projects
from projections.reader import Reader
from projections.recovery import questions as about_copies
from projections.runner import read_model_path, until_stopped
from projections.scratch import forget
from projections.segment import HistoryBroken, NotProjected
from projections.server_hours import questions as about_server_hours
from projections.watch import Watch, reported_to
from projections.watch import questions as about_alarms
from schemas.config import Config
from schemas.errors import InvalidInput, NotFound, Rejected, Unavailable
from schemas.trace import trace_id
from schemas.units import SECOND, Micros, Ordinal

log = structlog.get_logger(__name__)

QUESTIONS_AT_ONCE = 2
# So many are held, and their askers know it: who waits for a turn is not forgotten either.
QUESTIONS_MAX = 256
CHECK_S_MAX = 30.0
PROJECTED_WITHIN_S = 10.0
PROJECTED_POLL_S = 0.05
# Whoever asked is told rather than kept waiting, and stopping does not wait for a lost broker.
LOST_S = 2.0

type Answer = Struct | msgspec.Raw

# The log or a copy of it is not what was written: to be told, not to be worked around.
BROKEN = (ChainBroken, HistoryBroken, CheckpointBroken, KeysUnreadable)


class _Digest(Struct, frozen=True):
    ordinal: Ordinal
    digest: str


class _Range(Struct, frozen=True, forbid_unknown_fields=True):
    after: Ordinal = 0
    through: int = 0


class _Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    of: str


_decode_range = msgspec.json.Decoder(_Range).decode
_decode_wanted = msgspec.json.Decoder(_Wanted).decode
_decode_window = msgspec.json.Decoder(Window).decode
_decode_digest = msgspec.json.Decoder(_Digest).decode
_encode = msgspec.json.Encoder(order="sorted").encode


async def run(config: Config) -> None:
    """Be the archiver until SIGTERM or SIGINT."""
    bus = await Bus.configured(config, f"archiver-{config.node}")

    history = History(history_path(config))
    copies = copies_of(config, history)

    def read(after_seq: int) -> Iterable[tuple[int, bytes]]:
        return replay_log(
            config.nats_url,
            config.nats_user,
            config.nats_password,
            config.cell,
            after_seq,
            authority=config.nats_ca,
            lost_s=LOST_S,
            archived=history.commits_after,
        )

    reader = Reader(read_model_path(config))
    archive = Archive(history, read, reader, holdings_path(config))
    if archive.scratch is not None:
        forget(archive.scratch)
    notary = Notary(config.cell, keys_of(config), book_of(config), read, history, reader)
    watch = Watch(archive.holdings, reader, reported_to(bus, _now), _now)
    archiver = Archiver(
        bus,
        JetStreamLog(bus, archived=history.commits_after),
        archive,
        reader,
        notary=notary,
        checkpoint_s=config.checkpoint_s,
        segment_ordinals=config.segment_ordinals,
        segment_age_s=config.segment_age_s,
        more={
            **about_agreement(history, read),
            **about_copies(history, copies, notary.held, reader),
            **about_server_hours(archive.holdings),
            **about_projects(archive.holdings, _now),
            **about_alarms(watch),
            **about_money(bus, archive, reader, notary.held, _now),
            **about_exports(
                archive, reader, read_model_path(config), Path(config.state_dir) / "exports", _now
            ),
        },
        copies=copies,
    )
    budgets = watch_budgets(bus, archive, _now, any_there=lambda: bool(reader.budgets(limit=1)))
    subject = bus.subjects.metrics(f"archiver-{config.node}")
    await answer_for(bus, subject, "archiver", archiver.readings)
    try:
        await until_stopped(_both(archiver.run(), watch.run(), budgets))
    finally:
        reader.end()  # threads cannot be cancelled
        await bus.close()


async def _both(*works: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(_running(work))


async def _running(work: Awaitable[None]) -> None:
    await work


class Archiver:
    """Seals by count and age, and answers. One for each cell."""

    def __init__(
        self,
        bus: Bus,
        source: Log,
        archive: Archive,
        reader: Reader,
        *,
        notary: Notary,
        segment_ordinals: int,
        segment_age_s: float,
        checkpoint_s: float = 3600.0,
        more: Mapping[str, Callable[[bytes], Awaitable[Answer]]] | None = None,
        copies: Copies | None = None,
    ) -> None:
        """``more`` are questions that other areas answer, by their names."""
        self._bus = bus
        self._log = source
        self._archive = archive
        self._reader = reader
        self._segment_ordinals = segment_ordinals
        self._segment_age_s = segment_age_s
        self._notary = notary
        self._copies = copies
        self._checkpoint_s = checkpoint_s
        self._verified: Ordinal = 0  # up to where the chain was walked, and signed
        self._checkpoint_due = 0.0  # a start signs what there is
        self._sealing = asyncio.Lock()
        self._signing = asyncio.Lock()
        self._turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        self._questions: dict[str, Callable[[bytes], Awaitable[Answer]]] = {
            "usage": self._usage,
            "bill": self._bill,
            "seal": self._seal,
            "segments": self._segments,
            "verify": self._verify,
            "replay": self._replay,
            "status": self._status,
            "checkpoint": self._checkpoint,
            "checkpoints": self._checkpoints,
            "key": self._key,
            "proof": self._proof,
            **(more or {}),
        }

    async def run(self) -> None:
        """Answer and seal, for ever."""
        subscription = await self._bus.subscribe(
            self._bus.subjects.history("*"), self._hear, concurrency=QUESTIONS_MAX
        )
        copying: asyncio.Task[None] | None = None
        try:
            await self._guarded("not_compared", self._compare())
            while True:
                await self._guarded("not_sealed", self.seal_due(_now()))
                await self._guarded("not_signed", self.sign_due(_now()))
                await self._guarded("not_merged", self.merge_due())
                if copying is None or copying.done():  # a slow store holds up nothing else
                    copying = asyncio.create_task(self._guarded("not_copied", self.copy_due()))
                await self._guarded("not_held", asyncio.to_thread(self._archive.holdings.keep_up))
                await asyncio.sleep(min(CHECK_S_MAX, max(1.0, self._segment_age_s / 10)))
        finally:
            if copying is not None:
                copying.cancel()
                await asyncio.gather(copying, return_exceptions=True)
            await subscription.stop()

    async def readings(self) -> list[Reading]:
        """Return how far history reaches and how far it was checked."""
        sealed = await asyncio.to_thread(self._archive.segments)
        last = sealed.segments[-1] if sealed.segments else None
        at = last.last_at if last is not None else 0
        return [
            ("cumulog_chain_verified_sequence", (), self._verified),
            *await lag("history", sealed.ordinal, at, self._log.last),
        ]

    async def _guarded(self, name: str, work: Awaitable[object]) -> None:
        """Do one thing of many; none keeps the others, or the answers, from being done."""
        try:
            await work
        except (LogError, BusError, NotProjected, Unavailable) as error:
            log.warning(name, error=str(error))
        except BROKEN:
            # Nothing is built on top of what is broken; whoever asks `verify` is told.
            GAPS.inc()
            log.exception("history_broken", found=name)
        except Exception:
            # A full disk, say: what was not published is begun anew.
            log.exception(name)

    async def _compare(self) -> None:
        """Look whether the log still contains what was signed of it."""
        await asyncio.to_thread(self._notary.require_contained)

    async def sign_due(self, now: Micros, *, force: bool = False) -> bool:
        """Sign the log's end if it is time. Return whether it was."""
        if not force and time.monotonic() < self._checkpoint_due:
            return False
        async with self._signing:
            signed = await asyncio.to_thread(self._notary.sign, now)
            self._checkpoint_due = time.monotonic() + self._checkpoint_s
            if signed is not None:
                self._verified = signed.ordinal
                log.info("signed", ordinal=signed.ordinal, key=signed.key)
            try:
                await asyncio.to_thread(self._notary.mirror)
            except OSError as error:
                log.warning("checkpoints_not_copied", error=str(error))
        return signed is not None

    async def merge_due(self) -> None:
        """Merge small segments, so that there are never many."""
        async with self._sealing:
            merged = await asyncio.to_thread(self._archive.merge, self._segment_ordinals, _now())
        for segment in merged:
            log.info("merged", first=segment.first, last=segment.last, bytes=segment.bytes)

    async def copy_due(self) -> None:
        """Copy what is sealed and not yet in the second place, if there is one."""
        if self._copies is None:
            return
        for segment in await asyncio.to_thread(self._copies.copy):
            log.info("copied", first=segment.first, last=segment.last, bytes=segment.bytes)

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
        if segments:
            await self._guarded("not_signed", self.sign_due(_now(), force=True))
        return list(segments)

    async def _hear(self, message: Message) -> None:
        async with at_work(message), self._turns:
            await self._on_question(message)

    async def _on_question(self, message: Message) -> None:
        # Each is answered in a task of its own, so what is bound is bound for it alone.
        headers = message.headers
        structlog.contextvars.bind_contextvars(
            request_id=headers.get(REQUEST_HEADER, "")[:64],
            trace_id=trace_id(headers.get(TRACE_HEADER, "")),
        )
        name = message.subject.rpartition(".")[2]
        question = self._questions.get(name, self._unknown)
        began = time.monotonic()
        log.debug("asked", question=name)
        try:
            answer = _encode(await question(message.payload))
            log.debug("answered", question=name, ms=round((time.monotonic() - began) * 1000, 3))
        except Rejected as error:
            answer = _refusal(error)
        except (LogError, BusError, NotProjected) as error:
            answer = _refusal(Unavailable(str(error)))
        except BROKEN as error:
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
        answer = await asyncio.to_thread(self._archive.usage, _window(payload), _now())
        for meter, rows in Counter(row.meter for row in answer.usage).items():
            USAGE_ROWS.labels(meter).inc(rows)
        return answer

    async def _bill(self, payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.bill, _window(payload), _now())

    async def _segments(self, _payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.segments)

    async def _verify(self, _payload: bytes) -> Answer:
        return await asyncio.to_thread(self._archive.verify, self._notary.held)

    async def _checkpoint(self, _payload: bytes) -> Answer:
        await self.sign_due(_now(), force=True)
        held = await asyncio.to_thread(self._notary.held)
        if not held.checkpoints:
            raise NotFound("the log is empty")
        return held.checkpoints[-1]

    async def _checkpoints(self, payload: bytes) -> Answer:
        asked = _read_question(_decode_range, payload)
        return await asyncio.to_thread(self._notary.statements, asked.after, asked.through)

    async def _key(self, _payload: bytes) -> Answer:
        return await asyncio.to_thread(self._notary.key)

    async def _proof(self, payload: bytes) -> Answer:
        wanted = _read_question(_decode_wanted, payload)
        async with self._signing:
            return await asyncio.to_thread(self._notary.proof, wanted.of, _now())

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
    return _read_question(_decode_window, payload)


def _read_question[T](decode: Callable[[bytes], T], payload: bytes) -> T:
    try:
        return decode(payload or b"{}")
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
