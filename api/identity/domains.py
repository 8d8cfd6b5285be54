"""Domains."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.attributes import Attributes
from api.identity.lists import BY_NAME, domain_asked, in_domain, listing, unseen
from api.identity.projects import need_no_options
from api.identity.views import domain_view
from api.pagination import flag
from api.routing import Routes
from api.writing import write
from schemas.errors import NotFound
from schemas.identity import CreateDomain, DeleteDomain, Domain, UpdateDomain
from schemas.units import LongText, Text


class _NewDomain(Struct, frozen=True):
    name: Text
    description: LongText | None = None
    enabled: bool = True
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] = ()
    options: Annotated[dict[str, msgspec.Raw], Meta(max_length=64)] = {}


class _DomainChange(Struct, frozen=True):
    name: Text | None = None
    description: LongText | None = None
    enabled: bool | None = None
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] | None = None
    options: Annotated[dict[str, msgspec.Raw], Meta(max_length=64)] = {}


_new = Attributes("domain", _NewDomain)
_change = Attributes("domain", _DomainChange)


async def list_domains(call: Call) -> Answer:
    """GET /domains."""
    only = domain_asked(call, call.allow("identity:domains:list"))
    domains = call.edge.reader.domains(
        ids=None if only is None else [only],
        name=call.param("name") or None,
        enabled=flag(call, "enabled"),
    )
    return listing(call, "domains", [domain_view(d, call.base) for d in domains])


def find_domain(call: Call, action: str = "identity:domains:read") -> Domain:
    """Return the domain of the path, or one's own.

    Raises:
        NotFound: there is none, or it is another's.
        Forbidden: the caller may see only its own.
    """
    reach, ident = call.allow(action), call.args[0]
    domain = call.edge.reader.domain(ident)
    mine = reach.user and call.principal.user.domain_id == ident
    if domain is None or not (mine or in_domain(call, reach, ident)):
        raise unseen(reach, "domain", ident)
    return domain


def _shown(call: Call, domain_id: str, status: int = 200) -> Answer:
    domain = call.edge.reader.domain(domain_id)
    if domain is None:
        raise NotFound(f"there is no domain {domain_id[:64]!r}")
    return json_answer({"domain": domain_view(domain, call.base)}, status)


async def create_domain(call: Call) -> Answer:
    """POST /domains."""
    wish, extra = await _new.read(call)
    need_no_options(wish.options)
    reply = await write(
        call,
        CreateDomain(
            name=wish.name,
            description=wish.description or "",
            enabled=wish.enabled,
            tags=wish.tags,
            extra=extra,
        ),
    )
    return _shown(call, reply["domain_id"], 201)


async def show_domain(call: Call) -> Answer:
    """GET /domains/{id}: everybody sees the domain that they are in."""
    return json_answer({"domain": domain_view(find_domain(call), call.base)})


async def change_domain(call: Call) -> Answer:
    """PATCH /domains/{id}."""
    wish, extra = await _change.read(call)
    need_no_options(wish.options)
    domain = find_domain(call, "UpdateDomain")
    await write(
        call,
        UpdateDomain(
            domain_id=domain.domain_id,
            name=wish.name,
            description=wish.description,
            enabled=wish.enabled,
            tags=wish.tags,
            extra=extra,
        ),
    )
    return _shown(call, domain.domain_id)


async def delete_domain(call: Call) -> Answer:
    """DELETE /domains/{id}: it must be disabled."""
    await write(call, DeleteDomain(domain_id=find_domain(call, "DeleteDomain").domain_id))
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/domains", "/v3/domains/{}"
    asked = (*BY_NAME, "enabled")
    routes.add("GET", every, list_domains, "identity:domains:list", query=asked)
    routes.add(
        "POST", every, create_domain, "CreateDomain",
        body=_new.decoder, shape=_new.shape, status=201,
    )  # fmt: skip
    routes.add("GET", one, show_domain, "identity:domains:read")
    routes.add(
        "PATCH", one, change_domain, "UpdateDomain", body=_change.decoder, shape=_change.shape
    )
    routes.add("DELETE", one, delete_domain, "DeleteDomain", status=204)
