"""Making a server: what it is made of, where it finds room, and how it is plugged in."""

from engine.domain.compute.naming import printable_name
from engine.domain.compute.server import ZONE, server_operation
from engine.domain.context import Context
from engine.domain.image import bootable_image
from engine.domain.network import (
    SERVER_OWNER,
    changed_port,
    groups_of,
    may_choose,
    new_port,
    usable_network,
)
from engine.domain.placement import disk_need_gib, explain, place
from engine.domain.state import Cell
from schemas import compute as s
from schemas.envelope import Fact
from schemas.errors import Conflict, Forbidden, InUse, InvalidInput, UnknownReference
from schemas.network import FixedIpRequest, Network, Port, PortCreated, PortUpdated
from schemas.operation import OperationStarted
from schemas.sealed import Sealed

type Decision = tuple[list[Fact], dict[str, object]]


def create_server(cell: Cell, ctx: Context, action: s.CreateServer) -> Decision:
    """Find room, addresses and a host for a server, or make one that says why not."""
    project_id = ctx.need_project()
    name = printable_name(action.name, "server")
    flavor = cell.state.flavors.get(action.flavor_id)
    if flavor is None or not (flavor.is_public or ctx.may("compute:flavors:read_private")):
        raise UnknownReference(f"there is no flavor {action.flavor_id}")
    image = bootable_image(cell, ctx, action.image_id)
    virtual_size = image.virtual_size_bytes or 0
    _fits(flavor, image.min_disk_gib, image.min_memory_mib, virtual_size)
    zone, _, host = (action.availability_zone or "").partition(":")
    if zone not in ("", ZONE):
        raise UnknownReference(f"there is no availability zone {zone!r}")
    if host and not ctx.may("compute:hosts:choose"):
        raise Forbidden("choosing a host needs the role admin")
    key = _keypair(cell, ctx, action.key_name)
    _own_secret(cell, ctx, action.user_data)
    groups = groups_of(cell, ctx, action.security_groups)
    wanted = _interfaces(cell, ctx, action.networks)
    chosen, weighed, removed = place(
        cell,
        vcpus=flavor.vcpus,
        memory_mib=flavor.memory_mib,
        disk_gib=disk_need_gib(flavor.disk_gib, virtual_size),
        wanted_host=host or None,
    )
    server_id = ctx.new_id()
    port_facts = _plug(cell, ctx, server_id, chosen, groups, wanted) if chosen else []
    server = s.Server(
        server_id=server_id,
        name=name,
        project_id=project_id,
        user_id=ctx.actor.user_id,
        flavor=flavor,
        image_id=image.image_id,
        created_at=ctx.now,
        updated_at=ctx.now,
        key_name=None if key is None else key.name,
        public_key=None if key is None else key.public_key,
        user_data=action.user_data,
        metadata=action.metadata,
        security_groups=tuple(cell.state.security_groups[g].name for g in groups),
        port_ids=tuple(f.port.port_id for f in port_facts),
        request_id=ctx.request_id,
        disk_config=action.disk_config,
        config_drive=action.config_drive,
    )
    reply: dict[str, object] = {"server_id": server_id}
    if chosen is None:
        failed = s.ServerFailed(
            server_id=server_id, code=500, message=explain(removed), removed=removed
        )
        return [s.ServerCreated(server=server), failed], reply
    operation = server_operation(ctx, "build", server, chosen)
    return [
        s.ServerCreated(server=server),
        s.ServerPlaced(server_id=server_id, host_id=chosen, weighed=weighed, removed=removed),
        *port_facts,
        s.ServerBuildStarted(server_id=server_id, operation_id=operation.operation_id, boot=1),
        OperationStarted(operation=operation),
    ], {**reply, "operation_id": operation.operation_id}


def _fits(flavor: s.Flavor, min_disk_gib: int, min_memory_mib: int, virtual_size: int) -> None:
    if flavor.memory_mib < min_memory_mib:
        raise InvalidInput(
            f"the flavor has {flavor.memory_mib} MiB of memory, the image needs {min_memory_mib}"
        )
    if flavor.disk_gib and flavor.disk_gib < min_disk_gib:
        raise InvalidInput(
            f"the flavor has {flavor.disk_gib} GiB of disk, the image needs {min_disk_gib}"
        )
    if flavor.disk_gib and flavor.disk_gib * 2**30 < virtual_size:
        raise InvalidInput(
            f"the flavor has {flavor.disk_gib} GiB of disk, the image's disk has {virtual_size} "
            f"bytes: {virtual_size - flavor.disk_gib * 2**30} bytes too many"
        )


def _own_secret(cell: Cell, ctx: Context, secret: Sealed | None) -> None:
    """Refuse what another's key seals: the guest would be told what it holds.

    Raises:
        InvalidInput: the key is not the project's.
    """
    project = cell.state.projects[ctx.actor.project_id]
    if secret is not None and secret.key_id != project.secrets_key_id:
        raise InvalidInput("user_data is not sealed by the project's key")


def _keypair(cell: Cell, ctx: Context, name: str | None) -> s.Keypair | None:
    if name is None:
        return None
    keypair = cell.state.keypairs.get(ctx.actor.user_id, {}).get(name)
    if keypair is None:
        raise UnknownReference(f"there is no keypair {name!r}")
    return keypair


type Interface = tuple[Network, FixedIpRequest | None] | Port


def _interfaces(
    cell: Cell, ctx: Context, asked: tuple[s.NetworkRequest, ...] | None
) -> list[Interface]:
    """Return what to plug in: networks to make ports on, and ports that exist."""
    if asked is None:
        own = cell.index.project_networks.get(ctx.actor.project_id, set())
        usable = sorted(own | cell.index.shared_networks)
        if len(usable) > 1:
            raise Conflict(
                f"there are {len(usable)} networks to choose from: name one", count=len(usable)
            )
        return [_on_network(cell, cell.state.networks[n], None) for n in usable]
    result: list[Interface] = []
    for ask in asked:
        if ask.port_id is not None:
            port = cell.state.ports.get(ask.port_id)
            if port is None or not ctx.owns(port.project_id):
                raise UnknownReference(f"there is no port {ask.port_id}")
            if port.device_id or port in result:
                raise InUse(f"the port {ask.port_id} is in use")
            result.append(port)
        elif ask.network_id is not None:
            network = usable_network(cell, ctx, ask.network_id)
            if ask.fixed_ip is not None:
                may_choose(ctx, network, "address")
            result.append(_on_network(cell, network, ask.fixed_ip))
        else:
            raise InvalidInput("each network needs a network or a port")
    return result


def _on_network(cell: Cell, network: Network, fixed_ip: str | None) -> Interface:
    if not cell.index.network_subnets.get(network.network_id):
        raise InvalidInput(
            f"the network {network.network_id} has no subnet, so no address can be given"
        )
    return network, None if fixed_ip is None else FixedIpRequest(ip_address=fixed_ip)


def _plug(
    cell: Cell,
    ctx: Context,
    server_id: str,
    host_id: str,
    groups: tuple[str, ...],
    wanted: list[Interface],
) -> list[PortCreated | PortUpdated]:
    taken: set[tuple[str, int]] = set()
    macs: set[str] = set()
    facts: list[PortCreated | PortUpdated] = []
    for ask in wanted:
        if isinstance(ask, Port):
            facts.append(
                PortUpdated(
                    port=changed_port(
                        ask,
                        ctx.now,
                        device_id=server_id,
                        device_owner=SERVER_OWNER,
                        host_id=host_id,
                    )
                )
            )
            continue
        network, fixed = ask
        port = new_port(
            cell,
            ctx,
            network,
            fixed_ips=None if fixed is None else (fixed,),
            groups=groups,
            taken=taken,
            macs=macs,
            device_id=server_id,
            device_owner=SERVER_OWNER,
            host_id=host_id,
            made_by_server=True,
        )
        facts.append(PortCreated(port=port))
    return facts
