"""The agent's process on a real bus, under an engine that only answers."""

import asyncio
import os
import signal

import pytest

from engine.bus.work import dispatch, ensure_work_of, ensure_work_stream
from executors.errors import HostError
from executors.run import run
from schemas.config import Config
from schemas.envelope import Accepted, Outcome, decode_request, encode
from schemas.operation import ReportOperation
from schemas.work import (
    ConsoleAsk,
    ConsoleReply,
    DesiredState,
    Heartbeat,
    decode_heartbeat,
)
from schemas.work import encode as encode_work
from tests.executors.world import HOST, Engine, a_server


class BusEngine(Engine):
    """The test engine, with the bus between it and the agent."""

    async def connect(self, bus):
        self.bus = bus
        self.alive = asyncio.Event()
        self.requests = []
        await ensure_work_stream(bus)
        await ensure_work_of(bus, HOST)
        await bus.subscribe(bus.subjects.submit_agents, self._submit)
        await bus.subscribe(bus.subjects.desired(HOST), self._desired)
        await bus.subscribe(bus.subjects.heartbeat(HOST), self._beat)

    async def _submit(self, message):
        request = decode_request(message.payload)
        self.requests.append((message.subject, request))
        outcome = await self.submit(request.action, request.request_id)
        answer = Outcome(request_id=request.request_id, ordinal=outcome.ordinal, verdict=Accepted())
        await message.respond(encode(answer))

    async def _desired(self, message):
        await message.respond(encode_work(await self.desired_state()))

    async def _beat(self, message):
        self.beats.append(decode_heartbeat(message.payload))
        self.alive.set()


@pytest.fixture
async def config(nats, tmp_path):
    return Config(
        state_dir=str(tmp_path),
        cell=nats.cell,
        host_id=HOST,
        nats_url=nats.url,
        nats_user=nats.user,
        nats_password=nats.password,
        driver="simulated",
        heartbeat_s=0.05,
    )


@pytest.fixture
async def engine(nats):
    engine = BusEngine()
    await engine.connect(await nats.connect("engine"))
    return engine


async def test_an_agent_works_over_the_bus_until_it_is_told_to_stop(engine, config):
    running = asyncio.create_task(run(config))
    async with asyncio.timeout(60):
        await engine.alive.wait()

    item = engine.wish("build", spec := a_server(), deliver=False)
    await dispatch(engine.bus, item)
    report = await engine.outcome(item)
    assert isinstance(report, ReportOperation)
    assert report.succeeded
    subject, request = engine.requests[-1]
    assert subject.endswith(f".submit.agent.{HOST}")
    assert (request.actor.kind, request.actor.host_id) == ("agent", HOST)

    ask = ConsoleAsk(server_id=spec.server.server_id, lines=1)
    answer = await engine.bus.request(
        engine.bus.subjects.console(HOST), encode_work(ask), timeout_s=30
    )
    from msgspec.json import decode

    assert decode(answer, type=ConsoleReply).output

    engine.alive.clear()
    async with asyncio.timeout(60):
        await engine.alive.wait()
    assert isinstance(engine.beats[-1], Heartbeat)
    assert engine.beats[-1].domains == 1

    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(60):
        await running


async def test_a_host_has_one_agent(engine, config):
    running = asyncio.create_task(run(config))
    async with asyncio.timeout(60):
        await engine.alive.wait()

    with pytest.raises(HostError, match="another agent"):
        await run(config)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_desired_state_of_the_bus_is_the_one_sent(engine, config):
    """Both ends agree on the encoding, whatever is in it."""
    from engine.bus import service

    engine.wish("build", a_server(), deliver=False)
    found = await service.desired_state(engine.bus, HOST)
    assert isinstance(found, DesiredState)
    assert found.servers == tuple(engine.servers.values())
