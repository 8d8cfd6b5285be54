"""Rows in a database are those of the ledger, however many they are and whatever they name."""

import random
from pathlib import Path

import duckdb
import pytest

from engine.domain.state import State
from projections.drawn import BATCH_ROWS, Drawn
from projections.holdings import Held
from projections.invoice import draw_up
from projections.ledger import Past, month_rows
from projections.metering import Interval
from projections.scratch import forget, scratch_in
from projections.tally import only, tally
from schemas.billing import Customer, Discount, Payer, PriceList, PriceRule, Tier
from schemas.errors import Unavailable
from schemas.metering import BUILT_IN
from schemas.months import month_bounds

MONTH = "2027-02"
START, END = month_bounds(MONTH)
NAMES = [
    "a",
    'quo"ted',
    "back\\slash",
    "new\nline",
    "\x01\x1f\x7f",
    "grün 雲 🌧",
    "</b>",
    "{}",
    "é",
    "e",
]
TERMS = Customer(
    customer_id="acme", version=1, name="Acme", currency="EUR", price_list="standard",
    valid_from=0, tax_percent="0", discounts=(Discount(percent="12.5"),),
)  # fmt: skip


def priced(*rules, currency="EUR"):
    state = State()
    state.price_lists["standard"] = (
        PriceList(name="standard", version=1, currency=currency, valid_from=0, rules=rules),
    )
    state.customers["acme"] = (TERMS,)
    state.payers |= {name: (Payer(customer_id="acme", since=0),) for name in ("p", 'q"', "ü")}
    return state


RULES = (
    PriceRule(sku='s"1', meter="compute.vcpu", unit="Core-Hours", price="0.0127"),
    PriceRule(sku="ß", meter="compute.memory", unit="GiB-Hours", price="7", per=1000),
    PriceRule(
        sku="disk",
        meter="compute.disk",
        unit="GiB-Hours",
        model="graduated",
        included="5",
        tiers=(Tier(up_to="700", price="0.1"), Tier(price="0.07")),
        maximum="55",
    ),
)


def holding(count, names=NAMES, seed=1):
    dice = random.Random(seed)
    found = []
    for number in range(count):
        start = dice.randrange(START, END - 1)
        meter = dice.choice(["compute.vcpu", "compute.memory", "compute.disk"])
        dimensions = dict.fromkeys(BUILT_IN[meter].dimensions, dice.choice(names))
        found.append(
            Interval(
                resource_kind=BUILT_IN[meter].resource_kind,
                resource_id=dice.choice(names) + str(dice.randrange(100)),
                project_id=dice.choice(["p", 'q"', "ü"]),
                meter=meter,
                dimensions=dimensions,
                value=dice.randrange(1, 64),
                start=start,
                end=start + 1 if dice.random() < 0.9 else dice.randrange(start, END),
                first_ordinal=2 * number + 1,
                last_ordinal=2 * number + 2,
            )
        )
    versions = {key: (meter,) for key, meter in BUILT_IN.items()}
    return Held(as_of=2 * count, versions=versions, runs=(), loose=tuple(found), facts=())


def past_of(held, state):
    return Past(
        ordinal=held.as_of, intervals=held.intervals, definitions=BUILT_IN, state=state, closings={}
    )


def of_rows(past):
    rows = month_rows(past, MONTH).rows["acme"]
    return draw_up(TERMS, MONTH, past.ordinal, rows, ())


def of_database(past, held, scratch):
    found = tally(scratch.db, held, past, MONTH)
    left = month_rows(only(held, past, found.left), MONTH).rows.get("acme", ())
    drawn = Drawn(scratch.db, found)
    return draw_up(
        TERMS, MONTH, past.ordinal, left, (), (), found.lines["acme"], found.versions["acme"], drawn
    )


def test_many_rows_of_whatever_name_have_the_bytes_of_the_ledger():
    held = holding(3 * BATCH_ROWS)
    past = past_of(held, priced(*RULES))

    with scratch_in(None) as scratch:
        found, wanted = of_database(past, held, scratch), of_rows(past)

        assert wanted.document.rows > 3 * BATCH_ROWS
        assert found.document == wanted.document
        assert found.digest() == wanted.digest()
        both = zip(found.numbered(), wanted.numbered(), strict=True)
        assert all(here == there for here, there in both)
        last = wanted.document.lines[-1].line
        assert list(found.numbered(last)) == list(wanted.numbered(last))


def test_a_month_that_did_not_fit_while_it_was_summed_up_is_drawn_up():
    held = holding(20_000)
    past = past_of(held, priced(*RULES))
    with scratch_in(None) as scratch:
        scratch.db.execute("SET memory_limit = '28MiB'")
        found = of_database(past, held, scratch)
        assert list(scratch.directory.glob("*.tmp")), "it has spilled"
        assert found.digest() == of_rows(past).digest()


def test_two_readers_do_not_disturb_each_other():
    held = holding(50)
    past = past_of(held, priced(*RULES))
    with scratch_in(None) as scratch:
        found = of_database(past, held, scratch)
        wanted = list(found.numbered())
        assert list(zip(found.numbered(), found.numbered(), strict=True)) == list(
            zip(wanted, wanted, strict=True)
        )


def test_amounts_larger_than_64_bits_are_drawn_up_too():
    """The sums fit into what was reckoned with first, what a discount is taken off does not."""
    rules = (
        PriceRule(sku="s", meter="compute.vcpu", unit="Core-Hours", price="987654321.987654321"),
    )
    held = holding(30)
    past = past_of(held, priced(*rules))
    with scratch_in(None) as scratch:
        found, wanted = of_database(past, held, scratch), of_rows(past)
        assert found.digest() == wanted.digest()


def test_what_was_worked_out_is_thrown_away(tmp_path):
    held = holding(50)
    past = past_of(held, priced(*RULES))
    with scratch_in(tmp_path / "scratch") as scratch:
        of_database(past, held, scratch).digest()
        assert list(scratch.directory.iterdir())
        assert scratch.directory.stat().st_mode & 0o077 == 0, "others may not look"
    assert list((tmp_path / "scratch").iterdir()) == []

    (tmp_path / "scratch" / "of-the-dead").mkdir()
    forget(tmp_path / "scratch")
    forget(tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_a_full_disk_is_told_of(monkeypatch):
    held = holding(40_000)
    past = past_of(held, priced(*RULES))
    with scratch_in(None) as scratch:
        found = of_database(past, held, scratch)
        # Little memory, and no room to put what does not fit.
        monkeypatch.setattr("projections.drawn.MEMORY_LIMIT", "4MiB")
        scratch.db.execute("SET max_temp_directory_size = '0KiB'")
        with pytest.raises(Unavailable, match="rows of a month cannot be worked out on this disk"):
            found.digest()


def test_rows_are_read_only_while_the_books_are_open():
    held = holding(5)
    past = past_of(held, priced(*RULES))
    with scratch_in(None) as scratch:
        found = of_database(past, held, scratch)
    with pytest.raises(duckdb.ConnectionException):
        found.digest()
    assert not Path(scratch.directory).exists()
