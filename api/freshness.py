"""Whether this node can know who somebody is: its read model must hold all but the last second.

The projector proves several times a second that nothing of the log is missing from the read model
(``projections.proving``). Invariant: nobody is let in by what a read model says that was not proven
whole at a moment less than ``FRESH_S`` ago; so what was revoked anywhere is good for nothing after
that time, whatever has become of this node.
"""

import asyncio
from collections.abc import Callable
from time import monotonic_ns

from schemas.errors import Unavailable

FRESH_S = 1.0
# How long a request waits for the next proof: a busy machine is late without anything being wrong.
WAIT_S = 2.0
NS = 1_000_000_000


class Freshness:
    """The last proof that one edge has heard of."""

    def __init__(self, clock: Callable[[], int] = monotonic_ns) -> None:
        """``clock`` is that of the proofs: the machine's monotonic one."""
        self._clock = clock
        self._until_ns = -1  # as long as what can be read is fresh
        self._heard = asyncio.Event()

    def proven(self, at_ns: int) -> None:
        """Take in that the read model was whole at a moment."""
        at_ns = min(at_ns, self._clock())
        self._until_ns = max(self._until_ns, at_ns + round(FRESH_S * NS))
        self._heard.set()
        self._heard = asyncio.Event()

    def is_fresh(self, grace_s: float = 0.0) -> bool:
        """Say whether the last proof is recent enough, or was so up to ``grace_s`` ago."""
        return self._clock() <= self._until_ns + grace_s * NS

    async def whole_since(self, at_ns: int) -> None:
        """Return once what can be read is proven to hold all that was in the log at a moment.

        Raises:
            Unavailable: it is not proven in time.
        """
        try:
            async with asyncio.timeout(WAIT_S + max(0.0, (at_ns - self._clock()) / NS)):
                while self._until_ns - round(FRESH_S * NS) < at_ns:
                    await self._heard.wait()
        except TimeoutError:
            raise Unavailable(
                "this node cannot tell whether its read model holds all of the log", retry_after=1
            ) from None

    async def need(self) -> None:
        """Return if what can be read is fresh, or once it is; waits for ``WAIT_S`` at most.

        Raises:
            Unavailable: it is not.
        """
        if self._clock() <= self._until_ns:
            return
        try:
            async with asyncio.timeout(WAIT_S):
                while not self.is_fresh():
                    await self._heard.wait()
        except TimeoutError:
            raise Unavailable(
                "this node cannot tell whether its read model holds all of the log", retry_after=1
            ) from None
