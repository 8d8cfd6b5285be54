"""Listing, showing and deleting: the same for every kind of resource that OpenStack's APIs have.

A resource is found by id or by name; a name that several have is refused with their ids.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from cli.client import Client, quoted
from cli.output import Column, Row
from cli.problem import UNREACHABLE, Problem
from cli.session import Session, command

Reference = Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="Its name or id.")]
References = Annotated[list[str], typer.Argument(metavar="NAME_OR_ID...", help="Names or ids.")]


def itself(row: Row) -> Row:
    """Return the row as it came."""
    return row


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Where a kind of resource lies in the API and how it looks in a table.

    ``key`` and ``keys`` wrap one and many in the service's JSON ("" when one comes bare).
    ``identity`` is the field that paths take. ``view`` makes a row of what came.
    """

    word: str
    path: str
    key: str
    keys: str
    columns: Sequence[Column]
    list_path: str = ""
    identity: str = "id"
    view: Callable[[Row], Row] = itself
    query: dict[str, str] = field(default_factory=dict)

    def list(self, client: Client, **query: Any) -> list[Row]:
        """Return all that the account may see, following the pages there are."""
        rows: list[Row] = []
        body = client.get(self.list_path or self.path, **self.query, **query)
        while True:
            page = body[self.keys]
            rows += [self.view(row) for row in page]
            following = _next(body, self.keys)
            if not following or not page:
                return rows
            body = client.get(_local(client, following))

    def get(self, client: Client, identity: str) -> Row:
        """Return one by its id."""
        body = client.get(f"{self.path}/{quoted(identity)}")
        return self.view(body[self.key] if self.key else body)

    def find(self, client: Client, reference: str) -> Row:
        """Return the one with this id, or else the only one with this name.

        Raises:
            Problem: there is none, or several have the name.
        """
        try:
            return self.get(client, reference)
        except Problem as problem:
            if problem.exit_code == UNREACHABLE:
                raise
            refused = problem
        named = [row for row in self.list(client) if row.get("name") == reference]
        match named:
            case [row]:
                return self.get(client, str(row[self.identity]))
            case []:
                raise Problem(
                    f"there is no {self.word} {reference!r}",
                    hint=f"`cumulog {self.word} list` shows what there is.",
                    request_id=refused.request_id,
                )
            case _:
                ids = ", ".join(str(row[self.identity]) for row in named)
                raise Problem(
                    f"{len(named)} {self.word}s are called {reference!r}: {ids}",
                    hint="Name one by its id.",
                )

    def identify(self, client: Client, reference: str) -> str:
        """Return the id of what ``find`` finds."""
        return str(self.find(client, reference)[self.identity])


def add_reads(app: typer.Typer, resource: Resource) -> None:
    """Give a group its ``list`` and ``show``."""

    @command(app, "list", reads=True, about=f"List the {resource.word}s you may see.")
    def list_(session: Session) -> None:
        session.show_all(resource.list(session.client), resource.columns)

    @command(app, "show", reads=True, about=f"Show one {resource.word}.")
    def show(session: Session, reference: Reference) -> None:
        session.show(resource.find(session.client, reference))


def add_delete(app: typer.Typer, resource: Resource) -> None:
    """Give a group its ``delete``, which takes several and is done when the API has answered."""

    @command(app, "delete", about=f"Delete {resource.word}s.")
    def delete(session: Session, references: References) -> None:
        for reference in references:
            identity = resource.identify(session.client, reference)
            session.client.delete(f"{resource.path}/{quoted(identity)}")
            session.say(f"deleted {resource.word} {reference}")


def _next(body: Any, keys: str) -> str:
    if link := body.get("next"):
        return str(link)
    links = body.get(f"{keys}_links") or body.get("links") or []
    if isinstance(links, dict):  # Keystone: {"next": null, "self": …}
        return str(links.get("next") or "")
    return next((str(link["href"]) for link in links if link.get("rel") == "next"), "")


def _local(client: Client, link: str) -> str:
    """Return a link's path: Glance's are relative to its prefix, the others' are whole."""
    if link.startswith("/v2/"):
        return f"/image{link}"
    return link.removeprefix(client.cloud.url)
