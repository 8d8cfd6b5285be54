"""QEMU guests by libvirt: the hypervisor port over a daemon of our own.

Domains are transient: when one ends, nothing of it stays in libvirt, and whether a server runs is
the same question as whether its domain is there.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import libvirt
import structlog

from executors.errors import HypervisorError, reason
from executors.hypervisor import accelerator as accelerator_
from executors.hypervisor.connection import Connection, ConnectionLost
from executors.hypervisor.daemon import Daemon
from executors.hypervisor.domain_xml import METADATA_URI, boot_of, domain_xml
from executors.hypervisor.port import Domain, DomainEnded, DomainSpec
from executors.inventory import cgroups_of
from executors.layout import Layout
from schemas.compute import StopCause
from schemas.ids import ServerId

log = structlog.get_logger(__name__)

_QUICK_S = 40.0  # a monitor call waits up to 30 s for the guest's job lock
_CREATE_S = 120.0
_OVERCOMMIT = 4
_RESERVE_LEAST_MIB = 1024
_RESERVE_SHARE = 8
_LOG_TAIL_BYTES = 4096

_STATS = (
    libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
_CAUSES: dict[int, StopCause] = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: "guest",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "request",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "crash",
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "crash",
}
# A domain's log begins with "… starting up …" and ends with "… shutting down, reason=crashed".
_LOGGED_CAUSES: dict[str, StopCause] = {
    "shutdown": "guest",
    "crashed": "crash",
    "failed": "crash",
    "destroyed": "host",
}


class LibvirtHypervisor:
    """This cloud's guests on this machine."""

    name = "QEMU"

    def __init__(
        self, layout: Layout, *, accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    ) -> None:
        self._layout = layout
        self._wanted = accelerator
        self.accelerator: accelerator_.Accelerator = "tcg"
        self._emulator = ""
        self._connection = Connection(Daemon(layout))
        self._on_ended: Callable[[DomainEnded], None] = lambda _: None
        self._causes: dict[ServerId, StopCause] = {}
        self._seen: set[ServerId] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, on_ended: Callable[[DomainEnded], None]) -> None:
        """Choose the accelerator, connect, and let libvirt get to know QEMU.

        Raises:
            HypervisorError: something is not installed, or the daemon does not start.
        """
        self._on_ended = on_ended
        self._emulator = accelerator_.emulator()
        choosing = asyncio.create_task(
            asyncio.to_thread(accelerator_.choose, self._layout, self._wanted)
        )
        try:
            await self._connection.open(self._lifecycle, self._reopened)
        finally:
            self.accelerator = await choosing
        kind = "kvm" if self.accelerator == "kvm" else "qemu"
        # The first question makes libvirt probe QEMU, for seconds; better now than for a guest.
        await self._connection.call(
            lambda c: c.getDomainCapabilities(self._emulator, "x86_64", "pc", kind, 0),
            deadline_s=_CREATE_S,
        )
        self._seen = set(await self.domains())

    async def close(self) -> None:
        """Disconnect. Guests run on."""
        self._on_ended = lambda _: None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    def room(self) -> tuple[int, int]:
        """Return four vCPUs for each processor, and the memory less what the host itself needs."""
        total_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        reserve_mib = max(_RESERVE_LEAST_MIB, total_mib // _RESERVE_SHARE)
        return (os.cpu_count() or 1) * _OVERCOMMIT, max(0, total_mib - reserve_mib)

    async def domains(self) -> dict[ServerId, Domain]:
        """Return this cloud's domains by server."""

        def work(connection: libvirt.virConnect) -> dict[ServerId, Domain]:
            found = {}
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                server_id = self._layout.server_of(domain.name())
                if server_id is not None and (boot := _boot(domain)) is not None:
                    found[server_id] = Domain(server_id=server_id, boot=boot)
            return found

        return await self._connection.call(work, deadline_s=_QUICK_S)

    async def counters(self) -> dict[ServerId, dict[str, int]]:
        """Return what each domain has used since it was started, from one question to libvirt."""

        def work(connection: libvirt.virConnect) -> dict[ServerId, dict[str, int]]:
            found = {}
            for domain, stats in connection.getAllDomainStats(
                _STATS, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
            ):
                server_id = self._layout.server_of(domain.name())
                if server_id is not None:
                    found[server_id] = _counters(stats)
            return found

        return await self._connection.call(work, deadline_s=_QUICK_S)

    async def find(self, server_id: ServerId) -> Domain | None:
        """Return a server's domain, None if it is not there."""

        def work(connection: libvirt.virConnect) -> Domain | None:
            domain = self._lookup(connection, server_id)
            boot = _boot(domain) if domain is not None else None
            return None if boot is None else Domain(server_id=server_id, boot=boot)

        return await self._connection.call(work, deadline_s=_QUICK_S)

    async def create(self, spec: DomainSpec) -> None:
        """Start a domain; it runs when this returns.

        If the daemon goes away meanwhile, the domain is looked for before it is started again.

        Raises:
            HypervisorError: libvirt or QEMU refused, or it is running already.
        """
        xml = domain_xml(
            spec, layout=self._layout, accelerator=self.accelerator, emulator=self._emulator
        )

        def work(connection: libvirt.virConnect) -> None:
            connection.createXML(xml, 0)

        self._causes.pop(spec.server_id, None)
        try:
            await self._connection.call(work, deadline_s=_CREATE_S, again=False)
        except ConnectionLost:
            found = await self.find(spec.server_id)
            if found is None:
                await self._connection.call(work, deadline_s=_CREATE_S, again=False)
            elif found.boot != spec.boot:
                raise
        self._seen.add(spec.server_id)

    async def press_power(self, server_id: ServerId) -> None:
        """Press the ACPI power button; nothing if the domain is gone."""

        def work(connection: libvirt.virConnect) -> None:
            domain = self._lookup(connection, server_id)
            if domain is not None:
                _unless_gone(
                    lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
                )

        await self._connection.call(work, deadline_s=_QUICK_S)

    async def destroy(self, server_id: ServerId) -> None:
        """End a domain at once, and drop its log. Nothing to do if it is not there."""

        def work(connection: libvirt.virConnect) -> None:
            domain = self._lookup(connection, server_id)
            if domain is not None:
                _unless_gone(domain.destroy)
            self._remove_cgroups(server_id)
            self._log_of(server_id).unlink(missing_ok=True)

        await self._connection.call(work, deadline_s=_QUICK_S)
        self._seen.discard(server_id)

    async def ended_because(self, server_id: ServerId) -> StopCause:
        """Return why a domain ended: from its event, else from libvirt's log of it."""
        if (cause := self._causes.pop(server_id, None)) is not None:
            return "host" if cause == "request" else cause
        return await asyncio.to_thread(_logged_cause, self._log_of(server_id))

    # Events

    def _lifecycle(self, name: str, event: int, detail: int) -> None:
        server_id = self._layout.server_of(name)
        if server_id is None or event != libvirt.VIR_DOMAIN_EVENT_STOPPED:
            return
        cause = _CAUSES.get(detail, "host")
        self._causes[server_id] = cause
        self._seen.discard(server_id)
        self._on_ended(DomainEnded(server_id=server_id, cause=cause))

    def _reopened(self) -> None:
        task = asyncio.get_running_loop().create_task(self._catch_up())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _catch_up(self) -> None:
        """Tell of domains that ended while nobody listened."""
        try:
            here = set(await self.domains())
        except HypervisorError as error:
            log.warning("libvirt.unseen", why=reason(error))
            return
        gone, self._seen = self._seen - here, here
        for server_id in gone:
            self._on_ended(DomainEnded(server_id=server_id, cause="host"))

    # libvirt

    def _lookup(
        self, connection: libvirt.virConnect, server_id: ServerId
    ) -> libvirt.virDomain | None:
        try:
            return connection.lookupByName(self._layout.domain(server_id))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _remove_cgroups(self, server_id: ServerId) -> None:
        """Remove what a daemon that was killed meanwhile has left of a guest's control groups."""
        for path in cgroups_of(self._layout, self._layout.domain(server_id)):
            with contextlib.suppress(OSError):  # gone, or, of another boot, in use
                path.rmdir()

    def _log_of(self, server_id: ServerId) -> Path:
        return self._layout.libvirt / "log/qemu" / f"{self._layout.domain(server_id)}.log"


def _boot(domain: libvirt.virDomain) -> int | None:
    """Return a domain's boot, 0 if it does not tell, None if it is gone meanwhile."""
    try:
        return boot_of(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, METADATA_URI, 0))
    except libvirt.libvirtError as error:
        code = error.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        if code == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return 0
        raise


def _counters(stats: Mapping[str, int | str]) -> dict[str, int]:
    """Add up a domain's cards and disks. libvirt counts a tap from the guest's side."""

    def total(kind: str, name: str) -> int:
        numbers = range(int(stats.get(f"{kind}.count", 0)))
        return sum(int(stats.get(f"{kind}.{number}.{name}", 0)) for number in numbers)

    return {
        "compute.cpu_time": int(stats.get("cpu.time", 0)),
        "compute.disk_read": total("block", "rd.bytes"),
        "compute.disk_write": total("block", "wr.bytes"),
        "network.ingress": total("net", "rx.bytes"),
        "network.egress": total("net", "tx.bytes"),
    }


def _unless_gone(call: Callable[[], object]) -> None:
    try:
        call()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _GONE:
            raise


def _logged_cause(path: Path) -> StopCause:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return "host"
    marks = ("shutting down", "starting up")  # the machine went down with it if it only started
    lines = (line for line in reversed(tail.splitlines()) if any(mark in line for mark in marks))
    last = next(lines, "")
    return _LOGGED_CAUSES.get(last.rpartition("reason=")[2].strip(), "host")
