"""What a command prints: a table for people, JSON or YAML for programs.

A table is plain text in columns, the same on a terminal and in a pipe.
"""

import enum
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

type Row = Mapping[str, Any]
# A column's heading, and the key of a row or a function of it.
type Column = tuple[str, str | Callable[[Row], Any]]


class Output(enum.StrEnum):
    """The formats of -o."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def cell(value: Any) -> str:
    """Return a value as it stands in a table: nothing for None, JSON for what is nested."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return _printable(value)
        case {"id": identity, "links": _, **rest} if not rest:
            return str(identity)  # a reference of OpenStack's APIs
        case dict() | list():
            return _printable(json.dumps(value, ensure_ascii=False)) if value else ""
        case _:
            return str(value)


def _printable(text: str) -> str:
    """Return text that cannot steer a terminal: whoever named a thing is not who lists it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns under their headings."""
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headings))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_yaml(value: Any) -> str:
    """Return YAML in the order given."""
    import yaml

    text: str = yaml.dump(
        value, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text.rstrip("\n")


def show_rows(output: Output, rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Print a list: the chosen columns as a table, or each row whole as JSON or YAML."""
    match output:
        case Output.JSON:
            print(json.dumps(list(rows), indent=2, ensure_ascii=False))
        case Output.YAML:
            print(as_yaml([dict(row) for row in rows]))
        case Output.TABLE:
            cells = [[cell(_value(row, key)) for _, key in columns] for row in rows]
            print(table([heading for heading, _ in columns], cells))
    sys.stdout.flush()


def show_item(output: Output, item: Row) -> None:
    """Print one thing, field by field."""
    match output:
        case Output.JSON:
            print(json.dumps(dict(item), indent=2, ensure_ascii=False))
        case Output.YAML:
            print(as_yaml(dict(item)))
        case Output.TABLE:
            rows = [
                [key, cell(_timed(key, value))] for key, value in item.items() if key != "links"
            ]
            print(table(["FIELD", "VALUE"], rows))
    sys.stdout.flush()


def _value(row: Row, key: str | Callable[[Row], Any]) -> Any:
    return key(row) if callable(key) else row.get(key)


def _timed(key: str, value: Any) -> Any:
    """Return a value of a table; of a time in microseconds what it is called."""
    is_time = key.endswith("_at") or key in {"valid_from", "valid_until", "since"}
    return when(value) if is_time and type(value) is int and value else value


def when(micros: int | None) -> str:
    """Return a time in microseconds as RFC 3339, UTC; nothing for None or 0."""
    if not micros:
        return ""
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{micros % 1_000_000:06d}Z"
