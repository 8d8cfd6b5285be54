"""The engine that leads: answers submissions and questions on the bus of one cell.

Everything that decides is pure and elsewhere; here are the subscriptions. Answers that are commits
follow their ack; all others stand behind a barrier, so that nobody who leads no more gives any.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from engine.bus.client import Bus, Handler, Message, Subscription
from engine.bus.metrics import Reading, told
from engine.dispatch import Dispatcher
from engine.domain.desired import desired_state, work_item
from engine.domain.state import state_digest
from engine.dry_run import dry_run
from engine.folded import Folded
from engine.log.port import Log, LogError
from engine.metrics import Numbers
from engine.snapshot import copy_cell
from engine.timers import Timers
from engine.turns import REQUEST_BYTES_MAX, LeadershipLost, Note, Turns
from schemas.alarm import ReportAlarm
from schemas.billing import ClosePeriod, PassBudget
from schemas.config import Config
from schemas.engine import RollLog
from schemas.envelope import (
    Action,
    Actor,
    Client,
    Outcome,
    Refused,
    Request,
    decode_request,
    encode,
)
from schemas.identity import Bootstrap, SignInFederated
from schemas.ids import SYSTEM_USER
from schemas.metrics import encode_told
from schemas.operation import Operation, PassDeadline
from schemas.repetition import UNUSED
from schemas.repetition import decode as decode_keyed
from schemas.trace import child
from schemas.units import SECOND, Micros, Ordinal
from schemas.webhook import GiveUpWebhook
from schemas.work import WorkItem, decode_heartbeat
from schemas.work import encode as encode_work

KEYED_AT_ONCE = 256

logger = structlog.get_logger(__name__)

_decode_bootstrap = msgspec.json.Decoder(Bootstrap).decode


class Engine:
    """Answers on the bus for one cell."""

    def __init__(
        self,
        config: Config,
        bus: Bus,
        log: Log,
        folded: Folded,
        *,
        clock: Callable[[], Micros],
        new_id: Callable[[], str],
        salt: Callable[[], str],
        send_work: Callable[[WorkItem], Awaitable[None]],
        acknowledged: Callable[[int, Ordinal, str], None],
        note: Note | None = None,
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """``folded`` is the whole log, whose last commits are this leader's first."""
        self._config = config
        self._bus = bus
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._dispatcher = Dispatcher(send_work)
        self.cell = folded.cell
        self.turns = Turns(
            folded.cell,
            log,
            prev=folded.prev,
            sequence=folded.sequence,
            clock=clock,
            new_id=new_id,
            salt=salt,
            dispatch=self._dispatcher.send,
            began=self._began,
            acknowledged=acknowledged,
            note=note,
            confirm=confirm,
        )
        self.timers = Timers(
            folded.cell,
            clock=clock,
            submit=self._submit_as_system,
            silent_after=int(config.host_silent_s * SECOND),
            reach=self._reach_log,
        )

        self._numbers = Numbers(folded.cell, self.timers)

    def _began(self, operation: Operation) -> None:
        self.timers.watch(operation)

    async def _reach_log(self) -> None:
        while True:
            with contextlib.suppress(LogError):
                await self._log.end()
                return
            await asyncio.sleep(0.1)

    async def lead(self) -> None:
        """Listen, and send out again what nobody has reported on.

        Raises:
            LeadershipLost: somebody else wrote to the log.
            LogError: the log takes no commits.
        """
        subscriptions = await self._listen()
        for operation in list(self.cell.state.operations.values()):
            self._dispatcher.send(work_item(self.cell, operation))
        tasks = [
            asyncio.create_task(work)
            for work in (self.turns.run(), self.timers.run(), self._dispatcher.run())
        ]
        logger.info("leading", epoch=self.cell.state.epoch, ordinal=self.cell.state.ordinal)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for subscription in subscriptions:
                await subscription.stop()

    async def _listen(self) -> list[Subscription]:
        subjects = self._bus.subjects
        heard = {
            subjects.heartbeat("*"): self._on_heartbeat,
            subjects.desired("*"): self._on_desired,
            subjects.engine("status"): self._on_status,
            subjects.engine("digest"): self._on_digest,
            subjects.engine("dryrun"): self._on_dry_run,
            subjects.engine("keyed"): self._on_keyed,
            subjects.engine("metrics"): self._on_metrics,
            subjects.engine("bootstrap"): self._on_bootstrap,
            subjects.submit_agents: self._on_agent,
            subjects.submit_courier: self._on_courier,
            subjects.submit_history: self._on_history,
            subjects.submit_admin: self._on_admin,
            subjects.submit_api: self._on_api,
        }
        return [
            await self._bus.subscribe(
                subject,
                _only_while_leading(take),
                # One that waits for its turn does not keep others waiting.
                concurrency=KEYED_AT_ONCE if subject == subjects.engine("keyed") else 1,
            )
            for subject, take in heard.items()
        ]

    def _submit_as_system(self, action: Action) -> None:
        request_id = f"req-{self._new_id()}"
        request = Request(
            request_id=request_id,
            actor=Actor(kind="system", user_id="system"),
            action=action,
            submitted_at=self._clock(),
            client=Client(trace=self._trace_of(action, request_id)),
        )
        self.turns.submit(request, _nobody)

    def _trace_of(self, action: Action, request_id: str) -> str:
        """Return the traceparent of what the clock asks for: that of the work it is about."""
        if not isinstance(action, PassDeadline):
            return ""
        operation = self.cell.state.operations.get(action.operation_id)
        return child(operation.trace, request_id) if operation is not None else ""

    async def _on_api(self, message: Message) -> None:
        """Requests of people. The edge has verified the token; who it is about is checked here.

        In its own name an edge says only that somebody was vouched for by an identity provider.
        """
        await self._take(
            message,
            lambda request: (
                request.actor.kind == "user"
                or (
                    request.actor.kind == "edge"
                    and isinstance(request.action, SignInFederated)
                    and request.key is None
                )
            ),
        )

    async def _on_agent(self, message: Message) -> None:
        """Reports of a host, which is the one its subject names, whatever the body says."""
        host_id = message.subject.rsplit(".", 1)[1]
        await self._take(
            message,
            # Nor may it speak in the name of somebody whose keys it would use up.
            lambda request: (
                request.actor == Actor(kind="agent", host_id=host_id) and request.key is None
            ),
        )

    async def _on_courier(self, message: Message) -> None:
        """What the courier may ask for, in the system's name: to disable what nobody receives."""
        await self._take(
            message,
            lambda request: (
                request.actor == Actor(kind="system", user_id=SYSTEM_USER)
                and isinstance(request.action, GiveUpWebhook)
                and request.key is None
            ),
        )

    async def _on_admin(self, message: Message) -> None:
        """What the broker's administrator may ask for: to close the stream that it then follows."""
        await self._take(
            message,
            lambda request: (
                request.actor == Actor(kind="system", user_id=SYSTEM_USER)
                and isinstance(request.action, RollLog)
            ),
        )

    async def _on_history(self, message: Message) -> None:
        """What the archiver may ask for, in the system's name: to close months, to ring alarms."""
        await self._take(
            message,
            lambda request: (
                request.actor == Actor(kind="system", user_id=SYSTEM_USER)
                and isinstance(request.action, ClosePeriod | PassBudget | ReportAlarm)
                and request.key is None
            ),
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
            request_id=f"req-{self._new_id()}",
            actor=Actor(kind="system", user_id="system"),
            action=_decode_bootstrap(message.payload),
            submitted_at=self._clock(),
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
        state = copy_cell(self.cell, "", 0).state()
        digest = await asyncio.to_thread(state_digest, state)
        answer = {"ordinal": state.ordinal, "digest": digest}
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

    async def _on_metrics(self, message: Message) -> None:
        async def read() -> list[Reading]:
            return [
                ("cumulog_log_last_sequence", (), self.turns.committed),
                ("cumulog_log_commits_total", (), self.turns.commits),
                ("cumulog_engine_waiting_requests", (), self.turns.waiting),
                *self._numbers.readings(self._clock()),
            ]

        await message.respond(encode_told(await told("engine", read)))

    async def _on_dry_run(self, message: Message) -> None:
        """The same decision, its facts shown and not written."""
        try:
            request = decode_request(message.payload)
        except msgspec.MsgspecError as error:
            await message.respond(_malformed(str(error)))
            return
        if request.actor.kind != "user":
            await message.respond(_malformed("only a user's request can be tried"))
            return
        tried = dry_run(self.cell, request, now=self._clock(), new_id=self._new_id)
        await self.turns.barrier()
        await message.respond(encode(tried))

    async def _on_keyed(self, message: Message) -> None:
        """Whether a key was used, and for what."""
        try:
            asked = decode_keyed(message.payload)
        except msgspec.MsgspecError as error:
            await message.respond(_malformed(str(error)))
            return
        outcome = await self.turns.answered(asked)
        await message.respond(UNUSED if outcome is None else encode(outcome))


def _only_while_leading(handler: Handler) -> Handler:
    """Let whoever asks a deposed leader wait for the next one's answer."""

    async def handle(message: Message) -> None:
        with contextlib.suppress(LeadershipLost):
            await handler(message)

    return handle


def _malformed(reason: str) -> bytes:
    verdict = Refused(
        code="InvalidInput",
        status=400,
        reason=reason,
        hint="Compare the request with its schema: `cumulog submit --describe ACTION`.",
    )
    digest_of = hashlib.sha256(reason.encode()).hexdigest()[:12]
    request_id = f"malformed-{digest_of}"
    return encode(Outcome(request_id=request_id, ordinal=0, verdict=verdict, recorded=False))


async def _nobody(outcome: bytes) -> None:
    """The system reads its outcomes in the state."""
