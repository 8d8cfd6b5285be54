"""Reports: what costs, who spends most, what is idle, what belongs to nobody any more."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.billing import End, OfProject, Start, window
from cli.chart import Bars, Chart, Plot, show
from cli.output import Column, Output, Row, cell, when
from cli.session import Session, command, group

report_app = group("What costs, who spends most, what is idle, what belongs to nobody.")


@command(report_app, "cost", reads=True)
def cost(
    session: Session,
    *,
    by: Annotated[
        str,
        typer.Option(help="Group by project, day, meter, kind, resource, user; with commas."),
    ] = "day,meter",
    top: Annotated[
        int | None, typer.Option(min=1, help="Only so many groups, the dearest.")
    ] = None,
    start: Start = None,
    end: End = None,
    project: OfProject = None,
    plot: Plot = False,
    chart: Chart = None,
) -> None:
    """Show what things cost by what you like; a chart has a bar for the first, parts by the second.

    Amounts are those of `cumulog bill`: a charge that spans days is parted by time, and all parts
    add up to the bill. Days are UTC's; a user is who made the resource.

    \b
    cumulog report cost --by day,meter --plot
    cumulog report cost --by project,meter --chart november.svg --start 2026-11-01T00:00:00Z
    """  # noqa: D301  # click's mark for lines that stay as they are
    told = session.client.get(
        "/v1/reports/cost", by=by, top=top, **window(session, start, end, project)
    )
    _show_costs(session, told, plot=plot, chart=chart)


@command(report_app, "top-spenders", reads=True)
def top_spenders(
    session: Session,
    *,
    of: Annotated[
        str, typer.Option(help="Who or what: project, user, resource, kind or meter.")
    ] = "project",
    top: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    start: Start = None,
    end: End = None,
    project: OfProject = None,
    plot: Plot = False,
    chart: Chart = None,
) -> None:
    """Show who or what costs most, with the share of all.

    Example: cumulog report top-spenders --of user --top 5 --plot
    """
    told = session.client.get(
        "/v1/reports/cost", by=of, top=top, **window(session, start, end, project)
    )
    _show_costs(session, told, plot=plot, chart=chart)


def _show_costs(session: Session, told: dict[str, Any], *, plot: bool, chart: Path | None) -> None:
    by, names = told["by"], told["names"]
    if session.output is not Output.TABLE:
        session.show(told)
    else:
        columns: list[Column] = [
            *((name.upper(), _of_group(name, names)) for name in by),
            ("AMOUNT", "amount"),
            ("CURRENCY", "currency"),
            ("SHARE %", "share"),
        ]
        session.show_all(told["costs"], columns)
        for currency, total in told["totals"].items():
            print(f"\nTotal {total} {currency}, {_window(told)}")
    charts = {
        currency: Bars(f"Cost by {', '.join(by)}, {_window(told)}", currency)
        for currency in told["totals"]
    }
    for row in told["costs"]:
        shown = [_named(row["group"][name], names) for name in by]
        part = " ".join(shown[1:])
        charts[row["currency"]].add(shown[0], part, Decimal(row["amount"]))
    show(list(charts.values()), plot=plot and session.output is Output.TABLE, file=chart)


def _of_group(name: str, names: Row) -> Any:
    return lambda row: _named(row["group"][name], names)


def _named(identity: str, names: Row) -> str:
    return str(names.get(identity) or identity or "(nobody known)")


def _window(told: Row) -> str:
    return f"{when(told['start'])[:10]} to {when(told['end'])[:10]}"


def _cost(row: Row) -> str:
    return ", ".join(f"{amount} {currency}" for currency, amount in row["cost"].items())


def _holds(row: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in row["holds"].items() if value)


IDLE_COLUMNS: list[Column] = [
    ("KIND", "kind"),
    ("ID", "id"),
    ("NAME", "name"),
    ("PROJECT", "project_id"),
    ("WHY", "why"),
    ("SINCE", lambda row: when(row["since"])),
    ("HOLDS", _holds),
    ("COST SINCE", _cost),
    ("WHO", "who"),
    ("ORDINAL", "ordinal"),
]


@command(report_app, "idle", reads=True)
def idle(
    session: Session,
    *,
    days: Annotated[
        int, typer.Option(min=0, max=3650, help="Only what has been so for as many days.")
    ] = 7,
    start: Start = None,
    end: End = None,
    project: OfProject = None,
) -> None:
    """List what costs and does nothing: stopped and failed servers, unused images, loose ports.

    What the log knows is told, with the fact that made it so. A server that runs is never called
    idle; `cumulog usage --meter compute.cpu_time` shows how little it does. The cost is that since
    then, within the window.
    """
    told = session.client.get("/v1/reports/idle", days=days, **window(session, start, end, project))
    if session.output is not Output.TABLE:
        session.show(told)
        return
    rows = [{**row, "who": _who(row["user_id"], told)} for row in told["idle"]]
    session.show_all(rows, IDLE_COLUMNS)
    if not rows:
        print(f"Nothing has been idle for {days} days.")


def _who(user_id: str, told: Row) -> str:
    return str(told["names"].get(user_id) or user_id)


def _left_by(row: Row) -> str:
    by = row["left_by"]
    return "" if by is None else f"{by['ordinal']} {by['tag']} {by['request_id']}"


ORPHAN_COLUMNS: list[Column] = [
    ("KIND", "kind"),
    ("ID", "id"),
    ("NAME", "name"),
    ("BELONGED TO", lambda row: f"{row['parent_kind']} {row['parent_id']}"),
    ("GONE SINCE", lambda row: when(row["left_by"]["at"]) if row["left_by"] else ""),
    ("BY EVENT", _left_by),
    ("WHO", "who"),
    ("COST", _cost),
]


@command(report_app, "orphans", reads=True)
def orphans(
    session: Session, *, start: Start = None, end: End = None, project: OfProject = None
) -> None:
    """List things whose project, network or host is gone, with the event that left them behind.

    Deleting a project leaves what it owned; that is still there, and still costs.
    """
    told = session.client.get("/v1/reports/orphans", **window(session, start, end, project))
    if session.output is not Output.TABLE:
        session.show(told)
        return
    rows = [
        {**row, "who": cell(_who(row["left_by"]["user_id"], told)) if row["left_by"] else ""}
        for row in told["orphans"]
    ]
    session.show_all(rows, ORPHAN_COLUMNS)
    if not rows:
        print("Everything belongs to something.")
