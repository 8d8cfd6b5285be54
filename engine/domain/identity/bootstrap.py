"""The first domain, roles, project and administrator."""

from engine.domain.context import Context
from engine.domain.identity.found import Decision, identity_id
from engine.domain.network import default_group
from engine.domain.state import Cell
from schemas import identity as s
from schemas.envelope import Fact
from schemas.errors import Conflict
from schemas.ids import DEFAULT_DOMAIN
from schemas.network import SecurityGroupCreated


def bootstrap(cell: Cell, ctx: Context, action: s.Bootstrap) -> Decision:
    """Make the first domain, roles, project and administrator, who also rules the system."""
    if cell.state.bootstrapped:
        raise Conflict("the cloud has been bootstrapped already")
    domain = s.Domain(domain_id=DEFAULT_DOMAIN, name="Default", description="The default domain")
    roles = [s.Role(role_id=identity_id(ctx), name=name) for name in s.BUILT_IN]
    admin = roles[0].role_id
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
        password_changed_at=ctx.now,
    )
    grant = s.Grant(user_id=user.user_id, project_id=project.project_id, role_id=admin)
    facts: list[Fact] = [
        s.DomainCreated(domain=domain),
        *(s.RoleCreated(role=role) for role in roles),
        s.ProjectCreated(project=project),
        SecurityGroupCreated(group=default_group(ctx, project.project_id)),
        s.UserCreated(user=user),
        s.RoleGranted(grant=grant),
        s.RoleGranted(grant=s.Grant(user_id=user.user_id, system=True, role_id=admin)),
    ]
    return facts, {"project_id": project.project_id, "user_id": user.user_id}
