"""Domains and projects: namespaces, and what owns resources."""

from msgspec import Struct

from schemas.identity.values import Extra, IdentityName, Tags
from schemas.ids import DomainId, Id, ProjectId
from schemas.units import LongText

# Resources


class Domain(Struct, frozen=True, kw_only=True):
    """A namespace of users, groups and projects."""

    domain_id: DomainId
    name: IdentityName
    description: LongText = ""
    enabled: bool = True
    tags: Tags = ()
    extra: Extra = {}


class Project(Struct, frozen=True, kw_only=True):
    """What owns resources and is billed for them. Without ``parent_id`` it lies in its domain."""

    project_id: ProjectId
    name: IdentityName
    domain_id: DomainId
    description: LongText = ""
    enabled: bool = True
    key_id: str = ""  # seals this project's secrets
    parent_id: str = ""
    tags: Tags = ()
    extra: Extra = {}

    @property
    def secrets_key_id(self) -> str:
        """The name of the key that seals this project's secrets."""
        return self.key_id or f"project-{self.project_id}"


# Actions


class CreateDomain(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a domain."""

    name: IdentityName
    description: LongText = ""
    enabled: bool = True
    tags: Tags = ()
    extra: Extra = {}


class UpdateDomain(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is. Disabled, nobody of it signs in."""

    domain_id: Id
    name: IdentityName | None = None
    description: LongText | None = None
    enabled: bool | None = None
    tags: Tags | None = None
    extra: Extra = {}


class DeleteDomain(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a disabled domain with its users, groups, roles and projects."""

    domain_id: Id


class CreateProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a project with its default security group."""

    name: IdentityName
    domain_id: Id = "default"
    description: LongText = ""
    enabled: bool = True
    key_id: str = ""
    parent_id: Id | None = None
    tags: Tags = ()
    extra: Extra = {}


class UpdateProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    project_id: Id
    name: IdentityName | None = None
    description: LongText | None = None
    enabled: bool | None = None
    tags: Tags | None = None
    extra: Extra = {}


class DeleteProject(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a project without projects below it. What it owns stays, and stays metered."""

    project_id: Id


type DomainAction = (
    CreateDomain | UpdateDomain | DeleteDomain | CreateProject | UpdateProject | DeleteProject
)

# Facts


class DomainCreated(
    Struct, frozen=True, kw_only=True, tag="identity.domain.created.v1", tag_field="type"
):
    """A domain exists. Not metered."""

    domain: Domain


class DomainUpdated(
    Struct, frozen=True, kw_only=True, tag="identity.domain.updated.v1", tag_field="type"
):
    """The domain as it is after the change. Not metered."""

    domain: Domain


class DomainDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.domain.deleted.v1", tag_field="type"
):
    """The domain is gone. Not metered."""

    domain_id: DomainId


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


type DomainFact = (
    DomainCreated | DomainUpdated | DomainDeleted | ProjectCreated | ProjectUpdated | ProjectDeleted
)
