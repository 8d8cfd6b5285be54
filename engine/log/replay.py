"""Read the whole log fast: a blocking socket and a parser of what the server sends back.

A full replay is bound by the client, and nats-py takes several times the CPU for each message. The
administrator, who may enter the streams' account, pulls from a consumer; everybody else asks for
batches by direct get (NATS ADR-31), which any node of a cluster answers from what it has. Where the
log ends is asked of the stream's leader, by those who may, so that a node that lags behind is found
out and waited for. (A leader that was stopped and wakes up may for a moment answer with what it
had: whoever goes on from there finds that out by the fence.) Every read has a deadline; a
connection that is lost is made anew, and reading goes on where it was.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from engine.bus.client import STORE_USERS
from engine.log.port import LogError, LogUnavailable
from engine.log.wire import Refused, Wire

BATCH_MAX = 5000
# What may lie unread between server and us; the server gives up on a connection at 256 MiB.
BATCH_BYTES_MAX = 16 * 1024 * 1024
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
    authority: str = "",
    timeout_s: float = 10.0,
    lost_s: float = 30.0,
) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, message) of what follows ``after_seq``, up to the end as of the start.

    ``url`` may name several servers, which ``authority`` vouches for (see ``Wire``). ``timeout_s``
    bounds each wait for a server, ``lost_s`` the time without any progress.

    Raises:
        LogUnavailable: no server can be reached, or has what the log's leader says is there.
        ReplayRefused: the password is wrong, or the user may not read this stream.
    """
    if user in STORE_USERS:
        user = f"{user}-store"
    reader: type[_Asked | _Pulled] = READERS.get(user, _Asked)
    end: int | None = None
    lost_at: float | None = None
    while end is None or after_seq < end:
        try:
            with contextlib.closing(
                Wire(url, user, password, timeout_s=timeout_s, authority=authority)
            ) as wire:
                source = reader(wire, stream, after_seq)
                found = source.end()
                end = found if end is None else end
                for seq, data in source.messages(end):
                    yield seq, data
                    after_seq = seq
                    lost_at = None
                if after_seq < end:
                    raise ConnectionAbortedError(f"it ends at {after_seq}, before {end}")
        except Refused as error:
            raise ReplayRefused(f"{stream}: {error}") from error
        except OSError as error:
            now = time.monotonic()
            lost_at = lost_at or now
            if now - lost_at > lost_s:
                raise LogUnavailable(f"cannot read {stream}: {error}") from error
            # Dialling again at once would spin while the server is away.
            time.sleep(RETRY_S)


class _Asked:
    """Batches by direct get: nothing is made on the server; any reader may."""

    def __init__(self, wire: Wire, stream: str, after_seq: int) -> None:
        self._wire = wire
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
        wire = self._wire
        request = {"seq": self._after_seq + 1, "batch": count, "max_bytes": BATCH_BYTES_MAX}
        wire.ask(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(request).encode())
        while True:
            line, middle, end = wire.message()
            buffer = wire.buffer
            start = middle - int(line.rsplit(b" ", 2)[1])
            found = buffer.find(SEQUENCE, start, middle)
            if found < 0:
                status = wire.status(line, middle)
                if status[:3] in ("204", "404"):  # end of batch; nothing there
                    return
                raise _refusal(status)
            seq = int(buffer[found + 15 : buffer.index(b"\r", found)])
            found = buffer.index(PENDING, start, middle)
            pending = int(buffer[found + 18 : buffer.index(b"\r", found)])
            yield seq, pending, buffer[middle:end]


class _AskedAfterTheLeader(_Asked):
    """The same for who may ask the stream's leader."""

    def end(self) -> int:
        """Return the last sequence as of now, and not as of what a replica has."""
        return _end_at_leader(self._wire, self._stream)


class _Pulled:
    """A consumer of our own, forgotten by the server a while after we are gone."""

    def __init__(self, wire: Wire, stream: str, after_seq: int) -> None:
        self._wire = wire
        self._stream = stream
        self._after_seq = after_seq
        name = f"replay-{secrets.token_hex(8)}"
        self._pull = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        config = {
            "name": name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after_seq + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "inactive_threshold": 30 * SECOND_NS,
        }
        made = wire.call(
            f"$JS.API.CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config}
        )
        if "error" in made:
            raise _api_error(made["error"])

    def end(self) -> int:
        """Return the last sequence as of now."""
        return _end_at_leader(self._wire, self._stream)

    def messages(self, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, message) up to ``end``."""
        left = end - self._after_seq
        while left > 0:
            count = min(BATCH_MAX, left)
            request = {"batch": count, "max_bytes": BATCH_BYTES_MAX, "no_wait": True}
            self._wire.ask(self._pull, json.dumps(request).encode())
            before = left
            for item in self._batch(count):
                yield item
                left -= 1
            if left == before:
                return

    def _batch(self, count: int) -> Iterator[tuple[int, bytes]]:
        """Yield what one pull brings: as many as were asked for, or up to a status.

        ``[H]MSG <subject> 1 $JS.ACK.<stream>.<consumer>.<n>.<sequence>.<n>.<time>.<n> … <bytes>``
        """
        wire = self._wire
        while count:
            # What lies whole in the buffer, which is nearly everything, is read here in place.
            buffer, at = wire.buffer, wire.at
            size = len(buffer)
            while count and (end := buffer.find(b"\r\n", at)) >= 0:
                line = buffer[at:end]
                fields = line.rsplit(b".", 4)
                if len(fields) < 5:
                    break
                numbers = fields[4].split(b" ")
                start = end + 2
                stop = start + int(numbers[-1])
                if stop + 2 > size:
                    break
                if len(numbers) == 3:
                    start += int(numbers[1])
                at = wire.at = stop + 2
                count -= 1
                yield int(fields[1]), buffer[start:stop]
            if count:
                line, start, stop = wire.message()
                fields = line.rsplit(b".", 4)
                if len(fields) < 5:
                    self._status(line, start)
                    return
                count -= 1
                yield int(fields[1]), wire.buffer[start:stop]

    def _status(self, line: bytes, start: int) -> None:
        status = self._wire.status(line, start)
        # 409: the bytes asked for are used up; 404, 408: nothing is left for now.
        if status[:3] not in ("404", "408", "409"):
            raise _refusal(status or "not a message of the stream")


def _end_at_leader(wire: Wire, stream: str) -> int:
    info = wire.call(f"$JS.API.STREAM.INFO.{stream}")
    if "error" in info:
        raise _api_error(info["error"])
    return int(info["state"]["last_seq"])


def _api_error(error: Mapping[str, Any]) -> Exception:
    return _refusal(f"{error.get('code')} {error.get('description')}")


def _refusal(status: str) -> Exception:
    """Tell what will not change from what does when the cluster has a leader again."""
    return ConnectionAbortedError(status) if status.startswith("5") else Refused(status)


READERS: dict[str, type[_Asked | _Pulled]] = {
    "engine-store": _AskedAfterTheLeader,
    "admin-store": _Pulled,
}
