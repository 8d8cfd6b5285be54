"""Regions, services and endpoints that an operator has added to the catalog."""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.found import Decision, identity_id, merged_extra
from engine.domain.state import Cell, drop_member
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import Conflict, Duplicate, InvalidInput, NotFound, UnknownReference
from schemas.units import Micros

REGION = "RegionOne"  # where the cloud itself is: in the catalog without having been added
DEPTH_MAX = 8


def create_region(cell: Cell, ctx: Context, action: s.CreateRegion) -> Decision:
    """Make a region."""
    ident = action.region_id or identity_id(ctx)
    if ident == REGION or ident in cell.state.regions:
        raise Duplicate(f"a region {ident!r} exists")
    region = s.Region(
        region_id=ident,
        description=action.description,
        parent_region_id=_parent(cell, ident, action.parent_region_id),
    )
    return [s.RegionSaved(region=region)], {"region_id": ident}


def update_region(cell: Cell, ctx: Context, action: s.UpdateRegion) -> Decision:
    """Change what is given."""
    region = _region(cell, action.region_id)
    changed = replace(
        region,
        description=region.description if action.description is None else action.description,
        parent_region_id=region.parent_region_id
        if action.parent_region_id is None
        else _parent(cell, region.region_id, action.parent_region_id),
    )
    return [s.RegionSaved(region=changed)], {"region_id": region.region_id}


def delete_region(cell: Cell, ctx: Context, action: s.DeleteRegion) -> Decision:
    """Remove a region that nothing is in."""
    region = _region(cell, action.region_id)
    ident = region.region_id
    if cell.index.region_children.get(ident) or cell.index.region_endpoints.get(ident):
        raise Conflict("regions or endpoints are in it; remove those first")
    return [s.RegionDeleted(region_id=ident)], {}


def _region(cell: Cell, ident: str) -> s.Region:
    region = cell.state.regions.get(ident)
    if region is None:
        if ident == REGION:
            raise Conflict("the cloud's own region stays as it is")
        raise NotFound(f"there is no region {ident!r}")
    return region


def _parent(cell: Cell, ident: str, parent_id: str | None) -> str:
    if not parent_id or parent_id == REGION:
        return parent_id or ""
    above, depth = parent_id, 1
    while above and above != REGION:
        region = cell.state.regions.get(above)
        if region is None:
            raise NotFound(f"there is no region {above!r}")
        if above == ident or depth >= DEPTH_MAX:
            raise InvalidInput(f"a region cannot lie in itself, nor deeper than {DEPTH_MAX}")
        above, depth = region.parent_region_id, depth + 1
    return parent_id


def create_service(cell: Cell, ctx: Context, action: s.CreateService) -> Decision:
    """Add a service."""
    service = s.Service(
        service_id=identity_id(ctx),
        type=action.service_type,
        name=action.name,
        description=action.description,
        enabled=action.enabled,
        extra=merged_extra({}, action.extra),
    )
    return [s.ServiceSaved(service=service)], {"service_id": service.service_id}


def update_service(cell: Cell, ctx: Context, action: s.UpdateService) -> Decision:
    """Change what is given."""
    service = _service(cell, action.service_id)
    given = {
        name: value
        for name in ("name", "description", "enabled")
        if (value := getattr(action, name)) is not None
    }
    if action.service_type is not None:
        given["type"] = action.service_type
    changed = replace(service, **given, extra=merged_extra(service.extra, action.extra))
    return [s.ServiceSaved(service=changed)], {"service_id": service.service_id}


def delete_service(cell: Cell, ctx: Context, action: s.DeleteService) -> Decision:
    """Take a service away, and its endpoints before it."""
    service = _service(cell, action.service_id)
    endpoints = sorted(cell.index.service_endpoints.get(service.service_id, ()))
    facts: list[Fact] = [s.EndpointDeleted(endpoint_id=ident) for ident in endpoints]
    return [*facts, s.ServiceDeleted(service_id=service.service_id)], {}


def _service(cell: Cell, ident: str) -> s.Service:
    service = cell.state.services.get(ident)
    if service is None:
        raise NotFound(f"there is no service {ident} that was added")
    return service


def create_endpoint(cell: Cell, ctx: Context, action: s.CreateEndpoint) -> Decision:
    """Say where a service is reached."""
    endpoint = s.Endpoint(
        endpoint_id=identity_id(ctx),
        service_id=_reference(cell, action.service_id),
        interface=action.interface,
        url=action.url,
        region_id=_known_region(cell, action.region_id),
        enabled=action.enabled,
        extra=merged_extra({}, action.extra),
    )
    return [s.EndpointSaved(endpoint=endpoint)], {"endpoint_id": endpoint.endpoint_id}


def update_endpoint(cell: Cell, ctx: Context, action: s.UpdateEndpoint) -> Decision:
    """Change what is given."""
    endpoint = _endpoint(cell, action.endpoint_id)
    given = {
        name: value
        for name in ("interface", "url", "enabled")
        if (value := getattr(action, name)) is not None
    }
    if action.service_id is not None:
        given["service_id"] = _reference(cell, action.service_id)
    if action.region_id is not None:
        given["region_id"] = _known_region(cell, action.region_id)
    changed = replace(endpoint, **given, extra=merged_extra(endpoint.extra, action.extra))
    return [s.EndpointSaved(endpoint=changed)], {"endpoint_id": endpoint.endpoint_id}


def delete_endpoint(cell: Cell, ctx: Context, action: s.DeleteEndpoint) -> Decision:
    """Remove an endpoint."""
    endpoint = _endpoint(cell, action.endpoint_id)
    return [s.EndpointDeleted(endpoint_id=endpoint.endpoint_id)], {}


def _endpoint(cell: Cell, ident: str) -> s.Endpoint:
    endpoint = cell.state.endpoints.get(ident)
    if endpoint is None:
        raise NotFound(f"there is no endpoint {ident} that was added")
    return endpoint


def _reference(cell: Cell, service_id: str) -> str:
    if service_id not in cell.state.services:
        raise UnknownReference(f"there is no service {service_id} that was added")
    return service_id


def _known_region(cell: Cell, region_id: str | None) -> str:
    if region_id and region_id != REGION and region_id not in cell.state.regions:
        raise UnknownReference(f"there is no region {region_id!r}")
    return region_id or ""


# Evolve


def region_saved(cell: Cell, fact: s.RegionSaved, at: Micros) -> None:
    region, children = fact.region, cell.index.region_children
    old = cell.state.regions.get(region.region_id)
    if old is not None and old.parent_region_id:
        drop_member(children, old.parent_region_id, region.region_id)
    cell.state.regions[region.region_id] = region
    if region.parent_region_id:
        children.setdefault(region.parent_region_id, set()).add(region.region_id)


def region_deleted(cell: Cell, fact: s.RegionDeleted, at: Micros) -> None:
    region = cell.state.regions.pop(fact.region_id)
    if region.parent_region_id:
        drop_member(cell.index.region_children, region.parent_region_id, region.region_id)


def service_saved(cell: Cell, fact: s.ServiceSaved, at: Micros) -> None:
    cell.state.services[fact.service.service_id] = fact.service


def service_deleted(cell: Cell, fact: s.ServiceDeleted, at: Micros) -> None:
    del cell.state.services[fact.service_id]


def endpoint_saved(cell: Cell, fact: s.EndpointSaved, at: Micros) -> None:
    endpoint = fact.endpoint
    if endpoint.endpoint_id in cell.state.endpoints:
        _unlist(cell, cell.state.endpoints[endpoint.endpoint_id])
    cell.state.endpoints[endpoint.endpoint_id] = endpoint
    index, ident = cell.index, endpoint.endpoint_id
    index.service_endpoints.setdefault(endpoint.service_id, set()).add(ident)
    if endpoint.region_id:
        index.region_endpoints.setdefault(endpoint.region_id, set()).add(ident)


def endpoint_deleted(cell: Cell, fact: s.EndpointDeleted, at: Micros) -> None:
    _unlist(cell, cell.state.endpoints.pop(fact.endpoint_id))


def _unlist(cell: Cell, endpoint: s.Endpoint) -> None:
    index, ident = cell.index, endpoint.endpoint_id
    drop_member(index.service_endpoints, endpoint.service_id, ident)
    if endpoint.region_id:
        drop_member(index.region_endpoints, endpoint.region_id, ident)
