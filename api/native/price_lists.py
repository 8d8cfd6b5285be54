"""Price lists: what is charged for what, from when on.

They are published by submitting the action ``PublishPriceList``. The standard one is for everybody
to see; others are agreed on with customers, and are seen by whoever sees those.
"""

from typing import Any

import msgspec

from api.exchange import Answer, Call, json_answer
from api.native.customers import READ as READ_CUSTOMERS
from api.native.log import number
from api.routing import Routes
from schemas.billing import STANDARD, PriceList
from schemas.errors import NotFound

READ = "billing:price_lists:read"


async def list_all(call: Call) -> Answer:
    """GET /v1/price-lists: every version of each, by name."""
    name = None if call.may(READ_CUSTOMERS) else STANDARD
    found = call.edge.reader.price_lists(name=name)
    return json_answer({"price_lists": [_view(each) for each in found]})


async def show(call: Call) -> Answer:
    """GET /v1/price-lists/{name}: its newest version, or the one that ``version`` names."""
    name, version = call.args[0], number(call, "version")
    seen = name == STANDARD or call.may(READ_CUSTOMERS)
    versions = call.edge.reader.price_lists(name=name) if seen else []
    found = [each for each in versions if version in {0, each.version}]
    if not found:
        said = f" {version}" if version else ""
        raise NotFound(f"there is no price list {name[:64]!r}{said}")
    return json_answer({"price_list": _view(found[-1])})


def _view(price_list: PriceList) -> dict[str, Any]:
    view: dict[str, Any] = msgspec.to_builtins(price_list)
    return view


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/price-lists", list_all, READ)
    routes.add("GET", "/v1/price-lists/{}", show, READ, query=("version",))
