"""Customers: who pays for which projects, by which terms, with which credits.

They are changed by submitting the actions ``CreateCustomer``, ``UpdateCustomer``,
``AssignProject``, ``GrantCredit``, ``CreateBudget`` and ``DeleteBudget``. What they pay is seen by
administrators and auditors alone: an invoice names all of a customer's projects, and a project's
people see their own project's bill.
"""

import functools
import zoneinfo
from typing import Any

import msgspec

from api.exchange import Answer, Call, json_answer
from api.pagination import page_of
from api.routing import Routes
from schemas.billing import Budget, Customer
from schemas.errors import InvalidInput, NotFound

READ = "billing:customers:read"


async def list_all(call: Call) -> Answer:
    """GET /v1/customers: by name."""
    reader, page = call.edge.reader, page_of(call)
    found = reader.customers(name=call.param("name") or None, marker=page.marker, limit=page.limit)
    return json_answer({"customers": [_view(call, customer) for customer in found]})


async def show(call: Call) -> Answer:
    """GET /v1/customers/{id}: with projects, credits and their rests."""
    reader = call.edge.reader
    with reader.snapshot():
        customer = reader.customer(call.args[0])
        if customer is None:
            raise NotFound(f"there is no customer {call.args[0][:64]!r}")
        view = _view(call, customer)
        view["credits"] = reader.credits(customer.customer_id)
    return json_answer({"customer": view})


async def list_budgets(call: Call) -> Answer:
    """GET /v1/budgets: by name, each with the highest threshold that its last month passed."""
    page = page_of(call)
    found = call.edge.reader.budgets(marker=page.marker, limit=page.limit)
    return json_answer({"budgets": [_budget(budget) for budget in found]})


def _budget(budget: Budget) -> dict[str, Any]:
    view = {name: getattr(budget, name) for name in budget.__struct_fields__}
    return view | {"id": budget.budget_id}


def need_known_zone(action: object) -> None:
    """Return if a customer's zone is one that times can be shown in.

    Raises:
        InvalidInput: there is no such zone.
    """
    zone = getattr(action, "zone", None)
    if zone is not None and zone not in _zones():
        raise InvalidInput(f"there is no time zone {zone!r}; one looks like Europe/Berlin")


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _view(call: Call, customer: Customer) -> dict[str, Any]:
    view: dict[str, Any] = {
        name: msgspec.to_builtins(getattr(customer, name)) for name in customer.__struct_fields__
    }
    view["id"] = view.pop("customer_id")
    payers = call.edge.reader.payers(customer.customer_id)
    view["projects"] = [
        {"project_id": payer.project_id, "since": payer.payers[-1].since} for payer in payers
    ]
    return view


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/customers", list_all, READ, query=("name", "limit", "marker"))
    routes.add("GET", "/v1/customers/{}", show, READ)
    routes.add("GET", "/v1/budgets", list_budgets, READ, query=("limit", "marker"))
