"""Agents that lie: reports on what is not theirs, of another attempt, of another boot, of any time.

None of them may change anything; they know all that the log knows.
"""

import asyncio
import contextlib

from engine.bus import service
from engine.bus.client import BusError
from schemas.compute import ReportServerState
from schemas.envelope import Actor, Client, Request
from schemas.errors import Unavailable
from schemas.operation import ReportOperation

TIMES = (0, 1, 2**53 - 1)


class Liar:
    """Speaks on the subject of one host."""

    def __init__(self, world, host_id, chance):
        self.world = world
        self.host_id = host_id
        self.chance = chance
        self.bus = None

    async def run(self):
        while not self.world.healed:
            await asyncio.sleep(self.chance.expovariate(1.0) * 3)
            report, claims = self._lie()
            if report is None:
                continue
            request = Request(
                request_id=f"req-{self.world.new_id()}",
                actor=Actor(kind="agent", host_id=claims),
                action=report,
                submitted_at=self.world.wall(),
                client=Client(api="agent"),
            )
            self.world.trace("lie", self.host_id, f"{type(report).__name__} as {claims}")
            with contextlib.suppress(BusError, Unavailable):
                await service.submit(self.bus, request, host=self.host_id, timeout_s=5.0)

    def _lie(self):
        chance, state = self.chance, self.world.newest_state()
        if state is None:
            return None, None
        observed_at = chance.choice((*TIMES, self.world.wall()))
        if state.operations and chance.random() < 0.7:
            operation = state.operations[chance.choice(sorted(state.operations))]
            own = operation.host_id == self.host_id
            generation = operation.generation
            if own:
                generation += chance.choice((-1, 1, 5))
            report = ReportOperation(
                operation_id=operation.operation_id,
                generation=generation,
                succeeded=chance.random() < 0.5,
                observed_at=observed_at,
                cause="a lie",
                running=chance.random() < 0.5,
            )
            return report, self._claims(operation.host_id)
        if not state.servers:
            return None, None
        server = state.servers[chance.choice(sorted(state.servers))]
        own = server.host_id == self.host_id
        # Far ahead: the next one may well be true by the time it is heard.
        boot = server.boot + (chance.choice((-1, 50)) if own else 0)
        report = ReportServerState(
            server_id=server.server_id,
            boot=max(0, boot),
            running=chance.random() < 0.3,
            observed_at=observed_at,
            cause="crash",
        )
        return report, self._claims(server.host_id or self.host_id)

    def _claims(self, other):
        """Return whom it says it is: itself, or the one whose word would count."""
        return other if self.chance.random() < 0.4 else self.host_id
