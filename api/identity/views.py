"""What identity's objects look like to clients. Passwords and keys are never shown."""

from typing import Any

from api.sealing_inbound import password_ends_at
from api.times import micros_z
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
    ends_at = password_ends_at(user)
    view: dict[str, Any] = {
        "id": user.user_id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled,
        "password_expires_at": None if ends_at is None else micros_z(ends_at),
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
