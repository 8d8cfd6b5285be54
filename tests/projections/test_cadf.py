"""The audit log as CADF: every request there can be is a record that pycadf takes."""

import json
import uuid
import warnings

import msgspec
import pytest
from pycadf import attachment, cadftaxonomy, event, host, reason, resource

from projections import cadf
from projections.asked import of_log
from projections.cadf import ACTIONS, KINDS, SERVICES, cadf_event
from projections.timeline import FACTS
from schemas.compute import DeleteServer
from schemas.envelope import action_types
from tests.engine.history import everything
from tests.projections.story import Story, a_small_story, reading

CELL = "cell-1"


def exported(reader, request):
    """Return a request's record as it is exported."""
    asked = of_log(request, None)
    reply = json.loads(bytes(request.body))["verdict"].get("reply", {})
    operation = reader.operation(reply.get("operation_id", ""))
    record = cadf_event(asked, CELL, recorded=bytes(request.body), operation=operation)
    return json.loads(msgspec.json.encode(record))


def validated(told: dict) -> event.Event:
    """Return a record as pycadf has it, whose attributes raise what is not valid."""
    said = dict(told)
    assert said.pop("typeURI") == "http://schemas.dmtf.org/cloud/audit/1.0/event"
    tags, attached = said.pop("tags", []), said.pop("attachments", [])
    with warnings.catch_warnings():
        # Ids that operators chose, of hosts and flavors say, are no UUIDs: they are what they are.
        warnings.filterwarnings("ignore", message="Invalid uuid")
        for part in ("initiator", "target", "observer"):
            said[part] = resource_of(said[part])
        if "reason" in said:
            said["reason"] = reason.Reason(**said["reason"])
            assert said["reason"].is_valid()
        made = event.Event(**said)
    for tag in tags:
        made.add_tag(tag)
    for one in attached:
        made.add_attachment(attachment.Attachment(**one))
    assert made.is_valid()
    uuid.UUID(told["id"])
    return made


def resource_of(part: dict) -> resource.Resource:
    assert set(part) <= {"id", "typeURI", "name", "project_id", "host"}
    whence = host.Host(**part["host"]) if "host" in part else None
    made = resource.Resource(part["id"], part["typeURI"], part.get("name"), host=whence)
    assert made.is_valid()
    assert part["typeURI"] in cadftaxonomy.RESOURCE_TAXONOMY | {"unknown"}
    return made


@pytest.fixture
def whole(tmp_path):
    story = Story()
    for actor, action in everything(story):
        story.later(1000)
        story.submit(actor, action)
    return reading(story, tmp_path / "n.sqlite")


def test_every_request_there_can_be_is_valid_and_has_an_id_of_its_own(whole):
    requests = whole.audit_log(limit=100_000)

    told = [exported(whole, request) for request in requests]

    for record in told:
        validated(record)
    assert len({record["id"] for record in told}) == len(told) > 100
    assert {record["outcome"] for record in told} == {"success", "failure"}
    assert {record["eventType"] for record in told} == {"activity", "control"}
    assert all(record["reason"] for record in told if record["eventType"] == "control")
    assert told == [exported(whole, request) for request in requests], "the same each time"


def test_every_action_and_every_kind_has_a_word_of_cadfs():
    for action in action_types():
        word = ACTIONS[cadf._VERB.match(action)[0]]
        assert word.partition("/")[0] in {a.partition("/")[0] for a in cadftaxonomy.ACTION_TAXONOMY}
    assert set((KINDS | SERVICES).values()) <= set(cadftaxonomy.RESOURCE_TAXONOMY)


def test_every_kind_of_resource_is_known(whole):
    assert FACTS
    kinds = {e.resource_kind for e in whole.events(limit=100_000)} - {"", "operation"}
    assert kinds <= set(KINDS)


def test_a_request_is_pending_until_its_work_has_ended(tmp_path):
    story = a_small_story()
    record = story.submit(story.demo, DeleteServer(server_id=story.first))
    request_id = record.request.request_id
    reader = reading(story, tmp_path / "before.sqlite")
    (request,) = reader.audit_log(request_id=request_id)
    pending = exported(reader, request)
    story.later(60_000_000)
    story.report(record.verdict.reply["operation_id"])
    reader = reading(story, tmp_path / "after.sqlite")

    ended = exported(reader, request)

    for told in (pending, ended):
        validated(told)
        assert told["action"] == "delete"
        assert told["target"] == {
            "id": story.first,
            "typeURI": "compute/machine",
            "project_id": story.demo.project_id,
        }
        assert told["initiator"]["id"] == story.demo.user_id
        assert f"request?value={request_id}" in told["tags"]
    assert (pending["outcome"], ended["outcome"]) == ("pending", "success")
    assert pending["eventTime"] < ended["eventTime"]
    assert pending["id"] != ended["id"]
    digests = [told["attachments"][0]["content"] for told in (pending, ended)]
    assert digests[0] == digests[1]


def test_work_that_failed_is_a_failure_and_says_why(tmp_path):
    story = a_small_story()
    record = story.submit(story.demo, DeleteServer(server_id=story.first))
    story.report(record.verdict.reply["operation_id"], succeeded=False, cause="the disk is gone")
    reader = reading(story, tmp_path / "n.sqlite")
    (request,) = reader.audit_log(request_id=record.request.request_id)

    told = exported(reader, request)

    validated(told)
    assert told["outcome"] == "failure"
    assert (told["reason"]["reasonType"], told["reason"]["reasonCode"]) == (
        "operation",
        "the disk is gone",
    )
