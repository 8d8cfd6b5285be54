"""Where the broker is: one address, or those of a cluster's nodes, separated by commas."""

import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

PORT = 4222


class Address(NamedTuple):
    """Where a server listens for clients."""

    host: str
    port: int


def addresses(url: str) -> list[Address]:
    """Read ``nats://host:port``, or several of them separated by commas.

    Raises:
        ValueError: there is none, or a port is not a number.
    """
    found = []
    for part in (part.strip() for part in url.split(",")):
        if part:
            at = urlsplit(part if "://" in part else f"nats://{part}")
            found.append(Address(at.hostname or "127.0.0.1", at.port or PORT))
    if not found:
        raise ValueError(f"{url!r} names no server")
    return found


def trust(authority: str) -> ssl.SSLContext | None:
    """Return what trusts servers that this authority (a PEM file) vouches for, and no other.

    None without an authority: on the loopback of one machine, nothing is encrypted.

    Raises:
        OSError: the file cannot be read, or holds no certificate (``ssl.SSLError``).
    """
    if not authority:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=authority)
    return context
