"""Roles, and which imply which."""

from itertools import pairwise
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.attributes import Attributes
from api.identity.lists import BY_NAME, in_domain, link, list_links, listing
from api.identity.projects import need_no_options
from api.identity.views import role_view
from api.routing import Routes
from api.writing import write
from schemas.errors import InvalidInput, NotFound
from schemas.identity import (
    RANKED,
    CreateRole,
    DeleteRole,
    EndRoleImplication,
    ImplyRole,
    Role,
    UpdateRole,
)
from schemas.units import LongText, Text

READ = "identity:roles:read"
READ_OF_DOMAIN = "identity:domain_roles:read"


class _NewRole(Struct, frozen=True):
    name: Text
    domain_id: Text | None = None
    description: LongText | None = None
    options: Annotated[dict[str, msgspec.Raw], Meta(max_length=64)] = {}


class _RoleChange(Struct, frozen=True):
    name: Text | None = None
    domain_id: Text | None = None
    description: LongText | None = None
    options: Annotated[dict[str, msgspec.Raw], Meta(max_length=64)] = {}


_new = Attributes("role", _NewRole)
_change = Attributes("role", _RoleChange)


async def list_roles(call: Call) -> Answer:
    """GET /roles: those of no domain, which everybody may read, or those of one."""
    call.allow(READ)
    domain_id = call.param("domain_id")
    roles: list[Role] = []
    if not domain_id or in_domain(call, call.allow(READ_OF_DOMAIN), domain_id):
        roles = call.edge.reader.roles(name=call.param("name") or None, domain_id=domain_id)
    return listing(call, "roles", [role_view(r, call.base) for r in roles])


def find_role(call: Call, at: int = 0) -> Role:
    """Return the role at a place of the path.

    Raises:
        NotFound: there is none, or it is another domain's own.
    """
    ident = call.args[at]
    role = call.edge.reader.role(ident)
    if role is None or not (not role.domain_id or _sees_own(call, role.domain_id)):
        raise NotFound(f"there is no role {ident[:64]!r}")
    return role


def _sees_own(call: Call, domain_id: str) -> bool:
    return call.may(READ_OF_DOMAIN) and in_domain(call, call.allow(READ_OF_DOMAIN), domain_id)


def _shown(call: Call, role_id: str, status: int = 200) -> Answer:
    role = call.edge.reader.role(role_id)
    if role is None:
        raise NotFound(f"there is no role {role_id[:64]!r}")
    return json_answer({"role": role_view(role, call.base)}, status)


async def create_role(call: Call) -> Answer:
    """POST /roles."""
    wish, extra = await _new.read(call)
    need_no_options(wish.options)
    reply = await write(
        call,
        CreateRole(
            name=wish.name,
            domain_id=wish.domain_id,
            description=wish.description or "",
            extra=extra,
        ),
    )
    return _shown(call, reply["role_id"], 201)


async def show_role(call: Call) -> Answer:
    """GET /roles/{id}."""
    call.allow(READ)
    return json_answer({"role": role_view(find_role(call), call.base)})


async def change_role(call: Call) -> Answer:
    """PATCH /roles/{id}."""
    wish, extra = await _change.read(call)
    need_no_options(wish.options)
    call.allow("UpdateRole")
    role = find_role(call)
    if wish.domain_id not in {None, role.domain_id}:
        raise InvalidInput("a role stays in its domain")
    await write(
        call,
        UpdateRole(role_id=role.role_id, name=wish.name, description=wish.description, extra=extra),
    )
    return _shown(call, role.role_id)


async def delete_role(call: Call) -> Answer:
    """DELETE /roles/{id}."""
    call.allow("DeleteRole")
    await write(call, DeleteRole(role_id=find_role(call).role_id))
    return Answer(204)


# What roles imply


def implications(call: Call) -> dict[str, list[str]]:
    """Return the ids of roles that each role implies directly, by its id."""
    reader = call.edge.reader
    ids = {role.name: role.role_id for role in reader.roles(domain_id="")}
    found: dict[str, list[str]] = {}
    for prior, implied in pairwise(RANKED):
        if prior in ids and implied in ids:
            found.setdefault(ids[prior], []).append(ids[implied])
    for one in reader.implications():
        implied_ids = found.setdefault(one.prior_role_id, [])
        if one.implied_role_id not in implied_ids:
            implied_ids.append(one.implied_role_id)
    return found


def _ref(call: Call, role: Role) -> dict[str, Any]:
    return {"id": role.role_id, "name": role.name, "links": link(call, f"roles/{role.role_id}")}


def _inference(call: Call, prior: Role, implied_ids: list[str]) -> dict[str, Any]:
    reader = call.edge.reader
    implied = [role for ident in implied_ids if (role := reader.role(ident)) is not None]
    return {
        "prior_role": _ref(call, prior),
        "implies": [_ref(call, role) for role in implied],
    }


async def list_inferences(call: Call) -> Answer:
    """GET /role_inferences."""
    call.allow(READ)
    reader = call.edge.reader
    views = [
        _inference(call, prior, implied)
        for ident, implied in implications(call).items()
        if (prior := reader.role(ident)) is not None
        and (not prior.domain_id or _sees_own(call, prior.domain_id))
    ]
    return json_answer({"role_inferences": views, "links": list_links(call)})


async def list_implied(call: Call) -> Answer:
    """GET /roles/{id}/implies."""
    call.allow(READ)
    prior = find_role(call)
    view = _inference(call, prior, implications(call).get(prior.role_id, []))
    return json_answer({"role_inference": view, "links": list_links(call)})


def _pair(call: Call) -> tuple[Role, Role]:
    return find_role(call), find_role(call, 1)


def _pair_shown(call: Call, prior: Role, implied: Role, status: int = 200) -> Answer:
    view = {"prior_role": _ref(call, prior), "implies": _ref(call, implied)}
    return json_answer({"role_inference": view, "links": list_links(call)}, status)


async def show_implied(call: Call) -> Answer:
    """GET and HEAD /roles/{id}/implies/{id}."""
    call.allow(READ)
    prior, implied = _pair(call)
    if implied.role_id not in implications(call).get(prior.role_id, []):
        raise NotFound("the role does not imply the other")
    if call.method == "HEAD":
        return Answer(204)
    return _pair_shown(call, prior, implied)


async def imply(call: Call) -> Answer:
    """PUT /roles/{id}/implies/{id}."""
    call.allow("ImplyRole")
    prior, implied = _pair(call)
    await write(call, ImplyRole(prior_role_id=prior.role_id, implied_role_id=implied.role_id))
    return _pair_shown(call, prior, implied, 201)


async def end_implication(call: Call) -> Answer:
    """DELETE /roles/{id}/implies/{id}."""
    call.allow("EndRoleImplication")
    prior, implied = _pair(call)
    await write(
        call, EndRoleImplication(prior_role_id=prior.role_id, implied_role_id=implied.role_id)
    )
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/roles", "/v3/roles/{}"
    implied = f"{one}/implies/{{}}"
    routes.add("GET", every, list_roles, READ, query=(*BY_NAME, "domain_id"))
    routes.add(
        "POST", every, create_role, "CreateRole", body=_new.decoder, shape=_new.shape, status=201
    )
    routes.add("GET", one, show_role, READ)
    routes.add("PATCH", one, change_role, "UpdateRole", body=_change.decoder, shape=_change.shape)
    routes.add("DELETE", one, delete_role, "DeleteRole", status=204)
    routes.add("GET", "/v3/role_inferences", list_inferences, READ)
    routes.add("GET", f"{one}/implies", list_implied, READ)
    routes.add("GET", implied, show_implied, READ, status=(200, 204))
    routes.add("PUT", implied, imply, "ImplyRole", status=201)
    routes.add("DELETE", implied, end_implication, "EndRoleImplication", status=204)
