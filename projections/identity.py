"""Read models of identity: domains, projects, users, groups, roles, grants, revoked tokens.

What an edge must know to check a token without asking the engine. What stands for users is in
``credential``, the catalog's added entries in ``catalog``.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from projections import credential, federation, quota
from projections.store import Table, Writer, drop_where
from schemas import identity as s
from schemas.compute import Keypair
from schemas.units import Micros, Ordinal

type Apply = Callable[[Writer, Any, Ordinal, Micros], None]

NAME = "identity"
VERSION = 3


class Membership(Struct, frozen=True, kw_only=True):
    """A user is in a group."""

    user_id: str
    group_id: str


class Implication(Struct, frozen=True, kw_only=True):
    """An operator has made a role imply another."""

    prior_role_id: str
    implied_role_id: str


class Changed(Struct, frozen=True, kw_only=True):
    """That identity has changed: its row's ordinal says where last."""


DOMAINS = Table(
    "domains",
    s.Domain,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, enabled INTEGER NOT NULL",
    values=lambda d: (d.domain_id, d.name, d.enabled),
    indexes=("(name)",),
)
PROJECTS = Table(
    "projects",
    s.Project,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, domain_id TEXT NOT NULL, "
    "parent_id TEXT NOT NULL, enabled INTEGER NOT NULL",
    values=lambda p: (p.project_id, p.name, p.domain_id, p.parent_id, p.enabled),
    indexes=("(name)", "(domain_id)", "(parent_id) WHERE parent_id <> ''"),
)
USERS = Table(
    "users",
    s.User,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, domain_id TEXT NOT NULL, "
    "enabled INTEGER NOT NULL",
    values=lambda u: (u.user_id, u.name, u.domain_id, u.enabled),
    indexes=("(name)", "(domain_id)"),
)
GROUPS = Table(
    "groups",
    s.Group,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, domain_id TEXT NOT NULL",
    values=lambda g: (g.group_id, g.name, g.domain_id),
    indexes=("(name)", "(domain_id)"),
)
MEMBERSHIPS = Table(
    "memberships",
    Membership,
    key=("user_id", "group_id"),
    columns="user_id TEXT NOT NULL, group_id TEXT NOT NULL",
    values=lambda m: (m.user_id, m.group_id),
    indexes=("(group_id)",),
)
ROLES = Table(
    "roles",
    s.Role,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, domain_id TEXT NOT NULL",
    values=lambda r: (r.role_id, r.name, r.domain_id),
    indexes=("(name)",),
)
IMPLICATIONS = Table(
    "role_implications",
    Implication,
    key=("prior_role_id", "implied_role_id"),
    columns="prior_role_id TEXT NOT NULL, implied_role_id TEXT NOT NULL",
    values=lambda i: (i.prior_role_id, i.implied_role_id),
)
GRANTS = Table(
    "grants",
    s.Grant,
    key=("holder", "target", "inherited", "role_id"),
    columns="holder TEXT NOT NULL, target TEXT NOT NULL, inherited INTEGER NOT NULL, "
    "role_id TEXT NOT NULL, user_id TEXT NOT NULL, group_id TEXT NOT NULL, "
    "project_id TEXT NOT NULL, domain_id TEXT NOT NULL, system INTEGER NOT NULL",
    values=lambda g: (
        g.holder,
        g.target,
        int(g.inherited),
        g.role_id,
        g.user_id,
        g.group_id,
        g.project_id,
        g.domain_id,
        int(g.system),
    ),
    indexes=("(target)", "(role_id)"),
)
PASSWORD_POLICY = Table(
    "password_policy",
    s.PasswordPolicy,
    columns="id TEXT NOT NULL",
    values=lambda _: (POLICY_ROW,),
)
KEYPAIRS = Table(
    "keypairs",
    Keypair,
    key=("user_id", "name"),
    columns="user_id TEXT NOT NULL, name TEXT NOT NULL",
    values=lambda k: (k.user_id, k.name),
)
POLICY_ROW = "policy"
CHANGED = Table(
    "identity_changed", Changed, columns="id TEXT NOT NULL", values=lambda _: (CHANGED_ROW,)
)
CHANGED_ROW = "identity"
_CHANGED = Changed()

STATEMENTS = (
    *DOMAINS.create,
    *PROJECTS.create,
    *USERS.create,
    *GROUPS.create,
    *MEMBERSHIPS.create,
    *ROLES.create,
    *IMPLICATIONS.create,
    *GRANTS.create,
    *PASSWORD_POLICY.create,
    *KEYPAIRS.create,
    *CHANGED.create,
    "CREATE TABLE revoked_tokens (audit_id TEXT PRIMARY KEY, expires_at INTEGER NOT NULL)",
)


def _domain_saved(
    writer: Writer, fact: s.DomainCreated | s.DomainUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(DOMAINS, fact.domain, ordinal)


def _domain_deleted(writer: Writer, fact: s.DomainDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    drop_where(writer, GRANTS, "target", fact.domain_id)
    writer.drop(DOMAINS, fact.domain_id)


def _project_saved(
    writer: Writer, fact: s.ProjectCreated | s.ProjectUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(PROJECTS, fact.project, ordinal)


def _project_deleted(
    writer: Writer, fact: s.ProjectDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    drop_where(writer, GRANTS, "target", fact.project_id)
    credential.project_gone(writer, fact.project_id)
    quota.project_gone(writer, fact.project_id)
    writer.drop(PROJECTS, fact.project_id)


def _user_saved(
    writer: Writer, fact: s.UserCreated | s.UserUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(USERS, fact.user, ordinal)


def _user_deleted(writer: Writer, fact: s.UserDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    drop_where(writer, GRANTS, "holder", fact.user_id)
    drop_where(writer, MEMBERSHIPS, "user_id", fact.user_id)
    drop_where(writer, KEYPAIRS, "user_id", fact.user_id)
    credential.user_gone(writer, fact.user_id)
    federation.user_gone(writer, fact.user_id)
    writer.drop(USERS, fact.user_id)


def _group_saved(
    writer: Writer, fact: s.GroupCreated | s.GroupUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(GROUPS, fact.group, ordinal)


def _group_deleted(writer: Writer, fact: s.GroupDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    drop_where(writer, GRANTS, "holder", fact.group_id)
    drop_where(writer, MEMBERSHIPS, "group_id", fact.group_id)
    writer.drop(GROUPS, fact.group_id)


def _member_added(writer: Writer, fact: s.GroupMemberAdded, ordinal: Ordinal, _at: Micros) -> None:
    membership = Membership(user_id=fact.user_id, group_id=fact.group_id)
    writer.put(MEMBERSHIPS, membership, ordinal)


def _member_removed(
    writer: Writer, fact: s.GroupMemberRemoved, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(MEMBERSHIPS, (fact.user_id, fact.group_id))


def _role_saved(
    writer: Writer, fact: s.RoleCreated | s.RoleUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(ROLES, fact.role, ordinal)


def _role_deleted(writer: Writer, fact: s.RoleDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    drop_where(writer, GRANTS, "role_id", fact.role_id)
    drop_where(writer, IMPLICATIONS, "prior_role_id", fact.role_id)
    drop_where(writer, IMPLICATIONS, "implied_role_id", fact.role_id)
    writer.drop(ROLES, fact.role_id)


def _role_implied(writer: Writer, fact: s.RoleImplied, ordinal: Ordinal, _at: Micros) -> None:
    implication = Implication(
        prior_role_id=fact.prior_role_id, implied_role_id=fact.implied_role_id
    )
    writer.put(IMPLICATIONS, implication, ordinal)


def _implication_ended(
    writer: Writer, fact: s.RoleImplicationEnded, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(IMPLICATIONS, (fact.prior_role_id, fact.implied_role_id))


def _role_granted(writer: Writer, fact: s.RoleGranted, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(GRANTS, fact.grant, ordinal)


def _role_revoked(writer: Writer, fact: s.RoleRevoked, _ordinal: Ordinal, _at: Micros) -> None:
    grant = fact.grant
    writer.drop(GRANTS, (grant.holder, grant.target, int(grant.inherited), grant.role_id))


def _token_revoked(writer: Writer, fact: s.TokenRevoked, _ordinal: Ordinal, at: Micros) -> None:
    writer.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", (at,))
    writer.execute(
        "INSERT INTO revoked_tokens VALUES (?, ?) ON CONFLICT DO UPDATE SET expires_at = "
        "excluded.expires_at",
        (fact.audit_id, fact.expires_at),
    )


def _password_policy_set(
    writer: Writer, fact: s.PasswordPolicySet, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(PASSWORD_POLICY, fact.policy, ordinal)


def _noted(apply: Apply) -> Apply:
    """Return a function that also notes where identity has changed, so that readers look anew."""

    def noted(writer: Writer, fact: Any, ordinal: Ordinal, at: Micros) -> None:
        apply(writer, fact, ordinal, at)
        writer.put(CHANGED, _CHANGED, ordinal)

    return noted


_APPLY: dict[type, Apply] = {
    s.DomainCreated: _domain_saved,
    s.DomainUpdated: _domain_saved,
    s.DomainDeleted: _domain_deleted,
    s.ProjectCreated: _project_saved,
    s.ProjectUpdated: _project_saved,
    s.ProjectDeleted: _project_deleted,
    s.UserCreated: _user_saved,
    s.UserUpdated: _user_saved,
    s.UserDeleted: _user_deleted,
    s.GroupCreated: _group_saved,
    s.GroupUpdated: _group_saved,
    s.GroupDeleted: _group_deleted,
    s.GroupMemberAdded: _member_added,
    s.GroupMemberRemoved: _member_removed,
    s.RoleCreated: _role_saved,
    s.RoleUpdated: _role_saved,
    s.RoleDeleted: _role_deleted,
    s.RoleImplied: _role_implied,
    s.RoleImplicationEnded: _implication_ended,
    s.RoleGranted: _role_granted,
    s.RoleRevoked: _role_revoked,
    s.TokenRevoked: _token_revoked,
    s.PasswordPolicySet: _password_policy_set,
    **credential.APPLY,
    **federation.APPLY,
}
APPLY = {fact: _noted(apply) for fact, apply in _APPLY.items()}
