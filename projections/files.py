"""Where a read model lies, and how one is built beside another and switched to.

A read model's path is a symbolic link to a numbered file beside it (node-1.sqlite stands for
node-1.g3.sqlite), so that a rebuild is switched to in one rename and never meets the journal of the
file before it. Invariant: what the path stands for is always a whole read model.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from projections import models, store
from projections.answers import Position

BATCH_COMMITS_MAX = 500

type Read = Callable[[int], Iterable[tuple[int, bytes]]]


class LogEnded(Exception):
    """The log ends before the read model does: a part of it is missing."""


class Rebuilt(Struct, frozen=True, kw_only=True):
    """What a rebuild came to. ``before`` is None if there was nothing to compare with."""

    ordinal: int
    before: str | None
    after: str

    @property
    def identical(self) -> bool | None:
        """Whether all tables came out as they were; None if they could not be compared."""
        return None if self.before is None else self.before == self.after


def open_current(path: Path) -> store.Writer | None:
    """Open the read model for writing; None if there is none that this version's code made."""
    number = generation(path)
    if number == 0 or not path.exists():
        return None
    file = generation_file(path, number)
    db = store.open_file(file)
    if store.read_made_by(db) != models.made_by():
        db.close()
        return None
    link, target = str(path), file.name
    # Asked in every commit, and pathlib takes ten times as long.
    return store.Writer(db, lambda: os.readlink(link) == target)  # noqa: PTH115  # see above


def open_next(path: Path) -> store.Writer:
    """Lay out an empty read model beside the current one; ``switch_to`` it once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = generation_file(path, generation(path) + 1)
    remove(file)
    db = store.open_file(file)
    store.create(db, models.made_by(), models.STATEMENTS)
    return store.Writer(db)


def switch_to_next(path: Path) -> None:
    """Let ``path`` stand for the file that ``open_next`` laid out, at once for everybody."""
    number = generation(path) + 1
    link = path.with_name(f".{path.name}.next")
    link.unlink(missing_ok=True)
    link.symlink_to(generation_file(path, number).name)
    link.replace(path)
    for other in path.parent.glob(f"{path.stem}.g*{path.suffix}"):
        if other != generation_file(path, number):
            remove(other)


def rebuild(path: Path, read: Read) -> Rebuilt:
    """Build the read model anew from the log, compare it with the one there is, and switch to it.

    A projector may be at work meanwhile: it is held up for the last few commits, finds that its
    file is not the read model any more, and goes on with the new one.

    Args:
        path: the read model.
        read: yields (sequence, commit) of what follows a sequence, to the end of the log.

    Raises:
        LogEnded: the log does not reach as far as the read model; nothing was switched.
        models.LogDiffers: it is not one log; nothing was switched.
    """
    current = open_current(path)
    fresh = open_next(path)
    try:
        if current is None:
            _follow(fresh, read, None)
            ordinal, before = fresh.position.ordinal, None
        else:
            _follow(fresh, read, current.position.ordinal)
            current.db.execute("BEGIN IMMEDIATE")
            ordinal = store.read_position(current.db).ordinal
            _follow(fresh, read, ordinal)
            before = store.digest(current.db)
        after = store.digest(fresh.db)
        fresh.db.close()
        switch_to_next(path)
    finally:
        fresh.db.close()
        if current is not None:
            current.db.close()
    return Rebuilt(ordinal=ordinal, before=before, after=after)


def _follow(writer: store.Writer, read: Read, until: int | None) -> Position:
    """Fold what the log holds, up to an ordinal (the last of a commit), or to its end."""
    pending = 0
    if until is not None and writer.position.ordinal >= until:
        return writer.position
    for seq, data in read(writer.position.seq):
        models.apply_commit(writer, seq, data)
        pending += 1
        if pending == BATCH_COMMITS_MAX:
            writer.commit()
            pending = 0
        if until is not None and writer.position.ordinal >= until:
            break
    writer.commit()
    if until is not None and writer.position.ordinal != until:
        raise LogEnded(
            f"the log ends at ordinal {writer.position.ordinal}, the read model at {until}"
        )
    return writer.position


def checkpoint(path: Path) -> None:
    """Copy the journal into the file as far as readers allow. Blocking; run it in a thread."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        db.close()


def generation(path: Path) -> int:
    """Return the number of the file that ``path`` stands for; 0 if there is none yet."""
    try:
        target = path.readlink().name
    except OSError:
        return 0
    return int(target.rsplit(".", 2)[-2].removeprefix("g"))


def generation_file(path: Path, number: int) -> Path:
    """Return the numbered file's own path."""
    return path.with_name(f"{path.stem}.g{number}{path.suffix}")


def remove(path: Path) -> None:
    """Remove a numbered file with its journal. Readers that have it open keep what they see."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
