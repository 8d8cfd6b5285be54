"""Role assignments: as they were given, or what follows from them (effective).

Invariant: what is listed as effective is what tokens go by: for every user and target the roles are
those of ``engine.domain.identity.directory``.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from api.exchange import Answer, Call, json_answer
from api.identity.lists import in_domain, list_links
from api.identity.roles import implications
from api.pagination import flag
from api.routing import Routes
from engine.domain.context import Reach
from engine.domain.identity.directory import ancestors
from schemas.errors import Forbidden, InvalidInput
from schemas.identity import Grant, Role

INHERITED = "scope.OS-INHERIT:inherited_to"
ASKED = (
    "user.id", "group.id", "role.id", "scope.project.id", "scope.domain.id", "scope.system",
    INHERITED, "effective", "include_names", "include_subtree",
)  # fmt: skip


class Assignment(Struct, frozen=True, kw_only=True):
    """A role that somebody has somewhere, and the grant that it comes from."""

    grant: Grant
    source: Grant
    prior_role_id: str = ""  # of the role that implies it


async def list_assignments(call: Call) -> Answer:
    """GET /role_assignments: those within reach; one's own for everybody."""
    reach = call.allow("identity:grants:read")
    asked = _Asked(call)
    if not (reach.any or reach.domain) and asked.user_id != call.principal.user_id:
        raise Forbidden("the roles of others are shown to administrators and auditors only")
    found = _effective(call, asked) if asked.effective else _given(call, asked)
    seen = [one for one in found if asked.wants(one) and _sees(call, reach, one.grant)]
    names = _Names(call) if asked.names else None
    views = [_view(call, one, names) for one in seen]
    return json_answer({"role_assignments": views, "links": list_links(call)})


class _Asked:
    """What the query asks for."""

    def __init__(self, call: Call) -> None:
        self.user_id = call.param("user.id")
        self.group_id = call.param("group.id")
        self.role_id = call.param("role.id")
        self.project_id = call.param("scope.project.id")
        self.domain_id = call.param("scope.domain.id")
        self.system = bool(call.param("scope.system"))
        self.inherited = call.param(INHERITED) == "projects"
        self.effective = _told(call, "effective")
        self.names = _told(call, "include_names")
        if self.user_id and self.group_id:
            raise InvalidInput("a role is a user's or a group's; ask for one of them")
        if [bool(self.project_id), bool(self.domain_id), self.system].count(True) > 1:
            raise InvalidInput("a role is on a project, on a domain, or in the system; ask for one")
        if self.effective and self.group_id:
            raise InvalidInput("effective roles are users' alone: nothing would be found")
        if self.effective and self.inherited and self.domain_id:
            raise InvalidInput("what is inherited from a domain is effective on projects alone")
        self.projects = {self.project_id} if self.project_id else set()
        if _told(call, "include_subtree"):
            if not self.project_id:
                raise InvalidInput("include_subtree needs scope.project.id")
            below = call.edge.reader.subtree(self.project_id)
            self.projects.update(project.project_id for project in below)

    def wants(self, one: Assignment) -> bool:
        """Say whether an assignment is among what is asked for."""
        grant = one.grant
        return (
            (not self.user_id or grant.user_id == self.user_id)
            and (not self.group_id or grant.group_id == self.group_id)
            and (not self.role_id or grant.role_id == self.role_id)
            and (not self.projects or grant.project_id in self.projects)
            and (not self.domain_id or grant.domain_id == self.domain_id)
            and (not self.system or grant.system)
            and (not self.inherited or one.source.inherited)
        )


def _told(call: Call, name: str) -> bool:
    """Return a flag that is on when it is named, whatever follows, but for what says no."""
    if not any(key == name for key, _ in call.query):
        return False
    return True if call.param(name) == "" else bool(flag(call, name))


def _sees(call: Call, reach: Reach, grant: Grant) -> bool:
    if reach.any or grant.user_id == call.principal.user_id:
        return True
    if grant.system:
        return False
    if grant.domain_id:
        return in_domain(call, reach, grant.domain_id)
    project = call.edge.reader.project(grant.project_id)
    return project is not None and in_domain(call, reach, project.domain_id)


def _given(call: Call, asked: _Asked) -> list[Assignment]:
    grants = call.edge.reader.grants(
        user_id=asked.user_id or None,
        group_id=asked.group_id or None,
        project_id=asked.project_id if len(asked.projects) == 1 else None,
        domain_id=asked.domain_id or None,
        system=asked.system or None,
        role_id=asked.role_id or None,
    )
    return [Assignment(grant=grant, source=grant) for grant in grants]


def _effective(call: Call, asked: _Asked) -> list[Assignment]:
    """Return what users have: groups made members, inheritance and implication followed."""
    reader = call.edge.reader
    roles = {role.role_id: role for role in reader.roles()}
    implied = implications(call)
    members: dict[str, list[str]] = {}
    found: dict[Grant, Assignment] = {}
    for source in _sources(call, asked):
        if source.group_id and source.group_id not in members:
            users = reader.users(group_id=source.group_id)
            members[source.group_id] = [user.user_id for user in users]
        for placed in _placed(call, source):
            for user_id in members[source.group_id] if source.group_id else (source.user_id,):
                held = replace(placed, user_id=user_id, group_id="")
                for one in _implied(held, source, roles, implied):
                    known = found.get(one.grant)
                    if known is None or (known.prior_role_id and not one.prior_role_id):
                        found[one.grant] = one
    return list(found.values())


def _sources(call: Call, asked: _Asked) -> Iterable[Grant]:
    """Return the grants that can have to do with what is asked."""
    reader = call.edge.reader
    if asked.user_id:
        found = reader.grants(user_id=asked.user_id)
        for group_id in reader.groups_of(asked.user_id):
            found += reader.grants(group_id=group_id)
        return found
    if len(asked.projects) == 1:
        found = reader.grants(project_id=asked.project_id)
        for above in ancestors(reader, asked.project_id):
            found += reader.grants(project_id=above, inherited=True)
            found += reader.grants(domain_id=above, inherited=True)
        return found
    if asked.domain_id:
        return reader.grants(domain_id=asked.domain_id)
    return reader.grants(system=asked.system or None)


def _placed(call: Call, source: Grant) -> Iterator[Grant]:
    """Return where a grant counts: there, or, if it is inherited, on all projects below."""
    if not source.inherited:
        yield source
        return
    reader = call.edge.reader
    if source.domain_id:
        below = reader.projects(domain_id=source.domain_id)
    else:
        below = reader.subtree(source.project_id)
    for project in below:
        yield replace(source, project_id=project.project_id, domain_id="", inherited=False)


def _implied(
    held: Grant, source: Grant, roles: dict[str, Role], implied: dict[str, list[str]]
) -> Iterator[Assignment]:
    """Return a role with those that it implies; a domain's own role brings only those."""
    seen: set[str] = set()
    waiting = [(held.role_id, "")]
    while waiting:
        role_id, prior = waiting.pop()
        role = roles.get(role_id)
        if role is None or role_id in seen:
            continue
        seen.add(role_id)
        waiting += [(one, role_id) for one in implied.get(role_id, ())]
        if not role.domain_id:
            yield Assignment(
                grant=replace(held, role_id=role_id), source=source, prior_role_id=prior
            )


class _Names:
    """Names of what role assignments speak of, each read once."""

    def __init__(self, call: Call) -> None:
        reader = call.edge.reader
        self.roles = {r.role_id: r for r in reader.roles()}
        self.users = {u.user_id: u for u in reader.users()}
        self.groups = {g.group_id: g for g in reader.groups()}
        self.projects = {p.project_id: p for p in reader.projects()}
        self.domains = {d.domain_id: d.name for d in reader.domains()}

    def add(self, ref: dict[str, Any], named: Any) -> dict[str, Any]:
        """Return a reference with the name, and the domain's, of what it is to."""
        if named is None:
            return ref
        ref["name"] = named.name
        if named.domain_id:
            name = self.domains.get(named.domain_id, named.domain_id)
            ref["domain"] = {"id": named.domain_id, "name": name}
        return ref


def _view(call: Call, one: Assignment, names: _Names | None) -> dict[str, Any]:
    grant, source = one.grant, one.source
    role: dict[str, Any] = {"id": grant.role_id}
    holder: dict[str, Any] = {"id": grant.holder}
    scope = _scope(grant, names)
    if names is not None:
        names.add(role, names.roles.get(grant.role_id))
        names.add(holder, names.users.get(grant.user_id) or names.groups.get(grant.group_id))
    if source.inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    root = f"{call.base}/identity/v3"
    links = {"assignment": root + _path(source)}
    if source.group_id and grant.user_id:
        links["membership"] = f"{root}/groups/{source.group_id}/users/{grant.user_id}"
    if one.prior_role_id:
        links["prior_role"] = f"{root}/prior_roles/{one.prior_role_id}/implies/{grant.role_id}"
    kind = "user" if grant.user_id else "group"
    return {"role": role, kind: holder, "scope": scope, "links": links}


def _scope(grant: Grant, names: _Names | None) -> dict[str, Any]:
    if grant.system:
        return {"system": {"all": True}}
    ref: dict[str, Any] = {"id": grant.target}
    if grant.domain_id:
        if names is not None:
            ref["name"] = names.domains.get(grant.domain_id, grant.domain_id)
        return {"domain": ref}
    if names is not None:
        names.add(ref, names.projects.get(grant.project_id))
    return {"project": ref}


def _path(grant: Grant) -> str:
    """Return the path below ``/v3`` at which a grant is found."""
    if grant.system:
        where = "/system"
    elif grant.project_id:
        where = f"/projects/{grant.project_id}"
    else:
        where = f"/domains/{grant.domain_id}"
    who = f"/users/{grant.user_id}" if grant.user_id else f"/groups/{grant.group_id}"
    path = f"{where}{who}/roles/{grant.role_id}"
    return f"/OS-INHERIT{path}/inherited_to_projects" if grant.inherited else path


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v3/role_assignments", list_assignments, "identity:grants:read", query=ASKED)
