"""What an image looks like: flat, its own properties beside the base ones."""

from typing import Any

from api.times import seconds_z
from schemas.image import Image

# Names that cannot be properties, and those of them a client may set when it makes an image.
SETTABLE = frozenset(
    {
        "id", "name", "visibility", "protected", "os_hidden", "container_format", "disk_format",
        "min_disk", "min_ram", "tags", "owner",
    }
)  # fmt: skip
READ_ONLY = frozenset(
    {
        "status", "checksum", "os_hash_algo", "os_hash_value", "size", "virtual_size",
        "created_at", "updated_at", "self", "file", "schema", "direct_url", "locations", "stores",
    }
)  # fmt: skip
RESERVED_PREFIX = "os_glance_"


def image_view(image: Image) -> dict[str, Any]:
    """Return an image; hashes and sizes are null until its content was found good."""
    ident = image.image_id
    held = image.status != "queued"
    return {
        **image.properties,
        "id": ident,
        "name": image.name,
        "status": image.status,
        "visibility": image.visibility,
        "protected": image.protected,
        "os_hidden": False,
        "owner": image.project_id,
        "checksum": image.md5 if held else None,
        "os_hash_algo": "sha512" if held else None,
        "os_hash_value": image.sha512 if held else None,
        "size": image.size_bytes if held else None,
        "virtual_size": image.virtual_size_bytes,
        "container_format": image.container_format,
        "disk_format": image.disk_format,
        "min_disk": image.min_disk_gib,
        "min_ram": image.min_memory_mib,
        "tags": list(image.tags),
        "created_at": seconds_z(image.created_at),
        "updated_at": seconds_z(image.updated_at),
        "self": f"/v2/images/{ident}",
        "file": f"/v2/images/{ident}/file",
        "schema": "/v2/schemas/image",
    }
