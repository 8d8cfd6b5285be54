"""How far each webhook has come: what is on disk is what was done."""

from hypothesis import given
from hypothesis import strategies as st

from projections.courier.book import DEAD_MAX, Book, Dead, Progress
from projections.courier.sender import Pace, backoff_s


def test_progress_outlives_the_process(tmp_path):
    book = Book(tmp_path / "book.sqlite")
    progress = Progress(after=7, heard=3, delivered=2, error="no", failures=1, next_at=9)
    book.save("w", progress)
    book.give_up("w", progress, Dead(ordinal=7, at=1, attempts=3, error="no"))
    book.close()

    again = Book(tmp_path / "book.sqlite")
    assert again.find("w") == progress
    assert progress.dead == 1
    assert again.find("other") is None
    assert again.known() == ["w"]
    again.close()


def test_what_was_given_up_is_sent_again_in_order_and_once(tmp_path):
    book = Book(tmp_path / "book.sqlite")
    progress = Progress(after=9, heard=0)
    for ordinal in (5, 3, 9):
        book.give_up("w", progress, Dead(ordinal=ordinal, at=1, attempts=3, error="no"))
    assert book.again("w") is None
    book.send_again("w")
    for ordinal in (3, 5):
        assert book.again("w") == ordinal
        book.revive("w", ordinal, progress)
    # The last fails again: it is put aside, and does not come back by itself.
    book.give_up("w", progress, Dead(ordinal=9, at=2, attempts=3, error="no"))
    assert book.again("w") is None
    assert [dead.ordinal for dead in book.dead("w", 10)] == [9]
    assert progress.dead == 1
    book.close()


def test_what_is_kept_of_one_webhook_is_bounded(tmp_path):
    book = Book(tmp_path / "book.sqlite")
    progress = Progress(after=0, heard=0)
    for ordinal in range(DEAD_MAX + 5):
        book.give_up("w", progress, Dead(ordinal=ordinal, at=1, attempts=1, error="x" * 1000))
    kept = book.dead("w", 2 * DEAD_MAX)
    assert len(kept) == progress.dead == DEAD_MAX
    assert (kept[0].ordinal, kept[-1].ordinal) == (DEAD_MAX + 4, 5)
    assert all(len(dead.error) == 300 for dead in kept)
    book.forget("w")
    assert book.find("w") is None
    assert book.dead("w", 10) == []
    book.close()


def test_going_back_forgets_what_will_come_by_again(tmp_path):
    book = Book(tmp_path / "book.sqlite")
    progress = Progress(after=9, heard=0)
    for ordinal in (3, 9):
        book.give_up("w", progress, Dead(ordinal=ordinal, at=1, attempts=3, error="no"))
    progress.after = 5
    book.rewind("w", progress)
    assert [dead.ordinal for dead in book.dead("w", 10)] == [3]
    assert book.find("w").after == 5
    book.close()


PACE = Pace(timeout_s=1, attempts=12, backoff_s=1.0, backoff_max_s=300.0, give_up=20)


@given(st.integers(1, 10_000), st.none() | st.integers(0, 10**6))
def test_a_pause_grows_and_is_bounded(failures, asked_s):
    pause_s = backoff_s(PACE, failures, asked_s)
    usual_s = min(300.0, 2.0 ** (failures - 1)) if failures < 100 else 300.0
    assert usual_s / 2 <= pause_s <= 300.0
    if asked_s is None:
        assert pause_s <= usual_s
    elif asked_s <= 300:
        assert pause_s >= asked_s
