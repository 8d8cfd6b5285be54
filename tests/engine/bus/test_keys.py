"""Keys are made once, shared by all, and gone for good when destroyed."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from engine.bus.keys import TOKEN_KEYS_MAX, TOKEN_RING, KeyMissing, Keys


async def keys_of(nats):
    keys = Keys(await nats.connect())
    await keys.ensure_bucket()
    return keys


@pytest.mark.parametrize("key_id", ["project-1", "user:a.b", "..", "with space/ü*>"])
async def test_a_key_is_made_once_and_found_by_all(nats, key_id):
    one, other = await keys_of(nats), await keys_of(nats)

    key = await one.create_key(key_id)

    assert len(key) == 32
    assert await one.create_key(key_id) == key
    assert await other.create_key(key_id) == key
    assert await other.get_key(key_id) == key


async def test_of_many_who_make_a_key_at_once_all_get_the_same(nats):
    several = [await keys_of(nats) for _ in range(8)]

    made = await asyncio.gather(*(keys.create_key("project-1") for keys in several))

    assert len(set(made)) == 1


async def test_keys_differ(nats):
    keys = await keys_of(nats)

    assert await keys.create_key("a") != await keys.create_key("b")
    assert await keys.create_key("a.b") != await keys.create_key("a=2Eb")


async def test_a_key_that_never_was_is_missing(nats):
    keys = await keys_of(nats)

    with pytest.raises(KeyMissing, match="nobody"):
        await keys.get_key("nobody")


async def test_a_destroyed_key_is_gone_and_does_not_come_back(nats):
    keys = await keys_of(nats)
    await keys.create_key("project-1")
    kept = await keys.create_key("project-2")

    await keys.destroy_key("project-1")
    await keys.destroy_key("project-1")

    for reader in (keys, await keys_of(nats)):
        with pytest.raises(KeyMissing):
            await reader.get_key("project-1")
        with pytest.raises(KeyMissing):
            await reader.create_key("project-1")
        assert await reader.get_key("project-2") == kept


async def test_a_key_can_be_destroyed_before_it_is_made(nats):
    keys = await keys_of(nats)

    await keys.destroy_key("project-1")

    with pytest.raises(KeyMissing):
        await keys.create_key("project-1")


async def test_a_destroyed_key_is_not_left_on_the_disk(nats):
    keys = await keys_of(nats)
    key = await keys.create_key("project-1")
    store = nats.server.directory / "store"

    def on_disk():
        return any(key in path.read_bytes() for path in store.rglob("*.blk"))

    assert on_disk()
    await keys.destroy_key("project-1")

    assert not on_disk()


async def test_the_token_ring_signs_and_reads(nats):
    one, other = await keys_of(nats), await keys_of(nats)

    rings = await asyncio.gather(one.ensure_token_keys(), other.ensure_token_keys())

    assert rings[0] == rings[1] == await one.token_keys()
    ring = rings[0].keys
    assert len(set(ring)) == 2, "one that signs, and one that will"
    assert Fernet(ring[0]).decrypt(Fernet(rings[1].keys[0]).encrypt(b"x")) == b"x"
    assert abs(datetime.now(UTC) - rings[0].made_at) < timedelta(hours=1)


async def test_without_a_ring_there_is_none(nats):
    with pytest.raises(KeyMissing):
        await (await keys_of(nats)).token_keys()


async def test_the_next_key_was_known_before_it_signs(nats):
    keys = await keys_of(nats)
    first = (await keys.ensure_token_keys()).keys

    second = (await keys.rotate_token_keys()).keys
    third = (await keys.rotate_token_keys()).keys

    assert second[:2] == (first[1], first[0])
    assert third[:3] == (second[2], second[0], second[1])
    last = third
    for _ in range(TOKEN_KEYS_MAX):
        last = (await keys.rotate_token_keys()).keys
        assert len(set(last)) == TOKEN_KEYS_MAX
    assert not set(last) & set(third[:-1]), "the oldest are dropped"
    assert (await keys.token_keys()).keys == last
    assert (await (await keys_of(nats)).token_keys()).keys == last


async def test_a_ring_with_one_key_can_be_rotated(nats):
    """As it was made before a key was chosen in advance."""
    keys = await keys_of(nats)
    only = Fernet.generate_key()
    assert await keys._write(TOKEN_RING, json.dumps([only.decode()]).encode(), expected=0)

    ring = (await keys.rotate_token_keys()).keys

    assert len(ring) == 3
    assert ring[1] == only


async def test_all_keys_can_be_dropped(nats):
    keys = await keys_of(nats)
    before = await keys.ensure_token_keys()

    after = await keys.rotate_token_keys(end_tokens=True)

    assert len(after.keys) == 2
    assert not set(before.keys) & set(after.keys)


async def test_of_several_who_find_a_ring_old_one_rotates_it(nats):
    several = [await keys_of(nats) for _ in range(4)]
    seen = (await several[0].ensure_token_keys()).seq

    rings = await asyncio.gather(*(keys.rotate_token_keys(seen=seen) for keys in several))

    assert len(set(rings)) == 1
    assert len(rings[0].keys) == 3
