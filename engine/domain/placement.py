"""Placement: which host has room, and why the others do not.

Filters remove hosts, weighers rank those left; what each removed, and by how much a host fell
short, becomes part of the fact, so that ``cumulog why`` and a server's fault can say it.
"""

from engine.domain.state import Cell, Usage
from schemas.compute import Removed, Weighed
from schemas.host import Host

# A fact names at most this many hosts of each kind; a cell may have thousands.
RECORDED_MAX = 20


def disk_need_gib(flavor_disk_gib: int, virtual_size_bytes: int) -> int:
    """Return the GiB a root disk may grow to: the flavor's, or the image's rounded up."""
    return flavor_disk_gib or -(-virtual_size_bytes // 2**30)


def place(
    cell: Cell, *, vcpus: int, memory_mib: int, disk_gib: int, wanted_host: str | None = None
) -> tuple[str | None, tuple[Weighed, ...], tuple[Removed, ...]]:
    """Choose a host with enough vCPUs, memory and disk; the one with most memory free wins.

    Returns the host (None if there is none), the hosts that passed with their scores (share of
    memory left free, in thousandths), and those removed with the reason.
    """
    weighed: list[Weighed] = []
    removed: list[Removed] = []
    need = Usage(vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib)
    for host_id in sorted(cell.state.hosts):
        host = cell.state.hosts[host_id]
        used = cell.index.host_usage[host_id]
        refusal = _refusal(host, used, need, wanted_host)
        if refusal is not None:
            removed.append(refusal)
            continue
        left = host.capacity.memory_mib - used.memory_mib - memory_mib
        weighed.append(
            Weighed(host_id=host_id, score=left * 1000 // max(1, host.capacity.memory_mib))
        )
    weighed.sort(key=lambda w: (-w.score, w.host_id))
    chosen = weighed[0].host_id if weighed else None
    return chosen, tuple(weighed[:RECORDED_MAX]), tuple(removed[:RECORDED_MAX])


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


def explain(removed: tuple[Removed, ...]) -> str:
    """Return one sentence that says why no host was found."""
    if not removed:
        return "No valid host was found: no host has registered"
    parts = "; ".join(f"{r.host_id}: {r.reason}" for r in removed[:5])
    more = len(removed) - 5
    return f"No valid host was found. {parts}" + (f"; and {more} more" if more > 0 else "")
