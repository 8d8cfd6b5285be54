"""Read models of what an operator has added to the catalog."""

from projections.store import Table, Writer
from schemas import identity as s
from schemas.units import Micros, Ordinal

NAME = "catalog"
VERSION = 1

REGIONS = Table(
    "regions",
    s.Region,
    columns="id TEXT NOT NULL, parent_region_id TEXT NOT NULL",
    values=lambda r: (r.region_id, r.parent_region_id),
)
SERVICES = Table(
    "services",
    s.Service,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL",
    values=lambda v: (v.service_id, v.name, v.type),
)
ENDPOINTS = Table(
    "endpoints",
    s.Endpoint,
    columns="id TEXT NOT NULL, service_id TEXT NOT NULL, interface TEXT NOT NULL, "
    "region_id TEXT NOT NULL",
    values=lambda e: (e.endpoint_id, e.service_id, e.interface, e.region_id),
    indexes=("(service_id)",),
)

STATEMENTS = (*REGIONS.create, *SERVICES.create, *ENDPOINTS.create)


def _region_saved(writer: Writer, fact: s.RegionSaved, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(REGIONS, fact.region, ordinal)


def _region_deleted(writer: Writer, fact: s.RegionDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(REGIONS, fact.region_id)


def _service_saved(writer: Writer, fact: s.ServiceSaved, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(SERVICES, fact.service, ordinal)


def _service_deleted(
    writer: Writer, fact: s.ServiceDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(SERVICES, fact.service_id)


def _endpoint_saved(writer: Writer, fact: s.EndpointSaved, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(ENDPOINTS, fact.endpoint, ordinal)


def _endpoint_deleted(
    writer: Writer, fact: s.EndpointDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(ENDPOINTS, fact.endpoint_id)


APPLY = {
    s.RegionSaved: _region_saved,
    s.RegionDeleted: _region_deleted,
    s.ServiceSaved: _service_saved,
    s.ServiceDeleted: _service_deleted,
    s.EndpointSaved: _endpoint_saved,
    s.EndpointDeleted: _endpoint_deleted,
}
