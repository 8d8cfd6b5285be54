"""Resizing a server: what its host and quotas hold meanwhile, and what comes of it."""

import pytest

from engine.domain.desired import desired_state
from engine.domain.index import index_of
from engine.domain.placement import disk_need_gib
from engine.domain.state import Usage
from schemas import compute as c
from schemas import operation as o
from schemas.compute import (
    ConfirmServerResize,
    CreateFlavor,
    DeleteServer,
    ResizeServer,
    RevertServerResize,
)
from schemas.quota import SetQuota
from tests.engine.world import SYSTEM, World


@pytest.fixture
def world() -> World:
    world = World()
    world.host()
    world.image()
    sizes = {"s": (1, 512, 2), "m": (2, 1024, 4), "tall": (1, 4096, 2), "thin": (4, 256, 2)}
    for name, (vcpus, memory_mib, disk_gib) in sizes.items():
        size = {"vcpus": vcpus, "memory_mib": memory_mib, "disk_gib": disk_gib}
        world.ok(world.admin, CreateFlavor(name=name, flavor_id=name, **size))
    return world


def a_server(world: World, flavor: str = "s", *, runs: bool = True) -> str:
    server = world.server(world.admin, flavor_id=flavor)
    if not runs:
        world.ok(world.admin, c.StopServer(server_id=server))
        report(world, running=False)
    return server


def report(world: World, **fields) -> None:
    (operation,) = world.cell.state.operations
    world.report(operation, **fields)


def resized(world: World, server: str, flavor: str = "m") -> None:
    world.ok(world.admin, ResizeServer(server_id=server, flavor_id=flavor))
    report(world, running=world.cell.state.servers[server].power_state == 1)


def held(world: World) -> tuple[Usage, dict[str, int]]:
    """Return what the host and the project hold, which is what counting anew gives."""
    index, anew = world.cell.index, index_of(world.cell.state)
    assert (index.usage, index.host_usage) == (anew.usage, anew.host_usage)
    usage = index.usage[world.admin.project_id]
    return index.host_usage["host-1"], {n: usage[n] for n in ("vcpus", "memory_mib", "disk_gib")}


def spec(world: World):
    (one,) = desired_state(world.cell, "host-1").servers
    return one.server.flavor.name, one.wanted, one.resize, one.revertible


def seen(world: World, server: str):
    now = world.cell.state.servers[server]
    return now.status, now.vm_state, now.task_state, now.power_state, now.flavor.name


@pytest.mark.parametrize("runs", [True, False])
def test_it_is_verified_and_confirmed_in_the_state_it_was_in(world, runs):
    server = a_server(world, runs=runs)
    power, status = (1, "ACTIVE") if runs else (4, "SHUTOFF")
    wanted = "running" if runs else "stopped"

    world.ok(world.admin, ResizeServer(server_id=server, flavor_id="m"))
    boot = world.cell.state.servers[server].boot

    assert seen(world, server)[::2] == ("RESIZE", "resize_prep", "s")
    assert spec(world) == ("m", wanted, boot, True)
    report(world, running=runs)
    assert seen(world, server) == ("VERIFY_RESIZE", "resized", None, power, "m")
    assert spec(world) == ("m", wanted, boot, True)
    assert held(world) == (
        Usage(vcpus=2, memory_mib=1024, disk_gib=6),  # both disks are there
        {"vcpus": 2, "memory_mib": 1024, "disk_gib": 4},
    )
    world.ok(world.admin, ConfirmServerResize(server_id=server))
    assert seen(world, server)[::4] == (status, "m")
    assert spec(world) == ("m", wanted, boot, False)
    assert held(world)[0] == Usage(vcpus=2, memory_mib=1024, disk_gib=4)


@pytest.mark.parametrize("runs", [True, False])
def test_a_revert_brings_all_back(world, runs):
    server = a_server(world, runs=runs)
    before = held(world)
    resized(world, server)

    world.ok(world.admin, RevertServerResize(server_id=server))

    assert seen(world, server)[::2] == ("REVERT_RESIZE", "resize_reverting", "m")
    assert spec(world) == ("s", "running" if runs else "stopped", 0, False)
    report(world, running=runs)
    assert seen(world, server)[::4] == ("ACTIVE" if runs else "SHUTOFF", "s")
    assert held(world) == before


def test_until_it_is_settled_the_larger_of_each_is_held(world):
    server = a_server(world, "tall")

    world.ok(world.admin, ResizeServer(server_id=server, flavor_id="thin"))

    most = {"vcpus": 4, "memory_mib": 4096, "disk_gib": 2}
    assert held(world) == (Usage(**most), most)
    report(world)
    assert held(world) == (Usage(**most), most)
    world.ok(world.admin, ConfirmServerResize(server_id=server))
    assert held(world)[1] == {"vcpus": 4, "memory_mib": 256, "disk_gib": 2}


@pytest.mark.parametrize("running", [True, False])
def test_a_resize_that_fails_leaves_what_was(world, running):
    """What the host may have started for it has an older number than what shall be."""
    server = a_server(world)
    before = held(world)
    world.ok(world.admin, ResizeServer(server_id=server, flavor_id="m"))
    boot = world.cell.state.servers[server].boot

    report(world, succeeded=False, cause="no room", running=running)

    assert seen(world, server)[::4] == ("ACTIVE" if running else "SHUTOFF", "s")
    assert spec(world) == ("s", "running" if running else "stopped", 0, False)
    assert world.cell.state.servers[server].boot > boot
    assert held(world) == before


def test_a_revert_that_nobody_reports_on_can_be_asked_for_again(world):
    server = a_server(world)
    resized(world, server)
    reply = world.ok(world.admin, RevertServerResize(server_id=server))
    operation = world.cell.state.operations[reply["operation_id"]]
    world.now = operation.deadline

    world.ok(SYSTEM, o.PassDeadline(operation_id=operation.operation_id, generation=1))

    assert seen(world, server) == ("VERIFY_RESIZE", "resized", None, 1, "m")
    world.ok(world.admin, RevertServerResize(server_id=server))
    report(world)
    assert seen(world, server)[::4] == ("ACTIVE", "s")


def test_a_guest_that_ends_while_it_is_verified_leaves_it_to_be_verified(world):
    server = a_server(world)
    resized(world, server)
    boot = world.cell.state.servers[server].boot
    off = c.ReportServerState(server_id=server, boot=boot, running=False, observed_at=world.now)

    world.ok(world.agent(), off)

    assert seen(world, server) == ("VERIFY_RESIZE", "resized", None, 4, "m")
    world.ok(world.admin, ConfirmServerResize(server_id=server))
    assert seen(world, server)[0] == "SHUTOFF"


def test_deleting_lets_go_of_all_that_a_resize_holds(world):
    server = a_server(world)
    resized(world, server)

    world.ok(world.admin, DeleteServer(server_id=server))
    report(world, running=False)

    assert world.cell.index.host_usage["host-1"] == Usage()
    assert "vcpus" not in world.cell.index.usage[world.admin.project_id]


@pytest.mark.parametrize(
    ("flavor", "code", "says"),
    [
        ("m", "InvalidInput", "already"),
        ("none", "UnknownReference", "no flavor"),
        ("s", "InvalidInput", "disks do not shrink"),
        ("image", "InvalidInput", "without one"),
        ("huge", "Conflict", "a server stays on its host"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(world, flavor, code, says):
    server = a_server(world, "m")
    for name, vcpus, disk_gib in (("image", 2, 0), ("huge", 10_000, 4)):
        size = {"vcpus": vcpus, "memory_mib": 512, "disk_gib": disk_gib}
        world.ok(world.admin, CreateFlavor(name=name, flavor_id=name, **size))
    world.without_quotas()

    refusal = world.refused(world.admin, ResizeServer(server_id=server, flavor_id=flavor))

    assert refusal.code == code
    assert says in refusal.reason


def test_a_quota_counts_the_larger_flavor(world):
    server = a_server(world)
    limit = SetQuota(project_id=world.admin.project_id, limits={"vcpus": 1})
    world.ok(world.admin, limit)

    refusal = world.refused(world.admin, ResizeServer(server_id=server, flavor_id="m"))

    assert refusal.code == "QuotaExceeded"
    world.ok(world.admin, ResizeServer(server_id=server, flavor_id="tall"))


@pytest.mark.parametrize("action", [ConfirmServerResize, RevertServerResize])
def test_only_what_was_resized_is_confirmed_or_reverted(world, action):
    server = a_server(world)

    assert world.refused(world.admin, action(server_id=server)).code == "IncorrectServerState"


def test_the_disk_of_a_flavor_without_one_is_the_images(world):
    world.ok(world.admin, CreateFlavor(name="image", flavor_id="image", vcpus=1, memory_mib=512))
    server = a_server(world, "image")
    (image,) = world.cell.state.images.values()

    resized(world, server)

    resize = world.cell.state.servers[server].resize
    assert resize.old_disk_gib == disk_need_gib(0, image.virtual_size_bytes)
    assert held(world)[0].disk_gib == 4 + 1
