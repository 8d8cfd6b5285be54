"""Lists out of a table of resources: filtered, ordered, one page at a time.

Order is always total (the key comes last), so that paging by marker neither repeats nor loses what
stays in place. Only columns of the table can be sorted by: nothing a client sends becomes SQL.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from projections.answers import BadSort, MarkerNotFound
from projections.pattern import compiled, literal
from projections.store import Table

type Sort = Sequence[tuple[str, bool]]

NEWEST_FIRST: Sort = (("created_at", True),)
OLDEST_FIRST: Sort = (("created_at", False),)
BY_NAME: Sort = (("name", False),)
# Missing values come first in ascending order, as in every database behind OpenStack.
NULLABLE = {
    "host_id": "coalesce(host_id, '')",
    "image_id": "coalesce(image_id, '')",
    "key_name": "coalesce(key_name, '')",
    "size_bytes": "coalesce(size_bytes, -1)",
}

_encode = msgspec.json.Encoder().encode


def json_list(values: Sequence[str]) -> str:
    """Return values as the one parameter that ``json_each`` takes."""
    return _encode(values).decode()


class Query[T: Struct]:
    """Conditions on one table. ``scope`` is what the asker may see; the rest what was asked for."""

    def __init__(self, table: Table[T], key: str = "id") -> None:
        self.table = table
        self.key = key
        self._scope: list[str] = []
        self._scope_values: list[Any] = []
        self._where: list[str] = []
        self._values: list[Any] = []

    def within(self, condition: str, *values: Any) -> "Query[T]":
        """Limit what can be seen; a marker outside is unknown."""
        self._scope.append(condition)
        self._scope_values += values
        return self

    def where(self, condition: str, *values: Any) -> "Query[T]":
        """Add a condition."""
        self._where.append(condition)
        self._values += values
        return self

    def equal(self, **columns: Any) -> "Query[T]":
        """Ask for values of columns; None asks nothing."""
        for column, value in columns.items():
            if value is not None:
                self.where(f"{column} = ?", value)
        return self

    def among(self, **columns: Sequence[str] | None) -> "Query[T]":
        """Ask for any of several values of columns; None asks nothing."""
        for column, values in columns.items():
            if values is None:
                continue
            if len(values) == 1:
                self.where(f"{column} = ?", values[0])
            else:
                held = f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608  # our own names
                self.where(held, json_list(values))
        return self

    def matching(self, column: str, pattern: str | None) -> "Query[T]":
        """Ask for a regular expression somewhere in a column; None asks nothing.

        Raises:
            BadPattern: it is malformed, or could take long.
        """
        if pattern is None:
            return self
        text = literal(pattern)
        if text is not None:
            return self.where(f"instr({column}, ?)", text)
        compiled(pattern)
        return self.where(f"matches(?, {column})", pattern)

    def matching_address(self, pattern: str | None) -> "Query[T]":
        """Ask for servers with an address that a regular expression matches; None asks nothing."""
        if pattern is None:
            return self
        compiled(pattern)
        return self.where(
            "id IN (SELECT device_id FROM ports WHERE matches_any(?, ip_addresses))", pattern
        )

    def holding(self, **columns: str | None) -> "Query[T]":
        """Ask for a word in columns that hold several; None asks nothing."""
        for column, word in columns.items():
            if word is not None:
                self.where(f"instr({column}, ?)", f" {word} ")
        return self

    def compare(self, condition: str, value: Any) -> "Query[T]":
        """Add a condition on a value; None asks nothing."""
        return self if value is None else self.where(condition, value)

    @property
    def plain(self) -> bool:
        """Whether the key is the table's own, so that a row is found by it at once."""
        return self.table.key == (self.key,)

    def statement(
        self,
        db: sqlite3.Connection,
        sort: Sort,
        marker: str | None,
        limit: int | None,
    ) -> tuple[str, tuple[Any, ...]]:
        """Return what gives a page, with its values: key, ordinal of the last change, and JSON.

        A ``plain`` query gives key and ordinal alone: most is known, and need not be read again.

        Raises:
            MarkerNotFound: the marker cannot be seen.
            BadSort: there is no such column to sort by.
        """
        order = self._order(sort)
        where, values = [*self._scope, *self._where], [*self._scope_values, *self._values]
        if marker is not None:
            after, after_values = self._after(db, order, marker)
            where.append(after)
            values += after_values
        condition = f" WHERE {' AND '.join(where)}" if where else ""
        by = ", ".join(f"{column} {'DESC' if down else 'ASC'}" for column, down in order)
        values.append(-1 if limit is None else limit)
        sql = (
            f"SELECT {self.key}, ordinal{'' if self.plain else ', body'} "  # noqa: S608  # our own names
            f"FROM {self.table.name}{condition} ORDER BY {by} LIMIT ?"
        )
        return sql, tuple(values)

    def _order(self, sort: Sort) -> list[tuple[str, bool]]:
        order: list[tuple[str, bool]] = []
        for column, down in sort:
            if column not in self.table.columns or column in {"ordinal", "body"}:
                raise BadSort(f"cannot sort by {column!r}")
            order.append((NULLABLE.get(column, column), down))
        if all(column != self.key for column, _ in order):
            order.append((self.key, order[0][1] if order else False))
        return order

    def _after(
        self, db: sqlite3.Connection, order: list[tuple[str, bool]], marker: str
    ) -> tuple[str, list[Any]]:
        """Return the condition of coming after the marker in the order."""
        condition = " AND ".join([*self._scope, f"{self.key} = ?"])
        columns = ", ".join(column for column, _ in order)
        sql = f"SELECT {columns} FROM {self.table.name} WHERE {condition}"  # noqa: S608  # our own names
        at = db.execute(sql, [*self._scope_values, marker]).fetchone()
        if at is None:
            raise MarkerNotFound(f"there is nothing with the id {marker!r} to go on from")
        if len({down for _, down in order}) == 1:
            # SQLite walks an index straight to a row value.
            marks = ", ".join("?" * len(order))
            return f"({columns}) {'<' if order[0][1] else '>'} ({marks})", list(at)
        alternatives: list[str] = []
        values: list[Any] = []
        for place, (column, down) in enumerate(order):
            same = [f"{earlier} = ?" for earlier, _ in order[:place]]
            alternatives.append(" AND ".join([*same, f"{column} {'<' if down else '>'} ?"]))
            values += [*at[:place], at[place]]
        return f"({' OR '.join(f'({one})' for one in alternatives)})", values
