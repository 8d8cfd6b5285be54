"""W3C Trace Context, read strictly: what is malformed is as if it had not been sent."""

import re

import pytest

from schemas import trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"
REQUEST = "req-01932d3c-1111-7222-8333-444455556666"
OWN = "8333444455556666"


def test_a_request_without_a_trace_begins_one_named_by_its_own_id():
    assert trace.begun(REQUEST) == f"00-01932d3c111172228333444455556666-{OWN}-01"
    assert trace.trace_id(trace.begun(REQUEST)) == "01932d3c111172228333444455556666"


@pytest.mark.parametrize("request_id", ["req-1", "", "x" * 64, f"req-{'0' * 32}", "req-ABC"])
def test_any_id_names_a_valid_span(request_id):
    begun = trace.begun(request_id)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", begun)
    assert trace.continued([begun], REQUEST)


@pytest.mark.parametrize(
    ("sent", "flags"),
    [
        (GOOD, "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-03", "03"),
        (f"00-{TRACE}-{SPAN}-ff", "03"),  # flags that nobody knows are not passed on
        (f"cc-{TRACE}-{SPAN}-01", "01"),  # a later version is read as ours
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", "01"),
    ],
)
def test_a_trace_goes_on_with_a_span_of_our_own(sent, flags):
    assert trace.continued([sent], REQUEST) == f"00-{TRACE}-{OWN}-{flags}"


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [GOOD, GOOD],
        [""],
        [f"{GOOD}-more"],
        [f"{GOOD}\n"],
        [f" {GOOD}"],
        [GOOD.upper()],
        [f"ff-{TRACE}-{SPAN}-01"],
        [f"0-{TRACE}-{SPAN}-01"],
        [f"00-{'0' * 32}-{SPAN}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE[:-1]}-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}a-01"],
        [f"00-{TRACE}-{SPAN}-1"],
        [f"00-{TRACE}-{SPAN}"],
        [f"00_{TRACE}_{SPAN}_01"],
        [f"cc-{TRACE}-{SPAN}-01.more"],
        [f"00-{TRACE[:-1]}\N{SUPERSCRIPT TWO}-{SPAN}-01"],
        ["x" * 10_000],
    ],
)
def test_what_is_malformed_was_not_sent(sent):
    assert trace.continued(sent, REQUEST) == ""


def test_what_follows_has_the_trace_and_a_span_of_its_own():
    assert trace.child(GOOD, REQUEST) == f"00-{TRACE}-{OWN}-01"
    assert trace.child("", REQUEST) == ""
    assert trace.trace_id("") == ""


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [
        ([], ""),
        (["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (["rojo=1", "congo=2"], "rojo=1,congo=2"),
        (["rojo=1 ,\tcongo=2,,"], "rojo=1,congo=2"),
        (["fw529a3039@dt=FfIv"], "fw529a3039@dt=FfIv"),
        (["rojo=1,rojo=2"], ""),
        (["Rojo=1"], ""),
        (["rojo"], ""),
        (["rojo="], ""),
        (["rojo=a=b"], ""),
        (["rojo=\x01"], ""),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
        ([",".join(f"k{n}=v" for n in range(33))], ""),
        ([",".join(f"k{n}={'v' * 200}" for n in range(3))], ""),
    ],
)
def test_the_state_of_a_trace_is_passed_on_or_dropped_whole(sent, passed_on):
    assert trace.state(sent) == passed_on
