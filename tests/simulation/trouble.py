"""What befalls processes, links, clocks and hosts, one thing after another, until it is over."""

import asyncio

from executors.hypervisor.port import Domain
from schemas.units import SECOND


class Trouble:
    """Takes what the plan allows, in an order and at times that follow from the seed."""

    def __init__(self, world):
        self.world = world
        self.chance = world.chance
        self.loop = world.loop

    async def run(self):
        world, plan = self.world, self.world.plan
        end = self.loop.now + plan.trouble_s
        if plan.lose_host:
            self.loop.call_later(self.chance.random() * plan.trouble_s, self._lose_host)
        while self.loop.now < end:
            await asyncio.sleep(min(self.chance.expovariate(1.0) * plan.every_s, 15.0))
            if plan.misfortunes:
                kind = self.chance.choice(plan.misfortunes)
                world.trace("trouble", kind)
                getattr(self, f"_{kind}")()

    def heal(self):
        """All links are mended, all processes go on or are started again."""
        world = self.world
        world.network.away_until = 0.0
        world.network.ambush = None
        for bus in list(world.network.buses):
            bus.stalled_until = min(bus.stalled_until, self.loop.now)
            world.network.mend(bus)
        for process in list(world.processes.values()):
            if process.paused:
                process.resume()

    # Processes

    def _some(self, prefix):
        names = [n for n, p in self.world.processes.items() if n.startswith(prefix) and p.alive]
        return self.chance.choice(names) if names else None

    def _kill(self, prefix):
        name = self._some(prefix)
        if name is None:
            return
        process = self.world.processes[name]
        main = process.main
        self.world.trace("kill", name)
        self._touch(name)
        self.world.kill(name)
        self.loop.call_later(self._down_s(), self.world.revive, name, main)

    def _down_s(self):
        return self.chance.choice((0.1, 0.5, 1.0, 3.0, 12.0))

    def _pause(self, prefix):
        name = self._some(prefix)
        if name is None or self.world.processes[name].paused:
            return
        process = self.world.processes[name]
        self._touch(name)
        process.pause()
        for_s = self.chance.choice((0.3, 1.0, 2.5, 6.0, 20.0))
        self.world.trace("pause", name, f"{for_s} s")
        self.loop.call_later(for_s, self._resume, process)

    def _resume(self, process):
        if process.paused and process.alive:
            self.world.trace("resume", process.name)
            process.resume()

    def _touch(self, name):
        for host in self.world.hosts:
            if name == f"agent-{host.host_id}":
                host.calm = False

    def _leader_or_any(self):
        """Mostly the leader: the standby has less to lose."""
        leader = self.world.leader
        if leader is not None and self.chance.random() < 0.75:
            return next(n for n, c in self.world.candidates.items() if c is leader)
        return "node-"

    def _kill_engine(self):
        self._kill(self._leader_or_any())

    def _pause_engine(self):
        self._pause(self._leader_or_any())

    def _kill_agent(self):
        self._kill("agent-")

    def _pause_agent(self):
        self._pause("agent-")

    def _kill_projector(self):
        self._kill("projector")

    def _pause_projector(self):
        self._pause("projector")

    def _ambush(self):
        """Wait for a commit to be sent, hold it up, and strike its writer meanwhile, or later."""

        def strike(bus):
            delay_s = self.chance.choice((0.01, 0.3, 2.5, 6.0))
            when_s = self.chance.random() * 1.5 * delay_s
            deed = self.chance.choice((self._kill, self._pause, self.world.network.cut))
            cuts = deed == self.world.network.cut
            self.world.trace("ambush", bus.name, f"{deed.__name__} in {when_s:.3f} s")
            # Called by who is struck: not on its own time.
            nobody = self.world.network.nobody
            self.loop.call_later(when_s, deed, bus if cuts else bus.name, context=nobody)
            if cuts:
                self.loop.call_later(when_s + 1.0, self.world.network.mend, bus, context=nobody)
            return delay_s

        self.world.network.ambush = strike

    def _stop_engine(self):
        """An orderly end: the lease is given up."""
        leader = self.world.leader
        if leader is not None:
            name = self._leader_or_any()
            if name in self.world.processes and self.world.processes[name].alive:
                self.world.trace("stop", name)
                self.world.processes[name].call(self.world.processes[name].stop.set)

    def _stop_agent(self):
        """An orderly end: steps under way may end, guests run on."""
        host = self.chance.choice(self.world.hosts)
        name = f"agent-{host.host_id}"
        process = self.world.processes[name]
        if process.alive and not process.paused:
            host.calm = False
            self.world.trace("stop", name)
            process.stop.set()
            process.start(host.agent.close())
            self.loop.call_later(4.0, self._kill_if_same, name, process)

    def _kill_if_same(self, name, process):
        if self.world.processes[name] is process and process.alive:
            self.world.kill(name)
            self.loop.call_later(self._down_s(), self.world.revive, name, process.main)

    # Links

    def _a_bus(self):
        network, leader = self.world.network, self.world.leader
        if leader is not None and self.chance.random() < 0.4:
            return leader._bus
        return self.chance.choice(network.buses)

    def _cut(self):
        bus = self._a_bus()
        self.world.trace("cut", bus.name)
        self.world.network.cut(bus)
        for_s = self.chance.choice((0.1, 1.0, 4.0, 15.0))
        self.loop.call_later(for_s, self.world.network.mend, bus)

    def _stall(self):
        bus = self._a_bus()
        for_s = self.chance.choice((0.2, 1.5, 4.0, 12.0))
        self.world.trace("stall", bus.name, f"{for_s} s")
        self.world.network.stall(bus, for_s)

    def _restart_broker(self):
        world, network = self.world, self.world.network
        for_s = self.chance.choice((0.2, 1.0, 5.0))
        world.broker.restart()
        network.ambush = None
        network.away_until = self.loop.now + for_s
        for bus in list(network.buses):
            network.cut(bus)
            self.loop.call_later(for_s + self.chance.random(), network.mend, bus)

    # Hosts

    def _end_domain(self):
        running = [(h, s) for h in self.world.hosts if not h.lost for s in h.running()]
        if running:
            host, server_id = self.chance.choice(running)
            cause = self.chance.choice(("guest", "crash"))
            self.world.trace("end_domain", host.host_id, f"{server_id} {cause}")
            host.hypervisor.end(server_id, cause)

    def _stray(self):
        """Something is there that nobody wished: a disk, perhaps with a domain on it."""
        host = self.chance.choice(self.world.hosts)
        if host.lost:
            return
        server_id = self.world.new_id()
        self.world.trace("stray", host.host_id, server_id)
        host.storage._disks[server_id] = "nothing"
        if self.chance.random() < 0.5:
            host.hypervisor._domains[server_id] = Domain(server_id=server_id, boot=1)
            host.began(server_id, 1, stray=True)

    def _power_cut(self):
        host = self.chance.choice(self.world.hosts)
        name = f"agent-{host.host_id}"
        process = self.world.processes[name]
        if host.lost or not process.alive:
            return
        host.calm = False
        self.world.trace("power_cut", host.host_id)
        self.world.kill(name)
        host.power_cut()
        self.loop.call_later(self._down_s(), self.world.revive, name, process.main)

    def _lose_host(self):
        host = self.world.hosts[-1]
        host.lost = True
        host.calm = False
        self.world.trace("lose_host", host.host_id)
        name = f"agent-{host.host_id}"
        self.world.kill(name)
        self.world.processes[name].lost = True
        host.power_cut()

    # Clocks

    def skew_clocks(self):
        """Let every machine's clock be off by something."""
        machines = ["node-a", "node-b", *(h.host_id for h in self.world.hosts)]
        for machine in machines:
            self._set_clock(machine)

    def _set_clock(self, machine):
        world = self.world
        off = round((self.chance.random() * 2 - 1) * world.plan.skew_s * SECOND)
        world.skews[machine] = off
        world.skew_seen = max(world.skew_seen, abs(off))
        for process in world.all_processes:
            if process.machine == machine:
                process.clock_offset = off

    def _step_clock(self):
        machine = self.chance.choice(sorted(self.world.skews))
        self._set_clock(machine)
        self.world.trace("step_clock", machine, str(self.world.skews[machine]))
