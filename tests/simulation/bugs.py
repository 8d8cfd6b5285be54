"""Bugs planted to see whether the simulator finds them: each is a patch over the product's code.

They exist here only. Each undoes one promise in one place, as a careless change would.
"""

import asyncio
import contextlib
import functools
import heapq
from unittest import mock

import msgspec

from engine import decider, dispatch, timers, turns
from engine.domain.fold import key_of
from engine.domain.operation import report_operation
from executors import converge
from projections import models, runner
from schemas.operation import ReportOperation
from tests.simulation import broker

BUGS = {}


def bug(function):
    """Register what yields the patches of a bug, by its name."""
    BUGS[function.__name__] = function
    return function


@contextlib.contextmanager
def planted(name):
    with contextlib.ExitStack() as stack:
        for patch in BUGS[name]():
            stack.enter_context(patch)
        yield


@bug
def reply_before_ack():
    """An outcome is sent as soon as it is decided, not once it is durable."""
    decide = turns.Turns._decide

    def _decide(self, request, roles, reply):
        decide(self, request, roles, reply)
        turn = self._in_flight.get(request.request_id)
        if turn is not None and turn.replies:
            self._answers.put_nowait([turn.replies.pop()])

    yield mock.patch.object(turns.Turns, "_decide", _decide)


@bug
def no_fence():
    """The log takes a commit wherever its writer believes the end to be."""
    yield mock.patch.object(broker.Broker, "fits", return_value=True)


@bug
def lost_wake_up():
    """Who waits for room among the commits in flight is not told when there is."""
    on_appended = turns.Turns._on_appended

    def _on_appended(self, appending):
        moved, self._moved = self._moved, asyncio.Event()
        try:
            on_appended(self, appending)
        finally:
            self._moved = moved

    yield mock.patch.object(turns.Turns, "_on_appended", _on_appended)


@bug
def doubled_dispatch():
    """Work is sent twice, and a host carries out again what it is told again."""
    send, take, run = dispatch.Dispatcher.send, broker.Broker.take_work, converge.Converger._run

    def send_twice(self, item):
        send(self, item)
        send(self, item)

    def take_all(self, item):
        self.work_ids.clear()
        take(self, item)

    async def run_again(self, spec, attention, deadline):
        done = self.__dict__.setdefault("done", set())
        operation = spec.server.operation_id
        if operation in done:
            await self.drivers.hypervisor.destroy(spec.server.server_id)
            await self._start(spec, self.records.load(spec.server.server_id))
        observed = await run(self, spec, attention, deadline)
        done.add(operation)
        return observed

    yield mock.patch.object(dispatch.Dispatcher, "send", send_twice)
    yield mock.patch.object(broker.Broker, "take_work", take_all)
    yield mock.patch.object(converge.Converger, "_run", run_again)
    yield mock.patch("executors.lanes._repeats", return_value=False)


@bug
def generation_ignored():
    """A report counts whichever attempt it is about."""

    def of_any_generation(cell, ctx, action):
        operation = cell.state.operations.get(action.operation_id)
        if operation is not None:
            action = msgspec.structs.replace(action, generation=operation.generation)
        return report_operation(cell, ctx, action)

    yield mock.patch.dict(decider.DECIDE, {ReportOperation: of_any_generation})


@bug
def deadline_dropped():
    """Of two deadlines that are watched, the later one is forgotten."""

    def watch(self, operation):
        entry = (operation.deadline, operation.operation_id, operation.generation)
        heapq.heappush(self._deadlines, entry)
        del self._deadlines[1:]

    yield mock.patch.object(timers.Timers, "watch", watch)


@bug
def position_saved_early():
    """A read model says that it holds a batch before it does."""
    apply = runner._apply

    async def follow(self, writer):
        async for batch in self._source.read_batches(writer.position.seq, follow=True):
            before, last = writer.position, batch[-1]
            stored = models.decode_stored(last.data)
            ordinal = stored.first + sum(1 + len(r.facts) for r in stored.records) - 1
            _save(writer.db, (ordinal, last.seq, stored.hash, stored.at))
            await self._announce(ordinal)
            await asyncio.sleep(0.1)
            _save(writer.db, (before.ordinal, before.seq, before.hash, before.at))
            apply(writer, batch)

    yield mock.patch.object(runner.Projector, "_follow", follow)


def _save(db, position):
    db.execute("UPDATE position SET ordinal = ?, seq = ?, hash = ?, at = ?", position)


@bug
def undo_missing():
    """What a failed start has made stays where it is."""

    @contextlib.asynccontextmanager
    async def undoing():
        yield contextlib.AsyncExitStack()

    yield mock.patch.object(converge, "_undoing", undoing)


@bug
def clock_going_back():
    """The time of a commit is the machine's, even where that is earlier than the log's."""
    current_turn = turns.Turns._current_turn

    def _current_turn(self):
        state = self.cell.state
        at, state.at = state.at, 0
        try:
            return current_turn(self)
        finally:
            state.at = at

    yield mock.patch.object(turns.Turns, "_current_turn", _current_turn)


@bug
def key_reused():
    """A known idempotency key is answered as before, whatever is asked under it."""
    repeated = decider.repeated

    @functools.wraps(repeated)
    def whatever(cell, request):
        actor = request.actor
        if request.key is not None:
            key = key_of(actor.user_id, actor.project_id, request.key)
            if (answered := cell.state.keyed.get(key)) is not None:
                return answered
        return repeated(cell, request)

    yield mock.patch.object(turns, "repeated", whatever)


@bug
def quota_ignored():
    """Nobody looks at limits."""
    yield mock.patch("engine.domain.quota.need_room")


@bug
def short_election():
    """A new leader takes one place in the log, and not all that its predecessor may claim."""
    yield mock.patch("engine.candidate.WINDOW", 1)


@bug
def no_barrier():
    """What is no commit is answered at once, also by a leader that leads no more."""
    yield mock.patch.object(turns.Turns, "barrier", mock.AsyncMock())
