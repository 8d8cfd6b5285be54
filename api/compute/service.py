"""Compute as a service: its routes, its versions, and the microversion of every answer."""

from api.compute import actions, flavors, hosts, keypairs, servers
from api.discovery import COMPUTE, compute_root, compute_version
from api.edge import Edge
from api.errors import render_compute
from api.exchange import Call, Header
from api.routing import PUBLIC, Routes, Service


def service(edge: Edge) -> Service:
    """Return the service."""
    return Service(
        edge,
        "compute",
        "/compute",
        declared(),
        render_compute,
        versions=COMPUTE,
        decorate=decorate,
    )


def declared() -> Routes:
    """Return what is answered, each with what it promises."""
    routes = Routes()
    for path in ("", "/"):
        routes.add("GET", path, compute_root, PUBLIC)
        routes.add("GET", f"/v2.1{path}", compute_version, PUBLIC)
    for area in (servers, actions, flavors, keypairs, hosts):
        area.add(routes)
    return routes


def decorate(call: Call) -> list[Header]:
    """Return what every answer has besides: its request id once more."""
    return [(b"x-compute-request-id", call.request_id.encode("ascii"))]
