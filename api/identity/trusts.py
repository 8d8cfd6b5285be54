"""Trusts: users let others act for them (``OS-TRUST``)."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.delegation import RoleRef, role_ids, time_given
from api.identity.lists import link, listing
from api.identity.views import role_view
from api.routing import Routes
from api.times import micros_z
from api.writing import write
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.identity import CreateTrust, DeleteTrust, Trust
from schemas.units import Text

READ = "identity:trusts:read"
REDELEGATIONS_MAX = 3  # as in Keystone


Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _New(Struct, frozen=True, forbid_unknown_fields=True):
    trustor_user_id: Text
    trustee_user_id: Text
    impersonation: bool
    project_id: Text | None = None
    roles: Annotated[tuple[RoleRef, ...], Meta(max_length=128)] = ()
    expires_at: Text | None = None
    remaining_uses: Count | None = None
    allow_redelegation: bool = False
    redelegation_count: Count | None = None
    redelegated_trust_id: Text | None = None


class _NewBody(Struct, frozen=True, forbid_unknown_fields=True):
    trust: _New


_new = msgspec.json.Decoder(_NewBody)


def _view(call: Call, trust: Trust) -> dict[str, Any]:
    expires_at, reader = trust.expires_at, call.edge.reader
    roles = (reader.role(ident) for ident in trust.role_ids)
    roles_links = link(call, f"OS-TRUST/trusts/{trust.trust_id}/roles")
    return {
        "id": trust.trust_id,
        "trustor_user_id": trust.trustor_user_id,
        "trustee_user_id": trust.trustee_user_id,
        "impersonation": trust.impersonation,
        "project_id": trust.project_id or None,
        "roles": [role_view(role, call.base) for role in roles if role is not None],
        "roles_links": {**roles_links, "previous": None, "next": None},
        "expires_at": None if expires_at is None else micros_z(expires_at),
        "deleted_at": None,
        "remaining_uses": trust.remaining_uses,
        "redelegation_count": trust.redelegation_count,
        "redelegated_trust_id": trust.redelegated_trust_id or None,
        "links": link(call, f"OS-TRUST/trusts/{trust.trust_id}"),
    }


def _find(call: Call) -> Trust:
    """Return the trust of the path: of which the caller is a party, or any for who sees all.

    Raises:
        NotFound: there is none, or it is others'.
    """
    reach, ident = call.allow(READ), call.args[0]
    trust = call.edge.reader.trust(ident)
    if trust is not None:
        party = call.principal.user_id in {trust.trustor_user_id, trust.trustee_user_id}
        if reach.any or (reach.user and party):
            return trust
    raise NotFound(f"there is no trust {ident[:64]!r}")


async def list_trusts(call: Call) -> Answer:
    """GET /OS-TRUST/trusts: one's own must be asked for, but by who sees all."""
    reach = call.allow(READ)
    trustor, trustee = call.param("trustor_user_id"), call.param("trustee_user_id")
    if not reach.any and call.principal.user_id not in {trustor, trustee}:
        raise Forbidden("ask for trusts with yourself as trustor_user_id or trustee_user_id")
    found = call.edge.reader.trusts(
        trustor_user_id=trustor or None, trustee_user_id=trustee or None
    )
    return listing(call, "trusts", [_view(call, trust) for trust in found])


async def create_trust(call: Call) -> Answer:
    """POST /OS-TRUST/trusts: by the trustor; or by a trustee who may hand the trust on."""
    wish = (await call.decode(_new)).trust
    call.allow("CreateTrust")
    if wish.trustor_user_id != call.principal.user_id:
        raise Forbidden("a trust is made by its trustor")
    if wish.redelegated_trust_id not in {None, call.principal.token.trust_id}:
        raise Forbidden("a trust is handed on with a token of it")
    count = wish.redelegation_count
    if not wish.allow_redelegation:
        if count:
            raise InvalidInput("redelegation_count needs allow_redelegation")
        count = 0
    elif count is None:
        count = REDELEGATIONS_MAX
    if not 0 <= count <= REDELEGATIONS_MAX:
        raise Forbidden(f"a trust may be handed on {REDELEGATIONS_MAX} times at most")
    reply = await write(
        call,
        CreateTrust(
            trustee_user_id=wish.trustee_user_id,
            impersonation=wish.impersonation,
            project_id=wish.project_id,
            role_ids=role_ids(call, wish.roles),
            expires_at=time_given(wish.expires_at),
            remaining_uses=wish.remaining_uses,
            redelegation_count=count,
        ),
    )
    trust = call.edge.reader.trust(reply["trust_id"])
    if trust is None:
        raise NotFound(f"there is no trust {reply['trust_id']!r}")
    return json_answer({"trust": _view(call, trust)}, 201)


async def show_trust(call: Call) -> Answer:
    """GET /OS-TRUST/trusts/{id}."""
    return json_answer({"trust": _view(call, _find(call))})


async def delete_trust(call: Call) -> Answer:
    """DELETE /OS-TRUST/trusts/{id}."""
    call.allow("DeleteTrust")
    await write(call, DeleteTrust(trust_id=_find(call).trust_id))
    return Answer(204)


async def list_roles(call: Call) -> Answer:
    """GET /OS-TRUST/trusts/{id}/roles."""
    return listing(call, "roles", _view(call, _find(call))["roles"])


async def show_role(call: Call) -> Answer:
    """GET and HEAD /OS-TRUST/trusts/{id}/roles/{id}."""
    trust, reader = _find(call), call.edge.reader
    role = reader.role(call.args[1])
    if role is None or role.role_id not in trust.role_ids:
        raise NotFound("the trust does not give this role")
    return json_answer({"role": role_view(role, call.base)})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/OS-TRUST/trusts", "/v3/OS-TRUST/trusts/{}"
    asked = ("trustor_user_id", "trustee_user_id")
    routes.add("GET", every, list_trusts, READ, query=asked)
    routes.add("POST", every, create_trust, "CreateTrust", body=_new, status=201)
    routes.add("GET", one, show_trust, READ)
    routes.add("DELETE", one, delete_trust, "DeleteTrust", status=204)
    routes.add("GET", f"{one}/roles", list_roles, READ)
    routes.add("GET", f"{one}/roles/{{}}", show_role, READ)
