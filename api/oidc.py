"""OpenID Connect: asks a provider for its keys, and verifies what it has signed.

Invariants: what is taken was signed by a key that the issuer publishes, with an asymmetric
algorithm, for this cloud, and counts now. Every question to a provider has a deadline and a bound
of bytes, follows no redirect, and goes over TLS unless to the loopback; however many tokens with
unknown keys come, keys are asked for once in a while.
"""

import asyncio
import base64
import binascii
from collections.abc import Mapping
from time import monotonic, time
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from msgspec import Struct

from schemas.errors import Unauthorized, Unavailable
from schemas.identity import Oidc

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
TOKEN_CHARS_MAX = 16_384
ANSWER_BYTES_MAX = 256 * 1024
ANSWER_S = 5.0
KEYS_S = 600.0  # how old keys may be before they are asked for again
STALE_S = 86_400.0  # how old they may be if the provider does not answer
ASK_AGAIN_S = 10.0  # between two questions to one issuer
LEEWAY_S = 60  # between clocks
ISSUERS_MAX = 64

log = structlog.get_logger(__name__)

type Key = RSAKey | ECKey | OKPKey


class Metadata(Struct, frozen=True):
    """What a provider tells of itself (OpenID Connect Discovery 1.0)."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""


class _Jwks(Struct, frozen=True):
    keys: tuple[dict[str, Any], ...]


class _Tokens(Struct, frozen=True):
    id_token: str


class _Head(Struct, frozen=True):
    alg: str
    kid: str = ""


class Verified(Struct, frozen=True):
    """What a provider has said of somebody."""

    subject: str
    claims: Mapping[str, Any]


class Known(Struct):
    """What is known of one issuer."""

    metadata: Metadata | None = None
    keys: tuple[Key, ...] = ()
    told_at: float = float("-inf")
    asked_at: float = float("-inf")
    asking: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)


_decode_metadata = msgspec.json.Decoder(Metadata).decode
_decode_jwks = msgspec.json.Decoder(_Jwks).decode
_decode_tokens = msgspec.json.Decoder(_Tokens).decode
_decode_head = msgspec.json.Decoder(_Head).decode


class Providers:
    """What one edge knows of the issuers that it trusts."""

    def __init__(self, *, ask_again_s: float = ASK_AGAIN_S) -> None:
        self._ask_again_s = ask_again_s
        self._known: dict[str, Known] = {}
        self._client: httpx2.AsyncClient | None = None
        self.asked = 0  # questions to providers

    async def close(self) -> None:
        """Close connections to providers."""
        if self._client is not None:
            await self._client.aclose()

    async def verified(self, oidc: Oidc, text: str, *, nonce: str | None = None) -> Verified:
        """Return what a token says, once all of it is checked.

        Raises:
            Unauthorized: it is not the issuer's, not for us, or does not count now.
            Unavailable: the issuer's keys cannot be read.
        """
        head = _head(text)
        for key in await self._candidates(oidc.issuer, head):
            try:
                claims = jwt.decode(text, key, algorithms=list(ALGORITHMS)).claims
            except (JoseError, ValueError):
                continue
            _check(oidc, claims, nonce)
            return Verified(claims["sub"], claims)
        raise Unauthorized("the token is not signed by a key of the identity provider")

    async def metadata(self, oidc: Oidc) -> Metadata:
        """Return what a provider tells of itself.

        Raises:
            Unavailable: it does not answer, or says what it must not.
        """
        known = self._of(oidc.issuer)
        if known.metadata is None or monotonic() - known.told_at > KEYS_S:
            await self._ask(oidc.issuer, known)
        if known.metadata is None:
            raise Unavailable("the identity provider cannot be asked")
        return known.metadata

    async def redeem(
        self, oidc: Oidc, code: str, *, verifier: str, redirect_uri: str, secret: str
    ) -> str:
        """Return the ID token that a code is good for.

        Raises:
            Unauthorized: it is good for none.
            Unavailable: the provider does not answer.
        """
        metadata = await self.metadata(oidc)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": oidc.client_id,
            "code_verifier": verifier,
        }
        if secret:
            form["client_secret"] = secret
        try:
            answer = await self._fetch(metadata.token_endpoint, form)
            return _decode_tokens(answer).id_token
        except _Refused as error:
            raise Unauthorized("the identity provider does not take the code") from error
        except (*_FAILURES, msgspec.MsgspecError) as error:
            raise Unavailable("the identity provider cannot be asked") from error

    def _of(self, issuer: str) -> Known:
        known = self._known.get(issuer)
        if known is None:
            while len(self._known) >= ISSUERS_MAX:
                self._known.pop(next(iter(self._known)))
            known = self._known[issuer] = Known()
        return known

    async def _candidates(self, issuer: str, head: _Head) -> tuple[Key, ...]:
        """Return the keys that may have signed a token."""
        known = self._of(issuer)
        found = _matching(known.keys, head)
        age = monotonic() - known.told_at
        if not found or age > KEYS_S:
            await self._ask(issuer, known)
            found = _matching(known.keys, head)
        if not known.keys or monotonic() - known.told_at > STALE_S:
            raise Unavailable("the identity provider's keys cannot be read")
        return found

    async def _ask(self, issuer: str, known: Known) -> None:
        """Read metadata and keys, unless that was tried a moment ago; who waits shares it."""
        async with known.asking:
            if monotonic() - known.asked_at < self._ask_again_s:
                return
            known.asked_at = monotonic()
            try:
                metadata = await self._read(issuer)
                keys = _keys(_decode_jwks(await self._fetch(metadata.jwks_uri)))
            except (*_FAILURES, _Refused, msgspec.MsgspecError) as error:
                log.warning("identity_provider_not_asked", issuer=issuer, error=repr(error)[:300])
                return
            known.metadata, known.keys, known.told_at = metadata, keys, monotonic()

    async def _read(self, issuer: str) -> Metadata:
        place = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = _decode_metadata(await self._fetch(place))
        if metadata.issuer != issuer:
            raise _Refused(f"it calls itself {metadata.issuer[:200]!r}")
        return metadata

    async def _fetch(self, url: str, form: dict[str, str] | None = None) -> bytes:
        """Return what is at an address."""
        if not _is_private(url):
            raise _Refused(f"{url[:200]!r} is not reached over TLS")
        if self._client is None:
            self._client = httpx2.AsyncClient(
                follow_redirects=False,
                timeout=ANSWER_S,
                trust_env=False,
                headers={"accept": "application/json"},
            )
        self.asked += 1
        method = "GET" if form is None else "POST"
        async with (
            asyncio.timeout(ANSWER_S),
            self._client.stream(method, url, data=form) as response,
        ):
            if response.status_code != 200:
                raise _Refused(f"it answers {response.status_code}")
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise _Refused(f"it answers with more than {ANSWER_BYTES_MAX} bytes")
            return body


class _Refused(Exception):
    """A provider has answered, and not as it must."""


_FAILURES = (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError)


def _is_private(url: str) -> bool:
    """Say whether nobody can have changed what comes from there."""
    try:
        at = urlsplit(url)
        host = at.hostname
    except ValueError:
        return False
    local = host in {"localhost", "127.0.0.1", "::1"}
    return bool(host) and (at.scheme == "https" or (at.scheme == "http" and local))


def _head(text: str) -> _Head:
    """Return what a token says of its signature; nothing of it is trusted yet.

    Raises:
        Unauthorized: it is no signed token (JWS), or of an algorithm that is not taken.
    """
    if len(text) > TOKEN_CHARS_MAX or not text.isascii() or text.count(".") != 2:
        raise Unauthorized("the bearer token is no signed JSON Web Token")
    first = text.partition(".")[0]
    try:
        head = _decode_head(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise Unauthorized("the bearer token is no signed JSON Web Token") from error
    if head.alg not in ALGORITHMS:
        raise Unauthorized("the bearer token is not signed by an algorithm that is taken")
    return head


def _keys(jwks: _Jwks) -> tuple[Key, ...]:
    """Return the public keys that sign; what is of no known kind is left out."""
    found: list[Key] = []
    for told in jwks.keys[:32]:
        if told.get("use", "sig") != "sig":
            continue
        try:
            match told.get("kty"):
                case "RSA":
                    found.append(RSAKey.import_key(told))
                case "EC":
                    found.append(ECKey.import_key(told))
                case "OKP":
                    found.append(OKPKey.import_key(told))
                case _:
                    pass
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return tuple(found)


def _matching(keys: tuple[Key, ...], head: _Head) -> tuple[Key, ...]:
    if not head.kid:
        return keys
    return tuple(key for key in keys if key.kid == head.kid)


def _check(oidc: Oidc, claims: dict[str, Any], nonce: str | None) -> None:
    """Check what a token says of itself (OpenID Connect Core 1.0, 3.1.3.7).

    Raises:
        Unauthorized: the message says what does not hold.
    """
    now = time()
    ours = {oidc.client_id, *oidc.audiences}
    audience = claims.get("aud")
    audiences = {one for one in _listed(audience) if isinstance(one, str)}
    expires, not_before = claims.get("exp"), claims.get("nbf", 0)
    subject = claims.get("sub")
    if claims.get("iss") != oidc.issuer:
        raise Unauthorized("the token is of another issuer")
    if not audiences & ours:
        raise Unauthorized("the token is for somebody else")
    if claims.get("azp", oidc.client_id) not in ours:
        raise Unauthorized("the token was given to somebody else")
    if not _is_number(expires) or expires + LEEWAY_S <= now:
        raise Unauthorized("the token has expired")
    if not _is_number(not_before) or not_before - LEEWAY_S > now:
        raise Unauthorized("the token does not count yet")
    issued = claims.get("iat", 0)
    if not _is_number(issued) or issued - LEEWAY_S > now:
        raise Unauthorized("the token is from the future")
    if nonce is not None and claims.get("nonce") != nonce:
        raise Unauthorized("the token is an answer to another question")
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
        raise Unauthorized("the token names no subject")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
