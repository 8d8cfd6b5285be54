"""When a condition held is what looking at every microsecond would find."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from projections.metering import Interval
from projections.ringing import Happened, Known, held, reach_of
from projections.watch import reports
from schemas import alarm as s
from schemas.metering import BUILT_IN
from schemas.units import SECOND

END = 40
FACTS = ("a.b", "c.d")


@pytest.fixture(autouse=True)
def _short_seconds(monkeypatch):
    """A second of three microseconds, so that every one can be looked at."""
    monkeypatch.setattr("projections.ringing.SECOND", 3)


def an_interval(start, end, value, resource="r", meter="compute.vcpu"):
    return Interval(
        resource_kind="server",
        resource_id=resource,
        project_id="p",
        meter=meter,
        value=value,
        start=start,
        end=end,
        first_ordinal=1,
        last_ordinal=None if end is None else 2,
    )


limits = st.builds(
    lambda above, limit: {"above" if above else "below": limit},
    st.booleans(),
    st.sampled_from(["0", "1", "2", "2.5", "4"]),
)
resources = st.sampled_from(["", "r", "s"])
simple = st.one_of(
    st.builds(
        lambda c, r: s.WhatIsHeld(meter="compute.vcpu", resource_id=r, **c), limits, resources
    ),
    st.builds(
        lambda c, r, w: s.WhatWasUsed(meter="compute.vcpu", resource_id=r, window_s=w, **c),
        limits, resources, st.integers(1, 4),
    ),
    st.builds(
        lambda c, r, w, f: s.WhatHappened(facts=f, resource_id=r, window_s=w, **c),
        limits, resources, st.integers(1, 4), st.sampled_from([("a.b",), FACTS]),
    ),
    st.builds(
        lambda c, r, w: s.WhatIsSo(since=("a.b",), until=("c.d",), resource_id=r, for_s=w, **c),
        limits, resources, st.integers(0, 3),
    ),
)  # fmt: skip
several = st.lists(simple, min_size=1, max_size=3)
conditions = st.one_of(
    simple,
    st.builds(lambda parts: s.AllOf(conditions=tuple(parts)), several),
    st.builds(lambda parts: s.AnyOf(conditions=tuple(parts)), several),
)
facts = st.lists(
    st.builds(
        Happened, st.integers(0, END - 1), st.sampled_from(FACTS), st.sampled_from(["r", "s"])
    ),
    max_size=8,
).map(lambda found: sorted(found, key=lambda fact: fact.at))
intervals = st.lists(
    st.builds(
        lambda start, length, value, r: an_interval(start, length and start + length, value, r),
        st.integers(0, END - 1), st.none() | st.integers(1, 15), st.integers(0, 3),
        st.sampled_from(["r", "s"]),
    ),
    max_size=5,
)  # fmt: skip


def looked_at(condition, known, t):
    """Whether a condition holds at a microsecond, found without any cleverness."""
    match condition:
        case s.AllOf():
            return all(looked_at(part, known, t) for part in condition.conditions)
        case s.AnyOf():
            return any(looked_at(part, known, t) for part in condition.conditions)
    about = [x for x in known.intervals if condition.resource_id in {"", x.resource_id}]
    told = [f for f in known.facts if condition.resource_id in {"", f.resource_id}]
    unit = 1
    match condition:
        case s.WhatIsHeld():
            value = sum(x.value for x in about if x.start <= t < (x.end or 10**9))
        case s.WhatWasUsed():
            unit = known.definitions["compute.vcpu"].base_per_unit
            since = t - condition.window_s * 3
            value = sum(
                x.value * max(0, min(t, x.end or 10**9) - max(since, x.start)) for x in about
            )
        case s.WhatHappened():
            since = t - condition.window_s * 3
            value = sum(since < f.at <= t for f in told if f.tag in condition.facts)
        case s.WhatIsSo():
            value = 0
            for resource in {f.resource_id for f in told}:
                entered = None
                for f in told:
                    if f.resource_id != resource or f.at > t:
                        continue
                    if f.tag in condition.since:
                        entered = f.at if entered is None else entered
                    elif f.tag in condition.until:
                        entered = None
                value += entered is not None and entered + condition.for_s * 3 <= t
    if condition.above is not None:
        return value > Fraction(condition.above) * unit
    return value < Fraction(condition.below) * unit


@given(conditions, facts, intervals, st.integers(0, END), st.sampled_from([1, 5]))
def test_spans_are_what_looking_at_each_moment_finds(condition, told, there, start, unit):
    vcpu = BUILT_IN["compute.vcpu"]
    definition = replace(vcpu, base_per_unit=unit)
    known = Known(told, there, {"compute.vcpu": definition})

    spans = held(condition, known, start, END)

    ringing = {t for since, until in spans for t in range(since, until)}
    assert ringing == {t for t in range(start, END) if looked_at(condition, known, t)}
    assert all(since < until for since, until in spans)
    assert all(a[1] < b[0] for a, b in pairwise(spans))


@given(conditions, facts, intervals, st.lists(st.integers(0, END), min_size=1, max_size=4))
def test_looking_often_finds_what_looking_once_finds(condition, told, there, looks):
    """Reports made at several looks are those of one look at the end."""
    known = Known(told, there, BUILT_IN)

    def reported(times):
        alarm = s.Alarm(alarm_id="a", project_id="p", user_id="u", name="n", condition=condition,
                        created_at=0, updated_at=0)  # fmt: skip
        found = []
        for now in times:
            start = max(alarm.updated_at, alarm.changed_at)
            for report in reports(alarm, held(condition, known, start, now), start, now):
                found.append((report.ringing, report.since))
                alarm = replace(alarm, ringing=report.ringing, changed_at=report.since)
        return found

    assert reported([*sorted(looks), END]) == reported([END])


def test_how_much_of_the_past_matters():
    used = s.WhatWasUsed(meter="compute.vcpu", window_s=60, above="1")
    assert reach_of(used) == 60 * 3  # of the short seconds here
    assert reach_of(s.WhatIsHeld(meter="compute.vcpu", above="1")) == 0
    so = s.WhatIsSo(since=("a.b",), until=("c.d",), above="0")
    assert reach_of(s.AnyOf(conditions=(used, so))) is None
    assert SECOND == 1_000_000
