"""Alarms: what a project wants to be told of, and whether it is so.

An alarm rings for as long as its condition holds. The condition is about meters and facts of one
project, so when it held follows from the log; that it rings, and rings no more, are facts, which
webhooks deliver like any other.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import Id, IdOrNone, ProjectId, UserId
from schemas.metering import FactTag, MeterKey
from schemas.units import Micros, Text

WINDOW_S_MAX = 90 * 86_400
AlarmName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*\Z")]
# In the meter's unit, or how many.
Limit = Annotated[str, Meta(pattern=r"^[0-9]{1,18}(\.[0-9]{1,12})?\Z")]
WindowS = Annotated[int, Meta(ge=1, le=WINDOW_S_MAX)]
Facts = Annotated[tuple[FactTag, ...], Meta(min_length=1, max_length=16)]


class _Compared(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Exactly one of ``above`` and ``below`` is given. ``resource_id`` "" means any."""

    above: Limit | None = None
    below: Limit | None = None
    resource_id: IdOrNone = ""


class WhatIsHeld(_Compared, frozen=True, kw_only=True, tag="held", tag_field="kind"):
    """How much of a meter is held at a time, all resources together: in what its values count."""

    meter: MeterKey


class WhatWasUsed(_Compared, frozen=True, kw_only=True, tag="used", tag_field="kind"):
    """How much of a meter was used within a time, in its unit."""

    meter: MeterKey
    window_s: WindowS


class WhatHappened(_Compared, frozen=True, kw_only=True, tag="happened", tag_field="kind"):
    """How often any of these facts came within a time. Below 1 is their absence."""

    facts: Facts
    window_s: WindowS


class WhatIsSo(_Compared, frozen=True, kw_only=True, tag="state", tag_field="kind"):
    """How many resources had one of ``since``, for ``for_s`` now, and none of ``until`` after."""

    since: Facts
    until: Facts
    for_s: Annotated[int, Meta(ge=0, le=WINDOW_S_MAX)] = 0


class AllOf(
    Struct, frozen=True, kw_only=True, tag="all", tag_field="kind", forbid_unknown_fields=True
):
    """All of these hold."""

    conditions: Annotated[tuple["Simple", ...], Meta(min_length=1, max_length=8)]


class AnyOf(
    Struct, frozen=True, kw_only=True, tag="any", tag_field="kind", forbid_unknown_fields=True
):
    """Any of these holds."""

    conditions: Annotated[tuple["Simple", ...], Meta(min_length=1, max_length=8)]


Simple = WhatIsHeld | WhatWasUsed | WhatHappened | WhatIsSo
Condition = WhatIsHeld | WhatWasUsed | WhatHappened | WhatIsSo | AllOf | AnyOf


class Alarm(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One alarm of a project, and whether it rings; ``changed_at`` is since when, or since not."""

    alarm_id: str
    project_id: ProjectId
    user_id: UserId
    name: str
    description: Text = ""
    condition: Condition
    created_at: Micros
    updated_at: Micros
    ringing: bool = False
    changed_at: Micros = 0


class DefineAlarm(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Define an alarm of the caller's project, or define it anew under its name."""

    name: AlarmName
    description: Text = ""
    condition: Condition


class DeleteAlarm(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Ring no more."""

    alarm_id: Id


class ReportAlarm(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The archiver: from ``since`` on the condition holds, or does not. From the engine only.

    ``updated_at`` is of the alarm that was evaluated: one that was changed since is not meant.
    """

    alarm_id: Id
    updated_at: Micros
    ringing: bool
    since: Micros


type AlarmAction = DefineAlarm | DeleteAlarm | ReportAlarm


class AlarmDefined(
    Struct, frozen=True, kw_only=True, tag="alarm.alarm.defined.v1", tag_field="type"
):
    """There is an alarm, which does not ring yet. Not metered."""

    alarm: Alarm


class AlarmRaised(Struct, frozen=True, kw_only=True, tag="alarm.alarm.raised.v1", tag_field="type"):
    """The condition holds from ``since`` on. Not metered."""

    alarm_id: str
    name: str
    since: Micros


class AlarmCleared(
    Struct, frozen=True, kw_only=True, tag="alarm.alarm.cleared.v1", tag_field="type"
):
    """The condition holds no more from ``since`` on. Not metered."""

    alarm_id: str
    name: str
    since: Micros


class AlarmDeleted(
    Struct, frozen=True, kw_only=True, tag="alarm.alarm.deleted.v1", tag_field="type"
):
    """It is gone, and rings no more. Not metered."""

    alarm_id: str


type AlarmFact = AlarmDefined | AlarmRaised | AlarmCleared | AlarmDeleted
