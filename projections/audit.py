"""Questions to the timeline: the feed, the audit log, the story of a request or of a resource.

The log is gap-free and its time never goes back, so a bound in time is found by bisection: no index
on time is kept.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from projections.answers import Event, InstanceAction, OperationStatus, RequestAlarm, Why
from projections.explanation import Explained, SetBy, explain, told_of
from projections.operation import OPERATIONS
from projections.timeline import COLUMNS
from schemas.ids import SYSTEM_USER

ACTIONS: dict[str, str] = {
    "CreateServer": "create",
    "StartServer": "start",
    "StopServer": "stop",
    "RebootServer": "reboot",
    "ResizeServer": "resize",
    "ConfirmServerResize": "confirmResize",
    "RevertServerResize": "revertResize",
    "DeleteServer": "delete",
}
SUCCESS = "Success"
ERROR = "Error"
SERVER_FAILED = "compute.server.failed.v1"

_SELECT = f"SELECT {COLUMNS} FROM timeline"  # noqa: S608  # our own names
_BY_REQUEST = "request_id = ? AND kind = 'request'"
# The second condition lets SQLite use the index, which leaves out what has no cause.
_LED_TO = f"{_SELECT} WHERE cause = ? AND cause <> '' ORDER BY ordinal LIMIT ?"
SHOWN_MAX = 5_000  # events of one tree
DEPTH_MAX = 32  # how far causes are followed
EXPLAINED_MAX = 10_000  # facts about one resource


type End = tuple[OperationStatus, int | None, str]


class _Failure(msgspec.Struct):
    message: str = ""


_decode_failure = msgspec.json.Decoder(_Failure).decode


def events(
    db: sqlite3.Connection, after: int, limit: int, project_id: str | None, resource_id: str | None
) -> list[Event]:
    """Return what follows an ordinal, in order."""
    where, values = ["ordinal > ?"], [after]
    conditions, more = _equal({"project_id": project_id, "resource_id": resource_id})
    sql = f"{_SELECT} WHERE {' AND '.join(where + conditions)} ORDER BY ordinal LIMIT ?"
    return _events(db.execute(sql, [*values, *more, limit]))


def requests(
    db: sqlite3.Connection,
    filters: dict[str, str | None],
    since: int | None,
    until: int | None,
    before: int | None,
    after: int | None,
    people: bool,
    limit: int,
) -> list[Event]:
    """Return requests, newest first; those ``after`` an ordinal oldest first."""
    where, values = _equal(filters)
    where.append("kind = 'request'")
    if filters["address"] is not None:
        where.append("address <> ''")  # lets SQLite use the index
    if since is not None:
        where.append("ordinal >= ?")
        values.append(first_at(db, since))
    if until is not None:
        where.append("ordinal < ?")
        values.append(first_at(db, until))
    if before is not None:
        where.append("ordinal < ?")
        values.append(before)
    if after is not None:
        where.append("ordinal > ?")
        values.append(after)
    if people:
        where.append("user_id NOT IN ('', ?)")
        values.append(SYSTEM_USER)
    order = "DESC" if after is None else "ASC"
    sql = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY ordinal {order} LIMIT ?"
    return _events(db.execute(sql, [*values, limit]))


def show(db: sqlite3.Connection, request_id: str, project_id: str | None) -> list[Event]:
    """Return a request with its facts and all that it led to, in order; at most ``SHOWN_MAX``.

    What it led to for other projects is left out, unless all are asked for.
    """
    first = _events(db.execute(f"{_SELECT} WHERE {_BY_REQUEST}", (request_id,)))
    if project_id is not None:
        first = [event for event in first if event.project_id == project_id]
    if not first:
        return []
    story = {event.ordinal: event for request in first for event in (request, *_facts(db, request))}
    followed, next_ones = {request_id}, [request_id]
    for _ in range(DEPTH_MAX):
        causes, next_ones = next_ones, []
        for cause in causes:
            left = SHOWN_MAX - len(story)
            if left <= 0:
                break
            led_to = _events(db.execute(_LED_TO, (cause, left)))
            seen = [
                event.request_id
                for event in led_to
                if event.kind == "request" and project_id in {None, event.project_id}
            ]
            story |= {event.ordinal: event for event in led_to if event.request_id in seen}
            next_ones += [found for found in dict.fromkeys(seen) if found not in followed]
            followed.update(seen)
    return [story[ordinal] for ordinal in sorted(story)]


def records(db: sqlite3.Connection, found: Iterable[Event]) -> list[Event]:
    """Return requests, each with the facts that came right after it."""
    return [event for request in found for event in (request, *_facts(db, request))]


def made_by(db: sqlite3.Connection, resource_id: str) -> str:
    """Return the user whose request made a resource, "" if nobody is known."""
    row = db.execute(
        "SELECT user_id FROM timeline WHERE resource_id = ? AND user_id <> '' "
        "ORDER BY ordinal LIMIT 1",
        (resource_id,),
    ).fetchone()
    return "" if row is None else str(row[0])


def was_asked(db: sqlite3.Connection, request_id: str, project_id: str | None) -> bool:
    """Return whether there is a request of this id, of a project or of any."""
    conditions, values = _equal({"request_id": request_id, "project_id": project_id})
    sql = f"SELECT 1 FROM timeline WHERE kind = 'request' AND {' AND '.join(conditions)} LIMIT 1"  # noqa: S608  # our own names
    return db.execute(sql, values).fetchone() is not None


def select(db: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Event]:
    """Return events by conditions of our own making; all values are parameters."""
    return _events(db.execute(f"{_SELECT} WHERE {where}", values))


def news(db: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str, str, str]]:
    """Return ordinal, project, kind and resource of what follows an ordinal, in order."""
    sql = (
        "SELECT ordinal, project_id, resource_kind, resource_id FROM timeline "
        "WHERE ordinal > ? ORDER BY ordinal LIMIT ?"
    )
    return db.execute(sql, (after, limit)).fetchall()


def asked(db: sqlite3.Connection, request_ids: set[str]) -> dict[str, bytes]:
    """Return the bodies of requests by their id; of one that came twice, the first's."""
    found: dict[str, bytes] = {}
    sql = f"SELECT body FROM timeline WHERE {_BY_REQUEST} ORDER BY ordinal LIMIT 1"  # noqa: S608
    for request_id in request_ids:
        for (body,) in db.execute(sql, (request_id,)):
            found[request_id] = body
    return found


def alarms(db: sqlite3.Connection, limit: int) -> list[RequestAlarm]:
    """Return the request ids that stand at two ordinals, the newest first."""
    found = db.execute(
        "SELECT ordinal, first, request_id, what FROM request_alarms ORDER BY ordinal DESC LIMIT ?",
        (limit,),
    )
    return [
        RequestAlarm(ordinal=ordinal, first=first, request_id=request_id, what=what)
        for ordinal, first, request_id, what in found
    ]


def why(db: sqlite3.Connection, resource_id: str, project_id: str | None, limit: int) -> Why | None:
    """Return the events about a resource, the requests behind them, and their other facts."""
    conditions, values = _equal({"resource_id": resource_id, "project_id": project_id})
    sql = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY ordinal DESC LIMIT ?"
    about = _events(db.execute(sql, [*values, limit]))
    newest = next((event for event in about if event.kind == "fact"), None)
    if newest is None:
        return None
    story = {event.ordinal: event for event in about}
    for request_id in dict.fromkeys(event.request_id for event in about):
        for request in _events(db.execute(f"{_SELECT} WHERE {_BY_REQUEST}", (request_id,))):
            story[request.ordinal] = request
            if request.resource_id == resource_id:
                story |= {fact.ordinal: fact for fact in _facts(db, request)}
    return Why(
        resource_kind=newest.resource_kind,
        resource_id=resource_id,
        project_id=newest.project_id,
        events=tuple(story[ordinal] for ordinal in sorted(story)),
    )


def explained(
    db: sqlite3.Connection, resource_id: str, project_id: str | None
) -> tuple[Explained, ...] | None:
    """Return what set each field of a resource; None if more than ``EXPLAINED_MAX`` facts did."""
    sql = f"{_SELECT} WHERE resource_id = ? AND kind = 'fact' ORDER BY ordinal LIMIT ?"
    facts = _events(db.execute(sql, (resource_id, EXPLAINED_MAX + 1)))
    if len(facts) > EXPLAINED_MAX:
        return None
    return explain(db, facts, _people(db, facts), project_id)


def set_by(db: sqlite3.Connection, ordinals: Sequence[int]) -> dict[int, SetBy]:
    """Return what is told of facts, by their ordinals: their request, and who wanted it."""
    sql = f"{_SELECT} WHERE ordinal IN (SELECT value FROM json_each(?))"  # noqa: S608  # our own names
    facts = _events(db.execute(sql, (msgspec.json.encode(ordinals),)))
    people = _people(db, facts)
    return {fact.ordinal: told_of(fact, people) for fact in facts}


def _people(db: sqlite3.Connection, facts: Iterable[Event]) -> dict[str, str]:
    """Return the person's id by the id of each request that is a cause."""
    people: dict[str, str] = {}
    sql = f"SELECT user_id FROM timeline WHERE {_BY_REQUEST} ORDER BY ordinal LIMIT 1"  # noqa: S608  # our own names
    for cause in {fact.cause for fact in facts if fact.cause}:
        for (user_id,) in db.execute(sql, (cause,)):
            people[cause] = user_id
    return people


def instance_actions(db: sqlite3.Connection, server_id: str) -> list[InstanceAction]:
    """Return what people did to a server, newest first.

    An action ends when the operation it began ends, or with its own record if it began none.
    """
    begun = db.execute("SELECT body FROM operations WHERE resource_id = ?", (server_id,))
    ends = {
        state.operation.request_id: (state.status, state.ended_at, state.cause)
        for state in (OPERATIONS.decode(body) for (body,) in begun)
    }
    actions: list[InstanceAction] = []
    failures: dict[str, str] = {}
    for kind, tag, request_id, user_id, project_id, at, outcome, body in db.execute(
        "SELECT kind, tag, request_id, user_id, project_id, at, outcome, "
        "CASE tag WHEN ? THEN body END FROM timeline WHERE resource_id = ? ORDER BY ordinal DESC",
        (SERVER_FAILED, server_id),
    ):
        if kind == "fact" and tag == SERVER_FAILED:
            failures[request_id] = _decode_failure(body).message
        if kind != "request" or tag not in ACTIONS or outcome != "accepted":
            continue
        failure = failures.get(request_id)
        alone: End = ("succeeded" if failure is None else "failed", at, failure or "")
        status, ended_at, cause = ends.get(request_id, alone)
        actions.append(
            InstanceAction(
                server_id=server_id,
                request_id=request_id,
                action=ACTIONS[tag],
                user_id=user_id,
                project_id=project_id,
                start_at=at,
                finish_at=ended_at,
                result=None if ended_at is None else SUCCESS if status == "succeeded" else ERROR,
                message=cause,
            )
        )
    return actions


def first_at(db: sqlite3.Connection, at: int) -> int:
    """Return the first ordinal whose commit's time is ``at`` or later; one past the end if none."""
    low, high = 1, db.execute("SELECT ordinal FROM position").fetchone()[0] + 1
    while low < high:
        middle = (low + high) // 2
        (then,) = db.execute("SELECT at FROM timeline WHERE ordinal = ?", (middle,)).fetchone()
        if then < at:
            low = middle + 1
        else:
            high = middle
    return int(low)


def _facts(db: sqlite3.Connection, request: Event) -> list[Event]:
    """Return the facts of a request: they come right after it."""
    facts: list[Event] = []
    cursor = db.execute(f"{_SELECT} WHERE ordinal > ? ORDER BY ordinal", (request.ordinal,))
    for row in cursor:
        if row[1] != "fact":
            break
        facts += _events([row])
    cursor.close()
    return facts


def _equal(filters: dict[str, str | None]) -> tuple[list[str], list[Any]]:
    given = {column: value for column, value in filters.items() if value is not None}
    return [f"{column} = ?" for column in given], list(given.values())


def _events(rows: Iterable[tuple[Any, ...]]) -> list[Event]:
    return [
        Event(
            ordinal=ordinal,
            kind=kind,
            tag=tag,
            resource_kind=resource_kind,
            resource_id=resource_id,
            project_id=project_id,
            user_id=user_id,
            request_id=request_id,
            cause=cause,
            at=at,
            outcome=outcome,
            code=code,
            body=msgspec.Raw(body),
        )
        for (
            ordinal,
            kind,
            tag,
            resource_kind,
            resource_id,
            project_id,
            user_id,
            request_id,
            cause,
            at,
            outcome,
            code,
            body,
        ) in rows
    ]
