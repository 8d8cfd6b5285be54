"""Costs by group add up to what the bill says, to the last digit, whatever they are grouped by."""

from decimal import Decimal
from itertools import combinations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from projections import costs
from projections.costs import DIMENSIONS, Bills, ChargeSeen, Resources, by_group, day_of, parted
from schemas.units import DAY, HOUR

FIRST = 1_772_323_200_000_000  # 2026-03-01
times = st.integers(FIRST, FIRST + 40 * DAY)
amounts = st.decimals(min_value=0, max_value=10**9, places=6).map(str)
resources = st.sampled_from(["a", "b", "c"])


@st.composite
def charges(draw):
    start, end = sorted((draw(times), draw(times)))
    return ChargeSeen(
        resource_kind=draw(st.sampled_from(["server", "image"])),
        resource_id=draw(resources),
        meter=draw(st.sampled_from(["compute.vcpu", "compute.disk"])),
        start=start,
        end=end,
        amount=draw(amounts),
    )


def bills_of(found):
    """Return an answer about bills, as it comes from the archiver."""
    told = {"as_of": 1, "start": FIRST, "end": FIRST + 40 * DAY, "bills": []}
    for number, (currency, listed) in enumerate(found):
        line = {"charges": [msgspec.structs.asdict(one) for one in listed]}
        told["bills"].append({"project_id": f"p{number}", "currency": currency, "lines": [line]})
    return costs.decode(msgspec.json.encode(told))


bills = st.lists(
    st.tuples(st.sampled_from(["EUR", "USD"]), st.lists(charges(), max_size=6)), max_size=4
).map(bills_of)


@given(one=charges())
def test_the_days_of_a_charge_add_up_to_it_and_are_its_days(one):
    parts = parted(one)

    assert sum(amount for _, amount in parts) == Decimal(one.amount)
    assert all(amount >= 0 for _, amount in parts)
    days = [day for day, _ in parts]
    assert days == sorted(set(days))
    assert days[0] == day_of(one.start)
    assert len(days) == max(1, (one.end - 1) // DAY - one.start // DAY + 1)


@settings(max_examples=10, deadline=None)
@given(bills=bills)
def test_every_grouping_adds_up_to_the_bills(bills: Bills):
    wanted: dict[str, Decimal] = {}
    for _, currency, one in bills.charges():
        wanted[currency] = wanted.get(currency, Decimal(0)) + Decimal(one.amount)
    for count in (1, 2, 3):
        for by in combinations(DIMENSIONS, count):
            found = by_group(bills, by, lambda _resource: "u")
            assert {k: Decimal(v) for k, v in found.totals.items()} == wanted
            summed: dict[str, Decimal] = {}
            for cost in found.costs:
                assert tuple(cost.group) == by
                summed[cost.currency] = summed.get(cost.currency, Decimal(0)) + Decimal(cost.amount)
            assert summed == wanted
            groups = [(cost.currency, *cost.group.values()) for cost in found.costs]
            assert len(groups) == len(set(groups))


@given(bills=bills, at=times)
def test_what_was_and_what_is_since_add_up(bills: Bills, at: int):
    """Cutting at a time loses nothing: what came before it and since are the whole."""
    by_resource = Resources(bills)
    for resource in ("a", "b", "c"):
        whole, since = by_resource.cost(resource), by_resource.cost(resource, at)
        for currency, amount in since.items():
            assert 0 <= amount <= whole[currency]
        assert by_resource.cost(resource, FIRST + 41 * DAY) == {}


def test_a_charge_over_midnight_is_parted_by_time():
    one = ChargeSeen("server", "a", "compute.vcpu", FIRST - 6 * HOUR, FIRST + 18 * HOUR, "1.000000")

    assert parted(one) == [
        ("2026-02-28", Decimal("0.250000")),
        ("2026-03-01", Decimal("0.750000")),
    ]


def test_the_dearest_come_first_and_totals_are_of_all():
    listed = [
        ChargeSeen("server", name, "compute.vcpu", FIRST, FIRST + DAY, amount)
        for name, amount in (("a", "1.5"), ("b", "6"), ("c", "2.5"))
    ]
    found = by_group(bills_of([("EUR", listed)]), ("resource",), lambda _resource: "", 2)

    assert [(cost.group["resource"], cost.amount, cost.share) for cost in found.costs] == [
        ("b", "6", "60.0"),
        ("c", "2.5", "25.0"),
    ]
    assert found.totals == {"EUR": "10"}
