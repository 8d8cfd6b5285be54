"""Commands about usage and money. Amounts are decimal text all the way: nothing is rounded here."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.identity import PROJECTS
from cli.output import Column, Output, Row, when
from cli.session import Session, command, single

TIMES = {"start", "end", "at"}

usage_app = single()
bill_app = single()

Start = Annotated[
    str | None, typer.Option(help="From this time on (ISO 8601); none: this month's beginning.")
]
End = Annotated[str | None, typer.Option(help="Up to this time, exclusive; none: now.")]
OfProject = Annotated[
    str | None, typer.Option(help="Of this project (administrators); none: your own.")
]


def _asked(session: Session, start: str | None, end: str | None, project: str | None) -> Any:
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return {
        "start": start or month.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end": end,
        "project": PROJECTS.identify(session.client, project) if project else None,
    }


@command(usage_app, "usage")
def usage(
    session: Session, *, start: Start = None, end: End = None, project: OfProject = None
) -> None:
    """Show what was used: exact integrals of what was held, per resource."""
    told = session.client.get("/v1/usage", **_asked(session, start, end, project))
    _show(session, told)


@command(bill_app, "bill")
def bill(
    session: Session, *, start: Start = None, end: End = None, project: OfProject = None
) -> None:
    """Show what it costs, one line per resource and price, with the ordinals it rests on."""
    told = session.client.get("/v1/bill", **_asked(session, start, end, project))
    _show(session, told)


def _show(session: Session, told: dict[str, Any]) -> None:
    if session.output is not Output.TABLE:
        session.show(told)
        return
    lines = next((value for value in told.values() if isinstance(value, list)), [])
    if lines:
        session.show_all(lines, columns_of(lines))
    else:
        print("Nothing was used.")
    rest = {key: value for key, value in told.items() if not isinstance(value, list)}
    print()
    session.show(rest)


def columns_of(lines: list[dict[str, Any]]) -> list[Column]:
    """Return a column for each field of the lines."""
    return [(key.replace("_", " ").upper(), _readable(key)) for key in lines[0]]


def summary(told: dict[str, Any]) -> str:
    """Return a bill's total in a few words."""
    total, currency = told.get("total"), told.get("currency", "")
    lines = next((value for value in told.values() if isinstance(value, list)), [])
    return f"{total} {currency} on {len(lines)} lines".strip()


def _readable(key: str) -> Callable[[Row], Any]:
    """Return a function that reads a field of a row, times as text."""

    def read(row: Row) -> Any:
        value = row.get(key)
        return when(value) if key in TIMES and isinstance(value, int) else value

    return read
