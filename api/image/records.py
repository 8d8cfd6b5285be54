"""Images without their bytes: created, listed, shown, deleted."""

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.errors import NotOffered
from api.exchange import Answer, Call, json_answer
from api.image.views import READ_ONLY, RESERVED_PREFIX, SETTABLE, image_view
from api.pagination import PAGED, Page, flag, next_href, page_of, sort_of
from api.routing import Routes
from api.writing import write
from projections.answers import MarkerNotFound
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.image import (
    CreateImage,
    DeleteImage,
    DiskFormat,
    Image,
    MinMib,
    UpdateImage,
    Visibility,
)
from schemas.units import DiskGib, Text

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

SORT = {
    "created_at": "created_at",
    "updated_at": "updated_at",
    "name": "name",
    "id": "id",
    "status": "status",
    "visibility": "visibility",
    "owner": "project_id",
    "disk_format": "disk_format",
    "size": "size_bytes",
}


LISTED_BY = (
    *PAGED, "sort", "id", "name", "status", "visibility", "owner", "disk_format", "protected",
    "os_hidden", "member_status", "tag", "size_min", "size_max", "container_format", "min_disk",
    "min_ram", "checksum", "os_hash_value",
)  # fmt: skip


class _NewImage(Struct, frozen=True, forbid_unknown_fields=True):
    id: Text | None = None
    name: Text | None = None
    visibility: Visibility = "shared"
    protected: bool = False
    os_hidden: bool = False
    container_format: Text | None = "bare"
    disk_format: Text | None = None
    min_disk: DiskGib = 0
    min_ram: MinMib = 0
    tags: Annotated[tuple[Text, ...], Meta(max_length=128)] = ()
    owner: Text | None = None


_object = msgspec.json.Decoder(dict[str, Any])


def check_property(name: str, value: object) -> str:
    """Return the value of an image's own property.

    Raises:
        Forbidden: the name is reserved, or that of what cannot be set.
        InvalidInput: the value is not text.
    """
    if name in READ_ONLY or name.startswith(RESERVED_PREFIX):
        raise Forbidden(f"the attribute {name[:64]!r} cannot be set")
    if not isinstance(value, str):
        raise InvalidInput(f"the property {name[:64]!r} must be text")
    return value


async def create(call: Call) -> Answer:
    """POST /images."""
    body = await call.decode(_object)
    base = {k: v for k, v in body.items() if k in SETTABLE}
    properties = {k: check_property(k, v) for k, v in body.items() if k not in SETTABLE}
    try:
        wish = msgspec.convert(base, _NewImage)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the body is not as expected: {error}") from error
    if wish.owner not in {None, call.principal.project_id}:
        raise Forbidden("an image is made for the project of the token")
    if wish.os_hidden:
        raise NotOffered("hiding images is not offered")
    if wish.container_format not in {None, "bare"}:
        raise InvalidInput("container_format must be bare")
    if wish.id is not None and not _UUID.match(wish.id):
        raise InvalidInput("id must be a UUID")
    reply = await write(
        call,
        CreateImage(
            name=wish.name or "",
            disk_format=disk_format(wish.disk_format),
            image_id=wish.id,
            visibility=wish.visibility,
            min_disk_gib=wish.min_disk,
            min_memory_mib=wish.min_ram,
            protected=wish.protected,
            tags=tuple(dict.fromkeys(wish.tags)),
            properties=properties,
        ),
    )
    ident = reply["image_id"]
    image = call.edge.reader.image(ident)
    location = f"{call.base}/image/v2/images/{ident}".encode("latin-1")
    view = {"id": ident} if image is None else image_view(image)
    return json_answer(view, 201, headers=[(b"location", location)])


def disk_format(text: str | None) -> DiskFormat:
    """Return the disk format asked for.

    Raises:
        InvalidInput: it is not one that hosts can boot.
    """
    match text:
        case "qcow2" | "raw":
            return text
        case _:
            raise InvalidInput("disk_format must be qcow2 or raw")


def find(call: Call) -> Image:
    """Return the image that the path names.

    Raises:
        NotFound: there is none that the caller may see.
    """
    image = call.edge.reader.image(call.args[0], visible_to=call.sight)
    if image is None:
        raise NotFound(f"there is no image {call.args[0][:64]!r}")
    return image


def find_own(call: Call) -> Image:
    """Return the image that the path names, if the caller may change it.

    Raises:
        NotFound: there is none that the caller may see.
        Forbidden: it is another project's.
    """
    image = find(call)
    if call.sight not in {None, image.project_id}:
        raise Forbidden("the image belongs to another project; only its owner may change it")
    return image


async def show(call: Call) -> Answer:
    """GET /images/{id}."""
    return json_answer(image_view(find(call)))


_PAGING = frozenset({"limit", "marker", "sort", "sort_key", "sort_dir"})
_FILTERED_BY_READER = frozenset(
    {"id", "name", "status", "visibility", "owner", "disk_format", "protected", "os_hidden",
     "member_status"}
)  # fmt: skip


def _several(call: Call, name: str) -> list[str] | None:
    """Return the values of ``name=a`` or ``name=in:a,b``; None if it was not asked for."""
    values = call.params(name)
    if not values:
        return None
    text = values[-1]
    if not text.startswith("in:"):
        return [text]
    return [v.strip().strip('"') for v in text[3:].split(",") if v.strip()]


def _listed(call: Call) -> tuple[list[Image], Page]:
    page = page_of(call)
    visibility = call.param("visibility") or None
    ids, names = _several(call, "id"), _several(call, "name")
    nothing = visibility == "community" or flag(call, "os_hidden") or page.limit == 0
    if nothing or ids == [] or names == []:
        return [], page
    extra = [(k, v) for k, v in call.query if k not in _PAGING | _FILTERED_BY_READER]
    images = call.edge.reader.images(
        visible_to=call.sight,
        project_id=call.param("owner") or None,
        ids=ids,
        names=names,
        status=_several(call, "status"),
        visibility=None if visibility == "all" else visibility,
        disk_format=call.param("disk_format") or None,
        protected=flag(call, "protected"),
        sort=sort_of(call, SORT, [("created_at", True)]),
        marker=None if extra else page.marker,
        limit=None if extra else page.limit,
    )
    if extra:
        images = [i for i in images if all(_has(i, k, v) for k, v in extra)]
        images = _after(images, page.marker)[: page.limit]
    return images, page


def _has(image: Image, name: str, value: str) -> bool:
    match name:
        case "tag":
            return value in image.tags
        case "size_min" | "size_max" | "size":
            if not value.isdecimal() or len(value) > 18:
                raise InvalidInput(f"{name} must be a whole number")
            size = image.size_bytes or 0
            bound = int(value)
            return {"size_min": size >= bound, "size_max": size <= bound}.get(name, size == bound)
        case "created_at" | "updated_at":
            raise InvalidInput(f"filtering by {name} is not offered")
        case "checksum" | "os_hash_value" | "container_format" | "min_disk" | "min_ram":
            held = image_view(image)[name]
            return held is not None and str(held) == value
        case _:
            return image.properties.get(name) == value


def _after(images: list[Image], marker: str | None) -> list[Image]:
    if marker is None:
        return images
    for at, image in enumerate(images):
        if image.image_id == marker:
            return images[at + 1 :]
    raise MarkerNotFound(f"the marker {marker[:64]!r} is not in the list")


async def list_all(call: Call) -> Answer:
    """GET /images."""
    images, page = _listed(call)
    query = call.query_string
    body: dict[str, Any] = {
        "images": [image_view(i) for i in images],
        "first": f"/v2/images?{query}" if query else "/v2/images",
        "schema": "/v2/schemas/images",
    }
    if images and len(images) == page.limit:
        body["next"] = next_href(call, images[-1].image_id, path="/v2/images")
    return json_answer(body)


async def delete(call: Call) -> Answer:
    """DELETE /images/{id}: its bytes go with it; disks made from it stay."""
    image = find(call)
    await write(call, DeleteImage(image_id=image.image_id))
    if image.blob_id is not None:
        await call.edge.blobs.delete(image.blob_id)
    return Answer(204)


async def add_tag(call: Call) -> Answer:
    """PUT /images/{id}/tags/{tag}."""
    image, tag = find(call), call.args[1]
    if tag not in image.tags:
        await write(call, UpdateImage(image_id=image.image_id, tags=(*image.tags, tag)))
    return Answer(204)


async def remove_tag(call: Call) -> Answer:
    """DELETE /images/{id}/tags/{tag}."""
    image, tag = find(call), call.args[1]
    if tag not in image.tags:
        raise NotFound(f"the image has no tag {tag[:64]!r}")
    left = tuple(t for t in image.tags if t != tag)
    await write(call, UpdateImage(image_id=image.image_id, tags=left))
    return Answer(204)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one, read = "/v2/images/{}", "image:images:read"
    routes.add("GET", "/v2/images", list_all, read, query=LISTED_BY)
    routes.add(
        "POST",
        "/v2/images",
        create,
        "CreateImage",
        body=_object,
        shape=_NewImage,
        status=201,
        partly=True,
    )
    routes.add("GET", one, show, read)
    routes.add("DELETE", one, delete, "DeleteImage", status=204)
    routes.add("PUT", f"{one}/tags/{{}}", add_tag, "UpdateImage", status=204)
    routes.add("DELETE", f"{one}/tags/{{}}", remove_tag, "UpdateImage", status=204)
