"""Prices as a table: what a piece of usage costs, as fractions of integers, for DuckDB to multiply.

The rules are ``pricing``'s. What a rule counts over the month is told as steps: how much of what an
*account* (a customer's sku) has used by then costs how much. Invariant: a row of the table is used
for exactly what ``pricing`` would price by it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.prices import matches
from projections.pricing import (
    EXTRA_DECIMALS,
    HUNDRED,
    Discount,
    counts,
    discount_of,
    fraction,
    text,
    whole,
)
from projections.rating import SHOWN_DECIMALS
from schemas.billing import Customer, PriceList, PriceRule
from schemas.currency import decimals
from schemas.metering import MeterDefinition

type Fraction = tuple[int, int]
# How pieces are taken: each as it is; cut at steps; once for a resource; as the month's total says.
type Taken = Literal["whole", "sliced", "once", "total"]
ENDLESS = 2**120  # more than any account reaches


class Step(Struct, frozen=True, kw_only=True):
    """What an account has used from ``begins`` to ``ends`` (base units), at one price.

    ``amount`` and ``list_amount`` are for a base unit, or once for a resource, in units of the last
    decimal of an amount. ``tier`` counts from 1; 0 is what is included, or all there is.
    """

    tier: int
    begins: int
    ends: int
    price: str
    amount: Fraction
    list_amount: Fraction


class PricedBy(Struct, frozen=True, kw_only=True):
    """What a group of usage is priced by; ``shown`` is a fraction for a base unit.

    Without a rule nobody pays, or it costs nothing; ``too_early``: no list was in force yet.
    """

    customer_id: str
    meter: MeterDefinition
    rule: PriceRule | None
    too_early: bool
    price_list: PriceList | None
    discount: str
    places: int
    taken: Taken
    steps: tuple[Step, ...]
    cap: int | None
    shown: Fraction

    @property
    def version(self) -> int:
        """The version of the price list; 0 without one."""
        return 0 if self.price_list is None else self.price_list.version

    @property
    def account(self) -> tuple[str, str] | None:
        """Whose use of what is counted over the month; None: nothing is counted."""
        rule = self.rule
        return None if rule is None or not counts(rule) else (self.customer_id, rule.sku)

    def step(self, tier: int) -> Step:
        """Return the step of a tier."""
        return next(each for each in self.steps if each.tier == tier)


def rule_of(
    version: PriceList | None, meter: str, dimensions: Mapping[str, str]
) -> PriceRule | None:
    """Return the rule of a list for usage of a meter; None: it costs nothing."""
    rules = () if version is None else version.rules
    return next((r for r in rules if r.meter == meter and matches(r, dict(dimensions))), None)


def priced_by(
    customer_id: str,
    meter: MeterDefinition,
    version: PriceList | None,
    rule: PriceRule | None,
    terms: Mapping[str, Customer],
) -> PricedBy:
    """Return what usage of a meter is priced by, for a customer under a version of its list."""
    nothing = Step(tier=0, begins=0, ends=ENDLESS, price="", amount=(0, 1), list_amount=(0, 1))
    free = PricedBy(
        customer_id=customer_id,
        meter=meter,
        rule=None,
        too_early=False,
        price_list=None,
        discount="",
        places=0,
        taken="whole",
        steps=(nothing,),
        cap=None,
        shown=reduced(10**SHOWN_DECIMALS, meter.base_per_unit),
    )
    if version is None or rule is None:
        return free
    places = decimals(version.currency) + EXTRA_DECIMALS
    of = [Discount(percent=d.percent, sku=d.sku) for d in terms[customer_id].discounts]
    discount = discount_of(rule.sku, of)
    return replace(
        free,
        rule=rule,
        price_list=version,
        discount=discount,
        places=places,
        taken=_taken(rule),
        steps=tuple(_steps(rule, meter.base_per_unit, 10**places, discount)),
        cap=None if rule.maximum is None else _units(rule.maximum, places),
    )


def at_total(priced: PricedBy, total: int) -> PricedBy:
    """Return the same with the one step that a month's total decides on."""
    step = next(each for each in priced.steps if total <= each.ends)
    return replace(priced, steps=(replace(step, begins=0, ends=ENDLESS),))


def counted_otherwise(versions: Sequence[PriceList]) -> frozenset[str]:
    """Return the meters of skus of which one version of a list counts otherwise than another.

    What was used under one goes on in the next, as DuckDB has it, only if both have one model and
    one maximum.
    """
    kinds: dict[str, tuple[str, str | None]] = {}
    found: set[str] = set()
    for rule in (rule for version in versions for rule in version.rules):
        kind = rule.model, rule.maximum
        if kinds.setdefault(rule.sku, kind) != kind:
            found.add(rule.meter)
    return frozenset(found)


def minimum_units(rule: PriceRule, places: int) -> int | None:
    """Return a rule's minimum in units of the last decimal of an amount, rounded; None: none."""
    return None if rule.minimum is None else _units(rule.minimum, places)


def _taken(rule: PriceRule) -> Taken:
    match rule.model:
        case "flat":
            return "once"
        case "volume":
            return "total"
        case "graduated":
            return "sliced"
        case _:
            return "sliced" if counts(rule) else "whole"


def _steps(rule: PriceRule, base: int, unit: int, discount: str) -> Iterator[Step]:
    """Yield what costs how much; ``unit`` is how many of an amount's last decimal are one."""
    reached = 0
    if rule.model == "flat":
        assert rule.price is not None, "checked when it was published"
        yield _step(0, 0, ENDLESS, rule.price, unit, 1, discount)
        return
    if rule.included is not None and (free := whole(rule.included, base)):
        yield _step(0, 0, free, "0", unit, base * rule.per, discount)
        reached = free
    if rule.model == "unit":
        assert rule.price is not None, "checked when it was published"
        tier = 1 if reached else 0
        yield _step(tier, reached, ENDLESS, rule.price, unit, base * rule.per, discount)
        return
    free = reached
    for number, each in enumerate(rule.tiers, 1):
        ends = ENDLESS if each.up_to is None else free + whole(each.up_to, base)
        yield _step(number, reached, ends, each.price, unit, base * rule.per, discount)
        reached = ends


def _step(
    tier: int, begins: int, ends: int, price: str, unit: int, base: int, discount: str
) -> Step:
    numerator, denominator = fraction(price)
    numerator, denominator = numerator * unit, denominator * base
    full = less = reduced(numerator, denominator)
    if discount:
        off, hundred = fraction(text(HUNDRED - Decimal(discount)))
        less = reduced(numerator * off, denominator * hundred * 100)
    return Step(tier=tier, begins=begins, ends=ends, price=price, amount=less, list_amount=full)


def _units(money: str, places: int) -> int:
    """Return money in units of the last decimal, rounded once, half to even."""
    numerator, denominator = fraction(money)
    quotient, rest = divmod(numerator * 10**places, denominator)
    return int(
        quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))
    )


def reduced(numerator: int, denominator: int) -> Fraction:
    """Return a fraction in its lowest terms."""
    common = math.gcd(numerator, denominator)
    return numerator // common, denominator // common
