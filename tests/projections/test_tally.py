"""A month that was summed up is the month of its rows, to the last digit, and these the same."""

import random
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

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
from schemas.metering import BUILT_IN
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
