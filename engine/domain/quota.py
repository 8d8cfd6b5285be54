"""Quotas: which limits there are, and that nobody is given more than theirs.

Invariant: no accepted request takes a project, or a user, over a limit; what gives something back
always passes, whatever the limit is by then. Limits are looked at here, when a request is decided,
and never when facts are folded: an old log gives the same state under any limits.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from engine.domain.context import Context
from engine.domain.identity.found import find_project
from engine.domain.state import Cell, State
from engine.domain.usage import BY_USER, changes, held_by
from schemas import compute as c
from schemas import quota as s
from schemas.envelope import Action, Fact
from schemas.errors import (
    ContentQuotaExceeded,
    InvalidInput,
    LimitBelowUse,
    OverQuota,
    QuotaExceeded,
)
from schemas.image import ImageAction
from schemas.network import NetworkAction
from schemas.quota import UNLIMITED
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

# As OpenStack's services come with them, where they have one.
DEFAULTS: Mapping[str, int] = {
    "servers": 10,
    "vcpus": 20,
    "memory_mib": 51_200,
    "disk_gib": UNLIMITED,
    "server_metadata": 128,  # of each
    "networks": 100,
    "subnets": 100,
    "ports": 500,
    "security_groups": 10,
    "security_group_rules": 100,
    "images": 100,
    "image_bytes": UNLIMITED,
    # Of each user.
    "keypairs": 100,
    "application_credentials": 100,
    "access_rules": 500,
    "credentials": 100,
    "trusts": 100,
    # What clients of compute name, and this cloud has none of: kept as it is set, counts nothing.
    "fixed_ips": UNLIMITED,
    "floating_ips": 0,
    "injected_files": 0,
    "injected_file_bytes": 0,
    "injected_file_path_bytes": 0,
    "server_groups": 0,
    "server_group_members": 0,
}


def limit_of(state: State, project_id: str, name: str) -> int:
    """Return the limit that holds for a project: its own, its class's, or the built-in one."""
    own = state.quotas.get(project_id)
    if own is not None and name in own:
        return own[name]
    return state.quota_class.get(name, DEFAULTS[name])


def need_room(cell: Cell, ctx: Context, action: Action, facts: Iterable[Fact]) -> None:
    """Return if what was decided leaves everybody within their limits.

    What a user has not asked for is never refused: an agent reports what is so. Nor is what comes
    with a new project.

    Raises:
        QuotaExceeded: it does not; the fields say ``resource``, ``used``, ``asked``, ``limit``.
    """
    if ctx.actor.kind != "user":
        return
    state = cell.state
    asked: dict[tuple[str, str], int] = {}
    over: list[Over] = []
    for fact in facts:
        for owner, name, change in changes(cell, fact):
            asked[owner, name] = asked.get((owner, name), 0) + change
        if type(fact) in SIZES:
            project_id, name, before, after = SIZES[type(fact)](state, fact)
            limit = limit_of(state, project_id, name)
            if UNLIMITED != limit < after and after > before:
                over.append((name, before, after - before, limit))
    for (owner, name), change in asked.items():
        if change > 0:
            over += _over(cell, ctx, owner, name, change)
    if over:
        raise _exceeded(action, over)


type Over = tuple[str, int, int, int]  # of what, used, asked, limit


def _over(cell: Cell, ctx: Context, owner: str, name: str, asked: int) -> tuple[Over, ...]:
    """Return what stands in the way of so much more, if something does."""
    state = cell.state
    if name in BY_USER:
        limit = limit_of(state, ctx.actor.project_id, name)
    elif owner in state.projects:
        limit = limit_of(state, owner, name)
    else:
        return ()
    if limit == UNLIMITED:
        return ()
    used = held_by(cell, owner, name)
    return ((name, used, asked, limit),) if used + asked > limit else ()


def _exceeded(action: Action, over: list[Over]) -> QuotaExceeded:
    """Return the refusal as the clients of the action's service expect it."""
    each = ", ".join(
        f"{asked} {name} asked for where {used} of {limit} are used"
        for name, used, asked, limit in over
    )
    name, used, asked, limit = over[0]
    kind = QuotaExceeded
    if isinstance(action, _NETWORK):
        kind = OverQuota
    elif isinstance(action, _IMAGE):
        kind = ContentQuotaExceeded
    return kind(f"quota exceeded: {each}", resource=name, used=used, asked=asked, limit=limit)


_NETWORK = get_args(NetworkAction.__value__)
_IMAGE = get_args(ImageAction.__value__)


# What one thing may have of something: its project, the name, how many before and after the fact.
type Size = tuple[str, str, int, int]


def _server_created(_state: State, fact: c.ServerCreated) -> Size:
    return fact.server.project_id, "server_metadata", 0, len(fact.server.metadata)


SIZES: dict[type, Callable[[State, Any], Size]] = {c.ServerCreated: _server_created}


def set_quota(cell: Cell, ctx: Context, action: s.SetQuota) -> Decision:
    """Give a project limits of its own."""
    project_id = find_project(cell, ctx, action.project_id).project_id
    _need_known(action.limits)
    if action.check_limit:
        held = cell.index.usage.get(project_id, {})
        for name, limit in action.limits.items():
            used = held.get(name, 0)
            if UNLIMITED != limit < used:
                raise LimitBelowUse(
                    f"the limit of {limit} {name} is below the {used} that the project holds",
                    resource=name,
                    used=used,
                    limit=limit,
                )
    own = cell.state.quotas.get(project_id, {})
    changed = {name: limit for name, limit in action.limits.items() if own.get(name) != limit}
    facts: list[Fact] = [s.QuotaSet(project_id=project_id, limits=changed)] if changed else []
    return facts, {"project_id": project_id}


def reset_quota(cell: Cell, ctx: Context, action: s.ResetQuota) -> Decision:
    """Take a project's own limits away; those it does not have are none to take."""
    project_id = find_project(cell, ctx, action.project_id).project_id
    _need_known(action.names)
    own = cell.state.quotas.get(project_id, {})
    names = tuple(sorted(own.keys() & set(action.names) if action.names else own))
    facts: list[Fact] = [s.QuotaReset(project_id=project_id, names=names)] if names else []
    return facts, {"project_id": project_id}


def set_quota_class(cell: Cell, _ctx: Context, action: s.SetQuotaClass) -> Decision:
    """Set what holds where a project has no limit of its own."""
    _need_known(action.limits)
    held = cell.state.quota_class
    changed = {name: limit for name, limit in action.limits.items() if held.get(name) != limit}
    return ([s.QuotaClassSet(limits=changed)] if changed else []), {}


def _need_known(names: Iterable[str]) -> None:
    for name in names:
        if name not in DEFAULTS:
            raise InvalidInput(
                f"there is no quota named {name!r}; those there are: {', '.join(DEFAULTS)}"
            )


# Evolve


def quota_set(cell: Cell, fact: s.QuotaSet, at: Micros) -> None:
    quotas = cell.state.quotas
    quotas[fact.project_id] = {**quotas.get(fact.project_id, {}), **fact.limits}


def quota_reset(cell: Cell, fact: s.QuotaReset, at: Micros) -> None:
    quotas = cell.state.quotas
    own = quotas.pop(fact.project_id, {})
    left = {name: limit for name, limit in own.items() if name not in fact.names}
    if left:
        quotas[fact.project_id] = left


def quota_class_set(cell: Cell, fact: s.QuotaClassSet, at: Micros) -> None:
    cell.state.quota_class = {**cell.state.quota_class, **fact.limits}
