"""Real guests: what the agent makes of this machine, and what it leaves."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from executors.commands import run
from executors.inventory import cgroups_of, domain_of
from executors.layout import bridge_name, namespace_path, tap_name
from executors.processes import end, pid_in, processes
from schemas.compute import ReportServerState
from schemas.work import ConsoleAsk
from tests.executors.machine import BOOT_S, Machine, build_guest_image, root_namespace, why_not
from tests.executors.world import Cloud, a_server, changed, rule

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture(scope="module")
def guest_file(tmp_path_factory):
    return build_guest_image(tmp_path_factory.mktemp("guest") / "guest.qcow2")


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("cloud")
    before = root_namespace()
    yield path
    machine = Machine(path)
    machine.destroy()
    assert machine.inventory().everything() == {}
    assert machine.destroy() == []
    assert root_namespace() == before


@pytest.fixture
async def machine(state_dir):
    machine = Machine(state_dir)
    await machine.start()
    yield machine
    machine.engine.servers.clear()
    if machine.agent is None:
        await machine.start()
    await machine.agent.reconcile()
    await machine.stop()
    assert machine.inventory().of_servers() == {}


@pytest.fixture
async def image(machine, guest_file):
    return await machine.image(guest_file)


async def test_a_server_is_what_was_asked_for_from_its_first_to_its_last_moment(machine, image):
    before = root_namespace()
    cloud = Cloud()
    spec = a_server(image=image, ports=(cloud.port(),))
    address = spec.ports[0].port.fixed_ips[0].ip_address
    machine.names = {
        "/latest/meta-data/instance-id": b"i-12345678",
        "/latest/meta-data/local-hostname": b"web-1.internal",
        "/latest/user-data": b"#!/bin/sh\necho user data ran as $(hostname)\n",
    }

    checked = await machine.engine.do("check", image=image)
    assert checked.succeeded
    assert checked.virtual_size_bytes > 1 << 20

    built = await machine.engine.do("build", spec, within_s=BOOT_S)
    assert built.succeeded, built.cause
    lines = await machine.console(spec, "@@ ready")
    assert f"@@ dhcp if=eth0 ip={address}/24 gw=10.20.0.1 mtu=1450" in lines
    assert "@@ meta src=ec2 id=i-12345678 hostname=web-1 key=0" in lines
    await machine.console(spec, "@@ userdata rc=0")
    asked = machine.engine.asked_metadata[0]
    assert (asked.network_id, asked.address) == (cloud.network.network_id, address)

    ping = await machine.inside(cloud.network, "ping", "-c1", "-W5", address)
    ssh = await machine.inside(cloud.network, *_connect(address, 22))
    http = await machine.inside(cloud.network, *_connect(address, 80))
    assert ping[0] == 0, ping[1]
    assert "refused" in ssh[1].lower()  # let through; nothing listens there
    assert "timed out" in http[1].lower()  # something listens there; not let through

    console = await machine.agent.console(ConsoleAsk(server_id=spec.server.server_id, lines=50))
    assert "user data ran as web-1" in console.output

    found = machine.inventory()
    assert found.domains == (machine.layout.domain(spec.server.server_id),)
    assert found.disks == (spec.server.server_id,)
    assert found.taps == found.guarded == (tap_name(spec.ports[0].port.port_id),)
    assert found.bridges == (bridge_name(cloud.network.network_id),)
    assert len(found.network_namespaces) == len(found.dnsmasqs) == len(found.leases) == 1
    assert root_namespace() == before

    drivers = machine.agent._drivers
    used = (await drivers.hypervisor.counters())[spec.server.server_id]
    assert used["compute.cpu_time"] > 10**9 // 100  # nanoseconds of a boot
    assert used["compute.disk_read"] > 1 << 18
    # It asked for an address and for metadata, and was answered.
    assert used["network.ingress"] > 300
    assert used["network.egress"] > 300

    deleted = await machine.engine.do("delete", changed(spec, wanted="absent"))
    assert deleted.succeeded, deleted.cause
    assert machine.inventory().of_servers() == {}
    assert root_namespace() == before
    await machine.agent.reconcile()
    assert machine.engine.drift == []


def _connect(address, port):
    code = f"import socket; socket.create_connection(({address!r}, {port}), 3)"
    return sys.executable, "-I", "-c", code


async def test_stop_start_and_reboot_keep_the_disk_and_count_boots(machine, image):
    spec = a_server(image=image, ports=(Cloud("10.21.0", 101).port(),))
    await machine.engine.do("build", spec, within_s=BOOT_S)
    await machine.console(spec, "@@ ready")

    stop = changed(spec, wanted="stopped", grace_s=100)
    stopped = await machine.engine.do("stop", stop, within_s=BOOT_S)
    assert stopped.succeeded
    assert "@@ acpi button=power" in await machine.console(spec, "@@ halt")
    assert machine.inventory().domains == ()

    assert (await machine.engine.do("start", changed(spec, boot=2))).running
    await machine.console(spec, "@@ ready", count=2)

    soft = changed(spec, boot=3, reboot="soft", grace_s=100)
    assert (await machine.engine.do("reboot", soft, within_s=BOOT_S)).running
    await machine.console(spec, "@@ ready", count=3)

    assert (await machine.engine.do("reboot", changed(spec, boot=4, reboot="hard"))).running
    lines = await machine.console(spec, "@@ boot", count=4)
    boots = [line.split()[2] for line in lines if line.startswith("@@ boot")]
    assert boots == ["n=1", "n=2", "n=3", "n=4"]

    flavor = changed(spec.server.flavor, vcpus=2, disk_gib=2)
    larger = changed(
        spec,
        server=changed(spec.server, flavor=flavor),
        boot=5,
        reboot="hard",
        resize=5,
        revertible=True,
    )
    disk = machine.layout.disk(spec.server.server_id)

    def size():
        said = run(["qemu-img", "info", "-U", "--output=json", str(disk)], deadline_s=30)
        return json.loads(said)["virtual-size"] >> 30

    assert (await machine.engine.do("resize", larger)).running
    assert size() == 2
    (guest,) = (p for p in processes() if domain_of(p, machine.layout) is not None)
    assert guest.arguments[guest.arguments.index("-smp") + 1].startswith("2,")
    assert disk.with_name("5.aside.qcow2").exists()
    await machine.console(spec, "@@ boot n=5")
    assert (await machine.engine.do("revert", changed(spec, boot=6, reboot="hard"))).running
    assert size() == 1
    assert not disk.with_name("5.aside.qcow2").exists()
    # The disk of before knows nothing of the boot with the new flavor.
    await machine.console(spec, "@@ boot n=5", count=2)
    assert machine.engine.states == []  # nothing happened that was not asked for


async def test_a_guest_that_ends_by_itself_is_reported(machine, image):
    off = a_server(image=image, ports=(Cloud("10.22.0", 102).port(),))
    machine.names = {
        "/latest/meta-data/instance-id": b"i-1",
        "/latest/user-data": b"#!/bin/sh\npoweroff\n",
    }
    await machine.engine.do("build", off, within_s=BOOT_S)
    report = await machine.engine.heard(lambda r: isinstance(r, ReportServerState), BOOT_S)
    assert (report.server_id, report.boot, report.running) == (off.server.server_id, 1, False)
    assert report.cause == "guest"
    machine.engine.reports.clear()

    crashed = a_server(image=image)
    await machine.engine.do("build", crashed, within_s=BOOT_S)
    os.kill(_qemu(machine, crashed), signal.SIGKILL)
    report = await machine.engine.heard(lambda r: isinstance(r, ReportServerState), BOOT_S)
    assert (report.server_id, report.cause) == (crashed.server.server_id, "crash")


def _qemu(machine, spec):
    wanted = machine.layout.domain(spec.server.server_id)
    return next(p.pid for p in processes() if domain_of(p, machine.layout) == wanted)


async def test_guests_outlive_the_agent_and_a_killed_libvirt(machine, image):
    spec = a_server(image=image, ports=(Cloud("10.23.0", 103).port(),))
    await machine.engine.do("build", spec, within_s=BOOT_S)
    qemu = _qemu(machine, spec)

    await machine.stop()
    daemon = pid_in(machine.layout.libvirt / "libvirtd.pid")
    assert end(daemon, lambda p: True, grace_s=0)
    assert _qemu(machine, spec) == qemu

    await machine.start()
    assert _qemu(machine, spec) == qemu
    assert set(await machine.drivers.hypervisor.domains()) == {spec.server.server_id}

    # Once more, under the agent's eyes; then it must still be able to work.
    daemon = pid_in(machine.layout.libvirt / "libvirtd.pid")
    assert end(daemon, lambda p: True, grace_s=0)
    assert (await machine.drivers.hypervisor.find(spec.server.server_id)).boot == 1
    assert _qemu(machine, spec) == qemu
    assert machine.engine.states == []
    deleted = await machine.engine.do("delete", changed(spec, wanted="absent"), within_s=BOOT_S)
    assert deleted.succeeded
    assert machine.inventory().of_servers() == {}


async def test_control_groups_that_a_killed_daemon_has_left_go_with_the_guest(machine, image):
    spec = a_server(image=image, ports=())
    await machine.engine.do("build", spec, within_s=BOOT_S)
    domain = machine.layout.domain(spec.server.server_id)
    (there, *_) = [path for path in cgroups_of(machine.layout, domain) if domain in path.name]
    there.with_name(f"qemu-0-{domain}.libvirt-qemu").mkdir()

    deleted = await machine.engine.do("delete", changed(spec, wanted="absent"), within_s=BOOT_S)

    assert deleted.succeeded
    assert machine.inventory().of_servers() == {}


async def test_what_a_guest_sends_must_be_its_own(machine, image):
    cloud = Cloud("10.24.0", 104)
    spec = a_server(image=image, ports=(cloud.port(),))
    machine.names = {
        "/latest/meta-data/instance-id": b"i-1",
        "/latest/user-data": b"""#!/bin/sh
ping -c 2 -w 20 10.24.0.2 > /dev/null && echo own address passes
ip addr add 10.24.0.99/24 dev eth0
ping -c 2 -w 5 -I 10.24.0.99 10.24.0.2 > /dev/null || echo other address does not
ip link set eth0 down
ip link set eth0 address fa:16:3e:ff:ff:ff
ip link set eth0 up
ping -c 2 -w 5 10.24.0.2 > /dev/null || echo other mac does not
echo tried all
""",
    }
    await machine.engine.do("build", spec, within_s=BOOT_S)
    await machine.console(spec, "tried all")
    said = machine.layout.console(spec.server.server_id).read_text(errors="replace")

    assert "own address passes" in said
    assert "other address does not" in said
    assert "other mac does not" in said


async def test_what_others_break_is_put_right_and_reported(machine, image):
    cloud = Cloud("10.25.0", 105)
    spec = a_server(image=image, ports=(cloud.port(),))
    await machine.engine.do("build", spec, within_s=BOOT_S)
    before = machine.inventory()
    enter = ("nsenter", f"--net={namespace_path(machine.layout.host_namespace)}")
    bridge = bridge_name(cloud.network.network_id)
    for command in (
        (*enter, "ip", "link", "delete", bridge),
        (*enter, "ip", "link", "add", "br-stray", "type", "bridge"),
        (*enter, "nft", "flush", "chain", "inet", "cumulog", "forward"),
        ("ip", "netns", "add", f"{machine.layout.prefix}-stray"),
    ):
        run(command, deadline_s=30)
    assert end(before.dnsmasqs[0], lambda p: True, grace_s=0)
    (machine.layout.servers / "stray").mkdir()

    await machine.agent.reconcile()

    found = {(d.kind, d.name, d.found) for d in machine.engine.drift}
    assert ("bridge", bridge, "missing") in found
    assert ("tap", before.taps[0], "in None") in found
    assert ("bridge", "br-stray", "not wanted") in found
    assert ("netns", f"{machine.layout.prefix}-stray", "not wanted") in found
    assert ("nft", "cumulog", "changed") in found
    assert any(kind == "dnsmasq" for kind, _, _ in found)
    after = machine.inventory()
    assert (after.bridges, after.taps, after.guarded) == (
        before.bridges,
        before.taps,
        before.guarded,
    )
    assert after.disks == (spec.server.server_id,)
    assert len(after.dnsmasqs) == 1
    machine.engine.reports.clear()
    await machine.agent.reconcile()
    assert machine.engine.drift == []


MOMENTS = ["recorded", "disk", "plugged", "created", "served", "started"]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_agent_killed_while_it_builds_leaves_one_of_everything(
    machine, image, guest_file, moment
):
    """The next agent finds what is there, makes the rest, and reports the operation."""
    cloud = Cloud("10.26.0", 106)
    spec = a_server(image=image, ports=(cloud.port(),))
    item = machine.engine.wish("build", spec, deliver=False)
    await machine.stop()

    status = await asyncio.to_thread(_build_and_die, machine, item, moment)
    assert status == -signal.SIGKILL

    await machine.start()
    report = await machine.engine.outcome(item, within_s=BOOT_S)
    assert report.succeeded, report.cause
    found = machine.inventory()
    assert found.domains == (machine.layout.domain(spec.server.server_id),)
    assert found.disks == (spec.server.server_id,)
    assert found.taps == (tap_name(spec.ports[0].port.port_id),)
    assert len(found.dnsmasqs) == len(found.leases) == 1


def _build_and_die(machine, item, moment):
    from schemas.work import encode

    done = subprocess.run(
        [sys.executable, "-m", "tests.executors.doomed", str(machine.layout.state_dir), moment],
        input=encode(item),
        capture_output=True,
        timeout=BOOT_S,
        check=False,
    )
    assert done.returncode < 0, done.stderr.decode()[-2000:]
    return done.returncode


async def test_a_delete_that_was_cut_short_is_finished(machine, image):
    spec = a_server(image=image, ports=(Cloud("10.27.0", 107).port(),))
    await machine.engine.do("build", spec, within_s=BOOT_S)
    await machine.stop()
    # The domain is gone and its files are half removed; the agent was killed there.
    os.kill(_qemu(machine, spec), signal.SIGKILL)
    machine.layout.disk(spec.server.server_id).unlink()
    item = machine.engine.wish("delete", changed(spec, wanted="absent"), deliver=False)

    await machine.start()

    assert (await machine.engine.outcome(item)).succeeded
    assert machine.inventory().of_servers() == {}
    assert machine.engine.states == []


async def test_a_group_lets_its_members_in(machine, image):
    """Rules that name a group hold for the addresses of its ports here."""
    cloud = Cloud("10.28.0", 108)
    group = cloud.group
    cloud.group = changed(
        group,
        rules=(
            rule("egress"),
            rule("ingress", protocol="tcp", remote_group_id=group.security_group_id),
        ),
    )
    server = a_server(image=image, ports=(cloud.port(),))
    address = server.ports[0].port.fixed_ips[0].ip_address
    await machine.engine.do("build", server, within_s=BOOT_S)
    await machine.console(server, "@@ ready")
    machine.names = {
        "/latest/meta-data/instance-id": b"i-2",
        "/latest/user-data": f"#!/bin/sh\nwget -q -O - http://{address}/\n".encode(),
    }
    client = a_server(image=image, ports=(cloud.port(),))
    await machine.engine.do("build", client, within_s=BOOT_S)
    await machine.console(client, "@@ userdata")

    said = machine.layout.console(client.server.server_id).read_text(errors="replace")
    outside = await machine.inside(cloud.network, *_connect(address, 80))
    assert "tiny guest" in said
    assert "timed out" in outside[1].lower()
