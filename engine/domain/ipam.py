"""Addresses of subnets: which are free, which is given next (IPv4)."""

from ipaddress import IPv4Address, IPv4Network

from engine.domain.state import Cell
from schemas.errors import AddressInUse, InvalidInput, NoAddressLeft
from schemas.network import AllocationPool, Subnet


def parse_network(cidr: str) -> IPv4Network:
    """Return the network that a CIDR names; host bits are refused, as is a prefix over /30.

    Raises:
        InvalidInput: it is no IPv4 network with room for a guest.
    """
    try:
        network = IPv4Network(cidr, strict=True)
    except ValueError as error:
        raise InvalidInput(f"{cidr!r} is not an IPv4 network: {error}") from error
    if network.prefixlen > 30:
        raise InvalidInput(f"{cidr} has no room for a guest: the prefix must be /30 or shorter")
    if network.prefixlen < 8:
        raise InvalidInput(f"{cidr} is too large: the prefix must be /8 or longer")
    if (
        network.is_loopback
        or network.is_multicast
        or network.is_link_local
        or network.is_unspecified
        or network.network_address == IPv4Address(0)
    ):
        raise InvalidInput(f"{cidr} cannot be used for guests")
    return network


def parse_address(text: str, network: IPv4Network | None = None) -> int:
    """Return an address as a number; with ``network``, one of its host addresses.

    Raises:
        InvalidInput: it is none.
    """
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is not an IPv4 address") from error
    if network is not None:
        if address not in network:
            raise InvalidInput(f"{text} is not within {network}")
        if address in (network.network_address, network.broadcast_address):
            raise InvalidInput(f"{text} is the network or broadcast address of {network}")
    return int(address)


def address_number(address: str) -> int:
    """Return an IPv4 address of the state as a number: it was checked, so it is not again."""
    return int.from_bytes(map(int, address.split(".")))


def default_pools(network: IPv4Network, gateway: int | None) -> tuple[AllocationPool, ...]:
    """Return every host address but the gateway, as one or two pools."""
    first, last = int(network.network_address) + 1, int(network.broadcast_address) - 1
    spans = [(first, last)] if gateway is None else [(first, gateway - 1), (gateway + 1, last)]
    return tuple(
        AllocationPool(start=str(IPv4Address(a)), end=str(IPv4Address(b)))
        for a, b in spans
        if a <= b
    )


def spans_of(subnet: Subnet) -> tuple[tuple[int, int], ...]:
    """Return a subnet's allocation pools as numbers, first and last address of each."""
    return tuple(
        (int(IPv4Address(pool.start)), int(IPv4Address(pool.end)))
        for pool in subnet.allocation_pools
    )


def allocate(cell: Cell, subnet: Subnet, wanted: str | None, taken: set[tuple[str, int]]) -> str:
    """Return an address for a port: ``wanted``, or the next free one of the subnet's pools.

    ``taken`` are (subnet, address) pairs given away earlier in the same decision; the answer is
    added to it.

    Raises:
        InvalidInput: ``wanted`` is not an address of the subnet.
        AddressInUse: another port has it.
        NoAddressLeft: the pools are used up.
    """
    used = cell.index.subnet_used.get(subnet.subnet_id, {})
    key = subnet.subnet_id
    if wanted is not None:
        number = parse_address(wanted, IPv4Network(subnet.cidr))
        if number in used or (key, number) in taken or wanted == subnet.gateway_ip:
            raise AddressInUse(f"the address {wanted} is in use on this subnet")
        taken.add((key, number))
        return str(IPv4Address(number))
    hint = cell.state.subnet_hint.get(key, 0)
    spans = cell.index.subnet_spans.get(key) or spans_of(subnet)
    for low, high in (
        *((max(a, hint), b) for a, b in spans),
        *((a, min(b, hint - 1)) for a, b in spans),
    ):
        for number in range(low, high + 1):
            if number not in used and (key, number) not in taken:
                taken.add((key, number))
                return str(IPv4Address(number))
    raise NoAddressLeft(f"no address is left on subnet {subnet.subnet_id} ({subnet.cidr})")
