"""Turns of the decider: requests that wait together share one commit.

A request is decided at once against the newest (speculative) state; its answer waits for the
durable ack of the commit that holds it. One commit is in flight; what arrives meanwhile forms the
next. A refused commit means that somebody else wrote: everything speculative is void, so the turn
ends with ``LeadershipLost`` and the process folds the log anew.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct, field

from engine.decider import authenticate, decide, refusal, repeated
from engine.domain.desired import work_item
from engine.domain.fold import apply_record
from engine.domain.state import Cell
from engine.log.commit import seal_commit
from engine.log.port import Log, WrongLastSequence
from schemas.compute import ServerStopRequested
from schemas.envelope import Outcome, Record, Refused, Request, encode
from schemas.errors import Rejected, Unavailable
from schemas.operation import Operation, OperationStarted
from schemas.units import Micros, Ordinal
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

type Reply = Callable[[bytes], Awaitable[None]]

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
    done: asyncio.Event = field(default_factory=asyncio.Event)


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
        dispatch: Callable[[WorkItem], None],
        began: Callable[[Operation], None],
        acknowledged: Callable[[int, Ordinal, str], None] = lambda *_: None,
    ) -> None:
        """``prev`` and ``sequence`` are the hash and stream sequence of the last commit.

        ``dispatch`` is called with each work item after the ack, ``began`` with each operation,
        ``acknowledged`` with each durable commit's sequence, last ordinal and hash.
        """
        self.cell = cell
        self._log = log
        self._prev = prev
        self._sequence = sequence
        self._clock = clock
        self._new_id = new_id
        self._dispatch = dispatch
        self._began = began
        self._acknowledged = acknowledged
        self._open: Turn | None = None
        self._queue: asyncio.Queue[Turn] = asyncio.Queue()
        self._waiting = 0
        # Requests decided but not acknowledged: a repetition joins the first.
        self._in_flight: dict[str, Turn] = {}
        self.committed: Ordinal = cell.state.ordinal
        self.commits = 0

    def submit(self, request: Request, reply: Reply) -> bytes | None:
        """Decide a request; the reply follows its durable ack.

        Returns the encoded outcome at once if nothing has to be committed for it: a repetition of
        what is durable already, a request of somebody unknown, or one turned away.
        """
        try:
            if self._waiting >= WAITING_MAX:
                raise Unavailable(f"{self._waiting} requests are waiting for the log")
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
            roles = authenticate(self.cell, request.actor)
        except Rejected as rejected:
            return encode(
                Outcome(
                    request_id=request.request_id,
                    ordinal=self.committed,
                    verdict=refusal(rejected),
                )
            )
        self._decide(request, roles, reply)
        return None

    def _decide(self, request: Request, roles: frozenset[str], reply: Reply) -> None:
        turn = self._current_turn()
        record = self._record(request, roles, turn.at)
        encoded = encode(record)
        if len(encoded) > RECORD_BYTES_MAX:
            record = _too_large(record, len(encoded))
            encoded = encode(record)
        ordinal = turn.last = apply_record(self.cell, record, turn.at)
        turn.request_ids.append(request.request_id)
        turn.records.append(encoded)
        turn.size += len(encoded)
        turn.work += self._work(record)
        outcome = Outcome(request_id=request.request_id, ordinal=ordinal, verdict=record.verdict)
        turn.replies.append((reply, encode(outcome)))
        self._in_flight[request.request_id] = turn
        self._waiting += 1

    def _record(self, request: Request, roles: frozenset[str], at: Micros) -> Record:
        salt = secrets.token_hex(8)
        try:
            return decide(self.cell, request, now=at, new_id=self._new_id, roles=roles, salt=salt)
        except Exception:
            # A decision changes nothing, so the state is sound; one bad request must not stop all.
            logger.exception("decision_failed", request_id=request.request_id)
            verdict = Refused(
                code="InternalError",
                status=500,
                reason="the engine could not decide this request",
                hint="Report the request id to the operator; the engine's log has the cause.",
            )
            return Record(salt=salt, request=request, verdict=verdict)

    def _current_turn(self) -> Turn:
        turn = self._open
        if turn is not None and len(turn.records) < REQUESTS_MAX and turn.size < BYTES_MAX:
            return turn
        state = self.cell.state
        turn = Turn(first=state.ordinal + 1, last=state.ordinal, at=max(self._clock(), state.at))
        self._open = turn
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
        """Return when everything decided so far is durable."""
        turn = self._open
        if turn is None:
            pending = list(self._in_flight.values())
            turn = pending[-1] if pending else None
        if turn is not None:
            await turn.done.wait()

    async def run(self) -> None:
        """Commit turns as they come, one in flight.

        Raises:
            LeadershipLost: another decider wrote to the log.
        """
        while True:
            turn = await self._queue.get()
            if turn is self._open:
                # From here on, new requests form the next turn.
                self._open = None
            await self._commit(turn)

    async def _commit(self, turn: Turn) -> None:
        commit_id = self._new_id()
        state = self.cell.state
        data, self._prev = seal_commit(
            commit_id=commit_id,
            first=turn.first,
            prev=self._prev,
            epoch=state.epoch,
            at=turn.at,
            records=turn.records,
        )
        try:
            self._sequence = await self._log.append(
                data, expected_last=self._sequence, commit_id=commit_id
            )
        except WrongLastSequence as error:
            raise LeadershipLost(str(error)) from error
        self._acknowledged(self._sequence, turn.last, self._prev)
        self.commits += 1
        self._waiting -= len(turn.records)
        for request_id in turn.request_ids:
            del self._in_flight[request_id]
        self.committed = turn.last
        turn.done.set()
        for item in turn.work:
            self._dispatch(item)
        for reply, outcome in turn.replies:
            await reply(outcome)


def _too_large(record: Record, size: int) -> Record:
    """Return the refusal of a request from which more would follow than one commit holds."""
    verdict = Refused(
        code="TooLarge",
        status=413,
        reason=f"what would be written has {size} bytes; one request may have {RECORD_BYTES_MAX}",
        hint="Do it in smaller steps.",
    )
    return Record(salt=record.salt, request=record.request, verdict=verdict)
