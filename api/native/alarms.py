"""Alarms: what a project wants to be told of, whether it is so, and how often it would have been.

They are defined and deleted by submitting the actions ``DefineAlarm`` and ``DeleteAlarm``.
"""

from typing import Any

import msgspec
from msgspec import Struct

from api.exchange import Answer, Call, json_answer
from api.native.actions import own_project
from api.native.history import WALK_S, ask
from api.routing import Routes
from schemas.alarm import Alarm, Condition
from schemas.errors import InvalidInput, NotFound
from schemas.ids import Id
from schemas.units import Micros

READ = "alarm:alarms:read"


class Question(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alarm there is, or a condition; over which time (microseconds since 1970)."""

    alarm_id: Id | None = None
    condition: Condition | None = None
    start: Micros
    end: Micros


_question = msgspec.json.Decoder(Question)


async def list_all(call: Call) -> Answer:
    """GET /v1/alarms: of the caller's project."""
    found = call.edge.reader.alarms(project_id=own_project(call))
    return json_answer({"alarms": [_view(alarm) for alarm in found]})


async def show(call: Call) -> Answer:
    """GET /v1/alarms/{id}."""
    return json_answer({"alarm": _view(_own(call, call.args[0]))})


async def what_if(call: Call) -> Answer:
    """POST /v1/alarms/what-if: how often it would have rung."""
    asked = await call.decode(_question)
    if (asked.alarm_id is None) is (asked.condition is None):
        raise InvalidInput("name an alarm, or give a condition")
    question: dict[str, Any] = {"start": asked.start, "end": asked.end}
    if asked.alarm_id is not None:
        alarm = _own(call, asked.alarm_id)
        question |= {"alarm_id": alarm.alarm_id, "project": alarm.project_id}
    else:
        question["project"] = own_project(call) or call.principal.project_id
        question["condition"] = msgspec.to_builtins(asked.condition)
        if not question["project"]:
            raise InvalidInput("say of which project (project)")
    return await ask(call, "alarm_what_if", question, WALK_S)


def _own(call: Call, alarm_id: str) -> Alarm:
    alarm = call.edge.reader.alarm(alarm_id)
    if alarm is None or own_project(call) not in {None, alarm.project_id}:
        raise NotFound(f"there is no alarm {alarm_id[:64]!r}")
    return alarm


def _view(alarm: Alarm) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(alarm)
    fields["id"] = fields.pop("alarm_id")
    return {"description": "", **fields, "ringing": alarm.ringing, "changed_at": alarm.changed_at}


def add(routes: Routes) -> None:
    """Route what this module answers."""
    routes.add("GET", "/v1/alarms", list_all, READ, query=("project", "project_id"))
    routes.add("GET", "/v1/alarms/{}", show, READ)
    routes.add(
        "POST",
        "/v1/alarms/what-if",
        what_if,
        READ,
        body=_question,
        query=("project", "project_id"),
        present=True,
    )
