"""What stands for a user: application credentials, keys (EC2, TOTP), and trusts."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import Id, ProjectId, RoleId, UserId
from schemas.sealed import Sealed
from schemas.units import LongText, Micros, Name, Text

ServiceType = Annotated[str, Meta(min_length=1, max_length=64)]
HttpMethod = Literal["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]
RulePath = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^/")]
Redelegations = Annotated[int, Meta(ge=0, le=3)]

# Resources


class AccessRule(Struct, frozen=True, kw_only=True):
    """One call that an application credential may make.

    ``path`` is that of the request below its service, ``*`` standing for one segment, ``**`` for
    any number, ``{name}`` for one.
    """

    access_rule_id: str
    service: ServiceType
    method: HttpMethod
    path: RulePath


class ApplicationCredential(Struct, frozen=True, kw_only=True):
    """A secret with which a program acts for its user on one project, with some of its roles."""

    application_credential_id: str
    name: Name
    user_id: UserId
    project_id: ProjectId
    secret: Sealed  # argon2id hash, sealed
    role_ids: tuple[RoleId, ...]
    description: LongText = ""
    expires_at: Micros | None = None
    unrestricted: bool = False  # may make and end credentials and trusts itself
    access_rule_ids: tuple[str, ...] | None = None  # None: every call


class Credential(Struct, frozen=True, kw_only=True):
    """A key of a user. ``blob`` is JSON in Keystone's form for its type.

    Of an EC2 key ``access`` is the access key, and the id the SHA-256 (hex) of it.
    """

    credential_id: str
    user_id: UserId
    type: Text
    blob: Sealed
    project_id: ProjectId = ""
    access: str = ""
    # What made it, whose limits then bind it.
    trust_id: str = ""
    application_credential_id: str = ""


class Trust(Struct, frozen=True, kw_only=True):
    """A user lets another act on a project with some of its roles.

    With ``impersonation`` the other's tokens name the trustor as their user.
    """

    trust_id: str
    trustor_user_id: UserId
    trustee_user_id: UserId
    impersonation: bool
    project_id: ProjectId = ""
    role_ids: tuple[RoleId, ...] = ()
    expires_at: Micros | None = None
    remaining_uses: int | None = None
    redelegation_count: int = 0
    redelegated_trust_id: str = ""


# Actions


class NewAccessRule(Struct, frozen=True, kw_only=True):
    """An access rule to be made, or one that is there, by its id."""

    access_rule_id: Id | None = None
    service: ServiceType | None = None
    method: HttpMethod | None = None
    path: RulePath | None = None


class CreateApplicationCredential(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make an application credential for the caller on its project, with roles it has there.

    The edge makes, hashes and seals the secret. Without ``role_ids``, all that the caller has.
    """

    name: Name
    secret: Sealed
    role_ids: Annotated[tuple[Id, ...], Meta(max_length=64)] = ()
    description: LongText = ""
    expires_at: Micros | None = None
    unrestricted: bool = False
    access_rules: Annotated[tuple[NewAccessRule, ...], Meta(max_length=64)] | None = None


class DeleteApplicationCredential(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove an application credential; its tokens end."""

    application_credential_id: Id


class DeleteAccessRule(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove an access rule that no application credential uses."""

    access_rule_id: Id


class CreateCredential(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a key for a user. The edge seals it."""

    user_id: Id
    kind: Annotated[str, Meta(min_length=1, max_length=255)]
    blob: Sealed
    project_id: Id | None = None
    access: Annotated[str, Meta(max_length=128)] = ""
    credential_id: Id | None = None


class UpdateCredential(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    credential_id: Id
    blob: Sealed | None = None
    project_id: Id | None = None
    access: Annotated[str, Meta(max_length=128)] | None = None


class DeleteCredential(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a key."""

    credential_id: Id


class CreateTrust(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let another user act for the caller, with roles that the caller has on the project.

    ``redelegated_trust_id`` is set where the caller acts by a trust that may be handed on.
    """

    trustee_user_id: Id
    impersonation: bool
    project_id: Id | None = None
    role_ids: Annotated[tuple[Id, ...], Meta(max_length=64)] = ()
    expires_at: Micros | None = None
    remaining_uses: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    redelegation_count: Redelegations = 0


class UseTrust(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Count one token given by a trust whose uses are counted. By its trustee."""

    trust_id: Id


class DeleteTrust(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """End a trust and those that were handed on from it; their tokens end."""

    trust_id: Id


type CredentialAction = (
    CreateApplicationCredential
    | DeleteApplicationCredential
    | DeleteAccessRule
    | CreateCredential
    | UpdateCredential
    | DeleteCredential
    | CreateTrust
    | UseTrust
    | DeleteTrust
)

# Facts


class AccessRuleCreated(
    Struct, frozen=True, kw_only=True, tag="identity.access_rule.created.v1", tag_field="type"
):
    """A user has an access rule that application credentials may name. Not metered."""

    user_id: UserId
    access_rule: AccessRule


class AccessRuleDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.access_rule.deleted.v1", tag_field="type"
):
    """The access rule is gone. Not metered."""

    user_id: UserId
    access_rule_id: str


class ApplicationCredentialCreated(
    Struct,
    frozen=True,
    kw_only=True,
    tag="identity.application_credential.created.v1",
    tag_field="type",
):
    """A program can act for the user. Not metered."""

    application_credential: ApplicationCredential


class ApplicationCredentialDeleted(
    Struct,
    frozen=True,
    kw_only=True,
    tag="identity.application_credential.deleted.v1",
    tag_field="type",
):
    """The credential and its tokens are no longer good. Not metered."""

    application_credential_id: str


class CredentialCreated(
    Struct, frozen=True, kw_only=True, tag="identity.credential.created.v1", tag_field="type"
):
    """A user has a key. Not metered."""

    credential: Credential


class CredentialUpdated(
    Struct, frozen=True, kw_only=True, tag="identity.credential.updated.v1", tag_field="type"
):
    """The key as it is after the change. Not metered."""

    credential: Credential


class CredentialDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.credential.deleted.v1", tag_field="type"
):
    """The key is no longer good. Not metered."""

    credential_id: str


class TrustCreated(
    Struct, frozen=True, kw_only=True, tag="identity.trust.created.v1", tag_field="type"
):
    """The trustee can act for the trustor. Not metered."""

    trust: Trust


class TrustUsed(Struct, frozen=True, kw_only=True, tag="identity.trust.used.v1", tag_field="type"):
    """A token was given by the trust; ``remaining_uses`` are left. Not metered."""

    trust_id: str
    remaining_uses: int


class TrustDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.trust.deleted.v1", tag_field="type"
):
    """The trust and its tokens are no longer good. Not metered."""

    trust_id: str


type CredentialFact = (
    AccessRuleCreated
    | AccessRuleDeleted
    | ApplicationCredentialCreated
    | ApplicationCredentialDeleted
    | CredentialCreated
    | CredentialUpdated
    | CredentialDeleted
    | TrustCreated
    | TrustUsed
    | TrustDeleted
)
