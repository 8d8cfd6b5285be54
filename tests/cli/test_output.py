"""What commands print."""

import json

import pytest
import yaml

from cli.billing import summary
from cli.output import Output, cell, show_item, show_rows, table, when
from cli.problem import Problem
from cli.tree import Node, drawn

ROWS = [
    {"name": "web", "size": 3, "tags": ["a"]},
    {"name": "database", "size": None, "tags": []},
]


def test_a_table_is_aligned_plain_text(capsys):
    show_rows(Output.TABLE, ROWS, [("NAME", "name"), ("SIZE", "size"), ("TAGS", "tags")])

    assert capsys.readouterr().out == ('NAME      SIZE  TAGS\nweb       3     ["a"]\ndatabase\n')


def test_json_and_yaml_carry_whole_rows(capsys):
    show_rows(Output.JSON, ROWS, [("NAME", "name")])
    assert json.loads(capsys.readouterr().out) == ROWS

    show_rows(Output.YAML, ROWS, [("NAME", "name")])
    assert yaml.safe_load(capsys.readouterr().out) == ROWS


def test_an_item_is_a_field_a_line_and_whole_as_json(capsys):
    item = {"id": "1", "flavor": {"id": "42", "links": []}, "links": [1]}

    show_item(Output.TABLE, item)
    assert capsys.readouterr().out == "FIELD   VALUE\nid      1\nflavor  42\n"

    show_item(Output.JSON, item)
    assert json.loads(capsys.readouterr().out) == item


def test_an_item_tells_times_as_people_read_them(capsys):
    item = {"valid_from": 1_788_220_800_000_001, "since": 0, "issued_at": None, "at_most": 7}
    show_item(Output.TABLE, item)
    told = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line
    )
    assert told["valid_from"] == "2026-09-01T00:00:00.000001Z"
    assert (told["since"], told["at_most"]) == ("0", "7")

    show_item(Output.JSON, item)
    assert json.loads(capsys.readouterr().out) == item


def test_an_empty_list_is_a_heading_and_an_empty_json_list(capsys):
    show_rows(Output.TABLE, [], [("NAME", "name")])
    assert capsys.readouterr().out == "NAME\n"

    show_rows(Output.JSON, [], [("NAME", "name")])
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (0, "0"),
        ("two\nlines", "two\\nlines"),
        ({"a": "ü"}, '{"a": "ü"}'),
        ({}, ""),
    ],
)
def test_cells(value, text):
    assert cell(value) == text


def test_a_table_has_no_trailing_blanks():
    assert table(["A", "B"], [["", "x"], ["long", ""]]) == "A     B\n      x\nlong"


def test_times_are_told_to_the_microsecond_in_utc():
    assert when(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"
    assert when(0) == ""


def test_a_problem_is_one_line_with_what_why_next_and_the_request():
    problem = Problem("no room\nleft", hint="Delete something.", request_id="req-1")

    assert problem.line() == "no room left. Delete something. (req-1)"
    assert Problem("no (request id req-1)", request_id="req-1").line() == "no (request id req-1)"


def test_a_tree_shows_what_hangs_below_what():
    tree = Node("a", [Node("b", [Node("c"), Node("d")]), Node("e\x1b[2J", [Node("f")])])

    assert list(drawn(tree)) == [
        "a",
        "├─ b",
        "│  ├─ c",
        "│  └─ d",
        "└─ e\\x1b[2J",
        "   └─ f",
    ]


def test_a_bill_is_summed_up_by_its_own_sum_never_by_ours():
    quantity = {"quantity": "0.5", "unit": "Core-Hours", "meter": "compute.vcpu"}
    bill = {"subtotal": "0.3", "currency": "EUR", "lines": [{"quantities": [quantity]}]}

    assert summary({"bills": [bill]}) == "0.3 EUR for 0.5 Core-Hours vcpu"
    assert summary({"bills": []}) == "nothing yet"


def test_names_do_not_steer_the_terminal():
    assert cell("\x1b[2Jgone\r\n\u202e") == "\\x1b[2Jgone\\r\\n\\u202e"
    assert cell({"name": "\x9b2J"}) == '{"name": "\\x9b2J"}'
    assert cell("größe 中文") == "größe 中文"
