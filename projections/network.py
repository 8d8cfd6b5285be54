"""Read models of networks, subnets, ports, security groups: the resources as their facts say.

A port's addresses are also part of the server that it is plugged into.
"""

from engine.domain.network import SERVER_OWNER
from projections.answers import Address
from projections.compute import save_addresses
from projections.store import Table, Writer
from schemas import network as s
from schemas.units import Micros, Ordinal

NAME = "network"
VERSION = 1

NETWORKS = Table(
    "networks",
    s.Network,
    columns="id TEXT NOT NULL, project_id TEXT NOT NULL, name TEXT NOT NULL, "
    "shared INTEGER NOT NULL, created_at INTEGER NOT NULL",
    values=lambda n: (n.network_id, n.project_id, n.name, n.shared, n.created_at),
    indexes=("(project_id)",),
)
SUBNETS = Table(
    "subnets",
    s.Subnet,
    columns="id TEXT NOT NULL, network_id TEXT NOT NULL, project_id TEXT NOT NULL, "
    "name TEXT NOT NULL, created_at INTEGER NOT NULL",
    values=lambda n: (n.subnet_id, n.network_id, n.project_id, n.name, n.created_at),
    indexes=("(project_id)", "(network_id)"),
)


def spaced(words: tuple[str, ...]) -> str:
    """Return words so that each can be looked for with a space on either side."""
    return f" {' '.join(words)} " if words else ""


PORTS = Table(
    "ports",
    s.Port,
    columns="id TEXT NOT NULL, network_id TEXT NOT NULL, project_id TEXT NOT NULL, "
    "device_id TEXT NOT NULL, device_owner TEXT NOT NULL, name TEXT NOT NULL, "
    "mac_address TEXT NOT NULL, host_id TEXT, status TEXT NOT NULL, subnet_ids TEXT NOT NULL, "
    "ip_addresses TEXT NOT NULL, created_at INTEGER NOT NULL",
    values=lambda p: (
        p.port_id,
        p.network_id,
        p.project_id,
        p.device_id,
        p.device_owner,
        p.name,
        p.mac_address,
        p.host_id,
        p.status,
        spaced(tuple(ip.subnet_id for ip in p.fixed_ips)),
        spaced(tuple(ip.ip_address for ip in p.fixed_ips)),
        p.created_at,
    ),
    indexes=("(project_id)", "(device_id)", "(network_id)"),
)
SECURITY_GROUPS = Table(
    "security_groups",
    s.SecurityGroup,
    columns="id TEXT NOT NULL, project_id TEXT NOT NULL, name TEXT NOT NULL, "
    "created_at INTEGER NOT NULL",
    values=lambda g: (g.security_group_id, g.project_id, g.name, g.created_at),
    indexes=("(project_id)",),
)

STATEMENTS = (*NETWORKS.create, *SUBNETS.create, *PORTS.create, *SECURITY_GROUPS.create)


def _network_created(writer: Writer, fact: s.NetworkCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(NETWORKS, fact.network, ordinal)


def _network_deleted(
    writer: Writer, fact: s.NetworkDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(NETWORKS, fact.network_id)


def _subnet_created(writer: Writer, fact: s.SubnetCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(SUBNETS, fact.subnet, ordinal)


def _subnet_deleted(writer: Writer, fact: s.SubnetDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(SUBNETS, fact.subnet_id)


def _port_saved(
    writer: Writer, fact: s.PortCreated | s.PortUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    port = fact.port
    if isinstance(fact, s.PortUpdated):
        _unplug(writer, writer.find(PORTS, port.port_id), ordinal, but=port.device_id)
    writer.put(PORTS, port, ordinal)
    if port.device_owner == SERVER_OWNER:
        network = writer.find(NETWORKS, port.network_id)
        addresses = tuple(
            Address(
                network_id=port.network_id,
                network_name="" if network is None else network.name,
                port_id=port.port_id,
                mac_address=port.mac_address,
                ip_address=fixed.ip_address,
            )
            for fixed in port.fixed_ips
        )
        save_addresses(writer, port.device_id, port.port_id, addresses, ordinal)


def _port_deleted(writer: Writer, fact: s.PortDeleted, ordinal: Ordinal, _at: Micros) -> None:
    _unplug(writer, writer.find(PORTS, fact.port_id), ordinal)
    writer.drop(PORTS, fact.port_id)


def _unplug(writer: Writer, port: s.Port | None, ordinal: Ordinal, but: str = "") -> None:
    if port is not None and port.device_owner == SERVER_OWNER and port.device_id != but:
        save_addresses(writer, port.device_id, port.port_id, (), ordinal)


def _group_created(
    writer: Writer, fact: s.SecurityGroupCreated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(SECURITY_GROUPS, fact.group, ordinal)


def _group_deleted(
    writer: Writer, fact: s.SecurityGroupDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(SECURITY_GROUPS, fact.security_group_id)


APPLY = {
    s.NetworkCreated: _network_created,
    s.NetworkDeleted: _network_deleted,
    s.SubnetCreated: _subnet_created,
    s.SubnetDeleted: _subnet_deleted,
    s.PortCreated: _port_saved,
    s.PortUpdated: _port_saved,
    s.PortDeleted: _port_deleted,
    s.SecurityGroupCreated: _group_created,
    s.SecurityGroupDeleted: _group_deleted,
}
