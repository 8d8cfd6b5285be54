"""Read your writes: wait until the node's read model has reached an ordinal.

The projector announces each position on the bus; announcements are core NATS and may be lost, so
while anybody waits the read model itself is asked now and then. Invariant: a waiter is woken at the
first sign that its ordinal is there, and never later than its deadline.
"""

import asyncio
import contextlib
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic

POLL_S = 0.05


class Waiter:
    """Waiters of one process, by ordinal."""

    def __init__(self, position: Callable[[], int]) -> None:
        """``position`` asks the read model how far it is."""
        self._position = position
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0
        self._poll: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self.newest = 0

    def position(self) -> int:
        """Return an ordinal that reads can see, asking the read model itself now and then."""
        at = monotonic()
        if at - self._asked_at > POLL_S:
            self._asked_at = at
            self.announced(self._position())
        return self.newest

    def announced(self, ordinal: int) -> None:
        """Take in that the read model has reached ``ordinal``."""
        self.newest = max(self.newest, ordinal)
        while self._heap and self._heap[0][0] <= ordinal:
            future = heappop(self._heap)[2]
            if not future.done():
                future.set_result(None)

    async def reached(self, ordinal: int, timeout_s: float) -> bool:
        """Wait for ``ordinal``; return whether it was reached within ``timeout_s``."""
        if ordinal <= self.newest:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heappush(self._heap, (ordinal, self._count, future))
        if self._poll is None or self._poll.done():
            self._poll = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        return True

    async def changed(self, after: int, timeout_s: float) -> int:
        """Wait until the position is beyond ``after``, or ``timeout_s`` passed; return it."""
        await self.reached(after + 1, timeout_s)
        return self.newest

    async def close(self) -> None:
        """Stop watching."""
        if self._poll is not None:
            self._poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poll

    async def _watch(self) -> None:
        """Ask the read model while anybody waits: announcements may be lost."""
        while self._heap:
            await asyncio.sleep(POLL_S)
            while self._heap and self._heap[0][2].done():
                heappop(self._heap)
            if self._heap:
                self.announced(self._position())
