"""The log goes on in the next stream, and a stream that is archived may go: nothing is lost."""

import asyncio
import contextlib

import pytest
import pytest_asyncio

from engine.bus.client import Bus, BusError
from engine.log import server
from engine.log.checkpoint import Checkpoint
from engine.log.commit import GENESIS, ChainBroken, seal_commit
from engine.log.jetstream import JetStreamLog
from engine.log.port import LogGone, LogUnavailable, WrongLastSequence
from engine.log.replay import replay
from engine.log.replay_all import replay_log
from engine.log.rollover import Undroppable, candidate, drop, open_next, require_archived
from engine.log.stream import LogConfigDiffers, call, ensure_log, log_config
from engine.log.streams import rolls_to
from engine.log.verify import verify
from schemas.engine import ElectLeader, LeaderElected, LogRolled, RollLog
from schemas.envelope import Accepted, Actor, Record, Request

CELL = "cell-r"
READERS = ("engine", "edge", "history", "admin")


def a_record(number, rolls=0):
    elect = ElectLeader(epoch=1, node="n"), LeaderElected(epoch=1, node="n", elected_at=number)
    roll = RollLog(number=rolls or 2), LogRolled(number=rolls)
    action, fact = roll if rolls else elect
    return Record(
        salt=f"{number:016x}",
        request=Request(
            request_id=f"req-{number}",
            actor=Actor(kind="system"),
            action=action,
            submitted_at=number,
        ),
        verdict=Accepted(),
        facts=(fact,),
    )


class Chain:
    """Commits in the order in which they are written; ``roll`` closes a stream."""

    def __init__(self, log):
        self.log = log
        self.written: list[bytes] = []
        self.prev = GENESIS

    def seal(self, rolls=0):
        number = len(self.written) + 1
        data, self.prev = seal_commit(
            f"c-{number}", 2 * number - 1, self.prev, 1, number, [a_record(number, rolls)]
        )
        self.written.append(data)
        return data

    async def write(self, count):
        for _ in range(count):
            data = self.seal()
            await self.log.append(data, expected_last=len(self.written) - 1)

    async def close(self, number):
        data = self.seal(number)
        await self.log.append(data, expected_last=len(self.written) - 1)

    def checkpoint(self, sequence):
        report = verify(self.messages(0, sequence))
        return Checkpoint(
            at=1, cell=CELL, hash=report.last_hash, key="k", ordinal=2 * sequence, sequence=sequence
        )

    def messages(self, after=0, through=None):
        numbered = enumerate(self.written, start=1)
        return [(seq, data) for seq, data in numbered if after < seq <= (through or 2**62)]

    def archived(self, after):
        return iter(self.messages(after))


class Broker:
    def __init__(self, running, stack):
        self.running = running
        self._stack = stack

    async def connect(self, user):
        bus = await Bus.connect(
            self.running.url,
            user=user,
            password=self.running.credentials[user],
            name="test",
            cell=CELL,
        )
        self._stack.push_async_callback(bus.close)
        return bus

    def replayed(self, user="history", after=0, **options):
        password = self.running.credentials[user]
        return list(replay_log(self.running.url, user, password, CELL, after, **options))

    def streamed(self, number):
        name = f"LOG-{CELL}-{number:04}"
        return replay(self.running.url, "admin", self.running.credentials["admin"], name)


@pytest_asyncio.fixture
async def broker(tmp_path):
    running = await asyncio.to_thread(server.start, tmp_path, cell=CELL)
    async with contextlib.AsyncExitStack() as stack:
        yield Broker(running, stack)
    await asyncio.to_thread(running.stop)


@pytest_asyncio.fixture
async def admin(broker):
    bus = await broker.connect("admin")
    await ensure_log(bus)
    return bus


@pytest_asyncio.fixture
async def chain(broker, admin):
    """A log of ten commits in stream 1 and five in stream 2."""
    made = Chain(JetStreamLog(await broker.connect("engine")))
    await made.write(9)
    await made.close(2)
    assert await open_next(admin) == (2, True)
    await made.log.roll(2)
    await made.write(5)
    return made


async def found(log, after=0):
    return [(commit.seq, commit.data) async for commit in log.read(after)]


async def followed(log, after, through):
    taken = []
    async with asyncio.timeout(60), contextlib.aclosing(log.read(after, follow=True)) as commits:
        async for commit in commits:
            taken.append((commit.seq, commit.data))
            if commit.seq == through:
                break
    return taken


@pytest.mark.parametrize("user", READERS)
async def test_everybody_reads_on_in_the_next_stream_from_wherever_they_begin(broker, chain, user):
    bus = await broker.connect(user)
    for after in (0, 1, 8, 9, 10, 11, 14, 15):
        wanted = chain.messages(after)
        assert await found(JetStreamLog(bus), after) == wanted
        assert await asyncio.to_thread(broker.replayed, user, after) == wanted
        if wanted:
            assert await followed(JetStreamLog(bus), after, 15) == wanted


async def test_a_reader_that_knows_the_old_stream_only_finds_the_next_by_itself(
    broker, admin, chain
):
    reader = JetStreamLog(await broker.connect("edge"))
    assert await found(reader) == chain.messages()
    following = asyncio.create_task(followed(reader, 3, 25))
    await chain.write(4)

    await chain.close(3)
    await open_next(admin)
    await chain.log.roll(3)
    await chain.write(5)

    assert await following == chain.messages(3)
    assert await found(reader) == chain.messages()
    assert (await reader.last()).seq == 25


async def test_an_empty_new_stream_ends_where_the_old_one_does(broker, admin, chain):
    await chain.close(3)
    await open_next(admin)
    log = JetStreamLog(await broker.connect("engine"))

    assert await log.end() == 16
    for user in READERS:
        for after in (0, 5, 12, 16):
            wanted = chain.messages(after)
            assert await asyncio.to_thread(broker.replayed, user, after) == wanted
            assert await found(JetStreamLog(await broker.connect(user)), after) == wanted
    assert (await log.last()).seq == 16
    assert await found(log, 16) == []
    assert await asyncio.to_thread(broker.replayed, "engine", 16) == []
    for stale in (0, 15, 17):
        with pytest.raises(WrongLastSequence):
            await log.append(b"x", expected_last=stale)
    with pytest.raises(WrongLastSequence):
        await log.append_all([b"a", b"b"], expected_last=15)
    assert await log.append_all([b"a", b"b"], expected_last=16) == 18


async def test_a_server_that_was_restarted_knows_where_an_empty_stream_begins(tmp_path):
    running = server.start(tmp_path, cell=CELL)
    for restarted in (False, True):
        async with contextlib.AsyncExitStack() as stack:
            broker = Broker(running, stack)
            admin = await broker.connect("admin")
            log = JetStreamLog(admin)
            if restarted:
                await ensure_log(admin)
                assert await log.end() == 3
                assert await log.append(b"next", expected_last=3) == 4
            else:
                await ensure_log(admin)
                chain = Chain(log)
                await chain.write(2)
                await chain.close(2)
                await open_next(admin)
        await asyncio.to_thread(running.stop)
        running = server.start(tmp_path, cell=CELL)
    running.stop()


async def test_rolling_waits_for_the_stream_and_opening_it_can_be_repeated(broker, admin, chain):
    await chain.close(3)
    rolling = asyncio.create_task(chain.log.roll(3))
    assert await asyncio.wait({rolling}, timeout=0.3) == (set(), {rolling})

    assert await open_next(admin) == (3, True)
    async with asyncio.timeout(5):
        await rolling
    assert await open_next(admin) == (3, False)

    await chain.write(1)
    assert await found(chain.log) == chain.messages()
    impatient = JetStreamLog(await broker.connect("engine"), append_s=0.2)
    with pytest.raises(LogUnavailable):
        await impatient.roll(4)


async def test_nothing_is_opened_while_a_stream_takes_commits(admin, chain):
    assert await open_next(admin) == (2, False)
    await ensure_log(admin)


async def test_a_stream_that_does_not_go_on_where_the_last_ended_stops_the_start(admin, chain):
    names = admin.subjects
    config = log_config(names.log_stream_of(3), names.log_subject(3), 1, 99)
    await call(admin, f"STREAM.CREATE.{names.log_stream_of(3)}", config)

    with pytest.raises(LogConfigDiffers) as raised:
        await ensure_log(admin)

    assert raised.value.fields == {"first_seq": (16, 99)}


@pytest.mark.parametrize("user", ["engine", "edge", "agent", "history"])
@pytest.mark.parametrize("what", ["CREATE", "UPDATE", "DELETE", "PURGE"])
async def test_only_the_administrator_makes_and_deletes_streams(broker, admin, chain, user, what):
    bus = await broker.connect(user)
    names = admin.subjects
    number = 3 if what == "CREATE" else 1
    stream = names.log_stream_of(number)
    config = log_config(stream, names.log_subject(number), 1, 16 if number == 3 else 0)

    with pytest.raises(BusError):
        async with asyncio.timeout(5):
            await call(bus, f"STREAM.{what}.{stream}", config, timeout_s=0.5)

    assert (await call(admin, "STREAM.NAMES", {"subject": names.log_all}))["streams"] == [
        names.log_stream_of(1),
        names.log_stream_of(2),
    ]
    assert await found(JetStreamLog(admin)) == chain.messages()


async def test_what_was_dropped_is_read_from_the_archive(broker, admin, chain):
    knew = JetStreamLog(await broker.connect("history"))
    assert await found(knew) == chain.messages()

    await drop(admin, 1)
    await drop(admin, 1)
    await ensure_log(admin)

    for after in (0, 4, 9):
        bus = await broker.connect("edge")
        with pytest.raises(LogGone):
            await found(JetStreamLog(bus), after)
        with pytest.raises(LogGone):
            await asyncio.to_thread(broker.replayed, "history", after)
        whole = JetStreamLog(bus, archived=chain.archived)
        assert await found(whole, after) == chain.messages(after)
        assert await followed(whole, after, 15) == chain.messages(after)
        replayed = await asyncio.to_thread(
            lambda after=after: broker.replayed("history", after, archived=chain.archived)
        )
        assert replayed == chain.messages(after)
    assert await found(JetStreamLog(bus), 10) == chain.messages(10)
    with pytest.raises(LogGone):
        await asyncio.to_thread(
            lambda: broker.replayed("history", 0, archived=lambda after: chain.messages(after, 8))
        )
    # A stream that goes while somebody reads.
    with contextlib.suppress(BusError, LogGone):
        await found(knew)
    with pytest.raises(LogGone):
        await found(knew)


async def test_a_stream_may_go_that_is_archived_and_signed(broker, admin, chain):
    info = await candidate(admin, 1)

    def checked(archived, checkpoints):
        return require_archived(1, info, broker.streamed(1), archived, chain.archived, checkpoints)

    for signed in (10, 12):
        may = await asyncio.to_thread(checked, chain.archived, [chain.checkpoint(signed)])
        assert (may.first, may.last, may.ordinal) == (1, 10, 20)
    refusals = [
        (lambda after: chain.messages(after, 7), [chain.checkpoint(12)], "sealed history ends"),
        (lambda after: iter(()), [chain.checkpoint(12)], "sealed history ends"),
        (chain.archived, [chain.checkpoint(9)], "no checkpoint covers"),
        (chain.archived, [], "no checkpoint covers"),
        (
            lambda after: ((seq, data + b" ") for seq, data in chain.messages(after)),
            [chain.checkpoint(12)],
            "differ",
        ),
    ]
    for archived, checkpoints, why in refusals:
        with pytest.raises(Undroppable, match=why):
            await asyncio.to_thread(checked, archived, checkpoints)
    forged = Checkpoint(at=1, cell=CELL, hash="f" * 64, key="k", ordinal=24, sequence=12)
    with pytest.raises(ChainBroken):
        await asyncio.to_thread(checked, chain.archived, [forged])


async def test_only_the_oldest_closed_stream_may_go(admin, chain):
    with pytest.raises(Undroppable, match="older"):
        await candidate(admin, 2)
    with pytest.raises(Undroppable, match="no stream 3"):
        await candidate(admin, 3)
    await drop(admin, 1)
    assert await candidate(admin, 1) is None
    with pytest.raises(Undroppable, match="takes commits"):
        await candidate(admin, 2)
    await chain.close(3)
    await open_next(admin)
    with pytest.raises(Undroppable, match="holds nothing yet"):
        await candidate(admin, 2)


async def test_a_later_stream_may_go_after_the_first_has(broker, admin, chain):
    await drop(admin, 1)
    await chain.close(3)
    await open_next(admin)
    await chain.log.roll(3)
    await chain.write(2)
    info = await candidate(admin, 2)

    may = await asyncio.to_thread(
        lambda: require_archived(
            2, info, broker.streamed(2), chain.archived, chain.archived, [chain.checkpoint(17)]
        )
    )

    assert (may.first, may.last, may.signed) == (11, 16, 34)


def test_what_only_looks_like_a_roll_is_none():
    data, _ = seal_commit("c", 1, GENESIS, 1, 1, [a_record(1, rolls=2)])
    assert rolls_to(data) == 2
    assert rolls_to(data.replace(b'"facts":[{', b'"facts":[],"other":[{')) == 0
    assert rolls_to(b'"engine.log.rolled.v1"') == 0
    assert (
        rolls_to(b'{"records":[{"facts":[{"type":"x","number":9,"a":"engine.log.rolled.v1"}]}]}')
        == 0
    )


@pytest.mark.slow
async def test_three_nodes_roll_over_under_load(cluster):
    admin = await cluster.connect("admin")
    await ensure_log(admin, replicas=3)
    chain = Chain(JetStreamLog(await cluster.connect("engine")))
    reader = JetStreamLog(await cluster.connect("edge"))
    following = asyncio.create_task(followed(reader, 0, 400))
    rolls = {100: 2, 200: 3, 300: 4}

    async def opened(number):
        while (await open_next(admin, replicas=3))[0] < number:  # noqa: ASYNC110  # as `log-roll`
            await asyncio.sleep(0.01)

    acknowledged = []
    while len(chain.written) < 400:
        at = len(chain.written)
        number = rolls.get(at + 4, 0)
        batch = [chain.seal(number if place == 3 else 0) for place in range(4)]
        opening = asyncio.create_task(opened(number)) if number else None
        acknowledged += await asyncio.gather(
            *(
                chain.log.append(data, expected_last=at + place, pipelined=place > 0)
                for place, data in enumerate(batch)
            )
        )
        if opening:
            await chain.log.roll(number)
            await opening

    assert acknowledged == list(range(1, 401))
    assert await following == chain.messages()
    assert await found(reader) == chain.messages()
    for user in ("history", "admin"):
        got = await asyncio.to_thread(
            lambda user=user: list(
                replay_log(cluster.url, user, cluster.passwords[user], cluster.cell)
            )
        )
        assert got == chain.messages()
    await ensure_log(admin, replicas=3)
    for bus in (admin, chain.log._feed, reader._feed):
        await bus.close()
