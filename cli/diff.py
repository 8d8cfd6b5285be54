"""What changed between two moments."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cli.output import Column, Output, Row, cell, when
from cli.problem import USAGE, Problem
from cli.proofs import PROOF_S
from cli.session import Session, command, single
from cli.why import short, who

diff_app = single()

SIGNS = {"created": "+", "deleted": "-", "changed": "~"}
COLUMNS: list[Column] = [
    ("", "sign"),
    ("WHAT", "what"),
    ("NAME", "name"),
    ("FIELD", "field"),
    ("BEFORE", "before"),
    ("AFTER", "after"),
    ("ORDINAL", "ordinal"),
    ("AT", lambda row: when(row["at"])),
    ("BY", "tag"),
    ("WHO", "who"),
    ("REQUEST", "request"),
]
Moment = Annotated[
    str, typer.Argument(metavar="T1", help="A time (ISO 8601) or an ordinal; 0: the beginning.")
]
Later = Annotated[str | None, typer.Argument(metavar="[T2]", help="A later one; none: now.")]


@command(diff_app, "diff")
def diff(
    session: Session,
    start: Moment,
    end: Later = None,
    *,
    project: Annotated[
        str | None, typer.Option(help="Only of this project (name or id); none: all you may see.")
    ] = None,
) -> None:
    """Show what was created (+), deleted (-) and changed (~) from one moment to another.

    Each field that differs has the fact that set it last, its request, and who was behind it.

    \b
    cumulog diff 2026-11-28T12:00:00Z
    cumulog diff 1204 1377 --project acme -o json
    """  # noqa: D301  # click's mark for lines that stay as they are
    from cli.audit import identified

    session.client.timeout_s = PROOF_S
    query = {"from": start, "to": end, "project": identified("project", session.client, project)}
    told = session.client.get("/v1/diff", **query)
    changes, names = told["changes"], told["names"]
    while (marker := told.get("next_marker")) is not None:
        # The moments that were meant, so that all pages are of the same.
        query |= {"from": told["from"]["ordinal"], "to": told["to"]["ordinal"]}
        told = session.client.get("/v1/diff", **query, marker=marker)
        changes += told["changes"]
        names |= told["names"]
        if not told["changes"]:
            raise Problem("what changed is not told in full; ask again", exit_code=USAGE)
    if session.output is not Output.TABLE:
        session.show({"from": told["from"], "to": told["to"], "changes": changes})
        return
    session.say(f"from {_moment(told['from'])} to {_moment(told['to'])}: {len(changes)} changed")
    session.show_all([row for change in changes for row in _rows(change, names)], COLUMNS)


def _moment(told: Row) -> str:
    at = when(told["at"])
    return f"ordinal {told['ordinal']} ({at})" if at else "the beginning"


def _rows(change: Row, names: Row) -> Iterator[dict[str, Any]]:
    """Yield a line for each field that changed, one for what is new or gone."""
    what = {
        "sign": SIGNS[change["change"]],
        "what": f"{change['table']} {' '.join(map(str, change['key']))}",
        "name": change["name"],
    }
    if change["change"] != "changed":
        yield what | {"field": "", "before": "", "after": ""} | _by(change["by"], names)
        return
    for one in change["fields"]:
        values = {
            "field": one["field"],
            "before": short(cell(one["before"])),
            "after": short(cell(one["after"])),
        }
        yield what | values | _by(one["by"], names)


def _by(by: Row, names: Row) -> dict[str, Any]:
    request = by["cause"] or by["request_id"]
    return {
        "ordinal": by["ordinal"],
        "at": by["at"],
        "tag": by["tag"],
        "who": who(by, names),
        "request": request,
    }
