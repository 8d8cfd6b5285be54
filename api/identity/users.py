"""Users. How they change their own passwords is in ``passwords``."""

import msgspec
from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.identity.projects import listing, need_admin
from api.identity.views import project_view, user_view
from api.pagination import flag
from api.routing import Routes
from api.sealing_inbound import seal_password
from api.writing import write
from schemas.errors import InvalidInput, NotFound
from schemas.identity import CreateUser, DeleteUser, UpdateUser, User
from schemas.ids import DEFAULT_DOMAIN


class _NewUser(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    password: str | None = None
    domain_id: str | None = None
    default_project_id: str | None = None
    email: str | None = None
    description: str | None = None
    enabled: bool = True
    options: dict[str, msgspec.Raw] = {}


class _NewUserBody(Struct, frozen=True, forbid_unknown_fields=True):
    user: _NewUser


class _UserChange(Struct, frozen=True, forbid_unknown_fields=True):
    name: str | None = None
    password: str | None = None
    default_project_id: str | None = None
    email: str | None = None
    description: str | None = None
    enabled: bool | None = None
    options: dict[str, msgspec.Raw] = {}


class _UserChangeBody(Struct, frozen=True, forbid_unknown_fields=True):
    user: _UserChange


_new_user = msgspec.json.Decoder(_NewUserBody)
_user_change = msgspec.json.Decoder(_UserChangeBody)


def _find(call: Call) -> User:
    """Return the user of the path; others than oneself are for administrators."""
    if call.args[0] != call.principal.user_id:
        need_admin(call)
    user = call.edge.reader.user(call.args[0])
    if user is None:
        raise NotFound(f"there is no user {call.args[0][:64]!r}")
    return user


async def list_users(call: Call) -> Answer:
    """GET /users."""
    need_admin(call)
    users = call.edge.reader.users(
        name=call.param("name") or None,
        domain_id=call.param("domain_id") or None,
        enabled=flag(call, "enabled"),
    )
    return listing(call, "users", [user_view(u, call.base) for u in users])


async def create_user(call: Call) -> Answer:
    """POST /users."""
    wish = (await call.decode(_new_user)).user
    need_admin(call)
    if wish.options:
        raise InvalidInput("options of users are not offered")
    sealed = None
    if wish.password is not None:
        sealed = await seal_password(call.edge, wish.password)
    reply = await write(
        call,
        CreateUser(
            name=wish.name,
            domain_id=wish.domain_id or DEFAULT_DOMAIN,
            password=sealed,
            default_project_id=wish.default_project_id,
            email=wish.email or "",
            description=wish.description or "",
            enabled=wish.enabled,
        ),
    )
    user = call.edge.reader.user(reply["user_id"])
    if user is None:
        return json_answer({"user": {"id": reply["user_id"], "name": wish.name}}, 201)
    return json_answer({"user": user_view(user, call.base)}, 201)


async def show_user(call: Call) -> Answer:
    """GET /users/{id}."""
    return json_answer({"user": user_view(_find(call), call.base)})


async def change_user(call: Call) -> Answer:
    """PATCH /users/{id}: for administrators, since the old password is not asked for."""
    wish = (await call.decode(_user_change)).user
    need_admin(call)
    user = _find(call)
    if wish.options:
        raise InvalidInput("options of users are not offered")
    sealed = None
    if wish.password is not None:
        sealed = await seal_password(call.edge, wish.password, user)
    await write(
        call,
        UpdateUser(
            user_id=user.user_id,
            name=wish.name,
            password=sealed,
            email=wish.email,
            description=wish.description,
            enabled=wish.enabled,
            default_project_id=wish.default_project_id,
        ),
    )
    return json_answer({"user": user_view(_find(call), call.base)})


async def delete_user(call: Call) -> Answer:
    """DELETE /users/{id}."""
    need_admin(call)
    await write(call, DeleteUser(user_id=_find(call).user_id))
    return Answer(204)


async def projects_of(call: Call) -> Answer:
    """GET /users/{id}/projects."""
    user = _find(call)
    projects = call.edge.reader.projects(user_id=user.user_id)
    return listing(call, "projects", [project_view(p, call.base) for p in projects])


async def groups_of(call: Call) -> Answer:
    """GET /users/{id}/groups: there are no groups."""
    _find(call)
    return listing(call, "groups", [])


def add(routes: Routes) -> None:
    """Route what this module answers."""
    one, read = "/v3/users/{}", "identity:users:read"
    routes.add("GET", "/v3/users", list_users, read, query=("name", "domain_id", "enabled"))
    routes.add("POST", "/v3/users", create_user, "CreateUser", body=_new_user, status=201)
    routes.add("GET", one, show_user, read)
    routes.add("PATCH", one, change_user, "UpdateUser", body=_user_change)
    routes.add("DELETE", one, delete_user, "DeleteUser", status=204)
    routes.add("GET", f"{one}/projects", projects_of, read)
    routes.add("GET", f"{one}/groups", groups_of, read)
