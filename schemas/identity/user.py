"""Users, groups, their passwords and the ends of their tokens."""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.identity.values import Extra, IdentityName, UserName
from schemas.ids import DomainId, FreeId, Id, ProjectId, UserId
from schemas.sealed import Sealed
from schemas.units import LongText, Micros, Text

# Resources


class UserOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user is excepted from, or bound to (Keystone's resource options)."""

    ignore_change_password_upon_first_use: bool = False
    ignore_password_expiry: bool = False
    ignore_lockout_failure_attempts: bool = False
    lock_password: bool = False
    multi_factor_auth_enabled: bool = False
    # Sign-in needs all methods of one of these, if multi-factor is enabled.
    multi_factor_auth_rules: Annotated[
        tuple[Annotated[tuple[Text, ...], Meta(max_length=8)], ...], Meta(max_length=8)
    ] = ()


class User(Struct, frozen=True, kw_only=True):
    """Somebody, or some program, that signs in."""

    user_id: UserId
    name: UserName
    domain_id: DomainId
    password: Sealed | None = None  # argon2id hash, sealed
    default_project_id: ProjectId | None = None
    email: Text = ""
    description: LongText = ""
    enabled: bool = True
    # Tokens issued before this moment are no longer good (password change, disabling).
    tokens_valid_from: Micros = 0
    password_changed_at: Micros = 0
    password_expires_at: Micros | None = None
    # The hashes before, newest first, as many as the password policy wants not to come again.
    password_history: tuple[Sealed, ...] = ()
    options: UserOptions = UserOptions()
    extra: Extra = {}


class Group(Struct, frozen=True, kw_only=True):
    """Users who get roles together."""

    group_id: str
    name: IdentityName
    domain_id: DomainId
    description: LongText = ""
    extra: Extra = {}


class PasswordPolicy(Struct, frozen=True, kw_only=True):
    """What a password must be, and what failed sign-ins do. 0 and "" mean no such rule.

    ``pattern`` is a regular expression that a password must match (``search``), ``pattern_hint``
    says in words what it asks for.
    """

    length_min: Annotated[int, Meta(ge=0, le=128)] = 0
    pattern: Annotated[str, Meta(max_length=512)] = ""
    pattern_hint: Text = ""
    history: Annotated[int, Meta(ge=0, le=24)] = 0  # how many earlier ones must not come again
    expires_days: Annotated[int, Meta(ge=0, le=3650)] = 0
    age_min_days: Annotated[int, Meta(ge=0, le=365)] = 0
    change_upon_first_use: bool = False
    lockout_attempts: Annotated[int, Meta(ge=0, le=1000)] = 0
    lockout_s: Annotated[int, Meta(ge=0, le=86_400)] = 0


# Actions


class CreateUser(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a user. The edge hashes and seals the password."""

    name: UserName
    domain_id: Id = "default"
    password: Sealed | None = None
    default_project_id: Id | None = None
    email: Text = ""
    description: LongText = ""
    enabled: bool = True
    options: UserOptions = UserOptions()
    extra: Extra = {}


class UpdateUser(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; a new password or ``enabled: false`` ends the user's tokens.

    ``own`` says that the user knew its old password: then it counts as changed by itself.
    """

    user_id: Id
    name: UserName | None = None
    password: Sealed | None = None
    email: Text | None = None
    description: LongText | None = None
    enabled: bool | None = None
    default_project_id: Id | None = None
    options: UserOptions | None = None
    extra: Extra = {}
    own: bool = False


class DeleteUser(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a user, its roles, keypairs, credentials and trusts. What it made stays."""

    user_id: Id


class CreateGroup(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a group."""

    name: IdentityName
    domain_id: Id = "default"
    description: LongText = ""
    extra: Extra = {}


class UpdateGroup(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    group_id: Id
    name: IdentityName | None = None
    description: LongText | None = None
    extra: Extra = {}


class DeleteGroup(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a group; its members lose the roles that they had by it."""

    group_id: Id


class AddGroupMember(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Put a user into a group. Repeating it changes nothing."""

    group_id: Id
    user_id: Id


class RemoveGroupMember(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take a user out of a group."""

    group_id: Id
    user_id: Id


class RevokeToken(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """End one token before its time."""

    audit_id: FreeId
    expires_at: Micros


class SetPasswordPolicy(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Say what passwords must be from now on, and what failed sign-ins do."""

    policy: PasswordPolicy


type UserAction = (
    CreateUser
    | UpdateUser
    | DeleteUser
    | CreateGroup
    | UpdateGroup
    | DeleteGroup
    | AddGroupMember
    | RemoveGroupMember
    | RevokeToken
    | SetPasswordPolicy
)

# Facts


class UserCreated(
    Struct, frozen=True, kw_only=True, tag="identity.user.created.v1", tag_field="type"
):
    """A user exists. Not metered."""

    user: User


class UserUpdated(
    Struct, frozen=True, kw_only=True, tag="identity.user.updated.v1", tag_field="type"
):
    """The user as it is after the change. Not metered."""

    user: User


class UserDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.user.deleted.v1", tag_field="type"
):
    """The user is gone with all that was only its own. Not metered."""

    user_id: UserId


class GroupCreated(
    Struct, frozen=True, kw_only=True, tag="identity.group.created.v1", tag_field="type"
):
    """A group exists, without members. Not metered."""

    group: Group


class GroupUpdated(
    Struct, frozen=True, kw_only=True, tag="identity.group.updated.v1", tag_field="type"
):
    """The group as it is after the change. Not metered."""

    group: Group


class GroupDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.group.deleted.v1", tag_field="type"
):
    """The group is gone with its memberships and roles. Not metered."""

    group_id: str


class GroupMemberAdded(
    Struct, frozen=True, kw_only=True, tag="identity.group.member_added.v1", tag_field="type"
):
    """The user has what the group has. Not metered."""

    group_id: str
    user_id: UserId


class GroupMemberRemoved(
    Struct, frozen=True, kw_only=True, tag="identity.group.member_removed.v1", tag_field="type"
):
    """The user no longer has what the group has. Not metered."""

    group_id: str
    user_id: UserId


class TokenRevoked(
    Struct, frozen=True, kw_only=True, tag="identity.token.revoked.v1", tag_field="type"
):
    """The token with this audit id is no longer good. Forgotten once it would have expired."""

    audit_id: str
    expires_at: Micros


class PasswordPolicySet(
    Struct, frozen=True, kw_only=True, tag="identity.password_policy.set.v1", tag_field="type"
):
    """What passwords must be from here on. Not metered."""

    policy: PasswordPolicy


type UserFact = (
    UserCreated
    | UserUpdated
    | UserDeleted
    | GroupCreated
    | GroupUpdated
    | GroupDeleted
    | GroupMemberAdded
    | GroupMemberRemoved
    | TokenRevoked
    | PasswordPolicySet
)
