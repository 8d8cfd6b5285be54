"""Ports: places on networks, each with addresses and a MAC that nobody else has."""

from ipaddress import IPv4Address, IPv4Network

import msgspec

from engine.domain.context import Context
from engine.domain.ipam import allocate, parse_address
from engine.domain.state import Cell
from schemas import network as s
from schemas.errors import Forbidden, InvalidInput
from schemas.units import Micros

DHCP_OWNER = "network:dhcp"
SERVER_OWNER = "compute:nova"


def may_choose(ctx: Context, network: s.Network, what: str) -> None:
    """Return if the actor may choose addresses on this network, as Neutron's policy has it.

    Whoever could, might take one that others on a shared network still believe to be its last
    holder's.

    Raises:
        Forbidden: it is another project's.
    """
    if not ctx.owns(network.project_id):
        raise Forbidden(f"choosing the {what} on a shared network is for its owner")


def need_unicast(mac: str) -> None:
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
        project_id=ctx.need_project(),
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


def mac_of(ident: str) -> str:
    """Return the MAC that the last digits of an id give."""
    digits = ident[-6:]
    return f"fa:16:3e:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"


def free_mac(cell: Cell, ctx: Context, macs: set[str]) -> str:
    """Return an unused MAC under ``fa:16:3e``, the prefix that OpenStack networks use."""
    while True:
        mac = mac_of(ctx.new_id())
        if mac not in cell.index.macs and mac not in macs:
            macs.add(mac)
            return mac


def changed_port(port: s.Port, at: Micros, **fields: object) -> s.Port:
    """Return the port with some fields replaced, its revision counted up."""
    return msgspec.structs.replace(port, updated_at=at, revision=port.revision + 1, **fields)
