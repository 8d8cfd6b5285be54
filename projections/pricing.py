"""Prices applied: from usage to priced parts, by whatever model the rule in force has.

Invariant: a part is priced once, exactly, and rounded once, half to even, to four decimals more
than its currency has. What a rule counts (tiers, included units, a minimum, a maximum) it counts
over a calendar month in UTC and over all rows given together, in the order of their time: so a
later price changes nothing about what was used before it. Money is Decimal, quantities are
integers; nothing is a float.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.billing.prices import matches
from projections.metering import Usage
from schemas.billing import Model, PriceList, PriceRule
from schemas.currency import decimals
from schemas.metering import BUILT_IN, MeterDefinition
from schemas.months import month_bounds, month_of
from schemas.units import DAY, Micros

EXTRA_DECIMALS = 4
MINIMUM = "minimum"  # what a line is about that only makes up for too little use
HUNDRED = Decimal(100)


class Discount(Struct, frozen=True, kw_only=True):
    """So many percent off, of one sku or, without one, of all."""

    percent: str
    sku: str = ""


class Part(Struct, frozen=True, kw_only=True):
    """A stretch of usage, or a part of its quantity, at one price.

    ``quantity`` is in base units, and may be less than the stretch has: the rest lies in another
    tier (counted from 1; 0 is what is included). ``price`` is for ``per`` units; ``list_amount`` is
    what it would be without a discount. Of ``model`` "minimum": what a month lacks to it.
    """

    usage: Usage
    price_list: PriceList
    rule: PriceRule
    model: Model | str
    quantity: int
    tier: int
    price: str
    discount: str
    list_amount: Decimal
    amount: Decimal


class Priced(Struct, frozen=True, kw_only=True):
    """Parts in the order of the rows they are of, and the usage that nothing priced."""

    parts: tuple[Part, ...]
    unrated: tuple[Usage, ...]


class _Account(Struct):
    """What a month has used of one sku so far, and what that costs."""

    used: int = 0
    spent: Decimal = Decimal(0)
    flat_for: set[tuple[str, str]] = set()  # msgspec copies it
    last: tuple[Usage, PriceList, PriceRule] | None = None
    first_ordinal: int = 0
    last_ordinal: int = 0


type _Cut = tuple[Usage, PriceList, PriceRule]
type _Key = tuple[str, str]  # a month and a sku


def price(
    rows: Iterable[Usage],
    versions: Sequence[PriceList],
    definitions: Mapping[str, MeterDefinition] = BUILT_IN,
    *,
    discounts: Sequence[Discount] = (),
    daily: bool = False,
) -> Priced:
    """Price usage by the versions of one price list, cut where a new version comes into force.

    Args:
        rows: all usage of whoever pays, of whole months where a rule counts over a month.
        versions: in the order of their numbers, so of their validity too. Meters that none of
            them names cost nothing, and are left out.
        definitions: of the meters that the versions name.
        discounts: of whoever pays; of several for one sku the first counts.
        daily: cut rows at midnights (UTC) as well.
    """
    named = {rule.meter for version in versions for rule in version.rules}
    cuts: list[_Cut] = []
    unrated: list[Usage] = []
    for row in rows:
        if row.meter not in named:
            continue
        for part, price_list in _in_force(row, versions):
            if price_list is None:
                unrated.append(part)
                continue
            rule = _rule(price_list, part)
            if rule is None:
                continue
            if daily:
                cuts += ((piece, price_list, rule) for piece in _by_day(part))
            elif counts(rule):
                cuts += ((piece, price_list, rule) for piece in _by_month(part))
            else:
                cuts.append((part, price_list, rule))
    return Priced(parts=tuple(_priced(cuts, discounts, definitions)), unrated=tuple(unrated))


def exact_quotient(numerator: int, denominator: int, places: int) -> Decimal:
    """Return a non-negative quotient to so many decimals, rounded once, half to even."""
    quotient, rest = divmod(numerator * 10**places, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient % 2):
        quotient += 1
    return Decimal(f"{quotient}E-{places}")


def _priced(
    cuts: Sequence[_Cut], discounts: Sequence[Discount], definitions: Mapping[str, MeterDefinition]
) -> list[Part]:
    """Price pieces in the order of time, and return them in their own."""
    totals = _volumes(cuts)
    accounts: dict[_Key, _Account] = {}
    found: list[list[Part]] = [[] for _ in cuts]
    for at in sorted(range(len(cuts)), key=lambda i: _when(cuts[i][0])):
        usage, price_list, rule = cuts[at]
        base = definitions[usage.meter].base_per_unit
        discount = discount_of(rule.sku, discounts)
        if not counts(rule):
            assert rule.price is not None, "checked when it was published"
            found[at] = [
                _part(usage, price_list, rule, usage.quantity, 0, rule.price, discount, base)
            ]
            continue
        key = month_of(usage.start), rule.sku
        account = accounts.setdefault(key, _Account(flat_for=set()))
        total = totals.get((*key, price_list.version), 0)
        found[at] = _counted(account, usage, price_list, rule, discount, total, base)
        _note(account, usage, price_list, rule)
    return [part for parts in found for part in parts] + _minimums(accounts)


def _when(usage: Usage) -> tuple[int, int, int, str, str, str]:
    return (
        usage.start, usage.end, usage.first_ordinal,
        usage.project_id, usage.resource_id, usage.meter,
    )  # fmt: skip


def _note(account: _Account, usage: Usage, price_list: PriceList, rule: PriceRule) -> None:
    account.last = (usage, price_list, rule)
    first = account.first_ordinal or usage.first_ordinal
    account.first_ordinal = min(first, usage.first_ordinal)
    account.last_ordinal = max(account.last_ordinal, usage.last_ordinal)


def _counted(
    account: _Account,
    usage: Usage,
    price_list: PriceList,
    rule: PriceRule,
    discount: str,
    total: int,
    base: int,
) -> list[Part]:
    """Price a piece by a rule that counts; ``total`` is what decides on the tier of a volume."""
    if rule.model == "flat":
        return [_flat(account, usage, price_list, rule, discount)]
    parts = [
        _part(usage, price_list, rule, quantity, tier, unit_price, discount, base)
        for quantity, tier, unit_price in _slices(account.used, usage, rule, total, base)
    ]
    account.used += usage.quantity
    if rule.maximum is not None:
        parts = [_capped(account, part, Decimal(rule.maximum)) for part in parts]
    else:
        account.spent += sum((part.amount for part in parts), Decimal(0))
    return parts


def _flat(
    account: _Account, usage: Usage, price_list: PriceList, rule: PriceRule, discount: str
) -> Part:
    """Charge a resource once a month: for the first piece that used anything."""
    assert rule.price is not None, "checked when it was published"
    resource = usage.resource_kind, usage.resource_id
    due = usage.quantity > 0 and resource not in account.flat_for
    if due:
        account.flat_for.add(resource)
    numerator, denominator = fraction(rule.price) if due else (0, 1)
    return _made(
        usage, price_list, rule, usage.quantity, 0, rule.price, discount, numerator, denominator
    )


def _capped(account: _Account, part: Part, maximum: Decimal) -> Part:
    room = max(Decimal(0), _rounded(maximum, part.price_list.currency) - account.spent)
    amount = min(part.amount, room)
    account.spent += amount
    return replace(part, amount=amount)


def _slices(
    used: int, usage: Usage, rule: PriceRule, total: int, base: int
) -> list[tuple[int, int, str]]:
    """Return how much of a piece lies in which tier, at which price."""
    if rule.model == "volume":
        at = next(n for n, t in enumerate(rule.tiers) if t.up_to is None or
                  total <= whole(t.up_to, base))  # fmt: skip
        return [(usage.quantity, at + 1, rule.tiers[at].price)]
    free = 0 if rule.included is None else whole(rule.included, base)
    bounds: list[tuple[int | None, int, str]] = [(free, 0, "0")] if free else []
    if rule.model == "unit":
        bounds.append((None, 1 if free else 0, rule.price or "0"))
    else:
        for number, tier in enumerate(rule.tiers, 1):
            ends = None if tier.up_to is None else free + whole(tier.up_to, base)
            bounds.append((ends, number, tier.price))
    found: list[tuple[int, int, str]] = []
    left, reached = usage.quantity, used
    for ends, number, unit_price in bounds:
        room = left if ends is None else min(left, max(0, ends - reached))
        if room or (not left and not found and (ends is None or reached < ends)):
            found.append((room, number, unit_price))
        left -= room
        reached += room
    return found


def _volumes(cuts: Iterable[_Cut]) -> dict[tuple[str, str, int], int]:
    """Return how much each month has used of a sku by the end of each version of the list.

    Up to there, not to the month's end: no later version changes what an earlier one has priced.
    """
    by_version: dict[_Key, dict[int, int]] = {}
    for usage, price_list, rule in cuts:
        if rule.model == "volume":
            of = by_version.setdefault((month_of(usage.start), rule.sku), {})
            of[price_list.version] = of.get(price_list.version, 0) + usage.quantity
    totals: dict[tuple[str, str, int], int] = {}
    for (month, sku), quantities in by_version.items():
        reached = 0
        for version in sorted(quantities):
            reached += quantities[version]
            totals[month, sku, version] = reached
    return totals


def _minimums(accounts: dict[_Key, _Account]) -> list[Part]:
    """Return what is due for months that used something, but less than the minimum."""
    parts: list[Part] = []
    for (month, _), account in sorted(accounts.items()):
        if account.last is None:
            continue
        usage, price_list, rule = account.last
        if rule.minimum is None or not (account.used or account.flat_for):
            continue
        lacking = _rounded(Decimal(rule.minimum), price_list.currency) - account.spent
        if lacking <= 0:
            continue
        span = account.first_ordinal, account.last_ordinal
        parts.append(minimum_part(usage, price_list, rule, month, lacking, span))
    return parts


def minimum_part(
    last: Usage,
    price_list: PriceList,
    rule: PriceRule,
    month: str,
    lacking: Decimal,
    span: tuple[int, int],
) -> Part:
    """Return what a month lacks to the minimum of the rule that its last usage was priced by.

    ``span`` are the first and the last ordinal of what was used.
    """
    start, end = month_bounds(month)
    of_month = replace(
        last, resource_kind=MINIMUM, resource_id=rule.sku, project_id="", value=0,
        quantity=0, start=start, end=end, first_ordinal=span[0], last_ordinal=span[1],
    )  # fmt: skip
    return Part(
        usage=of_month,
        price_list=price_list,
        rule=rule,
        model=MINIMUM,
        quantity=0,
        tier=0,
        price=rule.minimum or "0",
        discount="",
        list_amount=lacking,
        amount=lacking,
    )


def _part(
    usage: Usage,
    price_list: PriceList,
    rule: PriceRule,
    quantity: int,
    tier: int,
    unit_price: str,
    discount: str,
    base: int,
) -> Part:
    numerator, denominator = fraction(unit_price)
    return _made(
        usage, price_list, rule, quantity, tier, unit_price, discount,
        numerator * quantity, denominator * base * rule.per,
    )  # fmt: skip


def _made(
    usage: Usage,
    price_list: PriceList,
    rule: PriceRule,
    quantity: int,
    tier: int,
    unit_price: str,
    discount: str,
    numerator: int,
    denominator: int,
) -> Part:
    """Return a part that costs the fraction, less the discount; each amount is rounded once."""
    places = decimals(price_list.currency) + EXTRA_DECIMALS
    full = less = exact_quotient(numerator, denominator, places)
    if discount:
        off, hundred = fraction(text(HUNDRED - Decimal(discount)))
        less = exact_quotient(numerator * off, denominator * hundred * 100, places)
    return Part(
        usage=usage,
        price_list=price_list,
        rule=rule,
        model=rule.model,
        quantity=quantity,
        tier=tier,
        price=unit_price,
        discount=discount,
        list_amount=full,
        amount=less,
    )


def fraction(number: str) -> tuple[int, int]:
    """Return a decimal as numerator and denominator."""
    whole, _, digits = number.partition(".")
    return int(whole + digits), 10 ** len(digits)


def whole(units: str, base: int) -> int:
    """Return a quantity in base units, the part of one left out."""
    numerator, denominator = fraction(units)
    return numerator * base // denominator


def _rounded(money: Decimal, currency: str) -> Decimal:
    numerator, denominator = fraction(text(money))
    return exact_quotient(numerator, denominator, decimals(currency) + EXTRA_DECIMALS)


def text(number: Decimal) -> str:
    """Return a number's digits without an exponent."""
    return f"{number:f}"


def discount_of(sku: str, discounts: Sequence[Discount]) -> str:
    """Return how many percent are off of a sku; "" if none are."""
    found = next((d.percent for d in discounts if d.sku in {"", sku}), "")
    return found if found and Decimal(found) else ""


def counts(rule: PriceRule) -> bool:
    """Return whether what a rule charges depends on what else the month has used."""
    return rule.model != "unit" or (rule.included, rule.minimum, rule.maximum) != (None,) * 3


def _rule(price_list: PriceList, usage: Usage) -> PriceRule | None:
    return next(
        (
            rule
            for rule in price_list.rules
            if rule.meter == usage.meter and matches(rule, usage.dimensions)
        ),
        None,
    )


def _in_force(row: Usage, versions: Sequence[PriceList]) -> list[tuple[Usage, PriceList | None]]:
    """Cut usage into parts that each lie under one version; None where there was none yet."""
    parts: list[tuple[Usage, PriceList | None]] = []
    current = next((v for v in reversed(versions) if v.valid_from <= row.start), None)
    start = row.start
    for version in versions:
        if row.start < version.valid_from < row.end:
            if version.valid_from > start:
                parts.append((part_of(row, start, version.valid_from), current))
                start = version.valid_from
            current = version
    parts.append((part_of(row, start, row.end), current))
    return parts


def part_of(row: Usage, start: Micros, end: Micros) -> Usage:
    """Return what of usage lies in a stretch of its own."""
    if start == row.start and end == row.end:
        return row
    return replace(row, start=start, end=end, quantity=row.value * (end - start))


def _by_day(row: Usage) -> list[Usage]:
    edges = [row.start, *range((row.start // DAY + 1) * DAY, row.end, DAY), row.end]
    return [part_of(row, start, end) for start, end in pairwise(edges)]


def _by_month(row: Usage) -> list[Usage]:
    parts: list[Usage] = []
    start = row.start
    while True:
        _, month_ends = month_bounds(month_of(start))
        if month_ends >= row.end:
            parts.append(part_of(row, start, row.end))
            return parts
        parts.append(part_of(row, start, month_ends))
        start = month_ends
