"""Who a request really came from, when a proxy has passed it on.

Invariant: what a header says of another client, host or scheme counts only when the connection
comes from a proxy that the configuration trusts; of a chain of proxies, only the part that trusted
ones have written. Nothing of these headers goes into a link unless it has the right form.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

KEPT_MAX = 4096
CHAIN_MAX = 512  # characters of X-Forwarded-For that are read, from its end
SITE_BITS = 64  # of an IPv6 address: what one customer has, whatever address it uses

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?\Z")
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}){1,8}\Z")

type Network = IPv4Network | IPv6Network


class BadProxies(Exception):
    """A trusted proxy is no address or network."""


class Origin(Struct, frozen=True):
    """Where a request came from. ``trusted``: its forwarding headers count.

    ``limited`` is what its address is limited as; "" for a proxy that speaks for itself.
    """

    address: str
    limited: str
    trusted: bool


class Proxies:
    """The proxies that are trusted, and the origins seen of late."""

    def __init__(self, trusted: Iterable[str]) -> None:
        try:
            self._networks: list[Network] = [ip_network(text) for text in trusted]
        except ValueError as error:
            raise BadProxies(f"trusted_proxies: {error}") from error
        self._origins: dict[tuple[str, str], Origin] = {}

    def trusts(self, address: str) -> bool:
        """Return whether this is the address of a trusted proxy."""
        return self.origin(address, "").trusted

    def origin(self, peer: str, chain: str) -> Origin:
        """Return who a connection from ``peer`` speaks for; ``chain`` is X-Forwarded-For."""
        if len(chain) > CHAIN_MAX:
            chain = chain[-CHAIN_MAX:].partition(",")[2]
        key = (peer, chain)
        found = self._origins.get(key)
        if found is None:
            found = self._find(peer, chain)
            if len(self._origins) >= KEPT_MAX:
                self._origins.clear()  # each is found again in a few microseconds
            self._origins[key] = found
        return found

    def _find(self, peer: str, chain: str) -> Origin:
        if not self._holds(peer):
            return Origin(peer, site(peer), trusted=False)
        address = peer
        # Each proxy appends whom it heard it from: read until one whom nobody vouches for.
        for text in reversed(chain.split(",") if chain else ()):
            named = _plain(text.strip())
            if not self._holds(named):
                address = named or address
                return Origin(address, site(address), trusted=True)
            address = named
        return Origin(address, "", trusted=True)

    def _holds(self, text: str) -> bool:
        plain = _plain(text)
        return bool(plain) and any(ip_address(plain) in network for network in self._networks)


def _plain(text: str) -> str:
    """Return an address in its usual form, IPv4 in IPv6 as IPv4; "" if it is none."""
    try:
        address = ip_address(text.partition("%")[0].removeprefix("[").removesuffix("]"))
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def site(text: str) -> str:
    """Return what an address is counted as: itself, of IPv6 its network of 64 bits."""
    plain = _plain(text)
    if ":" not in plain:
        return plain or text
    return str(IPv6Network((plain, SITE_BITS), strict=False))


def base(scheme: str, host: str, prefix: str) -> str:
    """Return the address that links begin with; "" if any part has not the form it must have."""
    if scheme not in {"http", "https"} or not _HOST.match(host):
        return ""
    if prefix in {"", "/"}:
        return f"{scheme}://{host}"
    prefix = prefix.removesuffix("/")
    return f"{scheme}://{host}{prefix}" if _PREFIX.match(prefix) else ""
