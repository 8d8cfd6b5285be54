"""What a decision may look at besides the state: who asks, what time it is, fresh ids."""

from collections.abc import Callable

from msgspec import Struct

from schemas.envelope import Actor
from schemas.units import Micros


class Context(Struct, frozen=True, kw_only=True):
    """The inputs of one decision.

    ``roles`` are those the state grants the actor now, implied ones included; the request's own
    claim is not used. ``new_id`` returns a fresh UUID in its canonical form.
    """

    actor: Actor
    roles: frozenset[str]
    now: Micros
    request_id: str
    new_id: Callable[[], str]

    @property
    def is_admin(self) -> bool:
        """Whether the actor may act on every project's resources."""
        return "admin" in self.roles

    def owns(self, project_id: str) -> bool:
        """Whether the actor may act on resources of this project."""
        return self.is_admin or self.actor.project_id == project_id
