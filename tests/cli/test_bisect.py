"""Halving ends at a change, wherever there are some, and asks no more than it must."""

from hypothesis import given
from hypothesis import strategies as st

from cli.bisect import halve


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.data())
def test_what_is_found_is_a_change(low, span, data):
    high = low + span
    changes = data.draw(st.lists(st.integers(low + 1, high), min_size=1, max_size=5, unique=True))
    if len(changes) % 2 == 0:
        changes.pop()  # else it is at the end as it was at first, and there is nothing to find
    asked = []

    def as_before(ordinal):
        asked.append(ordinal)
        return sum(change <= ordinal for change in changes) % 2 == 0

    found = halve(low, high, as_before)

    assert low < found <= high
    assert as_before(found - 1)
    assert not as_before(found)
    assert len(asked) <= 2 + span.bit_length()
