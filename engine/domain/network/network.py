"""Networks: each has a number of its own, and those who may use it."""

from engine.domain.context import Context
from engine.domain.network.port import DHCP_OWNER
from engine.domain.state import Cell, drop_member
from schemas import network as s
from schemas.envelope import Fact
from schemas.errors import Conflict, Forbidden, InUse, NotFound, UnknownReference
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

VNI_FIRST, VNI_LAST = 1, 2**24 - 1  # RFC 7348 section 4
VNI_FROM = 1000


def create_network(cell: Cell, ctx: Context, action: s.CreateNetwork) -> Decision:
    """Make a network with a number of its own."""
    if action.shared and not ctx.may("network:networks:share"):
        raise Forbidden("sharing a network with all projects needs the role admin")
    network = s.Network(
        network_id=ctx.new_id(),
        name=action.name,
        project_id=ctx.need_project(),
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
    held = sorted(cell.index.network_ports.get(network.network_id, ()))
    ports = [cell.state.ports[p] for p in held]
    in_use = [p for p in ports if p.device_owner != DHCP_OWNER]
    if in_use:
        raise InUse(
            f"the network has {len(in_use)} port(s) in use, the first is {in_use[0].port_id}",
            count=len(in_use),
        )
    facts: list[Fact] = [s.PortDeleted(port_id=p) for p in held]
    facts += [
        s.SubnetDeleted(subnet_id=subnet_id)
        for subnet_id in cell.index.network_subnets.get(network.network_id, {})
    ]
    return [*facts, s.NetworkDeleted(network_id=network.network_id)], {}


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
    drop_member(cell.index.project_networks, network.project_id, network.network_id)
    cell.index.shared_networks.discard(network.network_id)
    cell.index.network_subnets.pop(network.network_id, None)
    cell.index.network_ports.pop(network.network_id, None)
