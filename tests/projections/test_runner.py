"""The projector: what it announces can be read, and nothing that interrupts it loses anything."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.bus.client import Bus
from engine.log import server
from engine.log.jetstream import JetStreamLog
from engine.log.memory import MemoryLog
from engine.log.port import StoredCommit
from engine.log.stream import ensure_log
from projections import files, models, store
from projections.models import LogDiffers
from projections.reader import Reader
from projections.runner import Projector, follow, read_model_path, run
from schemas.compute import RenameServer
from schemas.config import Config
from tests.projections.story import OPENED, Story, a_small_story, projected
from tests.projections.test_models import folded


class Announced:
    """Remembers announcements, and what could be read at each."""

    def __init__(self, path: Path) -> None:
        self.reader = Reader(path)
        OPENED.append(self.reader)
        self.seen: list[tuple[int, int]] = []
        self._changed = asyncio.Condition()

    async def __call__(self, ordinal: int) -> None:
        self.seen.append((ordinal, self.reader.position()))
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, ordinal: int) -> None:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.seen and self.seen[-1][0] >= ordinal)


@contextlib.asynccontextmanager
async def projecting(source, path: Path) -> AsyncIterator[tuple[Projector, Announced]]:
    announced = Announced(path)
    projector = Projector(source, path, announced)
    task = asyncio.create_task(projector.run())
    try:
        yield projector, announced
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        projector.close()


async def written(story: Story, log) -> None:
    last = await log.last()
    for seq, data in story.commits[last.seq if last else 0 :]:
        await log.append(data, expected_last=seq - 1)


def digest_at(path: Path) -> str:
    writer = files.open_current(path)
    assert writer is not None
    OPENED.append(writer.db)
    return store.digest(writer.db)


async def test_what_is_announced_can_be_read(tmp_path):
    story, log = a_small_story(), MemoryLog()
    path = tmp_path / "n.sqlite"

    async with projecting(log, path) as (_, announced):
        for seq, data in story.commits:
            await log.append(data, expected_last=seq - 1)
            await asyncio.sleep(0)
        await announced.reached(story.cell.state.ordinal)

    assert all(position >= ordinal for ordinal, position in announced.seen)
    assert digest_at(path) == store.digest(folded(story).db)


async def test_it_goes_on_where_it_was_killed(tmp_path):
    """Stopped after any number of commits, started again: the same read model."""
    story, log = a_small_story(), MemoryLog()
    path = tmp_path / "n.sqlite"

    for part in (1, len(story.commits) // 2, len(story.commits)):
        for seq, data in story.commits[:part]:
            last = await log.last()
            if last is None or seq > last.seq:
                await log.append(data, expected_last=seq - 1)
        async with projecting(log, path) as (_, announced):
            head = await log.last()
            await announced.reached(models.decode_stored(head.data).first)

    assert digest_at(path) == store.digest(folded(story).db)


@pytest.mark.parametrize("what", ["layout", "code"])
async def test_a_new_version_is_built_beside_and_switched_to(tmp_path, what):
    """Also where only the code is another: its rows are thrown away, whatever they say."""
    story, log = a_small_story(), MemoryLog()
    await written(story, log)
    path = tmp_path / "n.sqlite"
    old = projected(story, path)
    old.db.execute(f"UPDATE made_by SET {what} = 'other'")
    old.db.execute("UPDATE servers SET name = 'as the old code had it'")
    old.db.close()

    async with projecting(log, path) as (_, announced):
        await announced.reached(story.cell.state.ordinal)

    assert files.generation(path) == 2
    assert announced.reader.position() == story.cell.state.ordinal
    assert digest_at(path) == store.digest(folded(story).db)


async def test_a_rebuild_under_way_is_followed(tmp_path):
    story, log = a_small_story(), MemoryLog()
    await written(story, log)
    path = tmp_path / "n.sqlite"

    async with projecting(log, path) as (_, announced):
        await announced.reached(story.cell.state.ordinal)
        rebuilt = await asyncio.to_thread(files.rebuild, path, story.read)
        story.ok(story.demo, RenameServer(server_id=story.first, name="after"))
        await written(story, log)
        await announced.reached(story.cell.state.ordinal)

    assert rebuilt.identical is True
    assert files.generation(path) == 2
    assert digest_at(path) == store.digest(folded(story).db)


async def test_another_log_is_refused(tmp_path):
    """A read model ahead of its log, or of another one, is evidence: it is not overwritten."""
    story, other, log = a_small_story(), Story(seed=5), MemoryLog()
    path = tmp_path / "n.sqlite"
    projected(story, path).db.close()
    for _ in range(len(story.commits) + 3):
        other.host(host=f"host-{len(other.commits)}")
    await written(other, log)

    projector = Projector(log, path, Announced(path))
    with pytest.raises(LogDiffers):
        async with asyncio.timeout(30):
            await projector.run()
    projector.close()

    assert digest_at(path) == store.digest(folded(story).db)


class Flaky:
    """A log that loses its connection after every batch, and repeats itself."""

    def __init__(self, story: Story) -> None:
        self._story = story

    async def read_batches(
        self, after_seq: int = 0, *, follow: bool = False
    ) -> AsyncIterator[list[StoredCommit]]:
        start = max(0, after_seq - 2)
        yield [StoredCommit(seq, data) for seq, data in self._story.commits[start : start + 7]]
        if after_seq + 7 >= len(self._story.commits):
            await asyncio.Event().wait()


async def test_a_log_that_breaks_off_is_read_again(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"

    async with projecting(Flaky(story), path) as (_, announced):
        await announced.reached(story.cell.state.ordinal)

    assert digest_at(path) == store.digest(folded(story).db)


class Cell:
    """A broker of its own, that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log: JetStreamLog

    async def open(self) -> None:
        self.broker = await asyncio.to_thread(server.start, self.directory / "nats")
        self.bus = await Bus.connect(
            self.broker.url,
            user="admin",
            password=self.broker.credentials["admin"],
            name="test",
            cell="embedded",
        )
        await ensure_log(self.bus)
        self.log = JetStreamLog(self.bus)

    def config(self) -> Config:
        return Config(
            state_dir=str(self.directory),
            nats_url=self.broker.url,
            nats_user="history",
            nats_password=self.broker.credentials["history"],
        )

    async def kill(self) -> None:
        os.kill(self.broker.pid, signal.SIGKILL)
        await self.broker.wait()

    async def restart(self) -> None:
        self.broker = await asyncio.to_thread(server.start, self.directory / "nats")

    async def close(self) -> None:
        await self.bus.close()
        await asyncio.to_thread(self.broker.stop)


@pytest_asyncio.fixture
async def cell(tmp_path):
    cell = Cell(tmp_path)
    await cell.open()
    yield cell
    await cell.close()


class Heard:
    """Listens to a node's announcements on the bus."""

    def __init__(self) -> None:
        self.ordinal = 0
        self._changed = asyncio.Condition()

    async def on(self, message) -> None:
        self.ordinal = int(message.payload)
        async with self._changed:
            self._changed.notify_all()

    async def reached(self, ordinal: int) -> None:
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.ordinal >= ordinal)


async def test_the_process_follows_a_real_log(cell):
    """As the user that the projector runs as, through a kill -9 of the broker."""
    story = a_small_story()
    heard = Heard()
    await cell.bus.subscribe(cell.bus.subjects.projected("node-1"), heard.on)
    task = asyncio.create_task(run(cell.config()))
    try:
        await written(story, cell.log)
        await heard.reached(story.cell.state.ordinal)
        await cell.kill()
        await cell.restart()
        story.ok(story.demo, RenameServer(server_id=story.first, name="after"))
        await written(story, cell.log)
        await heard.reached(story.cell.state.ordinal)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert digest_at(read_model_path(cell.config())) == store.digest(folded(story).db)


async def test_who_comes_back_is_told_again(nats, tmp_path):
    """A listener that was away hears the position when the projector's connection is back."""
    story, log = a_small_story(), await nats.log()
    await written(story, log)
    bus = await nats.connect()
    heard = Heard()
    await bus.subscribe(bus.subjects.projected("n"), heard.on)
    task = asyncio.create_task(follow(bus, log, tmp_path / "n.sqlite", "n"))
    await heard.reached(story.cell.state.ordinal)
    heard.ordinal = 0

    for callback in bus.on_reconnect:
        await callback()
    await heard.reached(story.cell.state.ordinal)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert bus.on_reconnect == []
