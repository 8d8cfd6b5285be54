"""Read models of identity providers, mappings, protocols, and of what providers say of users."""

from collections.abc import Callable
from typing import Any

from projections.store import Table, Writer, drop_where
from schemas import identity as s
from schemas.units import Micros, Ordinal

NAME = "federation"
VERSION = 1

PROVIDERS = Table(
    "identity_providers",
    s.IdentityProvider,
    columns="id TEXT NOT NULL, domain_id TEXT NOT NULL, enabled INTEGER NOT NULL",
    values=lambda p: (p.idp_id, p.domain_id, p.enabled),
)
MAPPINGS = Table(
    "mappings",
    s.Mapping,
    columns="id TEXT NOT NULL",
    values=lambda m: (m.mapping_id,),
)
PROTOCOLS = Table(
    "federation_protocols",
    s.Protocol,
    key=("idp_id", "id"),
    columns="idp_id TEXT NOT NULL, id TEXT NOT NULL",
    values=lambda p: (p.idp_id, p.protocol_id),
    indexes=("(id)",),
)
FEDERATED = Table(
    "federated_users",
    s.FederatedUser,
    columns="id TEXT NOT NULL, idp_id TEXT NOT NULL",
    values=lambda f: (f.user_id, f.idp_id),
    indexes=("(idp_id)",),
)

STATEMENTS = (*PROVIDERS.create, *MAPPINGS.create, *PROTOCOLS.create, *FEDERATED.create)


def user_gone(writer: Writer, user_id: str) -> None:
    """Remove what a provider has said of a user."""
    drop_where(writer, FEDERATED, "id", user_id)


def _provider_saved(
    writer: Writer, fact: s.IdentityProviderSaved, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(PROVIDERS, fact.provider, ordinal)


def _provider_deleted(
    writer: Writer, fact: s.IdentityProviderDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    drop_where(writer, PROTOCOLS, "idp_id", fact.idp_id)
    drop_where(writer, FEDERATED, "idp_id", fact.idp_id)
    writer.drop(PROVIDERS, fact.idp_id)


def _mapping_saved(writer: Writer, fact: s.MappingSaved, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(MAPPINGS, fact.mapping, ordinal)


def _mapping_deleted(
    writer: Writer, fact: s.MappingDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(MAPPINGS, fact.mapping_id)


def _protocol_saved(writer: Writer, fact: s.ProtocolSaved, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(PROTOCOLS, fact.protocol, ordinal)


def _protocol_deleted(
    writer: Writer, fact: s.ProtocolDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(PROTOCOLS, (fact.idp_id, fact.protocol_id))


def _signed_in(
    writer: Writer, fact: s.FederatedUserSignedIn, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(FEDERATED, fact.federated, ordinal)


APPLY: dict[type, Callable[[Writer, Any, Ordinal, Micros], None]] = {
    s.IdentityProviderSaved: _provider_saved,
    s.IdentityProviderDeleted: _provider_deleted,
    s.MappingSaved: _mapping_saved,
    s.MappingDeleted: _mapping_deleted,
    s.ProtocolSaved: _protocol_saved,
    s.ProtocolDeleted: _protocol_deleted,
    s.FederatedUserSignedIn: _signed_in,
}
