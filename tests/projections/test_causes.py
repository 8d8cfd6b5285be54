"""What a request led to is a tree: all of it, once, below what caused it."""

import pytest

from projections import causes
from projections.audit import DEPTH_MAX, show
from schemas.compute import StartServer, StopServer
from schemas.network import CreateNetwork
from tests.projections.story import a_small_story, reading


@pytest.fixture
def story():
    return a_small_story()


def tree(reader, request_id, project_id=None):
    events = reader.audit_show(request_id, project_id=project_id)
    return causes.tree(request_id, events, reader.operation)


def ordinals(node):
    """Return all ordinals in a tree, in the order of a walk."""
    yield node.ordinal
    for fact in node.facts:
        yield fact.ordinal
        for report in fact.work.reports if fact.work else ():
            yield from ordinals(report)
    for request in node.caused:
        yield from ordinals(request)


def test_a_request_leads_to_facts_these_to_work_and_this_to_reports(story, tmp_path):
    record = story.submit(story.demo, StopServer(server_id=story.first))
    request_id = record.request.request_id
    story.report(record.verdict.reply["operation_id"])
    story.later(5_000_000)
    reader = reading(story, tmp_path / "n.sqlite")

    (root,) = tree(reader, request_id)

    assert (root.tag, root.outcome, root.user_id) == ("StopServer", "accepted", story.demo.user_id)
    assert root.actor == "user"
    requested, started = root.facts
    assert (requested.tag, requested.work) == ("compute.server.stop_requested.v1", None)
    work = started.work
    assert (work.kind, work.host_id, work.status) == ("stop", "host-1", "succeeded")
    (report,) = work.reports
    assert (report.tag, report.actor, report.host_id) == ("ReportOperation", "agent", "host-1")
    assert report.cause == request_id
    assert [fact.tag for fact in report.facts] == [
        "operation.operation.succeeded.v1",
        "compute.server.stopped.v1",
        "network.port.updated.v1",
    ]
    assert root.caused == ()


def test_every_event_stands_in_its_tree_once(story, tmp_path):
    reader = reading(story, tmp_path / "n.sqlite")

    for request in reader.audit_log(limit=1000):
        found = [event.ordinal for event in reader.audit_show(request.request_id)]
        roots = tree(reader, request.request_id)
        walked = [ordinal for root in roots for ordinal in ordinals(root)]
        assert sorted(walked) == found, request.tag
        assert request.ordinal in walked


def test_causes_are_followed_through_requests_and_their_work(story, tmp_path):
    """A request that names another as its cause hangs below it, with the work of its own."""
    first = story.submit(story.demo, StopServer(server_id=story.first))
    story.report(first.verdict.reply["operation_id"])
    cause = first.request.request_id
    second = story.submit(story.demo, StartServer(server_id=story.first), cause=cause)
    story.report(second.verdict.reply["operation_id"])
    reader = reading(story, tmp_path / "n.sqlite")

    (root,) = tree(reader, cause)

    (caused,) = root.caused
    assert (caused.tag, caused.request_id) == ("StartServer", second.request.request_id)
    (work,) = [fact.work for fact in caused.facts if fact.work]
    assert [report.tag for report in work.reports] == ["ReportOperation"]
    assert len(root.facts[1].work.reports) == 1


def test_nobody_is_shown_what_others_say_that_they_caused(story, tmp_path):
    """A cause is what a request claims: another project's claim is not this one's story."""
    first = story.submit(story.demo, CreateNetwork(name="mine"))
    cause = first.request.request_id
    theirs = story.submit(story.other, CreateNetwork(name="theirs"), cause=cause)
    reader = reading(story, tmp_path / "n.sqlite")

    (mine,) = tree(reader, cause, story.demo.project_id)
    (whole,) = tree(reader, cause)

    assert mine.caused == ()
    assert [node.request_id for node in whole.caused] == [theirs.request.request_id]
    assert tree(reader, cause, story.other.project_id) == ()


def test_a_chain_of_causes_is_followed_so_far_and_no_further(story, tmp_path):
    first = cause = story.submit(story.demo, CreateNetwork(name="n")).request.request_id
    for _ in range(DEPTH_MAX + 5):
        cause = story.submit(story.demo, CreateNetwork(name="n"), cause=cause).request.request_id
    story.submit(story.demo, CreateNetwork(name="own"), request_id="req-own", cause="req-own")
    reader = reading(story, tmp_path / "n.sqlite")

    events = show(reader.db(), first, None)

    assert len([event for event in events if event.kind == "request"]) == DEPTH_MAX + 1
    (root,) = tree(reader, first)
    assert len(list(ordinals(root))) == len(events)
    assert len(tree(reader, "req-own")) == 1, "what names itself is no cause of itself"
