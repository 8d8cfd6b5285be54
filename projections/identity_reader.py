"""Reads of identity: who there is, which roles they have, which tokens were ended."""

from collections.abc import Sequence

from projections.connection import Connections
from projections.identity import DOMAINS, GRANTS, PROJECTS, ROLES, USERS
from projections.query import BY_NAME, Query
from schemas.identity import Domain, Grant, Project, Role, User


class IdentityReader(Connections):
    """See ``reader.Reader``."""

    def domain(self, domain_id: str) -> Domain | None:
        """Return a domain."""
        return self.one(DOMAINS, domain_id)

    def domains(self, *, name: str | None = None) -> list[Domain]:
        """Return domains by name."""
        return self.page(Query(DOMAINS).equal(name=name), BY_NAME)

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
        user_id: str | None = None,
    ) -> list[Project]:
        """Return projects by name; ``user_id`` means those on which that user has a role."""
        query = Query(PROJECTS).among(id=ids)
        query.equal(domain_id=domain_id, name=name, enabled=enabled)
        if user_id is not None:
            query.where("id IN (SELECT project_id FROM grants WHERE user_id = ?)", user_id)
        return self.page(query, BY_NAME)

    def user(self, user_id: str) -> User | None:
        """Return a user."""
        return self.one(USERS, user_id)

    def users(
        self,
        *,
        domain_id: str | None = None,
        name: str | None = None,
        enabled: bool | None = None,
    ) -> list[User]:
        """Return users by name."""
        query = Query(USERS).equal(name=name, domain_id=domain_id, enabled=enabled)
        return self.page(query, BY_NAME)

    def role(self, role_id: str) -> Role | None:
        """Return a role."""
        return self.one(ROLES, role_id)

    def roles(self, *, name: str | None = None) -> list[Role]:
        """Return roles by name."""
        return self.page(Query(ROLES).equal(name=name), BY_NAME)

    def grants(
        self,
        *,
        user_id: str | None = None,
        project_id: str | None = None,
        role_id: str | None = None,
    ) -> list[Grant]:
        """Return who has which role where."""
        query = Query(GRANTS, "user_id || ' ' || project_id || ' ' || role_id")
        query.equal(user_id=user_id, project_id=project_id, role_id=role_id)
        return self.page(query, (("user_id", False), ("project_id", False)))

    def role_names(self, user_id: str, project_id: str) -> tuple[str, ...]:
        """Return the names of the roles granted, sorted; what they imply is the policy's to say."""
        rows = self.db().execute(
            "SELECT r.name FROM grants g JOIN roles r ON r.id = g.role_id "
            "WHERE g.user_id = ? AND g.project_id = ? ORDER BY r.name",
            (user_id, project_id),
        )
        return tuple(name for (name,) in rows)

    def token_revoked(self, audit_id: str) -> bool:
        """Say whether a token was ended before its time."""
        sql = "SELECT 1 FROM revoked_tokens WHERE audit_id = ?"
        return self.db().execute(sql, (audit_id,)).fetchone() is not None
