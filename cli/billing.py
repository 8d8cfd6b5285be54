"""Commands about usage and money. Amounts are decimal text all the way: nothing is rounded here."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.chart import Bars, Chart, Plot, show
from cli.client import quoted
from cli.customer import CUSTOMERS
from cli.identity import PROJECTS
from cli.output import Column, Output, Row, when
from cli.price_list import read_price_list
from cli.session import Session, command, shown_by_default, single

usage_app = single()
bill_app = shown_by_default("What it costs, has cost, and would cost.")

Start = Annotated[
    str | None, typer.Option(help="From this time on (ISO 8601); none: this month's beginning.")
]
End = Annotated[str | None, typer.Option(help="Up to this time, exclusive; none: now.")]
OfProject = Annotated[
    str | None, typer.Option(help="Of this project (administrators); none: your own.")
]


def window(session: Session, start: str | None, end: str | None, project: str | None) -> Any:
    """Return the parameters of a window and a project; none said: this month, one's own."""
    month = session.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return {
        "start": start or month.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end": end,
        "project": PROJECTS.identify(session.client, project) if project else None,
    }


@command(usage_app, "usage", reads=True)
def usage(
    session: Session,
    *,
    start: Start = None,
    end: End = None,
    project: OfProject = None,
    meter: Annotated[
        str | None, typer.Option(help="Of this meter; `cumulog meter list` has them.")
    ] = None,
    plot: Plot = False,
    chart: Chart = None,
) -> None:
    """Show what was used: exact integrals of what was held, per resource.

    Charts have one picture for each meter, since each has a unit of its own.
    """
    asked = window(session, start, end, project)
    told = session.client.get("/v1/usage", **asked, meter=meter)
    if session.output is Output.TABLE:
        _show_usage(session, told)
    else:
        session.show(told)
    show(_usage_charts(told), plot=plot and session.output is Output.TABLE, file=chart)


def _usage_charts(told: Row) -> list[Bars]:
    charts: dict[str, Bars] = {}
    for row in told["usage"]:
        made = charts.setdefault(row["meter"], Bars(row["meter"], row["unit"]))
        made.add(row["resource_id"], "", Decimal(row["quantity"]))
    return list(charts.values())


@command(bill_app, "show", reads=True)
def bill(
    session: Session,
    *,
    start: Start = None,
    end: End = None,
    project: OfProject = None,
    plot: Plot = False,
    chart: Chart = None,
) -> None:
    """Show what it costs, one line per resource and price, with the ordinals it rests on."""
    told = session.client.get("/v1/bill", **window(session, start, end, project))
    if session.output is Output.TABLE:
        _show_bills(session, told)
    else:
        session.show(told)
    show(_bill_charts(told), plot=plot and session.output is Output.TABLE, file=chart)


def _bill_charts(told: Row) -> list[Bars]:
    """Return a picture for each bill: a bar for each resource, of its meters."""
    charts: list[Bars] = []
    for bill in told["bills"]:
        made = Bars(f"Project {bill['project_id']}", bill["currency"])
        for line in bill["lines"]:
            for quantity in line["quantities"]:
                made.add(line["resource_id"], quantity["meter"], Decimal(quantity["amount"]))
        charts.append(made)
    return charts


Month = Annotated[str | None, typer.Option(help="A month, as 2026-10; none: this one.")]
WHAT_IF_COLUMNS: list[Column] = [
    ("CUSTOMER", "name"),
    ("NOW", "before"),
    ("THEN", "after"),
    ("DIFFERENCE", "difference"),
    ("%", "percent"),
]
FORECAST_COLUMNS: list[Column] = [
    ("CUSTOMER", "name"),
    ("SO FAR", "so_far"),
    ("FORECAST", "forecast"),
    ("CURRENCY", "currency"),
]


def _month(session: Session, month: str | None) -> str:
    return quoted(month or session.now.strftime("%Y-%m"))


def _named(session: Session, rows: list[Row]) -> list[Row]:
    names = {row["id"]: row["name"] for row in CUSTOMERS.list(session.client)}
    return [{**row, "name": names.get(row["customer_id"], row["customer_id"])} for row in rows]


@command(bill_app, "what-if")
def what_if(
    session: Session,
    *,
    prices: Annotated[Path, typer.Option(help="A price list, JSON or YAML, as for publishing.")],
    month: Month = None,
) -> None:
    """Show what a month would cost each customer under other prices. Nothing is published.

    The prices hold for the whole month, or from their valid_from on.

    Example: cumulog bill what-if --prices draft.yaml --month 2026-10
    """
    session.client.timeout_s = 130.0
    path = f"/v1/billing/months/{_month(session, month)}/what-if"
    draft = {name: said for name, said in read_price_list(prices).items() if name != "type"}
    told = session.client.post(path, draft)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    session.show_all(_named(session, told["customers"]), WHAT_IF_COLUMNS)
    print(
        f"\n{told['before']} now, {told['after']} then: {told['winners']} would pay less, "
        f"{told['losers']} more"
    )
    for customer_id in told["left_out"]:
        print(f"left out, for another currency: customer {customer_id}")


@command(bill_app, "forecast", reads=True)
def forecast(session: Session, *, month: Month = None) -> None:
    """Show what a month will cost each customer if all that is held now stays."""
    session.client.timeout_s = 130.0
    told = session.client.get(f"/v1/billing/months/{_month(session, month)}/forecast")
    if session.output is Output.TABLE:
        session.show_all(_named(session, told["customers"]), FORECAST_COLUMNS)
    else:
        session.show(told)


def _ordinals(row: Row) -> str:
    first, last = row["first_ordinal"], row["last_ordinal"]
    return str(first) if first == last else f"{first}…{last}"


def _quantities(row: Row) -> str:
    return ", ".join(
        f"{quantity['quantity']} {quantity['unit']} {quantity['meter'].rpartition('.')[2]}"
        for quantity in row["quantities"]
    )


USAGE_COLUMNS: list[Column] = [
    ("RESOURCE", lambda row: f"{row['resource_kind']} {row['resource_id']}"),
    ("METER", "meter"),
    ("DIMENSIONS", lambda row: ", ".join(f"{k}={v}" for k, v in row["dimensions"].items())),
    ("HELD", "value"),
    ("FROM", lambda row: when(row["start"])),
    ("TO", lambda row: when(row["end"])),
    ("QUANTITY", "quantity"),
    ("UNIT", "unit"),
    ("ORDINALS", _ordinals),
]
LINE_COLUMNS: list[Column] = [
    ("RESOURCE", lambda row: f"{row['resource_kind']} {row['resource_id']}"),
    ("QUANTITIES", _quantities),
    ("ORDINALS", _ordinals),
    ("AMOUNT", "amount"),
]


def _show_usage(session: Session, told: dict[str, Any]) -> None:
    session.show_all(told["usage"], USAGE_COLUMNS)
    print(f"\nFrom {when(told['start'])} to {when(told['end'])}, as of ordinal {told['as_of']}:")
    for total in told["totals"]:
        print(f"  {total['meter']}: {total['quantity']} {total['unit']}")


def _show_bills(session: Session, told: dict[str, Any]) -> None:
    if not told["bills"]:
        print("Nothing was charged.")
    for bill in told["bills"]:
        print(
            f"Project {bill['project_id']}, {when(bill['start'])} to {when(bill['end'])}, "
            f"price list {bill['price_list']}, in {bill['currency']}:\n"
        )
        session.show_all(bill["lines"], LINE_COLUMNS)
        for usage in bill["unrated"]:
            print(f"not charged, no price list was in force: {usage['meter']} {_ordinals(usage)}")
        print(f"\nSum {bill['subtotal']}, rounding {bill['adjustment']['amount']}")
        print(f"Total {bill['total']} {bill['currency']}\n")


def summary(told: dict[str, Any]) -> str:
    """Return bills in a few words: each its exact sum and how many lines it has."""
    return (
        "; ".join(
            f"{bill['subtotal']} {bill['currency']} for {_quantities(line)}"
            for bill in told["bills"]
            for line in bill["lines"][:1]
        )
        or "nothing yet"
    )
