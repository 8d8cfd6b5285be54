"""Puts on record the mutations that this edge refuses by itself, before the engine hears of them.

A body that is not of its schema, a role that is missing, a resource that is not there: whoever was
let in and asked for a change finds it in the log with the verdict, as if the engine had refused.
Invariant: nothing that was sent is recorded but the ids in the path; a value that a reason quotes
is left out. Not recorded are trials, what is refused for coming too often, and those who were not
let in: they must not be able to fill the log.
"""

import re
from typing import TYPE_CHECKING

import structlog

from api.auth import now
from api.dry_run import is_trial
from engine.bus.client import BusError
from engine.bus.service import submit
from schemas.access import RefuseRequest
from schemas.envelope import Request, action_types
from schemas.errors import Unavailable

if TYPE_CHECKING:
    from api.errors import Problem
    from api.exchange import Call

RECORD_S = 2.0  # the client waits for its answer
UNRECORDED = frozenset({401, 429})
REASON_MAX = 500
ABOUT_MAX = 8

# As our reasons and msgspec's quote; a path in a body, as `$.server.name`, is none.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|(?<=unknown field )`[^`]*`")

log = structlog.get_logger(__name__)


async def record(call: "Call", problem: "Problem") -> None:
    """Have a refusal recorded, unless it is; what prevents that is logged, and the client told.

    Safe to repeat: the request's own id is used.
    """
    route = call.route
    if (
        call.caller is None
        or route is None
        or not route.mutates
        or call.ordinal
        or call.edge.past
        or call.dry_run
        or is_trial(call)
        or not 400 <= problem.status < 500
        or problem.status in UNRECORDED
    ):
        return
    action = RefuseRequest(
        api=call.api,
        method=call.method[:16],
        route=route.path[:255],
        action=_wished(route.actions, call.rule),
        about=tuple(word[:255] for word in call.args[:ABOUT_MAX]),
        code=problem.code[:64],
        status=problem.status,
        reason=unquoted(problem.reason)[:REASON_MAX],
        rule=call.rule[:1024],
    )
    request = Request(
        request_id=call.request_id,
        actor=call.principal.actor,
        action=action,
        submitted_at=now(),
        client=call.client,
    )
    try:
        outcome = await submit(call.edge.bus, request, timeout_s=RECORD_S)
    except (Unavailable, BusError) as error:
        log.warning("refusal_not_recorded", request_id=call.request_id, error=str(error))
        return
    if outcome.recorded:
        call.ordinal = outcome.ordinal
        # Whoever asks next why it was refused finds it, as what was written is read back.
        if not await call.edge.waiter.reached(outcome.ordinal, RECORD_S):
            call.awaited = outcome.ordinal


def _wished(actions: tuple[str, ...], rule: str) -> str:
    """Return the action that a route's are for, "" if only the body could have said.

    ``rule`` begins with what the policy was asked for, of any action at all the body's.
    """
    if len(actions) > 1:
        return ""
    asked = rule.partition(": ")[0]
    return next((name for name in (*actions, asked) if name in action_types()), "")


def unquoted(reason: str) -> str:
    """Return a reason without the values that it quotes."""
    return _QUOTED.sub("…", reason)
