"""Tokens: given for a password or another token, shown, ended.

Invariant: whoever fails to sign in is told only that (401), and it takes as long whether the user
exists or not.
"""

import base64
import secrets

import msgspec
from msgspec import Struct

from api.auth import Principal, now
from api.catalog import catalog
from api.exchange import Answer, Call, json_answer
from api.identity.views import domain_view, project_view, token_view
from api.routing import PUBLIC, Routes
from api.sealing_inbound import password_hash
from api.tokens import LIFETIME, Token
from api.writing import write
from engine.domain.identity.directory import roles_on
from schemas.errors import Forbidden, InvalidInput, NotFound, Unauthorized
from schemas.identity import Project, RevokeToken, User

WRONG = "the user, password or scope is not right"


class _DomainRef(Struct, frozen=True, forbid_unknown_fields=True):
    id: str | None = None
    name: str | None = None


class _UserRef(Struct, frozen=True, forbid_unknown_fields=True):
    password: str
    id: str | None = None
    name: str | None = None
    domain: _DomainRef | None = None


class _Password(Struct, frozen=True, forbid_unknown_fields=True):
    user: _UserRef


class _TokenRef(Struct, frozen=True, forbid_unknown_fields=True):
    id: str


class _Identity(Struct, frozen=True, forbid_unknown_fields=True):
    methods: tuple[str, ...]
    password: _Password | None = None
    token: _TokenRef | None = None
    application_credential: msgspec.Raw | None = None
    totp: msgspec.Raw | None = None


class _ProjectRef(Struct, frozen=True, forbid_unknown_fields=True):
    id: str | None = None
    name: str | None = None
    domain: _DomainRef | None = None


class _Scope(Struct, frozen=True, forbid_unknown_fields=True):
    project: _ProjectRef | None = None
    domain: _DomainRef | None = None
    system: dict[str, bool] | None = None
    unscoped: dict[str, msgspec.Raw] | None = None


class _Auth(Struct, frozen=True, forbid_unknown_fields=True):
    identity: _Identity
    scope: _Scope | str | None = None


class _AuthBody(Struct, frozen=True, forbid_unknown_fields=True):
    auth: _Auth


_decoder = msgspec.json.Decoder(_AuthBody)


async def create(call: Call) -> Answer:
    """POST /auth/tokens: sign in."""
    auth = (await call.decode(_decoder)).auth
    user, methods, expires_at = await _identify(call, auth.identity)
    project = _scope(call, user, auth.scope)
    issued_at = max(now(), user.tokens_valid_from)
    token = Token(
        user_id=user.user_id,
        project_id=project.project_id if project else "",
        audit_id=base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode(),
        issued_at=issued_at,
        expires_at=expires_at or issued_at + LIFETIME,
        methods=methods,
    )
    principal = call.principal = call.edge.authenticator.look_up(token)
    view = token_view(principal, call.edge.reader, call.base, with_catalog=_with_catalog(call))
    text = call.edge.ring.seal(token).encode("ascii")
    return json_answer(view, 201, headers=_token_headers(text))


def _token_headers(text: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x-subject-token", text), (b"vary", b"X-Auth-Token")]


def _with_catalog(call: Call) -> bool:
    return not any(name == "nocatalog" for name, _ in call.query)


async def _identify(call: Call, identity: _Identity) -> tuple[User, tuple[str, ...], int]:
    """Return the user, how it proved itself, and when the token it came with ends (0: none)."""
    if identity.methods == ("password",) and identity.password is not None:
        return await _by_password(call, identity.password.user), ("password",), 0
    if identity.methods == ("token",) and identity.token is not None:
        held = await call.edge.authenticator.principal(identity.token.id)
        methods = tuple(dict.fromkeys((*held.token.methods, "token")))
        return held.user, methods, held.token.expires_at
    if any(method not in {"password", "token"} for method in identity.methods):
        raise Unauthorized("of the methods of signing in, password and token are offered")
    raise InvalidInput("identity.methods must name one method, with its data beside it")


async def _by_password(call: Call, ref: _UserRef) -> User:
    edge = call.edge
    user: User | None = None
    if ref.id is not None:
        user = edge.reader.user(ref.id)
    elif ref.name is None:
        raise InvalidInput("a user is given by id, or by name and domain")
    elif ref.domain is None:
        raise InvalidInput("a user given by name needs its domain")
    else:
        domain_id = _domain_id(call, ref.domain)
        users = edge.reader.users(domain_id=domain_id, name=ref.name) if domain_id else []
        user = users[0] if users else None
    encoded = None if user is None else await password_hash(edge, user)
    if not await edge.passwords.verify(encoded, ref.password) or user is None:
        raise Unauthorized(WRONG)
    return user


def _domain_id(call: Call, ref: _DomainRef) -> str | None:
    if ref.id is not None:
        return ref.id
    if ref.name is None:
        raise InvalidInput("a domain is given by id or by name")
    domains = call.edge.reader.domains(name=ref.name)
    return domains[0].domain_id if domains else None


def _scope(call: Call, user: User, scope: _Scope | str | None) -> Project | None:
    """Return the project asked for, or None for an unscoped token."""
    reader = call.edge.reader
    if isinstance(scope, str):
        if scope != "unscoped":
            raise InvalidInput("scope is an object, or the text unscoped")
        return None
    if scope is None:
        project = reader.project(user.default_project_id) if user.default_project_id else None
        return project if project and _may_scope(call, user, project) else None
    if scope.unscoped is not None:
        return None
    ref = scope.project
    if ref is None:
        raise Unauthorized(WRONG)  # Nobody has a role on a domain or on the system.
    if ref.id is not None:
        project = reader.project(ref.id)
    elif ref.name is None or ref.domain is None:
        raise InvalidInput("a project is given by id, or by name and domain")
    else:
        domain_id = _domain_id(call, ref.domain)
        found = reader.projects(domain_id=domain_id, name=ref.name) if domain_id else []
        project = found[0] if found else None
    if project is None or not _may_scope(call, user, project):
        raise Unauthorized(WRONG)
    return project


def _may_scope(call: Call, user: User, project: Project) -> bool:
    return project.enabled and bool(roles_on(call.edge.reader, user.user_id, project.project_id))


async def _subject(call: Call) -> tuple[Principal, bytes]:
    """Return the holder of the token asked about; the caller itself, or any for admins."""
    text = call.header(b"x-subject-token")
    if not text:
        raise InvalidInput("the header X-Subject-Token is missing")
    try:
        subject = await call.edge.authenticator.principal(text)
    except Unauthorized as error:
        raise NotFound("there is no such token, or it does not count any more") from error
    if subject.user_id != call.principal.user_id and not call.principal.is_admin:
        raise Forbidden("another user's token is shown to administrators only")
    return subject, text.encode("latin-1")


async def show(call: Call) -> Answer:
    """GET and HEAD /auth/tokens."""
    subject, text = await _subject(call)
    view = token_view(subject, call.edge.reader, call.base, with_catalog=_with_catalog(call))
    return json_answer(view, headers=_token_headers(text))


async def revoke(call: Call) -> Answer:
    """DELETE /auth/tokens."""
    subject, _ = await _subject(call)
    token = subject.token
    await write(call, RevokeToken(audit_id=token.audit_id, expires_at=token.expires_at))
    return Answer(204)


async def show_catalog(call: Call) -> Answer:
    """GET /auth/catalog."""
    return json_answer(
        {
            "catalog": catalog(call.base) if call.principal.project is not None else [],
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
    """GET /auth/domains: nobody has a role on a domain, so this is empty but for administrators."""
    domains = call.edge.reader.domains() if call.principal.is_admin else []
    return json_answer(
        {
            "domains": [domain_view(d, call.base) for d in domains],
            "links": {"self": call.base + call.path, "previous": None, "next": None},
        }
    )


async def my_system(call: Call) -> Answer:
    """GET /auth/system: tokens of the whole system are not offered."""
    return json_answer({"system": [], "links": {"self": call.base + call.path}})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    tokens, mine = "identity:tokens:read", "identity:own_scopes:read"
    routes.add(
        "POST", "/v3/auth/tokens", create, PUBLIC, body=_decoder, status=201, query=("nocatalog",)
    )
    routes.add("GET", "/v3/auth/tokens", show, tokens, query=("nocatalog",))
    routes.add("DELETE", "/v3/auth/tokens", revoke, "RevokeToken", status=204)
    routes.add("GET", "/v3/auth/catalog", show_catalog, "identity:catalog:read")
    routes.add("GET", "/v3/auth/projects", my_projects, mine)
    routes.add("GET", "/v3/auth/domains", my_domains, mine)
    routes.add("GET", "/v3/auth/system", my_system, mine)
