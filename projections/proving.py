"""Proofs that a node's read model holds all of the log, a few times a second.

Whoever looks somebody up in a read model must know that nothing is missing from it: a token may
have been revoked a moment ago. So the broker is asked where the log ends, and as soon as the read
model has come that far, that is announced, with when it was asked. Invariant: a proof names a
moment before which nothing was acknowledged that cannot be read here.

The moment is on the machine's monotonic clock, which all processes of a node share.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

from engine.bus.client import BusError
from engine.log.port import LogError

log = structlog.get_logger(__name__)

PERIOD_S = 0.2
TROUBLE_S = 30.0  # how often one that cannot be had is told of


class Proof(Struct, frozen=True, array_like=True):
    """At this moment (monotonic ns) the log ended where the read model is now, or before.

    ``ordinal`` is the read model's.
    """

    at_ns: int
    ordinal: int


decode_proof = msgspec.json.Decoder(Proof).decode
encode_proof = msgspec.json.Encoder().encode


class Ended(Protocol):
    """The part of ``engine.log.jetstream.JetStreamLog`` that proofs need."""

    @property
    def number(self) -> int:
        """The stream that takes commits, as far as is known; it changes as the log rolls."""
        ...

    async def end(self) -> int:
        """Return where that stream ends, as its leader knows it."""
        ...


class Followed(Protocol):
    """Whoever follows the log into a read model."""

    @property
    def reached(self) -> tuple[int, int]:
        """The sequence and the ordinal of the last commit that can be read; -1 if none can."""
        ...

    async def advanced(self) -> None:
        """Return once more of the log can be read."""
        ...


async def prove(source: Ended, followed: Followed, say: Callable[[Proof], Awaitable[None]]) -> None:
    """Prove for ever, every ``PERIOD_S`` while it can be proven; ``say`` must not fail."""
    told_at = float("-inf")
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        try:
            await say(await proven(source, followed))
        except (LogError, BusError) as error:
            if loop.time() - told_at > TROUBLE_S:
                told_at = loop.time()
                log.warning("log_end_not_known", error=str(error))
        await asyncio.sleep(max(0.0, begun + PERIOD_S - loop.time()))


async def proven(source: Ended, followed: Followed) -> Proof:
    """Return a proof, once the read model has come as far as the log now goes.

    Raises:
        LogError, BusError: nobody says where the log ends.
    """
    while True:
        at_ns = monotonic_ns()
        end, number = await source.end(), source.number
        while followed.reached[0] < end:
            await followed.advanced()
        # Who reads the end of a stream reads there that the log goes on in another.
        if source.number == number:
            return Proof(at_ns, followed.reached[1])
