"""Identity providers, their protocols and mappings, as Keystone's OS-FEDERATION has them.

Invariant: a client secret is sealed before it leaves this process, and never shown.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.lists import link, listing
from api.routing import Routes
from api.sealing_inbound import seal_client_secret
from api.writing import write
from schemas.errors import InvalidInput, NotFound
from schemas.identity import (
    CreateIdentityProvider,
    CreateMapping,
    CreateProtocol,
    DeleteIdentityProvider,
    DeleteMapping,
    DeleteProtocol,
    IdentityProvider,
    Mapping,
    MappingRule,
    NewOidc,
    Protocol,
    UpdateIdentityProvider,
    UpdateMapping,
    UpdateProtocol,
)
from schemas.identity.federation import OPENID
from schemas.units import LongText, Text

READ = "identity:federation:read"
PLACE = "OS-FEDERATION/identity_providers"
MAPPINGS = "OS-FEDERATION/mappings"


Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _Oidc(Struct, frozen=True, forbid_unknown_fields=True):
    issuer: LongText
    client_id: Text
    client_secret: LongText | None = None
    scopes: Annotated[tuple[Text, ...], Meta(max_length=128)] = OPENID
    audiences: Annotated[tuple[LongText, ...], Meta(max_length=128)] = ()


class _Provider(Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool | None = None
    description: LongText | None = None
    remote_ids: Annotated[tuple[Text, ...], Meta(max_length=128)] | None = None
    domain_id: Text | None = None
    authorization_ttl: Count | None = None
    oidc: _Oidc | None = None
    id: Text | None = None


class _ProviderBody(Struct, frozen=True, forbid_unknown_fields=True):
    identity_provider: _Provider


class _Mapping(Struct, frozen=True, forbid_unknown_fields=True):
    rules: Annotated[tuple[MappingRule, ...], Meta(max_length=128)]
    id: Text | None = None
    schema_version: Text | None = None


class _MappingBody(Struct, frozen=True, forbid_unknown_fields=True):
    mapping: _Mapping


class _Protocol(Struct, frozen=True, forbid_unknown_fields=True):
    mapping_id: Text
    id: Text | None = None


class _ProtocolBody(Struct, frozen=True, forbid_unknown_fields=True):
    protocol: _Protocol


_provider = msgspec.json.Decoder(_ProviderBody)
_mapping = msgspec.json.Decoder(_MappingBody)
_protocol = msgspec.json.Decoder(_ProtocolBody)


def _provider_view(call: Call, provider: IdentityProvider) -> dict[str, Any]:
    path = f"{PLACE}/{provider.idp_id}"
    view: dict[str, Any] = {
        "id": provider.idp_id,
        "enabled": provider.enabled,
        "description": provider.description or None,
        "remote_ids": list(provider.remote_ids),
        "domain_id": provider.domain_id,
        "authorization_ttl": provider.authorization_ttl,
        "links": {**link(call, path), "protocols": link(call, f"{path}/protocols")["self"]},
    }
    if (oidc := provider.oidc) is not None:
        view["oidc"] = {
            "issuer": oidc.issuer,
            "client_id": oidc.client_id,
            "scopes": list(oidc.scopes),
            "audiences": list(oidc.audiences),
        }
    return view


def _mapping_view(call: Call, mapping: Mapping) -> dict[str, Any]:
    return {
        "id": mapping.mapping_id,
        "rules": msgspec.to_builtins(mapping.rules),
        "links": link(call, f"{MAPPINGS}/{mapping.mapping_id}"),
    }


def _protocol_view(call: Call, protocol: Protocol) -> dict[str, Any]:
    path = f"{PLACE}/{protocol.idp_id}"
    links = link(call, f"{path}/protocols/{protocol.protocol_id}")
    return {
        "id": protocol.protocol_id,
        "mapping_id": protocol.mapping_id,
        "links": {**links, "identity_provider": link(call, path)["self"]},
    }


async def list_providers(call: Call) -> Answer:
    """GET /OS-FEDERATION/identity_providers."""
    call.allow(READ)
    asked, enabled = call.param("id"), call.param("enabled").lower()
    found = [
        _provider_view(call, provider)
        for provider in call.edge.reader.identity_providers()
        if asked in {"", provider.idp_id}
        and enabled in {"", str(provider.enabled).lower(), str(int(provider.enabled))}
    ]
    return listing(call, "identity_providers", found)


def _shown_provider(call: Call, status: int = 200) -> Answer:
    provider = call.edge.reader.identity_provider(call.args[0])
    if provider is None:
        raise NotFound(f"there is no identity provider {call.args[0][:64]!r}")
    return json_answer({"identity_provider": _provider_view(call, provider)}, status)


async def show_provider(call: Call) -> Answer:
    """GET /OS-FEDERATION/identity_providers/{id}."""
    call.allow(READ)
    return _shown_provider(call)


async def create_provider(call: Call) -> Answer:
    """PUT /OS-FEDERATION/identity_providers/{id}."""
    wish = (await call.decode(_provider)).identity_provider
    call.allow("CreateIdentityProvider")
    await write(
        call,
        CreateIdentityProvider(
            idp_id=_ident(call, wish.id),
            domain_id=wish.domain_id,
            # As Keystone: one that nobody has enabled is not.
            enabled=bool(wish.enabled),
            description=wish.description or "",
            remote_ids=wish.remote_ids or (),
            authorization_ttl=wish.authorization_ttl,
            oidc=await _sealed(call, wish.oidc),
        ),
    )
    return _shown_provider(call, 201)


async def change_provider(call: Call) -> Answer:
    """PATCH /OS-FEDERATION/identity_providers/{id}."""
    wish = (await call.decode(_provider)).identity_provider
    call.allow("UpdateIdentityProvider")
    known = call.edge.reader.identity_provider(call.args[0])
    if known is not None and wish.domain_id not in {None, known.domain_id}:
        raise InvalidInput("an identity provider keeps its domain")
    await write(
        call,
        UpdateIdentityProvider(
            idp_id=_ident(call, wish.id),
            enabled=wish.enabled,
            description=wish.description,
            remote_ids=wish.remote_ids,
            authorization_ttl=wish.authorization_ttl,
            oidc=await _sealed(call, wish.oidc),
        ),
    )
    return _shown_provider(call)


async def delete_provider(call: Call) -> Answer:
    """DELETE /OS-FEDERATION/identity_providers/{id}."""
    await write(call, DeleteIdentityProvider(idp_id=call.args[0]))
    return Answer(204)


async def _sealed(call: Call, wish: _Oidc | None) -> NewOidc | None:
    if wish is None:
        return None
    secret = wish.client_secret
    return NewOidc(
        issuer=wish.issuer,
        client_id=wish.client_id,
        client_secret=None if not secret else await seal_client_secret(call.edge, secret),
        scopes=wish.scopes,
        audiences=wish.audiences,
    )


def _ident(call: Call, given: str | None, at: int = 0) -> str:
    """Return the id that the path names; one in the body is the same."""
    if given not in {None, call.args[at]}:
        raise InvalidInput("the id is that of the path")
    return call.args[at]


async def list_mappings(call: Call) -> Answer:
    """GET /OS-FEDERATION/mappings."""
    call.allow(READ)
    mappings = call.edge.reader.mappings()
    return listing(call, "mappings", [_mapping_view(call, one) for one in mappings])


def _shown_mapping(call: Call, status: int = 200) -> Answer:
    mapping = call.edge.reader.mapping(call.args[0])
    if mapping is None:
        raise NotFound(f"there is no mapping {call.args[0][:64]!r}")
    return json_answer({"mapping": _mapping_view(call, mapping)}, status)


async def show_mapping(call: Call) -> Answer:
    """GET /OS-FEDERATION/mappings/{id}."""
    call.allow(READ)
    return _shown_mapping(call)


async def create_mapping(call: Call) -> Answer:
    """PUT /OS-FEDERATION/mappings/{id}."""
    wish = (await call.decode(_mapping)).mapping
    await write(call, CreateMapping(mapping_id=_ident(call, wish.id), rules=wish.rules))
    return _shown_mapping(call, 201)


async def change_mapping(call: Call) -> Answer:
    """PATCH /OS-FEDERATION/mappings/{id}."""
    wish = (await call.decode(_mapping)).mapping
    await write(call, UpdateMapping(mapping_id=_ident(call, wish.id), rules=wish.rules))
    return _shown_mapping(call)


async def delete_mapping(call: Call) -> Answer:
    """DELETE /OS-FEDERATION/mappings/{id}."""
    await write(call, DeleteMapping(mapping_id=call.args[0]))
    return Answer(204)


async def list_protocols(call: Call) -> Answer:
    """GET /OS-FEDERATION/identity_providers/{id}/protocols."""
    call.allow(READ)
    if call.edge.reader.identity_provider(call.args[0]) is None:
        raise NotFound(f"there is no identity provider {call.args[0][:64]!r}")
    found = call.edge.reader.protocols(idp_id=call.args[0])
    return listing(call, "protocols", [_protocol_view(call, one) for one in found])


def _shown_protocol(call: Call, status: int = 200) -> Answer:
    protocol = call.edge.reader.protocol(*call.args)
    if protocol is None:
        raise NotFound(f"there is no protocol {call.args[1][:64]!r}")
    return json_answer({"protocol": _protocol_view(call, protocol)}, status)


async def show_protocol(call: Call) -> Answer:
    """GET …/protocols/{id}."""
    call.allow(READ)
    return _shown_protocol(call)


async def create_protocol(call: Call) -> Answer:
    """PUT …/protocols/{id}."""
    wish = (await call.decode(_protocol)).protocol
    ident = _ident(call, wish.id, 1)
    await write(
        call,
        CreateProtocol(idp_id=call.args[0], protocol_id=ident, mapping_id=wish.mapping_id),
    )
    return _shown_protocol(call, 201)


async def change_protocol(call: Call) -> Answer:
    """PATCH …/protocols/{id}."""
    wish = (await call.decode(_protocol)).protocol
    ident = _ident(call, wish.id, 1)
    await write(
        call,
        UpdateProtocol(idp_id=call.args[0], protocol_id=ident, mapping_id=wish.mapping_id),
    )
    return _shown_protocol(call)


async def delete_protocol(call: Call) -> Answer:
    """DELETE …/protocols/{id}."""
    await write(call, DeleteProtocol(idp_id=call.args[0], protocol_id=call.args[1]))
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    providers, mappings = f"/v3/{PLACE}", f"/v3/{MAPPINGS}"
    provider, mapping = f"{providers}/{{}}", f"{mappings}/{{}}"
    protocols, protocol = f"{provider}/protocols", f"{provider}/protocols/{{}}"
    routes.add("GET", providers, list_providers, READ, query=("id", "enabled"))
    routes.add("GET", provider, show_provider, READ)
    routes.add(
        "PUT", provider, create_provider, "CreateIdentityProvider", body=_provider, status=201
    )
    routes.add("PATCH", provider, change_provider, "UpdateIdentityProvider", body=_provider)
    routes.add("DELETE", provider, delete_provider, "DeleteIdentityProvider", status=204)
    routes.add("GET", mappings, list_mappings, READ)
    routes.add("GET", mapping, show_mapping, READ)
    routes.add("PUT", mapping, create_mapping, "CreateMapping", body=_mapping, status=201)
    routes.add("PATCH", mapping, change_mapping, "UpdateMapping", body=_mapping)
    routes.add("DELETE", mapping, delete_mapping, "DeleteMapping", status=204)
    routes.add("GET", protocols, list_protocols, READ)
    routes.add("GET", protocol, show_protocol, READ)
    routes.add("PUT", protocol, create_protocol, "CreateProtocol", body=_protocol, status=201)
    routes.add("PATCH", protocol, change_protocol, "UpdateProtocol", body=_protocol)
    routes.add("DELETE", protocol, delete_protocol, "DeleteProtocol", status=204)
