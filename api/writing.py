"""The way a wish takes to the engine and back.

Invariant: what is submitted carries the caller as the edge verified it, and is answered once the
node's read model shows it, or with a header that says it does not yet. The engine judges values by
their schema as it reads the request, so they are not judged here as well.
"""

from time import monotonic
from typing import Any

from api.auth import now
from api.dry_run import Tried, is_trial, try_out
from api.edge import VISIBLE_S
from api.errors import denied
from api.exchange import Call
from engine.bus.service import submit
from schemas.envelope import Accepted, Action, Outcome, Request, members
from schemas.identity import IdentityAction

_IDENTITY = frozenset(members(IdentityAction))


async def write(call: Call, action: Action) -> dict[str, Any]:
    """Submit ``action`` for the caller, wait until it can be read, and return the engine's reply.

    A repetition under one key (``api.repetition``) returns what the first request did.

    Raises:
        Denied: the engine refused.
        Unavailable: the engine cannot be reached.
    """
    return reply_of(await send(call, action))


def reply_of(outcome: Outcome) -> dict[str, Any]:
    """Return what the engine replied.

    Raises:
        Denied: it refused.
    """
    if isinstance(outcome.verdict, Accepted):
        return outcome.verdict.reply
    raise denied(outcome)


async def send(call: Call, action: Action) -> Outcome:
    """Submit as ``write`` does, and return the outcome whatever it is.

    Raises:
        Tried: the caller asked what would follow, by a header, and is to be told only that.
    """
    if is_trial(call):
        raise Tried(await try_out(call, action))
    outcome = call.earlier or await submit(
        call.edge.bus,
        Request(
            request_id=call.request_id,
            actor=call.principal.actor,
            action=action,
            submitted_at=now(),
            client=call.client,
            key=call.key or None,
            digest=call.digest,
            cause=call.cause,
        ),
    )
    call.ordinal = outcome.ordinal if outcome.recorded else 0
    call.repeated = outcome.repeated
    call.rule = outcome.verdict.rule or call.rule  # records of before have none
    edge = call.edge
    if outcome.ordinal and not await edge.waiter.reached(outcome.ordinal, VISIBLE_S):
        call.awaited = outcome.ordinal
        edge.late_at = monotonic()
    if type(action) in _IDENTITY:
        edge.authenticator.forget()
    call.position = edge.waiter.newest
    return outcome
