"""Identity: who there is, and what roles they have where."""

from engine.domain.context import Context
from engine.domain.network import default_group
from engine.domain.state import Cell
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import Conflict, Duplicate, Forbidden, InUse, NotFound, UnknownReference
from schemas.ids import DEFAULT_DOMAIN
from schemas.network import SecurityGroupCreated, SecurityGroupDeleted
from schemas.units import Micros

ROLES: tuple[str, ...] = ("admin", "member", "reader")
IMPLIED: dict[str, tuple[str, ...]] = {
    "admin": ("admin", "member", "reader"),
    "member": ("member", "reader"),
    "reader": ("reader",),
}

type Decision = tuple[list[Fact], dict[str, object]]


def effective_roles(cell: Cell, user_id: str, project_id: str) -> frozenset[str]:
    """Return the names of the roles a user has on a project, implied ones included."""
    state = cell.state
    held = state.grants.get(user_id, {}).get(project_id, ())
    return frozenset(
        name for role_id in held for name in IMPLIED.get(state.roles[role_id].name, ())
    )


def identity_id(ctx: Context) -> str:
    """Return a fresh id of 32 hexadecimal digits, the form of identity objects."""
    return ctx.new_id().replace("-", "")


def bootstrap(cell: Cell, ctx: Context, action: s.Bootstrap) -> Decision:
    """Make the first domain, roles, project and administrator."""
    if cell.state.bootstrapped:
        raise Conflict("the cloud has been bootstrapped already")
    domain = s.Domain(domain_id=DEFAULT_DOMAIN, name="Default", description="The default domain")
    roles = [s.Role(role_id=identity_id(ctx), name=name) for name in ROLES]
    project = s.Project(
        project_id=identity_id(ctx),
        name=action.project_name,
        domain_id=DEFAULT_DOMAIN,
        key_id=action.project_key_id,
    )
    user = s.User(
        user_id=identity_id(ctx),
        name=action.admin_name,
        domain_id=DEFAULT_DOMAIN,
        password=action.admin_password,
        default_project_id=project.project_id,
    )
    grant = s.Grant(user_id=user.user_id, project_id=project.project_id, role_id=roles[0].role_id)
    facts: list[Fact] = [
        s.DomainCreated(domain=domain),
        *(s.RoleCreated(role=role) for role in roles),
        s.ProjectCreated(project=project),
        SecurityGroupCreated(group=default_group(ctx, project.project_id)),
        s.UserCreated(user=user),
        s.RoleGranted(grant=grant),
    ]
    return facts, {"project_id": project.project_id, "user_id": user.user_id}


def create_project(cell: Cell, ctx: Context, action: s.CreateProject) -> Decision:
    """Make a project and its default security group."""
    _domain(cell, action.domain_id)
    if (action.domain_id, action.name) in cell.index.project_names:
        raise Duplicate(f"a project named {action.name!r} exists in this domain")
    project = s.Project(
        project_id=identity_id(ctx),
        name=action.name,
        domain_id=action.domain_id,
        description=action.description,
        enabled=action.enabled,
        key_id=action.key_id,
    )
    group = default_group(ctx, project.project_id)
    return [s.ProjectCreated(project=project), SecurityGroupCreated(group=group)], {
        "project_id": project.project_id
    }


def update_project(cell: Cell, ctx: Context, action: s.UpdateProject) -> Decision:
    """Change name, description or whether it is enabled."""
    project = find_project(cell, action.project_id)
    name = project.name if action.name is None else action.name
    holder = cell.index.project_names.get((project.domain_id, name))
    if holder not in (None, project.project_id):
        raise Duplicate(f"a project named {name!r} exists in this domain")
    changed = s.Project(
        project_id=project.project_id,
        name=name,
        domain_id=project.domain_id,
        description=project.description if action.description is None else action.description,
        enabled=project.enabled if action.enabled is None else action.enabled,
        key_id=project.key_id,
    )
    if not changed.enabled and project.project_id == ctx.actor.project_id:
        raise Forbidden("a project cannot disable itself")
    return [s.ProjectUpdated(project=changed)], {"project_id": project.project_id}


def delete_project(cell: Cell, ctx: Context, action: s.DeleteProject) -> Decision:
    """Remove an empty project, its grants and security groups."""
    project = find_project(cell, action.project_id)
    if project.project_id == ctx.actor.project_id:
        raise Forbidden("a project cannot delete itself")
    index = cell.index
    for kind, held in (
        ("server", index.project_servers),
        ("image", index.project_images),
        ("network", index.project_networks),
    ):
        count = len(held.get(project.project_id, ()))
        if count:
            raise InUse(f"the project still has {count} {kind}(s)", count=count, kind=kind)
    # Those on its own networks went with them; what is left is on networks that others share.
    ports = sum(port.project_id == project.project_id for port in cell.state.ports.values())
    if ports:
        raise InUse(f"the project still has {ports} port(s)", count=ports, kind="port")
    facts: list[Fact] = [
        SecurityGroupDeleted(security_group_id=group_id)
        for group_id in sorted(index.project_groups.get(project.project_id, ()))
    ]
    for user_id, projects in cell.state.grants.items():
        facts += [
            s.RoleRevoked(
                grant=s.Grant(user_id=user_id, project_id=project.project_id, role_id=role_id)
            )
            for role_id in projects.get(project.project_id, ())
        ]
    return [*facts, s.ProjectDeleted(project_id=project.project_id)], {}


def create_user(cell: Cell, ctx: Context, action: s.CreateUser) -> Decision:
    """Make a user."""
    _domain(cell, action.domain_id)
    if (action.domain_id, action.name) in cell.index.user_names:
        raise Duplicate(f"a user named {action.name!r} exists in this domain")
    if action.default_project_id and action.default_project_id not in cell.state.projects:
        raise UnknownReference(f"there is no project {action.default_project_id}")
    user = s.User(
        user_id=identity_id(ctx),
        name=action.name,
        domain_id=action.domain_id,
        password=action.password,
        default_project_id=action.default_project_id,
        email=action.email,
        description=action.description,
        enabled=action.enabled,
    )
    return [s.UserCreated(user=user)], {"user_id": user.user_id}


def update_user(cell: Cell, ctx: Context, action: s.UpdateUser) -> Decision:
    """Change a user; a user may change its own password, an administrator everything."""
    user = find_user(cell, action.user_id)
    if not ctx.reach.any and (
        not ctx.is_self(user.user_id)
        or any(v is not None for v in (action.name, action.enabled, action.default_project_id))
    ):
        raise Forbidden("changing a user needs the role admin")
    name = user.name if action.name is None else action.name
    holder = cell.index.user_names.get((user.domain_id, name))
    if holder not in (None, user.user_id):
        raise Duplicate(f"a user named {name!r} exists in this domain")
    enabled = user.enabled if action.enabled is None else action.enabled
    ends_tokens = action.password is not None or (user.enabled and not enabled)
    changed = s.User(
        user_id=user.user_id,
        name=name,
        domain_id=user.domain_id,
        password=user.password if action.password is None else action.password,
        default_project_id=user.default_project_id
        if action.default_project_id is None
        else action.default_project_id,
        email=user.email if action.email is None else action.email,
        description=user.description if action.description is None else action.description,
        enabled=enabled,
        tokens_valid_from=ctx.now if ends_tokens else user.tokens_valid_from,
    )
    return [s.UserUpdated(user=changed)], {"user_id": user.user_id}


def delete_user(cell: Cell, ctx: Context, action: s.DeleteUser) -> Decision:
    """Remove a user with its grants and keypairs."""
    user = find_user(cell, action.user_id)
    if user.user_id == ctx.actor.user_id:
        raise Forbidden("a user cannot delete itself")
    return [s.UserDeleted(user_id=user.user_id)], {}


def grant_role(cell: Cell, ctx: Context, action: s.GrantRole) -> Decision:
    """Give a role; giving it again changes nothing."""
    grant = _grant(cell, action)
    held = cell.state.grants.get(grant.user_id, {}).get(grant.project_id, ())
    return ([] if grant.role_id in held else [s.RoleGranted(grant=grant)]), {}


def revoke_role(cell: Cell, ctx: Context, action: s.RevokeRole) -> Decision:
    """Take a role away that the user has."""
    grant = _grant(cell, action)
    held = cell.state.grants.get(grant.user_id, {}).get(grant.project_id, ())
    if grant.role_id not in held:
        raise NotFound("the user does not have this role on this project")
    if grant.user_id == ctx.actor.user_id and grant.project_id == ctx.actor.project_id:
        raise Forbidden("nobody takes away a role from themselves")
    return [s.RoleRevoked(grant=grant)], {}


def revoke_token(cell: Cell, ctx: Context, action: s.RevokeToken) -> Decision:
    """End a token; the edge has checked that the caller holds it, or is an administrator."""
    if action.audit_id in cell.state.revoked_tokens:
        return [], {}
    return [s.TokenRevoked(audit_id=action.audit_id, expires_at=action.expires_at)], {}


def find_project(cell: Cell, project_id: str) -> s.Project:
    """Return the project.

    Raises:
        NotFound: there is none.
    """
    project = cell.state.projects.get(project_id)
    if project is None:
        raise NotFound(f"there is no project {project_id}")
    return project


def find_user(cell: Cell, user_id: str) -> s.User:
    """Return the user.

    Raises:
        NotFound: there is none.
    """
    user = cell.state.users.get(user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id}")
    return user


def _domain(cell: Cell, domain_id: str) -> None:
    if domain_id not in cell.state.domains:
        raise UnknownReference(f"there is no domain {domain_id}")


def _grant(cell: Cell, action: s.GrantRole | s.RevokeRole) -> s.Grant:
    user, project = find_user(cell, action.user_id), find_project(cell, action.project_id)
    if action.role_id not in cell.state.roles:
        raise NotFound(f"there is no role {action.role_id}")
    return s.Grant(user_id=user.user_id, project_id=project.project_id, role_id=action.role_id)


# Evolve


def domain_created(cell: Cell, fact: s.DomainCreated, at: Micros) -> None:
    cell.state.domains[fact.domain.domain_id] = fact.domain
    cell.state.bootstrapped = True


def role_created(cell: Cell, fact: s.RoleCreated, at: Micros) -> None:
    cell.state.roles[fact.role.role_id] = fact.role


def project_saved(cell: Cell, fact: s.ProjectCreated | s.ProjectUpdated, at: Micros) -> None:
    project = fact.project
    old = cell.state.projects.get(project.project_id)
    if old is not None:
        del cell.index.project_names[old.domain_id, old.name]
    cell.state.projects[project.project_id] = project
    cell.index.project_names[project.domain_id, project.name] = project.project_id


def project_deleted(cell: Cell, fact: s.ProjectDeleted, at: Micros) -> None:
    project = cell.state.projects.pop(fact.project_id)
    del cell.index.project_names[project.domain_id, project.name]
    cell.state.quotas.pop(project.project_id, None)


def user_saved(cell: Cell, fact: s.UserCreated | s.UserUpdated, at: Micros) -> None:
    user = fact.user
    old = cell.state.users.get(user.user_id)
    if old is not None:
        del cell.index.user_names[old.domain_id, old.name]
    cell.state.users[user.user_id] = user
    cell.index.user_names[user.domain_id, user.name] = user.user_id


def user_deleted(cell: Cell, fact: s.UserDeleted, at: Micros) -> None:
    user = cell.state.users.pop(fact.user_id)
    del cell.index.user_names[user.domain_id, user.name]
    cell.state.grants.pop(user.user_id, None)
    cell.state.keypairs.pop(user.user_id, None)


def role_granted(cell: Cell, fact: s.RoleGranted, at: Micros) -> None:
    grant = fact.grant
    projects = cell.state.grants.setdefault(grant.user_id, {})
    projects[grant.project_id] = tuple(sorted({*projects.get(grant.project_id, ()), grant.role_id}))


def role_revoked(cell: Cell, fact: s.RoleRevoked, at: Micros) -> None:
    grant = fact.grant
    projects = cell.state.grants[grant.user_id]
    left = tuple(r for r in projects[grant.project_id] if r != grant.role_id)
    if left:
        projects[grant.project_id] = left
        return
    del projects[grant.project_id]
    if not projects:
        del cell.state.grants[grant.user_id]


def token_revoked(cell: Cell, fact: s.TokenRevoked, at: Micros) -> None:
    revoked = cell.state.revoked_tokens
    for audit_id in [a for a, expires_at in revoked.items() if expires_at < at]:
        del revoked[audit_id]
    revoked[fact.audit_id] = fact.expires_at
