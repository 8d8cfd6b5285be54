"""Where a webhook may lead: to the internet, and never to what only our own machines can reach.

A tenant chooses the address and who answers for its name, so the name is resolved for each
connection, and the connection is made to the very address that was looked at. Invariant: deny by
default. Nothing but global unicast passes, and neither does an address of this machine, unless the
operator has listed its network (``webhook_allow``).
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from msgspec import Struct

from schemas.errors import InvalidInput
from schemas.webhook import URL_CHARS_MAX

RESOLVE_S = 5.0
PORTS = {"http": 80, "https": 443}

type Address = IPv4Address | IPv6Address
type Network = IPv4Network | IPv6Network

_PRINTABLE = re.compile(r"[!-~]+\Z")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")
_GLOBAL_V6 = IPv6Network("2000::/3")
# Tunnels: what they lead to is an address that is not seen (RFC 4380, RFC 3056).
_TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))


class AddressRefused(InvalidInput):
    """Nothing is sent there."""

    code = "AddressRefused"
    hint = "Give an http or https address on the public internet."


class Target(Struct, frozen=True):
    """A URL, taken apart."""

    scheme: str
    host: str  # without brackets
    port: int
    path: str  # with the query

    @property
    def authority(self) -> str:
        """Return what the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def networks(listed: Sequence[str]) -> tuple[Network, ...]:
    """Return an operator's list of networks.

    Raises:
        ValueError: an entry is none.
    """
    return tuple(ip_network(entry) for entry in listed)


def target_of(url: str) -> Target:
    """Return a URL taken apart.

    Raises:
        AddressRefused: it is not a plain http or https URL.
    """
    if len(url) > URL_CHARS_MAX or not _PRINTABLE.match(url) or "\\" in url:
        raise AddressRefused("the URL is too long, or has characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefused(f"the URL cannot be read: {error}") from error
    if parts.scheme not in PORTS:
        raise AddressRefused("the URL must begin with http:// or https://")
    if "@" in parts.netloc:
        raise AddressRefused("the URL must have no credentials in it")
    if parts.fragment or "#" in url:
        raise AddressRefused("the URL must have no fragment")
    host = parts.hostname or ""
    if not (_HOST.match(host) or _is_v6(host)):
        raise AddressRefused("the URL names no host")
    if port == 0:
        raise AddressRefused("the URL has no port that could be reached")
    path = parts.path or "/"
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port or PORTS[parts.scheme],
        path=f"{path}?{parts.query}" if parts.query else path,
    )


def _is_v6(host: str) -> bool:
    try:
        return isinstance(ip_address(host), IPv6Address) and "%" not in host
    except ValueError:
        return False


async def addresses_of(target: Target, allow: Sequence[Network]) -> list[Address]:
    """Return the addresses of a target's host to which something may be sent.

    Raises:
        AddressRefused: the name is unknown, or no address of it is let pass.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise AddressRefused(f"the name {target.host} leads nowhere") from error
    addresses = dict.fromkeys(read_address(str(sockaddr[0])) for *_, sockaddr in found)
    passed = [address for address in addresses if address is not None and passes(address, allow)]
    if not passed:
        raise AddressRefused(f"nothing is sent to where {target.host} leads")
    return passed


def read_address(text: str) -> Address | None:
    """Return an address; IPv4 in IPv6's clothes is IPv4. None if it is none, or of one link."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def passes(address: Address, allow: Sequence[Network]) -> bool:
    """Return whether something may be sent to an address."""
    if any(address in network for network in allow):
        return True
    return is_public(address) and not _is_ours(address)


def is_public(address: Address) -> bool:
    """Return whether an address is global unicast, and leads to no other one."""
    if (
        not address.is_global
        or address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_private
        or address.is_unspecified
    ):
        return False
    if isinstance(address, IPv6Address):
        return address in _GLOBAL_V6 and not any(address in tunnel for tunnel in _TUNNELS)
    return True


def _is_ours(address: Address) -> bool:
    """Return whether an address is one of this machine's: its firewall is not in between."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
