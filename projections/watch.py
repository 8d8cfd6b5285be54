"""The watch over alarms: finds when each should ring, and has the engine record it.

Invariant: what is recorded is when the condition held, not when somebody looked; between two looks
nothing is missed. A look that comes too early, before the read model holds what the log holds, is
left to the next.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog
import uuid_utils
from msgspec import Struct

from engine.bus.client import Bus
from engine.bus.service import submit_as_history
from engine.domain.alarm import rung
from projections.holdings import Holdings
from projections.reader import Reader
from projections.ringing import Happened, Known, Spans, facts_of, held, meters_of, reach_of
from schemas.alarm import Alarm, AlarmCleared, AlarmRaised, Condition, ReportAlarm
from schemas.envelope import Actor, Request
from schemas.errors import InvalidInput, NotFound, Unavailable
from schemas.ids import SYSTEM_USER
from schemas.units import Micros, Ordinal

log = structlog.get_logger(__name__)

LOOK_S = 5.0
REPORTS_MAX = 20  # of one alarm at one look; the rest is for the next
SPANS_MAX = 1000

type Submit = Callable[[ReportAlarm], Awaitable[None]]
type Handler = Callable[[bytes], Awaitable[Struct]]


class WhatIf(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an alarm would have rung: one there is, or one with this condition."""

    project: str
    start: Micros
    end: Micros
    condition: Condition | None = None
    alarm_id: str = ""


class Rang(Struct, frozen=True, kw_only=True):
    """Once that it rang. ``until`` is None if it still did at the end."""

    since: Micros
    until: Micros | None


class WhatIfAnswer(Struct, frozen=True, kw_only=True):
    """How often it would have rung from ``start`` to ``end``, and for how long altogether.

    ``rang`` are the last of them.
    """

    as_of: Ordinal
    start: Micros
    end: Micros
    times: int
    ringing_us: int
    rang: tuple[Rang, ...]


class _Seen(Struct):
    """What was read of the facts that an alarm is about, up to an ordinal."""

    updated_at: Micros
    last: Ordinal = 0
    facts: list[Happened] = []


class Watch:
    """Looks after all alarms of a cell."""

    def __init__(
        self, holdings: Holdings, reader: Reader, submit: Submit, now: Callable[[], Micros]
    ) -> None:
        self._holdings = holdings
        self._reader = reader
        self._submit = submit
        self._now = now
        self._seen: dict[str, _Seen] = {}
        self._said: dict[str, Alarm] = {}  # what was recorded, until the read model has it too

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except Unavailable as error:
                log.warning("alarms_not_watched", error=str(error))
            except Exception:
                log.exception("alarms_not_watched")
            await asyncio.sleep(LOOK_S)

    async def look(self) -> int:
        """Have recorded what has begun or ceased to ring; return how much that was."""
        reports = await asyncio.to_thread(self.due)
        for alarm, report in reports:
            await self._submit(report)
            kind = AlarmRaised if report.ringing else AlarmCleared
            told = kind(alarm_id=alarm.alarm_id, name=alarm.name, since=report.since)
            self._said[alarm.alarm_id] = rung(alarm, told)
        return len(reports)

    def due(self) -> list[tuple[Alarm, ReportAlarm]]:
        """Return what is to be recorded, by alarm and in the order of time."""
        alarms = [self._newest(alarm) for alarm in self._reader.alarms()]
        self._forget({alarm.alarm_id for alarm in alarms})
        if not alarms:
            return []
        now = self._now()
        with self._holdings.look() as there:
            if self._reader.position() < there.as_of:
                return []
            found: list[tuple[Alarm, ReportAlarm]] = []
            for alarm in alarms:
                start = max(alarm.updated_at, alarm.changed_at)
                known = Known(self._facts(alarm, start), [], there.definitions)
                reach = reach_of(alarm.condition)
                for meter in meters_of(alarm.condition):
                    since = max(0, start - (reach or 0)) if reach is not None else 0
                    known = known._replace(
                        intervals=[
                            *known.intervals,
                            *there.intervals(since, now, project_id=alarm.project_id, meter=meter),
                        ]
                    )
                spans = held(alarm.condition, known, start, now)
                found += ((alarm, report) for report in reports(alarm, spans, start, now))
            return found

    def what_if(self, asked: WhatIf) -> WhatIfAnswer:
        """Return how often an alarm would have rung.

        Raises:
            NotFound: there is no such alarm.
            InvalidInput: there is nothing to evaluate.
        """
        condition = asked.condition
        if condition is None:
            alarm = self._reader.alarm(asked.alarm_id)
            if alarm is None or alarm.project_id != asked.project:
                raise NotFound(f"there is no alarm {asked.alarm_id[:64]!r}")
            condition = alarm.condition
        if asked.start >= asked.end:
            raise InvalidInput("the time must begin before it ends")
        end = min(asked.end, self._now())
        tags = facts_of(condition)
        facts = [
            Happened(at, tag, resource_id)
            for _, at, tag, resource_id in self._reader.happened(
                asked.project, tags, after=0, before=end
            )
        ]
        reach = reach_of(condition)
        since = 0 if reach is None else max(0, asked.start - reach)
        with self._holdings.look() as there:
            unknown = meters_of(condition) - there.versions.keys()
            if unknown:
                raise InvalidInput(f"there is no meter {min(unknown)!r}")
            intervals = [
                interval
                for meter in meters_of(condition)
                for interval in there.intervals(since, end, project_id=asked.project, meter=meter)
            ]
        spans = held(condition, Known(facts, intervals, there.definitions), asked.start, end)
        return WhatIfAnswer(
            as_of=there.as_of,
            start=asked.start,
            end=end,
            times=len(spans),
            ringing_us=sum(until - since for since, until in spans),
            rang=tuple(
                Rang(since=since, until=None if until == end else until)
                for since, until in spans[-SPANS_MAX:]
            ),
        )

    def _newest(self, alarm: Alarm) -> Alarm:
        said = self._said.get(alarm.alarm_id)
        if said is None or said.updated_at != alarm.updated_at:
            return alarm
        return said if said.changed_at >= alarm.changed_at else alarm

    def _forget(self, alarms: set[str]) -> None:
        for kept in (self._seen, self._said):
            for alarm_id in kept.keys() - alarms:
                kept.pop(alarm_id, None)

    def _facts(self, alarm: Alarm, start: Micros) -> list[Happened]:
        """Return the facts that an alarm is about; each is read once."""
        tags = facts_of(alarm.condition)
        if not tags:
            return []
        seen = self._seen.get(alarm.alarm_id)
        if seen is None or seen.updated_at != alarm.updated_at:
            seen = self._seen[alarm.alarm_id] = _Seen(updated_at=alarm.updated_at)
        for ordinal, at, tag, resource_id in self._reader.happened(
            alarm.project_id, tags, after=seen.last, before=2**53 - 1
        ):
            seen.facts.append(Happened(at, tag, resource_id))
            seen.last = ordinal
        reach = reach_of(alarm.condition)
        if reach is not None:
            seen.facts = [fact for fact in seen.facts if fact.at + reach >= start]
        return seen.facts


def reported_to(bus: Bus, now: Callable[[], Micros]) -> Submit:
    """Return what has the engine record that an alarm rings, or ceased to."""

    async def submit(report: ReportAlarm) -> None:
        request = Request(
            request_id=f"req-{uuid_utils.uuid7()}",
            actor=Actor(kind="system", user_id=SYSTEM_USER),
            action=report,
            submitted_at=now(),
        )
        await submit_as_history(bus, request)

    return submit


def reports(alarm: Alarm, spans: Spans, start: Micros, now: Micros) -> list[ReportAlarm]:
    """Return what is to be said of an alarm whose condition held in these stretches since start."""
    times: list[Micros] = [time for span in spans for time in span]
    if times and times[-1] == now:
        times.pop()  # it still holds
    if alarm.ringing:
        if times and times[0] == start:
            times.pop(0)  # it goes on to ring
        elif not (spans and spans[0][0] == start):
            times.insert(0, start)  # what came late says that it should not
    ringing = alarm.ringing
    found: list[ReportAlarm] = []
    for since in times[:REPORTS_MAX]:
        ringing = not ringing
        found.append(
            ReportAlarm(
                alarm_id=alarm.alarm_id,
                updated_at=alarm.updated_at,
                ringing=ringing,
                since=since,
            )
        )
    return found


def questions(watch: Watch) -> Mapping[str, Handler]:
    """Return what the archiver answers about alarms."""
    decode = msgspec.json.Decoder(WhatIf).decode

    async def what_if(payload: bytes) -> Struct:
        try:
            asked = decode(payload)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"the question cannot be read: {error}") from error
        return await asyncio.to_thread(watch.what_if, asked)

    return {"alarm_what_if": what_if}
