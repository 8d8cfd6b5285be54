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
    cell.state.sampled.pop(fact.server_id, None)
    drop_member(cell.index.project_servers, server.project_id, server.server_id)
    if server.host_id is not None:
        _hold(cell, server, -1)
        drop_member(cell.index.host_servers, server.host_id, server.server_id)


def _hold(cell: Cell, server: s.Server, sign: int) -> None:
    assert server.host_id is not None
    usage = cell.index.host_usage.setdefault(server.host_id, Usage())
    usage.vcpus += sign * server.flavor.vcpus
    usage.memory_mib += sign * server.flavor.memory_mib
    usage.disk_gib += sign * disk_held(server)
    relist(cell, server.host_id)


def disk_held(server: s.Server) -> int:
    """Return the GiB held; for a flavor without a disk size, one GiB a server is held.

    The image's size could change hands between placing and deleting; a constant cannot drift.
    """
    return server.flavor.disk_gib or 1
