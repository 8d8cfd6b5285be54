"""The process that answers one question in SQL, and ends.

Told on its standard input (``question.Question``), tells on its standard output (``question.Told``)
and leaves the rows in a file. In this order: it limits itself; it checks the statement; it makes
available the rows that may be seen, and no others; it gives up the file system, extensions and its
own settings; only then it runs what it was asked. A project's rows are copied, without ciphertext,
into a database that holds nothing else, so that no SQL, however clever, finds anybody else's.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from projections.columns import quoted, rows_of
from projections.spreadsheet import FORMULA
from projections.sql.question import ANSWER, MOVED, Column, Question, Told, given_file
from projections.sql.statement import Asked, bare, check, first_line
from projections.sql.views import EVENTS, SHOWN, VIEWS, Given
from schemas.errors import InvalidInput, Rejected

if TYPE_CHECKING:
    import duckdb

MIB = 2**20
BATCH_ROWS = 10_000
PR_SET_PDEATHSIG = 1
ADDRESS_MIB = 3072  # beside the database's own memory: the interpreter, libraries, threads' stacks
# Each format's writer in DuckDB.
WRITERS = {
    "json": "FORMAT json, ARRAY true",
    "csv": "FORMAT csv, HEADER true",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}

_FORMULA = ", ".join(f"chr({ord(character)})" for character in sorted(FORMULA))

_TAIL = (
    "CREATE TEMP TABLE tail (ordinal BIGINT, ts BIGINT, kind VARCHAR, tag VARCHAR, "
    "resource_kind VARCHAR, resource_id VARCHAR, project_id VARCHAR, user_id VARCHAR, "
    "request_id VARCHAR, cause VARCHAR, verdict VARCHAR, code VARCHAR, address VARCHAR, "
    "body VARCHAR)"
)
_TIMELINE = (
    "SELECT ordinal, at, kind, tag, resource_kind, resource_id, project_id, user_id, request_id, "
    "cause, outcome, code, address, CAST(body AS TEXT) FROM timeline "
    "WHERE ordinal > ? AND ordinal <= ?{} ORDER BY ordinal"
)
_COLUMNS = (
    "ordinal, {ts} AS ts, {day} AS day, kind, tag, resource_kind, resource_id, project_id, "
    "user_id, request_id, cause, verdict, code, address, {body} AS body"
)
_SEALED = _COLUMNS.format(ts="committed_at", day="day", body=SHOWN)
_UNSEALED = _COLUMNS.format(
    ts="make_timestamp(ts)", day="CAST(make_timestamp(ts) AS DATE)", body=SHOWN
)


class TooMuch(Rejected):
    """A question needs more than one may take."""

    code = "QueryTooLarge"
    status = 422
    hint = "Ask for less: a shorter time, fewer columns, fewer rows (LIMIT)."


def main() -> None:
    """Answer the question on standard input."""
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    confine(question)
    told = answer(question)
    sys.stdout.buffer.write(msgspec.json.encode(told))


def confine(question: Question) -> None:
    """Give up what is not needed, for good: processor time, memory, disk, a life of one's own."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    limits = question.limits
    largest = max(limits.answer_mib, limits.scratch_mib) * MIB
    for what, most in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_AS, (limits.memory_mib + ADDRESS_MIB) * MIB),
        (resource.RLIMIT_FSIZE, largest),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def answer(question: Question) -> Told:
    """Answer a question; what ends it is told in plain words."""
    import duckdb  # noqa: PLC0415  # after the process is confined

    try:
        db = _open(question)
        with contextlib.closing(db):
            asked = check(db, question.sql)
            with _in_time(db, question.limits.seconds):
                _supply(db, question, asked)
                _lock(db, question)
                return _run(db, question)
    except Rejected as error:
        return Told(code=error.code, reason=error.reason)
    except duckdb.InterruptException:
        return _too_much(f"it took longer than {question.limits.seconds:g} s")
    except (duckdb.OutOfMemoryException, MemoryError):
        return _too_much(f"it needs more than {question.limits.memory_mib} MiB of memory")
    except duckdb.IOException as error:
        if any(not Path(segment.path).exists() for segment in question.segments):
            return Told(code=MOVED, reason="a segment was merged meanwhile")
        if "No space left" in str(error) or "File too large" in str(error):
            return _too_much("it needs more room on disk than there is for it")
        return Told(code=InvalidInput.code, reason=_without_paths(question, first_line(error)))
    except duckdb.Error as error:
        return Told(code=InvalidInput.code, reason=_without_paths(question, first_line(error)))


def _too_much(reason: str) -> Told:
    return Told(code=TooMuch.code, reason=reason)


def _without_paths(question: Question, text: str) -> str:
    """Return an error's text without where things lie on this machine."""
    for path in (question.scratch, *(str(Path(each.path).parent) for each in question.segments)):
        text = text.replace(path, "…")
    return text


def _open(question: Question) -> "duckdb.DuckDBPyConnection":
    import duckdb  # noqa: PLC0415  # as above

    limits = question.limits
    settings: dict[str, Any] = {
        "memory_limit": f"{limits.memory_mib}MiB",
        "threads": limits.threads,
        "temp_directory": str(Path(question.scratch) / "spilled"),
        "max_temp_directory_size": f"{limits.scratch_mib}MiB",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        "python_enable_replacements": False,
        "allow_persistent_secrets": False,
    }
    db = duckdb.connect(":memory:", config=settings)
    db.execute("SET TimeZone = 'UTC'")
    return db


@contextlib.contextmanager
def _in_time(db: "duckdb.DuckDBPyConnection", seconds: float) -> Iterator[None]:
    """Interrupt the database when the time is over."""
    timer = threading.Timer(seconds, db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _supply(db: "duckdb.DuckDBPyConnection", question: Question, asked: Asked) -> None:
    """Make the views that were asked of, over what may be seen."""
    db.execute(_TAIL)
    _read_tail(db, question)
    rows = f"SELECT {_UNSEALED} FROM tail"  # noqa: S608  # our own words, here and below
    if question.segments:
        sealed = rows_of([(Path(each.path), each.format) for each in question.segments])
        # Of segments that go on beyond what is asked about, only what is up to it.
        then = f" WHERE ordinal <= {question.through:d}" * (question.sealed > question.through)
        rows = f"SELECT {_SEALED} FROM ({sealed}){then} UNION ALL {rows}"  # noqa: S608
    if question.project is None:
        db.execute(f"CREATE VIEW {EVENTS.name} AS {rows}")
    else:
        # Only what the question looks at is copied: bodies are most of what there is.
        copied = "*" if asked.bodies else "* REPLACE (CAST(NULL AS VARCHAR) AS body)"
        needed = " OR ".join(f"({view.of})" for view in VIEWS if view.name in asked.views)
        db.execute(
            f"CREATE TABLE {EVENTS.name} AS SELECT {copied} FROM ({rows}) "  # noqa: S608
            f"WHERE project_id = $1 AND ({needed or 'false'})",
            [question.project],
        )
        db.execute("DROP TABLE tail")
    for view in VIEWS:
        if view.given is not None and view.name in asked.views:
            _take(db, question, view.name, view.given)
        if view.select and (view.given is None or view.name in asked.views):
            db.execute(f"CREATE VIEW {view.name} AS {view.select}")


def _take(db: "duckdb.DuckDBPyConnection", question: Question, name: str, given: Given) -> None:
    """Copy the rows that came with the question."""
    path = Path(question.scratch) / given_file(name)
    if not path.exists():
        raise InvalidInput(f"the view {name} cannot be asked of a moment of the past")
    columns = ", ".join(f"'{column}': '{kind}'" for column, kind in given.columns.items())
    db.execute(
        f"CREATE TABLE given_{name} AS SELECT * FROM read_json('{quoted(path)}', "  # noqa: S608
        f"format = 'newline_delimited', columns = {{{columns}}}, maximum_object_size = 1048576)"
    )


def _read_tail(db: "duckdb.DuckDBPyConnection", question: Question) -> None:
    """Copy what is not sealed yet out of the read model."""
    if question.sealed >= question.through:
        return
    bounds: list[Any] = [question.sealed, question.through]
    own = ""
    if question.project is not None:
        own = " AND project_id = ?"
        bounds.append(question.project)
    address = f"file:{Path(question.read_model).as_posix()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as read_model:
        appender = db.appender("tail")
        try:
            for row in read_model.execute(_TIMELINE.format(own), bounds):
                appender.append_row(*row)
            appender.flush()
        finally:
            appender.clear()


def _lock(db: "duckdb.DuckDBPyConnection", question: Question) -> None:
    """Close every way out but to the answer's own file and, for who sees all, to the segments."""
    open_paths = [Path(question.scratch) / ANSWER]
    if question.project is None:
        open_paths += [Path(segment.path) for segment in question.segments]
    db.execute(f"SET allowed_paths = [{_listed(open_paths)}]")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")


def _run(db: "duckdb.DuckDBPyConnection", question: Question) -> Told:
    """Write the answer, and say what it is.

    Raises:
        TooMuch: it has more rows or bytes than an answer may have.
    """
    limits = question.limits
    # On lines of its own: a comment at the end of what was asked ends there.
    asked = f"(\n{bare(question.sql)}\n)"
    described = db.execute(f"DESCRIBE SELECT * FROM {asked}").fetchall()  # noqa: S608  # checked above
    columns = tuple(Column(name=row[0], type=row[1]) for row in described)
    shown = ", ".join(f"{_written(column, question.format)}" for column in columns)
    path = Path(question.scratch) / ANSWER
    select = f"SELECT {shown} FROM {asked} LIMIT {limits.rows + 1}"  # noqa: S608  # checked above
    if question.format == "arrow":
        rows = _write_arrow(db, select, path)
    else:
        copy = f"COPY ({select}) TO '{quoted(path)}' ({WRITERS[question.format]})"
        row = db.execute(copy).fetchone()
        rows = 0 if row is None else int(row[0])
    if rows > limits.rows:
        raise TooMuch(f"the answer has more than {limits.rows} rows")
    if path.stat().st_size > limits.answer_mib * MIB:
        raise TooMuch(f"the answer has more than {limits.answer_mib} MiB")
    return Told(columns=columns, rows=rows)


def _write_arrow(db: "duckdb.DuckDBPyConnection", select: str, path: Path) -> int:
    """Write what a SELECT finds as a stream of Arrow's record batches; return how many rows."""
    import pyarrow as pa  # noqa: PLC0415  # DuckDB has no writer of this format of its own

    rows = 0
    reader = db.sql(select).to_arrow_reader(BATCH_ROWS)
    assert reader is not None, "a SELECT has rows, if only none"
    with path.open("wb") as file, pa.ipc.new_stream(file, reader.schema) as stream:
        for batch in reader:
            stream.write_batch(batch)
            rows += batch.num_rows
    return rows


def _written(column: Column, form: str) -> str:
    """Return how a column is written: in JSON exact numbers are text, times as everywhere.

    In CSV no text is one that a spreadsheet takes for a formula: see ``spreadsheet``.
    """
    name = '"' + column.name.replace('"', '""') + '"'
    if form == "json":
        if column.type.startswith("DECIMAL") or column.type in {"HUGEINT", "UHUGEINT"}:
            return f"CAST({name} AS VARCHAR) AS {name}"
        if column.type == "TIMESTAMP":
            return f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {name}"
        if column.type in {"DOUBLE", "FLOAT"}:  # JSON has no infinity, and nothing but numbers
            return f"CASE WHEN isfinite({name}) THEN {name} END AS {name}"
    if form == "csv" and column.type == "VARCHAR":
        shown = f"CASE WHEN left({name}, 1) IN ({_FORMULA}) THEN chr(39) || {name} ELSE {name} END"
        return f"{shown} AS {name}"
    return name


def _listed(paths: list[Path]) -> str:
    return ", ".join(f"'{quoted(path)}'" for path in paths)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # nothing is left to be done, and threads of the database need not be waited for
