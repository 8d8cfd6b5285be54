"""What every log promises, in memory and on JetStream alike."""

import asyncio

import pytest
import pytest_asyncio

from engine.log.jetstream import ANNOUNCED_BYTES_MAX, BATCH_MAX
from engine.log.memory import MemoryLog
from engine.log.port import Log, StoredCommit, WrongLastSequence
from tests.conftest import Nats


@pytest_asyncio.fixture(params=["memory", "jetstream"])
async def log(request: pytest.FixtureRequest, nats: Nats) -> Log:
    return MemoryLog() if request.param == "memory" else await nats.log()


async def filled(log: Log, count: int) -> list[bytes]:
    data = [b'{"commit":"c%d"}' % number for number in range(count)]
    for number, one in enumerate(data):
        await log.append(one, expected_last=number)
    return data


async def taken(log: Log, count: int, after_seq: int = 0) -> list[StoredCommit]:
    found: list[StoredCommit] = []
    async with asyncio.timeout(20):
        commits = log.read(after_seq, follow=True)
        async for commit in commits:
            found.append(commit)
            if len(found) == count:
                break
        await commits.aclose()
    return found


async def test_an_empty_log_has_no_last_commit(log):
    assert await log.last() is None
    assert [commit async for commit in log.read()] == []


async def test_sequences_begin_at_one_and_have_no_gaps(log):
    assert [await log.append(b"x", expected_last=number) for number in range(3)] == [1, 2, 3]


async def test_what_was_appended_is_read_in_order(log):
    data = await filled(log, 3)

    found = [commit async for commit in log.read()]

    assert [commit.data for commit in found] == data
    assert [commit.seq for commit in found] == [1, 2, 3]
    assert all(commit.ts > 0 for commit in found)


async def test_reading_begins_after_a_sequence(log):
    await filled(log, 3)

    assert [commit.seq async for commit in log.read(2)] == [3]
    assert [commit.seq async for commit in log.read(3)] == []


async def test_the_last_commit_is_the_newest(log):
    data = await filled(log, 2)

    last = await log.last()

    assert last is not None
    assert (last.seq, last.data) == (2, data[-1])


@pytest.mark.parametrize("expected", [0, 1, 3, 10])
async def test_an_append_at_the_wrong_place_stores_nothing(log, expected):
    await filled(log, 2)

    with pytest.raises(WrongLastSequence) as raised:
        await log.append(b"late", expected_last=expected)

    assert raised.value.found == 2
    assert [commit.seq async for commit in log.read()] == [1, 2]


async def test_the_same_append_again_stores_nothing_and_says_where_it_lies(log):
    """So a writer that did not hear the answer can find out."""
    data = await filled(log, 3)

    assert await log.append(data[1], expected_last=1) == 2
    assert await log.append(b"same id, other bytes", expected_last=1, commit_id="c1") == 2
    with pytest.raises(WrongLastSequence):
        await log.append(data[1], expected_last=1, commit_id="another")
    assert [commit.data async for commit in log.read()] == data


async def test_of_two_writers_at_one_place_one_wins(log):
    outcomes = await asyncio.gather(
        log.append(b"one", expected_last=0),
        log.append(b"two", expected_last=0),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["WrongLastSequence", "int"]
    assert len([commit async for commit in log.read()]) == 1


async def test_appends_can_be_pipelined_under_predicted_sequences(log):
    numbers = await asyncio.gather(*(log.append(b"%d" % n, expected_last=n) for n in range(50)))

    assert numbers == list(range(1, 51))
    assert [int(commit.data) async for commit in log.read()] == list(range(50))


async def test_once_one_pipelined_append_is_refused_so_are_all_later_ones(log):
    expected = [0, 1, 2, 7, 4, 5]

    outcomes = await asyncio.gather(
        *(log.append(b"x", expected_last=n) for n in expected), return_exceptions=True
    )

    assert outcomes[:3] == [1, 2, 3]
    assert all(isinstance(outcome, WrongLastSequence) for outcome in outcomes[3:])


async def test_more_than_a_batch_is_read_whole(log):
    count = 2 * BATCH_MAX + 7
    await asyncio.gather(*(log.append(b"%d" % n, expected_last=n) for n in range(count)))

    assert [int(commit.data) async for commit in log.read()] == list(range(count))
    assert [commit.seq for commit in await taken(log, count)] == list(range(1, count + 1))


async def test_batches_hold_each_commit_once(log):
    count = BATCH_MAX + 3
    await asyncio.gather(*(log.append(b"%d" % n, expected_last=n) for n in range(count)))

    batches = [batch async for batch in log.read_batches(1)]

    assert all(batches)
    assert [c.seq for batch in batches for c in batch] == list(range(2, count + 1))


async def test_reading_without_following_ends_where_the_log_ended_at_the_start(log):
    await filled(log, 2)
    commits = log.read()

    first = await anext(commits)
    await log.append(b"later", expected_last=2)

    assert [first.seq] + [commit.seq async for commit in commits] == [1, 2]


async def test_a_follower_gets_what_is_there_and_what_comes(log):
    await filled(log, 2)
    following = asyncio.create_task(taken(log, 5))

    for number in range(2, 5):
        await log.append(b"new", expected_last=number)
        await asyncio.sleep(0)

    assert [commit.seq for commit in await following] == [1, 2, 3, 4, 5]


async def test_a_follower_gets_commits_too_big_to_be_announced_whole(log):
    following = asyncio.create_task(taken(log, 3))

    big = b"x" * (ANNOUNCED_BYTES_MAX + 1)
    for number, data in enumerate([b"small", big, b"small"]):
        await log.append(data, expected_last=number)

    assert [len(commit.data) for commit in await following] == [5, len(big), 5]


async def test_two_followers_get_the_same(log):
    following = [asyncio.create_task(taken(log, 20)) for _ in range(2)]

    await filled(log, 20)

    first, second = await asyncio.gather(*following)
    assert [c.data for c in first] == [c.data for c in second]


async def test_several_are_stored_at_once_or_not_at_all(log):
    await filled(log, 2)

    with pytest.raises(WrongLastSequence):
        await log.append_all([b"x", b"y"], expected_last=1)
    assert await log.append_all([b"a", b"b", b"c"], expected_last=2) == 5

    assert [commit.data async for commit in log.read(2)] == [b"a", b"b", b"c"]
    assert await log.end() == 5


async def test_the_end_of_an_empty_log_is_zero(log):
    assert await log.end() == 0


async def test_the_fence_alone_does_not_void_what_a_predecessor_has_in_flight(log):
    """Why `append_all` is there: a number that has come true again is no fence."""
    await filled(log, 4)
    await log.append(b"foreign", expected_last=4)

    first, second = await asyncio.gather(
        log.append(b"stale 5", expected_last=4),
        log.append(b"stale 6", expected_last=5),
        return_exceptions=True,
    )

    assert isinstance(first, WrongLastSequence)
    assert second == 6


async def test_as_many_at_once_as_a_predecessor_has_in_flight_void_all_of_those(log):
    await filled(log, 4)
    await log.append_all([b"foreign %d" % n for n in range(4)], expected_last=4)

    stale = await asyncio.gather(
        *(log.append(b"stale %d" % n, expected_last=4 + n) for n in range(4)),
        return_exceptions=True,
    )

    assert all(isinstance(outcome, WrongLastSequence) for outcome in stale)
    assert await log.end() == 8
