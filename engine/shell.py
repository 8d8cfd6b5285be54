"""The engine process: fold the log, take the lead, answer submissions.

Everything that decides is pure and elsewhere; here are the subscriptions, the clock and the ids.
"""

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
import uuid_utils

from engine.bus.client import Bus, BusError, Message
from engine.bus.work import ensure_work_stream
from engine.decider import authenticate, decide
from engine.dispatch import Dispatcher
from engine.domain.desired import desired_state, work_item
from engine.domain.fold import apply_commit, decode_for_fold
from engine.domain.state import Cell, digest
from engine.log.commit import GENESIS, ChainBroken, check_commit
from engine.log.jetstream import JetStreamLog
from engine.log.replay import replay
from engine.log.stream import ensure_log
from engine.log.witness import Seen, Witness
from engine.timers import Timers
from engine.turns import REQUEST_BYTES_MAX, LeadershipLost, Turns
from schemas.config import Config
from schemas.engine import ElectLeader
from schemas.envelope import Action, Actor, Outcome, Refused, Request, decode_request, encode
from schemas.errors import Rejected
from schemas.identity import Bootstrap
from schemas.operation import Operation
from schemas.units import SECOND, Micros
from schemas.work import decode_heartbeat
from schemas.work import encode as encode_work

logger = structlog.get_logger(__name__)

_decode_bootstrap = msgspec.json.Decoder(Bootstrap).decode


def wall_clock() -> Micros:
    """Return the time now, in microseconds."""
    return time.time_ns() // 1000


def fresh_id() -> str:
    """Return a fresh UUID, version 7: ids made together lie together in every index (RFC 9562)."""
    return str(uuid_utils.uuid7())


class Folded(msgspec.Struct, kw_only=True):
    """A state and where in the log it stands."""

    cell: Cell
    prev: str = GENESIS
    sequence: int = 0


def fold_log(config: Config, stream: str, seen: Seen | None = None) -> Folded:
    """Fold the whole log, checking its chain; blocking, so run it in a thread.

    Raises:
        ChainBroken: the log is not what was written to it, or ends before ``seen``.
        msgspec.ValidationError: it holds facts that this version does not know.
    """
    folded = Folded(cell=Cell())
    head = None
    for sequence, data in replay(
        config.nats_url, config.nats_user, config.nats_password, stream, after_seq=0
    ):
        head = check_commit(data, folded.prev, folded.cell.state.ordinal + 1)
        apply_commit(folded.cell, decode_for_fold(data))
        folded.prev, folded.sequence = head.hash, sequence
        if seen is not None and sequence == seen.sequence and head.hash != seen.hash:
            raise ChainBroken(head.first, f"ordinal {seen.ordinal} was acknowledged as another")
    if seen is not None and folded.sequence < seen.sequence:
        raise ChainBroken(
            folded.cell.state.ordinal + 1,
            f"the log ends before it, but was acknowledged to ordinal {seen.ordinal}; "
            "its store has lost the rest and must be restored from a copy",
        )
    return folded


class Engine:
    """Answers on the bus for one cell."""

    def __init__(self, config: Config, bus: Bus, folded: Folded, witness: Witness) -> None:
        self._config = config
        self._bus = bus
        self._dispatcher = Dispatcher(bus)
        self.cell = folded.cell
        self.turns = Turns(
            folded.cell,
            JetStreamLog(bus),
            prev=folded.prev,
            sequence=folded.sequence,
            clock=wall_clock,
            new_id=fresh_id,
            dispatch=self._dispatcher.send,
            began=self._began,
            acknowledged=witness.note,
        )
        self.timers = Timers(
            folded.cell,
            clock=wall_clock,
            submit=self._submit_as_system,
            silent_after=int(config.host_silent_s * SECOND),
            reach=self._reach_broker,
        )

    def _began(self, operation: Operation) -> None:
        self.timers.watch(operation)

    async def _reach_broker(self) -> None:
        # Not by a flush: nats-py loses count of its pings when one is given up.
        log = JetStreamLog(self._bus)
        while True:
            with contextlib.suppress(BusError):
                await log.last()
                return
            await asyncio.sleep(0.1)

    async def lead(self) -> None:
        """Begin an epoch, listen, and send out again what nobody has reported on."""
        self._submit_as_system(ElectLeader(epoch=self.cell.state.epoch + 1, node=self._config.node))
        committing = asyncio.create_task(self.turns.run())
        barrier = asyncio.create_task(self.turns.barrier())
        await asyncio.wait({committing, barrier}, return_when=asyncio.FIRST_COMPLETED)
        if not barrier.done():
            barrier.cancel()
            committing.result()
        await self._listen()
        for operation in list(self.cell.state.operations.values()):
            self._dispatcher.send(work_item(self.cell, operation))
        ticking = asyncio.create_task(self.timers.run())
        sending = asyncio.create_task(self._dispatcher.run())
        logger.info("leading", epoch=self.cell.state.epoch, ordinal=self.cell.state.ordinal)
        done, pending = await asyncio.wait(
            {committing, ticking, sending}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        for task in done:
            task.result()

    async def _listen(self) -> None:
        subjects = self._bus.subjects
        await self._bus.subscribe(subjects.heartbeat("*"), self._on_heartbeat)
        await self._bus.subscribe(subjects.desired("*"), self._on_desired)
        await self._bus.subscribe(subjects.engine("status"), self._on_status)
        await self._bus.subscribe(subjects.engine("digest"), self._on_digest)
        await self._bus.subscribe(subjects.engine("dryrun"), self._on_dry_run)
        await self._bus.subscribe(subjects.engine("bootstrap"), self._on_bootstrap)
        await self._bus.subscribe(subjects.submit_agents, self._on_agent)
        await self._bus.subscribe(subjects.submit_api, self._on_api)

    def _submit_as_system(self, action: Action) -> None:
        request = Request(
            request_id=f"req-{fresh_id()}",
            actor=Actor(kind="system", user_id="system"),
            action=action,
            submitted_at=wall_clock(),
        )
        self.turns.submit(request, _nobody)

    async def _on_api(self, message: Message) -> None:
        """Requests of people. The edge has verified the token; who it is about is checked here."""
        await self._take(message, lambda request: request.actor.kind == "user")

    async def _on_agent(self, message: Message) -> None:
        """Reports of a host, which is the one its subject names, whatever the body says."""
        host_id = message.subject.rsplit(".", 1)[1]
        await self._take(
            message,
            lambda request: request.actor.kind == "agent" and request.actor.host_id == host_id,
        )

    async def _take(self, message: Message, may: Callable[[Request], bool]) -> None:
        if (size := len(message.payload)) > REQUEST_BYTES_MAX:
            reason = f"the request has {size} bytes; at most {REQUEST_BYTES_MAX} are recorded"
            await message.respond(_malformed(reason))
            return
        try:
            request = decode_request(message.payload)
        except msgspec.MsgspecError as error:
            await message.respond(_malformed(str(error)))
            return
        if not may(request):
            await message.respond(_malformed("the actor does not fit the subject it came by"))
            return
        answer = self.turns.submit(request, message.respond)
        if answer is not None:
            await message.respond(answer)

    async def _on_bootstrap(self, message: Message) -> None:
        request = Request(
            request_id=f"req-{fresh_id()}",
            actor=Actor(kind="system", user_id="system"),
            action=_decode_bootstrap(message.payload),
            submitted_at=wall_clock(),
        )
        answer = self.turns.submit(request, message.respond)
        if answer is not None:
            await message.respond(answer)

    async def _on_heartbeat(self, message: Message) -> None:
        decode_heartbeat(message.payload)  # what is none says nothing
        self.timers.heard(message.subject.rsplit(".", 1)[1])

    async def _on_desired(self, message: Message) -> None:
        host_id = message.subject.rsplit(".", 1)[1]
        desired = encode_work(desired_state(self.cell, host_id))
        await self.turns.barrier()
        await message.respond(desired)

    async def _on_digest(self, message: Message) -> None:
        answer = {"ordinal": self.cell.state.ordinal, "digest": digest(self.cell)}
        await self.turns.barrier()
        await message.respond(msgspec.json.encode(answer))

    async def _on_status(self, message: Message) -> None:
        state = self.cell.state
        answer = {
            "node": self._config.node,
            "epoch": state.epoch,
            "ordinal": self.turns.committed,
            "at": state.at,
            "commits": self.turns.commits,
            "servers": len(state.servers),
            "operations": len(state.operations),
            "hosts": {h.host_id: h.status for h in state.hosts.values()},
            "bootstrapped": state.bootstrapped,
        }
        await message.respond(msgspec.json.encode(answer))

    async def _on_dry_run(self, message: Message) -> None:
        """The same decision, its facts shown and not written."""
        try:
            request = decode_request(message.payload)
            roles = authenticate(self.cell, request.actor)
        except (msgspec.MsgspecError, Rejected) as error:
            await message.respond(_malformed(str(error)))
            return
        if request.actor.kind != "user":
            await message.respond(_malformed("only a user's request can be tried"))
            return
        record = decide(self.cell, request, now=wall_clock(), new_id=fresh_id, roles=roles, salt="")
        await self.turns.barrier()
        await message.respond(encode(record))


def _malformed(reason: str) -> bytes:
    verdict = Refused(
        code="InvalidInput",
        status=400,
        reason=reason,
        hint="Compare the request with its schema: `cumulog submit --describe ACTION`.",
    )
    digest_of = hashlib.sha256(reason.encode()).hexdigest()[:12]
    return encode(Outcome(request_id=f"malformed-{digest_of}", ordinal=0, verdict=verdict))


async def _nobody(outcome: bytes) -> None:
    """The system reads its outcomes in the state."""


async def run(config: Config) -> None:
    """Run the engine until told to stop.

    Raises:
        LeadershipLost: another engine took over; start again to fold the log anew.
    """
    bus = await Bus.connect(
        config.nats_url,
        user=config.nats_user,
        password=config.nats_password,
        name=f"engine-{config.node}",
        cell=config.cell,
    )
    witness = Witness(Path(config.state_dir) / "run" / "acknowledged")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await ensure_log(bus)
        await ensure_work_stream(bus)
        began = time.monotonic()
        folded = await asyncio.to_thread(fold_log, config, bus.subjects.log_stream, witness.seen())
        logger.info(
            "folded",
            ordinal=folded.cell.state.ordinal,
            seconds=round(time.monotonic() - began, 3),
        )
        engine = Engine(config, bus, folded, witness)
        await _until(stop, engine.lead())
    except LeadershipLost:
        logger.exception("leadership_lost")
        raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        witness.close()
        await bus.close()


async def _until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Run ``work`` until it ends by itself or ``stop`` is set."""
    task = asyncio.ensure_future(work)
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        task.result()
    else:
        task.cancel()
