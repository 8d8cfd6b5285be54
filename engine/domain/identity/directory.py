"""Which roles somebody has where: the one computation, for the engine's state and for read models.

A role counts where it was given, to the user or to a group of theirs, and by inheritance from the
domain or the projects above. It brings what it implies. A domain's own role brings only that.
"""

from collections.abc import Iterable
from typing import Protocol

from schemas.identity import RANKED, Project, Role


class Directory(Protocol):
    """What must be known of identity to tell roles."""

    def role(self, role_id: str) -> Role | None:
        """Return a role."""
        ...

    def project(self, project_id: str) -> Project | None:
        """Return a project."""
        ...

    def groups_of(self, user_id: str) -> Iterable[str]:
        """Return the ids of a user's groups."""
        ...

    def granted(self, holder: str, target: str, *, inherited: bool) -> Iterable[str]:
        """Return the ids of roles that a user or group was given on a target."""
        ...

    def implied(self, role_id: str) -> Iterable[str]:
        """Return the ids of roles that an operator has made another imply."""
        ...


PARENTS_MAX = 16


def roles_on(directory: Directory, user_id: str, target: str) -> frozenset[str]:
    """Return the names of the roles a user has on a project or domain, or in ``system``."""
    return expanded(directory, given_on(directory, user_id, target))


def given_on(directory: Directory, user_id: str, target: str) -> set[str]:
    """Return the ids of the roles given to a user there by any way, without what they imply."""
    holders = (user_id, *directory.groups_of(user_id))
    found: set[str] = set()
    for holder in holders:
        found.update(directory.granted(holder, target, inherited=False))
    for above in ancestors(directory, target):
        for holder in holders:
            found.update(directory.granted(holder, above, inherited=True))
    return found


def ancestors(directory: Directory, target: str) -> list[str]:
    """Return what a project lies in, nearest first: projects, then its domain."""
    project = directory.project(target)
    if project is None:
        return []
    above: list[str] = []
    domain_id = project.domain_id
    while project is not None and project.parent_id and len(above) < PARENTS_MAX:
        above.append(project.parent_id)
        project = directory.project(project.parent_id)
    return [*above, domain_id]


def expanded(directory: Directory, role_ids: Iterable[str]) -> frozenset[str]:
    """Return the names of roles together with those they imply."""
    names: set[str] = set()
    seen: set[str] = set()
    waiting = list(role_ids)
    while waiting:
        role_id = waiting.pop()
        if role_id in seen:
            continue
        seen.add(role_id)
        role = directory.role(role_id)
        if role is None:
            continue
        waiting.extend(directory.implied(role_id))
        if not role.domain_id:
            names.update(with_ranked(role.name))
    return frozenset(names)


def with_ranked(name: str) -> tuple[str, ...]:
    """Return a role's name with those of the built-in roles below it."""
    return RANKED[RANKED.index(name) :] if name in RANKED else (name,)
