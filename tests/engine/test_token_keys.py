"""Keys that sign tokens are rotated when they are old enough, once."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from engine.bus.keys import Keys, TokenKeys
from engine.token_keys import is_due, rotate_when_due

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "age_h", "due"), [(0, 1000, False), (24, 23, False), (24, 24, True), (0.5, 1, True)]
)
def test_a_ring_is_rotated_when_it_is_old(hours, age_h, due):
    ring = TokenKeys(keys=(b"k",), seq=1, made_at=NOW - timedelta(hours=age_h))

    assert is_due(ring, hours, NOW) is due


async def test_an_engine_rotates_a_ring_that_is_due(nats):
    keys = Keys(await nats.connect())
    await keys.ensure_bucket()
    before = await keys.ensure_token_keys()

    looking = asyncio.create_task(rotate_when_due(keys, 1e-9, look_s=3600))
    async with asyncio.timeout(30):
        while (after := await keys.token_keys()).seq == before.seq:
            pass
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)

    assert after.keys[0] == before.keys[1]
