"""Networks, subnets, ports and security groups: what may exist, and which addresses they hold."""

from ipaddress import IPv4Address, IPv4Network

import msgspec

from engine.domain.context import Context
from engine.domain.ipam import allocate, default_pools, parse_address, parse_network, spans_of
from engine.domain.state import Cell
from schemas import network as s
from schemas.envelope import Fact
from schemas.errors import (
    Conflict,
    Forbidden,
    InUse,
    InvalidInput,
    NotFound,
    SubnetOverlap,
    UnknownReference,
)
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

DHCP_OWNER = "network:dhcp"
SERVER_OWNER = "compute:nova"
VNI_FIRST, VNI_LAST = 1, 2**24 - 1  # RFC 7348 section 4
VNI_FROM = 1000


def default_group(ctx: Context, project_id: str) -> s.SecurityGroup:
    """Return a project's first group: all egress; of ingress, ICMP and TCP 22."""

    def rule(**fields: object) -> s.SecurityGroupRule:
        return s.SecurityGroupRule(rule_id=ctx.new_id(), **fields)  # type: ignore[arg-type]

    return s.SecurityGroup(
        security_group_id=ctx.new_id(),
        name="default",
        project_id=project_id,
        description="Default security group",
        rules=(
            rule(direction="egress", ethertype="IPv4"),
            rule(direction="egress", ethertype="IPv6"),
            rule(direction="ingress", ethertype="IPv4", protocol="icmp"),
            rule(
                direction="ingress",
                ethertype="IPv4",
                protocol="tcp",
                port_range_min=22,
                port_range_max=22,
            ),
        ),
        created_at=ctx.now,
        updated_at=ctx.now,
    )


def create_network(cell: Cell, ctx: Context, action: s.CreateNetwork) -> Decision:
    """Make a network with a number of its own."""
    if action.shared and not ctx.is_admin:
        raise Forbidden("sharing a network with all projects needs the role admin")
    network = s.Network(
        network_id=ctx.new_id(),
        name=action.name,
        project_id=ctx.actor.project_id,
        vni=_free_vni(cell),
        mtu=action.mtu,
        shared=action.shared,
        admin_state_up=action.admin_state_up,
        description=action.description,
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    return [s.NetworkCreated(network=network)], {"network_id": network.network_id}


def _free_vni(cell: Cell) -> int:
    vnis = cell.index.vnis
    for vni in range(VNI_FROM + len(vnis), VNI_LAST + 1):
        if vni not in vnis:
            return vni
    for vni in range(VNI_FIRST, VNI_FROM + len(vnis)):
        if vni not in vnis:
            return vni
    raise Conflict("no network number is left")


def delete_network(cell: Cell, ctx: Context, action: s.DeleteNetwork) -> Decision:
    """Remove a network, its subnets and its DHCP ports."""
    network = own_network(cell, ctx, action.network_id)
    ports = [cell.state.ports[p] for p in cell.index.network_ports.get(network.network_id, ())]
    in_use = [p for p in ports if p.device_owner != DHCP_OWNER]
    if in_use:
        raise InUse(
            f"the network has {len(in_use)} port(s) in use, the first is {in_use[0].port_id}",
            count=len(in_use),
        )
    facts: list[Fact] = [s.PortDeleted(port_id=p) for p in sorted(p.port_id for p in ports)]
    facts += [
        s.SubnetDeleted(subnet_id=subnet_id)
        for subnet_id in cell.index.network_subnets.get(network.network_id, {})
    ]
    return [*facts, s.NetworkDeleted(network_id=network.network_id)], {}


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


def create_port(cell: Cell, ctx: Context, action: s.CreatePort) -> Decision:
    """Make a port with its addresses."""
    network = usable_network(cell, ctx, action.network_id)
    if action.mac_address is not None and action.mac_address in cell.index.macs:
        raise Conflict(f"the MAC address {action.mac_address} is in use")
    wanted = action.fixed_ips
    if action.mac_address is not None:
        _unicast(action.mac_address)
        may_choose(ctx, network, "MAC address")
    if any(ask.ip_address is not None for ask in wanted or ()):
        may_choose(ctx, network, "address")
    port = new_port(
        cell,
        ctx,
        network,
        name=action.name,
        description=action.description,
        mac_address=action.mac_address,
        fixed_ips=wanted,
        groups=groups_of(cell, ctx, action.security_group_ids),
        admin_state_up=action.admin_state_up,
    )
    return [s.PortCreated(port=port)], {"port_id": port.port_id}


def may_choose(ctx: Context, network: s.Network, what: str) -> None:
    """Return if the actor may choose addresses on this network, as Neutron's policy has it.

    Whoever could, might take one that others on a shared network still believe to be its last
    holder's.

    Raises:
        Forbidden: it is another project's.
    """
    if not ctx.owns(network.project_id):
        raise Forbidden(f"choosing the {what} on a shared network is for its owner")


def _unicast(mac: str) -> None:
    """Refuse addresses that no interface can have (IEEE 802: the group bit; all zero)."""
    if int(mac[:2], 16) & 1 or not mac.strip("0:"):
        raise InvalidInput(f"{mac} is not a MAC address of one interface")


def new_port(
    cell: Cell,
    ctx: Context,
    network: s.Network,
    *,
    name: str = "",
    description: str = "",
    mac_address: str | None = None,
    fixed_ips: tuple[s.FixedIpRequest, ...] | None = None,
    groups: tuple[str, ...] = (),
    taken: set[tuple[str, int]] | None = None,
    macs: set[str] | None = None,
    device_id: str = "",
    device_owner: str = "",
    host_id: str | None = None,
    made_by_server: bool = False,
    admin_state_up: bool = True,
) -> s.Port:
    """Return a port with addresses and a MAC that nobody else has.

    ``taken`` and ``macs`` are what earlier ports of the same decision hold.
    """
    taken = set() if taken is None else taken
    return s.Port(
        port_id=ctx.new_id(),
        network_id=network.network_id,
        project_id=ctx.actor.project_id,
        name=name,
        description=description,
        mac_address=mac_address or free_mac(cell, ctx, macs if macs is not None else set()),
        fixed_ips=_addresses(cell, network, fixed_ips, taken),
        security_group_ids=groups,
        device_id=device_id,
        device_owner=device_owner,
        host_id=host_id,
        made_by_server=made_by_server,
        admin_state_up=admin_state_up,
        created_at=ctx.now,
        updated_at=ctx.now,
    )


def _addresses(
    cell: Cell,
    network: s.Network,
    wanted: tuple[s.FixedIpRequest, ...] | None,
    taken: set[tuple[str, int]],
) -> tuple[s.FixedIp, ...]:
    subnets = [
        cell.state.subnets[i] for i in cell.index.network_subnets.get(network.network_id, {})
    ]
    if wanted is None:
        if not subnets:
            return ()
        wanted = (s.FixedIpRequest(subnet_id=subnets[0].subnet_id),)
    return tuple(_address(cell, subnets, ask, taken) for ask in wanted)


def _address(
    cell: Cell, subnets: list[s.Subnet], ask: s.FixedIpRequest, taken: set[tuple[str, int]]
) -> s.FixedIp:
    for subnet in subnets:
        if ask.subnet_id not in (None, subnet.subnet_id):
            continue
        if ask.subnet_id is None and ask.ip_address is not None:
            number = parse_address(ask.ip_address)
            if IPv4Address(number) not in IPv4Network(subnet.cidr):
                continue
        address = allocate(cell, subnet, ask.ip_address, taken)
        return s.FixedIp(subnet_id=subnet.subnet_id, ip_address=address)
    what = f"subnet {ask.subnet_id}" if ask.subnet_id else f"subnet with {ask.ip_address}"
    raise InvalidInput(f"the network has no {what}")


def free_mac(cell: Cell, ctx: Context, macs: set[str]) -> str:
    """Return an unused MAC under ``fa:16:3e``, the prefix that OpenStack networks use."""
    while True:
        digits = ctx.new_id().replace("-", "")[-6:]
        mac = f"fa:16:3e:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"
        if mac not in cell.index.macs and mac not in macs:
            macs.add(mac)
            return mac


def delete_port(cell: Cell, ctx: Context, action: s.DeletePort) -> Decision:
    """Remove a port that nothing uses."""
    port = cell.state.ports.get(action.port_id)
    if port is None or not ctx.owns(port.project_id):
        raise NotFound(f"there is no port {action.port_id}")
    if port.device_owner:
        raise InUse(
            f"the port is used by {port.device_owner} {port.device_id}",
            device_id=port.device_id,
        )
    return [s.PortDeleted(port_id=port.port_id)], {}


def own_network(cell: Cell, ctx: Context, network_id: str, *, in_body: bool = False) -> s.Network:
    """Return a network that the actor may change.

    Raises:
        NotFound: there is none, or it is another project's.
        UnknownReference: the same, where a body named it.
    """
    network = cell.state.networks.get(network_id)
    if network is None or not (ctx.owns(network.project_id) or network.shared):
        raise (UnknownReference if in_body else NotFound)(f"there is no network {network_id}")
    if not ctx.owns(network.project_id):
        raise Forbidden("the network is shared by another project; only its owner may change it")
    return network


def usable_network(cell: Cell, ctx: Context, network_id: str) -> s.Network:
    """Return a network that the actor may plug into: its own, or a shared one.

    Raises:
        UnknownReference: there is none.
    """
    network = cell.state.networks.get(network_id)
    if network is None or not (ctx.owns(network.project_id) or network.shared):
        raise UnknownReference(f"there is no network {network_id}")
    return network


def groups_of(cell: Cell, ctx: Context, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return security group ids for names or ids; None means the project's default group.

    Raises:
        UnknownReference: one is not there.
    """
    held = sorted(cell.index.project_groups.get(ctx.actor.project_id, ()))
    names: dict[str, str] = {}
    for group_id in held:
        names.setdefault(cell.state.security_groups[group_id].name, group_id)
        names[group_id] = group_id
    result: dict[str, None] = {}
    for name in ("default",) if wanted is None else wanted:
        if name not in names:
            raise UnknownReference(f"there is no security group {name!r}")
        result[names[name]] = None
    return tuple(result)


# Evolve


def network_created(cell: Cell, fact: s.NetworkCreated, at: Micros) -> None:
    network = fact.network
    cell.state.networks[network.network_id] = network
    cell.index.vnis.add(network.vni)
    cell.index.project_networks.setdefault(network.project_id, set()).add(network.network_id)
    if network.shared:
        cell.index.shared_networks.add(network.network_id)


def network_deleted(cell: Cell, fact: s.NetworkDeleted, at: Micros) -> None:
    network = cell.state.networks.pop(fact.network_id)
    cell.index.vnis.discard(network.vni)
    cell.index.project_networks[network.project_id].discard(network.network_id)
    cell.index.shared_networks.discard(network.network_id)
    cell.index.network_subnets.pop(network.network_id, None)
    cell.index.network_ports.pop(network.network_id, None)


def subnet_created(cell: Cell, fact: s.SubnetCreated, at: Micros) -> None:
    subnet = fact.subnet
    cell.state.subnets[subnet.subnet_id] = subnet
    cell.index.network_subnets.setdefault(subnet.network_id, {})[subnet.subnet_id] = None
    cell.index.subnet_spans[subnet.subnet_id] = spans_of(subnet)


def subnet_deleted(cell: Cell, fact: s.SubnetDeleted, at: Micros) -> None:
    subnet = cell.state.subnets.pop(fact.subnet_id)
    cell.index.network_subnets[subnet.network_id].pop(subnet.subnet_id)
    cell.index.subnet_used.pop(subnet.subnet_id, None)
    cell.index.subnet_hint.pop(subnet.subnet_id, None)
    cell.index.subnet_spans.pop(subnet.subnet_id, None)


def port_created(cell: Cell, fact: s.PortCreated, at: Micros) -> None:
    port, index = fact.port, cell.index
    cell.state.ports[port.port_id] = port
    index.network_ports.setdefault(port.network_id, set()).add(port.port_id)
    index.macs.add(port.mac_address)
    if port.device_id:
        index.device_ports.setdefault(port.device_id, set()).add(port.port_id)
    for group_id in port.security_group_ids:
        index.group_ports.setdefault(group_id, set()).add(port.port_id)
    for fixed in port.fixed_ips:
        number = int(IPv4Address(fixed.ip_address))
        index.subnet_used.setdefault(fixed.subnet_id, {})[number] = port.port_id
        index.subnet_hint[fixed.subnet_id] = number + 1


def port_updated(cell: Cell, fact: s.PortUpdated, at: Micros) -> None:
    """Binding and status change; network, MAC, groups and addresses do not."""
    port, index = fact.port, cell.index
    old = cell.state.ports[port.port_id]
    cell.state.ports[port.port_id] = port
    if old.device_id != port.device_id:
        if old.device_id:
            _discard(index.device_ports, old.device_id, port.port_id)
        if port.device_id:
            index.device_ports.setdefault(port.device_id, set()).add(port.port_id)


def port_deleted(cell: Cell, fact: s.PortDeleted, at: Micros) -> None:
    port, index = cell.state.ports.pop(fact.port_id), cell.index
    index.network_ports[port.network_id].discard(port.port_id)
    index.macs.discard(port.mac_address)
    if port.device_id:
        _discard(index.device_ports, port.device_id, port.port_id)
    for group_id in port.security_group_ids:
        _discard(index.group_ports, group_id, port.port_id)
    for fixed in port.fixed_ips:
        index.subnet_used[fixed.subnet_id].pop(int(IPv4Address(fixed.ip_address)), None)


def group_created(cell: Cell, fact: s.SecurityGroupCreated, at: Micros) -> None:
    group = fact.group
    cell.state.security_groups[group.security_group_id] = group
    cell.index.project_groups.setdefault(group.project_id, set()).add(group.security_group_id)


def group_deleted(cell: Cell, fact: s.SecurityGroupDeleted, at: Micros) -> None:
    group = cell.state.security_groups.pop(fact.security_group_id)
    _discard(cell.index.project_groups, group.project_id, group.security_group_id)


def _discard(sets: dict[str, set[str]], key: str, member: str) -> None:
    members = sets[key]
    members.discard(member)
    if not members:
        del sets[key]


def changed_port(port: s.Port, at: Micros, **fields: object) -> s.Port:
    """Return the port with some fields replaced, its revision counted up."""
    return msgspec.structs.replace(port, updated_at=at, revision=port.revision + 1, **fields)
