"""What changed between two moments is told in full, and each field put down to what set it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.rerun import Changed
from projections import models, store
from projections.explanation import fields_of
from projections.models import apply_commit, decode_stored, last_ordinal
from projections.timemachine import difference as told_of
from projections.timemachine.difference import TooMuchChanged, decode_changes, project_of
from projections.timemachine.differences import KEPT_MAX, Differences, differences_path
from projections.timemachine.moments import BeforeFirstEvent, InTheFuture
from projections.timemachine.worker import JOBS, Asked, job_of
from schemas.network import CreateNetwork, DeleteNetwork
from tests.engine.stories import Story as RandomStory
from tests.golden.build import golden_log
from tests.projections.story import Story, a_small_story, projected


def differences_of(story, path):
    differences = Differences(path, story.read)
    differences.begin()
    return differences


NOT_TOLD = {"identity_changed", "operations", "usage"}


def rows(db):
    """Return all that is there: fields by table and key, and whose it is. The naive way."""
    found = {}
    for table in models.TABLES:
        if table.name in NOT_TOLD:
            continue
        for (body,) in db.execute(f"SELECT body FROM {table.name}"):
            resource = table.decode(body)
            key = table.key_of(table.values(resource))
            if table.name == "servers" and resource.server.vm_state == "deleted":
                continue
            found[table.name, (key,) if isinstance(key, str) else key] = (
                fields_of(resource),
                project_of(table, resource),
            )
    return found


def states(commits):
    """Return what was there after each commit, by its last ordinal; nothing at 0."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        store.create(db, models.made_by(), models.STATEMENTS)
        writer = store.Writer(db)
        found = {0: {}}
        for seq, data in commits:
            apply_commit(writer, seq, data)
            writer.commit()
            found[writer.position.ordinal] = rows(db)
        return found


def told(differences, since, through, project_id=None):
    found = differences.between(since, through, project_id)
    return found, decode_changes(Path(found.file).read_bytes())


def value(fields, name):
    """Return whether a field is there, and its value."""
    return name in fields, fields.get(name)


def assert_told_in_full(differences, then, since, through, project_id=None, *, alone=False):
    """All that differs is told, nothing else, and what set each field.

    ``alone``: each commit is one request's, so that what was before and after it is known.
    """
    found, changes = told(differences, since, through, project_id)
    before, after = then[found.since], then[found.ordinal]
    ends = sorted(then)
    seen = {}
    for change in changes:
        row = change.table, change.key
        assert row not in seen
        seen[row] = change
        old, _ = before.get(row, ({}, ""))
        new, _ = after.get(row, ({}, ""))
        assert change.change == ("created" if not old else "deleted" if not new else "changed")
        differing = {name for name in {*old, *new} if value(old, name) != value(new, name)}
        assert {field.field for field in change.fields} == differing
        for field in change.fields:
            assert (field.before, field.after) == (old.get(field.field), new.get(field.field))
            end = next(one for one in ends if one >= field.ordinal)
            became, _ = then[end].get(row, ({}, ""))
            was, _ = then[ends[ends.index(end) - 1]].get(row, ({}, ""))
            assert value(became, field.field) == value(new, field.field)
            if alone:
                assert value(was, field.field) != value(new, field.field)
            assert found.since < field.ordinal <= change.ordinal <= found.ordinal
    differing = {
        row
        for row in {*before, *after}
        if before.get(row, ({},))[0] != after.get(row, ({},))[0]
        and project_id in {None, before.get(row, ((), ""))[1], after.get(row, ((), ""))[1]}
    }
    assert seen.keys() == differing


@pytest.mark.parametrize("project", [False, True])
def test_all_that_differs_is_told_of_everything_there_is(tmp_path, project):
    story = Story()
    story.commits = list(enumerate(golden_log(), 1))
    path = tmp_path / "n.sqlite"
    head = projected(story, path).position.ordinal
    differences = differences_of(story, path)
    then = states(story.commits)
    whose = [None]
    if project:
        whose = sorted({of for there in then.values() for _, of in there.values()} - {""})[:3]

    for project_id in whose:
        for since, through in ((0, head), (head // 3, head), (head // 2, head // 2 + 40)):
            assert_told_in_full(differences, then, since, through, project_id)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_all_that_differs_is_told_of_any_story(seed, data, tmp_path_factory):
    story = Story(seed)
    random_story = RandomStory(story, seed)
    random_story.begin()
    random_story.play(60)
    path = tmp_path_factory.mktemp("story") / "n.sqlite"
    head = projected(story, path).position.ordinal
    first = last_ordinal(decode_stored(story.commits[0][1]))
    since, through = sorted(data.draw(st.tuples(*[st.integers(first, head)] * 2)))

    then = states(story.commits)
    assert_told_in_full(differences_of(story, path), then, since, through, alone=True)


def test_whoever_compares_keeps_nobody_from_reading_a_moment():
    """Each kind of question has a process of its own, whether it folds much or little."""
    asked = (
        Asked(ordinal=9),
        Asked(ordinal=9, since=0),
        Asked(ordinal=9, since=0, changed=Changed()),
    )

    assert [job_of(one) for one in asked] == [*JOBS]


def test_nothing_changes_from_a_moment_to_itself(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)

    found, changes = told(differences_of(story, path), 60, 60)

    assert changes == []
    assert found.since == found.ordinal


def test_too_much_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(told_of, "CHANGES_MAX", 5)
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    head = projected(story, path).position.ordinal
    differences = differences_of(story, path)

    with pytest.raises(TooMuchChanged, match="more than 5"):
        differences.between(0, head, None)
    for since, through in ((1, head), (0, 1)):
        with pytest.raises(BeforeFirstEvent):
            differences.between(since, through, None)
    with pytest.raises(InTheFuture):
        differences.between(0, head + 1, None)

    assert [*differences_path(path).iterdir()] == []


def test_what_is_noted_is_bounded_and_what_came_and_went_is_forgotten(tmp_path, monkeypatch):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    began = projected(story, path).position.ordinal
    for number in range(9):
        made = story.ok(story.demo, CreateNetwork(name=f"n{number}"))
        story.ok(story.demo, DeleteNetwork(network_id=made["network_id"]))
    monkeypatch.setattr(told_of, "NOTED_MAX", 4)
    differences = differences_of(story, path)

    _, changes = told(differences, began, story.cell.state.ordinal, story.demo.project_id)
    assert changes == []
    for number in range(5):
        story.ok(story.demo, CreateNetwork(name=f"n{number}"))
    with pytest.raises(TooMuchChanged):
        differences.between(began, story.cell.state.ordinal, None)


def test_nothing_sealed_is_told(tmp_path):
    story = Story()
    story.commits = list(enumerate(golden_log(), 1))
    path = tmp_path / "n.sqlite"
    head = projected(story, path).position.ordinal
    middle = head // 2

    found, _ = told(differences_of(story, path), 0, middle)

    text = Path(found.file).read_bytes()
    assert b"key_id" in text
    assert b"ciphertext" not in text


def test_what_was_found_is_kept_and_bounded(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    differences = differences_of(story, path)
    read = []
    differences._read = lambda after: read.append(after) or story.read(after)

    for through in range(60, 60 + KEPT_MAX + 4):
        differences.between(50, through, None)
    asked = len(read)
    differences.between(50, 60 + KEPT_MAX + 3, None)

    assert len(list(differences_path(path).iterdir())) <= KEPT_MAX
    assert len(read) == asked
