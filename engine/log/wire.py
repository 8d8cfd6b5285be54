"""A blocking connection to the broker: for what is synchronous, and for what must be fast.

Speaks the NATS client protocol (docs.nats.io, "Client Protocol"): one inbox, one request at a time.
Given several addresses it takes one of them at random, and another when that one is away. After a
time-out or any other error the connection is to be closed and made anew, so that a late answer is
never taken for the answer to something else. Every read has a deadline.
"""

import contextlib
import json
import random
import secrets
import socket
from collections.abc import Mapping
from select import select
from typing import Any

from engine.log.addresses import Address, addresses, trust
from engine.log.port import LogError

CHUNK_BYTES = 1024 * 1024
# For one address of several. A node that is paused takes a connection and then says nothing.
GREETING_S = 2.0


class Refused(LogError):
    """The server refused the login, the subject or the request."""


class Wire:
    """One connection, logged in, listening to an inbox of its own. Not for several threads.

    Raises:
        OSError: it cannot be reached, is lost, or did not answer within ``timeout_s``.
        Refused: user or password are wrong.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        timeout_s: float,
        name: str = "wire",
        authority: str = "",
    ) -> None:
        """``url`` may name several servers; with ``authority``, only those it vouches for."""
        self.buffer = b""
        self.at = 0
        self.inbox = f"_INBOX_{user}.{secrets.token_hex(11)}"
        self._trust = trust(authority)
        self._socket: socket.socket
        known = addresses(url)
        random.shuffle(known)
        patience_s = timeout_s if len(known) == 1 else min(timeout_s, GREETING_S)
        for left, address in reversed(list(enumerate(known))):
            try:
                self._dial(address, patience_s)
                self._log_in(user, password, name)
            except OSError:
                self.buffer, self.at = b"", 0
                if not left:
                    raise
            else:
                self._socket.settimeout(timeout_s)
                return

    def close(self) -> None:
        """Close it; can be repeated, and wakes whoever waits in another thread."""
        with contextlib.suppress(OSError):  # already gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def ask(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a request; what it brings comes to the inbox, for ``message`` to return."""
        self._send(f"{subject} {self.inbox}", payload, headers)

    def tell(self, subject: str, payload: bytes = b"") -> None:
        """Send and forget."""
        self._send(subject, payload, None)

    def listen(self, subject: str) -> None:
        """Have ``message`` return what is said on ``subject``, too."""
        self._socket.sendall(f"SUB {subject} 2\r\n".encode())

    def call(
        self, subject: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Ask, and return the answer read as JSON; an "error" in it is the caller's to see.

        Raises:
            OSError: no answer, or nobody there to give one.
        """
        payload = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        self.ask(subject, payload, headers)
        _, start, stop = self.message()
        if start == stop:
            raise ConnectionRefusedError(f"nobody answers on {subject}")
        answer: dict[str, Any] = json.loads(self.buffer[start:stop])
        return answer

    def message(self) -> tuple[bytes, int, int]:
        """Return the next message: its line, and where in the buffer its payload is.

        Its headers, if the line begins with HMSG, lie just before the payload; see ``headers``.
        """
        while True:
            line = self.line()
            if line.startswith(b"MSG "):
                size = int(line[line.rindex(b" ") :])
                start = self.need(size + 2)
                return line, start, start + size
            if line.startswith(b"HMSG "):
                _, header, total = line.rsplit(b" ", 2)
                start = self.need(int(total) + 2)
                return line, start + int(header), start + int(total)
            self._control(line)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a message and drop it; False if none came. Answers the server meanwhile."""
        if self.at == len(self.buffer) and not select([self._socket], [], [], timeout_s)[0]:
            return False
        line = self.line()
        if line.startswith((b"MSG ", b"HMSG ")):
            self.need(int(line[line.rindex(b" ") :]) + 2)
            return True
        self._control(line)
        return False

    def headers(self, line: bytes, start: int) -> bytes:
        """Return the headers of the message with this line, whose payload begins at ``start``."""
        if not line.startswith(b"HMSG "):
            return b""
        return self.buffer[start - int(line.rsplit(b" ", 2)[1]) : start]

    def status(self, line: bytes, start: int) -> str:
        """Return the status a message says in place of content ("404 No Messages"), or "".

        NATS ADR-4: ``NATS/1.0 404 No Messages``.
        """
        first = self.headers(line, start).split(b"\r", 1)[0]
        return first.removeprefix(b"NATS/1.0").strip().decode(errors="replace")

    def line(self) -> bytes:
        """Return the next line without its end."""
        while (end := self.buffer.find(b"\r\n", self.at)) < 0:
            self.buffer, self.at = self.buffer[self.at :] + self._chunk(), 0
        line = self.buffer[self.at : end]
        self.at = end + 2
        return line

    def need(self, size: int) -> int:
        """Have ``size`` bytes in the buffer, step over them, and return where they begin."""
        missing = self.at + size - len(self.buffer)
        if missing > 0:
            chunks = [self.buffer[self.at :]]
            while missing > 0:
                chunk = self._chunk()
                chunks.append(chunk)
                missing -= len(chunk)
            self.buffer, self.at = b"".join(chunks), 0
        start = self.at
        self.at += size
        return start

    def _send(self, target: str, payload: bytes, headers: Mapping[str, str] | None) -> None:
        if headers:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            block = f"NATS/1.0\r\n{lines}\r\n".encode()
            head = f"HPUB {target} {len(block)} {len(block) + len(payload)}\r\n".encode()
        else:
            block, head = b"", f"PUB {target} {len(payload)}\r\n".encode()
        self._socket.sendall(b"".join((head, block, payload, b"\r\n")))

    def _control(self, line: bytes) -> None:
        if line == b"PING":
            self._socket.sendall(b"PONG\r\n")
        elif line.startswith(b"-ERR"):
            raise Refused(line[5:].decode(errors="replace").strip("' "))

    def _chunk(self) -> bytes:
        chunk = self._socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        return chunk

    def _dial(self, address: Address, timeout_s: float) -> None:
        self._socket = socket.create_connection(address, timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._trust is not None:
                self._socket = self._trust.wrap_socket(self._socket, server_hostname=address.host)
        except BaseException:
            self._socket.close()
            raise

    def _log_in(self, user: str, password: str, name: str) -> None:
        try:
            self._greet(user, password, name)
        except BaseException:
            self._socket.close()
            raise

    def _greet(self, user: str, password: str, name: str) -> None:
        if not self.line().startswith(b"INFO "):
            raise ConnectionResetError("the server does not speak NATS")
        options = {
            "user": user,
            "pass": password,
            "name": name,
            "lang": "python",
            "version": "1",
            "protocol": 1,
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
        }
        self._socket.sendall(
            b"CONNECT %b\r\nSUB %b 1\r\nPING\r\n"
            % (json.dumps(options).encode(), self.inbox.encode())
        )
        while (line := self.line()) != b"PONG":
            self._control(line)
