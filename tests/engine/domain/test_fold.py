"""Equal logs give equal states, and a repeated request gets its old answer."""

import random

import msgspec
import pytest

from engine.decider import repeated
from engine.domain.fold import ANSWERED_FOR, KEYED_FOR, UnknownFact, decode_for_fold, fold
from engine.domain.state import digest
from schemas.compute import DeleteServer, RebootServer, StartServer, StopServer
from schemas.envelope import Request
from schemas.errors import KeyReused
from schemas.identity import CreateProject
from schemas.network import CreateNetwork
from tests.engine.world import World


def a_random_history(seed: int) -> World:
    """Return a world after a few dozen random requests and reports."""
    world = World(seed)
    dice = random.Random(seed)
    world.host()
    world.flavor()
    world.image()
    members = [world.member(f"m{n}") for n in range(2)]
    for member in members:
        world.network(member)
    for _ in range(60):
        member = dice.choice(members)
        servers = list(world.cell.state.servers)
        operations = list(world.cell.state.operations)
        match dice.randrange(4):
            case 0 if len(servers) < 7:
                world.server(member, build=dice.random() < 0.5)
            case 1 | 2 if servers:
                action = dice.choice([StartServer, StopServer, RebootServer, DeleteServer])
                world.submit(member, action(server_id=dice.choice(servers)))
            case 3 if operations:
                world.report(dice.choice(operations), succeeded=dice.random() < 0.8)
    return world


@pytest.mark.parametrize("seed", range(20))
def test_folding_the_log_again_gives_the_same_state(seed):
    world = a_random_history(seed)

    again = fold(world.messages)

    assert digest(again) == digest(world.cell)
    assert again.index.host_usage == world.cell.index.host_usage
    assert again.index.subnet_used == world.cell.index.subnet_used


@pytest.mark.parametrize("seed", range(20))
def test_no_room_is_held_twice_and_every_operation_has_a_server(seed):
    world = a_random_history(seed)
    state = world.cell.state

    held = world.cell.index.host_usage["host-1"]

    placed = [s for s in state.servers.values() if s.host_id]
    assert held.vcpus == sum(s.flavor.vcpus for s in placed)
    assert held.memory_mib == sum(s.flavor.memory_mib for s in placed)
    for operation in state.operations.values():
        assert state.servers[operation.resource_id].operation_id == operation.operation_id
    for server in placed:
        assert (server.task_state is None) == (server.operation_id not in state.operations)


def test_an_unknown_fact_stops_the_fold():
    world = World()
    world.flavor()
    (record,) = msgspec.json.decode(world.messages[0])["records"]
    known = fold(world.messages).state.ordinal
    world.host()
    world.messages[-1] = world.messages[-1].replace(
        b"host.host.registered.v1", b"host.host.registered.v9"
    )

    with pytest.raises(UnknownFact) as stopped:
        fold(world.messages)

    assert len(record["facts"]) > 1
    assert (stopped.value.ordinal, stopped.value.tag) == (known + 2, "host.host.registered.v9")
    assert f"ordinal {known + 2}" in str(stopped.value)
    assert "newer version" in str(stopped.value)


def test_a_second_record_s_unknown_fact_is_named_by_its_own_ordinal():
    world = World()
    world.flavor()
    commits = [msgspec.json.decode(message) for message in world.messages]
    records = [record for commit in commits for record in commit["records"]]
    records[-1]["facts"][0]["type"] = "compute.flavor.created.v9"
    data = msgspec.json.encode({**commits[0], "records": records})

    with pytest.raises(UnknownFact) as stopped:
        decode_for_fold(data)

    assert stopped.value.ordinal == 1 + len(records[0]["facts"]) + 2


def test_a_malformed_fact_is_told_from_an_unknown_one():
    world = World()
    world.flavor()
    world.messages[-1] = world.messages[-1].replace(b'"vcpus":1', b'"vcpus":"x"')

    with pytest.raises(msgspec.ValidationError, match="vcpus") as stopped:
        fold(world.messages)

    assert not isinstance(stopped.value, UnknownFact)
    assert "begins at ordinal" in stopped.value.__notes__[0]


def test_a_missing_commit_stops_the_fold():
    world = World()
    world.host()
    world.flavor()

    with pytest.raises(ValueError, match="expected"):
        fold([world.messages[0], world.messages[2]])


def request(world, key, digest_of="d", action=None):
    return Request(
        request_id=f"req-{world.new_id()}",
        actor=world.admin,
        action=action or CreateNetwork(name="n"),
        submitted_at=world.now,
        key=key,
        digest=digest_of,
    )


def test_the_same_key_gets_the_same_answer():
    world = World()
    reply = world.ok(world.admin, CreateNetwork(name="n"), key="k1", digest="d")

    answered = repeated(world.cell, request(world, "k1"))

    assert answered.verdict.reply == reply


def test_the_same_key_with_another_body_is_refused():
    world = World()
    world.ok(world.admin, CreateNetwork(name="n"), key="k1", digest="d")

    with pytest.raises(KeyReused):
        repeated(world.cell, request(world, "k1", digest_of="e"))


def test_answers_are_forgotten_in_time():
    world = World()
    world.ok(world.admin, CreateNetwork(name="n"), key="k1", digest="d", request_id="req-1")
    world.now += ANSWERED_FOR + 1
    world.ok(world.admin, CreateProject(name="p1"))
    assert "req-1" not in world.cell.state.answered
    assert repeated(world.cell, request(world, "k1")) is not None

    world.now += KEYED_FOR + 1
    world.ok(world.admin, CreateProject(name="p2"))
    assert repeated(world.cell, request(world, "k1")) is None
