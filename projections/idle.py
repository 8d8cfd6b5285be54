"""What costs and does nothing, as far as the log knows: what is off, broken, unplugged or unused.

What hosts sample of running guests is usage (``compute.cpu_time``) and not looked at here: a server
that runs is never called idle, however little it does. What is told is a state that was entered at
a fact and not left since, and what is held meanwhile.
"""

import sqlite3
from collections.abc import Iterator

from msgspec import Struct

from projections.compute import SERVERS
from projections.image import IMAGES
from projections.network import PORTS

ROWS_MAX = 10_000
# By a server's status: what it is called, and the facts that make it so.
_SERVER_STATES = {
    "SHUTOFF": ("is stopped", ("compute.server.stopped.v1", "compute.server.task_failed.v1")),
    "ERROR": ("has failed", ("compute.server.failed.v1",)),
}


class Idle(Struct, frozen=True, kw_only=True):
    """A thing that is idle: why it is called so, since when, by which fact, and what it holds.

    ``user_id`` is the person behind the fact, "" if there is none.
    """

    kind: str
    id: str
    name: str
    project_id: str
    why: str
    since: int
    ordinal: int
    request_id: str
    user_id: str
    holds: dict[str, int]


def idle(db: sqlite3.Connection, project_id: str | None, before: int) -> list[Idle]:
    """Return what has been idle since before a time, longest first; of a project or of all.

    At most ``ROWS_MAX`` of each kind are looked at.
    """
    found = [
        one
        for part in (_servers, _images, _ports)
        for one in part(db, project_id)
        if one.since < before
    ]
    return sorted(found, key=lambda one: (one.since, one.kind, one.id))


def _servers(db: sqlite3.Connection, project_id: str | None) -> Iterator[Idle]:
    for status, (why, tags) in _SERVER_STATES.items():
        sql = "SELECT body FROM servers WHERE deleted = 0 AND status = ?"
        for body in _bodies(db, sql, (status,), project_id):
            view = SERVERS.decode(body)
            server = view.server
            if server.task_state is not None:
                continue  # about to be something else
            yield _told(
                db,
                kind="server",
                identity=server.server_id,
                name=server.name,
                project_id=server.project_id,
                why=why,
                tags=tags,
                at=server.updated_at,
                holds={"disk_gib": server.flavor.disk_gib, "addresses": len(view.addresses)},
            )


def _images(db: sqlite3.Connection, project_id: str | None) -> Iterator[Idle]:
    sql = (
        "SELECT body FROM images WHERE status = 'active' AND visibility <> 'public' AND NOT EXISTS "
        "(SELECT 1 FROM servers WHERE image_id = images.id)"
    )
    for body in _bodies(db, sql, (), project_id):
        image = IMAGES.decode(body)
        yield _told(
            db,
            kind="image",
            identity=image.image_id,
            name=image.name,
            project_id=image.project_id,
            why="no server was ever made from it",
            tags=("image.image.activated.v1",),
            at=image.created_at,
            holds={"bytes": image.size_bytes or 0},
        )


def _ports(db: sqlite3.Connection, project_id: str | None) -> Iterator[Idle]:
    for body in _bodies(db, "SELECT body FROM ports WHERE device_id = ''", (), project_id):
        port = PORTS.decode(body)
        yield _told(
            db,
            kind="port",
            identity=port.port_id,
            name=port.name,
            project_id=port.project_id,
            why="is plugged into nothing",
            tags=("network.port.created.v1", "network.port.updated.v1"),
            at=port.created_at,
            holds={"addresses": len(port.fixed_ips)},
        )


def _bodies(
    db: sqlite3.Connection, sql: str, values: tuple[str, ...], project_id: str | None
) -> list[bytes]:
    if project_id is not None:
        sql, values = f"{sql} AND project_id = ?", (*values, project_id)
    return [body for (body,) in db.execute(f"{sql} ORDER BY id LIMIT {ROWS_MAX}", values)]


def _told(
    db: sqlite3.Connection,
    *,
    kind: str,
    identity: str,
    name: str,
    project_id: str,
    why: str,
    tags: tuple[str, ...],
    at: int,
    holds: dict[str, int],
) -> Idle:
    """Return a thing with the newest fact that made it idle, and the person behind that."""
    marks = ", ".join("?" * len(tags))
    row = db.execute(
        "SELECT ordinal, at, request_id, cause, user_id FROM timeline "  # noqa: S608  # marks alone
        f"WHERE resource_id = ? AND tag IN ({marks}) ORDER BY ordinal DESC LIMIT 1",
        (identity, *tags),
    ).fetchone()
    ordinal, since, request_id, cause, user_id = row or (0, at, "", "", "")
    if cause:
        behind = db.execute(
            "SELECT user_id FROM timeline WHERE request_id = ? AND kind = 'request' LIMIT 1",
            (cause,),
        ).fetchone()
        request_id, user_id = cause, behind[0] if behind else user_id
    return Idle(
        kind=kind,
        id=identity,
        name=name,
        project_id=project_id,
        why=why,
        since=since,
        ordinal=ordinal,
        request_id=request_id,
        user_id=user_id,
        holds=holds,
    )
