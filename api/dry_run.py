"""Trying a request out: what would follow from it, what it would hold and cost, and nothing done.

Invariant: the engine is asked a question and given no request; nothing is recorded, whatever the
answer.
"""

from typing import Any

import msgspec

from api.auth import now
from api.errors import Denied, denied
from api.exchange import Answer, Call, json_answer
from engine.bus.service import ask_engine
from projections.estimate import Estimate, estimate
from projections.redaction import without_ciphertext
from schemas.compute import ServerCreated
from schemas.dry_run import DryRun
from schemas.envelope import Action, Refused, Request, decode_outcome, encode
from schemas.errors import Unauthorized

HEADER = b"x-cumulog-dry-run"

_tried = msgspec.json.Decoder(DryRun)


class Tried(Exception):
    """The call was tried and not made: ``answer`` says what would have followed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("tried, not made")
        self.answer = answer


def is_trial(call: Call) -> bool:
    """Return whether the caller asks by the header what would follow, and no more."""
    return call.header(HEADER) not in {"", "0", "false"}


async def try_out(call: Call, action: Action) -> Answer:
    """Return what would follow from an action: 200, also where it would be refused.

    Raises:
        Denied: the action is none, or nobody may ask with this token any more.
        Unavailable: the engine cannot be reached.
    """
    call.dry_run = True
    request = Request(
        request_id=call.request_id,
        actor=call.principal.actor,
        action=action,
        submitted_at=now(),
        client=call.client,
    )
    answer = await ask_engine(call.edge.bus, "dryrun", encode(request))
    try:
        tried = _tried.decode(answer)
    except msgspec.ValidationError:
        raise denied(decode_outcome(answer)) from None
    verdict = tried.verdict
    call.rule = verdict.rule
    body: dict[str, Any] = {"request_id": call.request_id, "ordinal": 0, "dry_run": True}
    if isinstance(verdict, Refused):
        if verdict.code == Unauthorized.code:
            raise Denied(verdict)
        body |= msgspec.to_builtins(verdict)
    else:
        body |= {"verdict": "accepted", "reply": verdict.reply}
    body |= {
        "reasons": tried.reasons,
        "facts": [without_ciphertext(msgspec.Raw(encode(fact))) for fact in tried.facts],
        "quota_after": tried.quota_after,
        "cost_per_month": _cost(call, tried),
        "as_of": tried.ordinal,
    }
    return json_answer(body)


def _cost(call: Call, tried: DryRun) -> Estimate | None:
    """Return what the facts would cost; the resources they are about are read as they stand."""
    reader = call.edge.reader
    server = None
    image_ids: set[str] = set()
    for fact in tried.facts:
        if isinstance(fact, ServerCreated):
            image_ids.add(fact.server.image_id or "")
        elif server_id := getattr(fact, "server_id", ""):
            server = server or reader.server(server_id)
        elif image_id := getattr(fact, "image_id", ""):
            image_ids.add(image_id)
    images = [image for i in sorted(image_ids) if (image := reader.image(i)) is not None]
    return estimate(tried.facts, server, images, tried.price_list, tried.at)
