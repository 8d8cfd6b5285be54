"""History put back from a second place that may be anybody's: only what is proven counts."""

import asyncio
import hashlib

import msgspec
import pyarrow as pa
import pytest
from msgspec.structs import replace
from pyarrow import compute as pc
from pyarrow import parquet

from engine.log.checkpoint import Checkpoint, Held
from projections.copies import Copies
from projections.history import History
from projections.recovery import questions, restore
from projections.segment import HistoryBroken
from schemas.errors import Unavailable
from schemas.units import DAY
from tests.projections.story import a_small_story
from tests.projections.test_copies import files
from tests.projections.test_history import Sealed


class World:
    """A sealed history and its copies in a folder; ``there`` is that folder."""

    def __init__(self, directory):
        self.sealed = Sealed(a_small_story(), directory / "here")
        self.sealed.seal(ordinals_max=20)
        self.history = self.sealed.history
        self.here, self.there = self.history.directory, directory / "there"
        self.copies = Copies(self.history, f"file://{self.there}")
        self.copies.copy()
        self.before = files(self.here)
        self.segments = self.history.segments()
        self.signed = ()

    def restore(self):
        return restore(
            self.history,
            self.copies,
            lambda: Held(checkpoints=self.signed),
            self.sealed.reader.db,
        )

    def sign(self, segment):
        self.signed = (
            Checkpoint(
                at=1,
                cell="c",
                key="k",
                hash=segment.last_hash,
                ordinal=segment.last,
                sequence=segment.last_seq,
            ),
        )

    def path(self, at, suffix="parquet", where=None):
        return (where or self.here) / f"{self.segments[at].name}.{suffix}"

    def lose(self, *at):
        for one in at:
            self.path(one).unlink()
            self.path(one, "json").unlink()

    def lie(self, at, change):
        """Give the store another file under a name, with a manifest that fits."""
        path = self.path(at, where=self.there)
        change(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        told = replace(self.segments[at], sha256=digest, bytes=path.stat().st_size)
        self.path(at, "json", self.there).write_bytes(msgspec.json.encode(told))

    def is_whole(self):
        assert self.history.verify()[-1].last == self.sealed.head
        assert self.commits() == self.sealed.story.commits

    def commits(self):
        return [c for s in self.history.segments() for c in self.history.commits(s)]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def garble(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [truncate, garble, lambda path: path.unlink()])
def test_what_is_damaged_comes_back_byte_for_byte(world, harm):
    assert world.restore().restored == ()
    harm(world.path(0))
    harm(world.path(3))
    with pytest.raises(HistoryBroken):
        world.history.verify()

    told = world.restore()

    assert (told.whole, told.ordinal, told.why) == (True, world.sealed.head, "")
    assert [each.name for each in told.restored] == [world.segments[n].name for n in (0, 3)]
    now = files(world.here)
    kept = {name for name in now if name.startswith("damaged-")}
    assert {name: data for name, data in now.items() if name not in kept} == world.before
    assert len(kept) in {0, 2}
    world.is_whole()


def test_manifests_that_are_gone_come_back_if_they_lead_to_ours(world):
    world.lose(0, 1, 4)
    world.path(3, "json").write_text("{")

    assert world.restore().whole
    world.is_whole()


def test_all_of_it_comes_back_up_to_what_was_signed(world):
    world.sign(world.segments[-2])
    world.lose(*range(len(world.segments)))

    told = world.restore()

    assert (told.whole, told.ordinal) == (False, world.segments[-2].last)
    assert world.segments[-1].name in told.why  # nothing says that it is ours
    assert world.commits() == world.sealed.story.commits[: len(world.commits())]
    world.sealed.seal(ordinals_max=20)  # the rest is in the log
    world.is_whole()


def test_nothing_that_is_not_ours_is_taken(world, tmp_path):
    other = World(tmp_path / "other")
    story = Sealed(a_small_story(seed=2), tmp_path / "more")
    story.seal(ordinals_max=20)
    Copies(story.history, f"file://{other.there}/../foreign").copy()
    foreign = Copies(world.history, f"file://{tmp_path}/other/foreign")
    world.sign(world.segments[-1])
    world.lose(*range(len(world.segments)))
    world.copies = foreign

    told = world.restore()

    assert (told.whole, told.ordinal, told.restored) == (False, 0, ())
    assert "nothing here says" in told.why
    assert not list(world.here.glob("[0-9]*"))


def untagged(path):
    table = parquet.read_table(path)
    at = table.schema.get_field_index("tag")
    tags = pc.replace_substring(table["tag"], "server.started", "server.stopped")
    owner = table.schema.get_field_index("project_id")
    table = table.set_column(at, "tag", tags)
    parquet.write_table(table.set_column(owner, "project_id", pa.array(["x"] * len(table))), path)


def test_what_no_hash_covers_is_not_taken_from_the_store(world):
    """A store could hide facts from meters by their tags, or give rows to another project."""
    for at in range(len(world.segments) - 1):
        world.lie(at, untagged)
        world.lose(at)

    assert world.restore().whole

    world.is_whole()  # tags, too
    for segment in world.history.segments():
        assert "x" not in parquet.read_table(world.history.path(segment))["project_id"].to_pylist()


@pytest.mark.parametrize("harm", [truncate, garble])
def test_a_store_that_lies_is_told_and_nothing_changes(world, harm):
    world.lie(2, harm)
    world.lose(2)
    before = files(world.here)

    told = world.restore()

    assert (told.whole, told.restored) == (False, ())
    assert world.segments[2].name in told.why
    assert files(world.here) == before


def test_parts_of_the_store_stand_in_for_what_was_merged(world):
    while world.history.merge_due(10_000, world.sealed.story.now + DAY):
        pass
    (merged,) = world.history.segments()
    garble(world.history.path(merged))

    assert world.restore().whole

    world.is_whole()
    assert len(world.history.segments()) > 1
    assert world.copies.copy() == []  # it has them already


def test_what_was_merged_there_stands_in_for_parts(world):
    parts = files(world.here)
    while world.history.merge_due(10_000, world.sealed.story.now + DAY):
        pass
    world.copies.copy()
    for path in world.here.iterdir():
        path.unlink()
    for name, data in parts.items():
        (world.here / name).write_bytes(data)
    world.history = History(world.here)
    world.lose(len(world.segments) - 2)

    assert world.restore().whole
    world.is_whole()


def test_a_kill_at_any_file_leaves_the_next_to_do_it(world, monkeypatch):
    from pathlib import Path

    class Killed(BaseException):
        pass

    world.sign(world.segments[-1])
    world.lose(*range(len(world.segments)))
    rename, at = Path.replace, 0
    while True:
        seen = 0

        def killed(path, to, at=at):
            nonlocal seen
            if seen == at:
                raise Killed
            seen += 1
            return rename(path, to)

        monkeypatch.setattr(Path, "replace", killed)
        try:
            assert world.restore().whole
            break
        except Killed:
            at = (at + 1) % 5 + 1
    monkeypatch.undo()

    world.is_whole()
    assert not list(world.here.glob(".fetching-*"))


def test_a_manifest_in_the_store_is_of_its_own_name_and_size(world):
    manifest = world.path(1, "json", world.there)
    told = manifest.read_bytes()
    world.path(2, "json", world.there).write_bytes(told)
    with pytest.raises(HistoryBroken, match="is the manifest of"):
        world.copies.copy()
    world.path(2, "json", world.there).write_bytes(b" " * 100_000)
    with pytest.raises(HistoryBroken, match="100000 bytes"):
        world.copies.copy()


def test_data_that_the_store_has_lost_is_copied_again(world):
    world.path(1, where=world.there).unlink()
    truncate(world.path(2, where=world.there))
    assert world.copies.look().waiting == 2

    assert [each.name for each in world.copies.copy()] == [world.segments[n].name for n in (1, 2)]
    assert files(world.there) == world.before


def test_a_full_disk_is_told(world, monkeypatch):
    from pathlib import Path

    world.lose(1)
    opened = Path.open

    def full(path, mode="r", *args, **kwargs):
        if "x" in mode:
            raise OSError(28, "No space left on device")
        return opened(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(Unavailable, match="No space left"):
        world.restore()


async def test_a_store_that_never_answers_holds_up_nobody(world, monkeypatch):
    """Somebody takes connections and says nothing: whoever asks is told, and asks in one thread."""
    connected, over = 0, asyncio.Event()

    async def silent(_reader, writer):
        nonlocal connected
        connected += 1
        await over.wait()
        writer.close()

    monkeypatch.setattr("projections.recovery.LOOK_S", 0.2)
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    told = {
        "aws_access_key_id": "key", "aws_secret_access_key": "hidden", "aws_region": "us-east-1",
        "aws_endpoint": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
    }  # fmt: skip
    copies = Copies(world.history, "s3://bucket/x", told)
    look = questions(world.history, copies, Held, world.sealed.reader)["copies"]

    for _ in range(3):
        with pytest.raises(Unavailable, match="does not answer"):
            await look(b"")
    assert connected == 1

    over.set()
    monkeypatch.setattr("projections.recovery.LOOK_S", None)  # until it is over
    with pytest.raises(Unavailable, match="s3://bucket/x: ") as ended:
        await look(b"")
    assert "hidden" not in ended.value.reason
    server.close()
