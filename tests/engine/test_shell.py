"""The engine as a process among others: answers after the ack, once, and again after a crash."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from msgspec import structs

from engine import turns
from engine.bus.client import Bus
from engine.bus.lease import Lease, LeaseBucket
from engine.bus.service import ask_engine, desired_state, submit, submit_as_admin, submit_as_courier
from engine.domain.fold import fold
from engine.domain.state import digest
from engine.log import server
from engine.log.commit import GENESIS, ChainBroken, check_commit
from engine.log.jetstream import JetStreamLog
from engine.log.stream import ensure_log
from engine.run import fresh_id, from_snapshot, run, wall_clock
from engine.turns import LeadershipLost
from schemas.config import Config
from schemas.engine import RollLog
from schemas.envelope import Accepted, Actor, Request, decode_commit, decode_outcome
from schemas.errors import Unavailable
from schemas.host import Capacity, MarkHost, RegisterHost
from schemas.identity import Bootstrap, CreateProject
from schemas.network import CreateNetwork
from schemas.units import MINUTE
from schemas.webhook import GiveUpWebhook
from tests.engine.world import SECRET, SYSTEM

CAPACITY = Capacity(vcpus=4, memory_mib=1024, disk_gib=10)


class Cell:
    """A broker, an engine that can be stopped and started, and somebody who asks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine: asyncio.Task[None] | None = None
        self.second: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self.broker = await asyncio.to_thread(server.start, self.directory)
        self.config = Config(
            state_dir=str(self.directory),
            nats_url=self.broker.url,
            nats_user="engine",
            nats_password=self.broker.credentials["engine"],
        )
        self.bus = await self.connect("admin")
        await ensure_log(self.bus)
        self.start()
        outcome = decode_outcome(
            await ask_engine(
                self.bus, "bootstrap", msgspec.json.encode(Bootstrap(admin_password=SECRET))
            )
        )
        assert isinstance(outcome.verdict, Accepted)
        self.admin = Actor(kind="user", issued_at=2**50, **outcome.verdict.reply)

    async def connect(self, user: str) -> Bus:
        return await Bus.connect(
            self.broker.url,
            user=user,
            password=self.broker.credentials[user],
            name="test",
            cell="embedded",
        )

    def start(self) -> None:
        self.engine = asyncio.create_task(run(self.config))

    def standby(self) -> asyncio.Task[None]:
        self.second = asyncio.create_task(run(structs.replace(self.config, node="node-2")))
        return self.second

    async def kill(self) -> None:
        """End the engine without letting it finish anything."""
        assert self.engine is not None
        self.engine.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.engine

    async def close(self) -> None:
        with contextlib.suppress(LeadershipLost):
            await self.kill()
        if self.second is not None:
            self.second.cancel()
            await asyncio.gather(self.second, return_exceptions=True)
        await self.bus.close()
        await asyncio.to_thread(self.broker.stop)

    def request(self, action: object, **fields: object) -> Request:
        values = {"actor": self.admin, "request_id": f"req-{fresh_id()}", **fields}
        return Request(action=action, submitted_at=wall_clock(), **values)

    async def messages(self) -> list[bytes]:
        return [stored.data async for stored in JetStreamLog(self.bus).read()]


@pytest_asyncio.fixture
async def cell(tmp_path: Path) -> AsyncIterator[Cell]:
    cell = Cell(tmp_path)
    try:
        await cell.open()
        yield cell
    finally:
        await cell.close()


async def test_the_chain_holds_and_begins_with_a_leader(cell):
    await submit(cell.bus, cell.request(CreateNetwork(name="n")))

    messages = await cell.messages()

    prev, first = GENESIS, 1
    for data in messages:
        head = check_commit(data, prev, first)
        prev, first = head.hash, head.next_first
    assert type(decode_commit(messages[0]).records[0].facts[0]).__name__ == "LeaderElected"


async def test_requests_that_wait_together_share_a_commit(cell):
    before = len(await cell.messages())
    requests = [cell.request(CreateNetwork(name=f"n{n}")) for n in range(200)]

    outcomes = await asyncio.gather(*(submit(cell.bus, r) for r in requests))

    commits = len(await cell.messages()) - before
    assert commits < len(requests) / 2
    assert len({o.ordinal for o in outcomes}) == len(requests)


async def test_a_request_sent_twice_at_once_is_done_once(cell):
    request = cell.request(CreateProject(name="p"))

    first, second = await asyncio.gather(submit(cell.bus, request), submit(cell.bus, request))

    assert first.verdict == second.verdict
    assert {first.repeated, second.repeated} == {False, True}


async def test_after_a_crash_the_answer_is_remembered_and_the_state_is_equal(cell):
    request = cell.request(CreateProject(name="p"), key="k", digest="d")
    outcome = await submit(cell.bus, request)
    digest_before = msgspec.json.decode(await ask_engine(cell.bus, "digest"))

    await cell.kill()
    cell.start()
    again = await submit(cell.bus, request, timeout_s=30)
    by_key = await submit(cell.bus, cell.request(CreateProject(name="p"), key="k", digest="d"))

    assert again.verdict == by_key.verdict == outcome.verdict
    assert again.ordinal == outcome.ordinal
    status = msgspec.json.decode(await ask_engine(cell.bus, "status"))
    assert status["epoch"] == 2
    # The only difference is the new leader's first commits: a request and a fact, then requests.
    assert status["ordinal"] == digest_before["ordinal"] + 1 + turns.WINDOW


async def test_the_log_going_away_loses_no_acknowledged_request(cell):
    request = cell.request(CreateProject(name="before"))
    await submit(cell.bus, request)

    cell.broker.process.kill()
    await asyncio.to_thread(cell.broker.process.wait)
    waiting = asyncio.create_task(
        submit(cell.bus, cell.request(CreateProject(name="during")), timeout_s=60)
    )
    cell.broker = await asyncio.to_thread(server.start, cell.directory)

    assert isinstance((await waiting).verdict, Accepted)
    again = await submit(cell.bus, request, timeout_s=30)
    assert again.repeated


async def test_a_log_that_lost_its_end_is_not_led(cell):
    """The chain of what is left holds, so only the witness tells that there was more."""
    outcome = await submit(cell.bus, cell.request(CreateProject(name="p")))
    await cell.kill()
    await asyncio.to_thread(cell.broker.stop)
    shutil.rmtree(cell.directory / "store")
    cell.broker = await asyncio.to_thread(server.start, cell.directory)
    await ensure_log(cell.bus)

    with pytest.raises(ChainBroken, match=f"acknowledged to ordinal {outcome.ordinal}") as broken:
        await run(cell.config)

    assert broken.value.ordinal == 1
    assert [stored async for stored in JetStreamLog(cell.bus).read()] == []


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no leader renew its lease, or hear that it has lost it."""

    async def keep(_lease: Lease) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Lease, "keep", keep)


async def steal(cell: Cell) -> None:
    """Take the lease as a third candidate would, and never renew it."""
    engine = await cell.connect("engine")
    bucket = LeaseBucket(engine)
    revision, holder = await bucket.get()
    assert holder is not None
    thief = msgspec.structs.replace(holder, node="thief", candidate="thief")
    while await bucket.put(thief, revision) is None:
        revision, _ = await bucket.get()
    await engine.close()


async def test_a_standby_follows_and_leads_when_the_leader_is_gone(cell):
    standby = cell.standby()
    outcome = await submit(cell.bus, cell.request(CreateProject(name="p")))
    before = msgspec.json.decode(await ask_engine(cell.bus, "status"))
    assert (before["epoch"], before["node"]) == (1, "node-1")

    await cell.kill()
    again = await submit(cell.bus, cell.request(CreateProject(name="q")), timeout_s=30)

    assert again.ordinal > outcome.ordinal + 1 + turns.WINDOW
    after = msgspec.json.decode(await ask_engine(cell.bus, "status"))
    assert (after["epoch"], after["node"]) == (2, "node-2")
    assert not standby.done()


async def test_a_leader_whose_lease_is_taken_leads_no_more(cell):
    await steal(cell)

    async with asyncio.timeout(30):
        with pytest.raises(LeadershipLost):
            await cell.engine


async def test_what_a_deposed_leader_decides_is_void(deaf, cell):
    """It never hears that it lost the lease, and goes on for as long as the log lets it."""
    old = cell.engine
    standby = cell.standby()
    async with asyncio.timeout(60):
        while b'"epoch":2' not in (await cell.messages())[-1]:
            assert not old.done()
        while not old.done():
            with contextlib.suppress(Unavailable):
                await submit(cell.bus, cell.request(CreateNetwork(name="n")), timeout_s=5)

    assert type(old.exception()).__name__ == "LeadershipLost"
    assert not standby.done()
    names = [
        record.request.request_id
        for data in await cell.messages()
        for record in decode_commit(data).records
    ]
    assert len(names) == len(set(names))


async def test_a_deposed_leader_hands_out_no_desired_state(deaf, cell):
    """Both are asked; only the new one answers, whichever is faster."""
    cell.standby()
    async with asyncio.timeout(60):
        while b'"epoch":2' not in (await cell.messages())[-1]:
            assert not cell.engine.done()

    answers = [await desired_state(cell.bus, "host-1", timeout_s=30) for _ in range(5)]

    assert {answer.epoch for answer in answers} == {2}
    assert isinstance(cell.engine.exception(), LeadershipLost)


async def test_an_engine_begins_from_a_snapshot_and_is_as_if_it_had_folded_all(cell):
    cell.config = structs.replace(cell.config, snapshot_ordinals=10)
    await cell.kill()
    cell.start()
    for number in range(20):
        await submit(cell.bus, cell.request(CreateProject(name=f"p{number}")), timeout_s=30)
    engine = structs.replace(cell.config, nats_user="admin", nats_password=cell.bus.password)
    async with asyncio.timeout(30):
        while not list((cell.directory / "snapshots").glob("*.snapshot")):
            await submit(cell.bus, cell.request(CreateNetwork(name="n")), timeout_s=30)
    await cell.kill()

    begun = await asyncio.to_thread(from_snapshot, engine)
    assert begun.sequence > 10
    cell.start()
    outcome = await submit(cell.bus, cell.request(CreateProject(name="last")), timeout_s=30)

    told = msgspec.json.decode(await ask_engine(cell.bus, "digest"))
    assert told == {"ordinal": outcome.ordinal, "digest": digest(fold(await cell.messages()))}


async def test_a_host_is_the_one_its_subject_names(cell):
    body = RegisterHost(
        capacity=CAPACITY, hypervisor="simulated", accelerator="none", executors=("hypervisor",)
    )
    other = Actor(kind="agent", host_id="host-2")

    outcome = await submit(cell.bus, cell.request(body, actor=other), host="host-1")

    assert outcome.verdict.code == "InvalidInput"
    honest = Actor(kind="agent", host_id="host-1")
    await submit(cell.bus, cell.request(body, actor=honest), host="host-1")
    assert (await desired_state(cell.bus, "host-1")).host_id == "host-1"


@pytest.mark.parametrize(
    "forged",
    [
        {"actor": Actor(kind="agent", host_id="host-1", user_id="victim", project_id="p")},
        {"actor": Actor(kind="agent", host_id="host-1"), "key": "k", "digest": "d"},
        {"actor": Actor(kind="agent", host_id="host-1", roles=("admin",))},
    ],
)
async def test_an_agent_cannot_speak_for_a_user_or_use_up_a_key(cell, forged):
    before = len(await cell.messages())
    body = RegisterHost(
        capacity=CAPACITY, hypervisor="simulated", accelerator="none", executors=("hypervisor",)
    )

    outcome = await submit(cell.bus, cell.request(body, **forged), host="host-1")

    assert outcome.verdict.code == "InvalidInput"
    assert len(await cell.messages()) == before


GIVE_UP = GiveUpWebhook(webhook_id="w", cause="gone", updated_at=0)


@pytest.mark.parametrize(
    ("action", "forged", "code"),
    [
        (GIVE_UP, {"actor": SYSTEM}, ""),
        (GIVE_UP, {"actor": SYSTEM, "key": "k"}, "InvalidInput"),
        (GIVE_UP, {"actor": Actor(kind="agent", host_id="host-1")}, "InvalidInput"),
        (MarkHost(host_id="host-1", status="down", reason="x"), {"actor": SYSTEM}, "InvalidInput"),
        (CreateProject(name="p"), {"actor": SYSTEM}, "InvalidInput"),
    ],
)
async def test_the_courier_may_give_up_webhooks_and_nothing_else(cell, action, forged, code):
    outcome = await submit_as_courier(cell.bus, cell.request(action, **forged))

    assert getattr(outcome.verdict, "code", "") == code


CLOSE = RollLog(number=3)  # the log is in its first stream, so this is refused on the record


@pytest.mark.parametrize(
    ("action", "actor", "code"),
    [
        (CLOSE, SYSTEM, "Conflict"),
        (CLOSE, Actor(kind="agent", host_id="host-1"), "InvalidInput"),
        (GIVE_UP, SYSTEM, "InvalidInput"),
        (CreateProject(name="p"), SYSTEM, "InvalidInput"),
    ],
)
async def test_the_brokers_administrator_may_close_streams_and_nothing_else(
    cell, action, actor, code
):
    outcome = await submit_as_admin(cell.bus, cell.request(action, actor=actor))

    assert outcome.verdict.code == code


async def test_an_administrator_of_the_cloud_may_not_close_the_logs_stream(cell):
    outcome = await submit(cell.bus, cell.request(RollLog(number=2)))

    assert outcome.verdict.code == "Forbidden"


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"action": {"type": "Nothing"}}'])
async def test_what_is_no_request_is_refused_and_not_recorded(cell, payload):
    before = len(await cell.messages())

    answer = await cell.bus.request(cell.bus.subjects.submit_api, payload, timeout_s=10)

    assert decode_outcome(answer).verdict.status == 400
    assert len(await cell.messages()) == before


async def test_an_id_with_other_content_is_an_alarm_and_the_first_answer_stays(cell):
    first, other = CreateProject(name="p"), CreateProject(name="q")
    request_id = f"req-{fresh_id()}"
    requests = [cell.request(action, request_id=request_id) for action in (first, other, first)]

    together = await asyncio.gather(*(submit(cell.bus, request) for request in requests))
    again = [await submit(cell.bus, request) for request in requests]

    for made, refused, repeated in (together, again):
        assert made.verdict == repeated.verdict
        assert (refused.verdict.code, refused.verdict.status) == ("IdReused", 409)
        assert repeated.repeated
    recorded = [
        record.verdict
        for data in await cell.messages()
        for record in decode_commit(data).records
        if record.request.request_id == request_id
    ]
    assert [isinstance(verdict, Accepted) for verdict in recorded] == [True, False, False]


async def test_a_persons_request_that_was_long_on_its_way_is_refused_unrecorded(cell):
    before = len(await cell.messages())
    request = cell.request(CreateProject(name="p"))
    old = msgspec.structs.replace(request, submitted_at=wall_clock() - 3 * MINUTE)

    outcome = await submit(cell.bus, old)

    assert (outcome.verdict.code, outcome.verdict.status) == ("TooOld", 400)
    assert len(await cell.messages()) == before
    assert isinstance((await submit(cell.bus, request)).verdict, Accepted)


async def test_a_dry_run_writes_nothing(cell):
    before = len(await cell.messages())
    request = cell.request(CreateProject(name="p"))

    shown = msgspec.json.decode(await ask_engine(cell.bus, "dryrun", msgspec.json.encode(request)))

    assert shown["verdict"]["verdict"] == "accepted"
    assert shown["facts"][0]["type"] == "identity.project.created.v1"
    assert len(await cell.messages()) == before


async def test_what_no_commit_holds_is_refused_and_the_engine_goes_on(cell, monkeypatch):
    monkeypatch.setattr(turns, "RECORD_BYTES_MAX", 1500)

    outcome = await submit(cell.bus, cell.request(CreateProject(name="p")))

    assert (outcome.verdict.code, outcome.verdict.status) == ("TooLarge", 413)
    last = decode_commit((await cell.messages())[-1]).records[-1]
    assert (last.verdict.code, last.facts) == ("TooLarge", ())
    monkeypatch.undo()
    again = await submit(cell.bus, cell.request(CreateProject(name="p")))
    assert isinstance(again.verdict, Accepted)


async def test_a_request_too_large_to_record_is_refused(cell):
    before = len(await cell.messages())

    answer = await cell.bus.request(
        cell.bus.subjects.submit_api, b" " * (turns.REQUEST_BYTES_MAX + 1), timeout_s=10
    )

    assert decode_outcome(answer).verdict.status == 400
    assert len(await cell.messages()) == before
