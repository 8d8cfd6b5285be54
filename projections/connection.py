"""Read-only connections to a node's read model: one a thread, opened anew after a rebuild.

What was decoded is kept by the ordinal that last changed it: a resource that has not changed since
is not decoded again, in whatever thread.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from projections import models, store
from projections.answers import BadPattern, Position
from projections.pattern import Matcher
from projections.query import Query, Sort
from projections.store import BEGINNING, Table
from schemas.errors import Unavailable

# How long a reader may go on with a file that a rebuild has replaced.
SWITCH_S = 0.2
DECODED_MAX = 50_000
PAGES_MAX, PAGE_MAX = 64, 1000  # kept by each thread, and references in each

type Decoded = dict[str, tuple[int, Any]]


class _Local(threading.local):
    db: sqlite3.Connection | None = None
    matcher: Matcher | None = None
    target: str = ""
    check_at: float = 0.0
    depth: int = 0

    def __init__(self) -> None:
        """Each thread begins without pages."""
        self.pages: dict[tuple[str, tuple[Any, ...]], tuple[int, list[Any]]] = {}


class Connections:
    """The reading end of one read model."""

    def __init__(self, path: str | Path) -> None:
        """``path`` is the read model's; it need not be there yet."""
        self._path = Path(path)
        self._local = _Local()
        self._all: list[sqlite3.Connection] = []
        self._ending = threading.Lock()
        self._ended = False
        self._decoded: dict[str, Decoded] = {}

    def close(self) -> None:
        """Close every connection that was opened; a later read opens one again."""
        while self._all:
            self._all.pop().close()
        self._local = _Local()

    def end(self) -> None:
        """Close for good: a thread that still reads is interrupted, and leaves nothing open.

        What it reads from is not closed under it, which would end the process: it lets go of it.
        """
        with self._ending:
            self._ended = True
            while self._all:
                self._all.pop().interrupt()
            self._local = _Local()

    @contextmanager
    def snapshot(self) -> Iterator[Position]:
        """Hold this thread's reads to one position until the block ends; do not await inside."""
        db = self.db()
        self._local.depth += 1
        try:
            if self._local.depth == 1:
                db.execute("BEGIN")
            yield store.read_position(db)
        finally:
            self._local.depth -= 1
            if self._local.depth == 0:
                db.execute("COMMIT")

    def position(self) -> int:
        """Return the last ordinal that reads can see; 0 while there is no read model."""
        try:
            return int(self.db().execute("SELECT ordinal FROM position").fetchone()[0])
        except Unavailable:
            return 0

    def head(self) -> Position:
        """Return the position with its place in the stream, hash and time."""
        try:
            return store.read_position(self.db())
        except Unavailable:
            return BEGINNING

    def db(self) -> sqlite3.Connection:
        """Return this thread's connection to the current file.

        Raises:
            Unavailable: there is none, or it is of another version and being rebuilt.
        """
        local = self._local
        if local.db is not None and (local.depth or time.monotonic() < local.check_at):
            return local.db
        return self._checked(local)

    def one[T: Struct](self, table: Table[T], key: str, column: str = "id") -> T | None:
        """Return a resource by its id."""
        sql = f"SELECT ordinal, body FROM {table.name} WHERE {column} = ?"  # noqa: S608  # our own names
        row = self.db().execute(sql, (key,)).fetchone()
        return None if row is None else self._decode(table, key, *row)

    def page[T: Struct](
        self, query: Query[T], sort: Sort, marker: str | None = None, limit: int | None = None
    ) -> list[T]:
        """Return the resources that a query finds.

        Raises:
            BadPattern: a regular expression takes too long.
            BadSort, MarkerNotFound: see ``Query.statement``.
        """
        db = self.db()
        matcher = self._local.matcher
        assert matcher is not None, "every connection has one"
        matcher.start()
        try:
            with self.snapshot():
                return self._page(db, query, query.statement(db, sort, marker, limit))
        except sqlite3.OperationalError as error:
            if matcher.spent:
                raise BadPattern("the expression takes too long to match") from error
            raise

    def _page[T: Struct](
        self, db: sqlite3.Connection, query: Query[T], statement: tuple[str, tuple[Any, ...]]
    ) -> list[T]:
        """Return a page; the same as before, as long as nobody has written since."""
        pages = self._local.pages
        (version,) = db.execute("PRAGMA data_version").fetchone()
        kept = pages.get(statement)
        if kept is not None and kept[0] == version:
            return list(kept[1])
        rows = db.execute(*statement).fetchall()
        page: list[T] = (
            self._known(query.table, rows)
            if query.plain
            else [self._decode(query.table, *row) for row in rows]
        )
        if len(page) <= PAGE_MAX:
            if len(pages) >= PAGES_MAX:
                pages.clear()
            pages[statement] = (version, list(page))
        return page

    def _known[T: Struct](self, table: Table[T], rows: list[tuple[str, int]]) -> list[T]:
        """Return resources by key and ordinal, reading the bodies of those that have changed."""
        decoded = self._of(table)
        result: list[T] = []
        for key, ordinal in rows:
            entry = decoded.get(key)
            if entry is not None and entry[0] == ordinal:
                result.append(entry[1])
                continue
            found = self.one(table, key, table.key[0])
            assert found is not None, "the snapshot has what the query has found"
            result.append(found)
        return result

    def _decode[T: Struct](self, table: Table[T], key: str, ordinal: int, body: bytes) -> T:
        decoded = self._of(table)
        entry = decoded.get(key)
        if entry is not None and entry[0] == ordinal:
            resource: T = entry[1]
            return resource
        resource = table.decode(body)
        decoded[key] = (ordinal, resource)
        return resource

    def _of(self, table: Table[Any]) -> Decoded:
        decoded = self._decoded.setdefault(table.name, {})
        if len(decoded) > DECODED_MAX:
            decoded.clear()
        return decoded

    def _checked(self, local: _Local) -> sqlite3.Connection:
        try:
            target = self._path.readlink().name
        except OSError:
            raise Unavailable("the read model is not there yet") from None
        if local.db is None or target != local.target:
            self._reopen(local, target)
        local.check_at = time.monotonic() + SWITCH_S
        assert local.db is not None
        return local.db

    def _open(self, file: Path) -> sqlite3.Connection:
        """Open what the path stands for now.

        Raises:
            sqlite3.OperationalError: it is not there any more.
        """
        return store.open_reader(file)

    def _reopen(self, local: _Local, target: str) -> None:
        if local.db is not None:
            with suppress(ValueError):
                self._all.remove(local.db)
            local.db.close()
            local.db = None
        try:
            db = self._open(self._path.with_name(target))
        except sqlite3.OperationalError as error:
            raise Unavailable("the read model is being switched") from error
        made_by = store.read_made_by(db)
        # One of the same layout that other code made is whole, and serves until it is replaced.
        if made_by is None or made_by.layout != models.layout():
            db.close()
            raise Unavailable("the read model is being rebuilt for this version")
        with self._ending:
            if self._ended:
                db.close()
                raise Unavailable("the read model is not read any more")
            self._all.append(db)
        # What another version decoded may have another shape.
        self._decoded = {}
        local.pages = {}
        local.matcher = Matcher(db)
        local.db, local.target = db, target
