"""Money: exact, rounded once, and the same to the byte whenever it is derived again."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.bill import derive_bill
from projections.metering import Usage
from projections.pricing import exact_quotient
from projections.rating import rate
from schemas.billing import PriceList, PriceRule
from schemas.currency import decimals
from schemas.units import HOUR

GOLDEN = Path(__file__).parent / "golden"
PRICES = {
    "compute.vcpu": ("Core-Hours", "0.012"),
    "compute.memory": ("GiB-Hours", "0.0034"),
    "compute.disk": ("GiB-Hours", "0.000123"),
    "image.size": ("GiB-Hours", "0.00005"),
}


def a_list(version=1, valid_from=0, currency="EUR", **prices):
    named = {name.replace("_", "."): price for name, price in prices.items()}
    return PriceList(
        name="standard",
        version=version,
        currency=currency,
        valid_from=valid_from,
        rules=tuple(
            PriceRule(sku=f"sku-{m}", meter=m, unit=unit, price=named.get(m, price))
            for m, (unit, price) in PRICES.items()
        ),
    )


def a_row(start=0, end=HOUR, meter="compute.vcpu", value=1, resource="s", first=1, last=2):
    return Usage(
        resource_kind="server",
        resource_id=resource,
        project_id="p",
        meter=meter,
        value=value,
        quantity=value * (end - start),
        start=start,
        end=end,
        first_ordinal=first,
        last_ordinal=last,
    )


@pytest.mark.parametrize(
    ("meter", "value", "hours", "amount"),
    [
        ("compute.vcpu", 1, 1, "0.012000"),
        ("compute.vcpu", 4, 10, "0.480000"),
        ("compute.memory", 2048, 1, "0.006800"),
        ("compute.memory", 1, 1, "0.000003"),  # 0.0034 / 1024, half to even
        ("compute.disk", 20, 24, "0.059040"),
        ("image.size", 2**30, 720, "0.036000"),
        ("image.size", 1, 1, "0.000000"),
    ],
)
def test_a_charge_is_price_times_quantity(meter, value, hours, amount):
    (charge,) = rate([a_row(end=hours * HOUR, meter=meter, value=value)], [a_list()]).charges

    assert charge.amount == amount


@pytest.mark.parametrize(
    ("numerator", "denominator", "places", "text"),
    [
        (1, 3, 4, "0.3333"),
        (2, 3, 4, "0.6667"),
        (1, 2, 0, "0"),  # half goes to even
        (3, 2, 0, "2"),
        (5, 2, 0, "2"),
        (10**40, 1, 2, "1" + "0" * 40 + ".00"),
    ],
)
def test_quotients_are_rounded_once_half_to_even(numerator, denominator, places, text):
    assert f"{exact_quotient(numerator, denominator, places):f}" == text


@given(st.integers(0, 10**60), st.integers(1, 10**30), st.integers(0, 20))
def test_no_quotient_is_off_by_more_than_half_a_place(numerator, denominator, places):
    found = exact_quotient(numerator, denominator, places)
    scaled = int(str(f"{found:f}").replace(".", ""))

    assert abs(2 * (scaled * denominator - numerator * 10**places)) <= denominator


def test_usage_is_cut_where_a_new_price_comes_into_force():
    versions = [a_list(), a_list(2, HOUR, compute_vcpu="0.100"), a_list(3, HOUR + HOUR // 2)]

    charges = rate([a_row(end=2 * HOUR)], versions).charges

    assert [(c.start, c.end, c.price_list_version, c.amount) for c in charges] == [
        (0, HOUR, 1, "0.012000"),
        (HOUR, HOUR + HOUR // 2, 2, "0.050000"),
        (HOUR + HOUR // 2, 2 * HOUR, 3, "0.006000"),
    ]


def test_of_versions_valid_from_the_same_moment_the_later_counts():
    versions = [a_list(), a_list(2, HOUR), a_list(3, HOUR, compute_vcpu="9")]

    charges = rate([a_row(end=2 * HOUR)], versions).charges

    assert [c.price_list_version for c in charges] == [1, 3]
    assert [
        c.price_list_version for c in rate([a_row(start=HOUR, end=2 * HOUR)], versions).charges
    ] == [3]


def test_usage_before_any_price_is_named_and_free():
    rated = rate([a_row(end=2 * HOUR)], [a_list(valid_from=HOUR)])

    assert [(u.start, u.end, u.quantity) for u in rated.unrated] == [(0, HOUR, HOUR)]
    assert [c.amount for c in rated.charges] == ["0.012000"]


def test_a_later_list_leaves_earlier_rows_untouched():
    rows = [a_row(), a_row(start=HOUR, end=3 * HOUR)]

    before = rate(rows, [a_list()]).charges
    after = rate(rows, [a_list(), a_list(2, 2 * HOUR, compute_vcpu="1")]).charges

    assert before[0] == after[0]


def test_the_total_is_rounded_half_up_and_the_residue_named():
    bill = derive_bill("p", [a_row(end=HOUR // 4 + HOUR // 6)], [a_list()], 0, HOUR)

    assert (bill.subtotal, bill.total, bill.adjustment.amount) == ("0.005000", "0.01", "0.005000")


@pytest.mark.parametrize(
    ("currency", "total"), [("JPY", "1"), ("EUR", "1.01"), ("KWD", "1.009"), ("CLF", "1.0092")]
)
def test_totals_have_the_currencys_decimals(currency, total):
    rows = [a_row(value=1, end=HOUR)]
    bill = derive_bill("p", rows, [a_list(currency=currency, compute_vcpu="1.00915")], 0, HOUR)

    assert bill.total == total
    assert len(bill.subtotal.partition(".")[2]) == decimals(currency) + 4


meters = st.sampled_from(list(PRICES))
rows_of = st.lists(
    st.builds(
        lambda start, length, meter, value, resource: a_row(
            start, start + length, meter, value, f"s{resource}"
        ),
        st.integers(0, 10**15),
        st.integers(0, 10**13),
        meters,
        st.integers(1, 2**40),
        st.integers(0, 5),
    ),
    max_size=20,
)
prices = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,12})?", fullmatch=True)


@given(rows_of, prices, st.integers(0, 10**15))
def test_a_bill_adds_up(rows, price, changed_at):
    versions = [a_list(), a_list(2, changed_at, compute_vcpu=price, image_size=price)]

    bill = derive_bill("p", rows, versions, 0, 2 * 10**15)

    lines = sum((Decimal(line.amount) for line in bill.lines), Decimal(0))
    assert lines == Decimal(bill.subtotal)
    assert lines + Decimal(bill.adjustment.amount) == Decimal(bill.total)
    for line in bill.lines:
        assert sum((Decimal(c.amount) for c in line.charges), Decimal(0)) == Decimal(line.amount)
        assert sum((Decimal(q.amount) for q in line.quantities), Decimal(0)) == Decimal(line.amount)
        assert all(Decimal(c.amount) >= 0 for c in line.charges)
    charged = sum(int(c.base_quantity) for line in bill.lines for c in line.charges)
    assert charged == sum(row.quantity for row in rows)
    assert derive_bill("p", rows, versions, 0, 2 * 10**15) == bill


def test_a_golden_bill_comes_out_the_same_for_ever():
    """If this fails, invoices that were sent can no longer be derived again."""
    rows = [
        a_row(0, 90 * 60 * 10**6, "compute.vcpu", 2, "srv-a", 10, 25),
        a_row(0, 90 * 60 * 10**6, "compute.memory", 4096, "srv-a", 10, 25),
        a_row(0, 3 * HOUR, "compute.disk", 20, "srv-a", 10, 10),
        a_row(7, 1_234_567_891, "compute.vcpu", 1, "srv-b", 31, 40),
        a_row(0, 3 * HOUR, "image.size", 21_474_836, "img-a", 4, 4),
    ]
    versions = [a_list(valid_from=0), a_list(2, HOUR, compute_vcpu="0.0133333")]
    bill = derive_bill("project-1", rows, versions, 0, 3 * HOUR)
    golden = GOLDEN / "bill.json"

    found = msgspec.json.format(msgspec.json.encode(bill, order="sorted"), indent=1) + b"\n"

    assert found == golden.read_bytes()
