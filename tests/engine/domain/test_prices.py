"""A price list is taken only if whatever could ever be used has one price."""

import itertools
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.billing.prices import matches, need_one_rule_each
from schemas.billing import (
    CreateCustomer,
    Match,
    PriceRule,
    PublishPriceList,
    Tier,
    WithdrawPriceList,
)
from schemas.errors import InvalidInput
from schemas.units import SECOND
from tests.engine.world import World

UNITS = {
    "compute.vcpu": "Core-Hours",
    "compute.memory": "GiB-Hours",
    "compute.disk": "GiB-Hours",
    "image.size": "GiB-Hours",
}


@pytest.fixture(scope="module")
def world():
    return World()


def a_rule(meter="compute.vcpu", **fields):
    unit = UNITS.get(meter, "Hours")
    return PriceRule(**{"sku": meter, "meter": meter, "unit": unit, "price": "0.01", **fields})


REST = tuple(a_rule(meter) for meter in UNITS if meter != "compute.vcpu")
TIERS = (Tier(up_to="10", price="0.02"), Tier(price="0.01"))


def a_list(*rules, **fields):
    return PublishPriceList(**{"currency": "EUR", "rules": (*rules, *REST), **fields})


@pytest.mark.parametrize(
    "rules",
    [
        (a_rule(model="graduated", price=None, tiers=TIERS),),
        (a_rule(model="volume", price=None, tiers=TIERS),),
        (a_rule(model="flat", price="5"),),
        (a_rule(included="100", minimum="5", maximum="5", per=1000),),
        (
            a_rule(sku="small", match={"flavor": Match(any_of=("small", "tiny"))}),
            a_rule(sku="other", match={"flavor": Match(all_except=("small", "tiny"))}),
        ),
    ],
)
def test_a_list_that_prices_everything_once_is_taken(world, rules):
    world.ok(world.admin, a_list(*rules))


SMALL, NOT_SMALL = Match(any_of=("small",)), Match(all_except=("small",))


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ((), "no rule matches the meter(s) compute.vcpu"),
        ((a_rule(), a_rule(sku="again")), "two rules match the meter compute.vcpu"),
        ((a_rule(match={"flavor": SMALL}),), "no rule matches compute.vcpu with flavor any other"),
        (
            (a_rule(match={"flavor": SMALL}), a_rule(sku="any")),
            "two rules match compute.vcpu with flavor 'small'",
        ),
        ((a_rule(match={"color": SMALL}),), "compute.vcpu has no dimension 'color'"),
        ((a_rule("image.colors"),), "there is no meter image.colors"),
        ((a_rule(sku="image.size"),), "two rules have the sku"),
        ((a_rule(unit="GiB-Hours"),), "measured in Core-Hours"),
        ((a_rule(price=None),), "has a price and no tiers"),
        ((a_rule(tiers=TIERS),), "has a price and no tiers"),
        ((a_rule(model="graduated", tiers=TIERS),), "has tiers and no price"),
        ((a_rule(model="volume", price=None),), "has tiers and no price"),
        (
            (a_rule(model="volume", price=None, tiers=TIERS, included="1"),),
            "nothing is included",
        ),
        ((a_rule(model="flat", minimum="1"),), "a flat price has no minimum"),
        ((a_rule(minimum="2", maximum="1"),), "the minimum is above the maximum"),
        ((a_rule(sku="x", price="1000000001"),), "rule x: no price is above"),
        ((a_rule(included="9" * 17),), "no quantity is above"),
        ((a_rule(match={"flavor": Match()}),), "any_of or all_except"),
        (
            (a_rule(match={"flavor": Match(any_of=("a",), all_except=("a",))}),),
            "any_of or all_except",
        ),
    ],
)
def test_a_list_with_a_gap_an_overlap_or_an_absurd_number_is_refused(world, rules, said):
    assert said in world.refused(world.admin, a_list(*rules)).reason


@pytest.mark.parametrize(
    "tiers",
    [
        (Tier(up_to="10", price="1"),),
        (Tier(price="1"), Tier(price="2")),
        (Tier(up_to="0", price="1"), Tier(price="2")),
        (Tier(up_to="5", price="1"), Tier(up_to="5", price="1"), Tier(price="2")),
        (Tier(up_to="9" * 17, price="1"), Tier(price="2")),
    ],
)
def test_tiers_rise_and_the_last_has_no_end(world, tiers):
    reason = world.refused(world.admin, a_list(a_rule(model="volume", price=None, tiers=tiers)))
    assert "tier" in reason.reason


def test_what_is_free_needs_no_rule_and_has_none(world):
    world.ok(world.admin, a_list(free=("compute.vcpu",)))

    assert "is free" in world.refused(world.admin, a_list(a_rule(), free=("image.size",))).reason


def test_a_list_stays_in_its_currency(world):
    refused = world.refused(world.admin, a_list(a_rule(), currency="USD"))

    assert "is in EUR" in refused.reason


def test_a_version_that_is_not_in_force_can_be_withdrawn_and_leaves_its_number():
    world = World()
    far = world.now + 365 * 86_400 * SECOND
    world.ok(world.admin, a_list(a_rule()))
    world.ok(world.admin, a_list(a_rule(), valid_from=far))
    kept_out = world.refused(world.admin, a_list(a_rule(), valid_from=far - 1))
    assert "withdraw version" in kept_out.reason
    *_, before, planned = world.cell.state.price_lists["standard"]

    world.ok(world.admin, WithdrawPriceList(version=planned.version))

    assert world.cell.state.price_lists["standard"][-1] == before
    gone = world.refused(world.admin, WithdrawPriceList(version=planned.version))
    assert gone.code == "NotFound"
    next_one = world.ok(world.admin, a_list(a_rule(), valid_from=far - 1))
    assert next_one["version"] == planned.version + 1
    # What is between two others goes, too, and they stay as they are.
    world.ok(world.admin, a_list(a_rule(), valid_from=far))
    world.ok(world.admin, WithdrawPriceList(version=planned.version + 1))
    left = [each.version for each in world.cell.state.price_lists["standard"][-2:]]
    assert left == [before.version, planned.version + 2]


def test_what_is_in_force_or_the_last_that_customers_have_is_not_withdrawn():
    world = World()
    world.ok(world.admin, a_list(a_rule(), valid_from=world.now + SECOND))
    planned = world.cell.state.price_lists["standard"][-1]
    world.now = planned.valid_from
    refused = world.refused(world.admin, WithdrawPriceList(version=planned.version))
    assert (refused.code, "is in force" in refused.reason) == ("Conflict", True)

    far = world.now + 10**15
    world.ok(world.admin, a_list(a_rule(), name="partners", valid_from=far))
    world.ok(world.admin, CreateCustomer(name="one", currency="EUR", price_list="partners"))
    withdraw = WithdrawPriceList(name="partners", version=1)
    assert "no other version" in world.refused(world.admin, withdraw).reason
    world.ok(world.admin, a_list(a_rule(), name="partners", valid_from=far + 1))
    world.ok(world.admin, withdraw)
    world.ok(world.admin, a_list(a_rule(), name="draft", valid_from=far))
    world.ok(world.admin, WithdrawPriceList(name="draft", version=1))
    assert "draft" not in world.cell.state.price_lists
    assert world.refused(world.member("m"), WithdrawPriceList(version=1)).code == "Forbidden"


def test_dimensions_are_tried_together():
    north, elsewhere = Match(any_of=("n",)), Match(all_except=("n",))
    rules = [
        a_rule(sku="a", match={"flavor": SMALL, "zone": north}),
        a_rule(sku="b", match={"zone": elsewhere}),
        a_rule(sku="c", match={"flavor": NOT_SMALL, "zone": north}),
    ]
    need_one_rule_each(rules, (), ("compute.vcpu",))

    with pytest.raises(InvalidInput, match="with flavor 'small' and zone any other"):
        need_one_rule_each([*rules, a_rule(match={"flavor": SMALL, "zone": elsewhere})], (), ())
    with pytest.raises(InvalidInput, match=r"no rule matches .* with flavor any other"):
        need_one_rule_each(rules[:2], (), ())


def test_rules_that_tell_too_much_apart_are_refused_and_not_walked():
    values = tuple(f"v{n}" for n in range(100))
    match = {f"d{n}": Match(any_of=values) for n in range(8)}

    with pytest.raises(InvalidInput, match="kinds of usage apart"):
        need_one_rule_each([a_rule(match=match)], (), ())


def test_a_thousand_rules_are_asked_at_once(monkeypatch):
    """Rule by rule it took twenty seconds of the engine, which decides nothing else meanwhile."""
    rules = [
        a_rule(sku=f"s{at}", match={"flavor": Match(any_of=tuple(f"{at}-{n}" for n in range(19)))})
        for at in range(999)
    ]
    named = tuple(value for rule in rules for value in rule.match["flavor"].any_of)
    rest = a_rule(sku="rest", match={"flavor": Match(all_except=named)})

    def walked(match, value):
        raise AssertionError("rules are not asked one by one")

    monkeypatch.setattr(Match, "takes", walked)
    need_one_rule_each([*rules, rest], (), ())
    with pytest.raises(InvalidInput, match="flavor '5-0'"):
        need_one_rule_each([*rules[:5], *rules[6:], rest], (), ())


NAMES = ("a", "b", "c")
a_match = st.one_of(
    st.builds(Match, any_of=st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)),
    st.builds(
        Match, all_except=st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)
    ),
)
rules_of = st.lists(
    st.dictionaries(st.sampled_from(("flavor", "zone")), a_match, max_size=2),
    min_size=1,
    max_size=4,
).map(lambda found: [a_rule(sku=f"r{n}", match=match) for n, match in enumerate(found)])


@settings(max_examples=100)
@given(rules_of)
def test_a_list_is_refused_exactly_if_some_usage_has_no_price_or_two(rules):
    """The space of values is tried whole, with one that nobody names."""
    sound = all(
        sum(matches(rule, {"flavor": flavor, "zone": zone}) for rule in rules) == 1
        for flavor, zone in itertools.product((*NAMES, "unheard-of", ""), repeat=2)
    )

    refused = nullcontext() if sound else pytest.raises(InvalidInput, match="must be one")
    with refused:
        need_one_rule_each(rules, (), ("compute.vcpu",))
