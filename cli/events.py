"""Commands about events: the feed as it happens, and what tables say of an event."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from cli.client import with_query
from cli.output import Column, Output, Row, show_item, when
from cli.problem import UNREACHABLE, Problem
from cli.session import Session, command, group

RECONNECT_S = 1.0

events_app = group("The log's requests and facts, as they happen.")


def about(event: Row) -> str:
    """Return what an event is about: a kind and an id."""
    return " ".join(part for part in (event["resource_kind"], event["resource_id"]) if part)


def outcome_of(event: Row) -> str:
    """Return what came of a request, with the code of a refusal; "" for a fact."""
    return " ".join(part for part in (event["outcome"], event["code"]) if part)


EVENT_COLUMNS: list[Column] = [
    ("ORDINAL", "ordinal"),
    ("AT", lambda event: when(event["at"])),
    ("WHAT", "tag"),
    ("ABOUT", about),
    ("OUTCOME", outcome_of),
    ("REQUEST", "request_id"),
]


@command(events_app, "tail", reads=True)
def tail(
    session: Session,
    *,
    after: Annotated[int | None, typer.Option(min=0, help="Begin after this ordinal.")] = None,
    lines: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    resource: Annotated[str | None, typer.Option(help="Only what is about this id.")] = None,
) -> None:
    """Print the newest events; with --follow, go on for as long as you listen.

    Example: cumulog events tail --follow -o json
    """
    client = session.client
    if after is None:
        head = client.get("/v1/events", limit=1)["ordinal"]
        after = max(0, head - lines)
    if follow:
        for event in _feed(session, after, resource):
            _print_event(session.output, event)
        return
    found = client.get("/v1/events", after=after, limit=lines, resource_id=resource)["events"]
    session.show_all(found, EVENT_COLUMNS)


def _feed(session: Session, after: int, resource: str | None) -> Iterator[Row]:
    """Yield events for ever; a connection that is lost is taken up where it broke."""
    seen = False
    while True:
        path = with_query("/v1/events", {"after": after, "follow": 1, "resource_id": resource})
        try:
            for data in session.client.events(path):
                event = json.loads(data)
                if not isinstance(event, dict):  # the token has ended; the next one is asked for
                    session.client.forget_token()
                    break
                seen = True
                after = event["ordinal"]
                yield event
        except Problem as problem:
            if problem.exit_code != UNREACHABLE or not seen:
                raise
        session.client.close()
        time.sleep(RECONNECT_S)


def _print_event(output: Output, event: Row) -> None:
    match output:
        case Output.JSON:
            print(json.dumps(event, ensure_ascii=False))
        case Output.YAML:
            print("---")
            show_item(output, event)
        case Output.TABLE:
            outcome = outcome_of(event)
            print(
                f"{event['ordinal']:>8}  {when(event['at'])}  {event['tag']}  {about(event)}"
                + (f"  {outcome}" if outcome else "")
            )
    sys.stdout.flush()
