"""Hosts as administrators see them, zones and the list of extensions."""

from typing import Any
from zlib import crc32

from api.compute.views import ZONE
from api.errors import NotOffered
from api.exchange import Answer, Call, json_answer
from api.routing import Routes
from api.times import micros_naive
from schemas.compute import Server
from schemas.errors import NotFound
from schemas.host import Host

QEMU_VERSION = 7002000  # what clients print for 7.2.0; not told by hosts, so the oldest we run on


def _number(host: Host) -> int:
    """Return the number that stands for a host where microversion 2.1 wants one."""
    return crc32(host.host_id.encode()) & 0x7FFFFFFF


def _brief(host: Host) -> dict[str, Any]:
    return {
        "id": _number(host),
        "hypervisor_hostname": host.host_id,
        "state": host.status,
        "status": "enabled",
    }


def _full(host: Host, servers: list[Server]) -> dict[str, Any]:
    used_memory = sum(s.flavor.memory_mib for s in servers)
    used_disk = sum(s.flavor.disk_gib for s in servers)
    capacity = host.capacity
    return {
        **_brief(host),
        "host_ip": host.address,
        "hypervisor_type": host.hypervisor,
        "hypervisor_version": QEMU_VERSION,
        "cpu_info": "",
        "service": {"id": _number(host), "host": host.host_id, "disabled_reason": None},
        "vcpus": capacity.vcpus,
        "vcpus_used": sum(s.flavor.vcpus for s in servers),
        "memory_mb": capacity.memory_mib,
        "memory_mb_used": used_memory,
        "free_ram_mb": capacity.memory_mib - used_memory,
        "local_gb": capacity.disk_gib,
        "local_gb_used": used_disk,
        "free_disk_gb": capacity.disk_gib - used_disk,
        "disk_available_least": capacity.disk_gib - used_disk,
        "running_vms": sum(s.power_state == 1 for s in servers),
        "current_workload": sum(s.task_state is not None for s in servers),
    }


def _by_host(call: Call) -> dict[str, list[Server]]:
    found: dict[str, list[Server]] = {}
    for server in call.edge.reader.servers():
        if server.host_id:
            found.setdefault(server.host_id, []).append(server)
    return found


def _listed(call: Call) -> list[Host]:
    pattern = call.param("hypervisor_hostname_pattern")
    return [h for h in call.edge.reader.hosts() if pattern in h.host_id]


async def list_brief(call: Call) -> Answer:
    """GET /os-hypervisors."""
    return json_answer({"hypervisors": [_brief(h) for h in _listed(call)]})


async def list_full(call: Call) -> Answer:
    """GET /os-hypervisors/detail."""
    hosts, servers = _listed(call), _by_host(call)
    views = [_full(h, servers.get(h.host_id, [])) for h in hosts]
    return json_answer({"hypervisors": views})


async def statistics(call: Call) -> Answer:
    """GET /os-hypervisors/statistics: sums over all hosts."""
    hosts, servers = _listed(call), _by_host(call)
    views = [_full(h, servers.get(h.host_id, [])) for h in hosts]
    names = (
        "vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "free_ram_mb", "local_gb",
        "local_gb_used", "free_disk_gb", "disk_available_least", "running_vms",
        "current_workload",
    )  # fmt: skip
    total = {name: sum(view[name] for view in views) for name in names}
    return json_answer({"hypervisor_statistics": {"count": len(hosts), **total}})


async def show(call: Call) -> Answer:
    """GET /os-hypervisors/{id}: by number, or by name."""
    for host in _listed(call):
        if call.args[0] in {str(_number(host)), host.host_id}:
            servers = call.edge.reader.servers(host_id=host.host_id)
            return json_answer({"hypervisor": _full(host, servers)})
    raise NotFound(f"there is no hypervisor {call.args[0][:64]!r}")


async def uptime(_call: Call) -> Answer:
    """GET /os-hypervisors/{id}/uptime: hosts do not tell; clients know this answer."""
    raise NotOffered("hosts do not tell how long they have been up")


async def list_services(call: Call) -> Answer:
    """GET /os-services: one compute service a host."""
    wanted = call.param("host")
    views = [
        {
            "id": _number(host),
            "binary": "nova-compute",
            "host": host.host_id,
            "zone": ZONE,
            "status": "enabled",
            "state": host.status,
            "updated_at": micros_naive(host.updated_at),
            "disabled_reason": None,
        }
        for host in call.edge.reader.hosts()
        if wanted in {"", host.host_id} and call.param("binary") in {"", "nova-compute"}
    ]
    return json_answer({"services": views})


async def list_zones(call: Call) -> Answer:
    """GET /os-availability-zone: there is one, available while a host is up."""
    up = any(h.status == "up" for h in call.edge.reader.hosts())
    zone = {"zoneName": ZONE, "zoneState": {"available": up}, "hosts": None}
    return json_answer({"availabilityZoneInfo": [zone]})


async def list_zones_full(call: Call) -> Answer:
    """GET /os-availability-zone/detail."""
    hosts = call.edge.reader.hosts()
    by_host = {
        h.host_id: {
            "nova-compute": {
                "available": h.status == "up",
                "active": True,
                "updated_at": micros_naive(h.updated_at),
            }
        }
        for h in hosts
    }
    up = any(h.status == "up" for h in hosts)
    zone = {"zoneName": ZONE, "zoneState": {"available": up}, "hosts": by_host}
    return json_answer({"availabilityZoneInfo": [zone]})


async def no_aggregates(_call: Call) -> Answer:
    """GET /os-aggregates: hosts are not grouped."""
    return json_answer({"aggregates": []})


async def no_server_groups(_call: Call) -> Answer:
    """GET /os-server-groups: there are none."""
    return json_answer({"server_groups": []})


_EXTENSIONS = (
    ("os-availability-zone", "AvailabilityZone"),
    ("os-console-output", "ConsoleOutput"),
    ("os-hypervisors", "Hypervisors"),
    ("os-instance-actions", "InstanceActions"),
    ("os-keypairs", "Keypairs"),
    ("os-quota-class-sets", "QuotaClasses"),
    ("os-quota-sets", "Quotas"),
    ("os-services", "Services"),
)


def _extension(alias: str, name: str) -> dict[str, Any]:
    return {
        "alias": alias,
        "name": name,
        "namespace": "",
        "description": "",
        "updated": "2014-12-03T00:00:00Z",
        "links": [],
    }


async def list_extensions(_call: Call) -> Answer:
    """GET /extensions."""
    return json_answer({"extensions": [_extension(a, n) for a, n in _EXTENSIONS]})


async def show_extension(call: Call) -> Answer:
    """GET /extensions/{alias}."""
    for alias, name in _EXTENSIONS:
        if alias == call.args[0]:
            return json_answer({"extension": _extension(alias, name)})
    raise NotFound(f"there is no extension {call.args[0][:64]!r}")


def add(routes: Routes) -> None:
    """Route what this module answers."""
    hosts, zones = "compute:hosts:read", "compute:zones:read"
    named = ("hypervisor_hostname_pattern",)
    routes.add("GET", "/v2.1/os-hypervisors", list_brief, hosts, query=named)
    routes.add("GET", "/v2.1/os-hypervisors/detail", list_full, hosts, query=named)
    routes.add("GET", "/v2.1/os-hypervisors/statistics", statistics, hosts)
    routes.add("GET", "/v2.1/os-hypervisors/{}", show, hosts)
    routes.add("GET", "/v2.1/os-hypervisors/{}/uptime", uptime, hosts, status=501)
    routes.add("GET", "/v2.1/os-services", list_services, hosts, query=("host", "binary"))
    routes.add("GET", "/v2.1/os-availability-zone", list_zones, zones)
    routes.add("GET", "/v2.1/os-availability-zone/detail", list_zones_full, hosts)
    routes.add("GET", "/v2.1/os-aggregates", no_aggregates, hosts)
    routes.add("GET", "/v2.1/os-server-groups", no_server_groups, "compute:server_groups:read")
    routes.add("GET", "/v2.1/extensions", list_extensions, "compute:extensions:read")
    routes.add("GET", "/v2.1/extensions/{}", show_extension, "compute:extensions:read")
