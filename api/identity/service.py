"""Identity as a service: its routes, versions, and the lists of services and endpoints."""

from typing import Any

from api.catalog import REGION, endpoints, services
from api.discovery import identity_root, identity_version
from api.errors import render_identity
from api.exchange import Answer, Call, json_answer
from api.identity import passwords, projects, tokens, users
from api.identity.projects import listing, need_admin
from api.routing import PUBLIC, Routes, Surface
from schemas.errors import NotFound


def surface() -> Surface:
    """Return what the service is."""
    return Surface(
        name="identity",
        prefix="/identity",
        routes=_routes(),
        render=render_identity,
    )


def _routes() -> Routes:
    routes = Routes()
    for path in ("", "/"):
        routes.add("GET", path, identity_root, PUBLIC, status=300)
        routes.add("GET", f"/v3{path}", identity_version, PUBLIC)
    tokens.add(routes)
    projects.add(routes)
    users.add(routes)
    passwords.add(routes)
    for name, items in (("services", services), ("endpoints", endpoints)):
        _add_fixed(routes, name, items)
    _add_fixed(routes, "regions", _regions)
    return routes


def _regions(base: str) -> list[dict[str, Any]]:
    return [
        {
            "id": REGION,
            "description": "",
            "parent_region_id": None,
            "links": {"self": f"{base}/identity/v3/regions/{REGION}"},
        }
    ]


def _add_fixed(routes: Routes, name: str, items: Any) -> None:
    """Route the reading of a collection that the deployment fixes."""

    async def list_all(call: Call) -> Answer:
        need_admin(call)
        found = items(call.base)
        for key, value in call.query:
            found = [item for item in found if key not in item or item[key] == value]
        return listing(call, name, found)

    async def show(call: Call) -> Answer:
        need_admin(call)
        for item in items(call.base):
            if item["id"] == call.args[0]:
                return json_answer({name[:-1]: item})
        raise NotFound(f"there is no {name[:-1]} {call.args[0][:64]!r}")

    routes.add("GET", f"/v3/{name}", list_all, f"identity:{name}:read")
    routes.add("GET", f"/v3/{name}/{{}}", show, f"identity:{name}:read")
