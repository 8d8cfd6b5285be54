"""Identity's things, looked up as a decision may see them: another domain's are not there."""

from engine.domain.context import Context
from engine.domain.identity.access import StateDirectory
from engine.domain.identity.directory import expanded
from engine.domain.state import Cell
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import NotFound, UnknownReference

type Decision = tuple[list[Fact], dict[str, object]]


def identity_id(ctx: Context) -> str:
    """Return a fresh id of 32 hexadecimal digits, the form of identity objects."""
    return ctx.new_id().replace("-", "")


def merged_extra(extra: s.Extra, changes: s.Extra) -> s.Extra:
    """Return further attributes with changes; None takes one away."""
    return {k: v for k, v in {**extra, **changes}.items() if v is not None}


def find_domain(cell: Cell, ctx: Context, domain_id: str) -> s.Domain:
    """Return a domain that the actor may act on.

    Raises:
        NotFound: there is none, or it is another's.
    """
    domain = cell.state.domains.get(domain_id)
    if domain is None or not ctx.owns_domain(domain_id):
        raise NotFound(f"there is no domain {domain_id}")
    return domain


def need_domain(cell: Cell, ctx: Context, domain_id: str) -> None:
    """Let something be made in a domain that is there and the actor's.

    Raises:
        UnknownReference: it is not.
    """
    if domain_id not in cell.state.domains or not ctx.owns_domain(domain_id):
        raise UnknownReference(f"there is no domain {domain_id}")


def find_project(cell: Cell, ctx: Context, project_id: str) -> s.Project:
    """Return a project of a domain that the actor may act on.

    Raises:
        NotFound: there is none, or it is another's.
    """
    project = cell.state.projects.get(project_id)
    if project is None or not ctx.owns_domain(project.domain_id):
        raise NotFound(f"there is no project {project_id}")
    return project


def find_user(cell: Cell, ctx: Context, user_id: str) -> s.User:
    """Return a user of a domain that the actor may act on, or itself.

    Raises:
        NotFound: there is none, or it is another's.
    """
    user = cell.state.users.get(user_id)
    if user is None or not (ctx.owns_domain(user.domain_id) or ctx.is_self(user_id)):
        raise NotFound(f"there is no user {user_id}")
    return user


def find_group(cell: Cell, ctx: Context, group_id: str) -> s.Group:
    """Return a group of a domain that the actor may act on.

    Raises:
        NotFound: there is none, or it is another's.
    """
    group = cell.state.groups.get(group_id)
    if group is None or not ctx.owns_domain(group.domain_id):
        raise NotFound(f"there is no group {group_id}")
    return group


def find_role(cell: Cell, role_id: str) -> s.Role:
    """Return a role.

    Raises:
        NotFound: there is none.
    """
    role = cell.state.roles.get(role_id)
    if role is None:
        raise NotFound(f"there is no role {role_id}")
    return role


# Roles that managers of a domain do not give, since they are good beyond any domain.
ABOVE_DOMAINS = frozenset({"admin", "service"})


def is_above_domains(cell: Cell, holder: str) -> bool:
    """Return whether a user (by whatever way) or a group has roles that are good everywhere.

    These are admin and service, wherever they were given, and any in the system, such as an
    auditor's. Groups of a provider's user count although its word is too old: it may come again.
    """
    state = cell.state
    directory = StateDirectory(state)
    federated = state.federated.get(holder)
    told = () if federated is None else federated.group_ids
    for one in (holder, *state.memberships.get(holder, ()), *told):
        for grants in (state.grants, state.inherited_grants):
            for target, role_ids in grants.get(one, {}).items():
                if target == s.SYSTEM or ABOVE_DOMAINS & expanded(directory, role_ids):
                    return True
    return False
