"""Proofs that a read model holds all that was in the log at a moment."""

import asyncio
from time import monotonic_ns

from projections.proving import Proof, decode_proof, proven
from projections.runner import follow
from tests.projections.story import a_small_story
from tests.projections.test_runner import written


class Source:
    """A log that ends where it is told to, in the stream that it is told."""

    def __init__(self, end: int, number: int = 1) -> None:
        self.last, self.number = end, number
        self.asked: list[int] = []

    async def end(self) -> int:
        self.asked.append(monotonic_ns())
        return self.last


class Follower:
    """A reader that advances when it is told to."""

    def __init__(self, seq: int) -> None:
        self.reached = (seq, 10 * seq)
        self._advanced = asyncio.Event()

    async def advanced(self) -> None:
        await self._advanced.wait()
        self._advanced.clear()

    def advance(self, seq: int) -> None:
        self.reached = (seq, 10 * seq)
        self._advanced.set()


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_proof_is_of_the_moment_before_the_end_was_asked_for():
    source, follower = Source(5), Follower(5)
    before = monotonic_ns()

    proof = await proven(source, follower)

    assert before <= proof.at_ns <= source.asked[0]
    assert proof.ordinal == 50


async def test_what_is_not_read_yet_is_waited_for():
    source, follower = Source(7), Follower(5)
    proving = asyncio.create_task(proven(source, follower))
    await settled()
    follower.advance(6)
    await settled()
    assert not proving.done()

    follower.advance(7)

    assert (await proving).ordinal == 70
    assert len(source.asked) == 1


async def test_a_log_that_went_on_in_another_stream_is_asked_anew():
    """The end of the old one says nothing of what is in the new one since."""
    source, follower = Source(6), Follower(5)
    proving = asyncio.create_task(proven(source, follower))
    await settled()

    source.last, source.number = 9, 2
    follower.advance(6)
    await settled()
    assert not proving.done()
    follower.advance(9)

    proof = await proving
    assert proof.ordinal == 90
    assert source.asked[0] < proof.at_ns <= source.asked[1]


async def test_a_follower_of_a_real_log_proves_it_again_and_again(nats, tmp_path):
    story, log = a_small_story(), await nats.log()
    await written(story, log)
    bus = await nats.connect()
    heard: asyncio.Queue[Proof] = asyncio.Queue()

    async def hear(message) -> None:
        heard.put_nowait(decode_proof(message.payload))

    await bus.subscribe(bus.subjects.proven("n"), hear)
    task = asyncio.create_task(follow(bus, log, tmp_path / "n.sqlite", "n"))

    async with asyncio.timeout(30):
        first, second = await heard.get(), await heard.get()

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert first.ordinal == second.ordinal == story.cell.state.ordinal
    assert first.at_ns < second.at_ns
