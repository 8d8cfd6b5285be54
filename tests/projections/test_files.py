"""A read model can be thrown away at any time, and built beside one that is in use."""

import sqlite3

import msgspec
import pytest

from projections import files, models, store
from projections.files import LogEnded, open_current, rebuild
from projections.models import LogDiffers, apply_commit
from projections.store import Superseded
from schemas.compute import RenameServer
from tests.projections.story import OPENED, Story, a_small_story, projected, reading


def test_a_rebuild_comes_out_the_same(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path).db.close()

    rebuilt = rebuild(path, story.read)

    assert rebuilt.identical is True
    assert rebuilt.ordinal == story.cell.state.ordinal
    assert files.generation(path) == 2
    assert [p.name for p in tmp_path.glob("n.g1*")] == []


def test_a_rebuild_shows_a_difference(tmp_path):
    """A row that follows from nothing in the log does not survive, and is noticed."""
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    writer = projected(story, path)
    writer.db.execute("UPDATE servers SET name = 'forged'")
    writer.db.close()

    rebuilt = rebuild(path, story.read)

    assert rebuilt.identical is False
    reader = files.open_current(path)
    assert reader is not None
    OPENED.append(reader.db)
    assert reader.db.execute("SELECT count(*) FROM servers WHERE name = 'forged'").fetchone() == (
        0,
    )


def test_a_first_build_has_nothing_to_compare_with(tmp_path):
    story = a_small_story()

    rebuilt = rebuild(tmp_path / "read" / "n.sqlite", story.read)

    assert rebuilt.identical is None
    assert rebuilt.ordinal == story.cell.state.ordinal


def test_a_log_that_ends_too_early_switches_nothing(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path).db.close()

    with pytest.raises(LogEnded):
        rebuild(path, lambda after: story.commits[after:-1])

    assert files.generation(path) == 1


def test_another_log_switches_nothing(tmp_path):
    story, other = a_small_story(), Story(seed=9)
    path = tmp_path / "n.sqlite"
    projected(story, path).db.close()

    with pytest.raises(LogDiffers):
        rebuild(path, lambda after: other.commits[after:] + story.commits[1:])

    assert files.generation(path) == 1


def test_a_projector_at_work_goes_on_with_the_new_file(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    writer = projected(story, path)
    story.ok(story.demo, RenameServer(server_id=story.first, name="one"))
    apply_commit(writer, *story.commits[-1])

    rebuild(path, story.read)

    with pytest.raises(Superseded):
        writer.commit()
    fresh = open_current(path)
    assert fresh is not None
    OPENED.append(fresh.db)
    apply_commit(fresh, *story.commits[-1])
    fresh.commit()
    assert fresh.position.ordinal == story.cell.state.ordinal


def test_a_reader_of_the_old_file_keeps_what_it_sees(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    reader = reading(story, path)

    with reader.snapshot():
        rebuild(path, story.read)
        held = len(reader.servers())

    assert held == len(story.cell.state.servers)


@pytest.mark.parametrize("what", ["layout", "code"])
def test_a_file_that_another_version_made_is_not_opened(tmp_path, monkeypatch, what):
    path = tmp_path / "n.sqlite"
    projected(a_small_story(), path).db.close()

    changed = msgspec.structs.replace(models.made_by(), **{what: "other"})
    monkeypatch.setattr(models, "made_by", lambda: changed)

    assert open_current(path) is None


@pytest.mark.parametrize("change", ["DROP TABLE made_by", "DELETE FROM made_by"])
def test_a_file_that_does_not_say_who_made_it_is_not_opened(tmp_path, change):
    path = tmp_path / "n.sqlite"
    writer = projected(a_small_story(), path)
    writer.db.execute(change)
    writer.db.close()

    assert open_current(path) is None


def test_which_code_made_it_is_not_in_the_digest(tmp_path):
    writer = projected(a_small_story(), tmp_path / "n.sqlite")
    before = store.digest(writer.db)

    writer.db.execute("UPDATE made_by SET code = 'other'")

    assert store.digest(writer.db) == before


def test_a_half_built_file_is_built_again(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path).db.close()
    left_over = files.open_next(path)
    apply_commit(left_over, *story.commits[0])
    left_over.commit()
    left_over.db.close()

    assert rebuild(path, story.read).identical is True


def test_the_digest_sees_every_cell(tmp_path):
    writer = projected(a_small_story(), tmp_path / "n.sqlite")
    before = store.digest(writer.db)

    for change in (
        "UPDATE timeline SET at = at + 1 WHERE ordinal = 3",
        "UPDATE servers SET body = x'00' WHERE rowid = 1",
        "DELETE FROM grants WHERE rowid = 1",
        "UPDATE position SET ordinal = ordinal + 1",
    ):
        writer.db.execute("BEGIN")
        writer.db.execute(change)
        assert store.digest(writer.db) != before, change
        writer.db.execute("ROLLBACK")

    assert store.digest(writer.db) == before


def test_a_checkpoint_copies_the_journal(tmp_path):
    path = tmp_path / "n.sqlite"
    writer = projected(a_small_story(), path)
    journal = tmp_path / "n.g1.sqlite-wal"
    assert journal.stat().st_size > 0

    files.checkpoint(path)

    writer.db.close()
    assert sqlite3.connect(f"file:{path.resolve()}?mode=ro&immutable=1", uri=True).close() is None
