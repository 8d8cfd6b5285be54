"""Hosts: what offers room, and how much of it is held."""

import msgspec

from engine.domain.context import Context
from engine.domain.placement import relist
from engine.domain.state import Cell, Usage
from schemas import host as s
from schemas.envelope import Fact
from schemas.errors import Forbidden, NotFound
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]


def register_host(cell: Cell, ctx: Context, action: s.RegisterHost) -> Decision:
    """Record what a host is; nothing if it is recorded so already."""
    host_id = ctx.actor.host_id
    if host_id is None:
        raise Forbidden("only a host's agent registers it")
    old = cell.state.hosts.get(host_id)
    host = s.Host(
        host_id=host_id,
        capacity=action.capacity,
        hypervisor=action.hypervisor,
        accelerator=action.accelerator,
        executors=action.executors,
        version=action.version,
        address=action.address,
        status="up",
        registered_at=ctx.now if old is None else old.registered_at,
        updated_at=ctx.now if old is None else old.updated_at,
    )
    if old == host:
        return [], {"host_id": host_id}
    return [s.HostRegistered(host=msgspec.structs.replace(host, updated_at=ctx.now))], {
        "host_id": host_id
    }


def mark_host(cell: Cell, ctx: Context, action: s.MarkHost) -> Decision:
    """Record that a host went silent, or is heard of again."""
    host = cell.state.hosts.get(action.host_id)
    if host is None:
        raise NotFound(f"there is no host {action.host_id}")
    if host.status == action.status:
        return [], {}
    return [s.HostMarked(host_id=host.host_id, status=action.status, reason=action.reason)], {}


def report_drift(cell: Cell, ctx: Context, action: s.ReportDrift) -> Decision:
    """Record what an agent found and put right."""
    host_id = ctx.actor.host_id
    if host_id is None or host_id not in cell.state.hosts:
        raise Forbidden("only a registered host's agent reports drift")
    if not action.drift:
        return [], {}
    return [
        s.HostDriftDetected(
            host_id=host_id, drift=action.drift, observed_at=min(action.observed_at, ctx.now)
        )
    ], {}


def hosts_up(cell: Cell, executor: s.Executor) -> list[s.Host]:
    """Return the hosts that are up and have an executor, by id."""
    hosts = cell.state.hosts
    return [
        hosts[host_id]
        for host_id in sorted(hosts)
        if hosts[host_id].status == "up" and executor in hosts[host_id].executors
    ]


# Evolve


def host_registered(cell: Cell, fact: s.HostRegistered, at: Micros) -> None:
    cell.state.hosts[fact.host.host_id] = fact.host
    cell.index.host_usage.setdefault(fact.host.host_id, Usage())
    relist(cell, fact.host.host_id)


def host_marked(cell: Cell, fact: s.HostMarked, at: Micros) -> None:
    host = cell.state.hosts[fact.host_id]
    cell.state.hosts[fact.host_id] = msgspec.structs.replace(
        host, status=fact.status, updated_at=at
    )
    relist(cell, fact.host_id)


def host_drift_detected(cell: Cell, fact: s.HostDriftDetected, at: Micros) -> None:
    """Drift that was put right leaves the desired state as it was."""
