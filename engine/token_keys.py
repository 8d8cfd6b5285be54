"""Rotates the keys that sign tokens, when they are as old as the configuration says.

Every engine does it, leader or not: of several who find the same ring old, one rotates it.
"""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from engine.bus.client import BusError
from engine.bus.keys import Keys, TokenKeys
from schemas.errors import Rejected

LOOK_S = 60.0

log = structlog.get_logger(__name__)


def is_due(ring: TokenKeys, hours: float, now: datetime) -> bool:
    """Say whether a ring is to be rotated."""
    return hours > 0 and now - ring.made_at >= timedelta(hours=hours)


async def rotate_when_due(keys: Keys, hours: float, *, look_s: float = LOOK_S) -> None:
    """Look for ever; what prevents a rotation is logged, and tried again."""
    while True:
        try:
            ring = await keys.token_keys()
            if is_due(ring, hours, datetime.now(UTC)):
                rotated = await keys.rotate_token_keys(seen=ring.seq)
                log.info("token_keys_rotated", ring=rotated.seq, keys=len(rotated.keys))
        except (BusError, Rejected) as error:
            log.warning("token_keys_not_rotated", error=str(error))
        await asyncio.sleep(look_s)
