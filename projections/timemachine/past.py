"""Reading a moment: its own tables, and the timeline of now up to its ordinal.

Invariant: whatever is read is as it was then; nothing that came later can be told from it.
"""

import sqlite3
from pathlib import Path

import msgspec

from projections import models, store
from projections.access import AccessReader, Filters, Found
from projections.reader import Reader
from projections.timemachine.moments import TOLD, Moment
from schemas.units import Micros


class PastReader(Reader):
    """All reads of one moment. Closing it lets go of the moment's file."""

    def __init__(self, model: Path, moment: Moment, at: Micros) -> None:
        """``model`` is the node's read model as it is now; ``at`` the time to read at."""
        super().__init__(model)
        self.moment = moment
        self._at = at

    def now(self) -> Micros:
        """Return the time that this reads at."""
        return self._at

    def _open(self, file: Path) -> sqlite3.Connection:
        db = store.open_reader(Path(self.moment.file))
        try:
            store.attach(db, file, "now")
            layout = db.execute("SELECT layout FROM now.made_by").fetchone()
            if layout != (models.layout(),):
                raise sqlite3.OperationalError("the read model is another version's")  # noqa: TRY301
            db.execute("PRAGMA query_only = OFF")  # both files are read-only as they are
            for table in TOLD:
                # Names in a temporary schema come before those of the file itself.
                db.execute(
                    f"CREATE TEMP VIEW {table} AS "  # noqa: S608  # our own names
                    f"SELECT * FROM now.{table} WHERE ordinal <= {self.moment.ordinal:d}"
                )
            db.execute("PRAGMA query_only = ON")
        except BaseException:
            db.close()
            raise
        return db


class PastAccess(AccessReader):
    """Who had asked what by then."""

    def __init__(self, path: Path, at: Micros) -> None:
        super().__init__(path)
        self._until = at + 1

    def entries(self, filters: Filters, limit: int) -> list[Found]:
        """Return entries up to then, the newest first; see ``AccessReader``."""
        until = self._until if filters.until is None else min(self._until, filters.until)
        return super().entries(msgspec.structs.replace(filters, until=until), limit)
