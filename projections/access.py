"""Who asked what: stream ``ACCESS`` as a node keeps it, in a file of its own beside the read model.

Invariant: the file holds what the stream holds and no more, so that it is bounded by the stream's
limits; the position row is committed with what was made of the messages up to it. It can be thrown
away and is then read from the stream again. What an edge counted as lost, and messages and endings
that are missing, are noted as gaps when the next message of that edge comes.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
from msgspec import Struct

from engine.bus.access import first_access, read_access
from engine.bus.client import Bus, BusError
from projections.query import json_list
from projections.store import open_file, open_reader
from schemas.access import AccessBatch, AccessEntry, decode
from schemas.config import Config
from schemas.errors import Unavailable
from schemas.units import MINUTE

VERSION = 2
POLL_S = 0.5
RETRY_S = 2.0
# How often what the stream has dropped is dropped here, and how many rows at once.
PRUNE_S = 60.0
PRUNED_AT_ONCE = 5_000
GAPS_MAX = 10_000
# An edge that was told to stop says when it has: in this time, or it was killed.
STOPPING_MAX = 10 * MINUTE
# An entry's key is its message's sequence and its place there.
PLACES = 1 << 13

_STATEMENTS = (
    "CREATE TABLE position (seq INTEGER NOT NULL)",
    "INSERT INTO position VALUES (0)",
    (
        "CREATE TABLE access (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, edge TEXT NOT NULL, "
        "user_id TEXT NOT NULL, project_id TEXT NOT NULL, address TEXT NOT NULL, "
        "action TEXT NOT NULL, request_id TEXT NOT NULL, status INTEGER NOT NULL, "
        "logged INTEGER NOT NULL, body BLOB NOT NULL)"
    ),
    "CREATE INDEX access_at ON access (at)",
    "CREATE INDEX access_user ON access (user_id, at)",
    "CREATE INDEX access_project ON access (project_id, at)",
    "CREATE INDEX access_address ON access (address, at)",
    "CREATE INDEX access_action ON access (action, at)",
    "CREATE INDEX access_request ON access (request_id)",
    "CREATE INDEX access_denied ON access (at) WHERE status IN (401, 403)",
    (
        "CREATE TABLE about (resource_id TEXT NOT NULL, id INTEGER NOT NULL, "
        "PRIMARY KEY (resource_id, id)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE boots (edge TEXT NOT NULL, boot TEXT NOT NULL, number INTEGER NOT NULL, "
        "began INTEGER NOT NULL, until INTEGER NOT NULL, stopping INTEGER NOT NULL, "
        "last INTEGER NOT NULL, PRIMARY KEY (edge, boot))"
    ),
    (
        "CREATE TABLE gaps (id INTEGER PRIMARY KEY, edge TEXT NOT NULL, what TEXT NOT NULL, "
        "since INTEGER NOT NULL, until INTEGER NOT NULL, requests INTEGER, messages INTEGER)"
    ),
    f"PRAGMA user_version = {VERSION}",
)
_INSERT = "INSERT OR IGNORE INTO access VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(AccessEntry).decode

type GapKind = Literal["lost", "missing", "ended"]


class Gap(Struct, frozen=True, kw_only=True):
    """Something that was asked of an edge and is not here.

    ``lost``: so many requests found no room while the broker was away. ``missing``: so many
    messages did not arrive. ``ended``: the edge was killed, and what it answered in its last second
    before ``until`` may be missing.
    """

    edge: str
    what: GapKind
    since: int
    until: int
    requests: int | None = None
    messages: int | None = None


class Found(Struct, frozen=True, kw_only=True):
    """An entry with the edge that told of it and its place in the order of the list."""

    id: int
    edge: str
    entry: AccessEntry


class Filters(Struct, frozen=True, kw_only=True):
    """What is asked for; None asks nothing. ``since`` and ``until`` are half-open.

    ``before`` is the time and id of the last entry seen; with ``after``, another such, the oldest
    come first. ``logged`` False leaves out mutations that the log has.
    """

    project_id: str | None = None
    user_id: str | None = None
    address: str | None = None
    action: str | None = None
    request_id: str | None = None
    resource_id: str | None = None
    denied: bool = False
    refused: bool | None = None
    logged: bool | None = None
    since: int | None = None
    until: int | None = None
    before: tuple[int, int] | None = None
    after: tuple[int, int] | None = None


def access_path(config: Config) -> Path:
    """Return where a node keeps it."""
    return Path(config.state_dir) / "access" / f"{config.node}.sqlite"


async def keep(bus: Bus, path: Path) -> None:
    """Follow the stream into the file, for ever; what fails is begun again."""
    while True:
        keeper = Keeper(bus, path)
        try:
            await keeper.run()
        except BusError as error:
            log.warning("access_not_read", error=str(error))
        except (OSError, sqlite3.Error):
            # A full disk, say: the log's read model is not kept waiting for it.
            log.exception("access_not_kept")
        finally:
            await asyncio.to_thread(keeper.close)
        await asyncio.sleep(RETRY_S)


class Keeper:
    """The writing end of one file. Works in threads: the log's projector shares the process."""

    def __init__(self, bus: Bus, path: Path) -> None:
        self._bus = bus
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._using = threading.Lock()  # a thread outlives the task that was cancelled
        self._ended = False
        self.seq = 0

    async def run(self) -> None:
        """Follow for ever.

        Raises:
            BusError: the stream does not answer.
        """
        loop = asyncio.get_running_loop()
        await self.open()
        prune_at = loop.time()
        while True:
            if loop.time() >= prune_at:
                await self.prune()
                prune_at = loop.time() + PRUNE_S
            if not await self.take():
                await asyncio.sleep(POLL_S)

    async def open(self) -> None:
        """Open the file, made anew if there is none of this version."""
        await asyncio.to_thread(self._open)

    async def take(self) -> bool:
        """Read what is new; return whether there was anything."""
        found = await read_access(self._bus, self.seq)
        for seq, data in found:
            await asyncio.to_thread(self._apply, seq, data)
        return len(found) > 0

    async def prune(self) -> None:
        """Drop what the stream has dropped; begin anew if it is another stream."""
        first = await first_access(self._bus)
        if self.seq and first and first <= self.seq:
            newest = await read_access(self._bus, self.seq - 1)
            if not newest or newest[0][0] != self.seq:
                log.warning("access_of_another_stream", seq=self.seq)
                await asyncio.to_thread(self._begin_anew)
                return
        below = (first or self.seq + 1) * PLACES
        while await asyncio.to_thread(self._drop, below):
            pass

    def close(self) -> None:
        """Let go of the file, for good: a thread that is late does not open it again."""
        with self._using:
            self._ended = True
            self._close()

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._using:
            db = self._opened()
            (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            self._begin_anew()
        with self._using:
            (self.seq,) = self._database.execute("SELECT seq FROM position").fetchone()

    def _opened(self) -> sqlite3.Connection:
        if self._ended:
            raise sqlite3.OperationalError("the file is not kept any more")
        self._db = open_file(self._path)
        return self._db

    @property
    def _database(self) -> sqlite3.Connection:
        assert self._db is not None, "opened before it is used"
        return self._db

    def _begin_anew(self) -> None:
        with self._using:
            self._close()
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            db = self._opened()
            with _transaction(db):
                for statement in _STATEMENTS:
                    db.execute(statement)
            self.seq = 0

    def _apply(self, seq: int, data: bytes) -> None:
        try:
            batch = decode(data)
        except msgspec.DecodeError as error:
            # Of a version to come, or not by an edge: passed over, and said.
            log.warning("access_unreadable", seq=seq, error=str(error))
            batch = None
        with self._using, _transaction(self._database) as db:
            if batch is not None:
                _take(db, seq, batch)
            db.execute("UPDATE position SET seq = ?", (seq,))
        self.seq = seq

    def _drop(self, below: int) -> bool:
        """Drop some of what lies below a key; return whether there may be more."""
        with self._using, _transaction(self._database) as db:
            keys = db.execute(
                "SELECT id, body FROM access WHERE id < ? ORDER BY id LIMIT ?",
                (below, PRUNED_AT_ONCE),
            ).fetchall()
            named = [(word, key) for key, body in keys for word in _decode_entry(body).about]
            db.executemany("DELETE FROM about WHERE resource_id = ? AND id = ?", named)
            db.executemany("DELETE FROM access WHERE id = ?", [(key,) for key, _ in keys])
            db.execute(
                "DELETE FROM boots WHERE until < (SELECT min(at) FROM access) AND began < "
                "(SELECT max(began) FROM boots AS newer WHERE newer.edge = boots.edge)"
            )
            db.execute("DELETE FROM gaps WHERE id <= (SELECT max(id) FROM gaps) - ?", (GAPS_MAX,))
        return len(keys) == PRUNED_AT_ONCE


def _take(db: sqlite3.Connection, seq: int, batch: AccessBatch) -> None:
    for gap in _gaps_before(db, batch):
        db.execute(
            "INSERT INTO gaps (edge, what, since, until, requests, messages) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (gap.edge, gap.what, gap.since, gap.until, gap.requests, gap.messages),
        )
    db.execute(
        "INSERT INTO boots VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "number = excluded.number, until = excluded.until, stopping = excluded.stopping, "
        "last = excluded.last",
        (
            *(batch.edge, batch.boot, batch.number, batch.at, batch.until),
            *(batch.stopping, batch.last),
        ),
    )
    rows: list[tuple[Any, ...]] = []
    about: list[tuple[str, int]] = []
    for place, entry in enumerate(batch.entries[:PLACES]):
        key = seq * PLACES + place
        rows.append(
            (
                key,
                entry.at,
                batch.edge,
                entry.user_id,
                entry.project_id,
                entry.address,
                entry.action,
                entry.request_id,
                entry.status,
                entry.ordinal > 0 and not entry.repeated,
                _encode(entry),
            )
        )
        about += [(word, key) for word in entry.about]
    db.executemany(_INSERT, rows)
    db.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", about)


def _gaps_before(db: sqlite3.Connection, batch: AccessBatch) -> Iterator[Gap]:
    """Yield what is missing between a start's message and the one before it."""
    known = db.execute(
        "SELECT number, until FROM boots WHERE edge = ? AND boot = ?", (batch.edge, batch.boot)
    ).fetchone()
    if known is None:
        (edges,) = db.execute("SELECT count(*) FROM boots WHERE edge = ?", (batch.edge,)).fetchone()
        # Of an edge that is new here, what came before was dropped, or there was nothing.
        known = (0, batch.at) if edges else (batch.number - 1, batch.at)
    number, until = known
    if batch.number > number + 1:
        missing = batch.number - number - 1
        yield Gap(edge=batch.edge, what="missing", since=until, until=batch.at, messages=missing)
    if batch.lost:
        yield Gap(
            edge=batch.edge,
            what="lost",
            since=batch.lost_since,
            until=batch.at,
            requests=batch.lost,
        )


# A start that did not say its last, although another has begun after it.
_ENDED = """
SELECT one.edge, one.until, min(next.began), one.stopping, max(next.until)
FROM boots AS one JOIN boots AS next ON next.edge = one.edge AND next.began > one.began
WHERE NOT one.last GROUP BY one.edge, one.boot
"""


def _ended(db: sqlite3.Connection) -> Iterator[Gap]:
    """Yield the ends of edges that were killed.

    Looked for when it is asked, since an edge that is replaced says its last after the next began.
    """
    for edge, until, began, stopping, now in db.execute(_ENDED):
        if not stopping or now - until > STOPPING_MAX:
            yield Gap(edge=edge, what="ended", since=until, until=max(began, until))


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


class AccessReader:
    """The reading end. It is asked rarely: each question opens the file that is there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self, filters: Filters, limit: int) -> list[Found]:
        """Return entries, the newest first, or the oldest.

        Raises:
            Unavailable: the node does not keep them yet.
        """
        where, values = _conditions(filters)
        order = "at DESC, id DESC" if filters.after is None else "at, id"
        sql = "SELECT id, edge, body FROM access"
        if where:
            sql = f"{sql} WHERE {' AND '.join(where)}"
        with self._opened() as db:
            rows = db.execute(f"{sql} ORDER BY {order} LIMIT ?", (*values, limit))
            return [Found(id=key, edge=edge, entry=_decode_entry(body)) for key, edge, body in rows]

    def of_requests(self, request_ids: Sequence[str]) -> dict[str, Found]:
        """Return the entries of these requests, by their ids.

        Raises:
            Unavailable: as above.
        """
        sql = (
            "SELECT request_id, id, edge, body FROM access "
            "WHERE request_id IN (SELECT value FROM json_each(?))"
        )
        with self._opened() as db:
            return {
                request_id: Found(id=key, edge=edge, entry=_decode_entry(body))
                for request_id, key, edge, body in db.execute(sql, (json_list(request_ids),))
            }

    def gaps(self, limit: int) -> tuple[list[Gap], int]:
        """Return the newest gaps, and since when entries are kept (microseconds; 0: none are).

        Raises:
            Unavailable: as above.
        """
        with self._opened() as db:
            rows = db.execute(
                "SELECT edge, what, since, until, requests, messages FROM gaps "
                "ORDER BY id DESC LIMIT ?",
                (limit,),
            )
            gaps = [
                Gap(
                    edge=edge,
                    what=what,
                    since=since,
                    until=until,
                    requests=requests,
                    messages=messages,
                )
                for edge, what, since, until, requests, messages in rows
            ]
            gaps += _ended(db)
            (oldest,) = db.execute("SELECT min(at) FROM access").fetchone()
        gaps.sort(key=lambda gap: gap.until, reverse=True)
        return gaps[:limit], oldest or 0

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.ExitStack() as opened:
            try:
                db = opened.enter_context(contextlib.closing(open_reader(self._path)))
                (version,) = db.execute("PRAGMA user_version").fetchone()
            except sqlite3.OperationalError:  # it is not there, or just being made
                raise Unavailable("this node does not keep who asked what yet") from None
            if version != VERSION:
                raise Unavailable("who asked what is being read anew for this version")
            yield db


def _conditions(asked: Filters) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    for column in ("project_id", "user_id", "address", "action", "request_id"):
        value = getattr(asked, column)
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if asked.resource_id is not None:
        where.append("id IN (SELECT id FROM about WHERE resource_id = ?)")
        values.append(asked.resource_id)
    if asked.denied:
        where.append("status IN (401, 403)")
    if asked.refused is not None:
        where.append("status >= 400" if asked.refused else "status < 400")
    if asked.logged is not None:
        where.append("logged = ?")
        values.append(asked.logged)
    if asked.since is not None:
        where.append("at >= ?")
        values.append(asked.since)
    if asked.until is not None:
        where.append("at < ?")
        values.append(asked.until)
    if asked.before is not None:
        where.append("(at, id) < (?, ?)")
        values += asked.before
    if asked.after is not None:
        where.append("(at, id) > (?, ?)")
        values += asked.after
    return where, values
