"""Alarms: which there are, and which ring. Whether one should is found out of the log elsewhere."""

from collections.abc import Iterable

from msgspec.structs import replace

from engine.domain.context import Context
from engine.domain.metering import measuring
from engine.domain.state import Cell, drop_member
from schemas import alarm as s
from schemas.envelope import Fact, fact_types
from schemas.errors import Conflict, InvalidInput, NotFound
from schemas.metering import ADDITIVE
from schemas.units import Micros

type Decision = tuple[list[Fact], dict[str, object]]

# Each is evaluated again and again.
ALARMS_MAX = 50
# What alarms themselves bring about must not ring them.
_OF_ALARMS = "alarm."


def define_alarm(cell: Cell, ctx: Context, action: s.DefineAlarm) -> Decision:
    """Define an alarm, or define one anew."""
    project_id = ctx.need_project()
    own = [cell.state.alarms[each] for each in cell.index.project_alarms.get(project_id, ())]
    old = next((alarm for alarm in own if alarm.name == action.name), None)
    if old is None and len(own) >= ALARMS_MAX:
        raise Conflict(f"a project has at most {ALARMS_MAX} alarms")
    need_sound(cell, action.condition)
    if old is not None and (old.condition, old.description) == (
        action.condition,
        action.description,
    ):
        return [], {"alarm_id": old.alarm_id}
    alarm = s.Alarm(
        alarm_id=ctx.new_id() if old is None else old.alarm_id,
        project_id=project_id,
        user_id=ctx.actor.user_id,
        name=action.name,
        description=action.description,
        condition=action.condition,
        created_at=ctx.now if old is None else old.created_at,
        updated_at=ctx.now,
    )
    return [s.AlarmDefined(alarm=alarm)], {"alarm_id": alarm.alarm_id}


def delete_alarm(cell: Cell, ctx: Context, action: s.DeleteAlarm) -> Decision:
    """Let an alarm ring no more."""
    alarm = cell.state.alarms.get(action.alarm_id)
    if alarm is None or not ctx.owns(alarm.project_id):
        raise NotFound(f"there is no alarm {action.alarm_id!r}")
    return [s.AlarmDeleted(alarm_id=alarm.alarm_id)], {}


def report_alarm(cell: Cell, _ctx: Context, action: s.ReportAlarm) -> Decision:
    """Ring, or cease; nothing if it is gone, was defined anew, or does so already."""
    alarm = cell.state.alarms.get(action.alarm_id)
    if (
        alarm is None
        or alarm.updated_at != action.updated_at
        or alarm.ringing is action.ringing
        or action.since < alarm.changed_at
    ):
        return [], {}
    kind = s.AlarmRaised if action.ringing else s.AlarmCleared
    return [kind(alarm_id=alarm.alarm_id, name=alarm.name, since=action.since)], {}


def alarms_go(cell: Cell, project_id: str) -> list[Fact]:
    """Return the facts that a project's end means for its alarms."""
    ids = sorted(cell.index.project_alarms.get(project_id, ()))
    return [s.AlarmDeleted(alarm_id=alarm_id) for alarm_id in ids]


def need_sound(cell: Cell, condition: s.Condition) -> None:
    """Return if a condition can be evaluated.

    Raises:
        InvalidInput: it says why not.
    """
    if isinstance(condition, s.AllOf | s.AnyOf):
        for each in condition.conditions:
            need_sound(cell, each)
        return
    if (condition.above is None) is (condition.below is None):
        raise InvalidInput("a condition says above or below, one of them")
    match condition:
        case s.WhatIsHeld(meter=key) | s.WhatWasUsed(meter=key):
            meter = measuring(cell).get(key)
            if meter is None:
                raise InvalidInput(f"there is no meter {key!r}")
            if meter.aggregation not in ADDITIVE:
                raise InvalidInput(f"{key} does not add up")
            if isinstance(condition, s.WhatIsHeld) and meter.aggregation != "integral":
                raise InvalidInput(f"{key} counts what happens; nothing of it is held")
        case s.WhatHappened(facts=facts):
            _need_facts(facts)
        case s.WhatIsSo(since=since, until=until):
            _need_facts((*since, *until))
            if set(since) & set(until):
                raise InvalidInput("the same fact cannot begin and end a state")


def _need_facts(tags: Iterable[str]) -> None:
    known = fact_types()
    for tag in tags:
        if tag not in known or tag.startswith(_OF_ALARMS):
            raise InvalidInput(f"there is no fact {tag!r} that an alarm could be about")


# Evolve


def alarm_defined(cell: Cell, fact: s.AlarmDefined, at: Micros) -> None:
    alarm = fact.alarm
    cell.state.alarms[alarm.alarm_id] = alarm
    cell.index.project_alarms.setdefault(alarm.project_id, set()).add(alarm.alarm_id)


def alarm_rang(cell: Cell, fact: s.AlarmRaised | s.AlarmCleared, at: Micros) -> None:
    alarms = cell.state.alarms
    alarms[fact.alarm_id] = rung(alarms[fact.alarm_id], fact)


def rung(alarm: s.Alarm, fact: s.AlarmRaised | s.AlarmCleared) -> s.Alarm:
    """Return the alarm as it is after it was raised or cleared."""
    return replace(alarm, ringing=isinstance(fact, s.AlarmRaised), changed_at=fact.since)


def alarm_deleted(cell: Cell, fact: s.AlarmDeleted, at: Micros) -> None:
    alarm = cell.state.alarms.pop(fact.alarm_id)
    drop_member(cell.index.project_alarms, alarm.project_id, alarm.alarm_id)
