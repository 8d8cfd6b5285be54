"""The engine's clock: deadlines that pass, hosts that fall silent. Both become requests."""

import asyncio
import heapq
from collections.abc import Callable

from engine.domain.state import Cell
from schemas.host import MarkHost
from schemas.operation import Operation, PassDeadline
from schemas.units import SECOND, Micros

TICK_S = 0.5


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
    ) -> None:
        self._cell = cell
        self._clock = clock
        self._submit = submit
        self._silent_after = silent_after
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

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()
