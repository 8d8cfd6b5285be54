"""Turns of the decider: requests that wait together share one commit.

A request is decided at once against the newest (speculative) state; its answer waits for the
durable ack of the commit that holds it, and of all commits before. Few commits are in flight: the
next is sent once one of them is acknowledged, or has been on its way for long, and what arrives
meanwhile shares it. A refused commit means that somebody else wrote: everything speculative is
void, so the turn ends with ``LeadershipLost`` and the process folds the log anew.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from msgspec import Struct, field

from engine.bus.client import BusError
from engine.clocks import need_recent
from engine.decider import answered_under, authenticate, decide, refusal, repeated, stamped
from engine.domain.desired import work_item
from engine.domain.fold import apply_record
from engine.domain.state import Cell
from engine.folded import Folded
from engine.log.commit import seal_commit
from engine.log.port import Log, WrongLastSequence
from engine.metrics import APPENDED, count
from schemas.compute import ServerStopRequested
from schemas.engine import LogRolled
from schemas.envelope import Outcome, Record, Refused, Request, encode
from schemas.errors import IdReused, KeyReused, Rejected
from schemas.operation import Operation, OperationStarted
from schemas.repetition import Keyed
from schemas.trace import trace_id
from schemas.units import SECOND, Micros, Ordinal
from schemas.work import WorkItem

# A commit holds at most this many requests and about this many bytes (max_payload is 8 MiB).
REQUESTS_MAX = 512
BYTES_MAX = 4 * 2**20
# One more record is begun below that, so no record may have more than what is left then; a request
# must leave room for its refusal. A commit over max_payload would stop the engine.
RECORD_BYTES_MAX = 3 * 2**20
REQUEST_BYTES_MAX = 2 * 2**20
# Requests decided but not yet acknowledged; more are turned away at once.
WAITING_MAX = 8192
WAITING_BYTES_MAX = 256 * 2**20
BEHIND_BARRIER_MAX = 1024
NOT_NOW = b""  # see ``engine.bus.service``
# While the log is slow, a commit's time must not fall behind what it tells of.
OPEN_MAX: Micros = SECOND // 10
# Commits in flight. A new leader takes as many places in the log in one go, so that none that a
# predecessor may still claim is left (`Candidate`): raise it there one version before it is here.
WINDOW = 4
# A log that can acknowledge sooner is waited for: sharing a commit is cheaper than sending more.
SLOW_S = 0.002
FORGETTING = 1.02  # by how much the least time seen grows with each commit

type Reply = Callable[[bytes], Awaitable[None]]
type Note = Callable[[Folded, "asyncio.Future[Any] | None"], object]

logger = structlog.get_logger(__name__)


class LeadershipLost(Exception):
    """The log holds a commit that this decider did not write."""


class Turn(Struct):
    """A commit being put together, and who waits for it."""

    first: Ordinal
    last: Ordinal
    at: Micros
    request_ids: list[str] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    size: int = 0
    replies: list[tuple[Reply, bytes]] = field(default_factory=list)
    work: list[WorkItem] = field(default_factory=list)
    # Ends once it is acknowledged with all before it; cancelled once it never will be.
    done: "asyncio.Future[None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    sequence: int = 0
    hash: str = ""
    rolls_to: int = 0  # the stream in which the log goes on after it
    sent_at: float = 0.0
    appending: "asyncio.Future[int] | None" = None


class Turns:
    """Decides requests and commits them in order."""

    def __init__(
        self,
        cell: Cell,
        log: Log,
        *,
        prev: str,
        sequence: int,
        clock: Callable[[], Micros],
        new_id: Callable[[], str],
        salt: Callable[[], str],
        dispatch: Callable[[WorkItem], None],
        began: Callable[[Operation], None],
        acknowledged: Callable[[int, Ordinal, str], None] = lambda *_: None,
        note: Note | None = None,
        confirm: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """``prev`` and ``sequence`` are the hash and stream sequence of the last commit.

        ``dispatch`` is called with each work item after the ack, ``began`` with each operation,
        ``acknowledged`` with each durable commit's sequence, last ordinal and hash, ``note`` with
        the state as of a commit that was sent, and what ends once that is durable. ``confirm``
        tells whether nobody else led when it was called; without it, nobody else ever does.
        """
        self.cell = cell
        self._log = log
        self._prev = prev
        self._sequence = sequence
        self._clock = clock
        self._new_id = new_id
        self._salt = salt
        self._dispatch = dispatch
        self._began = began
        self._acknowledged = acknowledged
        self._note = note
        self._confirm = confirm
        self._open: Turn | None = None
        self._queue: asyncio.Queue[Turn] = asyncio.Queue()
        self._unsettled: deque[Turn] = deque()  # open, queued or in flight, oldest first
        self._sent: deque[Turn] = deque()  # in flight, oldest first
        self._acknowledged_to = sequence
        # The least time an acknowledgement took of late: what the log needs, and not what busy
        # processors add to it. 0: not known yet.
        self._ack_s = 0.0
        self._moved = asyncio.Event()
        self._rolled = asyncio.Event()
        self._rolled.set()
        self._lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._asking: asyncio.Task[None] | None = None  # a barrier's question, not yet sent
        self._proving: asyncio.Task[None] | None = None  # one that is
        self._answers: asyncio.Queue[list[tuple[Reply, bytes]]] = asyncio.Queue()
        self._behind_barrier: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._waiting_bytes = 0
        # Requests decided but not acknowledged: a repetition joins the first.
        self._in_flight: dict[str, Turn] = {}
        self.committed: Ordinal = cell.state.ordinal
        self.commits = 0

    def submit(self, request: Request, reply: Reply) -> bytes | None:
        """Decide a request; the reply follows its durable ack.

        Returns the encoded outcome at once if nothing has to be committed for it, as for a
        repetition of what is durable already; or ``NOT_NOW``, which says nothing of the request:
        it is to be asked again, since another may lead or an earlier attempt be under way.
        """
        request = stamped(request)
        if self._lost.done():
            return NOT_NOW  # another leader answers
        try:
            earlier = repeated(self.cell, request)
            if earlier is not None:
                outcome = encode(
                    Outcome(
                        request_id=earlier.request_id,
                        ordinal=earlier.ordinal,
                        verdict=earlier.verdict,
                        repeated=True,
                    )
                )
                turn = self._in_flight.get(earlier.request_id)
                if turn is None:
                    return outcome
                turn.replies.append((reply, outcome))
                return None
            if request.actor.kind != "system" and self._is_full():
                # Nobody would ask again for the clock: what it asks for is few, and due.
                return NOT_NOW
            need_recent(request, self._clock())
            roles = authenticate(self.cell, request.actor)
        except Rejected as rejected:
            outcome = encode(
                Outcome(
                    request_id=request.request_id,
                    ordinal=self.committed,
                    verdict=refusal(rejected),
                    recorded=False,
                )
            )
            if len(self._behind_barrier) >= BEHIND_BARRIER_MAX:
                return NOT_NOW
            self._answer_behind_barrier(reply, outcome)
            return None
        self._decide(request, roles, reply)
        return None

    @property
    def waiting(self) -> int:
        """How many requests are decided and not yet acknowledged."""
        return self._waiting

    async def answered(self, asked: Keyed) -> Outcome | None:
        """Return what a key stands for, once that is durable; None if it was not used.

        None is no promise: what is submitted under the key is compared again.

        Raises:
            LeadershipLost: another leader answers.
        """
        try:
            earlier = answered_under(self.cell, asked)
        except KeyReused as error:
            await self.barrier()
            return Outcome(
                request_id="",
                ordinal=self.committed,
                verdict=refusal(error),
                recorded=False,
            )
        if earlier is None:
            return None
        turn = self._in_flight.get(earlier.request_id)
        if turn is not None:
            await asyncio.wait({turn.done})
            if turn.done.cancelled():
                raise LeadershipLost("what the key stands for was not committed")
        return Outcome(
            request_id=earlier.request_id,
            ordinal=earlier.ordinal,
            verdict=earlier.verdict,
            repeated=True,
        )

    def _is_full(self) -> bool:
        return self._waiting >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX

    def _answer_behind_barrier(self, reply: Reply, outcome: bytes) -> None:
        """Answer what is not recorded only if this state is still the newest."""

        async def answer() -> None:
            with contextlib.suppress(LeadershipLost):  # another leader answers
                await self.barrier()
                self._answers.put_nowait([(reply, outcome)])

        task = asyncio.create_task(answer())
        self._behind_barrier.add(task)
        task.add_done_callback(self._behind_barrier.discard)

    def _decide(self, request: Request, roles: frozenset[str], reply: Reply) -> None:
        try:
            self._add(self._current_turn(), request, roles, reply)
        except Exception as error:
            # Half of a record may be folded: nothing more may be decided on that, or committed.
            self._lose(error)
            raise

    def _add(self, turn: Turn, request: Request, roles: frozenset[str], reply: Reply) -> None:
        record = self._record(request, roles, turn.at)
        encoded = encode(record)
        if len(encoded) > RECORD_BYTES_MAX:
            record = _too_large(record, len(encoded))
            encoded = encode(record)
        ordinal = turn.last = apply_record(self.cell, record, turn.at)
        count(record)
        turn.records.append(encoded)
        turn.size += len(encoded)
        self._waiting_bytes += len(encoded)
        turn.work += self._work(record)
        for fact in record.facts:
            if isinstance(fact, LogRolled):
                # Its commit is the stream's last, so whatever follows is of the next turn.
                turn.rolls_to, self._open = fact.number, None
        outcome = Outcome(request_id=request.request_id, ordinal=ordinal, verdict=record.verdict)
        turn.replies.append((reply, encode(outcome)))
        self._waiting += 1
        if isinstance(record.verdict, Refused) and record.verdict.code == IdReused.code:
            # The id stays the first one's, whose repetitions are answered as before.
            logger.error("request_id_reused", ordinal=ordinal, **_about(request))
            return
        turn.request_ids.append(request.request_id)
        self._in_flight[request.request_id] = turn

    def _record(self, request: Request, roles: frozenset[str], at: Micros) -> Record:
        salt = self._salt()
        try:
            return decide(self.cell, request, now=at, new_id=self._new_id, roles=roles, salt=salt)
        except Exception:
            # A decision changes nothing, so the state is sound; one bad request must not stop all.
            logger.exception("decision_failed", **_about(request))
            verdict = Refused(
                code="InternalError",
                status=500,
                reason="the engine could not decide this request",
                hint="Report the request id to the operator; the engine's log has the cause.",
            )
            return Record(salt=salt, request=request, verdict=verdict)

    def _current_turn(self) -> Turn:
        turn, now, state = self._open, self._clock(), self.cell.state
        if (
            turn is not None
            and len(turn.records) < REQUESTS_MAX
            and turn.size < BYTES_MAX
            and now - turn.at < OPEN_MAX
        ):
            return turn
        turn = Turn(first=state.ordinal + 1, last=state.ordinal, at=max(now, state.at))
        self._open = turn
        self._unsettled.append(turn)
        self._queue.put_nowait(turn)
        return turn

    def _work(self, record: Record) -> list[WorkItem]:
        grace_s = 60
        items: list[WorkItem] = []
        for fact in record.facts:
            if isinstance(fact, ServerStopRequested):
                grace_s = fact.grace_s
            elif isinstance(fact, OperationStarted):
                self._began(fact.operation)
                items.append(work_item(self.cell, fact.operation, grace_s))
        return items

    async def barrier(self) -> None:
        """Return once all that is decided is durable, and nobody else led when it was asked for.

        For answers that are no commits: a leader that was stopped and has woken up may know
        nothing of its successor. So after the question came in the lease is confirmed, which on a
        cluster takes a majority, and the log is asked where it ends, which one server knows even
        when it has lost the lease with its memory.

        Raises:
            LeadershipLost: somebody else wrote to the log.
        """
        if self._asking is None:
            self._asking = asyncio.create_task(self._prove(self._proving))
            self._asking.add_done_callback(_retrieve)
        await asyncio.shield(self._asking)

    async def _prove(self, earlier: "asyncio.Task[None] | None") -> None:
        """Ask the log once for all who wait, after the question that is under way."""
        if earlier is not None:
            await asyncio.wait({earlier})
        self._proving, self._asking = self._asking, None
        last = self._unsettled[-1] if self._unsettled else None
        await self._rolled.wait()
        if self._confirm is not None and not await self._confirm():
            self._lose(LeadershipLost("another candidate has taken the lease"))
        end = await self._log.end()
        if last is not None:
            await asyncio.wait({last.done})
        while self._acknowledged_to < end and self._sent:
            await asyncio.wait({self._sent[-1].done})
        if self._acknowledged_to < end:
            self._lose(LeadershipLost(f"the log ends at {end}, we at {self._acknowledged_to}"))
        if self._lost.done():
            raise LeadershipLost(str(self._lost.result()))

    async def run(self) -> None:
        """Commit turns as they come, a few in flight.

        Raises:
            LeadershipLost: another decider wrote to the log.
            LogError: a commit was refused, or its outcome is not known.
        """
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._send()),
            asyncio.ensure_future(self._answer()),
        ]
        try:
            await asyncio.wait([*tasks, self._lost], return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise self._lost.result()
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            tasks += [turn.appending for turn in self._sent if turn.appending is not None]
            tasks += [task for task in (self._asking, self._proving) if task is not None]
            for task in (*tasks, *self._behind_barrier):
                task.cancel()
            self._void()

    async def _answer(self) -> None:
        while True:
            for reply, outcome in await self._answers.get():
                try:
                    await reply(outcome)
                except BusError as error:  # whoever asked asks again
                    logger.warning("answer_not_sent", error=str(error))

    def _lose(self, why: Exception) -> None:
        if not self._lost.done():
            self._lost.set_result(why)
            self._void()

    def _void(self) -> None:
        """Let nobody wait for what will never be acknowledged."""
        for turn in self._unsettled:
            turn.done.cancel()

    def at_rest(self) -> Folded | None:
        """Return the state and its place in the log, if all that was decided is durable."""
        if self._unsettled or self._lost.done():
            return None
        return Folded(cell=self.cell, prev=self._prev, sequence=self._sequence)

    async def _send(self) -> None:
        while True:
            turn = await self._queue.get()
            if self._sent:
                await self._room()
            if self._lost.done():
                return
            if turn is self._open:
                # From here on, new requests form the next turn.
                self._open = None
            commit_id = self._new_id()
            data, self._prev = seal_commit(
                commit_id=commit_id,
                first=turn.first,
                prev=self._prev,
                epoch=self.cell.state.epoch,
                at=turn.at,
                records=turn.records,
            )
            turn.hash = self._prev
            turn.sent_at = asyncio.get_running_loop().time()
            appending = self._log.append(
                data, expected_last=self._sequence, commit_id=commit_id, pipelined=bool(self._sent)
            )
            self._sequence += 1
            turn.sequence = self._sequence
            self._sent.append(turn)
            turn.appending = asyncio.ensure_future(appending)
            turn.appending.add_done_callback(self._on_appended)
            if self._note is not None and self._unsettled[-1] is turn:
                here = Folded(cell=self.cell, prev=self._prev, sequence=self._sequence)
                self._note(here, turn.done)
            if turn.rolls_to:
                await self._roll(turn)

    async def _roll(self, turn: Turn) -> None:
        """Go on in the next stream, once this one's last commit is durable."""
        self._rolled.clear()
        await asyncio.wait({turn.done})
        await self._log.roll(turn.rolls_to)
        self._rolled.set()

    async def _room(self) -> None:
        """Wait for an acknowledgement or, of a slow log and with few in flight, a share of that."""
        while self._sent:
            wait_s = None
            is_slow = not self._ack_s or self._ack_s >= SLOW_S
            if len(self._sent) < WINDOW and is_slow:
                since_s = asyncio.get_running_loop().time() - self._sent[-1].sent_at
                wait_s = max(SLOW_S, self._ack_s) / WINDOW - since_s
                if wait_s <= 0:
                    return
            self._moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._moved.wait()

    def _on_appended(self, appending: "asyncio.Future[int]") -> None:
        """Settle, in order, whatever is acknowledged with all that was sent before it."""
        if appending.cancelled() or self._lost.done():
            return
        if (error := appending.exception()) is not None:
            if isinstance(error, WrongLastSequence):
                error = LeadershipLost(str(error))
            self._lose(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        while self._sent:
            turn = self._sent[0]
            if turn.appending is None or not turn.appending.done() or turn.appending.exception():
                break
            self._sent.popleft()
            self._settle(turn)
        self._moved.set()

    def _settle(self, turn: Turn) -> None:
        took_s = asyncio.get_running_loop().time() - turn.sent_at
        APPENDED.observe(took_s)
        self._ack_s = min(took_s, self._ack_s * FORGETTING) if self._ack_s else took_s
        if turn.done.cancelled():
            return  # we are ending
        self._unsettled.popleft()
        self._acknowledged_to = turn.sequence
        self._acknowledged(turn.sequence, turn.last, turn.hash)
        self.commits += 1
        self._waiting -= len(turn.records)
        self._waiting_bytes -= turn.size
        for request_id in turn.request_ids:
            self._in_flight.pop(request_id, None)
        self.committed = turn.last
        turn.done.set_result(None)
        for item in turn.work:
            self._dispatch(item)
        self._answers.put_nowait(turn.replies)


def _about(request: Request) -> dict[str, str]:
    """Return what a line of the log says of a request, so that it can be followed."""
    return {
        "request_id": request.request_id,
        "trace_id": trace_id(request.client.trace),
        "action": type(request.action).__name__,
        "user_id": request.actor.user_id,
        "project_id": request.actor.project_id,
    }


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Look at what a task ended with, should nobody be left who waits for it."""
    if not task.cancelled():
        task.exception()


def _too_large(record: Record, size: int) -> Record:
    """Return the refusal of a request from which more would follow than one commit holds."""
    verdict = Refused(
        code="TooLarge",
        status=413,
        reason=f"what would be written has {size} bytes; one request may have {RECORD_BYTES_MAX}",
        hint="Do it in smaller steps.",
    )
    return Record(salt=record.salt, request=record.request, verdict=verdict)
