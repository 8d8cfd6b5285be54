"""Subnets: ranges of a network that do not overlap, with their pools and DHCP ports."""

from ipaddress import IPv4Address, IPv4Network

from engine.domain.context import Context
from engine.domain.ipam import allocate, default_pools, parse_address, parse_network, spans_of
from engine.domain.network.network import own_network
from engine.domain.network.port import DHCP_OWNER, free_mac
from engine.domain.state import Cell, drop_member
from schemas import network as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InUse, InvalidInput, NotFound, SubnetOverlap
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def create_subnet(cell: Cell, ctx: Context, action: s.CreateSubnet) -> Decision:
    """Make a subnet, and a port for its DHCP server."""
    network = own_network(cell, ctx, action.network_id, in_body=True)
    span = parse_network(action.cidr)
    siblings = [
        cell.state.subnets[i] for i in cell.index.network_subnets.get(network.network_id, {})
    ]
    for other in siblings:
        if span.overlaps(IPv4Network(other.cidr)):
            raise SubnetOverlap(
                f"the range {span} overlaps with another subnet, {other.subnet_id} ({other.cidr})",
                subnet_id=other.subnet_id,
                cidr=other.cidr,
            )
    gateway = _gateway(action, span)
    pools = _pools(action, span, gateway)
    for address in action.dns_nameservers:
        parse_address(address)
    subnet = s.Subnet(
        subnet_id=ctx.new_id(),
        network_id=network.network_id,
        project_id=network.project_id,
        name=action.name,
        cidr=str(span),
        gateway_ip=None if gateway is None else str(IPv4Address(gateway)),
        enable_dhcp=action.enable_dhcp,
        allocation_pools=pools,
        dns_nameservers=action.dns_nameservers,
        description=action.description,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    facts: list[Fact] = [s.SubnetCreated(subnet=subnet)]
    if action.enable_dhcp:
        facts.append(s.PortCreated(port=_dhcp_port(cell, ctx, network, subnet)))
    return facts, {"subnet_id": subnet.subnet_id}


def _gateway(action: s.CreateSubnet, span: IPv4Network) -> int | None:
    if action.gateway_ip is None:
        return int(span.network_address) + 1
    if not action.gateway_ip:
        return None
    return parse_address(action.gateway_ip, span)


def _pools(
    action: s.CreateSubnet, span: IPv4Network, gateway: int | None
) -> tuple[s.AllocationPool, ...]:
    if action.allocation_pools is None:
        return default_pools(span, gateway)
    if not action.allocation_pools:
        raise InvalidInput("allocation_pools is empty: leave it out to use the whole range")
    spans: list[tuple[int, int]] = []
    for pool in action.allocation_pools:
        low, high = parse_address(pool.start, span), parse_address(pool.end, span)
        if low > high:
            raise InvalidInput(f"the pool {pool.start}-{pool.end} ends before it starts")
        if gateway is not None and low <= gateway <= high:
            raise Conflict(
                f"the gateway {IPv4Address(gateway)} lies in the pool {pool.start}-{pool.end}"
            )
        if any(a <= high and low <= b for a, b in spans):
            raise Conflict(f"the pool {pool.start}-{pool.end} overlaps with another pool")
        spans.append((low, high))
    return action.allocation_pools


def _dhcp_port(cell: Cell, ctx: Context, network: s.Network, subnet: s.Subnet) -> s.Port:
    return s.Port(
        port_id=ctx.new_id(),
        network_id=network.network_id,
        project_id=network.project_id,
        name="",
        mac_address=free_mac(cell, ctx, set()),
        fixed_ips=(
            s.FixedIp(subnet_id=subnet.subnet_id, ip_address=allocate(cell, subnet, None, set())),
        ),
        device_id=f"dhcp-{network.network_id}",
        device_owner=DHCP_OWNER,
        status="ACTIVE",
        created_at=ctx.now,
        updated_at=ctx.now,
    )


def delete_subnet(cell: Cell, ctx: Context, action: s.DeleteSubnet) -> Decision:
    """Remove a subnet and its DHCP port."""
    subnet = cell.state.subnets.get(action.subnet_id)
    if subnet is None or not ctx.owns(subnet.project_id):
        raise NotFound(f"there is no subnet {action.subnet_id}")
    holders = set(cell.index.subnet_used.get(subnet.subnet_id, {}).values())
    ports = [cell.state.ports[p] for p in sorted(holders)]
    in_use = [p for p in ports if p.device_owner != DHCP_OWNER]
    if in_use:
        raise InUse(
            f"{len(in_use)} port(s) have an address of the subnet, the first is "
            f"{in_use[0].port_id}",
            count=len(in_use),
        )
    return [
        *(s.PortDeleted(port_id=p.port_id) for p in ports),
        s.SubnetDeleted(subnet_id=subnet.subnet_id),
    ], {}


def subnet_created(cell: Cell, fact: s.SubnetCreated, at: Micros) -> None:
    subnet = fact.subnet
    cell.state.subnets[subnet.subnet_id] = subnet
    cell.index.network_subnets.setdefault(subnet.network_id, {})[subnet.subnet_id] = None
    cell.index.subnet_spans[subnet.subnet_id] = spans_of(subnet)


def subnet_deleted(cell: Cell, fact: s.SubnetDeleted, at: Micros) -> None:
    subnet = cell.state.subnets.pop(fact.subnet_id)
    drop_member(cell.index.network_subnets, subnet.network_id, subnet.subnet_id)
    cell.index.subnet_used.pop(subnet.subnet_id, None)
    cell.state.subnet_hint.pop(subnet.subnet_id, None)
    cell.index.subnet_spans.pop(subnet.subnet_id, None)
