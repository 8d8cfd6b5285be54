"""Network as a service: its routes, and the extensions it really has."""

from typing import Any

from api.discovery import network_root
from api.errors import render_network
from api.exchange import Answer, Call, json_answer
from api.network import networks, ports, quotas
from api.routing import PUBLIC, Routes, Surface
from schemas.errors import NotFound


def surface() -> Surface:
    """Return what the service is."""
    return Surface(
        name="network",
        prefix="/network",
        routes=_routes(),
        render=render_network,
    )


def _routes() -> Routes:
    routes = Routes()
    for path in ("", "/"):
        routes.add("GET", path, network_root, PUBLIC)
        routes.add("GET", f"/v2.0{path}", resources, "network:extensions:read")
    for area in (networks, ports, quotas):
        area.add(routes)
    routes.add(
        "GET",
        "/v2.0/extensions",
        list_extensions,
        "network:extensions:read",
        query=("alias", "name"),
    )
    routes.add("GET", "/v2.0/extensions/{}", show_extension, "network:extensions:read")
    return routes


# Clients switch features on by these: only what works is named.
_EXTENSIONS = (
    ("net-mtu", "Network MTU", "Networks tell their MTU"),
    ("project-id", "project_id field enabled", "Objects have project_id beside tenant_id"),
    ("provider", "Provider Network", "How networks are carried, for administrators"),
    ("binding", "Port Binding", "Where ports are bound, for administrators"),
    ("pagination", "Pagination support", "Lists come in pages"),
    ("sorting", "Sorting support", "Lists can be sorted"),
    ("quotas", "Quota management support", "How much a project may hold"),
    ("quota_details", "Quota details management support", "How much of it is used"),
    ("quota-check-limit", "Quota check limit", "Limits that may not go below what is used"),
    ("security-group", "security-group", "What may pass to and from ports"),
    ("standard-attr-description", "standard-attr-description", "Objects have a description"),
    ("standard-attr-revisions", "Resource revision numbers", "Objects count their changes"),
    ("standard-attr-timestamp", "Resource timestamps", "Objects tell when they changed"),
)
_COLLECTIONS = ("networks", "subnets", "ports", "security-groups", "security-group-rules")


def _extension(alias: str, name: str, text: str) -> dict[str, Any]:
    return {
        "alias": alias,
        "name": name,
        "description": text,
        "updated": "2026-01-01T00:00:00-00:00",
        "links": [],
    }


async def resources(call: Call) -> Answer:
    """GET /v2.0: the collections."""
    found = [
        {
            "name": name.removesuffix("s").replace("-", "_"),
            "collection": name.replace("-", "_"),
            "links": [{"rel": "self", "href": f"{call.base}/network/v2.0/{name}"}],
        }
        for name in _COLLECTIONS
    ]
    return json_answer({"resources": found})


async def list_extensions(call: Call) -> Answer:
    """GET /extensions."""
    wanted = {key: value for key, value in call.query if key in {"alias", "name"}}
    found = [_extension(*e) for e in _EXTENSIONS]
    return json_answer(
        {"extensions": [e for e in found if all(e[k] == v for k, v in wanted.items())]}
    )


async def show_extension(call: Call) -> Answer:
    """GET /extensions/{alias}."""
    for extension in _EXTENSIONS:
        if extension[0] == call.args[0]:
            return json_answer({"extension": _extension(*extension)})
    raise NotFound(f"there is no extension {call.args[0][:64]!r}")
