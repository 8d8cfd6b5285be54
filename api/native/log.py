"""The log as people read it: the feed, and why a thing is as it is.

Everybody reads their own project's; administrators read all.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterator

import msgspec

from api.errors import TooManyStreams
from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.people import names_of
from api.pagination import flag, page_of
from api.routing import Routes
from api.times import time_asked
from projections import cloudevents
from projections.answers import Event
from projections.cloudevents import CloudEvent
from projections.redaction import shown
from schemas.config import REGION
from schemas.errors import Forbidden, InvalidInput, NotFound, Unauthorized, Unavailable
from schemas.units import SECOND

PING_S = 15.0
BATCH = 500
BATCH_TYPE = b"application/cloudevents-batch+json"
ONE_TYPE = b"application/cloudevents+json"
STREAMS_MAX = 64  # of one user: each holds a connection, and reads what follows
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
    return time_asked(text, name)


async def events(call: Call) -> Answer:
    """GET /v1/events: what follows an ordinal; with ``follow``, as it comes."""
    project_id = own_project(call)
    resource_id = call.param("resource_id") or None
    accept = call.header(b"accept")
    wants_stream = "text/event-stream" in accept
    as_cloud_events = _wants_cloud_events(call, accept)
    follow = flag(call, "follow")
    if follow or (follow is None and wants_stream):
        if call.as_of:
            raise InvalidInput("what is yet to come cannot be followed as of a moment")
        last = call.header(b"last-event-id")
        after = int(last) if last.isdecimal() and len(last) <= 16 else number(call, "after")
        if call.edge.streams[call.principal.user_id] >= STREAMS_MAX:
            raise TooManyStreams(f"a user may follow the log {STREAMS_MAX} times at once")
        return Answer(
            200,
            content_type=b"text/event-stream",
            headers=[(b"cache-control", b"no-store")],
            stream=_feed(call, after, project_id, resource_id, as_cloud_events),
        )
    one = as_cloud_events and cloudevents.TYPE in accept
    found = call.edge.reader.events(
        after=number(call, "after"),
        limit=1 if one else page_of(call).limit,
        project_id=project_id,
        resource_id=resource_id,
    )
    if not as_cloud_events:
        told = {"events": [shown(e) for e in found], "ordinal": call.position}
        return json_answer(told | {"at": call.edge.reader.head().at})
    batch = _as_cloud_events(call, found)
    if not one:
        return Answer(200, cloudevents.encode(batch), content_type=BATCH_TYPE)
    if not batch:
        return Answer(204)
    return Answer(200, cloudevents.encode(batch[0]), content_type=ONE_TYPE)


def _wants_cloud_events(call: Call, accept: str) -> bool:
    """Return whether events are asked for as CloudEvents, by type or by ``format``.

    Raises:
        InvalidInput: there is no such format.
    """
    asked = call.param("format")
    if asked not in {"", "cumulog", "cloudevents"}:
        raise InvalidInput("format must be cumulog or cloudevents")
    if asked:
        return asked == "cloudevents"
    return cloudevents.TYPE in accept or cloudevents.BATCH_TYPE in accept


def _as_cloud_events(call: Call, found: list[Event]) -> list[CloudEvent]:
    source = cloudevents.source(call.edge.config.cell, REGION)
    shown_ = [shown(event) for event in found]
    return cloudevents.cloud_events(shown_, source, call.edge.reader.asked)


async def _feed(
    call: Call,
    after: int,
    project_id: str | None,
    resource_id: str | None,
    as_cloud_events: bool,
) -> AsyncGenerator[bytes]:
    """Yield server-sent events until the client leaves, its token ends, or we close."""
    edge = call.edge
    edge.streams[call.principal.user_id] += 1
    gone = call.gone()
    closing = asyncio.create_task(edge.closing.wait())
    try:
        yield b": connected\n\n"
        while not gone.done() and not closing.done():
            position = edge.reader.position()
            found = edge.reader.events(
                after=after, limit=BATCH, project_id=project_id, resource_id=resource_id
            )
            if found:
                yield b"".join(_told(call, found, as_cloud_events))
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
                call.principal, _ = await edge.authenticate(call)
                call.need_still()
            except (Forbidden, Unauthorized, Unavailable) as error:
                yield b"event: end\ndata: " + _encode(error.reason) + b"\n\n"
                break
    finally:
        edge.streams -= Counter((call.principal.user_id,))  # and forgets who has none
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing


def _told(call: Call, found: list[Event], as_cloud_events: bool) -> Iterator[bytes]:
    bodies: list[Event] | list[CloudEvent]
    bodies = _as_cloud_events(call, found) if as_cloud_events else [shown(e) for e in found]
    for event, body in zip(found, bodies, strict=True):
        yield b"id: %d\ndata: %b\n\n" % (event.ordinal, _encode(body))


async def why(call: Call) -> Answer:
    """GET /v1/why/{resource}: what set each of its fields, and the events that made it so."""
    resource_id, project_id, reader = call.args[0], own_project(call), call.edge.reader
    found = reader.why(resource_id, project_id=project_id, limit=page_of(call).limit)
    if found is None:
        raise NotFound(f"nothing was ever said of {resource_id[:64]!r}")
    explained = await asyncio.to_thread(reader.explained, resource_id, project_id=project_id)
    fields = [field for row in explained or () for field in row.fields]
    people = {field.set_by.user_id for field in fields if field.set_by is not None}
    people |= {event.user_id for event in found.events}
    return json_answer(
        {
            "resource_kind": found.resource_kind,
            "resource_id": found.resource_id,
            "project_id": found.project_id,
            "explained": explained,
            "names": names_of(call, people),
            "events": [shown(event) for event in found.events],
        }
    )


def add(routes: Routes) -> None:
    """Route what this module answers."""
    read = "log:events:read"
    followed = ("after", "follow", "format", "resource_id", "project", "project_id", "limit")
    routes.add("GET", "/v1/events", events, read, query=followed)
    routes.add("GET", "/v1/why/{}", why, read, query=("project", "project_id", "limit"))
