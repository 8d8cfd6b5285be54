"""`cumulog audit blast-radius`: what followed from a thing, as a tree and counted."""

import enum
from typing import Annotated

import typer

from cli.client import quoted
from cli.output import Column, Output, Row, when
from cli.problem import USAGE, Problem
from cli.session import Session
from cli.tree import Node, drawn


class Kind(enum.StrEnum):
    """What may be asked about."""

    EVENT = "event"
    REQUEST = "request"
    IMAGE = "image"
    KEY = "key"
    NETWORK = "network"
    HOST = "host"
    PROJECT = "project"
    USER = "user"
    CREDENTIAL = "credential"
    TRUST = "trust"
    TOKEN = "token"  # noqa: S105  # a kind, not one


# As the API has them, where that is another word.
_KINDS = {Kind.KEY: "keypair", Kind.CREDENTIAL: "application_credential"}

COUNT_COLUMNS: list[Column] = [("WHAT", "kind"), ("HOW", "how"), ("COUNT", "count")]


def blast_radius(
    session: Session,
    kind: Annotated[Kind, typer.Argument(help="What it is.")],
    what: Annotated[
        str,
        typer.Argument(
            help="Its id; an event's ordinal, a token's audit id, a key's name; "
            "images, networks, projects and users may be named."
        ),
    ],
    *,
    user: Annotated[str | None, typer.Option(help="Whose key or token it is (name or id).")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what followed from this time on (ISO 8601).")
    ] = None,
    depth: Annotated[
        int, typer.Option(min=0, max=16, help="How deep to draw; 0: only the counts.")
    ] = 16,
) -> None:
    """Show all that followed from a thing: what was asked for with it, made of it, runs on it.

    From a user or a credential it goes to their requests, to what these made and changed, and on
    from what was made: the users, grants and credentials made on the way, and what followed from
    those; servers from an image or with a key. What was only changed is told, and not followed.

    \b
    cumulog audit blast-radius user mallory --since 2026-11-01T00:00:00Z
    cumulog audit blast-radius image ubuntu-24.04
    cumulog audit blast-radius credential 0197c2a4… -o json
    """  # noqa: D301  # click's mark for lines that stay as they are
    if kind is Kind.TOKEN and user is None:
        raise Problem("say whose token it is", hint="Add --user.", exit_code=USAGE)
    client = session.client
    identity = quoted(_identified(session, kind, what))
    told = client.get(
        f"/v1/audit/blast-radius/{_KINDS.get(kind, kind)}/{identity}",
        user_id=_identified(session, Kind.USER, user) if user is not None else None,
        since=since,
    )
    if session.output is not Output.TABLE:
        session.show(told)
        return
    if depth:
        for line in drawn(_node(told["root"], told["names"], depth)):
            print(line)
        print()
    rows = [
        {"kind": of, "how": how, "count": count}
        for of, counted in told["counts"].items()
        for how, count in counted.items()
    ]
    session.show_all(rows, COUNT_COLUMNS)
    print(
        f"\n{told['refused']} requests were refused; hosts reported {told['reports']} times. "
        f"{len(told['users'])} users, {len(told['projects'])} projects."
    )
    if told["since"]:
        print(f"From {when(told['since'])} to {when(told['until'])}.")
    if not told["complete"]:
        print("This is not all: the walk ended at its bound. Ask about a part, or since a time.")


def _identified(session: Session, kind: Kind, what: str) -> str:
    """Return the id of what may be named; as it is where nothing has that name any more."""
    from cli.identity import PROJECTS, USERS
    from cli.image import IMAGES
    from cli.network import NETWORKS

    named = {
        Kind.USER: USERS, Kind.PROJECT: PROJECTS, Kind.IMAGE: IMAGES, Kind.NETWORK: NETWORKS,
    }  # fmt: skip
    if kind not in named:
        return what
    try:
        return named[kind].identify(session.client, what)
    except Problem as problem:
        if problem.status in {403, 404} or not problem.status:
            return what
        raise


def _node(node: Row, names: Row, depth: int) -> Node:
    who = names.get(node["user_id"]) or node["user_id"]
    parts = [
        f"{node['how']}: {node['kind']} {node['id']}",
        node["what"],
        node["outcome"],
        "(gone)" if node["gone"] else "",
        f"by {who}" if who else "",
        f"at {node['ordinal']}, {when(node['at'])}" if node["ordinal"] else "",
    ]
    line = "  ".join(part for part in parts if part)
    below = node["below"]
    if depth <= 1 and below:
        return Node(line, [Node(f"… {len(below)} below")])
    return Node(line, [_node(one, names, depth - 1) for one in below])
