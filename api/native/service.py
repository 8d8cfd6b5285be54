"""The native API as a service: its routes, its status, and its description."""

from typing import Any

import msgspec

from api.edge import Edge
from api.errors import render_native
from api.exchange import Answer, Call, json_answer
from api.native import actions, audit, history, integrity, log
from api.routing import PUBLIC, Routes, Service
from engine.bus.service import ask_engine
from schemas.envelope import action_types
from schemas.errors import Unavailable

STATUS_S = 2.0

_object = msgspec.json.Decoder(dict[str, Any])


def service(edge: Edge) -> Service:
    """Return the service."""
    return Service(
        edge, "native", "", declared(), render_native, error_type=b"application/problem+json"
    )


def declared() -> Routes:
    """Return what is answered, each with what it promises."""
    routes = Routes()
    for area in (actions, log, audit, history, integrity):
        area.add(routes)
    routes.add("GET", "/v1/status", status, "log:status:read")

    async def describe(_call: Call) -> Answer:
        return json_answer(description(routes))

    routes.add("GET", "/v1/openapi.json", describe, PUBLIC)
    return routes


async def status(call: Call) -> Answer:
    """GET /v1/status: how far log and read model are, and which hosts are up."""
    edge = call.edge
    try:
        engine = _object.decode(await ask_engine(edge.bus, "status", timeout_s=STATUS_S))
    except Unavailable as error:
        engine = {"error": error.reason}
    head = edge.reader.head()
    body: dict[str, Any] = {
        "node": edge.config.node,
        "cell": edge.config.cell,
        "engine": engine,
        "projection": head,
        "bus": {"connected": edge.bus.connected},
        "hosts": [
            {"host_id": h.host_id, "status": h.status, "accelerator": h.accelerator}
            for h in edge.reader.hosts()
        ],
    }
    if isinstance(engine.get("ordinal"), int):
        body["lag"] = max(0, engine["ordinal"] - head.ordinal)
    if not call.principal.is_admin:
        body = {k: body[k] for k in ("projection", "lag") if k in body}
    return json_answer(body)


def description(routes: Routes) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of the native API, with every action's schema."""
    kinds = sorted(action_types().items())
    schemas, components = msgspec.json.schema_components(
        [kind for _, kind in kinds], ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for method, path, _ in routes.listing():
        paths.setdefault(path.replace("{}", "{id}"), {})[method.lower()] = {
            "responses": {"default": {"description": "JSON; errors are problem documents"}}
        }
    paths["/v1/actions"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"oneOf": list(schemas), "discriminator": {"propertyName": "type"}}
            }
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cumulog", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }
