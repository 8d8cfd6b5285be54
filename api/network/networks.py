"""Networks and their subnets."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from api.errors import NotOffered
from api.exchange import Answer, Call
from api.network.lists import LISTED_BY, View, listed, project_filter, several, shown
from api.network.views import network_view, subnet_view
from api.pagination import flag
from api.routing import Routes
from api.writing import write
from schemas.errors import Forbidden, NotFound
from schemas.network import (
    AllocationPool,
    CreateNetwork,
    CreateSubnet,
    DeleteNetwork,
    DeleteSubnet,
    Network,
    Subnet,
)
from schemas.units import Cidr, IpAddress, Text

_BY_READER = frozenset({"id", "name", "project_id", "tenant_id", "shared"})
_SUBNETS_BY_READER = frozenset({"id", "name", "project_id", "tenant_id", "network_id"})


class _NewNetwork(Struct, frozen=True, forbid_unknown_fields=True):
    name: Text = ""
    description: Text = ""
    admin_state_up: bool = True
    shared: bool = False
    mtu: Annotated[int, Meta(ge=0, le=65536)] | None = None
    project_id: Text | None = None
    tenant_id: Text | None = None
    # Taken where they say no more than what is so anyhow.
    port_security_enabled: Literal[True] = True
    external: Literal[False] = field(name="router:external", default=False)
    is_default: Literal[False] = False
    availability_zone_hints: tuple[()] = ()


class _Pool(Struct, frozen=True, forbid_unknown_fields=True):
    start: IpAddress
    end: IpAddress


class _NewSubnet(Struct, frozen=True, forbid_unknown_fields=True):
    network_id: Text
    cidr: Cidr
    name: Text = ""
    ip_version: Literal[4, "4"] = 4
    gateway_ip: IpAddress | UnsetType | None = UNSET
    enable_dhcp: bool = True
    allocation_pools: Annotated[tuple[_Pool, ...], Meta(max_length=32)] | None = None
    dns_nameservers: Annotated[tuple[IpAddress, ...], Meta(max_length=5)] | None = None
    description: Text = ""
    project_id: Text | None = None
    tenant_id: Text | None = None
    host_routes: tuple[()] | None = None
    ipv6_address_mode: None = None
    ipv6_ra_mode: None = None
    subnetpool_id: None = None
    segment_id: None = None
    service_types: tuple[()] = ()


class _NewNetworkBody(Struct, frozen=True, forbid_unknown_fields=True):
    network: _NewNetwork


class _NewSubnetBody(Struct, frozen=True, forbid_unknown_fields=True):
    subnet: _NewSubnet


def check_project(call: Call, *projects: str | None) -> None:
    """Refuse to make something for another project than the token's.

    Raises:
        Forbidden: another was named.
    """
    if any(p not in {None, call.principal.project_id} for p in projects):
        raise Forbidden("objects are made for the project of the token")
    if not call.principal.project_id:
        raise Forbidden("this needs a token scoped to a project")


def _views(call: Call, networks: list[Network]) -> list[View]:
    subnets: dict[str, list[str]] = {n.network_id: [] for n in networks}
    if networks:
        for subnet in call.edge.reader.subnets(network_ids=list(subnets)):
            subnets[subnet.network_id].append(subnet.subnet_id)
    carried = call.may("network:networks:read_provider")
    return [network_view(n, subnets[n.network_id], carried=carried) for n in networks]


def _find(call: Call, network_id: str) -> Network:
    network = call.edge.reader.network(network_id, visible_to=call.sight)
    if network is None:
        raise NotFound(f"there is no network {network_id[:64]!r}")
    return network


async def list_networks(call: Call) -> Answer:
    """GET /networks."""
    reader = call.edge.reader
    return listed(
        call,
        "networks",
        lambda sort, marker, limit: reader.networks(
            visible_to=call.sight,
            project_id=project_filter(call),
            ids=several(call, "id"),
            names=several(call, "name"),
            shared=flag(call, "shared"),
            sort=sort,
            marker=marker,
            limit=limit,
        ),
        lambda networks: _views(call, networks),
        _BY_READER,
    )


async def show_network(call: Call) -> Answer:
    """GET /networks/{id}."""
    return shown(call, "network", _views(call, [_find(call, call.args[0])])[0])


async def create_network(call: Call) -> Answer:
    """POST /networks."""
    wish = (await call.decode(_new_network)).network
    check_project(call, wish.project_id, wish.tenant_id)
    action = CreateNetwork(
        name=wish.name,
        description=wish.description,
        admin_state_up=wish.admin_state_up,
        shared=wish.shared,
    )
    if wish.mtu:
        action = msgspec.structs.replace(action, mtu=wish.mtu)
    ident = (await write(call, action))["network_id"]
    if call.awaited:
        return shown(call, "network", {"id": ident, "name": wish.name}, 201)
    return shown(call, "network", _views(call, [_find(call, ident)])[0], 201)


async def delete_network(call: Call) -> Answer:
    """DELETE /networks/{id}."""
    await write(call, DeleteNetwork(network_id=_find(call, call.args[0]).network_id))
    return Answer(204)


async def no_change(_call: Call) -> Answer:
    """PUT of what cannot be changed yet."""
    raise NotOffered("changing this is not offered; delete it and make another")


def _find_subnet(call: Call, subnet_id: str) -> Subnet:
    subnet = call.edge.reader.subnet(subnet_id, visible_to=call.sight)
    if subnet is None:
        raise NotFound(f"there is no subnet {subnet_id[:64]!r}")
    return subnet


async def list_subnets(call: Call) -> Answer:
    """GET /subnets."""
    reader = call.edge.reader
    return listed(
        call,
        "subnets",
        lambda sort, marker, limit: reader.subnets(
            visible_to=call.sight,
            project_id=project_filter(call),
            ids=several(call, "id"),
            names=several(call, "name"),
            network_ids=several(call, "network_id"),
            sort=sort,
            marker=marker,
            limit=limit,
        ),
        lambda subnets: [subnet_view(s) for s in subnets],
        _SUBNETS_BY_READER,
    )


async def show_subnet(call: Call) -> Answer:
    """GET /subnets/{id}."""
    return shown(call, "subnet", subnet_view(_find_subnet(call, call.args[0])))


async def create_subnet(call: Call) -> Answer:
    """POST /subnets."""
    wish = (await call.decode(_new_subnet)).subnet
    check_project(call, wish.project_id, wish.tenant_id)
    pools = wish.allocation_pools
    reply = await write(
        call,
        CreateSubnet(
            network_id=wish.network_id,
            cidr=wish.cidr,
            name=wish.name,
            gateway_ip=_gateway(wish.gateway_ip),
            enable_dhcp=wish.enable_dhcp,
            allocation_pools=tuple(AllocationPool(start=p.start, end=p.end) for p in pools)
            if pools
            else None,
            dns_nameservers=wish.dns_nameservers or (),
            description=wish.description,
        ),
    )
    ident = reply["subnet_id"]
    if call.awaited:
        return shown(call, "subnet", {"id": ident, "name": wish.name}, 201)
    return shown(call, "subnet", subnet_view(_find_subnet(call, ident)), 201)


def _gateway(asked: str | UnsetType | None) -> str | None:
    """Return what the action means by it: left out, the first address; null, no gateway."""
    if asked is UNSET:
        return None
    return asked or ""


async def delete_subnet(call: Call) -> Answer:
    """DELETE /subnets/{id}."""
    await write(call, DeleteSubnet(subnet_id=_find_subnet(call, call.args[0]).subnet_id))
    return Answer(204)


_new_network = msgspec.json.Decoder(_NewNetworkBody)
_new_subnet = msgspec.json.Decoder(_NewSubnetBody)


def add(routes: Routes) -> None:
    """Route what this module answers."""
    networks, subnets = "network:networks:read", "network:subnets:read"
    routes.add("GET", "/v2.0/networks", list_networks, networks, query=(*LISTED_BY, "shared"))
    routes.add(
        "POST", "/v2.0/networks", create_network, "CreateNetwork", body=_new_network, status=201
    )
    routes.add("GET", "/v2.0/networks/{}", show_network, networks, query=("fields",))
    routes.add("PUT", "/v2.0/networks/{}", no_change, networks, status=501)
    routes.add("DELETE", "/v2.0/networks/{}", delete_network, "DeleteNetwork", status=204)
    routes.add(
        "GET", "/v2.0/subnets", list_subnets, subnets, query=(*LISTED_BY, "network_id", "cidr")
    )
    routes.add("POST", "/v2.0/subnets", create_subnet, "CreateSubnet", body=_new_subnet, status=201)
    routes.add("GET", "/v2.0/subnets/{}", show_subnet, subnets, query=("fields",))
    routes.add("PUT", "/v2.0/subnets/{}", no_change, subnets, status=501)
    routes.add("DELETE", "/v2.0/subnets/{}", delete_subnet, "DeleteSubnet", status=204)
