"""Repetitions: a change that is asked for again under one ``Idempotency-Key`` is made once.

The engine knows what each key stands for, for a day. It is asked before a handler runs: what the
handler looks at may have changed since, by the first request itself. Invariant: a repetition does
nothing, and is answered with the status of the first and the ids that it made; what was told once,
as a secret, is not told again. What an edge refused by itself uses up no key.
"""

import hashlib
from typing import TYPE_CHECKING

from api.dry_run import is_trial
from api.errors import denied
from api.exchange import Answer, Call, json_answer
from api.pagination import flag
from engine.bus.service import ask_engine
from schemas.envelope import Accepted, decode_outcome
from schemas.errors import InvalidInput, KeyReused, Rejected
from schemas.repetition import UNUSED, Keyed, encode

if TYPE_CHECKING:
    from api.routing import Route

HEADER = b"idempotency-key"
CHARS_MAX = 255
STREAMED = "application/octet-stream"
# What a handler says when the first request is done: what it was about is gone, or is as it was
# wished for.
OVERTAKEN = frozenset({404, 409, 410})


def key_of(call: Call) -> str:
    """Return the key that a request came with, "" if with none.

    Raises:
        InvalidInput: it is none that is taken; the message says which are.
    """
    sent = call.headers(HEADER)
    if not sent:
        return ""
    key = sent[0]
    if len(sent) > 1 or not 1 <= len(key) <= CHARS_MAX or not (key.isascii() and key.isprintable()):
        raise InvalidInput(
            f"an Idempotency-Key is sent once and has 1 to {CHARS_MAX} printable ASCII characters"
        )
    return key


async def changed(call: Call, route: "Route") -> Answer:
    """Have a route's handler make the change that is asked for, unless it is made already.

    Raises:
        InvalidInput: the request's key is none.
        Denied: the key stands for another request, or for one that was refused.
        Unavailable: the engine does not answer.
    """
    key = key_of(call)
    if not key or is_trial(call) or ("dry_run" in route.query and flag(call, "dry_run")):
        return await route.handler(call)
    await look_up(call, route, key)
    if call.earlier is None:
        return await route.handler(call)
    return await answered_again(call, route)


async def look_up(call: Call, route: "Route", key: str) -> None:
    """Find out what a key stands for: ``call.earlier`` is its outcome, None if it is new.

    Raises:
        Denied: it stands for another request, or for one that was refused.
        Unavailable: the engine does not answer.
    """
    if STREAMED not in route.takes:  # its handler compares what is streamed
        await call.body()
    call.key, call.digest = key, digest_of(call)
    principal = call.principal
    asked = Keyed(
        user_id=principal.user_id, project_id=principal.project_id, key=key, digest=call.digest
    )
    answer = await ask_engine(call.edge.bus, "keyed", encode(asked))
    if answer == UNUSED:
        return
    outcome = decode_outcome(answer)
    if not isinstance(outcome.verdict, Accepted):
        if outcome.recorded:
            call.ordinal, call.repeated = outcome.ordinal, True
        call.rule = outcome.verdict.rule
        raise denied(outcome)
    call.earlier = outcome


async def answered_again(call: Call, route: "Route") -> Answer:
    """Answer a repetition: as the handler does, or, where things have moved on, with bare ids.

    The handler's ``write`` returns what the first one did.
    """
    assert call.earlier is not None, "only what was made is repeated"
    assert isinstance(call.earlier.verdict, Accepted), "what was refused is refused again"
    call.ordinal, call.repeated = call.earlier.ordinal, True
    try:
        return await route.handler(call)
    except Rejected as error:
        if error.status not in OVERTAKEN or isinstance(error, KeyReused):
            raise
    call.rule = call.earlier.verdict.rule
    status = next((s for s in route.status if s < 300), 200)
    if call.method == "DELETE" or status == 204:
        return Answer(status)
    return json_answer(call.earlier.verdict.reply, status)


def digest_of(call: Call) -> str:
    """Return what tells one keyed request from another: method, path, query and body."""
    hasher = hashlib.sha256()
    parts = [call.method.encode(), call.path.encode("latin-1", "replace")]
    if call.query_string:
        parts.append(call.query_string.encode("latin-1"))
    for part in parts:
        hasher.update(part + b"\0")
    hasher.update(call.raw)
    return hasher.hexdigest()
