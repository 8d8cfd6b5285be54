"""A node's read model: one SQLite file, its tables, and the one writer that changes them.

Invariant: the position row and everything made of the log up to it are committed together, so the
file is at every moment the exact fold of a prefix of the log. It is derived: it can be thrown away
and built again, and comes out the same (``digest``).
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.log.commit import GENESIS
from projections.answers import Position

BUSY_TIMEOUT_MS = 10_000
CACHED_RESOURCES_MAX = 50_000
# Pages of the journal after which a commit copies them into the file itself, if the runner has not.
JOURNAL_PAGES_MAX = 8_000
BEGINNING = Position(ordinal=0, seq=0, hash=GENESIS, at=0)

type Key = str | tuple[str | int, ...]
type Values = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode


class MadeBy(Struct, frozen=True, kw_only=True):
    """Which version of us made a read model.

    ``layout`` is that of its tables and of what lies in them: readers need their own. ``code`` is
    the fingerprint of all that projects: other code may make other rows of the same log.
    """

    layout: str
    code: str


class Superseded(Exception):
    """The file is no longer the read model, or another process writes it too: open it anew."""


class Table[T: Struct]:
    """A table of resources: its filter columns, the ordinal that last changed a row, its JSON."""

    def __init__(
        self,
        name: str,
        of: type[T],
        *,
        key: str | tuple[str, ...] = "id",
        columns: str,
        values: Callable[[T], Values],
        indexes: tuple[str, ...] = (),
    ) -> None:
        """Describe a table.

        Args:
            name: the table's name.
            of: what ``body`` holds, as JSON.
            key: the primary key: a column, or several.
            columns: their SQL definitions, in the order of ``values``; all NOT NULL unless said.
            values: the columns' values for a resource.
            indexes: each index besides the primary key: columns in parentheses, conditions.
        """
        self.name = name
        self.of = of
        self.key = (key,) if isinstance(key, str) else key
        names = [part.split()[0] for part in columns.split(",")]
        self.columns = (*names, "ordinal", "body")
        self.values = values
        self.decode: Callable[[bytes], T] = msgspec.json.Decoder(of).decode
        self._key_at = tuple(names.index(column) for column in self.key)
        marks = ", ".join("?" * len(self.columns))
        changed = ", ".join(f"{c} = excluded.{c}" for c in self.columns if c not in self.key)
        where = " AND ".join(f"{column} = ?" for column in self.key)
        # Names in these statements are our own; values are always parameters.
        self.upsert = (
            f"INSERT INTO {name} VALUES ({marks}) "  # noqa: S608  # see above
            f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {changed}"
        )
        self.delete = f"DELETE FROM {name} WHERE {where}"  # noqa: S608  # see above
        self.select = f"SELECT body FROM {name} WHERE {where}"  # noqa: S608  # see above
        layout = f"{columns}, ordinal INTEGER NOT NULL, body BLOB NOT NULL"
        self.create = (
            f"CREATE TABLE {name} ({layout}, PRIMARY KEY ({', '.join(self.key)}))",
            *(
                f"CREATE INDEX {name}_{number} ON {name} {index}"
                for number, index in enumerate(indexes, 1)
            ),
        )

    def key_of(self, values: Values) -> Key:
        """Return the primary key among a row's values."""
        at = self._key_at
        return values[at[0]] if len(at) == 1 else tuple(values[i] for i in at)


class NotThere(AssertionError):
    """A fact speaks of what no fact before it has made. In the whole log there is none such."""


class Writer:
    """The pending end of a read model: what the current batch changes, and what is often needed.

    Only the last state of a resource within a batch is encoded and written.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        is_current: Callable[[], bool] = lambda: True,
        *,
        tells: bool = True,
    ) -> None:
        """Take over an open connection; its position is where the log is to be read from.

        ``is_current`` says whether the file is still the read model; asked while it is locked.
        ``tells`` False leaves the timeline out: whoever reads the file has it from elsewhere.
        """
        self.db = db
        self.tells = tells
        self.position = read_position(db)
        self._committed = self.position
        self._is_current = is_current
        self.rows: dict[str, list[Values]] = {}
        self._pending: dict[Table[Any], dict[Key, tuple[Any, Values] | None]] = {}
        self._known: dict[Table[Any], dict[Key, Any]] = {}

    def find[T: Struct](self, table: Table[T], key: Key) -> T | None:
        """Return a resource as this batch has left it."""
        pending = self._pending.get(table)
        if pending is not None and key in pending:
            entry = pending[key]
            return None if entry is None else entry[0]
        known = self._known.setdefault(table, {})
        found = known.get(key)
        if found is None:
            parameters = (key,) if isinstance(key, str) else key
            row = self.db.execute(table.select, parameters).fetchone()
            if row is None:
                return None
            found = table.decode(row[0])
            _remember(known, key, found)
        return found

    def need[T: Struct](self, table: Table[T], key: Key) -> T:
        """Return a resource that a fact speaks of.

        Raises:
            NotThere: no fact before has made it.
        """
        found = self.find(table, key)
        if found is None:
            raise NotThere(f"a fact speaks of {key} of {table.name}, which is not there")
        return found

    def put[T: Struct](self, table: Table[T], resource: T, ordinal: int) -> None:
        """Store a resource as of an ordinal."""
        values = table.values(resource)
        pending = self._pending.setdefault(table, {})
        pending[table.key_of(values)] = (resource, (*values, ordinal))

    def drop[T: Struct](self, table: Table[T], key: Key) -> None:
        """Remove a resource; nothing happens if there is none."""
        self._pending.setdefault(table, {})[key] = None

    def add(self, insert: str, values: Values) -> None:
        """Insert a row at the end of the batch, by a statement that replaces what it repeats."""
        self.rows.setdefault(insert, []).append(values)

    def execute(self, sql: str, parameters: Sequence[Any]) -> list[Values]:
        """Run a rarely needed statement now, on top of all that the batch has changed so far."""
        self._write_out()
        return self.db.execute(sql, parameters).fetchall()

    def commit(self) -> None:
        """Write the batch and its position out and commit them together.

        Raises:
            Superseded: nothing was written.
        """
        self._write_out()
        position = self.position
        self.db.execute(
            "UPDATE position SET ordinal = ?, seq = ?, hash = ?, at = ?",
            (position.ordinal, position.seq, position.hash, position.at),
        )
        self.db.execute("COMMIT")
        self._committed = position

    def abandon(self) -> None:
        """Forget the batch, and all that was remembered along with it."""
        self._pending.clear()
        self._known.clear()
        self.rows.clear()
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self.position = self._committed = read_position(self.db)

    def _begin(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        (ordinal,) = self.db.execute("SELECT ordinal FROM position").fetchone()
        if ordinal != self._committed.ordinal or not self._is_current():
            self.abandon()
            raise Superseded

    def _write_out(self) -> None:
        if not self.db.in_transaction:
            self._begin()
        for table, pending in self._pending.items():
            known = self._known.setdefault(table, {})
            written: list[Values] = []
            for key, entry in pending.items():
                if entry is None:
                    known.pop(key, None)
                    self.db.execute(table.delete, (key,) if isinstance(key, str) else key)
                else:
                    resource, values = entry
                    _remember(known, key, resource)
                    written.append((*values, _encode(resource)))
            if written:
                self.db.executemany(table.upsert, written)
            pending.clear()
        for insert, rows in self.rows.items():
            if rows:
                self.db.executemany(insert, rows)
                rows.clear()


def drop_where(writer: Writer, table: Table[Any], column: str, value: str) -> None:
    """Remove all resources of a table that have a value in a column."""
    keys = ", ".join(table.key)
    sql = f"SELECT {keys} FROM {table.name} WHERE {column} = ?"  # noqa: S608  # our own names
    for row in writer.execute(sql, (value,)):
        writer.drop(table, row[0] if len(row) == 1 else tuple(row))


def _remember(known: dict[Key, Any], key: Key, resource: Any) -> None:
    if len(known) >= CACHED_RESOURCES_MAX:
        known.clear()
    known[key] = resource


def read_position(db: sqlite3.Connection) -> Position:
    """Return where a read model stands."""
    ordinal, seq, link, at = db.execute("SELECT ordinal, seq, hash, at FROM position").fetchone()
    return Position(ordinal=ordinal, seq=seq, hash=link, at=at)


def read_made_by(db: sqlite3.Connection) -> MadeBy | None:
    """Return which version made the file; None if it is no read model, or of none that says."""
    try:
        row = db.execute("SELECT layout, code FROM made_by").fetchone()
    except sqlite3.OperationalError:
        return None
    return None if row is None else MadeBy(layout=row[0], code=row[1])


def create(db: sqlite3.Connection, made_by: MadeBy, statements: Iterable[str]) -> None:
    """Lay out an empty read model."""
    db.execute("BEGIN IMMEDIATE")
    db.execute("CREATE TABLE made_by (layout TEXT NOT NULL, code TEXT NOT NULL)")
    db.execute("INSERT INTO made_by VALUES (?, ?)", (made_by.layout, made_by.code))
    db.execute(
        "CREATE TABLE position (ordinal INTEGER NOT NULL, seq INTEGER NOT NULL, "
        "hash TEXT NOT NULL, at INTEGER NOT NULL)"
    )
    db.execute(
        "INSERT INTO position VALUES (?, ?, ?, ?)",
        (BEGINNING.ordinal, BEGINNING.seq, BEGINNING.hash, BEGINNING.at),
    )
    for statement in statements:
        db.execute(statement)
    db.execute("COMMIT")


class _ClosedByLast(sqlite3.Connection):
    """Is closed when nobody has it any more, in whatever thread that is."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # it was never opened
            self.close()


def open_file(path: Path) -> sqlite3.Connection:
    """Open a read model's file for writing, making it if need be.

    What a power cut takes is read from the log again, so commits are not synced one by one.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    return _set_up(
        db,
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        f"wal_autocheckpoint = {JOURNAL_PAGES_MAX}",
        "temp_store = MEMORY",
    )


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a read model for reading.

    Raises:
        sqlite3.OperationalError: there is no such file.
    """
    uri = f"file:{path.resolve()}?mode=ro"
    db = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        factory=_ClosedByLast,
    )
    return _set_up(
        db, f"busy_timeout = {BUSY_TIMEOUT_MS}", "query_only = ON", "mmap_size = 268435456"
    )


def open_scratch(path: Path) -> sqlite3.Connection:
    """Open a file that nobody else knows yet for writing, making it if need be.

    It is worth nothing until it is whole, so nothing is kept for a crash or a rollback.
    """
    uri = f"file:{path.resolve()}?mode=rwc"  # as an address, so that others may be attached
    db = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=512)
    return _set_up(db, "journal_mode = OFF", "synchronous = OFF", "temp_store = MEMORY")


def attach(db: sqlite3.Connection, path: Path, name: str) -> None:
    """Let a connection read another file too, under a name of ours.

    Raises:
        sqlite3.OperationalError: there is no such file.
    """
    db.execute(f"ATTACH ? AS {name}", (f"file:{path.resolve()}?mode=ro",))


def _set_up(db: sqlite3.Connection, *pragmas: str) -> sqlite3.Connection:
    """Set a connection up, or close it."""
    try:
        for pragma in pragmas:
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


def digest(db: sqlite3.Connection) -> str:
    """Return the SHA-256 (hex) of all tables' rows in the order of their keys.

    Two read models of the same prefix of the log have the same digest. The place in the stream is
    left out: a log that was moved to another stream is the same log. So is which version made it.
    """
    summary = hashlib.sha256()
    tables = db.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
        "AND name != 'made_by' ORDER BY name"
    ).fetchall()
    for (table,) in tables:
        info = db.execute(f"PRAGMA table_info({table})").fetchall()
        columns = [row[1] for row in info if (table, row[1]) != ("position", "seq")]
        keys = [row[1] for row in sorted(info, key=lambda row: int(row[5])) if row[5]]
        order = f" ORDER BY {', '.join(keys)}" if keys else ""
        summary.update(_encode([table, columns]))
        select = f"SELECT {', '.join(columns)} FROM {table}{order}"  # noqa: S608  # our own names
        for row in db.execute(select):
            summary.update(_encode(row))
    return summary.hexdigest()
