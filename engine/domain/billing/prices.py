"""Price lists: which versions there are, and that each rates whatever is used exactly once."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from engine.domain.billing.customers import need_open, payer_at
from engine.domain.context import Context
from engine.domain.metering import measuring
from engine.domain.state import Cell, State
from schemas import billing as s
from schemas.billing import Match
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.metering import ADDITIVE, ALWAYS_PRICED, BUILT_IN, MeterDefinition
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

# More is a slip of the pen in any currency.
PRICE_MAX = Decimal(10**9)
QUANTITY_MAX = Decimal(10**15)
# Combinations of dimensions' values that one meter's rules may tell apart.
COMBINATIONS_MAX = 20_000
# Stands for every value that no rule names; no dimension's value has a NUL in it.
OTHER = "\0"


def publish_price_list(cell: Cell, ctx: Context, action: s.PublishPriceList) -> Decision:
    """Publish the next version; whatever there could be of each meter matches one rule."""
    need_sound_list(action, measuring(cell))
    versions = cell.state.price_lists.get(action.name, ())
    if versions and versions[-1].currency != action.currency:
        raise InvalidInput(f"the list {action.name!r} is in {versions[-1].currency}")
    valid_from = ctx.now if action.valid_from is None else action.valid_from
    if versions and valid_from < versions[-1].valid_from:
        raise InvalidInput(
            "the list would become valid before the version it follows: "
            f"withdraw version {versions[-1].version} first, if it is not in force yet"
        )
    need_open(cell.state, valid_from)
    price_list = s.PriceList(
        name=action.name,
        version=_newest(cell.state, action.name) + 1,
        currency=action.currency,
        valid_from=valid_from,
        rules=action.rules,
        free=action.free,
    )
    return [s.PriceListPublished(price_list=price_list)], {
        "name": price_list.name,
        "version": price_list.version,
    }


def withdraw_price_list(cell: Cell, ctx: Context, action: s.WithdrawPriceList) -> Decision:
    """Take back a version by which nothing can have been rated yet."""
    state = cell.state
    versions = state.price_lists.get(action.name, ())
    found = next((v for v in versions if v.version == action.version), None)
    if found is None:
        raise NotFound(f"there is no version {action.version} of a price list {action.name!r}")
    if found.valid_from <= ctx.now:
        raise Conflict(f"version {found.version} of {found.name!r} is in force")
    if len(versions) == 1 and _is_chosen(state, found.name):
        raise Conflict(f"customers are charged by {found.name!r}, which has no other version")
    fact = s.PriceListWithdrawn(name=found.name, version=found.version)
    return [fact], {"name": found.name, "version": found.version}


def _newest(state: State, name: str) -> int:
    """Return the highest number that a version of a list was given; 0 if none was."""
    versions = state.price_lists.get(name, ())
    return max(versions[-1].version if versions else 0, state.withdrawn.get(name, 0))


def _is_chosen(state: State, name: str) -> bool:
    """Return whether usage is or will be rated by a list; the standard one is for all others."""
    return name == s.STANDARD or any(
        terms.price_list == name for versions in state.customers.values() for terms in versions
    )


def need_sound_list(
    price_list: s.PublishPriceList, meters: Mapping[str, MeterDefinition] = BUILT_IN
) -> None:
    """Return if every rule makes sense and whatever is used matches exactly one.

    Raises:
        InvalidInput: it says which rule, or which usage.
    """
    for rule in price_list.rules:
        _need_sound(rule, meters)
    need_one_rule_each(price_list.rules, price_list.free)


def _need_sound(rule: s.PriceRule, meters: Mapping[str, MeterDefinition]) -> None:
    """Refuse what is not measured, and numbers that make no price."""
    _need_measured(rule, meters)
    if rule.model in {"unit", "flat"}:
        if rule.price is None or rule.tiers:
            raise InvalidInput(
                f"rule {rule.sku}: one of model {rule.model} has a price and no tiers"
            )
    elif rule.price is not None or not rule.tiers:
        raise InvalidInput(f"rule {rule.sku}: one of model {rule.model} has tiers and no price")
    _need_rising(rule)
    if rule.included is not None and rule.model not in {"unit", "graduated"}:
        raise InvalidInput(f"rule {rule.sku}: nothing is included in one of model {rule.model}")
    if rule.model == "flat" and (rule.minimum, rule.maximum, rule.per) != (None, None, 1):
        raise InvalidInput(f"rule {rule.sku}: a flat price has no minimum, no maximum and no per")
    lowest, highest = Decimal(rule.minimum or 0), rule.maximum
    if highest is not None and Decimal(highest) < lowest:
        raise InvalidInput(f"rule {rule.sku}: the minimum is above the maximum")
    money = [rule.price, rule.minimum, rule.maximum, *(tier.price for tier in rule.tiers)]
    if any(Decimal(price) > PRICE_MAX for price in money if price is not None):
        raise InvalidInput(f"rule {rule.sku}: no price is above {PRICE_MAX}")
    if rule.included is not None and Decimal(rule.included) > QUANTITY_MAX:
        raise InvalidInput(f"rule {rule.sku}: no quantity is above {QUANTITY_MAX}")
    for dimension, match in rule.match.items():
        if (match.any_of is None) is (match.all_except is None):
            raise InvalidInput(
                f"rule {rule.sku}: {dimension} matches any_of or all_except, one of them"
            )
        if any(OTHER in value for value in match.any_of or match.all_except or ()):
            raise InvalidInput(f"rule {rule.sku}: a value of {dimension} has a control character")


def _need_measured(rule: s.PriceRule, meters: Mapping[str, MeterDefinition]) -> None:
    meter = meters.get(rule.meter)
    if meter is None:
        raise InvalidInput(f"there is no meter {rule.meter}")
    if meter.aggregation not in ADDITIVE:
        raise InvalidInput(f"{rule.meter} does not add up, so nothing can be charged for it")
    if rule.unit != meter.unit:
        raise InvalidInput(f"{rule.meter} is measured in {meter.unit}, not {rule.unit}")
    unknown = sorted(set(rule.match) - set(meter.dimensions))
    if unknown:
        raise InvalidInput(f"{rule.meter} has no dimension {unknown[0]!r}")


def _need_rising(rule: s.PriceRule) -> None:
    """Refuse tiers that end before they begin, and a last one that ends."""
    reached = Decimal(0)
    for number, tier in enumerate(rule.tiers, 1):
        last = number == len(rule.tiers)
        if last is not (tier.up_to is None):
            raise InvalidInput(
                f"rule {rule.sku}: the last tier, and no other, goes on without an end"
            )
        if tier.up_to is None:
            return
        if not reached < Decimal(tier.up_to) <= QUANTITY_MAX:
            raise InvalidInput(f"rule {rule.sku}: tier {number} must end above the one before it")
        reached = Decimal(tier.up_to)


def need_one_rule_each(
    rules: Iterable[s.PriceRule], free: Iterable[str], needed: Iterable[str] = ALWAYS_PRICED
) -> None:
    """Return if any usage there could be of a meter that has rules matches exactly one.

    Those needed have rules, or are free.

    All values of a dimension that no rule names are alike, so the space is finite: for each
    dimension the values that are named, and any other.

    Raises:
        InvalidInput: it names a usage that matches none, or two.
    """
    by_meter: dict[str, list[s.PriceRule]] = {}
    for rule in rules:
        by_meter.setdefault(rule.meter, []).append(rule)
    given_away = set(free)
    for meter in sorted(given_away & by_meter.keys()):
        raise InvalidInput(f"the meter {meter} is free, and has a rule")
    missing = sorted(set(needed) - set(by_meter) - given_away)
    if missing:
        raise InvalidInput(f"no rule matches the meter(s) {', '.join(missing)}")
    for meter, of_meter in by_meter.items():
        for usage, matching in _kinds_of_usage(meter, of_meter):
            if matching.bit_count() != 1:
                skus = [rule.sku for at, rule in enumerate(of_meter) if matching >> at & 1]
                raise InvalidInput(_refusal(meter, usage, skus))
    _need_own_skus(itertools.chain.from_iterable(by_meter.values()))


def _need_own_skus(rules: Iterable[s.PriceRule]) -> None:
    """Refuse one sku of two rules: what a period has used of it would be counted together."""
    seen: set[str] = set()
    for rule in rules:
        if rule.sku in seen:
            raise InvalidInput(f"two rules have the sku {rule.sku!r}")
        seen.add(rule.sku)


def matches(rule: s.PriceRule, dimensions: Mapping[str, str]) -> bool:
    """Return whether a rule is for usage with these dimensions (of the rule's meter)."""
    return all(match.takes(dimensions.get(name, "")) for name, match in rule.match.items())


def _kinds_of_usage(meter: str, rules: list[s.PriceRule]) -> Iterator[tuple[dict[str, str], int]]:
    """Yield one usage for each combination of values that rules can tell apart.

    With it, which rules match: a bit each, so that a thousand rules are asked at once.
    """
    named: dict[str, dict[str, None]] = {}
    for rule in rules:
        for dimension, match in rule.match.items():
            values = named.setdefault(dimension, {OTHER: None})
            values |= dict.fromkeys(match.any_of or match.all_except or ())
    if math.prod(len(values) for values in named.values()) > COMBINATIONS_MAX:
        raise InvalidInput(
            f"the rules of {meter} tell more than {COMBINATIONS_MAX} kinds of usage apart"
        )
    taken = [_taking(rules, name, values).items() for name, values in named.items()]
    for combination in itertools.product(*taken):
        matching = (1 << len(rules)) - 1
        for _, takes in combination:
            matching &= takes
        yield dict(zip(named, (value for value, _ in combination), strict=True)), matching


def _taking(rules: list[s.PriceRule], dimension: str, values: Iterable[str]) -> dict[str, int]:
    """Return by the values of a dimension which rules take each, a bit a rule."""
    bits = [(1 << at, rule.match.get(dimension, Match())) for at, rule in enumerate(rules)]
    others = sum(bit for bit, match in bits if match.any_of is None)
    taking = dict.fromkeys(values, others)
    for bit, match in bits:
        for value in match.any_of or ():
            taking[value] |= bit
        for value in match.all_except or ():
            taking[value] &= ~bit
    return taking


def _refusal(meter: str, usage: Mapping[str, str], matching: list[str]) -> str:
    what = " and ".join(
        f"{name} any other" if value == OTHER else f"{name} {value!r}"
        for name, value in usage.items()
    )
    with_these = f"{meter} with {what}" if what else f"the meter {meter}"
    if matching:
        return f"two rules match {with_these} ({', '.join(matching[:2])}); there must be one"
    return f"no rule matches {with_these}; there must be one"


def in_force(cell: Cell, name: str, at: Micros) -> s.PriceList | None:
    """Return the version of a price list by which usage at a time is rated, if there is one."""
    versions = cell.state.price_lists.get(name, ())
    return next((v for v in reversed(versions) if v.valid_from <= at), None)


def list_of(cell: Cell, project_id: str, at: Micros) -> str:
    """Return the price list that a project's usage at a time is rated by: that of who pays."""
    state = cell.state
    versions = state.customers.get(payer_at(state.payers.get(project_id, ()), at), ())
    return next((v.price_list for v in reversed(versions) if v.valid_from <= at), s.STANDARD)


def price_list_published(cell: Cell, fact: s.PriceListPublished, at: Micros) -> None:
    lists = cell.state.price_lists
    lists[fact.price_list.name] = (*lists.get(fact.price_list.name, ()), fact.price_list)


def price_list_withdrawn(cell: Cell, fact: s.PriceListWithdrawn, at: Micros) -> None:
    state, name = cell.state, fact.name
    state.withdrawn[name] = max(fact.version, state.withdrawn.get(name, 0))
    left = tuple(v for v in state.price_lists.pop(name) if v.version != fact.version)
    if left:
        state.price_lists[name] = left
