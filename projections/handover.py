"""Files that are handed over piece by piece: an answer may be larger than one message of the bus.

A file has no name, so that nothing is left of it however its process ends. Invariant: what is
handed over is what was written, and memory holds one piece of it, whatever its size.
"""

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msgspec import Struct

from schemas.errors import NotFound, Unavailable

PIECE_BYTES = 384 * 1024  # half a message of the bus, once it is text
KEPT_MAX = 8
IDLE_S = 300.0
IDLE_IF_FULL_S = 60.0


class OfPiece(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question for what a file has from an offset on."""

    file: str
    offset: int


class Piece(Struct, frozen=True, kw_only=True):
    """What a file has there: nothing after its end."""

    content: bytes  # in base64, as msgspec has bytes in JSON


class Handover:
    """The files of one process that somebody is reading. Threads may share it."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """``directory`` is where there is room for files; they do not show in it."""
        self._directory = directory
        self._clock = clock
        self._kept: dict[str, tuple[IO[bytes], float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[IO[bytes]]:
        """Give a file to write; it is gone if that fails, else ``keep`` it.

        Raises:
            Unavailable: the disk does not take it, or too many are kept.
        """
        with self._lock:
            self._make_room()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  # kept open
        except OSError as error:
            raise _failed(error) from error
        try:
            yield file
            file.flush()
        except OSError as error:
            file.close()
            raise _failed(error) from error
        except BaseException:
            file.close()
            raise

    def keep(self, file: IO[bytes]) -> str:
        """Keep a file until it was read, or nobody asks for it any more; return what it is called.

        Raises:
            Unavailable: too many are kept.
        """
        name = secrets.token_hex(16)
        with self._lock:
            try:
                self._make_room()
            except Unavailable:
                file.close()
                raise
            self._kept[name] = file, self._clock()
        return name

    def piece(self, asked: OfPiece) -> Piece:
        """Return a piece; the file goes with the last.

        Raises:
            NotFound: it was read, or nobody has asked for it for long.
        """
        with self._lock:
            file, _ = self._kept.pop(asked.file, (None, 0.0))
            if file is None or asked.offset < 0:
                raise NotFound("there is no such file, or it was read: ask for it anew")
            content = os.pread(file.fileno(), PIECE_BYTES, asked.offset)
            if asked.offset + len(content) < os.fstat(file.fileno()).st_size:
                self._kept[asked.file] = file, self._clock()
            else:
                file.close()
        return Piece(content=content)

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            while self._kept:
                self._kept.popitem()[1][0].close()

    def _make_room(self) -> None:
        """Let go of files that nobody asks for, sooner if there are many; or refuse another."""
        now = self._clock()
        # Asked for last, put in last: the first is the one that has waited longest.
        for name, (file, used) in list(self._kept.items()):
            if now - used > (IDLE_S if len(self._kept) < KEPT_MAX else IDLE_IF_FULL_S):
                del self._kept[name]
                file.close()
        if len(self._kept) >= KEPT_MAX:
            raise Unavailable(f"{KEPT_MAX} files are being read: ask again later")


def _failed(error: OSError) -> Unavailable:
    return Unavailable(f"the file cannot be written: {error.strerror or error}")
