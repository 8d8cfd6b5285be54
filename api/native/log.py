"""The log as people read it: the feed, and why a thing is as it is.

Everybody reads their own project's; administrators read all.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import msgspec

from api.errors import TooManyStreams
from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.redaction import shown
from api.pagination import flag, page_of
from api.routing import Routes
from api.times import parse_time
from projections.answers import Event
from schemas.errors import InvalidInput, NotFound, Unauthorized
from schemas.units import SECOND

PING_S = 15.0
BATCH = 500
STREAMS_MAX = 64  # of one user: each holds one of the few hundred requests served at once
GATHER_S = 0.02  # under load, several commits are looked for at once

_encode = msgspec.json.Encoder().encode


def number(call: Call, name: str, default: int = 0) -> int:
    """Return a query parameter that is a whole number.

    Raises:
        InvalidInput: it is none.
    """
    text = call.param(name)
    if not text:
        return default
    if not text.isdecimal() or len(text) > 16:
        raise InvalidInput(f"{name} must be a whole number")
    return int(text)


def moment(call: Call, name: str) -> int | None:
    """Return a query parameter that is a time, in microseconds; None if it was not given.

    Raises:
        InvalidInput: it is neither ISO 8601 nor a number of seconds since 1970.
    """
    text = call.param(name)
    if not text:
        return None
    if text.isdecimal() and len(text) <= 11:
        return int(text) * SECOND
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} must be a time of ISO 8601") from error


async def events(call: Call) -> Answer:
    """GET /v1/events: what follows an ordinal; with ``follow``, as it comes."""
    project_id = own_project(call)
    resource_id = call.param("resource_id") or None
    wants_stream = "text/event-stream" in call.header(b"accept")
    follow = flag(call, "follow")
    if follow or (follow is None and wants_stream):
        last = call.header(b"last-event-id")
        after = int(last) if last.isdecimal() and len(last) <= 16 else number(call, "after")
        if call.edge.streams[call.principal.user_id] >= STREAMS_MAX:
            raise TooManyStreams(f"a user may follow the log {STREAMS_MAX} times at once")
        return Answer(
            200,
            content_type=b"text/event-stream",
            headers=[(b"cache-control", b"no-store")],
            stream=_feed(call, after, project_id, resource_id),
        )
    page = page_of(call)
    found = call.edge.reader.events(
        after=number(call, "after"),
        limit=page.limit,
        project_id=project_id,
        resource_id=resource_id,
    )
    return json_answer({"events": [shown(e) for e in found], "ordinal": call.position})


async def _feed(
    call: Call, after: int, project_id: str | None, resource_id: str | None
) -> AsyncIterator[bytes]:
    """Yield server-sent events until the client leaves, its token ends, or we close."""
    edge = call.edge
    edge.streams[call.principal.user_id] += 1
    gone = asyncio.create_task(_gone(call))
    closing = asyncio.create_task(edge.closing.wait())
    try:
        yield b": connected\n\n"
        while not gone.done() and not closing.done():
            position = edge.reader.position()
            found = edge.reader.events(
                after=after, limit=BATCH, project_id=project_id, resource_id=resource_id
            )
            if found:
                yield b"".join(_event(e) for e in found)
                after = found[-1].ordinal
                if len(found) == BATCH:
                    continue
            after = max(after, position)  # Up to there all was looked at, whosever it was.
            moved = asyncio.create_task(edge.waiter.changed(position, PING_S))
            await asyncio.wait({gone, closing, moved}, return_when=asyncio.FIRST_COMPLETED)
            if not moved.done():
                moved.cancel()
                break
            if moved.result() <= position:
                yield b": still here\n\n"
            await asyncio.sleep(GATHER_S)
            try:
                await edge.authenticate(call)
            except Unauthorized as error:
                yield b"event: end\ndata: " + _encode(error.reason) + b"\n\n"
                break
    finally:
        edge.streams -= Counter((call.principal.user_id,))  # and forgets who has none
        for task in (gone, closing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _gone(call: Call) -> None:
    while (await call.receive())["type"] != "http.disconnect":
        pass


def _event(event: Event) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (event.ordinal, _encode(shown(event)))


async def why(call: Call) -> Answer:
    """GET /v1/why/{resource}: the events that made it what it is."""
    found = call.edge.reader.why(
        call.args[0], project_id=own_project(call), limit=page_of(call).limit
    )
    if found is None:
        raise NotFound(f"nothing was ever said of {call.args[0][:64]!r}")
    events = tuple(shown(event) for event in found.events)
    return json_answer(msgspec.structs.replace(found, events=events))


def add(routes: Routes) -> None:
    """Route what this module answers."""
    read = "log:events:read"
    followed = ("after", "follow", "resource_id", "project", "project_id", "limit")
    routes.add("GET", "/v1/events", events, read, query=followed)
    routes.add("GET", "/v1/why/{}", why, read, query=("project", "project_id", "limit"))
