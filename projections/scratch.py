"""Room on disk for what is worked out and thrown away: a database in a directory of its own.

What a kill leaves there goes when the next process begins, unless it is where the system has it.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from projections.segment import database
from schemas.errors import Unavailable

if TYPE_CHECKING:
    import duckdb


log = structlog.get_logger(__name__)


class Scratch(Struct, frozen=True):
    """An empty database, and the directory that it is in; both go together."""

    db: "duckdb.DuckDBPyConnection"
    directory: Path


@contextlib.contextmanager
def scratch_in(directory: Path | None) -> Iterator[Scratch]:
    """Make room under a directory; None: where the system has it."""
    if directory is not None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="cumulog-", dir=directory) as made,
        database(Path(made) / "rows.duckdb") as db,
    ):
        yield Scratch(db, Path(made))


@contextlib.contextmanager
def room(what: str) -> Iterator[None]:
    """Say what could not be worked out where there is no room for it.

    Raises:
        Unavailable: there is not enough on the disk, or it cannot be read.
    """
    import duckdb  # noqa: PLC0415  # as in ``segment``

    try:
        yield
    except (
        duckdb.IOException,
        duckdb.OutOfMemoryException,
        duckdb.TransactionException,  # what could not be written when it was committed
        duckdb.FatalException,
        OSError,
    ) as error:
        reason = str(error).partition("\n")[0]
        raise Unavailable(f"{what} cannot be worked out on this disk: {reason}") from error


def forget(directory: Path) -> None:
    """Remove what others have left, who are no more; what cannot be removed is told of."""
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("scratch_not_removed", directory=str(directory), error=str(error))
