"""Projects: what owns resources. They lie in a domain, or in another project of it."""

from msgspec.structs import replace

from engine.domain.alarm import alarms_go
from engine.domain.context import Context
from engine.domain.identity.forget import forget_credentials_of_project, forget_target
from engine.domain.identity.found import (
    Decision,
    find_project,
    identity_id,
    merged_extra,
    need_domain,
)
from engine.domain.network import default_group
from engine.domain.state import Cell, drop_member
from engine.domain.webhook import webhooks_go
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import Duplicate, Forbidden, InvalidInput, UnknownReference
from schemas.network import SecurityGroupCreated, SecurityGroupDeleted
from schemas.units import Micros

DEPTH_MAX = 5  # as in Keystone, the domain counted


def create_project(cell: Cell, ctx: Context, action: s.CreateProject) -> Decision:
    """Make a project and its default security group."""
    domain_id, parent_id = _place(cell, ctx, action)
    if (domain_id, action.name) in cell.index.project_names:
        raise Duplicate(f"a project named {action.name!r} exists in this domain")
    project = s.Project(
        project_id=identity_id(ctx),
        name=action.name,
        domain_id=domain_id,
        description=action.description,
        enabled=action.enabled,
        key_id=action.key_id,
        parent_id=parent_id,
        tags=_tags(action.tags),
        extra=merged_extra({}, action.extra),
    )
    group = default_group(ctx, project.project_id)
    return [s.ProjectCreated(project=project), SecurityGroupCreated(group=group)], {
        "project_id": project.project_id
    }


def _place(cell: Cell, ctx: Context, action: s.CreateProject) -> tuple[str, str]:
    """Return the domain and the parent ("" in the domain itself) that a project is to have."""
    parent_id = action.parent_id or ""
    if not parent_id or parent_id == action.domain_id:
        need_domain(cell, ctx, action.domain_id)
        return action.domain_id, ""
    parent = cell.state.projects.get(parent_id)
    if parent is None or not ctx.owns_domain(parent.domain_id):
        raise UnknownReference(f"there is no project {parent_id}")
    if parent.domain_id != action.domain_id:
        raise InvalidInput("a project lies in the domain of its parent")
    if not parent.enabled and action.enabled:
        raise Forbidden("an enabled project cannot lie in a disabled one")
    depth, above = 2, parent
    while above.parent_id:
        depth, above = depth + 1, cell.state.projects[above.parent_id]
    if depth >= DEPTH_MAX:
        raise Forbidden(f"projects lie at most {DEPTH_MAX} deep, their domain counted")
    return parent.domain_id, parent_id


def update_project(cell: Cell, ctx: Context, action: s.UpdateProject) -> Decision:
    """Change what is given."""
    project = find_project(cell, ctx, action.project_id)
    name = project.name if action.name is None else action.name
    holder = cell.index.project_names.get((project.domain_id, name))
    if holder not in (None, project.project_id):
        raise Duplicate(f"a project named {name!r} exists in this domain")
    given = {
        field: value
        for field in ("description", "enabled")
        if (value := getattr(action, field)) is not None
    }
    tags = project.tags if action.tags is None else _tags(action.tags)
    extra = merged_extra(project.extra, action.extra)
    changed = replace(project, name=name, tags=tags, extra=extra, **given)
    if not changed.enabled and project.enabled:
        if project.project_id == ctx.actor.project_id:
            raise Forbidden("a project cannot disable itself")
        below = cell.index.project_children.get(project.project_id, ())
        if any(cell.state.projects[child].enabled for child in below):
            raise Forbidden("an enabled project lies in it; disable that first")
    if changed.enabled and not project.enabled and not _parent_enabled(cell, project):
        raise Forbidden("it lies in a disabled project; enable that first")
    return [s.ProjectUpdated(project=changed)], {"project_id": project.project_id}


def _parent_enabled(cell: Cell, project: s.Project) -> bool:
    return not project.parent_id or cell.state.projects[project.parent_id].enabled


def delete_project(cell: Cell, ctx: Context, action: s.DeleteProject) -> Decision:
    """Remove a project. What it owns stays until somebody removes it, as in OpenStack."""
    project = find_project(cell, ctx, action.project_id)
    if project.project_id == ctx.actor.project_id:
        raise Forbidden("a project cannot delete itself")
    if cell.index.project_children.get(project.project_id):
        raise Forbidden("projects lie in it; delete those first")
    return project_goes(cell, project), {}


def project_goes(cell: Cell, project: s.Project) -> list[Fact]:
    """Return the facts of a project's end; security groups that ports use stay with those."""
    index = cell.index
    facts: list[Fact] = [
        SecurityGroupDeleted(security_group_id=group_id)
        for group_id in sorted(index.project_groups.get(project.project_id, ()))
        if not index.group_ports.get(group_id)
    ]
    facts += webhooks_go(cell, project.project_id)
    facts += alarms_go(cell, project.project_id)
    return [*facts, s.ProjectDeleted(project_id=project.project_id)]


def _tags(tags: s.Tags) -> s.Tags:
    return tuple(dict.fromkeys(tags))


# Evolve


def project_saved(cell: Cell, fact: s.ProjectCreated | s.ProjectUpdated, at: Micros) -> None:
    project, index = fact.project, cell.index
    old = cell.state.projects.get(project.project_id)
    if old is not None:
        del index.project_names[old.domain_id, old.name]
    cell.state.projects[project.project_id] = project
    index.project_names[project.domain_id, project.name] = project.project_id
    index.domain_projects.setdefault(project.domain_id, set()).add(project.project_id)
    if project.parent_id:
        index.project_children.setdefault(project.parent_id, set()).add(project.project_id)


def project_deleted(cell: Cell, fact: s.ProjectDeleted, at: Micros) -> None:
    state, index = cell.state, cell.index
    project = state.projects.pop(fact.project_id)
    del index.project_names[project.domain_id, project.name]
    drop_member(index.domain_projects, project.domain_id, project.project_id)
    if project.parent_id:
        drop_member(index.project_children, project.parent_id, project.project_id)
    state.quotas.pop(project.project_id, None)
    forget_target(cell, project.project_id)
    forget_credentials_of_project(cell, project.project_id)
