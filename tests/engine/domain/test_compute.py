"""Servers: what may be asked of them in which state, and what follows."""

import msgspec
import pytest

from engine.domain.desired import desired_state
from schemas import compute as c
from schemas import operation as o
from schemas.compute import (
    CreateFlavor,
    CreateServer,
    DeleteServer,
    NetworkRequest,
    RebootServer,
    RenameServer,
    ReportServerState,
    StartServer,
    StopServer,
)
from schemas.network import CreatePort
from schemas.units import HOUR, MINUTE
from tests.engine.world import SECRET, World


@pytest.fixture
def world() -> World:
    world = World()
    world.host()
    world.flavor()
    world.image()
    return world


def facts_of(record) -> list[str]:
    return [type(f).__name__ for f in record.facts]


def test_a_server_is_placed_plugged_and_built(world):
    """One request finds a host, an address and an owner for the work."""
    network = world.network(world.admin)

    record = world.submit(
        world.admin,
        CreateServer(
            name="web",
            flavor_id=next(iter(world.cell.state.flavors)),
            image_id=next(iter(world.cell.state.images)),
        ),
    )

    assert facts_of(record) == [
        "ServerCreated",
        "ServerPlaced",
        "PortCreated",
        "ServerBuildStarted",
        "OperationStarted",
    ]
    server = world.cell.state.servers[record.verdict.reply["server_id"]]
    assert (server.status, server.task_state, server.host_id, server.boot) == (
        "BUILD",
        "spawning",
        "host-1",
        1,
    )
    port = world.cell.state.ports[server.port_ids[0]]
    assert port.network_id == network
    assert port.fixed_ips[0].ip_address == "10.0.0.3"  # .1 is the gateway, .2 serves DHCP


def test_a_report_makes_it_active_and_its_port_too(world):
    world.network(world.admin)

    server = world.cell.state.servers[world.server(world.admin)]

    assert (server.status, server.task_state, server.power_state) == ("ACTIVE", None, 1)
    assert world.cell.state.ports[server.port_ids[0]].status == "ACTIVE"
    assert world.cell.state.operations == {}


def test_without_room_the_fault_says_by_how_much(world):
    flavor = world.flavor(name="big", vcpus=4, memory_mib=9000, disk_gib=10)

    server = world.cell.state.servers[world.server(world.admin, build=False, flavor_id=flavor)]

    assert server.status == "ERROR"
    assert "808 MiB of memory too few (9000 asked, 8192 of 8192 free)" in server.fault.message
    assert server.port_ids == ()


@pytest.mark.parametrize(
    ("status", "action", "code"),
    [
        ("BUILD", StartServer, "IncorrectServerState"),
        ("BUILD", StopServer, "IncorrectServerState"),
        ("BUILD", RebootServer, "IncorrectServerState"),
        ("ACTIVE", StartServer, "IncorrectServerState"),
        ("SHUTOFF", StopServer, "IncorrectServerState"),
        ("SHUTOFF", RebootServer, "IncorrectServerState"),
    ],
)
def test_the_state_must_allow_the_action(world, status, action, code):
    server = world.server(world.admin, build=status != "BUILD")
    if status == "SHUTOFF":
        world.report(world.ok(world.admin, StopServer(server_id=server))["operation_id"])

    refusal = world.refused(world.admin, action(server_id=server))

    assert (refusal.code, refusal.status) == (code, 409)


def test_stop_start_and_reboot_come_back_to_active(world):
    server = world.server(world.admin)
    state = world.cell.state

    world.report(world.ok(world.admin, StopServer(server_id=server))["operation_id"])
    assert (state.servers[server].status, state.servers[server].power_state) == ("SHUTOFF", 4)
    world.report(world.ok(world.admin, StartServer(server_id=server))["operation_id"])
    assert (state.servers[server].status, state.servers[server].boot) == ("ACTIVE", 2)
    reply = world.ok(world.admin, RebootServer(server_id=server, hard=True))
    assert state.servers[server].status == "HARD_REBOOT"
    world.report(reply["operation_id"])
    assert (state.servers[server].status, state.servers[server].boot) == ("ACTIVE", 3)


def test_a_failed_stop_leaves_it_as_the_host_saw_it(world):
    server = world.server(world.admin)
    operation = world.ok(world.admin, StopServer(server_id=server))["operation_id"]

    world.report(operation, succeeded=False, cause="busy", running=True)

    assert world.cell.state.servers[server].status == "ACTIVE"
    assert world.cell.state.servers[server].task_state is None


def test_delete_is_accepted_in_every_state_and_cancels_what_is_under_way(world):
    server = world.server(world.admin, build=False)

    record = world.submit(world.admin, DeleteServer(server_id=server))

    assert facts_of(record) == ["OperationCancelled", "ServerDeleteRequested", "OperationStarted"]
    world.report(record.verdict.reply["operation_id"])
    assert server not in world.cell.state.servers
    assert world.cell.index.host_usage["host-1"].vcpus == 0


def test_deleting_twice_is_one_operation(world):
    server = world.server(world.admin)

    first = world.ok(world.admin, DeleteServer(server_id=server))
    second = world.submit(world.admin, DeleteServer(server_id=server))

    assert second.facts == ()
    assert second.verdict.reply["operation_id"] == first["operation_id"]


def test_a_port_given_by_the_caller_outlives_the_server(world):
    network = world.network(world.admin)
    port = world.ok(world.admin, CreatePort(network_id=network))["port_id"]
    server = world.server(world.admin, networks=(NetworkRequest(port_id=port),))
    assert world.cell.state.ports[port].device_id == server

    world.report(world.ok(world.admin, DeleteServer(server_id=server))["operation_id"])

    assert world.cell.state.ports[port].device_id == ""
    assert world.cell.state.ports[port].status == "DOWN"


def test_a_late_report_changes_nothing(world):
    server = world.server(world.admin, build=False)
    build = next(iter(world.cell.state.operations))
    world.ok(world.admin, DeleteServer(server_id=server))

    record = world.report(build)

    assert record.facts == ()
    assert world.cell.state.servers[server].task_state == "deleting"


def test_another_host_cannot_report(world):
    world.host("host-2", vcpus=1, memory=1, disk=1)
    world.server(world.admin, build=False)

    record = world.report(next(iter(world.cell.state.operations)), host="host-2")

    assert record.verdict.code == "Forbidden"


def test_a_guest_that_powers_off_is_shutoff(world):
    server = world.server(world.admin)

    report = ReportServerState(server_id=server, boot=1, running=False, observed_at=world.now)
    record = world.submit(world.agent(), report)

    assert isinstance(record.facts[0], c.ServerStopped)
    assert world.cell.state.servers[server].status == "SHUTOFF"


def test_a_report_about_an_older_boot_changes_nothing(world):
    server = world.server(world.admin)
    report = ReportServerState(server_id=server, boot=0, running=False, observed_at=world.now)

    assert world.submit(world.agent(), report).facts == ()


@pytest.mark.parametrize("skew", [-10 * HOUR, 4 * MINUTE])
def test_a_claimed_time_is_clamped(world, skew):
    """An agent's clock can neither predate the request nor lie in the future."""
    server = world.server(world.admin, build=False)
    operation = next(iter(world.cell.state.operations.values()))

    record = world.report(operation.operation_id, observed_at=world.now + skew)

    started = next(f for f in record.facts if isinstance(f, c.ServerStarted))
    assert operation.accepted_at <= started.observed_at <= world.now
    assert started.server_id == server


def test_a_passed_deadline_ends_the_operation(world):
    server = world.server(world.admin, build=False)
    operation = next(iter(world.cell.state.operations))

    record = world.submit(
        world.admin.__class__(kind="system", user_id="system"),
        o.PassDeadline(operation_id=operation, generation=1),
    )

    assert isinstance(record.facts[0], o.OperationTimedOut)
    assert world.cell.state.servers[server].status == "ERROR"
    assert desired_state(world.cell, "host-1").servers[0].wanted == "absent"


def test_another_project_cannot_touch_it(world):
    server = world.server(world.admin)
    other = world.member("other")

    for action in (StopServer, DeleteServer, RebootServer):
        assert world.refused(other, action(server_id=server)).code == "NotFound"


def test_a_reader_cannot_create(world):
    reader = world.member("reader", role="reader")
    action = CreateServer(name="x", flavor_id="f", image_id="i")

    assert world.refused(reader, action).code == "Forbidden"


def test_a_flavor_that_is_not_public_is_for_administrators(world):
    flavor = world.flavor(name="secret", is_public=False)
    network = (NetworkRequest(network_id=world.network(world.admin)),)
    member = world.member("other")
    wish = {"name": "web", "image_id": next(iter(world.cell.state.images)), "flavor_id": flavor}

    refusal = world.refused(member, CreateServer(**wish, networks=()))

    assert (refusal.code, refusal.reason) == ("UnknownReference", f"there is no flavor {flavor}")
    world.ok(world.admin, CreateServer(**wish, networks=network))


def test_user_data_that_another_key_seals_is_refused(world):
    """The guest would be told a secret of another project, or the hash of a password."""
    member = world.member("other")
    own = world.cell.state.projects[member.project_id].secrets_key_id
    sealed = msgspec.structs.replace(SECRET, key_id="user-of-somebody")
    wish = {
        "name": "web",
        "image_id": next(iter(world.cell.state.images)),
        "flavor_id": next(iter(world.cell.state.flavors)),
        "networks": (),
    }

    assert world.refused(member, CreateServer(**wish, user_data=sealed)).code == "InvalidInput"
    world.ok(member, CreateServer(**wish, user_data=msgspec.structs.replace(SECRET, key_id=own)))


@pytest.mark.parametrize("name", ["a\0b", "\x1b[31m", "line\nbreak", "\u202egnp.exe", "a\u2028b"])
def test_a_name_that_cannot_be_printed_is_refused(world, name):
    server = world.server(world.admin)

    for action in (
        RenameServer(server_id=server, name=name),
        CreateFlavor(name=name, vcpus=1, memory_mib=1, disk_gib=1),
    ):
        assert world.refused(world.admin, action).code == "InvalidInput"
    world.ok(world.admin, RenameServer(server_id=server, name="größe 中文 💩"))
