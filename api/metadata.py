"""What guests are told at 169.254.169.254: their own name, id, key and user data.

A host's agent asks on its own subject on behalf of a guest; the guest is known by the network and
address it asks from. Invariant: a guest is told only about the server whose port has that address
on that network, and only by way of the host that this port is bound to.
"""

import re
from time import perf_counter
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from api.edge import Edge
from api.sealing_inbound import open_sealed
from engine.bus.client import Message, Subscription
from engine.bus.keys import KeyMissing
from engine.sealing import SealBroken
from schemas.compute import Server
from schemas.network import Port
from schemas.work import MetadataAsk, MetadataReply

log = structlog.get_logger(__name__)

AT_ONCE = 32
EC2_VERSIONS = ("1.0", "2007-01-19", "2008-02-01", "2009-04-04", "latest")
OPENSTACK_VERSIONS = ("2012-08-10", "2015-10-15", "2018-08-27", "latest")
DOMAIN = "novalocal"  # what images made for OpenStack expect

_decode = msgspec.json.Decoder(MetadataAsk).decode
_encode = msgspec.json.Encoder().encode


class Guest(Struct, frozen=True, kw_only=True):
    """A server that asks, with the ports it has."""

    server: Server
    port: Port  # the one it asked through
    ports: tuple[Port, ...]

    @property
    def hostname(self) -> str:
        """The server's name as a host name (RFC 1123), with a domain."""
        label = re.sub(r"[^a-z0-9.-]+", "-", self.server.name.lower()).strip("-.")[:63]
        return f"{label.strip('-.') or 'server-' + self.server.server_id}.{DOMAIN}"

    @property
    def address(self) -> str:
        """The first address of the port it asked through."""
        return self.port.fixed_ips[0].ip_address if self.port.fixed_ips else ""


async def serve(edge: Edge) -> Subscription:
    """Answer the agents' questions until the subscription is stopped; edges share the work."""
    subjects = edge.bus.subjects

    async def answer(message: Message) -> None:
        host_id = message.subject.rpartition(".")[2]
        try:
            reply = await _told(edge, host_id, _decode(message.payload))
        except msgspec.MsgspecError as error:
            reply = MetadataReply(status=400, body=f"{error}\n".encode())
        except Exception:
            log.exception("metadata_failed", host_id=host_id)
            reply = MetadataReply(status=500, body=b"the metadata could not be read\n")
        await message.respond(_encode(reply))

    return await edge.bus.subscribe(
        subjects.metadata("*"), answer, queue="edges", concurrency=AT_ONCE
    )


async def _told(edge: Edge, host_id: str, ask: MetadataAsk) -> MetadataReply:
    """Answer a guest, and tell of it as of every request."""
    started = perf_counter()
    guest = find_guest(edge, host_id, ask)
    reply = await metadata(edge, guest, ask)
    server = guest.server if guest is not None else None
    edge.access.note_guest(
        ask.method,
        reply.status,
        perf_counter() - started,
        address=ask.address,
        network_id=ask.network_id,
        server_id=server.server_id if server else "",
        project_id=server.project_id if server else "",
    )
    return reply


async def metadata(edge: Edge, guest: Guest | None, ask: MetadataAsk) -> MetadataReply:
    """Return what to tell a guest."""
    if ask.method not in {"GET", "HEAD"}:
        return MetadataReply(status=405, body=b"read only\n")
    if guest is None:
        return _nothing()
    path = ask.path.partition("?")[0].strip("/")
    words = path.split("/") if path else []
    if words and words[0] == "openstack":
        return await _openstack(edge, guest, words[1:])
    return await _ec2(edge, guest, words)


def find_guest(edge: Edge, host_id: str, ask: MetadataAsk) -> Guest | None:
    """Return who asks; None if no server bound to this host has the address on the network."""
    reader = edge.reader
    for port in reader.ports(network_ids=[ask.network_id], ip_address=ask.address):
        if port.host_id != host_id or not port.device_id:
            continue
        server = reader.server(port.device_id)
        if server is not None and server.host_id == host_id:
            ports = {p.port_id: p for p in reader.ports(device_ids=[server.server_id])}
            ordered = tuple(ports[i] for i in server.port_ids if i in ports)
            return Guest(server=server, port=port, ports=ordered)
    return None


def _nothing() -> MetadataReply:
    return MetadataReply(status=404, body=b"there is nothing here\n")


def _text(text: str) -> MetadataReply:
    return MetadataReply(status=200, content_type="text/plain; charset=utf-8", body=text.encode())


def _listing(names: list[str]) -> MetadataReply:
    return _text("\n".join(names))


async def _user_data(edge: Edge, guest: Guest) -> MetadataReply:
    sealed = guest.server.user_data
    if sealed is None:
        return _nothing()
    try:
        body = await open_sealed(edge, sealed)
    except (KeyMissing, SealBroken):
        return _nothing()  # Its project's key was destroyed: the data is no more.
    return MetadataReply(status=200, content_type="application/octet-stream", body=body)


async def _ec2(edge: Edge, guest: Guest, words: list[str]) -> MetadataReply:
    """Answer in the form that EC2 gave, which most images know."""
    if not words:
        return _listing([*EC2_VERSIONS, "openstack"])
    if words[0] not in EC2_VERSIONS:
        return _nothing()
    match words[1:]:
        case []:
            return _listing(["meta-data/", "user-data"])
        case ["user-data"]:
            return await _user_data(edge, guest)
        case ["meta-data", *rest]:
            return _walk(_ec2_tree(guest), rest, guest.server.key_name or "key")
        case _:
            return _nothing()


type Tree = dict[str, "Tree | str"]


def _ec2_tree(guest: Guest) -> Tree:
    server = guest.server
    tree: Tree = {
        "ami-id": server.image_id or "",
        "ami-launch-index": "0",
        "hostname": guest.hostname,
        "instance-action": "none",
        "instance-id": server.server_id,
        "instance-type": server.flavor.name,
        "local-hostname": guest.hostname,
        "local-ipv4": guest.address,
        "mac": guest.port.mac_address,
        "placement": {"availability-zone": server.availability_zone},
        "public-hostname": guest.hostname,
        "public-ipv4": "",
        "reservation-id": f"r-{server.server_id[:8]}",
        "security-groups": "\n".join(server.security_groups),
    }
    if server.public_key is not None:
        tree["public-keys"] = {"0": {"openssh-key": server.public_key}}
    return tree


def _walk(tree: Tree, words: list[str], key_name: str) -> MetadataReply:
    node: Any = tree
    for word in words:
        if not isinstance(node, dict) or word not in node:
            return _nothing()
        node = node[word]
    if isinstance(node, str):
        return _text(node)
    if words == ["public-keys"]:
        return _listing([f"{index}={key_name}" for index in node])
    return _listing([f"{k}/" if isinstance(v, dict) else k for k, v in node.items()])


async def _openstack(edge: Edge, guest: Guest, words: list[str]) -> MetadataReply:
    match words:
        case []:
            return _listing(list(OPENSTACK_VERSIONS))
        case [version, *_] if version not in OPENSTACK_VERSIONS:
            return _nothing()
        case [_]:
            names = ["meta_data.json", "network_data.json", "vendor_data.json"]
            return _listing(names + (["user_data"] if guest.server.user_data else []))
        case [_, "meta_data.json"]:
            return _json(_meta_data(guest))
        case [_, "network_data.json"]:
            return _json(_network_data(edge, guest))
        case [_, "vendor_data.json" | "vendor_data2.json"]:
            return _json({})
        case [_, "user_data"]:
            return await _user_data(edge, guest)
        case _:
            return _nothing()


def _json(value: dict[str, Any]) -> MetadataReply:
    return MetadataReply(status=200, content_type="application/json", body=_encode(value))


def _meta_data(guest: Guest) -> dict[str, Any]:
    server = guest.server
    view: dict[str, Any] = {
        "uuid": server.server_id,
        "name": server.name,
        "hostname": guest.hostname,
        "project_id": server.project_id,
        "availability_zone": server.availability_zone,
        "launch_index": 0,
        "devices": [],
        "meta": server.metadata,
    }
    if server.public_key is not None:
        name = server.key_name or "key"
        view["public_keys"] = {name: server.public_key}
        view["keys"] = [{"name": name, "type": "ssh", "data": server.public_key}]
    return view


def _network_data(edge: Edge, guest: Guest) -> dict[str, Any]:
    """Return links, networks and name servers; addresses themselves come by DHCP."""
    reader = edge.reader
    ids = list({p.network_id for p in guest.ports})
    mtus = {n.network_id: n.mtu for n in reader.networks(ids=ids)} if ids else {}
    subnets = {s.subnet_id: s for s in reader.subnets(network_ids=ids)} if ids else {}
    links: list[dict[str, Any]] = []
    networks: list[dict[str, Any]] = []
    servers: dict[str, None] = {}
    for at, port in enumerate(guest.ports):
        link = f"tap{port.port_id[:11]}"
        links.append(
            {
                "id": link,
                "vif_id": port.port_id,
                "type": "bridge",
                "mtu": mtus.get(port.network_id),
                "ethernet_mac_address": port.mac_address,
            }
        )
        for fixed in port.fixed_ips:
            subnet = subnets.get(fixed.subnet_id)
            networks.append(
                {
                    "id": f"network{at}",
                    "type": "ipv4_dhcp",
                    "link": link,
                    "network_id": port.network_id,
                }
            )
            if subnet is not None:
                servers |= dict.fromkeys(subnet.dns_nameservers)
    services = [{"type": "dns", "address": address} for address in servers]
    return {"links": links, "networks": networks, "services": services}
