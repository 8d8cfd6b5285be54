"""Operations: what follows from a report, from silence, and from reports that come too late."""

from engine.domain import image as images
from engine.domain.compute import gone, ports_status
from engine.domain.context import Context
from engine.domain.state import Cell, drop_member
from schemas import compute as c
from schemas import operation as s
from schemas.envelope import Fact
from schemas.errors import Forbidden
from schemas.units import Micros

type Facts = list[Fact]
type Decision = tuple[Facts, dict[str, object]]


def report_operation(cell: Cell, ctx: Context, action: s.ReportOperation) -> Decision:
    """Record how an operation ended. A report that comes late, or again, changes nothing."""
    operation = cell.state.operations.get(action.operation_id)
    if operation is None or operation.generation != action.generation:
        return [], {"late": True}
    if ctx.actor.host_id != operation.host_id:
        raise Forbidden(f"the operation belongs to {operation.host_id}")
    if operation.resource_kind == "image":
        return images.checked(cell, ctx, operation, action), {}
    return _server_report(cell, ctx, operation, action), {}


def _server_report(
    cell: Cell, ctx: Context, operation: s.Operation, report: s.ReportOperation
) -> Facts:
    server = cell.state.servers[operation.resource_id]
    observed_at = clamp(report.observed_at, operation.accepted_at, ctx.now)
    if not report.succeeded:
        ended = s.OperationFailed(
            operation_id=operation.operation_id,
            generation=operation.generation,
            cause=report.cause,
        )
        return [ended, *_failed(cell, ctx.now, operation, server, report.cause, report.running)]
    done = s.OperationSucceeded(
        operation_id=operation.operation_id, generation=operation.generation
    )
    match operation.kind:
        case "build" | "start":
            started = c.ServerStarted(
                server_id=server.server_id, boot=server.boot, observed_at=observed_at
            )
            return [done, started, *ports_status(cell, server, "ACTIVE", ctx.now)]
        case "stop":
            stopped = c.ServerStopped(
                server_id=server.server_id,
                boot=server.boot,
                cause="request",
                observed_at=observed_at,
            )
            return [done, stopped, *ports_status(cell, server, "DOWN", ctx.now)]
        case "reboot":
            return [done, *_rebooted(cell, ctx.now, server, observed_at)]
        case "resize" | "revert":
            return [done, *_resized(cell, ctx.now, operation, server, observed_at)]
        case _:
            return [done, *gone(cell, ctx.now, server, observed_at)]


def _rebooted(cell: Cell, now: Micros, server: c.Server, observed_at: Micros) -> Facts:
    """A hard reboot of a server that was off is a start, and metered as one."""
    if server.power_state == 1:
        return [
            c.ServerRebooted(server_id=server.server_id, boot=server.boot, observed_at=observed_at)
        ]
    started = c.ServerStarted(server_id=server.server_id, boot=server.boot, observed_at=observed_at)
    return [started, *ports_status(cell, server, "ACTIVE", now)]


def _resized(
    cell: Cell, now: Micros, operation: s.Operation, server: c.Server, observed_at: Micros
) -> Facts:
    """A server that was off stays off through a resize, one that ran runs again."""
    resize, running = server.resize, server.power_state == 1
    assert resize is not None, "what is being resized says from what to what"
    if operation.kind == "resize":
        done: Fact = c.ServerResized(
            server_id=server.server_id,
            flavor=resize.new,
            disk_gib=resize.new_disk_gib,
            boot=server.boot,
            running=running,
            observed_at=observed_at,
        )
    else:
        done = c.ServerResizeReverted(
            server_id=server.server_id,
            flavor=resize.old,
            disk_gib=resize.old_disk_gib,
            boot=server.boot,
            running=running,
            observed_at=observed_at,
        )
    return [done, *ports_status(cell, server, "ACTIVE" if running else "DOWN", now)]


def _failed(
    cell: Cell,
    now: Micros,
    operation: s.Operation,
    server: c.Server,
    cause: str,
    running: bool,
) -> Facts:
    what = f"{operation.kind} failed on {operation.host_id}: {cause}"
    if operation.kind in ("build", "delete"):
        return [
            c.ServerFailed(server_id=server.server_id, code=500, message=what),
            *ports_status(cell, server, "DOWN", now),
        ]
    return [
        c.ServerTaskFailed(server_id=server.server_id, running=running, message=what),
        *ports_status(cell, server, "ACTIVE" if running else "DOWN", now),
    ]


def pass_deadline(cell: Cell, ctx: Context, action: s.PassDeadline) -> Decision:
    """End an operation that nobody reported on in time."""
    operation = cell.state.operations.get(action.operation_id)
    if operation is None or operation.generation != action.generation:
        return [], {"late": True}
    ended = s.OperationTimedOut(
        operation_id=operation.operation_id, generation=operation.generation
    )
    if operation.resource_kind == "image":
        image = cell.state.images[operation.resource_id]
        return [ended, images.rejected(image, "the content was not checked in time")], {}
    server = cell.state.servers[operation.resource_id]
    # Nobody said how it is now, so the last state anybody saw stands.
    running = server.power_state == 1
    cause = "no report before the deadline"
    return [ended, *_failed(cell, ctx.now, operation, server, cause, running)], {}


def report_server_state(cell: Cell, ctx: Context, action: c.ReportServerState) -> Decision:
    """Record that a server stopped, or runs, without having been asked to."""
    server = cell.state.servers.get(action.server_id)
    if server is None or server.boot != action.boot or server.task_state is not None:
        return [], {"late": True}
    if ctx.actor.host_id != server.host_id:
        raise Forbidden(f"the server is not on {ctx.actor.host_id}")
    observed_at = clamp(action.observed_at, server.launched_at or server.created_at, ctx.now)
    if action.running == (server.power_state == 1):
        return [], {}
    if action.running:
        started = c.ServerStarted(
            server_id=server.server_id, boot=server.boot, observed_at=observed_at
        )
        return [started, *ports_status(cell, server, "ACTIVE", ctx.now)], {}
    stopped = c.ServerStopped(
        server_id=server.server_id,
        boot=server.boot,
        cause=action.cause,
        observed_at=observed_at,
    )
    return [stopped, *ports_status(cell, server, "DOWN", ctx.now)], {}


def clamp(observed_at: Micros, low: Micros, high: Micros) -> Micros:
    """Return a claimed time, no earlier than its cause and no later than now."""
    return max(low, min(observed_at, high))


# Evolve


def operation_started(cell: Cell, fact: s.OperationStarted, at: Micros) -> None:
    operation = fact.operation
    cell.state.operations[operation.operation_id] = operation
    cell.index.host_operations.setdefault(operation.host_id, set()).add(operation.operation_id)


def operation_ended(
    cell: Cell,
    fact: s.OperationSucceeded | s.OperationFailed | s.OperationCancelled | s.OperationTimedOut,
    at: Micros,
) -> None:
    operation = cell.state.operations.pop(fact.operation_id)
    drop_member(cell.index.host_operations, operation.host_id, operation.operation_id)
