"""Servers: created, listed, shown, renamed, deleted."""

import re
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, Struct, field

from api.compute.views import addresses_view, server_brief, server_view
from api.errors import NotOffered
from api.exchange import Answer, Call, encode, json_answer
from api.pagination import PAGED, Page, flag, next_href, page_of, sort_of
from api.routing import Routes
from api.sealing_inbound import USER_DATA_CHARS_MAX, seal_user_data
from api.times import time_asked
from api.writing import write
from projections.answers import ServerView
from schemas.compute import (
    CreateServer,
    DeleteServer,
    Metadata,
    NetworkRequest,
    RenameServer,
    Server,
    ServerStatus,
)
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.units import Text

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)

SORT = {
    "created_at": "created_at",
    "updated_at": "updated_at",
    "display_name": "name",
    "name": "name",
    "uuid": "id",
    "id": "id",
    "host": "host_id",
    "image_ref": "image_id",
    "instance_type_id": "flavor_id",
    "key_name": "key_name",
    "project_id": "project_id",
    "user_id": "user_id",
    "vm_state": "status",
    "status": "status",
}
LISTED_BY = (
    *PAGED, "all_tenants", "project_id", "tenant_id", "status", "vm_state", "deleted", "name",
    "uuid", "ip", "user_id", "host", "image", "flavor", "key_name", "changes-since",
    "changes-before",
)  # fmt: skip
READ_HOST, READ_DELETED = "compute:servers:read_host", "compute:servers:read_deleted"
STATUSES = frozenset(get_args(ServerStatus.__value__))

Digits = Annotated[str, Meta(max_length=20)]
Count = Annotated[int, Meta(ge=0, le=1000)]
Hints = Annotated[dict[str, Any], Meta(max_length=64)]


class _Network(Struct, frozen=True, forbid_unknown_fields=True):
    uuid: Text | None = None
    port: Text | None = None
    fixed_ip: Text | None = None


class _Group(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text


class _Device(Struct, frozen=True, forbid_unknown_fields=True):
    """The one block device that says no more than imageRef: boot from a copy of the image."""

    uuid: Text
    boot_index: Annotated[int, Meta(ge=-1, le=255)] | Digits = 0
    source_type: Literal["image"] = "image"
    destination_type: Literal["local"] = "local"
    delete_on_termination: bool = True


class _NewServer(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text
    flavor_ref: Text = field(name="flavorRef")
    image_ref: Text = field(name="imageRef", default="")
    networks: Annotated[tuple[_Network, ...], Meta(max_length=16)] | None = None
    metadata: Metadata = {}
    key_name: Text | None = None
    security_groups: Annotated[tuple[_Group, ...], Meta(max_length=16)] | None = None
    user_data: Annotated[str, Meta(max_length=USER_DATA_CHARS_MAX)] | None = None
    config_drive: bool | Literal["", "True", "true", "False", "false"] | None = None
    availability_zone: Text | None = None
    disk_config: Literal["AUTO", "MANUAL"] = field(name="OS-DCF:diskConfig", default="MANUAL")
    min_count: Count | Digits = 1
    max_count: Count | Digits = 1
    block_device_mapping_v2: Annotated[tuple[_Device, ...], Meta(max_length=16)] = ()
    access_ipv4: Literal[""] | None = field(name="accessIPv4", default=None)
    access_ipv6: Literal[""] | None = field(name="accessIPv6", default=None)
    return_reservation_id: Literal[False] = False


class _NewServerBody(Struct, frozen=True, forbid_unknown_fields=True):
    server: _NewServer
    hints: Hints = field(name="os:scheduler_hints", default_factory=dict)


class _Change(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text | None = None


class _ChangeBody(Struct, frozen=True, forbid_unknown_fields=True):
    server: _Change


_new_server = msgspec.json.Decoder(_NewServerBody)
_change = msgspec.json.Decoder(_ChangeBody)


async def create(call: Call) -> Answer:
    """POST /servers."""
    body = await call.decode(_new_server)
    wish = body.server
    if body.hints:
        raise NotOffered("scheduler hints are not offered")
    if str(wish.min_count) != "1" or str(wish.max_count) not in {"1", ""}:
        raise InvalidInput("one server is made at a time: min_count and max_count must be 1")
    devices = wish.block_device_mapping_v2
    image_id = wish.image_ref or (devices[0].uuid if devices else "")
    if len(devices) > 1 or (devices and devices[0].uuid != image_id):
        raise InvalidInput("booting from anything but one image is not offered")
    if not _UUID.match(image_id):
        raise InvalidInput("imageRef must be the UUID of an image")
    project = call.principal.project
    if project is None:
        raise Forbidden("making a server needs a token scoped to a project")
    user_data = None
    if wish.user_data:
        user_data = await seal_user_data(call.edge, project, wish.user_data)
    groups = wish.security_groups
    reply = await write(
        call,
        CreateServer(
            name=_name(wish.name),
            flavor_id=wish.flavor_ref,
            image_id=image_id,
            networks=_networks(wish.networks),
            key_name=wish.key_name,
            user_data=user_data,
            metadata=wish.metadata,
            security_groups=tuple(dict.fromkeys(g.name for g in groups)) if groups else None,
            availability_zone=wish.availability_zone,
            disk_config=wish.disk_config,
            config_drive=str(wish.config_drive).lower() == "true",
        ),
    )
    ident = reply["server_id"]
    base = call.base
    href = f"{base}/compute/v2.1/servers/{ident}"
    view = {
        "server": {
            "id": ident,
            "links": [
                {"rel": "self", "href": href},
                {"rel": "bookmark", "href": f"{base}/compute/servers/{ident}"},
            ],
            "OS-DCF:diskConfig": wish.disk_config,
            "security_groups": [{"name": g.name} for g in groups] if groups else [_DEFAULT],
        }
    }
    return json_answer(view, 202, headers=[(b"location", href.encode("latin-1"))])


_DEFAULT = {"name": "default"}


def _name(text: str) -> str:
    name = text.strip()
    if not 1 <= len(name) <= 255:
        raise InvalidInput("a server's name has 1 to 255 characters, not only blanks")
    return name


def _networks(asked: tuple[_Network, ...] | None) -> tuple[NetworkRequest, ...] | None:
    if not asked:
        return None
    for ask in asked:
        ident = ask.port or ask.uuid
        if ident is None or not _UUID.match(ident):
            raise InvalidInput("each of networks needs the UUID of a network or of a port")
    return tuple(
        NetworkRequest(network_id=a.uuid, port_id=a.port, fixed_ip=a.fixed_ip) for a in asked
    )


def find_view(call: Call) -> ServerView:
    """Return the server that the path names, with its addresses.

    Raises:
        NotFound: there is none, or none that the caller may do this with.
    """
    found = call.edge.reader.server_view(call.args[0], project_id=call.sight)
    if found is None:
        raise NotFound(f"there is no server {call.args[0][:64]!r}")
    return found


def find(call: Call) -> Server:
    """Return the server that the path names. Raises as ``find_view``."""
    return find_view(call).server


async def show(call: Call) -> Answer:
    """GET /servers/{id}."""
    found = find_view(call)
    rendered = call.edge.rendered.server(found, call.base, host=call.may(READ_HOST))
    return Answer(200, b'{"server":%b}' % rendered)


def _listed(call: Call) -> tuple[list[ServerView], Page]:
    """Return the servers that the query asks for; filters for what does not exist find nothing."""
    reader, reads_deleted = call.edge.reader, call.may(READ_DELETED)
    page = page_of(call)
    everywhere = flag(call, "all_tenants") or False
    if everywhere and not call.reach.any:
        raise Forbidden(
            "every project's servers are listed for those alone who may read every project's"
        )
    project_id = call.sight
    if everywhere or (project_id is None and not call.principal.project_id):
        project_id = call.param("project_id") or call.param("tenant_id") or None
    elif project_id is None:
        project_id = call.principal.project_id
    wanted = [s.upper() for s in call.params("status")]
    vm_state = {
        "active": "ACTIVE",
        "building": "BUILD",
        "stopped": "SHUTOFF",
        "resized": "VERIFY_RESIZE",
        "error": "ERROR",
    }
    wanted += [vm_state.get(s.lower(), s) for s in call.params("vm_state")]
    statuses = [s for s in wanted if s in STATUSES]
    changed_since = _time(call, "changes-since")
    deleted = flag(call, "deleted") if reads_deleted else None
    shown: bool | None = deleted or False
    if "DELETED" in wanted and reads_deleted:
        shown, statuses = True, []
    elif wanted and not statuses:
        return [], page
    if changed_since is not None and deleted is None:
        shown = None
    if page.limit == 0:
        return [], page
    servers = reader.server_views(
        project_id=project_id,
        ids=call.params("uuid") or None,
        name=call.param("name") or None,
        ip=call.param("ip") or None,
        status=statuses or None,
        user_id=call.param("user_id") or None,
        host_id=(call.param("host") or None) if call.may(READ_HOST) else None,
        image_id=_reference(call.param("image")),
        flavor_id=_reference(call.param("flavor")),
        key_name=call.param("key_name") or None,
        changed_since=changed_since,
        changed_before=_time(call, "changes-before"),
        deleted=shown,
        sort=sort_of(call, SORT, [("created_at", True)]),
        marker=page.marker,
        limit=page.limit,
    )
    return servers, page


def _time(call: Call, name: str) -> int | None:
    text = call.param(name)
    return time_asked(text, name) if text else None


def _reference(text: str) -> str | None:
    """Return the id in an id or in the address of an image or flavor."""
    return text.rstrip("/").rpartition("/")[2] or None


def _page(call: Call, servers: list[ServerView], rendered: list[bytes], page: Page) -> Answer:
    if not rendered:
        return Answer(200, b'{"servers":[]}')
    # Joined once, since a page may have megabytes.
    rendered[0] = b'{"servers":[' + rendered[0]
    end = b"]}"
    if len(servers) == page.limit:
        href = next_href(call, servers[-1].server.server_id)
        end = b'],"servers_links":%b}' % encode([{"rel": "next", "href": href}])
    rendered[-1] += end
    return Answer(200, b",".join(rendered))


async def list_brief(call: Call) -> Answer:
    """GET /servers."""
    servers, page = _listed(call)
    base = call.base
    return _page(call, servers, [encode(server_brief(s.server, base)) for s in servers], page)


async def list_full(call: Call) -> Answer:
    """GET /servers/detail."""
    servers, page = _listed(call)
    rendered = call.edge.rendered.servers(servers, call.base, host=call.may(READ_HOST))
    return _page(call, servers, rendered, page)


async def change(call: Call) -> Answer:
    """PUT /servers/{id}: its name."""
    wish = (await call.decode(_change)).server
    server = find(call)
    if wish.name is None:
        raise InvalidInput("name is what can be changed, and it is not there")
    await write(call, RenameServer(server_id=server.server_id, name=_name(wish.name)))
    changed = find_view(call)
    host = call.may(READ_HOST)
    view = server_view(changed.server, changed.addresses, call.base, host=host, extended=False)
    return json_answer({"server": view})


async def delete(call: Call) -> Answer:
    """DELETE /servers/{id}: in whatever state it is."""
    await write(call, DeleteServer(server_id=find(call).server_id))
    return Answer(204)


async def show_metadata(call: Call) -> Answer:
    """GET /servers/{id}/metadata."""
    return json_answer({"metadata": find(call).metadata})


async def show_metadatum(call: Call) -> Answer:
    """GET /servers/{id}/metadata/{key}."""
    key = call.args[1]
    metadata = find(call).metadata
    if key not in metadata:
        raise NotFound(f"the server has no metadata {key[:64]!r}")
    return json_answer({"meta": {key: metadata[key]}})


async def show_addresses(call: Call) -> Answer:
    """GET /servers/{id}/ips."""
    addresses = find_view(call).addresses
    return json_answer({"addresses": addresses_view(addresses, extended=False)})


async def show_network_addresses(call: Call) -> Answer:
    """GET /servers/{id}/ips/{network name}."""
    name = call.args[1]
    view = addresses_view(find_view(call).addresses, extended=False)
    if name not in view:
        raise NotFound(f"the server is on no network {name[:64]!r}")
    return json_answer({name: view[name]})


async def show_groups(call: Call) -> Answer:
    """GET /servers/{id}/os-security-groups."""
    server, reader = find(call), call.edge.reader
    ports = reader.ports(device_ids=[server.server_id])
    ids = list(dict.fromkeys(g for p in ports for g in p.security_group_ids))
    groups = reader.security_groups(ids=ids) if ids else []
    views = [
        {
            "id": g.security_group_id,
            "name": g.name,
            "description": g.description,
            "tenant_id": g.project_id,
            "rules": [],
        }
        for g in groups
    ]
    return json_answer({"security_groups": views})


async def no_volumes(call: Call) -> Answer:
    """GET /servers/{id}/os-volume_attachments: there are no volumes."""
    find(call)
    return json_answer({"volumeAttachments": []})


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one = "/v2.1/servers/{}"
    read = "compute:servers:read"
    routes.add("GET", "/v2.1/servers", list_brief, read, query=LISTED_BY)
    routes.add("GET", "/v2.1/servers/detail", list_full, read, query=LISTED_BY)
    routes.add(
        "POST", "/v2.1/servers", create, "CreateServer", body=_new_server, status=202, partly=True
    )
    routes.add("GET", one, show, read)
    routes.add("PUT", one, change, "RenameServer", body=_change)
    routes.add("DELETE", one, delete, "DeleteServer", status=204)
    routes.add("GET", f"{one}/metadata", show_metadata, read)
    routes.add("GET", f"{one}/metadata/{{}}", show_metadatum, read)
    routes.add("GET", f"{one}/ips", show_addresses, read)
    routes.add("GET", f"{one}/ips/{{}}", show_network_addresses, read)
    routes.add("GET", f"{one}/os-security-groups", show_groups, read)
    routes.add("GET", f"{one}/os-volume_attachments", no_volumes, read)
