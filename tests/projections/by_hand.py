"""The meters of servers and images, written out by hand: what rules as data are compared with."""

from collections.abc import Iterable
from typing import Any

from schemas import compute as c
from schemas import image as i

SERVER = ("compute.vcpu", "compute.memory", "compute.disk")

type Row = tuple[str, str, int, int, int | None, int, int | None]


def intervals(facts: Iterable[tuple[int, int, Any]]) -> list[Row]:
    """Return (resource, meter, value, start, end, first and last ordinal), as they began."""
    done: list[Row] = []
    held: dict[tuple[str, str], tuple[int, int, int]] = {}  # value, start, first ordinal
    sizes: dict[str, dict[str, int]] = {}
    seen: dict[str, int] = {}
    stored: dict[str, int] = {}
    content: dict[str, int] = {}

    def hold(ordinal: int, server: str, at: int) -> None:
        seen[server] = at = max(at, seen[server])
        for meter in SERVER:
            if sizes[server][meter] and (server, meter) not in held:
                held[server, meter] = (sizes[server][meter], at, ordinal)

    def release(ordinal: int, resource: str, at: int, meters: Iterable[str]) -> None:
        seen[resource] = at = max(at, seen.get(resource, 0))
        for meter in meters:
            if found := held.pop((resource, meter), None):
                value, start, first = found
                done.append((resource, meter, value, start, at, first, ordinal))

    for ordinal, at, fact in facts:
        match fact:
            case c.ServerCreated(server=server):
                flavor = server.flavor
                disk = flavor.disk_gib or -(-content.get(server.image_id or "", 0) // 2**30)
                values = (flavor.vcpus, flavor.memory_mib, disk)
                sizes[server.server_id] = dict(zip(SERVER, values, strict=True))
                seen[server.server_id] = 0
            case c.ServerStarted() | c.ServerRebooted():
                hold(ordinal, fact.server_id, fact.observed_at)
            case c.ServerStopped():
                release(ordinal, fact.server_id, fact.observed_at, SERVER[:2])
            case c.ServerResized() | c.ServerResizeReverted():
                ident, flavor = fact.server_id, fact.flavor
                now = [meter for meter in SERVER if (ident, meter) in held]
                release(ordinal, ident, fact.observed_at, now)
                values = (flavor.vcpus, flavor.memory_mib, fact.disk_gib)
                sizes[ident] = dict(zip(SERVER, values, strict=True))
                for meter in now:
                    held[ident, meter] = (sizes[ident][meter], seen[ident], ordinal)
            case c.ServerTaskFailed(running=True):
                hold(ordinal, fact.server_id, at)
            case c.ServerTaskFailed():
                release(ordinal, fact.server_id, at, SERVER[:2])
            case c.ServerFailed():
                release(ordinal, fact.server_id, at, SERVER)
            case c.ServerDeleted():
                release(ordinal, fact.server_id, fact.observed_at, SERVER)
            case i.ImageUploaded():
                stored[fact.image_id] = fact.size_bytes
            case i.ImageActivated():
                content[fact.image_id] = fact.virtual_size_bytes
                held[fact.image_id, "image.size"] = (stored[fact.image_id], at, ordinal)
            case i.ImageDeleted():
                release(ordinal, fact.image_id, at, ["image.size"])
                content.pop(fact.image_id, None)
    for (resource, meter), (value, start, first) in held.items():
        done.append((resource, meter, value, start, None, first, None))
    return sorted(done, key=lambda row: (row[5], row[0], row[1]))
