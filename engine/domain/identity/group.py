"""Groups: users who get roles together."""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.forget import forget_holder
from engine.domain.identity.found import (
    Decision,
    find_group,
    find_user,
    identity_id,
    is_above_domains,
    merged_extra,
    need_domain,
)
from engine.domain.state import Cell, drop_member
from schemas import identity as s
from schemas.errors import Duplicate, Forbidden, NotFound
from schemas.units import Micros


def create_group(cell: Cell, ctx: Context, action: s.CreateGroup) -> Decision:
    """Make a group."""
    need_domain(cell, ctx, action.domain_id)
    _need_free(cell, action.domain_id, action.name, "")
    group = s.Group(
        group_id=identity_id(ctx),
        name=action.name,
        domain_id=action.domain_id,
        description=action.description,
        extra=merged_extra({}, action.extra),
    )
    return [s.GroupCreated(group=group)], {"group_id": group.group_id}


def update_group(cell: Cell, ctx: Context, action: s.UpdateGroup) -> Decision:
    """Change what is given."""
    group = find_group(cell, ctx, action.group_id)
    name = group.name if action.name is None else action.name
    _need_free(cell, group.domain_id, name, group.group_id)
    changed = replace(
        group,
        name=name,
        description=group.description if action.description is None else action.description,
        extra=merged_extra(group.extra, action.extra),
    )
    return [s.GroupUpdated(group=changed)], {"group_id": group.group_id}


def delete_group(cell: Cell, ctx: Context, action: s.DeleteGroup) -> Decision:
    """Remove a group."""
    group = find_group(cell, ctx, action.group_id)
    _need_not_above(cell, ctx, group)
    return [s.GroupDeleted(group_id=group.group_id)], {}


def add_group_member(cell: Cell, ctx: Context, action: s.AddGroupMember) -> Decision:
    """Put a user into a group; again changes nothing."""
    group, user = find_group(cell, ctx, action.group_id), find_user(cell, ctx, action.user_id)
    _need_not_above(cell, ctx, group)
    if group.group_id in cell.state.memberships.get(user.user_id, ()):
        return [], {}
    return [s.GroupMemberAdded(group_id=group.group_id, user_id=user.user_id)], {}


def remove_group_member(cell: Cell, ctx: Context, action: s.RemoveGroupMember) -> Decision:
    """Take a user out of a group that it is in."""
    group, user = find_group(cell, ctx, action.group_id), find_user(cell, ctx, action.user_id)
    _need_not_above(cell, ctx, group)
    if group.group_id not in cell.state.memberships.get(user.user_id, ()):
        raise NotFound("the user is not in this group")
    return [s.GroupMemberRemoved(group_id=group.group_id, user_id=user.user_id)], {}


def _need_not_above(cell: Cell, ctx: Context, group: s.Group) -> None:
    """Keep who rules one domain from choosing who rules or audits the cloud."""
    if not ctx.reach.any and is_above_domains(cell, group.group_id):
        raise Forbidden(
            "this group has roles in the whole cloud, and is changed by the cloud's administrators"
        )


def _need_free(cell: Cell, domain_id: str, name: str, own_id: str) -> None:
    if cell.index.group_names.get((domain_id, name), own_id) != own_id:
        raise Duplicate(f"a group named {name!r} exists in this domain")


# Evolve


def group_saved(cell: Cell, fact: s.GroupCreated | s.GroupUpdated, at: Micros) -> None:
    group, index = fact.group, cell.index
    old = cell.state.groups.get(group.group_id)
    if old is not None:
        del index.group_names[old.domain_id, old.name]
    cell.state.groups[group.group_id] = group
    index.group_names[group.domain_id, group.name] = group.group_id
    index.domain_groups.setdefault(group.domain_id, set()).add(group.group_id)


def group_deleted(cell: Cell, fact: s.GroupDeleted, at: Micros) -> None:
    state, index = cell.state, cell.index
    group = state.groups.pop(fact.group_id)
    del index.group_names[group.domain_id, group.name]
    drop_member(index.domain_groups, group.domain_id, group.group_id)
    for user_id in index.group_members.pop(group.group_id, ()):
        _leave(cell, user_id, group.group_id)
    forget_holder(cell, group.group_id)


def group_member_added(cell: Cell, fact: s.GroupMemberAdded, at: Micros) -> None:
    memberships = cell.state.memberships
    groups = {*memberships.get(fact.user_id, ()), fact.group_id}
    memberships[fact.user_id] = tuple(sorted(groups))
    cell.index.group_members.setdefault(fact.group_id, set()).add(fact.user_id)


def group_member_removed(cell: Cell, fact: s.GroupMemberRemoved, at: Micros) -> None:
    _leave(cell, fact.user_id, fact.group_id)
    drop_member(cell.index.group_members, fact.group_id, fact.user_id)


def _leave(cell: Cell, user_id: str, group_id: str) -> None:
    memberships = cell.state.memberships
    left = tuple(g for g in memberships[user_id] if g != group_id)
    if left:
        memberships[user_id] = left
    else:
        del memberships[user_id]
