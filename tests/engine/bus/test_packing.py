"""Large answers travel packed, small ones as they are."""

import json

import pytest

from engine.bus.packing import MAGIC, PACKED_FROM, packed, unpacked


async def test_small_payloads_are_left_alone():
    for payload in (b"", b"{}", b"x" * (PACKED_FROM - 1)):
        assert await packed(payload) == payload
        assert await unpacked(payload) == payload


async def test_large_payloads_come_back_as_they_were():
    payload = json.dumps([{"server": n} for n in range(100_000)]).encode()

    sent = await packed(payload)

    assert len(sent) < len(payload) / 5
    assert await unpacked(sent) == payload


async def test_what_is_damaged_is_not_believed():
    sent = await packed(b"x" * PACKED_FROM)
    for damaged in (sent[:-9], MAGIC + b"nonsense", sent[:40] + b"\0" + sent[41:]):
        with pytest.raises(ValueError, match="the answer is"):
            await unpacked(damaged)


async def test_an_answer_larger_than_a_message_arrives(nats):
    asking, answering = await nats.connect(), await nats.connect()
    answer = json.dumps([{"server": n} for n in range(1_000_000)]).encode()

    async def respond(message):
        await message.respond(answer)

    await answering.subscribe(f"{nats.cell}.large", respond)

    assert len(answer) > 8 * 2**20
    assert await asking.request(f"{nats.cell}.large", b"", timeout_s=30) == answer
