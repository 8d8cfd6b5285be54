"""Why a resource is as it is."""

from collections.abc import Iterator
from typing import Annotated

import typer

from cli.client import quoted
from cli.events import EVENT_COLUMNS
from cli.output import Output, Row
from cli.problem import Problem
from cli.session import Session, command, single

why_app = single()


@command(why_app, "why")
def why(
    session: Session,
    resource: Annotated[str, typer.Argument(help="Any resource's id; a server's name will do.")],
) -> None:
    """Show all that made a resource what it is."""
    try:
        told = session.client.get(f"/v1/why/{quoted(resource)}")
    except Problem as problem:
        if problem.status != 404:
            raise
        from cli.compute import SERVERS

        identity = SERVERS.identify(session.client, resource)
        told = session.client.get(f"/v1/why/{quoted(identity)}")
    if session.output is not Output.TABLE:
        session.show(told)
        return
    session.show_all(told["events"], EVENT_COLUMNS)
    for event in told["events"]:
        for line in _reasons(event):
            print(f"{event['ordinal']}: {line}")


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
