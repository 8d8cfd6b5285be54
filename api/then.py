"""An edge of a cloud of the past: it reads one moment, for ever, and changes nothing.

There is no engine behind it, no agent, no archiver. Invariants: it cannot reach the present but for
two things, the keys that open what was sealed then (and are gone there once they were destroyed),
and the record of who asked what; its tokens are its own, sealed with a key that lives as long as
the process, so that a password of then is worth nothing in the present.
"""

import asyncio
import signal
from datetime import UTC, datetime
from pathlib import Path

from cryptography.fernet import Fernet

from api.access import AccessLog
from api.auth import Authenticator, now
from api.freshness import Freshness
from api.nobody import Nobody
from api.past import PastIsPast
from api.run import Stop, make_edge, serve_http
from api.tokens import KeySource, TokenRing
from engine.bus.client import Bus
from engine.bus.keys import TokenKeys
from projections.reader import Reader
from schemas.config import Config
from schemas.units import Micros


class Standing(Freshness):
    """What can be read will never be another."""

    def is_fresh(self, grace_s: float = 0.0) -> bool:  # noqa: ARG002  # as of any edge
        """Say yes."""
        return True

    async def need(self) -> None:
        """Return at once."""


class StandingReader(Reader):
    """All reads of a moment, on its own clock."""

    def __init__(self, path: Path, at: Micros) -> None:
        super().__init__(path)
        self._at = at

    def now(self) -> Micros:
        """Return the moment's time."""
        return self._at


async def run(config: Config, at: Micros) -> None:
    """Be the edge until SIGTERM or SIGINT.

    ``config`` names the broker of the present cloud, for its keys, and the directory with the read
    model; ``at`` is the moment's time.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.tell)
    bus = await Bus.configured(config, f"api-{config.node}")
    edge = make_edge(config, bus)
    edge.reader = reader = StandingReader(
        Path(config.state_dir) / "read" / f"{config.node}.sqlite", at
    )
    edge.past = reader.position()
    alone = f"this is the cloud as of ordinal {edge.past}, which has nobody to ask for this"
    edge.bus = Nobody(config.cell, PastIsPast, alone)
    edge.freshness = Standing()
    edge.ring = ring = TokenRing(_own_keys())
    edge.authenticator = Authenticator(ring, reader, lambda: edge.past)
    edge.access = AccessLog(bus, config.node, clock=now)
    edge.waiter.announced(edge.past)
    try:
        await ring.refresh()
        edge.access.start()
        await serve_http(edge, stop)
    finally:
        edge.closing.set()
        await edge.access.close()
        await edge.waiter.close()
        await edge.providers.close()
        await bus.close()
        reader.close()


def _own_keys() -> KeySource:
    ring = TokenKeys(keys=(Fernet.generate_key(),), seq=1, made_at=datetime.now(UTC))

    async def source() -> TokenKeys:
        return ring

    return source
