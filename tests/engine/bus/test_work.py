"""Work items reach the executor that owns them, once if nothing fails, again if something does."""

import asyncio
import contextlib

import msgspec
import pytest

from engine.bus.client import Bus, BusError
from engine.bus.work import dispatch, ensure_work_of, ensure_work_stream, follow_work
from engine.log import server
from engine.log.stream import call
from schemas.operation import Operation
from schemas.work import WorkItem


def an_item(ordinal, *, host="host-1", executor="hypervisor"):
    operation = Operation(
        operation_id=f"op-{ordinal}",
        kind="build",
        resource_kind="server",
        resource_id="s-1",
        host_id=host,
        executor=executor,
        generation=1,
        accepted_at=1,
        deadline=2,
        request_id="req-1",
        project_id="p-1",
    )
    return WorkItem(epoch=1, ordinal=ordinal, operation=operation)


class Agent:
    def __init__(self, bus, host="host-1", executors=("hypervisor",), *, fails=0):
        self.items: asyncio.Queue[WorkItem] = asyncio.Queue()
        self.fails = fails
        self.task = asyncio.create_task(follow_work(bus, host, executors, self.take))

    async def take(self, item):
        if self.fails:
            self.fails -= 1
            raise OSError("not now")
        self.items.put_nowait(item)

    async def ordinals(self, count):
        async with asyncio.timeout(30):
            return [(await self.items.get()).ordinal for _ in range(count)]

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def an_agent(*args, **options):
    agent = Agent(*args, **options)
    try:
        yield agent
    finally:
        await agent.stop()


async def test_items_arrive_in_order(nats):
    engine = await nats.connect()
    await ensure_work_stream(engine)
    async with an_agent(await nats.connect()) as agent:
        for ordinal in range(1, 101):
            await dispatch(engine, an_item(ordinal))

        assert await agent.ordinals(100) == list(range(1, 101))


async def test_items_sent_before_the_agent_came_wait_for_it(nats):
    engine = await nats.connect()
    await ensure_work_stream(engine)
    for ordinal in (1, 2, 3):
        await dispatch(engine, an_item(ordinal))

    async with an_agent(await nats.connect()) as agent:
        assert await agent.ordinals(3) == [1, 2, 3]


async def test_the_same_item_sent_again_is_dropped(nats):
    engine = await nats.connect()
    await ensure_work_stream(engine)
    async with an_agent(await nats.connect()) as agent:
        await dispatch(engine, an_item(1))
        await dispatch(engine, an_item(1))
        await dispatch(engine, an_item(2))

        assert await agent.ordinals(2) == [1, 2]


async def test_items_of_two_operations_at_one_ordinal_both_arrive(nats):
    """A new leader sends out all that is open, as of the ordinal it began at."""
    engine = await nats.connect()
    await ensure_work_stream(engine)
    first = an_item(7)
    second = msgspec.structs.replace(
        first, operation=msgspec.structs.replace(first.operation, operation_id="op-other")
    )
    async with an_agent(await nats.connect()) as agent:
        await dispatch(engine, first)
        await dispatch(engine, second)

        assert await agent.ordinals(2) == [7, 7]


async def test_each_host_and_executor_gets_its_own(nats):
    engine = await nats.connect()
    await ensure_work_stream(engine)
    async with (
        an_agent(await nats.connect(), "host-1", ["hypervisor"]) as hypervisor,
        an_agent(await nats.connect(), "host-1", ["storage"]) as storage,
        an_agent(await nats.connect(), "host-2", ["hypervisor", "storage"]) as both,
    ):
        await dispatch(engine, an_item(1))
        await dispatch(engine, an_item(2, executor="storage"))
        await dispatch(engine, an_item(3, host="host-2"))
        await dispatch(engine, an_item(4, host="host-2", executor="storage"))

        assert await hypervisor.ordinals(1) == [1]
        assert await storage.ordinals(1) == [2]
        assert sorted(await both.ordinals(2)) == [3, 4]


async def test_an_item_is_taken_from_the_queue_only_when_it_was_handled(nats):
    engine = await nats.connect()
    await ensure_work_stream(engine)
    async with an_agent(await nats.connect(), fails=1) as agent:
        await dispatch(engine, an_item(1))
        await dispatch(engine, an_item(2))

        assert await agent.ordinals(1) == [2]
        names = engine.subjects
        info = await call(engine, f"CONSUMER.INFO.{names.work_stream}.host-1-hypervisor")
        assert info["num_ack_pending"] >= 1
        assert info["ack_floor"]["stream_seq"] == 0


async def test_an_item_that_cannot_be_read_is_given_up(nats):
    engine = await nats.connect()
    await ensure_work_stream(engine)
    await ensure_work_of(engine, "host-1")
    async with an_agent(await nats.connect()) as agent:
        await engine.request(engine.subjects.work("host-1", "hypervisor"), b"junk", timeout_s=10)
        await dispatch(engine, an_item(1))

        assert await agent.ordinals(1) == [1]


async def test_making_stream_and_consumers_again_changes_nothing(nats):
    for _ in range(2):
        engine = await nats.connect()
        await ensure_work_stream(engine)
        await ensure_work_stream(engine)
        await ensure_work_of(engine, "host-1")

    info = await call(engine, f"STREAM.INFO.{engine.subjects.work_stream}")
    assert info["config"]["storage"] == "memory"
    assert info["state"]["consumer_count"] == 3


async def test_a_broker_that_has_forgotten_everything_is_set_up_again(tmp_path):
    running = await asyncio.to_thread(server.start, tmp_path)
    opened = []

    async def connect(user):
        password = running.credentials[user]
        bus = await Bus.connect(
            running.url, user=user, password=password, name="t", cell="embedded"
        )
        opened.append(bus)
        return bus

    engine = await connect("engine")
    await ensure_work_stream(engine)
    async with an_agent(await connect("agent")) as agent:
        await dispatch(engine, an_item(1))
        assert await agent.ordinals(1) == [1]

        running.process.kill()
        await asyncio.to_thread(running.process.wait, 10)
        running = await asyncio.to_thread(server.start, tmp_path)
        await dispatch(engine, an_item(2))

        assert await agent.ordinals(1) == [2]
    for bus in opened:
        await bus.close()
    running.stop()


async def test_without_a_broker_dispatch_ends_at_its_deadline(tmp_path):
    running = await asyncio.to_thread(server.start, tmp_path)
    password = running.credentials["engine"]
    engine = await Bus.connect(
        running.url, user="engine", password=password, name="t", cell="embedded"
    )
    await ensure_work_stream(engine)
    running.stop()

    with pytest.raises(BusError):
        await dispatch(engine, an_item(1), timeout_s=0.5)

    await engine.close()
