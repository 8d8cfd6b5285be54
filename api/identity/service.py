"""Identity as a service: its routes and versions."""

from api.discovery import identity_root, identity_version
from api.errors import render_identity
from api.identity import (
    application_credentials,
    assignments,
    catalog,
    credentials,
    domains,
    ec2,
    federated,
    federation,
    grants,
    groups,
    passwords,
    projects,
    roles,
    tags,
    tokens,
    trusts,
    users,
    websso,
)
from api.routing import PUBLIC, Routes, Surface

PARTS = (
    tokens,
    domains,
    projects,
    tags,
    users,
    passwords,
    groups,
    roles,
    grants,
    assignments,
    application_credentials,
    credentials,
    ec2,
    trusts,
    catalog,
    federation,
    federated,
    websso,
)


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
    for part in PARTS:
        part.add(routes)
    return routes
