"""Submitting: one outcome for one request, however often an answer is lost on the way."""

import asyncio

import pytest

from engine.bus.service import ask_engine, desired_state, submit
from schemas.engine import ElectLeader
from schemas.envelope import Accepted, Actor, Outcome, Request, decode_request, encode
from schemas.errors import Unavailable
from schemas.work import DesiredState
from schemas.work import encode as encode_work

REQUEST = Request(
    request_id="req-1",
    actor=Actor(kind="system"),
    action=ElectLeader(epoch=1, node="n"),
    submitted_at=1,
)
OUTCOME = Outcome(request_id="req-1", ordinal=7, verdict=Accepted(reply={"id": "x"}))


class Engine:
    """Answers as told: each entry of ``answers`` serves one request, the last one all others."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen: list[tuple[str, bytes]] = []

    async def handle(self, message):
        self.seen.append((message.subject, message.payload))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if answer is not None:
            await message.respond(answer)


async def test_the_outcome_comes_back(nats):
    engine = Engine(encode(OUTCOME))
    await (await nats.connect()).subscribe(f"{nats.cell}.submit.api", engine.handle)

    assert await submit(await nats.connect(), REQUEST) == OUTCOME
    assert decode_request(engine.seen[0][1]) == REQUEST


async def test_a_host_reports_on_its_own_subject(nats):
    engine = Engine(encode(OUTCOME))
    await (await nats.connect()).subscribe(f"{nats.cell}.submit.agent.*", engine.handle)

    await submit(await nats.connect(), REQUEST, host="host-1")

    assert engine.seen[0][0] == f"{nats.cell}.submit.agent.host-1"


async def test_a_lost_answer_is_asked_for_again_with_the_same_id(nats, monkeypatch):
    monkeypatch.setattr("engine.bus.service.ATTEMPT_FIRST_S", 0.05)
    engine = Engine(None, None, encode(OUTCOME))
    await (await nats.connect()).subscribe(f"{nats.cell}.submit.api", engine.handle)

    assert await submit(await nats.connect(), REQUEST) == OUTCOME
    assert [decode_request(payload).request_id for _, payload in engine.seen] == ["req-1"] * 3


async def test_an_engine_that_is_not_ready_is_waited_for(nats):
    engine = Engine(b"", b"", encode(OUTCOME))
    await (await nats.connect()).subscribe(f"{nats.cell}.submit.api", engine.handle)

    assert await submit(await nats.connect(), REQUEST) == OUTCOME


async def test_an_engine_that_starts_late_is_waited_for(nats):
    submitting = asyncio.create_task(submit(await nats.connect(), REQUEST))
    engine = Engine(encode(OUTCOME))
    bus = await nats.connect()
    await asyncio.sleep(0)

    await bus.subscribe(f"{nats.cell}.submit.api", engine.handle)

    assert await submitting == OUTCOME


async def test_without_an_engine_it_is_unavailable_at_the_deadline(nats):
    bus = await nats.connect()

    with pytest.raises(Unavailable, match="did not answer"):
        await submit(bus, REQUEST, timeout_s=0.2)
    with pytest.raises(Unavailable):
        await ask_engine(bus, "status", timeout_s=0.2)
    with pytest.raises(Unavailable):
        await desired_state(bus, "host-1", timeout_s=0.2)


async def test_an_answer_that_cannot_be_read_is_not_taken_for_an_outcome(nats):
    engine = Engine(b"{}")
    await (await nats.connect()).subscribe(f"{nats.cell}.submit.api", engine.handle)

    with pytest.raises(Unavailable, match="cannot be read"):
        await submit(await nats.connect(), REQUEST)


async def test_a_host_gets_its_desired_state(nats):
    wanted = DesiredState(epoch=1, ordinal=5, host_id="host-1", servers=(), operations=())
    engine = Engine(encode_work(wanted))
    await (await nats.connect()).subscribe(f"{nats.cell}.desired.host-1", engine.handle)

    assert await desired_state(await nats.connect(), "host-1") == wanted


async def test_a_question_is_put_as_it_is(nats):
    engine = Engine(b"42")
    await (await nats.connect()).subscribe(f"{nats.cell}.engine.digest", engine.handle)

    assert await ask_engine(await nats.connect(), "digest", b"now") == b"42"
    assert engine.seen == [(f"{nats.cell}.engine.digest", b"now")]
