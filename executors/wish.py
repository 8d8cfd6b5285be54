"""A wish: how one resource of this host shall be, since when, and who waits for it."""

from dataclasses import dataclass

from executors.position import Version
from schemas.operation import Operation
from schemas.units import Micros
from schemas.work import ImageSpec, ServerSpec


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The newest word on a resource. ``server`` None: it shall not be here.

    ``operations`` wait for a report. ``audited`` marks wishes from a reconciliation: what they
    find different, without an operation that explains it, is drift. ``look`` asks only whether the
    domain has ended: nothing is started or stopped for it.
    """

    resource_id: str
    version: Version
    server: ServerSpec | None = None
    image: ImageSpec | None = None
    operations: tuple[Operation, ...] = ()
    audited: bool = False
    look: bool = False

    @property
    def deadline(self) -> Micros | None:
        """Return when the last operation waiting for this is given up, None if none waits."""
        return max((o.deadline for o in self.operations), default=None)

    @property
    def wanted(self) -> str:
        """Return running, stopped, absent, or checked."""
        if self.image is not None:
            return "checked"
        return "absent" if self.server is None else self.server.wanted
