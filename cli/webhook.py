"""Commands about webhooks: where a project's events are sent as they happen."""

from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.output import Column, Row, when
from cli.resource import Reference, Resource, add_delete, add_reads
from cli.session import Session, command, group


def _delivery(name: str) -> Any:
    return lambda row: (row.get("delivery") or {}).get(name, "")


def _state(row: Row) -> str:
    if not row["enabled"]:
        return f"disabled: {row['cause']}" if row["cause"] else "disabled"
    delivery = row.get("delivery")
    if delivery is None:
        return "unknown"
    return f"retrying: {delivery['error']}" if delivery["failures"] else "ok"


WEBHOOKS = Resource(
    word="webhook",
    path="/v1/webhooks",
    key="webhook",
    keys="webhooks",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("URL", "url"),
        ("STATE", _state),
        ("LAST ORDINAL", _delivery("last_ordinal")),
        ("DEAD LETTERS", _delivery("dead_letters")),
    ],
)
DEAD_COLUMNS: list[Column] = [
    ("ORDINAL", "ordinal"),
    ("AT", lambda row: when(row["at"])),
    ("ATTEMPTS", "attempts"),
    ("ERROR", "error"),
]

webhook_app = group("Where events are sent as they happen.")
add_reads(webhook_app, WEBHOOKS)
add_delete(webhook_app, WEBHOOKS)


@command(webhook_app, "create")
def create(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="Where to send events, http or https.")],
    *,
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", help="Only types that begin so, as compute.server. (repeatable)."),
    ] = None,
) -> None:
    """Send this project's events to an address. The secret that signs them is shown this once.

    Example: cumulog webhook create ci https://ci.example.org/hook --type compute.server.
    """
    body = {"name": name, "url": url, "types": type_ or []}
    session.show(session.client.post(WEBHOOKS.path, body)["webhook"])


@command(webhook_app, "update")
def update(
    session: Session,
    reference: Reference,
    *,
    name: Annotated[str | None, typer.Option(help="Call it so.")] = None,
    url: Annotated[str | None, typer.Option(help="Send events there.")] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only types that begin so (repeatable).")
    ] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Go on, or send nothing.")
    ] = None,
    new_secret: Annotated[
        bool, typer.Option("--new-secret", help="Sign with another secret; it is shown.")
    ] = False,
) -> None:
    """Change a webhook. Enabled again, it goes on where it ended."""
    given = {"name": name, "url": url, "types": type_ or None, "enabled": enable}
    body = {key: value for key, value in given.items() if value is not None}
    if new_secret:
        body["secret"] = ""
    identity = WEBHOOKS.identify(session.client, reference)
    path = f"{WEBHOOKS.path}/{quoted(identity)}"
    session.show(session.client.request("PATCH", path, body).body["webhook"])


@command(webhook_app, "dead-letters")
def dead_letters(session: Session, reference: Reference) -> None:
    """List the events that a webhook's receiver did not take, the newest first."""
    identity = WEBHOOKS.identify(session.client, reference)
    found = session.client.get(f"{WEBHOOKS.path}/{quoted(identity)}/dead-letters")
    session.show_all(found["dead_letters"], DEAD_COLUMNS)


@command(webhook_app, "redeliver")
def redeliver(
    session: Session,
    reference: Reference,
    *,
    after: Annotated[
        int | None, typer.Option(min=0, help="All that follows this ordinal; none: what was dead.")
    ] = None,
) -> None:
    """Send again what was given up, or all from a position on."""
    identity = WEBHOOKS.identify(session.client, reference)
    body = {} if after is None else {"after": after}
    session.client.post(f"{WEBHOOKS.path}/{quoted(identity)}/redeliver", body)
    session.say(f"webhook {reference} is sent again what was asked for")
