"""Plans that take requests back. They are carried out as any action is: by whoever submits them."""

import asyncio
import re

from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.people import names_of
from api.routing import Routes
from projections.answers import Event
from projections.undo import REQUESTS_MAX
from schemas.errors import InvalidInput, NotFound

_RANGE = re.compile(r"(\d{1,16})\.\.(\d{1,16})\Z")


async def show(call: Call) -> Answer:
    """GET /v1/undo/{request id, or FROM..TO}: what undoes what, the newest thing first.

    Of ordinals, those of people's requests count, of the project's or, for whoever may read all, of
    any; ``user_id`` picks one user's. Nothing is changed.
    """
    what, project_id = call.args[0], own_project(call)
    found = _requests(call, what, project_id)
    if not found:
        raise NotFound(f"there is no request of a person at {what[:64]!r}")
    steps = await asyncio.to_thread(call.edge.reader.undo, found, call.principal.user_id)
    people = {event.user_id for event in found}
    people |= {step.changed_by.user_id for step in steps if step.changed_by is not None}
    return json_answer(
        {
            "requests": [event.request_id for event in found],
            "steps": steps,
            "names": names_of(call, people),
            "ordinal": call.position,
        }
    )


def _requests(call: Call, what: str, project_id: str | None) -> list[Event]:
    """Return the requests that are to be undone, in order.

    Raises:
        InvalidInput: the range is none, or holds too many.
    """
    reader, user_id = call.edge.reader, call.param("user_id") or None
    bounds = _RANGE.match(what)
    if bounds is None:
        return reader.audit_log(
            request_id=what, project_id=project_id, user_id=user_id, people=True, after=0
        )
    first, last = int(bounds[1]), int(bounds[2])
    if first > last:
        raise InvalidInput("the range ends before it begins")
    found = reader.audit_log(
        project_id=project_id,
        user_id=user_id,
        outcome="accepted",
        after=first - 1,
        before=last + 1,
        people=True,
        limit=REQUESTS_MAX + 1,
    )
    if len(found) > REQUESTS_MAX:
        raise InvalidInput(f"at most {REQUESTS_MAX} requests are undone at once")
    return found


def add(routes: Routes) -> None:
    """Route what this module answers."""
    query = ("project", "project_id", "user_id")
    routes.add("GET", "/v1/undo/{}", show, "log:events:read", query=query, present=True)
