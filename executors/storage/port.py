"""What storage must do for the agent: verified images, root disks on them, nothing else left."""

from typing import Protocol

from schemas.ids import ServerId
from schemas.work import ImageSpec


class Storage(Protocol):
    """One host's disks. Every method may be repeated, and killed at any moment."""

    async def start(self) -> None:
        """Make the directories. StorageError."""
        ...

    async def check(self, image: ImageSpec) -> int:
        """Look at an image's content and return its virtual size in bytes.

        ImageRefused: it is not what it says, or not safe; the text tells its owner why.
        """
        ...

    async def ensure_image(self, image: ImageSpec) -> None:
        """Have an image in the cache, verified. StorageError, ImageRefused."""
        ...

    async def ensure_disk(self, server_id: ServerId, image: ImageSpec, disk_gib: int) -> bool:
        """Have a server's root disk on a cached image; True if it was made now.

        ``disk_gib`` 0 means as large as the image. StorageError: the image does not fit.
        """
        ...

    async def fit_disk(
        self, server_id: ServerId, disk_gib: int, resize: int, *, revertible: bool
    ) -> None:
        """Bring a root disk that no domain uses to how a resize left it; it never shrinks.

        A disk put aside by a later resize than ``resize`` is put back, one by an earlier let go of.
        ``revertible``: before it grows, it is put aside as ``resize``'s, and kept until one of that
        happens; otherwise that one is let go of too. StorageError: there is no room.
        """
        ...

    async def let_go(self, server_id: ServerId, resize: int) -> None:
        """Remove the disks put aside by this resize and earlier ones; a domain may run."""
        ...

    async def has_disk(self, server_id: ServerId) -> bool:
        """Return whether a server's root disk is there."""
        ...

    async def remove(self, server_id: ServerId) -> None:
        """Remove all files of a server."""
        ...

    async def servers(self) -> set[ServerId]:
        """Return the servers that have files here."""
        ...

    async def evict(self, keep: frozenset[str]) -> tuple[str, ...]:
        """Drop cached images not in ``keep`` (blob ids) that no disk is based on; return which."""
        ...

    async def console(self, server_id: ServerId, lines: int | None) -> str:
        """Return the last lines of a server's console; all that is kept if None.

        StorageError: this host has no console of it.
        """
        ...

    async def trim_consoles(self) -> None:
        """Keep guests from filling the disk through their consoles."""
        ...

    def disk_capacity_gib(self) -> int:
        """Return how much disk servers may be promised, those that are here included."""
        ...

    def disk_free_gib(self) -> int:
        """Return how much room there is for disks to grow into."""
        ...

    def disk_path(self, server_id: ServerId) -> str:
        """Return where the root disk lies or would lie."""
        ...

    def console_path(self, server_id: ServerId) -> str:
        """Return where the console's text lies or would lie."""
        ...
