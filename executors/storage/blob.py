"""Blobs: immutable byte strings under names of our own making.

A blob is there whole or not at all: it is written beside, synced, and renamed into place. Its
name says nothing about what it holds and is never taken from a client. Blocking file calls run in
threads, so that a slow disk stops nobody else.
"""

import asyncio
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CHUNK_BYTES = 1 << 20
_PART = ".part"


class BlobError(Exception):
    """A blob cannot be written or read."""


class BlobTooLarge(BlobError):
    """The stream goes on past its limit; nothing of it was kept."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the content is larger than the limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class BlobMissing(BlobError):
    """No blob has this id."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A blob that is safely on disk. Digests are lower-case hexadecimal."""

    blob_id: str
    size_bytes: int
    md5: str
    sha512: str


class _Sink:
    """One file being written, with its digests. Every method blocks."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self.md5 = hashlib.md5(usedforsecurity=False)  # what image clients compare, no more
        self.sha512 = hashlib.sha512()
        self.file: BinaryIO = path.open("xb", buffering=0)

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if self.size_bytes > self.limit_bytes:
            raise BlobTooLarge(self.limit_bytes)
        self.md5.update(chunk)
        self.sha512.update(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self.file.write(rest) :]

    def commit(self, final: Path) -> None:
        os.fchmod(self.file.fileno(), 0o400)
        os.fsync(self.file.fileno())
        self.file.close()
        self.path.rename(final)
        _sync_directory(final.parent)

    def abandon(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class BlobReader:
    """An open blob: stays readable after a delete, until it is closed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size_bytes = os.fstat(file.fileno()).st_size

    async def read(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from ``start`` up to but not including ``end``, in chunks of ≤ 1 MiB."""
        stop = self.size_bytes if end is None else min(end, self.size_bytes)
        while start < stop:
            count = min(_CHUNK_BYTES, stop - start)
            chunk = await asyncio.to_thread(os.pread, self._file.fileno(), count, start)
            if not chunk:
                raise BlobError("the blob is shorter than it was when it was opened")
            start += len(chunk)
            yield chunk

    async def close(self) -> None:
        """Close the file. Repeating is harmless."""
        self._file.close()


class Blobs:
    """The blobs of one directory, which is made when first written to.

    Writers and readers may be several processes: names are random, and renames are atomic.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, blob_id: str) -> Path:
        """Return where a blob lies or would lie.

        Raises:
            BlobError: the id is not one of ours; it might name another directory.
        """
        if not _ID.fullmatch(blob_id):
            raise BlobError("a blob id has 1 to 128 letters, digits, dashes and underscores")
        return self.root / blob_id

    async def write(self, stream: AsyncIterator[bytes], *, limit_bytes: int) -> Written:
        """Store a stream and return its new id, size and digests.

        The bytes are on disk (fsync of file and directory) when this returns. If the stream fails,
        is cancelled, or passes the limit, nothing is left behind.

        Raises:
            BlobTooLarge: more than ``limit_bytes`` came.
        """
        blob_id = secrets.token_hex(16)
        sink = await asyncio.to_thread(self._begin, blob_id, limit_bytes)
        try:
            async for chunk in stream:
                if chunk:
                    await asyncio.to_thread(sink.write, chunk)
            await asyncio.to_thread(sink.commit, self.path(blob_id))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(sink.abandon))
            raise
        return Written(
            blob_id=blob_id,
            size_bytes=sink.size_bytes,
            md5=sink.md5.hexdigest(),
            sha512=sink.sha512.hexdigest(),
        )

    @asynccontextmanager
    async def open(self, blob_id: str) -> AsyncIterator[BlobReader]:
        """Open a blob for reading any range of it.

        Raises:
            BlobMissing: there is none of this id.
        """
        try:
            file = await asyncio.to_thread(self.path(blob_id).open, "rb", 0)
        except FileNotFoundError:
            raise BlobMissing(f"no blob {blob_id}") from None
        reader = BlobReader(file)
        try:
            yield reader
        finally:
            await reader.close()

    async def delete(self, blob_id: str) -> bool:
        """Remove a blob; False if it was not there. Whoever has it open can read on."""

        def remove() -> bool:
            try:
                self.path(blob_id).unlink()
            except FileNotFoundError:
                return False
            return True

        return await asyncio.to_thread(remove)

    async def ids(self) -> list[str]:
        """Return the ids of all whole blobs, in no order."""

        def scan() -> list[str]:
            if not self.root.is_dir():
                return []
            with os.scandir(self.root) as entries:
                return [e.name for e in entries if _ID.fullmatch(e.name)]

        return await asyncio.to_thread(scan)

    async def sweep(self, *, older_than_s: float) -> int:
        """Remove unfinished writes that nobody has touched for so long; return how many."""

        def remove() -> int:
            count = 0
            for path in self.root.glob(f".*{_PART}") if self.root.is_dir() else ():
                age_s = time.time() - path.stat().st_mtime
                if age_s > older_than_s:
                    path.unlink(missing_ok=True)
                    count += 1
            return count

        return await asyncio.to_thread(remove)

    def _begin(self, blob_id: str, limit_bytes: int) -> _Sink:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _Sink(self.root / f".{blob_id}{_PART}", limit_bytes)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
