"""Commands about customers: who pays for which projects, by which terms. Amounts are text."""

from typing import Annotated, Any

import typer

from cli.fields import micros
from cli.identity import PROJECTS
from cli.output import Output, when
from cli.problem import USAGE, Problem
from cli.resource import Reference, Resource, add_reads
from cli.session import Session, command, group

CUSTOMERS = Resource(
    word="customer",
    path="/v1/customers",
    key="customer",
    keys="customers",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("CURRENCY", "currency"),
        ("PRICE LIST", "price_list"),
        ("TAX %", "tax_percent"),
        ("PROJECTS", lambda row: len(row["projects"])),
    ],
)

customer_app = group("Who pays for which projects, and by which terms.")
add_reads(customer_app, CUSTOMERS)

PriceListName = Annotated[str | None, typer.Option("--price-list", help="Charge by this list.")]
Tax = Annotated[str | None, typer.Option(help="Tax in percent, and what it is called, as 19:VAT.")]
Discounts = Annotated[
    list[str] | None,
    typer.Option("--discount", help="Percent off all, or one sku: 10, vcpu=10 (repeatable)."),
]
DisplayZone = Annotated[str | None, typer.Option(help="Show times so, as Europe/Berlin.")]
Address = Annotated[str | None, typer.Option(help="Where invoices go.")]
TaxId = Annotated[str | None, typer.Option("--tax-id", help="The customer's tax number.")]
TheirReference = Annotated[
    str | None, typer.Option("--purchase-order", help="What the customer calls the order.")
]


def _terms(
    price_list: str | None,
    tax: str | None,
    discount: list[str] | None,
    zone: str | None,
    address: str | None,
    tax_id: str | None,
    reference: str | None,
) -> dict[str, Any]:
    terms: dict[str, Any] = {
        "price_list": price_list,
        "zone": zone,
        "address": address,
        "tax_id": tax_id,
        "reference": reference,
    }
    if tax is not None:
        terms["tax_percent"], _, terms["tax_name"] = tax.partition(":")
    if discount is not None:
        terms["discounts"] = [_discount(text) for text in discount if text != "none"]
    return {name: value for name, value in terms.items() if value is not None}


def _discount(text: str) -> dict[str, str]:
    sku, equals, percent = text.rpartition("=")
    return {"percent": percent, "sku": sku} if equals else {"percent": percent}


@command(customer_app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    currency: Annotated[str, typer.Option(help="The price list's currency, as EUR.")],
    price_list: PriceListName = None,
    tax: Tax = None,
    discount: Discounts = None,
    zone: DisplayZone = None,
    address: Address = None,
    tax_id: TaxId = None,
    purchase_order: TheirReference = None,
) -> None:
    """Have somebody pay for projects: their invoices are drawn up for it.

    Example: cumulog customer create Acme --currency EUR --tax 19:VAT --zone Europe/Berlin
    """
    terms = _terms(price_list, tax, discount, zone, address, tax_id, purchase_order)
    action = {"type": "CreateCustomer", "name": name, "currency": currency, **terms}
    reply = session.client.submit(action)["reply"]
    session.show(CUSTOMERS.get(session.client, reply["customer_id"]))


@command(customer_app, "set")
def set_(
    session: Session,
    reference: Reference,
    *,
    name: Annotated[str | None, typer.Option(help="Call it so.")] = None,
    price_list: PriceListName = None,
    tax: Tax = None,
    discount: Discounts = None,
    zone: DisplayZone = None,
    address: Address = None,
    tax_id: TaxId = None,
    purchase_order: TheirReference = None,
    since: Annotated[
        str | None,
        typer.Option(help="From this time on (ISO 8601, in no closed month); none: from now."),
    ] = None,
) -> None:
    """Change a customer's terms; what is not named stays. A month's are those at its end.

    --discount none takes all discounts away.

    Example: cumulog customer set Acme --discount 10 --since 2026-12-01T00:00:00Z
    """
    terms = _terms(price_list, tax, discount, zone, address, tax_id, purchase_order)
    terms |= {} if name is None else {"name": name}
    if not terms:
        raise Problem("say what to change", exit_code=USAGE)
    identity = CUSTOMERS.identify(session.client, reference)
    action = {"type": "UpdateCustomer", "customer_id": identity, **terms}
    if since is not None:
        action["valid_from"] = micros(since)
    session.client.submit(action)
    session.show(CUSTOMERS.get(session.client, identity))


@command(customer_app, "assign")
def assign(
    session: Session,
    reference: Reference,
    project: Annotated[str, typer.Argument(help="A project's name or id.")],
    *,
    since: Annotated[
        str | None, typer.Option(help="From this time on (ISO 8601, in no closed month).")
    ] = None,
) -> None:
    """Have a customer pay for a project.

    Without --since: for all that is not billed yet, if nobody has paid for it so far, else from now
    on.

    Example: cumulog customer assign Acme acme-production
    """
    identity = CUSTOMERS.identify(session.client, reference)
    _assign(session, identity, project, since)


@command(customer_app, "unassign")
def unassign(
    session: Session,
    project: Annotated[str, typer.Argument(help="A project's name or id.")],
    *,
    since: Annotated[
        str | None, typer.Option(help="From this time on (ISO 8601, in no closed month).")
    ] = None,
) -> None:
    """Let nobody pay for a project any more."""
    _assign(session, "", project, since)


def _assign(session: Session, customer_id: str, project: str, since: str | None) -> None:
    action: dict[str, Any] = {
        "type": "AssignProject",
        "customer_id": customer_id,
        "project_id": PROJECTS.identify(session.client, project),
    }
    if since is not None:
        action["since"] = micros(since)
    reply = session.client.submit(action)["reply"]
    if session.output is Output.TABLE:
        from_ = when(reply["since"]) or "the beginning"
        who = f"customer {customer_id} pays" if customer_id else "nobody pays"
        print(f"{who} for project {project} from {from_} on")
    else:
        session.show(reply)


@command(customer_app, "credit")
def credit(
    session: Session,
    reference: Reference,
    amount: Annotated[str, typer.Argument(help="How much, in the customer's currency.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it stands on the invoice.")],
) -> None:
    """Let a customer pay so much less, on its next invoices, before tax.

    Example: cumulog customer credit Acme 50.00 --reason "outage of 2026-11-03"
    """
    identity = CUSTOMERS.identify(session.client, reference)
    action = {"type": "GrantCredit", "customer_id": identity, "amount": amount, "reason": reason}
    session.show(session.client.submit(action)["reply"])
