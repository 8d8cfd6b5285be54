"""The lease: one of several gets it, a silent holder loses it, a lost broker decides nothing."""

import asyncio
from itertools import count

import pytest
import pytest_asyncio

from engine.bus import lease as lease_module
from engine.bus.client import Bus
from engine.bus.lease import Lease, LeaseBucket, LeaseUnknown
from engine.log import server
from tests.conftest import Nats


class Clock:
    """A monotonic clock that moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture
async def bucket(nats: Nats) -> LeaseBucket:
    bucket = LeaseBucket(await nats.connect())
    await bucket.ensure()
    return bucket


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LOOK_S", 0.01)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.01)


_micros = count(1)


def lease(bucket: LeaseBucket, name: str, clock: Clock | None = None) -> Lease:
    return Lease(
        bucket,
        node=name.rstrip("'"),
        candidate=name,
        clock=lambda: next(_micros),
        monotonic=clock or Clock(),
    )


async def holder(bucket: LeaseBucket) -> str:
    _, held = await bucket.get()
    assert held is not None
    return held.candidate


async def test_the_first_who_asks_has_it_at_once(quick, bucket):
    await lease(bucket, "a").acquire()

    assert await holder(bucket) == "a"


async def test_of_many_who_ask_at_once_one_gets_it(quick, bucket):
    asking = [asyncio.create_task(lease(bucket, f"c{n}").acquire()) for n in range(8)]
    async with asyncio.timeout(20):
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)

    assert len(done) == 1
    for task in waiting:
        task.cancel()


async def test_a_standby_waits_while_the_holder_renews(quick, bucket):
    first, clock = lease(bucket, "a"), Clock()
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    asking = asyncio.create_task(lease(bucket, "b", clock).acquire())
    revision, _ = await bucket.get()
    async with asyncio.timeout(20):
        for _ in range(5):
            # It looks more often than the lease lasts, and sees a renewal each time.
            clock.now += lease_module.LEASE_S * 0.9
            seen = revision
            while (revision := (await bucket.get())[0]) < seen + 3:
                assert not asking.done()
    assert await holder(bucket) == "a"
    keeping.cancel()
    asking.cancel()


async def test_a_silent_holder_loses_it_and_is_told_when_it_wakes(quick, bucket):
    first, clock = lease(bucket, "a"), Clock()
    await first.acquire()
    asking = asyncio.create_task(lease(bucket, "b", clock).acquire())
    async with asyncio.timeout(20):
        while not asking.done():
            clock.now += lease_module.LEASE_S / 4
            await asyncio.sleep(0.02)
        await first.keep()

    assert await holder(bucket) == "b"


async def test_a_lease_given_up_is_free_at_once(quick, bucket):
    first = lease(bucket, "a")
    await first.acquire()

    await first.release()

    async with asyncio.timeout(20):
        await lease(bucket, "b").acquire()


async def test_who_was_killed_takes_its_own_lease_again_at_once(quick, bucket):
    await lease(bucket, "a").acquire()

    async with asyncio.timeout(20):
        await lease(bucket, "a'").acquire()

    assert await holder(bucket) == "a'"


async def test_a_lease_that_another_has_taken_cannot_be_given_up(quick, bucket):
    first = lease(bucket, "a")
    await first.acquire()
    await lease(bucket, "a'").acquire()

    await first.release()

    assert await holder(bucket) == "a'"


async def test_a_holder_can_confirm_its_lease_at_any_time(quick, bucket):
    first = lease(bucket, "a")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())

    assert await asyncio.gather(*(first.confirm() for _ in range(20))) == [True] * 20

    keeping.cancel()
    await lease(bucket, "a'").acquire()
    assert await first.confirm() is False


async def test_while_the_broker_is_away_nobody_loses_or_gains_it(quick, tmp_path):
    broker = await asyncio.to_thread(server.start, tmp_path)
    bus = await Bus.connect(
        broker.url,
        user="admin-store",
        password=broker.credentials["admin"],
        name="test",
        cell="embedded",
    )
    bucket = LeaseBucket(bus)
    await bucket.ensure()
    first = lease(bucket, "a")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    asking = asyncio.create_task(lease(bucket, "b").acquire())
    for _ in range(2):  # answers come in order, so the other has looked, too
        assert await name_of_holder(bucket) == "a"
    await asyncio.to_thread(broker.stop)
    with pytest.raises(LeaseUnknown):
        await bucket.get()

    broker = await asyncio.to_thread(server.start, tmp_path)
    async with asyncio.timeout(30):
        # The bucket was in memory; the holder makes it anew and keeps its lease.
        while await name_of_holder(bucket) != "a":
            assert not keeping.done()

    assert not keeping.done()
    assert not asking.done()
    keeping.cancel()
    asking.cancel()
    await bus.close()
    await asyncio.to_thread(broker.stop)


async def name_of_holder(bucket: LeaseBucket) -> str:
    try:
        _, held = await bucket.get()
    except LeaseUnknown:
        return ""
    return held.candidate if held is not None else ""
