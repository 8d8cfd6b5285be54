"""What people give in files and as text."""

import pytest

from cli.fields import micros, read_fields
from cli.price_list import read_price_list
from cli.problem import Problem


def test_a_file_keeps_money_and_times_as_they_are_written(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("price: 0.10\nper: 1000\nfrom: 2026-10-15T00:00:00Z\nfree: [image.size]\n")

    assert read_fields(file, "PublishPriceList") == {
        "price": "0.10",
        "per": 1000,
        "from": "2026-10-15T00:00:00Z",
        "free": ["image.size"],
    }


def test_amounts_of_a_price_list_may_be_whole_numbers(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text(
        "rules:\n- {price: 1, per: 1000, included: 100, minimum: 5, maximum: 0.5}\n"
        "- {tiers: [{up_to: 10, price: 2}]}\n"
    )

    assert read_price_list(file)["rules"] == [
        {"price": "1", "per": 1000, "included": "100", "minimum": "5", "maximum": "0.5"},
        {"tiers": [{"up_to": "10", "price": "2"}]},
    ]


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "just words", "!!python/none"])
def test_a_file_without_fields_is_refused(tmp_path, text):
    file = tmp_path / "prices.yaml"
    file.write_text(text)

    with pytest.raises(Problem):
        read_fields(file, "PublishPriceList")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-02", 86_400_000_000),
        ("1970-01-01T01:00:00.000001+01:00", 1),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text, expected):
    assert micros(text) == expected


def test_what_is_no_time_is_refused():
    with pytest.raises(Problem, match="is no time"):
        micros("soon")
