"""Read model of quotas: the limits that were set, of projects and of the class."""

from msgspec import Struct

from projections.store import Table, Writer
from schemas import quota as s
from schemas.units import Micros, Ordinal

NAME = "quota"
VERSION = 2
CLASS = "default"  # no project's id: those have 32 digits


class Limits(Struct, frozen=True):
    """The limits that were set for a project, or for the class."""

    owner: str
    limits: dict[str, int]


QUOTAS = Table("quotas", Limits, columns="id TEXT NOT NULL", values=lambda limits: (limits.owner,))

STATEMENTS = QUOTAS.create


def _set(writer: Writer, fact: s.QuotaSet, ordinal: Ordinal, _at: Micros) -> None:
    _add(writer, fact.project_id, fact.limits, ordinal)


def _class_set(writer: Writer, fact: s.QuotaClassSet, ordinal: Ordinal, _at: Micros) -> None:
    _add(writer, CLASS, fact.limits, ordinal)


def _add(writer: Writer, owner: str, limits: dict[str, int], ordinal: Ordinal) -> None:
    old = writer.find(QUOTAS, owner)
    held = {} if old is None else old.limits
    writer.put(QUOTAS, Limits(owner, {**held, **limits}), ordinal)


def _reset(writer: Writer, fact: s.QuotaReset, ordinal: Ordinal, _at: Micros) -> None:
    old = writer.find(QUOTAS, fact.project_id)
    left = {} if old is None else {n: v for n, v in old.limits.items() if n not in fact.names}
    if left:
        writer.put(QUOTAS, Limits(fact.project_id, left), ordinal)
    else:
        writer.drop(QUOTAS, fact.project_id)


def project_gone(writer: Writer, project_id: str) -> None:
    """Remove the limits of a project."""
    writer.drop(QUOTAS, project_id)


APPLY = {s.QuotaSet: _set, s.QuotaReset: _reset, s.QuotaClassSet: _class_set}
