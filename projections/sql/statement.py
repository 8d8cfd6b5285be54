"""What may be asked in SQL: one SELECT, of the documented views, by functions that only compute.

The process that answers can reach nothing else anyhow (see ``child``). This is the second lock, and
what tells people in plain words what they may not do. Invariant: whatever is not known to be
harmless is refused.
"""

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from projections.sql.question import GIVEN, TAIL, TEXT_MAX
from projections.sql.views import FROM_BODIES, VIEWS
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    import duckdb

# Of functions that stand where a table could, those that make rows of their arguments alone.
TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
# Functions that tell of the process, or run other SQL; nothing that computes is called so.
_TELLING = frozenset({
    "current_query", "current_setting", "currval", "getenv", "getvariable",
    "json_execute_serialized_sql", "nextval", "parse_duckdb_log_message", "query", "query_table",
    "write_log",
})  # fmt: skip
_TAKEN_PREFIXES = ("sqlite_", "information_schema", GIVEN)
_TELLING_PREFIXES = ("duckdb_", "pg_", "pragma_", "has_", "read_", "which_secret", "sql_auto_")

# Kinds of nodes of a statement's tree that are no expressions: what reads. Others write.
_READING = frozenset({
    "SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE",
    "BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY",
    "TABLE_FUNCTION", "ORDER_DEFAULT", "ASCENDING", "DESCENDING",
})  # fmt: skip
_READING_SUFFIXES = ("_MODIFIER", "_TYPE_INFO")

_WORD = re.compile(r"\w+")
_PLAIN = re.compile(r"\w[\w -]*")  # no path, and no address

_decode = msgspec.json.Decoder().decode


class NotAllowed(InvalidInput):
    """The SQL is not one that may be asked."""

    code = "NotAllowed"
    hint = "Ask one SELECT of the views that `cumulog sql --schema` lists."


class Asked(Struct, frozen=True, kw_only=True):
    """What a statement needs: which views, and whether it looks into the records themselves."""

    views: frozenset[str]
    bodies: bool


def check(db: "duckdb.DuckDBPyConnection", sql: str) -> Asked:
    """Check that SQL is one that may be asked; ``db`` parses it and runs nothing.

    Raises:
        InvalidInput: it is no SQL.
        NotAllowed: it is no single SELECT, or names what is not there to be asked.
    """
    import duckdb  # noqa: PLC0415  # loaded where it is used

    if len(sql.encode()) > TEXT_MAX:
        raise NotAllowed(f"a question may have at most {TEXT_MAX} bytes")
    try:
        statements = db.extract_statements(sql)
    except duckdb.Error as error:
        raise InvalidInput(first_line(error)) from error
    if len(statements) != 1:
        raise NotAllowed(f"one SELECT may be asked at a time, and these are {len(statements)}")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise NotAllowed(f"only SELECT may be asked, and this is {kind.name}")
    row = db.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    tree = _decode(row[0])
    if tree["error"]:
        raise NotAllowed(f"this kind of SELECT may not be asked: {tree['error_message']}")
    nodes = list(_nodes(tree["statements"]))
    _check_nodes(nodes)
    return Asked(views=named_views(sql), bodies=_wants_bodies(sql, nodes))


def named_views(sql: str) -> frozenset[str]:
    """Return the views that SQL names; perhaps some more, which it only has words of."""
    words = set(_WORD.findall(sql.lower()))
    return frozenset(view.name for view in VIEWS if view.name in words)


def bare(sql: str) -> str:
    """Return a statement without the semicolons, and what comments follow them, at its end."""
    import duckdb  # noqa: PLC0415  # as above

    text = sql.encode()
    for offset, kind in reversed(duckdb.tokenize(sql)):
        if kind != duckdb.token_type.comment:
            if text[offset : offset + 1] != b";":
                break
            text = text[:offset]
    return text.decode()


def first_line(error: Exception) -> str:
    """Return what DuckDB says of an error, without the picture of where."""
    return str(error).split("\n\n")[0].split("\nLINE")[0].strip()[:500]


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of the statement's tree."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _check_nodes(nodes: list[dict[str, Any]]) -> None:
    named = {name for node in nodes for name in _named_here(node)}
    for name in named:
        # Elsewhere in the statement it stands for what is there: a file, or a table of our own.
        taken = name == TAIL or name.startswith((*_TELLING_PREFIXES, *_TAKEN_PREFIXES))
        if taken or not _PLAIN.fullmatch(name):
            raise NotAllowed(f"{name[:100]!r} may not be the name of a WITH")
    views = {view.name for view in VIEWS}
    for node in nodes:
        kind = node.get("type")
        if isinstance(kind, str) and "class" not in node and not _reads(kind):
            raise NotAllowed(f"only what reads may be asked, and no {kind}")
        match node:
            case {"type": "BASE_TABLE", "table_name": str(name)}:
                _check_table(node, name, views | named)
            case {"type": "SHOW_REF", "table_name": str(name)}:
                if name and name.strip('"').lower() not in views | named:
                    raise NotAllowed(f"there is no view {name[:100]!r}")
                if not name and not node.get("query"):
                    raise NotAllowed("`cumulog sql --schema` lists what there is")
            case {"type": "TABLE_FUNCTION", "function": {"function_name": str(name)}}:
                if name.lower() not in TABLE_FUNCTIONS:
                    raise NotAllowed(f"the table function {name[:100]} may not be called")
            case {"class": "FUNCTION", "function_name": str(name)}:
                lower = name.lower()
                if lower in _TELLING or lower.startswith(_TELLING_PREFIXES):
                    raise NotAllowed(f"the function {name[:100]} may not be called")
            case _:
                pass  # it computes


def _reads(kind: str) -> bool:
    return kind in _READING or kind.endswith(_READING_SUFFIXES)


def _wants_bodies(sql: str, nodes: list[dict[str, Any]]) -> bool:
    """Return whether a statement may need the records' bodies; rather yes than no."""
    if not FROM_BODIES.isdisjoint(_WORD.findall(sql.lower())):
        return True
    # What stands for all columns at once, by whichever name.
    rows = {str(node.get("alias") or node["table_name"]).lower() for node in _tables(nodes)}
    return any(
        node.get("class") == "STAR"
        or node.get("ref_type") == "NATURAL"
        or node.get("type") in ("SHOW_REF", "PIVOT")  # some are no text
        or (node.get("class") == "COLUMN_REF" and str(node["column_names"][-1]).lower() in rows)
        for node in nodes
    )


def _tables(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (node for node in nodes if node.get("type") == "BASE_TABLE")


def _check_table(node: dict[str, Any], name: str, known: Collection[str]) -> None:
    if node.get("catalog_name") or node.get("schema_name") or name.lower() not in known:
        parts = (node.get("catalog_name"), node.get("schema_name"), name)
        full = ".".join(part for part in parts if part)
        raise NotAllowed(f"there is no view {full[:100]!r}")


def _named_here(node: dict[str, Any]) -> Iterator[str]:
    """Yield the names that a WITH gives."""
    names = node.get("cte_map")
    if isinstance(names, dict):
        for entry in names["map"]:
            yield str(entry["key"]).lower()
