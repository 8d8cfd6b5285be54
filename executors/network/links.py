"""Bridges and the links into them. All functions block, and work in the thread's namespace."""

import contextlib
import errno
import socket
from collections.abc import Iterator

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from executors.errors import NetworkError
from executors.layout import bridge_name, dhcp_link_name, namespace_path
from executors.network import namespaces

SERVICE_LINK = "eth0"  # in a network's own namespace
# What the links of the host namespace are, by how their names begin.
KINDS = {"br": "bridge", "dh": "link", "tap": "tap"}


@contextlib.contextmanager
def kernel(step: str) -> Iterator[None]:
    """Turn what the kernel says into an error of ours."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise NetworkError(f"{step} failed") from error


def up(name: str) -> None:
    """Set a link up. NetworkError."""
    with kernel(f"setting {name} up"), IPRoute() as route:
        route.link("set", index=index(route, name), state="up")


def index(route: IPRoute, name: str) -> int | None:
    """Return a link's index, None if there is none of this name."""
    found = route.link_lookup(ifname=name)
    return int(found[0]) if found else None


def ensure_bridge(network_id: str, mtu: int) -> bool:
    """Have a network's bridge, up; True if it was made now. NetworkError."""
    name = bridge_name(network_id)
    with kernel("making a bridge"), IPRoute() as route:
        if index(route, name) is not None:
            return False
        route.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0)
        made = index(route, name)
        route.link("set", index=made, mtu=mtu, state="up")
    return True


def ensure_service_link(
    network_id: str, namespace: str, mtu: int, addresses: list[tuple[str, int]]
) -> bool:
    """Join a network's namespace to its bridge, with these addresses; True if joined now."""
    name = dhcp_link_name(network_id)
    made = False
    with kernel("joining a network's services to its bridge"), IPRoute() as route:
        outer = index(route, name)
        if outer is not None and not _has_service_link(namespace):
            route.link("del", index=outer)  # its other end is not where it should be
            outer = None
        if outer is None:
            with open(namespace_path(namespace), "rb") as file:  # noqa: PTH123  # a bare descriptor
                peer = {"ifname": SERVICE_LINK, "net_ns_fd": file.fileno()}
                route.link("add", ifname=name, kind="veth", peer=peer)
            outer = index(route, name)
            made = True
        bridge = index(route, bridge_name(network_id))
        route.link("set", index=outer, master=bridge, mtu=mtu, state="up")
        with namespaces.inside(namespace), IPRoute() as own:
            _configure(own, mtu, addresses)
    return made


def _configure(own: IPRoute, mtu: int, addresses: list[tuple[str, int]]) -> None:
    namespaces.without_ipv6()
    own.link("set", index=index(own, "lo"), state="up")
    inner = index(own, SERVICE_LINK)
    own.link("set", index=inner, mtu=mtu, state="up")
    wanted = set(addresses)
    there = {
        (address.get_attr("IFA_ADDRESS"), address["prefixlen"])
        for address in own.get_addr(index=inner, family=2)
    }
    for address, prefix in wanted - there:
        own.addr("add", index=inner, address=address, prefixlen=prefix)
    for address, prefix in there - wanted:
        own.addr("del", index=inner, address=address, prefixlen=prefix)


def _has_service_link(namespace: str) -> bool:
    with namespaces.inside(namespace):
        return any(name == SERVICE_LINK for _, name in socket.if_nameindex())


def remove(name: str) -> bool:
    """Remove a link; False if it was not there. NetworkError."""
    with kernel("removing a link"), IPRoute() as route:
        found = index(route, name)
        if found is None:
            return False
        try:
            route.link("del", index=found)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return False  # a veth goes with the namespace of its other end, a little later
            raise
    return True


def all_links() -> dict[str, str | None]:
    """Return every link of the namespace, with the name of the bridge that it is in."""
    with kernel("listing links"), IPRoute() as route:
        links = {
            int(link["index"]): (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MASTER"))
            for link in route.get_links()
        }
    names = {number: name for number, (name, _) in links.items()}
    return {
        str(name): str(names[master]) if master in names else None
        for name, master in links.values()
    }


def put_into(name: str, bridge: str) -> None:
    """Put a link into a bridge. NetworkError."""
    with kernel("putting a tap into its bridge"), IPRoute() as route:
        route.link("set", index=index(route, name), master=index(route, bridge), state="up")
