"""One lane per resource: what is wished of it is done one wish at a time, the newest next.

Lanes run abreast; within one, a newer wish interrupts waiting (a guest's grace) but no step. A
wish that was overtaken before it began is never carried out. Each wish that was begun ends in a
report on its operations, unless a delete made them pointless.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import structlog

from executors.converge import Attention, Converger, Observed
from executors.errors import HostError, Superseded, reason
from executors.position import NEVER, Version
from executors.reports import Clock, Reports, about
from executors.wish import Wish
from schemas.host import DriftFound
from schemas.ids import ServerId
from schemas.operation import Operation
from schemas.units import SECOND, Micros

log = structlog.get_logger(__name__)

# Without an operation there is no deadline from the engine; nothing may take for ever all the same.
_NO_OPERATION_S = 120
# A stop or delete that comes late is still worth doing, and must have time for it.
_LEAST_S = 30
_RETIRED_MOST = 20_000
# After these have failed, nothing of the server shall be here.
_GIVEN_UP = frozenset({"build", "delete"})
_NEVER_UNDER_WAY = frozenset({"build", "start", "reboot", "resize", "revert"})


class Lane:
    """One resource: the wish being carried out, and the one that comes next."""

    def __init__(self, resource_id: str) -> None:
        self.resource_id = resource_id
        self.version = NEVER
        self.current: Wish | None = None
        self.next: Wish | None = None
        self.last: Wish | None = None  # the newest that was carried out
        self.look = False  # the domain ended: see why, once nothing else is under way
        self.attention = Attention()
        self.task: asyncio.Task[None] | None = None
        self.drift: list[DriftFound] = []

    @property
    def newest(self) -> Wish | None:
        """Return the newest wish known of the resource."""
        return self.next or self.current or self.last


class Lanes:
    """All lanes of a host. Wishes of a resource older than the newest seen are dropped."""

    def __init__(
        self,
        converger: Converger,
        reports: Reports,
        clock: Clock,
        *,
        on_wreck: Callable[[], None],
    ) -> None:
        """``on_wreck`` is called when something may be left of a server that the engine gave up."""
        self._converger = converger
        self._on_wreck = on_wreck
        self._reports = reports
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        # Of resources that are gone: so that a late word does not bring one back.
        self._retired: OrderedDict[str, Version] = OrderedDict()

    def newest(self, resource_id: str) -> Version:
        """Return the newest version seen of a resource."""
        lane = self._lanes.get(resource_id)
        return lane.version if lane is not None else self._retired.get(resource_id, NEVER)

    def wishes(self) -> dict[str, Wish]:
        """Return the newest wish of every resource that has a lane."""
        return {r: lane.newest for r, lane in self._lanes.items() if lane.newest is not None}

    def wanted_running(self) -> int:
        """Return how many servers were brought to run here, as far as was last wished."""
        return sum(
            lane.last is not None and lane.last.wanted == "running" for lane in self._lanes.values()
        )

    def offer(self, wish: Wish) -> bool:
        """Take a wish, unless a newer one is known; return whether it was taken."""
        if wish.version < self.newest(wish.resource_id):
            return False
        lane = self._lanes.get(wish.resource_id)
        if lane is None:
            lane = self._lanes[wish.resource_id] = Lane(wish.resource_id)
        if _repeats(lane.current, wish) and lane.next is None:
            return True  # The same item once more, while it is being carried out.
        lane.version = wish.version
        overtaken, lane.next = lane.next, wish
        if overtaken is not None:
            lane.next = _merged(overtaken, wish)
        if lane.current is not None and _differs(lane.current, wish):
            lane.attention.superseded.set()
        self._wake(lane)
        return True

    def domain_ended(self, server_id: ServerId) -> None:
        """Take notice that a server's domain is gone."""
        lane = self._lanes.get(server_id)
        if lane is None:
            return
        lane.attention.domain_ended.set()
        lane.attention.ended_at = self._clock()
        lane.look = True
        self._wake(lane)

    async def settled(self, resource_ids: frozenset[str], *, within_s: float) -> list[DriftFound]:
        """Wait until these lanes rest, within a bound, and return the drift that they found."""
        lanes = [lane for r in resource_ids if (lane := self._lanes.get(r)) is not None]
        tasks = [lane.task for lane in lanes if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        found: list[DriftFound] = []
        for lane in lanes:
            found += lane.drift
            lane.drift = []
            if lane.task is None:
                self._retire(lane)
        return found

    async def close(self, *, within_s: float) -> None:
        """Let steps under way come to an end, within a bound, then stop all lanes."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for lane in self._lanes.values():
            lane.next = None
            lane.look = False
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # One lane

    def _wake(self, lane: Lane) -> None:
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._work(lane))

    async def _work(self, lane: Lane) -> None:
        """Carry out wishes until none is left, then rest."""
        try:
            while lane.next is not None or lane.look:
                wish, lane.next, lane.look = lane.next or _again(lane.last), None, False
                if wish is None:
                    continue
                lane.current = wish
                lane.attention.superseded.clear()
                # What is logged on the way names the request that it is done for.
                known = about(wish.operations[-1]) if wish.operations else {}
                try:
                    with structlog.contextvars.bound_contextvars(**known):
                        await self._carry_out(lane, wish)
                finally:
                    lane.current = None
                    lane.last = lane.last if wish.look else wish
        finally:
            lane.task = None
            self._retire(lane)

    async def _carry_out(self, lane: Lane, wish: Wish) -> None:
        if self._too_late(wish):
            await self._failed(wish, "its deadline passed before the host could begin")
            return
        deadline = self._deadline(wish)
        try:
            left_s = (deadline - self._clock()) / SECOND
            async with asyncio.timeout(left_s):
                observed = await self._converger.converge(wish, lane.attention, deadline)
        except Superseded:
            await self._overtaken(lane, wish)
        except TimeoutError as error:
            log.warning("wish.timed_out", resource=wish.resource_id, wanted=wish.wanted)
            await self._failed(wish, f"not done by its deadline: {reason(error)}")
        except HostError as error:
            log.warning("wish.failed", resource=wish.resource_id, why=reason(error))
            await self._failed(wish, reason(error))
        except Exception as error:
            log.exception("wish.broke", resource=wish.resource_id, wanted=wish.wanted)
            await self._failed(wish, f"internal error on the host: {reason(error)}")
        else:
            await self._done(lane, wish, observed)

    async def _done(self, lane: Lane, wish: Wish, observed: Observed) -> None:
        if wish.audited and not wish.operations:
            lane.drift += observed.drift
        reached = observed.running or observed.ended is not None
        for operation in wish.operations:
            await self._reports.succeeded(
                operation,
                running=reached,
                observed_at=observed.observed_at,
                virtual_size_bytes=observed.virtual_size_bytes,
            )
        if observed.ended is not None and wish.server is not None:
            # It did start under this boot, as reported; and went again without being asked.
            await self._reports.ended(
                wish.resource_id, wish.server.boot, observed.ended, observed.ended_at
            )
            self._converger.note_end(wish.resource_id, wish.server.boot)

    async def _overtaken(self, lane: Lane, wish: Wish) -> None:
        newer = lane.next
        if newer is not None and newer.wanted == "absent":
            return  # The engine has cancelled whatever a delete overtakes.
        await self._failed(wish, "a newer request about the server came first")

    async def _failed(self, wish: Wish, cause: str) -> None:
        if not wish.operations:
            return
        running = False
        if wish.image is None:
            try:
                running = await self._converger.runs(wish.resource_id)
            except HostError as error:
                log.warning("wish.unseen", resource=wish.resource_id, why=reason(error))
        for operation in wish.operations:
            await self._reports.failed(operation, cause, running=running)
        if any(operation.kind in _GIVEN_UP for operation in wish.operations):
            # What an earlier life of this agent has made is not undone by this one's failure.
            self._on_wreck()

    def _deadline(self, wish: Wish) -> Micros:
        grace_s = wish.server.grace_s if wish.server is not None else 0
        now = self._clock()
        if wish.deadline is None:
            return now + (_NO_OPERATION_S + grace_s) * SECOND
        return max(wish.deadline, now + _LEAST_S * SECOND)

    def _too_late(self, wish: Wish) -> bool:
        """Whether starting something now would only surprise its owner."""
        kinds = {operation.kind for operation in wish.operations}
        late = wish.deadline is not None and wish.deadline <= self._clock()
        return late and bool(kinds) and kinds <= _NEVER_UNDER_WAY

    def _retire(self, lane: Lane) -> None:
        """Forget the lane of a resource that is gone, but for its version."""
        if lane.last is None or lane.last.wanted not in {"absent", "checked"}:
            return
        if self._lanes.get(lane.resource_id) is not lane or lane.next is not None or lane.drift:
            return  # Drift is about to be collected.
        del self._lanes[lane.resource_id]
        self._retired[lane.resource_id] = lane.version
        while len(self._retired) > _RETIRED_MOST:
            self._retired.popitem(last=False)


def _repeats(current: Wish | None, wish: Wish) -> bool:
    """Whether a wish asks for what is being carried out, for nobody else."""
    return (
        current is not None
        and current.server == wish.server
        and _ids(wish.operations) <= _ids(current.operations)
    )


def _differs(current: Wish, wish: Wish) -> bool:
    return (current.wanted, _boot(current)) != (wish.wanted, _boot(wish))


def _boot(wish: Wish) -> int:
    return wish.server.boot if wish.server is not None else 0


def _merged(older: Wish, newer: Wish) -> Wish:
    """Let a wish that never began hand its operations on, if the newer one wishes the same."""
    if _differs(older, newer):
        return newer
    known = _ids(newer.operations)
    kept = tuple(o for o in older.operations if (o.operation_id, o.generation) not in known)
    return replace(newer, operations=newer.operations + kept)


def _again(last: Wish | None) -> Wish | None:
    """A look at what became of the last wish, if a domain's end matters to it."""
    if last is None or last.wanted != "running":
        return None
    return replace(last, operations=(), audited=False, look=True)


def _ids(operations: tuple[Operation, ...]) -> set[tuple[str, int]]:
    return {(o.operation_id, o.generation) for o in operations}
