"""`cumulog submit`: any action as an event, and what each action's fields are.

The fields are read from the schemas themselves, so what is taught here is what the engine takes.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Output, show_item, table
from cli.problem import REFUSED, USAGE, Problem
from cli.session import Session, command, single

if TYPE_CHECKING:
    import msgspec

submit_app = single()


@command(submit_app, "submit")
def submit(
    session: Session,
    action: Annotated[str | None, typer.Argument(help="An action, as CreateServer.")] = None,
    *,
    body: Annotated[
        str, typer.Option("--json", help="Its fields: JSON, @FILE, or - for standard input.")
    ] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: under one key a thing is done once.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would follow; change nothing.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the actions there are.")] = False,
    describe: Annotated[bool, typer.Option(help="Describe the action's fields.")] = False,
) -> None:
    """Submit an action as an event and print its ordinal and outcome.

    Example: cumulog submit CreateNetwork --json '{"name": "web"}'
    """
    if list_:
        session.show_all(actions(), [("ACTION", "action"), ("WHAT IT DOES", "summary")])
    elif action is None:
        raise Problem("no action", hint="`cumulog submit --list` shows them.", exit_code=USAGE)
    elif describe:
        _describe(session, action)
    else:
        _known(action)
        event = {**_fields(body), "type": action}
        outcome = session.client.submit(event, key, dry_run=dry_run)
        show_outcome(session, outcome)
        if outcome["verdict"] == "refused":  # only a dry run shows one instead of failing
            raise typer.Exit(REFUSED)


def show_outcome(session: Session, outcome: dict[str, Any]) -> None:
    """Print what became of a request: its ordinal, the verdict, and what the engine replied."""
    if session.output is not Output.TABLE:
        show_item(session.output, outcome)
        return
    verdict = outcome.get("verdict")
    verdict = verdict.get("verdict") if isinstance(verdict, dict) else verdict
    if outcome.get("dry_run"):
        _show_trial(outcome)
        return
    repeated = " (done before, under the same key)" if outcome.get("repeated") else ""
    print(f"ordinal {outcome.get('ordinal')}: {verdict}{repeated} {outcome.get('request_id')}")
    reply = outcome.get("reply") or {}
    if reply:
        print(json.dumps(reply, indent=2, ensure_ascii=False))


def _show_trial(outcome: dict[str, Any]) -> None:
    """Print what would follow from a request that was only tried."""
    if outcome["verdict"] == "refused":
        print(f"refused; nothing was changed. {outcome['code']}: {outcome['reason']}")
        if outcome["hint"]:
            print(outcome["hint"])
        return
    print("accepted; nothing was changed. What would follow:")
    for fact in outcome["facts"]:
        print(f"  {fact['type']}")
    for reason in outcome["reasons"]:
        print(f"  {reason}")
    print("\nThe project would then hold:")
    rows = [
        [name, str(use["used"]), "none" if use["limit"] < 0 else str(use["limit"])]
        for name, use in outcome["quota_after"].items()
    ]
    print(table(["WHAT", "HELD", "LIMIT"], rows))
    cost = outcome["cost_per_month"]
    if cost is None:
        print("\nNo price list is in force.")
        return
    currency, hours = cost["currency"], cost["hours"]
    print(f"\nA month ({hours} h) would cost {cost['added']} {currency} more", end="")
    print(f" and {cost['saved']} less." if float(cost["saved"]) else ".")
    if cost["lines"]:
        rows = [
            [line[field] for field in ("meter", "quantity", "unit", "unit_price", "amount")]
            for line in cost["lines"]
        ]
        print(table(["METER", "QUANTITY", "UNIT", "PRICE", f"AMOUNT {currency}"], rows))


def _fields(text: str) -> dict[str, Any]:
    source = text
    try:
        if text == "-":
            source = sys.stdin.read()
        elif text.startswith("@"):
            source = Path(text[1:]).read_text()
        fields = json.loads(source)
    except OSError as error:
        raise Problem(f"cannot read {text[1:]}: {error.strerror}", exit_code=USAGE) from error
    except ValueError as error:
        raise Problem(f"--json is not JSON: {error}", exit_code=USAGE) from error
    if not isinstance(fields, dict):
        raise Problem("--json takes an object of the action's fields", exit_code=USAGE)
    return fields


def _known(action: str) -> Any:
    import difflib

    from schemas.envelope import action_types

    types = action_types()
    if action not in types:
        near = difflib.get_close_matches(action, types)
        raise Problem(
            f"no action {action!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""),
            hint="`cumulog submit --list` shows them all.",
            exit_code=USAGE,
        )
    return types[action]


def actions() -> list[dict[str, str]]:
    """Return every action with the first sentence of what it does."""
    from schemas.envelope import action_types

    return [
        {"action": name, "summary": (kind.__doc__ or "").strip().splitlines()[0]}
        for name, kind in sorted(action_types().items())
    ]


def fields_of(kind: "type[msgspec.Struct]") -> list[dict[str, str]]:
    """Return an action's fields: name, type with its bounds, and default."""
    import msgspec
    from msgspec import structs

    def default(field: structs.FieldInfo) -> str:
        if field.required:
            return "required"
        value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        return json.dumps(msgspec.to_builtins(value))

    schema = msgspec.json.schema(kind)
    definitions = schema["$defs"]
    properties = definitions[kind.__name__]["properties"]
    return [
        {
            "field": field.encode_name,
            "type": spelled(properties[field.encode_name], definitions),
            "default": default(field),
        }
        for field in structs.fields(kind)
    ]


def spelled(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a JSON schema in few words, as ``string (1 to 255 characters)``."""
    if reference := schema.get("$ref"):
        name = str(reference).rsplit("/", 1)[-1]
        properties = definitions.get(name, {}).get("properties", {})
        return "{" + ", ".join(key for key in properties if key != "type") + "}"
    if choices := schema.get("anyOf"):
        return " or ".join(spelled(choice, definitions) for choice in choices)
    if values := schema.get("enum"):
        return " or ".join(json.dumps(value) for value in values)
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {spelled(schema.get('items', {}), definitions)}"
    return kind + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    for low, high, unit in (("minLength", "maxLength", " characters"), ("minimum", "maximum", "")):
        if high in schema:
            return f" ({schema.get(low, 0)} to {schema[high]}{unit})"
        if low in schema:
            return f" ({schema[low]} or more{unit})"
    return f" matching {schema['pattern']}" if "pattern" in schema else ""


def _describe(session: Session, action: str) -> None:
    kind = _known(action)
    fields = fields_of(kind)
    if session.output is not Output.TABLE:
        show_item(session.output, {"action": action, "about": kind.__doc__, "fields": fields})
        return
    print(f"{action}: {kind.__doc__}\n")
    rows = [[field["field"], field["type"], field["default"]] for field in fields]
    print(table(["FIELD", "TYPE", "DEFAULT"], rows))
