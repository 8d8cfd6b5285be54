"""What a month will cost is what the bill of that month says."""

from decimal import Decimal

import pytest

from engine.dry_run import dry_run
from projections.bill import derive_bill
from projections.estimate import MONTH_HOURS, estimate
from projections.metering import intervals, usage
from schemas.compute import (
    ConfirmServerResize,
    CreateServer,
    DeleteServer,
    RebootServer,
    ResizeServer,
    RevertServerResize,
    StartServer,
    StopServer,
)
from schemas.envelope import Request, decode_commit
from schemas.image import CreateImage, DeleteImage, UploadImage
from schemas.network import CreateNetwork
from schemas.units import HOUR
from tests.projections.story import Story

MONTH = MONTH_HOURS * HOUR


@pytest.fixture
def story():
    story = Story()
    story.host()
    story.prices()
    story.flavor(vcpus=2, memory_mib=1536, disk_gib=7)
    story.image()
    return story


def tried(story, action, server=None):
    """Return what an action would cost."""
    request = Request(
        request_id=f"req-{story.new_id()}",
        actor=story.admin,
        action=action,
        submitted_at=story.now,
    )
    shown = dry_run(story.cell, request, now=story.now, new_id=story.new_id)
    state = story.cell.state
    images = state.images.values()
    return estimate(
        shown.facts, state.servers.get(server or ""), images, shown.price_list, shown.at
    )


def billed(story, kind, start, end):
    """Return what a bill has for one kind of resource."""
    facts = []
    for _, data in story.commits:
        commit = decode_commit(data)
        ordinal = commit.first
        for record in commit.records:
            facts += [(ordinal + n, commit.at, fact) for n, fact in enumerate(record.facts, 1)]
            ordinal += 1 + len(record.facts)
    rows = [r for r in usage(intervals(facts), start, end) if r.resource_kind == kind]
    bill = derive_bill("p", rows, story.cell.state.price_lists["standard"], start, end)
    return Decimal(bill.subtotal)


def create(story, **fields):
    flavor = next(iter(story.cell.state.flavors))
    image = next(iter(story.cell.state.images))
    return CreateServer(**{"name": "web", "flavor_id": flavor, "image_id": image, **fields})


def meters(found):
    return {line.meter: line.amount for line in found.lines}


def test_a_server_costs_what_a_month_of_it_will_be_billed(story):
    found = tried(story, create(story))

    story.server(story.admin)
    start = story.now
    assert Decimal(found.added) == billed(story, "server", start, start + MONTH) > 0
    assert set(meters(found)) == {"compute.vcpu", "compute.memory", "compute.disk"}
    assert (found.currency, found.hours, found.saved) == ("EUR", 730, "0")
    assert (found.price_list, found.price_list_version) == ("standard", 1)


def test_a_disk_as_large_as_its_image_costs_as_much(story):
    flavor = story.flavor(name="any", disk_gib=0)

    found = tried(story, create(story, flavor_id=flavor))

    story.server(story.admin, flavor_id=flavor)
    assert Decimal(found.added) == billed(story, "server", story.now, story.now + MONTH)


def test_a_server_that_finds_no_host_costs_nothing(story):
    found = tried(story, create(story, flavor_id=story.flavor(name="huge", vcpus=99)))

    assert (found.added, found.lines) == ("0", ())


def test_stopping_saves_and_starting_adds_what_runs_but_not_the_disk(story):
    server = story.server(story.admin)

    stopping = tried(story, StopServer(server_id=server), server)
    story.stop(story.admin, server)
    starting = tried(story, StartServer(server_id=server), server)
    again = tried(story, RebootServer(server_id=server, hard=True), server)

    assert set(meters(stopping)) == {"compute.vcpu", "compute.memory"}
    assert (stopping.added, starting.saved) == ("0", "0")
    assert stopping.saved == starting.added == again.added
    assert all(amount.startswith("-") for amount in meters(stopping).values())


def test_a_reboot_changes_no_cost(story):
    server = story.server(story.admin)

    assert tried(story, RebootServer(server_id=server), server).lines == ()


def test_a_resize_costs_what_is_more_of_it_and_a_revert_saves_that(story):
    server = story.server(story.admin)
    small = tried(story, create(story))
    large = story.flavor(name="large", vcpus=4, memory_mib=1536, disk_gib=9)
    resize = ResizeServer(server_id=server, flavor_id=large)

    growing = tried(story, resize, server)
    story.report(story.ok(story.admin, resize)["operation_id"], running=True)
    keeping = tried(story, ConfirmServerResize(server_id=server), server)
    shrinking = tried(story, RevertServerResize(server_id=server), server)

    more = tried(story, create(story, flavor_id=large))
    assert set(meters(growing)) == {"compute.vcpu", "compute.disk"}
    assert Decimal(growing.added) - Decimal(growing.saved) == (
        Decimal(more.added) - Decimal(small.added)
    )
    assert (shrinking.added, shrinking.saved) == (growing.saved, growing.added)
    assert keeping.lines == ()


def test_deleting_saves_all_of_it(story):
    created = tried(story, create(story))
    server = story.server(story.admin)

    assert tried(story, DeleteServer(server_id=server), server).saved == created.added


def test_an_image_costs_its_bytes_while_it_is_there(story):
    image = story.ok(story.admin, CreateImage(disk_format="raw"))["image_id"]
    content = {"size_bytes": 3 * 2**30, "md5": "0" * 32, "sha512": "0" * 128}
    upload = UploadImage(image_id=image, blob_id="b", **content)
    before = billed(story, "image", story.now, story.now + MONTH)

    found = tried(story, upload)

    story.report(story.ok(story.admin, upload)["operation_id"], virtual_size_bytes=2**32)
    after = billed(story, "image", story.now, story.now + MONTH)
    assert Decimal(found.added) == after - before > 0
    assert tried(story, DeleteImage(image_id=image)).saved == found.added


def test_what_is_not_metered_costs_nothing(story):
    assert tried(story, CreateNetwork(name="n")).added == "0"


def test_without_a_price_list_there_is_no_cost(story):
    story.cell.state.price_lists.clear()

    assert tried(story, create(story)) is None


def test_the_version_in_force_counts_not_one_to_come(story):
    now = tried(story, create(story))
    story.prices(factor=10, valid_from=story.now + HOUR)

    assert tried(story, create(story)).added == now.added
    story.later(2 * HOUR)
    assert Decimal(tried(story, create(story)).added) == 10 * Decimal(now.added)
