"""Why a resource is as it is."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.events import EVENT_COLUMNS
from cli.output import Column, Output, Row, cell, when
from cli.problem import Problem
from cli.session import Session, command, single

VALUE_MAX = 60  # characters of a value in a table

why_app = single()


FIELD_COLUMNS: list[Column] = [
    ("FIELD", "field"),
    ("VALUE", "value"),
    ("ORDINAL", "ordinal"),
    ("SET AT", lambda row: when(row["at"])),
    ("BY", "tag"),
    ("WHO", "who"),
    ("REQUEST", "request"),
]


@command(why_app, "why", reads=True)
def why(
    session: Session,
    resource: Annotated[str, typer.Argument(help="Any resource's id; a server's name will do.")],
    *,
    story: Annotated[
        bool, typer.Option("--story/--no-story", help="Also list all events about it.")
    ] = True,
) -> None:
    """Show why a resource is as it is: what set each of its fields, when, for whom; and its story.

    Where an agent's report set a field, the person and the request are those that began the work.
    """
    told = _told(session, resource)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    for row in told["explained"] or ():
        _show_row(session, row, told["names"])
    if told["explained"] is None:
        print("More is said of it than can be explained field by field.\n")
    if not story:
        return
    session.show_all(told["events"], EVENT_COLUMNS)
    for event in told["events"]:
        for line in _reasons(event):
            print(f"{event['ordinal']}: {line}")


def _told(session: Session, resource: str) -> Any:
    try:
        return session.client.get(f"/v1/why/{quoted(resource)}")
    except Problem as problem:
        if problem.status != 404:
            raise
        from cli.compute import SERVERS

        identity = SERVERS.identify(session.client, resource)
        return session.client.get(f"/v1/why/{quoted(identity)}")


def _show_row(session: Session, row: Row, names: Row) -> None:
    """Print a row's fields with what set each."""
    print(cell(f"{row['table']} {' '.join(map(str, row['key']))}"))
    if row["gone"]:
        by = row["gone_by"]
        print(cell(f"gone, by {_by(by, names)}" if by else "gone, with what it belonged to"))
    fields = []
    for field in row["fields"]:
        by = field["set_by"]
        fields.append(
            {
                **(by or {"ordinal": None, "at": None, "tag": "more than facts about it"}),
                "field": field["field"],
                "value": short(cell(field["value"])),
                "who": who(by, names) if by else "",
                "request": (by["cause"] or by["request_id"]) if by else "",
            }
        )
    session.show_all(fields, FIELD_COLUMNS)
    print()


def who(by: Row, names: Row) -> str:
    """Return the name of whoever wanted what a fact says, or else their id."""
    return str(names.get(by["user_id"]) or by["user_id"])


def _by(by: Row, names: Row) -> str:
    said = f"{by['tag']} at {by['ordinal']}, {when(by['at'])}, {by['cause'] or by['request_id']}"
    return f"{said} of {who(by, names)}" if by["user_id"] else said


def short(text: str) -> str:
    """Return a value as a table has room for it."""
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 1]}…"


def _reasons(event: Row) -> Iterator[str]:
    """Yield what an event says of its own reasons: refusals, failures, placement."""
    body = event["body"]
    said = body.get("verdict", {}) if event["kind"] == "request" else body
    if reason := said.get("reason") or said.get("message") or said.get("cause"):
        yield str(reason)
    for host in said.get("removed", ()):
        yield f"host {host['host_id']} was left out by {host['filter']}: {host['reason']}"
    for host in said.get("weighed", ()):
        yield f"host {host['host_id']} was weighed {host['score'] / 1000:.3f}"
