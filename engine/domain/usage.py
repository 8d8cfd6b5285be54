"""What a project holds, counted: for quotas, and for those who ask before they do.

Invariant: counting before, and adding what the facts say, gives what counting afterwards gives.
"""

from collections.abc import Iterable

from engine.domain.compute.evolve import disk_held
from engine.domain.state import Cell
from schemas import compute as c
from schemas import image as i
from schemas import network as n
from schemas.envelope import Fact

type Held = dict[str, int]


def project_usage(cell: Cell, project_id: str, user_id: str) -> Held:
    """Return what a project holds; keypairs are the user's. Sizes as in a server's flavor."""
    state, index = cell.state, cell.index
    servers = [state.servers[s] for s in index.project_servers.get(project_id, ())]
    networks = index.project_networks.get(project_id, ())
    return {
        "servers": len(servers),
        "vcpus": sum(s.flavor.vcpus for s in servers),
        "memory_mib": sum(s.flavor.memory_mib for s in servers),
        "disk_gib": sum(disk_held(s) for s in servers),
        "networks": len(networks),
        "subnets": sum(len(index.network_subnets.get(network, ())) for network in networks),
        "ports": len(index.project_ports.get(project_id, ())),
        "security_groups": len(index.project_groups.get(project_id, ())),
        "images": len(index.project_images.get(project_id, ())),
        "image_bytes": sum(
            state.images[image].size_bytes or 0
            for image in index.project_images.get(project_id, ())
        ),
        "keypairs": len(state.keypairs.get(user_id, ())),
    }


def usage_after(cell: Cell, facts: Iterable[Fact], project_id: str, user_id: str) -> Held:
    """Return what a project would hold once these facts were written."""
    held = project_usage(cell, project_id, user_id)
    for fact in facts:
        for name, change in _changes(cell, fact, project_id, user_id):
            held[name] += change
    return held


type Changes = list[tuple[str, int]]


def _changes(cell: Cell, fact: Fact, project_id: str, user_id: str) -> Changes:
    match fact:
        case c.ServerCreated() if fact.server.project_id == project_id:
            return _server(fact.server, 1)
        case c.ServerDeleted():
            server = cell.state.servers[fact.server_id]
            return _server(server, -1) if server.project_id == project_id else []
        case c.KeypairCreated() if fact.keypair.user_id == user_id:
            return [("keypairs", 1)]
        case c.KeypairDeleted() if fact.user_id == user_id:
            return [("keypairs", -1)]
        case i.ImageCreated() if fact.image.project_id == project_id:
            return [("images", 1)]
        case i.ImageUploaded():
            return _image(cell, fact.image_id, project_id, 0, fact.size_bytes)
        case i.ImageDeleted():
            size = cell.state.images[fact.image_id].size_bytes or 0
            return _image(cell, fact.image_id, project_id, -1, -size)
        case _:
            return _network_changes(cell, fact, project_id)


def _network_changes(cell: Cell, fact: Fact, project_id: str) -> Changes:
    state = cell.state
    match fact:
        case n.NetworkCreated() if fact.network.project_id == project_id:
            return [("networks", 1)]
        case n.NetworkDeleted() if state.networks[fact.network_id].project_id == project_id:
            return [("networks", -1)]
        case n.SubnetCreated() if fact.subnet.project_id == project_id:
            return [("subnets", 1)]
        case n.SubnetDeleted() if state.subnets[fact.subnet_id].project_id == project_id:
            return [("subnets", -1)]
        case n.PortCreated() if fact.port.project_id == project_id:
            return [("ports", 1)]
        case n.PortDeleted() if state.ports[fact.port_id].project_id == project_id:
            return [("ports", -1)]
        case n.SecurityGroupCreated() if fact.group.project_id == project_id:
            return [("security_groups", 1)]
        case n.SecurityGroupDeleted():
            group = state.security_groups[fact.security_group_id]
            return [("security_groups", -1)] if group.project_id == project_id else []
        case _:
            return []


def _server(server: c.Server, sign: int) -> Changes:
    return [
        ("servers", sign),
        ("vcpus", sign * server.flavor.vcpus),
        ("memory_mib", sign * server.flavor.memory_mib),
        ("disk_gib", sign * disk_held(server)),
    ]


def _image(cell: Cell, image_id: str, project_id: str, count: int, size_bytes: int) -> Changes:
    if cell.state.images[image_id].project_id != project_id:
        return []
    return [("images", count), ("image_bytes", size_bytes)]
