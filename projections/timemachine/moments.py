"""The files of a node's time machine: snapshots of its read model, and read models of moments.

A snapshot is the read model at an ordinal without its timeline, which is the same at every moment
but for its end, and most of the bytes. A moment is built from the nearest snapshot or moment before
it and what the log says from there on. Invariant: a file that has its name is whole, holds exactly
the fold up to its ordinal, and was made by this code; all others are removed. Blocking; one process
writes, any may read.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from projections import models, store
from projections.models import apply_commit, decode_stored, last_ordinal
from projections.store import Writer
from schemas.errors import InvalidInput
from schemas.units import Micros, Ordinal

# How far apart snapshots are taken: what a moment between two of them costs is to fold so much. A
# snapshot costs the more, the more there is: in a long log they are a share of it apart.
SNAPSHOT_ORDINALS, SNAPSHOT_SHARE = 20_000, 25
SNAPSHOTS_MAX, SNAPSHOT_BYTES_MAX = 64, 4 * 2**30
MOMENTS_MAX, MOMENT_BYTES_MAX = 16, 1 * 2**30
ENDS_MAX = 4096
COPIES_MAX = 3
BATCH_COMMITS_MAX = 500
SNAPSHOT, MOMENT, TEMPORARY = "snapshot-", "moment-", ".building-"
# What a moment reads in the node's read model as it is now, up to its own ordinal.
TOLD = ("timeline", "request_alarms")

type Read = Callable[[int], Iterable[tuple[int, bytes]]]


class Moment(Struct, frozen=True, kw_only=True):
    """A moment: the end of a commit, its time, and the file with what could be read then."""

    ordinal: Ordinal
    at: Micros
    file: str


class BeforeFirstEvent(InvalidInput):
    """Nothing had happened yet."""

    code = "BeforeFirstEvent"
    hint = "Name a later moment: `cumulog events tail --after 0` shows the first."


class InTheFuture(InvalidInput):
    """It has not happened yet."""

    code = "InTheFuture"
    hint = "Name an earlier moment; without one the present is shown."


def moments_path(model: Path) -> Path:
    """Return where the time machine of a read model keeps its files."""
    return model.with_name(f"{model.stem}.moments")


class Moments:
    """The files of one read model. ``read`` yields what the log holds after a sequence."""

    def __init__(self, model: Path, read: Read, *, every: int = SNAPSHOT_ORDINALS) -> None:
        self._model = model
        self._read = read
        self._every = every
        self._directory = moments_path(model)
        self._used: list[Ordinal] = []  # moments, the last used at the end
        self._ends: dict[Ordinal, Ordinal] = {}  # where commits end, by ordinals within them

    def begin(self) -> None:
        """Remove what an earlier process has left, but for this code's snapshots of this log.

        Of a log that was restored without its end, what was taken of that end is of another log.

        Raises:
            engine.log.port.LogError: the log cannot be read.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            if not path.name.startswith(SNAPSHOT) or not _is_ours(path):
                path.unlink(missing_ok=True)
        for _, path in sorted(self._listed(SNAPSHOT).items(), reverse=True):
            if self._is_of_this_log(path):
                return  # and so are those before it: the chain leads to it
            path.unlink()

    def _is_of_this_log(self, snapshot: Path) -> bool:
        with closing(store.open_reader(snapshot)) as db:
            position = store.read_position(db)
        for _, data in self._read(position.seq - 1):
            return decode_stored(data).hash == position.hash
        return False

    def at(self, ordinal: Ordinal) -> Moment:
        """Return the last moment that does not go beyond an ordinal, building it if need be.

        Raises:
            BeforeFirstEvent: that is before the first commit's end.
            InTheFuture: the log ends before it.
        """
        end = self._ends.get(ordinal, ordinal)
        kept = self._directory / f"{MOMENT}{end}.sqlite"
        if not kept.exists():
            kept = self._build(ordinal)
        moment = _moment(kept)
        if len(self._ends) >= ENDS_MAX:
            self._ends.clear()
        self._ends[ordinal] = moment.ordinal
        self._use(moment.ordinal)
        return moment

    def write(self, file: Path, ordinal: Ordinal) -> Ordinal:
        """Write what was there at an ordinal to a file elsewhere; return where its commit ends.

        Beside whoever keeps the files here: nothing is left among them.

        Raises:
            BeforeFirstEvent, InTheFuture: there is no such moment.
        """
        for attempt in range(COPIES_MAX):
            nearest = self._nearest(ordinal)
            try:
                return self._fold(file, ordinal, nearest, leaves=False)
            except FileNotFoundError:  # it was removed meanwhile
                if attempt == COPIES_MAX - 1:
                    raise
        raise AssertionError("unreachable")

    def newest(self) -> Ordinal:
        """Return the ordinal of the newest snapshot; 0 if there is none."""
        return max(self._listed(SNAPSHOT), default=0)

    def take(self) -> Ordinal:
        """Take a snapshot of the node's read model as it is; return its ordinal.

        Returns 0, and takes none, while the read model is another version's.
        """
        scratch = self._scratch()
        before = self._listed(SNAPSHOT)
        if before:
            shutil.copyfile(before[max(before)], scratch)
        ordinal = _copied(self._model, scratch, max(before, default=0))
        if ordinal:
            scratch.replace(self._directory / f"{SNAPSHOT}{ordinal}.sqlite")
            self._thin(ordinal)
        scratch.unlink(missing_ok=True)
        return ordinal

    def _build(self, wanted: Ordinal) -> Path:
        scratch = self._scratch()
        try:
            reached = self._fold(scratch, wanted, self._nearest(wanted), leaves=True)
            made = self._directory / f"{MOMENT}{reached}.sqlite"
            scratch.replace(made)
        finally:
            scratch.unlink(missing_ok=True)
        return made

    def _fold(
        self, scratch: Path, wanted: Ordinal, nearest: Path | None, *, leaves: bool
    ) -> Ordinal:
        """Make the read model of the last commit that ends at an ordinal or before.

        From what ``nearest`` holds of it; on a long way snapshots are left, if ``leaves``.
        """
        if nearest is not None:
            shutil.copyfile(nearest, scratch)
        db = store.open_scratch(scratch)
        try:
            if nearest is None:
                store.create(db, models.made_by(), models.STATEMENTS)
            writer = Writer(db, tells=False)
            snapshot_at = next_snapshot(writer.position.ordinal, self._every)
            pending, ended = 0, True
            for seq, data in self._read(writer.position.seq):
                if last_ordinal(decode_stored(data)) > wanted:
                    ended = False
                    break
                apply_commit(writer, seq, data)
                pending += 1
                if pending == BATCH_COMMITS_MAX:
                    writer.commit()
                    pending = 0
                if leaves and writer.position.ordinal >= snapshot_at:
                    writer.commit()
                    pending = 0
                    self._leave(scratch, writer.position.ordinal)
                    snapshot_at = next_snapshot(writer.position.ordinal, self._every)
            writer.commit()
            reached = writer.position.ordinal
        finally:
            db.close()
        if ended and reached < wanted:
            raise InTheFuture(f"the log ends at ordinal {reached}: {wanted} is yet to come")
        if not reached:
            raise BeforeFirstEvent(f"nothing had happened yet at ordinal {wanted}")
        return reached

    def _leave(self, scratch: Path, ordinal: Ordinal) -> None:
        """Keep what was folded so far as a snapshot, so that the next time there is one."""
        beside = scratch.with_name(f"{TEMPORARY}snapshot.sqlite")
        shutil.copyfile(scratch, beside)
        beside.replace(self._directory / f"{SNAPSHOT}{ordinal}.sqlite")
        self._thin(ordinal)

    def _nearest(self, wanted: Ordinal) -> Path | None:
        """Return the file that holds most of what was there at an ordinal, and nothing more."""
        found = [
            (ordinal, path)
            for kind in (SNAPSHOT, MOMENT)
            for ordinal, path in self._listed(kind).items()
            if ordinal <= wanted
        ]
        return max(found)[1] if found else None

    def _listed(self, kind: str) -> dict[Ordinal, Path]:
        paths = self._directory.glob(f"{kind}*.sqlite")
        return {int(path.stem.removeprefix(kind)): path for path in paths}

    def _scratch(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        scratch = self._directory / f"{TEMPORARY}moment.sqlite"
        scratch.unlink(missing_ok=True)
        return scratch

    def _use(self, ordinal: Ordinal) -> None:
        """Note that a moment is used; remove those whose use is longest ago, if there are many."""
        if ordinal in self._used:
            self._used.remove(ordinal)
        self._used.append(ordinal)
        kept = self._listed(MOMENT)
        held = 0
        for number, one in enumerate(reversed(self._used)):
            path = kept.pop(one, None)
            held += path.stat().st_size if path is not None else 0
            if path is not None and number and (number >= MOMENTS_MAX or held > MOMENT_BYTES_MAX):
                path.unlink()
        self._used = [one for one in self._used if one in self._listed(MOMENT)]

    def _thin(self, head: Ordinal) -> None:
        """Remove snapshots while there are too many: the older, the further apart they may be."""
        kept = self._listed(SNAPSHOT)
        while len(kept) > 2 and (
            len(kept) > SNAPSHOTS_MAX
            or sum(path.stat().st_size for path in kept.values()) > SNAPSHOT_BYTES_MAX
        ):
            kept.pop(thinned(sorted(kept), head)).unlink()


def next_snapshot(ordinal: Ordinal, every: int = SNAPSHOT_ORDINALS) -> Ordinal:
    """Return when a snapshot is due after one at an ordinal."""
    return ordinal + max(every, ordinal // SNAPSHOT_SHARE)


def thinned(ordinals: list[Ordinal], head: Ordinal) -> Ordinal:
    """Return which of several snapshots is missed least: never the newest.

    It is the one whose neighbours are nearest to each other, measured by how long ago it is.
    """
    gaps: Iterator[tuple[float, Ordinal]] = (
        ((after - before) / (head - ordinal + 1), ordinal)
        for before, ordinal, after in zip([0, *ordinals], ordinals, ordinals[1:], strict=False)
    )
    return min(gaps)[1]


def _moment(path: Path) -> Moment:
    db = store.open_reader(path)
    try:
        position = store.read_position(db)
    finally:
        db.close()
    return Moment(ordinal=position.ordinal, at=position.at, file=str(path))


def _is_ours(path: Path) -> bool:
    try:
        db = store.open_reader(path)
    except sqlite3.OperationalError:
        return False
    try:
        return store.read_made_by(db) == models.made_by()
    except sqlite3.DatabaseError:
        return False
    finally:
        db.close()


def _copied(model: Path, scratch: Path, since: Ordinal) -> Ordinal:
    """Copy a read model without its timeline, at one position; return that, 0 if it cannot be.

    ``scratch`` holds a copy of an earlier ordinal (``since``), so that only what has changed is
    copied; 0: there is nothing yet.
    """
    with closing(store.open_scratch(scratch)) as db:
        try:
            store.attach(db, model, "now")
        except sqlite3.OperationalError:
            return 0
        if not since:
            # Indexes come last: that takes half as long as to keep them up to date.
            store.create(db, models.made_by(), (s for s in models.STATEMENTS if not _is_index(s)))
        db.execute("BEGIN")
        made_by = db.execute("SELECT layout, code FROM now.made_by").fetchone()
        if made_by != (models.made_by().layout, models.made_by().code):
            return 0
        names = db.execute(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' "
            "AND name NOT LIKE 'sqlite_%' AND name <> 'made_by'"
        ).fetchall()
        for (name,) in names:
            if name not in TOLD:
                _copy_table(db, name, since)
        if not since:
            for statement in filter(_is_index, models.STATEMENTS):
                db.execute(statement)
        db.execute("COMMIT")
        return store.read_position(db).ordinal


def _copy_table(db: sqlite3.Connection, name: str, since: Ordinal) -> None:
    """Make a table what it is now. A row says at which ordinal it was changed last."""
    info = db.execute(f"PRAGMA main.table_info({name})").fetchall()
    keys = [row[1] for row in info if row[5]]
    # Names in these statements are our own.
    if not since or not keys or "ordinal" not in {row[1] for row in info}:
        db.execute(f"DELETE FROM main.{name}")  # noqa: S608  # see above
        db.execute(f"INSERT INTO main.{name} SELECT * FROM now.{name}")  # noqa: S608  # see above
        return
    changed = f"SELECT * FROM now.{name} WHERE ordinal > ?"  # noqa: S608  # see above
    db.execute(f"INSERT OR REPLACE INTO main.{name} {changed}", (since,))
    count = f"SELECT (SELECT count(*) FROM main.{name}) - (SELECT count(*) FROM now.{name})"  # noqa: S608  # see above
    if db.execute(count).fetchone() != (0,):
        same = " AND ".join(f"now.{name}.{key} = main.{name}.{key}" for key in keys)
        gone = f"NOT EXISTS (SELECT 1 FROM now.{name} WHERE {same})"  # noqa: S608  # see above
        db.execute(f"DELETE FROM main.{name} WHERE {gone}")  # noqa: S608  # see above


def _is_index(statement: str) -> bool:
    return statement.startswith(("CREATE INDEX", "CREATE UNIQUE INDEX"))
