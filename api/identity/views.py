"""What identity's objects look like to clients. Passwords and keys are never shown."""

from typing import Any

from api.auth import Principal
from api.catalog import catalog
from api.times import micros_z
from projections.reader import Reader
from schemas.identity import Domain, Project, Role, User


def project_view(project: Project, base: str) -> dict[str, Any]:
    """A project."""
    return {
        "id": project.project_id,
        "name": project.name,
        "description": project.description,
        "domain_id": project.domain_id,
        "parent_id": project.domain_id,
        "is_domain": False,
        "enabled": project.enabled,
        "tags": [],
        "options": {},
        "links": {"self": f"{base}/identity/v3/projects/{project.project_id}"},
    }


def user_view(user: User, base: str) -> dict[str, Any]:
    """A user."""
    view: dict[str, Any] = {
        "id": user.user_id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled,
        "password_expires_at": None,
        "options": {},
        "links": {"self": f"{base}/identity/v3/users/{user.user_id}"},
    }
    if user.default_project_id:
        view["default_project_id"] = user.default_project_id
    if user.email:
        view["email"] = user.email
    if user.description:
        view["description"] = user.description
    return view


def role_view(role: Role, base: str) -> dict[str, Any]:
    """A role."""
    return {
        "id": role.role_id,
        "name": role.name,
        "domain_id": None,
        "description": None,
        "options": {},
        "links": {"self": f"{base}/identity/v3/roles/{role.role_id}"},
    }


def domain_view(domain: Domain, base: str) -> dict[str, Any]:
    """A domain."""
    return {
        "id": domain.domain_id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "tags": [],
        "options": {},
        "links": {"self": f"{base}/identity/v3/domains/{domain.domain_id}"},
    }


def token_view(
    principal: Principal, reader: Reader, base: str, *, with_catalog: bool = True
) -> dict[str, Any]:
    """A token's body: the same at creation and at every validation."""
    token, user = principal.token, principal.user
    view: dict[str, Any] = {
        "methods": list(token.methods),
        "user": {
            "id": user.user_id,
            "name": user.name,
            "domain": _domain_ref(reader, user.domain_id),
            "password_expires_at": None,
        },
        "audit_ids": [token.audit_id],
        "expires_at": micros_z(token.expires_at),
        "issued_at": micros_z(token.issued_at),
    }
    project = principal.project
    if project is not None:
        view["project"] = {
            "id": project.project_id,
            "name": project.name,
            "domain": _domain_ref(reader, project.domain_id),
        }
        view["is_domain"] = False
        ids = {role.name: role.role_id for role in reader.roles() if not role.domain_id}
        view["roles"] = [{"id": ids[n], "name": n} for n in principal.roles if n in ids]
        if with_catalog:
            view["catalog"] = catalog(base)
    return {"token": view}


def _domain_ref(reader: Reader, domain_id: str) -> dict[str, str]:
    domain = reader.domain(domain_id)
    return {"id": domain_id, "name": domain.name if domain else domain_id}
