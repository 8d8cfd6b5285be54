"""What counters grew by is counted once, however guests and agents come and go."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.errors import HypervisorError
from executors.hypervisor.port import Domain, DomainSpec
from executors.hypervisor.simulated import SimulatedHypervisor
from executors.reports import Reports
from executors.samples import Rollups, Sample, Sampler
from schemas.envelope import Outcome, Refused
from schemas.samples import ReportSamples, Rollup
from schemas.units import HOUR
from tests.executors.world import Engine

MINUTE = HOUR // 60


def read(*values, boot=1):
    return [Sample("s", boot, "network.egress", value) for value in values]


def rolled(rollups):
    return [(r.hour // HOUR, r.count, r.first, r.last, r.increase, r.boots) for r in rollups.due]


def test_an_hour_begins_where_the_one_before_ended():
    rollups = Rollups()
    rollups.add([], 0)  # somebody looks, and nothing is there yet
    for minute, value in enumerate([10, 40, 100], 58):  # 58, 59 and 60 minutes
        rollups.add(read(value), minute * MINUTE)
    rollups.add([], 2 * HOUR)

    assert rolled(rollups) == [(0, 2, 10, 40, 40, (1,)), (1, 1, 100, 100, 60, (1,))]


def test_a_counter_that_begins_anew_grew_by_what_it_says():
    rollups = Rollups()
    rollups.add([], 0)
    rollups.add(read(100), 1)
    rollups.add(read(30, boot=2), 2)  # another boot
    rollups.add(read(35, boot=2), 3)
    rollups.add(read(7, boot=2), 4)  # and one that nobody told of
    rollups.add(read(120, boot=3), 5)  # more than before, and yet of another boot
    rollups.add([], HOUR)

    assert rolled(rollups) == [(0, 5, 100, 120, 100 + 30 + 5 + 7 + 120, (1, 2, 3))]
    (rollup,) = rollups.due
    assert (rollup.minimum, rollup.maximum) == (7, 120)


def test_what_was_used_before_anybody_looked_is_not_counted():
    rollups = Rollups()
    rollups.add(read(1000), 1)
    rollups.add(read(1005), 2)
    rollups.add([], HOUR)

    assert rolled(rollups) == [(0, 2, 1000, 1005, 5, (1,))]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.booleans()), max_size=30),
    st.integers(1, 50),
)
def test_nothing_is_lost_or_counted_twice_over_restarts(tmp_path_factory, steps, minutes):
    """Of a guest that grows and reboots, seen by an agent that is killed now and then."""
    path = tmp_path_factory.mktemp("samples") / "samples.json"
    rollups = Rollups(path)
    rollups.add([], 0)
    rollups.keep()
    value = true = at = 0
    boot = 1
    taken = []
    for grown, reboots, dies in steps:
        if reboots:
            value, boot = 0, boot + 1
        value += grown
        true += grown
        at += minutes * MINUTE
        rollups.add(read(value, boot=boot), at)
        taken += rollups.due
        rollups.reported(rollups.due)
        rollups.keep()
        if dies:
            rollups = Rollups(path)
    rollups.add([], at + HOUR)
    taken += rollups.due

    assert sum(rollup.increase for rollup in taken) == true
    assert len({rollup.hour for rollup in taken}) == len(taken)
    assert sum(rollup.count for rollup in taken) == len(steps)


def test_a_file_that_cannot_be_read_is_begun_anew(tmp_path):
    path = tmp_path / "samples.json"
    path.write_text("{")

    rollups = Rollups(path)
    rollups.add(read(1000), 1)
    rollups.keep()

    assert Rollups(path)._counters["s network.egress"].increase == 0


class Time:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


async def a_host():
    hypervisor = SimulatedHypervisor()
    await hypervisor.create(
        DomainSpec(server_id="s", boot=1, vcpus=1, memory_mib=64, disk="/d", console="/c")
    )
    return hypervisor


async def test_an_agent_reports_hours_and_what_plugins_measure():
    hypervisor, engine, time = await a_host(), Engine(), Time()

    def cards(domains):
        return [Sample(server, each.boot, "ops.gpu_time", 7) for server, each in domains.items()]

    async def late(domains):
        return [("s", domains["s"].boot, "ops.pages", 3)]

    sampler = Sampler(hypervisor, Reports(engine, time), Rollups(), time,
                      {"cards": cards, "late": late})  # fmt: skip
    await sampler.look()
    hypervisor.used["s"] = {"network.egress": 500}
    time.now = MINUTE
    await sampler.look()
    time.now = HOUR
    await sampler.look()

    (report,) = [report for report in engine.reports if isinstance(report, ReportSamples)]
    grown = {rollup.monitor: (rollup.increase, rollup.count) for rollup in report.rollups}
    assert grown == {"network.egress": (500, 1), "ops.gpu_time": (0, 2), "ops.pages": (0, 2)}


class Behind(Engine):
    """An engine for which it is earlier than for the host."""

    behind = True

    async def submit(self, report, request_id, trace=""):
        if self.behind:
            refused = Refused(code="ClockAhead", status=400, reason="it is not over", hint="wait")
            return Outcome(request_id=request_id, ordinal=7, verdict=refused)
        return await super().submit(report, request_id, trace)


async def test_what_a_clock_that_is_ahead_reports_too_early_is_told_again():
    hypervisor, engine, time = await a_host(), Behind(), Time()
    hypervisor.used["s"] = {"network.egress": 5}
    sampler = Sampler(hypervisor, Reports(engine, time), Rollups(), time, {})
    await sampler.look()
    time.now = HOUR
    await sampler.look()
    engine.behind = False
    await sampler.look()
    await sampler.look()

    (report,) = engine.reports
    assert [rollup.hour for rollup in report.rollups] == [0]


def test_what_a_counter_grew_by_is_never_more_than_can_be_told():
    rollups, most = Rollups(), 2**53 - 1
    for value in (0, most, 5, most):
        rollups.add([Sample("s", 1, "ops.x", value)], 1)
    rollups.add([], HOUR)

    (rollup,) = rollups.due
    assert rollup.increase == most
    assert msgspec.convert(msgspec.to_builtins(rollup), Rollup) == rollup


@pytest.mark.parametrize(
    "told",
    [
        [("nobody", 1, "ops.x", 1)],
        [("s", 1, "ops.x", -1)],
        [("s", 1, "Not A Name", 1)],
        [("s", 1)],
        HypervisorError("broken"),
    ],
    ids=str,
)
async def test_a_plugin_that_is_wrong_keeps_nobody_from_measuring(told):
    hypervisor, engine, time = await a_host(), Engine(), Time()
    hypervisor.used["s"] = {"network.egress": 5}

    def wrong(_domains: dict[str, Domain]):
        if isinstance(told, Exception):
            raise told
        return told

    sampler = Sampler(hypervisor, Reports(engine, time), Rollups(), time, {"wrong": wrong})
    await sampler.look()
    time.now = HOUR
    await sampler.look()

    (report,) = [report for report in engine.reports if isinstance(report, ReportSamples)]
    assert {rollup.monitor for rollup in report.rollups} == {"network.egress"}
