"""The engine's clock: deadlines that pass, hosts that fall silent. Both become requests."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable

from engine.domain.state import Cell
from schemas.host import MarkHost
from schemas.operation import Operation, PassDeadline
from schemas.units import SECOND, Micros

TICK_S = 0.5
# A tick that comes so late was held up by ourselves or the broker, and so were the heartbeats.
STALLED = 2 * SECOND


class Timers:
    """Watches a state for what time alone brings about.

    Deadlines come out of a heap that is filled as operations appear; whether an operation is still
    open is asked of the state, so nothing has to be taken out early.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        clock: Callable[[], Micros],
        submit: Callable[[PassDeadline | MarkHost], None],
        silent_after: Micros,
        reach: Callable[[], Awaitable[None]],
    ) -> None:
        """``reach`` returns once the broker has answered, however long that takes."""
        self._cell = cell
        self._clock = clock
        self._submit = submit
        self._silent_after = silent_after
        self._reach = reach
        self._deadlines: list[tuple[Micros, str, int]] = []
        # A host gets the whole period anew when the engine starts: silence was the engine's own.
        self._began = clock()
        self._heard: dict[str, Micros] = {}
        for operation in cell.state.operations.values():
            self.watch(operation)

    def watch(self, operation: Operation) -> None:
        """An operation began: see to it that it ends."""
        entry = (operation.deadline, operation.operation_id, operation.generation)
        heapq.heappush(self._deadlines, entry)

    def heard(self, host_id: str) -> None:
        """A heartbeat came in."""
        self._heard[host_id] = self._clock()

    def last_heard(self, host_id: str) -> Micros:
        """Return when a host was last heard of, or when listening began."""
        return self._heard.get(host_id, self._began)

    def tick(self) -> None:
        """Submit what has become due."""
        now = self._clock()
        self._pass_deadlines(now)
        self._mark_hosts(now)

    def _pass_deadlines(self, now: Micros) -> None:
        operations = self._cell.state.operations
        while self._deadlines and (
            self._deadlines[0][0] <= now or self._deadlines[0][1] not in operations
        ):
            _, operation_id, generation = heapq.heappop(self._deadlines)
            if operation_id in operations:
                self._submit(PassDeadline(operation_id=operation_id, generation=generation))

    def _mark_hosts(self, now: Micros) -> None:
        for host_id, host in list(self._cell.state.hosts.items()):
            heard = self._heard.get(host_id)
            silent_for = now - (self._began if heard is None else heard)
            if host.status == "up" and silent_for > self._silent_after:
                reason = f"silent for {silent_for // SECOND} s"
                self._submit(MarkHost(host_id=host_id, status="down", reason=reason))
            elif host.status == "down" and heard is not None and silent_for <= self._silent_after:
                self._submit(MarkHost(host_id=host_id, status="up", reason="heard of again"))

    def forgive(self) -> None:
        """Give every host the whole period anew; one that is down must be heard to come up."""
        self._began = self._clock()
        self._heard.clear()

    def _is_one_silent(self) -> bool:
        now = self._clock()
        return any(
            host.status == "up" and now - self._heard.get(host_id, self._began) > self._silent_after
            for host_id, host in self._cell.state.hosts.items()
        )

    async def run(self) -> None:
        """Tick for ever. A host is not blamed for a silence that was ours or the broker's."""
        last = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            if self._clock() - last <= STALLED and self._is_one_silent():
                await self._reach()
            if self._clock() - last > STALLED:
                self.forgive()
            last = self._clock()
            self.tick()
