"""Meters that somebody defines: what may be measured, and which versions there are.

Invariant: whatever is accepted here can be folded. Each fact exists, each path leads into it and to
a value of the kind that is needed, and the rules make sense together.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import metering as s
from schemas.envelope import Fact, fact_types
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.paths import Leaf, NoSuchPath, leaf
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]
type Versions = tuple[s.MeterDefinition, ...]

METERS_MAX = 100
VERSIONS_MAX = 20
# The first words of keys that Cumulog's own meters have, or may have one day.
RESERVED = frozenset(
    {"compute", "image", "volume", "snapshot", "backup", "object", "network", "identity"}
)
# People and their rights are nobody's usage.
_NOT_METERED = "identity."
_COUNTING = frozenset({"add", "set", "end", "note", "drop"})
_HOLDING = frozenset({"set", "open", "close", "end", "seen", "note", "drop"})
_LEAVES: dict[type, Leaf] = {bool: "truth", int: "number", str: "text"}


def define_meter(cell: Cell, ctx: Context, action: s.DefineMeter) -> Decision:
    """Define a meter or its next version."""
    if action.key.partition(".")[0] in RESERVED:
        raise InvalidInput(f"keys that begin with {action.key.partition('.')[0]!r} are Cumulog's")
    versions = cell.state.meters.get(action.key, ())
    if len(versions) >= VERSIONS_MAX:
        raise Conflict(f"a meter has at most {VERSIONS_MAX} versions")
    if not versions and len(cell.state.meters) >= METERS_MAX:
        raise Conflict(f"there are at most {METERS_MAX} meters")
    meter = s.MeterDefinition(
        key=action.key,
        version=len(versions) + 1,
        description=action.description,
        resource_kind=action.resource_kind,
        aggregation=action.aggregation,
        unit=action.unit,
        base_unit=action.base_unit or ("us" if action.aggregation == "integral" else ""),
        base_per_unit=action.base_per_unit,
        rules=action.rules,
        keeps_zero=action.keeps_zero,
        valid_from=ctx.now if versions else 0,
    )
    _check(meter)
    if versions:
        _need_same(versions[-1], meter)
        last = versions[-1]
        if meter == replace(last, version=meter.version, valid_from=meter.valid_from):
            return [], {"key": last.key, "version": last.version}
    return [s.MeterDefined(meter=meter)], {"key": meter.key, "version": meter.version}


def delete_meter(cell: Cell, _ctx: Context, action: s.DeleteMeter) -> Decision:
    """Let a meter measure no more."""
    versions = cell.state.meters.get(action.key)
    if versions is None or versions[-1].valid_until is not None:
        raise NotFound(f"there is no meter {action.key!r} that somebody defined")
    return [s.MeterDeleted(key=action.key)], {"key": action.key}


def measuring(cell: Cell) -> dict[str, s.MeterDefinition]:
    """Return the newest version of each meter that measures now, Cumulog's own and others."""
    defined = (versions[-1] for versions in cell.state.meters.values())
    return {**s.BUILT_IN, **{each.key: each for each in defined if each.valid_until is None}}


# Evolve


def meter_defined(cell: Cell, fact: s.MeterDefined, at: Micros) -> None:
    meters = cell.state.meters
    meters[fact.meter.key] = with_version(meters.get(fact.meter.key, ()), fact.meter)


def meter_deleted(cell: Cell, fact: s.MeterDeleted, at: Micros) -> None:
    cell.state.meters[fact.key] = ended(cell.state.meters[fact.key], at)


def with_version(versions: Versions, meter: s.MeterDefinition) -> Versions:
    """Return the versions of a meter once there is another."""
    return (*ended(versions, meter.valid_from), meter)


def ended(versions: Versions, at: Micros) -> Versions:
    """Return the versions of a meter once the last one measures no more."""
    if not versions or versions[-1].valid_until is not None:
        return versions
    return (*versions[:-1], replace(versions[-1], valid_until=at))


# What can be folded


def _need_same(before: s.MeterDefinition, after: s.MeterDefinition) -> None:
    for name in ("resource_kind", "aggregation", "unit", "base_unit", "base_per_unit"):
        if getattr(before, name) != getattr(after, name):
            raise InvalidInput(
                f"the {name} of {before.key} is {getattr(before, name)!r} in all versions"
            )
    gone = sorted(set(before.dimensions) - set(after.dimensions))
    if gone:  # prices may go by it
        raise InvalidInput(f"{before.key} has the dimension {gone[0]!r} in all versions")


def _check(meter: s.MeterDefinition) -> None:
    holds = meter.aggregation == "integral"
    effects = {rule.effect for rule in meter.rules}
    wrong = sorted(effects - (_HOLDING if holds else _COUNTING))
    if wrong:
        raise InvalidInput(f"a rule with the effect {wrong[0]!r} means nothing here")
    if ("open" if holds else "add") not in effects:
        raise InvalidInput(f"no rule has the effect {'open' if holds else 'add'!r}")
    if not any(rule.project for rule in meter.rules):
        raise InvalidInput("no rule says whose the resource is (project)")
    if len(meter.dimensions) > s.DIMENSIONS_MAX:
        raise InvalidInput(f"a meter has at most {s.DIMENSIONS_MAX} dimensions")
    for number, rule in enumerate(meter.rules, 1):
        try:
            _check_rule(meter, rule)
        except (NoSuchPath, InvalidInput) as error:
            raise InvalidInput(f"rule {number} ({rule.effect} on {rule.fact}): {error}") from None


def _check_rule(meter: s.MeterDefinition, rule: s.MeterRule) -> None:
    of = fact_types().get(rule.fact)
    if of is None or rule.fact.startswith(_NOT_METERED):
        raise InvalidInput("there is no such fact to measure")
    _need(of, rule.resource, {"text"})
    for path in (rule.project, rule.unique):
        _need(of, path, {"text"})
    _need(of, rule.at, {"number"})
    for each in rule.when:
        _need(of, each.path, {_LEAVES[type(each.equals)]})
    for path in rule.dimensions.values():
        leaf(of, path)
    for source in rule.value:
        given = (source.constant is not None) + bool(source.path) + bool(source.noted_of)
        if given != 1:
            raise InvalidInput("a value is either a constant, or a path, or noted of something")
        _need(of, source.path, {"number", "truth"})
        _need(of, source.noted_of, {"text"})
    _check_value(meter, rule)


def _check_value(meter: s.MeterDefinition, rule: s.MeterRule) -> None:
    if rule.effect in {"close", "end", "seen", "drop"} and (rule.value or rule.dimensions):
        raise InvalidInput("it has no use for a value or dimensions")
    if rule.effect == "note" and not rule.value:
        raise InvalidInput("it has no value to note")
    if rule.effect != "add":
        return
    if meter.aggregation in {"count", "unique_count"}:
        if rule.value:
            raise InvalidInput(f"a {meter.aggregation} has no value")
    elif not rule.value:
        raise InvalidInput(f"a {meter.aggregation} needs a value")
    if (meter.aggregation == "unique_count") != bool(rule.unique):
        raise InvalidInput("`unique` is what a unique_count counts, and for nothing else")


def _need(of: type[Struct], path: str, wanted: Iterable[Leaf]) -> None:
    if path and (found := leaf(of, path)) not in wanted:
        raise InvalidInput(f"{path!r} is a {found}, not a {' or a '.join(sorted(wanted))}")
