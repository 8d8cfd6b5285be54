"""Commands about networks, subnets and ports."""

from typing import Annotated, Any

import typer

from cli.output import Row
from cli.resource import Resource, add_delete, add_reads
from cli.session import Session, command, group

NETWORK = "/network/v2.0"


def _fixed(port: Row) -> str:
    return ", ".join(str(ip["ip_address"]) for ip in port.get("fixed_ips", []))


NETWORKS = Resource(
    word="network",
    path=f"{NETWORK}/networks",
    key="network",
    keys="networks",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("STATUS", "status"),
        ("SUBNETS", lambda row: ", ".join(row.get("subnets", []))),
        ("PROJECT", "project_id"),
    ],
)
SUBNETS = Resource(
    word="subnet",
    path=f"{NETWORK}/subnets",
    key="subnet",
    keys="subnets",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("NETWORK", "network_id"),
        ("RANGE", "cidr"),
        ("GATEWAY", "gateway_ip"),
    ],
)
PORTS = Resource(
    word="port",
    path=f"{NETWORK}/ports",
    key="port",
    keys="ports",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("STATUS", "status"),
        ("MAC", "mac_address"),
        ("ADDRESSES", _fixed),
        ("DEVICE", "device_id"),
    ],
)

network_app = group("Networks.")
subnet_app = group("Ranges of addresses on networks.")
port_app = group("Places on networks where servers plug in.")
for app, resource in ((network_app, NETWORKS), (subnet_app, SUBNETS), (port_app, PORTS)):
    add_reads(app, resource)
    add_delete(app, resource)

NewName = Annotated[str, typer.Argument(help="What to call it.")]
OfNetwork = Annotated[str, typer.Option(help="The network's name or id.")]


@command(network_app, "create")
def create_network(
    session: Session,
    name: NewName,
    *,
    cidr: Annotated[str | None, typer.Option(help="Give it a subnet with this range too.")] = None,
) -> None:
    """Make a network.

    Example: cumulog network create web --cidr 10.20.0.0/24
    """
    made = session.client.post(NETWORKS.path, {"network": {"name": name}})["network"]
    if cidr:
        subnet = {"name": name, "network_id": made["id"], "cidr": cidr, "ip_version": 4}
        session.client.post(SUBNETS.path, {"subnet": subnet})
        made = NETWORKS.get(session.client, made["id"])
    session.show(made)


@command(subnet_app, "create")
def create_subnet(
    session: Session,
    name: NewName,
    *,
    network: OfNetwork,
    cidr: Annotated[str, typer.Option(help="Its range, as 10.0.0.0/24.")],
    gateway: Annotated[str | None, typer.Option(help="Its gateway; first address if none.")] = None,
    dhcp: Annotated[bool, typer.Option("--dhcp/--no-dhcp", help="Answer DHCP.")] = True,
) -> None:
    """Make a subnet on a network."""
    body: dict[str, Any] = {
        "name": name,
        "network_id": NETWORKS.identify(session.client, network),
        "cidr": cidr,
        "ip_version": 4,
        "enable_dhcp": dhcp,
    }
    if gateway:
        body["gateway_ip"] = gateway
    session.show(session.client.post(SUBNETS.path, {"subnet": body})["subnet"])


@command(port_app, "create")
def create_port(
    session: Session,
    name: NewName,
    *,
    network: OfNetwork,
    fixed_ip: Annotated[str | None, typer.Option(help="An address; one is found if none.")] = None,
) -> None:
    """Make a port on a network."""
    body: dict[str, Any] = {
        "name": name,
        "network_id": NETWORKS.identify(session.client, network),
    }
    if fixed_ip:
        body["fixed_ips"] = [{"ip_address": fixed_ip}]
    session.show(session.client.post(PORTS.path, {"port": body})["port"])
