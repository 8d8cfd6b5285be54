"""Alarms are of projects, make sense, and ring when they are told to by who may tell."""

import pytest
from msgspec.structs import replace

from schemas import alarm as s
from tests.engine.world import SYSTEM, World

FAILED = s.WhatHappened(facts=("compute.server.failed.v1",), window_s=600, above="2")
BROKEN = s.DefineAlarm(name="broken", condition=FAILED)


@pytest.fixture
def world():
    return World()


@pytest.fixture
def demo(world):
    return world.member("demo")


def report(world, alarm_id, *, ringing, since=None, **fields):
    alarm = world.cell.state.alarms[alarm_id]
    told = s.ReportAlarm(
        alarm_id=alarm_id,
        updated_at=alarm.updated_at,
        ringing=ringing,
        since=world.now if since is None else since,
    )
    return world.submit(SYSTEM, replace(told, **fields)).facts


def test_an_alarm_rings_once_until_it_ceases(world, demo):
    alarm = world.ok(demo, BROKEN)["alarm_id"]

    since = world.now
    (raised,) = report(world, alarm, ringing=True, since=since)
    assert raised == s.AlarmRaised(alarm_id=alarm, name="broken", since=since)
    assert report(world, alarm, ringing=True) == ()
    world.now += 1000
    (cleared,) = report(world, alarm, ringing=False)
    assert isinstance(cleared, s.AlarmCleared)
    assert not world.cell.state.alarms[alarm].ringing


def test_what_was_found_of_another_definition_is_not_recorded(world, demo):
    alarm = world.ok(demo, BROKEN)["alarm_id"]
    world.now += 1000
    other = replace(BROKEN, condition=replace(FAILED, above="5"))
    assert world.ok(demo, other)["alarm_id"] == alarm

    assert report(world, alarm, ringing=True, updated_at=1) == ()
    since = world.now
    assert report(world, alarm, ringing=True, since=since) != ()
    assert report(world, alarm, ringing=False, since=since - 1) == ()  # before it rang
    world.ok(demo, s.DeleteAlarm(alarm_id=alarm))
    told = s.ReportAlarm(alarm_id=alarm, updated_at=world.now, ringing=True, since=world.now)
    assert world.submit(SYSTEM, told).facts == ()


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (replace(FAILED, above=None), "above or below"),
        (replace(FAILED, below="1"), "above or below"),
        (replace(FAILED, facts=("compute.server.lost.v1",)), "no fact"),
        (replace(FAILED, facts=("alarm.alarm.raised.v1",)), "no fact"),
        (s.WhatIsHeld(meter="ops.none", above="1"), "no meter"),
        (
            s.WhatIsSo(since=FAILED.facts, until=FAILED.facts, above="1"),
            "cannot begin and end",
        ),
        (s.AllOf(conditions=(FAILED, replace(FAILED, above=None))), "above or below"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(world, demo, condition, why):
    refused = world.refused(demo, replace(BROKEN, condition=condition))

    assert refused.code == "InvalidInput"
    assert why in refused.reason


def test_alarms_are_of_their_project(world, demo):
    other = world.member("other")
    alarm = world.ok(demo, BROKEN)["alarm_id"]

    assert world.refused(other, s.DeleteAlarm(alarm_id=alarm)).code == "NotFound"
    told = s.ReportAlarm(alarm_id=alarm, updated_at=world.now, ringing=True, since=0)
    assert world.refused(demo, told).code == "Forbidden"
    assert world.ok(other, BROKEN)["alarm_id"] != alarm  # names are a project's own


def test_a_project_has_only_so_many(world, demo):
    for number in range(50):
        world.ok(demo, replace(BROKEN, name=f"a{number}"))

    assert world.refused(demo, replace(BROKEN, name="more")).code == "Conflict"
    assert world.ok(demo, replace(BROKEN, name="a0"))  # which is there
