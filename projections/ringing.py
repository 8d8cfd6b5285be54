"""When a condition held: exactly, from intervals and facts, whatever moment that is asked at.

Each condition compares a quantity that changes with time. All there are change by steps (how much
is held, how often it happened) or steadily between steps (how much was used lately), so the times
at which one is above or below a limit are computed, not sampled. Pure; intervals are half-open, in
microseconds, and what rings now is what would have rung, asked at any later time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from projections.metering import Interval
from schemas import alarm as s
from schemas.metering import MeterDefinition
from schemas.units import SECOND, Micros

type Spans = list[tuple[Micros, Micros]]
# At a time: by how much a quantity jumps, and by how much it changes faster (for a microsecond).
type Changes = dict[Micros, tuple[int, int]]


class Happened(NamedTuple):
    """A fact of the project."""

    at: Micros
    tag: str
    resource_id: str


class Known(NamedTuple):
    """What conditions are evaluated from: all of it that matters for the time asked about."""

    facts: Sequence[Happened]
    intervals: Sequence[Interval]
    definitions: Mapping[str, MeterDefinition]


def facts_of(condition: s.Condition) -> frozenset[str]:
    """Return the tags of the facts that a condition is about."""
    match condition:
        case s.AllOf(conditions=parts) | s.AnyOf(conditions=parts):
            return frozenset().union(*(facts_of(part) for part in parts))
        case s.WhatHappened(facts=facts):
            return frozenset(facts)
        case s.WhatIsSo(since=since, until=until):
            return frozenset((*since, *until))
        case _:
            return frozenset()


def meters_of(condition: s.Condition) -> frozenset[str]:
    """Return the keys of the meters that a condition is about."""
    match condition:
        case s.AllOf(conditions=parts) | s.AnyOf(conditions=parts):
            return frozenset().union(*(meters_of(part) for part in parts))
        case s.WhatIsHeld(meter=meter) | s.WhatWasUsed(meter=meter):
            return frozenset((meter,))
        case _:
            return frozenset()


def reach_of(condition: s.Condition) -> Micros | None:
    """Return how far before a time the past matters to it; None if all of it does."""
    match condition:
        case s.AllOf(conditions=parts) | s.AnyOf(conditions=parts):
            reaches = [reach_of(part) for part in parts]
            return None if None in reaches else max(each for each in reaches if each is not None)
        case s.WhatHappened(window_s=window) | s.WhatWasUsed(window_s=window):
            return window * SECOND
        case s.WhatIsSo():
            return None
        case _:
            return 0


def held(condition: s.Condition, known: Known, start: Micros, end: Micros) -> Spans:
    """Return the stretches of [start, end) during which a condition held."""
    if start >= end:
        return []
    match condition:
        case s.AllOf(conditions=parts):
            return _at_once([held(part, known, start, end) for part in parts], len(parts))
        case s.AnyOf(conditions=parts):
            return _at_once([held(part, known, start, end) for part in parts], 1)
        case s.WhatIsHeld(meter=meter):
            changes = _steps(_about(condition, known.intervals, meter))
            return _compared(condition, changes, 1, start, end)
        case s.WhatWasUsed(meter=meter):
            changes = _used(_about(condition, known.intervals, meter), condition.window_s * SECOND)
            unit = known.definitions[meter].base_per_unit
            return _compared(condition, changes, unit, start, end)
        case s.WhatHappened():
            changes = _happened(condition, known.facts)
            return _compared(condition, changes, 1, start, end)
        case s.WhatIsSo():
            changes = _in_state(condition, known.facts, end)
            return _compared(condition, changes, 1, start, end)


def _about(
    condition: s.WhatIsHeld | s.WhatWasUsed, intervals: Iterable[Interval], meter: str
) -> Iterator[Interval]:
    wanted = condition.resource_id
    return (x for x in intervals if x.meter == meter and wanted in {"", x.resource_id})


# Quantities


def _steps(intervals: Iterable[Interval]) -> Changes:
    changes: Changes = defaultdict(lambda: (0, 0))
    for each in intervals:
        _change(changes, each.start, each.value)
        if each.end is not None:
            _change(changes, each.end, -each.value)
    return changes


def _used(intervals: Iterable[Interval], window: Micros) -> Changes:
    """How much was used of late: what is held adds to it steadily, and is forgotten as steadily."""
    changes: Changes = defaultdict(lambda: (0, 0))
    for each in intervals:
        if each.aggregation != "integral":
            _change(changes, each.start, each.value)
            _change(changes, each.start + window, -each.value)
            continue
        _change(changes, each.start, faster=each.value)
        _change(changes, each.start + window, faster=-each.value)
        if each.end is not None:
            _change(changes, each.end, faster=-each.value)
            _change(changes, each.end + window, faster=each.value)
    return changes


def _happened(condition: s.WhatHappened, facts: Iterable[Happened]) -> Changes:
    changes: Changes = defaultdict(lambda: (0, 0))
    for fact in facts:
        if fact.tag in condition.facts and condition.resource_id in {"", fact.resource_id}:
            _change(changes, fact.at, 1)
            _change(changes, fact.at + condition.window_s * SECOND, -1)
    return changes


def _in_state(condition: s.WhatIsSo, facts: Iterable[Happened], end: Micros) -> Changes:
    changes: Changes = defaultdict(lambda: (0, 0))
    entered: dict[str, Micros] = {}

    def leave(resource_id: str, at: Micros) -> None:
        since = entered.pop(resource_id) + condition.for_s * SECOND
        if since < at:
            _change(changes, since, 1)
            _change(changes, at, -1)

    for fact in facts:
        if condition.resource_id not in {"", fact.resource_id}:
            continue
        if fact.tag in condition.since:
            entered.setdefault(fact.resource_id, fact.at)
        elif fact.tag in condition.until and fact.resource_id in entered:
            leave(fact.resource_id, fact.at)
    for resource_id in list(entered):
        leave(resource_id, end)
    return changes


def _change(changes: Changes, at: Micros, by: int = 0, *, faster: int = 0) -> None:
    jump, slope = changes[at]
    changes[at] = (jump + by, slope + faster)


# Spans


def _compared(
    condition: s.Simple, changes: Changes, unit: int, start: Micros, end: Micros
) -> Spans:
    """Return when a quantity is above or below the limit, which is in so many of its units."""
    above = condition.above is not None
    text = condition.above if condition.above is not None else condition.below
    assert text is not None, "a condition has a limit"
    limit = Fraction(text) * unit
    spans: Spans = []
    level, slope, before = 0, 0, min([start, *changes])
    for change in [*sorted(changes), end]:
        at = min(change, end)
        if at > before:
            for span in _linear(level, slope, before, at, limit, above=above):
                _append(spans, span, start)
        level += slope * (at - before)
        before = at
        if at == end:
            break
        jump, faster = changes[at]
        level, slope = level + jump, slope + faster
    return spans


def _linear(
    level: int, slope: int, start: Micros, end: Micros, limit: Fraction, *, above: bool
) -> Spans:
    """Return when level + slope * (t - start) is beyond the limit, within [start, end)."""
    if not above:
        level, slope, limit = -level, -slope, -limit
    if slope == 0:
        return [(start, end)] if level > limit else []
    # The last whole microsecond at which it is not beyond, going up; or is, going down.
    crossing = (limit - level) / slope
    if slope > 0:
        since = start + max(0, crossing.__floor__() + 1)
        return [(since, end)] if since < end else []
    until = start + crossing.__ceil__()
    return [(start, min(end, until))] if until > start else []


def _append(spans: Spans, span: tuple[Micros, Micros], start: Micros) -> None:
    since, until = max(start, span[0]), span[1]
    if since >= until:
        return
    if spans and spans[-1][1] == since:
        spans[-1] = (spans[-1][0], until)
    else:
        spans.append((since, until))


def _at_once(parts: Sequence[Spans], least: int) -> Spans:
    """Return when at least so many of several hold."""
    edges: dict[Micros, int] = defaultdict(int)
    for spans in parts:
        for since, until in spans:
            edges[since] += 1
            edges[until] -= 1
    found: Spans = []
    count, since = 0, 0
    for at in sorted(edges):
        was = count >= least
        count += edges[at]
        if count >= least and not was:
            since = at
        elif was and count < least:
            found.append((since, at))
    return found
