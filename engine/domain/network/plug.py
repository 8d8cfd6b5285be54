"""Ports as people make and remove them, and how the state keeps them and their lookups."""

from engine.domain.context import Context
from engine.domain.ipam import address_number
from engine.domain.network.group import groups_of
from engine.domain.network.network import usable_network
from engine.domain.network.port import may_choose, need_unicast, new_port
from engine.domain.state import Cell, drop_member
from schemas import network as s
from schemas.envelope import Fact
from schemas.errors import Conflict, InUse, NotFound
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def create_port(cell: Cell, ctx: Context, action: s.CreatePort) -> Decision:
    """Make a port with its addresses."""
    network = usable_network(cell, ctx, action.network_id)
    if action.mac_address is not None and action.mac_address in cell.index.macs:
        raise Conflict(f"the MAC address {action.mac_address} is in use")
    wanted = action.fixed_ips
    if action.mac_address is not None:
        need_unicast(action.mac_address)
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


def port_created(cell: Cell, fact: s.PortCreated, at: Micros) -> None:
    port, index = fact.port, cell.index
    cell.state.ports[port.port_id] = port
    index.network_ports.setdefault(port.network_id, set()).add(port.port_id)
    index.project_ports.setdefault(port.project_id, set()).add(port.port_id)
    index.macs.add(port.mac_address)
    if port.device_id:
        index.device_ports.setdefault(port.device_id, set()).add(port.port_id)
    for group_id in port.security_group_ids:
        index.group_ports.setdefault(group_id, set()).add(port.port_id)
    for fixed in port.fixed_ips:
        number = address_number(fixed.ip_address)
        index.subnet_used.setdefault(fixed.subnet_id, {})[number] = port.port_id
        cell.state.subnet_hint[fixed.subnet_id] = number + 1


def port_updated(cell: Cell, fact: s.PortUpdated, at: Micros) -> None:
    """Binding and status change; network, MAC, groups and addresses do not."""
    port, index = fact.port, cell.index
    old = cell.state.ports[port.port_id]
    cell.state.ports[port.port_id] = port
    if old.device_id != port.device_id:
        if old.device_id:
            drop_member(index.device_ports, old.device_id, port.port_id)
        if port.device_id:
            index.device_ports.setdefault(port.device_id, set()).add(port.port_id)


def port_deleted(cell: Cell, fact: s.PortDeleted, at: Micros) -> None:
    port, index = cell.state.ports.pop(fact.port_id), cell.index
    drop_member(index.network_ports, port.network_id, port.port_id)
    drop_member(index.project_ports, port.project_id, port.port_id)
    index.macs.discard(port.mac_address)
    if port.device_id:
        drop_member(index.device_ports, port.device_id, port.port_id)
    for group_id in port.security_group_ids:
        drop_member(index.group_ports, group_id, port.port_id)
    for fixed in port.fixed_ips:
        drop_member(index.subnet_used, fixed.subnet_id, address_number(fixed.ip_address))
