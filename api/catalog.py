"""The services on offer and where they are: the catalog of tokens.

Of this cloud's own, only what works is listed; their ids are derived from names, so that every edge
says the same. Beside them is what an operator has added, with addresses made for each token.
"""

import re
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.config import REGION
from schemas.identity import Endpoint

if TYPE_CHECKING:
    from api.auth import Principal
    from projections.reader import Reader

INTERFACES = ("public", "internal", "admin")

# type, path below the host. Network and image clients append their version themselves.
SERVICES: tuple[tuple[str, str], ...] = (
    ("identity", "/identity/v3"),
    ("compute", "/compute/v2.1"),
    ("image", "/image"),
    ("network", "/network"),
)


def _id(*names: str) -> str:
    return sha256("/".join(names).encode()).hexdigest()[:32]


def catalog_for(principal: "Principal", reader: "Reader", base: str) -> Any:
    """Return the catalog for a token's holder, with addresses below ``base`` (scheme and host)."""
    added = reader.services()
    if not added:
        return _own_as_json(base)
    values = {"user_id": principal.user_id}
    if principal.project_id:
        values |= {"project_id": principal.project_id, "tenant_id": principal.project_id}
    endpoints: dict[str, list[dict[str, Any]]] = {}
    for endpoint in reader.endpoints():
        url = filled(endpoint.url, values)
        if endpoint.enabled and url is not None:
            endpoints.setdefault(endpoint.service_id, []).append(_entry(endpoint, url))
    return _own(base) + [
        {
            "type": service.type,
            "id": service.service_id,
            "name": service.name,
            "endpoints": endpoints.get(service.service_id, []),
        }
        for service in added
        if service.enabled
    ]


_PLACE = re.compile(r"[%$]\(([a-z_]+)\)s")


def filled(url: str, values: dict[str, str]) -> str | None:
    """Return an address with what it leaves open filled in; None if that is not known."""
    if any(name not in values for name in _PLACE.findall(url)):
        return None
    return _PLACE.sub(lambda place: values[place[1]], url)


def _entry(endpoint: Endpoint, url: str) -> dict[str, Any]:
    region = endpoint.region_id or None
    return {
        "id": endpoint.endpoint_id,
        "interface": endpoint.interface,
        "region": region,
        "region_id": region,
        "url": url,
    }


@lru_cache(maxsize=64)
def _own_as_json(base: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(_own(base)))


def _own(base: str) -> list[dict[str, Any]]:
    return [
        {
            "type": kind,
            "id": _id(kind),
            "name": kind,
            "endpoints": [
                {
                    "id": _id(kind, interface),
                    "interface": interface,
                    "region": REGION,
                    "region_id": REGION,
                    "url": base + path,
                }
                for interface in INTERFACES
            ],
        }
        for kind, path in SERVICES
    ]


def services(base: str) -> list[dict[str, Any]]:
    """Return the services as identity's ``/services`` lists them."""
    return [
        {
            "id": _id(kind),
            "type": kind,
            "name": kind,
            "description": "",
            "enabled": True,
            "links": {"self": f"{base}/identity/v3/services/{_id(kind)}"},
        }
        for kind, _ in SERVICES
    ]


def endpoints(base: str) -> list[dict[str, Any]]:
    """Return the endpoints as identity's ``/endpoints`` lists them."""
    return [
        {
            "id": _id(kind, interface),
            "service_id": _id(kind),
            "interface": interface,
            "region": REGION,
            "region_id": REGION,
            "url": base + path,
            "enabled": True,
            "links": {"self": f"{base}/identity/v3/endpoints/{_id(kind, interface)}"},
        }
        for kind, path in SERVICES
        for interface in INTERFACES
    ]
