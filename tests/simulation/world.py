"""A whole cell: two candidates, a projector, hosts with agents, clients, and what befalls them.

Everything that runs in a process here is the product's own code; what is around it is simulated.
"""

import asyncio
import functools
import hashlib
import random
import sys
import uuid
from collections import Counter

from engine.bus.lease import Lease
from engine.candidate import Candidate
from engine.domain.desired import desired_state
from engine.folded import Folded
from engine.log.port import LogError
from engine.log.witness import Witness
from engine.run import _until as until
from engine.snapshot import load_newest, stands_on
from engine.snapshotter import Snapshotter
from engine.turns import LeadershipLost
from executors.agent import Agent
from executors.agent import Pace as AgentPace
from executors.position import Position
from projections.runner import Projector
from schemas.config import Config
from tests.simulation import broker as brokers
from tests.simulation import host as hosts
from tests.simulation.clients import Operator, Person
from tests.simulation.determinism import DEFECTS, truth, wall
from tests.simulation.genesis import genesis
from tests.simulation.liars import Liar
from tests.simulation.loop import Loop, Process
from tests.simulation.network import Network
from tests.simulation.plan import CALM
from tests.simulation.spy import Upstream
from tests.simulation.trouble import Trouble

NODES = ("node-a", "node-b")
RECONCILE_S = 12.0
HEARTBEAT_S = 4.0
# How long after the last misfortune everything must have come to rest.
REST_S = 400.0
# More than these say nothing new.
DEFECTS_MAX = 20
LOOK_S = 2.0
DEADLINES = {"build": 40, "start": 25, "stop": 25, "reboot": 30, "delete": 30}


class World:
    """One simulation."""

    def __init__(self, plan, directory, *, say=None):
        self.plan = plan
        self.directory = directory
        self.loop = Loop()
        self.chance = random.Random(f"world-{plan.seed}")
        self.ids = random.Random(f"id-{plan.seed}")
        self.genesis = genesis()
        self.defects = []
        self.healed = False
        self.healing = asyncio.Event()
        self.at_rest = False
        self.servers = {}  # that clients know of, by user
        self.think_s = plan.think_s
        self.candidates = {}
        self.processes = {}
        self.all_processes = []
        self.reports = []
        self.met = Counter()  # what happened, how often
        self._say = say
        self._hash = hashlib.blake2b(digest_size=16)
        self.network = Network(self.loop, self.chance, plan.weather, self.trace, self.defect)
        self.broker = brokers.Broker(self.network)
        self.broker.store(self.genesis.datas, 0)
        self.config = Config(state_dir=str(directory), cell="sim", host_silent_s=15.0)
        self.model_path = directory / "node.sqlite"
        self.genesis.read_model(self.model_path)
        self.hosts = [self._host(f"host-{n}") for n in range(1, plan.hosts + 1)]
        self.network.works = {h.host_id: brokers.Work(self.broker, h.host_id) for h in self.hosts}
        self.people = [
            Person(self, n, random.Random(f"client-{n}-{plan.seed}")) for n in range(plan.clients)
        ]
        if plan.rolls:
            self.people.append(Operator(self, random.Random(f"operator-{plan.seed}")))
        self.skews = {}  # by machine, microseconds
        self.skew_seen = 0

    def _host(self, host_id):
        plan = self.plan
        pace = hosts.Pace(
            self.chance, slow=plan.slow_driver, slow_s=10.0, failing=plan.failing_driver
        )
        return hosts.Host(host_id, lambda: truth(self.loop), pace, self.directory / host_id)

    # What everybody may ask

    def new_id(self):
        return str(uuid.UUID(int=self.ids.getrandbits(128), version=4))

    def wall(self):
        return wall(self.loop)

    def trace(self, what, who, text=""):
        self.met[what] += 1
        line = f"{self.loop.now:.6f} {what} {who} {text}"
        self._hash.update(line.encode())
        if self._say is not None:
            self._say(line)

    def defect(self, text):
        self.trace("DEFECT", "", text)
        self.defects.append(text)
        if len(self.defects) >= DEFECTS_MAX:
            self.loop.stop()

    def said(self, level, event, fields):
        """A process logged something."""
        if event in DEFECTS:
            error = sys.exc_info()[1]
            self.defect(f"{event} {fields} {error!r}")
        elif self._say is not None:
            self._say(f"{self.loop.now:.6f}   {level} {event} {fields}")

    @property
    def leader(self):
        """The candidate that leads with the highest epoch, None if there is none."""
        leading = [
            c for c in self.candidates.values()
            if c.engine is not None and c.engine.cell.state.epoch == c.folded.cell.state.epoch
        ]  # fmt: skip
        return max(leading, key=lambda c: c.folded.cell.state.epoch, default=None)

    def newest_state(self):
        leader = self.leader
        return None if leader is None else leader.folded.cell.state

    # Processes

    def spawn(self, name, main, machine):
        """Start a process and see to it that it is started again whenever it ends."""
        process = Process(self.loop, name)
        process.machine = machine
        process.main = main
        process.stop = asyncio.Event()
        process.lost = False
        process.resources = []
        process.clock_offset = self.skews.get(machine, 0)
        self.processes[name] = process
        self.all_processes.append(process)
        task = process.start(main(process))
        task.add_done_callback(functools.partial(self._ended, name, main, process))
        return process

    def _ended(self, name, main, process, task):
        if not process.alive:
            return
        error = None if task.cancelled() else task.exception()
        self.trace("ended", name, repr(error))
        if not isinstance(error, LeadershipLost | LogError) and not process.stop.is_set():
            self.defect(f"{name} ended with {error!r}")
        self.kill(name)
        self.loop.call_later(0.2 + self.chance.random(), self.revive, name, main)

    def kill(self, name):
        process = self.processes.get(name)
        if process is None or not process.alive:
            return
        process.kill()
        self.candidates.pop(name, None)
        for resource in process.resources:
            resource()

    def revive(self, name, main):
        process = self.processes[name]
        if not process.alive and not process.lost:
            self.trace("start", name)
            self.spawn(name, main, self.processes[name].machine)

    def connect(self, process):
        bus = self.network.connect(process, process.name)
        process.bus = bus
        process.resources.append(lambda: self.network.remove(bus))
        return bus

    async def engine(self, process):
        bus = self.connect(process)
        log = brokers.SimLog(self.broker, bus)
        witness = Witness(self.directory / process.name / "acknowledged")
        process.resources.append(witness.close)
        seen = witness.seen()
        snapshots = self.directory / process.name / "snapshots"
        folded = load_newest(snapshots, "sim") or Folded()
        if folded.sequence:
            self.trace("snapshot", process.name, str(folded.cell.state.ordinal))
            if not stands_on(folded, self.broker.commits[folded.sequence - 1].data):
                self.defect(f"a snapshot of {process.name} is of another log")
        async for batch in log.read_batches(folded.sequence):
            for commit in batch:
                folded.take(commit.seq, commit.data, seen)
        folded.require(seen)
        snapshotter = Snapshotter(
            snapshots,
            cell_name="sim",
            every=self.plan.snapshot_ordinals,
            began=folded.cell.state.ordinal,
        )
        config = Config(
            state_dir=str(self.directory), cell="sim", node=process.name, host_silent_s=15.0
        )
        lease = Lease(
            brokers.SimBucket(self.broker, bus),
            node=process.name,
            candidate=self.new_id(),
            clock=self.wall,
            monotonic=self.loop.time,
        )
        candidate = Candidate(
            config,
            bus,
            log,
            lease,
            folded,
            clock=self.wall,
            new_id=self.new_id,
            salt=lambda: "salt",
            send_work=functools.partial(brokers.send_work, self.broker, bus),
            acknowledged=witness.note,
            note=snapshotter.note,
        )
        self.candidates[process.name] = candidate
        await until(process.stop, candidate.run())
        await candidate.release()
        if (rest := candidate.at_rest()) is not None:
            await snapshotter.finish(rest)

    async def projector(self, process):
        bus = self.connect(process)

        async def announce(ordinal):
            await bus.publish(bus.subjects.projected("node"), b"%d" % ordinal)

        projector = process.projector = Projector(
            brokers.SimLog(self.broker, bus), self.model_path, announce
        )
        process.resources.append(projector.close)
        bus.on_reconnect.append(projector.announce_again)
        await projector.run()

    async def agent(self, host, process):
        host.process = process
        position = Position(host.position_path / "position")
        process.resources.append(position.close)
        agent = Agent(
            host_id=host.host_id,
            version="sim",
            upstream=Upstream(self, host, self.connect(process)),
            drivers=host.drivers,
            records=host.records,
            position=position,
            pace=AgentPace(heartbeat_s=HEARTBEAT_S, reconcile_s=RECONCILE_S),
        )
        host.agent = agent
        await agent.start()
        await agent.run(asyncio.Event())

    # The story

    def start(self):
        for node in NODES:
            self.spawn(node, self.engine, node)
        self.spawn("projector", self.projector, NODES[0])
        for host in self.hosts:
            self.spawn(f"agent-{host.host_id}", functools.partial(self.agent, host), host.host_id)
        for person in self.people:
            asks = self.plan.rolls if person.name == "operator" else self.plan.asks
            process = Process(self.loop, person.name)
            process.machine = NODES[0]
            process.resources = []
            self.all_processes.append(process)
            person.bus = self.connect(process)
            process.start(person.run(asks))
        for number in range(self.plan.liars):
            host = self.hosts[number % len(self.hosts)]
            liar = Liar(self, host.host_id, random.Random(f"liar-{number}-{self.plan.seed}"))
            process = Process(self.loop, f"liar-{host.host_id}")
            process.machine = host.host_id
            process.resources = []
            self.all_processes.append(process)
            liar.bus = self.connect(process)
            process.start(liar.run())

    async def story(self):
        trouble = Trouble(self)
        trouble.skew_clocks()
        self.start()
        await trouble.run()
        trouble.heal()
        self.network.weather = CALM
        for host in self.hosts:
            host.pace.slow = host.pace.failing = 0.0
        self.healed = True
        self.healing.set()
        self.trace("healed", "")
        end = self.loop.now + REST_S
        while self.loop.now < end:
            await asyncio.sleep(LOOK_S)
            if self.is_at_rest():
                self.at_rest = True
                break
        self.trace("at_rest", "", str(self.at_rest))
        self.loop.stop()

    def is_at_rest(self):
        """Whether nothing is left to be done."""
        leader = self.leader
        if leader is None or not all(person.finished for person in self.people):
            return False
        folded = leader.folded
        state = folded.cell.state
        if state.operations or leader.engine.turns.committed != state.ordinal:
            return False
        if len(self.candidates) < len(NODES) or not self._is_projected(state.ordinal):
            return False
        if any(c.folded.cell.state.ordinal != state.ordinal for c in self.candidates.values()):
            return False
        return all(self.differences(host, folded.cell) == [] for host in self.hosts)

    def _is_projected(self, ordinal):
        projector = getattr(self.processes["projector"], "projector", None)
        writer = None if projector is None else projector._writer
        return writer is not None and writer.position.ordinal == ordinal

    def differences(self, host, cell):
        """Return how a host differs from what it shall have."""
        if host.lost:
            return []
        desired = desired_state(cell, host.host_id)
        running = host.running()
        found = []
        for spec in desired.servers:
            server_id = spec.server.server_id
            boot = running.pop(server_id, None)
            if (spec.wanted == "running") != (boot is not None):
                found.append(f"{server_id} shall be {spec.wanted}, runs under boot {boot}")
            elif boot is not None and boot != spec.boot:
                found.append(f"{server_id} runs under boot {boot}, shall under {spec.boot}")
        found += [f"{server_id} runs and is not wanted" for server_id in running]
        here = {s.server.server_id for s in desired.servers if s.wanted != "absent"}
        for kind, real in (("disk", host.storage._disks), ("ports", host.networks.plugged)):
            found += [
                f"{kind} of {server_id} left behind" for server_id in real if server_id not in here
            ]
        return found

    def digest(self):
        """Return what tells this run from any other."""
        final = self._hash.copy()
        for commit in self.broker.commits:
            final.update(commit.data)
        final.update(f"{self.loop.steps} {self.network.messages}".encode())
        return final.hexdigest()
