"""Identity: domains, projects, users, roles, grants (OpenStack Identity API v3)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import DomainId, FreeId, Id, ProjectId, RoleId, UserId
from schemas.sealed import Sealed
from schemas.units import Micros, Text

IdentityName = Annotated[str, Meta(min_length=1, max_length=64)]
type RoleName = Literal["admin", "member", "reader"]

# Resources


class Domain(Struct, frozen=True, kw_only=True):
    """A namespace of users and projects."""

    domain_id: DomainId
    name: IdentityName
    description: Text = ""
    enabled: bool = True


class Project(Struct, frozen=True, kw_only=True):
    """What owns resources and is billed for them."""

    project_id: ProjectId
    name: IdentityName
    domain_id: DomainId
    description: Text = ""
    enabled: bool = True
    key_id: str = ""  # seals this project's secrets

    @property
    def secrets_key_id(self) -> str:
        """The name of the key that seals this project's secrets."""
        return self.key_id or f"project-{self.project_id}"


class User(Struct, frozen=True, kw_only=True):
    """Somebody, or some program, that signs in."""

    user_id: UserId
    name: IdentityName
    domain_id: DomainId
    password: Sealed | None = None  # argon2id hash, sealed
    default_project_id: ProjectId | None = None
    email: Text = ""
    description: Text = ""
    enabled: bool = True
    # Tokens issued before this moment are no longer good (password change, disabling).
    tokens_valid_from: Micros = 0


class Role(Struct, frozen=True, kw_only=True):
    """A named set of rights. admin implies member implies reader."""

    role_id: RoleId
    name: IdentityName


class Grant(Struct, frozen=True, kw_only=True):
    """A user has a role on a project."""

    user_id: UserId
    project_id: ProjectId
    role_id: RoleId


# Actions


class Bootstrap(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make the Default domain, the roles, the admin project and the first administrator.

    Accepted once in a log's life, and only from the system.
    """

    admin_password: Sealed
    admin_name: IdentityName = "admin"
    project_name: IdentityName = "admin"
    project_key_id: str = ""


class CreateProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a project with its default security group."""

    name: IdentityName
    domain_id: Id = "default"
    description: Text = ""
    enabled: bool = True
    key_id: str = ""


class UpdateProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    project_id: Id
    name: IdentityName | None = None
    description: Text | None = None
    enabled: bool | None = None


class DeleteProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a project that owns no server, image or network any more."""

    project_id: Id


class CreateUser(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a user. The edge hashes and seals the password."""

    name: IdentityName
    domain_id: Id = "default"
    password: Sealed | None = None
    default_project_id: Id | None = None
    email: Text = ""
    description: Text = ""
    enabled: bool = True


class UpdateUser(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; a new password or ``enabled: false`` ends the user's tokens."""

    user_id: Id
    name: IdentityName | None = None
    password: Sealed | None = None
    email: Text | None = None
    description: Text | None = None
    enabled: bool | None = None
    default_project_id: Id | None = None


class DeleteUser(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a user, its grants and its keypairs. What it made stays."""

    user_id: Id


class GrantRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Give a user a role on a project. Repeating it changes nothing."""

    user_id: Id
    project_id: Id
    role_id: Id


class RevokeRole(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take a role away."""

    user_id: Id
    project_id: Id
    role_id: Id


class RevokeToken(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """End one token before its time."""

    audit_id: FreeId
    expires_at: Micros


type IdentityAction = (
    Bootstrap
    | CreateProject
    | UpdateProject
    | DeleteProject
    | CreateUser
    | UpdateUser
    | DeleteUser
    | GrantRole
    | RevokeRole
    | RevokeToken
)

# Facts


class DomainCreated(
    Struct, frozen=True, kw_only=True, tag="identity.domain.created.v1", tag_field="type"
):
    """A domain exists. Not metered."""

    domain: Domain


class RoleCreated(
    Struct, frozen=True, kw_only=True, tag="identity.role.created.v1", tag_field="type"
):
    """A role exists. Not metered."""

    role: Role


class ProjectCreated(
    Struct, frozen=True, kw_only=True, tag="identity.project.created.v1", tag_field="type"
):
    """A project exists; from now on its resources can be billed to it. Not metered itself."""

    project: Project


class ProjectUpdated(
    Struct, frozen=True, kw_only=True, tag="identity.project.updated.v1", tag_field="type"
):
    """The project as it is after the change. Not metered."""

    project: Project


class ProjectDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.project.deleted.v1", tag_field="type"
):
    """The project is gone; its history and bills stay. Not metered."""

    project_id: ProjectId


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
    """The user is gone with its grants and keypairs. Not metered."""

    user_id: UserId


class RoleGranted(
    Struct, frozen=True, kw_only=True, tag="identity.role.granted.v1", tag_field="type"
):
    """The user has the role on the project from now on. Not metered."""

    grant: Grant


class RoleRevoked(
    Struct, frozen=True, kw_only=True, tag="identity.role.revoked.v1", tag_field="type"
):
    """The user no longer has the role on the project. Not metered."""

    grant: Grant


class TokenRevoked(
    Struct, frozen=True, kw_only=True, tag="identity.token.revoked.v1", tag_field="type"
):
    """The token with this audit id is no longer good. Forgotten once it would have expired."""

    audit_id: str
    expires_at: Micros


type IdentityFact = (
    DomainCreated
    | RoleCreated
    | ProjectCreated
    | ProjectUpdated
    | ProjectDeleted
    | UserCreated
    | UserUpdated
    | UserDeleted
    | RoleGranted
    | RoleRevoked
    | TokenRevoked
)
