"""Metering: each interval is what the facts say, and sums are exact however they are cut."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.metering import Interval, intervals, usage
from schemas import compute as c
from schemas import image as i
from schemas.envelope import decode_commit, fact_types
from schemas.metering import BUILT_IN, MeterDefinition, MeterRule, Source
from schemas.paths import leaf
from tests.projections import by_hand
from tests.projections.story import a_small_story

FLAVOR = c.Flavor(flavor_id="f", name="f", vcpus=2, memory_mib=512, disk_gib=10)
IMAGE = i.Image(
    image_id="img",
    name="tiny",
    project_id="p",
    user_id="u",
    disk_format="qcow2",
    created_at=0,
    updated_at=0,
)


def a_server(server_id="s", flavor=FLAVOR, image_id="img"):
    return c.Server(
        server_id=server_id,
        name="s",
        project_id="p",
        user_id="u",
        flavor=flavor,
        image_id=image_id,
        created_at=0,
        updated_at=0,
    )


CREATED = c.ServerCreated(server=a_server())


def started(at, boot=1):
    return c.ServerStarted(server_id="s", boot=boot, observed_at=at)


def stopped(at, cause="request"):
    return c.ServerStopped(server_id="s", boot=1, cause=cause, observed_at=at)


def deleted(at):
    return c.ServerDeleted(server_id="s", observed_at=at)


def rebooted(at):
    return c.ServerRebooted(server_id="s", boot=2, observed_at=at)


def task_failed(running):
    return c.ServerTaskFailed(server_id="s", running=running, message="no")


FAILED = c.ServerFailed(server_id="s", code=500, message="no")


def spans(facts, meter):
    """The (start, end) of one meter; facts have their place as ordinal and 100 each as time."""
    numbered = [(n, n * 100, fact) for n, fact in enumerate(facts, 1)]
    return [(x.start, x.end) for x in intervals(numbered) if x.meter == meter]


@pytest.mark.parametrize(
    ("facts", "running", "disk"),
    [
        ([CREATED], [], []),
        ([CREATED, FAILED], [], []),  # a create that failed never opens one
        ([CREATED, started(150)], [(150, None)], [(150, None)]),
        ([CREATED, started(150), stopped(250)], [(150, 250)], [(150, None)]),
        (
            [CREATED, started(150), stopped(250), started(350), deleted(450)],
            [(150, 250), (350, 450)],
            [(150, 450)],
        ),
        ([CREATED, started(150), rebooted(250), stopped(350)], [(150, 350)], [(150, None)]),
        ([CREATED, started(150), FAILED, deleted(400)], [(150, 300)], [(150, 300)]),
        ([CREATED, started(150), task_failed(running=True)], [(150, None)], [(150, None)]),
        ([CREATED, started(150), task_failed(running=False)], [(150, 300)], [(150, None)]),
        # A start that failed and yet runs is metered from the commit's time on.
        (
            [CREATED, started(150), stopped(250), task_failed(running=True)],
            [(150, 250), (400, None)],
            [(150, None)],
        ),
        ([CREATED, started(150), stopped(150)], [(150, 150)], [(150, None)]),  # kept
        ([CREATED, started(150), started(250, boot=2)], [(150, None)], [(150, None)]),
        # A clock that went back: an interval cannot end before it began, nor overlap the last.
        ([CREATED, started(150), stopped(100)], [(150, 150)], [(150, None)]),
        (
            [CREATED, started(150), stopped(300), started(200)],
            [(150, 300), (300, None)],
            [(150, None)],
        ),
        ([CREATED, deleted(150)], [], []),
    ],
)
def test_servers(facts, running, disk):
    assert spans(facts, "compute.vcpu") == running
    assert spans(facts, "compute.memory") == running
    assert spans(facts, "compute.disk") == disk


def test_an_intervals_ordinals_are_the_facts_that_bound_it():
    found = intervals([(5, 0, CREATED), (9, 0, started(10)), (14, 0, stopped(30))])

    assert {x.meter: (x.first_ordinal, x.last_ordinal) for x in found} == {
        "compute.vcpu": (9, 14),
        "compute.memory": (9, 14),
        "compute.disk": (9, None),
        "compute.instance": (9, None),
    }


def test_values_are_those_of_the_flavor():
    found = intervals([(1, 0, CREATED), (2, 0, started(10))])

    assert {x.meter: x.value for x in found} == {
        "compute.vcpu": 2,
        "compute.memory": 512,
        "compute.disk": 10,
        "compute.instance": 1,
    }
    assert {x.dimensions["flavor"] for x in found} == {"f"}


def test_a_flavor_without_a_disk_takes_the_images_rounded_up():
    flavor = msgspec.structs.replace(FLAVOR, disk_gib=0)
    facts = [
        i.ImageCreated(image=IMAGE),
        i.ImageUploaded(
            image_id="img", operation_id="o", blob_id="b", size_bytes=7, md5="", sha512=""
        ),
        i.ImageActivated(image_id="img", virtual_size_bytes=2**30 + 1),
        c.ServerCreated(server=a_server(flavor=flavor)),
        started(500),
    ]

    found = intervals((n, n * 100, fact) for n, fact in enumerate(facts, 1))

    assert next(x.value for x in found if x.meter == "compute.disk") == 2


def test_images_are_metered_while_active():
    uploaded = i.ImageUploaded(
        image_id="img", operation_id="o", blob_id="b", size_bytes=7, md5="", sha512=""
    )
    facts = [
        i.ImageCreated(image=IMAGE),
        uploaded,
        i.ImageRejected(image_id="img", blob_id="b", reason="no"),
        uploaded,
        i.ImageActivated(image_id="img", virtual_size_bytes=1),
        i.ImageUpdated(image=msgspec.structs.replace(IMAGE, size_bytes=7, name="other")),
        i.ImageDeleted(image_id="img", blob_id="b"),
    ]

    (found,) = intervals((n, n * 100, fact) for n, fact in enumerate(facts, 1))

    assert found == Interval(
        resource_kind="image",
        resource_id="img",
        project_id="p",
        meter="image.size",
        value=7,
        start=500,
        end=700,
        first_ordinal=5,
        last_ordinal=7,
    )


@pytest.mark.parametrize(
    ("start", "end", "row"),
    [
        (0, 1000, (100, 300, 1, 2)),
        (100, 300, (100, 300, 1, 2)),
        (150, 200, (150, 200, 1, 1)),  # it goes on beyond: nothing in the window ended it
        (0, 200, (100, 200, 1, 1)),
        (200, 1000, (200, 300, 1, 2)),
        (0, 100, None),
        (300, 400, None),
    ],
)
def test_windows_cut_intervals(start, end, row):
    interval = Interval(
        resource_kind="server",
        resource_id="s",
        project_id="p",
        meter="compute.vcpu",
        value=3,
        start=100,
        end=300,
        first_ordinal=1,
        last_ordinal=2,
    )

    rows = [
        (u.start, u.end, u.first_ordinal, u.last_ordinal) for u in usage([interval], start, end)
    ]

    assert rows == ([] if row is None else [row])
    assert list(usage([interval], start, end, "other")) == []


def test_a_row_does_not_change_when_what_it_measured_goes_on():
    """Asked in the past and asked again later, a closed window has the same rows."""
    opened = [(1, 0, CREATED), (2, 0, started(100))]

    before = list(usage(intervals(opened), 0, 200))
    after = list(usage(intervals([*opened, (3, 900, stopped(800))]), 0, 200))

    assert before == after


@st.composite
def histories(draw):
    """Facts about three servers in any order that the decider could have made, and some more."""
    facts = [c.ServerCreated(server=a_server(f"s{n}")) for n in range(3)]
    alive = {f"s{n}" for n in range(3)}
    at = 0
    result = [(n, at, fact) for n, fact in enumerate(facts, 1)]
    for _ in range(draw(st.integers(0, 25))):
        at += draw(st.integers(0, 1000))
        server_id = draw(st.sampled_from(["s0", "s1", "s2"]))
        if server_id not in alive:
            continue
        observed = max(0, at - draw(st.integers(0, 500)))
        kind = draw(
            st.sampled_from(["start", "stop", "reboot", "resize", "task", "fail", "delete"])
        )
        fact = {
            "start": c.ServerStarted(server_id=server_id, boot=1, observed_at=observed),
            "stop": c.ServerStopped(
                server_id=server_id, boot=1, cause="guest", observed_at=observed
            ),
            "reboot": c.ServerRebooted(server_id=server_id, boot=1, observed_at=observed),
            "resize": c.ServerResized(
                server_id=server_id,
                flavor=msgspec.structs.replace(
                    a_server().flavor, name=f"f{len(result)}", vcpus=draw(st.integers(1, 9))
                ),
                disk_gib=draw(st.integers(1, 9)),
                boot=1,
                running=True,
                observed_at=observed,
            ),
            "task": c.ServerTaskFailed(
                server_id=server_id, running=draw(st.booleans()), message=""
            ),
            "fail": c.ServerFailed(server_id=server_id, code=500, message=""),
            "delete": c.ServerDeleted(server_id=server_id, observed_at=observed),
        }[kind]
        if kind == "delete":
            alive.discard(server_id)
        result.append((len(result) + 1, at, fact))
    return result


def sums(held, start, end):
    totals = {}
    for row in usage(held, start, end):
        key = row.resource_id, row.meter
        totals[key] = totals.get(key, 0) + row.quantity
    return {key: total for key, total in totals.items() if total}


@given(histories(), st.lists(st.integers(0, 30_000), min_size=2, max_size=6))
def test_splitting_a_window_never_changes_a_sum(history, cuts):
    held = intervals(history)
    cuts = sorted(cuts)

    whole = sums(held, cuts[0], cuts[-1])
    parts = {}
    for start, end in pairwise(cuts):
        for key, total in sums(held, start, end).items():
            parts[key] = parts.get(key, 0) + total

    assert parts == whole


@given(histories())
def test_intervals_of_a_meter_never_overlap(history):
    last = {}
    for interval in intervals(history):
        key = interval.resource_id, interval.meter
        assert interval.start >= last.get(key, 0)
        assert interval.end is None or interval.end >= interval.start
        assert key not in last or last[key] is not None
        last[key] = interval.end if interval.end is not None else 2**60


@given(histories())
def test_the_same_facts_give_the_same_intervals(history):
    assert intervals(history) == intervals(list(history))


@given(histories())
def test_time_held_is_time_metered(history):
    """The integral equals what a clock that ticks once a microsecond would count."""
    held = [x for x in intervals(history) if x.meter == "compute.vcpu"]
    points = sorted(
        {x.start for x in held} | {x.end for x in held if x.end is not None} | {0, 40_000}
    )

    ticked = sum(
        x.value * (end - start)
        for start, end in pairwise(points)
        for x in held
        if x.start <= start and (x.end is None or x.end >= end)
    )

    assert ticked == sum(row.quantity for row in usage(held, 0, 40_000))


@given(histories())
def test_meters_as_data_give_what_the_same_meters_written_by_hand_give(history):
    found = [x for x in intervals(history) if x.meter != "compute.instance"]

    assert [
        (x.resource_id, x.meter, x.value, x.start, x.end, x.first_ordinal, x.last_ordinal)
        for x in found
    ] == by_hand.intervals(history)


@pytest.mark.parametrize("meter", BUILT_IN.values(), ids=list(BUILT_IN))
def test_rules_read_what_facts_have(meter):
    for rule in meter.rules:
        of = fact_types()[rule.fact]
        assert leaf(of, rule.resource) == "text"
        assert not rule.project or leaf(of, rule.project) == "text"
        assert not rule.at or leaf(of, rule.at) == "number"
        for source in rule.value:
            assert not source.path or leaf(of, source.path) == "number"
            assert not source.noted_of or leaf(of, source.noted_of) == "text"
        assert all(leaf(of, path) == "text" for path in rule.dimensions.values())
        assert all(leaf(of, each.path) for each in rule.when)


def a_meter(*rules, **fields):
    fields = {"aggregation": "integral", "unit": "Hours", "base_unit": "us", **fields}
    return MeterDefinition(
        key="own.meter", resource_kind="server", base_per_unit=1, rules=rules, **fields
    )


OWNED = MeterRule(
    fact="compute.server.created.v1",
    effect="set",
    resource="server.server_id",
    project="server.project_id",
)
CHANGES = MeterRule(
    fact="image.image.updated.v1",
    effect="open",
    resource="image.image_id",
    project="image.project_id",
    value=(Source(path="image.min_disk_gib"),),
    dimensions={"visibility": "image.visibility", "colour": "image.properties.colour"},
)


def updated(**fields):
    return i.ImageUpdated(image=msgspec.structs.replace(IMAGE, **fields))


def test_what_changes_while_it_is_held_is_cut_without_gap_or_overlap():
    facts = [
        updated(min_disk_gib=2),
        updated(min_disk_gib=2, name="other"),  # which changes nothing that is metered
        updated(min_disk_gib=5),
        updated(min_disk_gib=5, visibility="public", properties={"colour": "red"}),
        updated(min_disk_gib=5, visibility="public", project_id="q"),
        updated(min_disk_gib=0, project_id="q"),
    ]

    found = intervals([(n, n * 100, fact) for n, fact in enumerate(facts, 1)], [a_meter(CHANGES)])

    assert [(x.start, x.end, x.value, x.project_id, x.dimensions) for x in found] == [
        (100, 300, 2, "p", {"colour": "", "visibility": "shared"}),
        (300, 400, 5, "p", {"colour": "", "visibility": "shared"}),
        (400, 500, 5, "p", {"colour": "red", "visibility": "public"}),
        (500, 600, 5, "q", {"colour": "", "visibility": "public"}),
    ]
    assert [(x.first_ordinal, x.last_ordinal) for x in found] == [(1, 3), (3, 4), (4, 5), (5, 6)]


def test_a_meter_that_keeps_zero_goes_on_when_nothing_is_left():
    facts = [(1, 100, updated(min_disk_gib=2)), (2, 200, updated(min_disk_gib=0))]

    found = intervals(facts, [a_meter(CHANGES, keeps_zero=True)])

    assert [(x.start, x.end, x.value) for x in found] == [(100, 200, 2), (200, None, 0)]


def counted(aggregation, **fields):
    """Rows of a meter over starts of two servers: boots 1, 3 and 2 of one, 7 of the other."""
    rule = MeterRule(
        fact="compute.server.started.v1",
        effect="add",
        resource="server_id",
        at="observed_at",
        **fields,
    )
    facts = [CREATED, c.ServerCreated(server=a_server("t"))]
    facts += [started(100, boot=1), started(200, boot=3), started(300, boot=2)]
    facts += [c.ServerStarted(server_id="t", boot=7, observed_at=250), stopped(400)]
    numbered = [(n, 1000, fact) for n, fact in enumerate(facts, 1)]
    held = intervals(numbered, [a_meter(OWNED, rule, aggregation=aggregation)])
    return [
        (u.resource_id, u.quantity, u.start, u.end, u.first_ordinal, u.last_ordinal)
        for u in usage(held, 100, 300)
    ]


def test_what_is_counted_is_a_point():
    assert counted("count") == [("s", 1, 100, 100, 3, 3), ("s", 1, 200, 200, 4, 4),
                                ("t", 1, 250, 250, 6, 6)]  # fmt: skip
    assert [row[1] for row in counted("sum", value=(Source(path="boot"),))] == [1, 3, 7]


@pytest.mark.parametrize(
    ("aggregation", "fields", "quantity"),
    [
        ("max", {"value": (Source(path="boot"),)}, 3),
        ("min", {"value": (Source(path="boot"),)}, 1),
        ("latest", {"value": (Source(path="boot"),)}, 3),
        ("unique_count", {"unique": "server_id"}, 1),
    ],
)
def test_what_does_not_add_up_is_one_row_of_a_resource(aggregation, fields, quantity):
    assert counted(aggregation, **fields) == [
        ("s", quantity, 100, 200, 3, 4),
        ("t", 7 if "value" in fields else 1, 250, 250, 6, 6),
    ]


def test_a_meter_does_not_depend_on_which_others_there_are():
    story = a_small_story()
    facts = list(facts_of(story))

    together = intervals(facts)
    alone = [x for meter in BUILT_IN.values() for x in intervals(facts, [meter])]

    assert sorted(map(repr, together)) == sorted(map(repr, alone))


def test_what_nobody_owns_is_not_metered():
    rule = MeterRule(
        fact="compute.server.started.v1",
        effect="open",
        resource="server_id",
        value=(Source(constant=1),),
    )

    assert intervals([(1, 0, started(1))], [a_meter(rule)]) == []


def test_each_version_of_a_meter_measures_its_time():
    first = a_meter(
        OWNED,
        MeterRule(fact="compute.server.started.v1", effect="open", resource="server_id"),
        MeterRule(fact="compute.server.deleted.v1", effect="end", resource="server_id"),
        valid_until=350,
    )
    second = msgspec.structs.replace(
        first,
        version=2,
        rules=(*first.rules, MeterRule(fact="compute.server.stopped.v1", effect="close",
                                       resource="server_id")),
        valid_from=350,
        valid_until=None,
    )  # fmt: skip
    facts = [CREATED, started(0), stopped(0), started(0), stopped(0), started(0), deleted(0)]

    numbered = [(n, n * 100, fact) for n, fact in enumerate(facts, 1)]
    held = intervals(numbered, [first, second])

    # The first holds a server while it is there, the second while it runs.
    assert [(x.meter_version, x.start, x.end, x.first_ordinal, x.last_ordinal) for x in held] == [
        (1, 200, 350, 2, 2),  # ended by no fact
        (2, 400, 500, 4, 5),
        (2, 600, 700, 6, 7),
    ]
    assert [x.meter_version for x in intervals(numbered, [first])] == [1]


def test_one_version_goes_on_where_another_ended():
    rule = MeterRule(fact="compute.server.started.v1", effect="open", resource="server_id")
    first = a_meter(OWNED, rule, valid_until=350)
    second = msgspec.structs.replace(first, version=2, valid_from=350, valid_until=None)

    held = intervals([(1, 100, CREATED), (2, 200, started(0))], [first, second])

    assert [(x.meter_version, x.start, x.end) for x in held] == [(1, 200, 350), (2, 350, None)]
    assert sum(u.quantity for u in usage(held, 0, 1000)) == 800


def facts_of(story):
    for _, data in story.commits:
        commit = decode_commit(data)
        ordinal = commit.first
        for record in commit.records:
            for fact in record.facts:
                ordinal += 1
                yield ordinal, commit.at, fact
            ordinal += 1


def test_the_deciders_own_history_is_metered():
    """From the decider's records: one hour and a half of a server of one vCPU."""
    story = a_small_story()

    rows = [
        row
        for row in usage(intervals(facts_of(story)), 0, story.now, story.demo.project_id)
        if row.resource_id == story.second and row.meter == "compute.vcpu"
    ]

    (row,) = rows
    assert row.quantity // 1_000_000 == 5400
    assert row.last_ordinal > row.first_ordinal
