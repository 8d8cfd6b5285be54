"""Changes to images: JSON patches in the two media types that clients send."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from api.errors import UnsupportedMediaType
from api.exchange import Answer, Call, decode_body, json_answer
from api.image.records import check_property, find_own
from api.image.views import READ_ONLY, image_view
from api.routing import Routes
from api.writing import write
from schemas.errors import Conflict, Forbidden, InvalidInput
from schemas.image import Image, UpdateImage
from schemas.units import LongText

V21 = "application/openstack-images-v2.1-json-patch"
V20 = "application/openstack-images-v2.0-json-patch"

type Op = Literal["add", "replace", "remove"]

_COLUMNS = {
    "name": "name",
    "visibility": "visibility",
    "protected": "protected",
    "min_disk": "min_disk_gib",
    "min_ram": "min_memory_mib",
    "tags": "tags",
}
_FIXED = READ_ONLY | {"id", "owner", "disk_format", "container_format", "os_hidden"}


class _Step21(Struct, frozen=True, forbid_unknown_fields=True):
    op: Op
    path: LongText
    value: Any = msgspec.UNSET


STEPS_MAX = 1000

_steps21 = msgspec.json.Decoder(Annotated[list[_Step21], Meta(max_length=STEPS_MAX)])
_steps20 = msgspec.json.Decoder(Annotated[list[dict[str, Any]], Meta(max_length=STEPS_MAX)])


class _Values(Struct, frozen=True, forbid_unknown_fields=True):
    """Values of the base attributes, checked by type; the engine checks bounds."""

    name: str | None = None
    visibility: Literal["public", "private", "shared"] | None = None
    protected: bool | None = None
    min_disk_gib: int | None = None
    min_memory_mib: int | None = None
    tags: tuple[str, ...] | None = None


async def patch(call: Call) -> Answer:
    """PATCH /images/{id}."""
    steps = await _steps(call)
    image = find_own(call)
    properties = dict(image.properties)
    given: dict[str, Any] = {}
    for op, name, value in steps:
        if name in _FIXED:
            raise Forbidden(f"the attribute {name[:64]!r} cannot be changed")
        if name in _COLUMNS:
            if op == "remove":
                raise Forbidden(f"the attribute {name!r} cannot be removed")
            given[_COLUMNS[name]] = value
        else:
            _change(properties, op, name, value)
    try:
        values = msgspec.convert(given, _Values)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"a value is not as expected: {error}") from error
    await write(
        call,
        UpdateImage(
            image_id=image.image_id,
            name=values.name,
            visibility=values.visibility,
            protected=values.protected,
            min_disk_gib=values.min_disk_gib,
            min_memory_mib=values.min_memory_mib,
            tags=None if values.tags is None else tuple(dict.fromkeys(values.tags)),
            properties=properties if properties != image.properties else None,
        ),
    )
    changed: Image | None = call.edge.reader.image(image.image_id)
    return json_answer(image_view(changed or image))


def _change(properties: dict[str, str], op: Op, name: str, value: object) -> None:
    if op != "add" and name not in properties:
        raise Conflict(f"the image has no property {name[:64]!r}")
    if op == "remove":
        del properties[name]
    else:
        properties[name] = check_property(name, value)


async def _steps(call: Call) -> list[tuple[Op, str, Any]]:
    """Return the body as (operation, attribute, value)."""
    kind = call.header(b"content-type").partition(";")[0].strip().lower()
    if kind == V21:
        steps = decode_body(await call.body(), _steps21)
        return [_step(s.op, s.path, s.value) for s in steps]
    if kind == V20:
        found = []
        for step in decode_body(await call.body(), _steps20):
            ops: list[Op] = [op for op in ("add", "replace", "remove") if op in step]
            if len(ops) != 1 or not isinstance(step[ops[0]], str) or step.keys() - {*ops, "value"}:
                raise InvalidInput("each change has one of add, replace, remove, and a value")
            found.append(_step(ops[0], step[ops[0]], step.get("value", msgspec.UNSET)))
        return found
    raise UnsupportedMediaType(f"changes are sent as {V21}, not {kind[:100]!r}")


def _step(op: Op, path: str, value: object) -> tuple[Op, str, Any]:
    words = path.split("/")
    if len(words) != 2 or words[0] or not words[1]:
        raise InvalidInput(f"the path must be /attribute, not {path[:100]!r}")
    if op != "remove" and value is msgspec.UNSET:
        raise InvalidInput(f"the change of {path[:100]} has no value")
    return op, words[1].replace("~1", "/").replace("~0", "~"), value


def add(routes: Routes) -> None:
    """Route what this module answers; changes in the older form are read too."""
    routes.add("PATCH", "/v2/images/{}", patch, "UpdateImage", shape=_steps21.type, takes=(V21,))
