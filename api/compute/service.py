"""Compute as a service: its routes, its versions, and the microversion of every answer."""

from api.compute import actions, flavors, hosts, keypairs, quotas, servers, usages
from api.discovery import COMPUTE, compute_root, compute_version
from api.errors import render_compute
from api.exchange import Call, Header
from api.routing import PUBLIC, Routes, Surface


def surface() -> Surface:
    """Return what the service is."""
    return Surface(
        name="compute",
        prefix="/compute",
        routes=_routes(),
        render=render_compute,
        versions=COMPUTE,
        decorate=decorate,
    )


def _routes() -> Routes:
    routes = Routes()
    for path in ("", "/"):
        routes.add("GET", path, compute_root, PUBLIC)
        routes.add("GET", f"/v2.1{path}", compute_version, PUBLIC)
    for area in (servers, actions, flavors, keypairs, hosts, quotas, usages):
        area.add(routes)
    return routes


def decorate(call: Call) -> list[Header]:
    """Return what every answer has besides: its request id once more."""
    return [(b"x-compute-request-id", call.request_id.encode("ascii"))]
