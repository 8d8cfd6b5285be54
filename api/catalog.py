"""The services on offer and where they are: the catalog of tokens.

Only what works is listed. Ids are derived from names, so that every edge says the same.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Any

import msgspec

REGION = "RegionOne"
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


@lru_cache(maxsize=64)
def catalog(base: str) -> msgspec.Raw:
    """Return the catalog, as JSON, with addresses below ``base`` (scheme and host)."""
    found: list[dict[str, Any]] = [
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
    return msgspec.Raw(msgspec.json.encode(found))


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
