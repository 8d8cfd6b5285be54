"""Sealed history is the log, byte for byte, or the first ordinal that is not is named."""

import pytest

from projections.agreement import compare
from tests.projections.story import a_small_story
from tests.projections.test_history import Sealed


@pytest.fixture
def sealed(tmp_path):
    sealed = Sealed(a_small_story(), tmp_path)
    sealed.seal(40, through=sealed.head - 20)
    return sealed


def compared(sealed):
    return compare(sealed.history, sealed.story.read)


def first(commit):
    import msgspec

    return msgspec.json.decode(commit[1])["first"]


def test_what_was_sealed_is_what_lies_in_the_log(sealed):
    segments = sealed.history.segments()
    commits = [c for c in sealed.story.commits if c[0] <= segments[-1].last_seq]

    told = compared(sealed)

    assert told.agree
    assert (told.segments, told.sealed, told.head) == (
        len(segments), segments[-1].last, sealed.head,
    )  # fmt: skip
    assert told.sealed < told.head
    assert (told.commits, told.bytes) == (len(commits), sum(len(data) for _, data in commits))


def test_nothing_is_missing_where_nothing_is_sealed(tmp_path):
    told = compared(Sealed(a_small_story(), tmp_path))

    assert (told.agree, told.segments, told.sealed) == (True, 0, 0)
    assert told.head > 0


@pytest.mark.parametrize("place", ["sealed", "tail"])
@pytest.mark.parametrize("change", ["flip", "drop", "swap", "insert"])
def test_any_change_of_the_log_is_found(sealed, place, change):
    commits = sealed.story.commits
    at = 5 if place == "sealed" else len(commits) - 2
    seq, data = commits[at]
    wrong = first(commits[at])
    match change:
        case "flip":
            commits[at] = seq, data.replace(b'"at":17', b'"at":18', 1)
        case "drop":
            del commits[at]
        case "swap":
            commits[at], commits[at + 1] = (seq, commits[at + 1][1]), (seq + 1, data)
        case "insert":
            commits.insert(at, (seq, data))
            wrong = first(commits[at + 2])  # where the copy is found instead

    told = compared(sealed)

    assert not told.agree
    assert told.ordinal == wrong
    assert told.why


def test_a_log_that_ends_before_its_history_is_found(sealed):
    last = sealed.history.segments()[-1].last_seq
    cut = [c for c in sealed.story.commits if c[0] < last]
    wrong = first(sealed.story.commits[len(cut)])
    sealed.story.commits[:] = cut

    told = compared(sealed)

    assert (told.agree, told.ordinal) == (False, wrong)
    assert "ends before it" in told.why


def test_a_segment_that_is_gone_is_found(sealed):
    segments = sealed.history.segments()
    (sealed.history.directory / f"{segments[1].name}.json").unlink()

    told = compared(sealed)

    assert (told.agree, told.ordinal) == (False, segments[1].first)
