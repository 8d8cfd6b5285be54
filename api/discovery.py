"""Version documents: what each service offers, readable without a token.

Invariant: an advertised version is a promise; nothing is advertised that is not honoured. Links are
absolute, as the client reached us, with the service's prefix.
"""

from typing import Any

from api.exchange import Answer, Call, json_answer
from api.microversions import Versions, written

COMPUTE = Versions(
    service="compute",
    minimum=(2, 1),
    maximum=(2, 2),
    legacy="X-OpenStack-Nova-API-Version",
)
IMAGE_VERSIONS = ("v2.9", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")


def _links(href: str) -> list[dict[str, str]]:
    return [{"rel": "self", "href": href}]


def _identity(call: Call) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": _links(f"{call.base}/identity/v3/"),
        "media-types": [
            {
                "base": "application/json",
                "type": "application/vnd.openstack.identity-v3+json",
            }
        ],
    }


async def identity_root(call: Call) -> Answer:
    """GET /identity: its versions."""
    return json_answer({"versions": {"values": [_identity(call)]}}, 300)


async def identity_version(call: Call) -> Answer:
    """GET /identity/v3: the version that is offered."""
    return json_answer({"version": _identity(call)})


def _compute(call: Call) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": written(COMPUTE.maximum),
        "min_version": written(COMPUTE.minimum),
        "updated": "2013-07-23T11:33:21Z",
        "links": _links(f"{call.base}/compute/v2.1/"),
    }


async def compute_root(call: Call) -> Answer:
    """GET /compute: its versions, 2.0 first, though nothing but its name is left of it."""
    old = {
        "id": "v2.0",
        "status": "SUPPORTED",
        "version": "",
        "min_version": "",
        "updated": "2011-01-21T11:33:21Z",
        "links": _links(f"{call.base}/compute/v2/"),
    }
    return json_answer({"versions": [old, _compute(call)]})


async def compute_version(call: Call) -> Answer:
    """GET /compute/v2.1: the range of microversions that is offered."""
    media = [
        {
            "base": "application/json",
            "type": "application/vnd.openstack.compute+json;version=2.1",
        }
    ]
    return json_answer({"version": {**_compute(call), "media-types": media}})


async def image_root(call: Call) -> Answer:
    """GET /image: its versions, newest first."""
    versions = [
        {
            "id": name,
            "status": "CURRENT" if at == 0 else "SUPPORTED",
            "links": _links(f"{call.base}/image/v2/"),
        }
        for at, name in enumerate(IMAGE_VERSIONS)
    ]
    return json_answer({"versions": versions}, 300)


async def network_root(call: Call) -> Answer:
    """GET /network: its version."""
    version = {
        "id": "v2.0",
        "status": "CURRENT",
        "links": _links(f"{call.base}/network/v2.0/"),
    }
    return json_answer({"versions": [version]})
