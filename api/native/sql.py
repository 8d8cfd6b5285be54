"""SQL over history: everybody asks about their own project, auditors about all.

An answer includes every ordinal that was acknowledged before the question, and is whole or refused.
"""

from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.exchange import JSON, Answer, Call, json_answer
from api.native.actions import own_project
from api.native.history import ask
from api.past import enter
from api.routing import Routes
from engine.log.jetstream import JetStreamLog
from projections.models import decode_stored, last_ordinal
from projections.sql.queries import Found
from projections.sql.question import TEXT_MAX, Format
from projections.sql.statement import named_views
from projections.sql.views import VIEWS
from schemas.errors import Forbidden, Unavailable
from schemas.units import Ordinal

REACHED_S = 10.0
GIVEN_S = 30.0
RUN = "log:sql:run"
TYPES: dict[Format, bytes] = {
    "json": JSON,
    "csv": b"text/csv; charset=utf-8",
    "parquet": b"application/vnd.apache.parquet",
    "arrow": b"application/vnd.apache.arrow.stream",
}


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question, and how its answer is to be written.

    ``as_of`` is the moment up to which is answered, an ordinal or a time; "": now.
    """

    sql: Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]
    format: Format = "json"
    as_of: Annotated[str, Meta(max_length=64)] = ""


_asked = msgspec.json.Decoder(Asked)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


async def run(call: Call) -> Answer:
    """POST /v1/sql: one SELECT of the views, over the project's rows or over all."""
    project_id = own_project(call)
    asked = await call.decode(_asked)
    edge = call.edge
    if asked.as_of:
        through = await _gone_back(call, asked.as_of)
        project_id = own_project(call)  # as far as both today's rights and those of then reach
    else:
        through = await _head(call)
    if not await edge.waiter.reached(through, REACHED_S):
        raise Unavailable(f"the read model has not reached ordinal {through}")
    given = await _given(call, asked.sql, project_id)
    found = await edge.queries.ask(
        asked.sql,
        user=call.principal.user_id,
        project=project_id,
        through=through,
        form=asked.format,
        given=given,
    )
    return Answer(
        200,
        content_type=TYPES[asked.format],
        headers=[(b"x-cumulog-as-of", b"%d" % through), (b"cache-control", b"no-store")],
        stream=_document(found, through) if asked.format == "json" else found.chunks(),
    )


async def _given(call: Call, sql: str, project_id: str | None) -> dict[str, list[dict[str, Any]]]:
    """Ask the archiver for the rows of views that are not computed in SQL.

    Raises:
        Forbidden: the caller may not read them.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    named = named_views(sql)
    for view in VIEWS:
        if view.given is None or view.name not in named:
            continue
        reach = call.reach_of(view.given.action)
        own = project_id is not None and project_id == call.principal.project_id
        if reach is None or not (reach.any or (reach.project and own)):
            raise Forbidden(f"the view {view.name} needs {view.given.action}")
        question = {} if project_id is None else {"project": project_id}
        answer = await ask(call, view.given.question, question, GIVEN_S)
        found[view.name] = list(view.given.rows(_decode(answer.body)))
    return found


async def _gone_back(call: Call, moment: str) -> Ordinal:
    """Have a question answered as of a moment, and return the last ordinal that was there then.

    Raises:
        InvalidInput: it is no moment, or one before the first event or in the future.
        Forbidden: the caller might not ask then.
    """
    call.as_of = moment
    await enter(call)
    call.need_again()
    call.allow(RUN)
    return call.edge.reader.position()


async def _head(call: Call) -> Ordinal:
    """Return the last ordinal that is in the log."""
    head = await JetStreamLog(call.edge.bus).last()
    return 0 if head is None else last_ordinal(decode_stored(head.data))


async def _document(found: Found, through: Ordinal) -> AsyncGenerator[bytes]:
    """Yield an answer as one JSON document: the file holds the array of its rows."""
    head = _encode({"ordinal": through, "columns": found.columns, "count": found.rows})
    yield head[:-1] + b',"rows":'
    async for chunk in found.chunks():
        yield chunk
    yield b"}"


async def schema(_call: Call) -> Answer:
    """GET /v1/sql/schema: what can be selected from."""
    views = [{"name": view.name, "about": view.about, "columns": view.columns} for view in VIEWS]
    return json_answer({"views": views})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("POST", "/v1/sql", run, RUN, body=_asked, query=("project", "project_id"))
    routes.add("GET", "/v1/sql/schema", schema, RUN)
