"""A host that outlives its agents, and remembers what truly ran on it, and when.

The drivers are the product's simulated ones, made slow and fallible here: between any two steps an
agent may die, and a step may fail. What removes never fails, as undoing is what is relied on.
"""

import asyncio

from executors.converge import Drivers
from executors.errors import HypervisorError, NetworkError, StorageError
from executors.hypervisor.port import DomainEnded
from executors.hypervisor.simulated import SimulatedHypervisor
from executors.network.simulated import SimulatedNetworks
from executors.records import MemoryRecords
from executors.storage.simulated import SimulatedStorage

STEP_S = 0.02


class Run:
    """A domain's life, in true microseconds."""

    __slots__ = ("boot", "end", "noted", "server_id", "start", "taken_down")

    def __init__(self, server_id, boot, start):
        self.server_id = server_id
        self.boot = boot
        self.start = start
        self.end = None
        self.noted = False  # its agent has seen that it began
        self.taken_down = False  # by the agent


class Pace:
    """How slow and how unreliable a host's drivers are."""

    def __init__(self, chance, *, slow=0.0, slow_s=20.0, failing=0.0):
        self._chance = chance
        self.slow = slow
        self.slow_s = slow_s
        self.failing = failing

    async def step(self, error=None):
        chance = self._chance
        took_s = chance.random() * STEP_S
        if self.slow and chance.random() < self.slow:
            took_s += chance.random() * self.slow_s
        await asyncio.sleep(took_s)
        if error is not None and self.failing and chance.random() < self.failing:
            raise error


class Hypervisor(SimulatedHypervisor):
    """See the module."""

    def __init__(self, host):
        super().__init__(vcpus=64, memory_mib=64 * 1024)
        self._host = host
        self._process = None
        self._told = None
        self._pressed = False  # the button, just now

    async def start(self, on_ended):
        self._process, self._told = self._host.process, on_ended
        await super().start(self._tell)

    async def close(self):
        self._told = None

    def _tell(self, ended: DomainEnded):
        """The domain's end is heard by the agent that lives, a little later."""
        process, told = self._process, self._told
        if process is not None and process.alive and told is not None:
            process.call(told, ended)

    async def domains(self):
        await self._host.pace.step()
        return await super().domains()

    async def find(self, server_id):
        await self._host.pace.step()
        return await super().find(server_id)

    async def create(self, spec):
        await self._host.pace.step(HypervisorError("the hypervisor refused"))
        await super().create(spec)
        self._host.began(spec.server_id, spec.boot)
        await self._host.pace.step(HypervisorError("the hypervisor went away"))

    async def press_power(self, server_id):
        await self._host.pace.step()
        self._pressed = True
        await super().press_power(server_id)
        self._pressed = False

    async def destroy(self, server_id):
        await self._host.pace.step()
        await super().destroy(server_id)
        await self._host.pace.step()

    def end(self, server_id, cause):
        if server_id in self._domains:
            self._host.ended(server_id, taken_down=cause == "request" or self._pressed)
        super().end(server_id, cause)


class Storage(SimulatedStorage):
    """See the module."""

    def __init__(self, host):
        super().__init__()
        self._host = host

    async def ensure_image(self, image):
        await self._host.pace.step(StorageError("the image could not be read"))
        await super().ensure_image(image)

    async def ensure_disk(self, server_id, image, disk_gib):
        await self._host.pace.step(StorageError("no room"))
        made = await super().ensure_disk(server_id, image, disk_gib)
        await self._host.pace.step(StorageError("the disk could not be finished"))
        return made

    async def remove(self, server_id):
        await self._host.pace.step()
        await super().remove(server_id)


class Networks(SimulatedNetworks):
    """See the module."""

    def __init__(self, host):
        super().__init__()
        self._host = host

    async def plug(self, server_id, ports):
        await self._host.pace.step(NetworkError("the bridge could not be made"))
        nics = await super().plug(server_id, ports)
        await self._host.pace.step()
        return nics

    async def serve(self, ports):
        await self._host.pace.step(NetworkError("no addresses could be served"))
        await super().serve(ports)

    async def unplug(self, server_id):
        await self._host.pace.step()
        await super().unplug(server_id)


class Records(MemoryRecords):
    """Files that outlive the agents."""

    def __init__(self, host):
        super().__init__()
        self._host = host

    def save(self, server_id, record):
        super().save(server_id, record)
        if record.phase == "started":
            self._host.known.add((server_id, record.boot))
            if (run := self._host.running_of(server_id)) is not None:
                run.noted = True


class Host:
    """One machine. ``process`` is the agent that runs on it now."""

    def __init__(self, host_id, clock, pace, position):
        self.host_id = host_id
        self.clock = clock
        self.pace = pace
        self.position_path = position
        self.process = None
        self.runs = []
        self._running = {}
        self.records = Records(self)
        self.hypervisor = Hypervisor(self)
        self.storage = Storage(self)
        self.networks = Networks(self)
        self.lost = False  # for good, with all that is on it
        self.calm = True  # nothing has befallen it or its agent
        self.known = set()  # starts (server, boot) of which an agent has noted that they worked
        self.repeated = []  # those that were carried out again all the same

    @property
    def drivers(self):
        return Drivers(hypervisor=self.hypervisor, storage=self.storage, networks=self.networks)

    def began(self, server_id, boot, *, stray=False):
        if (server_id, boot) in self.known:
            self.repeated.append((server_id, boot))
        run = Run(server_id, boot, self.clock())
        if not stray:
            self.runs.append(run)
        self._running[server_id] = run

    def ended(self, server_id, *, taken_down=False):
        run = self._running.pop(server_id)
        run.end, run.taken_down = self.clock(), taken_down

    def running_of(self, server_id):
        return self._running.get(server_id)

    def running(self):
        """Return the boot of each server that runs."""
        return {server_id: run.boot for server_id, run in self._running.items()}

    def traces(self, server_id):
        """Return what there is of a server."""
        found = []
        if server_id in self._running:
            found.append("domain")
        if server_id in self.storage._disks:
            found.append("disk")
        if server_id in self.networks.plugged:
            found.append("ports")
        return found

    def power_cut(self):
        """Everything that runs ends at once, and nobody is told; files stay."""
        for server_id in list(self._running):
            self.ended(server_id)
        self.hypervisor._domains.clear()
        self.hypervisor._causes.clear()
