"""Why a resource is as it is, field by field: which fact set each to what it is, and who wanted it.

The resource's facts are folded once more, by the functions that keep the read model, into a scratch
one; whatever a fact changes, it has set. Invariant: what is told is the read model's own row, and a
field is put down to a fact only if folding the facts about the resource alone gives its value.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from projections import models, store
from projections.answers import Event
from projections.identity import CHANGED
from projections.operation import OPERATIONS
from projections.redaction import reduced
from projections.store import Key, Table

# Beside the resource itself: that anything has changed, and how work on it stands.
LEFT_OUT = (CHANGED, OPERATIONS)

type Row = tuple[Table[Any], Key]


class SetBy(Struct, frozen=True, kw_only=True):
    """The fact that did something, its request, and the person behind it.

    ``cause`` is the person's request where the fact followed from an agent's report or a deadline;
    ``user_id`` is then theirs. It is "" where nobody asked for it.
    """

    ordinal: int
    at: int
    tag: str
    request_id: str
    cause: str
    user_id: str


class Field(Struct, frozen=True, kw_only=True):
    """A field as it is. ``set_by`` is None if no fact about this resource alone has set it so."""

    field: str
    value: Any
    set_by: SetBy | None


class Explained(Struct, frozen=True, kw_only=True):
    """A row of the read model, explained; one that is ``gone`` is as it was.

    A resource may have several: the grants on a project, say. ``gone_by`` is None where it went
    with something else, as what a provider said of a user goes with the provider.
    """

    table: str
    key: tuple[str | int, ...]
    fields: tuple[Field, ...]
    gone: bool
    gone_by: SetBy | None = None


class Scratch(store.Writer):
    """A read model in memory that notes which rows a fact changes."""

    def __init__(self) -> None:
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        store.create(db, models.made_by(), models.STATEMENTS)
        super().__init__(db)
        self.changed: dict[Row, None] = {}

    def apply(self, event: Event) -> bool:
        """Fold a fact, and note the rows it changes; return whether it could be.

        It cannot where it speaks of a row that a fact about something else has made, as an invoice
        is by the closing of its month. Whatever else goes wrong is a fault, and told as one.
        """
        self.changed.clear()
        fact = models.decode_fact(event.body)
        try:
            models.APPLY[type(fact)](self, fact, event.ordinal, event.at)
        except store.NotThere:
            self.changed.clear()
            return False
        return True

    def put[T: Struct](self, table: Table[T], resource: T, ordinal: int) -> None:
        """Store a resource, and note that."""
        super().put(table, resource, ordinal)
        self.changed[table, table.key_of(table.values(resource))] = None

    def drop[T: Struct](self, table: Table[T], key: Key) -> None:
        """Remove a resource, and note that."""
        super().drop(table, key)
        self.changed[table, key] = None


class _History:
    """What a row has been through: its fields, who set each, and who removed it."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.set_by: dict[str, Event] = {}
        self.gone_by: Event | None = None

    def becomes(self, resource: Any, fact: Event) -> None:
        """Note what a fact has made of it; None: it is gone."""
        if resource is None:
            self.gone_by = fact
            return
        fields = fields_of(resource)
        if self.gone_by is not None:  # made again
            self.fields, self.set_by, self.gone_by = {}, {}, None
        for name, value in fields.items():
            if name not in self.fields or self.fields[name] != value:
                self.set_by[name] = fact
        self.fields = fields


def explain(
    db: sqlite3.Connection, facts: Iterable[Event], asked: dict[str, str], project_id: str | None
) -> tuple[Explained, ...]:
    """Return the rows that facts about one resource have made, and whence each field is.

    Args:
        db: the read model.
        facts: all facts about the resource, from the first on, whosever they are.
        asked: the person's id by the id of each request that is a cause.
        project_id: whose facts are told of; None: all.
    """
    scratch = Scratch()
    histories: dict[Row, _History] = {}
    try:
        for event in facts:
            scratch.apply(event)
            for table, key in scratch.changed:
                if table not in LEFT_OUT:
                    history = histories.setdefault((table, key), _History())
                    history.becomes(scratch.find(table, key), event)
    finally:
        scratch.db.close()
    rows = (
        _explained(db, row, history, asked, project_id)
        for row, history in histories.items()
        if history.fields
    )
    return tuple(row for row in rows if row.fields)


def fields_of(resource: Any) -> dict[str, Any]:
    """Return a resource's fields by their names; what is nested has dots. Nothing sealed is shown.

    A list is one value, and so is what is empty.
    """
    built = reduced(msgspec.to_builtins(getattr(resource, "server", resource)))
    return dict(_leaves("", built))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, inner)
    else:
        yield path, value


def _explained(
    db: sqlite3.Connection,
    row: Row,
    history: _History,
    asked: dict[str, str],
    project_id: str | None,
) -> Explained:
    table, key = row
    parts = (key,) if isinstance(key, str) else key
    stored = db.execute(table.select, parts).fetchone()
    present = history.fields if stored is None else fields_of(table.decode(stored[0]))
    gone = history.gone_by if stored is None else None
    fields: list[Field] = []
    for name, value in present.items():
        fact = history.set_by.get(name) if history.fields.get(name) == value else None
        if project_id not in {None, fact and fact.project_id}:
            continue
        set_by = None if fact is None else told_of(fact, asked)
        fields.append(Field(field=name, value=value, set_by=set_by))
    return Explained(
        table=table.name,
        key=parts,
        fields=tuple(fields),
        gone=stored is None,
        gone_by=None if gone is None else told_of(gone, asked),
    )


def told_of(fact: Event, asked: dict[str, str]) -> SetBy:
    """Return what is told of a fact; ``asked`` has the person by each request that is a cause."""
    return SetBy(
        ordinal=fact.ordinal,
        at=fact.at,
        tag=fact.tag,
        request_id=fact.request_id,
        cause=fact.cause,
        user_id=asked.get(fact.cause, fact.user_id),
    )
