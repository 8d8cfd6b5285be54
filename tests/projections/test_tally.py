"""A month that was summed up is the month of its rows, to the last digit, and these the same."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.state import State
from projections.drawn import Drawn
from projections.holdings import Held
from projections.invoice import draw_up
from projections.ledger import Past, month_rows
from projections.metering import Interval
from projections.scratch import scratch_in
from projections.tally import Uncountable, only, tally
from schemas.billing import Customer, Discount, Match, Payer, PriceList, PriceRule
from schemas.metering import BUILT_IN
from schemas.months import month_bounds
from schemas.units import DAY, HOUR, MINUTE

MONTH = "2027-02"
START, END = month_bounds(MONTH)
# Of 30 s, so that halves come up, and odd times that divide by nothing.
moments = st.one_of(
    st.integers(-2880, 30 * 2880).map(lambda n: START + n * MINUTE // 2),
    st.integers(-DAY, END - START + DAY).map(lambda n: START + n),
    st.integers(-1, 29).map(lambda n: START + n * DAY),
)
prices = st.sampled_from(["0", "0.3", "0.000001", "7", "0.0127", "123456.123456789", "0.0000018"])
METERS = {
    "compute.vcpu": ("Core-Hours", st.integers(0, 64)),
    "compute.memory": ("GiB-Hours", st.sampled_from([1, 512, 4095, 2**20, 2**45])),
    "compute.disk": ("GiB-Hours", st.integers(1, 100)),
    "compute.instance": ("Hours", st.just(1)),
    "network.egress": ("GB", st.integers(0, 10**15)),
}


@st.composite
def held(draw):
    found = []
    for number in range(draw(st.integers(0, 10))):
        meter = draw(st.sampled_from(sorted(METERS)))
        start, end = sorted(draw(st.tuples(moments, moments)))
        point = BUILT_IN[meter].aggregation != "integral"
        is_open = not point and draw(st.booleans())
        end = start if point or draw(st.integers(0, 9)) == 0 else end
        first = 3 * number + 1
        last = first if point else first + draw(st.integers(1, 60))
        dimensions = dict.fromkeys(BUILT_IN[meter].dimensions, draw(st.sampled_from(["a", "b"])))
        found.append(
            Interval(
                resource_kind="server",
                resource_id=draw(st.sampled_from(["s1", "s2", "s3"])),
                project_id=draw(st.sampled_from(["p", "q", "nobody"])),
                meter=meter,
                dimensions=dimensions,
                value=draw(METERS[meter][1]),
                start=start,
                end=None if is_open else end,
                first_ordinal=first,
                last_ordinal=None if is_open else last,
                aggregation=BUILT_IN[meter].aggregation,
            )
        )
    versions = {key: (meter,) for key, meter in BUILT_IN.items()}
    as_of = draw(st.integers(1, 60))
    return Held(as_of=as_of, versions=versions, runs=(), loose=tuple(found), facts=())


@st.composite
def price_lists(draw):
    """Two versions: cpu by flavor, memory by 7 units, disk now and then with a minimum."""
    found = []
    for version in (1, 2):
        a, rest = Match(any_of=("a",)), Match(all_except=("a",))
        rules = [
            rule("cpu-a", "compute.vcpu", price=draw(prices), match={"flavor": a}),
            rule("cpu", "compute.vcpu", price=draw(prices), match={"flavor": rest}),
            rule("memory", "compute.memory", price=draw(prices), per=7),
            rule("disk", "compute.disk", price="0.01", minimum=draw(st.sampled_from([None, "1"]))),
        ]
        if draw(st.booleans()):
            rules.append(rule("egress", "network.egress", price=draw(prices)))
        found.append(
            PriceList(
                name="standard",
                version=version,
                currency=draw(st.just("EUR")),
                valid_from=draw(st.sampled_from([0, 0, START + DAY])) if version == 1
                else draw(st.sampled_from([START + DAY, START + 13 * DAY + 7 * HOUR + 1])),
                rules=tuple(rules),
            )
        )  # fmt: skip
    return tuple(found)


def rule(sku, meter, **fields):
    return PriceRule(sku=sku, meter=meter, unit=METERS[meter][0], **fields)


def a_customer(name, *discounts):
    return Customer(
        customer_id=name, version=1, name=name, currency="EUR", price_list="standard",
        valid_from=0, tax_percent="19", discounts=discounts,
    )  # fmt: skip


payers = st.lists(
    st.tuples(st.sampled_from(["acme", "bolt", ""]), moments), max_size=3, unique_by=lambda x: x[1]
).map(lambda found: tuple(Payer(customer_id=c, since=at) for c, at in sorted(found, key=str)))


@settings(max_examples=80, deadline=None)
@given(held(), price_lists(), st.tuples(payers, payers), st.one_of(st.none(), moments))
def test_a_month_summed_up_is_that_of_its_rows(held, versions, paid_by, until):
    state = State()
    state.price_lists["standard"] = versions
    off = Discount(percent="12.5", sku="cpu"), Discount(percent="33.33")
    state.customers |= {"acme": (a_customer("acme", *off),), "bolt": (a_customer("bolt"),)}
    for project, of in zip(("p", "q"), paid_by, strict=True):
        state.payers[project] = tuple(sorted(of, key=lambda payer: payer.since))
    past = Past(
        ordinal=held.as_of, intervals=held.intervals, definitions=BUILT_IN, state=state, closings={}
    )
    rows = month_rows(past, MONTH, until=until)

    with scratch_in(None) as scratch:
        try:
            found = tally(scratch.db, held, past, MONTH, until)
        except Uncountable:
            assert rows.unrated
            return
        drawn_from = Drawn(scratch.db, found, scratch.directory)
        left = month_rows(only(held, past, found.left), MONTH, until=until)
        assert left.unrated.keys() == rows.unrated.keys()
        assert rows.rows.keys() == left.rows.keys() | found.lines.keys()
        for name, of in rows.rows.items():
            terms = state.customers[name][0]
            drawn = draw_up(terms, MONTH, held.as_of, of, ())
            summed = draw_up(
                terms, MONTH, held.as_of, left.rows.get(name, ()), (), (),
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
