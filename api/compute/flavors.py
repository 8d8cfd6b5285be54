"""Flavors: the sizes servers can have."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from api.compute.views import flavor_brief, flavor_view
from api.exchange import Answer, Call, json_answer
from api.pagination import PAGED, Page, next_href, page_of, sort_of
from api.routing import Routes
from api.writing import write
from schemas.compute import CreateFlavor, DeleteFlavor, Flavor
from schemas.errors import InvalidInput, NotFound
from schemas.units import Text

SORT = {
    "flavorid": "id",
    "id": "id",
    "name": "name",
    "vcpus": "vcpus",
    "memory_mb": "memory_mib",
    "ram": "memory_mib",
    "root_gb": "disk_gib",
    "disk": "disk_gib",
    # Ordered as they were made would be, for clients that ask; ids are as stable.
    "created_at": "id",
    "updated_at": "id",
}

READ_PRIVATE = "compute:flavors:read_private"
LISTED_BY = (*PAGED, "is_public", "name", "minRam", "minDisk")

_Count = Annotated[int, Meta(ge=0, le=2**31)]


class _NewFlavor(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    ram: _Count
    vcpus: _Count
    disk: _Count
    id: Text | None = None
    is_public: bool = field(name="os-flavor-access:is_public", default=True)
    # Taken where they say nothing.
    swap: Literal[0, "", "0"] | None = None
    ephemeral: Literal[0] = field(name="OS-FLV-EXT-DATA:ephemeral", default=0)
    rxtx_factor: Annotated[float, Meta(ge=0, le=1000)] = 1


class _NewFlavorBody(Struct, frozen=True, forbid_unknown_fields=True):
    flavor: _NewFlavor


_new_flavor = msgspec.json.Decoder(_NewFlavorBody, strict=False)


def find(call: Call) -> Flavor:
    """Return the flavor that the path names.

    Raises:
        NotFound: there is none that the caller may use.
    """
    flavor = call.edge.reader.flavor(call.args[0])
    if flavor is None or not (flavor.is_public or call.may(READ_PRIVATE)):
        raise NotFound(f"there is no flavor {call.args[0][:64]!r}")
    return flavor


def _listed(call: Call) -> tuple[list[Flavor], Page]:
    page = page_of(call)
    if page.limit == 0:
        return [], page
    wanted: bool | None = True
    if call.may(READ_PRIVATE):
        text = call.param("is_public", "true").lower()
        wanted = None if text == "none" else text in {"true", "1", "t", "yes", "on"}
    flavors = call.edge.reader.flavors(
        name=call.param("name") or None,
        is_public=wanted,
        min_memory_mib=_number(call, "minRam"),
        min_disk_gib=_number(call, "minDisk"),
        sort=sort_of(call, SORT, [("id", False)]),
        marker=page.marker,
        limit=page.limit,
    )
    return flavors, page


def _number(call: Call, name: str) -> int:
    text = call.param(name)
    if not text:
        return 0
    if not text.isdecimal() or len(text) > 15:
        raise InvalidInput(f"{name} must be a whole number")
    return int(text)


def _page(call: Call, views: list[dict[str, Any]], page: Page) -> Answer:
    body: dict[str, Any] = {"flavors": views}
    if views and len(views) == page.limit:
        href = next_href(call, views[-1]["id"])
        body["flavors_links"] = [{"rel": "next", "href": href}]
    return json_answer(body)


async def list_brief(call: Call) -> Answer:
    """GET /flavors."""
    flavors, page = _listed(call)
    return _page(call, [flavor_brief(f, call.base) for f in flavors], page)


async def list_full(call: Call) -> Answer:
    """GET /flavors/detail."""
    flavors, page = _listed(call)
    return _page(call, [flavor_view(f, call.base) for f in flavors], page)


async def show(call: Call) -> Answer:
    """GET /flavors/{id}."""
    return json_answer({"flavor": flavor_view(find(call), call.base)})


async def create(call: Call) -> Answer:
    """POST /flavors."""
    wish = (await call.decode(_new_flavor)).flavor
    if wish.rxtx_factor != 1:
        raise InvalidInput("rxtx_factor other than 1 is not offered")
    reply = await write(
        call,
        CreateFlavor(
            name=wish.name.strip(),
            vcpus=wish.vcpus,
            memory_mib=wish.ram,
            disk_gib=wish.disk,
            flavor_id=None if wish.id in {None, "auto"} else wish.id,
            is_public=wish.is_public,
        ),
    )
    flavor = call.edge.reader.flavor(reply["flavor_id"])
    if flavor is None:
        return json_answer({"flavor": {"id": reply["flavor_id"], "name": wish.name}})
    return json_answer({"flavor": flavor_view(flavor, call.base)})


async def delete(call: Call) -> Answer:
    """DELETE /flavors/{id}."""
    await write(call, DeleteFlavor(flavor_id=call.args[0]))
    return Answer(202)


async def extra_specs(call: Call) -> Answer:
    """GET /flavors/{id}/os-extra_specs: there are none."""
    find(call)
    return json_answer({"extra_specs": {}})


async def access(call: Call) -> Answer:
    """GET /flavors/{id}/os-flavor-access: nobody is given access to a private flavor."""
    flavor = find(call)
    if flavor.is_public:
        raise NotFound("a public flavor has no access list")
    return json_answer({"flavor_access": []})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    read = "compute:flavors:read"
    routes.add("GET", "/v2.1/flavors", list_brief, read, query=LISTED_BY)
    routes.add("GET", "/v2.1/flavors/detail", list_full, read, query=LISTED_BY)
    routes.add("POST", "/v2.1/flavors", create, "CreateFlavor", body=_new_flavor)
    routes.add("GET", "/v2.1/flavors/{}", show, read)
    routes.add("DELETE", "/v2.1/flavors/{}", delete, "DeleteFlavor", status=202, bare=(202,))
    routes.add("GET", "/v2.1/flavors/{}/os-extra_specs", extra_specs, read)
    routes.add("GET", "/v2.1/flavors/{}/os-flavor-access", access, READ_PRIVATE)
