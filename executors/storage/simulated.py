"""Storage of nothing: disks are names in a table. See ``hypervisor/simulated.py`` for why."""

from executors.errors import StorageError
from schemas.ids import ServerId
from schemas.work import ImageSpec

_GIB = 1 << 30
_DISK_GIB = 2**21


class SimulatedStorage:
    """Every image is good, unless its size is zero; every disk is there at once."""

    def __init__(self) -> None:
        self._images: dict[str, int] = {}
        self._disks: dict[ServerId, str] = {}

    async def start(self) -> None:
        """Nothing to prepare."""

    async def check(self, image: ImageSpec) -> int:
        """Believe what is said: a virtual disk of the file's size, or of the size given."""
        if image.size_bytes == 0:
            raise StorageError("the image is empty")
        return image.virtual_size_bytes or image.size_bytes

    async def ensure_image(self, image: ImageSpec) -> None:
        """Remember the image."""
        self._images[image.blob_id] = image.virtual_size_bytes or image.size_bytes

    async def ensure_disk(self, server_id: ServerId, image: ImageSpec, disk_gib: int) -> bool:
        """Remember the disk, if the image fits."""
        if server_id in self._disks:
            return False
        size_bytes = self._images[image.blob_id]
        if disk_gib and disk_gib * _GIB < size_bytes:
            short_mib = -(-(size_bytes - disk_gib * _GIB) // (1 << 20))
            raise StorageError(f"the root disk is {short_mib} MiB too small for the image")
        self._disks[server_id] = image.blob_id
        return True

    async def fit_disk(
        self, server_id: ServerId, disk_gib: int, resize: int, *, revertible: bool
    ) -> None:
        """Do nothing: a name has no size."""

    async def let_go(self, server_id: ServerId, resize: int) -> None:
        """Do nothing: nothing was put aside."""

    async def has_disk(self, server_id: ServerId) -> bool:
        """Return whether the disk is remembered."""
        return server_id in self._disks

    async def remove(self, server_id: ServerId) -> None:
        """Forget a server's disk."""
        self._disks.pop(server_id, None)

    async def servers(self) -> set[ServerId]:
        """Return the servers with a disk."""
        return set(self._disks)

    async def evict(self, keep: frozenset[str]) -> tuple[str, ...]:
        """Forget images that nothing needs."""
        used = set(self._disks.values())
        gone = tuple(b for b in self._images if b not in keep and b not in used)
        for blob_id in gone:
            del self._images[blob_id]
        return gone

    async def console(self, server_id: ServerId, lines: int | None) -> str:  # noqa: ARG002  # the port's
        """Return the one line that a simulated guest says."""
        if server_id not in self._disks:
            raise StorageError("this host has no console of the server")
        return "simulated guest\n"

    async def trim_consoles(self) -> None:
        """Nothing grows."""

    def disk_capacity_gib(self) -> int:
        """Return a constant: room for a scale test."""
        return _DISK_GIB

    def disk_free_gib(self) -> int:
        """Return a constant: nothing is used up."""
        return _DISK_GIB

    def disk_path(self, server_id: ServerId) -> str:
        """Return a path that nothing lies at."""
        return f"/nonexistent/{server_id}/disk.qcow2"

    def console_path(self, server_id: ServerId) -> str:
        """Return a path that nothing lies at."""
        return f"/nonexistent/{server_id}/console.log"
