"""Bring one server of this host to where it shall be (and check one image).

Looks before it acts, may run any number of times, may be killed at any line, and undoes what it
made when a step fails. What runs is read from the hypervisor, never remembered; only the number
of the last start is (see ``records``), so that each boot number is started once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import structlog

from executors.errors import HostError, StorageError, Superseded
from executors.hypervisor.port import Domain, DomainSpec, Hypervisor, Nic
from executors.network.port import Networks
from executors.records import Record, Records
from executors.reports import Clock
from executors.storage.port import Storage
from executors.waiting import together
from executors.wish import Wish
from schemas.compute import StopCause
from schemas.host import DriftFound
from schemas.ids import ServerId
from schemas.units import SECOND, Micros
from schemas.work import ServerSpec

log = structlog.get_logger(__name__)

_PRESS_AGAIN_S = 5.0
_END_BEFORE_DEADLINE_S = 5.0
_UNDO_S = 60.0
_CHECKS_ABREAST = 2


@dataclass(frozen=True, kw_only=True)
class Drivers:
    """The host's three roles."""

    hypervisor: Hypervisor
    storage: Storage
    networks: Networks


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A server as it is now.

    ``ended`` says why it stopped on its own account under the boot asked for, if it did, and
    ``ended_at`` since when that is known. ``drift`` is what was found different.
    ``virtual_size_bytes`` is of an image that was checked.
    """

    running: bool
    observed_at: Micros
    virtual_size_bytes: int = 0
    ended: StopCause | None = None
    ended_at: Micros = 0
    drift: tuple[DriftFound, ...] = ()


@dataclass
class Attention:
    """What may interrupt a wait: a newer wish, or the domain's end."""

    superseded: asyncio.Event = field(default_factory=asyncio.Event)
    domain_ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: Micros = 0  # when notice of the last end came in; 0: none yet


class Converger:
    """Does the steps for one server per call. Calls for different servers run abreast."""

    def __init__(
        self, drivers: Drivers, records: Records, clock: Clock, *, starts_abreast: int
    ) -> None:
        self.drivers = drivers
        self.records = records
        self._clock = clock
        self._room = asyncio.Semaphore(starts_abreast)
        self._checks = asyncio.Semaphore(_CHECKS_ABREAST)

    async def converge(self, wish: Wish, attention: Attention, deadline: Micros) -> Observed:
        """Make a server as wished, or check an image; return what then is.

        Raises:
            HostError: a step failed and what this call had made is gone again; or ``Superseded``.
        """
        if wish.image is not None:
            async with self._checks:
                size_bytes = await self.drivers.storage.check(wish.image)
            return Observed(running=False, observed_at=self._clock(), virtual_size_bytes=size_bytes)
        match wish.server:
            case ServerSpec() as spec if wish.look:
                return await self._look(spec, attention)
            case ServerSpec(wanted="running") as spec:
                return await self._run(spec, attention, deadline)
            case ServerSpec(wanted="stopped") as spec:
                return await self._stop(spec, attention, deadline)
            case _:
                return await self._remove(wish.resource_id)

    async def runs(self, server_id: ServerId) -> bool:
        """Return whether the server's domain is there. HypervisorError."""
        return await self.drivers.hypervisor.find(server_id) is not None

    def note_end(self, server_id: ServerId, boot: int) -> None:
        """Remember that the engine knows of a server's end under this boot."""
        record = self.records.load(server_id)
        if record is not None and record.boot == boot:
            self.records.save(server_id, msgspec.structs.replace(record, phase="ended"))

    # Running

    async def _run(self, spec: ServerSpec, attention: Attention, deadline: Micros) -> Observed:
        server_id = spec.server.server_id
        domain = await self.drivers.hypervisor.find(server_id)
        record = self.records.load(server_id)
        if domain is not None and domain.boot >= spec.boot:
            return await self._keep_running(spec, domain, record)
        if domain is not None:
            if spec.reboot == "soft":
                await self._end_gently(spec, attention, deadline)
            else:
                await self.drivers.hypervisor.destroy(server_id)
            if record is not None:  # should the start below fail, this boot is over all the same
                record = msgspec.structs.replace(record, phase="stopped")
                self.records.save(server_id, record)
        elif record is not None and record.boot >= spec.boot and record.phase != "starting":
            cause = await self.drivers.hypervisor.ended_because(server_id)
            return Observed(
                running=False,
                observed_at=record.started_at,
                ended=cause,
                ended_at=self._ended_at(record, attention),
            )
        missing = record is not None and record.boot == spec.boot
        await self._start(spec, record)
        record = self.records.load(server_id)
        assert record is not None
        drift = _drift("domain", server_id, "missing", "started") if missing else ()
        return Observed(running=True, observed_at=record.started_at, drift=drift)

    async def _look(self, spec: ServerSpec, attention: Attention) -> Observed:
        """See whether a domain that was started has ended on its own account."""
        server_id = spec.server.server_id
        record = self.records.load(server_id)
        running = await self.runs(server_id)
        now = self._clock()
        if running or record is None or (record.boot, record.phase) != (spec.boot, "started"):
            return Observed(running=running, observed_at=now)
        ended_at = self._ended_at(record, attention)
        cause = await self.drivers.hypervisor.ended_because(server_id)
        return Observed(running=False, observed_at=now, ended=cause, ended_at=ended_at)

    def _ended_at(self, record: Record, attention: Attention) -> Micros:
        """Return when a domain ended, as far as it is known: when notice of it came in, or now.

        What was under way may have held up the look at it, and its owner pays for every second.
        """
        heard = attention.ended_at
        return heard if heard >= record.started_at and heard > 0 else self._clock()

    async def _keep_running(
        self, spec: ServerSpec, domain: Domain, record: Record | None
    ) -> Observed:
        """See to the ports of a domain that runs, and to a record that a crash left behind."""
        await self.drivers.networks.plug(spec.server.server_id, spec.ports)
        await self.drivers.networks.serve(spec.ports)
        if record is None or record.boot < domain.boot or record.phase != "started":
            record = Record(
                boot=domain.boot, phase="started", started_at=self._clock(), disk_made=True
            )
            self.records.save(spec.server.server_id, record)
        if spec.resize and not spec.revertible:
            await self.drivers.storage.let_go(spec.server.server_id, spec.resize)
        return Observed(running=True, observed_at=record.started_at)

    async def _start(self, spec: ServerSpec, before: Record | None) -> None:
        """Make what the domain needs, then the domain; or leave no trace."""
        server_id = spec.server.server_id
        made = before if before is not None else Record()
        hypervisor, storage = self.drivers.hypervisor, self.drivers.storage
        async with self._room, _undoing() as undo:
            starting = msgspec.structs.replace(made, boot=spec.boot, phase="starting")
            self.records.save(server_id, starting)
            undo.push_async_callback(self._put_back, server_id, before)
            disk, nics = await together(
                self._ensure_disk(spec, made, undo), self._plug(spec, before, undo)
            )
            domain = DomainSpec(
                server_id=server_id,
                boot=spec.boot,
                vcpus=spec.server.flavor.vcpus,
                memory_mib=spec.server.flavor.memory_mib,
                disk=storage.disk_path(server_id) if disk else "",
                console=storage.console_path(server_id),
                nics=nics,
            )
            undo.push_async_callback(hypervisor.destroy, server_id)
            await together(hypervisor.create(domain), self.drivers.networks.serve(spec.ports))
            started = msgspec.structs.replace(
                starting, phase="started", started_at=self._clock(), disk_made=True
            )
            self.records.save(server_id, started)
            undo.pop_all()

    async def _ensure_disk(self, spec: ServerSpec, made: Record, undo: AsyncExitStack) -> bool:
        server_id, storage = spec.server.server_id, self.drivers.storage
        if made.disk_made:
            if not await storage.has_disk(server_id):
                raise StorageError("the server's root disk is gone from its host")
            await self._fit_disk(spec)
            return True
        if spec.image is None:
            raise StorageError("the server has no image to boot from")
        await storage.ensure_image(spec.image)
        undo.push_async_callback(storage.remove, server_id)
        await storage.ensure_disk(server_id, spec.image, spec.server.flavor.disk_gib)
        return True

    async def _fit_disk(self, spec: ServerSpec) -> None:
        """See to a disk that no domain uses, after a resize, its failure or its revert."""
        await self.drivers.storage.fit_disk(
            spec.server.server_id,
            spec.server.flavor.disk_gib,
            spec.resize,
            revertible=spec.revertible,
        )

    async def _plug(
        self, spec: ServerSpec, before: Record | None, undo: AsyncExitStack
    ) -> tuple[Nic, ...]:
        server_id, networks = spec.server.server_id, self.drivers.networks
        if before is None:
            undo.push_async_callback(networks.unplug, server_id)
        return await networks.plug(server_id, spec.ports)

    async def _put_back(self, server_id: ServerId, before: Record | None) -> None:
        """Let the record say what it said before a start that came to nothing."""
        if before is None:
            self.records.forget(server_id)
            await self.drivers.storage.remove(server_id)
        else:
            self.records.save(server_id, before)

    # Stopped

    async def _stop(self, spec: ServerSpec, attention: Attention, deadline: Micros) -> Observed:
        server_id = spec.server.server_id
        drift: tuple[DriftFound, ...] = ()
        if await self.drivers.hypervisor.find(server_id) is not None:
            await self._end_gently(spec, attention, deadline)
            drift = _drift("domain", server_id, "running", "stopped")
        observed_at = self._clock()
        record = self.records.load(server_id)
        if record is not None:
            if record.phase in {"starting", "started"}:
                self.records.save(server_id, msgspec.structs.replace(record, phase="stopped"))
            if record.disk_made and await self.drivers.storage.has_disk(server_id):
                await self._fit_disk(spec)
            await self.drivers.networks.plug(server_id, spec.ports)
            await self.drivers.networks.serve(spec.ports)
        return Observed(running=False, observed_at=observed_at, drift=drift)

    async def _end_gently(self, spec: ServerSpec, attention: Attention, deadline: Micros) -> None:
        """Ask the guest to power off, and end it when its grace is over.

        A guest that is still booting does not hear the button, so it is pressed again.

        Raises:
            Superseded: a newer wish came; the domain may still run.
        """
        server_id, hypervisor = spec.server.server_id, self.drivers.hypervisor
        left_s = (deadline - self._clock()) / SECOND - _END_BEFORE_DEADLINE_S
        grace_s = max(0.0, min(float(spec.grace_s), left_s))
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_s
        while (left := end - loop.time()) > 0:
            attention.domain_ended.clear()
            if await hypervisor.find(server_id) is None:
                return
            await hypervisor.press_power(server_id)
            await _first_of(
                attention.domain_ended, attention.superseded, within_s=min(left, _PRESS_AGAIN_S)
            )
            if attention.superseded.is_set():
                raise Superseded("a newer request about the server came first")
        if await hypervisor.find(server_id) is not None:
            log.info("domain.grace_over", server=server_id, grace_s=grace_s)
            await hypervisor.destroy(server_id)

    # Absent

    async def _remove(self, server_id: ServerId) -> Observed:
        """Take away all that a server has here; the domain first, since it uses the rest."""
        found: list[str] = []
        if await self.drivers.hypervisor.find(server_id) is not None:
            found.append("domain")
        await self.drivers.hypervisor.destroy(server_id)
        if await self.drivers.storage.has_disk(server_id):
            found.append("disk")
        await together(
            self.drivers.networks.unplug(server_id), self.drivers.storage.remove(server_id)
        )
        self.records.forget(server_id)
        drift = tuple(d for kind in found for d in _drift(kind, server_id, "not wanted", "removed"))
        return Observed(running=False, observed_at=self._clock(), drift=drift)


@asynccontextmanager
async def _undoing() -> AsyncIterator[AsyncExitStack]:
    """Run what was pushed, newest first and each to its end, if the body fails."""
    undo = AsyncExitStack()
    try:
        yield undo
    except BaseException:
        try:
            async with asyncio.timeout(_UNDO_S):
                await undo.aclose()
        except (HostError, TimeoutError):
            # The next reconciliation finds and removes what is left.
            log.exception("undo.incomplete")
        raise


async def _first_of(*events: asyncio.Event, within_s: float) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _drift(kind: str, name: str, found: str, done: str) -> tuple[DriftFound, ...]:
    return (DriftFound(kind=kind, name=name, found=found, done=done),)
