"""What compute's objects look like, by microversion; where nothing is said, as from 2.1 on."""

from collections.abc import Sequence
from hashlib import sha224
from typing import Any

from api.times import micros_naive, seconds_z
from projections.answers import Address
from schemas.compute import Flavor, Keypair, Server

_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "RESIZE", "VERIFY_RESIZE", "REVERT_RESIZE"})
ZONE = "nova"


def host_hash(project_id: str, host_id: str | None) -> str:
    """Return what tells a project that two servers share a host, and no more; "" until placed."""
    return sha224((project_id + host_id).encode()).hexdigest() if host_id else ""


def _links(base: str, kind: str, ident: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{base}/compute/v2.1/{kind}/{ident}"},
        {"rel": "bookmark", "href": f"{base}/compute/{kind}/{ident}"},
    ]


def addresses_view(addresses: Sequence[Address], *, extended: bool = True) -> dict[str, Any]:
    """Return addresses by network name; ``extended`` adds type and MAC."""
    view: dict[str, list[dict[str, Any]]] = {}
    for a in addresses:
        one: dict[str, Any] = {"version": a.ip_version, "addr": a.ip_address}
        if extended:
            one["OS-EXT-IPS:type"] = "fixed"
            one["OS-EXT-IPS-MAC:mac_addr"] = a.mac_address
        view.setdefault(a.network_name, []).append(one)
    return view


def server_brief(server: Server, base: str) -> dict[str, Any]:
    """Return a server as the plain list names it."""
    ident = server.server_id
    return {"id": ident, "name": server.name, "links": _links(base, "servers", ident)}


def server_view(
    server: Server,
    addresses: Sequence[Address],
    base: str,
    *,
    host: bool,
    extended: bool = True,
) -> dict[str, Any]:
    """Return a server in full; ``host``: with where it runs.

    Without ``extended`` it is as an update answers.
    """
    ident = server.server_id
    image_id, flavor_id = server.image_id, server.flavor.flavor_id
    deleted = server.vm_state == "deleted"
    status = "DELETED" if deleted else server.status
    view: dict[str, Any] = {
        "id": ident,
        "name": server.name,
        "status": status,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "metadata": server.metadata,
        "hostId": host_hash(server.project_id, server.host_id),
        "image": {
            "id": image_id,
            "links": [{"rel": "bookmark", "href": f"{base}/compute/images/{image_id}"}],
        }
        if image_id
        else "",
        "flavor": {
            "id": flavor_id,
            "links": [{"rel": "bookmark", "href": f"{base}/compute/flavors/{flavor_id}"}],
        },
        "created": seconds_z(server.created_at),
        "updated": seconds_z(server.updated_at),
        "addresses": addresses_view(addresses, extended=extended),
        "accessIPv4": "",
        "accessIPv6": "",
        "links": _links(base, "servers", ident),
        "OS-DCF:diskConfig": server.disk_config,
    }
    if status in _WITH_PROGRESS:
        view["progress"] = 0
    if server.fault is not None and status in {"ERROR", "DELETED"}:
        view["fault"] = {
            "code": server.fault.code,
            "created": seconds_z(server.fault.created),
            "message": server.fault.message,
        }
    if not extended:
        return view
    launched, ended = server.launched_at, server.terminated_at
    view["OS-EXT-AZ:availability_zone"] = server.availability_zone or (
        ZONE if server.host_id else ""
    )
    view["config_drive"] = "True" if server.config_drive else ""
    view["key_name"] = server.key_name
    view["OS-SRV-USG:launched_at"] = None if launched is None else micros_naive(launched)
    view["OS-SRV-USG:terminated_at"] = None if ended is None else micros_naive(ended)
    view["OS-EXT-STS:task_state"] = server.task_state
    view["OS-EXT-STS:vm_state"] = server.vm_state
    view["OS-EXT-STS:power_state"] = server.power_state
    view["os-extended-volumes:volumes_attached"] = []
    if host:
        view["OS-EXT-SRV-ATTR:host"] = server.host_id
        view["OS-EXT-SRV-ATTR:hypervisor_hostname"] = server.host_id
        view["OS-EXT-SRV-ATTR:instance_name"] = f"cumulog-{ident}"
    if server.security_groups and server.port_ids:
        groups = [{"name": name} for name in server.security_groups]
        view["security_groups"] = groups * len(server.port_ids)
    return view


def flavor_brief(flavor: Flavor, base: str) -> dict[str, Any]:
    """Return a flavor as the plain list names it."""
    ident = flavor.flavor_id
    return {"id": ident, "name": flavor.name, "links": _links(base, "flavors", ident)}


def flavor_view(flavor: Flavor, base: str) -> dict[str, Any]:
    """Return a flavor in full."""
    return {
        "id": flavor.flavor_id,
        "name": flavor.name,
        "ram": flavor.memory_mib,
        "vcpus": flavor.vcpus,
        "disk": flavor.disk_gib,
        "swap": "",
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": flavor.is_public,
        "rxtx_factor": 1.0,
        "links": _links(base, "flavors", flavor.flavor_id),
    }


def keypair_view(keypair: Keypair, *, typed: bool) -> dict[str, Any]:
    """Return a keypair as the list names it; ``typed`` since 2.2."""
    view = {
        "name": keypair.name,
        "public_key": keypair.public_key,
        "fingerprint": keypair.fingerprint,
    }
    return view | {"type": "ssh"} if typed else view
