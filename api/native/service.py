"""The native API as a service: its routes, its status, and its description."""

from typing import Any

import msgspec

from api.errors import render_native
from api.exchange import Answer, Call, json_answer
from api.identity import passwords
from api.native import (
    actions,
    alarms,
    audit,
    audit_export,
    blast_radius,
    customers,
    diff,
    history,
    integrity,
    invoices,
    log,
    meters,
    policy,
    price_lists,
    project_metrics,
    quotas,
    reports,
    sealed,
    sql,
    undo,
    webhooks,
    what_if,
)
from api.routing import PUBLIC, Routes, Surface
from engine.bus.service import ask_engine
from schemas.errors import Unavailable

STATUS_S = 2.0
AREAS = (
    actions,
    log,
    meters,
    alarms,
    audit,
    audit_export,
    diff,
    what_if,
    blast_radius,
    history,
    sealed,
    sql,
    integrity,
    quotas,
    webhooks,
    policy,
    project_metrics,
    customers,
    price_lists,
    undo,
    invoices,
    reports,
)

_object = msgspec.json.Decoder(dict[str, Any])


def surface() -> Surface:
    """Return what the service is."""
    return Surface(
        name="native",
        prefix="",
        routes=_routes(),
        render=render_native,
        error_type=b"application/problem+json",
    )


def _routes() -> Routes:
    routes = Routes()
    for area in AREAS:
        area.add(routes)
    routes.add("GET", "/v1/password-policy", passwords.show_policy, "identity:password_policy:read")
    routes.add("GET", "/v1/status", status, "log:status:read", present=True)
    for path in ("/openapi.json", "/v1/openapi.json"):
        routes.add("GET", path, describe, PUBLIC)
    return routes


async def describe(call: Call) -> Answer:
    """GET /openapi.json: all services; under /v1, the native one."""
    return Answer(200, call.edge.described[call.path])


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
    if not call.reach.any:
        body = {k: body[k] for k in ("projection", "lag") if k in body}
    return json_answer(body)
