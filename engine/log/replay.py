"""Read the whole log fast: a blocking socket and a parser of what the server sends back.

A full replay is bound by the client, and nats-py takes several times the CPU for each message. The
engine and the administrator, who may enter the streams' account, pull from a consumer of their own;
everybody else asks for batches by direct get (NATS ADR-31). Every read has a deadline; a connection
that is lost is made anew, and reading goes on where it was.
"""

import contextlib
import json
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from engine.bus.client import STORE_USERS
from engine.log.port import LogError, LogUnavailable

BATCH_MAX = 5000
# What may lie unread between server and us; the server gives up on a connection at 256 MiB.
BATCH_BYTES_MAX = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
RETRY_S = 0.05
SECOND_NS = 1_000_000_000
SEQUENCE = b"Nats-Sequence: "
PENDING = b"Nats-Num-Pending: "


class ReplayRefused(LogError):
    """The server does not let this user read the stream, or the stream cannot be read so."""


def replay(
    url: str,
    user: str,
    password: str,
    stream: str,
    after_seq: int = 0,
    *,
    timeout_s: float = 10.0,
    lost_s: float = 30.0,
) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, message) of what follows ``after_seq``, up to the end as of the start.

    ``timeout_s`` bounds each wait for the server, ``lost_s`` the time to find it again once lost.

    Raises:
        LogUnavailable: the server cannot be reached, or does not answer.
        ReplayRefused: the password is wrong, or the user may not read this stream.
    """
    if user in STORE_USERS:
        user = f"{user}-store"
    reader = _Pulled if user.endswith("-store") else _Asked
    end: int | None = None
    lost_at: float | None = None
    while end is None or after_seq < end:
        try:
            with contextlib.closing(_Connection(url, user, password, timeout_s)) as connection:
                source = reader(connection, stream, after_seq)
                found = source.end()
                end = found if end is None else end
                for seq, data in source.messages(end):
                    yield seq, data
                    after_seq = seq
                    lost_at = None
                if after_seq < end:
                    raise ReplayRefused(f"{stream} ends at {after_seq}, before {end}")
        except OSError as error:
            now = time.monotonic()
            lost_at = lost_at or now
            if now - lost_at > lost_s:
                raise LogUnavailable(f"cannot read {stream}: {error}") from error
            # Dialling again at once would spin while the server is away.
            time.sleep(RETRY_S)


class _Connection:
    """One connection, logged in, listening to an inbox. Not for several threads."""

    def __init__(self, url: str, user: str, password: str, timeout_s: float) -> None:
        at = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = at.hostname or "127.0.0.1", at.port or 4222
        self.buffer = b""
        self.at = 0
        self.inbox = f"_INBOX_{user}.{secrets.token_hex(11)}"
        self._socket: socket.socket = socket.create_connection((host, port), timeout_s)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            info = json.loads(self.line().removeprefix(b"INFO "))
            if at.scheme == "tls" or info.get("tls_required"):
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=host)
            self._log_in(user, password)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def ask(self, subject: str, body: dict[str, object]) -> None:
        """Send a request; what it brings comes to the inbox."""
        payload = json.dumps(body).encode()
        head = f"PUB {subject} {self.inbox} {len(payload)}\r\n"
        self._socket.sendall(head.encode() + payload + b"\r\n")

    def answer(self) -> bytes:
        """Return the payload of the next message."""
        _, middle, end = self.message()
        return self.buffer[middle:end]

    def message(self) -> tuple[bytes, int, int]:
        """Return the next message: its line, and where in the buffer its payload is.

        Its headers lie before, down to where the line ends.
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
            if line == b"PING":
                self._socket.sendall(b"PONG\r\n")
            elif line.startswith(b"-ERR"):
                raise ReplayRefused(line[5:].decode(errors="replace").strip("' "))

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

    def _chunk(self) -> bytes:
        chunk = self._socket.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        return chunk

    def _log_in(self, user: str, password: str) -> None:
        options = {
            "user": user,
            "pass": password,
            "name": "replay",
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
            if line.startswith(b"-ERR"):
                raise ReplayRefused(line[5:].decode(errors="replace").strip("' "))


class _Asked:
    """Batches by direct get: nothing is made on the server; any reader may."""

    def __init__(self, connection: _Connection, stream: str, after_seq: int) -> None:
        self._connection = connection
        self._stream = stream
        self._after_seq = after_seq

    def end(self) -> int:
        """Return the last sequence as of now."""
        # To its end, so that nothing of it is taken for the answer to the next.
        ends = [seq + pending for seq, pending, _ in self._batch(1)]
        return ends[0] if ends else self._after_seq

    def messages(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, message) up to ``end``."""
        while self._after_seq < end:
            before = self._after_seq
            for seq, _, data in self._batch(min(BATCH_MAX, end - before)):
                yield seq, data
                self._after_seq = seq
            if self._after_seq == before:
                return

    def _batch(self, count: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield (sequence, how many follow it in the stream, message)."""
        connection = self._connection
        connection.ask(
            f"$JS.API.DIRECT.GET.{self._stream}",
            {"seq": self._after_seq + 1, "batch": count, "max_bytes": BATCH_BYTES_MAX},
        )
        while True:
            line, middle, end = connection.message()
            buffer = connection.buffer
            start = middle - int(line.rsplit(b" ", 2)[1])
            found = buffer.find(SEQUENCE, start, middle)
            if found < 0:
                status = buffer[start + 9 : middle].split(b"\r", 1)[0]
                if status[:3] in (b"204", b"404"):  # end of batch; nothing there
                    return
                raise ReplayRefused(f"{self._stream}: {status.decode(errors='replace')}")
            seq = int(buffer[found + 15 : buffer.index(b"\r", found)])
            found = buffer.index(PENDING, start, middle)
            pending = int(buffer[found + 18 : buffer.index(b"\r", found)])
            yield seq, pending, buffer[middle:end]


class _Pulled:
    """A consumer of our own, forgotten by the server a while after we are gone."""

    def __init__(self, connection: _Connection, stream: str, after_seq: int) -> None:
        self._connection = connection
        self._after_seq = after_seq
        name = f"replay-{secrets.token_hex(8)}"
        self._pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._stream = stream
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after_seq + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "inactive_threshold": 30 * SECOND_NS,
        }
        connection.ask(
            f"$JS.API.CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config}
        )
        self._made = json.loads(connection.answer() or b'{"error":{"description":"no answer"}}')
        if "error" in self._made:
            raise ReplayRefused(f"{stream}: {self._made['error'].get('description')}")

    def end(self) -> int:
        """Return the last sequence as of now."""
        return self._after_seq + int(self._made["num_pending"])

    def messages(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, message) up to ``end``."""
        connection = self._connection
        left = end - self._after_seq
        while left > 0:
            connection.ask(
                self._pull,
                {
                    "batch": min(BATCH_MAX, left),
                    "max_bytes": BATCH_BYTES_MAX,
                    "no_wait": True,
                },
            )
            asked = min(BATCH_MAX, left)
            while asked:
                line, middle, stop = connection.message()
                # MSG <subject> 1 $JS.ACK.<stream>.<consumer>.<n>.<sequence>.<n>.<time>.<n> <bytes>
                fields = line.rsplit(b".", 4)
                if len(fields) < 5:
                    self._status(line, middle)
                    break
                yield int(fields[1]), connection.buffer[middle:stop]
                asked -= 1
                left -= 1

    def _status(self, line: bytes, middle: int) -> None:
        start = middle - int(line.rsplit(b" ", 2)[1])
        status = self._connection.buffer[start + 9 : middle].split(b"\r", 1)[0]
        # 409: the bytes asked for are used up; 404, 408: nothing is left for now.
        if status[:3] not in (b"404", b"408", b"409"):
            raise ReplayRefused(f"{self._stream}: {status.decode(errors='replace')}")
