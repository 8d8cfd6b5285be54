"""Who can do a thing: whom the entries of a rule let in, and by which grants.

The other way round than ``engine.domain.identity.directory``, and by its rules: a role counts where
it was given, to a user or a group, directly or inherited from above, and brings what it implies.
Invariant: a user is found for an entry and a place if and only if it has the entry's role there.
"""

from collections.abc import Iterator

from msgspec import Struct

from engine.domain.identity.directory import ancestors, with_ranked
from projections.reader import Reader
from schemas.identity import Grant, User
from schemas.policy import Who


class Holder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A user who has a role somewhere, and how it came to it.

    ``path`` leads from the role that was given to the one asked about; ``below`` says that it
    counts on the projects below ``target`` (a project or domain) and not there.
    """

    user_id: str
    user_name: str
    path: tuple[str, ...]
    scope: str
    target: str = ""
    group_id: str = ""
    group_name: str = ""
    below: bool = False


def holders(
    reader: Reader, who: Who, *, project_id: str = "", domain_id: str = ""
) -> Iterator[Holder]:
    """Yield whom an entry lets in by its role; with a place, only for what is there.

    Of entries that need no role (``user over self``) nobody is named.
    """
    if not who.role:
        return
    found = paths(reader, who.role)
    anywhere = who.target == "any"
    for role_id, path in found.items():
        for grant in _grants(
            reader,
            who.scope,
            role_id,
            "" if anywhere else project_id,
            "" if anywhere else domain_id,
        ):
            yield from _holding(reader, grant, path)


def paths(reader: Reader, wanted: str) -> dict[str, tuple[str, ...]]:
    """Return, by id, the roles that bring a role, each with the names on the way to it."""
    roles = {role.role_id: role for role in reader.roles()}
    found: dict[str, tuple[str, ...]] = {}
    for role in roles.values():
        if not role.domain_id and wanted in with_ranked(role.name):
            found[role.role_id] = (wanted,) if role.name == wanted else (role.name, wanted)
    above: dict[str, list[str]] = {}
    for one in reader.implications():
        above.setdefault(one.implied_role_id, []).append(one.prior_role_id)
    waiting = list(found)
    while waiting:
        implied = waiting.pop(0)
        for prior in above.get(implied, ()):
            if prior in roles and prior not in found:
                found[prior] = (roles[prior].name, *found[implied])
                waiting.append(prior)
    return found


def _grants(
    reader: Reader, scope: str, role_id: str, project_id: str, domain_id: str
) -> Iterator[Grant]:
    """Yield the grants of a role that count in a scope, or for one project or domain of it."""
    if scope in {"system", "cloud"}:
        yield from reader.grants(role_id=role_id, system=True)
    if scope == "domain":
        given = reader.grants(role_id=role_id, domain_id=domain_id or None, inherited=False)
        yield from (grant for grant in given if grant.domain_id)
    if scope == "cloud" or (scope == "project" and not project_id):
        given = reader.grants(role_id=role_id)
        yield from (g for g in given if g.project_id or (g.domain_id and g.inherited))
    elif scope == "project":
        yield from reader.grants(role_id=role_id, project_id=project_id, inherited=False)
        for above in ancestors(reader, project_id):
            yield from reader.grants(role_id=role_id, project_id=above, inherited=True)
            yield from reader.grants(role_id=role_id, domain_id=above, inherited=True)


def _holding(reader: Reader, grant: Grant, path: tuple[str, ...]) -> Iterator[Holder]:
    """Yield the users who have a grant, by name: those who may sign in."""
    group = reader.group(grant.group_id) if grant.group_id else None
    users: list[User] = []
    if group is not None:
        stored = reader.users(group_id=group.group_id)
        told = reader.federated_members(group.group_id)
        users = list({user.user_id: user for user in (*stored, *told)}.values())
    elif (user := reader.user(grant.user_id)) is not None:
        users = [user]
    for user in users:
        if user.enabled:
            yield Holder(
                user_id=user.user_id,
                user_name=user.name,
                path=path,
                scope="system" if grant.system else "domain" if grant.domain_id else "project",
                target=grant.project_id or grant.domain_id,
                group_id=grant.group_id,
                group_name="" if group is None else group.name,
                below=grant.inherited,
            )
