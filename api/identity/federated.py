"""Signing in by an identity provider: with a token of its own, or with a browser (``websso``).

Invariant: what is handed to the engine was verified, and is only what the mapping looks at. A
provider signs in its own users only; see ``engine.domain.identity.federation``.
"""

import re
from collections.abc import Mapping
from typing import Any

from api.auth import now
from api.edge import VISIBLE_S
from api.exchange import Answer, Call
from api.identity.factors import Proof
from api.identity.scope import NOTHING
from api.identity.tokens import give
from api.oidc import Verified
from api.routing import PUBLIC, Routes
from api.writing import reply_of
from engine.bus.service import submit
from engine.domain.identity.mapping import wanted_claims
from schemas.envelope import Actor, Request
from schemas.errors import NotFound, Unauthorized, Unavailable
from schemas.identity import IdentityProvider, Oidc, Protocol, SignInFederated

_BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/=-]+)\Z", re.IGNORECASE)


async def bearer(call: Call) -> Answer:
    """GET and POST …/identity_providers/{id}/protocols/{id}/auth: a token for a provider's own."""
    limits = call.edge.limits
    if call.method != "POST":
        limits.sign_in(call.origin)
        await call.edge.freshness.need()
    _, protocol, oidc = trusted(call, *call.args)
    found = _BEARER.match(call.header(b"authorization"))
    if found is None:
        raise Unauthorized("this needs a token of the identity provider (Authorization: Bearer)")
    verified = await call.edge.providers.verified(oidc, found[1])
    proof = await vouched(call, protocol, verified)
    answer = await give(call, proof, NOTHING)
    if call.method != "POST":
        limits.signed_in(call.origin)
    return answer


def trusted(call: Call, idp_id: str, protocol_id: str) -> tuple[IdentityProvider, Protocol, Oidc]:
    """Return a provider by which users may sign in now.

    Raises:
        NotFound: there is no such provider or protocol.
        Unauthorized: it is disabled, or nobody has said how it is asked.
    """
    reader = call.edge.reader
    provider, protocol = reader.identity_provider(idp_id), reader.protocol(idp_id, protocol_id)
    if provider is None or protocol is None:
        raise NotFound(f"there is no identity provider {idp_id[:64]!r} with this protocol")
    if not provider.enabled or provider.oidc is None:
        raise Unauthorized("the identity provider is disabled, or not set up")
    return provider, protocol, provider.oidc


async def vouched(call: Call, protocol: Protocol, verified: Verified) -> Proof:
    """Have the engine understand what a provider says, and return who that is.

    Raises:
        Denied: the mapping makes nobody of it, or the user is not let in.
        Unavailable: the engine cannot be reached, or this node lags behind.
    """
    edge = call.edge
    mapping = edge.reader.mapping(protocol.mapping_id)
    wanted = frozenset() if mapping is None else wanted_claims(mapping.rules)
    action = SignInFederated(
        idp_id=protocol.idp_id,
        protocol_id=protocol.protocol_id,
        unique_id=verified.subject,
        claims=_texts(verified.claims, wanted),
    )
    outcome = await submit(
        edge.bus,
        Request(
            request_id=call.request_id,
            actor=Actor(kind="edge", user_id=edge.config.node),
            action=action,
            submitted_at=now(),
            client=call.client,
        ),
    )
    call.ordinal = outcome.ordinal if outcome.recorded else 0
    call.rule = outcome.verdict.rule
    reply = reply_of(outcome)
    await edge.waiter.reached(outcome.ordinal, VISIBLE_S)
    edge.authenticator.forget()
    user = edge.reader.user(reply["user_id"])
    if user is None:
        raise Unavailable("this node does not know yet who signed in")
    return Proof(
        user=user,
        methods=(protocol.protocol_id,),
        expires_at=reply["until"],
        idp_id=protocol.idp_id,
        protocol_id=protocol.protocol_id,
    )


def _texts(claims: Mapping[str, Any], wanted: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the claims that are wanted, as texts; what is neither text nor list is left out."""
    found: dict[str, tuple[str, ...]] = {}
    for name in wanted:
        value = claims.get(name)
        values = value if isinstance(value, list) else [value]
        texts = tuple(text for one in values if (text := _text(one)) is not None)
        if texts:
            found[name] = texts
    return found


def _text(value: Any) -> str | None:
    match value:
        case str():
            return value or None
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return None


def add(routes: Routes) -> None:
    """Route what this module answers."""
    path = "/v3/OS-FEDERATION/identity_providers/{}/protocols/{}/auth"
    routes.add("GET", path, bearer, PUBLIC, status=201)
    routes.add("POST", path, bearer, (PUBLIC, "SignInFederated"), status=201)
