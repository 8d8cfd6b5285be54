"""Meters that somebody defines: whatever is accepted can be folded."""

import re

import msgspec
import pytest
from msgspec.structs import replace

from schemas.billing import PriceRule, PublishPriceList
from schemas.envelope import decode_action
from schemas.metering import Condition, DefineMeter, DeleteMeter, MeterRule, Source
from tests.engine.domain.test_image import RULES
from tests.engine.world import World

OWNER = MeterRule(
    fact="compute.server.created.v1",
    effect="set",
    resource="server.server_id",
    project="server.project_id",
)
STARTED = MeterRule(fact="compute.server.started.v1", effect="add", resource="server_id")
BOOTS = DefineMeter(
    key="ops.boots",
    resource_kind="server",
    aggregation="count",
    unit="Boots",
    base_per_unit=1,
    rules=(OWNER, STARTED),
)
HOLDS = replace(
    BOOTS,
    key="ops.ports",
    aggregation="integral",
    rules=(replace(OWNER, effect="open"), replace(STARTED, effect="end")),
)


@pytest.fixture
def world():
    return World()


def test_a_meter_has_versions(world):
    assert world.ok(world.admin, BOOTS) == {"key": "ops.boots", "version": 1}
    assert world.ok(world.admin, BOOTS)["version"] == 1  # the same again is no other

    world.now += 1000
    other = replace(BOOTS, rules=(OWNER, replace(STARTED, at="observed_at")))
    assert world.ok(world.admin, other)["version"] == 2

    first, second = world.cell.state.meters["ops.boots"]
    assert (first.valid_from, first.valid_until) == (0, world.now)
    assert (second.valid_from, second.valid_until) == (world.now, None)


def test_a_deleted_meter_can_come_back(world):
    world.ok(world.admin, BOOTS)
    world.ok(world.admin, DeleteMeter(key="ops.boots"))
    ended = world.now
    assert world.refused(world.admin, DeleteMeter(key="ops.boots")).code == "NotFound"

    world.now += 1000
    assert world.ok(world.admin, BOOTS)["version"] == 2

    first, second = world.cell.state.meters["ops.boots"]
    assert (first.valid_until, second.valid_from) == (ended, world.now)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"key": "compute.boots"}, "Cumulog's"),
        ({"rules": (OWNER,)}, "no rule has the effect 'add'"),
        ({"rules": (replace(OWNER, project=""), STARTED)}, "whose"),
        ({"rules": (OWNER, replace(STARTED, fact="compute.server.vanished.v1"))}, "no such fact"),
        (
            {"rules": (OWNER, replace(STARTED, fact="identity.user.created.v1",
                                      resource="user.name"))},
            "no such fact",
        ),
        ({"rules": (OWNER, replace(STARTED, resource="server"))}, "rule 2 .* no field 'server'"),
        ({"rules": (OWNER, replace(STARTED, resource="boot"))}, "'boot' is a number, not a text"),
        ({"rules": (OWNER, replace(STARTED, at="server_id"))}, "is a text, not a number"),
        ({"rules": (OWNER, replace(STARTED, value=(Source(path="boot"),)))}, "has no value"),
        ({"rules": (OWNER, replace(STARTED, unique="server_id"))}, "unique_count"),
        ({"rules": (OWNER, replace(STARTED, effect="open"))}, "means nothing here"),
        (
            {"rules": (replace(OWNER, dimensions={"d": "server.user_data.ciphertext"}), STARTED)},
            "sealed",
        ),
        (
            {"rules": (OWNER, replace(STARTED, when=(Condition(path="boot", equals=True),)))},
            "'boot' is a number, not a truth",
        ),
        ({"aggregation": "sum"}, "a sum needs a value"),
        (
            {"aggregation": "sum", "rules": (OWNER, replace(STARTED, value=(Source(),)))},
            "either a constant",
        ),
        (
            {"aggregation": "sum",
             "rules": (OWNER, replace(STARTED, value=(Source(path="server_id"),)))},
            "'server_id' is a text",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_folded_is_refused(world, changed, why):
    refused = world.refused(world.admin, replace(BOOTS, **changed))

    assert refused.code == "InvalidInput"
    assert re.search(why, refused.reason), refused.reason


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rules": []}, "length"),
        ({"base_per_unit": 0}, ">= 1"),
        ({"key": "boots"}, "matching"),
        ({"key": "Ops.Boots"}, "matching"),
        ({"unit": "hours"}, "matching"),
        ({"aggregation": "guess"}, "enum"),
        ({"rules": [{"fact": "a.b", "effect": "add", "resource": "x", "wish": 1}]}, "unknown"),
        ({"rules": [{"fact": "a.b", "effect": "add", "resource": "x..y"}]}, "matching"),
        ({"rules": [{"fact": "a.b", "effect": "add", "resource": "x"}] * 65}, "length"),
    ],
)
def test_malformed_definitions_are_no_actions(fields, said):
    body = {**msgspec.to_builtins(BOOTS), **fields}

    with pytest.raises(msgspec.ValidationError, match=said):
        decode_action(msgspec.json.encode(body))


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": "Boots"},
        {"base_per_unit": 60},
        {"resource_kind": "host"},
        {"rules": HOLDS.rules},  # which lack a dimension
    ],
)
def test_what_was_measured_adds_up_over_versions(world, changed):
    opens = replace(HOLDS.rules[0], dimensions={"flavor": "server.flavor.name"})
    start = replace(HOLDS, unit="Hours", rules=(opens, *HOLDS.rules[1:]))
    world.ok(world.admin, start)

    assert "in all versions" in world.refused(world.admin, replace(start, **changed)).reason


def test_there_are_only_so_many(world):
    for number in range(100):
        world.ok(world.admin, replace(BOOTS, key=f"ops.m{number}"))

    assert world.refused(world.admin, replace(BOOTS, key="ops.one_more")).code == "Conflict"

    for number in range(1, 20):
        rule = replace(STARTED, value=(), at="observed_at" if number % 2 else "")
        world.ok(world.admin, replace(BOOTS, key="ops.m0", rules=(OWNER, rule)))
    refused = world.refused(world.admin, replace(BOOTS, key="ops.m0", description="again"))
    assert "20 versions" in refused.reason


def test_a_price_list_prices_meters_that_measure(world):
    own = PriceRule(sku="boots", meter="ops.boots", unit="Boots", price="1")
    listed = PublishPriceList(currency="EUR", rules=(*RULES, own))
    assert "no meter ops.boots" in world.refused(world.admin, listed).reason
    world.ok(world.admin, BOOTS)
    wrong = replace(listed, rules=(*RULES, replace(own, unit="Hours")))
    assert "measured in Boots" in world.refused(world.admin, wrong).reason

    world.ok(world.admin, listed)

    world.ok(world.admin, DeleteMeter(key="ops.boots"))
    assert "no meter ops.boots" in world.refused(world.admin, listed).reason
