"""The agent's process: the one module of executors that knows the bus."""

import asyncio
import contextlib
import fcntl
import importlib.metadata
import os
import signal
from collections.abc import Callable, Iterator

import msgspec
import structlog

from engine.bus import service
from engine.bus.client import Bus, BusError, Message
from engine.bus.metrics import answer_for
from engine.bus.work import follow_work
from executors.agent import EXECUTORS, Agent, Pace
from executors.drivers import choose
from executors.errors import HostError
from executors.layout import Layout
from executors.position import Position
from executors.reports import wall_clock
from executors.samples import Rollups
from executors.upstream import AcceptWork, AnswerConsole, Report, UpstreamError
from schemas.config import Config
from schemas.envelope import Actor, Client, Outcome, Request
from schemas.errors import Unavailable
from schemas.ids import HostId, RequestId
from schemas.work import (
    ConsoleAsk,
    DesiredState,
    Heartbeat,
    MetadataAsk,
    MetadataReply,
    WorkItem,
    encode,
)

log = structlog.get_logger(__name__)

_METADATA_S = 5.0
_decode_console = msgspec.json.Decoder(ConsoleAsk).decode
_decode_metadata = msgspec.json.Decoder(MetadataReply).decode


class BusUpstream:
    """The engine and the edges, over the bus."""

    def __init__(self, bus: Bus, host_id: HostId) -> None:
        self._bus = bus
        self._host_id = host_id
        self._following: asyncio.Task[None] | None = None

    async def submit(self, report: Report, request_id: RequestId, trace: str = "") -> Outcome:
        """Submit a report as this host's agent."""
        request = Request(
            request_id=request_id,
            actor=Actor(kind="agent", host_id=self._host_id),
            action=report,
            submitted_at=wall_clock(),
            client=Client(api="agent", trace=trace),
        )
        try:
            return await service.submit(self._bus, request, host=self._host_id)
        except (BusError, Unavailable) as error:
            raise UpstreamError("the engine did not take the report") from error

    async def desired_state(self) -> DesiredState:
        """Ask the engine what this host shall have."""
        try:
            return await service.desired_state(self._bus, self._host_id)
        except (BusError, Unavailable, msgspec.MsgspecError) as error:
            raise UpstreamError("the engine did not say what is desired") from error

    async def ask_metadata(self, ask: MetadataAsk) -> MetadataReply:
        """Ask an edge what to answer a guest."""
        subject = self._bus.subjects.metadata(self._host_id)
        try:
            answer = await self._bus.request(subject, encode(ask), timeout_s=_METADATA_S)
            return _decode_metadata(answer)
        except (BusError, msgspec.MsgspecError) as error:
            raise UpstreamError("no edge answered for the metadata") from error

    async def heartbeat(self, beat: Heartbeat) -> None:
        """Publish that this host lives."""
        try:
            await self._bus.publish(self._bus.subjects.heartbeat(self._host_id), encode(beat))
        except BusError as error:
            raise UpstreamError("the heartbeat could not be sent") from error

    async def listen(
        self, accept: AcceptWork, console: AnswerConsole, on_gap: Callable[[], None]
    ) -> None:
        """Follow this host's work items and console requests, for ever."""

        async def take(item: WorkItem) -> None:
            accept(item)

        async def answer(message: Message) -> None:
            try:
                ask = _decode_console(message.payload)
            except msgspec.MsgspecError as error:
                log.warning("console.malformed", why=str(error))
                return
            await message.respond(encode(await console(ask)))

        async def reconnected() -> None:
            on_gap()

        self._bus.on_reconnect.append(reconnected)
        await self._bus.subscribe(self._bus.subjects.console(self._host_id), answer)
        self._following = asyncio.create_task(
            follow_work(self._bus, self._host_id, EXECUTORS, take), name="work"
        )

    async def close(self) -> None:
        """Leave the bus: nothing more arrives."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._bus.close()


async def run(config: Config) -> None:
    """Be this host's agent until SIGTERM or SIGINT. Guests outlive it.

    Raises:
        HostError: this machine cannot do what the configuration asks, or has an agent already.
    """
    layout = Layout.of(config.state_dir)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _only_agent(layout):
        drivers, records = choose(config)
        position = Position(layout.host / "position")
        bus = await Bus.configured(config, f"agent-{config.host_id}")
        agent = Agent(
            host_id=config.host_id,
            version=importlib.metadata.version("cumulog"),
            upstream=BusUpstream(bus, config.host_id),
            drivers=drivers,
            records=records,
            position=position,
            pace=Pace(heartbeat_s=config.heartbeat_s, reconcile_s=config.reconcile_s),
            rollups=Rollups(layout.host / "samples.json"),
        )
        subject = bus.subjects.agent_metrics(config.host_id)
        await answer_for(bus, subject, "agent", agent.readings)
        starting = asyncio.create_task(agent.start())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await agent.run(stop)
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            await agent.close()
            log.info("agent.stopped", host=config.host_id)


@contextlib.contextmanager
def _only_agent(layout: Layout) -> Iterator[None]:
    """Hold the lock of the state directory's host; the kernel lets go of it when we die."""
    layout.host.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(layout.host / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(f"another agent is at work in {layout.host}") from error
        yield
    finally:
        os.close(lock)
