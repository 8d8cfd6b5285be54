"""What changed between two moments, with the event, the request and the person behind each change.

Everybody is told of their own project's things, auditors of all. What is told is in the feed too,
so that, as there, today's rights decide.
"""

import asyncio
from pathlib import Path
from typing import Any

from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.history import WALK_S
from api.native.log import number
from api.native.people import names_of
from api.pagination import page_of
from api.past import meant, told
from api.routing import Routes
from projections.explanation import SetBy
from projections.timemachine.difference import Change, What, decode_changes
from projections.timemachine.worker import Asked
from schemas.errors import InvalidInput, Unavailable
from schemas.units import Ordinal

READ = "log:diff:read"


class Field(Struct, frozen=True, kw_only=True):
    """A field that differs."""

    field: str
    before: Any
    after: Any
    by: SetBy


class Told(Struct, frozen=True, kw_only=True):
    """A change as it is told; ``by`` is what changed it last."""

    table: str
    key: tuple[str | int, ...]
    name: str
    project_id: str
    change: What
    by: SetBy
    fields: tuple[Field, ...]


async def diff(call: Call) -> Answer:
    """GET /v1/diff: what changed from one moment to another, field by field.

    ``from`` is 0 for all that there is; ``to`` is now, if it is not given.
    """
    page = page_of(call)
    first = number(call, "marker")
    since, through = await ends(call, call.param("from"), call.param("to"))
    asked = Asked(ordinal=through, since=since, project=own_project(call))
    answer = await told(call, asked, timeout_s=WALK_S)
    found = answer.difference
    assert found is not None, "a question for what lies between is answered with that"
    changes = await asyncio.to_thread(_read, Path(found.file))
    shown = changes[first : first + page.limit]
    causes = call.edge.reader.set_by(sorted(_ordinals(shown)))
    body: dict[str, Any] = {
        "from": {"ordinal": found.since, "at": found.since_at},
        "to": {"ordinal": found.ordinal, "at": found.at},
        "total": len(changes),
        "changes": [_told(change, causes) for change in shown],
        "names": names_of(call, {cause.user_id for cause in causes.values()}),
    }
    if first + page.limit < len(changes):
        body["next_marker"] = first + page.limit
    return json_answer(body)


async def ends(call: Call, start: str, end: str) -> tuple[Ordinal, Ordinal]:
    """Return the two ordinals that are meant: from the beginning, and until now, if nothing is.

    Raises:
        InvalidInput: they are no moments, or the first comes after the second.
    """
    since = 0 if start in {"", "0"} else (await meant(call.edge, start))[0]
    through = (await meant(call.edge, end))[0] if end else call.edge.reader.position()
    if since > through:
        raise InvalidInput("from is after to")
    return since, through


def _read(path: Path) -> list[Change]:
    try:
        return decode_changes(path.read_bytes())
    except FileNotFoundError as error:
        raise Unavailable("what changed is not there any more; ask again") from error


def _ordinals(changes: list[Change]) -> set[Ordinal]:
    own = {change.ordinal for change in changes}
    return own.union(field.ordinal for change in changes for field in change.fields)


def _told(change: Change, causes: dict[Ordinal, SetBy]) -> Told:
    return Told(
        table=change.table,
        key=change.key,
        name=change.name,
        project_id=change.project_id,
        change=change.change,
        by=causes[change.ordinal],
        fields=tuple(
            Field(field=one.field, before=one.before, after=one.after, by=causes[one.ordinal])
            for one in change.fields
        ),
    )


def add(routes: Routes) -> None:
    """Route what this module answers."""
    query = ("from", "to", "project", "project_id", "limit", "marker")
    routes.add("GET", "/v1/diff", diff, READ, query=query, present=True)
