"""What changed between two moments, found once and kept for a while in files.

All that lies between the two is folded, and there is a process of its own for it, so that nobody
who reads a moment waits for whoever compares two. Invariant: a file that has its name is whole.
Blocking; one process writes, any may read.
"""

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

from projections import models, store
from projections.models import StoredCommit, decode_stored, last_ordinal
from projections.store import Writer
from projections.timemachine.difference import difference, encode_changes
from projections.timemachine.moments import BeforeFirstEvent, InTheFuture, Moments, Read
from schemas.units import Micros, Ordinal

KEPT_MAX = 8
FOUND = "difference-"

type Key = tuple[Ordinal, Ordinal, str | None]


class Difference(Struct, frozen=True, kw_only=True):
    """Two moments, 0 the beginning of all, and the file with what changed (``Change``, JSON)."""

    since: Ordinal
    since_at: Micros
    ordinal: Ordinal
    at: Micros
    file: str


def differences_path(model: Path) -> Path:
    """Return where the differences between moments of a read model are kept."""
    return model.with_name(f"{model.stem}.differences")


class Differences:
    """The files of one read model. ``read`` yields what the log holds after a sequence."""

    def __init__(self, model: Path, read: Read) -> None:
        self._moments = Moments(model, read)
        self._read = read
        self._directory = differences_path(model)
        self._found: dict[Key, Difference] = {}

    def begin(self) -> None:
        """Remove what an earlier process has left."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.iterdir():
            path.unlink()

    def between(self, since: Ordinal, through: Ordinal, project_id: str | None) -> Difference:
        """Return what changed from one moment to another; 0 is before everything.

        Raises:
            BeforeFirstEvent, InTheFuture: there is no such moment.
            difference.TooMuchChanged: it is more than is told at once.
        """
        key = since, through, project_id
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._find(since, through, project_id)
        Path(found.file).touch()
        self._thin()
        return found

    def _find(self, since: Ordinal, through: Ordinal, project_id: str | None) -> Difference:
        scratch = self._directory / ".building.sqlite"
        scratch.unlink(missing_ok=True)
        try:
            if since:
                self._moments.write(scratch, since)
            with closing(store.open_scratch(scratch)) as db:
                if not since:
                    store.create(db, models.made_by(), models.STATEMENTS)
                base = Writer(db, tells=False)
                between = _Between(self._read, base, through)
                changes = difference(base, between.commits(), project_id)
            of = "all" if project_id is None else sha256(project_id.encode()).hexdigest()[:32]
            name = f"{FOUND}{base.position.ordinal}-{between.ordinal}-{of}.json"
            beside = scratch.with_suffix(".json")
            beside.write_bytes(encode_changes(changes))
            beside.replace(self._directory / name)
        finally:
            scratch.unlink(missing_ok=True)
        return Difference(
            since=base.position.ordinal,
            since_at=base.position.at,
            ordinal=between.ordinal,
            at=between.at,
            file=str(self._directory / name),
        )

    def _thin(self) -> None:
        """Remove what was asked for longest ago, if there is much."""
        kept = sorted(self._directory.glob(f"{FOUND}*"), key=lambda one: one.stat().st_mtime_ns)
        for old in kept[:-KEPT_MAX]:
            old.unlink()
        self._found = {key: one for key, one in self._found.items() if Path(one.file).exists()}


class _Between:
    """What the log holds between two moments, and where the later one is: a commit's end."""

    def __init__(self, read: Read, base: Writer, through: Ordinal) -> None:
        self._read = read
        self._after = base.position.seq
        self._through = through
        self.ordinal, self.at = base.position.ordinal, base.position.at

    def commits(self) -> Iterator[StoredCommit]:
        """Yield the commits, in order.

        Raises:
            BeforeFirstEvent, InTheFuture: the later moment is before the first commit's end, or
                the log ends before it.
        """
        for _, data in self._read(self._after):
            commit = decode_stored(data)
            if last_ordinal(commit) > self._through:
                break
            self.ordinal, self.at = last_ordinal(commit), commit.at
            yield commit
        else:
            if self.ordinal < self._through:
                raise InTheFuture(
                    f"the log ends at ordinal {self.ordinal}: {self._through} is yet to come"
                )
        if not self.ordinal:
            raise BeforeFirstEvent(f"nothing had happened yet at ordinal {self._through}")
