"""Claimed and recorded time, ids that are somebody else's, and what repetitions are told."""

import random

import msgspec
import pytest

from engine.clocks import AHEAD_MAX, BEHIND_MAX, OBSERVATIONS, need_recent
from engine.decider import repeated, stamped
from engine.domain.fold import ANSWERED_FOR, fold
from engine.domain.state import digest
from projections.metering import Meters
from schemas.compute import RebootServer, ReportServerState, ServerStarted, StartServer, StopServer
from schemas.envelope import Request, decode_commit
from schemas.errors import KeyReused, TooOld
from schemas.host import DriftFound, ReportDrift
from schemas.network import CreateNetwork
from schemas.operation import OperationStarted, PassDeadline, ReportOperation
from schemas.units import HOUR, MINUTE, SECOND
from tests.engine.world import SYSTEM, World


@pytest.fixture
def world():
    world = World()
    world.host()
    return world


def started(record):
    return next(fact for fact in record.facts if isinstance(fact, ServerStarted))


def building(world):
    """Return the operation of a server that is being built."""
    world.server(world.admin, build=False)
    (operation,) = world.cell.state.operations.values()
    return operation


def test_observations_are_what_agents_report():
    assert {ReportOperation, ReportServerState, ReportDrift} == OBSERVATIONS


@pytest.mark.parametrize("ahead", [AHEAD_MAX + 1001, 20 * HOUR])
def test_a_report_from_the_future_is_refused_on_the_record(world, ahead):
    operation = building(world)

    record = world.report(operation.operation_id, observed_at=world.now + ahead)

    verdict = record.verdict
    assert (verdict.code, verdict.status) == ("ClockAhead", 400)
    assert str(world.now) in verdict.reason
    assert verdict.fields["skew_s"] == (ahead - 1000) // SECOND
    assert operation.operation_id in world.cell.state.operations


def test_a_report_a_little_ahead_counts_as_now(world):
    operation = building(world)

    record = world.report(operation.operation_id, observed_at=world.now + AHEAD_MAX)

    assert started(record).observed_at == world.now
    assert record.verdict.reply == {}


def test_a_late_report_is_taken_and_flagged(world):
    operation = building(world)
    world.now += BEHIND_MAX + MINUTE

    record = world.report(operation.operation_id, observed_at=world.now - BEHIND_MAX - SECOND)

    assert record.verdict.reply == {"observed_s_ago": (BEHIND_MAX + SECOND + 1000) // SECOND}
    assert started(record).observed_at == world.now - 1000 - BEHIND_MAX - SECOND


def test_a_report_of_drift_is_held_to_the_same_bounds(world):
    drift = (DriftFound(kind="tap", name="t", found="there", done="removed"),)
    ahead = ReportDrift(drift=drift, observed_at=world.now + HOUR)
    behind = ReportDrift(drift=drift, observed_at=world.now - HOUR)

    assert world.refused(world.agent(), ahead).code == "ClockAhead"
    assert world.ok(world.agent(), behind)["observed_s_ago"] == HOUR // SECOND


def test_a_request_from_the_future_is_refused(world):
    ahead = world.now + AHEAD_MAX + MINUTE

    assert world.refused(world.admin, CreateNetwork(name="n"), submitted_at=ahead).code == (
        "ClockAhead"
    )
    world.ok(world.admin, CreateNetwork(name="n"), submitted_at=world.now + AHEAD_MAX)


def request(world, actor=None, **fields):
    values = {"action": CreateNetwork(name="n"), "submitted_at": world.now, **fields}
    values.setdefault("request_id", f"req-{world.new_id()}")
    return stamped(Request(actor=actor or world.admin, **values))


def test_a_persons_request_older_than_answers_are_remembered_is_refused(world):
    need_recent(request(world, submitted_at=world.now - ANSWERED_FOR), world.now)

    with pytest.raises(TooOld, match="remembered for 120 s"):
        need_recent(request(world, submitted_at=world.now - ANSWERED_FOR - 1), world.now)


def test_an_agents_report_may_be_as_old_as_it_is(world):
    report = ReportOperation(operation_id="o", generation=1, succeeded=True, observed_at=0)

    need_recent(request(world, world.agent(), action=report, submitted_at=0), world.now)


@pytest.mark.parametrize("seed", range(30))
def test_no_interval_leaves_the_span_between_acceptance_and_commit(seed):
    """Whatever agents claim, by whatever clock."""
    world = World(seed)
    dice = random.Random(seed)
    world.host()
    servers = [world.server(world.admin, build=False) for _ in range(3)]
    for _ in range(80):
        world.now += dice.randrange(HOUR)
        claimed = max(0, world.now + dice.randrange(-100 * HOUR, HOUR))
        state = world.cell.state
        server = state.servers[dice.choice(servers)]
        match dice.randrange(5):
            case 0 | 1 if state.operations:
                operation = dice.choice(sorted(state.operations))
                world.report(
                    operation,
                    succeeded=dice.random() < 0.9,
                    running=dice.random() < 0.5,
                    observed_at=claimed,
                )
            case 2:
                action = ReportServerState(
                    server_id=server.server_id,
                    boot=server.boot,
                    running=dice.random() < 0.3,
                    observed_at=claimed,
                )
                world.submit(world.agent(), action)
            case 3:
                action = dice.choice([StartServer, StopServer, RebootServer])
                world.submit(world.admin, action(server_id=server.server_id))
            case 4 if state.operations:
                operation = state.operations[dice.choice(sorted(state.operations))]
                world.now = max(world.now, operation.deadline)
                world.submit(
                    SYSTEM, PassDeadline(operation_id=operation.operation_id, generation=1)
                )

    facts, accepted = _facts(world)
    meters = Meters()
    for ordinal, at, fact in facts:
        meters.apply(ordinal, at, fact)
    at_of = {ordinal: at for ordinal, at, _ in facts}
    intervals = meters.intervals()
    assert intervals
    for interval in intervals:
        earliest = accepted[interval.resource_id]
        assert earliest <= interval.start <= at_of[interval.first_ordinal]
        if interval.end is not None:
            assert interval.start <= interval.end <= at_of[interval.last_ordinal]


def _facts(world):
    """Return (ordinal, at, fact) of all, and when each resource's first operation was accepted."""
    facts, accepted = [], {}
    for message in world.messages:
        commit = decode_commit(message)
        ordinal = commit.first
        for record in commit.records:
            for fact in record.facts:
                ordinal += 1
                facts.append((ordinal, commit.at, fact))
                if isinstance(fact, OperationStarted):
                    accepted.setdefault(fact.operation.resource_id, fact.operation.accepted_at)
            ordinal += 1
    return facts, accepted


# Ids


def test_an_id_with_other_content_is_refused_and_the_first_answer_stays(world):
    first = world.ok(world.admin, CreateNetwork(name="n"), request_id="req-1")
    repetition = request(world, request_id="req-1")

    refusal = world.refused(world.admin, CreateNetwork(name="other"), request_id="req-1")

    assert (refusal.code, refusal.status) == ("IdReused", 409)
    assert refusal.fields["ordinal"] == repeated(world.cell, repetition).ordinal
    assert repeated(world.cell, repetition).verdict.reply == first
    assert len(world.cell.state.networks) == 1


def test_an_id_of_somebody_else_does_not_get_the_answer(world):
    other = world.member("other")
    world.ok(world.admin, CreateNetwork(name="n"), request_id="req-1")

    assert repeated(world.cell, request(world, other, request_id="req-1")) is None
    assert world.refused(other, CreateNetwork(name="n"), request_id="req-1").code == "IdReused"


def test_a_refused_id_leaves_no_trace_in_what_keys_are_answered(world):
    world.ok(world.admin, CreateNetwork(name="n"), request_id="req-1")
    world.refused(world.admin, CreateNetwork(name="m"), request_id="req-1", key="k", digest="d")

    assert repeated(world.cell, request(world, key="k", digest="d")) is None
    assert digest(fold(world.messages)) == digest(world.cell)


def test_content_is_the_action_and_on_whose_behalf_it_is(world):
    one = request(world)

    assert len(one.digest) == 64
    assert one.digest == request(world, submitted_at=world.now + 1).digest
    assert one.digest != request(world, action=CreateNetwork(name="m")).digest
    for change in ({"user_id": "u"}, {"project_id": "p"}, {"host_id": "h"}):
        actor = msgspec.structs.replace(world.admin, **change)
        assert one.digest != request(world, actor).digest
    assert one.digest == request(world, msgspec.structs.replace(world.admin, audit_id="a")).digest


def test_only_under_a_key_does_a_given_digest_count(world):
    assert request(world, digest="d").digest == request(world).digest
    assert request(world, digest="d", key="k").digest == "d"
    assert request(world, key="k").digest == request(world).digest


def test_a_key_with_another_body_is_refused_as_before(world):
    world.ok(world.admin, CreateNetwork(name="n"), key="k", digest="d")

    with pytest.raises(KeyReused):
        repeated(world.cell, request(world, key="k", digest="e"))
