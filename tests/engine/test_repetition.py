"""Requests that come again, or under an id that is another's, while commits are on their way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import structlog

from engine.decider import stamped
from engine.domain.fold import ANSWERED_FOR
from engine.log.memory import MemoryLog
from engine.turns import Turns
from schemas.envelope import Accepted, Outcome, Request, decode_commit, decode_outcome
from schemas.network import CreateNetwork
from tests.engine.world import World


class Gated(MemoryLog):
    """A log that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, data: bytes, **fields: Any) -> int:
        await self.open.wait()
        return await super().append(data, **fields)


class Desk:
    """Turns over a log, and whoever asks of them."""

    def __init__(self) -> None:
        self.world = World()
        self.log = Gated()
        self.turns = Turns(
            self.world.cell,
            self.log,
            prev="",
            sequence=0,
            clock=lambda: self.world.now,
            new_id=self.world.new_id,
            salt=lambda: "s",
            dispatch=lambda _item: None,
            began=lambda _operation: None,
        )

    def submit(self, name: str, request_id: str, **fields: Any) -> "asyncio.Future[Outcome]":
        """Submit a request for a network; the result is its outcome."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        async def reply(outcome: bytes) -> None:
            done.set_result(decode_outcome(outcome))

        values = {"submitted_at": self.world.now, **fields}
        action = CreateNetwork(name=name)
        request = Request(request_id=request_id, actor=self.world.admin, action=action, **values)
        if (answer := self.turns.submit(request, reply)) is not None:
            done.set_result(decode_outcome(answer))
        return done

    async def recorded(self) -> list[tuple[str, str]]:
        """Return the id and the verdict's code of every record."""
        return [
            (record.request.request_id, getattr(record.verdict, "code", "accepted"))
            for stored in [stored async for stored in self.log.read()]
            for record in decode_commit(stored.data).records
        ]


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    running = asyncio.create_task(desk.turns.run())
    try:
        yield desk
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


@pytest.mark.parametrize("in_flight", [True, False])
async def test_an_id_with_other_content_is_refused_on_the_record(desk, in_flight):
    """In one commit with the first, or long after it: its repetitions get the first answer."""
    if in_flight:
        desk.log.open.clear()
    first = desk.submit("a", "req-1")
    if not in_flight:
        await first
    with structlog.testing.capture_logs() as logged:
        others = [desk.submit("b", "req-1"), desk.submit("c", "req-1")]
    again = desk.submit("a", "req-1")
    desk.log.open.set()

    outcomes = await asyncio.gather(first, *others, again)

    assert [getattr(o.verdict, "code", "") for o in outcomes] == ["", "IdReused", "IdReused", ""]
    assert outcomes[0].verdict == outcomes[3].verdict
    assert outcomes[3].repeated
    assert len({o.ordinal for o in outcomes[:3]}) == 3
    assert await desk.recorded() == [
        ("req-1", "accepted"),
        ("req-1", "IdReused"),
        ("req-1", "IdReused"),
    ]
    assert [(line["event"], line["log_level"]) for line in logged] == [
        ("request_id_reused", "error")
    ] * 2
    assert (await desk.submit("a", "req-1")).verdict == outcomes[0].verdict
    assert isinstance((await desk.submit("z", "req-2")).verdict, Accepted)


async def test_every_recorded_request_has_the_digest_of_its_content(desk):
    await desk.submit("a", "req-1", digest="claimed")
    await desk.submit("b", "req-2", key="k", digest="the edge's")

    records = [
        record.request
        for stored in [stored async for stored in desk.log.read()]
        for record in decode_commit(stored.data).records
    ]

    assert records[0].digest == stamped(records[0]).digest != "claimed"
    assert records[1].digest == "the edge's"


async def test_what_was_too_long_on_its_way_is_not_recorded(desk):
    first = await desk.submit("a", "req-1")
    desk.world.now += ANSWERED_FOR + 1
    submitted_at = desk.world.now - ANSWERED_FOR - 1

    known = await desk.submit("a", "req-1", submitted_at=submitted_at)
    await desk.submit("b", "req-2")
    unknown = await desk.submit("a", "req-1", submitted_at=submitted_at)

    assert known.verdict == first.verdict
    assert (unknown.verdict.code, unknown.verdict.status) == ("TooOld", 400)
    assert [request_id for request_id, _ in await desk.recorded()] == ["req-1", "req-2"]


async def test_a_clock_that_was_set_back_refuses_nobody(desk):
    """The log's time stays where it was; what counts is how long the request was on its way."""
    await desk.submit("a", "req-1")
    desk.world.now -= 10 * ANSWERED_FOR

    assert isinstance((await desk.submit("b", "req-2")).verdict, Accepted)
