"""The socket that clients connect to, and the HTTP server that takes it over.

Whoever starts the process may hand it a socket that listens already: then no connection is refused
while the process is started anew, and two of them can serve side by side while one takes over from
the other. Invariant: what is set here holds for every connection: accepted sockets inherit it.
"""

import os
import socket
from tempfile import TemporaryDirectory
from typing import Any

from granian._granian import SocketHolder
from granian.server.embed import Server

from schemas.config import Config

BACKLOG = 1024
HANDED = "CUMULOG_LISTEN_FD"  # by our own supervisor
READY = "CUMULOG_READY_FD"  # where it wants to be told that we serve
FIRST_HANDED = 3  # where a service manager puts them, sd_listen_fds(3)
KEEP_ALIVE_IDLE_S = 60
KEEP_ALIVE_INTERVAL_S = 15
MS = 1000


def listen(config: Config) -> socket.socket:
    """Return the socket to serve, handed over or new.

    Raises:
        OSError: the address is taken, or not one of this machine.
    """
    fd = _handed()
    if fd is not None:
        found = socket.socket(fileno=fd)
        found.set_inheritable(False)
    else:
        host, _, port = config.listen.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Several processes may share an address; each gets its part of the connections.
        found = socket.create_server(
            (host, int(port)), family=family, backlog=BACKLOG, reuse_port=True
        )
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A client that reads nothing of its answer, and one that is gone without a word, are let go.
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(config.unread_s * MS))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
    return found


def _handed() -> int | None:
    """Return the descriptor that whoever started us has left open for us."""
    if HANDED in os.environ:
        return int(os.environ[HANDED])
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return FIRST_HANDED
    return None


def tell_ready() -> None:
    """Tell whoever started us, if it wants to know, that we serve."""
    if READY in os.environ:
        fd = int(os.environ[READY])
        os.write(fd, b"1")
        os.close(fd)


class SocketServer(Server):
    """Granian on a socket that is there already."""

    listening: socket.socket
    _accepting = -1

    def stop_accepting(self) -> None:
        """Leave new connections to others that have the socket; those that are open stay.

        Granian can stop accepting only together with closing what is idle, so its descriptor is
        made to be of a socket that nobody can connect to: one whose name is gone.
        """
        if self._accepting >= 0:
            with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as nobody:
                nobody.setblocking(False)
                nobody.bind(f"{directory}/nobody")
                nobody.listen(1)
                os.dup2(nobody.fileno(), self._accepting)
            self._accepting = -1

    def _init_shared_socket(self) -> None:
        # The worker closes its descriptor when it stops; ours stays.
        own = self._accepting = os.dup(self.listening.fileno())
        self._ssp = None
        self._shd: Any = SocketHolder(own, False, BACKLOG)  # type: ignore[call-arg]  # its stub errs
