"""Compute as a service: its routes, its versions, and the microversion of every answer."""

import re

from api.compute import actions, flavors, hosts, keypairs, servers
from api.discovery import COMPUTE_MAX, COMPUTE_MIN, compute_root, compute_version
from api.edge import Edge
from api.errors import NotAcceptable, render_compute
from api.exchange import Call, Header
from api.routing import PUBLIC, Routes, Service
from schemas.errors import InvalidInput

_VERSION = re.compile(r"[1-9][0-9]{0,5}\.(0|[1-9][0-9]{0,5})\Z")
_NUMBER = COMPUTE_MAX.encode("ascii")


def service(edge: Edge) -> Service:
    """Return the service."""
    return Service(
        edge, "compute", "/compute", declared(), render_compute, decorate=decorate, admit=admit
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


def admit(call: Call) -> None:
    """Let a request pass that asks for a microversion on offer, or for none.

    Raises:
        InvalidInput: what it asks for is no version.
        NotAcceptable: it is not on offer.
    """
    asked = call.header(b"x-openstack-nova-api-version")
    for pair in call.header(b"openstack-api-version").split(","):
        name, _, version = pair.strip().partition(" ")
        if name.lower() == "compute":
            asked = version.strip()
    if not asked or asked.lower() == "latest":
        return
    if not _VERSION.match(asked):
        raise InvalidInput(f"{asked[:50]!r} is not a version")
    if asked != COMPUTE_MAX:
        raise NotAcceptable(
            f"version {asked} is not on offer: the minimum is {COMPUTE_MIN}, the maximum "
            f"{COMPUTE_MAX}"
        )


def decorate(call: Call) -> list[Header]:
    """Return the headers of every answer: its version, and its request id once more."""
    return [
        (b"x-compute-request-id", call.request_id.encode("ascii")),
        (b"openstack-api-version", b"compute " + _NUMBER),
        (b"x-openstack-nova-api-version", _NUMBER),
        (b"vary", b"OpenStack-API-Version, X-OpenStack-Nova-API-Version"),
    ]
