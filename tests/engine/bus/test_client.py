"""The bus: every wait ends, every answer finds its asker, and a lost connection comes back."""

import asyncio

import pytest

from engine.bus.client import Bus, BusError, BusTimeout, Disconnected, NoResponders
from engine.log import server


class Heard:
    """Collects what a subscription hears."""

    def __init__(self):
        self.messages = asyncio.Queue()

    async def __call__(self, message):
        self.messages.put_nowait(message)

    async def take(self, count):
        async with asyncio.timeout(20):
            return [await self.messages.get() for _ in range(count)]


async def test_a_request_gets_its_answer(nats):
    one, other = await nats.connect(), await nats.connect()

    async def answer(message):
        await message.respond(message.payload[::-1])

    await other.subscribe(f"{nats.cell}.echo", answer)

    answers = await asyncio.gather(
        *(one.request(f"{nats.cell}.echo", b"a%03d" % n, timeout_s=10) for n in range(200))
    )

    assert answers == [(b"a%03d" % n)[::-1] for n in range(200)]


async def test_nobody_there_is_told_at_once(nats):
    bus = await nats.connect()

    with pytest.raises(NoResponders):
        await bus.request(f"{nats.cell}.nobody", b"", timeout_s=60)


async def test_a_silent_answerer_is_given_up_on(nats):
    one, other = await nats.connect(), await nats.connect()

    async def say_nothing(message):
        pass

    await other.subscribe(f"{nats.cell}.silent", say_nothing)

    with pytest.raises(BusTimeout):
        await one.request(f"{nats.cell}.silent", b"", timeout_s=0.05)


async def test_messages_are_handled_in_order(nats):
    bus = await nats.connect()
    heard = Heard()

    async def handle(message):
        await asyncio.sleep(0)
        await heard(message)

    await bus.subscribe(f"{nats.cell}.numbers", handle)
    for number in range(100):
        await bus.publish(f"{nats.cell}.numbers", b"%d" % number)

    assert [int(message.payload) for message in await heard.take(100)] == list(range(100))


async def test_with_concurrency_one_slow_message_does_not_hold_the_others(nats):
    bus = await nats.connect()
    released = asyncio.Event()

    async def handle(message):
        if message.payload == b"slow":
            await released.wait()
        await message.respond(message.payload)

    await bus.subscribe(f"{nats.cell}.work", handle, concurrency=2)
    slow = asyncio.create_task(bus.request(f"{nats.cell}.work", b"slow", timeout_s=20))

    assert await bus.request(f"{nats.cell}.work", b"quick", timeout_s=20) == b"quick"
    assert not slow.done()
    released.set()
    assert await slow == b"slow"


async def test_a_handler_that_fails_loses_its_own_message_only(nats):
    bus = await nats.connect()

    async def handle(message):
        if message.payload == b"bad":
            raise ValueError("bad")
        await message.respond(b"fine")

    await bus.subscribe(f"{nats.cell}.some", handle)
    await bus.publish(f"{nats.cell}.some", b"bad")

    assert await bus.request(f"{nats.cell}.some", b"good", timeout_s=10) == b"fine"


async def test_of_a_queue_group_one_member_gets_each_message(nats):
    bus = await nats.connect()
    group, alone = Heard(), Heard()

    for _ in range(3):
        await (await nats.connect()).subscribe(f"{nats.cell}.jobs", group, queue="group")
    await bus.subscribe(f"{nats.cell}.jobs", alone)
    for number in range(30):
        await bus.publish(f"{nats.cell}.jobs", b"%d" % number)

    await alone.take(30)
    taken = sorted(int(message.payload) for message in await group.take(30))
    assert taken == list(range(30))
    assert group.messages.empty()


async def test_a_stopped_subscription_hears_nothing_more(nats):
    bus = await nats.connect()
    heard = Heard()
    subscription = await bus.subscribe(f"{nats.cell}.news", heard)
    await bus.publish(f"{nats.cell}.news", b"one")
    await heard.take(1)

    await subscription.stop()
    await subscription.stop()
    await bus.publish(f"{nats.cell}.news", b"two")
    await bus.flush()

    assert heard.messages.empty()


async def test_headers_travel(nats):
    bus = await nats.connect()
    heard = Heard()
    await bus.subscribe(f"{nats.cell}.news", heard)

    await bus.publish(f"{nats.cell}.news", b"x", {"Who": "me"})

    assert [message.headers for message in await heard.take(1)] == [{"Who": "me"}]


async def test_a_payload_over_the_limit_is_refused_and_harms_nothing(nats):
    bus = await nats.connect()

    with pytest.raises(BusError, match="payload"):
        await bus.publish(f"{nats.cell}.x", b"x" * (server.PAYLOAD_BYTES_MAX + 1))

    assert bus.connected


async def test_where_nobody_listens_connecting_ends_at_its_deadline():
    with pytest.raises(BusTimeout, match=r"127\.0\.0\.1:1"):
        await Bus.connect(
            "nats://127.0.0.1:1", user="u", password="p", name="t", cell="c", timeout_s=0.3
        )


async def test_a_closed_bus_says_so(nats):
    bus = await nats.connect()
    await bus.close()
    await bus.close()

    with pytest.raises(BusError):
        await bus.publish(f"{nats.cell}.x", b"")
    assert bus.closed.is_set()


async def test_who_waits_when_the_broker_dies_is_told_and_all_comes_back(tmp_path):
    running = await asyncio.to_thread(server.start, tmp_path)
    cell = "embedded"

    async def connect():
        password = running.credentials["admin-store"]
        return await Bus.connect(
            running.url, user="admin-store", password=password, name="t", cell=cell
        )

    asking, answering = await connect(), await connect()
    asked = asyncio.Event()
    back = asyncio.Event()
    silent = True

    async def handle(message):
        asked.set()
        if not silent:
            await message.respond(b"here")

    async def on_reconnect():
        back.set()

    asking.on_reconnect.append(on_reconnect)
    await answering.subscribe(f"{cell}.q", handle)
    waiting = asyncio.create_task(asking.request(f"{cell}.q", b"", timeout_s=600))
    await asked.wait()

    running.process.kill()
    await asyncio.to_thread(running.process.wait, 10)
    with pytest.raises(Disconnected):
        await waiting
    silent = False
    running = await asyncio.to_thread(server.start, tmp_path)
    async with asyncio.timeout(20):
        await back.wait()
        while True:
            try:
                answer = await asking.request(f"{cell}.q", b"", timeout_s=10)
                break
            except NoResponders:  # the other side is not back yet
                await asyncio.sleep(0.01)

    assert answer == b"here"
    for bus in (asking, answering):
        await bus.close()
    running.stop()
