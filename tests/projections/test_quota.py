"""What is read of quotas is what the decider knows, whatever came in one batch."""

import pytest

from engine.domain.quota import DEFAULTS, limit_of
from engine.domain.usage import COUNTED, project_usage
from projections.reader import Reader
from schemas.compute import CreateKeypair
from schemas.identity import DeleteProject, DeleteUser
from schemas.quota import ResetQuota, SetQuota, SetQuotaClass
from tests.engine.stories import Story as RandomStory
from tests.projections.story import OPENED, Story, projected, reading


@pytest.mark.parametrize(("seed", "batch"), [(1, 1), (2, 7), (3, 1000)])
def test_every_count_and_limit_is_the_deciders(tmp_path, seed, batch):
    world = Story(seed)
    story = RandomStory(world, seed)
    story.begin()
    story.play(200)
    state, usage = world.cell.state, world.cell.index.usage

    projected(world, tmp_path / "m.sqlite", batch).db.close()
    reader = Reader(tmp_path / "m.sqlite")
    OPENED.append(reader)

    assert usage
    for owner in {*state.projects, *state.users, *usage}:
        held = project_usage(world.cell, owner, owner)
        assert reader.quota_use(owner, owner) == held
    for project_id in state.projects:
        limits = {name: limit_of(state, project_id, name) for name in DEFAULTS}
        assert reader.quota_limits(project_id) == limits
    kept = reader.db().execute("SELECT count(*) FROM usage").fetchone()
    assert kept == (len(usage),)


def test_limits_are_read_as_they_were_set(tmp_path):
    story = Story()
    demo, other = story.member("demo"), story.member("other")
    story.ok(story.admin, SetQuotaClass(limits={"servers": 3, "ports": 4}))
    story.ok(story.admin, SetQuota(project_id=demo.project_id, limits={"ports": 5, "images": -1}))
    story.ok(story.admin, SetQuota(project_id=other.project_id, limits={"ports": 6}))
    story.ok(story.admin, ResetQuota(project_id=demo.project_id, names=("images",)))
    story.ok(story.admin, ResetQuota(project_id=other.project_id))

    reader = reading(story, tmp_path / "m.sqlite")

    limits = reader.quota_limits(demo.project_id)
    assert (limits["servers"], limits["ports"]) == (3, 5)
    assert limits["images"] == DEFAULTS["images"]
    assert reader.quota_limits(other.project_id)["ports"] == 4
    assert reader.quota_defaults()["ports"] == 4
    assert reader.quota_owners() == [demo.project_id]
    assert reader.quota_owners(other.project_id) == []
    (project,) = reader.quota_projects(demo.project_id)
    assert project.name == "demo"


def test_who_is_gone_leaves_neither_limits_nor_counts(tmp_path):
    story = Story()
    gone = story.member("gone")
    story.ok(gone, CreateKeypair(name="k", public_key="ssh-ed25519 AAAA"))
    story.ok(story.admin, SetQuota(project_id=gone.project_id, limits={"ports": 5}))
    story.ok(story.admin, DeleteUser(user_id=gone.user_id))
    story.ok(story.admin, DeleteProject(project_id=gone.project_id))

    reader = reading(story, tmp_path / "m.sqlite")

    assert reader.quota_owners() == []
    assert reader.quota_use(gone.project_id, gone.user_id) == dict.fromkeys(COUNTED, 0)
    rows = reader.db().execute("SELECT id FROM usage").fetchall()
    assert rows == [(story.admin.project_id,)]
