"""What a hypervisor must do for the agent: domains come, run, and go.

A domain here is transient: it exists exactly while it runs, and carries in itself whose it is and
under which boot it was started. So what is real can be told from the hypervisor alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.compute import StopCause
from schemas.ids import ServerId


@dataclass(frozen=True, kw_only=True)
class Nic:
    """One network card: the tap that the hypervisor makes, and the bridge it plugs that into."""

    tap: str
    bridge: str
    mac_address: str
    mtu: int


@dataclass(frozen=True, kw_only=True)
class DomainSpec:
    """All that a domain is started with. Paths are absolute; ``disk`` is qcow2."""

    server_id: ServerId
    boot: int
    vcpus: int
    memory_mib: int
    disk: str
    console: str
    nics: tuple[Nic, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain that runs (or is paused). ``boot`` 0: it does not say under which it started."""

    server_id: ServerId
    boot: int


@dataclass(frozen=True, kw_only=True)
class DomainEnded:
    """A domain is gone, for whatever reason; sent also for those that were asked to go."""

    server_id: ServerId
    cause: StopCause


class Hypervisor(Protocol):
    """One host's hypervisor. Every method may be repeated; each has a deadline of its own."""

    @property
    def name(self) -> str:
        """QEMU, or simulated."""
        ...

    @property
    def accelerator(self) -> str:
        """What guests run on: kvm, tcg, none. Known after start."""
        ...

    async def start(self, on_ended: Callable[[DomainEnded], None]) -> None:
        """Get ready; ``on_ended`` is then called in the event loop. HypervisorError."""
        ...

    async def close(self) -> None:
        """Let go of the hypervisor. Domains run on."""
        ...

    def room(self) -> tuple[int, int]:
        """Return the vCPUs (already overcommitted) and MiB of memory that servers may have."""
        ...

    async def domains(self) -> dict[ServerId, Domain]:
        """Return this cloud's domains by server."""
        ...

    async def counters(self) -> dict[ServerId, dict[str, int]]:
        """Return what each domain has used since it was started, by monitor.

        ``compute.cpu_time`` is in nanoseconds, all else in bytes; see ``schemas.metering``.
        """
        ...

    async def find(self, server_id: ServerId) -> Domain | None:
        """Return a server's domain, None if it is not there."""
        ...

    async def create(self, spec: DomainSpec) -> None:
        """Start a domain; it runs when this returns. HypervisorError, also if it exists."""
        ...

    async def press_power(self, server_id: ServerId) -> None:
        """Press the ACPI power button. A guest may well ignore it."""
        ...

    async def destroy(self, server_id: ServerId) -> None:
        """End a domain at once, and drop what is kept about it. Repeating is harmless."""
        ...

    async def ended_because(self, server_id: ServerId) -> StopCause:
        """Return why a domain that is no longer there ended, as far as the host can tell."""
        ...
