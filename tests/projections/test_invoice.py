"""Whatever a month comes to, an invoice adds up, and a person can pay its total."""

from decimal import ROUND_HALF_UP, Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.state import State
from projections.invoice import draw_up
from projections.ledger import Past, Row, corrections, month_rows, negative, total
from projections.metering import Interval
from schemas.billing import Credit, Customer, Discount, Payer, PriceList, PriceRule, Tier
from schemas.currency import decimals
from schemas.metering import BUILT_IN
from schemas.months import month_bounds
from schemas.units import HOUR, MINUTE

MONTH = "2027-02"
START, END = month_bounds(MONTH)

money = st.decimals(min_value=-(10**6), max_value=10**6, places=6).map(lambda d: f"{d:f}")
rows_of = st.lists(
    st.builds(
        lambda project, sku, amount: Row(
            category="Usage", project_id=project, sku=sku, description=sku, start=START, end=END,
            quantity="1", list_amount=amount, amount=amount, price="1", first_ordinal=1,
        ),
        st.sampled_from(["p", "q"]),
        st.sampled_from(["cpu", "disk"]),
        money,
    ),
    max_size=8,
)  # fmt: skip
credits_of = st.lists(st.decimals(min_value="0.01", max_value=10**6, places=2), max_size=3).map(
    lambda found: [
        Credit(
            credit_id=f"c{n}", customer_id="acme", amount=f"{a}", remaining=f"{a}", reason="r",
            granted_at=0,
        )
        for n, a in enumerate(found)
    ]
)  # fmt: skip


def a_customer(currency="EUR", tax="19", **terms):
    return Customer(
        customer_id="acme",
        version=1,
        name="Acme",
        currency=currency,
        price_list="standard",
        valid_from=0,
        tax_percent=tax,
        **terms,
    )


@settings(max_examples=80)
@given(
    rows_of,
    credits_of,
    st.sampled_from(["EUR", "JPY", "KWD"]),
    st.sampled_from(["0", "7.7", "19", "100"]),
)
def test_an_invoice_adds_up(rows, credits_, currency, tax):
    drawn = draw_up(a_customer(currency, tax), MONTH, 1, rows, credits_)
    of = drawn.document

    assert total(drawn.rows) == sum(Decimal(line.amount) for line in of.lines) == Decimal(of.total)
    assert -Decimal(of.total).as_tuple().exponent == decimals(currency)
    used = sum(map(Decimal, of.credits.values()))
    net = Decimal(of.net)
    assert net == total(rows)
    assert 0 <= used <= max(net, 0)
    assert all(Decimal(of.credits.get(c.credit_id, 0)) <= Decimal(c.remaining) for c in credits_)
    exact = (net - used) * (100 + Decimal(tax)) / 100
    unit = Decimal(1).scaleb(-decimals(currency))
    assert abs(Decimal(of.total) - exact.quantize(unit, rounding=ROUND_HALF_UP)) <= unit
    assert sum(line.rows for line in of.lines) == len(list(drawn.rows)) == of.rows
    assert draw_up(a_customer(currency, tax), MONTH, 1, rows, credits_) == drawn


@given(money)
def test_what_is_reversed_twice_is_as_it_was(amount):
    assert Decimal(negative(amount)) == -Decimal(amount)
    assert Decimal(negative(negative(amount))) == Decimal(amount)


TIERS = (Tier(up_to="50", price="0.3"), Tier(price="0.1"))
PRICES = PriceList(
    name="standard", version=1, currency="EUR", valid_from=0,
    rules=(
        PriceRule(sku="cpu", meter="compute.vcpu", unit="Core-Hours", model="graduated",
                  tiers=TIERS),
        PriceRule(sku="disk", meter="compute.disk", unit="GiB-Hours", price="0.01", minimum="1"),
    ),
)  # fmt: skip
intervals_of = st.lists(
    st.tuples(
        st.sampled_from(["p", "q", "nobody"]),
        st.sampled_from(["compute.vcpu", "compute.disk"]),
        st.integers(-600, 28 * 24 * 60),
        st.one_of(st.none(), st.integers(0, 3 * 24 * 60)),
        st.integers(1, 8),
    ),
    max_size=8,
).map(
    lambda found: [
        Interval(
            resource_kind="server",
            resource_id=f"s{number}",
            project_id=project,
            meter=meter,
            value=value,
            start=START + minute * MINUTE,
            end=None if length is None else START + (minute + length) * MINUTE,
            first_ordinal=2 * number + 1,
            last_ordinal=None if length is None else 2 * number + 2,
        )
        for number, (project, meter, minute, length, value) in enumerate(found)
    ]
)


def a_past(intervals, ordinal=100):
    state = State()
    state.price_lists["standard"] = (PRICES,)
    state.customers["acme"] = (a_customer(discounts=(Discount(percent="10", sku="disk"),)),)
    for project in ("p", "q"):
        state.payers[project] = (Payer(customer_id="acme", since=0),)
    return Past(
        ordinal=ordinal,
        intervals=lambda _start, _end: intervals,
        definitions=BUILT_IN,
        state=state,
        closings={},
    )


def naive(intervals):
    """Reckon a month minute by minute, knowing nothing of rows, cuts and rounding."""
    hours = {"compute.vcpu": Decimal(0), "compute.disk": Decimal(0)}
    used = set()
    for each in intervals:
        if each.project_id == "nobody":
            continue
        last = END if each.end is None else min(each.end, END)
        minutes = max(0, (last - max(each.start, START)) // MINUTE)
        hours[each.meter] += each.value * Decimal(minutes) / 60
        used |= {each.meter} if minutes else set()
    cpu, disk = hours["compute.vcpu"], hours["compute.disk"] * Decimal("0.009")
    if "compute.disk" in used:
        disk = max(disk, Decimal(1))
    tiered = min(cpu, Decimal(50)) * Decimal("0.3") + max(cpu - 50, Decimal(0)) * Decimal("0.1")
    return tiered + disk


@settings(max_examples=80)
@given(intervals_of)
def test_a_month_comes_to_what_a_naive_reckoning_says(intervals):
    rows = month_rows(a_past(intervals), MONTH).rows.get("acme", ())

    assert abs(total(rows) - naive(intervals)) <= Decimal(len(rows) + 1) / 2 / 10**6
    assert all(START <= row.start <= row.end <= END for row in rows)
    assert all(row.end - row.start <= 24 * HOUR for row in rows if row.resource_id)


@settings(max_examples=60)
@given(intervals_of, intervals_of)
def test_what_is_found_later_makes_up_the_difference_exactly(then, now):
    """Whatever becomes known: what was billed and its corrections are what is due."""
    before, after = a_past(then), a_past(now, 200)

    found = corrections(before, after, MONTH).get("acme", ())

    billed = total(month_rows(before, MONTH).rows.get("acme", ()))
    due = total(month_rows(after, MONTH).rows.get("acme", ()))
    assert billed + total(found) == due
    assert all(row.charge_class == "Correction" for row in found)
    assert all(row.of_invoice == f"{MONTH}.acme" for row in found)
    assert corrections(after, after, MONTH) == {}
