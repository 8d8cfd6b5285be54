"""Servers that exist: what may be asked of them, and what follows."""

from engine.domain.compute.naming import printable_name
from engine.domain.context import Context
from engine.domain.network import changed_port
from engine.domain.state import Cell
from schemas import compute as s
from schemas.envelope import Fact
from schemas.errors import IncorrectServerState, NotFound
from schemas.network import Port, PortDeleted, PortUpdated
from schemas.operation import Operation, OperationCancelled, OperationKind, OperationStarted
from schemas.units import MINUTE, SECOND, Micros
from schemas.work import owner_of

type Decision = tuple[list[Fact], dict[str, object]]

ZONE = "nova"
DEADLINE: dict[str, Micros] = {
    "build": 10 * MINUTE,
    "start": 3 * MINUTE,
    "stop": 3 * MINUTE,
    "reboot": 5 * MINUTE,
    "resize": 10 * MINUTE,
    "revert": 5 * MINUTE,
    "delete": 5 * MINUTE,
}


def server_operation(
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
        trace=ctx.trace,
    )


def rename_server(cell: Cell, ctx: Context, action: s.RenameServer) -> Decision:
    """Give a server another name."""
    server = own_server(cell, ctx, action.server_id)
    name = printable_name(action.name, "server")
    return [s.ServerRenamed(server_id=server.server_id, name=name)], {"server_id": server.server_id}


def start_server(cell: Cell, ctx: Context, action: s.StartServer) -> Decision:
    """Start a server that is off."""
    server = settled(cell, ctx, action.server_id, "start", "SHUTOFF")
    operation = server_operation(ctx, "start", server, host_of(server))
    requested = s.ServerStartRequested(
        server_id=server.server_id, operation_id=operation.operation_id, boot=server.boot + 1
    )
    return begun(requested, operation)


def stop_server(cell: Cell, ctx: Context, action: s.StopServer) -> Decision:
    """Stop a server that runs."""
    server = settled(cell, ctx, action.server_id, "stop", "ACTIVE")
    operation = server_operation(ctx, "stop", server, host_of(server), action.grace_s * SECOND)
    requested = s.ServerStopRequested(
        server_id=server.server_id,
        operation_id=operation.operation_id,
        grace_s=action.grace_s,
    )
    return begun(requested, operation)


def reboot_server(cell: Cell, ctx: Context, action: s.RebootServer) -> Decision:
    """Reboot a server; only a hard reboot starts one that is off."""
    allowed = ("ACTIVE", "SHUTOFF") if action.hard else ("ACTIVE",)
    server = settled(cell, ctx, action.server_id, "reboot", *allowed)
    operation = server_operation(ctx, "reboot", server, host_of(server))
    requested = s.ServerRebootRequested(
        server_id=server.server_id,
        operation_id=operation.operation_id,
        hard=action.hard,
        boot=server.boot + 1,
    )
    return begun(requested, operation)


def begun(requested: Fact, operation: Operation) -> Decision:
    """Return what was asked for, with the work that it begins."""
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
    operation = server_operation(ctx, "delete", server, server.host_id)
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


def settled(cell: Cell, ctx: Context, server_id: str, verb: str, *statuses: str) -> s.Server:
    """Return a server that is in one of these statuses with nothing under way.

    Raises:
        NotFound: there is none, or it is another project's.
        IncorrectServerState: it is in another status, or something is under way.
    """
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


def host_of(server: s.Server) -> str:
    """Return the host of a server that has run."""
    assert server.host_id is not None, "a server that has run has a host"
    return server.host_id


def _under_way(cell: Cell, server: s.Server) -> Operation | None:
    return cell.state.operations.get(server.operation_id or "")
