"""A question in SQL, as it goes to the process that answers it, and what comes back.

The process is told everything on its standard input: it gets no password and opens no connection.
"""

from typing import Literal

from msgspec import Struct

from schemas.units import Ordinal

type Format = Literal["json", "csv", "parquet", "arrow"]

TEXT_MAX = 64 * 1024  # bytes of SQL


class Limits(Struct, frozen=True, kw_only=True):
    """What one question may take. All are hard: what needs more is ended, and says so."""

    memory_mib: int = 512
    threads: int = 2
    seconds: float = 30.0  # of anybody's patience
    cpu_s: int = 60  # of all its threads together
    scratch_mib: int = 4096  # on disk, for what does not fit into memory
    rows: int = 1_000_000
    answer_mib: int = 256


class Sealed(Struct, frozen=True, kw_only=True):
    """A segment to read: where it lies, and which columns it has."""

    path: str
    format: int


class Question(Struct, frozen=True, kw_only=True):
    """SQL over all ordinals up to ``through``; ``project`` None means everybody's rows.

    ``segments`` hold what is up to ``sealed``; what follows is in the read model. ``scratch`` is a
    directory of this question's own, where the answer is written to.
    """

    sql: str
    project: str | None
    segments: tuple[Sealed, ...]
    sealed: Ordinal
    through: Ordinal
    read_model: str
    scratch: str
    format: Format = "json"
    limits: Limits = Limits()


class Column(Struct, frozen=True, kw_only=True):
    """A column of an answer or of a view, with its type as DuckDB calls it."""

    name: str
    type: str
    about: str = ""


class Told(Struct, frozen=True, kw_only=True):
    """What the process found. Rows are in the file ``answer`` of the scratch directory."""

    columns: tuple[Column, ...] = ()
    rows: int = 0
    # Why there is no answer, as a refusal's code and reason; "": there is one.
    code: str = ""
    reason: str = ""


ANSWER = "answer"
# Tables that the process makes for itself; whoever asks sees views of them.
TAIL, GIVEN = "tail", "given_"


def given_file(view: str) -> str:
    """Return in which file of the scratch directory the rows of a view are that came along."""
    return f"given-{view}.jsonl"


# Codes of ``Told``, beside those of ``schemas.errors``.
MOVED = "Moved"  # a segment was merged away; whoever asks lists them anew
