"""The timeline holds every ordinal, and says of each what it is about and whose it is."""

import msgspec
import pytest

from projections.timeline import FACTS, OWNED, REQUESTS, request_body
from schemas.compute import CreateServer, DeleteServer, RebootServer, StopServer
from schemas.envelope import action_types, decode_commit, fact_types
from schemas.identity import CreateProject
from schemas.network import CreateNetwork
from schemas.operation import PassDeadline
from tests.engine.world import SYSTEM
from tests.projections.story import a_small_story, reading


@pytest.fixture
def story():
    return a_small_story()


@pytest.fixture
def reader(story, tmp_path):
    return reading(story, tmp_path / "n.sqlite")


def test_every_action_and_every_fact_says_what_it_is_about():
    assert set(REQUESTS) == set(action_types().values())
    assert set(FACTS) == set(fact_types().values())


def test_every_ordinal_has_its_row_as_it_lies_in_the_log(story, reader):
    expected = []
    for _, data in story.commits:
        for record in msgspec.json.decode(data)["records"]:
            expected.append({"request": record["request"], "verdict": record["verdict"]})
            expected += record["facts"]

    events = reader.events(limit=10_000)

    assert [event.ordinal for event in events] == list(range(1, len(expected) + 1))
    assert [msgspec.json.decode(event.body) for event in events] == expected


def test_bodies_keep_the_logs_bytes(story, reader):
    """A digest over what is shown can be compared with one over what was written."""
    data = story.commits[-1][1]

    for event in reader.events(after=reader.position() - 1):
        assert bytes(event.body) in data or event.kind == "request"
    assert request_body(msgspec.Raw(b"1"), msgspec.Raw(b"2")) == b'{"request":1,"verdict":2}'


def test_what_happens_to_an_owned_thing_is_its_projects(story, reader):
    """Facts and accepted requests about servers, images and networks carry the owner."""
    projects = {p.project_id for p in reader.projects()}

    for event in reader.events(limit=10_000):
        if event.resource_kind in OWNED and event.outcome != "refused":
            assert event.project_id in projects, event
            assert event.resource_id, event


def test_an_agents_report_is_shown_to_the_owner(story, reader):
    reports = [e for e in reader.events(limit=10_000) if e.tag == "ReportOperation"]

    about_demo = [e for e in reports if e.resource_id == story.first]

    assert about_demo
    assert {(e.project_id, e.user_id, e.resource_kind) for e in about_demo} == {
        (story.demo.project_id, "", "server")
    }


def test_a_refused_request_is_the_askers(story, reader):
    """Who asks for another project's server learns nothing, and its owner is not bothered."""
    (refusal,) = reader.audit_log(outcome="refused", resource_id=story.first)

    assert refusal.project_id == story.other.project_id
    assert (refusal.code, refusal.tag) == ("NotFound", "DeleteServer")


def test_the_feed_goes_on_where_it_was_left(story, reader):
    everything = reader.events(limit=10_000)
    pages = []
    after = 0
    while page := reader.events(after=after, limit=7):
        pages += page
        after = page[-1].ordinal

    assert pages == everything


def test_the_feed_of_a_project_holds_its_own_only(story, reader):
    feed = reader.events(limit=10_000, project_id=story.demo.project_id)

    assert feed
    assert {event.project_id for event in feed} == {story.demo.project_id}


def test_a_requests_story_reaches_to_the_hosts_report(story, reader):
    record = story.submit(story.demo, StopServer(server_id=story.first))
    request_id = record.request.request_id
    operation = record.verdict.reply["operation_id"]
    story.report(operation)
    fresh = reading(story, reader._path.with_name("m.sqlite"))

    tags = [event.tag for event in fresh.audit_show(request_id)]

    assert tags == [
        "StopServer",
        "compute.server.stop_requested.v1",
        "operation.operation.started.v1",
        "ReportOperation",
        "operation.operation.succeeded.v1",
        "compute.server.stopped.v1",
        "network.port.updated.v1",
    ]
    assert fresh.audit_show(request_id, project_id=story.demo.project_id)
    assert fresh.audit_show(request_id, project_id=story.other.project_id) == []
    assert fresh.audit_show("req-unknown") == []


def test_the_audit_log_filters(story, reader):
    demo = story.demo

    def tags(**filters):
        return [event.tag for event in reader.audit_log(limit=1000, **filters)]

    assert tags(tag="StartServer") == ["StartServer"]
    assert set(tags(user_id=demo.user_id, resource_kind="network")) == {
        "CreateNetwork",
    }
    assert tags(outcome="refused") == ["DeleteServer"]
    assert tags(code="NotFound") == ["DeleteServer"]
    assert "ReportOperation" in tags()
    assert "ReportOperation" not in tags(people=True)
    newest, second, *_ = reader.audit_log()
    assert reader.audit_log(before=newest.ordinal)[0] == second
    assert len(reader.audit_log(limit=3)) == 3


def test_time_bounds_are_half_open(story, reader):
    requests = reader.audit_log(limit=1000)
    some = requests[len(requests) // 2]

    assert reader.audit_log(since=some.at, until=some.at) == []
    assert reader.audit_log(since=some.at, until=some.at + 1) == [some]
    assert reader.audit_log(since=requests[0].at + 1) == []
    assert reader.audit_log(until=0) == []
    assert reader.audit_log(since=0, limit=1000) == requests


def test_why_tells_all_that_led_to_a_server(story, reader):
    why = reader.why(story.first)

    assert why is not None
    assert (why.resource_kind, why.project_id) == ("server", story.demo.project_id)
    ordinals = [event.ordinal for event in why.events]
    assert ordinals == sorted(set(ordinals))
    tags = [event.tag for event in why.events]
    assert tags[0] == "CreateServer"
    assert "compute.server.placed.v1" in tags
    assert "network.port.created.v1" in tags, "what came with the request is told"
    assert reader.why(story.first, project_id=story.other.project_id) is None
    assert reader.why(story.first, project_id=story.demo.project_id) is not None
    assert reader.why("nothing") is None


def test_why_a_server_found_no_host(story, reader):
    (too_big,) = reader.servers(status=["ERROR"])

    why = reader.why(too_big.server_id)

    assert why is not None
    failed = next(e for e in why.events if e.tag == "compute.server.failed.v1")
    assert msgspec.json.decode(failed.body)["removed"]


def test_instance_actions_end_with_their_operations(story, reader):
    actions = reader.instance_actions(story.first)

    assert [(a.action, a.result) for a in actions] == [
        ("start", "Success"),
        ("stop", "Success"),
        ("create", "Success"),
    ]
    assert all(a.finish_at is not None and a.finish_at >= a.start_at for a in actions)
    assert reader.instance_action(story.first, actions[0].request_id) == actions[0]
    assert reader.instance_action(story.first, "req-none") is None
    assert [a.action for a in reader.instance_actions(story.second)] == [
        "delete",
        "reboot",
        "create",
    ]


def test_an_action_under_way_has_no_end(story, reader):
    (waits,) = reader.servers(name="waits")

    (action,) = reader.instance_actions(waits.server_id)

    assert (action.action, action.finish_at, action.result) == ("create", None, None)


def test_actions_without_an_operation_end_at_once(story, reader):
    (too_big,) = reader.servers(name="too-big")

    (created,) = reader.instance_actions(too_big.server_id)

    assert (created.result, created.start_at) == ("Error", created.finish_at)
    assert created.message


def test_a_failed_operation_says_why(story, tmp_path):
    failing = story.ok(story.demo, RebootServer(server_id=story.first))["operation_id"]
    story.report(failing, succeeded=False, cause="no such domain", running=False)
    timed = story.server(story.demo, name="slow", build=False)
    operation = next(o for o in story.cell.state.operations.values() if o.resource_id == timed)
    story.now = operation.deadline
    story.ok(SYSTEM, PassDeadline(operation_id=operation.operation_id, generation=1))
    reader = reading(story, tmp_path / "m.sqlite")

    assert reader.instance_actions(story.first)[0].message == "no such domain"
    state = reader.operation(operation.operation_id)
    assert state is not None
    assert (state.status, state.ended_at) == ("timed_out", story.now)
    assert reader.instance_actions(timed)[0].result == "Error"


def test_a_late_report_is_about_its_server_still(story, tmp_path):
    operation = story.ok(story.demo, DeleteServer(server_id=story.first))["operation_id"]
    story.report(operation)
    story.report(operation)
    reader = reading(story, tmp_path / "m.sqlite")

    late = reader.audit_log(limit=1)[0]

    assert (late.tag, late.resource_id) == ("ReportOperation", story.first)
    assert late.project_id == story.demo.project_id


def test_requests_that_make_things_name_them(story, reader):
    made = {
        event.tag: event
        for event in reader.audit_log(limit=1000)
        if event.tag in {CreateServer.__name__, CreateNetwork.__name__, CreateProject.__name__}
    }

    assert reader.server(made["CreateServer"].resource_id) is not None
    assert reader.network(made["CreateNetwork"].resource_id) is not None
    assert reader.project(made["CreateProject"].resource_id) is not None


def test_hosts_name_themselves(story, reader):
    (registered,) = reader.audit_log(tag="RegisterHost")

    assert registered.resource_id == "host-1"
    assert decode_commit(story.commits[1][1]).records[0].request.actor.host_id == "host-1"


def test_an_id_that_comes_again_with_other_content_is_an_alarm(story, tmp_path):
    story.ok(story.demo, CreateNetwork(name="first"), request_id="req-again")
    first = story.cell.state.ordinal - 1
    story.refused(story.demo, CreateNetwork(name="second"), request_id="req-again")

    reader = reading(story, tmp_path / "alarm.sqlite")

    (alarm,) = reader.request_alarms()
    assert (alarm.request_id, alarm.what) == ("req-again", "other_content")
    assert (alarm.first, alarm.ordinal) == (first, story.cell.state.ordinal)
    shown = [event.code for event in reader.audit_show("req-again") if event.kind == "request"]
    assert shown == ["", "IdReused"]
    assert [e.request_id for e in reader.audit_log(code="IdReused")] == ["req-again"]


def forgotten(story):
    """Let the engine forget all answers."""
    story.later(1_000_000_000)
    story.ok(story.demo, CreateNetwork(name="another"))


def test_an_id_is_its_requests_for_ever(story, tmp_path):
    """Long after the engine has forgotten it."""
    story.ok(story.demo, CreateNetwork(name="n"), request_id="req-again")
    story.report("unknown", request_id="req-report")
    forgotten(story)
    story.ok(story.demo, CreateNetwork(name="n"), request_id="req-again")
    story.report("unknown", request_id="req-report", observed_at=story.now - 1_000_000_000)

    reader = reading(story, tmp_path / "alarm.sqlite")

    alarms = {(alarm.request_id, alarm.what) for alarm in reader.request_alarms()}
    assert alarms == {("req-again", "done_twice"), ("req-report", "other_content")}


def test_a_report_told_twice_is_no_alarm(story, tmp_path):
    observed = {"observed_at": story.now}
    story.report("unknown", request_id="req-report", **observed)
    forgotten(story)
    story.report("unknown", request_id="req-report", **observed)

    assert reading(story, tmp_path / "alarm.sqlite").request_alarms() == []


def test_requests_are_looked_up_by_an_index(reader):
    plan = reader.db().execute(
        "EXPLAIN QUERY PLAN SELECT ordinal, body FROM timeline WHERE request_id = 'r' "
        "AND kind = 'request' ORDER BY ordinal LIMIT 1"
    )

    assert [row[3] for row in plan] == [
        "SEARCH timeline USING INDEX timeline_request (request_id=?)"
    ]
