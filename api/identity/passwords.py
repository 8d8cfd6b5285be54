"""Passwords: changed by who knows the old one, and what they must be.

Invariant: a change by the user itself needs the original password, which counts as an attempt to
sign in; no token is needed, so that an expired password can be changed.
"""

import base64
import secrets
from typing import Any

import msgspec
from msgspec import Struct

from api.auth import now
from api.exchange import Answer, Call, json_answer
from api.identity.factors import WRONG
from api.identity.signing_in import proven_by_password
from api.routing import PUBLIC, Routes
from api.sealing_inbound import need_unused, seal_password
from api.tokens import Token
from api.writing import write
from schemas.errors import InvalidInput, NotFound, Unauthorized
from schemas.identity import UpdateUser, User
from schemas.units import MINUTE, LongText


class _Change(Struct, frozen=True, forbid_unknown_fields=True):
    original_password: LongText
    password: LongText


class _ChangeBody(Struct, frozen=True, forbid_unknown_fields=True):
    user: _Change


_change = msgspec.json.Decoder(_ChangeBody)


async def change(call: Call) -> Answer:
    """POST /users/{id}/password: by the user itself, who knows the old one."""
    wish = (await call.decode(_change)).user
    edge = call.edge
    user = await proven_by_password(call, edge.reader.user(call.args[0]), wish.original_password)
    try:
        call.principal = edge.authenticator.look_up(_for_this_call(user))
    except Unauthorized as error:
        raise Unauthorized(WRONG) from error
    await need_unused(edge, user, wish.password)
    sealed = await seal_password(edge, wish.password, user)
    await write(call, UpdateUser(user_id=user.user_id, password=sealed, own=True))
    return Answer(204)


def _for_this_call(user: User) -> Token:
    """Return a token without scope for who has proven to be a user; nobody is given it."""
    issued_at = max(now(), user.tokens_valid_from)
    return Token(
        user_id=user.user_id,
        audit_id=base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode(),
        issued_at=issued_at,
        expires_at=issued_at + MINUTE,
        methods=("password",),
    )


async def show_policy(call: Call) -> Answer:
    """GET /v1/password-policy: what passwords must be, and what failed sign-ins do."""
    call.allow("identity:password_policy:read")
    return json_answer({"password_policy": call.edge.reader.password_policy()})


async def show_compliance(call: Call) -> Answer:
    """GET /domains/{id}/config/security_compliance: what clients need to make a password."""
    return json_answer({"config": {"security_compliance": _compliance(call)}})


async def show_option(call: Call) -> Answer:
    """GET /domains/{id}/config/security_compliance/{option}."""
    options = _compliance(call)
    if call.args[1] not in options:
        raise InvalidInput(f"of security_compliance, {' and '.join(options)} can be read")
    return json_answer({"config": {call.args[1]: options[call.args[1]]}})


def _compliance(call: Call) -> dict[str, Any]:
    """Return what Keystone shows, which is the same for all domains here."""
    call.allow("identity:password_policy:read")
    if call.edge.reader.domain(call.args[0]) is None:
        raise NotFound(f"there is no domain {call.args[0][:64]!r}")
    policy = call.edge.reader.password_policy()
    regex, told = policy.pattern, [policy.pattern_hint] if policy.pattern_hint else []
    if policy.length_min:
        regex = regex or f"^.{{{policy.length_min},}}$"
        told.append(f"at least {policy.length_min} characters")
    return {
        "password_regex": regex or None,
        "password_regex_description": "; ".join(told) or None,
    }


def add(routes: Routes) -> None:
    """Route what this module answers."""
    compliance = "/v3/domains/{}/config/security_compliance"
    read = "identity:password_policy:read"
    routes.add(
        "POST", "/v3/users/{}/password", change, (PUBLIC, "UpdateUser"), body=_change, status=204
    )
    routes.add("GET", compliance, show_compliance, read)
    routes.add("GET", f"{compliance}/{{}}", show_option, read)
