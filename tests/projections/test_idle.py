"""What is idle and what is left behind is found, with the fact that made it so."""

import pytest

from projections.idle import idle
from projections.orphans import orphans
from schemas.compute import StopServer
from schemas.identity import DeleteProject
from schemas.network import CreatePort
from schemas.units import DAY
from tests.projections.story import a_small_story, reading


@pytest.fixture
def story():
    return a_small_story()


def found_idle(story, tmp_path, project_id=None, *, days=0):
    db = reading(story, tmp_path / f"{story.cell.state.ordinal}.sqlite").db()
    return idle(db, project_id, story.now + 1 - days * DAY)


def test_a_stopped_server_is_idle_since_it_stopped_and_for_whom(story, tmp_path):
    stop = story.submit(story.demo, StopServer(server_id=story.first))
    assert story.first not in {one.id for one in found_idle(story, tmp_path)}, "not yet"
    story.report(stop.verdict.reply["operation_id"])
    stopped = story.now
    story.later(3 * DAY)

    (one,) = [one for one in found_idle(story, tmp_path) if one.id == story.first]

    assert (one.kind, one.why, one.since) == ("server", "is stopped", stopped)
    assert one.request_id == stop.request.request_id
    assert one.user_id == story.demo.user_id
    assert one.holds == {"disk_gib": 1, "addresses": 1}
    assert story.first in {one.id for one in found_idle(story, tmp_path, days=2)}
    assert story.first not in {one.id for one in found_idle(story, tmp_path, days=4)}
    assert found_idle(story, tmp_path, story.other.project_id) == []
    story.start(story.demo, story.first)
    assert story.first not in {one.id for one in found_idle(story, tmp_path)}


def test_failed_servers_unused_images_and_loose_ports_are_idle(story, tmp_path):
    unused = story.image(story.demo)
    port = story.ok(story.demo, CreatePort(network_id=story.net))["port_id"]

    found = {one.id: one for one in found_idle(story, tmp_path)}

    failed = [one for one in found.values() if one.why == "has failed"]
    assert [one.name for one in failed] == ["too-big"]
    assert (found[unused].kind, found[unused].holds) == ("image", {"bytes": 10})
    assert (found[port].kind, found[port].holds) == ("port", {"addresses": 1})
    used = story.cell.state.servers[story.first].image_id
    assert used not in found


def test_what_a_project_leaves_is_told_with_the_event_that_left_it(story, tmp_path):
    reader = reading(story, tmp_path / "before.sqlite")
    assert orphans(reader.db(), None) == []
    gone = story.submit(story.admin, DeleteProject(project_id=story.other.project_id))
    ordinal = story.cell.state.ordinal
    reader = reading(story, tmp_path / "after.sqlite")

    found = orphans(reader.db(), None)

    assert {one.kind for one in found} == {"server", "network", "subnet", "port", "security_group"}
    assert {(one.parent_kind, one.parent_id) for one in found} == {
        ("project", story.other.project_id)
    }
    for one in found:
        assert one.left_by.request_id == gone.request.request_id
        assert one.left_by.user_id == story.admin.user_id
        assert one.left_by.tag == "identity.project.deleted.v1"
        assert one.left_by.ordinal <= ordinal
    assert orphans(reader.db(), story.demo.project_id) == []
