"""Meters that somebody defines, as archives answer: over all of history, from their definition."""

import pytest

from projections.archive import Archive, Window
from projections.history import History
from projections.server_hours import Asked, server_hours
from schemas.errors import NotFound
from schemas.metering import DefineMeter, DeleteMeter, MeterRule
from schemas.units import HOUR, SECOND
from tests.projections.story import a_small_story, reading

OWNER = MeterRule(
    fact="compute.server.created.v1",
    effect="set",
    resource="server.server_id",
    project="server.project_id",
    dimensions={"role": "server.metadata.role"},
)
STARTS = MeterRule(
    fact="compute.server.started.v1", effect="add", resource="server_id", at="observed_at"
)
BOOTS = DefineMeter(
    key="ops.boots",
    resource_kind="server",
    aggregation="count",
    unit="Boots",
    base_per_unit=1,
    rules=(OWNER, STARTS),
)


@pytest.fixture
def story():
    return a_small_story()


def archive(story, tmp_path, seal=0):
    reader = reading(story, tmp_path / f"read-{len(story.commits)}" / "n.sqlite")
    found = Archive(History(tmp_path / "history"), story.read, reader)
    if seal:
        found.seal(seal, story.cell.state.ordinal)
    return found


@pytest.mark.parametrize("seal", [0, 17, 10_000])
def test_a_meter_that_is_defined_today_measures_all_of_history(story, tmp_path, seal):
    story.ok(story.admin, BOOTS)

    answer = archive(story, tmp_path, seal).usage(Window(meter="ops.boots"), story.now + HOUR)

    starts = {story.first: 2, story.second: 1}
    of_demo = [row for row in answer.usage if row.project_id == story.demo.project_id]
    counted = {}
    for row in of_demo:
        assert (row.quantity, row.unit, row.base_unit) == ("1.000000000000", "Boots", "")
        counted[row.resource_id] = counted.get(row.resource_id, 0) + int(row.base_quantity)
    assert counted == starts
    assert {row.dimensions["role"] for row in of_demo} == {"web", ""}
    (total,) = answer.totals
    assert (total.meter, total.quantity) == ("ops.boots", "4.000000000000")


def test_a_deleted_meter_still_tells_what_it_measured(story, tmp_path):
    story.ok(story.admin, BOOTS)
    story.ok(story.admin, DeleteMeter(key="ops.boots"))
    story.later(1000)
    story.stop(story.demo, story.first)
    story.start(story.demo, story.first)

    answer = archive(story, tmp_path).usage(Window(meter="ops.boots"), story.now + HOUR)

    assert len(answer.usage) == 4


def test_there_must_be_a_meter(story, tmp_path):
    with pytest.raises(NotFound):
        archive(story, tmp_path).usage(Window(meter="ops.none"), story.now)


def test_meters_that_are_read_are_those_that_measure(story, tmp_path):
    story.ok(story.admin, BOOTS)
    story.later(1000)
    longer = (OWNER, STARTS, MeterRule(fact="compute.server.rebooted.v1", effect="add",
                                       resource="server_id"))  # fmt: skip
    story.ok(story.admin, DefineMeter(**{**fields(BOOTS), "rules": longer}))
    story.later(1000)
    story.ok(story.admin, DeleteMeter(key="ops.boots"))

    reader = reading(story, tmp_path / "n.sqlite")

    assert tuple(reader.meters()) == story.cell.state.meters["ops.boots"]


def test_how_long_servers_existed_comes_in_pages(story, tmp_path):
    holdings = archive(story, tmp_path).holdings
    now = story.now + HOUR
    everything = server_hours(holdings, Asked(start=0, end=now)).servers

    paged, marker = [], ""
    while page := server_hours(holdings, Asked(start=0, end=now, marker=marker, limit=1)).servers:
        paged += page
        marker = page[-1].server_id
    own = server_hours(holdings, Asked(start=0, end=now, project=story.demo.project_id)).servers

    assert tuple(paged) == everything
    assert len(everything) == 3
    assert {each.server_id: each.held_us // SECOND for each in own} == {
        story.first: 9000,
        story.second: 5400,
    }


def fields(action):
    return {name: getattr(action, name) for name in action.__struct_fields__}
