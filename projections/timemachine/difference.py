"""What changed from one moment to another, field by field, and which event changed it last.

The facts in between are folded into a copy of the earlier moment by the functions that keep the
read model. Invariant: the earlier moment with all that is told applied is the later one; and each
field is put down to the last fact that gave it its value. What was made and is gone again within
the stretch is not told of.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from projections import models, store
from projections.compute import DELETED
from projections.explanation import LEFT_OUT, Row, fields_of
from projections.identity import GRANTS, PROJECTS
from projections.models import StoredCommit, decode_fact
from projections.quota import QUOTAS
from projections.store import Key, Table, Writer
from schemas.errors import InvalidInput
from schemas.units import Ordinal

CHANGES_MAX = 20_000
NOTED_MAX = 5 * CHANGES_MAX  # with what was changed and changed back

type What = Literal["created", "changed", "deleted"]


class TooMuchChanged(InvalidInput):
    """More changed than is told at once."""

    code = "TooMuchChanged"
    hint = "Name moments that are nearer to each other, or one project."


class FieldChange(Struct, frozen=True, kw_only=True):
    """A field, before and after, and the ordinal of the fact that set it last."""

    field: str
    before: Any
    after: Any
    ordinal: Ordinal


class Change(Struct, frozen=True, kw_only=True):
    """A row that is another: of a table of the read model, by its key.

    ``ordinal`` is that of the fact that changed it last; ``fields`` are those that differ.
    """

    table: str
    key: tuple[str | int, ...]
    name: str
    project_id: str
    change: What
    ordinal: Ordinal
    fields: tuple[FieldChange, ...]


class _Noted(Struct):
    """What a row was at first, and what it has been through since."""

    before: dict[str, Any] | None
    now: dict[str, Any] | None
    resource: Any
    ordinal: Ordinal
    set_at: dict[str, Ordinal]


class Noting(Writer):
    """A read model that notes which rows change, and by which fact. Nobody keeps it."""

    def __init__(self, db: Any, project_id: str | None) -> None:
        """``project_id`` is whose rows are noted; None: all."""
        super().__init__(db, tells=False)
        self.ordinal: Ordinal = 0  # of the fact that is being folded
        self.noted: dict[Row, _Noted] = {}
        self._project_id = project_id

    def put[T: Struct](self, table: Table[T], resource: T, ordinal: int) -> None:
        """Store a resource, and note that."""
        self._note(table, table.key_of(table.values(resource)), resource)
        super().put(table, resource, ordinal)

    def drop[T: Struct](self, table: Table[T], key: Key) -> None:
        """Remove a resource, and note that."""
        self._note(table, key, None)
        super().drop(table, key)

    def _note(self, table: Table[Any], key: Key, resource: Any) -> None:
        if table in LEFT_OUT:
            return
        row = table, key
        noted = self.noted.get(row)
        if noted is None:
            before = self.find(table, key)
            shown = before if resource is None else resource
            if shown is None or self._project_id not in {None, project_of(table, shown)}:
                return
            if len(self.noted) >= NOTED_MAX:
                raise _too_much()
            fields = _there(before)
            noted = self.noted[row] = _Noted(fields, fields, shown, self.ordinal, {})
        after = _there(resource)
        was = noted.now or {}
        for name, value in (after or {}).items():
            if name not in was or was[name] != value:
                noted.set_at[name] = self.ordinal
        for name in was.keys() - (after or {}).keys():
            noted.set_at[name] = self.ordinal
        if after is None and noted.before is None:
            del self.noted[
                row
            ]  # made and gone: there is nothing to tell of, however much there was
            return
        noted.now, noted.ordinal = after, self.ordinal
        noted.resource = noted.resource if resource is None else resource


def _there(resource: Any) -> dict[str, Any] | None:
    """Return a resource's fields; None if it is gone. A deleted server is kept, and gone."""
    if resource is None or getattr(getattr(resource, "server", None), "vm_state", "") == DELETED:
        return None
    return fields_of(resource)


def difference(
    base: store.Writer, commits: Iterable[StoredCommit], project_id: str | None
) -> list[Change]:
    """Return what commits change of a read model, in the order of their last changes.

    Args:
        base: the earlier moment, to be thrown away.
        commits: what follows it, up to the later one.
        project_id: whose things are told of; None: all.

    Raises:
        TooMuchChanged: there are more than ``CHANGES_MAX``.
    """
    noting = Noting(base.db, project_id)
    for commit in commits:
        ordinal = commit.first
        for record in commit.records:
            for raw in record.facts:
                ordinal += 1
                noting.ordinal = ordinal
                fact = decode_fact(raw)
                models.APPLY[type(fact)](noting, fact, ordinal, commit.at)
            ordinal += 1
    found: list[Change] = []
    for (table, key), noted in noting.noted.items():
        change = _change(table, key, noted)
        if change is not None:
            found.append(change)
        if len(found) > CHANGES_MAX:
            raise _too_much()
    return sorted(found, key=lambda change: (change.ordinal, change.table, change.key))


def _too_much() -> TooMuchChanged:
    return TooMuchChanged(f"more than {CHANGES_MAX} things changed from one to the other")


def _change(table: Table[Any], key: Key, noted: _Noted) -> Change | None:
    before, after = noted.before, noted.now
    if before == after:
        return None
    fields = tuple(_fields(before or {}, after or {}, noted))
    what: What = "created" if before is None else "deleted" if after is None else "changed"
    resource = getattr(noted.resource, "server", noted.resource)
    return Change(
        table=table.name,
        key=(key,) if isinstance(key, str) else key,
        name=str(getattr(resource, "name", "") or ""),
        project_id=project_of(table, noted.resource),
        change=what,
        ordinal=noted.ordinal,
        fields=fields,
    )


def _fields(before: dict[str, Any], after: dict[str, Any], noted: _Noted) -> Iterator[FieldChange]:
    for name in dict.fromkeys((*before, *after)):
        old, new = before.get(name), after.get(name)
        if name not in before or name not in after or old != new:
            at = noted.set_at.get(name, noted.ordinal)
            yield FieldChange(field=name, before=old, after=new, ordinal=at)


def project_of(table: Table[Any], resource: Any) -> str:
    """Return the project that a row belongs to, or that it is; "": none."""
    if table is PROJECTS or table is GRANTS:
        return str(resource.project_id or "")
    if table is QUOTAS:
        return str(resource.owner)
    return str(getattr(getattr(resource, "server", resource), "project_id", "") or "")


encode_changes = msgspec.json.Encoder().encode
decode_changes = msgspec.json.Decoder(list[Change]).decode
