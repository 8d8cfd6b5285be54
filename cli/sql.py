"""`cumulog sql`: any question about history that a SELECT can ask."""

import enum
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import with_query
from cli.identity import PROJECTS
from cli.output import Column, Output, Row
from cli.problem import USAGE, Problem
from cli.session import Session, command, single

ANSWER_S = 120.0

sql_app = single()


class FileFormat(enum.StrEnum):
    """What an answer can be written as into a file."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"


SCHEMA_COLUMNS: list[Column] = [
    ("VIEW", "view"),
    ("COLUMN", "column"),
    ("TYPE", "type"),
    ("WHAT", "about"),
]


@command(sql_app, "sql", reads=True)
def sql(
    session: Session,
    statement: Annotated[
        str | None, typer.Argument(help="One SELECT; - reads it from standard input.")
    ] = None,
    *,
    schema: Annotated[
        bool, typer.Option("--schema", help="List the views and their columns.")
    ] = False,
    project: Annotated[
        str | None,
        typer.Option(help="Over this project's rows (administrators); none: all you may see."),
    ] = None,
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Write a file of this format.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to; none: standard output.")] = None,
) -> None:
    """Ask history in SQL: everything that happened, up to the last acknowledged change.

    You see your project's rows; administrators and auditors see all. A question is one SELECT
    (DuckDB's SQL) of the views that --schema lists, times are UTC, and it runs in a process of its
    own with bounded memory and time: nothing can be changed, and no file is read. With --as-of,
    the views hold what had happened by then.

    \b
    cumulog sql "select verdict, count(*) from requests group by all"
    cumulog sql "select * from servers_history where until is null" -o json
    cumulog sql "from events where day = current_date" --format parquet --out today.parquet
    """  # noqa: D301  # click's mark for lines that stay as they are
    client = session.client
    client.timeout_s = ANSWER_S
    if schema:
        _show_schema(session, client.get("/v1/sql/schema"))
        return
    text = sys.stdin.read() if statement == "-" else statement
    if not text:
        raise Problem("say a SELECT, or --schema", exit_code=USAGE)
    if out is not None and file_format is None:
        raise Problem("say --format of the file", exit_code=USAGE)
    path = with_query(
        "/v1/sql", {"project": PROJECTS.identify(client, project) if project else None}
    )
    if file_format is not None:
        asked = {"sql": text, "format": file_format.value, "as_of": session.as_of or ""}
        if out is None:
            client.save(path, asked, sys.stdout.buffer)
        else:
            _save(session, path, asked, out)
        return
    answer = client.post(path, {"sql": text, "as_of": session.as_of or ""})
    if session.output is Output.TABLE:
        _show_rows(session, answer)
    else:
        session.show_all(answer["rows"], [])


def _save(session: Session, path: str, asked: dict[str, Any], out: Path) -> None:
    """Write an answer into a file, which is there whole or not at all."""
    unfinished = out.with_name(f".{out.name}.part")
    try:
        with unfinished.open("wb") as file:
            session.client.save(path, asked, file)
        unfinished.replace(out)
    except OSError as error:
        raise Problem(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    session.say(f"{out}: {out.stat().st_size} bytes")


def _show_rows(session: Session, answer: dict[str, Any]) -> None:
    columns: list[Column] = [(each["name"], _of(each["name"])) for each in answer["columns"]]
    session.show_all(answer["rows"], columns)
    count = answer["count"]
    session.say(f"({count} {'row' if count == 1 else 'rows'}, as of ordinal {answer['ordinal']})")


def _of(name: str) -> Any:
    def value(row: Row) -> Any:
        return row.get(name)

    return value


def _show_schema(session: Session, told: dict[str, Any]) -> None:
    rows = [
        {"view": view["name"], "column": each["name"], "type": each["type"], "about": each["about"]}
        for view in told["views"]
        for each in view["columns"]
    ]
    session.show_all(rows, SCHEMA_COLUMNS)
