"""Price lists: which versions there are, and that each rates every meter once."""

from decimal import Decimal

from engine.domain.context import Context
from engine.domain.state import Cell
from schemas import billing as s
from schemas.envelope import Fact
from schemas.errors import InvalidInput
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

UNITS: dict[str, str] = {
    "compute.vcpu": "Core-Hours",
    "compute.memory": "GiB-Hours",
    "compute.disk": "GiB-Hours",
    "image.size": "GiB-Hours",
}


def publish_price_list(cell: Cell, ctx: Context, action: s.PublishPriceList) -> Decision:
    """Publish the next version; it must price each meter exactly once, in the meter's unit."""
    seen: set[str] = set()
    for rule in action.rules:
        if rule.meter in seen:
            raise InvalidInput(f"two rules match the meter {rule.meter}; there must be one")
        seen.add(rule.meter)
        if rule.unit != UNITS[rule.meter]:
            raise InvalidInput(f"{rule.meter} is measured in {UNITS[rule.meter]}, not {rule.unit}")
        Decimal(rule.price)
    missing = sorted(set(UNITS) - seen)
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
