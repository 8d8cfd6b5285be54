"""Reads of quotas: which limits hold for a project, and what it holds.

A limit of the project's own comes first, then the class's, then the built-in one, as in
``engine.domain.quota``.
"""

from engine.domain.quota import DEFAULTS
from engine.domain.usage import BY_USER, COUNTED
from projections.connection import Connections
from projections.identity import PROJECTS
from projections.query import Query
from projections.quota import CLASS, QUOTAS
from projections.usage import USAGE
from schemas.identity import Project


class QuotaReader(Connections):
    """See ``reader.Reader``."""

    def quota_defaults(self) -> dict[str, int]:
        """Return the limits of a project that has none of its own, by name."""
        held = self.one(QUOTAS, CLASS)
        return {**DEFAULTS, **({} if held is None else held.limits)}

    def quota_limits(self, project_id: str) -> dict[str, int]:
        """Return the limits that hold for a project, by name; -1 means none."""
        own = self.one(QUOTAS, project_id)
        return {**self.quota_defaults(), **({} if own is None else own.limits)}

    def quota_owners(self, project_id: str | None = None) -> list[str]:
        """Return the projects that have limits of their own, or just this one if it has."""
        sql = "SELECT id FROM quotas WHERE id <> ? AND id = coalesce(?, id) ORDER BY id"
        return [owner for (owner,) in self.db().execute(sql, (CLASS, project_id))]

    def quota_projects(
        self, project_id: str | None = None, *, marker: str | None = None, limit: int | None = None
    ) -> list[Project]:
        """Return projects by id, or just this one; ``marker`` is an id."""
        query = Query(PROJECTS)
        if project_id is not None:
            query.within("id = ?", project_id)
        return self.page(query, (("id", False),), marker, limit)

    def quota_use(self, project_id: str, user_id: str = "") -> dict[str, int]:
        """Return what a project holds, and of what is counted by user, what the user holds."""
        project = self.one(USAGE, project_id)
        held = {} if project is None else project.held
        return {
            name: self._of_user(name, user_id) if name in BY_USER else held.get(name, 0)
            for name in COUNTED
        }

    def _of_user(self, name: str, user_id: str) -> int:
        # A name of a thing is that of its table.
        column = "trustor_user_id" if name == "trusts" else "user_id"
        sql = f"SELECT count(*) FROM {name} WHERE {column} = ?"  # noqa: S608  # our own names
        return int(self.db().execute(sql, (user_id,)).fetchone()[0]) if user_id else 0
