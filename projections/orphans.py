"""Things whose project, or what they lie in, is gone, with the event that left them behind.

Deleting a project leaves what it owned, under an id that names no project any more. Nobody but an
operator reaches that, and it goes on being metered.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from projections.compute import SERVERS
from projections.explanation import SetBy
from projections.image import IMAGES
from projections.network import NETWORKS, PORTS, SECURITY_GROUPS, SUBNETS
from projections.store import Table
from projections.webhook import WEBHOOKS

ROWS_MAX = 10_000


class Orphan(Struct, frozen=True, kw_only=True):
    """A thing that is left, what it belonged to, and the fact that removed that.

    ``left_by`` is None if no such fact is told of in the log.
    """

    kind: str
    id: str
    name: str
    project_id: str
    parent_kind: str
    parent_id: str
    left_by: SetBy | None


class _Link(Struct, frozen=True):
    """How a kind of thing names what it belongs to, and where that is looked for."""

    table: Table[Any]
    kind: str
    parent_kind: str
    parent: str  # the field with the parent's id
    parents: str  # the parents' table
    also: str = ""  # a further condition


_LINKS = (
    *(
        _Link(table, kind, "project", "project_id", "projects", also)
        for table, kind, also in (
            (SERVERS, "server", " AND deleted = 0"),
            (IMAGES, "image", ""),
            (NETWORKS, "network", ""),
            (SUBNETS, "subnet", ""),
            (PORTS, "port", ""),
            (SECURITY_GROUPS, "security_group", ""),
            (WEBHOOKS, "webhook", ""),
        )
    ),
    _Link(SUBNETS, "subnet", "network", "network_id", "networks"),
    _Link(PORTS, "port", "network", "network_id", "networks"),
    _Link(SERVERS, "server", "host", "host_id", "hosts", " AND deleted = 0"),
)


def orphans(db: sqlite3.Connection, project_id: str | None) -> list[Orphan]:
    """Return what belongs to nothing that is there: of a project or of all; at most so many."""
    left: dict[tuple[str, str], SetBy | None] = {}
    found: list[Orphan] = []
    for link in _LINKS:
        for row in _rows(db, link, project_id):
            parent_id = getattr(row, link.parent)
            parent = (link.parent_kind, parent_id)
            if parent not in left:
                left[parent] = _removed_by(db, *parent)
            found.append(
                Orphan(
                    kind=link.kind,
                    id=getattr(row, f"{link.kind}_id"),
                    name=row.name,
                    project_id=row.project_id,
                    parent_kind=link.parent_kind,
                    parent_id=parent_id,
                    left_by=left[parent],
                )
            )
            if len(found) >= ROWS_MAX:
                return found
    return found


def _rows(db: sqlite3.Connection, link: _Link, project_id: str | None) -> Iterator[Any]:
    mine = "" if project_id is None else " AND project_id = ?"
    sql = (
        f"SELECT body FROM {link.table.name} WHERE {link.parent} <> '' AND {link.parent} "  # noqa: S608  # our own names
        f"NOT IN (SELECT id FROM {link.parents}){link.also}{mine} ORDER BY id LIMIT {ROWS_MAX}"
    )
    for (body,) in db.execute(sql, () if project_id is None else (project_id,)):
        row = link.table.decode(body)
        yield getattr(row, "server", row)


def _removed_by(db: sqlite3.Connection, kind: str, identity: str) -> SetBy | None:
    """Return the last fact about something that is gone: the one that removed it."""
    row = db.execute(
        "SELECT ordinal, at, tag, request_id, cause, user_id FROM timeline WHERE resource_id = ? "
        "AND resource_kind = ? AND kind = 'fact' ORDER BY ordinal DESC LIMIT 1",
        (identity, kind),
    ).fetchone()
    if row is None:
        return None
    names = ("ordinal", "at", "tag", "request_id", "cause", "user_id")
    return msgspec.convert(dict(zip(names, row, strict=True)), SetBy)
