"""Roles, what they imply, and who gets which where.

Invariant: who rules one domain only hands out, within it, the roles manager, member, reader and
those of the domain itself, so that nobody can make a ruler of the cloud who is none.
"""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.found import (
    Decision,
    find_group,
    find_project,
    find_role,
    find_user,
    identity_id,
    merged_extra,
)
from engine.domain.state import Cell, drop_member
from schemas import identity as s
from schemas.errors import Duplicate, Forbidden, InvalidInput, NotFound, UnknownReference
from schemas.units import Micros

GIVEN_BY_MANAGERS = frozenset({"manager", "member", "reader"})


def create_role(cell: Cell, ctx: Context, action: s.CreateRole) -> Decision:
    """Make a role."""
    domain_id = action.domain_id or ""
    if domain_id and domain_id not in cell.state.domains:
        raise UnknownReference(f"there is no domain {domain_id}")
    _need_free(cell, domain_id, action.name, "")
    role = s.Role(
        role_id=identity_id(ctx),
        name=action.name,
        domain_id=domain_id,
        description=action.description,
        extra=merged_extra({}, action.extra),
    )
    return [s.RoleCreated(role=role)], {"role_id": role.role_id}


def update_role(cell: Cell, ctx: Context, action: s.UpdateRole) -> Decision:
    """Change what is given; a built-in role keeps its name."""
    role = find_role(cell, action.role_id)
    name = role.name if action.name is None else action.name
    if name != role.name:
        _need_not_built_in(role)
    _need_free(cell, role.domain_id, name, role.role_id)
    changed = replace(
        role,
        name=name,
        description=role.description if action.description is None else action.description,
        extra=merged_extra(role.extra, action.extra),
    )
    return [s.RoleUpdated(role=changed)], {"role_id": role.role_id}


def delete_role(cell: Cell, ctx: Context, action: s.DeleteRole) -> Decision:
    """Remove a role, wherever it was given."""
    role = find_role(cell, action.role_id)
    _need_not_built_in(role)
    return [s.RoleDeleted(role_id=role.role_id)], {}


def imply_role(cell: Cell, ctx: Context, action: s.ImplyRole) -> Decision:
    """Let a role imply another; in the end none may imply itself."""
    prior, implied = find_role(cell, action.prior_role_id), find_role(cell, action.implied_role_id)
    if implied.name == "admin" and not implied.domain_id:
        raise Forbidden("no role implies admin")
    if implied.domain_id and implied.domain_id != prior.domain_id:
        raise Forbidden("a domain's own role is implied by roles of that domain only")
    if implied.role_id in cell.state.implied_roles.get(prior.role_id, ()):
        return [], {}
    if prior.role_id in _reached(cell, implied.role_id):
        raise InvalidInput("the role would come to imply itself")
    fact = s.RoleImplied(prior_role_id=prior.role_id, implied_role_id=implied.role_id)
    return [fact], {}


def end_role_implication(cell: Cell, ctx: Context, action: s.EndRoleImplication) -> Decision:
    """Let a role no longer imply another; the built-in ones always do."""
    prior, implied = find_role(cell, action.prior_role_id), find_role(cell, action.implied_role_id)
    if implied.role_id not in cell.state.implied_roles.get(prior.role_id, ()):
        if prior.name in s.RANKED and implied.name in s.RANKED:
            raise Forbidden("what the built-in roles imply is fixed")
        raise NotFound("the role does not imply the other")
    fact = s.RoleImplicationEnded(prior_role_id=prior.role_id, implied_role_id=implied.role_id)
    return [fact], {}


def _reached(cell: Cell, role_id: str) -> set[str]:
    """Return all roles that one implies in the end, itself included."""
    state, names = cell.state, cell.index.role_names
    found: set[str] = set()
    waiting = [role_id]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        waiting.extend(state.implied_roles.get(one, ()))
        role = state.roles[one]
        if not role.domain_id and role.name in s.RANKED:
            below = s.RANKED[s.RANKED.index(role.name) :]
            waiting.extend(names["", name] for name in below if ("", name) in names)
    return found


def grant_role(cell: Cell, ctx: Context, action: s.GrantRole) -> Decision:
    """Give a role; giving it again changes nothing."""
    grant = _grant(cell, ctx, action)
    return ([] if grant.role_id in _held(cell, grant) else [s.RoleGranted(grant=grant)]), {}


def revoke_role(cell: Cell, ctx: Context, action: s.RevokeRole) -> Decision:
    """Take a role away that was given."""
    grant = _grant(cell, ctx, action)
    if grant.role_id not in _held(cell, grant):
        raise NotFound("the role was not given there")
    actor = ctx.actor
    scope = s.SYSTEM if actor.system else actor.project_id or actor.domain_id
    if grant.user_id == actor.user_id and grant.target == scope:
        raise Forbidden("nobody takes away a role from themselves")
    return [s.RoleRevoked(grant=grant)], {}


def _held(cell: Cell, grant: s.Grant) -> tuple[str, ...]:
    state = cell.state
    grants = state.inherited_grants if grant.inherited else state.grants
    return grants.get(grant.holder, {}).get(grant.target, ())


def _grant(cell: Cell, ctx: Context, action: s.GrantRole | s.RevokeRole) -> s.Grant:
    """Return what is to be given or taken, all of it looked up."""
    if bool(action.user_id) == bool(action.group_id):
        raise InvalidInput("a role is given to one user or to one group")
    if [bool(action.project_id), bool(action.domain_id), action.system].count(True) != 1:
        raise InvalidInput("a role is given on one project, on one domain, or in the system")
    if action.inherited and action.system:
        raise InvalidInput("nothing is inherited from the system")
    role = find_role(cell, action.role_id)
    domain_id = _target_domain(cell, ctx, action)
    if action.user_id:
        find_user(cell, ctx, action.user_id)
    else:
        find_group(cell, ctx, action.group_id)
    if role.domain_id and role.domain_id != domain_id:
        raise Forbidden("a domain's own role is given within that domain only")
    if not ctx.reach.any and not role.domain_id and role.name not in GIVEN_BY_MANAGERS:
        raise Forbidden(f"the role {role.name} is given by the cloud's administrators")
    return s.Grant(
        role_id=role.role_id,
        user_id=action.user_id,
        group_id=action.group_id,
        project_id=action.project_id,
        domain_id=action.domain_id,
        system=action.system,
        inherited=action.inherited,
    )


def _target_domain(cell: Cell, ctx: Context, action: s.GrantRole | s.RevokeRole) -> str:
    """Return the domain within which a role is given; "" in the system."""
    if action.project_id:
        return find_project(cell, ctx, action.project_id).domain_id
    if action.domain_id:
        if action.domain_id not in cell.state.domains or not ctx.owns_domain(action.domain_id):
            raise NotFound(f"there is no domain {action.domain_id}")
        return action.domain_id
    if not ctx.reach.any:
        raise Forbidden("roles in the system are given by the cloud's administrators")
    return ""


def _need_not_built_in(role: s.Role) -> None:
    if not role.domain_id and role.name in s.BUILT_IN:
        raise Forbidden(f"the role {role.name} is built in; the policy relies on it")


def _need_free(cell: Cell, domain_id: str, name: str, own_id: str) -> None:
    if cell.index.role_names.get((domain_id, name), own_id) != own_id:
        raise Duplicate(f"a role named {name!r} exists")


# Evolve


def role_saved(cell: Cell, fact: s.RoleCreated | s.RoleUpdated, at: Micros) -> None:
    role, index = fact.role, cell.index
    old = cell.state.roles.get(role.role_id)
    if old is not None:
        del index.role_names[old.domain_id, old.name]
    cell.state.roles[role.role_id] = role
    index.role_names[role.domain_id, role.name] = role.role_id
    if role.domain_id:
        index.domain_roles.setdefault(role.domain_id, set()).add(role.role_id)


def role_deleted(cell: Cell, fact: s.RoleDeleted, at: Micros) -> None:
    state, index = cell.state, cell.index
    role = state.roles.pop(fact.role_id)
    del index.role_names[role.domain_id, role.name]
    if role.domain_id:
        drop_member(index.domain_roles, role.domain_id, role.role_id)
    state.implied_roles.pop(role.role_id, None)
    for prior in [p for p, ids in state.implied_roles.items() if role.role_id in ids]:
        _end_implication(cell, prior, role.role_id)
    for inherited, grants in ((False, state.grants), (True, state.inherited_grants)):
        given = [
            (holder, target)
            for holder, targets in grants.items()
            for target, ids in targets.items()
            if role.role_id in ids
        ]
        for holder, target in given:
            _take(cell, holder, target, role.role_id, inherited=inherited)


def role_implied(cell: Cell, fact: s.RoleImplied, at: Micros) -> None:
    implied = cell.state.implied_roles
    ids = {*implied.get(fact.prior_role_id, ()), fact.implied_role_id}
    implied[fact.prior_role_id] = tuple(sorted(ids))


def role_implication_ended(cell: Cell, fact: s.RoleImplicationEnded, at: Micros) -> None:
    _end_implication(cell, fact.prior_role_id, fact.implied_role_id)


def _end_implication(cell: Cell, prior: str, implied: str) -> None:
    left = tuple(i for i in cell.state.implied_roles[prior] if i != implied)
    if left:
        cell.state.implied_roles[prior] = left
    else:
        del cell.state.implied_roles[prior]


def role_granted(cell: Cell, fact: s.RoleGranted, at: Micros) -> None:
    grant, state = fact.grant, cell.state
    grants = state.inherited_grants if grant.inherited else state.grants
    targets = grants.setdefault(grant.holder, {})
    targets[grant.target] = tuple(sorted({*targets.get(grant.target, ()), grant.role_id}))
    cell.index.target_holders.setdefault(grant.target, set()).add(grant.holder)


def role_revoked(cell: Cell, fact: s.RoleRevoked, at: Micros) -> None:
    grant = fact.grant
    _take(cell, grant.holder, grant.target, grant.role_id, inherited=grant.inherited)


def _take(cell: Cell, holder: str, target: str, role_id: str, *, inherited: bool) -> None:
    state = cell.state
    grants = state.inherited_grants if inherited else state.grants
    targets = grants[holder]
    left = tuple(r for r in targets[target] if r != role_id)
    if left:
        targets[target] = left
        return
    del targets[target]
    if not targets:
        del grants[holder]
    other = state.grants if inherited else state.inherited_grants
    if target not in other.get(holder, {}):
        drop_member(cell.index.target_holders, target, holder)
