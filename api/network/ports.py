"""Ports and security groups."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from api.errors import NotOffered
from api.exchange import Answer, Call
from api.network.lists import (
    LISTED_BY,
    View,
    after,
    listed,
    ordered,
    project_filter,
    several,
    shown,
)
from api.network.networks import check_project, no_change
from api.network.views import group_view, port_view, rule_view
from api.routing import Routes
from api.writing import write
from schemas.errors import NotFound
from schemas.network import CreatePort, DeletePort, FixedIpRequest, Port, SecurityGroup
from schemas.units import IpAddress, Text

_BY_READER = frozenset(
    {"id", "name", "project_id", "tenant_id", "network_id", "device_id", "device_owner"}
)
PORTS_BY = (
    *LISTED_BY, "network_id", "device_id", "device_owner", "mac_address", "fixed_ips", "status",
)  # fmt: skip
READ_BINDING = "network:ports:read_binding"
_GROUPS_BY_READER = frozenset({"id", "name", "project_id", "tenant_id"})


Profile = Annotated[dict[str, Any], Meta(max_length=64)]


class _FixedIp(Struct, frozen=True, forbid_unknown_fields=True):
    subnet_id: Text | None = None
    ip_address: IpAddress | None = None


class _NewPort(Struct, frozen=True, forbid_unknown_fields=True):
    network_id: Text
    name: Text = ""
    description: Text = ""
    admin_state_up: bool = True
    mac_address: Text | None = None
    fixed_ips: Annotated[tuple[_FixedIp, ...], Meta(max_length=8)] | None = None
    security_groups: Annotated[tuple[Text, ...], Meta(max_length=16)] | None = None
    project_id: Text | None = None
    tenant_id: Text | None = None
    # Taken where they say no more than what is so anyhow.
    device_id: Literal[""] = ""
    device_owner: Literal[""] = ""
    port_security_enabled: Literal[True] = True
    allowed_address_pairs: tuple[()] = ()
    extra_dhcp_opts: tuple[()] = ()
    vnic_type: Literal["normal"] = field(name="binding:vnic_type", default="normal")
    profile: Profile = field(name="binding:profile", default_factory=dict)


class _NewPortBody(Struct, frozen=True, forbid_unknown_fields=True):
    port: _NewPort


_new_port = msgspec.json.Decoder(_NewPortBody)


def _sight(call: Call) -> str | None:
    """Return the project whose objects are seen: the caller's, or where all are, one it names."""
    return project_filter(call) if call.reach.any else call.sight


def _elsewhere(call: Call) -> bool:
    """Return whether objects are wanted of a project whose are not seen."""
    return project_filter(call) not in {None, _sight(call)}


def _view(call: Call, port: Port) -> View:
    return port_view(port, bound=call.may(READ_BINDING))


def _find(call: Call, port_id: str) -> Port:
    port = call.edge.reader.port(port_id, project_id=call.sight)
    if port is None:
        raise NotFound(f"there is no port {port_id[:64]!r}")
    return port


async def list_ports(call: Call) -> Answer:
    """GET /ports."""
    reader = call.edge.reader
    if _elsewhere(call):
        return listed(call, "ports", lambda *_: [], lambda _: [], frozenset())
    return listed(
        call,
        "ports",
        lambda sort, marker, limit: reader.ports(
            project_id=_sight(call),
            ids=several(call, "id"),
            names=several(call, "name"),
            network_ids=several(call, "network_id"),
            device_ids=several(call, "device_id"),
            device_owners=several(call, "device_owner"),
            sort=sort,
            marker=marker,
            limit=limit,
        ),
        lambda ports: [_view(call, p) for p in ports],
        _BY_READER,
    )


async def show_port(call: Call) -> Answer:
    """GET /ports/{id}."""
    return shown(call, "port", _view(call, _find(call, call.args[0])))


async def create_port(call: Call) -> Answer:
    """POST /ports."""
    wish = (await call.decode(_new_port)).port
    check_project(call, wish.project_id, wish.tenant_id)
    if wish.profile:
        raise NotOffered("binding profiles are not offered")
    fixed = wish.fixed_ips
    reply = await write(
        call,
        CreatePort(
            network_id=wish.network_id,
            name=wish.name,
            mac_address=wish.mac_address.lower() if wish.mac_address else None,
            fixed_ips=None
            if fixed is None
            else tuple(
                FixedIpRequest(subnet_id=f.subnet_id, ip_address=f.ip_address) for f in fixed
            ),
            security_group_ids=wish.security_groups,
            description=wish.description,
            admin_state_up=wish.admin_state_up,
        ),
    )
    ident = reply["port_id"]
    if call.awaited:
        return shown(call, "port", {"id": ident, "name": wish.name}, 201)
    return shown(call, "port", _view(call, _find(call, ident)), 201)


async def delete_port(call: Call) -> Answer:
    """DELETE /ports/{id}."""
    await write(call, DeletePort(port_id=_find(call, call.args[0]).port_id))
    return Answer(204)


def _groups(call: Call, sort: Any, marker: str | None, limit: int | None) -> list[SecurityGroup]:
    if _elsewhere(call):
        return []
    return call.edge.reader.security_groups(
        project_id=_sight(call),
        ids=several(call, "id"),
        names=several(call, "name"),
        sort=sort,
        marker=marker,
        limit=limit,
    )


async def list_groups(call: Call) -> Answer:
    """GET /security-groups."""
    return listed(
        call,
        "security_groups",
        lambda sort, marker, limit: _groups(call, sort, marker, limit),
        lambda groups: [group_view(g) for g in groups],
        _GROUPS_BY_READER,
    )


async def show_group(call: Call) -> Answer:
    """GET /security-groups/{id}."""
    group = call.edge.reader.security_group(call.args[0], project_id=call.sight)
    if group is None:
        raise NotFound(f"there is no security group {call.args[0][:64]!r}")
    return shown(call, "security_group", group_view(group))


def _rules(call: Call) -> list[View]:
    groups = call.edge.reader.security_groups(project_id=call.sight)
    return [rule_view(rule, group) for group in groups for rule in group.rules]


async def list_rules(call: Call) -> Answer:
    """GET /security-group-rules."""

    def fetch(sort: Any, marker: str | None, limit: int | None) -> list[View]:
        return after(ordered(_rules(call), sort), marker)[:limit]

    return listed(call, "security_group_rules", fetch, lambda views: views, frozenset())


async def show_rule(call: Call) -> Answer:
    """GET /security-group-rules/{id}."""
    for view in _rules(call):
        if view["id"] == call.args[0]:
            return shown(call, "security_group_rule", view)
    raise NotFound(f"there is no security group rule {call.args[0][:64]!r}")


async def fixed_groups(_call: Call) -> Answer:
    """POST, PUT and DELETE of groups and rules."""
    raise NotOffered("each project has one security group, named default, which is fixed")


def add(routes: Routes) -> None:
    """Route what this module answers."""
    ports = "network:ports:read"
    routes.add("GET", "/v2.0/ports", list_ports, ports, query=PORTS_BY)
    routes.add(
        "POST", "/v2.0/ports", create_port, "CreatePort", body=_new_port, status=201, partly=True
    )
    routes.add("GET", "/v2.0/ports/{}", show_port, ports, query=("fields",))
    routes.add("PUT", "/v2.0/ports/{}", no_change, ports, status=501)
    routes.add("DELETE", "/v2.0/ports/{}", delete_port, "DeletePort", status=204)
    for name, many, one in (
        ("security-groups", list_groups, show_group),
        ("security-group-rules", list_rules, show_rule),
    ):
        read = "network:security_groups:read"
        routes.add("GET", f"/v2.0/{name}", many, read, query=LISTED_BY)
        routes.add("POST", f"/v2.0/{name}", fixed_groups, read, status=501)
        routes.add("GET", f"/v2.0/{name}/{{}}", one, read, query=("fields",))
        routes.add("PUT", f"/v2.0/{name}/{{}}", fixed_groups, read, status=501)
        routes.add("DELETE", f"/v2.0/{name}/{{}}", fixed_groups, read, status=501)
