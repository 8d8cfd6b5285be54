"""Read models of what stands for users: application credentials, keys, trusts."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from projections.store import Table, Writer, drop_where
from schemas import identity as s
from schemas.units import Micros, Ordinal

NAME = "credential"
VERSION = 1


class UsersAccessRule(Struct, frozen=True, kw_only=True):
    """An access rule and whose it is."""

    user_id: str
    access_rule: s.AccessRule


APPLICATION_CREDENTIALS = Table(
    "application_credentials",
    s.ApplicationCredential,
    columns="id TEXT NOT NULL, name TEXT NOT NULL, user_id TEXT NOT NULL, project_id TEXT NOT NULL",
    values=lambda a: (a.application_credential_id, a.name, a.user_id, a.project_id),
    indexes=("(user_id)", "(project_id)"),
)
ACCESS_RULES = Table(
    "access_rules",
    UsersAccessRule,
    key=("user_id", "id"),
    columns="user_id TEXT NOT NULL, id TEXT NOT NULL",
    values=lambda r: (r.user_id, r.access_rule.access_rule_id),
)
CREDENTIALS = Table(
    "credentials",
    s.Credential,
    columns="id TEXT NOT NULL, user_id TEXT NOT NULL, project_id TEXT NOT NULL, type TEXT NOT NULL",
    values=lambda c: (c.credential_id, c.user_id, c.project_id, c.type),
    indexes=("(user_id)", "(project_id)"),
)
TRUSTS = Table(
    "trusts",
    s.Trust,
    columns="id TEXT NOT NULL, trustor_user_id TEXT NOT NULL, trustee_user_id TEXT NOT NULL, "
    "project_id TEXT NOT NULL, redelegated_trust_id TEXT NOT NULL",
    values=lambda t: (
        t.trust_id,
        t.trustor_user_id,
        t.trustee_user_id,
        t.project_id,
        t.redelegated_trust_id,
    ),
    indexes=(
        "(trustor_user_id)",
        "(trustee_user_id)",
        "(project_id)",
        "(redelegated_trust_id) WHERE redelegated_trust_id <> ''",
    ),
)

STATEMENTS = (
    *APPLICATION_CREDENTIALS.create,
    *ACCESS_RULES.create,
    *CREDENTIALS.create,
    *TRUSTS.create,
)


def user_gone(writer: Writer, user_id: str) -> None:
    """Remove all that stood for a user."""
    drop_where(writer, APPLICATION_CREDENTIALS, "user_id", user_id)
    drop_where(writer, ACCESS_RULES, "user_id", user_id)
    drop_where(writer, CREDENTIALS, "user_id", user_id)
    _trusts_gone(writer, "trustor_user_id", user_id)
    _trusts_gone(writer, "trustee_user_id", user_id)


def project_gone(writer: Writer, project_id: str) -> None:
    """Remove what stood for users on a project."""
    drop_where(writer, APPLICATION_CREDENTIALS, "project_id", project_id)
    drop_where(writer, CREDENTIALS, "project_id", project_id)
    _trusts_gone(writer, "project_id", project_id)


def _trusts_gone(writer: Writer, column: str, value: str) -> None:
    """Remove trusts, and with each those that were handed on from it."""
    sql = f"SELECT id FROM trusts WHERE {column} = ?"  # noqa: S608  # our own names
    for (ident,) in writer.execute(sql, (value,)):
        writer.drop(TRUSTS, ident)
        _trusts_gone(writer, "redelegated_trust_id", ident)


def _access_rule_created(
    writer: Writer, fact: s.AccessRuleCreated, ordinal: Ordinal, _at: Micros
) -> None:
    rule = UsersAccessRule(user_id=fact.user_id, access_rule=fact.access_rule)
    writer.put(ACCESS_RULES, rule, ordinal)


def _access_rule_deleted(
    writer: Writer, fact: s.AccessRuleDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(ACCESS_RULES, (fact.user_id, fact.access_rule_id))


def _application_credential_created(
    writer: Writer, fact: s.ApplicationCredentialCreated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(APPLICATION_CREDENTIALS, fact.application_credential, ordinal)


def _application_credential_deleted(
    writer: Writer, fact: s.ApplicationCredentialDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(APPLICATION_CREDENTIALS, fact.application_credential_id)


def _credential_saved(
    writer: Writer, fact: s.CredentialCreated | s.CredentialUpdated, ordinal: Ordinal, _at: Micros
) -> None:
    writer.put(CREDENTIALS, fact.credential, ordinal)


def _credential_deleted(
    writer: Writer, fact: s.CredentialDeleted, _ordinal: Ordinal, _at: Micros
) -> None:
    writer.drop(CREDENTIALS, fact.credential_id)


def _trust_created(writer: Writer, fact: s.TrustCreated, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(TRUSTS, fact.trust, ordinal)


def _trust_used(writer: Writer, fact: s.TrustUsed, ordinal: Ordinal, _at: Micros) -> None:
    trust = writer.need(TRUSTS, fact.trust_id)
    writer.put(TRUSTS, replace(trust, remaining_uses=fact.remaining_uses), ordinal)


def _trust_deleted(writer: Writer, fact: s.TrustDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    _trusts_gone(writer, "id", fact.trust_id)


APPLY: dict[type, Callable[[Writer, Any, Ordinal, Micros], None]] = {
    s.AccessRuleCreated: _access_rule_created,
    s.AccessRuleDeleted: _access_rule_deleted,
    s.ApplicationCredentialCreated: _application_credential_created,
    s.ApplicationCredentialDeleted: _application_credential_deleted,
    s.CredentialCreated: _credential_saved,
    s.CredentialUpdated: _credential_saved,
    s.CredentialDeleted: _credential_deleted,
    s.TrustCreated: _trust_created,
    s.TrustUsed: _trust_used,
    s.TrustDeleted: _trust_deleted,
}
