"""Federation: other identity providers, and how what they say of somebody is understood here.

Named and shaped as Keystone's OS-FEDERATION, so that its clients and its mappings can be used.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import DomainId, Id, UserId
from schemas.sealed import Sealed
from schemas.units import LongText, Micros

RemoteId = Annotated[str, Meta(min_length=1, max_length=255)]
RemoteIds = Annotated[tuple[RemoteId, ...], Meta(max_length=16)]
# Only over TLS: what comes from there says who somebody is. On the loopback there is nobody else.
Issuer = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        pattern=r"^(https://[^\s/?#@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/[^\s?#]*)?\Z",
    ),
]
Scope = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+\Z")]
Scopes = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=16)]
Audience = Annotated[str, Meta(min_length=1, max_length=255)]
Audiences = Annotated[tuple[Audience, ...], Meta(max_length=16)]
LifetimeMinutes = Annotated[int, Meta(ge=1, le=7 * 24 * 60)]
Phrase = Annotated[str, Meta(max_length=255)]
Phrases = Annotated[tuple[Phrase, ...], Meta(max_length=256)]
Claim = Annotated[str, Meta(min_length=1, max_length=128)]
Claims = Annotated[
    dict[
        Claim,
        Annotated[
            tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=512)
        ],
    ],
    Meta(max_length=64),
]

OPENID: tuple[str, ...] = ("openid", "profile", "email")

# Resources


class Oidc(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an OpenID Connect provider is asked, and which of its tokens are for this cloud.

    ``audiences`` are taken beside the ``client_id``.
    """

    issuer: str
    client_id: str
    client_secret: Sealed | None = None
    scopes: tuple[str, ...] = OPENID
    audiences: tuple[str, ...] = ()


class IdentityProvider(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody else who says who people are. Its users are those of a domain.

    ``authorization_ttl`` is how many minutes what it says gives roles; None: as long as a token.
    """

    idp_id: str
    domain_id: DomainId
    enabled: bool = True
    description: LongText = ""
    remote_ids: tuple[str, ...] = ()
    authorization_ttl: int | None = None
    oidc: Oidc | None = None


class DomainRef(Struct, frozen=True, omit_defaults=True):
    """A domain, by id or by name."""

    id: Phrase | None = None
    name: Phrase | None = None


class LocalUser(Struct, frozen=True, omit_defaults=True):
    """Who somebody is here. ``{0}`` stands for what the first remote value is."""

    name: Phrase | None = None
    id: Phrase | None = None
    email: Phrase | None = None
    domain: DomainRef | None = None
    type: Literal["ephemeral"] | None = None


class LocalGroup(Struct, frozen=True, omit_defaults=True):
    """A group, by id, or by name and domain."""

    id: Phrase | None = None
    name: Phrase | None = None
    domain: DomainRef | None = None


class LocalRole(Struct, frozen=True):
    """A role by its name."""

    name: Phrase


class LocalProject(Struct, frozen=True):
    """A project of the provider's domain by its name, and the roles that are given there."""

    name: Phrase
    roles: Annotated[tuple[LocalRole, ...], Meta(min_length=1, max_length=16)]


class Local(Struct, frozen=True, omit_defaults=True):
    """What follows if a rule matches. ``groups`` and ``group_ids`` may stand for many."""

    user: LocalUser | None = None
    group: LocalGroup | None = None
    groups: Phrase | None = None
    group_ids: Phrase | None = None
    domain: DomainRef | None = None  # of ``groups``
    projects: Annotated[tuple[LocalProject, ...], Meta(max_length=16)] | None = None


class Remote(Struct, frozen=True, omit_defaults=True):
    """What must be said of somebody. Without a list of values, it is what ``{0}`` stands for."""

    type: Claim
    any_one_of: Phrases | None = None
    not_any_of: Phrases | None = None
    whitelist: Phrases | None = None
    blacklist: Phrases | None = None
    regex: bool = False


class MappingRule(Struct, frozen=True):
    """If all of ``remote`` holds, all of ``local`` follows."""

    local: Annotated[tuple[Local, ...], Meta(min_length=1, max_length=16)]
    remote: Annotated[tuple[Remote, ...], Meta(min_length=1, max_length=16)]


MappingRules = Annotated[tuple[MappingRule, ...], Meta(min_length=1, max_length=64)]


class Mapping(Struct, frozen=True, kw_only=True):
    """Rules that make a user, with groups and roles, of what a provider says."""

    mapping_id: str
    rules: tuple[MappingRule, ...]


class Protocol(Struct, frozen=True, kw_only=True):
    """A way in which a provider speaks, and the mapping that is used for it."""

    idp_id: str
    protocol_id: str
    mapping_id: str


class FederatedUser(Struct, frozen=True, kw_only=True):
    """What a provider has said of a user last, and until when it gives roles.

    ``unique_id`` is the provider's own id of the user, which never changes.
    """

    user_id: UserId
    idp_id: str
    protocol_id: str
    unique_id: str
    group_ids: tuple[str, ...]
    until: Micros


# Actions


class NewOidc(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """As ``Oidc``. The edge seals the secret; None leaves the one that is there."""

    issuer: Issuer
    client_id: Audience
    client_secret: Sealed | None = None
    scopes: Scopes = OPENID
    audiences: Audiences = ()


class CreateIdentityProvider(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let another say who people are. Without ``domain_id`` a domain of its own is made."""

    idp_id: Id
    domain_id: Id | None = None
    enabled: bool = True
    description: LongText = ""
    remote_ids: RemoteIds = ()
    authorization_ttl: LifetimeMinutes | None = None
    oidc: NewOidc | None = None


class UpdateIdentityProvider(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is, and the domain always stays."""

    idp_id: Id
    enabled: bool | None = None
    description: LongText | None = None
    remote_ids: RemoteIds | None = None
    authorization_ttl: LifetimeMinutes | None = None
    oidc: NewOidc | None = None


class DeleteIdentityProvider(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a provider and its protocols. Its users stay, and can no longer sign in by it."""

    idp_id: Id


class CreateMapping(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a mapping."""

    mapping_id: Id
    rules: MappingRules


class UpdateMapping(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Replace a mapping's rules. Who signed in before keeps what it got until then."""

    mapping_id: Id
    rules: MappingRules


class DeleteMapping(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a mapping that no protocol uses."""

    mapping_id: Id


class CreateProtocol(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let a provider's users sign in by a protocol. Its id is the method in their tokens."""

    idp_id: Id
    protocol_id: Id
    mapping_id: Id


class UpdateProtocol(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Use another mapping."""

    idp_id: Id
    protocol_id: Id
    mapping_id: Id


class DeleteProtocol(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let nobody sign in by it any more."""

    idp_id: Id
    protocol_id: Id


class SignInFederated(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Somebody has shown an edge what a provider says of them, and the edge has verified it.

    ``claims`` are those that the mapping looks at. Only edges may say this.
    """

    idp_id: Id
    protocol_id: Id
    unique_id: Annotated[str, Meta(min_length=1, max_length=255)]
    claims: Claims


type FederationAction = (
    CreateIdentityProvider
    | UpdateIdentityProvider
    | DeleteIdentityProvider
    | CreateMapping
    | UpdateMapping
    | DeleteMapping
    | CreateProtocol
    | UpdateProtocol
    | DeleteProtocol
    | SignInFederated
)

# Facts


class IdentityProviderSaved(
    Struct, frozen=True, kw_only=True, tag="identity.provider.saved.v1", tag_field="type"
):
    """The identity provider as it is, new or changed. Not metered."""

    provider: IdentityProvider


class IdentityProviderDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.provider.deleted.v1", tag_field="type"
):
    """The provider is gone with its protocols, and so is what it said of users. Not metered."""

    idp_id: str


class MappingSaved(
    Struct, frozen=True, kw_only=True, tag="identity.mapping.saved.v1", tag_field="type"
):
    """The mapping as it is, new or changed. Not metered."""

    mapping: Mapping


class MappingDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.mapping.deleted.v1", tag_field="type"
):
    """The mapping is gone. Not metered."""

    mapping_id: str


class ProtocolSaved(
    Struct, frozen=True, kw_only=True, tag="identity.protocol.saved.v1", tag_field="type"
):
    """The protocol as it is, new or changed. Not metered."""

    protocol: Protocol


class ProtocolDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.protocol.deleted.v1", tag_field="type"
):
    """Nobody signs in by the protocol any more. Not metered."""

    idp_id: str
    protocol_id: str


class FederatedUserSignedIn(
    Struct, frozen=True, kw_only=True, tag="identity.user.federated.v1", tag_field="type"
):
    """A provider says this of a user; it replaces what it said before. Not metered."""

    federated: FederatedUser


type FederationFact = (
    IdentityProviderSaved
    | IdentityProviderDeleted
    | MappingSaved
    | MappingDeleted
    | ProtocolSaved
    | ProtocolDeleted
    | FederatedUserSignedIn
)
