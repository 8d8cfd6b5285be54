"""Root disks as qcow2 files on top of cached images, in directories of the host.

The cache holds only images that were verified on this host, under their blob ids; they are never
written again, so any number of disks may have one as their base. A disk's base is named relative
to it: the state directory can be moved as a whole.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from executors.commands import run
from executors.errors import CommandFailed, ImageRefused, StorageError, reason
from executors.layout import Layout
from executors.storage.blob import BlobError, Blobs
from executors.storage.check import check_content
from executors.storage.console import read_console, trim_console
from executors.waiting import in_thread
from schemas.ids import ServerId
from schemas.work import ImageSpec

log = structlog.get_logger(__name__)

VIRTUAL_SIZE_MAX_BYTES = 4 << 40
_GIB = 1 << 30
_MIB = 1 << 20
_CHUNK_BYTES = 1 << 20
_THREADS = 8
_QUICK_S = 30.0
_LONG_S = 900.0
_ASIDE = ".aside.qcow2"
_VIRTUAL_SIZE = slice(24, 32)  # in a qcow2's header, big-endian


class Cached(Struct, frozen=True, kw_only=True):
    """What was found out about a cached image; kept beside it as ``<blob_id>.json``."""

    disk_format: str
    sha512: str
    virtual_size_bytes: int


class FileStorage:
    """The disks and images under ``DIR/host``."""

    def __init__(self, layout: Layout, *, check_images: bool = True) -> None:
        self._layout = layout
        self._check_images = check_images
        self._blobs = Blobs(layout.blobs)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._image_locks: dict[str, asyncio.Lock] = {}
        self._known: dict[str, Cached] = {}

    async def start(self) -> None:
        """Make the directories, and remove what a killed agent left unfinished."""

        def prepare() -> None:
            for path in (self._layout.host, self._layout.images, self._layout.servers):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in self._layout.images.glob(".*.part"):
                path.unlink(missing_ok=True)

        await self._quickly(prepare, "the state directory cannot be prepared")

    # Images

    async def check(self, image: ImageSpec) -> int:
        """Verify an image and keep it in the cache, since somebody is about to boot from it.

        Raises:
            ImageRefused: it is not what it says.
            StorageError: it could not be checked.
        """
        if not self._check_images:
            return image.virtual_size_bytes or image.size_bytes
        await self.ensure_image(image)
        return self._known[image.blob_id].virtual_size_bytes

    async def ensure_image(self, image: ImageSpec) -> None:
        """Have a verified copy (or link) of a blob in the cache.

        Raises:
            ImageRefused: the content is not what it says, or not safe.
            StorageError: the blob is not there, or there is no room.
        """
        if image.blob_id in self._known:
            return
        lock = self._image_locks.setdefault(image.blob_id, asyncio.Lock())
        async with lock:
            if image.blob_id in self._known:
                return
            cached = await in_thread(self._threads, lambda: self._fetch(image), deadline_s=_LONG_S)
            self._known[image.blob_id] = cached

    def _fetch(self, image: ImageSpec) -> Cached:
        try:
            source = self._blobs.path(image.blob_id)
            final = self._layout.images / image.blob_id
            if (cached := self._read_note(final)) is not None:
                return cached
            part = final.with_name(f".{image.blob_id}.part")
            part.unlink(missing_ok=True)
            try:
                return self._verify(image, source, part, final)
            finally:
                part.unlink(missing_ok=True)
        except FileNotFoundError as error:
            raise StorageError("the image's content is not on this host") from error
        except (OSError, BlobError) as error:
            raise StorageError("the image cannot be put into the cache") from error

    def _verify(self, image: ImageSpec, source: Path, part: Path, final: Path) -> Cached:
        _link_or_copy(source, part)
        if part.stat().st_size != image.size_bytes or _sha512(part) != image.sha512:
            raise ImageRefused("the image's content is not what was uploaded")
        size_bytes = check_content(
            part, image.disk_format, virtual_size_max_bytes=VIRTUAL_SIZE_MAX_BYTES
        )
        cached = Cached(
            disk_format=image.disk_format, sha512=image.sha512, virtual_size_bytes=size_bytes
        )
        # The note says that the image beside it is good: so the image first, then the note.
        part.replace(final)
        note = part.with_suffix(".json.part")
        note.write_bytes(msgspec.json.encode(cached))
        note.replace(_note_path(final))
        return cached

    def _read_note(self, final: Path) -> Cached | None:
        try:
            if not final.is_file():
                return None
            return msgspec.json.decode(_note_path(final).read_bytes(), type=Cached)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    async def evict(self, keep: frozenset[str]) -> tuple[str, ...]:
        """Drop images that are neither in ``keep`` nor the base of a disk here."""

        def sweep() -> tuple[str, ...]:
            used = {base for s in self._server_ids() if (base := self._base_of(s))}
            gone = []
            for path in self._layout.images.iterdir():
                blob_id = path.name.removesuffix(".json")
                if blob_id in keep or blob_id in used or blob_id.startswith("."):
                    continue
                path.unlink(missing_ok=True)
                if blob_id == path.name:
                    gone.append(blob_id)
            return tuple(gone)

        gone = await self._quickly(sweep, "the image cache cannot be swept")
        for blob_id in gone:
            self._known.pop(blob_id, None)
            self._image_locks.pop(blob_id, None)
        return gone

    # Disks

    async def ensure_disk(self, server_id: ServerId, image: ImageSpec, disk_gib: int) -> bool:
        """Have a root disk on a cached image; True if it was made now.

        Raises:
            StorageError: the image does not fit into ``disk_gib``, or there is no room.
        """
        cached = self._known[image.blob_id]
        size_bytes = cached.virtual_size_bytes
        if disk_gib:
            short_mib = -(-(size_bytes - disk_gib * _GIB) // _MIB)
            if short_mib > 0:
                raise StorageError(
                    f"the image's disk of {-(-size_bytes // _MIB)} MiB does not fit into the "
                    f"flavor's {disk_gib} GiB: it is {short_mib} MiB too large"
                )
            size_bytes = disk_gib * _GIB
        return await in_thread(
            self._threads,
            lambda: self._make_disk(server_id, image.blob_id, cached.disk_format, size_bytes),
            deadline_s=_QUICK_S,
        )

    def _make_disk(
        self, server_id: ServerId, blob_id: str, base_format: str, size_bytes: int
    ) -> bool:
        disk = self._layout.disk(server_id)
        if disk.exists():
            return False
        try:
            disk.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (disk.parent / "base").write_text(blob_id)
            part = disk.with_suffix(".part")
            part.unlink(missing_ok=True)
            base = os.path.relpath(self._layout.images / blob_id, disk.parent)
            create = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", base_format, "-b", base)
            run([*create, str(part), str(size_bytes)], deadline_s=_QUICK_S)
            part.replace(disk)
        except (OSError, CommandFailed) as error:
            raise StorageError("the root disk cannot be made") from error
        return True

    async def fit_disk(
        self, server_id: ServerId, disk_gib: int, resize: int, *, revertible: bool
    ) -> None:
        """Bring a root disk that no domain uses to how a resize left it.

        Raises:
            StorageError: there is no room for the disk, or for the copy that is put aside.
        """

        def fit() -> None:
            try:
                self._put_back(server_id, resize, revertible=revertible)
                self._grow(server_id, disk_gib * _GIB, resize if revertible else None)
            except (OSError, CommandFailed) as error:
                raise StorageError(f"the root disk cannot be resized: {reason(error)}") from error

        await in_thread(self._threads, fit, deadline_s=_LONG_S)

    def _put_back(self, server_id: ServerId, resize: int, *, revertible: bool) -> None:
        disk = self._layout.disk(server_id)
        for part in disk.parent.glob("*.aside.part"):
            part.unlink(missing_ok=True)
        for number, aside in sorted(self._aside(server_id).items(), reverse=True):
            if number > resize:
                aside.replace(disk)
            elif number < resize or not revertible:
                aside.unlink(missing_ok=True)

    def _grow(self, server_id: ServerId, size_bytes: int, resize: int | None) -> None:
        """Grow a disk; first put a copy of it aside, if a resize may have to be reverted."""
        disk = self._layout.disk(server_id)
        if _virtual_size(disk) >= size_bytes:
            return
        if resize is not None and resize not in self._aside(server_id):
            part = disk.with_name(f"{resize}.aside.part")
            run(
                ("cp", "--reflink=auto", "--sparse=always", "--", str(disk), str(part)),
                deadline_s=_LONG_S,
            )
            _sync(part)
            part.replace(disk.with_name(f"{resize}{_ASIDE}"))
        run(
            ("qemu-img", "resize", "-q", "-f", "qcow2", str(disk), str(size_bytes)),
            deadline_s=_QUICK_S,
        )

    def _aside(self, server_id: ServerId) -> dict[int, Path]:
        """Return the disks that resizes have put aside, by the number of each."""
        found = self._layout.server(server_id).glob(f"*{_ASIDE}")
        return {int(path.name.removesuffix(_ASIDE)): path for path in found}

    async def let_go(self, server_id: ServerId, resize: int) -> None:
        """Remove the disks put aside by this resize and earlier ones; a domain may run."""

        def remove() -> None:
            for number, aside in self._aside(server_id).items():
                if number <= resize:
                    aside.unlink(missing_ok=True)

        await self._quickly(remove, "what a resize has put aside cannot be removed")

    async def has_disk(self, server_id: ServerId) -> bool:
        """Return whether the root disk is there."""
        return self._layout.disk(server_id).exists()

    async def remove(self, server_id: ServerId) -> None:
        """Remove a server's directory with all that is in it.

        Raises:
            StorageError: something in it cannot be removed.
        """
        directory = self._layout.server(server_id)
        if not directory.exists():
            return

        def clear() -> None:
            # Renamed first, so that a half-removed directory is never taken for a server.
            grave = directory.with_name(f".{server_id}.gone")
            if directory.exists():
                shutil.rmtree(grave, ignore_errors=True)
                directory.rename(grave)
            shutil.rmtree(grave)

        await self._quickly(clear, "the server's files cannot be removed")

    async def servers(self) -> set[ServerId]:
        """Return the servers that have a directory; finish removals that were cut short."""

        def scan() -> set[ServerId]:
            for grave in self._layout.servers.glob(".*.gone"):
                shutil.rmtree(grave, ignore_errors=True)
            return set(self._server_ids())

        return await self._quickly(scan, "the servers' files cannot be listed")

    def _server_ids(self) -> list[ServerId]:
        return [p.name for p in self._layout.servers.iterdir() if not p.name.startswith(".")]

    def _base_of(self, server_id: ServerId) -> str | None:
        try:
            return (self._layout.server(server_id) / "base").read_text()
        except FileNotFoundError:
            return None

    def disk_path(self, server_id: ServerId) -> str:
        """Return the root disk's path."""
        return str(self._layout.disk(server_id))

    # Consoles

    async def console(self, server_id: ServerId, lines: int | None) -> str:
        """Return the last lines of the console, or as much as one answer may hold.

        Raises:
            StorageError: this host has no console of the server.
        """
        path = self._layout.console(server_id)
        return await self._quickly(
            lambda: read_console(path, lines), "this host has no console of the server"
        )

    async def trim_consoles(self) -> None:
        """Cut consoles that grew too long, keeping their ends."""

        def trim() -> None:
            for server_id in self._server_ids():
                trim_console(self._layout.console(server_id))

        await self._quickly(trim, "the consoles cannot be trimmed")

    def console_path(self, server_id: ServerId) -> str:
        """Return the console's path."""
        return str(self._layout.console(server_id))

    # Room

    def disk_capacity_gib(self) -> int:
        """Return what is free plus what disks here have taken already, in whole GiB."""
        taken = 0
        for path in self._layout.servers.glob("*/*.qcow2"):
            try:
                taken += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return (self._free_bytes() + taken) // _GIB

    def disk_free_gib(self) -> int:
        """Return the free room of the file system in whole GiB."""
        return self._free_bytes() // _GIB

    def _free_bytes(self) -> int:
        found = os.statvfs(self._layout.host)
        return found.f_bavail * found.f_frsize

    async def _quickly[T](self, work: Callable[[], T], failure: str) -> T:
        try:
            return await in_thread(self._threads, work, deadline_s=_QUICK_S)
        except OSError as error:
            raise StorageError(failure) from error


def _note_path(image: Path) -> Path:
    return image.with_name(image.name + ".json")


def _link_or_copy(source: Path, target: Path) -> None:
    """Share the blob's bytes where that is possible: blobs never change."""
    try:
        os.link(source, target)
    except OSError:
        with source.open("rb") as reader, target.open("xb") as writer:
            shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
            writer.flush()
            os.fsync(writer.fileno())


def _virtual_size(disk: Path) -> int:
    with disk.open("rb") as file:
        return int.from_bytes(file.read(_VIRTUAL_SIZE.stop)[_VIRTUAL_SIZE], "big")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
