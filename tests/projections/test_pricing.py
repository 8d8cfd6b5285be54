"""Every model's prices, held to what a plain function of a month's quantity says."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.metering import Usage
from projections.pricing import Discount, part_of, price
from schemas.billing import Match, PriceList, PriceRule, Tier
from schemas.months import month_bounds, month_of, next_month
from schemas.units import DAY, HOUR, MINUTE

START, END = month_bounds("2028-02")  # a leap year's
TIERS = (Tier(up_to="10", price="0.5"), Tier(up_to="100", price="0.3"), Tier(price="0.1"))


def a_row(start=START, hours=1, value=1, resource="s", project="p", **fields):
    end = start + hours * HOUR
    return Usage(
        **{
            "resource_kind": "server",
            "resource_id": resource,
            "project_id": project,
            "meter": "compute.vcpu",
            "meter_version": 1,
            "dimensions": {},
            "value": value,
            "quantity": value * (end - start),
            "start": start,
            "end": end,
            "first_ordinal": 1,
            "last_ordinal": 2,
            **fields,
        }
    )


def a_list(version=1, valid_from=0, currency="EUR", **rule):
    said = {"sku": "vcpu", "meter": "compute.vcpu", "unit": "Core-Hours", **rule}
    return PriceList(
        name="standard",
        version=version,
        currency=currency,
        valid_from=valid_from,
        rules=(PriceRule(**said),),
    )


def amounts(priced):
    return [str(part.amount) for part in priced.parts]


def total(priced):
    return sum((part.amount for part in priced.parts), Decimal(0))


def test_each_unit_costs_what_its_tier_says():
    rows = [a_row(hours=8), a_row(START + 8 * HOUR, hours=8, resource="t"), a_row(END, hours=4)]

    priced = price(rows, [a_list(model="graduated", tiers=TIERS)])

    assert [(p.tier, p.quantity // HOUR, str(p.amount)) for p in priced.parts] == [
        (1, 8, "4.000000"),
        (1, 2, "1.000000"),
        (2, 6, "1.800000"),
        (1, 4, "2.000000"),  # another month begins anew
    ]


def test_all_units_cost_what_the_tier_says_that_a_month_reaches():
    rows = [a_row(hours=8), a_row(START + DAY, hours=8), a_row(END, hours=10)]

    priced = price(rows, [a_list(model="volume", tiers=TIERS)])

    assert [(p.tier, str(p.amount)) for p in priced.parts] == [
        (2, "2.400000"),
        (2, "2.400000"),
        (1, "5.000000"),
    ]


def test_a_flat_price_is_due_once_a_month_for_each_resource_that_used_anything():
    rows = [
        a_row(),
        a_row(START + DAY),
        a_row(START + DAY, resource="t"),
        a_row(START + DAY, hours=0, resource="never-ran"),
        a_row(END),
    ]

    priced = price(rows, [a_list(model="flat", price="7.50")])

    assert amounts(priced) == ["7.500000", "0.000000", "7.500000", "0.000000", "7.500000"]


def test_what_is_included_is_free_and_counted_before_tiers():
    rows = [a_row(hours=25)]

    plain = price(rows, [a_list(price="1", included="20")])
    tiered = price(rows, [a_list(model="graduated", tiers=TIERS, included="20")])

    assert [(p.tier, str(p.amount)) for p in plain.parts] == [(0, "0.000000"), (1, "5.000000")]
    assert [(p.tier, str(p.amount)) for p in tiered.parts] == [(0, "0.000000"), (1, "2.500000")]


def test_a_month_costs_no_more_than_the_maximum_and_no_less_than_the_minimum():
    rows = [a_row(hours=3), a_row(START + DAY, hours=3)]

    capped = price(rows, [a_list(price="1", maximum="4.5")])
    raised = price(rows, [a_list(price="1", minimum="10")])
    unused = price([], [a_list(price="1", minimum="10")])

    assert amounts(capped) == ["3.000000", "1.500000"]
    assert amounts(raised) == ["3.000000", "3.000000", "4.000000"]
    assert (raised.parts[-1].model, raised.parts[-1].usage.resource_kind) == ("minimum",) * 2
    assert unused.parts == ()


def test_a_price_may_be_for_many_units():
    assert amounts(price([a_row(hours=1)], [a_list(price="1", per=1000)])) == ["0.001000"]


def test_a_discount_is_part_of_the_one_rounding():
    versions = [a_list(price="0.333333")]

    (off,) = price([a_row()], versions, discounts=[Discount(percent="12.5")]).parts
    (other,) = price([a_row()], versions, discounts=[Discount(percent="50", sku="x")]).parts
    first = price([a_row()], versions, discounts=[Discount(percent="0"), Discount(percent="50")])

    assert (str(off.list_amount), str(off.amount)) == ("0.333333", "0.291666")
    assert other.amount == other.list_amount
    assert amounts(first) == ["0.333333"]


def test_a_new_version_counts_on_where_the_old_one_stopped():
    middle = START + 12 * HOUR
    cheaper = a_list(2, middle, model="graduated", tiers=(Tier(up_to="20", price="0.2"), TIERS[2]))

    priced = price([a_row(hours=24)], [a_list(model="graduated", tiers=TIERS), cheaper])

    assert [(p.price_list.version, p.tier, p.quantity // HOUR) for p in priced.parts] == [
        (1, 1, 10),
        (1, 2, 2),
        (2, 1, 8),
        (2, 2, 4),
    ]


def test_rules_are_chosen_by_dimensions():
    small = PriceRule(
        sku="small", meter="compute.vcpu", unit="Core-Hours", price="1",
        match={"flavor": Match(any_of=("small",))},
    )  # fmt: skip
    other = PriceRule(
        sku="other", meter="compute.vcpu", unit="Core-Hours", price="2",
        match={"flavor": Match(all_except=("small",))},
    )  # fmt: skip
    prices = PriceList(name="n", version=1, currency="EUR", valid_from=0, rules=(small, other))
    rows = [a_row(dimensions={"flavor": flavor}) for flavor in ("small", "large", "")]

    assert [part.rule.sku for part in price(rows, [prices]).parts] == ["small", "other", "other"]


def test_rows_are_cut_at_midnights_and_no_sum_changes():
    row = a_row(START + 20 * HOUR, hours=30)

    priced = price([row], [a_list(price="0.1")], daily=True)

    assert [(p.usage.start - START, p.usage.end - START) for p in priced.parts] == [
        (20 * HOUR, 24 * HOUR),
        (24 * HOUR, 48 * HOUR),
        (48 * HOUR, 50 * HOUR),
    ]
    assert total(priced) == total(price([row], [a_list(price="0.1")]))


@pytest.mark.parametrize(
    ("month", "days"), [("2028-02", 29), ("2027-02", 28), ("2026-12", 31), ("2026-11", 30)]
)
def test_a_month_is_as_long_as_it_is(month, days):
    start, end = month_bounds(month)

    assert end - start == days * DAY
    assert (month_of(start), month_of(end - 1), month_of(end)) == (month, month, next_month(month))


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-00", "26-1", "2026-1", "9999-01"])
def test_what_is_no_month_is_refused(text):
    with pytest.raises(ValueError, match="month"):
        month_bounds(text)


# Rows of whole minutes in one month, told apart by when they begin.
rows_of = st.lists(
    st.tuples(st.integers(0, 27 * 24 * 60), st.integers(0, 24 * 60), st.integers(1, 64)),
    max_size=12,
    unique_by=lambda row: row[0],
).map(
    lambda found: [
        a_row(
            START + minute * MINUTE,
            value=value,
            resource=f"s{number % 3}",
            end=START + (minute + length) * MINUTE,
            quantity=value * length * MINUTE,
        )
        for number, (minute, length, value) in enumerate(found)
    ]
)
MODELS = st.sampled_from(["graduated", "volume"])
prices = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,6})?", fullmatch=True)
tiers_of = st.tuples(
    st.lists(st.integers(1, 10_000), max_size=4, unique=True), st.lists(prices, min_size=5)
).map(
    lambda found: tuple(
        Tier(up_to=None if bound is None else str(bound), price=cost)
        for bound, cost in zip([*sorted(found[0]), None], found[1], strict=False)
    )
)


def graduated(quantity, tiers):
    """Return what so many hours cost, as a fraction."""
    cost, reached = Fraction(0), Fraction(0)
    for tier in tiers:
        ends = quantity if tier.up_to is None else min(quantity, Fraction(tier.up_to))
        cost += max(Fraction(0), ends - reached) * Fraction(tier.price)
        reached = max(reached, ends)
    return cost


def hours(rows):
    return Fraction(sum(row.quantity for row in rows), HOUR)


def close_to(priced, cost):
    """Each part is rounded once, by no more than half of the last place."""
    return abs(Fraction(total(priced)) - cost) <= Fraction(len(priced.parts), 2 * 10**6)


@settings(max_examples=40)
@given(rows_of, tiers_of, st.booleans())
def test_graduated_tiers_add_up_however_usage_is_cut(rows, tiers, daily):
    priced = price(rows, [a_list(model="graduated", tiers=tiers)], daily=daily)

    assert close_to(priced, graduated(hours(rows), tiers))
    assert sum(part.quantity for part in priced.parts) == sum(row.quantity for row in rows)
    assert all(part.quantity >= 0 and part.amount >= 0 for part in priced.parts)


@settings(max_examples=40)
@given(rows_of, tiers_of, st.booleans())
def test_volume_tiers_add_up_however_usage_is_cut(rows, tiers, daily):
    quantity = hours(rows)
    tier = next(t for t in tiers if t.up_to is None or quantity <= Fraction(t.up_to))

    priced = price(rows, [a_list(model="volume", tiers=tiers)], daily=daily)

    assert close_to(priced, quantity * Fraction(tier.price))


@settings(max_examples=40)
@given(rows_of, prices, prices, prices, st.integers(0, 500))
def test_minimum_maximum_and_included_hold_for_a_month(rows, cost, one, other, included):
    lowest, highest = sorted((one, other), key=Decimal)
    rule = {"price": cost, "included": str(included), "minimum": lowest, "maximum": highest}

    priced = price(rows, [a_list(**rule)], daily=True)

    due = max(Fraction(0), hours(rows) - included) * Fraction(cost)
    if hours(rows):
        due = max(Fraction(lowest), min(Fraction(highest), due))
        assert Decimal(lowest) <= total(priced) <= Decimal(highest)
    assert close_to(priced, due)


@settings(max_examples=40)
@given(rows_of, tiers_of, tiers_of, st.integers(0, 29 * 24), MODELS)
def test_a_later_version_changes_nothing_that_was_used_before_it(rows, tiers, later, hour, model):
    valid_from = START + hour * HOUR
    old = a_list(model=model, tiers=tiers)
    new = a_list(2, valid_from, model=model, tiers=later)

    earlier = [part_of(r, r.start, min(r.end, valid_from)) for r in rows if r.start < valid_from]
    before = [p for p in price(rows, [old, new]).parts if p.price_list.version == 1]

    assert before == list(price(earlier, [old]).parts) == list(price(earlier, [old]).parts)
