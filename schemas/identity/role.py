"""Roles, what they imply, and who has which where."""

from typing import Literal

from msgspec import Struct

from schemas.identity.values import Extra, RoleNameText
from schemas.ids import Id, IdOrNone, ProjectId, RoleId, UserId
from schemas.units import LongText

# Each implies those after it, and so does a role that implies one of them.
RANKED: tuple[str, ...] = ("admin", "manager", "member", "reader")
# Made with the cloud; they can be neither renamed nor removed.
BUILT_IN: tuple[str, ...] = (*RANKED, "service")

type RoleName = Literal["admin", "manager", "member", "reader"]

# Resources


class Role(Struct, frozen=True, kw_only=True):
    """A named set of rights; the policy says which.

    One with a domain is that domain's own: it gives what it implies, and counts for nothing itself.
    """

    role_id: RoleId
    name: RoleNameText
    domain_id: str = ""
    description: LongText = ""
    extra: Extra = {}


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user or a group has a role on a project, on a domain, or in the system.

    ``inherited``: not there, but on all projects below; of a domain, on all its projects.
    """

    role_id: RoleId
    user_id: UserId = ""
    group_id: str = ""
    project_id: ProjectId = ""
    domain_id: str = ""
    system: bool = False
    inherited: bool = False

    @property
    def holder(self) -> str:
        """The user's or the group's id."""
        return self.user_id or self.group_id

    @property
    def target(self) -> str:
        """The project's or the domain's id, or ``system``."""
        return SYSTEM if self.system else self.project_id or self.domain_id


SYSTEM = "system"

# Actions


class CreateRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a role; it gives nothing until it implies another, or the policy names it."""

    name: RoleNameText
    domain_id: Id | None = None
    description: LongText = ""
    extra: Extra = {}


class UpdateRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    role_id: Id
    name: RoleNameText | None = None
    description: LongText | None = None
    extra: Extra = {}


class DeleteRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a role; nobody has it any more."""

    role_id: Id


class ImplyRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let whoever has one role have another as well. Repeating it changes nothing."""

    prior_role_id: Id
    implied_role_id: Id


class EndRoleImplication(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Let a role no longer imply another."""

    prior_role_id: Id
    implied_role_id: Id


class GrantRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Give a user or a group a role. Repeating it changes nothing.

    One of ``user_id`` and ``group_id``; one of ``project_id``, ``domain_id`` and ``system``.
    """

    role_id: Id
    user_id: IdOrNone = ""
    group_id: IdOrNone = ""
    project_id: IdOrNone = ""
    domain_id: IdOrNone = ""
    system: bool = False
    inherited: bool = False


class RevokeRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take a role away. As ``GrantRole``."""

    role_id: Id
    user_id: IdOrNone = ""
    group_id: IdOrNone = ""
    project_id: IdOrNone = ""
    domain_id: IdOrNone = ""
    system: bool = False
    inherited: bool = False


type RoleAction = (
    CreateRole | UpdateRole | DeleteRole | ImplyRole | EndRoleImplication | GrantRole | RevokeRole
)

# Facts


class RoleCreated(
    Struct, frozen=True, kw_only=True, tag="identity.role.created.v1", tag_field="type"
):
    """A role exists. Not metered."""

    role: Role


class RoleUpdated(
    Struct, frozen=True, kw_only=True, tag="identity.role.updated.v1", tag_field="type"
):
    """The role as it is after the change. Not metered."""

    role: Role


class RoleDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.role.deleted.v1", tag_field="type"
):
    """The role is gone, with all its grants and implications. Not metered."""

    role_id: RoleId


class RoleImplied(
    Struct, frozen=True, kw_only=True, tag="identity.role.implied.v1", tag_field="type"
):
    """Whoever has the prior role has the implied one as well. Not metered."""

    prior_role_id: RoleId
    implied_role_id: RoleId


class RoleImplicationEnded(
    Struct, frozen=True, kw_only=True, tag="identity.role.implication_ended.v1", tag_field="type"
):
    """The prior role no longer implies the other. Not metered."""

    prior_role_id: RoleId
    implied_role_id: RoleId


class RoleGranted(
    Struct, frozen=True, kw_only=True, tag="identity.role.granted.v1", tag_field="type"
):
    """The user or group has the role there from now on. Not metered."""

    grant: Grant


class RoleRevoked(
    Struct, frozen=True, kw_only=True, tag="identity.role.revoked.v1", tag_field="type"
):
    """The user or group no longer has the role there. Not metered."""

    grant: Grant


type RoleFact = (
    RoleCreated
    | RoleUpdated
    | RoleDeleted
    | RoleImplied
    | RoleImplicationEnded
    | RoleGranted
    | RoleRevoked
)
