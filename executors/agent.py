"""A host's agent: hears what shall be, makes it so, says what became of it.

Level-triggered: at start, after a gap, and periodically it asks for the whole desired state and
converges to it. Work items only let it begin sooner, so losing one costs time and nothing else.
Whatever it is doing may be killed at any line; its next start finds out what is real.
"""

import asyncio
import contextlib
import os
from dataclasses import dataclass

import structlog

from engine.bus.metrics import Reading
from executors.converge import Converger, Drivers
from executors.errors import HostError, StaleState, reason
from executors.hypervisor.port import DomainEnded
from executors.lanes import Lanes
from executors.position import Position, Version
from executors.reconcile import Reconciler
from executors.records import Records
from executors.reports import Clock, Reports, wall_clock
from executors.samples import Rollups, Sampler
from executors.upstream import Upstream, UpstreamError
from executors.wish import Wish
from schemas.host import Capacity, Executor, RegisterHost
from schemas.ids import HostId
from schemas.work import (
    ConsoleAsk,
    ConsoleReply,
    Heartbeat,
    MetadataAsk,
    MetadataReply,
    WorkItem,
)

log = structlog.get_logger(__name__)

EXECUTORS: tuple[Executor, ...] = ("hypervisor", "storage", "network")
_RETRY_FIRST_S = 0.2
_RETRY_MOST_S = 5.0
_CLOSE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often things are done on their own account, and how many at once."""

    heartbeat_s: float = 2.0
    reconcile_s: float = 60.0
    sample_s: float = 60.0
    starts_abreast: int = 8


class Agent:
    """One host's agent, over whatever bus and drivers it is given."""

    def __init__(
        self,
        *,
        host_id: HostId,
        version: str,
        upstream: Upstream,
        drivers: Drivers,
        records: Records,
        position: Position,
        pace: Pace,
        clock: Clock = wall_clock,
        rollups: Rollups | None = None,
    ) -> None:
        """``rollups`` hold what was sampled; none: in memory."""
        self.host_id = host_id
        self._version = version
        self._upstream = upstream
        self._drivers = drivers
        self._position = position
        self._pace = pace
        self._reports = Reports(upstream, clock)
        converger = Converger(drivers, records, clock, starts_abreast=pace.starts_abreast)
        self._lanes = Lanes(converger, self._reports, clock, on_wreck=self.request_reconcile)
        self._reconciler = Reconciler(
            upstream=upstream,
            reports=self._reports,
            lanes=self._lanes,
            drivers=drivers,
            records=records,
            position=position,
            on_applied=self._accept_early,
        )
        self._sampler = Sampler(drivers.hypervisor, self._reports, rollups or Rollups(), clock)
        self._early: list[WorkItem] = []  # came before the first desired state
        self._must_reconcile = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Get the drivers ready, register the host, reconcile it, and follow work from there.

        Returns once the host has converged to the desired state for the first time.

        Raises:
            HostError: a driver cannot work on this host.
        """
        await self._drivers.storage.start()
        await self._drivers.networks.start(self._ask_metadata)
        await self._drivers.hypervisor.start(self._on_domain_ended)
        await self._upstream.listen(self.accept, self.console, self.request_reconcile)
        await self._reports.send(self._registration())
        self._tasks.append(asyncio.create_task(self._beat_for_ever(), name="heartbeat"))
        await self._reconcile_until_done()
        self._tasks.append(asyncio.create_task(self._reconcile_for_ever(), name="reconcile"))
        sampling = self._sampler.run(self._pace.sample_s)
        self._tasks.append(asyncio.create_task(sampling, name="samples"))
        log.info(
            "agent.ready",
            host=self.host_id,
            hypervisor=self._drivers.hypervisor.name,
            accelerator=self._drivers.hypervisor.accelerator,
            position=tuple(self._position.highest),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop, or until a task that should run for ever breaks."""
        waiting = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done - {waiting}:
            task.result()

    async def close(self) -> None:
        """Stop: steps under way may end, guests run on, nothing is undone."""
        await self._upstream.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lanes.close(within_s=_CLOSE_S)
        await self._drivers.networks.close()
        await self._drivers.hypervisor.close()
        self._position.close()

    # Work

    def accept(self, item: WorkItem) -> None:
        """Take a work item, unless something newer about its resource is known."""
        version = Version(item.epoch, item.ordinal)
        if item.epoch < self._position.highest.epoch:
            log.warning("work.from_old_leader", version=tuple(version))
            return
        if item.epoch > self._position.highest.epoch and self._reconciler.applied is not None:
            # A new leader: whatever its predecessor may have left unsaid, ask for it.
            self.request_reconcile()
        self._position.see(version)
        if self._reconciler.applied is None:
            self._early.append(item)
            return
        if version <= self._reconciler.applied:
            return
        server = item.server
        if server is None and item.image is None and item.operation.resource_kind == "image":
            log.error("work.without_image", operation=item.operation.operation_id)
            return
        self._lanes.offer(
            Wish(
                resource_id=item.operation.resource_id,
                version=version,
                server=server,
                image=item.image,
                operations=(item.operation,),
            )
        )

    def _accept_early(self) -> None:
        early, self._early = self._early, []
        for item in early:
            self.accept(item)

    def request_reconcile(self) -> None:
        """Ask for the desired state soon: something may have been missed."""
        self._must_reconcile.set()

    def _on_domain_ended(self, ended: DomainEnded) -> None:
        log.info("domain.ended", server=ended.server_id, cause=ended.cause)
        self._lanes.domain_ended(ended.server_id)

    # What edges and guests ask

    async def console(self, ask: ConsoleAsk) -> ConsoleReply:
        """Answer with the last lines of a server's console."""
        try:
            return ConsoleReply(
                output=await self._drivers.storage.console(ask.server_id, ask.lines)
            )
        except HostError as error:
            return ConsoleReply(error=reason(error))

    async def readings(self) -> list[Reading]:
        """Return what an edge tells of this host, beside what is counted."""
        return [("cumulog_agent_servers", (), self._lanes.wanted_running())]

    async def _ask_metadata(self, ask: MetadataAsk) -> MetadataReply:
        try:
            return await self._upstream.ask_metadata(ask)
        except UpstreamError as error:
            log.warning("metadata.unanswered", path=ask.path, why=reason(error))
            return MetadataReply(status=503, body=b"the metadata service is not there yet\n")

    # What it does by itself

    def _registration(self) -> RegisterHost:
        hypervisor = self._drivers.hypervisor
        vcpus, memory_mib = hypervisor.room()
        disk_gib = self._drivers.storage.disk_capacity_gib()
        return RegisterHost(
            capacity=Capacity(vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib),
            hypervisor=hypervisor.name,
            accelerator=hypervisor.accelerator,
            executors=EXECUTORS,
            version=self._version,
        )

    async def reconcile(self) -> None:
        """Fetch the desired state and converge to it.

        Raises:
            UpstreamError: nobody answered; nothing was done.
            StaleState: an old leader answered; nothing was done.
        """
        desired = await self._reconciler.fetch()
        await self._reconciler.apply(desired)
        await self._drivers.storage.trim_consoles()

    async def _reconcile_until_done(self) -> None:
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                await self.reconcile()
            except (UpstreamError, StaleState, HostError) as error:
                log.warning("reconcile.waits", why=reason(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)
            else:
                return

    async def _reconcile_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.reconcile_s):
                    await self._must_reconcile.wait()
            self._must_reconcile.clear()
            await self._reconcile_until_done()

    async def _beat_for_ever(self) -> None:
        while True:
            try:
                await self._upstream.heartbeat(self._heartbeat())
            except UpstreamError as error:
                log.warning("heartbeat.lost", why=reason(error))
            await asyncio.sleep(self._pace.heartbeat_s)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            host_id=self.host_id,
            domains=self._lanes.wanted_running(),  # libvirt may be busy, or away
            load_milli=round(os.getloadavg()[0] * 1000),
            disk_free_gib=self._drivers.storage.disk_free_gib(),
            position=self._position.highest.ordinal,
        )
