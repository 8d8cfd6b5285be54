"""A dry run says what the request would do, and does nothing."""

import json
import re
from collections import Counter

import pytest

from engine.domain.index import index_of
from engine.domain.quota import limit_of
from engine.domain.state import digest
from engine.domain.usage import COUNTED, project_usage
from engine.dry_run import dry_run
from schemas import compute as c
from schemas.envelope import Accepted, Request, action_types, encode, fact_types
from tests.engine.history import everything
from tests.engine.world import World

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}")
MAC = re.compile(r"fa:16:3e:[0-9a-f:]{8}")
TIME = re.compile(r"\b17\d{14}\b")


def tried(world, actor, action):
    request = Request(
        request_id=f"req-{world.new_id()}", actor=actor, action=action, submitted_at=world.now
    )
    return dry_run(world.cell, request, now=world.now, new_id=world.new_id)


def told(facts, known):
    """Return facts without the ids that nobody knew before, MACs and times."""

    def number(match):
        return match[0] if match[0] in known else fresh.setdefault(match[0], f"id-{len(fresh)}")

    fresh: dict[str, str] = {}
    text = UUID.sub(number, encode(facts).decode())
    return json.loads(TIME.sub("0", MAC.sub("mac", re.sub(r"req-id-\d+", "req", text))))


def test_what_is_shown_is_what_is_done_and_nothing_is_done_by_showing():
    """For every action there is, accepted and refused, system's and agents' included."""
    world = World()
    state = world.cell.state
    seen: Counter[str] = Counter()
    for actor, action in everything(world):
        before = digest(world.cell)
        known = set(UUID.findall(encode(world.cell.state).decode()))
        commits = len(world.messages)
        limits = {name: limit_of(state, actor.project_id, name) for name in COUNTED}

        shown = tried(world, actor, action)

        assert (digest(world.cell), len(world.messages)) == (before, commits)
        assert world.cell.index == index_of(world.cell.state)
        record = world.submit(actor, action)
        assert told(shown.facts, known) == told(record.facts, known)
        assert shown.verdict.__class__ is record.verdict.__class__
        if not isinstance(record.verdict, Accepted):
            assert shown.verdict.code == record.verdict.code
        held = project_usage(world.cell, actor.project_id, actor.user_id)
        assert {name: use.used for name, use in shown.quota_after.items()} == held
        assert {name: use.limit for name, use in shown.quota_after.items()} == limits
        seen[type(action).__name__] += 1

    assert set(seen) == set(action_types())


def test_the_history_has_every_fact():
    world = World()
    for actor, action in everything(world):
        world.submit(actor, action)
    log = b"".join(world.messages).decode()

    assert [tag for tag in fact_types() if f'"{tag}"' not in log] == []


@pytest.fixture
def world():
    world = World()
    world.host()
    return world


def test_a_refusal_is_shown_with_its_reason(world):
    shown = tried(world, world.admin, c.DeleteServer(server_id="none"))

    assert (shown.verdict.code, shown.facts) == ("NotFound", ())
    assert shown.reasons == (shown.verdict.reason,)


def test_somebody_who_is_gone_is_told_so(world):
    gone = world.member("gone")
    nobody = type(gone)(kind="user", user_id="nobody")

    assert tried(world, nobody, c.DeleteServer(server_id="none")).verdict.code == "Unauthorized"


def test_placement_says_who_was_chosen_and_who_was_not(world):
    world.host("host-2", vcpus=1)
    world.host("host-3", memory=4096)
    flavor, image = world.flavor(vcpus=2), world.image()
    create = c.CreateServer(name="web", flavor_id=flavor, image_id=image)

    shown = tried(world, world.admin, create)

    assert shown.reasons == (
        "host host-1 is chosen: it weighs most, 0.984",
        "host host-3 weighs 0.968",
        "host host-2 is left out by room: 1 vCPU too few (2 asked, 1 of 1 free)",
    )


def test_a_server_that_fits_nowhere_says_why(world):
    world.without_quotas()
    flavor, image = world.flavor(vcpus=99), world.image()

    shown = tried(world, world.admin, c.CreateServer(name="web", flavor_id=flavor, image_id=image))

    assert "No valid host was found" in shown.reasons[0]
    assert any("host-1 is left out by room" in reason for reason in shown.reasons)
