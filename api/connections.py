"""How many connections a client may hold, and for how long it may do nothing with them.

The HTTP server takes a bounded number of connections, and one that sends nothing would hold its
place for ever. It serves from within this process, so its sockets are ours: now and then each is
looked at, and those that are too idle, or too many of one address, are shut down. Invariant: a
connection on which a request is being answered is closed only if its address has more than it may
have; and while more connections are open than there is room for, the idlest of those who have most
go first, so that nobody who comes new waits for longer than ``SWEEP_S``.
"""

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator

import structlog
from msgspec import Struct

from api.forwarded import Proxies
from schemas.config import Config

SWEEP_S = 0.5
SPARE = 1024  # connections that the server takes beyond those that may stay, between two sweeps
FILES_SPARE = 512  # descriptors for everything but clients
PIECE = 64  # sockets looked at in one turn of the loop
CONGESTED_S = 1.0  # what has just sent something may have a request on its way to us

# struct tcp_info of linux/tcp.h: its first fields, all of them older than any kernel in use.
_INFO_BYTES = 136
_TIMES = struct.Struct("=44xI4xI4x")  # ms since data was last sent, and last received
_RECEIVED = struct.Struct("=128xQ")  # bytes received since the connection began
_MS = 1000.0

type Client = tuple[str, str]  # address and port, as the server's scopes have them

log = structlog.get_logger(__name__)


class Connection(Struct, frozen=True):
    """One connection as it is now."""

    fd: int
    client: Client
    busy: bool  # a request of it is being answered
    spoken: bool  # it has sent at least one byte
    unanswered_s: float  # since we last sent something, at first since it was opened
    quiet_s: float  # since it last sent something


class Connections:
    """The connections of one edge, and which of them have requests under way."""

    def __init__(self, config: Config, proxies: Proxies, files_max: int) -> None:
        """``files_max`` is how many descriptors the process may have."""
        self.most = max(1, min(config.connections_max, files_max - FILES_SPARE - SPARE))
        self.backpressure = self.most + SPARE
        self.busy: dict[Client, int] = {}
        self.open = 0
        self.closed: Counter[str] = Counter()
        self._config = config
        self._proxies = proxies

    def begin(self, client: Client) -> None:
        """Note that a request of this connection is being answered; HTTP/2 may have several."""
        self.busy[client] = self.busy.get(client, 0) + 1

    def end(self, client: Client) -> None:
        """Note that it was answered."""
        left = self.busy[client] - 1
        if left:
            self.busy[client] = left
        else:
            del self.busy[client]

    async def watch(self, port: int) -> None:
        """Look at the connections to ``port`` for ever, and close those that must go."""
        while True:
            await asyncio.sleep(SWEEP_S)
            found = await self.look(port)
            self.open = len(found)
            closed = Counter(why for c, why in self.excess(found) if _close(c, port))
            if closed:
                self.closed += closed
                log.info("connections_closed", open=self.open, **closed)

    async def look(self, port: int) -> list[Connection]:
        """Return the connections to ``port`` that this process has."""
        found: list[Connection] = []
        for at, name in enumerate(os.listdir("/proc/self/fd")):  # noqa: PTH208 (names are numbers)
            if at % PIECE == PIECE - 1:
                await asyncio.sleep(0)
            connection = _look(int(name), port, self.busy)
            if connection is not None:
                found.append(connection)
        return found

    def excess(self, found: Iterable[Connection]) -> Iterator[tuple[Connection, str]]:
        """Yield the connections that must go, and why. Decides only."""
        config = self._config
        kept: dict[str, list[Connection]] = {}
        for connection in found:
            if why := _too_idle(connection, config):
                yield connection, why
            else:
                kept.setdefault(connection.client[0], []).append(connection)
        most = config.connections_address_max
        for address, connections in kept.items():
            connections.sort(key=_dispensable, reverse=True)
            if most and len(connections) > most and not self._proxies.trusts(address):
                over = len(connections) - most
                for connection in connections[:over]:
                    yield connection, "address"
                del connections[:over]
        over = sum(map(len, kept.values())) - self.most
        if over > 0:
            # The server is full: who has most gives first, and what is least used goes first.
            idle = sorted(
                (c for connections in kept.values() for c in connections if not c.busy),
                key=lambda c: (len(kept[c.client[0]]), _dispensable(c)),
                reverse=True,
            )
            for connection in idle[:over]:
                yield connection, "full"


def _dispensable(connection: Connection) -> tuple[bool, float]:
    return (not connection.busy, min(connection.unanswered_s, connection.quiet_s))


def _too_idle(connection: Connection, config: Config) -> str:
    """Return why a connection has done nothing for too long; "" if it has not."""
    if connection.busy:
        return ""
    if not connection.spoken:
        return "silent" if connection.unanswered_s > config.head_s else ""
    # A head that is sent slowly is not idle, but was begun at most as long ago as this.
    if connection.unanswered_s > config.keep_alive_s + config.head_s:
        return "slow"
    if connection.unanswered_s > config.keep_alive_s and connection.quiet_s > CONGESTED_S:
        return "idle"
    return ""


def _look(fd: int, port: int, busy: dict[Client, int]) -> Connection | None:
    """Return a client's connection; None if the descriptor is something else."""
    try:
        connection = _own(fd)
    except OSError:
        return None
    with connection:
        try:
            if connection.getsockname()[1] != port:
                return None
            address, peer_port, *_ = connection.getpeername()
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        except (OSError, IndexError, ValueError):
            return None  # no socket, one that listens, or one that was closed meanwhile
        sent_ms, received_ms = _TIMES.unpack_from(info)
        client = (address, str(peer_port))
        return Connection(
            fd=fd,
            client=client,
            busy=client in busy,
            spoken=_RECEIVED.unpack_from(info)[0] > 0,
            unanswered_s=sent_ms / _MS,
            quiet_s=received_ms / _MS,
        )


def _close(connection: Connection, port: int) -> bool:
    """Shut a connection down, if its descriptor still is that connection."""
    try:
        with _own(connection.fd) as found:
            address, peer_port, *_ = found.getpeername()
            if found.getsockname()[1] != port or (address, str(peer_port)) != connection.client:
                return False
            found.shutdown(socket.SHUT_RDWR)
    except (OSError, IndexError, ValueError):
        return False
    return True


def _own(fd: int) -> socket.socket:
    """Return a descriptor of our own for a socket of the server, which may close its one.

    The family says only how long addresses may be: those of IPv4 fit as well.

    Raises:
        OSError: it is no socket, or was closed meanwhile.
    """
    own = os.dup(fd)
    try:
        return socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=own)
    except BaseException:
        os.close(own)
        raise
