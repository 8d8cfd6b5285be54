"""Price lists: which versions there are, and that each rates no meter twice.

Those that every list must price are ``schemas.metering.ALWAYS_PRICED``.
"""

from decimal import Decimal

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import billing as s
from schemas.envelope import Fact
from schemas.errors import InvalidInput
from schemas.metering import ALWAYS_PRICED, BUILT_IN
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def publish_price_list(cell: Cell, ctx: Context, action: s.PublishPriceList) -> Decision:
    """Publish the next version; it prices no meter twice, and each in the meter's unit."""
    seen: set[str] = set()
    for rule in action.rules:
        if rule.meter in seen:
            raise InvalidInput(f"two rules match the meter {rule.meter}; there must be one")
        seen.add(rule.meter)
        meter = BUILT_IN.get(rule.meter)
        if meter is None:
            raise InvalidInput(f"there is no meter {rule.meter}")
        if rule.unit != meter.unit:
            raise InvalidInput(f"{rule.meter} is measured in {meter.unit}, not {rule.unit}")
        Decimal(rule.price)
    missing = sorted(set(ALWAYS_PRICED) - seen)
    if missing:
        raise InvalidInput(f"no rule matches the meter(s) {', '.join(missing)}")
    versions = cell.state.price_lists.get(action.name, ())
    if versions and versions[-1].currency != action.currency:
        raise InvalidInput(f"the list {action.name!r} is in {versions[-1].currency}")
    valid_from = ctx.now if action.valid_from is None else action.valid_from
    if versions and valid_from < versions[-1].valid_from:
        raise InvalidInput("the list would become valid before the version it follows")
    price_list = s.PriceList(
        name=action.name,
        version=len(versions) + 1,
        currency=action.currency,
        valid_from=valid_from,
        rules=action.rules,
    )
    return [s.PriceListPublished(price_list=price_list)], {
        "name": price_list.name,
        "version": price_list.version,
    }


def in_force(cell: Cell, name: str, at: Micros) -> s.PriceList | None:
    """Return the version of a price list by which usage at a time is rated, if there is one."""
    versions = cell.state.price_lists.get(name, ())
    return next((v for v in reversed(versions) if v.valid_from <= at), None)


def price_list_published(cell: Cell, fact: s.PriceListPublished, at: Micros) -> None:
    lists = cell.state.price_lists
    lists[fact.price_list.name] = (*lists.get(fact.price_list.name, ()), fact.price_list)
