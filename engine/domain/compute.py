"""Flavors, keypairs and servers: what may be asked of them, and how a server changes."""

import unicodedata

import msgspec

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
from engine.domain.state import Cell, Usage
from schemas import compute as s
from schemas.envelope import Fact
from schemas.errors import (
    Conflict,
    Duplicate,
    Forbidden,
    IncorrectServerState,
    InUse,
    InvalidInput,
    NotFound,
    UnknownReference,
)
from schemas.network import FixedIpRequest, Network, Port, PortCreated, PortDeleted, PortUpdated
from schemas.operation import (
    Operation,
    OperationCancelled,
    OperationKind,
    OperationStarted,
)
from schemas.sealed import Sealed
from schemas.units import MINUTE, SECOND, Micros
from schemas.work import owner_of

type Decision = tuple[list[Fact], dict[str, object]]

ZONE = "nova"
DEADLINE: dict[str, Micros] = {
    "build": 10 * MINUTE,
    "start": 3 * MINUTE,
    "stop": 3 * MINUTE,
    "reboot": 5 * MINUTE,
    "delete": 5 * MINUTE,
}


def create_flavor(cell: Cell, ctx: Context, action: s.CreateFlavor) -> Decision:
    """Make a flavor."""
    flavor_id = action.flavor_id or ctx.new_id()
    name = _name(action.name, "flavor")
    for other in cell.state.flavors.values():
        if other.flavor_id == flavor_id:
            raise Duplicate(f"a flavor with the id {flavor_id} exists")
        if other.name == name:
            raise Duplicate(f"a flavor named {name!r} exists")
    flavor = s.Flavor(
        flavor_id=flavor_id,
        name=name,
        vcpus=action.vcpus,
        memory_mib=action.memory_mib,
        disk_gib=action.disk_gib,
        is_public=action.is_public,
        description=action.description,
    )
    return [s.FlavorCreated(flavor=flavor)], {"flavor_id": flavor_id}


def delete_flavor(cell: Cell, ctx: Context, action: s.DeleteFlavor) -> Decision:
    """Remove a flavor."""
    if action.flavor_id not in cell.state.flavors:
        raise NotFound(f"there is no flavor {action.flavor_id}")
    return [s.FlavorDeleted(flavor_id=action.flavor_id)], {}


def create_keypair(cell: Cell, ctx: Context, action: s.CreateKeypair) -> Decision:
    """Store a public key for the caller."""
    if action.name in cell.state.keypairs.get(ctx.actor.user_id, {}):
        raise Duplicate(f"a keypair named {action.name!r} exists")
    keypair = s.Keypair(
        name=action.name,
        user_id=ctx.actor.user_id,
        public_key=action.public_key,
        fingerprint=action.fingerprint,
        created_at=ctx.now,
    )
    return [s.KeypairCreated(keypair=keypair)], {"name": action.name}


def delete_keypair(cell: Cell, ctx: Context, action: s.DeleteKeypair) -> Decision:
    """Remove a keypair of the caller."""
    if action.name not in cell.state.keypairs.get(ctx.actor.user_id, {}):
        raise NotFound(f"there is no keypair {action.name!r}")
    return [s.KeypairDeleted(user_id=ctx.actor.user_id, name=action.name)], {}


def create_server(cell: Cell, ctx: Context, action: s.CreateServer) -> Decision:
    """Find room, addresses and a host for a server, or make one that says why not."""
    name = _name(action.name, "server")
    flavor = cell.state.flavors.get(action.flavor_id)
    if flavor is None or not (flavor.is_public or ctx.is_admin):
        raise UnknownReference(f"there is no flavor {action.flavor_id}")
    image = bootable_image(cell, ctx, action.image_id)
    virtual_size = image.virtual_size_bytes or 0
    _fits(flavor, image.min_disk_gib, image.min_memory_mib, virtual_size)
    zone, _, host = (action.availability_zone or "").partition(":")
    if zone not in ("", ZONE):
        raise UnknownReference(f"there is no availability zone {zone!r}")
    if host and not ctx.is_admin:
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
        project_id=ctx.actor.project_id,
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
    operation = _operation(ctx, "build", server, chosen)
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


def _name(text: str, kind: str) -> str:
    """Return a name without the blanks around it.

    Raises:
        InvalidInput: nothing is left, or it has characters that cannot be printed, as in Nova.
    """
    name = text.strip()
    if not name:
        raise InvalidInput(f"a {kind}'s name must not be blank")
    for character in name:
        category = unicodedata.category(character)
        if category[0] == "C" or (category[0] == "Z" and category != "Zs"):
            raise InvalidInput(f"a {kind}'s name must have printable characters only")
    return name


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


def _operation(
    ctx: Context, kind: OperationKind, server: s.Server, host_id: str, extra: Micros = 0
) -> Operation:
    return Operation(
        operation_id=ctx.new_id(),
        kind=kind,
        resource_kind="server",
        resource_id=server.server_id,
        host_id=host_id,
        executor=owner_of(kind),
        generation=1,
        accepted_at=ctx.now,
        deadline=ctx.now + DEADLINE[kind] + extra,
        request_id=ctx.request_id,
        project_id=server.project_id,
    )


def rename_server(cell: Cell, ctx: Context, action: s.RenameServer) -> Decision:
    """Give a server another name."""
    server = own_server(cell, ctx, action.server_id)
    name = _name(action.name, "server")
    return [s.ServerRenamed(server_id=server.server_id, name=name)], {"server_id": server.server_id}


def start_server(cell: Cell, ctx: Context, action: s.StartServer) -> Decision:
    """Start a server that is off."""
    server = _settled(cell, ctx, action.server_id, "start", "SHUTOFF")
    operation = _operation(ctx, "start", server, _host_of(server))
    requested = s.ServerStartRequested(
        server_id=server.server_id, operation_id=operation.operation_id, boot=server.boot + 1
    )
    return _begun(requested, operation)


def stop_server(cell: Cell, ctx: Context, action: s.StopServer) -> Decision:
    """Stop a server that runs."""
    server = _settled(cell, ctx, action.server_id, "stop", "ACTIVE")
    operation = _operation(ctx, "stop", server, _host_of(server), action.grace_s * SECOND)
    requested = s.ServerStopRequested(
        server_id=server.server_id,
        operation_id=operation.operation_id,
        grace_s=action.grace_s,
    )
    return _begun(requested, operation)


def reboot_server(cell: Cell, ctx: Context, action: s.RebootServer) -> Decision:
    """Reboot a server; only a hard reboot starts one that is off."""
    allowed = ("ACTIVE", "SHUTOFF") if action.hard else ("ACTIVE",)
    server = _settled(cell, ctx, action.server_id, "reboot", *allowed)
    operation = _operation(ctx, "reboot", server, _host_of(server))
    requested = s.ServerRebootRequested(
        server_id=server.server_id,
        operation_id=operation.operation_id,
        hard=action.hard,
        boot=server.boot + 1,
    )
    return _begun(requested, operation)


def _begun(requested: Fact, operation: Operation) -> Decision:
    return [requested, OperationStarted(operation=operation)], {
        "server_id": operation.resource_id,
        "operation_id": operation.operation_id,
    }


def delete_server(cell: Cell, ctx: Context, action: s.DeleteServer) -> Decision:
    """Delete a server in whatever state; what was under way is cancelled."""
    server = own_server(cell, ctx, action.server_id)
    under_way = _under_way(cell, server)
    if under_way is not None and under_way.kind == "delete":
        return [], {"server_id": server.server_id, "operation_id": under_way.operation_id}
    facts: list[Fact] = []
    if under_way is not None:
        facts.append(
            OperationCancelled(
                operation_id=under_way.operation_id,
                generation=under_way.generation,
                cause="the server is being deleted",
            )
        )
    if server.host_id is None:
        return [
            *facts,
            s.ServerDeleteRequested(server_id=server.server_id, operation_id=None),
            *gone(cell, ctx.now, server, ctx.now),
        ], {"server_id": server.server_id}
    operation = _operation(ctx, "delete", server, server.host_id)
    requested = s.ServerDeleteRequested(
        server_id=server.server_id, operation_id=operation.operation_id
    )
    return [*facts, requested, OperationStarted(operation=operation)], {
        "server_id": server.server_id,
        "operation_id": operation.operation_id,
    }


def gone(cell: Cell, now: Micros, server: s.Server, observed_at: Micros) -> list[Fact]:
    """Return the facts that a server and the ports made for it are no more."""
    facts: list[Fact] = []
    for port in server_ports(cell, server):
        if port.made_by_server:
            facts.append(PortDeleted(port_id=port.port_id))
        else:
            facts.append(
                PortUpdated(
                    port=changed_port(
                        port, now, device_id="", device_owner="", host_id=None, status="DOWN"
                    )
                )
            )
    return [*facts, s.ServerDeleted(server_id=server.server_id, observed_at=observed_at)]


def server_ports(cell: Cell, server: s.Server) -> list[Port]:
    """Return the ports of a server, in the order they were asked for."""
    return [cell.state.ports[p] for p in server.port_ids if p in cell.state.ports]


def ports_status(cell: Cell, server: s.Server, status: str, now: Micros) -> list[Fact]:
    """Return the facts that a server's ports are now ACTIVE or DOWN."""
    return [
        PortUpdated(port=changed_port(port, now, status=status))
        for port in server_ports(cell, server)
        if port.status != status
    ]


def own_server(cell: Cell, ctx: Context, server_id: str) -> s.Server:
    """Return a server that the actor may act on.

    Raises:
        NotFound: there is none, or it is another project's.
    """
    server = cell.state.servers.get(server_id)
    if server is None or not ctx.owns(server.project_id):
        raise NotFound(f"there is no server {server_id}")
    return server


def _settled(cell: Cell, ctx: Context, server_id: str, verb: str, *statuses: str) -> s.Server:
    """Return a server that is in one of these statuses with nothing under way."""
    server = own_server(cell, ctx, server_id)
    if server.task_state is not None:
        raise IncorrectServerState(
            f"cannot {verb} the server while its task_state is {server.task_state}",
            status=server.status,
            task_state=server.task_state,
        )
    if server.status not in statuses:
        raise IncorrectServerState(
            f"cannot {verb} the server while its status is {server.status}", status=server.status
        )
    return server


def _host_of(server: s.Server) -> str:
    assert server.host_id is not None, "a server that has run has a host"
    return server.host_id


def _under_way(cell: Cell, server: s.Server) -> Operation | None:
    return cell.state.operations.get(server.operation_id or "")


# Evolve


def evolve_server(server: s.Server | None, fact: s.ComputeFact, at: Micros) -> s.Server | None:
    """Fold one fact into a server; None means that there is none (any more).

    Facts that are not about servers leave it as it is. Read models use this very function, so
    what a person reads is what the decider knows.
    """
    if isinstance(fact, s.ServerCreated):
        return fact.server
    if isinstance(fact, s.ServerDeleted):
        return None
    if server is None:
        return None
    change = _changes(server, fact, at)
    return msgspec.structs.replace(server, updated_at=at, **change) if change else server


def _changes(server: s.Server, fact: s.ComputeFact, at: Micros) -> dict[str, object]:
    match fact:
        case s.ServerPlaced():
            return {"host_id": fact.host_id, "availability_zone": ZONE}
        case s.ServerBuildStarted():
            return {
                "task_state": "spawning",
                "operation_id": fact.operation_id,
                "boot": fact.boot,
            }
        case s.ServerRenamed():
            return {"name": fact.name}
        case s.ServerStartRequested():
            return {
                "task_state": "powering-on",
                "operation_id": fact.operation_id,
                "boot": fact.boot,
            }
        case s.ServerStarted() | s.ServerRebooted():
            return {
                **_RUNNING,
                "boot": fact.boot,
                "launched_at": server.launched_at or fact.observed_at,
            }
        case s.ServerStopRequested():
            return {"task_state": "powering-off", "operation_id": fact.operation_id}
        case s.ServerStopped():
            return _STOPPED
        case s.ServerRebootRequested():
            return {
                "status": "HARD_REBOOT" if fact.hard else "REBOOT",
                "task_state": "rebooting_hard" if fact.hard else "rebooting",
                "operation_id": fact.operation_id,
                "boot": fact.boot,
            }
        case s.ServerTaskFailed():
            return _RUNNING if fact.running else _STOPPED
        case s.ServerFailed():
            return {
                "status": "ERROR",
                "vm_state": "error",
                "task_state": None,
                "power_state": 0,
                "operation_id": None,
                "fault": s.Fault(code=fact.code, message=fact.message, created=at),
            }
        case s.ServerDeleteRequested():
            return {"task_state": "deleting", "operation_id": fact.operation_id}
        case _:
            return {}


_RUNNING: dict[str, object] = {
    "status": "ACTIVE",
    "vm_state": "active",
    "task_state": None,
    "power_state": 1,
    "operation_id": None,
    "fault": None,
}
_STOPPED: dict[str, object] = {
    "status": "SHUTOFF",
    "vm_state": "stopped",
    "task_state": None,
    "power_state": 4,
    "operation_id": None,
}


def server_created(cell: Cell, fact: s.ServerCreated, at: Micros) -> None:
    server = fact.server
    cell.state.servers[server.server_id] = server
    cell.index.project_servers.setdefault(server.project_id, set()).add(server.server_id)


def server_placed(cell: Cell, fact: s.ServerPlaced, at: Micros) -> None:
    server_changed(cell, fact, at)
    server = cell.state.servers[fact.server_id]
    _hold(cell, server, 1)
    cell.index.host_servers.setdefault(fact.host_id, set()).add(fact.server_id)


def server_changed(cell: Cell, fact: s.ComputeFact, at: Micros) -> None:
    server_id: str = fact.server_id  # type: ignore[union-attr]  # registered for server facts only
    server = evolve_server(cell.state.servers[server_id], fact, at)
    assert server is not None
    cell.state.servers[server_id] = server


def server_deleted(cell: Cell, fact: s.ServerDeleted, at: Micros) -> None:
    server = cell.state.servers.pop(fact.server_id)
    cell.index.project_servers[server.project_id].discard(server.server_id)
    if server.host_id is not None:
        _hold(cell, server, -1)
        cell.index.host_servers[server.host_id].discard(server.server_id)


def _hold(cell: Cell, server: s.Server, sign: int) -> None:
    assert server.host_id is not None
    usage = cell.index.host_usage.setdefault(server.host_id, Usage())
    usage.vcpus += sign * server.flavor.vcpus
    usage.memory_mib += sign * server.flavor.memory_mib
    usage.disk_gib += sign * _disk_held(cell, server)


def _disk_held(cell: Cell, server: s.Server) -> int:
    """Return the GiB held; for a flavor without a disk size, one GiB a server is held.

    The image's size could change hands between placing and deleting; a constant cannot drift.
    """
    return server.flavor.disk_gib or 1


def flavor_created(cell: Cell, fact: s.FlavorCreated, at: Micros) -> None:
    cell.state.flavors[fact.flavor.flavor_id] = fact.flavor


def flavor_deleted(cell: Cell, fact: s.FlavorDeleted, at: Micros) -> None:
    del cell.state.flavors[fact.flavor_id]


def keypair_created(cell: Cell, fact: s.KeypairCreated, at: Micros) -> None:
    cell.state.keypairs.setdefault(fact.keypair.user_id, {})[fact.keypair.name] = fact.keypair


def keypair_deleted(cell: Cell, fact: s.KeypairDeleted, at: Micros) -> None:
    keypairs = cell.state.keypairs[fact.user_id]
    del keypairs[fact.name]
    if not keypairs:
        del cell.state.keypairs[fact.user_id]
