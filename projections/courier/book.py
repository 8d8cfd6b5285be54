"""How far each webhook has come, on disk: what a courier that was killed goes on from.

Invariant: a webhook's position moves past an event in the same transaction that notes the event as
given up, or after its receiver has taken it. So each event is sent at least once, or is in the list
of what was not taken.
"""

import sqlite3
from pathlib import Path

from msgspec import Struct

from schemas.units import Micros, Ordinal

DEAD_MAX = 1000  # of one webhook; the oldest fall out, and are counted
ERROR_CHARS_MAX = 300

_TABLES = """
CREATE TABLE IF NOT EXISTS webhooks (
  id TEXT PRIMARY KEY, after INTEGER NOT NULL, heard INTEGER NOT NULL,
  delivered INTEGER NOT NULL DEFAULT 0, delivered_at INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0, next_at INTEGER NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '', in_a_row INTEGER NOT NULL DEFAULT 0,
  dead INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS dead (
  id TEXT NOT NULL, ordinal INTEGER NOT NULL, at INTEGER NOT NULL, attempts INTEGER NOT NULL,
  error TEXT NOT NULL, again INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (id, ordinal)
) STRICT, WITHOUT ROWID;
"""


class Progress(Struct, kw_only=True):
    """How one webhook's deliveries stand.

    ``after`` is the last ordinal that was dealt with, ``heard`` the newest of its own facts that
    was looked at. ``failures`` counts attempts of the event that is due, ``in_a_row`` events that
    were given up one after the other, ``dead`` all that were given up and not sent since.
    """

    after: Ordinal
    heard: Ordinal
    delivered: int = 0
    delivered_at: Micros = 0
    failures: int = 0
    next_at: Micros = 0
    error: str = ""
    in_a_row: int = 0
    dead: int = 0


class Dead(Struct, frozen=True, kw_only=True):
    """An event that was given up."""

    ordinal: Ordinal
    at: Micros
    attempts: int
    error: str


_COLUMNS = "after, heard, delivered, delivered_at, failures, next_at, error, in_a_row, dead"


class Book:
    """The positions of one cell's webhooks. One process writes it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        # What a power cut takes back is sent once more.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_TABLES)
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def find(self, webhook_id: str) -> Progress | None:
        """Return a webhook's progress; None if nothing was ever done for it."""
        sql = f"SELECT {_COLUMNS} FROM webhooks WHERE id = ?"  # noqa: S608  # our own names
        row = self._db.execute(sql, (webhook_id,)).fetchone()
        if row is None:
            return None
        return Progress(**dict(zip(_COLUMNS.split(", "), row, strict=True)))

    def save(self, webhook_id: str, progress: Progress) -> None:
        """Keep a webhook's progress."""
        names = _COLUMNS.split(", ")
        marks = ", ".join("?" * (len(names) + 1))
        sql = f"INSERT OR REPLACE INTO webhooks (id, {_COLUMNS}) VALUES ({marks})"  # noqa: S608
        self._db.execute(sql, (webhook_id, *(getattr(progress, name) for name in names)))

    def give_up(self, webhook_id: str, progress: Progress, dead: Dead) -> None:
        """Note an event as given up, and the progress beyond it, in one step."""
        self._db.execute("BEGIN")
        try:
            self._db.execute(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, 0)",
                (webhook_id, dead.ordinal, dead.at, dead.attempts, dead.error[:ERROR_CHARS_MAX]),
            )
            self._db.execute(
                "DELETE FROM dead WHERE id = ? AND ordinal <= (SELECT ordinal FROM dead "
                "WHERE id = ? ORDER BY ordinal DESC LIMIT 1 OFFSET ?)",
                (webhook_id, webhook_id, DEAD_MAX),
            )
            progress.dead = self._count(webhook_id)
            self.save(webhook_id, progress)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def dead(self, webhook_id: str, limit: int) -> list[Dead]:
        """Return what was given up, the newest first."""
        found = self._db.execute(
            "SELECT ordinal, at, attempts, error FROM dead WHERE id = ? "
            "ORDER BY ordinal DESC LIMIT ?",
            (webhook_id, limit),
        )
        return [Dead(ordinal=o, at=at, attempts=n, error=error) for o, at, n, error in found]

    def again(self, webhook_id: str) -> Ordinal | None:
        """Return the first of what was given up and shall be sent again."""
        sql = "SELECT min(ordinal) FROM dead WHERE id = ? AND again = 1"
        first: Ordinal | None = self._db.execute(sql, (webhook_id,)).fetchone()[0]
        return first

    def send_again(self, webhook_id: str) -> None:
        """Have what was given up sent again."""
        self._db.execute("UPDATE dead SET again = 1 WHERE id = ?", (webhook_id,))

    def revive(self, webhook_id: str, ordinal: Ordinal, progress: Progress) -> None:
        """Note that what was given up was taken after all."""
        self._db.execute("DELETE FROM dead WHERE id = ? AND ordinal = ?", (webhook_id, ordinal))
        progress.dead = self._count(webhook_id)
        self.save(webhook_id, progress)

    def rewind(self, webhook_id: str, progress: Progress) -> None:
        """Go back to ``progress.after``: what was given up behind it will come by again."""
        self._db.execute(
            "DELETE FROM dead WHERE id = ? AND ordinal > ?", (webhook_id, progress.after)
        )
        progress.dead = self._count(webhook_id)
        self.save(webhook_id, progress)

    def forget(self, webhook_id: str) -> None:
        """Drop all about a webhook that is gone."""
        self._db.execute("DELETE FROM dead WHERE id = ?", (webhook_id,))
        self._db.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,))

    def known(self) -> list[str]:
        """Return the webhooks that something is kept of."""
        return [webhook_id for (webhook_id,) in self._db.execute("SELECT id FROM webhooks")]

    def _count(self, webhook_id: str) -> int:
        sql = "SELECT count(*) FROM dead WHERE id = ?"
        return int(self._db.execute(sql, (webhook_id,)).fetchone()[0])
