"""Commands about meters: what is measured, and from which facts.

A meter's definition is a file of JSON or YAML with the fields of the action ``DefineMeter``.
"""

from pathlib import Path
from typing import Annotated

import typer

from cli.client import quoted
from cli.fields import read_fields
from cli.output import Column, Output, Row, when
from cli.session import Session, command, group

meter_app = group("What is measured, and from which facts.")

Key = Annotated[str, typer.Argument(metavar="METER", help="Its key, as compute.vcpu.")]
COLUMNS: list[Column] = [
    ("METER", "key"),
    ("VERSION", "version"),
    ("OF", "resource_kind"),
    ("AGGREGATION", "aggregation"),
    ("UNIT", "unit"),
    ("DIMENSIONS", lambda row: ", ".join(row["dimensions"])),
    ("WHAT", lambda row: "deleted" if row["deleted"] else row.get("description", "")),
]
RULE_COLUMNS: list[Column] = [
    ("FACT", "fact"),
    ("EFFECT", "effect"),
    ("WHEN", lambda row: " and ".join(f"{c['path']}={c['equals']}" for c in row.get("when", []))),
    ("RESOURCE", "resource"),
    ("PROJECT", lambda row: row.get("project", "")),
    ("VALUE", lambda row: " or ".join(_source(each) for each in row.get("value", []))),
    ("AT", lambda row: row.get("at") or "commit"),
]


@command(meter_app, "list", reads=True)
def list_(session: Session) -> None:
    """List what is measured."""
    session.show_all(session.client.get("/v1/meters")["meters"], COLUMNS)


@command(meter_app, "show", reads=True)
def show(session: Session, key: Key) -> None:
    """Show a meter: its unit, its rules, and from when to when each version measures."""
    meter = session.client.get(f"/v1/meters/{quoted(key)}")["meter"]
    if session.output is not Output.TABLE:
        session.show(meter)
        return
    print(f"{meter['key']}: {meter.get('description', '')}".rstrip(": "))
    print(f"{meter['aggregation']} of each {meter['resource_kind']}, in {meter['unit']}", end="")
    print(f" of {meter['base_per_unit']} {meter['base_unit'] or 'times'}\n")
    for version in meter["versions"]:
        print(f"Version {version['version']}{_validity(version)}:\n")
        session.show_all(version["rules"], RULE_COLUMNS)


@command(meter_app, "define")
def define(
    session: Session,
    file: Annotated[Path, typer.Argument(help="JSON or YAML: the fields of DefineMeter.")],
    *,
    dry_run: Annotated[bool, typer.Option(help="Check it; define nothing.")] = False,
) -> None:
    """Define a meter, or the next version of one. A new one measures all of history at once.

    Example: cumulog meter define restarts.yaml
    """
    action = {**read_fields(file, "DefineMeter"), "type": "DefineMeter"}
    outcome = session.client.submit(action, dry_run=dry_run)
    if session.output is not Output.TABLE:
        session.show(outcome)
    elif dry_run:
        accepted = outcome["verdict"] == "accepted"
        session.say("it would be defined" if accepted else f"refused: {outcome['reason']}")
    else:
        reply = outcome["reply"]
        session.say(f"defined {reply['key']}, version {reply['version']}")
    if outcome["verdict"] == "refused":
        raise typer.Exit(1)


@command(meter_app, "delete")
def delete(session: Session, key: Key) -> None:
    """Measure by a meter no longer; what it has measured stays."""
    session.client.submit({"type": "DeleteMeter", "key": key})
    session.say(f"deleted meter {key}")


def _validity(version: Row) -> str:
    start = f", from {when(version['valid_from'])}" if version.get("valid_from") else ""
    until = version.get("valid_until")
    return start if until is None else f"{start}, up to {when(until)}"


def _source(source: Row) -> str:
    if "constant" in source:
        found = str(source["constant"])
    else:
        found = source.get("path") or f"noted of {source['noted_of']}"
    return f"{found} / {source['divisor']}" if source.get("divisor", 1) != 1 else found
