"""A moment of the past is the read model that was there then: all tables, whatever came later."""

import random
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from projections import models, store
from projections.federation import FEDERATED
from projections.models import apply_commit, decode_stored, last_ordinal
from projections.query import Query
from projections.store import MadeBy
from projections.timemachine import moments as made
from projections.timemachine.copy import lay_down, ordinal_at
from projections.timemachine.moments import (
    BeforeFirstEvent,
    InTheFuture,
    Moment,
    Moments,
    moments_path,
    thinned,
)
from projections.timemachine.past import PastReader
from schemas.errors import Unavailable
from schemas.identity import FederatedUserSignedIn
from tests.engine.stories import Story as RandomStory
from tests.golden.build import golden_log
from tests.projections.story import OPENED, Story, a_small_story, projected


def moments_of(story, path, every=made.SNAPSHOT_ORDINALS):
    moments = Moments(path, story.read, every=every)
    moments.begin()
    return moments


def reading(path, moment):
    reader = PastReader(path, moment, moment.at)
    OPENED.append(reader)
    return reader


def digests(commits):
    """Return the digest of the read model after each commit, by its last ordinal."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        store.create(db, models.made_by(), models.STATEMENTS)
        writer = store.Writer(db)
        found = {}
        for seq, data in commits:
            position = apply_commit(writer, seq, data)
            writer.commit()
            found[position.ordinal] = store.digest(db)
        return found


def assert_each_is_as_it_was(story, path, ordinals, moments):
    then = digests(story.commits)
    for ordinal in ordinals:
        end = max((one for one in then if one <= ordinal), default=0)
        if not end:
            with pytest.raises(BeforeFirstEvent):
                moments.at(ordinal)
            continue
        moment = moments.at(ordinal)
        assert moment.ordinal == end
        assert store.digest(reading(path, moment).db()) == then[end]


def test_a_moment_of_everything_there_is_is_as_it_was(tmp_path):
    """Of every action and fact, in commits of one record and of many, read model and timeline."""
    story = Story()
    story.commits = list(enumerate(golden_log(), 1))
    path = tmp_path / "n.sqlite"
    projected(story, path)
    head = last_ordinal(decode_stored(story.commits[-1][1]))
    dice = random.Random(5)

    moments = moments_of(story, path, every=150)
    moments.take()

    assert_each_is_as_it_was(story, path, [head, 1, *dice.sample(range(1, head), 12)], moments)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_a_moment_of_any_story_is_as_it_was(seed, data, tmp_path_factory):
    """Whatever happened, whenever snapshots were taken, and in whichever order one asks."""
    story = Story(seed)
    random_story = RandomStory(story, seed)
    random_story.begin()
    path = tmp_path_factory.mktemp("story") / "n.sqlite"
    writer = projected(story, path)
    moments = moments_of(story, path, every=data.draw(st.sampled_from([40, 10_000])))
    then = {moments.take(): store.digest(writer.db)}
    for _ in range(3):  # each of what has changed since the one before
        known = len(story.commits)
        random_story.play(20)
        for seq, commit in story.commits[known:]:
            apply_commit(writer, seq, commit)
        writer.commit()
        then[moments.take()] = store.digest(writer.db)
    for ordinal, digest in then.items():
        taken = moments_path(path) / f"snapshot-{ordinal}.sqlite"
        moment = Moment(ordinal=ordinal, at=writer.position.at, file=str(taken))
        assert store.digest(reading(path, moment).db()) == digest

    ordinals = data.draw(st.lists(st.integers(1, writer.position.ordinal), max_size=6))

    assert_each_is_as_it_was(story, path, ordinals, moments)


def test_what_is_derived_from_the_timeline_ends_with_the_moment(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    moment = moments_of(story, path).at(60)
    reader = reading(path, moment)

    assert max(event.ordinal for event in reader.events(limit=1000)) == moment.ordinal
    assert reader.first_at(moment.at + 1) == moment.ordinal + 1
    assert reader.audit_log(limit=1)[0].ordinal <= moment.ordinal
    assert all(at <= moment.ordinal for at, *_ in reader.news(0, 10_000))
    story_of_first = reader.why(story.first)
    assert story_of_first is None or story_of_first.events[-1].ordinal <= moment.ordinal


def test_a_federated_membership_counts_by_the_clock_of_the_moment(tmp_path):
    """What a provider has said holds for a while: then, and not on today's clock."""
    story = Story()
    story.commits = list(enumerate(golden_log(), 1))
    path = tmp_path / "n.sqlite"
    projected(story, path)
    tag = FederatedUserSignedIn.__struct_config__.tag
    data = next(data for _, data in story.commits if tag.encode() in data)
    moment = moments_of(story, path).at(last_ordinal(decode_stored(data)))
    (told, *_) = reading(path, moment).page(Query(FEDERATED), (("id", False),))

    found = {}
    for at in (told.until - 1, told.until):
        reader = PastReader(path, moment, at)
        OPENED.append(reader)
        found[at] = reader.federated(told.user_id)

    assert found == {told.until - 1: told, told.until: None}


def test_the_future_and_what_was_before_everything_are_refused(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    head = projected(story, path).position.ordinal
    moments = moments_of(story, path)

    with pytest.raises(InTheFuture, match=f"ends at ordinal {head}"):
        moments.at(head + 1)
    with pytest.raises(BeforeFirstEvent):
        moments.at(1)

    assert list(moments_path(path).iterdir()) == []


def test_a_start_keeps_its_own_snapshots_and_nothing_else(tmp_path):
    """What a kill has left, moments nobody knows any more, and other versions' files go."""
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    moments = moments_of(story, path)
    taken = moments.take()
    moments.at(50)
    directory = moments_path(path)
    (directory / ".building-moment.sqlite").write_bytes(b"half")
    (directory / "snapshot-7.sqlite").write_bytes(b"no database")
    other = directory / "snapshot-8.sqlite"
    with closing(store.open_scratch(other)) as db:
        store.create(db, MadeBy(layout="other", code="other"), models.STATEMENTS)

    moments_of(story, path)

    assert [one.name for one in directory.iterdir()] == [f"snapshot-{taken}.sqlite"]


def test_snapshots_of_an_end_that_was_lost_go(tmp_path):
    """The log was restored without its end, and went on otherwise."""
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    writer = projected(story, path)
    moments = moments_of(story, path)
    early = moments.take()
    common = list(story.commits)
    story.network(story.demo, "10.70.0.0/24")
    for commit in story.commits[len(common) :]:
        apply_commit(writer, *commit)
    writer.commit()
    moments.take()
    other = a_small_story()
    other.network(other.other, "10.71.0.0/24")
    assert other.commits[: len(common)] == common
    assert other.commits[len(common)] != story.commits[len(common)]

    moments_of(other, path)

    assert [one.name for one in moments_path(path).iterdir()] == [f"snapshot-{early}.sqlite"]


def test_no_snapshot_is_taken_of_another_versions_read_model(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    writer = projected(story, path)
    moments = moments_of(story, path)
    writer.db.execute("UPDATE made_by SET code = 'other'")

    assert moments.take() == 0
    assert list(moments_path(path).iterdir()) == []


def test_a_moment_is_read_from_the_nearest_file_before_it(tmp_path):
    """The log is read from there on, and nothing of it twice."""
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    head = projected(story, path).position.ordinal
    asked = []

    def read(after_seq):
        asked.append(after_seq)
        return story.read(after_seq)

    moments = Moments(path, read)
    moments.begin()
    middle = moments.at(60)
    moments.at(head)
    moments.at(head)
    moments.at(middle.ordinal)

    seqs = {last_ordinal(decode_stored(data)): seq for seq, data in story.commits}
    assert asked == [0, seqs[middle.ordinal]]


def test_moments_are_bounded_and_the_last_used_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "MOMENTS_MAX", 3)
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    moments = moments_of(story, path)
    ends = [last_ordinal(decode_stored(data)) for _, data in story.commits][5:10]

    for end in (*ends[:3], ends[0], *ends[3:]):
        moments.at(end)

    kept = {int(one.stem.removeprefix("moment-")) for one in moments_path(path).iterdir()}
    assert kept == {ends[0], *ends[3:]}


def test_snapshots_are_bounded_and_the_newest_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "SNAPSHOTS_MAX", 4)
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    head = projected(story, path).position.ordinal

    moments_of(story, path, every=5).at(head)

    kept = sorted(
        int(one.stem.removeprefix("snapshot-")) for one in moments_path(path).glob("snapshot-*")
    )
    assert len(kept) == 4
    assert head - kept[-1] <= 40


@pytest.mark.parametrize(
    ("ordinals", "missed_least"),
    [([10, 20, 30], 10), ([10, 11, 30], 10), ([10, 29, 30], 10), ([100, 101, 200, 210], 101)],
)
def test_the_snapshot_that_is_missed_least_goes(ordinals, missed_least):
    found = thinned(ordinals, ordinals[-1])

    assert found != ordinals[-1]
    assert found == missed_least


def test_a_moment_whose_file_is_gone_cannot_be_read(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    moment = moments_of(story, path).at(60)
    gone = replace(moment, file=str(tmp_path / "gone.sqlite"))
    assert isinstance(gone, Moment)

    reader = reading(path, gone)

    assert reader.position() == 0
    with pytest.raises(Unavailable):
        reader.servers()


def test_nothing_can_be_written_through_a_moment(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    db = reading(path, moments_of(story, path).at(60)).db()

    for statement in ("DELETE FROM servers", "DELETE FROM now.timeline", "DROP VIEW timeline"):
        with pytest.raises(sqlite3.OperationalError):
            db.execute(statement)


@pytest.mark.parametrize("of", [60, 400])
def test_a_whole_copy_of_a_moment_is_the_read_model_of_then(tmp_path, of):
    """Timeline and alarms too; and nothing is left among the node's own files."""
    story = Story()
    story.commits = list(enumerate(golden_log(), 1))
    path = tmp_path / "n.sqlite"
    projected(story, path)
    moments = moments_of(story, path)
    moments.at(of // 2)
    before = sorted(moments_path(path).iterdir())

    moment = lay_down(path, story.read, of, tmp_path / "then" / "then.sqlite")

    with closing(store.open_reader(tmp_path / "then" / "then.sqlite")) as db:
        assert store.digest(db) == digests(story.commits)[moment.ordinal]
    assert moment.ordinal <= of
    assert sorted(moments_path(path).iterdir()) == before
    with pytest.raises(FileExistsError):
        lay_down(path, story.read, of, tmp_path / "then" / "then.sqlite")


def test_a_time_means_the_last_commit_by_then(tmp_path):
    story = a_small_story()
    path = tmp_path / "n.sqlite"
    projected(story, path)
    ends = {}
    for _, data in story.commits:
        commit = decode_stored(data)
        ends[commit.at] = last_ordinal(commit)

    for at, end in list(ends.items())[::7]:
        assert ordinal_at(path, story.read, at) == end
    with pytest.raises(BeforeFirstEvent):
        ordinal_at(path, story.read, min(ends) - 1)
