"""What each host shall have: derived from the state, never stored.

A server in ERROR has no domain: either its build failed and was undone, or its deletion did not
finish; in both cases nothing of it shall be on the host.
"""

from typing import Literal

import msgspec

from engine.domain.compute import server_ports
from engine.domain.network import DHCP_OWNER
from engine.domain.state import Cell
from schemas.compute import Flavor, Server
from schemas.image import Image
from schemas.network import Network, Port
from schemas.operation import Operation
from schemas.work import DesiredState, ImageSpec, PortSpec, ServerSpec, Wanted, WorkItem


def server_spec(cell: Cell, server: Server) -> ServerSpec:
    """Return how a server shall be on its host, with all that is needed to make it so."""
    operation = cell.state.operations.get(server.operation_id or "")
    kind = operation.kind if operation is not None else ""
    reboot: Literal["", "soft", "hard"] = ""
    if kind == "reboot":
        reboot = "hard" if server.status == "HARD_REBOOT" else "soft"
    elif kind in ("resize", "revert"):
        reboot = "soft"
    flavor, resize, revertible = _size(server)
    image = cell.state.images.get(server.image_id or "")
    return ServerSpec(
        server=msgspec.structs.replace(server, flavor=flavor),
        wanted=_wanted(server, kind),
        ports=tuple(_port_spec(cell, port) for port in server_ports(cell, server)),
        image=image_spec(image) if image is not None and image.blob_id else None,
        boot=server.boot,
        reboot=reboot,
        resize=resize,
        revertible=revertible,
    )


def _size(server: Server) -> tuple[Flavor, int, bool]:
    """Return the flavor to have, which resize its disk has, and whether the old disk is kept."""
    resize = server.resize
    if resize is None:
        return server.flavor, server.resized_boot, False
    if server.status == "REVERT_RESIZE":
        return resize.old, server.resized_boot, False
    return resize.new, resize.boot, True


def _wanted(server: Server, kind: str) -> Wanted:
    if server.task_state == "deleting" or server.status == "ERROR":
        return "absent"
    if kind in ("build", "start", "reboot"):
        return "running"
    if kind == "stop":
        return "stopped"
    return "running" if server.power_state == 1 else "stopped"


def _port_spec(cell: Cell, port: Port) -> PortSpec:
    state, index = cell.state, cell.index
    network = state.networks[port.network_id]
    return PortSpec(
        port=port,
        network=network,
        subnets=tuple(state.subnets[i] for i in index.network_subnets.get(port.network_id, {})),
        security_groups=tuple(
            state.security_groups[g] for g in port.security_group_ids if g in state.security_groups
        ),
        dhcp_port=_dhcp_port(cell, network),
    )


def _dhcp_port(cell: Cell, network: Network) -> Port | None:
    ids = cell.index.device_ports.get(f"dhcp-{network.network_id}", ())
    ports = [cell.state.ports[p] for p in sorted(ids)]
    return next((p for p in ports if p.device_owner == DHCP_OWNER), None)


def image_spec(image: Image) -> ImageSpec:
    """Return where an image's bytes lie and what they are said to be."""
    assert image.blob_id is not None
    return ImageSpec(
        image_id=image.image_id,
        blob_id=image.blob_id,
        disk_format=image.disk_format,
        size_bytes=image.size_bytes or 0,
        sha512=image.sha512 or "",
        virtual_size_bytes=image.virtual_size_bytes,
    )


def work_item(cell: Cell, operation: Operation, grace_s: int = 60) -> WorkItem:
    """Return the item that tells an operation's owner what to do."""
    state = cell.state
    server = image = None
    if operation.resource_kind == "server":
        spec = server_spec(cell, state.servers[operation.resource_id])
        server = spec if grace_s == spec.grace_s else _with_grace(spec, grace_s)
    else:
        image = image_spec(state.images[operation.resource_id])
    return WorkItem(
        epoch=state.epoch,
        ordinal=state.ordinal,
        operation=operation,
        server=server,
        image=image,
    )


def _with_grace(spec: ServerSpec, grace_s: int) -> ServerSpec:
    return msgspec.structs.replace(spec, grace_s=grace_s)


def desired_state(cell: Cell, host_id: str) -> DesiredState:
    """Return all that a host shall have, and the operations it owns."""
    state, index = cell.state, cell.index
    servers = tuple(
        server_spec(cell, state.servers[s]) for s in sorted(index.host_servers.get(host_id, ()))
    )
    operations = tuple(state.operations[o] for o in sorted(index.host_operations.get(host_id, ())))
    checks = tuple(
        image_spec(state.images[o.resource_id])
        for o in operations
        if o.resource_kind == "image" and state.images[o.resource_id].blob_id
    )
    return DesiredState(
        epoch=state.epoch,
        ordinal=state.ordinal,
        host_id=host_id,
        servers=servers,
        operations=operations,
        checks=checks,
        blobs=tuple(sorted(i.blob_id for i in state.images.values() if i.blob_id)),
    )
