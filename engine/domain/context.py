"""What a decision may look at besides the state: who asks, what time it is, fresh ids."""

from collections.abc import Callable

from msgspec import Struct

from schemas.envelope import Actor
from schemas.errors import Forbidden
from schemas.units import Micros


class Reach(Struct, frozen=True, kw_only=True):
    """How far a permission goes: to anybody's things, or those of a project, a domain, a user.

    ``rule`` is the entry of the policy that gave it.
    """

    rule: str
    any: bool = False
    project: bool = False
    domain: bool = False
    user: bool = False


class Context(Struct, frozen=True, kw_only=True):
    """The inputs of one decision.

    ``roles`` are those the state grants the actor now, implied ones included; the request's own
    claim is not used. ``reach`` is how far the policy lets it go with this action, ``may`` whether
    it allows another by name. ``new_id`` returns a fresh UUID in its canonical form. ``trace`` is
    only handed on, to whoever carries out what is decided.
    """

    actor: Actor
    roles: frozenset[str]
    reach: Reach
    may: Callable[[str], bool]
    now: Micros
    request_id: str
    new_id: Callable[[], str]
    trace: str = ""

    def need_project(self) -> str:
        """Return the project that what the actor makes belongs to: its token's.

        Raises:
            Forbidden: the token's scope is none, or another than a project.
        """
        if not self.actor.project_id:
            raise Forbidden("this needs a token scoped to a project, which it would belong to")
        return self.actor.project_id

    def owns(self, project_id: str) -> bool:
        """Whether the actor may act on resources of this project."""
        reach = self.reach
        return reach.any or (reach.project and self.actor.project_id == project_id)

    def owns_domain(self, domain_id: str) -> bool:
        """Whether the actor may act on users, groups and projects of this domain."""
        reach = self.reach
        return reach.any or (reach.domain and self.actor.domain_id == domain_id)

    def is_self(self, user_id: str) -> bool:
        """Whether the actor may act on what belongs to this user."""
        reach = self.reach
        return reach.any or (reach.user and self.actor.user_id == user_id)
