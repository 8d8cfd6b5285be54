"""Users. How they change their own passwords is in ``passwords``."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.exchange import Answer, Call, json_answer
from api.identity.attributes import Attributes
from api.identity.lists import BY_NAME, domain_asked, in_domain, listing, unseen
from api.identity.views import group_view, project_view, user_view
from api.pagination import flag
from api.routing import Routes
from api.sealing_inbound import seal_password
from api.writing import write
from schemas.errors import Forbidden, InvalidInput, NotFound
from schemas.identity import CreateUser, DeleteUser, UpdateUser, User, UserOptions
from schemas.ids import DEFAULT_DOMAIN
from schemas.units import LongText, Text


class _NewUser(Struct, frozen=True):
    name: Text
    password: LongText | None = None
    domain_id: Text | None = None
    default_project_id: Text | None = None
    email: Text | None = None
    description: LongText | None = None
    enabled: bool = True
    options: Annotated[dict[str, Any], Meta(max_length=64)] = {}


class _UserChange(Struct, frozen=True):
    name: Text | None = None
    password: LongText | None = None
    domain_id: Text | None = None
    default_project_id: Text | None = None
    email: Text | None = None
    description: LongText | None = None
    enabled: bool | None = None
    options: Annotated[dict[str, Any], Meta(max_length=64)] | None = None


_new = Attributes("user", _NewUser)
_change = Attributes("user", _UserChange)
_OPTIONS = frozenset(field.name for field in msgspec.structs.fields(UserOptions))


def find_user(call: Call, action: str = "identity:users:read") -> User:
    """Return the user of the path: of a domain that the caller reaches, or itself.

    Raises:
        NotFound: there is none, or it is another domain's.
        Forbidden: the caller may see only itself.
    """
    reach, ident = call.allow(action), call.args[0]
    user = call.edge.reader.user(ident)
    itself = reach.user and ident == call.principal.user_id
    if user is None or not (itself or in_domain(call, reach, user.domain_id)):
        raise unseen(reach, "user", ident)
    return user


async def list_users(call: Call) -> Answer:
    """GET /users."""
    domain_id = domain_asked(call, call.allow("identity:users:list"))
    users = call.edge.reader.users(
        name=call.param("name") or None,
        domain_id=domain_id,
        enabled=flag(call, "enabled"),
    )
    return listing(call, "users", [user_view(u, call.base) for u in users])


def _shown(call: Call, user_id: str, status: int = 200) -> Answer:
    user = call.edge.reader.user(user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id[:64]!r}")
    return json_answer({"user": user_view(user, call.base)}, status)


async def create_user(call: Call) -> Answer:
    """POST /users."""
    wish, extra = await _new.read(call)
    call.allow("CreateUser")
    options = _options(UserOptions(), wish.options)
    sealed = None
    if wish.password is not None:
        sealed = await seal_password(call.edge, wish.password)
    reply = await write(
        call,
        CreateUser(
            name=wish.name,
            domain_id=wish.domain_id or call.principal.token.domain_id or DEFAULT_DOMAIN,
            password=sealed,
            default_project_id=wish.default_project_id,
            email=wish.email or "",
            description=wish.description or "",
            enabled=wish.enabled,
            options=options,
            extra=extra,
        ),
    )
    return _shown(call, reply["user_id"], 201)


def _options(options: UserOptions, changes: dict[str, Any]) -> UserOptions:
    """Return options with changes; null puts one back to its default."""
    if unknown := sorted(changes.keys() - _OPTIONS):
        raise InvalidInput(f"there is no option {unknown[0][:64]!r} of users")
    values = {**msgspec.to_builtins(options), **changes}
    try:
        return msgspec.convert({k: v for k, v in values.items() if v is not None}, UserOptions)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"options: {error}") from error


async def show_user(call: Call) -> Answer:
    """GET /users/{id}."""
    return json_answer({"user": user_view(find_user(call), call.base)})


async def change_user(call: Call) -> Answer:
    """PATCH /users/{id}; one's own password is not changed here, where the old is not asked for."""
    wish, extra = await _change.read(call)
    user = find_user(call, "UpdateUser")
    if wish.domain_id not in {None, user.domain_id}:
        raise InvalidInput("a user stays in its domain")
    sealed = None
    if wish.password is not None:
        if not in_domain(call, call.allow("UpdateUser"), user.domain_id):
            raise Forbidden("your own password is changed with POST /users/{id}/password")
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
            options=None if wish.options is None else _options(user.options, wish.options),
            extra=extra,
        ),
    )
    return _shown(call, user.user_id)


async def delete_user(call: Call) -> Answer:
    """DELETE /users/{id}."""
    await write(call, DeleteUser(user_id=find_user(call, "DeleteUser").user_id))
    return Answer(204)


async def projects_of(call: Call) -> Answer:
    """GET /users/{id}/projects: those on which the user has a role by any way."""
    user = find_user(call)
    projects = call.edge.reader.projects(user_id=user.user_id)
    return listing(call, "projects", [project_view(p, call.base) for p in projects])


async def groups_of(call: Call) -> Answer:
    """GET /users/{id}/groups."""
    groups = call.edge.reader.groups(
        user_id=find_user(call).user_id, name=call.param("name") or None
    )
    return listing(call, "groups", [group_view(g, call.base) for g in groups])


def add(routes: Routes) -> None:
    """Route what this module answers."""
    every, one, read = "/v3/users", "/v3/users/{}", "identity:users:read"
    asked = (*BY_NAME, "domain_id", "enabled")
    routes.add("GET", every, list_users, "identity:users:list", query=asked)
    routes.add(
        "POST", every, create_user, "CreateUser", body=_new.decoder, shape=_new.shape, status=201
    )
    routes.add("GET", one, show_user, read)
    routes.add("PATCH", one, change_user, "UpdateUser", body=_change.decoder, shape=_change.shape)
    routes.add("DELETE", one, delete_user, "DeleteUser", status=204)
    routes.add("GET", f"{one}/projects", projects_of, read, query=BY_NAME)
    routes.add("GET", f"{one}/groups", groups_of, read, query=BY_NAME)
