"""Application credentials: made by users for their programs, with a secret that is shown once."""

import secrets
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.delegation import RoleRef, role_ids, role_refs, time_given
from api.identity.lists import BY_NAME, link, listing
from api.routing import Routes
from api.sealing_inbound import seal_secret
from api.times import micros_naive
from api.writing import write
from schemas.errors import Forbidden, NotFound
from schemas.identity import (
    AccessRule,
    ApplicationCredential,
    CreateApplicationCredential,
    DeleteAccessRule,
    DeleteApplicationCredential,
    NewAccessRule,
)
from schemas.units import LongText, Text

READ = "identity:application_credentials:read"
SECRET_BYTES = 64


class _Rule(Struct, frozen=True, forbid_unknown_fields=True):
    id: Text | None = None
    service: Text | None = None
    method: Text | None = None
    path: LongText | None = None


class _New(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    secret: LongText | None = None
    description: LongText | None = None
    expires_at: Text | None = None
    roles: Annotated[tuple[RoleRef, ...], Meta(max_length=128)] | None = None
    unrestricted: bool | None = None
    access_rules: Annotated[tuple[_Rule, ...], Meta(max_length=128)] | None = None
    project_id: Text | None = None


class _NewBody(Struct, frozen=True, forbid_unknown_fields=True):
    application_credential: _New


_new = msgspec.json.Decoder(_NewBody)


def _view(call: Call, credential: ApplicationCredential) -> dict[str, Any]:
    ident, user_id = credential.application_credential_id, credential.user_id
    expires_at = credential.expires_at
    view: dict[str, Any] = {
        "id": ident,
        "name": credential.name,
        "description": credential.description or None,
        "project_id": credential.project_id,
        "user_id": user_id,
        "roles": role_refs(call, credential.role_ids),
        "expires_at": None if expires_at is None else micros_naive(expires_at),
        "unrestricted": credential.unrestricted,
        "system": None,
        "links": link(call, f"users/{user_id}/application_credentials/{ident}"),
    }
    if credential.access_rule_ids is not None:
        rules = {r.access_rule_id: r for r in call.edge.reader.access_rules(user_id)}
        wanted = credential.access_rule_ids
        view["access_rules"] = [_bare_rule(rules[one]) for one in wanted if one in rules]
    return view


def _bare_rule(rule: AccessRule) -> dict[str, Any]:
    return {
        "id": rule.access_rule_id,
        "service": rule.service,
        "method": rule.method,
        "path": rule.path,
    }


def _rule_view(call: Call, user_id: str, rule: AccessRule) -> dict[str, Any]:
    path = f"users/{user_id}/access_rules/{rule.access_rule_id}"
    return {**_bare_rule(rule), "links": link(call, path)}


def _owner(call: Call) -> str:
    """Return the id of the user of the path, whose credentials the caller may see.

    Raises:
        Forbidden: it is another user, and the caller sees its own only.
        NotFound: there is no such user.
    """
    reach, ident = call.allow(READ), call.args[0]
    if not (reach.any or (reach.user and ident == call.principal.user_id)):
        raise Forbidden("application credentials of others are not shown to you")
    if call.edge.reader.user(ident) is None:
        raise NotFound(f"there is no user {ident[:64]!r}")
    return ident


def _find(call: Call) -> ApplicationCredential:
    user_id, ident = _owner(call), call.args[1]
    credential = call.edge.reader.application_credential(ident)
    if credential is None or credential.user_id != user_id:
        raise NotFound(f"there is no application credential {ident[:64]!r}")
    return credential


async def list_credentials(call: Call) -> Answer:
    """GET /users/{id}/application_credentials."""
    found = call.edge.reader.application_credentials(
        user_id=_owner(call), name=call.param("name") or None
    )
    return listing(call, "application_credentials", [_view(call, one) for one in found])


async def create_credential(call: Call) -> Answer:
    """POST /users/{id}/application_credentials: for the project of the token, by its user."""
    wish = (await call.decode(_new)).application_credential
    call.allow("CreateApplicationCredential")
    user = call.principal.user
    if call.args[0] != user.user_id:
        raise Forbidden("an application credential is made by its user")
    if wish.project_id not in {None, call.principal.project_id}:
        raise Forbidden("an application credential is made with a token of its project")
    secret = wish.secret or secrets.token_urlsafe(SECRET_BYTES)
    # The openstack command sends an empty list where none are wanted, and so Keystone takes it.
    rules = wish.access_rules or None
    reply = await write(
        call,
        CreateApplicationCredential(
            name=wish.name,
            secret=await seal_secret(call.edge, secret, user),
            role_ids=role_ids(call, wish.roles or ()),
            description=wish.description or "",
            expires_at=time_given(wish.expires_at),
            unrestricted=bool(wish.unrestricted),
            access_rules=None if rules is None else tuple(_new_rule(rule) for rule in rules),
        ),
    )
    ident = reply["application_credential_id"]
    credential = call.edge.reader.application_credential(ident)
    if credential is None:
        raise NotFound(f"there is no application credential {ident!r}")
    view = _view(call, credential)
    if not call.repeated:  # it is told once, and this one was made in vain
        view["secret"] = secret
    return json_answer({"application_credential": view}, 201)


def _new_rule(rule: _Rule) -> NewAccessRule:
    # Method and path are judged by the engine's schema.
    return NewAccessRule(
        access_rule_id=rule.id,
        service=rule.service,
        method=rule.method,  # type: ignore[arg-type]  # see above
        path=rule.path,
    )


async def show_credential(call: Call) -> Answer:
    """GET /users/{id}/application_credentials/{id}."""
    return json_answer({"application_credential": _view(call, _find(call))})


async def delete_credential(call: Call) -> Answer:
    """DELETE /users/{id}/application_credentials/{id}."""
    credential = _find(call)
    await write(
        call,
        DeleteApplicationCredential(application_credential_id=credential.application_credential_id),
    )
    return Answer(204)


async def list_rules(call: Call) -> Answer:
    """GET /users/{id}/access_rules."""
    user_id = _owner(call)
    rules = call.edge.reader.access_rules(user_id)
    return listing(call, "access_rules", [_rule_view(call, user_id, rule) for rule in rules])


def _find_rule(call: Call) -> AccessRule:
    for rule in call.edge.reader.access_rules(_owner(call)):
        if rule.access_rule_id == call.args[1]:
            return rule
    raise NotFound(f"there is no access rule {call.args[1][:64]!r}")


async def show_rule(call: Call) -> Answer:
    """GET /users/{id}/access_rules/{id}."""
    return json_answer({"access_rule": _rule_view(call, call.args[0], _find_rule(call))})


async def delete_rule(call: Call) -> Answer:
    """DELETE /users/{id}/access_rules/{id}: of one's own that nothing uses."""
    rule = _find_rule(call)
    if call.args[0] != call.principal.user_id:
        raise Forbidden("an access rule is removed by its user")
    await write(call, DeleteAccessRule(access_rule_id=rule.access_rule_id))
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/users/{}/application_credentials", "/v3/users/{}/application_credentials/{}"
    rules, rule = "/v3/users/{}/access_rules", "/v3/users/{}/access_rules/{}"
    routes.add("GET", every, list_credentials, READ, query=BY_NAME)
    routes.add(
        "POST", every, create_credential, "CreateApplicationCredential", body=_new, status=201
    )
    routes.add("GET", one, show_credential, READ)
    routes.add("DELETE", one, delete_credential, "DeleteApplicationCredential", status=204)
    routes.add("GET", rules, list_rules, READ)
    routes.add("GET", rule, show_rule, READ)
    routes.add("DELETE", rule, delete_rule, "DeleteAccessRule", status=204)
