"""An event loop without time or chance: virtual seconds, no threads, processes that can be killed.

A callback belongs to the process that asked for it (a context variable says which), so a process
can be stopped for a while, as by SIGSTOP, or ended at any await, as by SIGKILL: its callbacks are
kept back, or dropped. Nothing of a killed process runs any more, no ``finally`` either.
"""

import asyncio
import contextvars
import heapq
import itertools
from asyncio import events
from collections import deque

# A callback takes some time: who waits for less than a float can tell would otherwise for ever.
STEP_S = 1e-6

_PROCESS = contextvars.ContextVar("process", default=None)
_numbers = itertools.count(1)


class Exhausted(Exception):
    """Too many steps: something goes round and round without time passing."""


class _Numbered:
    """Its place in a set follows from a number, given when first asked for, not its address."""

    _number = None

    def __hash__(self):
        if self._number is None:
            self._number = next(_numbers)
        return self._number


class Task(_Numbered, asyncio.Task):
    """See ``_Numbered``."""


class Future(_Numbered, asyncio.Future):
    """See ``_Numbered``."""


class Handle:
    """A callback that is to be run."""

    __slots__ = ("_when", "args", "callback", "context", "dropped", "process")

    def __init__(self, callback, args, context, when=0.0):
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.process = self.context.get(_PROCESS)
        self.dropped = False
        self._when = when

    def cancel(self):
        self.dropped = True
        self.callback = self.args = None

    def cancelled(self):
        return self.dropped

    def when(self):
        return self._when


class Process:
    """One process of the simulated machines: what runs in its context is its own."""

    def __init__(self, loop, name):
        self.loop = loop
        self.name = name
        self.alive = True
        self.paused = False
        self.ended = None  # how its main task ended: None, or the error
        self.held = []
        # Collected before the end, what never ended would run its ``finally`` clauses.
        self.tasks = []
        self.graveyard = []
        self.context = contextvars.Context()
        self.context.run(_PROCESS.set, self)
        self.clock_offset = 0  # microseconds that its machine's clock is ahead of the truth

    def __repr__(self):
        return self.name

    def start(self, work):
        """Run a coroutine in this process."""
        return self.loop.create_task(work, context=self.context)

    def call(self, callback, *args):
        """Have something called in this process soon."""
        self.loop.call_soon(callback, *args, context=self.context)

    def kill(self):
        """End it where it is: nothing of it runs any more."""
        if not self.alive:
            return
        self.alive = False
        self.graveyard += self.held

    def pause(self):
        """Stop it for a while; what it waits for piles up."""
        self.paused = True

    def resume(self):
        """Let it go on with all that has piled up."""
        self.paused = False
        held, self.held = self.held, []
        self.loop.ready.extend(held)


def current_process():
    """Return the process that is running, None for the world around them."""
    return _PROCESS.get()


class Loop(asyncio.AbstractEventLoop):
    """Runs what is ready in the order in which it became so; then time jumps to the next timer."""

    def __init__(self, steps_max=400_000):
        self.now = 0.0
        self.steps = 0
        self.ready = deque()
        self.failures = []
        self._timers = []
        self._sequence = itertools.count()
        self._steps_max = steps_max
        self._stopped = False

    # What asyncio asks of a loop

    def time(self):
        return self.now

    def get_debug(self):
        return False

    def is_running(self):
        return True

    def is_closed(self):
        return False

    def call_soon(self, callback, *args, context=None):
        handle = Handle(callback, args, context)
        self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when, callback, *args, context=None):
        handle = Handle(callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._sequence), handle))
        return handle

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.now + max(0.0, delay), callback, *args, context=context)

    def create_future(self):
        return Future(loop=self)

    def create_task(self, coro, *, name=None, context=None, **_fields):
        task = Task(coro, loop=self, name=name or "", context=context)
        process = _PROCESS.get() if context is None else context.get(_PROCESS)
        if process is not None:
            process.tasks.append(task)
        return task

    def run_in_executor(self, executor, func, *args):
        """There are no threads: what would block is done at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # as a thread's is handed on
            future.set_exception(error)
        return future

    def call_exception_handler(self, context):
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def add_signal_handler(self, sig, callback, *args):
        """No process here gets a signal; they are killed."""

    def remove_signal_handler(self, sig):
        """See ``add_signal_handler``."""

    # What the simulation asks

    def stop(self):
        self._stopped = True

    def run(self, until=float("inf")):
        """Run until ``stop``, or until nothing is left before a time, or at all."""
        self._stopped = False
        ready, timers = self.ready, self._timers
        steps_max = self._steps_max
        events._set_running_loop(self)
        try:
            while True:
                while ready:
                    handle = ready.popleft()
                    if handle.dropped:
                        continue
                    process = handle.process
                    if process is not None and not (process.alive and not process.paused):
                        (process.held if process.alive else process.graveyard).append(handle)
                        continue
                    self.steps += 1
                    self.now += STEP_S
                    try:
                        handle.context.run(handle.callback, *handle.args)
                    except Exception as error:  # noqa: BLE001  # it is what is looked for
                        self.failures.append(f"{handle.callback!r}: {error!r}")
                    if self._stopped:
                        return
                    if self.steps > steps_max:
                        of = getattr(handle.callback, "__self__", None)
                        raise Exhausted(f"{self.steps} steps at {self.now:.3f} s: {of!r}")
                while timers and timers[0][2].dropped:
                    heapq.heappop(timers)
                if not timers or timers[0][0] > until:
                    if timers:
                        self.now = until
                    return
                self.now = max(self.now, timers[0][0])
                while timers and timers[0][0] <= self.now:
                    handle = heapq.heappop(timers)[2]
                    if not handle.dropped:
                        ready.append(handle)
        finally:
            events._set_running_loop(None)
