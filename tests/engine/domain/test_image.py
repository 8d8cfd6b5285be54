"""Images, hosts and price lists: what is accepted, and what an executor's report makes of it."""

import pytest

from schemas.billing import PriceRule, PublishPriceList
from schemas.compute import CreateServer
from schemas.host import Capacity, MarkHost, RegisterHost
from schemas.image import CreateImage, DeleteImage, UpdateImage, UploadImage
from tests.engine.world import SYSTEM, World

RULES = tuple(
    PriceRule(sku=meter, meter=meter, unit=unit, price="0.01")
    for meter, unit in (
        ("compute.vcpu", "Core-Hours"),
        ("compute.memory", "GiB-Hours"),
        ("compute.disk", "GiB-Hours"),
        ("image.size", "GiB-Hours"),
    )
)


@pytest.fixture
def world() -> World:
    world = World()
    world.host()
    return world


def upload(world, image) -> dict:
    action = UploadImage(image_id=image, blob_id="b", size_bytes=1, md5="0" * 32, sha512="0" * 128)
    return world.ok(world.admin, action)


def test_bad_content_puts_the_image_back_and_says_why(world):
    image = world.ok(world.admin, CreateImage(disk_format="qcow2"))["image_id"]

    world.report(upload(world, image)["operation_id"], succeeded=False, cause="it is a raw disk")

    found = world.cell.state.images[image]
    assert (found.status, found.blob_id, found.message) == ("queued", None, "it is a raw disk")
    world.report(upload(world, image)["operation_id"], virtual_size_bytes=5)
    assert world.cell.state.images[image].status == "active"


def test_content_is_taken_once(world):
    image = world.image()
    action = UploadImage(image_id=image, blob_id="c", size_bytes=1, md5="0" * 32, sha512="0" * 128)

    assert world.refused(world.admin, action).code == "IncorrectImageState"


def test_deleting_while_checking_cancels_the_check(world):
    image = world.ok(world.admin, CreateImage(disk_format="raw"))["image_id"]
    operation = upload(world, image)["operation_id"]

    world.ok(world.admin, DeleteImage(image_id=image))

    assert world.cell.state.operations == {}
    assert world.report(operation).facts == ()


def test_public_images_are_for_administrators(world):
    member = world.member("m")
    public = CreateImage(disk_format="raw", visibility="public")

    assert world.refused(member, public).code == "Forbidden"
    shared = world.image()
    assert world.refused(member, DeleteImage(image_id=shared)).code == "Forbidden"
    own = world.image(member)
    update = UpdateImage(image_id=own, visibility="public")
    assert world.refused(member, update).code == "Forbidden"


def test_properties_are_bounded_together(world):
    """They are recorded whole with each change; a record that no commit holds ends the engine."""
    image = world.image(world.admin)
    half = {f"p{i}": "é" * 32_000 for i in range(4)}

    world.ok(world.admin, UpdateImage(image_id=image, properties=half))
    more = half | {f"q{i}": "é" * 32_700 for i in range(5)}
    assert world.refused(world.admin, UpdateImage(image_id=image, properties=more)).status == 400
    create = CreateImage(name="x", disk_format="raw", properties=more)
    assert world.refused(world.admin, create).status == 400


def test_a_protected_image_stays(world):
    image = world.image()
    world.ok(world.admin, UpdateImage(image_id=image, protected=True))

    assert world.refused(world.admin, DeleteImage(image_id=image)).code == "Forbidden"


def test_an_image_without_content_boots_nothing(world):
    flavor = world.flavor()
    image = world.ok(world.admin, CreateImage(disk_format="qcow2"))["image_id"]
    action = CreateServer(name="x", flavor_id=flavor, image_id=image)

    assert world.refused(world.admin, action).status == 400


def test_a_flavor_too_small_for_the_image_is_refused(world):
    flavor = world.flavor(disk_gib=1)
    image = world.image(min_memory_mib=4096)
    action = CreateServer(name="x", flavor_id=flavor, image_id=image)

    assert "4096" in world.refused(world.admin, action).reason


def test_a_host_registers_again_without_a_new_fact(world):
    host = world.cell.state.hosts["host-1"]
    action = RegisterHost(
        capacity=host.capacity,
        hypervisor=host.hypervisor,
        accelerator=host.accelerator,
        executors=host.executors,
    )

    assert world.submit(world.agent(), action).facts == ()
    bigger = RegisterHost(
        capacity=Capacity(vcpus=99, memory_mib=1, disk_gib=1),
        hypervisor="simulated",
        accelerator="none",
        executors=host.executors,
    )
    assert len(world.submit(world.agent(), bigger).facts) == 1


def test_a_silent_host_gets_no_servers(world):
    world.image()
    world.flavor()
    world.ok(SYSTEM, MarkHost(host_id="host-1", status="down"))

    server = world.cell.state.servers[world.server(world.admin, build=False)]

    assert "has not been heard of" in server.fault.message


def test_a_price_list_prices_every_meter_once(world):
    world.ok(world.admin, PublishPriceList(currency="EUR", rules=RULES))

    assert world.cell.state.price_lists["standard"][0].version == 1
    missing = PublishPriceList(currency="EUR", rules=RULES[:2])
    assert "no rule matches" in world.refused(world.admin, missing).reason
    twice = PublishPriceList(currency="EUR", rules=(*RULES, RULES[0]))
    assert "two rules match" in world.refused(world.admin, twice).reason
    other = PublishPriceList(currency="USD", rules=RULES)
    assert world.refused(world.admin, other).code == "InvalidInput"
    earlier = PublishPriceList(currency="EUR", rules=RULES, valid_from=1)
    assert world.refused(world.admin, earlier).code == "InvalidInput"


def test_the_content_of_one_image_is_not_taken_for_another(world):
    """Deleting one would delete the other's, and either's owner could read it."""
    private = world.image(world.member("owner"))
    thief = world.member("thief")
    image = world.ok(thief, CreateImage(name="x", disk_format="qcow2"))["image_id"]

    refusal = world.refused(
        thief,
        UploadImage(
            image_id=image,
            blob_id=world.cell.state.images[private].blob_id,
            size_bytes=10,
            md5="0" * 32,
            sha512="0" * 128,
        ),
    )

    assert refusal.code == "Conflict"
