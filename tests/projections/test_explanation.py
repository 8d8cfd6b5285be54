"""Each field of a resource is put down to the fact that set it, and to whoever wanted that."""

import msgspec
import pytest

from projections import (
    catalog,
    compute,
    credential,
    federation,
    host,
    identity,
    image,
    models,
    network,
    policy,
    quota,
    webhook,
)
from projections.explanation import fields_of
from projections.identity import CHANGED
from projections.operation import OPERATIONS
from projections.store import Table
from schemas.compute import RenameServer, ServerRenamed, StopServer
from schemas.quota import SetQuota
from tests.engine.history import everything
from tests.projections.story import Story, a_small_story, reading


@pytest.fixture
def whole(tmp_path):
    """A reader of a history with every fact there is."""
    story = Story()
    for actor, action in everything(story):
        story.later(1000)
        story.submit(actor, action)
    return reading(story, tmp_path / "n.sqlite")


# Whose rows facts about other things never touch; invoices, say, are made by the end of a month.
ALONE = {
    value.name
    for area in (
        *(catalog, compute, credential, federation, host, identity, image, network),
        *(policy, quota, webhook),
    )
    for value in vars(area).values()
    if isinstance(value, Table)
}


def facts_of(reader):
    return [e for e in reader.events(limit=100_000) if e.kind == "fact"]


def test_all_that_is_there_is_explained_and_nothing_else(whole):
    """Whatever the read model holds, folding the facts about it alone gives it again."""
    told = {
        (row.table, row.key): row
        for resource_id in sorted({e.resource_id for e in facts_of(whole)})
        for row in whole.explained(resource_id)
    }
    whole_text = msgspec.json.encode(list(told.values()))
    assert b"key_id" in whole_text, "of what is sealed the key is told"
    assert b"ciphertext" not in whole_text
    there = 0
    for table in models.TABLES:
        if table in {CHANGED, OPERATIONS} or table.name == "usage":
            continue
        for (body,) in whole.db().execute(f"SELECT body FROM {table.name}"):
            resource = table.decode(body)
            key = table.key_of(table.values(resource))
            row = told.pop((table.name, (key,) if isinstance(key, str) else key), None)
            if table.name not in ALONE and row is None:
                continue
            assert {f.field: f.value for f in row.fields} == fields_of(resource)
            assert not row.gone
            if table.name in ALONE:
                assert all(f.set_by is not None for f in row.fields), row
            there += 1
    assert there > 20
    assert told, "what is gone is told, too"
    for row in told.values():
        assert row.gone or row.table not in ALONE, row
    with_others = {row.table for row in told.values() if row.gone and row.gone_by is None}
    assert with_others == {"federated_users", "grants"}


def test_no_part_of_a_story_breaks_the_rest(whole):
    """Each project gets what is its own explained, and of the rest nothing."""
    facts = facts_of(whole)
    for project_id in {e.project_id for e in facts}:
        for resource_id in {e.resource_id for e in facts if e.project_id == project_id}:
            mine = {e.ordinal for e in facts if e.project_id == project_id}
            for row in whole.explained(resource_id, project_id=project_id):
                assert {f.set_by.ordinal for f in row.fields if f.set_by} <= mine


def test_a_field_is_put_down_to_the_last_fact_that_set_it_and_to_its_person(tmp_path):
    story = a_small_story()
    renamed = story.submit(story.demo, RenameServer(server_id=story.first, name="now"))
    stopped = story.submit(story.demo, StopServer(server_id=story.first))
    story.report(stopped.verdict.reply["operation_id"])
    reader = reading(story, tmp_path / "n.sqlite")

    (server,) = reader.explained(story.first)

    by = {f.field: f for f in server.fields}
    assert (by["name"].value, by["name"].set_by.tag) == ("now", "compute.server.renamed.v1")
    assert by["name"].set_by.request_id == renamed.request.request_id
    assert by["name"].set_by.user_id == story.demo.user_id
    off = by["status"]
    assert (off.value, off.set_by.tag) == ("SHUTOFF", "compute.server.stopped.v1")
    # An agent reported it, and a person had asked for it.
    assert off.set_by.cause == stopped.request.request_id
    assert off.set_by.request_id != stopped.request.request_id
    assert off.set_by.user_id == story.demo.user_id
    assert by["flavor.vcpus"].set_by.tag == "compute.server.created.v1"
    assert by["created_at"].set_by.ordinal < by["name"].set_by.ordinal


def test_what_goes_wrong_in_the_fold_is_told_and_not_taken_for_a_gap(tmp_path, monkeypatch):
    """Only that a row is not there says that a fact rests on facts about something else."""
    story = a_small_story()
    story.submit(story.demo, RenameServer(server_id=story.first, name="now"))
    reader = reading(story, tmp_path / "n.sqlite")

    def broken(*_):
        raise AssertionError("a fault")

    monkeypatch.setitem(models.APPLY, ServerRenamed, broken)
    with pytest.raises(AssertionError, match="a fault"):
        reader.explained(story.first)


def test_what_is_gone_is_as_it_was_and_says_who_removed_it(tmp_path):
    story = a_small_story()
    story.delete(story.demo, story.first)
    port = story.cell.state.servers  # the server's ports went with it
    assert story.first not in port
    reader = reading(story, tmp_path / "n.sqlite")
    deleted = next(e for e in reader.events(limit=10_000) if e.tag == "network.port.deleted.v1")

    (row,) = reader.explained(deleted.resource_id)

    assert row.gone_by.tag == "network.port.deleted.v1"
    assert {f.field for f in row.fields} >= {"port_id", "mac_address"}
    # A deleted server keeps its row, which says so.
    (server,) = reader.explained(story.first)
    state = next(f for f in server.fields if f.field == "vm_state")
    assert (state.value, state.set_by.tag) == ("deleted", "compute.server.deleted.v1")


def test_limits_are_explained_one_by_one(tmp_path):
    story = a_small_story()
    project = story.demo.project_id
    first = story.submit(story.admin, SetQuota(project_id=project, limits={"vcpus": 5}))
    second = story.submit(story.admin, SetQuota(project_id=project, limits={"servers": 7}))
    reader = reading(story, tmp_path / "n.sqlite")

    rows = {row.table: row for row in reader.explained(project)}

    by = {f.field.rpartition(".")[2]: f for f in rows["quotas"].fields}
    assert (by["vcpus"].value, by["servers"].value) == (5, 7)
    assert by["vcpus"].set_by.request_id == first.request.request_id
    assert by["servers"].set_by.request_id == second.request.request_id
    assert "projects" in rows
