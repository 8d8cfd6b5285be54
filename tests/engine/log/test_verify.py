"""A walk over the log names the first ordinal that does not hold."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log.commit import GENESIS, ChainBroken, seal_commit
from engine.log.verify import VerifyReport, verify
from schemas.engine import ElectLeader, LeaderElected
from schemas.envelope import Accepted, Actor, Record, Request


def a_record(number, facts):
    return Record(
        salt=f"{number:016x}",
        request=Request(
            request_id=f"req-{number}",
            actor=Actor(kind="system"),
            action=ElectLeader(epoch=1, node="n"),
            submitted_at=number,
        ),
        verdict=Accepted(),
        facts=tuple(LeaderElected(epoch=1, node="n", elected_at=i) for i in range(facts)),
    )


def a_log(facts_by_record=((1,), (0, 2), (3,)), *, at=None, epoch=None):
    """Return a log's messages and the first ordinal of each."""
    numbers = itertools.count(1)
    messages, firsts = [], []
    first, prev = 1, GENESIS
    for place, facts in enumerate(facts_by_record):
        records = [a_record(next(numbers), count) for count in facts]
        data, prev_next = seal_commit(
            f"c-{place}",
            first,
            prev,
            epoch[place] if epoch else 1,
            at[place] if at else 1000 + place,
            records,
        )
        messages.append((place + 1, data))
        firsts.append(first)
        first, prev = first + len(facts) + sum(facts), prev_next
    return messages, firsts


def test_an_intact_log_is_reported_whole():
    messages, _ = a_log()

    report = verify(messages)

    assert (report.commits, report.ordinals) == (3, 2 + 4 + 4)
    assert report.last_hash == json.loads(messages[-1][1])["hash"]
    assert report.last_at == 1002


def test_an_empty_log_is_intact():
    assert verify([]) == VerifyReport(commits=0, ordinals=0, last_hash=GENESIS)


def test_a_walk_can_go_on_from_where_another_ended():
    messages, _ = a_log()

    assert verify(messages[1:], start=verify(messages[:1])) == verify(messages)


@given(
    sizes=st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_a_changed_byte_is_found_at_its_commit(sizes, data):
    messages, firsts = a_log(tuple(sizes))
    which = data.draw(st.integers(0, len(messages) - 1))
    seq, message = messages[which]
    place = data.draw(st.integers(0, len(message) - 1))
    altered = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]

    with pytest.raises(ChainBroken) as raised:
        verify([*messages[:which], (seq, altered), *messages[which + 1 :]])

    assert raised.value.ordinal == firsts[which]


def test_a_missing_commit_is_found():
    messages, firsts = a_log()

    with pytest.raises(ChainBroken, match="missing") as raised:
        verify([messages[0], messages[2]])

    assert raised.value.ordinal == firsts[1]


def test_commits_in_the_wrong_order_are_found():
    messages, firsts = a_log()
    swapped = [messages[0], (2, messages[2][1]), (3, messages[1][1])]

    with pytest.raises(ChainBroken) as raised:
        verify(swapped)

    assert raised.value.ordinal == firsts[1]


def test_a_forged_commit_breaks_the_one_after_it():
    """Whoever rewrites a commit must rewrite all later ones, up to a checkpoint held elsewhere."""
    messages, firsts = a_log()
    forged, _ = a_log(((1,), (0, 1), (3,)))

    with pytest.raises(ChainBroken) as raised:
        verify([messages[0], forged[1], messages[2]])

    assert raised.value.ordinal <= firsts[2]


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"at": (5, 4, 6)}, "time goes back"), ({"epoch": (2, 1, 3)}, "epoch goes back")],
)
def test_time_and_epoch_never_go_back(changes, why):
    messages, firsts = a_log(**changes)

    with pytest.raises(ChainBroken, match=why) as raised:
        verify(messages)

    assert raised.value.ordinal == firsts[1]
