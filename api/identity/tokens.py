"""Tokens: given to whoever signs in, shown, ended; and what their holders may have tokens for.

Invariant: a token never outlives what it was given for: another token, an application credential,
a trust.
"""

import base64
import secrets

import msgspec
from msgspec import Struct

from api.auth import Principal, now
from api.catalog import catalog_for
from api.errors import Denied
from api.exchange import Answer, Call, json_answer
from api.identity.factors import WRONG, FactorsMissing, Proof, receipt_answer
from api.identity.scope import Scope, Wish, has_role, scope_of
from api.identity.signing_in import Identity, identify
from api.identity.token_views import token_view
from api.identity.views import domain_view, project_view
from api.pagination import flag
from api.routing import PUBLIC, Routes
from api.tokens import LIFETIME, Token
from api.writing import write
from schemas.errors import Forbidden, InvalidInput, NotFound, Unauthorized
from schemas.identity import SYSTEM, RevokeToken, Trust, User, UseTrust
from schemas.units import HOUR, Micros

RULES_HEADER = b"openstack-identity-access-rules"
EXPIRED_SHOWN: Micros = 48 * HOUR  # as Keystone's allow_expired_window


class _Auth(Struct, frozen=True, forbid_unknown_fields=True):
    identity: Identity
    scope: Wish = None


class _AuthBody(Struct, frozen=True, forbid_unknown_fields=True):
    auth: _Auth


SUBJECT = ("X-Subject-Token",)

_decoder = msgspec.json.Decoder(_AuthBody)


async def create(call: Call) -> Answer:
    """POST /auth/tokens: sign in."""
    auth = (await call.decode(_decoder)).auth
    try:
        proof = await identify(call, auth.identity)
    except FactorsMissing as error:
        return receipt_answer(call, error.proof)
    scope = scope_of(call, proof, auth.scope)
    user = proof.user
    if scope.trust is not None:
        user = await _use(call, proof, scope.trust)
    return await give(call, proof, scope, user)


async def give(call: Call, proof: Proof, scope: Scope, user: User | None = None) -> Answer:
    """Answer with a token for who has proven to be a user, or for the user it acts as.

    Raises:
        Unauthorized: it would not count.
    """
    token = made(call, proof, scope, user)
    principal = call.principal
    view = token_view(principal, call.edge.reader, call.base, with_catalog=_with_catalog(call))
    text = call.edge.ring.seal(token).encode("ascii")
    return json_answer(view, 201, headers=_token_headers(text))


def made(call: Call, proof: Proof, scope: Scope, user: User | None = None) -> Token:
    """Return a token that counts, and let its holder be the caller.

    What an identity provider has said of a user bounds all of the user's tokens.

    Raises:
        Unauthorized: it would not count.
    """
    user = proof.user if user is None else user
    told = call.edge.reader.federated(user.user_id)
    token = _token(user, proof, scope, None if told is None else told.until)
    try:
        call.principal = call.edge.authenticator.look_up(token)
    except Unauthorized as error:
        raise Unauthorized(WRONG) from error
    return token


def _token(user: User, proof: Proof, scope: Scope, until: Micros | None = None) -> Token:
    issued_at = max(now(), user.tokens_valid_from)
    credential, trust = proof.application_credential, scope.trust
    ends = [proof.expires_at, None if trust is None else trust.expires_at, until]
    if not proof.parent_audit_id:
        ends.append(issued_at + LIFETIME)
    return Token(
        user_id=user.user_id,
        project_id="" if scope.project is None else scope.project.project_id,
        domain_id="" if scope.domain is None else scope.domain.domain_id,
        system=scope.system,
        audit_id=base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode(),
        parent_audit_id=proof.parent_audit_id,
        issued_at=issued_at,
        expires_at=min(end for end in ends if end is not None),
        methods=proof.methods,
        application_credential_id=""
        if credential is None
        else credential.application_credential_id,
        trust_id="" if trust is None else trust.trust_id,
        idp_id=proof.idp_id,
        protocol_id=proof.protocol_id,
    )


async def _use(call: Call, proof: Proof, trust: Trust) -> User:
    """Count a use of a trust by who signs in, and return whose token is to be given.

    Raises:
        Unauthorized: it may not be used any more, or its trustor is gone.
    """
    reader = call.edge.reader
    trustor = reader.user(trust.trustor_user_id)
    if trustor is None:
        raise Unauthorized(WRONG)
    if trust.remaining_uses is not None:
        unscoped = _token(proof.user, proof, Scope())
        call.principal = call.edge.authenticator.look_up(unscoped)
        try:
            await write(call, UseTrust(trust_id=trust.trust_id))
        except Denied as error:
            raise Unauthorized(WRONG) from error
    return trustor if trust.impersonation else proof.user


def _token_headers(text: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x-subject-token", text), (b"vary", b"X-Auth-Token")]


def _with_catalog(call: Call) -> bool:
    return not any(name == "nocatalog" for name, _ in call.query)


async def _subject(call: Call, *, allow_expired: bool = False) -> tuple[Principal, bytes]:
    """Return the holder of the token asked about; the caller itself, or any for who may."""
    text = call.header(b"x-subject-token")
    if not text:
        raise InvalidInput("the header X-Subject-Token is missing")
    reach = call.allow("identity:tokens:read")
    try:
        subject = await call.edge.authenticator.principal(
            text, expired_for=EXPIRED_SHOWN if allow_expired else 0
        )
    except Unauthorized as error:
        raise NotFound("there is no such token, or it does not count any more") from error
    if not reach.any and subject.user_id != call.principal.user_id:
        raise Forbidden("another user's token is not shown to you")
    return subject, text.encode("latin-1")


async def show(call: Call) -> Answer:
    """GET and HEAD /auth/tokens.

    One that is bound by access rules is shown to those only who say that they heed such rules.
    """
    subject, text = await _subject(call, allow_expired=bool(flag(call, "allow_expired")))
    if subject.rules is not None and not call.header(RULES_HEADER):
        raise NotFound("this token is bound by access rules; say that you heed them by a header")
    view = token_view(subject, call.edge.reader, call.base, with_catalog=_with_catalog(call))
    return json_answer(view, headers=_token_headers(text))


async def revoke(call: Call) -> Answer:
    """DELETE /auth/tokens."""
    subject, _ = await _subject(call)
    reach = call.allow("RevokeToken")
    if not reach.any and subject.user_id != call.principal.user_id:
        raise Forbidden("another user's token is ended by administrators only")
    token = subject.token
    await write(call, RevokeToken(audit_id=token.audit_id, expires_at=token.expires_at))
    return Answer(204)


async def show_catalog(call: Call) -> Answer:
    """GET /auth/catalog."""
    if not call.principal.scope:
        raise Forbidden("a token without a scope has no catalog")
    return json_answer(
        {
            "catalog": catalog_for(call.principal, call.edge.reader, call.base),
            "links": {"self": f"{call.base}/identity/v3/auth/catalog"},
        }
    )


async def my_projects(call: Call) -> Answer:
    """GET /auth/projects: what the caller may scope a token to."""
    projects = call.edge.reader.projects(user_id=call.principal.user_id, enabled=True)
    return json_answer(
        {
            "projects": [project_view(p, call.base) for p in projects],
            "links": {"self": call.base + call.path, "previous": None, "next": None},
        }
    )


async def my_domains(call: Call) -> Answer:
    """GET /auth/domains: those that the caller may scope a token to."""
    domains = call.edge.reader.domains(user_id=call.principal.user_id, enabled=True)
    return json_answer(
        {
            "domains": [domain_view(d, call.base) for d in domains],
            "links": {"self": call.base + call.path, "previous": None, "next": None},
        }
    )


async def my_system(call: Call) -> Answer:
    """GET /auth/system: whether the caller may have a token of the whole system."""
    may = has_role(call, call.principal.user_id, SYSTEM)
    links = {"self": call.base + call.path}
    return json_answer({"system": [{"all": True}] if may else [], "links": links})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    tokens, mine = "identity:tokens:read", "identity:own_scopes:read"
    routes.add(
        "POST", "/v3/auth/tokens", create, PUBLIC, body=_decoder, status=201, query=("nocatalog",)
    )
    asked = ("nocatalog", "allow_expired")
    routes.add("GET", "/v3/auth/tokens", show, tokens, query=asked, headers=SUBJECT, present=True)
    routes.add("DELETE", "/v3/auth/tokens", revoke, "RevokeToken", status=204, headers=SUBJECT)
    routes.add("GET", "/v3/auth/catalog", show_catalog, mine)
    routes.add("GET", "/v3/auth/projects", my_projects, mine)
    routes.add("GET", "/v3/auth/domains", my_domains, mine)
    routes.add("GET", "/v3/auth/system", my_system, mine)
