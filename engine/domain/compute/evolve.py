"""How a server changes with each fact, and how the state keeps room and lookups beside it."""

import msgspec

from engine.domain.compute.server import ZONE
from engine.domain.placement import relist
from engine.domain.state import Cell, Usage, drop_member
from schemas import compute as s
from schemas.units import Micros


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
                **_at_rest(server, running=True),
                "boot": fact.boot,
                "launched_at": server.launched_at or fact.observed_at,
            }
        case s.ServerStopRequested():
            return {"task_state": "powering-off", "operation_id": fact.operation_id}
        case s.ServerStopped():
            return _at_rest(server, running=False)
        case s.ServerRebootRequested():
            return {
                "status": "HARD_REBOOT" if fact.hard else "REBOOT",
                "task_state": "rebooting_hard" if fact.hard else "rebooting",
                "operation_id": fact.operation_id,
                "boot": fact.boot,
            }
        case (
            s.ServerResizeRequested()
            | s.ServerResized()
            | s.ServerResizeConfirmed()
            | s.ServerResizeRevertRequested()
            | s.ServerResizeReverted()
        ):
            return _resize_changes(server, fact)
        case s.ServerTaskFailed():
            return _failed(server, running=fact.running)
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


type ResizeFact = (
    s.ServerResizeRequested
    | s.ServerResized
    | s.ServerResizeConfirmed
    | s.ServerResizeRevertRequested
    | s.ServerResizeReverted
)


def _resize_changes(server: s.Server, fact: ResizeFact) -> dict[str, object]:
    match fact:
        case s.ServerResizeRequested():
            return {
                "status": "RESIZE",
                "task_state": "resize_prep",
                "operation_id": fact.operation_id,
                "boot": fact.boot,
                "disk_config": fact.disk_config or server.disk_config,
                "resize": s.Resize(
                    old=server.flavor,
                    new=fact.flavor,
                    old_disk_gib=fact.old_disk_gib,
                    new_disk_gib=fact.new_disk_gib,
                    boot=fact.boot,
                ),
            }
        case s.ServerResized():
            rests = _RUNNING if fact.running else _STOPPED
            return {**rests, **_TO_VERIFY, "flavor": fact.flavor, "boot": fact.boot}
        case s.ServerResizeConfirmed():
            resize = server.resize
            assert resize is not None, "what is confirmed was resized"
            rests = _RUNNING if fact.running else _STOPPED
            return {**rests, "resize": None, "resized_boot": resize.boot}
        case s.ServerResizeRevertRequested():
            return {
                "status": "REVERT_RESIZE",
                "task_state": "resize_reverting",
                "operation_id": fact.operation_id,
                "boot": fact.boot,
            }
        case s.ServerResizeReverted():
            rests = _RUNNING if fact.running else _STOPPED
            return {**rests, "flavor": fact.flavor, "resize": None, "boot": fact.boot}


def _at_rest(server: s.Server, *, running: bool) -> dict[str, object]:
    """Nothing is under way. A resize that is done waits for its owner all the same."""
    rests = _RUNNING if running else _STOPPED
    return {**rests, **_TO_VERIFY} if server.status == "VERIFY_RESIZE" else rests


def _failed(server: s.Server, *, running: bool) -> dict[str, object]:
    """A resize that failed is as if never asked for, a revert that failed can be asked for again.

    The boot number goes on: whatever the host may have started meanwhile is of an older one, and
    so is started anew as it shall be.
    """
    rests = _RUNNING if running else _STOPPED
    match server.status:
        case "RESIZE":
            return {**rests, "resize": None, "boot": server.boot + 1}
        case "REVERT_RESIZE":
            return {**rests, **_TO_VERIFY, "boot": server.boot + 1}
        case _:
            return rests


_TO_VERIFY: dict[str, object] = {"status": "VERIFY_RESIZE", "vm_state": "resized"}
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
    _hold(cell, fact.host_id, Usage(), room_held(server))
    cell.index.host_servers.setdefault(fact.host_id, set()).add(fact.server_id)


def server_changed(cell: Cell, fact: s.ComputeFact, at: Micros) -> None:
    server_id: str = fact.server_id  # type: ignore[union-attr]  # registered for server facts only
    server = evolve_server(cell.state.servers[server_id], fact, at)
    assert server is not None
    cell.state.servers[server_id] = server


def server_resized(cell: Cell, fact: s.ComputeFact, at: Micros) -> None:
    """Fold a fact that may change what a server holds of its host."""
    server_id: str = fact.server_id  # type: ignore[union-attr]  # registered for server facts only
    before = room_held(cell.state.servers[server_id])
    server_changed(cell, fact, at)
    server = cell.state.servers[server_id]
    after = room_held(server)
    if before != after and server.host_id is not None:
        _hold(cell, server.host_id, before, after)


def server_deleted(cell: Cell, fact: s.ServerDeleted, at: Micros) -> None:
    server = cell.state.servers.pop(fact.server_id)
    cell.state.sampled.pop(fact.server_id, None)
    drop_member(cell.index.project_servers, server.project_id, server.server_id)
    if server.host_id is not None:
        _hold(cell, server.host_id, room_held(server), Usage())
        drop_member(cell.index.host_servers, server.host_id, server.server_id)


def _hold(cell: Cell, host_id: str, before: Usage, after: Usage) -> None:
    usage = cell.index.host_usage.setdefault(host_id, Usage())
    usage.vcpus += after.vcpus - before.vcpus
    usage.memory_mib += after.memory_mib - before.memory_mib
    usage.disk_gib += after.disk_gib - before.disk_gib
    relist(cell, host_id)


def held(server: s.Server) -> Usage:
    """Return what a server holds of quotas: its flavor; of two, the larger of each.

    For a flavor without a disk size, one GiB a server is held: the image's size could change hands
    between placing and deleting; a constant cannot drift.
    """
    flavor, resize = server.flavor, server.resize
    if resize is None:
        return Usage(
            vcpus=flavor.vcpus, memory_mib=flavor.memory_mib, disk_gib=flavor.disk_gib or 1
        )
    old, new = resize.old, resize.new
    return Usage(
        vcpus=max(old.vcpus, new.vcpus),
        memory_mib=max(old.memory_mib, new.memory_mib),
        disk_gib=max(old.disk_gib, new.disk_gib) or 1,
    )


def room_held(server: s.Server) -> Usage:
    """Return the room that a server holds on its host: as of quotas, and the disk put aside."""
    usage = held(server)
    resize = server.resize
    if resize is not None and resize.new_disk_gib > resize.old_disk_gib:
        usage.disk_gib += resize.old.disk_gib or 1
    return usage
