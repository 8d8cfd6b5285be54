"""Samples are recorded once an hour and counter, and of a host's own servers."""

import msgspec
import pytest
from msgspec.structs import replace

from engine.domain.samples import MONITORS_MAX
from projections.metering import intervals, usage
from schemas.samples import ReportSamples, Rollup
from schemas.units import HOUR
from tests.engine.world import World


@pytest.fixture
def world():
    world = World()
    world.host()
    world.without_quotas()
    world.flavor()
    world.image()
    return world


@pytest.fixture
def rollup(world):
    demo = world.member("demo")
    world.network(demo)
    server = world.server(demo)
    return Rollup(
        server_id=server,
        monitor="network.egress",
        hour=world.now // HOUR * HOUR,
        count=60,
        first=10,
        last=5 * 10**8,
        minimum=10,
        maximum=9 * 10**8,
        increase=3 * 10**9,
        boots=(1,),
    )


def told(world, *rollups, host="host-1"):
    return world.submit(world.agent(host), ReportSamples(rollups=rollups)).facts


def test_an_hour_is_recorded_once_and_metered_as_of_its_beginning(world, rollup):
    world.now += HOUR
    later = replace(rollup, hour=rollup.hour + HOUR, first=4, last=5, minimum=4, maximum=9,
                    increase=5)  # fmt: skip
    (fact,) = told(world, rollup, rollup)
    assert told(world, rollup) == ()
    world.now += HOUR
    (second,) = told(world, later, rollup)

    held = intervals([(7, world.now, fact), (9, world.now, second)])
    (row,) = usage(held, rollup.hour, rollup.hour + HOUR)
    assert (row.meter, row.quantity, row.start) == ("network.egress", 3 * 10**9, rollup.hour)
    assert (row.project_id, row.resource_id) == (fact.project_id, rollup.server_id)
    assert sum(row.quantity for row in usage(held, 0, 2**53)) == 3 * 10**9 + 5


def test_an_hour_that_is_not_over_is_refused(world, rollup):
    refused = world.refused(world.agent(), ReportSamples(rollups=(rollup,)))

    assert "whole hour that is over" in refused.reason
    assert refused.code == "ClockAhead", "the host tells it again"
    world.now += HOUR
    crooked = replace(rollup, hour=rollup.hour + 1)
    assert "whole hour" in world.refused(world.agent(), ReportSamples(rollups=(crooked,))).reason


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"count": 3601},
        {"last": 9 * 10**8 + 1},
        {"first": 9},
        {"increase": 60 * 9 * 10**8 + 1},
        {"increase": 9 * 10**8 - 11},
    ],
    ids=str,
)
def test_numbers_that_do_not_fit_are_refused(world, rollup, wrong):
    world.now += HOUR
    told = ReportSamples(rollups=(replace(rollup, **wrong),))

    assert "do not fit" in world.refused(world.agent(), told).reason


@pytest.mark.parametrize(
    "wrong", [{"increase": -1}, {"increase": 2**53}, {"hour": 10**20}], ids=str
)
def test_numbers_that_are_none_are_not_read(rollup, wrong):
    told = msgspec.json.encode(ReportSamples(rollups=(replace(rollup, **wrong),)))

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(told, type=ReportSamples)


def test_what_was_recorded_stays_whatever_is_told_later(world, rollup):
    world.now += 3 * HOUR
    (fact,) = told(world, replace(rollup, hour=rollup.hour + HOUR))

    assert told(world, replace(rollup, hour=rollup.hour + HOUR, increase=9 * 10**9)) == ()
    assert told(world, rollup) == (), "an hour before one that was told"
    assert fact.rollup.increase == rollup.increase


def test_an_hour_from_before_the_server_was_is_left_out(world, rollup):
    world.now += HOUR

    assert told(world, replace(rollup, hour=rollup.hour - HOUR)) == ()
    assert told(world, replace(rollup, hour=0)) == ()
    assert len(told(world, rollup)) == 1


def test_a_host_cannot_fill_the_state_with_monitors(world, rollup):
    world.now += HOUR
    many = [replace(rollup, monitor=f"ops.m{number}") for number in range(MONITORS_MAX + 1)]

    assert len(told(world, *many)) == MONITORS_MAX
    assert told(world, rollup) == ()


def test_a_host_tells_of_its_own_servers_alone(world, rollup):
    world.host("host-2")
    world.now += HOUR

    assert told(world, rollup, host="host-2") == ()
    assert told(world, replace(rollup, server_id="gone")) == ()
    demo = world.member("somebody")
    refused = world.refused(demo, ReportSamples(rollups=(rollup,)))
    assert refused.code == "Forbidden"
