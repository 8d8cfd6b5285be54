"""The audit log: mutations as the log has them, and reads and refused strangers from ``ACCESS``.

One list, the newest first. A mutation is shown once, by its record in the log, with how long it
took by its entry in ACCESS. Invariant: whoever may read a project's events reads what was asked
with tokens of that project, and nothing of others; who was not let in at all is shown to those
alone who may read everything.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, TypedDict

from msgspec import Struct
from msgspec.structs import replace

from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.log import moment
from api.native.people import names_of
from api.pagination import flag, page_of
from api.routing import Routes
from projections.access import Filters, Found
from projections.answers import Event
from projections.asked import Asked, of_access, of_log
from projections.audit import SHOWN_MAX
from projections.causes import tree
from projections.redaction import shown
from schemas.errors import InvalidInput, NotFound, Unavailable

READ = "log:events:read"
READ_GAPS = "log:gaps:read"
LIMIT = 100  # where none is asked for
AUDITED_BY = (
    "project", "project_id", "user_id", "address", "request_id", "resource_id", "resource_kind",
    "action", "tag", "outcome", "code", "denied", "since", "until", "before", "people", "limit",
    "show",
)  # fmt: skip
SHOWN = ("mutations", "reads", "all")
DENIED = "Forbidden"


class Cursor(Struct, frozen=True, kw_only=True):
    """Where a page ended: the last ordinal and the last entry that were shown; 0: none yet."""

    ordinal: int = 0
    at: int = 0
    entry: int = 0

    def __str__(self) -> str:
        return f"{self.ordinal}-{self.at}-{self.entry}"


def cursor_of(text: str) -> Cursor:
    """Return where the next page begins: an ordinal, or what a page said as ``next_before``.

    Raises:
        InvalidInput: it is neither.
    """
    parts = text.split("-") if text else ["0"]
    if len(parts) not in {1, 3} or not all(p.isdecimal() and len(p) <= 18 for p in parts):
        raise InvalidInput("before must be what the page before said as next_before")
    ordinal, at, entry = (*map(int, parts), 0, 0)[:3]
    return Cursor(ordinal=ordinal, at=at, entry=entry)


async def audit_log(call: Call) -> Answer:
    """GET /v1/audit: requests with what came of them, newest first.

    ``show`` says which: mutations (the default), reads, or all; ``before`` is the next page's.
    """
    page = page_of(call)
    limit = page.limit if page.asked else LIMIT
    wanted = shown_by(call)
    cursor = cursor_of(call.param("before"))
    logged = _logged(call, cursor, limit) if wanted != "reads" else []
    entries = _entries(call, cursor, limit) if wanted != "mutations" else []
    both: list[Event | Found] = [*logged, *entries]
    newest = sorted(both, key=place_of, reverse=True)[:limit]
    body: dict[str, object] = {"requests": rows(call, newest), "ordinal": call.position}
    if newest and len(newest) == limit:
        body["next_before"] = _next(cursor, newest, wanted)
    return json_answer(body)


def place_of(one: Event | Found) -> tuple[int, int, int]:
    """Return where it stands in the list: by time, and then by the order of its own kind."""
    if isinstance(one, Event):
        return one.at, 1, one.ordinal
    return one.entry.at, 0, one.id


def _next(cursor: Cursor, newest: list[Event | Found], wanted: str) -> int | str:
    """Return where the page after these begins."""
    ordinal, at, entry = cursor.ordinal, cursor.at, cursor.entry
    for one in newest:
        if isinstance(one, Event):
            ordinal = one.ordinal
        else:
            at, entry = one.entry.at, one.id
    if wanted == "mutations":
        return ordinal
    return str(Cursor(ordinal=ordinal, at=at, entry=entry))


def _logged(call: Call, cursor: Cursor, limit: int) -> list[Event]:
    return call.edge.reader.audit_log(**logged_by(call), before=cursor.ordinal or None, limit=limit)


def _entries(call: Call, cursor: Cursor, limit: int) -> list[Found]:
    filters = entries_by(call)
    if filters is None:
        return []
    before = (cursor.at, cursor.entry) if cursor.at else None
    return call.edge.audit.entries(replace(filters, before=before), limit)


class LoggedBy(TypedDict):
    """What narrows down requests of the log; see ``Reader.audit_log``."""

    project_id: str | None
    user_id: str | None
    address: str | None
    request_id: str | None
    resource_id: str | None
    resource_kind: str | None
    tag: str | None
    outcome: str | None
    code: str | None
    since: int | None
    until: int | None
    people: bool


def logged_by(call: Call) -> LoggedBy:
    """Return what of the log is asked for and the caller's to read.

    Raises:
        Forbidden: nothing, or not this project's.
        InvalidInput: a filter makes no sense.
    """
    return {
        "project_id": own_project(call),
        "user_id": call.param("user_id") or None,
        "address": call.param("address") or None,
        "request_id": call.param("request_id") or None,
        "resource_id": call.param("resource_id") or None,
        "resource_kind": call.param("resource_kind") or None,
        "tag": call.param("action") or call.param("tag") or None,
        "outcome": call.param("outcome") or None,
        "code": DENIED if flag(call, "denied") else call.param("code") or None,
        "since": moment(call, "since"),
        "until": moment(call, "until"),
        "people": flag(call, "people") or False,
    }


def entries_by(call: Call) -> Filters | None:
    """Return what of ACCESS is asked for and the caller's to read; None: nothing.

    Raises:
        Forbidden: not this project's.
        InvalidInput: a filter makes no sense.
    """
    if any(call.param(name) for name in ("resource_kind", "code")):
        return None  # of the log's alone
    outcome = call.param("outcome")
    return Filters(
        project_id=own_project(call),
        user_id=call.param("user_id") or None,
        address=call.param("address") or None,
        action=call.param("action") or call.param("tag") or None,
        request_id=call.param("request_id") or None,
        resource_id=call.param("resource_id") or None,
        denied=flag(call, "denied") or False,
        refused=None if not outcome else outcome == "refused",
        logged=False,
        since=moment(call, "since"),
        until=moment(call, "until"),
    )


def shown_by(call: Call) -> str:
    """Return which are asked for: mutations, reads, or all.

    Raises:
        InvalidInput: something else.
    """
    wanted = call.param("show") or "mutations"
    if wanted not in SHOWN:
        raise InvalidInput(f"show must be one of {', '.join(SHOWN)}")
    return wanted


def rows(call: Call, found: Sequence[Event | Found]) -> list[Asked]:
    """Return what is shown of each, with what ACCESS knows of those in the log."""
    took: dict[str, Found] = {}
    with contextlib.suppress(Unavailable):  # how long they took is not known yet
        took = call.edge.audit.of_requests(
            [one.request_id for one in found if isinstance(one, Event)]
        )
    return [
        of_log(one, took.get(one.request_id)) if isinstance(one, Event) else of_access(one)
        for one in found
    ]


async def audit_show(call: Call) -> Answer:
    """GET /v1/audit/{request id}: the request, its facts, all that it led to, how long it took.

    ``events`` is all of it in the order of the log, ``tree`` by what caused what.
    """
    request_id, project_id = call.args[0], own_project(call)
    reader = call.edge.reader
    found = [shown(e) for e in reader.audit_show(request_id, project_id=project_id)]
    entries = call.edge.audit.entries(Filters(request_id=request_id, project_id=project_id), 100)
    if not found and not entries:
        raise NotFound(f"there is no request {request_id[:64]!r}")
    body: dict[str, Any] = {
        "request_id": request_id,
        "tree": tree(request_id, found, reader.operation),
        "complete": len(found) < SHOWN_MAX,
        "names": names_of(call, (event.user_id for event in found)),
        "events": found,
        "access": [of_access(entry) for entry in entries],
        "ordinal": call.position,
    }
    return json_answer(body)


async def gaps(call: Call) -> Answer:
    """GET /v1/audit/gaps: what was asked and is in neither, the newest first."""
    call.allow(READ_GAPS)
    page = page_of(call)
    found, since = call.edge.audit.gaps(page.limit if page.asked else LIMIT)
    return json_answer({"gaps": found, "kept_since": since})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/audit", audit_log, READ, query=AUDITED_BY)
    routes.add("GET", "/v1/audit/gaps", gaps, READ_GAPS, query=("limit",), present=True)
    routes.add("GET", "/v1/audit/{}", audit_show, READ, query=("project", "project_id"))
