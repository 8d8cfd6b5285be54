"""Commands about budgets: what customers mean to spend in a month, and when it is told."""

from typing import Annotated

import typer

from cli.customer import CUSTOMERS
from cli.identity import PROJECTS
from cli.resource import References, Resource
from cli.session import Session, command, group

BUDGETS = Resource(
    word="budget",
    path="/v1/budgets",
    key="",
    keys="budgets",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("CUSTOMER", "customer_id"),
        ("PROJECT", "project_id"),
        ("AMOUNT", "amount"),
        ("THRESHOLDS", lambda row: ", ".join(f"{each} %" for each in row["thresholds"])),
        ("MONTH", "month"),
        ("PASSED", lambda row: f"{row['reached']} %" if row["reached"] else ""),
    ],
)

budget_app = group("What customers mean to spend in a month, and when it is told.")


@command(budget_app, "list")
def list_(session: Session) -> None:
    """List budgets, and which threshold the last month passed."""
    session.show_all(BUDGETS.list(session.client), BUDGETS.columns)


@command(budget_app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    customer: Annotated[str, typer.Option(help="Whose; a name or an id.")],
    amount: Annotated[str, typer.Option(help="How much a month, in the customer's currency.")],
    project: Annotated[str | None, typer.Option(help="Of this project alone.")] = None,
    threshold: Annotated[
        list[int] | None, typer.Option(help="Tell at so many percent (repeatable); 50, 80, 100.")
    ] = None,
) -> None:
    """Have it told, as an event, when what a month uses passes a share of an amount.

    Example: cumulog budget create month --customer Acme --amount 500 --threshold 80
    """
    action = {
        "type": "CreateBudget",
        "name": name,
        "customer_id": CUSTOMERS.identify(session.client, customer),
        "amount": amount,
    }
    if project:
        action["project_id"] = PROJECTS.identify(session.client, project)
    wish = action | ({"thresholds": threshold} if threshold else {})
    session.show(session.client.submit(wish)["reply"])


@command(budget_app, "delete")
def delete(session: Session, references: References) -> None:
    """Delete budgets, by name or id."""
    for reference in references:
        found = [
            row["id"]
            for row in BUDGETS.list(session.client)
            if reference in {row["id"], row["name"]}
        ]
        for identity in found or [reference]:
            session.client.submit({"type": "DeleteBudget", "budget_id": identity})
        session.say(f"deleted budget {reference}")
