"""What other rules would have decided about requests that were made."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import Column, Output, Row, when
from cli.problem import USAGE, Problem
from cli.proofs import PROOF_S
from cli.session import Session, command, single
from cli.why import short

what_if_app = single()


class Order(enum.StrEnum):
    """In which order hosts are tried."""

    SPREAD = "spread"
    PACK = "pack"


COLUMNS: list[Column] = [
    ("ORDINAL", "ordinal"),
    ("AT", lambda row: when(row["at"])),
    ("WHAT", "what"),
    ("ACTION", "action"),
    ("WHO", "who"),
    ("WAS", "was"),
    ("WOULD BE", "would"),
    ("REQUEST", "request_id"),
]


@command(what_if_app, "what-if")
def what_if(
    session: Session,
    *,
    quota: Annotated[
        list[str] | None, typer.Option(metavar="NAME=LIMIT", help="A limit, -1: none; repeatable.")
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Whose limits these are; none: of all that have none of their own."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A file of rules, all that is set over the defaults.")
    ] = None,
    hosts: Annotated[
        Order | None, typer.Option(help="Which host is tried first: the emptiest, or the fullest.")
    ] = None,
    start: Annotated[
        str, typer.Option("--from", metavar="TIME|ORDINAL", help="From then on; none: always.")
    ] = "",
    end: Annotated[
        str, typer.Option("--to", metavar="TIME|ORDINAL", help="Up to then; none: until now.")
    ] = "",
) -> None:
    """Decide recorded requests anew under other rules, and list what would have been otherwise.

    Nothing is written. What was refused then and would be allowed is held to the end: nobody has
    ever worked on it. What would have followed from a refusal is told as that.

    \b
    cumulog what-if --quota instances=5 --quota cores=8 --from 2026-11-01
    cumulog what-if --policy policy.toml
    cumulog what-if --hosts pack
    """  # noqa: D301  # click's mark for lines that stay as they are
    from cli.identity import PROJECTS
    from cli.policy import read_rules

    client = session.client
    client.timeout_s = PROOF_S
    asked: dict[str, Any] = {"quota": _limits(quota or []), "from": start, "to": end}
    if project:
        asked["project"] = PROJECTS.identify(client, project)
    if policy is not None:
        asked["rules"] = read_rules(policy)
    if hosts is not None:
        asked["hosts"] = hosts.value
    told = client.post("/v1/what-if", asked)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    print(f"Of {told['requests']} requests up to ordinal {told['ordinal']}:")
    for name, said in (
        ("refused", "would have been refused"),
        ("allowed", "would have been allowed"),
        ("elsewhere", "would have put servers on other hosts"),
        ("followed", "would have failed for what these would have left undone"),
        ("unknown", "were refused by an edge, and are not judged"),
    ):
        print(f"{told[name]:>8} {said}")
    if told["differences"]:
        print()
        session.show_all([_row(one, told["names"]) for one in told["differences"]], COLUMNS)


def _limits(given: list[str]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for text in given:
        name, _, limit = text.partition("=")
        try:
            limits[name] = int(limit)
        except ValueError:
            raise Problem(f"--quota takes NAME=LIMIT, not {text!r}", exit_code=USAGE) from None
    return limits


def _row(one: Row, names: Row) -> Row:
    return {
        **one,
        "who": names.get(one["user_id"]) or one["user_id"],
        "was": short(_side(one["was"])),
        "would": short(_side(one["would"])),
    }


def _side(side: Row) -> str:
    if side["verdict"] == "refused":
        return f"{side['code']}: {side['reason']}"
    return " ".join(("accepted", *side["hosts"])) if side["hosts"] else side["reason"] or "accepted"
