"""What followed from a thing, as far as the caller may see: all, or their project's part of it."""

import asyncio

import msgspec

from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.log import moment
from api.native.people import names_of
from api.routing import Routes
from projections.blast_radius import ROOTS
from schemas.errors import InvalidInput, NotFound


async def show(call: Call) -> Answer:
    """GET /v1/audit/blast-radius/{kind}/{id}: all that followed, as a tree, and counted.

    ``user_id`` says whose keypair or token it is, ``since`` from when on what followed counts.
    """
    asked, identity = call.args
    kind = next((known for known in ROOTS if known == asked), None)
    if kind is None:
        raise InvalidInput(f"ask about one of {', '.join(ROOTS)}")
    user_id = call.param("user_id")
    if kind == "token" and not user_id:
        raise InvalidInput("say whose token it is (user_id)")
    project_id, since = own_project(call), moment(call, "since")
    found = await asyncio.to_thread(
        call.edge.reader.blast_radius,
        kind,
        identity,
        project_id=project_id,
        user_id=user_id,
        since=since,
    )
    if found is None:
        raise NotFound(f"nothing was ever said of {kind} {identity[:64]!r}")
    people = {*found.users, *([identity] if kind == "user" else [])}
    return json_answer({**msgspec.structs.asdict(found), "names": names_of(call, people)})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    query = ("project", "project_id", "user_id", "since")
    routes.add("GET", "/v1/audit/blast-radius/{}/{}", show, "log:events:read", query=query)
