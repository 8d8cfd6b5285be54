"""The catalog's own entries: regions, services and endpoints that an operator has added.

What this cloud serves itself is not among them: it is listed as each client reaches it.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.identity.values import Extra
from schemas.ids import Id
from schemas.units import LongText, Text

type Interface = Literal["public", "internal", "admin"]
RegionId = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f]+\Z")]
ServiceType = Annotated[str, Meta(min_length=1, max_length=255)]
Url = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^https?://[^\s\x00-\x1f]+\Z")]

# Resources


class Region(Struct, frozen=True, kw_only=True):
    """A place, perhaps within another."""

    region_id: str
    description: LongText = ""
    parent_region_id: str = ""


class Service(Struct, frozen=True, kw_only=True):
    """A service that clients find in their tokens' catalog while it is enabled."""

    service_id: str
    type: str
    name: Text = ""
    description: LongText = ""
    enabled: bool = True
    extra: Extra = {}


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a service is reached. ``%(project_id)s`` and the like are filled in for each token."""

    endpoint_id: str
    service_id: str
    interface: Interface
    url: str
    region_id: str = ""
    enabled: bool = True
    extra: Extra = {}


# Actions


class CreateRegion(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a region, under an id of the caller's choice if one is given."""

    region_id: RegionId | None = None
    description: LongText = ""
    parent_region_id: RegionId | None = None


class UpdateRegion(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is, "" takes it out of its parent."""

    region_id: RegionId
    description: LongText | None = None
    parent_region_id: RegionId | Literal[""] | None = None


class DeleteRegion(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a region without endpoints or regions in it."""

    region_id: RegionId


class CreateService(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Add a service to the catalog."""

    service_type: ServiceType
    name: Text = ""
    description: LongText = ""
    enabled: bool = True
    extra: Extra = {}


class UpdateService(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    service_id: Id
    service_type: ServiceType | None = None
    name: Text | None = None
    description: LongText | None = None
    enabled: bool | None = None
    extra: Extra = {}


class DeleteService(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Take a service out of the catalog, with its endpoints."""

    service_id: Id


class CreateEndpoint(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Say where a service is reached."""

    service_id: Id
    interface: Interface
    url: Url
    region_id: RegionId | None = None
    enabled: bool = True
    extra: Extra = {}


class UpdateEndpoint(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Change what is given; None leaves a value as it is."""

    endpoint_id: Id
    service_id: Id | None = None
    interface: Interface | None = None
    url: Url | None = None
    region_id: RegionId | None = None
    enabled: bool | None = None
    extra: Extra = {}


class DeleteEndpoint(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove an endpoint."""

    endpoint_id: Id


type CatalogAction = (
    CreateRegion
    | UpdateRegion
    | DeleteRegion
    | CreateService
    | UpdateService
    | DeleteService
    | CreateEndpoint
    | UpdateEndpoint
    | DeleteEndpoint
)

# Facts


class RegionSaved(
    Struct, frozen=True, kw_only=True, tag="identity.region.saved.v1", tag_field="type"
):
    """The region as it is, new or changed. Not metered."""

    region: Region


class RegionDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.region.deleted.v1", tag_field="type"
):
    """The region is gone. Not metered."""

    region_id: str


class ServiceSaved(
    Struct, frozen=True, kw_only=True, tag="identity.service.saved.v1", tag_field="type"
):
    """The service as it is, new or changed. Not metered."""

    service: Service


class ServiceDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.service.deleted.v1", tag_field="type"
):
    """The service is gone, and its endpoints before it. Not metered."""

    service_id: str


class EndpointSaved(
    Struct, frozen=True, kw_only=True, tag="identity.endpoint.saved.v1", tag_field="type"
):
    """The endpoint as it is, new or changed. Not metered."""

    endpoint: Endpoint


class EndpointDeleted(
    Struct, frozen=True, kw_only=True, tag="identity.endpoint.deleted.v1", tag_field="type"
):
    """The endpoint is gone. Not metered."""

    endpoint_id: str


type CatalogFact = (
    RegionSaved | RegionDeleted | ServiceSaved | ServiceDeleted | EndpointSaved | EndpointDeleted
)
