"""Commits in flight: sent ahead, settled in order, void together."""

import asyncio
import contextlib

import pytest
from msgspec import structs

from engine import turns as turns_module
from engine.domain.state import digest
from engine.folded import Folded
from engine.log.memory import MemoryLog
from engine.log.port import LogUnavailable, WrongLastSequence
from engine.turns import WINDOW, LeadershipLost, Turns
from schemas.engine import RollLog
from schemas.envelope import Accepted, Action, Request, decode_commit, decode_outcome
from schemas.host import MarkHost
from schemas.identity import CreateProject
from schemas.repetition import Keyed
from tests.engine.world import SYSTEM, World


class HeldLog(MemoryLog):
    """A log whose acknowledgements wait until they are let go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, asyncio.Future[None]] = {}
        self.sent = 0
        self.moved = asyncio.Event()

    async def append(self, data, *, expected_last, commit_id=None, pipelined=False):
        seq = await super().append(data, expected_last=expected_last, commit_id=commit_id)
        self.held[seq] = asyncio.get_running_loop().create_future()
        self.sent += 1
        self.moved.set()
        await self.held[seq]
        return seq

    async def reaches(self, sent: int) -> None:
        async with asyncio.timeout(10):
            while self.sent < sent:
                self.moved.clear()
                await self.moved.wait()


class Asked:
    """Turns over a held log, and what was answered."""

    def __init__(self, log: MemoryLog) -> None:
        self.world = World()
        self.log = log
        self.answers: list[bytes] = []
        self.noted: list[tuple[int, int, str]] = []
        self.answered = asyncio.Event()
        self.turns = Turns(
            self.world.cell,
            log,
            prev="0" * 64,
            sequence=0,
            clock=lambda: self.world.now,
            new_id=self.world.new_id,
            salt=lambda: "s",
            dispatch=lambda _: None,
            began=lambda _: None,
            acknowledged=lambda *what: self.noted.append(what),
        )
        self.running = asyncio.create_task(self.turns.run())

    def ask(self, name: str) -> bytes | None:
        return self.turns.submit(self.request(CreateProject(name=name), name), self.reply)

    def request(self, action: Action, name: str = "x") -> Request:
        return Request(
            request_id=f"req-{name}",
            actor=self.world.admin,
            action=action,
            submitted_at=self.world.now,
        )

    async def reply(self, outcome: bytes) -> None:
        self.answers.append(outcome)
        self.answered.set()

    async def hears(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.answers) < count:
                self.answered.clear()
                await self.answered.wait()
        return [decode_outcome(answer).request_id for answer in self.answers]

    async def close(self) -> None:
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError, LeadershipLost, LogUnavailable, KeyError):
            await self.running


@pytest.fixture
async def held():
    asked = Asked(HeldLog())
    yield asked
    await asked.close()


async def test_a_slow_acknowledgement_does_not_hold_up_the_next_commit(held):
    for number in range(WINDOW):
        held.ask(f"p{number}")
        await held.log.reaches(number + 1)

    held.ask("beyond-1")
    held.ask("beyond-2")
    held.log.held[1].set_result(None)

    await held.log.reaches(WINDOW + 1)
    records = [len(decode_commit(c.data).records) async for c in held.log.read()]
    assert records == [1] * WINDOW + [2]


async def test_what_a_key_stands_for_is_told_once_it_is_durable(held):
    request = held.request(CreateProject(name="p"), "p")
    request = structs.replace(request, key="k", digest="d")
    admin = held.world.admin
    asked = Keyed(user_id=admin.user_id, project_id=admin.project_id, key="k", digest="d")
    assert await held.turns.answered(asked) is None
    held.turns.submit(request, held.reply)
    await held.log.reaches(1)
    asking = asyncio.create_task(held.turns.answered(asked))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asking.done()

    held.log.held[1].set_result(None)

    told = await asking
    first = decode_outcome((await held.hears(1), held.answers[0])[1])
    assert told == structs.replace(first, repeated=True)
    other = await held.turns.answered(structs.replace(asked, digest="other"))
    assert (other.verdict.code, other.recorded) == ("KeyReused", False)
    assert await held.turns.answered(structs.replace(asked, user_id="another")) is None


async def test_what_a_key_stands_for_is_not_told_by_a_leader_that_lost(held):
    request = structs.replace(held.request(CreateProject(name="p"), "p"), key="k", digest="d")
    admin = held.world.admin
    asked = Keyed(user_id=admin.user_id, project_id=admin.project_id, key="k", digest="d")
    held.turns.submit(request, held.reply)
    await held.log.reaches(1)
    asking = asyncio.create_task(held.turns.answered(asked))
    await asyncio.sleep(0)

    held.log.held[1].set_exception(WrongLastSequence(0, 1))

    with pytest.raises(LeadershipLost):
        await asking


async def test_nothing_is_answered_before_all_that_goes_before_it_is_acknowledged(held):
    for number in range(3):
        held.ask(f"p{number}")
        await held.log.reaches(number + 1)

    held.log.held[2].set_result(None)
    held.log.held[3].set_result(None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert held.answers == []
    assert held.noted == []
    held.log.held[1].set_result(None)

    assert await held.hears(3) == ["req-p0", "req-p1", "req-p2"]
    assert [seq for seq, _, _ in held.noted] == [1, 2, 3]


async def test_a_refused_commit_voids_all_that_was_sent_after_it(held):
    for number in range(3):
        held.ask(f"p{number}")
        await held.log.reaches(number + 1)

    held.log.held[3].set_result(None)
    held.log.held[1].set_exception(WrongLastSequence(0, 4))

    with pytest.raises(LeadershipLost):
        await held.running
    assert held.answers == []


async def test_an_unknown_outcome_ends_the_lead(held):
    held.ask("p")
    await held.log.reaches(1)

    held.log.held[1].set_exception(LogUnavailable("no answer"))

    with pytest.raises(LogUnavailable):
        await held.running


async def test_what_is_stored_in_flight_folds_to_the_state_that_was_decided_on(held):
    held.ask("first")
    held.log.held.clear()
    await held.log.reaches(1)
    held.ask("second")
    await held.log.reaches(2)

    again = World()
    folded = Folded(cell=again.cell)
    folded.prev = "0" * 64
    async for commit in held.log.read():
        folded.take(commit.seq, commit.data)

    assert digest(folded.cell) == digest(held.world.cell)


async def test_a_repetition_in_flight_joins_the_first(held):
    held.ask("p")
    await held.log.reaches(1)
    assert held.ask("p") is None

    held.log.held[1].set_result(None)

    await held.hears(2)
    assert [decode_outcome(a).repeated for a in held.answers] == [False, True]


async def test_a_full_queue_says_that_it_is_not_the_time(held, monkeypatch):
    """Nothing is said of the request itself: an earlier attempt of it may be under way."""
    monkeypatch.setattr(turns_module, "WAITING_MAX", 3)
    for number in range(3):
        assert held.ask(f"p{number}") is None

    assert held.ask("one-too-many") == turns_module.NOT_NOW
    assert held.ask("p1") is None  # joins the first
    await held.log.reaches(1)
    held.log.held[1].set_result(None)

    assert sorted(await held.hears(4)) == ["req-p0", "req-p1", "req-p1", "req-p2"]
    assert decode_outcome(held.ask("p1")).repeated
    assert held.ask("one-too-many") is None
    await held.log.reaches(2)
    held.log.held[2].set_result(None)
    await held.hears(5)


async def test_the_clock_is_not_turned_away(held, monkeypatch):
    """It would not ask again for what is due."""
    monkeypatch.setattr(turns_module, "WAITING_MAX", 0)
    mark = held.request(MarkHost(host_id="none", status="down", reason="silent"))

    assert held.turns.submit(structs.replace(mark, actor=SYSTEM), held.reply) is None

    await held.log.reaches(1)
    held.log.held[1].set_result(None)
    await held.hears(1)


async def test_many_bytes_in_flight_turn_requests_away(held, monkeypatch):
    monkeypatch.setattr(turns_module, "WAITING_BYTES_MAX", 1)
    assert held.ask("first") is None

    assert held.ask("second") == turns_module.NOT_NOW


async def test_a_fold_that_fails_ends_the_lead_and_commits_nothing(held, monkeypatch):
    def broken(*_: object) -> int:
        raise KeyError("a defect")

    monkeypatch.setattr(turns_module, "apply_record", broken)
    with pytest.raises(KeyError):
        held.ask("p")

    with pytest.raises(KeyError):
        await held.running
    assert await held.log.end() == 0
    monkeypatch.undo()
    assert held.ask("q") == turns_module.NOT_NOW


async def test_a_barrier_returns_when_all_is_durable(held):
    held.ask("p")
    await held.log.reaches(1)
    barrier = asyncio.create_task(held.turns.barrier())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not barrier.done()

    held.log.held[1].set_result(None)

    async with asyncio.timeout(10):
        await barrier
    await held.hears(1)
    assert isinstance(decode_outcome(held.answers[0]).verdict, Accepted)


async def test_a_barrier_finds_out_that_another_leads(held):
    await MemoryLog.append(held.log, b"{}", expected_last=0)

    with pytest.raises(LeadershipLost):
        await held.turns.barrier()

    with pytest.raises(LeadershipLost):
        await held.running


async def test_a_barrier_finds_out_that_the_lease_is_gone(held):
    """Of a cluster, whose deposed node may still tell the old end of the log."""

    async def gone() -> bool:
        return False

    held.turns._confirm = gone

    with pytest.raises(LeadershipLost):
        await held.turns.barrier()

    with pytest.raises(LeadershipLost):
        await held.running


async def test_barriers_that_wait_together_ask_once(held, monkeypatch):
    asked = 0
    end = held.log.end

    async def counted() -> int:
        nonlocal asked
        asked += 1
        return await end()

    monkeypatch.setattr(held.log, "end", counted)

    await asyncio.gather(*(held.turns.barrier() for _ in range(50)))

    assert asked == 1


async def test_a_refusal_that_is_not_recorded_waits_for_the_barrier(held, monkeypatch):
    """A deposed leader does not know whom its successor has let in."""
    await MemoryLog.append(held.log, b"{}", expected_last=0)
    stranger = held.world.admin
    nobody = type(stranger)(kind="user", user_id="nobody", project_id="p")

    request = Request(
        request_id="req-x",
        actor=nobody,
        action=CreateProject(name="p"),
        submitted_at=held.world.now,
    )
    assert held.turns.submit(request, held.reply) is None

    with pytest.raises(LeadershipLost):
        await held.running
    assert held.answers == []


async def test_while_a_turn_waits_to_be_sent_nothing_is_at_rest(held):
    """A turn that closes the stream is open no more, and not in flight either."""
    held.ask("first")
    await held.log.reaches(1)
    assert held.turns.submit(held.request(RollLog(number=2)), held.reply) is None
    barrier = asyncio.create_task(held.turns.barrier())
    for _ in range(20):
        await asyncio.sleep(0)

    assert held.turns.at_rest() is None
    assert not barrier.done()

    held.log.held[1].set_result(None)
    await held.log.reaches(2)
    held.log.held[2].set_result(None)
    async with asyncio.timeout(10):
        await barrier
    rest = held.turns.at_rest()
    assert rest is not None
    assert rest.sequence == 2
