"""Commands about price lists: what is charged for what, from when on.

A price list is published from a file of JSON or YAML with the fields of the action
``PublishPriceList``.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.fields import micros, read_fields
from cli.output import Column, Output, Row, when
from cli.session import Session, command, group

PUBLISH = "PublishPriceList"
WITHDRAW = "WithdrawPriceList"

price_list_app = group("What is charged for what, from when on.")

_MONTHLY = {"included": "free up to", "minimum": "at least", "maximum": "at most"}


def _match(dimension: str, match: dict[str, list[str]]) -> str:
    if "any_of" in match:
        return f"{dimension} {' or '.join(match['any_of'])}"
    return f"{dimension} other than {', '.join(match.get('all_except', []))}"


def _price(rule: Row) -> str:
    tiers: list[dict[str, Any]] = rule.get("tiers", [])
    if not tiers:
        return str(rule.get("price", ""))
    return ", ".join(
        f"{tier['price']} up to {tier['up_to']}" if tier.get("up_to") else f"{tier['price']} beyond"
        for tier in tiers
    )


def _unit(rule: Row) -> str:
    per = rule.get("per", 1)
    return str(rule["unit"]) if per == 1 else f"{per} {rule['unit']}"


def _monthly(rule: Row) -> str:
    said = [(word, rule.get(field)) for field, word in _MONTHLY.items()]
    return ", ".join(f"{word} {amount}" for word, amount in said if amount is not None)


COLUMNS: list[Column] = [
    ("NAME", "name"),
    ("VERSION", "version"),
    ("CURRENCY", "currency"),
    ("VALID FROM", lambda row: when(row["valid_from"])),
    ("RULES", lambda row: len(row["rules"])),
    ("FREE", lambda row: ", ".join(row.get("free", []))),
]
RULE_COLUMNS: list[Column] = [
    ("SKU", "sku"),
    ("METER", "meter"),
    ("OF", lambda rule: "; ".join(_match(*pair) for pair in rule.get("match", {}).items())),
    ("MODEL", lambda rule: rule.get("model", "unit")),
    ("PRICE", _price),
    ("UNIT", _unit),
    ("A MONTH", _monthly),
]


_DECIMALS = frozenset({"price", "included", "minimum", "maximum", "up_to"})


def read_price_list(file: Path) -> dict[str, Any]:
    """Return the action that publishes what a file says; amounts may be whole numbers there.

    Raises:
        Problem: the file cannot be read, or its ``valid_from`` is no time.
    """
    action = {**read_fields(file, PUBLISH), "type": PUBLISH}
    if isinstance(start := action.get("valid_from"), str):
        action["valid_from"] = micros(start)
    told: dict[str, Any] = _amounts_as_text(action)
    return told


def _amounts_as_text(said: Any) -> Any:
    """Return what a file says, with whole numbers as text where the action has decimals."""
    if isinstance(said, list):
        return [_amounts_as_text(each) for each in said]
    if isinstance(said, dict):
        return {
            name: str(value)
            if name in _DECIMALS and type(value) is int
            else _amounts_as_text(value)
            for name, value in said.items()
        }
    return said


@command(price_list_app, "list", reads=True)
def list_(session: Session) -> None:
    """List all versions of the price lists that you may see."""
    session.show_all(session.client.get("/v1/price-lists")["price_lists"], COLUMNS)


@command(price_list_app, "show", reads=True)
def show(
    session: Session,
    name: Annotated[str, typer.Argument(help="A price list.", metavar="NAME")] = "standard",
    *,
    version: Annotated[
        int | None, typer.Option(min=1, help="This version; none: the newest.")
    ] = None,
) -> None:
    """Show the rules of a price list.

    Example: cumulog price-list show standard --version 1
    """
    found = session.client.get(f"/v1/price-lists/{quoted(name)}", version=version)["price_list"]
    if session.output is not Output.TABLE:
        session.show(found)
        return
    print(
        f"{found['name']}, version {found['version']}, in {found['currency']}, "
        f"from {when(found['valid_from'])} on:\n"
    )
    session.show_all(found["rules"], RULE_COLUMNS)
    if found.get("free"):
        print(f"\nFree: {', '.join(found['free'])}")


@command(price_list_app, "publish")
def publish(
    session: Session,
    file: Annotated[Path, typer.Argument(help="JSON or YAML: the fields of PublishPriceList.")],
    *,
    name: Annotated[str | None, typer.Option(help="Of this list; none: as the file says.")] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(help="From this time on (ISO 8601); none: as the file says, or from now on."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Check it; publish nothing.")] = False,
) -> None:
    """Publish the next version of a price list.

    What is used from then on is charged by it, and what was used before is not touched. Usage that
    no rule would match, or two, is named, and nothing is published.

    Example: cumulog price-list publish 2027.yaml --valid-from 2027-01-01T00:00:00Z
    """
    action = read_price_list(file)
    if valid_from is not None:
        action["valid_from"] = micros(valid_from)
    if name is not None:
        action["name"] = name
    outcome = session.client.submit(action, dry_run=dry_run)
    reply = outcome.get("reply", {})
    done = f"published {reply.get('name')}, version {reply.get('version')}"
    _tell(session, outcome, dry_run=dry_run, done=done, would="it would be published")


@command(price_list_app, "withdraw")
def withdraw(
    session: Session,
    name: Annotated[str, typer.Argument(help="A price list.", metavar="NAME")],
    version: Annotated[int, typer.Argument(help="Which version.", min=1, metavar="VERSION")],
    *,
    dry_run: Annotated[bool, typer.Option(help="Check it; withdraw nothing.")] = False,
) -> None:
    """Take back a version of a price list that is not in force yet.

    The one before it goes on, and another may be published in its place. Once it is in force
    usage is charged by it: publish the next version then.

    Example: cumulog price-list withdraw standard 3
    """
    action = {"type": WITHDRAW, "name": name, "version": version}
    outcome = session.client.submit(action, dry_run=dry_run)
    done = f"withdrew {name}, version {version}"
    _tell(session, outcome, dry_run=dry_run, done=done, would="it would be withdrawn")


def _tell(
    session: Session, outcome: dict[str, Any], *, dry_run: bool, done: str, would: str
) -> None:
    """Say what became of an action, or would; end with 1 if it was or would be refused."""
    if session.output is not Output.TABLE:
        session.show(outcome)
    elif not dry_run:
        session.say(done)
    elif outcome["verdict"] == "accepted":
        session.say(would)
    else:
        session.say(f"refused: {outcome['reason']}")
    if outcome["verdict"] == "refused":
        raise typer.Exit(1)
