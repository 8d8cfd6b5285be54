"""The agent's core, over simulated drivers: what it does, once, and what it reports."""

import asyncio

import pytest

from executors.errors import HypervisorError, NetworkError, StorageError
from executors.hypervisor.port import Domain
from executors.position import Position, Version
from schemas.compute import ReportServerState
from schemas.host import ReportDrift
from schemas.work import ConsoleAsk
from tests.executors.world import Cloud, a_server, an_image, changed, wall


async def settled(agent):
    """Let every lane come to rest."""
    while tasks := [lane.task for lane in agent._lanes._lanes.values() if lane.task]:
        await asyncio.wait(tasks)


async def test_a_host_registers_before_anything_else(agent, engine):
    assert engine.reports[0] is engine.registrations[0]
    assert engine.registrations[0].hypervisor == "simulated"
    assert engine.registrations[0].capacity.vcpus > 0


async def test_a_server_is_built_and_reported_once(agent, engine, host):
    item = engine.wish("build", spec := a_server(ports=(Cloud().port(),)))
    report = await engine.outcome(item)
    engine.deliver(item)  # redelivered: the bus did not hear our acknowledgement
    await settled(agent)

    assert report.succeeded
    assert report.running
    assert set(host.hypervisor._domains) == {spec.server.server_id}
    assert set(host.networks.plugged) == {spec.server.server_id}


async def test_deleting_leaves_nothing(agent, engine, host):
    await engine.do("build", spec := a_server(ports=(Cloud().port(),)))
    report = await engine.do("delete", changed(spec, wanted="absent"))

    assert report.succeeded
    assert not report.running
    assert host.hypervisor._domains == {}
    assert host.networks.plugged == {}
    assert await host.storage.servers() == set()
    assert host.records.load(spec.server.server_id) is None


async def test_stop_and_start_keep_the_disk(agent, engine, host):
    await engine.do("build", spec := a_server())
    stopped = await engine.do("stop", changed(spec, wanted="stopped"))
    assert stopped.succeeded
    assert not stopped.running
    assert await host.storage.has_disk(spec.server.server_id)

    started = await engine.do("start", changed(spec, boot=2))
    assert started.running
    assert (await host.hypervisor.find(spec.server.server_id)).boot == 2


@pytest.mark.parametrize("how", ["soft", "hard"])
async def test_a_reboot_is_done_once_however_often_it_is_delivered(agent, engine, host, how):
    created = []
    create = host.hypervisor.create

    async def counted(spec):
        created.append(spec.boot)
        await create(spec)

    host.hypervisor.create = counted
    await engine.do("build", spec := a_server())
    item = engine.wish("reboot", changed(spec, boot=2, reboot=how))
    await engine.outcome(item)
    engine.deliver(item)
    await settled(agent)

    assert created == [1, 2]
    assert engine.states == []


async def test_a_guest_that_powers_off_is_reported_with_its_boot(agent, engine, host):
    await engine.do("build", spec := a_server())
    host.hypervisor.end(spec.server.server_id, "guest")
    report = await engine.heard(lambda r: isinstance(r, ReportServerState))

    assert (report.boot, report.running, report.cause) == (1, False, "guest")
    assert await host.hypervisor.find(spec.server.server_id) is None


async def test_a_guest_that_ended_while_nobody_looked_is_reported_and_not_restarted(engine, host):
    first = host.agent(engine)
    await first.start()
    await engine.do("build", spec := a_server())
    await first.close()
    host.hypervisor.end(spec.server.server_id, "crash")

    second = host.agent(engine)
    await second.start()
    report = await engine.heard(lambda r: isinstance(r, ReportServerState))
    await second.close()

    assert (report.boot, report.cause) == (1, "crash")
    assert host.hypervisor._domains == {}


async def test_a_guest_that_ignores_the_button_is_ended_when_its_grace_is_over(agent, engine, host):
    await engine.do("build", spec := a_server(grace_s=0))
    host.hypervisor.deaf.add(spec.server.server_id)
    report = await engine.do("stop", changed(spec, wanted="stopped"))

    assert report.succeeded
    assert host.hypervisor._domains == {}


async def test_a_delete_does_not_wait_for_a_guests_grace(agent, engine, host):
    await engine.do("build", spec := a_server(grace_s=3000))
    host.hypervisor.deaf.add(spec.server.server_id)
    stop = engine.wish("stop", changed(spec, wanted="stopped"), deadline_s=4000)
    await asyncio.sleep(0)
    report = await engine.do("delete", changed(spec, wanted="absent"))

    assert report.succeeded
    assert stop.operation.operation_id in engine.operations  # cancelled by the engine, not us
    assert host.hypervisor._domains == {}


@pytest.mark.parametrize(
    ("where", "what", "error"),
    [
        ("storage", "ensure_image", StorageError("the image is gone")),
        ("storage", "ensure_disk", StorageError("the disk is full")),
        ("networks", "plug", NetworkError("no room for rules")),
        ("networks", "serve", NetworkError("dnsmasq: bad option")),
        ("hypervisor", "create", HypervisorError("no such machine type")),
    ],
)
async def test_a_failure_at_any_step_leaves_no_trace(agent, engine, host, where, what, error):
    async def fail(*_args, **_fields):
        raise error

    setattr(getattr(host, where), what, fail)
    report = await engine.do("build", spec := a_server(ports=(Cloud().port(),)))

    assert not report.succeeded
    assert str(error) in report.cause
    assert not report.running
    assert host.hypervisor._domains == {}
    assert host.networks.plugged == {}
    assert await host.storage.servers() == set()
    assert host.records.load(spec.server.server_id) is None


async def test_after_a_build_that_failed_the_agent_asks_at_once_what_shall_be_left(
    agent, engine, host
):
    async def fail(*_args, **_fields):
        raise NetworkError("no bridge")

    host.networks.plug = fail
    spec = a_server(ports=(Cloud().port(),))
    server_id = spec.server.server_id
    # An agent that was killed has started it, and noted nothing.
    host.hypervisor._domains[server_id] = Domain(server_id=server_id, boot=1)
    item = engine.wish("build", spec)
    engine.servers.clear()  # as the engine wishes away a server in error
    report = await engine.outcome(item)
    await engine.heard(lambda r: isinstance(r, ReportDrift))

    assert (report.succeeded, report.running) == (False, True)
    assert host.hypervisor._domains == {}


async def test_an_image_larger_than_the_disk_says_by_how_much(agent, engine):
    image = an_image(virtual_size_bytes=(1 << 30) + (5 << 20))
    report = await engine.do("build", a_server(image=image, disk_gib=1))

    assert not report.succeeded
    assert "5 MiB too small" in report.cause


async def test_a_disk_that_vanished_is_not_replaced_by_an_empty_one(agent, engine, host):
    await engine.do("build", spec := a_server())
    await engine.do("stop", changed(spec, wanted="stopped"))
    await host.storage.remove(spec.server.server_id)
    report = await engine.do("start", changed(spec, boot=2))

    assert not report.succeeded
    assert "root disk is gone" in report.cause


async def test_a_start_after_its_deadline_is_not_begun(agent, engine, host):
    item = engine.wish("build", a_server(), now=0)
    report = await engine.outcome(item)

    assert not report.succeeded
    assert "deadline" in report.cause
    assert host.hypervisor._domains == {}


async def test_an_image_check_reports_the_virtual_size(agent, engine):
    good = await engine.do("check", image=an_image(size_bytes=7, virtual_size_bytes=None))
    bad = await engine.do("check", image=an_image(size_bytes=0))

    assert (good.succeeded, good.virtual_size_bytes) == (True, 7)
    assert (bad.succeeded, bad.cause) == (False, "the image is empty")


async def test_lost_work_is_found_by_reconciling(agent, engine, host):
    item = engine.wish("build", a_server(), deliver=False)
    engine._gap()
    report = await engine.outcome(item)

    assert report.succeeded
    assert len(host.hypervisor._domains) == 1
    assert engine.drift == []  # an operation explains the difference


async def test_what_nobody_wants_is_removed_and_reported(engine, host):
    first = host.agent(engine)
    await first.start()
    await engine.do("build", spec := a_server())
    await first.close()
    engine.servers.clear()

    second = host.agent(engine)
    await second.start()
    await second.close()

    assert host.hypervisor._domains == {}
    assert {(d.kind, d.name, d.done) for d in engine.drift} == {
        ("domain", spec.server.server_id, "removed"),
        ("disk", spec.server.server_id, "removed"),
    }


async def test_work_older_than_the_applied_desired_state_is_dropped(agent, engine, host):
    stale = engine.wish("build", spec := a_server(), deliver=False)
    engine.operations.clear()
    engine.servers.clear()
    await agent.reconcile()
    engine.deliver(stale)
    await settled(agent)

    assert host.hypervisor._domains == {}
    assert host.records.load(spec.server.server_id) is None


async def test_a_late_build_does_not_bring_a_deleted_server_back(agent, engine, host):
    build = engine.wish("build", spec := a_server())
    await engine.outcome(build)
    await engine.do("delete", changed(spec, wanted="absent"))
    engine.deliver(build)
    await settled(agent)

    assert host.hypervisor._domains == {}


async def test_a_replaced_leader_is_refused_also_after_a_restart(engine, host, tmp_path):
    engine.epoch = 7
    first = host.agent(engine, Position(tmp_path / "position"))
    await first.start()
    await first.close()
    assert Position(tmp_path / "position").highest >= Version(7, 0)

    engine.epoch = 6
    engine.asked_for_state.clear()
    second = host.agent(engine, Position(tmp_path / "position"))
    starting = asyncio.create_task(second.start())
    await engine.asked_for_state.wait()
    engine.wish("build", a_server())
    assert not starting.done()
    assert host.hypervisor._domains == {}
    engine.epoch = 8
    await starting
    await second.close()


async def test_reports_wait_for_an_engine_that_is_away(agent, engine):
    engine.away = True
    item = engine.wish("build", a_server())
    await asyncio.sleep(0.05)
    assert item.operation.operation_id in engine.operations
    engine.away = False

    assert (await engine.outcome(item)).succeeded
    _, *attempts = engine.request_ids
    assert len(attempts) > 1
    assert len(set(attempts)) == 1  # taken once, should an answer have been lost


async def test_an_end_is_told_as_of_when_it_was_noticed_not_as_of_when_it_could_be_told(
    agent, engine, host
):
    engine.away = True
    item = engine.wish("build", spec := a_server())
    await engine.turned_away.wait()
    host.hypervisor.end(spec.server.server_id, "crash")
    noticed_by = wall()
    engine.away = False
    await engine.outcome(item)
    report = await engine.heard(lambda r: isinstance(r, ReportServerState))

    assert report.cause == "crash"
    assert report.observed_at <= noticed_by


async def test_a_console_is_answered_or_says_why_not(agent, engine):
    await engine.do("build", spec := a_server())

    said = await engine._console(ConsoleAsk(server_id=spec.server.server_id, lines=5))
    unknown = await engine._console(ConsoleAsk(server_id="no-such"))

    assert said.output
    assert "no console" in unknown.error


async def test_many_servers_come_and_go_together(agent, engine, host):
    specs = [a_server() for _ in range(200)]
    await asyncio.gather(*(engine.do("build", s) for s in specs))
    assert len(host.hypervisor._domains) == 200
    await asyncio.gather(*(engine.do("delete", changed(s, wanted="absent")) for s in specs))

    assert host.hypervisor._domains == {}
    assert agent._lanes._lanes == {}
