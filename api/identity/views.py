"""What identity's objects look like to clients. Passwords and keys are never shown.

Attributes that the API does not know are shown as they were given; what it knows comes over them.
"""

from typing import Any

import msgspec

from api.sealing_inbound import password_ends_at
from api.times import micros_z
from schemas.identity import Domain, Group, Project, Role, User

type View = dict[str, Any]


def project_view(project: Project, base: str) -> View:
    """A project."""
    return {
        **project.extra,
        "id": project.project_id,
        "name": project.name,
        "description": project.description,
        "domain_id": project.domain_id,
        "parent_id": project.parent_id or project.domain_id,
        "is_domain": False,
        "enabled": project.enabled,
        "tags": list(project.tags),
        "options": {},
        "links": {"self": f"{base}/identity/v3/projects/{project.project_id}"},
    }


def domain_as_project_view(domain: Domain, base: str) -> View:
    """A domain, where projects are looked at as what lies in one another."""
    return {
        **domain_view(domain, base),
        "domain_id": None,
        "parent_id": None,
        "is_domain": True,
        "links": {"self": f"{base}/identity/v3/projects/{domain.domain_id}"},
    }


def user_view(user: User, base: str) -> View:
    """A user."""
    ends_at = password_ends_at(user)
    view: View = {
        **user.extra,
        "id": user.user_id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled,
        "password_expires_at": None if ends_at is None else micros_z(ends_at),
        "options": msgspec.to_builtins(user.options),
        "links": {"self": f"{base}/identity/v3/users/{user.user_id}"},
    }
    if user.default_project_id:
        view["default_project_id"] = user.default_project_id
    if user.email:
        view["email"] = user.email
    if user.description:
        view["description"] = user.description
    return view


def group_view(group: Group, base: str) -> View:
    """A group."""
    return {
        **group.extra,
        "id": group.group_id,
        "name": group.name,
        "domain_id": group.domain_id,
        "description": group.description,
        "links": {"self": f"{base}/identity/v3/groups/{group.group_id}"},
    }


def role_view(role: Role, base: str) -> View:
    """A role."""
    return {
        **role.extra,
        "id": role.role_id,
        "name": role.name,
        "domain_id": role.domain_id or None,
        "description": role.description or None,
        "options": {},
        "links": {"self": f"{base}/identity/v3/roles/{role.role_id}"},
    }


def domain_view(domain: Domain, base: str) -> View:
    """A domain."""
    return {
        **domain.extra,
        "id": domain.domain_id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "tags": list(domain.tags),
        "options": {},
        "links": {"self": f"{base}/identity/v3/domains/{domain.domain_id}"},
    }
