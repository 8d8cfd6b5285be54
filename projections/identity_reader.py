"""Reads of identity: who there is, which roles they have, which tokens were ended."""

from collections.abc import Sequence
from time import time_ns

from projections.catalog import ENDPOINTS, REGIONS, SERVICES
from projections.connection import Connections
from projections.credential import ACCESS_RULES, APPLICATION_CREDENTIALS, CREDENTIALS, TRUSTS
from projections.federation import FEDERATED, MAPPINGS, PROTOCOLS, PROVIDERS
from projections.identity import (
    DOMAINS,
    GRANTS,
    GROUPS,
    IMPLICATIONS,
    PASSWORD_POLICY,
    POLICY_ROW,
    PROJECTS,
    ROLES,
    USERS,
    Implication,
)
from projections.query import BY_NAME, Query, json_list
from schemas.identity import (
    AccessRule,
    ApplicationCredential,
    Credential,
    Domain,
    Endpoint,
    FederatedUser,
    Grant,
    Group,
    IdentityProvider,
    Mapping,
    PasswordPolicy,
    Project,
    Protocol,
    Region,
    Role,
    Service,
    Trust,
    User,
)
from schemas.units import Micros

# Grants of a user and of its groups.
_HELD = "holder IN (SELECT value FROM json_each(?))"
_DOMAINS_OF = f"SELECT domain_id FROM grants WHERE {_HELD} AND inherited = 0"  # noqa: S608
# What a user has a role on: what it was given there, and what is inherited from above.
_PROJECTS_OF = f"""
WITH RECURSIVE
  above(id) AS (SELECT target FROM grants WHERE {_HELD} AND inherited = 1),
  below(id) AS (
    SELECT id FROM projects WHERE domain_id IN (SELECT id FROM above)
    UNION SELECT id FROM projects WHERE parent_id IN (SELECT id FROM above)
    UNION SELECT projects.id FROM projects JOIN below ON projects.parent_id = below.id)
SELECT project_id FROM grants WHERE {_HELD} AND inherited = 0 UNION SELECT id FROM below
"""  # noqa: S608  # our own names
_BELOW = """
WITH RECURSIVE below(id) AS (
  SELECT id FROM projects WHERE parent_id = ?
  UNION SELECT projects.id FROM projects JOIN below ON projects.parent_id = below.id)
SELECT id FROM below
"""


class IdentityReader(Connections):
    """See ``reader.Reader``."""

    def now(self) -> Micros:
        """Return the time that this reads at."""
        return time_ns() // 1000

    def domain(self, domain_id: str) -> Domain | None:
        """Return a domain."""
        return self.one(DOMAINS, domain_id)

    def domains(
        self,
        *,
        ids: Sequence[str] | None = None,
        name: str | None = None,
        enabled: bool | None = None,
        user_id: str | None = None,
    ) -> list[Domain]:
        """Return domains by name; ``user_id`` means those on which that user has a role."""
        query = Query(DOMAINS).among(id=ids).equal(name=name, enabled=enabled)
        if user_id is not None:
            query.where(f"id IN ({_DOMAINS_OF})", self._holders(user_id))
        return self.page(query, BY_NAME)

    def project(self, project_id: str) -> Project | None:
        """Return a project."""
        return self.one(PROJECTS, project_id)

    def projects(
        self,
        *,
        ids: Sequence[str] | None = None,
        domain_id: str | None = None,
        name: str | None = None,
        enabled: bool | None = None,
        parent_id: str | None = None,
        user_id: str | None = None,
    ) -> list[Project]:
        """Return projects by name; ``user_id`` means those on which that user has a role.

        ``parent_id`` is a project's id, or that of a domain for what lies in no project of it.
        """
        query = Query(PROJECTS).among(id=ids)
        query.equal(domain_id=domain_id, name=name, enabled=enabled)
        if parent_id is not None:
            query.where("(parent_id = ? OR parent_id = '' AND domain_id = ?)", parent_id, parent_id)
        if user_id is not None:
            holders = self._holders(user_id)
            query.where(f"id IN ({_PROJECTS_OF})", holders, holders)
        return self.page(query, BY_NAME)

    def subtree(self, project_id: str) -> list[Project]:
        """Return the projects that lie in one, and in those, by name."""
        return self.page(Query(PROJECTS).where(f"id IN ({_BELOW})", project_id), BY_NAME)

    def user(self, user_id: str) -> User | None:
        """Return a user."""
        return self.one(USERS, user_id)

    def users(
        self,
        *,
        domain_id: str | None = None,
        name: str | None = None,
        enabled: bool | None = None,
        group_id: str | None = None,
    ) -> list[User]:
        """Return users by name; ``group_id`` means those in that group."""
        query = Query(USERS).equal(name=name, domain_id=domain_id, enabled=enabled)
        if group_id is not None:
            query.where("id IN (SELECT user_id FROM memberships WHERE group_id = ?)", group_id)
        return self.page(query, BY_NAME)

    def role(self, role_id: str) -> Role | None:
        """Return a role."""
        return self.one(ROLES, role_id)

    def roles(self, *, name: str | None = None, domain_id: str | None = None) -> list[Role]:
        """Return roles by name; ``domain_id`` "" means those of no domain."""
        return self.page(Query(ROLES).equal(name=name, domain_id=domain_id), BY_NAME)

    def grants(
        self,
        *,
        user_id: str | None = None,
        group_id: str | None = None,
        project_id: str | None = None,
        domain_id: str | None = None,
        system: bool | None = None,
        role_id: str | None = None,
        inherited: bool | None = None,
    ) -> list[Grant]:
        """Return who was given which role where, not what follows from it."""
        query = Query(GRANTS, "holder || ' ' || target || ' ' || inherited || ' ' || role_id")
        query.equal(user_id=user_id, group_id=group_id, role_id=role_id, inherited=inherited)
        query.equal(project_id=project_id, domain_id=domain_id, system=system)
        return self.page(query, (("holder", False), ("target", False)))

    # What roles are told from: see ``engine.domain.identity.directory.Directory``.

    def groups_of(self, user_id: str) -> list[str]:
        """Return the ids of a user's groups, those that its identity provider says included."""
        sql = "SELECT group_id FROM memberships WHERE user_id = ?"
        groups = [group_id for (group_id,) in self.db().execute(sql, (user_id,))]
        told = self.federated(user_id)
        return groups if told is None else [*groups, *told.group_ids]

    def _holders(self, user_id: str) -> str:
        """Return who has what a user has, itself and its groups, as JSON."""
        return json_list((user_id, *self.groups_of(user_id)))

    def federated(self, user_id: str) -> FederatedUser | None:
        """Return what a user's identity provider says of it; None if that does not count now."""
        told = self.one(FEDERATED, user_id)
        if told is None or told.until <= self.now():
            return None
        provider = self.identity_provider(told.idp_id)
        return told if provider is not None and provider.enabled else None

    def federated_members(self, group_id: str) -> list[User]:
        """Return the users whom their identity provider says to be in a group now."""
        told = self.page(Query(FEDERATED), (("id", False),))
        ids = [one.user_id for one in told if group_id in one.group_ids]
        users = [self.user(user_id) for user_id in ids if self.federated(user_id) is not None]
        return [user for user in users if user is not None]

    def granted(self, holder: str, target: str, *, inherited: bool) -> list[str]:
        """Return the ids of roles that a user or group was given on a target."""
        sql = "SELECT role_id FROM grants WHERE holder = ? AND target = ? AND inherited = ?"
        return [role_id for (role_id,) in self.db().execute(sql, (holder, target, int(inherited)))]

    def implied(self, role_id: str) -> list[str]:
        """Return the ids of roles that an operator has made another imply."""
        sql = "SELECT implied_role_id FROM role_implications WHERE prior_role_id = ?"
        return [implied for (implied,) in self.db().execute(sql, (role_id,))]

    def groups(
        self,
        *,
        domain_id: str | None = None,
        name: str | None = None,
        user_id: str | None = None,
    ) -> list[Group]:
        """Return groups by name; ``user_id`` means those that the user is in."""
        query = Query(GROUPS).equal(domain_id=domain_id, name=name)
        if user_id is not None:
            query.among(id=self.groups_of(user_id))
        return self.page(query, BY_NAME)

    def group(self, group_id: str) -> Group | None:
        """Return a group."""
        return self.one(GROUPS, group_id)

    def is_member(self, user_id: str, group_id: str) -> bool:
        """Say whether a user is in a group."""
        sql = "SELECT 1 FROM memberships WHERE user_id = ? AND group_id = ?"
        return self.db().execute(sql, (user_id, group_id)).fetchone() is not None

    def implications(self) -> list[Implication]:
        """Return what operators have made roles imply."""
        query = Query(IMPLICATIONS, "prior_role_id || ' ' || implied_role_id")
        return self.page(query, (("prior_role_id", False),))

    def password_policy(self) -> PasswordPolicy:
        """Return what passwords must be."""
        return self.one(PASSWORD_POLICY, POLICY_ROW) or PasswordPolicy()

    # What stands for users

    def application_credential(self, ident: str) -> ApplicationCredential | None:
        """Return an application credential."""
        return self.one(APPLICATION_CREDENTIALS, ident)

    def application_credentials(
        self, *, user_id: str | None = None, name: str | None = None
    ) -> list[ApplicationCredential]:
        """Return application credentials by name."""
        query = Query(APPLICATION_CREDENTIALS).equal(user_id=user_id, name=name)
        return self.page(query, BY_NAME)

    def access_rules(self, user_id: str) -> list[AccessRule]:
        """Return a user's access rules."""
        query = Query(ACCESS_RULES).equal(user_id=user_id)
        return [held.access_rule for held in self.page(query, (("id", False),))]

    def credential(self, ident: str) -> Credential | None:
        """Return a key of a user."""
        return self.one(CREDENTIALS, ident)

    def credentials(
        self, *, user_id: str | None = None, kind: str | None = None
    ) -> list[Credential]:
        """Return keys; ``kind`` is ``ec2``, ``totp`` or what else a user has named it."""
        query = Query(CREDENTIALS).equal(user_id=user_id, type=kind)
        return self.page(query, (("id", False),))

    def trust(self, ident: str) -> Trust | None:
        """Return a trust."""
        return self.one(TRUSTS, ident)

    def trusts(
        self, *, trustor_user_id: str | None = None, trustee_user_id: str | None = None
    ) -> list[Trust]:
        """Return trusts."""
        query = Query(TRUSTS).equal(
            trustor_user_id=trustor_user_id, trustee_user_id=trustee_user_id
        )
        return self.page(query, (("id", False),))

    # What an operator has added to the catalog

    def regions(self) -> list[Region]:
        """Return regions by id."""
        return self.page(Query(REGIONS), (("id", False),))

    def services(self) -> list[Service]:
        """Return services by id."""
        return self.page(Query(SERVICES), (("id", False),))

    def endpoints(self) -> list[Endpoint]:
        """Return endpoints by id."""
        return self.page(Query(ENDPOINTS), (("id", False),))

    # Other identity providers

    def identity_provider(self, idp_id: str) -> IdentityProvider | None:
        """Return an identity provider."""
        return self.one(PROVIDERS, idp_id)

    def identity_providers(self) -> list[IdentityProvider]:
        """Return identity providers by id."""
        return self.page(Query(PROVIDERS), (("id", False),))

    def mapping(self, mapping_id: str) -> Mapping | None:
        """Return a mapping."""
        return self.one(MAPPINGS, mapping_id)

    def mappings(self) -> list[Mapping]:
        """Return mappings by id."""
        return self.page(Query(MAPPINGS), (("id", False),))

    def protocol(self, idp_id: str, protocol_id: str) -> Protocol | None:
        """Return a protocol of an identity provider."""
        found = self.protocols(idp_id=idp_id, protocol_id=protocol_id)
        return found[0] if found else None

    def protocols(
        self, *, idp_id: str | None = None, protocol_id: str | None = None
    ) -> list[Protocol]:
        """Return protocols by provider and id."""
        query = Query(PROTOCOLS, "idp_id || ' ' || id").equal(idp_id=idp_id, id=protocol_id)
        return self.page(query, (("idp_id", False), ("id", False)))

    # Tokens

    def identity_ordinal(self) -> int:
        """Return where anything last changed of what tokens are checked with."""
        row = self.db().execute("SELECT ordinal FROM identity_changed").fetchone()
        return 0 if row is None else int(row[0])

    def token_revoked(self, audit_id: str) -> bool:
        """Say whether a token was ended before its time."""
        sql = "SELECT 1 FROM revoked_tokens WHERE audit_id = ?"
        return self.db().execute(sql, (audit_id,)).fetchone() is not None
