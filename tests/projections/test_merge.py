"""Small segments become big ones; whoever looks meanwhile, or kills it, finds all of history."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections import history as module
from projections.archive import Window
from projections.history import FAN_IN, History, mergeable
from projections.segment import HistoryBroken, Segment
from schemas.units import DAY, HOUR, SECOND
from tests.projections.story import a_small_story
from tests.projections.test_history import Sealed


@pytest.fixture
def sealed(tmp_path):
    """A history of many small segments."""
    sealed = Sealed(a_small_story(), tmp_path)
    assert len(sealed.seal(ordinals_max=5)) > 2 * FAN_IN
    return sealed


def names(sealed):
    return sorted(path.name for path in sealed.history.directory.iterdir())


def joined(sealed):
    return [c for s in sealed.history.segments() for c in sealed.history.commits(s)]


def test_merging_leaves_few_and_the_same_bytes(sealed):
    before = len(sealed.history.segments())

    merged = sealed.archive.merge(10_000, sealed.story.now)

    segments = sealed.history.verify()
    assert merged
    assert len(segments) <= before - FAN_IN + 1
    assert joined(sealed) == sealed.story.commits
    assert names(sealed) == sorted(f"{s.name}.{t}" for s in segments for t in ("json", "parquet"))
    assert sealed.archive.merge(10_000, sealed.story.now) == []


def test_merging_changes_no_answer(sealed):
    window, now = Window(), sealed.story.now
    before = sealed.archive.bill(window, now)

    sealed.archive.merge(10_000, sealed.story.now)

    assert sealed.archive.bill(window, now) == before
    assert sealed.archive.verify().intact


def test_sealing_goes_on_behind_what_was_merged(sealed):
    sealed.archive.merge(10_000, sealed.story.now)
    sealed.story.network(sealed.story.other, "10.7.0.0/24")
    again = Sealed(sealed.story, sealed.history.directory.parent / "again")

    again.history = History(sealed.history.directory)
    again.archive = type(sealed.archive)(again.history, sealed.story.read, again.reader)

    assert len(again.seal()) == 1
    assert joined(again) == sealed.story.commits


@pytest.mark.parametrize(
    "step", ["join", "data sync", "data", "manifest sync", "manifest", "directory", "clean"]
)
def test_a_kill_at_any_step_leaves_all_of_history(sealed, monkeypatch, step):
    class Killed(BaseException):
        pass

    before = len(sealed.history.segments())
    syncs = []
    rename, unlink = module.Path.replace, module.Path.unlink

    def sync(_path):
        syncs.append(_path)
        if (step, len(syncs)) in {("data sync", 1), ("manifest sync", 2), ("directory", 3)}:
            raise Killed

    def replace(path, target):
        if (step, target.suffix) in {("data", ".parquet"), ("manifest", ".json")}:
            raise Killed
        rename(path, target)

    removed = []

    def remove(path, **how):
        removed.append(path)
        if step == "clean" and len(removed) == FAN_IN // 2:
            raise Killed
        unlink(path, **how)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "_sync", sync)
        patch.setattr(module.Path, "replace", replace)
        patch.setattr(module.Path, "unlink", remove)
        if step == "join":
            patch.setattr(module, "join", killed)
        with pytest.raises(Killed):
            sealed.archive.merge(10_000, sealed.story.now)
    found = History(sealed.history.directory)
    assert len(found.segments()) <= before
    assert [c for s in found.verify() for c in found.commits(s)] == sealed.story.commits

    sealed.archive.merge(10_000, sealed.story.now)

    assert joined(sealed) == sealed.story.commits
    assert len(sealed.history.segments()) < before
    assert len(names(sealed)) == 2 * len(sealed.history.segments())


def test_what_somebody_reads_is_not_removed(sealed):
    with sealed.history.hold() as held:
        assert sealed.archive.merge(10_000, sealed.story.now)
        read = [c for s in held for c in sealed.history.commits(s)]
    assert read == sealed.story.commits
    assert len(names(sealed)) > 2 * len(sealed.history.segments())

    sealed.archive.merge(10_000, sealed.story.now)

    assert len(names(sealed)) == 2 * len(sealed.history.segments())


def test_another_process_may_merge_while_we_read(sealed):
    other = History(sealed.history.directory)
    commits = []

    for commit in sealed.history.commits_after(0):
        commits.append(commit)
        if len(commits) == 3:
            while other.merge_due(10_000, sealed.story.now):
                pass

    assert commits == sealed.story.commits
    assert list(sealed.history.commits_after(7)) == sealed.story.commits[7:]


def test_a_damaged_segment_is_not_merged(sealed):
    segments = sealed.history.segments()
    path = sealed.history.path(segments[-1])
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(HistoryBroken) as raised:
        sealed.archive.merge(10_000, sealed.story.now)

    assert raised.value.ordinal == segments[-1].first
    assert sealed.history.segments() == segments
    answer = sealed.archive.verify()
    assert (answer.intact, answer.ordinal) == (False, segments[-1].first)


def test_what_can_be_read_is_read_around_a_damage(sealed):
    segments = sealed.history.segments()
    damaged = segments[3]
    path = sealed.history.path(damaged)
    path.write_bytes(path.read_bytes()[:-1])
    missing = {*range(damaged.first_seq, damaged.last_seq + 1)}

    found = list(sealed.history.readable())

    assert found == [c for c in sealed.story.commits if c[0] not in missing]


def a_segment(first, size, at=0):
    return Segment(
        first=first,
        last=first + size - 1,
        first_seq=1,
        last_seq=1,
        commits=1,
        first_at=at,
        last_at=at,
        prev_hash="",
        last_hash="",
        bytes=0,
        sha256="",
    )


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=400))
def test_the_number_of_segments_is_bounded_and_so_is_the_work(sizes):
    largest = 1000
    segments, rewritten, first = [], 0, 1
    for size in sizes:
        segments.append(a_segment(first, size))
        first += size
        while run := mergeable(segments, largest, 0):
            at = segments.index(run[0])
            segments[at : at + len(run)] = [
                a_segment(run[0].first, run[-1].last - run[0].first + 1)
            ]
            rewritten += run[-1].last - run[0].first + 1

    ordinals = first - 1
    assert len(segments) <= 8 * ordinals / largest + 30
    assert rewritten <= 11 * ordinals


@settings(max_examples=40)
@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)), min_size=1, max_size=300))
def test_a_day_that_is_over_becomes_a_file_and_then_a_month(sizes):
    """Each segment some hours after the one before, merged whenever it can be."""
    largest, start = 1000, 1_767_225_600 * SECOND  # a new year
    segments, rewritten, first, now = [], 0, 1, start
    for size, hours in sizes:
        now += hours * HOUR
        segments.append(a_segment(first, size, now))
        first += size
        while run := mergeable(segments, largest, now):
            at = segments.index(run[0])
            merged = a_segment(run[0].first, run[-1].last - run[0].first + 1, run[0].first_at)
            segments[at : at + len(run)] = [merged]
            assert len({_month(each) for each in run}) == 1
            assert merged.last - merged.first < largest
            rewritten += run[-1].last - run[0].first + 1

    over = [s for s in segments if s.first_at // DAY < now // DAY]
    for one, other in itertools.pairwise(over):
        period = _month if _month(one) < _month(segments[-1]) else _day
        together = other.last - one.first + 1
        assert period(one) != period(other) or together > largest
    assert rewritten <= 13 * (first - 1)


def _day(segment):
    return datetime.fromtimestamp(segment.first_at // SECOND, UTC).date()


def _month(segment):
    return _day(segment).replace(day=1)


def test_no_segment_holds_two_days(tmp_path):
    story = a_small_story()
    story.later(DAY)
    story.network(story.other, "10.9.0.0/24")
    sealed = Sealed(story, tmp_path)

    segments = sealed.seal()

    assert len(segments) > 1
    for segment in segments:
        assert segment.first_at // DAY == segment.last_at // DAY
    assert joined(sealed) == story.commits
    sealed.archive.merge(10_000, story.now)
    assert joined(sealed) == story.commits
