"""Customers: who pays for what, and that no closed month is changed by it."""

from collections.abc import Sequence
from decimal import Decimal

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.found import find_project
from engine.domain.state import Cell, State
from schemas import billing as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InvalidInput, NotFound, UnknownReference
from schemas.months import month_bounds
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

CUSTOMERS_MAX = 2000  # as many as one closing can name


def create_customer(cell: Cell, ctx: Context, action: s.CreateCustomer) -> Decision:
    """Make the first version of a customer."""
    state = cell.state
    if len(state.customers) >= CUSTOMERS_MAX:
        raise Conflict(f"a cell has at most {CUSTOMERS_MAX} customers")
    _need_list(state, action.price_list, action.currency)
    customer = s.Customer(
        customer_id=ctx.new_id(),
        version=1,
        name=action.name,
        currency=action.currency,
        price_list=action.price_list,
        valid_from=ctx.now,
        discounts=action.discounts,
        tax_percent=action.tax_percent,
        tax_name=action.tax_name,
        zone=action.zone,
        address=action.address,
        tax_id=action.tax_id,
        reference=action.reference,
    )
    return [s.CustomerSaved(customer=customer)], {"customer_id": customer.customer_id}


def update_customer(cell: Cell, ctx: Context, action: s.UpdateCustomer) -> Decision:
    """Make the next version of a customer, valid from a time in no closed month."""
    state = cell.state
    old = find_customer(state, action.customer_id)
    valid_from = ctx.now if action.valid_from is None else action.valid_from
    need_open(state, valid_from)
    if valid_from < old.valid_from:
        raise InvalidInput("the terms would become valid before those they follow")
    given = {
        "name": action.name,
        "price_list": action.price_list,
        "discounts": action.discounts,
        "tax_percent": action.tax_percent,
        "tax_name": action.tax_name,
        "zone": action.zone,
        "address": action.address,
        "tax_id": action.tax_id,
        "reference": action.reference,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    new = replace(old, **changed)
    _need_list(state, new.price_list, new.currency)
    if new == old:
        return [], {"customer_id": old.customer_id}
    new = replace(new, version=old.version + 1, valid_from=valid_from)
    return [s.CustomerSaved(customer=new)], {"customer_id": old.customer_id}


def assign_project(cell: Cell, ctx: Context, action: s.AssignProject) -> Decision:
    """Have a customer pay for a project from a time on, in no closed month."""
    state = cell.state
    project_id = find_project(cell, ctx, action.project_id).project_id
    if action.customer_id:
        find_customer(state, action.customer_id)
    payers = state.payers.get(project_id, ())
    if action.since is not None:
        since = action.since
        need_open(state, since)
    elif payers:
        since = max(ctx.now, closed_through(state))
    else:
        since = closed_through(state)
    reply = {"project_id": project_id, "customer_id": action.customer_id, "since": since}
    new = assigned(payers, s.Payer(customer_id=action.customer_id, since=since))
    if _payers_alike(new, payers):
        return [], dict(reply)
    fact = s.ProjectAssigned(project_id=project_id, customer_id=action.customer_id, since=since)
    return [fact], dict(reply)


def grant_credit(cell: Cell, ctx: Context, action: s.GrantCredit) -> Decision:
    """Let a customer pay less."""
    customer = find_customer(cell.state, action.customer_id)
    if not 0 < Decimal(action.amount) <= CREDIT_MAX:
        raise InvalidInput(f"a credit is more than nothing, and at most {CREDIT_MAX}")
    credit = s.Credit(
        credit_id=ctx.new_id(),
        customer_id=customer.customer_id,
        amount=action.amount,
        remaining=action.amount,
        reason=action.reason,
        granted_at=ctx.now,
    )
    reply: dict[str, object] = {"credit_id": credit.credit_id}
    return [s.CreditGranted(credit=credit)], reply


CREDIT_MAX = Decimal(10**12)


def find_customer(state: State, customer_id: str) -> s.Customer:
    """Return a customer's newest version.

    Raises:
        NotFound: there is no such customer.
    """
    versions = state.customers.get(customer_id)
    if versions is None:
        raise NotFound(f"there is no customer {customer_id!r}")
    return versions[-1]


def closed_through(state: State) -> Micros:
    """Return when the last closed month ends; 0 if none is closed."""
    return month_bounds(max(state.periods))[1] if state.periods else 0


def need_open(state: State, at: Micros) -> None:
    """Return if a time lies in no closed month, nor before one.

    Raises:
        Conflict: it does.
    """
    if at < closed_through(state):
        raise Conflict(
            f"the month {max(state.periods)} is closed: nothing may change what it costs",
        )


def _need_list(state: State, name: str, currency: str) -> None:
    versions = state.price_lists.get(name)
    if not versions:
        raise UnknownReference(f"there is no price list {name!r}")
    if versions[-1].currency != currency:
        raise InvalidInput(
            f"the price list {name!r} is in {versions[-1].currency}, and the customer in {currency}"
        )


def payer_at(payers: Sequence[s.Payer], at: Micros) -> str:
    """Return the customer who pays for a project at a time; "" if nobody does."""
    return next((p.customer_id for p in reversed(payers) if p.since <= at), "")


def assigned(payers: tuple[s.Payer, ...], new: s.Payer) -> tuple[s.Payer, ...]:
    """Return who pays when, once a payer is set from a time on: what was to follow goes."""
    return (*(payer for payer in payers if payer.since < new.since), new)


def _payers_alike(new: tuple[s.Payer, ...], old: tuple[s.Payer, ...]) -> bool:
    """Return whether nothing changes: nobody who would pay has not paid before."""
    if not old:
        return not new[-1].customer_id
    return len(new) == len(old) + 1 and new[-1].customer_id == old[-1].customer_id


# Evolve


def customer_saved(cell: Cell, fact: s.CustomerSaved, at: Micros) -> None:
    customers, ident = cell.state.customers, fact.customer.customer_id
    customers[ident] = (*customers.get(ident, ()), fact.customer)


def project_assigned(cell: Cell, fact: s.ProjectAssigned, at: Micros) -> None:
    payers = cell.state.payers
    payer = s.Payer(customer_id=fact.customer_id, since=fact.since)
    payers[fact.project_id] = assigned(payers.get(fact.project_id, ()), payer)


def credit_granted(cell: Cell, fact: s.CreditGranted, at: Micros) -> None:
    cell.state.credits[fact.credit.credit_id] = fact.credit
