"""Regions, services and endpoints: the cloud's own, which are fixed, and what was added."""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from api import catalog
from api.exchange import Answer, Call, json_answer
from api.identity.attributes import Attributes
from api.identity.lists import View, link, listing
from api.pagination import flag
from api.routing import Routes
from api.writing import write
from schemas.config import REGION
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.identity import (
    CreateEndpoint,
    CreateRegion,
    CreateService,
    DeleteEndpoint,
    DeleteRegion,
    DeleteService,
    Endpoint,
    Region,
    Service,
    UpdateEndpoint,
    UpdateRegion,
    UpdateService,
)
from schemas.units import LongText, Text

READ, READ_REGIONS = "identity:catalog:read", "identity:regions:read"


class _NewRegion(Struct, frozen=True):
    id: Text | None = None
    description: LongText | None = None
    parent_region_id: Text | None = None


class _NewService(Struct, frozen=True):
    type: Text
    name: Text | None = None
    description: LongText | None = None
    enabled: bool = True


class _ServiceChange(Struct, frozen=True):
    type: Text | None = None
    name: Text | None = None
    description: LongText | None = None
    enabled: bool | None = None


class _NewEndpoint(Struct, frozen=True):
    service_id: Text
    interface: Text
    url: LongText
    region_id: Text | None = None
    region: Text | None = None  # its name before there were regions
    enabled: bool = True


class _EndpointChange(Struct, frozen=True):
    service_id: Text | None = None
    interface: Text | None = None
    url: LongText | None = None
    region_id: Text | None = None
    region: Text | None = None
    enabled: bool | None = None


_region = Attributes("region", _NewRegion)
_new_service = Attributes("service", _NewService)
_service_change = Attributes("service", _ServiceChange)
_new_endpoint = Attributes("endpoint", _NewEndpoint)
_endpoint_change = Attributes("endpoint", _EndpointChange)


def _need_added(own: Iterable[View], ident: str, what: str) -> None:
    """Refuse to change what the cloud itself serves.

    Raises:
        Forbidden: it is that.
    """
    if any(view["id"] == ident for view in own):
        raise Forbidden(f"this {what} is the cloud's own: it follows from what the cloud serves")


def _shown(views: Iterable[View], what: str, ident: str, status: int = 200) -> Answer:
    for view in views:
        if view["id"] == ident:
            return json_answer({what: view}, status)
    raise NotFound(f"there is no {what} {ident[:64]!r}")


def _only(call: Call, views: list[View], *names: str) -> list[View]:
    """Return those whose attributes are as the query asks."""
    for name in names:
        if wanted := call.param(name):
            views = [view for view in views if view[name] == wanted]
    return views


# Regions


def _region_view(call: Call, region: Region) -> View:
    return {
        "id": region.region_id,
        "description": region.description,
        "parent_region_id": region.parent_region_id or None,
        "links": link(call, f"regions/{region.region_id}"),
    }


def _own_regions(call: Call) -> list[View]:
    return [_region_view(call, Region(region_id=REGION))]


def _regions(call: Call) -> list[View]:
    added = call.edge.reader.regions()
    return [*_own_regions(call), *(_region_view(call, region) for region in added)]


async def list_regions(call: Call) -> Answer:
    """GET /regions."""
    call.allow(READ_REGIONS)
    return listing(call, "regions", _only(call, _regions(call), "parent_region_id"))


async def show_region(call: Call) -> Answer:
    """GET /regions/{id}."""
    call.allow(READ_REGIONS)
    return _shown(_regions(call), "region", call.args[0])


def _no_more(extra: dict[str, Any]) -> None:
    if extra:
        raise InvalidInput(f"a region has no {next(iter(extra))[:64]!r}")


async def create_region(call: Call) -> Answer:
    """POST /regions, and PUT /regions/{id}."""
    wish, extra = await _region.read(call)
    _no_more(extra)
    reply = await write(
        call,
        CreateRegion(
            region_id=call.args[0] if call.args else wish.id or None,
            description=wish.description or "",
            parent_region_id=wish.parent_region_id,
        ),
    )
    return _shown(_regions(call), "region", reply["region_id"], 201)


async def change_region(call: Call) -> Answer:
    """PATCH /regions/{id}."""
    wish, extra = await _region.read(call)
    _no_more(extra)
    call.allow("UpdateRegion")
    ident = _added_region(call)
    await write(
        call,
        UpdateRegion(
            region_id=ident,
            description=wish.description,
            parent_region_id=wish.parent_region_id,
        ),
    )
    return _shown(_regions(call), "region", ident)


async def delete_region(call: Call) -> Answer:
    """DELETE /regions/{id}."""
    call.allow("DeleteRegion")
    await write(call, DeleteRegion(region_id=_added_region(call)))
    return Answer(204)


def _added_region(call: Call) -> str:
    ident = call.args[0]
    _need_added(_own_regions(call), ident, "region")
    _shown(_regions(call), "region", ident)
    return ident


# Services


def _service_view(call: Call, service: Service) -> View:
    return {
        **service.extra,
        "id": service.service_id,
        "type": service.type,
        "name": service.name,
        "description": service.description,
        "enabled": service.enabled,
        "links": link(call, f"services/{service.service_id}"),
    }


def _services(call: Call) -> list[View]:
    added = call.edge.reader.services()
    return [*catalog.services(call.base), *(_service_view(call, service) for service in added)]


async def list_services(call: Call) -> Answer:
    """GET /services."""
    call.allow(READ)
    return listing(call, "services", _only(call, _services(call), "type", "name"))


async def show_service(call: Call) -> Answer:
    """GET /services/{id}."""
    call.allow(READ)
    return _shown(_services(call), "service", call.args[0])


async def create_service(call: Call) -> Answer:
    """POST /services."""
    wish, extra = await _new_service.read(call)
    reply = await write(
        call,
        CreateService(
            service_type=wish.type,
            name=wish.name or "",
            description=wish.description or "",
            enabled=wish.enabled,
            extra=extra,
        ),
    )
    return _shown(_services(call), "service", reply["service_id"], 201)


async def change_service(call: Call) -> Answer:
    """PATCH /services/{id}."""
    wish, extra = await _service_change.read(call)
    call.allow("UpdateService")
    ident = _added_service(call)
    await write(
        call,
        UpdateService(
            service_id=ident,
            service_type=wish.type,
            name=wish.name,
            description=wish.description,
            enabled=wish.enabled,
            extra=extra,
        ),
    )
    return _shown(_services(call), "service", ident)


async def delete_service(call: Call) -> Answer:
    """DELETE /services/{id}, and its endpoints."""
    call.allow("DeleteService")
    await write(call, DeleteService(service_id=_added_service(call)))
    return Answer(204)


def _added_service(call: Call) -> str:
    ident = call.args[0]
    _need_added(catalog.services(call.base), ident, "service")
    _shown(_services(call), "service", ident)
    return ident


# Endpoints


def _endpoint_view(call: Call, endpoint: Endpoint) -> View:
    region = endpoint.region_id or None
    return {
        **endpoint.extra,
        "id": endpoint.endpoint_id,
        "service_id": endpoint.service_id,
        "interface": endpoint.interface,
        "region": region,
        "region_id": region,
        "url": endpoint.url,
        "enabled": endpoint.enabled,
        "links": link(call, f"endpoints/{endpoint.endpoint_id}"),
    }


def _endpoints(call: Call) -> list[View]:
    added = call.edge.reader.endpoints()
    return [*catalog.endpoints(call.base), *(_endpoint_view(call, one) for one in added)]


async def list_endpoints(call: Call) -> Answer:
    """GET /endpoints."""
    call.allow(READ)
    views = _only(call, _endpoints(call), "service_id", "interface", "region_id", "region")
    if (enabled := flag(call, "enabled")) is not None:
        views = [view for view in views if view["enabled"] == enabled]
    return listing(call, "endpoints", views)


async def show_endpoint(call: Call) -> Answer:
    """GET /endpoints/{id}."""
    call.allow(READ)
    return _shown(_endpoints(call), "endpoint", call.args[0])


async def create_endpoint(call: Call) -> Answer:
    """POST /endpoints, of a service that was added."""
    wish, extra = await _new_endpoint.read(call)
    call.allow("CreateEndpoint")
    _need_added(catalog.services(call.base), wish.service_id, "service")
    reply = await write(
        call,
        CreateEndpoint(
            service_id=wish.service_id,
            interface=wish.interface,  # type: ignore[arg-type]  # judged by the engine's schema
            url=wish.url,
            region_id=wish.region_id or wish.region,
            enabled=wish.enabled,
            extra=extra,
        ),
    )
    return _shown(_endpoints(call), "endpoint", reply["endpoint_id"], 201)


async def change_endpoint(call: Call) -> Answer:
    """PATCH /endpoints/{id}."""
    wish, extra = await _endpoint_change.read(call)
    call.allow("UpdateEndpoint")
    ident = _added_endpoint(call)
    await write(
        call,
        UpdateEndpoint(
            endpoint_id=ident,
            service_id=wish.service_id,
            interface=wish.interface,  # type: ignore[arg-type]  # judged by the engine's schema
            url=wish.url,
            region_id=wish.region_id or wish.region,
            enabled=wish.enabled,
            extra=extra,
        ),
    )
    return _shown(_endpoints(call), "endpoint", ident)


async def delete_endpoint(call: Call) -> Answer:
    """DELETE /endpoints/{id}."""
    call.allow("DeleteEndpoint")
    await write(call, DeleteEndpoint(endpoint_id=_added_endpoint(call)))
    return Answer(204)


def _added_endpoint(call: Call) -> str:
    ident = call.args[0]
    _need_added(catalog.endpoints(call.base), ident, "endpoint")
    _shown(_endpoints(call), "endpoint", ident)
    return ident


def add(routes: Routes) -> None:
    """Route what this module answers."""
    region, service, endpoint = "/v3/regions/{}", "/v3/services/{}", "/v3/endpoints/{}"
    new_region = {"body": _region.decoder, "shape": _region.shape}
    routes.add("GET", "/v3/regions", list_regions, READ_REGIONS, query=("parent_region_id",))
    routes.add("POST", "/v3/regions", create_region, "CreateRegion", status=201, **new_region)
    routes.add("PUT", region, create_region, "CreateRegion", status=201, **new_region)
    routes.add("GET", region, show_region, READ_REGIONS)
    routes.add("PATCH", region, change_region, "UpdateRegion", **new_region)
    routes.add("DELETE", region, delete_region, "DeleteRegion", status=204)
    routes.add("GET", "/v3/services", list_services, READ, query=("type", "name"))
    routes.add(
        "POST", "/v3/services", create_service, "CreateService",
        body=_new_service.decoder, shape=_new_service.shape, status=201,
    )  # fmt: skip
    routes.add("GET", service, show_service, READ)
    routes.add(
        "PATCH", service, change_service, "UpdateService",
        body=_service_change.decoder, shape=_service_change.shape,
    )  # fmt: skip
    routes.add("DELETE", service, delete_service, "DeleteService", status=204)
    asked = ("service_id", "interface", "region_id", "region", "enabled")
    routes.add("GET", "/v3/endpoints", list_endpoints, READ, query=asked)
    routes.add(
        "POST", "/v3/endpoints", create_endpoint, "CreateEndpoint",
        body=_new_endpoint.decoder, shape=_new_endpoint.shape, status=201,
    )  # fmt: skip
    routes.add("GET", endpoint, show_endpoint, READ)
    routes.add(
        "PATCH", endpoint, change_endpoint, "UpdateEndpoint",
        body=_endpoint_change.decoder, shape=_endpoint_change.shape,
    )  # fmt: skip
    routes.add("DELETE", endpoint, delete_endpoint, "DeleteEndpoint", status=204)
