"""Charts: the same numbers give the same picture, in a terminal and in a file."""

from decimal import Decimal

import pytest

from cli.chart import Bars, save, show
from cli.problem import Problem


@pytest.fixture
def bars():
    made = Bars("Cost by day, meter", "EUR")
    made.add("2026-11-01", "compute.vcpu", Decimal("3.5"))
    made.add("2026-11-01", "compute.disk", Decimal("0.5"))
    made.add("2026-11-02", "compute.vcpu", Decimal(2))
    return made


def test_bars_are_as_long_as_their_amounts(bars):
    first, second = bars.lines()

    assert first.startswith("2026-11-01 ")
    assert first.endswith("4.0 EUR")
    assert first.count("█") == 2 * second.count("█") > 0


@pytest.mark.parametrize(("name", "begins"), [("c.svg", b"<?xml"), ("c.png", b"\x89PNG")])
def test_a_file_is_drawn_by_its_name_and_the_same_each_time(bars, tmp_path, name, begins):
    file = tmp_path / name
    save([bars], file)
    once = file.read_bytes()
    save([bars], file)

    assert once == file.read_bytes()
    assert once.startswith(begins)
    if name.endswith(".svg"):
        for text in (b"compute.vcpu", b"2026-11-02", b"EUR"):
            assert text in once


def test_several_charts_go_below_one_another(bars, tmp_path):
    other = Bars("Cost in dollars", "USD")
    other.add("2026-11-01", "", Decimal(1))

    save([bars, other], tmp_path / "c.svg")

    drawn = (tmp_path / "c.svg").read_text()
    assert "EUR" in drawn
    assert "USD" in drawn


def test_what_cannot_be_drawn_is_said(bars, tmp_path):
    with pytest.raises(Problem, match=r"\.svg, \.png"):
        save([bars], tmp_path / "c.gif")
    with pytest.raises(Problem, match="cannot write"):
        save([bars], tmp_path / "none" / "c.png")
    with pytest.raises(Problem, match="nothing to draw"):
        show([], plot=False, file=tmp_path / "c.png")


def test_names_are_no_formulas_and_do_not_steer_the_terminal(tmp_path):
    made = Bars("a $title$", "EUR")
    made.add("$\\frac{1$ \x1b[2J", "", Decimal(1))

    save([made], tmp_path / "c.svg")
    (line,) = made.lines()

    assert "\x1b" not in line
