"""Placement: which host has room, and why the others do not.

Filters remove hosts, weighers rank those left; what each removed, and by how much a host fell
short, becomes part of the fact, so that ``cumulog why`` and a server's fault can say it.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice

from engine.domain.state import Cell, Usage
from schemas.compute import Removed, Weighed
from schemas.host import Host

# A fact names at most this many hosts of each kind; a cell may have thousands.
RECORDED_MAX = 10


def disk_need_gib(flavor_disk_gib: int, virtual_size_bytes: int) -> int:
    """Return the GiB a root disk may grow to: the flavor's, or the image's rounded up."""
    return flavor_disk_gib or -(-virtual_size_bytes // 2**30)


def relist(cell: Cell, host_id: str) -> None:
    """Bring a host to its place in the order in which hosts are tried."""
    index = cell.index
    old = index.host_rank.pop(host_id, None)
    if old is not None:
        del index.hosts_by_room[bisect_left(index.hosts_by_room, (old, host_id))]
    host = cell.state.hosts.get(host_id)
    if host is not None and takes_servers(host):
        rank = rank_of(host, index.host_usage[host_id])
        if index.fullest_first:
            rank = -rank
        index.host_rank[host_id] = rank
        insort(index.hosts_by_room, (rank, host_id))


def order_hosts(cell: Cell, *, fullest_first: bool) -> None:
    """Have hosts tried in another order from now on; nothing happens if it is that already."""
    if cell.index.fullest_first != fullest_first:
        cell.index.fullest_first = fullest_first
        for host_id in cell.state.hosts:
            relist(cell, host_id)


def takes_servers(host: Host) -> bool:
    """Return whether a host is tried at all."""
    return host.status == "up" and "hypervisor" in host.executors


def rank_of(host: Host, used: Usage) -> int:
    """Return where a host stands: the more MiB of memory it has free, the lower."""
    return used.memory_mib - host.capacity.memory_mib


def place(
    cell: Cell, *, vcpus: int, memory_mib: int, disk_gib: int, wanted_host: str | None = None
) -> tuple[str | None, tuple[Weighed, ...], tuple[Removed, ...]]:
    """Choose a host with enough vCPUs, memory and disk; the one with most memory free wins.

    Hosts are tried in that order until as many fit as a fact records, so how many others there are
    does not matter. Returns the host (None if there is none), the best that fit with their scores
    (share of memory left free, in thousandths), and some that were removed with the reason: of a
    small cell, or where none fits, also those that were not tried.
    """
    weighed: list[Weighed] = []
    removed: list[Removed] = []
    need = Usage(vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)
    hosts = cell.state.hosts
    for host_id in _in_order(cell, memory_mib, wanted_host):
        host = hosts[host_id]
        used = cell.index.host_usage[host_id]
        if _has_room(host, used, need):
            left = host.capacity.memory_mib - used.memory_mib - memory_mib
            score = left * 1000 // max(1, host.capacity.memory_mib)
            weighed.append(Weighed(host_id=host_id, score=score))
        elif len(removed) < RECORDED_MAX and (refusal := _refusal(host, used, need, None)):
            removed.append(refusal)
        if len(weighed) == RECORDED_MAX:
            break
    if not weighed or len(hosts) <= RECORDED_MAX:
        removed = _all_removed(cell, need, wanted_host)
    chosen = weighed[0].host_id if weighed else None
    return chosen, tuple(weighed), tuple(removed)


def _in_order(cell: Cell, memory_mib: int, wanted_host: str | None) -> Iterator[str]:
    """Yield the hosts to be tried, best first."""
    if wanted_host is not None:
        if wanted_host in cell.index.host_rank:
            yield wanted_host
        return
    fullest_first = cell.index.fullest_first
    for rank, host_id in cell.index.hosts_by_room:
        if fullest_first:
            if rank < memory_mib:
                continue
        elif -rank < memory_mib:
            return  # and so have all that follow
        yield host_id


def _all_removed(cell: Cell, need: Usage, wanted_host: str | None) -> list[Removed]:
    refusals = (
        _refusal(cell.state.hosts[host_id], cell.index.host_usage[host_id], need, wanted_host)
        for host_id in cell.state.hosts
    )
    return list(islice((r for r in refusals if r is not None), RECORDED_MAX))


def _has_room(host: Host, used: Usage, need: Usage) -> bool:
    capacity = host.capacity
    return (
        used.vcpus + need.vcpus <= capacity.vcpus
        and used.memory_mib + need.memory_mib <= capacity.memory_mib
        and used.disk_gib + need.disk_gib <= capacity.disk_gib
    )


def _refusal(host: Host, used: Usage, need: Usage, wanted_host: str | None) -> Removed | None:
    """Return why a host cannot take a server, None if it can."""
    if wanted_host not in (None, host.host_id):
        return Removed(
            host_id=host.host_id, filter="requested_host", reason="not the one asked for"
        )
    if host.status != "up":
        return Removed(host_id=host.host_id, filter="up", reason="has not been heard of")
    if "hypervisor" not in host.executors:
        return Removed(host_id=host.host_id, filter="executor", reason="runs no servers")
    lacks = [
        f"{asked - (total - held)} {what} too few "
        f"({asked} asked, {max(0, total - held)} of {total} free)"
        for what, asked, total, held in (
            ("vCPU", need.vcpus, host.capacity.vcpus, used.vcpus),
            ("MiB of memory", need.memory_mib, host.capacity.memory_mib, used.memory_mib),
            ("GiB of disk", need.disk_gib, host.capacity.disk_gib, used.disk_gib),
        )
        if asked > total - held
    ]
    if lacks:
        return Removed(host_id=host.host_id, filter="room", reason="; ".join(lacks))
    return None


def lack_of_room(cell: Cell, host_id: str, more: Usage) -> Removed | None:
    """Return why a host cannot give a server that it has more room, None if it can."""
    return _refusal(cell.state.hosts[host_id], cell.index.host_usage[host_id], more, None)


def explain(removed: tuple[Removed, ...]) -> str:
    """Return one sentence that says why no host was found."""
    if not removed:
        return "No valid host was found: no host has registered"
    parts = "; ".join(f"{r.host_id}: {r.reason}" for r in removed[:5])
    more = len(removed) - 5
    return f"No valid host was found. {parts}" + (f"; and {more} more" if more > 0 else "")
