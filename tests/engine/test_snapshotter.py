"""Snapshots are written beside the work, of what is durable, and harm nobody."""

import asyncio
import contextlib
import errno
import fcntl
import os
import resource

import msgspec
import pytest
import structlog

from engine import snapshotter
from engine.domain.fold import fold
from engine.folded import Folded
from engine.snapshot import load_newest
from engine.snapshotter import Snapshotter
from tests.engine.stories import Story, a_story, assert_equal
from tests.engine.world import World


@pytest.fixture
def world():
    return a_story(1, steps=40)


def at(world: World, sequence: int) -> Folded:
    return Folded(cell=world.cell, prev="hash", sequence=sequence)


async def test_one_is_written_when_enough_was_folded(tmp_path, world):
    every = 100
    snapshots = Snapshotter(tmp_path, cell_name="c", every=every, began=world.cell.state.ordinal)
    assert not snapshots.note(at(world, 7))
    story = Story(world, 4)
    while not snapshots.note(at(world, 7)):
        story.play(1)
    ordinal = world.cell.state.ordinal
    expected = msgspec.json.encode(world.cell.state)
    # Decisions go on while it is being written.
    story.play(20)
    assert not snapshots.note(at(world, 8))
    await snapshots.written()

    folded = load_newest(tmp_path, "c")
    assert folded is not None
    assert folded.cell.state.ordinal == ordinal
    assert msgspec.json.encode(folded.cell.state) == expected


async def test_the_last_one_is_written_at_the_end(tmp_path, world):
    snapshots = Snapshotter(tmp_path, cell_name="c")
    await snapshots.finish(at(world, 7))
    (path,) = tmp_path.glob("*.snapshot")
    written = path.stat().st_mtime_ns

    await snapshots.finish(at(world, 7))

    assert path.stat().st_mtime_ns == written
    assert_equal(load_newest(tmp_path, "c").cell, fold(world.messages))


async def test_what_is_not_durable_becomes_none(tmp_path, world):
    for end in ("fails", "is cancelled"):
        durable = asyncio.get_running_loop().create_future()
        snapshots = Snapshotter(tmp_path, cell_name="c", every=1)
        assert snapshots.note(at(world, 7), durable)
        await asyncio.sleep(0)
        assert list(tmp_path.glob("*.snapshot")) == []
        durable.set_exception(OSError("refused")) if end == "fails" else durable.cancel()
        await snapshots.written()
        assert list(tmp_path.glob("*.snapshot")) == []


async def test_what_becomes_durable_is_written_then(tmp_path, world):
    durable = asyncio.get_running_loop().create_future()
    snapshots = Snapshotter(tmp_path, cell_name="c", every=1)
    assert snapshots.note(at(world, 7), durable)
    durable.set_result(7)
    await snapshots.written()
    assert len(list(tmp_path.glob("*.snapshot"))) == 1


@contextlib.contextmanager
def a_full_disk(free_bytes: int):
    """No file of this process may grow beyond; what Python does then is what it does at ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_harms_nobody(tmp_path, world):
    snapshots = Snapshotter(tmp_path, cell_name="c", every=1)
    with structlog.testing.capture_logs() as logs, a_full_disk(8192):
        assert snapshots.note(at(world, 7))
        await snapshots.written()

    (failed,) = logs
    assert failed["event"] == "snapshot_failed"
    assert os.strerror(errno.EFBIG) in failed["error"]
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    Story(world, 4).play(2)
    assert snapshots.note(at(world, 8))
    await snapshots.written()
    assert load_newest(tmp_path, "c") is not None


async def test_two_engines_do_not_write_at_once(tmp_path, world):
    left_over = tmp_path / ".00000000000000000001.snapshot.next"
    left_over.write_bytes(b"of one that was killed")
    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        snapshots = Snapshotter(tmp_path, cell_name="c", every=1)
        assert snapshots.note(at(world, 7))
        await snapshots.written()
        assert left_over.exists()
    await snapshots.finish(at(world, 7))
    assert list(tmp_path.glob("*.snapshot")) == []

    world.flavor(name="another")
    await snapshots.finish(at(world, 8))

    assert len(list(tmp_path.glob("*.snapshot"))) == 1
    assert not left_over.exists()


def test_a_defect_in_writing_harms_nobody(tmp_path, world, monkeypatch):
    def broken(*_):
        raise OverflowError("too large")

    monkeypatch.setattr(snapshotter, "write", broken)

    async def noted() -> None:
        snapshots = Snapshotter(tmp_path, cell_name="c", every=1)
        assert snapshots.note(at(world, 7))
        await snapshots.written()

    with structlog.testing.capture_logs() as logs:
        asyncio.run(noted())
    assert [entry["event"] for entry in logs] == ["snapshot_failed"]
