"""Who was given which role where: on a project, on a domain, in the system, or to inherit."""

from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import Struct

from api.exchange import Answer, Call
from api.identity.lists import in_domain, listing, unseen
from api.identity.views import role_view
from api.routing import Routes
from api.writing import write
from engine.domain.context import Reach
from schemas.errors import Forbidden, NotFound
from schemas.identity import Grant, GrantRole, RevokeRole

READ = "identity:grants:read"


class Place(Struct, frozen=True, kw_only=True):
    """What a path says: where and to whom, with the segments between."""

    target: Literal["projects", "domains", "system"]
    holder: Literal["users", "groups"]
    inherited: bool = False

    @property
    def path(self) -> str:
        """The path of the list of roles given there."""
        where = "/system" if self.target == "system" else f"/{self.target}/{{}}"
        return f"/v3{'/OS-INHERIT' if self.inherited else ''}{where}/{self.holder}/{{}}/roles"

    def grant(self, args: tuple[str, ...]) -> Grant:
        """Return what the path names; without a role where it is of the list."""
        *where, holder, role_id = args
        target = where[0] if where else ""
        return Grant(
            role_id=role_id,
            user_id=holder if self.holder == "users" else "",
            group_id=holder if self.holder == "groups" else "",
            project_id=target if self.target == "projects" else "",
            domain_id=target if self.target == "domains" else "",
            system=self.target == "system",
            inherited=self.inherited,
        )


PLACES = (
    Place(target="projects", holder="users"),
    Place(target="projects", holder="groups"),
    Place(target="domains", holder="users"),
    Place(target="domains", holder="groups"),
    Place(target="system", holder="users"),
    Place(target="system", holder="groups"),
    Place(target="projects", holder="users", inherited=True),
    Place(target="projects", holder="groups", inherited=True),
    Place(target="domains", holder="users", inherited=True),
    Place(target="domains", holder="groups", inherited=True),
)


def _check(call: Call, grant: Grant, action: str) -> None:
    """Check that what the path names is there for the caller.

    Raises:
        NotFound: a thing is not.
        Forbidden: the caller may see its own only.
    """
    reader, reach = call.edge.reader, call.allow(action)
    itself = reach.user and grant.user_id == call.principal.user_id
    if not itself:
        _check_target(call, reach, grant)
    known = reader.user(grant.user_id) if grant.user_id else reader.group(grant.group_id)
    if known is None or not (itself or in_domain(call, reach, known.domain_id)):
        what = "user" if grant.user_id else "group"
        raise unseen(reach, what, grant.holder)
    if grant.role_id and reader.role(grant.role_id) is None:
        raise NotFound(f"there is no role {grant.role_id[:64]!r}")


def _check_target(call: Call, reach: Reach, grant: Grant) -> None:
    reader = call.edge.reader
    if grant.system:
        if not reach.any:
            raise Forbidden("roles in the system are for those who rule or audit it")
        return
    if grant.domain_id:
        if reader.domain(grant.domain_id) is None or not in_domain(call, reach, grant.domain_id):
            raise unseen(reach, "domain", grant.domain_id)
        return
    project = reader.project(grant.project_id)
    if project is None or not in_domain(call, reach, project.domain_id):
        raise unseen(reach, "project", grant.project_id)


def _held(call: Call, grant: Grant) -> list[str]:
    return call.edge.reader.granted(grant.holder, grant.target, inherited=grant.inherited)


type Answering = Callable[[Call], Awaitable[Answer]]


def _lister(place: Place) -> Answering:
    async def list_roles(call: Call) -> Answer:
        grant = place.grant((*call.args, ""))
        _check(call, grant, READ)
        held = set(_held(call, grant))
        roles = [r for r in call.edge.reader.roles() if r.role_id in held]
        return listing(call, "roles", [role_view(r, call.base) for r in roles])

    return list_roles


def _checker(place: Place) -> Answering:
    async def check(call: Call) -> Answer:
        grant = place.grant(call.args)
        _check(call, grant, READ)
        if grant.role_id not in _held(call, grant):
            raise NotFound("the role was not given there")
        return Answer(204)

    return check


def _writer(place: Place, kind: type[GrantRole | RevokeRole]) -> Answering:
    async def change(call: Call) -> Answer:
        grant = place.grant(call.args)
        _check(call, grant, kind.__name__)
        await write(
            call,
            kind(
                role_id=grant.role_id,
                user_id=grant.user_id,
                group_id=grant.group_id,
                project_id=grant.project_id,
                domain_id=grant.domain_id,
                system=grant.system,
                inherited=grant.inherited,
            ),
        )
        return Answer(204)

    return change


def add(routes: Routes) -> None:
    """Route what this module answers."""
    for place in PLACES:
        end = "/inherited_to_projects" if place.inherited else ""
        one = f"{place.path}/{{}}{end}"
        routes.add("GET", place.path + end, _lister(place), READ)
        routes.add("GET", one, _checker(place), READ, status=204)
        routes.add("PUT", one, _writer(place, GrantRole), "GrantRole", status=204)
        routes.add("DELETE", one, _writer(place, RevokeRole), "RevokeRole", status=204)
