"""Image as a service: its routes, and the documents that describe images to older clients."""

from typing import Any

from api.discovery import image_root
from api.errors import render_image
from api.exchange import Answer, Call, json_answer
from api.image import content, patches, records
from api.routing import PUBLIC, Routes, Surface


def surface() -> Surface:
    """Return what the service is."""
    return Surface(
        name="image",
        prefix="/image",
        routes=_routes(),
        render=render_image,
    )


def _routes() -> Routes:
    routes = Routes()
    for path in ("", "/", "/versions", "/v2", "/v2/"):
        routes.add("GET", path, image_root, PUBLIC, status=300)
    for area in (records, content, patches):
        area.add(routes)
    routes.add("GET", "/v2/schemas/image", schema_image, "image:schemas:read")
    routes.add("GET", "/v2/schemas/images", schema_images, "image:schemas:read")
    routes.add("GET", "/v2/info/import", import_methods, "image:schemas:read")
    return routes


def _property(kind: str | list[str], text: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "description": text, **more}


_MAYBE = ["null", "string"]
_PROPERTIES: dict[str, Any] = {
    "id": _property("string", "An identifier for the image"),
    "name": _property(_MAYBE, "Descriptive name for the image", maxLength=255),
    "status": _property(
        "string", "Status of the image", readOnly=True, enum=["queued", "saving", "active"]
    ),
    "visibility": _property(
        "string", "Scope of image accessibility", enum=["public", "private", "shared"]
    ),
    "protected": _property("boolean", "If true, image will not be deletable."),
    "os_hidden": _property("boolean", "If true, image will not appear in default image list"),
    "checksum": _property(_MAYBE, "md5 hash of image contents.", readOnly=True, maxLength=32),
    "os_hash_algo": _property(_MAYBE, "Algorithm of os_hash_value", readOnly=True, maxLength=64),
    "os_hash_value": _property(_MAYBE, "Digest of the contents", readOnly=True, maxLength=128),
    "owner": _property(_MAYBE, "Owner of the image", maxLength=255),
    "size": _property(["null", "integer"], "Size of image file in bytes", readOnly=True),
    "virtual_size": _property(["null", "integer"], "Virtual size in bytes", readOnly=True),
    "container_format": _property(_MAYBE, "Format of the container", enum=[None, "bare"]),
    "disk_format": _property(_MAYBE, "Format of the disk", enum=[None, "qcow2", "raw"]),
    "created_at": _property("string", "Date and time of image registration", readOnly=True),
    "updated_at": _property("string", "Date and time of the last change", readOnly=True),
    "tags": _property(
        "array", "List of strings related to the image", items={"type": "string", "maxLength": 255}
    ),
    "min_disk": _property("integer", "Amount of disk space (in GB) required to boot image."),
    "min_ram": _property("integer", "Amount of ram (in MB) required to boot image."),
    "self": _property("string", "An image self url", readOnly=True),
    "file": _property("string", "An image file url", readOnly=True),
    "schema": _property("string", "An image schema url", readOnly=True),
}
_IMAGE = {
    "name": "image",
    "properties": _PROPERTIES,
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
_IMAGES = {
    "name": "images",
    "properties": {
        "images": {"type": "array", "items": _IMAGE},
        "first": {"type": "string"},
        "next": {"type": "string"},
        "schema": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}


async def schema_image(_call: Call) -> Answer:
    """GET /schemas/image."""
    return json_answer(_IMAGE)


async def schema_images(_call: Call) -> Answer:
    """GET /schemas/images."""
    return json_answer(_IMAGES)


async def import_methods(_call: Call) -> Answer:
    """GET /info/import: content comes by upload only."""
    return json_answer(
        {
            "import-methods": {
                "type": "array",
                "description": "Import methods available.",
                "value": [],
            }
        }
    )
