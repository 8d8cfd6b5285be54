"""Domains: namespaces of users, groups and projects."""

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.identity.forget import forget_target
from engine.domain.identity.found import Decision, find_domain, identity_id, merged_extra
from engine.domain.identity.project import project_goes
from engine.domain.state import Cell
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import Duplicate, Forbidden, InUse
from schemas.ids import DEFAULT_DOMAIN
from schemas.units import Micros


def create_domain(cell: Cell, ctx: Context, action: s.CreateDomain) -> Decision:
    """Make a domain."""
    _need_free(cell, action.name, "")
    domain = s.Domain(
        domain_id=identity_id(ctx),
        name=action.name,
        description=action.description,
        enabled=action.enabled,
        tags=tuple(dict.fromkeys(action.tags)),
        extra=merged_extra({}, action.extra),
    )
    return [s.DomainCreated(domain=domain)], {"domain_id": domain.domain_id}


def update_domain(cell: Cell, ctx: Context, action: s.UpdateDomain) -> Decision:
    """Change what is given."""
    domain = find_domain(cell, ctx, action.domain_id)
    if action.name is not None:
        _need_free(cell, action.name, domain.domain_id)
    given = {
        name: value
        for name in ("name", "description", "enabled", "tags")
        if (value := getattr(action, name)) is not None
    }
    changed = replace(domain, **given, extra=merged_extra(domain.extra, action.extra))
    if not changed.enabled and domain.enabled:
        user = cell.state.users.get(ctx.actor.user_id)
        if user is not None and user.domain_id == domain.domain_id:
            raise Forbidden("nobody disables the domain that they are in")
    return ([s.DomainUpdated(domain=changed)] if changed != domain else []), {
        "domain_id": domain.domain_id
    }


def delete_domain(cell: Cell, ctx: Context, action: s.DeleteDomain) -> Decision:
    """Remove a disabled domain and all that lies in it, what is below before what is above."""
    domain = find_domain(cell, ctx, action.domain_id)
    if domain.domain_id == DEFAULT_DOMAIN:
        raise Forbidden("the Default domain stays")
    if domain.enabled:
        raise Forbidden("an enabled domain cannot be deleted; disable it first")
    state, index = cell.state, cell.index
    for provider in state.identity_providers.values():
        if provider.domain_id == domain.domain_id:
            raise InUse(f"it is the domain of the identity provider {provider.idp_id}")
    projects = index.domain_projects.get(domain.domain_id, set())
    facts: list[Fact] = []
    for project_id in sorted(projects, key=lambda p: (-_depth(cell, p), p)):
        facts += project_goes(cell, state.projects[project_id])
    users = index.domain_users.get(domain.domain_id, set())
    groups = index.domain_groups.get(domain.domain_id, set())
    roles = index.domain_roles.get(domain.domain_id, set())
    facts += [s.UserDeleted(user_id=user_id) for user_id in sorted(users)]
    facts += [s.GroupDeleted(group_id=group_id) for group_id in sorted(groups)]
    facts += [s.RoleDeleted(role_id=role_id) for role_id in sorted(roles)]
    return [*facts, s.DomainDeleted(domain_id=domain.domain_id)], {}


def _depth(cell: Cell, project_id: str) -> int:
    depth, parent_id = 0, cell.state.projects[project_id].parent_id
    while parent_id:
        depth, parent_id = depth + 1, cell.state.projects[parent_id].parent_id
    return depth


def _need_free(cell: Cell, name: str, own_id: str) -> None:
    if cell.index.domain_names.get(name, own_id) != own_id:
        raise Duplicate(f"a domain named {name!r} exists")


# Evolve


def domain_saved(cell: Cell, fact: s.DomainCreated | s.DomainUpdated, at: Micros) -> None:
    domain = fact.domain
    old = cell.state.domains.get(domain.domain_id)
    if old is not None:
        del cell.index.domain_names[old.name]
    cell.state.domains[domain.domain_id] = domain
    cell.index.domain_names[domain.name] = domain.domain_id
    cell.state.bootstrapped = True


def domain_deleted(cell: Cell, fact: s.DomainDeleted, at: Micros) -> None:
    domain = cell.state.domains.pop(fact.domain_id)
    del cell.index.domain_names[domain.name]
    forget_target(cell, fact.domain_id)
