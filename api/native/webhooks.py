"""Webhooks: where a project's events are sent, and how that goes.

An address is looked at before it is taken, and again by the courier for each connection. A secret
is told once, to whoever makes the webhook; from then on only the courier can open it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.pagination import page_of
from api.routing import Routes
from api.sealing_inbound import seal_for_project
from api.writing import write
from engine.bus.client import BusError
from projections.courier.addresses import addresses_of, networks, target_of
from projections.courier.book import Dead, Progress
from projections.courier.run import DeadAsk, StateAsk
from projections.courier.signature import new_secret, secret_bytes
from schemas.errors import InvalidInput, NotFound, Unavailable
from schemas.sealed import Sealed
from schemas.units import Ordinal, Text
from schemas.webhook import (
    CreateWebhook,
    DeleteWebhook,
    RedeliverWebhook,
    Types,
    UpdateWebhook,
    Url,
    Webhook,
    WebhookName,
)

ASK_S = 1.0
READ = "webhook:webhooks:read"
PREFIX = "cumulog."


class Wish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for when a webhook is made. Without a secret one is made."""

    name: WebhookName
    url: Url
    types: Types = ()
    secret: Text | None = None
    enabled: bool = True


class Change(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is changed; the rest stays. ``secret`` "" has a new one made."""

    name: WebhookName | None = None
    url: Url | None = None
    types: Types | None = None
    secret: Text | None = None
    enabled: bool | None = None


class Again(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where on to send again; nothing means what was given up."""

    after: Ordinal | None = None


_wish = msgspec.json.Decoder(Wish)
_change = msgspec.json.Decoder(Change)
_again = msgspec.json.Decoder(Again)
_states = msgspec.json.Decoder(dict[str, Progress])
_dead = msgspec.json.Decoder(list[Dead])


async def list_all(call: Call) -> Answer:
    """GET /v1/webhooks: of the caller's project, with how their deliveries stand."""
    page = page_of(call)
    found = call.edge.reader.webhooks(
        project_id=own_project(call), marker=page.marker, limit=page.limit
    )
    states = await _states_of(call, found)
    return json_answer({"webhooks": [_view(webhook, states) for webhook in found]})


async def show(call: Call) -> Answer:
    """GET /v1/webhooks/{id}."""
    webhook = _own(call)
    return json_answer({"webhook": _view(webhook, await _states_of(call, [webhook]))})


async def dead_letters(call: Call) -> Answer:
    """GET /v1/webhooks/{id}/dead-letters: events that were given up, the newest first."""
    webhook = _own(call)
    asked = DeadAsk(id=webhook.webhook_id, limit=page_of(call).limit or 1000)
    raw = await _ask(call, "dead", asked)
    if raw is None:
        raise Unavailable("the courier does not answer")
    return json_answer({"dead_letters": _dead.decode(raw)})


async def create(call: Call) -> Answer:
    """POST /v1/webhooks: the answer has the secret, this once."""
    wish = await call.decode(_wish)
    types = _types(wish.types)
    await _need_reachable(call, wish.url)
    secret = wish.secret or new_secret()
    action = CreateWebhook(
        name=wish.name,
        url=wish.url,
        secret=await _sealed(call, secret),
        types=types,
        enabled=wish.enabled,
    )
    reply = await write(call, action)
    # A repetition under a key made nothing: its secret is not the webhook's.
    return _answer(call, reply["webhook_id"], 201, secret="" if call.repeated else secret)


async def update(call: Call) -> Answer:
    """PATCH /v1/webhooks/{id}: the answer has the secret, if there is a new one."""
    change = await call.decode(_change)
    if change.url is not None:
        await _need_reachable(call, change.url)
    secret = None if change.secret is None else change.secret or new_secret()
    action = UpdateWebhook(
        webhook_id=_ident(call),
        name=change.name,
        url=change.url,
        secret=None if secret is None else await _sealed(call, secret),
        types=None if change.types is None else _types(change.types),
        enabled=change.enabled,
    )
    reply = await write(call, action)
    told = "" if secret is None or call.repeated else secret
    return _answer(call, reply["webhook_id"], 200, secret=told)


async def delete(call: Call) -> Answer:
    """DELETE /v1/webhooks/{id}."""
    await write(call, DeleteWebhook(webhook_id=_ident(call)))
    return Answer(204)


async def redeliver(call: Call) -> Answer:
    """POST /v1/webhooks/{id}/redeliver: what follows ``after`` again, or what was given up."""
    again = await call.decode(_again)
    await write(call, RedeliverWebhook(webhook_id=_ident(call), after=again.after))
    return json_answer({}, 202)


def _ident(call: Call) -> str:
    ident = call.args[0]
    if not ident.isascii() or not ident.replace("-", "").isalnum() or len(ident) > 64:
        raise NotFound(f"there is no webhook {ident[:64]!r}")
    return ident


def _own(call: Call) -> Webhook:
    webhook = call.edge.reader.webhook(call.args[0])
    if webhook is None or own_project(call) not in {None, webhook.project_id}:
        raise NotFound(f"there is no webhook {call.args[0][:64]!r}")
    return webhook


def _types(types: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind.removeprefix(PREFIX) or PREFIX for kind in types))


async def _need_reachable(call: Call, url: str) -> None:
    """Refuse an address to which nothing would be sent.

    Raises:
        AddressRefused: it leads nowhere, or where nothing is sent.
    """
    await addresses_of(target_of(url), networks(call.edge.config.webhook_allow))


async def _sealed(call: Call, secret: str) -> Sealed:
    secret_bytes(secret)
    project = call.principal.project
    if project is None:
        raise InvalidInput("a webhook needs a token scoped to a project")
    return await seal_for_project(call.edge, project, secret.encode())


def _answer(call: Call, webhook_id: str, status: int, *, secret: str) -> Answer:
    webhook = call.edge.reader.webhook(webhook_id)
    if webhook is None:  # deleted meanwhile, or this node's read model lags
        raise NotFound(f"the webhook {webhook_id} is not there")
    view = _view(webhook, {})
    return json_answer({"webhook": view | ({"secret": secret} if secret else {})}, status)


async def _states_of(call: Call, webhooks: Sequence[Webhook]) -> dict[str, Progress]:
    ids = tuple(webhook.webhook_id for webhook in webhooks)
    raw = await _ask(call, "state", StateAsk(ids=ids)) if ids else None
    return _states.decode(raw) if raw is not None else {}


async def _ask(call: Call, question: str, asked: Struct) -> bytes | None:
    """Ask the courier; None if it does not answer: what is subscribed is known without it."""
    if call.then is not None or call.edge.past:
        return None  # of how deliveries stood then nothing is kept
    bus = call.edge.bus
    try:
        subject = bus.subjects.courier(question)
        return await bus.request(subject, msgspec.json.encode(asked), timeout_s=ASK_S)
    except BusError:
        return None


def _view(webhook: Webhook, states: dict[str, Progress]) -> dict[str, Any]:
    state = states.get(webhook.webhook_id)
    return {
        "id": webhook.webhook_id,
        "project_id": webhook.project_id,
        "user_id": webhook.user_id,
        "name": webhook.name,
        "url": webhook.url,
        "types": webhook.types,
        "enabled": webhook.enabled,
        "cause": webhook.cause,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
        "delivery": None
        if state is None
        else {
            "last_ordinal": state.after,
            "delivered": state.delivered,
            "delivered_at": state.delivered_at,
            "failures": state.failures,
            "next_attempt_at": state.next_at,
            "error": state.error,
            "dead_letters": state.dead,
        },
    }


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one = "/v1/webhooks/{}"
    query = ("project", "project_id")
    paged = (*query, "limit", "marker")
    routes.add("GET", "/v1/webhooks", list_all, READ, query=paged)
    routes.add("POST", "/v1/webhooks", create, "CreateWebhook", status=201, body=_wish)
    routes.add("GET", one, show, READ, query=query)
    routes.add("PATCH", one, update, "UpdateWebhook", body=_change)
    routes.add("DELETE", one, delete, "DeleteWebhook", status=204)
    routes.add("POST", f"{one}/redeliver", redeliver, "RedeliverWebhook", status=202, body=_again)
    listed = (*query, "limit")
    routes.add("GET", f"{one}/dead-letters", dead_letters, READ, query=listed, present=True)
