"""Read models of identity: domains, projects, users, roles, grants, revoked tokens.

What an edge must know to check a token without asking the engine.
"""

from projections.store import Table, Writer
from schemas import identity as s
from schemas.compute import Keypair
from schemas.units import Micros, Ordinal

NAME = "identity"
VERSION = 1

DOMAINS = Table(
    "domains",
    s.Domain,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, enabled INTEGER NOT NULL",
    values=lambda d: (d.domain_id, d.name, d.enabled),
)
PROJECTS = Table(
    "projects",
    s.Project,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, domain_id TEXT NOT NULL, "
    "enabled INTEGER NOT NULL",
    values=lambda p: (p.project_id, p.name, p.domain_id, p.enabled),
    indexes=("(name)",),
)
USERS = Table(
    "users",
    s.User,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, domain_id TEXT NOT NULL, "
    "enabled INTEGER NOT NULL",
    values=lambda u: (u.user_id, u.name, u.domain_id, u.enabled),
    indexes=("(name)",),
)
ROLES = Table(
    "roles",
    s.Role,
    columns="id TEXT NOT NULL, name TEXT NOT NULL",
    values=lambda r: (r.role_id, r.name),
)
GRANTS = Table(
    "grants",
    s.Grant,
    key=("user_id", "project_id", "role_id"),
    columns="user_id TEXT NOT NULL, project_id TEXT NOT NULL, role_id TEXT NOT NULL",
    values=lambda g: (g.user_id, g.project_id, g.role_id),
    indexes=("(project_id)",),
)
KEYPAIRS = Table(
    "keypairs",
    Keypair,
    key=("user_id", "name"),
    columns="user_id TEXT NOT NULL, name TEXT NOT NULL",
    values=lambda k: (k.user_id, k.name),
)

STATEMENTS = (
    *DOMAINS.create,
    *PROJECTS.create,
    *USERS.create,
    *ROLES.create,
    *GRANTS.create,
    *KEYPAIRS.create,
    "CREATE TABLE revoked_tokens (audit_id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL)",
)


def _domain_created(writer: Writer, fact: s.DomainCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(DOMAINS, fact.domain, ordinal)


def _role_created(writer: Writer, fact: s.RoleCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(ROLES, fact.role, ordinal)


def _project_saved(
    writer: Writer, fact: s.ProjectCreated | s.ProjectUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(PROJECTS, fact.project, ordinal)


def _project_deleted(
    writer: Writer, fact: s.ProjectDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(PROJECTS, fact.project_id)


def _user_saved(
    writer: Writer, fact: s.UserCreated | s.UserUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(USERS, fact.user, ordinal)


def _user_deleted(writer: Writer, fact: s.UserDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    grants = "SELECT project_id, role_id FROM grants WHERE user_id = ?"
    for project_id, role_id in writer.execute(grants, (fact.user_id,)):
        writer.drop(GRANTS, (fact.user_id, project_id, role_id))
    keypairs = "SELECT name FROM keypairs WHERE user_id = ?"
    for (name,) in writer.execute(keypairs, (fact.user_id,)):
        writer.drop(KEYPAIRS, (fact.user_id, name))
    writer.drop(USERS, fact.user_id)


def _role_granted(writer: Writer, fact: s.RoleGranted, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(GRANTS, fact.grant, ordinal)


def _role_revoked(writer: Writer, fact: s.RoleRevoked, _ordinal: Ordinal, _at: Micros) -> None:
    grant = fact.grant
    writer.drop(GRANTS, (grant.user_id, grant.project_id, grant.role_id))


def _token_revoked(writer: Writer, fact: s.TokenRevoked, _ordinal: Ordinal, at: Micros) -> None:
    writer.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", (at,))
    writer.execute(
        "INSERT INTO revoked_tokens VALUES (?, ?) ON CONFLICT DO UPDATE SET expires_at = "
        "excluded.expires_at",
        (fact.audit_id, fact.expires_at),
    )


APPLY = {
    s.DomainCreated: _domain_created,
    s.RoleCreated: _role_created,
    s.ProjectCreated: _project_saved,
    s.ProjectUpdated: _project_saved,
    s.ProjectDeleted: _project_deleted,
    s.UserCreated: _user_saved,
    s.UserUpdated: _user_saved,
    s.UserDeleted: _user_deleted,
    s.RoleGranted: _role_granted,
    s.RoleRevoked: _role_revoked,
    s.TokenRevoked: _token_revoked,
}
