"""Commands about alarms: what a project wants to be told of, and how often that would have been.

An alarm's definition is a file of JSON or YAML with the fields of the action ``DefineAlarm``.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.fields import micros, read_fields
from cli.output import Column, Output, Row, when
from cli.resource import References, Resource, add_reads
from cli.session import Session, command, group

DAY = 86_400_000_000  # microseconds
ALARMS = Resource(
    word="alarm",
    path="/v1/alarms",
    key="alarm",
    keys="alarms",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("STATE", lambda row: "ringing" if row["ringing"] else "quiet"),
        ("SINCE", lambda row: when(row["changed_at"] or row["updated_at"])),
        ("CONDITION", lambda row: spoken(row["condition"])),
    ],
)
RANG_COLUMNS: list[Column] = [
    ("SINCE", lambda row: when(row["since"])),
    ("UNTIL", lambda row: "still" if row["until"] is None else when(row["until"])),
]

alarm_app = group("What to be told of, and how often that would have been.")
add_reads(alarm_app, ALARMS)


@command(alarm_app, "define")
def define(
    session: Session,
    file: Annotated[Path, typer.Argument(help="JSON or YAML: the fields of DefineAlarm.")],
) -> None:
    """Define an alarm of this project, or define one anew under its name.

    It rings by facts (alarm.alarm.raised.v1 and .cleared.v1), which webhooks deliver.

    Example: cumulog alarm define broken.yaml
    """
    outcome = session.client.submit({**read_fields(file, "DefineAlarm"), "type": "DefineAlarm"})
    if session.output is Output.TABLE:
        session.say(f"defined alarm {outcome['reply']['alarm_id']}")
    else:
        session.show(outcome)


@command(alarm_app, "delete")
def delete(session: Session, references: References) -> None:
    """Ring no more."""
    for reference in references:
        identity = ALARMS.identify(session.client, reference)
        session.client.submit({"type": "DeleteAlarm", "alarm_id": identity})
        session.say(f"deleted alarm {reference}")


@command(alarm_app, "what-if")
def what_if(
    session: Session,
    alarm: Annotated[
        str, typer.Argument(metavar="ALARM|FILE", help="An alarm there is, or a definition.")
    ],
    *,
    start: Annotated[
        str | None, typer.Option(help="From this time on (ISO 8601); none: 90 days ago.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Up to this time, exclusive; none: now.")] = None,
) -> None:
    """Show how often an alarm would have rung in a time that is over.

    Example: cumulog alarm what-if broken.yaml --start 2026-07-01 --end 2026-10-01
    """
    now = micros(datetime.now(UTC).isoformat())
    asked: dict[str, Any] = {
        "start": now - 90 * DAY if start is None else micros(start),
        "end": now if end is None else micros(end),
    }
    if Path(alarm).is_file():
        asked["condition"] = read_fields(Path(alarm), "DefineAlarm").get("condition")
    else:
        asked["alarm_id"] = ALARMS.identify(session.client, alarm)
    told = session.client.post("/v1/alarms/what-if", asked)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    session.show_all(told["rang"], RANG_COLUMNS)
    hours = told["ringing_us"] / 3_600_000_000
    print(f"\n{told['times']} times, {hours:.2f} h, as of ordinal {told['as_of']}")


def spoken(condition: Row) -> str:
    """Return a condition in few words."""
    kind = condition["kind"]
    if kind in {"all", "any"}:
        word = " and " if kind == "all" else " or "
        return word.join(spoken(part) for part in condition["conditions"])
    limit = next(f"{w} {condition[w]}" for w in ("above", "below") if condition.get(w) is not None)
    match kind:
        case "held":
            return f"{condition['meter']} held {limit}"
        case "used":
            return f"{condition['meter']} used in {condition['window_s']} s {limit}"
        case "happened":
            return f"{', '.join(condition['facts'])} in {condition['window_s']} s {limit}"
        case _:
            lasting = f" for {condition['for_s']} s" if condition.get("for_s") else ""
            since, until = ", ".join(condition["since"]), ", ".join(condition["until"])
            return f"{since} without {until}{lasting}: {limit}"
