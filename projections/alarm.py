"""Read model of alarms: what each project wants to be told of, and whether it is so."""

from engine.domain.alarm import rung
from projections.store import Table, Writer
from schemas import alarm as s
from schemas.units import Micros, Ordinal

NAME = "alarm"
VERSION = 1

ALARMS = Table(
    "alarms",
    s.Alarm,
    columns="id TEXT NOT NULL, project_id TEXT NOT NULL, name TEXT NOT NULL",
    values=lambda a: (a.alarm_id, a.project_id, a.name),
    indexes=("(project_id, name, id)",),
)

STATEMENTS = ALARMS.create


def _defined(writer: Writer, fact: s.AlarmDefined, ordinal: Ordinal, _at: Micros) -> None:
    writer.put(ALARMS, fact.alarm, ordinal)


def _rang(
    writer: Writer, fact: s.AlarmRaised | s.AlarmCleared, ordinal: Ordinal, _at: Micros
) -> None:
    old = writer.need(ALARMS, fact.alarm_id)
    writer.put(ALARMS, rung(old, fact), ordinal)


def _deleted(writer: Writer, fact: s.AlarmDeleted, _ordinal: Ordinal, _at: Micros) -> None:
    writer.drop(ALARMS, fact.alarm_id)


APPLY = {
    s.AlarmDefined: _defined,
    s.AlarmRaised: _rang,
    s.AlarmCleared: _rang,
    s.AlarmDeleted: _deleted,
}
