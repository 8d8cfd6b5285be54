"""Recorded load under other rules: nothing differs without a change, and what does is told."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.fold import fold
from engine.domain.state import Cell, digest
from engine.rerun import Changed, Rerun, decode_full
from schemas.compute import CreateFlavor, RenameServer
from schemas.network import CreateNetwork, DeleteNetwork
from schemas.quota import SetQuota
from tests.engine.stories import a_story
from tests.engine.world import World
from tests.golden.build import golden_log


def rerun(messages, changed=None, *, cell=None):
    found = Rerun(cell or Cell(), changed or Changed())
    for data in messages:
        commit = decode_full(data)
        ordinal = commit.first
        for record in commit.records:
            found.take(record, ordinal, commit.at)
            ordinal += 1 + len(record.facts)
    return found


def test_without_a_change_everything_there_is_is_decided_the_same():
    messages = golden_log()

    found = rerun(messages)

    assert found.compared.differences == []
    assert found.compared.reports == 0
    assert found.compared.requests > 100
    assert digest(found.cell) == digest(fold(messages))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_without_a_change_any_story_is_decided_the_same(seed):
    world = a_story(seed, 80)

    found = rerun(world.messages)

    assert (found.compared.differences, found.compared.reports) == ([], 0)
    assert digest(found.cell) == digest(world.cell)
    assert found.compared.ordinal == world.cell.state.ordinal


def a_world_with_networks():
    """Three networks, one of which was renamed and one deleted, by a project without quotas."""
    world = World(3)
    world.without_quotas()
    member = world.member("m")
    ids = [world.ok(member, CreateNetwork(name=f"n{i}"))["network_id"] for i in range(3)]
    world.ok(member, DeleteNetwork(network_id=ids[2]))
    world.ok(member, CreateNetwork(name="n4"))
    return world, member


def whats(found):
    return [(one.what, one.action) for one in found.compared.differences]


def test_a_lower_quota_refuses_what_is_over_it_and_what_follows_from_that():
    """What was refused is not held: after a deletion that never was, there is no more room."""
    world, member = a_world_with_networks()

    found = rerun(world.messages, Changed(quota={"networks": 2}, project=member.project_id))

    assert whats(found) == [
        ("refused", "CreateNetwork"),  # the third
        ("followed", "DeleteNetwork"),  # of the third
        ("refused", "CreateNetwork"),
    ]
    assert found.compared.differences[0].would.code == "OverQuota"
    assert (found.compared.refused, found.compared.followed) == (2, 1)
    held = [n for n in found.cell.state.networks.values() if n.project_id == member.project_id]
    assert len(held) == 2


def test_of_a_class_quota_every_project_that_has_none_of_its_own():
    world, member = a_world_with_networks()
    other = world.member("other")
    world.ok(world.admin, SetQuota(project_id=other.project_id, limits={"networks": 9}))
    for i in range(3):
        world.ok(other, CreateNetwork(name=f"o{i}"))

    found = rerun(world.messages, Changed(quota={"networks": 2}))

    assert {one.project_id for one in found.compared.differences} == {member.project_id}


def test_a_higher_quota_allows_what_was_refused():
    world = World(4)
    member = world.member("m")
    world.ok(world.admin, SetQuota(project_id=member.project_id, limits={"networks": 1}))
    world.ok(member, CreateNetwork(name="a"))
    world.refused(member, CreateNetwork(name="b"))

    changed = Changed(quota={"networks": 5}, project=member.project_id)
    found = rerun(world.messages, changed)

    assert whats(found) == [("allowed", "CreateNetwork")]
    assert found.compared.differences[0].was.code == "OverQuota"
    names = {n.name for n in found.cell.state.networks.values()}
    assert names == {"a", "b"}


def test_another_policy_refuses_and_allows():
    world, member = a_world_with_networks()
    world.refused(member, CreateFlavor(name="own", vcpus=1, memory_mib=64, disk_gib=1))
    rules = {"CreateNetwork": ("admin in cloud",), "CreateFlavor": ("member in project",)}

    found = rerun(world.messages, Changed(rules=rules))

    assert whats(found) == [
        *[("refused", "CreateNetwork")] * 3,
        ("followed", "DeleteNetwork"),
        ("refused", "CreateNetwork"),
        ("allowed", "CreateFlavor"),
    ]
    assert found.compared.differences[0].would.code == "Forbidden"
    assert found.compared.differences[-1].was.code == "Forbidden"


@pytest.mark.parametrize("order", ["spread", None])
def test_the_order_that_is_there_already_changes_nothing(order):
    found = rerun(a_world_with_two_hosts().messages, Changed(order=order))

    assert whats(found) == []


def test_the_order_of_hosts_decides_where_servers_go():
    """Packed, both are on the first host; what is asked of the one that moved finds it there."""
    found = rerun(a_world_with_two_hosts().messages, Changed(order="pack"))

    (moved,) = found.compared.differences
    assert (moved.what, moved.was.hosts, moved.would.hosts) == (
        "elsewhere",
        ("host-2",),
        ("host-1",),
    )
    names = {s.name: s.host_id for s in found.cell.state.servers.values()}
    assert names == {"s0": "host-1", "new": "host-1"}
    assert found.compared.reports == 1  # of the agent of a host that does not have it


def a_world_with_two_hosts():
    """Two servers on two hosts; the second was renamed."""
    world = World(5)
    world.without_quotas()
    for name in ("host-1", "host-2"):
        world.host(name)
    world.flavor()
    world.image()
    member = world.member("m")
    world.network(member)
    servers = [world.server(member, name=f"s{i}") for i in range(2)]
    world.ok(member, RenameServer(server_id=servers[1], name="new"))
    return world


def test_from_a_moment_on_only_what_came_later_is_decided_anew():
    world, member = a_world_with_networks()
    before = len(world.messages) - 2
    cell = fold(world.messages[:before])

    found = rerun(
        world.messages[before:],
        Changed(quota={"networks": 0}, project=member.project_id),
        cell=cell,
    )

    assert whats(found) == [("refused", "CreateNetwork")]
    assert found.compared.requests == 2
