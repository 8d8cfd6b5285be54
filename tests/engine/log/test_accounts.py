"""Who may say what: each identity does its own work, and nothing beyond, replies included."""

import asyncio

import msgspec
import pytest
import pytest_asyncio

from engine.bus.client import Bus, BusError, BusTimeout, NotPermitted
from engine.bus.keys import Keys
from engine.bus.work import dispatch, ensure_work_of, ensure_work_stream, follow_work
from engine.log import server
from engine.log.jetstream import JetStreamLog
from engine.log.replay import replay
from engine.log.stream import StreamApiError, call, ensure_log
from schemas.operation import Operation
from schemas.work import WorkItem

CELL = "cell-a"
HOST = "host-1"
LOG = f"LOG-{CELL}-0001"
WORK = f"WORK-{CELL}"
KEYS = f"KV_KEYS-{CELL}"
SERVICES = ("engine", "edge", "agent", "history")


class Broker:
    def __init__(self, running):
        self.running = running
        self.opened = []

    async def connect(self, user, *, store=False):
        bus = await Bus.connect(
            self.running.url,
            user=user,
            password=self.running.credentials[user],
            name="test",
            cell=CELL,
            store=store,
        )
        self.opened.append(bus)
        return bus


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    started = server.start(tmp_path_factory.mktemp("accounts"), cell=CELL, host=HOST)
    yield started
    started.stop()


@pytest_asyncio.fixture
async def broker(running):
    one = Broker(running)
    engine = await one.connect("engine")
    await ensure_log(engine)
    await ensure_work_stream(engine)
    await ensure_work_of(engine, HOST)
    await Keys(engine).ensure_bucket()
    yield one
    for bus in one.opened:
        await bus.close()


def an_item(ordinal, host=HOST):
    operation = Operation(
        operation_id=f"op-{ordinal}",
        kind="build",
        resource_kind="server",
        resource_id="s-1",
        host_id=host,
        executor="hypervisor",
        generation=1,
        accepted_at=1,
        deadline=2,
        request_id="req-1",
        project_id="p-1",
    )
    return WorkItem(epoch=1, ordinal=ordinal, operation=operation)


async def log_ends_at(broker):
    last = await JetStreamLog(await broker.connect("engine")).last()
    return last.seq if last else 0


async def test_the_engine_appends_and_readers_read(broker):
    end = await log_ends_at(broker)
    log = JetStreamLog(await broker.connect("engine"))

    seq = await log.append(b"commit", expected_last=end)

    for user in ("engine", "edge", "history"):
        found = [c async for c in JetStreamLog(await broker.connect(user)).read(end)]
        assert [(c.seq, c.data) for c in found] == [(seq, b"commit")]
        password = broker.running.credentials[user]
        assert list(replay(broker.running.url, user, password, LOG, end)) == [(seq, b"commit")]


async def test_readers_follow_what_the_engine_appends(broker):
    end = await log_ends_at(broker)
    log = JetStreamLog(await broker.connect("engine"))
    following = JetStreamLog(await broker.connect("history")).read(end, follow=True)

    await log.append(b"one", expected_last=end)
    first = await anext(following)
    await log.append(b"two", expected_last=end + 1)
    second = await anext(following)

    assert (first.data, second.data) == (b"one", b"two")
    await following.aclose()


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_reaches_the_log_by_saying_its_subject(broker, user):
    """The engine's own talk is in the other account too: only its store identity appends."""
    before = await log_ends_at(broker)
    bus = await broker.connect(user)

    with pytest.raises((NotPermitted, BusError)):
        await bus.request(f"{CELL}.log", b"junk", timeout_s=1)

    assert await log_ends_at(broker) == before


@pytest.mark.parametrize("user", [*SERVICES, "engine-store"])
@pytest.mark.parametrize("what", ["DELETE", "PURGE", "UPDATE", "MSG.DELETE", "SNAPSHOT", "RESTORE"])
async def test_nobody_but_the_administrator_can_alter_the_log(broker, user, what):
    store = user == "engine-store"
    bus = await broker.connect(user.removesuffix("-store"), store=store)

    with pytest.raises(NotPermitted):
        await bus.request(f"$JS.API.STREAM.{what}.{LOG}", b"{}", timeout_s=5)

    assert (await call(await broker.connect("admin"), f"STREAM.INFO.{LOG}"))["config"][
        "name"
    ] == LOG


async def test_the_administrator_may_update_but_the_server_denies_purging(broker):
    admin = await broker.connect("admin")

    with pytest.raises(StreamApiError):
        await call(admin, f"STREAM.PURGE.{LOG}", {})
    config = (await call(admin, f"STREAM.INFO.{LOG}"))["config"]
    await call(admin, f"STREAM.UPDATE.{LOG}", config)


async def test_a_reply_cannot_be_sent_into_the_log_or_the_streams_api(broker):
    """JetStream answers wherever it is told to; so those who may ask it do so across accounts."""
    engine = await broker.connect("engine")
    edge = await broker.connect("edge")
    agent = await broker.connect("agent")
    before = await log_ends_at(broker)
    await JetStreamLog(engine).append(b"commit", expected_last=before)
    await dispatch(engine, an_item(1))

    targets = [f"{CELL}.log", f"$JS.API.STREAM.DELETE.{LOG}", f"$JS.API.STREAM.DELETE.{KEYS}"]
    for target in targets:
        await edge.publish(f"$JS.API.DIRECT.GET.{LOG}", b'{"seq":1}', reply=target)
        await edge.publish(f"$KV.KEYS-{CELL}.x", b"value", reply=target)
        queue = f"{WORK}.{HOST}-hypervisor"
        pull = b'{"batch":1,"no_wait":true}'
        await agent.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue}", pull, reply=target)
        ack = f"$JS.ACK.{queue}.1.1.1.1.0"
        await agent.publish(ack, b"+ACK", reply=target)
        await agent.publish(ack, b'+NXT {"batch":1,"no_wait":true}', reply=target)
        await agent.publish(f"{CELL}.submit.agent.{HOST}", b"x", reply=target)
    await edge.flush()
    await agent.flush()
    await engine.flush()

    assert await log_ends_at(broker) == before + 1
    for stream in (LOG, KEYS, WORK):
        assert (await call(engine, f"STREAM.INFO.{stream}"))["config"]["name"] == stream


async def test_answers_go_to_inboxes_only(broker):
    engine = await broker.connect("engine")
    agent = await broker.connect("agent")
    heard = asyncio.Event()
    leaked: list[bytes] = []

    async def answer(message):
        await message.respond(b"answer")
        heard.set()

    async def on_api(message):
        leaked.append(message.payload)

    await engine.subscribe(f"{CELL}.submit.agent.*", answer)
    await engine.subscribe(f"{CELL}.submit.api", on_api)
    await agent.publish(f"{CELL}.submit.agent.{HOST}", b"x", reply=f"{CELL}.submit.api")
    async with asyncio.timeout(10):
        await heard.wait()
    await engine.flush()

    assert leaked == []


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("agent", f"{CELL}.submit.api"),
        ("agent", f"{CELL}.submit.agent.host-2"),
        ("agent", f"{CELL}.desired.host-2"),
        ("agent", f"{CELL}.heartbeat.host-2"),
        ("agent", f"{CELL}.engine.status"),
        ("agent", f"{CELL}.work.{HOST}.hypervisor"),
        ("agent", f"{CELL}.feed.1"),
        ("agent", f"$JS.API.DIRECT.GET.{LOG}"),
        ("agent", f"$JS.API.DIRECT.GET.{KEYS}.$KV.KEYS-{CELL}.token=2Ering"),
        ("agent", f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.host-2-hypervisor"),
        ("agent", f"$KV.KEYS-{CELL}.x"),
        ("edge", f"{CELL}.submit.agent.{HOST}"),
        ("edge", f"{CELL}.heartbeat.{HOST}"),
        ("edge", f"{CELL}.engine.bootstrap"),
        ("edge", f"{CELL}.work.{HOST}.hypervisor"),
        ("edge", f"{CELL}.projected.node-1"),
        ("edge", f"$JS.API.CONSUMER.MSG.NEXT.{WORK}.{HOST}-hypervisor"),
        ("history", f"{CELL}.submit.api"),
        ("history", f"{CELL}.engine.status"),
        ("history", f"$KV.KEYS-{CELL}.x"),
        ("history", f"$JS.API.DIRECT.GET.{KEYS}.$KV.KEYS-{CELL}.token=2Ering"),
    ],
)
async def test_each_identity_is_refused_what_is_not_its_work(broker, user, subject):
    bus = await broker.connect(user)

    with pytest.raises(NotPermitted):
        await bus.request(subject, b"", timeout_s=5)


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("agent", "_INBOX_edge.>"),
        ("agent", "_INBOX_engine.>"),
        ("agent", f"{CELL}.submit.>"),
        ("agent", f"{CELL}.ask.host-2.console"),
        ("agent", ">"),
        ("edge", "_INBOX_agent.>"),
        ("edge", f"{CELL}.submit.api"),
        ("edge", f"{CELL}.submit.agent.*"),
        ("history", "_INBOX_edge.>"),
        ("history", f"{CELL}.submit.>"),
        ("engine", "_INBOX_edge.>"),
    ],
)
async def test_nobody_listens_to_what_is_meant_for_others(broker, user, subject):
    bus = await broker.connect(user)

    with pytest.raises(NotPermitted):
        await bus.subscribe(subject, None)


@pytest.mark.parametrize(
    ("asker", "subject", "answerer"),
    [
        ("edge", f"{CELL}.submit.api", "engine"),
        ("edge", f"{CELL}.engine.status", "engine"),
        ("admin", f"{CELL}.engine.bootstrap", "engine"),
        ("admin", f"{CELL}.submit.api", "engine"),
        ("agent", f"{CELL}.submit.agent.{HOST}", "engine"),
        ("agent", f"{CELL}.desired.{HOST}", "engine"),
        ("agent", f"{CELL}.metadata.{HOST}", "edge"),
        ("edge", f"{CELL}.ask.{HOST}.console", "agent"),
        ("edge", f"{CELL}.history.usage", "history"),
        ("admin", f"{CELL}.history.verify", "history"),
    ],
)
async def test_each_identity_can_do_its_work(broker, asker, subject, answerer):
    answering = await broker.connect(answerer)
    asking = await broker.connect(asker)
    await answering.subscribe(subject, lambda message: message.respond(b"yes"))

    assert await asking.request(subject, b"?", timeout_s=5) == b"yes"


@pytest.mark.parametrize(
    ("speaker", "subject", "listener", "pattern"),
    [
        ("agent", f"{CELL}.heartbeat.{HOST}", "engine", f"{CELL}.heartbeat.*"),
        ("history", f"{CELL}.projected.node-1", "edge", f"{CELL}.projected.*"),
        ("engine", f"{CELL}.feed.7", "history", f"{CELL}.feed.*"),
    ],
)
async def test_what_is_announced_is_heard(broker, speaker, subject, listener, pattern):
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message):
        heard.put_nowait(message.payload)

    await (await broker.connect(listener)).subscribe(pattern, hear)
    await (await broker.connect(speaker)).publish(subject, b"news")

    async with asyncio.timeout(10):
        assert await heard.get() == b"news"


async def test_an_agent_takes_its_own_work_and_edges_share_the_keys(broker):
    engine = await broker.connect("engine")
    agent = await broker.connect("agent")
    edge = await broker.connect("edge")
    taken: asyncio.Queue[int] = asyncio.Queue()

    async def take(item):
        taken.put_nowait(item.ordinal)

    following = asyncio.create_task(follow_work(agent, HOST, ["hypervisor"], take))
    await dispatch(engine, an_item(90))
    async with asyncio.timeout(20):
        while await taken.get() != 90:
            pass
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    ring = await Keys(engine).ensure_token_keys()

    assert await Keys(edge).token_keys() == ring
    assert await Keys(edge).create_key("project-1") == await Keys(engine).get_key("project-1")


async def test_an_agent_cannot_make_consumers(broker):
    agent = await broker.connect("agent")
    body = msgspec.json.encode({"stream_name": WORK, "config": {"deliver_subject": "x"}})

    with pytest.raises((NotPermitted, BusTimeout)):
        await agent.request(f"$JS.API.CONSUMER.CREATE.{WORK}", body, timeout_s=2)
