"""Signing in with a browser: to the identity provider and back, for a dashboard.

The dashboard sends people here with its ``origin``; they go on to the provider (authorization code
with PKCE, RFC 7636) and come back to ``/callback``, whose page posts an unscoped token to the
dashboard. Invariants: a token is posted to origins only that an operator trusts; what comes back
must belong to a journey that the same browser began here a few minutes ago, and counts once.
"""

import base64
import hashlib
import html
import secrets
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from api.auth import now
from api.exchange import Answer, Call
from api.identity.factors import WRONG
from api.identity.federated import trusted, vouched
from api.identity.scope import NOTHING
from api.identity.tokens import made
from api.routing import PUBLIC, Routes
from api.sealing_inbound import open_text
from schemas.errors import InvalidInput, Unauthorized
from schemas.units import MINUTE, Micros

JOURNEY: Micros = 10 * MINUTE
COOKIE = "cumulog_websso"
PLACE = "/identity/v3/auth/OS-FEDERATION"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Signing in</title></head>
<body>
<form id="sso" method="post" action="{origin}">
<input type="hidden" name="token" value="{token}">
<noscript><button type="submit">Go on</button></noscript>
</form>
<script nonce="{nonce}">document.getElementById("sso").submit();</script>
</body>
</html>
"""


class Journey(Struct, frozen=True, kw_only=True):
    """What a browser carries, sealed, while its user is with the provider."""

    idp_id: str
    protocol_id: str
    origin: str
    state: str
    nonce: str
    verifier: str  # of PKCE
    redirect_uri: str
    began_at: Micros


_decode = msgspec.json.Decoder(Journey).decode


async def begin(call: Call) -> Answer:
    """GET and POST …/identity_providers/{id}/protocols/{id}/websso: on to the provider."""
    return await _sent_on(call, *call.args)


async def begin_anywhere(call: Call) -> Answer:
    """GET and POST /auth/OS-FEDERATION/websso/{protocol}: to the one provider that speaks it."""
    reader = call.edge.reader
    found = [
        protocol.idp_id
        for protocol in reader.protocols(protocol_id=call.args[0])
        if (provider := reader.identity_provider(protocol.idp_id)) is not None
        and provider.enabled
        and provider.oidc is not None
    ]
    if len(found) != 1:
        raise InvalidInput("not one identity provider speaks this protocol; name it in the path")
    return await _sent_on(call, found[0], call.args[0])


async def _sent_on(call: Call, idp_id: str, protocol_id: str) -> Answer:
    origin = call.param("origin")
    if origin not in call.edge.config.trusted_dashboards:
        # Not repeated: whoever made this link up chose it.
        raise Unauthorized("the origin is not a dashboard that this cloud trusts")
    _, _, oidc = trusted(call, idp_id, protocol_id)
    metadata = await call.edge.providers.metadata(oidc)
    journey = Journey(
        idp_id=idp_id,
        protocol_id=protocol_id,
        origin=origin,
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        redirect_uri=f"{call.base}{PLACE}/callback",
        began_at=now(),
    )
    challenge = hashlib.sha256(journey.verifier.encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": oidc.client_id,
        "redirect_uri": journey.redirect_uri,
        "scope": " ".join(dict.fromkeys(("openid", *oidc.scopes))),
        "state": journey.state,
        "nonce": journey.nonce,
        "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    there = metadata.authorization_endpoint
    location = f"{there}{'&' if '?' in there else '?'}{urlencode(asked)}"
    return Answer(
        302,
        headers=[
            (b"location", location.encode("latin-1", "replace")),
            (b"cache-control", b"no-store"),
            _cookie(call, call.edge.ring.seal(journey), JOURNEY),
        ],
    )


async def come_back(call: Call) -> Answer:
    """GET /auth/OS-FEDERATION/callback: from the provider, with a code or a refusal."""
    limits = call.edge.limits
    limits.sign_in(call.origin)
    await call.edge.freshness.need()
    journey = await _journey(call)
    code = call.param("code")
    if not code:
        call.reason = "the identity provider has let nobody in"
        raise Unauthorized("the identity provider has let nobody in")
    _, protocol, oidc = trusted(call, journey.idp_id, journey.protocol_id)
    secret = None
    if oidc.client_secret is not None:
        secret = await open_text(call.edge, oidc.client_secret)
    providers = call.edge.providers
    told = await providers.redeem(
        oidc,
        code,
        verifier=journey.verifier,
        redirect_uri=journey.redirect_uri,
        secret=secret or "",
    )
    verified = await providers.verified(oidc, told, nonce=journey.nonce)
    token = made(call, await vouched(call, protocol, verified), NOTHING)
    limits.signed_in(call.origin)
    nonce = secrets.token_urlsafe(16)
    page = _PAGE.format(
        origin=html.escape(journey.origin),
        token=html.escape(call.edge.ring.seal(token)),
        nonce=nonce,
    )
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; frame-ancestors 'none'"
    return Answer(
        200,
        page.encode(),
        content_type=b"text/html; charset=utf-8",
        headers=[
            (b"cache-control", b"no-store"),
            (b"content-security-policy", policy.encode("ascii")),
            (b"referrer-policy", b"no-referrer"),
            _cookie(call, "", 0),
        ],
    )


async def _journey(call: Call) -> Journey:
    """Return the journey that ends here, and let it end only once.

    Raises:
        Unauthorized: this browser began none, it was too long ago, or it has ended before.
    """
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(call.header(b"cookie"))
    except CookieError as error:
        raise Unauthorized(WRONG) from error
    carried = cookies.get(COOKIE)
    journey = None
    if carried is not None:
        journey = await call.edge.ring.open_as(carried.value, _decode)
    state = call.param("state")
    if journey is None or not compare_digest(journey.state.encode(), state.encode()):
        raise Unauthorized("this browser has not begun to sign in here; begin anew")
    if journey.began_at + JOURNEY < now() or not call.edge.used_codes.take(journey.state, 1):
        raise Unauthorized("this way of signing in was too long ago, or is over; begin anew")
    return journey


def _cookie(call: Call, value: str, lifetime: Micros) -> tuple[bytes, bytes]:
    """Return the header that gives the browser a cookie, or takes it away.

    ``Lax``, since the browser comes back by a link from another site.
    """
    parts = [
        f"{COOKIE}={value}",
        f"Path={PLACE}",
        f"Max-Age={lifetime // 1_000_000}",
        "HttpOnly",
        "SameSite=Lax",
        *(["Secure"] if call.base.startswith("https:") else []),
    ]
    return b"set-cookie", "; ".join(parts).encode("ascii")


def add(routes: Routes) -> None:
    """Route what this module answers."""
    place = "/v3/auth/OS-FEDERATION"
    own = f"{place}/identity_providers/{{}}/protocols/{{}}/websso"
    asked = ("origin",)
    for method in ("GET", "POST"):
        routes.add(method, own, begin, PUBLIC, status=302, query=asked)
        anywhere = f"{place}/websso/{{}}"
        routes.add(method, anywhere, begin_anywhere, PUBLIC, status=302, query=asked)
    routes.add(
        "GET", f"{place}/callback", come_back, PUBLIC, query=("code", "state", "error"),
        gives="text/html",
    )  # fmt: skip
