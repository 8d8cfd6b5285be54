"""A month that was summed up is the month of its rows, to the last digit, and these the same."""

import random
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.domain.state import State
from projections.drawn import Drawn
from projections.holdings import Held
from projections.invoice import draw_up
from projections.late import about, changed_since
from projections.ledger import Past, corrections, month_rows, with_rows
from projections.metering import Interval
from projections.scratch import scratch_in
from projections.tally import Uncountable, only, simple_meters, tally
from schemas.billing import Customer, Discount, Match, Payer, PriceList, PriceRule, Tier
from schemas.metering import BUILT_IN, MeterDefinition, MeterRule
from schemas.months import month_bounds
from schemas.units import DAY, HOUR, MINUTE

MONTH = "2027-02"
START, END = month_bounds(MONTH)
PRICES = ["0", "0.3", "0.000001", "7", "0.0127", "123456.123456789", "0.0000018"]
QUANTITIES = ["1", "12.5", "100", "744.0001"]
VALUES = {
    "compute.vcpu": range(65),
    "compute.memory": [1, 512, 4095, 2**20, 2**30],
    "compute.disk": range(1, 100),
    "compute.instance": [1],
    "network.egress": [0, 1, 10**9, 10**15],
}
UNITS = {
    "compute.vcpu": "Core-Hours", "compute.memory": "GiB-Hours", "compute.disk": "GiB-Hours",
    "compute.instance": "Hours", "network.egress": "GB",
}  # fmt: skip


class Dice(random.Random):
    """A month by chance: more of what matters than shrinking examples would have."""

    def moment(self):
        """In steps of 30 s, so that halves come up; odd ones that divide by nothing; midnights."""
        return START + self.choice(
            [
                self.randrange(-2880, 30 * 2880) * MINUTE // 2,
                self.randrange(-DAY, END - START + DAY),
                self.randrange(-1, 29) * DAY,
            ]
        )

    def maybe(self, chance=0.5):
        return self.random() < chance

    def held(self):
        found = []
        for number in range(self.randrange(25)):
            meter = self.choice(sorted(VALUES))
            start, end = sorted([self.moment(), self.moment()])
            point = BUILT_IN[meter].aggregation != "integral"
            is_open = not point and self.maybe(0.2)
            end = start if point or self.maybe(0.1) else end
            first = 3 * number + 1
            last = first if point else first + self.randrange(1, 60)
            dimensions = dict.fromkeys(BUILT_IN[meter].dimensions, self.choice("ab"))
            found.append(
                Interval(
                    resource_kind="server",
                    resource_id=self.choice(["s1", "s2", "s3"]),
                    project_id=self.choice(["p", "q", "q", "nobody"]),
                    meter=meter,
                    dimensions=dimensions,
                    value=self.choice(VALUES[meter]),
                    start=start,
                    end=None if is_open else end,
                    first_ordinal=first,
                    last_ordinal=None if is_open else last,
                    aggregation=BUILT_IN[meter].aggregation,
                )
            )
        # What a version says that is defined later: nobody may count it yet.
        found += [replace(x, meter_version=2) for x in found if self.maybe(0.1)]
        versions = {key: (meter,) for key, meter in BUILT_IN.items()}
        as_of = self.choice([self.randrange(1, 140), 1000])
        return Held(as_of=as_of, versions=versions, runs=(), loose=tuple(found), facts=())

    def counting(self, model):
        """What a version may change of a rule: its tiers, what is included, its minimum."""
        found = {}
        if model in {"unit", "flat"}:
            found["price"] = self.choice(PRICES)
        else:
            ends = sorted(self.sample(QUANTITIES, self.randrange(4)), key=Decimal)
            tiers = (Tier(up_to=up_to, price=self.choice(PRICES)) for up_to in [*ends, None])
            found["tiers"] = tuple(tiers)
        if model in {"unit", "graduated"}:
            found["included"] = self.choice([None, "0", *QUANTITIES])
        if model != "flat":
            found["minimum"] = self.choice([None, "0", "0.5", "1"])
        return found

    def price_lists(self):
        """Two versions: cpu by flavor, memory by 7 units, disk and instances by any model."""
        found = []
        models = ["unit", "graduated", "volume", "flat"]
        disks = self.choices(models, k=2) if self.maybe(0.2) else [self.choice(models)] * 2
        instance, highest = self.choice(models), self.choice([None, "1", "3.5", "2000"])
        capped = {} if instance == "flat" else {"maximum": highest}
        for version, disk in enumerate(disks, 1):
            a, rest = Match(any_of=("a",)), Match(all_except=("a",))
            vcpu = "compute.vcpu"
            rules = [
                rule("cpu-a", vcpu, price=self.choice(PRICES), match={"flavor": a}),
                rule("cpu", vcpu, match={"flavor": rest}, **self.counting("unit")),
                rule("memory", "compute.memory", price=self.choice(PRICES), per=7),
                rule("disk", "compute.disk", model=disk, **self.counting(disk)),
                rule(
                    "hours", "compute.instance", model=instance,
                    **self.counting(instance), **capped,
                ),
            ]  # fmt: skip
            if self.maybe():
                rules.append(rule("egress", "network.egress", price=self.choice(PRICES)))
            begins = [0, 0, 0, 0, START + DAY], [START + DAY, START + 13 * DAY + 7 * HOUR + 1]
            found.append(
                PriceList(
                    name="standard",
                    version=version,
                    currency="EUR",
                    valid_from=self.choice(begins[version - 1]),
                    rules=tuple(rules),
                )
            )
        return tuple(found)

    def state(self):
        state = State()
        state.price_lists["standard"] = self.price_lists()
        off = Discount(percent="12.5", sku="cpu"), Discount(percent="33.33")
        state.customers |= {"acme": (a_customer("acme", *off),), "bolt": (a_customer("bolt"),)}
        state.payers |= {"p": self.payers(), "q": self.payers()}
        return state

    def payers(self):
        if self.maybe(0.4):
            return (Payer(customer_id=self.choice(["acme", "bolt"]), since=0),)
        times = sorted({self.moment() for _ in range(self.randrange(4))})
        return tuple(Payer(customer_id=self.choice(["acme", "bolt", ""]), since=at) for at in times)


def rule(sku, meter, **fields):
    return PriceRule(sku=sku, meter=meter, unit=UNITS[meter], **fields)


def a_customer(name, *discounts):
    return Customer(
        customer_id=name, version=1, name=name, currency="EUR", price_list="standard",
        valid_from=0, tax_percent="19", discounts=discounts,
    )  # fmt: skip


def past_of(held, state):
    return Past(
        ordinal=held.as_of, intervals=held.intervals, definitions=BUILT_IN, state=state, closings={}
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_a_month_summed_up_is_that_of_its_rows(seed):
    dice = Dice(seed)
    held, until = dice.held(), dice.choice([None, None, dice.moment()])
    state = dice.state()
    past = past_of(held, state)
    rows = month_rows(past, MONTH, until=until)

    with scratch_in(None) as scratch:
        try:
            found = tally(scratch.db, held, past, MONTH, until)
        except Uncountable:
            assert rows.unrated
            return
        drawn_from = Drawn(scratch.db, found)
        left = month_rows(only(held, past, found.left), MONTH, until=until)
        assert left.unrated.keys() == rows.unrated.keys()
        assert rows.rows.keys() == left.rows.keys() | found.lines.keys()
        own = with_rows(left, found.minimums)
        for name, of in rows.rows.items():
            terms = state.customers[name][0]
            drawn = draw_up(terms, MONTH, held.as_of, of, ())
            summed = draw_up(
                terms, MONTH, held.as_of, own.rows.get(name, ()), (), (),
                found.lines.get(name, ()), found.versions.get(name, ()), drawn_from,
            )  # fmt: skip
            assert summed.document == drawn.document
            assert list(summed.numbered()) == list(drawn.numbered())
            assert summed.digest() == drawn.digest()
            for line in drawn.document.lines:
                assert list(summed.numbered(line.line)) == list(drawn.numbered(line.line))
    unassigned = {}
    for row in (*rows.unassigned,):
        key = row.project_id, row.meter
        unassigned[key] = unassigned.get(key, 0) + row.quantity
    for row in left.unassigned:
        key = row.project_id, row.meter
        found.unassigned[key] = found.unassigned.get(key, 0) + row.quantity
    assert found.unassigned == unassigned
    assert all(Decimal(x.line.amount) >= 0 for of in found.lines.values() for x in of)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_found_late_is_about_those_it_is_about(seed):
    """To look at what has changed alone gives the corrections that looking at all gives."""
    dice = Dice(seed)
    held, state = dice.held(), dice.state()
    earlier = held.then(dice.randrange(held.as_of + 1))
    before, now = past_of(earlier, state), past_of(held, state)

    changed = changed_since(held, earlier.as_of, START, END)
    alone = simple_meters(earlier, before, MONTH) & simple_meters(held, now, MONTH)
    pair = about((earlier, before), (held, now), (START, END), changed, alone)

    assert corrections(*pair, MONTH) == corrections(before, now, MONTH)


COUNTED = MeterDefinition(
    key="my.requests", resource_kind="server", aggregation="sum", unit="Requests", base_unit="",
    base_per_unit=1,
    rules=(
        MeterRule(fact="compute.server.created.v1", effect="add", resource="server_id",
                  project="project_id"),
    ),
)  # fmt: skip


def counted(**fields):
    return PriceRule(**({"sku": "s", "meter": "my.requests", "unit": "Requests"} | fields))


def a_point(value, meter="my.requests"):
    return Interval(
        resource_kind="server", resource_id="r", project_id="p", meter=meter, meter_version=1,
        dimensions={}, value=value, start=START + 10, end=START + 10, first_ordinal=1,
        last_ordinal=1, aggregation="sum",
    )  # fmt: skip


def reckoned(point, *versions, meter=COUNTED, percent="0"):
    """Return what DuckDB and what ``pricing`` make of one point; the first None if left to it."""
    definitions = {**BUILT_IN, meter.key: meter}
    state = State()
    state.price_lists["standard"] = tuple(
        PriceList(name="standard", version=n, currency="EUR", valid_from=at, rules=rules)
        for n, (at, rules) in enumerate(versions, 1)
    )
    state.customers["acme"] = (a_customer("acme", Discount(percent=percent)),)
    state.payers["p"] = (Payer(customer_id="acme", since=0),)
    known = {key: (each,) for key, each in definitions.items()}
    held = Held(as_of=9, versions=known, runs=(), loose=(point,), facts=())
    past = replace(past_of(held, state), definitions=definitions)
    terms = state.customers["acme"][0]
    wanted = draw_up(terms, MONTH, 9, month_rows(past, MONTH).rows["acme"], ())
    with scratch_in(None) as scratch:
        try:
            found = tally(scratch.db, held, past, MONTH)
        except Uncountable:
            return None, list(wanted.rows)
        drawn = draw_up(
            terms, MONTH, 9, (), (), (), found.lines.get("acme", ()),
            found.versions.get("acme", ()), Drawn(scratch.db, found),
        )  # fmt: skip
        assert found.left or drawn.digest() == wanted.digest()
        return list(drawn.rows), list(wanted.rows)


NARROW = (Tier(up_to="1.2", price="1"), Tier(up_to="1.5", price="2"), Tier(price="3"))


@pytest.mark.parametrize(
    "rule",
    [
        counted(model="graduated", tiers=NARROW),
        counted(model="graduated", included="1.5", tiers=(Tier(up_to="0.5", price="2"), NARROW[2])),
    ],
)
def test_tiers_in_which_no_whole_unit_lies_have_no_rows(rule):
    found, wanted = reckoned(a_point(5), (0, (rule,)))
    assert found == wanted
    assert all(row.base_quantity != "0" for row in found)


@pytest.mark.parametrize(
    ("meter", "rule", "percent"),
    [
        # What it would be without the discount has more than 128 bits, what it is has not.
        (COUNTED, counted(price="987654321.987654321987", per=1), "100"),
        (replace(COUNTED, base_per_unit=2**63 - 25),
         counted(price="0.000000000001", per=10**9), "12.345677"),
    ],
)  # fmt: skip
def test_numbers_too_large_to_reckon_with_are_left_to_pricing(meter, rule, percent):
    found, wanted = reckoned(a_point(2**62), (0, (rule,)), meter=meter, percent=percent)
    assert found is None
    assert wanted


def test_a_sku_that_counts_otherwise_leaves_the_others_alone():
    other = rule("cpu", "compute.vcpu", price="1")
    versions = (
        (0, (counted(price="2"), other)),
        (START, (counted(price="2"), replace(other, maximum="5"))),
    )
    found, wanted = reckoned(a_point(3), *versions)
    assert found == wanted


def test_a_meter_whose_points_nothing_tells_apart_is_left_to_pricing():
    twice = replace(COUNTED, rules=COUNTED.rules * 2)
    found, wanted = reckoned(a_point(3), (0, (counted(price="2"),)), meter=twice)
    assert [row.sku for row in wanted if row.sku] == ["s"]
    assert not [row for row in found if row.sku]
