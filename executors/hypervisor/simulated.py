"""A hypervisor of nothing: domains are entries in a table, and everything happens at once.

For scale tests and for hosts without root. It keeps the port's promises and costs next to nothing;
it never stands in for the real one in functional tests.
"""

from collections.abc import Callable

from executors.errors import HypervisorError
from executors.hypervisor.port import Domain, DomainEnded, DomainSpec
from schemas.compute import StopCause
from schemas.ids import ServerId

# Room for a scale test, and yet a few of the largest flavors fill it.
_VCPUS = 2**17
_MEMORY_MIB = 2**27


class SimulatedHypervisor:
    """Domains in memory; they are gone with the process, as real ones are with their host."""

    name = "simulated"
    accelerator = "none"

    def __init__(self, *, vcpus: int = _VCPUS, memory_mib: int = _MEMORY_MIB) -> None:
        self._room = (vcpus, memory_mib)
        self._domains: dict[ServerId, Domain] = {}
        self._causes: dict[ServerId, StopCause] = {}
        self._on_ended: Callable[[DomainEnded], None] = lambda _: None
        # Guests that do not care for the power button, as some real ones do not.
        self.deaf: set[ServerId] = set()
        self.used: dict[ServerId, dict[str, int]] = {}

    async def start(self, on_ended: Callable[[DomainEnded], None]) -> None:
        """Remember whom to tell."""
        self._on_ended = on_ended

    async def close(self) -> None:
        """Tell nobody any more."""
        self._on_ended = lambda _: None

    def room(self) -> tuple[int, int]:
        """Return what was given at construction."""
        return self._room

    async def domains(self) -> dict[ServerId, Domain]:
        """Return all domains by server."""
        return dict(self._domains)

    async def counters(self) -> dict[ServerId, dict[str, int]]:
        """Return what was put into ``used``: nothing is used by itself."""
        return {server_id: dict(self.used.get(server_id, {})) for server_id in self._domains}

    async def find(self, server_id: ServerId) -> Domain | None:
        """Return a server's domain, None if it is not there."""
        return self._domains.get(server_id)

    async def create(self, spec: DomainSpec) -> None:
        """Enter a domain.

        Raises:
            HypervisorError: it is there already.
        """
        if spec.server_id in self._domains:
            raise HypervisorError(f"the domain of {spec.server_id} is already running")
        self._causes.pop(spec.server_id, None)
        self._domains[spec.server_id] = Domain(server_id=spec.server_id, boot=spec.boot)

    async def press_power(self, server_id: ServerId) -> None:
        """Power off at once, unless the guest is deaf."""
        if server_id not in self.deaf:
            self.end(server_id, "guest")

    async def destroy(self, server_id: ServerId) -> None:
        """Remove a domain."""
        self.end(server_id, "request")

    async def ended_because(self, server_id: ServerId) -> StopCause:
        """Return the cause given when the domain ended."""
        return self._causes.pop(server_id, "host")

    def end(self, server_id: ServerId, cause: StopCause) -> None:
        """Let a domain end on its own account: a guest's power-off or crash."""
        if self._domains.pop(server_id, None) is not None:
            if cause != "request":
                self._causes[server_id] = cause
            self._on_ended(DomainEnded(server_id=server_id, cause=cause))
