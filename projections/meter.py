"""Read model of meters that somebody defined: every version, since each measures its time."""

from msgspec.structs import replace

from projections.store import Table, Writer
from schemas import metering as s
from schemas.samples import SamplesRolledUp
from schemas.units import Micros, Ordinal

NAME = "metering"
VERSION = 1

METERS = Table(
    "meters",
    s.MeterDefinition,
    key=("key", "version"),
    columns="key TEXT NOT NULL, version INTEGER NOT NULL",
    values=lambda m: (m.key, m.version),
)

STATEMENTS = METERS.create


def _defined(writer: Writer, fact: s.MeterDefined, ordinal: Ordinal, _at: Micros) -> None:
    meter = fact.meter
    if meter.version > 1:
        _end(writer, meter.key, meter.version - 1, ordinal, meter.valid_from)
    writer.put(METERS, meter, ordinal)


def _deleted(writer: Writer, fact: s.MeterDeleted, ordinal: Ordinal, at: Micros) -> None:
    version = 1
    while writer.find(METERS, (fact.key, version + 1)) is not None:
        version += 1
    _end(writer, fact.key, version, ordinal, at)


def _end(writer: Writer, key: str, version: int, ordinal: Ordinal, at: Micros) -> None:
    """Let a version measure no more, if it still does."""
    meter = writer.need(METERS, (key, version))
    if meter.valid_until is None:
        writer.put(METERS, replace(meter, valid_until=at), ordinal)


def _rolled_up(_writer: Writer, _fact: SamplesRolledUp, _ordinal: Ordinal, _at: Micros) -> None:
    """What was sampled is read as usage."""


APPLY = {s.MeterDefined: _defined, s.MeterDeleted: _deleted, SamplesRolledUp: _rolled_up}
