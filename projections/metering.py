"""Metering: from facts to intervals of held state, and from intervals to exact quantities.

Usage is what was held, not what was sampled: a meter opens at the fact that says a thing is held
and closes at the fact that says it is not. Intervals are half-open, in integer microseconds, and
never overlap for one resource and meter: a claimed time earlier than one already seen of the same
resource counts as that one. Quantities are integers of value times microseconds, so splitting a
window in two never changes a sum. What is counted instead of held is a point: an interval without
length. All is a pure function of the meters' definitions (``schemas.metering``) and of facts in the
order of the log; there is no other way in which any meter is computed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Union

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from schemas.envelope import fact_types
from schemas.metering import (
    ADDITIVE,
    BUILT_IN,
    Aggregation,
    Dimensions,
    MeterDefinition,
    MeterRule,
    Source,
)
from schemas.paths import Read, narrowed, reader
from schemas.units import Micros, Ordinal

_TYPES = fact_types()
_NAMED_MAX = 10_000


class Interval(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A stretch during which a resource held ``value`` of a meter; or a point, if it was counted.

    ``end`` and ``last_ordinal`` are None while it is held. Zero-length ones are kept: they prove
    that something was and went. ``unique`` is what ``unique_count`` counts.
    """

    resource_kind: str
    resource_id: str
    project_id: str
    meter: str
    meter_version: int = 1
    dimensions: Dimensions = {}  # keys sorted
    value: int
    start: Micros
    end: Micros | None
    first_ordinal: Ordinal
    last_ordinal: Ordinal | None
    aggregation: Aggregation = "integral"
    unique: str = ""


class Usage(Struct, frozen=True, kw_only=True):
    """What of an interval lies in a window: ``quantity`` is ``value`` times ``end - start``.

    The ordinals name the facts that bound it. A stretch that goes on beyond the window was ended by
    no fact in it, so its last ordinal is its first: asking again later gives the same row. Of what
    is counted, ``quantity`` is ``value``; of what is neither held nor added up (the greatest, say)
    there is one row of a resource, from its first point to its last.
    """

    resource_kind: str
    resource_id: str
    project_id: str
    meter: str
    meter_version: int = 1
    dimensions: Dimensions = {}  # keys sorted
    value: int
    quantity: int
    start: Micros
    end: Micros
    first_ordinal: Ordinal
    last_ordinal: Ordinal


class HeldState(Struct, array_like=True, gc=False):
    """What is known of a resource: whose, how much, and the latest time seen of it.

    ``told`` says that any of it may be other than what is open has.
    """

    dimensions: Dimensions
    project_id: str = ""
    value: int = 0
    latest: Micros = 0
    open: Interval | None = None
    told: bool = False


class MeterState(Struct):
    """One definition's state: each resource, and what was noted of others."""

    definition: MeterDefinition
    held: dict[str, HeldState] = {}
    noted: dict[str, int] = {}


type Places = list[HeldState | None]
type Held = dict[str, Places]


class Meters:
    """The fold: give it facts in the order of the log, then read ``intervals``."""

    def __init__(
        self,
        definitions: Iterable[MeterDefinition] = tuple(BUILT_IN.values()),
        states: Iterable[MeterState] = (),
    ) -> None:
        """Begin with meters that have seen nothing, and go on with the states of others."""
        self._closed: list[Interval] = []
        self._looks: dict[type, list[_Look]] = {}
        self.definitions: list[MeterDefinition] = []
        self._noted: list[dict[str, int]] = []
        # Of each resource a place for each meter: what is looked at together lies together.
        self._held: Held = {}
        self.join([*(MeterState(definition=each) for each in definitions), *states])

    def join(self, states: Iterable[MeterState], closed: Iterable[Interval] = ()) -> None:
        """Go on with more meters, which must have seen what these have, and what has ended."""
        self._closed += closed
        self._narrow: dict[type, type] = {}
        self._decoder: msgspec.json.Decoder[Any] | None = None
        joined = list(states)
        shared: dict[Any, Any] = {}
        for of in self._held.values():
            of.extend([None] * len(joined))
        self.definitions += (state.definition for state in joined)
        for meter, state in enumerate(joined, len(self._noted)):
            self._noted.append(state.noted)
            for resource_id, held in state.held.items():
                nothing: Places = [None] * len(self.definitions)
                self._held.setdefault(resource_id, nothing)[meter] = held
                _share(held, resource_id, state.definition, shared)
            for rule in state.definition.rules:
                self._add(meter, rule)

    def _add(self, meter: int, rule: MeterRule) -> None:
        of = _TYPES[rule.fact]
        looks = self._looks.setdefault(of, [])
        do = _Step(meter, self.definitions[meter], rule, self._noted[meter], self._closed).do
        # With the last that looks at the same, but behind what the same meter does before.
        for look in reversed(looks):
            if look.sees(rule):
                look.add(meter, rule, do)
                return
            if meter in look.meters:
                break
        looks.append(_Look(of, rule, self._held, self.definitions))
        looks[-1].add(meter, rule, do)

    @property
    def states(self) -> list[MeterState]:
        """The state of each meter, as others may go on with it."""
        found = [
            MeterState(definition=definition, noted=noted)
            for definition, noted in zip(self.definitions, self._noted, strict=True)
        ]
        for resource_id, of in self._held.items():
            for state, held in zip(found, of, strict=True):
                if held is not None:
                    state.held[resource_id] = held
        return found

    def intervals(self) -> list[Interval]:
        """Return all intervals so far, closed and open, in the order in which they began."""
        everything = [*self._closed, *self.still()]
        return in_order(everything, self.definitions)

    def still(self) -> Iterator[Interval]:
        """Yield what is held now."""
        for of in self._held.values():
            for held in of:
                if held is not None and held.open is not None:
                    yield held.open

    def ended(self) -> int:
        """Return how many have ended since they were last forgotten."""
        return len(self._closed)

    def closed(self) -> Sequence[Interval]:
        """Return what has ended since it was last forgotten."""
        return tuple(self._closed)

    def forget_closed(self) -> None:
        """Forget what has ended; whoever calls has kept it."""
        self._closed.clear()

    def apply(self, ordinal: Ordinal, at: Micros, fact: object) -> None:
        """Fold one fact; those that no meter has a rule for change nothing.

        ``at`` is the commit's time, which counts where the fact claims none.
        """
        for look in self._looks.get(type(fact), ()):
            look.take(ordinal, at, fact)

    def apply_all(self, facts: Iterable[tuple[Ordinal, Micros, object]]) -> None:
        """Fold many facts, whole or as ``decoder`` gives them."""
        takes = {of: [look.take for look in looks] for of, looks in self._looks.items()}
        takes |= {narrow: takes[of] for of, narrow in self._narrow.items()}
        nothing: list[Any] = []
        for ordinal, at, fact in facts:
            for take in takes.get(type(fact), nothing):
                take(ordinal, at, fact)

    def decoder(self, whole: Collection[type[Struct]] = ()) -> msgspec.json.Decoder[Any]:
        """Return what decodes facts that there are rules for, and ``whole`` ones.

        Of others than these only what rules read is decoded, for ``apply_all``.
        """
        if self._decoder is not None:
            return self._decoder
        paths: dict[type[Struct], set[str]] = {}
        for definition in self.definitions:
            for rule in definition.rules:
                paths.setdefault(_TYPES[rule.fact], set()).update(_paths(rule))
        self._narrow = {of: narrowed(of, read) for of, read in paths.items() if of not in whole}
        self._decoder = msgspec.json.Decoder(Union[*self._narrow.values(), *whole])
        return self._decoder


class _Look:
    """What rules that look at the same of a fact have in common: where, when, and what for."""

    def __init__(
        self, of: type[Struct], rule: MeterRule, held: Held, definitions: Sequence[object]
    ) -> None:
        self._rule = rule
        self._when = [(reader(of, each.path), each.equals) for each in rule.when]
        self._resource = reader(of, rule.resource)
        self._at = reader(of, rule.at) if rule.at else None
        self._held = held
        self._definitions = definitions
        self._begins = False  # is there anything to do about what nobody knows
        self._ends = False
        self._dos: list[Do] = []
        self.meters: set[int] = set()

    def sees(self, rule: MeterRule) -> bool:
        """Return whether another rule looks at the same."""
        mine = self._rule
        return (mine.when, mine.resource, mine.at) == (rule.when, rule.resource, rule.at)

    def add(self, meter: int, rule: MeterRule, do: "Do") -> None:
        """Do this too."""
        self.meters.add(meter)
        self._begins |= bool(rule.project) or rule.effect in {"note", "drop"}
        self._ends |= rule.effect == "end"
        self._dos.append(do)

    def take(self, ordinal: Ordinal, at: Micros, fact: Any) -> None:
        """Do what the rules say, if they are about this fact."""
        for read, wanted in self._when:
            if read(fact) != wanted:
                return
        resource_id = self._resource(fact)
        if not resource_id:
            return
        of = self._held.get(resource_id)
        if of is None:
            if not self._begins:
                return
            of = [None] * len(self._definitions)
        if self._at is not None:
            claimed = self._at(fact)
            if claimed is not None:
                at = claimed
        for do in self._dos:
            do(of, resource_id, ordinal, at, fact)
        if self._begins or self._ends:
            self._put(resource_id, of)

    def _put(self, resource_id: str, of: Places) -> None:
        """Keep what there is of a resource; forget it if there is nothing any more."""
        if any(held is not None for held in of):
            self._held[resource_id] = of
        else:
            self._held.pop(resource_id, None)


type Do = Callable[[Places, str, Ordinal, Micros, Any], None]


class _Step:
    """What one rule of one meter does, ready to be done."""

    def __init__(
        self,
        meter: int,
        definition: MeterDefinition,
        rule: MeterRule,
        noted: dict[str, int],
        closed: list[Interval],
    ) -> None:
        of = _TYPES[rule.fact]
        self._meter = meter
        self._definition = definition
        self._keeps_zero = definition.keeps_zero
        self._empty = Interval(
            resource_kind=definition.resource_kind,
            resource_id="",
            project_id="",
            meter=definition.key,
            meter_version=definition.version,
            value=0,
            start=0,
            end=None,
            first_ordinal=0,
            last_ordinal=None,
        )
        self._noted = noted
        self._closed = closed
        self._project = reader(of, rule.project) if rule.project else None
        self._unique = reader(of, rule.unique) if rule.unique else None
        self._sources = [_number(of, source, noted) for source in rule.value]
        self._dimensions = [(name, reader(of, path)) for name, path in rule.dimensions.items()]
        self._blank = dict.fromkeys(definition.dimensions, "")
        self._named: dict[tuple[str, ...], Dimensions] = {}
        valued = any(each.value and each.effect != "note" for each in definition.rules)
        self._at_first = 0 if valued else 1
        # Most rules say nothing but that something happened to what is known.
        self._tells = bool(self._project or self._sources or self._dimensions)
        self.do: Do = {
            "set": self._set,
            "open": self._open,
            "close": self._close,
            "end": self._end,
            "seen": self._seen,
            "add": self._add,
            "note": self._note,
            "drop": self._drop,
        }[rule.effect]

    def _note(
        self, _of: Places, resource_id: str, _ordinal: Ordinal, _at: Micros, fact: Any
    ) -> None:
        self._noted[resource_id] = self._value(fact)

    def _drop(
        self, _of: Places, resource_id: str, _ordinal: Ordinal, _at: Micros, _fact: Any
    ) -> None:
        self._noted.pop(resource_id, None)

    def _set(self, of: Places, _resource_id: str, ordinal: Ordinal, at: Micros, fact: Any) -> None:
        held = self._keep(of, fact) if self._tells else of[self._meter]
        if held is not None and held.open is not None:
            self._cut(held, held.open, ordinal, at)

    def _seen(
        self, of: Places, _resource_id: str, _ordinal: Ordinal, at: Micros, fact: Any
    ) -> None:
        held = self._keep(of, fact) if self._tells else of[self._meter]
        if held is not None and at > held.latest:
            held.latest = at

    def _open(self, of: Places, resource_id: str, ordinal: Ordinal, at: Micros, fact: Any) -> None:
        held = self._keep(of, fact) if self._tells else of[self._meter]
        if held is None:
            return
        if at > held.latest:  # noqa: PLR1730  # a call for each fact would tell
            held.latest = at
        if held.open is None:
            self._begin(held, ordinal, resource_id)
        elif held.told:
            self._cut(held, held.open, ordinal, at)

    def _close(
        self, of: Places, _resource_id: str, ordinal: Ordinal, at: Micros, fact: Any
    ) -> None:
        held = self._keep(of, fact) if self._tells else of[self._meter]
        if held is None:
            return
        if at > held.latest:  # noqa: PLR1730  # a call for each fact would tell
            held.latest = at
        if held.open is not None:
            self._closed.append(replace(held.open, end=held.latest, last_ordinal=ordinal))
            held.open = None

    def _end(self, of: Places, resource_id: str, ordinal: Ordinal, at: Micros, fact: Any) -> None:
        self._close(of, resource_id, ordinal, at, fact)
        of[self._meter] = None

    def _value(self, fact: Any) -> int:
        return next((number for read in self._sources if (number := read(fact))), 0)

    def _keep(self, of: Places, fact: Any) -> HeldState | None:
        """Keep what the fact says of the resource; None if nobody knows whose it is."""
        held = of[self._meter]
        if held is None:
            if self._project is None:
                return None
            held = HeldState(dimensions=self._blank, value=self._at_first)
            of[self._meter] = held
        held.told = True
        if self._project is not None:
            held.project_id = self._project(fact) or ""
        if self._sources:
            held.value = self._value(fact)
        if self._dimensions:
            held.dimensions = self._told(held.dimensions, fact)
        return held

    def _told(self, before: Dimensions, fact: Any) -> Dimensions:
        # The keys stay in the order of the blank one, which is sorted.
        told = before | {name: _text(read(fact)) for name, read in self._dimensions}
        if len(self._named) >= _NAMED_MAX:
            self._named.clear()
        # Many things are of few kinds, and share what names theirs.
        return self._named.setdefault(tuple(told.values()), told)

    def _begin(self, held: HeldState, ordinal: Ordinal, resource_id: str) -> None:
        if held.project_id and (held.value or self._keeps_zero):
            held.told = False
            held.open = replace(
                self._empty,
                resource_id=resource_id,
                project_id=held.project_id,
                dimensions=held.dimensions,
                value=held.value,
                start=held.latest,
                first_ordinal=ordinal,
            )

    def _cut(self, held: HeldState, before: Interval, ordinal: Ordinal, at: Micros) -> None:
        """If what is held is another now, end one interval and begin the next, without a gap."""
        if (before.value, before.project_id, before.dimensions) != (
            held.value,
            held.project_id,
            held.dimensions,
        ):
            held.latest = max(at, held.latest)
            self._closed.append(replace(before, end=held.latest, last_ordinal=ordinal))
            held.open = None
            self._begin(held, ordinal, before.resource_id)

    def _add(self, of: Places, resource_id: str, ordinal: Ordinal, at: Micros, fact: Any) -> None:
        known = of[self._meter]
        if self._project is not None:
            project_id = self._project(fact) or ""
        else:
            project_id = "" if known is None else known.project_id
        if project_id:
            definition = self._definition
            dimensions = self._blank if known is None else known.dimensions
            self._closed.append(
                Interval(
                    resource_kind=definition.resource_kind,
                    resource_id=resource_id,
                    project_id=project_id,
                    meter=definition.key,
                    meter_version=definition.version,
                    dimensions=self._told(dimensions, fact) if self._dimensions else dimensions,
                    value=self._value(fact) if self._sources else 1,
                    start=at,
                    end=at,
                    first_ordinal=ordinal,
                    last_ordinal=ordinal,
                    aggregation=definition.aggregation,
                    unique=_text(self._unique(fact)) if self._unique else "",
                )
            )


def _share(
    held: HeldState, resource_id: str, definition: MeterDefinition, shared: dict[Any, Any]
) -> None:
    """Let what was read from a file hold the same texts as others: there are many, and few kinds.

    ``shared`` are those that there are so far.
    """
    held.project_id = shared.setdefault(held.project_id, held.project_id)
    names = held.dimensions
    held.dimensions = shared.setdefault((*names, *names.values()), names)
    if held.open is not None:
        of, names = held.open, held.open.dimensions
        held.open = replace(
            of,
            resource_kind=definition.resource_kind,
            resource_id=resource_id,
            project_id=shared.setdefault(of.project_id, of.project_id),
            meter=definition.key,
            dimensions=shared.setdefault((*names, *names.values()), names),
        )


def _paths(rule: MeterRule) -> Iterator[str]:
    """Yield all paths that a rule reads."""
    yield rule.resource
    yield from (each.path for each in rule.when)
    yield from (each.path or each.noted_of for each in rule.value if each.constant is None)
    yield from rule.dimensions.values()
    yield from (path for path in (rule.project, rule.at, rule.unique) if path)


def in_order(held: Iterable[Interval], definitions: Iterable[MeterDefinition]) -> list[Interval]:
    """Return intervals as they began, each cut to when its version of the meter measures."""
    cut = {
        (meter.key, meter.version): (meter.valid_from, meter.valid_until)
        for meter in definitions
        if meter.valid_from or meter.valid_until is not None
    }
    if cut:
        always = (0, None)
        within = (_within(x, *cut.get((x.meter, x.meter_version), always)) for x in held)
        held = [interval for interval in within if interval is not None]
    return sorted(held, key=_order)


def _within(interval: Interval, start: Micros, until: Micros | None) -> Interval | None:
    """Return what of an interval lies in [start, until); None if nothing does.

    No fact ends what is cut, so its last ordinal is its first.
    """
    ended = interval.end
    if interval.start < start and ended is not None and ended <= start:
        return None
    if until is None or (ended is not None and ended < until):
        return interval if interval.start >= start else replace(interval, start=start)
    if interval.start >= until:
        return None
    last = interval.last_ordinal if ended == until else interval.first_ordinal
    return replace(interval, start=max(start, interval.start), end=until, last_ordinal=last)


def tags(definitions: Iterable[MeterDefinition] = tuple(BUILT_IN.values())) -> list[str]:
    """Return the tags of all facts that meters have rules for, sorted."""
    return sorted({rule.fact for definition in definitions for rule in definition.rules})


def intervals(
    facts: Iterable[tuple[Ordinal, Micros, object]],
    definitions: Iterable[MeterDefinition] = tuple(BUILT_IN.values()),
) -> list[Interval]:
    """Return the intervals of (ordinal, commit's time, fact), in the order in which they began."""
    meters = Meters(definitions)
    for ordinal, at, fact in facts:
        meters.apply(ordinal, at, fact)
    return meters.intervals()


def usage(
    held: Iterable[Interval], start: Micros, end: Micros, project_id: str | None = None
) -> Iterator[Usage]:
    """Yield what of the intervals lies in [start, end), of one project or of all."""
    gathered: dict[tuple[object, ...], list[Interval]] = {}
    for interval in held:
        if project_id not in {None, interval.project_id}:
            continue
        if interval.aggregation not in ADDITIVE:
            if start <= interval.start < end:
                of = (interval.resource_id, interval.meter, interval.meter_version)
                key = (interval.project_id, *of, *interval.dimensions.values())
                gathered.setdefault(key, []).append(interval)
            continue
        if interval.aggregation != "integral":
            if start <= interval.start < end:
                yield _row(interval, interval.value, interval.start, interval.start)
            continue
        ended = interval.end if interval.end is not None and interval.end <= end else None
        first = max(start, interval.start)
        last = end if ended is None else ended
        if not (first < last or (start <= interval.start == last < end)):
            continue
        row = _row(interval, interval.value * (last - first), first, last)
        yield row if ended is not None else replace(row, last_ordinal=interval.first_ordinal)
    for points in gathered.values():
        yield _together(points)


def _row(interval: Interval, quantity: int, start: Micros, end: Micros) -> Usage:
    last = interval.last_ordinal
    return Usage(
        resource_kind=interval.resource_kind,
        resource_id=interval.resource_id,
        project_id=interval.project_id,
        meter=interval.meter,
        meter_version=interval.meter_version,
        dimensions=interval.dimensions,
        value=interval.value,
        quantity=quantity,
        start=start,
        end=end,
        first_ordinal=interval.first_ordinal,
        last_ordinal=interval.first_ordinal if last is None else last,
    )


def _together(points: list[Interval]) -> Usage:
    """Return the one row of points that do not add up."""
    newest = max(points, key=lambda point: (point.start, point.first_ordinal))
    match newest.aggregation:
        case "max":
            number = max(point.value for point in points)
        case "min":
            number = min(point.value for point in points)
        case "unique_count":
            number = len({point.unique for point in points})
        case _:
            number = newest.value
    row = _row(newest, number, min(point.start for point in points), newest.start)
    first = min(point.first_ordinal for point in points)
    last = max(point.first_ordinal for point in points)
    return replace(row, value=number, first_ordinal=first, last_ordinal=last)


def _order(interval: Interval) -> tuple[Ordinal, str, str]:
    return interval.first_ordinal, interval.resource_id, interval.meter


def _number(of: type[Struct], source: Source, noted: dict[str, int]) -> Callable[[Any], int]:
    """Return what finds a source's number; 0 if it is not there."""
    divisor = source.divisor
    if source.constant is not None:
        constant = -(-source.constant // divisor)
        return lambda _fact: constant
    read: Read = reader(of, source.path or source.noted_of)
    if source.noted_of:
        return lambda fact: -(-noted.get(read(fact) or "", 0) // divisor)

    def found(fact: Any) -> int:
        number = read(fact)
        return 0 if number is None else -(-max(0, int(number)) // divisor)

    return found


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
