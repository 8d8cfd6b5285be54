"""Usage, bills and proofs: asked of the archiver, which reads the whole history.

As of a moment it is told where the log ended then, and what time it was.

Everybody reads their own project's usage and bill, and auditors all; they walk the log too.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from api.errors import Denied
from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.customers import READ as READ_CUSTOMERS
from api.native.log import moment
from api.routing import Routes
from engine.bus.client import REQUEST_HEADER, TRACE_HEADER, BusError, FellSilent, NoResponders
from schemas.billing import STANDARD
from schemas.envelope import Refused
from schemas.errors import InvalidInput, NotFound, Unavailable

ANSWER_S = 30.0
WALK_S = 600.0
AGAIN_S = 5  # by then the supervisor has started it anew
# What the archiver answers as of a moment too. Whatever is not named here tells of the present.
PAST = frozenset(
    {"bill", "explain", "focus", "forecast", "invoice", "month", "server_hours", "usage"}
)
# What goes on with an answer that was given as of the moment.
GOES_ON = frozenset({"piece"})

_object = msgspec.json.Decoder(dict[str, Any])


class Gone(Unavailable):
    """Whoever worked on the answer died or was stopped. What it was to do may be done."""

    hint = (
        "Ask again: what was done already is not done twice. "
        "`cumulog status` tells whether the archiver runs."
    )


async def ask(call: Call, question: str, payload: dict[str, Any], timeout_s: float) -> Answer:
    """Ask the archiver and pass on what it says; raises as ``asked`` does."""
    return json_answer(await asked(call, question, payload, timeout_s))


async def asked(
    call: Call, question: str, payload: dict[str, Any], timeout_s: float = ANSWER_S
) -> dict[str, Any]:
    """Ask the archiver and return what it says.

    Raises:
        Unavailable: it does not answer.
        Gone: it does not any more.
        Denied: it could not do what was asked, and says why.
    """
    bus = call.edge.bus
    silent_s = call.edge.config.history_silent_s
    if call.then is not None and question in PAST | GOES_ON:
        bus = call.then.now.bus
    if call.then is not None and question in PAST:
        reader = call.edge.reader
        payload = {**payload, "as_of": replace(reader.head(), at=reader.now())}
    try:
        raw = await bus.request(
            bus.subjects.history(question),
            msgspec.json.encode(payload),
            timeout_s=timeout_s,
            silent_s=silent_s,
            headers={TRACE_HEADER: call.trace, REQUEST_HEADER: call.request_id},
        )
    except NoResponders as error:
        raise Unavailable("the archiver is not running") from error
    except FellSilent as error:
        reason = f"nothing was heard for {silent_s:g} s of the archiver, which was to answer"
        raise Gone(reason, retry_after=AGAIN_S) from error
    except BusError as error:
        raise Unavailable(f"the archiver did not answer within {timeout_s:.0f} s") from error
    reply = _object.decode(raw)
    if "error" in reply:
        raise Denied(msgspec.convert(reply["error"], Refused))
    return reply


def window_of(call: Call) -> dict[str, Any]:
    """Return the window and the project that are asked about, for the archiver.

    Raises:
        InvalidInput: it ends before it begins.
    """
    start, end = moment(call, "start"), moment(call, "end")
    if start is not None and end is not None and start > end:
        raise InvalidInput("start is after end")
    given = {"start": start, "end": end, "project": own_project(call)}
    return {name: value for name, value in given.items() if value is not None}


async def usage(call: Call) -> Answer:
    """GET /v1/usage: what was held, exactly, from ``start`` to ``end``; all meters or one."""
    question = window_of(call)
    if meter := call.param("meter"):
        question["meter"] = meter
    return await ask(call, "usage", question, ANSWER_S)


async def bill(call: Call) -> Answer:
    """GET /v1/bill: what it costs, a line a resource, by the prices of who pays or by others."""
    return await ask(call, "bill", billed(call), ANSWER_S)


def billed(call: Call) -> dict[str, Any]:
    """Return the window, the project and the prices that are asked about, for the archiver.

    Raises:
        NotFound: the prices are none that the caller sees.
    """
    question = window_of(call)
    if price_list := call.param("price_list"):
        if price_list != STANDARD and not call.may(READ_CUSTOMERS):
            raise NotFound(f"there is no price list {price_list[:64]!r}")
        question["price_list"] = price_list
    return question


async def verify(call: Call) -> Answer:
    """POST /v1/audit/verify: walk the log's hash chain."""
    return await ask(call, "verify", {}, WALK_S)


async def replay(call: Call) -> Answer:
    """POST /v1/replay/verify: fold the log anew and compare with the engine's state."""
    return await ask(call, "replay", {}, WALK_S)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    window = ("start", "end", "project", "project_id")
    read = "billing:usage:read"
    routes.add("GET", "/v1/usage", usage, read, query=(*window, "meter"))
    routes.add("GET", "/v1/bill", bill, read, query=(*window, "price_list"))
    routes.add("POST", "/v1/audit/verify", verify, "log:chain:verify")
    routes.add("POST", "/v1/replay/verify", replay, "log:chain:verify")
