"""Groups and who is in them."""

from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.identity.attributes import Attributes
from api.identity.lists import BY_NAME, domain_asked, in_domain, listing, unseen
from api.identity.views import group_view, user_view
from api.pagination import flag
from api.routing import Routes
from api.writing import write
from schemas.errors import InvalidInput, NotFound
from schemas.identity import (
    AddGroupMember,
    CreateGroup,
    DeleteGroup,
    Group,
    RemoveGroupMember,
    UpdateGroup,
)
from schemas.ids import DEFAULT_DOMAIN
from schemas.units import LongText, Text

READ = "identity:groups:read"


class _NewGroup(Struct, frozen=True):
    name: Text
    domain_id: Text | None = None
    description: LongText | None = None


class _GroupChange(Struct, frozen=True):
    name: Text | None = None
    domain_id: Text | None = None
    description: LongText | None = None


_new = Attributes("group", _NewGroup)
_change = Attributes("group", _GroupChange)


def find_group(call: Call, action: str = READ) -> Group:
    """Return the group of the path, of a domain that the caller reaches.

    Raises:
        NotFound: there is none, or it is another domain's.
        Forbidden: the caller may see none.
    """
    reach, ident = call.allow(action), call.args[0]
    group = call.edge.reader.group(ident)
    if group is None or not in_domain(call, reach, group.domain_id):
        raise unseen(reach, "group", ident)
    return group


async def list_groups(call: Call) -> Answer:
    """GET /groups."""
    groups = call.edge.reader.groups(
        domain_id=domain_asked(call, call.allow(READ)), name=call.param("name") or None
    )
    return listing(call, "groups", [group_view(g, call.base) for g in groups])


def _shown(call: Call, group_id: str, status: int = 200) -> Answer:
    group = call.edge.reader.group(group_id)
    if group is None:
        raise NotFound(f"there is no group {group_id[:64]!r}")
    return json_answer({"group": group_view(group, call.base)}, status)


async def create_group(call: Call) -> Answer:
    """POST /groups."""
    wish, extra = await _new.read(call)
    reply = await write(
        call,
        CreateGroup(
            name=wish.name,
            domain_id=wish.domain_id or call.principal.token.domain_id or DEFAULT_DOMAIN,
            description=wish.description or "",
            extra=extra,
        ),
    )
    return _shown(call, reply["group_id"], 201)


async def show_group(call: Call) -> Answer:
    """GET /groups/{id}."""
    return json_answer({"group": group_view(find_group(call), call.base)})


async def change_group(call: Call) -> Answer:
    """PATCH /groups/{id}."""
    wish, extra = await _change.read(call)
    group = find_group(call, "UpdateGroup")
    if wish.domain_id not in {None, group.domain_id}:
        raise InvalidInput("a group stays in its domain")
    await write(
        call,
        UpdateGroup(
            group_id=group.group_id, name=wish.name, description=wish.description, extra=extra
        ),
    )
    return _shown(call, group.group_id)


async def delete_group(call: Call) -> Answer:
    """DELETE /groups/{id}."""
    await write(call, DeleteGroup(group_id=find_group(call, "DeleteGroup").group_id))
    return Answer(204)


async def list_members(call: Call) -> Answer:
    """GET /groups/{id}/users."""
    users = call.edge.reader.users(
        group_id=find_group(call).group_id,
        name=call.param("name") or None,
        enabled=flag(call, "enabled"),
    )
    return listing(call, "users", [user_view(u, call.base) for u in users])


async def check_member(call: Call) -> Answer:
    """GET and HEAD /groups/{id}/users/{id}."""
    group = find_group(call)
    if not call.edge.reader.is_member(call.args[1], group.group_id):
        raise NotFound("the user is not in this group")
    return Answer(204)


async def add_member(call: Call) -> Answer:
    """PUT /groups/{id}/users/{id}."""
    group = find_group(call, "AddGroupMember")
    await write(call, AddGroupMember(group_id=group.group_id, user_id=_known_user(call)))
    return Answer(204)


async def remove_member(call: Call) -> Answer:
    """DELETE /groups/{id}/users/{id}."""
    group = find_group(call, "RemoveGroupMember")
    await write(call, RemoveGroupMember(group_id=group.group_id, user_id=_known_user(call)))
    return Answer(204)


def _known_user(call: Call) -> str:
    """Return the id of the user of the path; whether the caller may, the engine decides."""
    user = call.edge.reader.user(call.args[1])
    if user is None:
        raise NotFound(f"there is no user {call.args[1][:64]!r}")
    return user.user_id


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one = "/v3/groups", "/v3/groups/{}"
    members, member = f"{one}/users", f"{one}/users/{{}}"
    routes.add("GET", every, list_groups, READ, query=(*BY_NAME, "domain_id"))
    routes.add(
        "POST", every, create_group, "CreateGroup", body=_new.decoder, shape=_new.shape, status=201
    )
    routes.add("GET", one, show_group, READ)
    routes.add("PATCH", one, change_group, "UpdateGroup", body=_change.decoder, shape=_change.shape)
    routes.add("DELETE", one, delete_group, "DeleteGroup", status=204)
    routes.add("GET", members, list_members, READ, query=(*BY_NAME, "enabled"))
    routes.add("GET", member, check_member, READ, status=204)
    routes.add("PUT", member, add_member, "AddGroupMember", status=204)
    routes.add("DELETE", member, remove_member, "RemoveGroupMember", status=204)
