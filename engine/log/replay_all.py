"""Read the whole log fast, over all the streams that it lies in, and what was dropped of it.

``replay`` reads one stream; this one asks which streams there are, goes on in the next where one is
closed, and takes what lies in none any more from the archive.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from engine.bus.client import STORE_USERS
from engine.log.port import LogError, LogUnavailable
from engine.log.replay import RETRY_S, ReplayRefused, replay
from engine.log.streams import (
    NAMES,
    Archived,
    Stream,
    first_request,
    holding,
    names_request,
    numbers_in,
    rolls_to,
    whole,
)
from engine.log.wire import Refused, Wire
from schemas.subjects import Subjects

SEQUENCE = b"Nats-Sequence: "


def replay_log(
    url: str,
    user: str,
    password: str,
    cell: str,
    after_seq: int = 0,
    *,
    authority: str = "",
    timeout_s: float = 10.0,
    lost_s: float = 30.0,
    archived: Archived | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Yield (sequence, commit) of what follows ``after_seq``, up to the log's end as of the start.

    What lies in no stream any more comes from ``archived``. For the others see ``replay``.

    Raises:
        LogGone: what was dropped is not archived.
        LogUnavailable: no server can be reached, or has what the log's leader says is there.
        ReplayRefused: the password is wrong, or the user may not read the log.
    """
    reader = _Reader(url, user, password, cell, authority, timeout_s, lost_s)
    yield from whole(reader.read, after_seq, archived)


class _Reader:
    """Reads what lies in streams."""

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        cell: str,
        authority: str,
        timeout_s: float,
        lost_s: float,
    ) -> None:
        self._server = (url, user, password)
        self._cell = cell
        self._lost_s = lost_s
        self._bounds: dict[str, Any] = {"authority": authority, "timeout_s": timeout_s}

    def read(self, after_seq: int) -> Iterator[tuple[int, bytes]]:
        """Yield what follows.

        Raises:
            LogGone: it lies in no stream any more.
        """
        streams = self._look()
        newest = 0  # the highest number that a commit speaks of
        waited_at: float | None = None
        while True:
            before = after_seq
            for stream in holding(streams, after_seq + 1):
                try:
                    for seq, data in self._replayed(stream, after_seq):
                        if seq != after_seq + 1:
                            break  # of one that begins later: the one before it lags
                        yield seq, data
                        after_seq = seq
                        newest = max(newest, rolls_to(data))
                except LogError:
                    streams = self._look()
                    if stream.number in {each.number for each in streams}:
                        raise
                    break  # it was dropped meanwhile
            last = streams[-1].number
            if newest > last:
                streams = self._look()
                if streams[-1].number == last:
                    return  # it was closed, and the next one is not there yet
            elif after_seq > before:
                waited_at = None
                if stream.number == last:
                    return
            elif any(each.first > after_seq + 1 for each in streams):
                now = time.monotonic()
                waited_at = waited_at or now
                if now - waited_at > self._lost_s:
                    raise LogUnavailable(f"no server has {after_seq + 1} of the log")
                time.sleep(RETRY_S)
            else:
                return

    def _replayed(self, stream: Stream, after_seq: int) -> Iterator[tuple[int, bytes]]:
        url, user, password = self._server
        return replay(
            url, user, password, stream.name, after_seq, lost_s=self._lost_s, **self._bounds
        )

    def _look(self) -> list[Stream]:
        """Ask which streams there are.

        Raises:
            LogUnavailable: nobody answers.
            ReplayRefused: the password is wrong, or the user may not ask.
        """
        began = time.monotonic()
        while True:
            try:
                return self._looked()
            except Refused as error:
                raise ReplayRefused(f"the log of {self._cell}: {error}") from error
            except OSError as error:
                if time.monotonic() - began > self._lost_s:
                    raise LogUnavailable(f"cannot find the log: {error}") from error
            time.sleep(RETRY_S)

    def _looked(self) -> list[Stream]:
        url, user, password = self._server
        user = f"{user}-store" if user in STORE_USERS else user
        names = Subjects(cell=self._cell)
        with contextlib.closing(Wire(url, user, password, **self._bounds)) as wire:
            found = wire.call(NAMES, names_request(self._cell))
            if "error" in found:  # no leader yet, on a cluster
                raise ConnectionAbortedError(str(found["error"].get("description")))
            numbers = numbers_in(self._cell, found.get("streams") or ())
            if not numbers:
                raise ConnectionAbortedError("there is no log")
            return [
                Stream(number, names.log_stream_of(number), _first(wire, self._cell, number))
                for number in numbers
            ]


def _first(wire: Wire, cell: str, number: int) -> int:
    stream = Subjects(cell=cell).log_stream_of(number)
    wire.ask(f"$JS.API.DIRECT.GET.{stream}", first_request(cell, number))
    line, start, _ = wire.message()
    headers = wire.headers(line, start)
    if (found := headers.find(SEQUENCE)) >= 0:
        return int(headers[found + len(SEQUENCE) :].split(b"\r", 1)[0])
    status = wire.status(line, start)
    if status.startswith("404"):
        return 0
    raise ConnectionAbortedError(status)  # dropped meanwhile, or without a leader
