"""Identity providers, mappings, protocols, and what providers say of users.

Invariant: a provider's users are those of its domain and of nobody else's: whatever it says, it
signs nobody in as a user that it has not brought. What it says gives groups for a while, and only
while it is enabled; see ``access.StateDirectory``.
"""

from hashlib import sha256

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.found import Decision, identity_id
from engine.domain.identity.mapping import Mapped, mapped, need_sound
from engine.domain.state import Cell
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import (
    Conflict,
    Duplicate,
    InUse,
    InvalidInput,
    NotFound,
    Unauthorized,
    UnknownReference,
)
from schemas.units import HOUR, MINUTE, Micros

LIFETIME: Micros = 12 * HOUR  # as long as a token is good


def create_identity_provider(
    cell: Cell, ctx: Context, action: s.CreateIdentityProvider
) -> Decision:
    """Let another say who people are, in a domain of its own if none is given."""
    state = cell.state
    if action.idp_id in state.identity_providers:
        raise Duplicate(f"an identity provider {action.idp_id!r} exists")
    facts: list[Fact] = []
    domain_id = action.domain_id
    if domain_id is None:
        if action.idp_id in cell.index.domain_names:
            raise Duplicate(f"a domain named {action.idp_id!r} exists; name it to use it")
        domain_id = identity_id(ctx)
        description = f"Users of the identity provider {action.idp_id}"
        domain = s.Domain(domain_id=domain_id, name=action.idp_id, description=description)
        facts.append(s.DomainCreated(domain=domain))
    elif domain_id not in state.domains:
        raise UnknownReference(f"there is no domain {domain_id}")
    provider = s.IdentityProvider(
        idp_id=action.idp_id,
        domain_id=domain_id,
        enabled=action.enabled,
        description=action.description,
        remote_ids=tuple(dict.fromkeys(action.remote_ids)),
        authorization_ttl=action.authorization_ttl,
        oidc=_oidc(action.oidc, None),
    )
    _need_own_remotes(cell, provider)
    return [*facts, s.IdentityProviderSaved(provider=provider)], {"idp_id": provider.idp_id}


def update_identity_provider(
    cell: Cell, ctx: Context, action: s.UpdateIdentityProvider
) -> Decision:
    """Change what is given."""
    provider = _find_provider(cell, action.idp_id)
    given = {
        name: value
        for name in ("enabled", "description", "remote_ids", "authorization_ttl")
        if (value := getattr(action, name)) is not None
    }
    changed = replace(provider, **given, oidc=_oidc(action.oidc, provider.oidc))
    _need_own_remotes(cell, changed)
    facts: list[Fact] = [] if changed == provider else [s.IdentityProviderSaved(provider=changed)]
    return facts, {"idp_id": provider.idp_id}


def _oidc(wish: s.NewOidc | None, known: s.Oidc | None) -> s.Oidc | None:
    """Return how a provider is asked. Another's secret is not told to a new issuer or client."""
    if wish is None:
        return known
    same = known is not None and (known.issuer, known.client_id) == (wish.issuer, wish.client_id)
    secret = wish.client_secret
    if secret is None and same and known is not None:
        secret = known.client_secret
    return s.Oidc(
        issuer=wish.issuer,
        client_id=wish.client_id,
        client_secret=secret,
        scopes=wish.scopes,
        audiences=wish.audiences,
    )


def delete_identity_provider(
    cell: Cell, ctx: Context, action: s.DeleteIdentityProvider
) -> Decision:
    """Remove a provider."""
    _find_provider(cell, action.idp_id)
    return [s.IdentityProviderDeleted(idp_id=action.idp_id)], {}


def _find_provider(cell: Cell, idp_id: str) -> s.IdentityProvider:
    provider = cell.state.identity_providers.get(idp_id)
    if provider is None:
        raise NotFound(f"there is no identity provider {idp_id}")
    return provider


def _need_own_remotes(cell: Cell, provider: s.IdentityProvider) -> None:
    for other in cell.state.identity_providers.values():
        if other.idp_id == provider.idp_id:
            continue
        if shared := set(other.remote_ids) & set(provider.remote_ids):
            raise Duplicate(f"the remote id {min(shared)!r} is that of {other.idp_id}")


def create_mapping(cell: Cell, ctx: Context, action: s.CreateMapping) -> Decision:
    """Make a mapping whose rules can be used."""
    if action.mapping_id in cell.state.mappings:
        raise Duplicate(f"a mapping {action.mapping_id!r} exists")
    return _mapping_saved(action)


def update_mapping(cell: Cell, ctx: Context, action: s.UpdateMapping) -> Decision:
    """Replace a mapping's rules."""
    _find_mapping(cell, action.mapping_id)
    return _mapping_saved(action)


def _mapping_saved(action: s.CreateMapping | s.UpdateMapping) -> Decision:
    need_sound(action.rules)
    mapping = s.Mapping(mapping_id=action.mapping_id, rules=action.rules)
    return [s.MappingSaved(mapping=mapping)], {"mapping_id": mapping.mapping_id}


def delete_mapping(cell: Cell, ctx: Context, action: s.DeleteMapping) -> Decision:
    """Remove a mapping that no protocol uses."""
    _find_mapping(cell, action.mapping_id)
    for protocols in cell.state.protocols.values():
        for protocol in protocols.values():
            if protocol.mapping_id == action.mapping_id:
                raise InUse(f"the protocol {protocol.protocol_id} of {protocol.idp_id} uses it")
    return [s.MappingDeleted(mapping_id=action.mapping_id)], {}


def _find_mapping(cell: Cell, mapping_id: str) -> s.Mapping:
    mapping = cell.state.mappings.get(mapping_id)
    if mapping is None:
        raise NotFound(f"there is no mapping {mapping_id}")
    return mapping


def create_protocol(cell: Cell, ctx: Context, action: s.CreateProtocol) -> Decision:
    """Let a provider's users sign in by a protocol."""
    _find_provider(cell, action.idp_id)
    if action.protocol_id in cell.state.protocols.get(action.idp_id, {}):
        raise Duplicate(f"{action.idp_id} has a protocol {action.protocol_id!r}")
    if action.protocol_id in LOCAL_METHODS:
        raise InvalidInput(f"{action.protocol_id!r} is what a method of this cloud's own is called")
    return _protocol_saved(cell, action)


LOCAL_METHODS = frozenset({"password", "token", "totp", "application_credential"})


def update_protocol(cell: Cell, ctx: Context, action: s.UpdateProtocol) -> Decision:
    """Use another mapping."""
    _find_protocol(cell, action.idp_id, action.protocol_id)
    return _protocol_saved(cell, action)


def _protocol_saved(cell: Cell, action: s.CreateProtocol | s.UpdateProtocol) -> Decision:
    if action.mapping_id not in cell.state.mappings:
        raise UnknownReference(f"there is no mapping {action.mapping_id}")
    protocol = s.Protocol(
        idp_id=action.idp_id, protocol_id=action.protocol_id, mapping_id=action.mapping_id
    )
    return [s.ProtocolSaved(protocol=protocol)], {"protocol_id": protocol.protocol_id}


def delete_protocol(cell: Cell, ctx: Context, action: s.DeleteProtocol) -> Decision:
    """Let nobody sign in by a protocol any more."""
    protocol = _find_protocol(cell, action.idp_id, action.protocol_id)
    gone = s.ProtocolDeleted(idp_id=protocol.idp_id, protocol_id=protocol.protocol_id)
    return [gone], {}


def _find_protocol(cell: Cell, idp_id: str, protocol_id: str) -> s.Protocol:
    protocol = cell.state.protocols.get(idp_id, {}).get(protocol_id)
    if protocol is None:
        raise NotFound(f"{idp_id} has no protocol {protocol_id}")
    return protocol


# Signing in


def federated_user_id(idp_id: str, unique_id: str) -> str:
    """Return the id of a provider's user: the same each time it comes."""
    return sha256(f"{idp_id}\n{unique_id}".encode()).hexdigest()


def sign_in_federated(cell: Cell, ctx: Context, action: s.SignInFederated) -> Decision:
    """Understand what a provider says of somebody: a user, who is made when it first comes."""
    state = cell.state
    provider = _find_provider(cell, action.idp_id)
    protocol = _find_protocol(cell, action.idp_id, action.protocol_id)
    domain = state.domains.get(provider.domain_id)
    if not provider.enabled or domain is None or not domain.enabled:
        raise Unauthorized("the identity provider or its domain is disabled")
    told = mapped(state.mappings[protocol.mapping_id].rules, action.claims)
    user_id = federated_user_id(provider.idp_id, action.unique_id)
    facts = _user_facts(cell, ctx, provider, user_id, told)
    federated = s.FederatedUser(
        user_id=user_id,
        idp_id=provider.idp_id,
        protocol_id=protocol.protocol_id,
        unique_id=action.unique_id,
        group_ids=_groups(cell, told),
        until=ctx.now + _lifetime(provider),
    )
    facts.append(s.FederatedUserSignedIn(federated=federated))
    facts += _grants(cell, provider, user_id, told)
    return facts, {"user_id": user_id, "until": federated.until}


def _lifetime(provider: s.IdentityProvider) -> Micros:
    """Return how long what a provider says gives roles."""
    ttl = provider.authorization_ttl
    return LIFETIME if ttl is None else ttl * MINUTE


def _user_facts(
    cell: Cell, ctx: Context, provider: s.IdentityProvider, user_id: str, told: Mapped
) -> list[Fact]:
    """Return what makes or changes the user, if anything does.

    Raises:
        Conflict: another user of the domain has the name.
        Unauthorized: the user is disabled here.
    """
    name, email = told.name[:255], told.email[:255]
    holder = cell.index.user_names.get((provider.domain_id, name))
    if holder not in {None, user_id}:
        raise Conflict("another user of the provider's domain has the name that it gives")
    user = cell.state.users.get(user_id)
    if user is None:
        made = s.User(
            user_id=user_id,
            name=name,
            domain_id=provider.domain_id,
            email=email,
            tokens_valid_from=ctx.now,  # none of a deleted user's, who had the same id
        )
        return [s.UserCreated(user=made)]
    if not user.enabled:
        raise Unauthorized("the user is disabled")
    changed = replace(user, name=name, email=email or user.email)
    return [] if changed == user else [s.UserUpdated(user=changed)]


def _groups(cell: Cell, told: Mapped) -> tuple[str, ...]:
    """Return the groups that are meant and are here; a provider has others as well."""
    index = cell.index
    found = {ident for ident in told.group_ids if ident in cell.state.groups}
    for name, ref in told.group_names:
        group_id = index.group_names.get((_domain_id(cell, ref), name))
        if group_id is not None:
            found.add(group_id)
    return tuple(sorted(found))


def _domain_id(cell: Cell, ref: s.DomainRef | None) -> str:
    if ref is None:
        return ""
    return ref.id or cell.index.domain_names.get(ref.name or "", "")


def _grants(cell: Cell, provider: s.IdentityProvider, user_id: str, told: Mapped) -> list[Fact]:
    """Return the roles on projects of the provider's domain that the mapping gives; they stay.

    Raises:
        Unauthorized: a project or role that is meant is not there.
    """
    index = cell.index
    facts: list[Fact] = []
    for name, roles in told.projects:
        project_id = index.project_names.get((provider.domain_id, name))
        if project_id is None:
            raise Unauthorized("the mapping names a project that the provider's domain has not")
        held = cell.state.grants.get(user_id, {}).get(project_id, ())
        for role in roles:
            role_id = index.role_names.get(("", role))
            if role_id is None:
                raise Unauthorized("the mapping names a role that is not there")
            grant = s.RoleGranted(
                grant=s.Grant(user_id=user_id, project_id=project_id, role_id=role_id)
            )
            if role_id not in held and grant not in facts:
                facts.append(grant)
    return facts


# Evolve


def identity_provider_saved(cell: Cell, fact: s.IdentityProviderSaved, at: Micros) -> None:
    cell.state.identity_providers[fact.provider.idp_id] = fact.provider


def identity_provider_deleted(cell: Cell, fact: s.IdentityProviderDeleted, at: Micros) -> None:
    state = cell.state
    del state.identity_providers[fact.idp_id]
    state.protocols.pop(fact.idp_id, None)
    for user_id in [u for u, f in state.federated.items() if f.idp_id == fact.idp_id]:
        del state.federated[user_id]


def mapping_saved(cell: Cell, fact: s.MappingSaved, at: Micros) -> None:
    cell.state.mappings[fact.mapping.mapping_id] = fact.mapping


def mapping_deleted(cell: Cell, fact: s.MappingDeleted, at: Micros) -> None:
    del cell.state.mappings[fact.mapping_id]


def protocol_saved(cell: Cell, fact: s.ProtocolSaved, at: Micros) -> None:
    protocol = fact.protocol
    cell.state.protocols.setdefault(protocol.idp_id, {})[protocol.protocol_id] = protocol


def protocol_deleted(cell: Cell, fact: s.ProtocolDeleted, at: Micros) -> None:
    protocols = cell.state.protocols[fact.idp_id]
    del protocols[fact.protocol_id]
    if not protocols:
        del cell.state.protocols[fact.idp_id]


def federated_user_signed_in(cell: Cell, fact: s.FederatedUserSignedIn, at: Micros) -> None:
    cell.state.federated[fact.federated.user_id] = fact.federated
