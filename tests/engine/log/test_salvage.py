"""What a broker's files hold is found, damage or not, and put together only by the chain."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log.salvage import join, records
from engine.log.verify import Walk
from tests.engine.log.test_verify import a_log

SUBJECT = b"c.log"


def a_record(seq, data, subject=b"c.log.0001", headers=b""):
    body = subject + (struct.pack("<I", len(headers)) + headers if headers else b"") + data
    length = 22 + len(body) + 8
    flag = (1 << 31) if headers else 0
    return struct.pack("<IQQH", length | flag, seq, 1_000 + seq, len(subject)) + body + b"\0" * 8


def a_block(messages, headers=b"NATS/1.0\r\nNats-Expected-Last-Sequence: 1\r\n\r\n"):
    return b"".join(a_record(seq, data, headers=headers) for seq, data in messages)


@pytest.mark.parametrize("headers", [b"", b"NATS/1.0\r\nA: b\r\n\r\n"])
def test_a_whole_block_is_read(headers):
    messages, _ = a_log()

    assert list(records(a_block(messages, headers), SUBJECT)) == messages


def test_other_subjects_and_tombstones_are_passed_over():
    messages, _ = a_log()
    strange = a_record(7, b"x", subject=b"c.work.0001") + a_record(1 << 63, b"", subject=b"")

    block = strange + a_block(messages[:1]) + strange + a_block(messages[1:])

    assert list(records(block, SUBJECT)) == messages


@given(data=st.data())
def test_one_damage_costs_one_record_at_most(data):
    messages, _ = a_log(((1,), (0, 2), (3,), (1,), (2,)))
    block = a_block(messages)
    place = data.draw(st.integers(0, len(block) - 1))
    size = data.draw(st.integers(1, 3))
    damaged = block[:place] + bytes(b ^ 0x5A for b in block[place : place + size])
    damaged += block[place + size :]

    found = list(records(damaged, SUBJECT))

    assert len(set(messages) - set(found)) <= 2  # two, where the damage is across the border


@given(block=st.binary(max_size=600))
def test_noise_is_no_record_and_no_error(block):
    list(records(block + b"c.log.0001" + block, SUBJECT))


@given(
    size=st.integers(1, 12),
    holes=st.lists(st.sets(st.integers(1, 12)), min_size=1, max_size=3),
    bogus=st.booleans(),
)
def test_sources_complete_each_other(size, holes, bogus):
    messages, _ = a_log(((1,),) * size)
    sources = [[m for m in messages if m[0] not in missing] for missing in holes]
    if bogus:  # a damaged number in the last one
        sources[-1].insert(0, (10**15, b"x"))
    lost = set.intersection(*holes)
    walk = Walk()

    found = [(seq, data) for seq, data, _ in join(walk, sources)]

    end = min((seq for seq in lost if seq <= size), default=size + 1)
    assert found == messages[: end - 1]
    assert walk.commits == end - 1


def test_what_does_not_follow_is_not_taken():
    messages, _ = a_log()
    other, _ = a_log(((1,), (0, 1), (3,)))

    walk = Walk()
    found = [data for _, data, _ in join(walk, [[other[1]], [messages[0], messages[1]], other])]

    assert found[:1] == [messages[0][1]]
    assert found[1] in {messages[1][1], other[1][1]}
