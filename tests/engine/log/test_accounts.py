"""Who may say what: each identity does its own work, and nothing beyond, replies included."""

import asyncio
import contextlib

import msgspec
import pytest
import pytest_asyncio

from engine.bus.access import (
    append_access,
    ensure_access_stream,
    first_access,
    read_access,
)
from engine.bus.client import Bus, BusError, BusTimeout, NoResponders, NotPermitted
from engine.bus.keys import Keys
from engine.bus.work import dispatch, ensure_work_of, ensure_work_stream, follow_work
from engine.log import server
from engine.log.jetstream import JetStreamLog
from engine.log.replay import replay
from engine.log.stream import StreamApiError, call, ensure_log
from schemas.operation import Operation
from schemas.work import WorkItem
from tests.deployed import Deployed

CELL = "cell-a"
HOST = "host-1"
LOG = f"LOG-{CELL}-0001"
WORK = f"WORK-{CELL}"
KEYS = f"KV_KEYS-{CELL}"
ACCESS = f"ACCESS-{CELL}"
SERVICES = ("engine", "edge", "agent", "history", "courier")


class Embedded:
    """The broker that `up` starts: one host, whose agent is called just so."""

    agent = "agent"

    def __init__(self, root):
        self.running = server.start(root, cell=CELL, host=HOST)
        self.url = self.running.url
        self.authority = ""

    def password(self, user):
        return self.running.credentials[user]

    def stop(self):
        self.running.stop()


class FromFiles:
    """Three nodes as `cumulog admin nats-config` configures them, for two hosts, under TLS."""

    agent = f"agent.{HOST}"

    def __init__(self, root):
        self.deployed = Deployed(root, CELL)
        assert self.deployed.write().returncode == 0
        self.deployed.start()
        prepared = self.deployed.prepare()
        assert prepared.returncode == 0, prepared.stderr
        self.url = self.deployed.components["admin"]["nats_url"]
        self.authority = self.deployed.components["admin"]["nats_ca"]

    def password(self, user):
        return self.deployed.components[user]["nats_password"]

    def stop(self):
        self.deployed.stop()


class Broker:
    def __init__(self, running):
        self.running = running
        self.opened = []

    def read(self, user, after_seq):
        user = self.running.agent if user == "agent" else user
        password, authority = self.running.password(user), self.running.authority
        return list(replay(self.running.url, user, password, LOG, after_seq, authority=authority))

    async def connect(self, user, *, store=False):
        user = self.running.agent if user == "agent" else user
        bus = await Bus.connect(
            self.running.url,
            user=user,
            password=self.running.password(user),
            name="test",
            cell=CELL,
            store=store,
            authority=self.running.authority,
        )
        self.opened.append(bus)
        return bus


@pytest.fixture(scope="module", params=[Embedded, FromFiles])
def running(request, tmp_path_factory):
    started = request.param(tmp_path_factory.mktemp("accounts"))
    yield started
    started.stop()


@pytest_asyncio.fixture
async def broker(running):
    one = Broker(running)
    replicas = 3 if running.authority else 1
    admin = await one.connect("admin")
    await ensure_log(admin, replicas=replicas)
    await Keys(admin).ensure_bucket(replicas=replicas)
    await ensure_access_stream(admin, replicas=replicas)
    engine = await one.connect("engine")
    await ensure_work_stream(engine)
    await ensure_work_of(engine, HOST)
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
    return await JetStreamLog(await broker.connect("engine")).end()


async def test_the_engine_appends_and_readers_read(broker):
    end = await log_ends_at(broker)
    log = JetStreamLog(await broker.connect("engine"))

    seq = await log.append(b"commit", expected_last=end)

    for user in ("engine", "edge", "history"):
        found = [c async for c in JetStreamLog(await broker.connect(user)).read(end)]
        assert [(c.seq, c.data) for c in found] == [(seq, b"commit")]
        assert await asyncio.to_thread(broker.read, user, end) == [(seq, b"commit")]
    assert await JetStreamLog(await broker.connect("history")).end() == seq


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
        await bus.request(f"{CELL}.log.0001", b"junk", timeout_s=1)

    assert await log_ends_at(broker) == before


@pytest.mark.parametrize("user", [*SERVICES, "engine-store"])
@pytest.mark.parametrize("what", ["DELETE", "PURGE", "UPDATE", "MSG.DELETE", "SNAPSHOT", "RESTORE"])
async def test_nobody_but_the_administrator_can_alter_the_log(broker, user, what):
    store = user == "engine-store"
    bus = await broker.connect(user.removesuffix("-store"), store=store)

    for stream in (LOG, KEYS, ACCESS) if what != "MSG.DELETE" else (LOG, ACCESS):
        with pytest.raises(NotPermitted):
            await bus.request(f"$JS.API.STREAM.{what}.{stream}", b"{}", timeout_s=5)

    assert (await call(await broker.connect("admin"), f"STREAM.INFO.{LOG}"))["config"][
        "name"
    ] == LOG


@pytest.mark.parametrize("user", [*SERVICES, "engine-store"])
async def test_nobody_but_the_administrator_makes_streams(broker, user):
    """What a stream republishes, its configuration says: whoever makes one speaks anywhere."""
    bus = await broker.connect(user.removesuffix("-store"), store=user == "engine-store")

    for stream in (LOG, KEYS, ACCESS, "OTHER"):
        with pytest.raises(NotPermitted):
            await bus.request(f"$JS.API.STREAM.CREATE.{stream}", b"{}", timeout_s=5)


@pytest.mark.parametrize("user", [*SERVICES, "engine-store"])
async def test_nobody_but_the_administrator_makes_consumers_of_the_log(broker, user):
    """What a consumer delivers goes where it says, in the name of the server."""
    bus = await broker.connect(user.removesuffix("-store"), store=user == "engine-store")

    for stream in (LOG, ACCESS):
        with pytest.raises(NotPermitted):
            await bus.request(f"$JS.API.CONSUMER.CREATE.{stream}.x", b"{}", timeout_s=5)


async def test_edges_tell_who_asked_nodes_read_it_and_the_administrator_may_purge_it(broker):
    edge, history = await broker.connect("edge"), await broker.connect("history")

    seq = await append_access(edge, "edge-1", f"edge-1.b.{asyncio.get_running_loop().time()}", b"x")

    async with asyncio.timeout(20):
        while (seq, b"x") not in await read_access(history, seq - 1):
            pass  # a node of a cluster may lag
    admin = await broker.connect("admin")
    await call(admin, f"STREAM.PURGE.{ACCESS}", {})
    async with asyncio.timeout(20):
        while await first_access(history):
            pass


async def test_the_administrator_may_update_but_the_server_denies_purging(broker):
    admin = await broker.connect("admin")

    with pytest.raises(StreamApiError):
        await call(admin, f"STREAM.PURGE.{LOG}", {})
    config = (await call(admin, f"STREAM.INFO.{LOG}"))["config"]
    await call(admin, f"STREAM.UPDATE.{LOG}", config)


async def accesses(admin):
    """Return what the access log's stream holds."""
    return (await call(admin, f"STREAM.INFO.{ACCESS}"))["state"]


async def test_a_reply_cannot_be_sent_into_the_log_or_the_streams_api(broker):
    """JetStream answers wherever it is told to; so those who may ask it do so across accounts."""
    engine = await broker.connect("engine")
    edge = await broker.connect("edge")
    agent = await broker.connect("agent")
    admin = await broker.connect("admin")
    before, last_access = await log_ends_at(broker), (await accesses(admin))["last_seq"]
    await JetStreamLog(engine).append(b"commit", expected_last=before)
    await dispatch(engine, an_item(1))

    deletes = [f"$JS.API.STREAM.DELETE.{stream}" for stream in (LOG, KEYS, ACCESS)]
    targets = [f"{CELL}.log.0001", *deletes, f"$JS.API.STREAM.PURGE.{ACCESS}"]
    for target in targets:
        await edge.publish(f"$JS.API.DIRECT.GET.{LOG}", b'{"seq":1}', reply=target)
        await edge.publish(f"$KV.KEYS-{CELL}.x", b"value", reply=target)
        await edge.publish(f"{CELL}.access.x", b"{}", reply=target)
        queue = f"{WORK}.{HOST}-hypervisor"
        pull = b'{"batch":1,"no_wait":true}'
        await agent.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue}", pull, reply=target)
        ack = f"$JS.ACK.{queue}.1.1.1.1.0"
        await agent.publish(ack, b"+ACK", reply=target)
        await agent.publish(ack, b'+NXT {"batch":1,"no_wait":true}', reply=target)
        await agent.publish(f"{CELL}.submit.agent.{HOST}", b"x", reply=target)
    hands = engine.store
    # To append is the engine's own right; to delete is nobody's.
    for target in [*targets[1:], f"API.STREAM.DELETE.{LOG}"]:
        await hands.publish(f"$JS.API.DIRECT.GET.{LOG}", b'{"seq":1}', reply=target)
        await hands.publish(f"$JS.API.STREAM.INFO.{LOG}", b"", reply=target)
        await hands.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue}", pull, reply=target)
        await hands.publish(f"$KV.KEYS-{CELL}.x", b"", reply=target)
        # A consumer of the work, which the engine may make, that delivers to the log's API.
        config = {"name": "x", "deliver_subject": target, "ack_policy": "none"}
        body = msgspec.json.encode({"stream_name": WORK, "config": config})
        with contextlib.suppress(BusError):
            await hands.request(f"$JS.API.CONSUMER.CREATE.{WORK}.x", body, timeout_s=5)
        with contextlib.suppress(BusError):
            await hands.request(f"$JS.API.CONSUMER.DELETE.{WORK}.x", b"", timeout_s=5)
    for bus in (edge, agent, engine, hands):
        await bus.flush()

    assert await log_ends_at(broker) == before + 1
    for stream in (LOG, KEYS, WORK):
        assert (await call(engine, f"STREAM.INFO.{stream}"))["config"]["name"] == stream
    # What was published is stored a moment later; none of it has been purged.
    async with asyncio.timeout(20):
        while (told := await accesses(admin))["last_seq"] < last_access + len(targets):
            pass
    assert told["messages"] >= len(targets)


async def test_what_an_agent_pulls_is_not_delivered_as_a_key_or_an_acknowledgement(broker):
    """The answer to a pull may be empty: an acknowledgement, or the end of a key."""
    engine = await broker.connect("engine")
    agent = await broker.connect("agent")
    keys = Keys(engine)
    key = await Keys(await broker.connect("edge")).create_key("kept")
    await ensure_work_of(engine, "host-2")
    await dispatch(engine, an_item(77, "host-2"))
    others = f"{WORK}.host-2-hypervisor"
    before = await call(engine, f"CONSUMER.INFO.{others}")
    pull = b'{"batch":1,"no_wait":true}'
    for target in (
        f"$KV.KEYS-{CELL}.kept",
        f"$JS.ACK.{others}.1.1.1.1.0",
        f"{CELL}.submit.agent.host-2",
        f"{CELL}.work.host-2.hypervisor",
    ):
        for executor in ("hypervisor", "storage"):
            queue = f"{WORK}.{HOST}-{executor}"
            await agent.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue}", pull, reply=target)
            await agent.publish(f"$JS.ACK.{queue}.1.1.1.1.0", b"+ACK", reply=target)
    await agent.flush()
    await engine.flush()

    after = await call(engine, f"CONSUMER.INFO.{others}")
    assert (after["ack_floor"], after["delivered"]) == (before["ack_floor"], before["delivered"])
    assert await keys.get_key("kept") == key


async def test_a_stream_does_not_speak_for_those_who_may_not(broker):
    """An edge can store any bytes as a key, and have the server say them to the engine."""
    engine = await broker.connect("engine")
    edge = await broker.connect("edge")
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def hear(message):
        heard.put_nowait(message.subject)

    await engine.subscribe(f"{CELL}.>", hear)
    await edge.request(f"$KV.KEYS-{CELL}.forged", b'{"a":"request"}', timeout_s=5)
    question = f"$JS.API.DIRECT.GET.{KEYS}.$KV.KEYS-{CELL}.forged"
    async with asyncio.timeout(10):  # a node may lag
        while b"request" not in await edge.request(question, b"", timeout_s=5):
            pass
    for target in (f"{CELL}.submit.agent.{HOST}", f"{CELL}.engine.bootstrap"):
        await edge.publish(question, b"", reply=target)
    await edge.publish(f"{CELL}.submit.api", b"mine")

    async with asyncio.timeout(10):
        assert await heard.get() == f"{CELL}.submit.api"


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
        ("agent", f"$JS.API.CONSUMER.MSG.NEXT.{LOG}.x"),
        ("agent", f"$JS.ACK.{WORK}.host-2-hypervisor.1.1.1.1.0"),
        ("agent", f"$KV.KEYS-{CELL}.x"),
        ("agent", "_INBOX_agent.host-2.x"),
        ("agent", "_INBOX_engine.x"),
        ("agent", f"$KV.LEASE-{CELL}.leader"),
        ("agent", "$SYS.REQ.SERVER.PING.JSZ"),
        ("agent", f"{CELL}.access.node-1"),
        ("agent", f"{CELL}.metrics.projector-node-1"),
        ("agent", f"{CELL}.submit.courier"),
        ("edge", f"{CELL}.submit.courier"),
        ("history", f"{CELL}.submit.courier"),
        ("agent", f"{CELL}.submit.history"),
        ("edge", f"{CELL}.submit.history"),
        ("courier", f"{CELL}.submit.history"),
        ("courier", f"{CELL}.submit.api"),
        ("courier", f"{CELL}.engine.status"),
        ("courier", f"{CELL}.log.0001"),
        ("courier", f"$JS.API.DIRECT.GET.{LOG}"),
        ("courier", f"$KV.KEYS-{CELL}.x"),
        ("engine", f"$JS.API.DIRECT.GET.{ACCESS}"),
        ("history", f"{CELL}.access.node-1"),
        ("edge", f"$JS.API.DIRECT.GET.{ACCESS}"),
        ("edge", f"{CELL}.log.0001"),
        ("edge", f"$KV.LEASE-{CELL}.leader"),
        ("history", f"{CELL}.log.0001"),
        ("edge", f"{CELL}.submit.agent.{HOST}"),
        ("edge", f"{CELL}.heartbeat.{HOST}"),
        ("edge", f"{CELL}.engine.bootstrap"),
        ("edge", f"{CELL}.work.{HOST}.hypervisor"),
        ("edge", f"{CELL}.projected.node-1"),
        ("edge", f"{CELL}.proven.node-1"),
        ("edge", f"$JS.API.STREAM.INFO.{LOG}"),
        ("history", f"$JS.API.STREAM.INFO.{KEYS}"),
        ("history", f"$JS.API.STREAM.PURGE.{LOG}"),
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
        ("agent", "_INBOX_agent-2.>"),
        ("agent", f"{CELL}.submit.>"),
        ("agent", f"{CELL}.metrics.projector-node-1"),
        ("edge", f"{CELL}.metrics.projector-node-1"),
        ("edge", f"{CELL}.courier.state"),
        ("courier", f"{CELL}.submit.>"),
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
        ("edge", f"{CELL}.ask.{HOST}.metrics", "agent"),
        ("edge", f"{CELL}.engine.metrics", "engine"),
        ("edge", f"{CELL}.metrics.projector-node-1", "history"),
        ("edge", f"{CELL}.courier.state", "courier"),
        ("courier", f"{CELL}.submit.courier", "engine"),
        ("history", f"{CELL}.submit.history", "engine"),
        ("edge", f"{CELL}.history.usage", "history"),
        ("admin", f"{CELL}.history.verify", "history"),
    ],
)
async def test_each_identity_can_do_its_work(broker, asker, subject, answerer):
    answering = await broker.connect(answerer)
    asking = await broker.connect(asker)
    await answering.subscribe(subject, lambda message: message.respond(b"yes"))

    async with asyncio.timeout(20):
        while True:
            # Another node of a cluster hears a moment later that somebody listens.
            with contextlib.suppress(NoResponders):
                assert await asking.request(subject, b"?", timeout_s=5) == b"yes"
                break


@pytest.mark.parametrize(
    ("speaker", "subject", "listener", "pattern"),
    [
        ("agent", f"{CELL}.heartbeat.{HOST}", "engine", f"{CELL}.heartbeat.*"),
        ("history", f"{CELL}.projected.node-1", "edge", f"{CELL}.projected.*"),
        ("history", f"{CELL}.projected.node-1", "courier", f"{CELL}.projected.*"),
        ("history", f"{CELL}.proven.node-1", "edge", f"{CELL}.proven.*"),
        ("engine", f"{CELL}.feed.7", "history", f"{CELL}.feed.*"),
    ],
)
async def test_what_is_announced_is_heard(broker, speaker, subject, listener, pattern):
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message):
        heard.put_nowait(message.payload)

    await (await broker.connect(listener)).subscribe(pattern, hear)
    speaking = await broker.connect(speaker)

    async with asyncio.timeout(20):
        while heard.empty():  # another node of a cluster hears a moment later of the interest
            await speaking.publish(subject, b"news")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    assert await heard.get() == b"news"
                    break


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
