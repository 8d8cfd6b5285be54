"""An engine in memory for agents under test, servers to wish for, and a host of nothing."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable

import msgspec

from executors.agent import Agent, Pace
from executors.converge import Drivers
from executors.hypervisor.simulated import SimulatedHypervisor
from executors.network.simulated import SimulatedNetworks
from executors.position import Position
from executors.records import MemoryRecords
from executors.storage.simulated import SimulatedStorage
from executors.upstream import UpstreamError
from schemas.compute import Flavor, ReportServerState, Server
from schemas.envelope import Accepted, Outcome
from schemas.host import RegisterHost, ReportDrift
from schemas.network import (
    AllocationPool,
    FixedIp,
    Network,
    Port,
    SecurityGroup,
    SecurityGroupRule,
    Subnet,
)
from schemas.operation import Operation, ReportOperation
from schemas.units import SECOND
from schemas.work import DesiredState, ImageSpec, MetadataReply, PortSpec, ServerSpec, WorkItem

HOST = "host-1"
PROJECT = "p" * 32


ids = random.Random()  # a test that seeds it gets the same ids each time


def new_id():
    return str(uuid.UUID(int=ids.getrandbits(128), version=4))


class Engine:
    """What the agent sees of an engine: desired state, work, and an ear for reports."""

    def __init__(self):
        self.epoch = 1
        self.ordinal = 10
        self.servers: dict[str, ServerSpec] = {}
        self.operations: dict[str, Operation] = {}
        self.checks: dict[str, ImageSpec] = {}
        self.blobs: tuple[str, ...] = ()
        self.reports = []
        self.request_ids = []  # of every attempt
        self.beats = []
        self.asked_metadata = []
        self.answer_metadata: Callable = lambda ask: MetadataReply(status=404)
        self.asked_for_state = asyncio.Event()  # desired state was asked for
        self.away = False  # asks and reports go unanswered
        self.turned_away = asyncio.Event()  # a report found nobody
        self._heard = asyncio.Condition()
        self._accept = self._console = self._gap = None

    # The agent's side (executors.upstream.Upstream)

    async def submit(self, report, request_id, trace=""):
        self.request_ids.append(request_id)
        if self.away:
            self.turned_away.set()
            raise UpstreamError("away")
        self.ordinal += 1
        async with self._heard:
            self.reports.append(report)
            if isinstance(report, ReportOperation):
                self.operations.pop(report.operation_id, None)
            self._heard.notify_all()
        return Outcome(request_id="req-1", ordinal=self.ordinal, verdict=Accepted())

    async def desired_state(self):
        if self.away:
            raise UpstreamError("away")
        self.ordinal += 1
        self.asked_for_state.set()
        return DesiredState(
            epoch=self.epoch,
            ordinal=self.ordinal,
            host_id=HOST,
            servers=tuple(self.servers.values()),
            operations=tuple(self.operations.values()),
            checks=tuple(self.checks.values()),
            blobs=self.blobs,
        )

    async def ask_metadata(self, ask):
        async with self._heard:
            self.asked_metadata.append(ask)
            self._heard.notify_all()
        return self.answer_metadata(ask)

    async def heartbeat(self, beat):
        self.beats.append(beat)

    async def listen(self, accept, console, on_gap):
        self._accept, self._console, self._gap = accept, console, on_gap

    async def close(self):
        self._accept = None

    # The test's side

    def wish(self, kind, spec=None, *, image=None, deadline_s=120, now=None, deliver=True):
        """Want something, as the log would; tell the agent unless the item is lost."""
        self.ordinal += 1
        resource_id = spec.server.server_id if spec is not None else image.image_id
        at = wall() if now is None else now
        operation = Operation(
            operation_id=new_id(),
            kind=kind,
            resource_kind="server" if spec is not None else "image",
            resource_id=resource_id,
            host_id=HOST,
            executor="hypervisor" if spec is not None else "storage",
            generation=1,
            accepted_at=at,
            deadline=at + deadline_s * SECOND,
            request_id="req-1",
            project_id=PROJECT,
        )
        self.operations[operation.operation_id] = operation
        if spec is not None:
            if spec.wanted == "absent":
                self.servers.pop(resource_id, None)
            else:
                self.servers[resource_id] = spec
        else:
            self.checks[resource_id] = image
        item = WorkItem(
            epoch=self.epoch, ordinal=self.ordinal, operation=operation, server=spec, image=image
        )
        if deliver and self._accept is not None:
            self._accept(item)
        return item

    def deliver(self, item):
        self._accept(item)

    async def heard(self, matches, within_s=60):
        """Wait for a report that matches, and return it."""

        def find():
            return next((r for r in self.reports if matches(r)), None)

        async with asyncio.timeout(within_s), self._heard:
            await self._heard.wait_for(lambda: find() is not None)
        return find()

    async def outcome(self, item, within_s=60):
        """Wait for the report on an item's operation."""
        wanted = item.operation.operation_id
        return await self.heard(
            lambda r: isinstance(r, ReportOperation) and r.operation_id == wanted, within_s
        )

    async def do(self, kind, spec=None, *, image=None, within_s=60):
        """Wish, and wait for what becomes of it."""
        return await self.outcome(self.wish(kind, spec, image=image), within_s)

    def of(self, kind):
        return [r for r in self.reports if isinstance(r, kind)]

    @property
    def drift(self):
        return [d for r in self.of(ReportDrift) for d in r.drift]

    @property
    def states(self):
        return self.of(ReportServerState)

    @property
    def registrations(self):
        return self.of(RegisterHost)


def wall():
    import time

    return time.time_ns() // 1000


class Cloud:
    """A network with a security group, and servers and ports on it."""

    def __init__(self, cidr="10.20.0", vni=100):
        self.cidr = cidr
        self.numbers = itertools.count(10)
        common = {"created_at": 1, "updated_at": 1}
        network_id = new_id()
        self.network = Network(
            network_id=network_id, name="net", project_id=PROJECT, vni=vni, **common
        )
        self.subnet = Subnet(
            subnet_id=new_id(),
            network_id=network_id,
            project_id=PROJECT,
            name="sub",
            cidr=f"{cidr}.0/24",
            gateway_ip=f"{cidr}.1",
            allocation_pools=(AllocationPool(start=f"{cidr}.2", end=f"{cidr}.254"),),
            **common,
        )
        self.group = SecurityGroup(
            security_group_id=new_id(),
            name="default",
            project_id=PROJECT,
            rules=(
                _rule("egress"),
                _rule("ingress", protocol="icmp"),
                _rule("ingress", protocol="tcp", port_range_min=22, port_range_max=22),
            ),
            **common,
        )
        self.dhcp_port = self._port(f"{cidr}.2", device_owner="network:dhcp")

    def _port(self, address, **fields):
        n = int(address.rpartition(".")[2]) + 256 * self.network.vni
        return Port(
            port_id=new_id(),
            network_id=self.network.network_id,
            project_id=PROJECT,
            name="",
            mac_address=f"fa:16:3e:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}",
            fixed_ips=(FixedIp(subnet_id=self.subnet.subnet_id, ip_address=address),),
            created_at=1,
            updated_at=1,
            **fields,
        )

    def port(self, **fields):
        port = self._port(f"{self.cidr}.{next(self.numbers)}", **fields)
        port = msgspec.structs.replace(port, security_group_ids=(self.group.security_group_id,))
        return PortSpec(
            port=port,
            network=self.network,
            subnets=(self.subnet,),
            security_groups=(self.group,),
            dhcp_port=self.dhcp_port,
        )


def _rule(direction, **fields):
    return SecurityGroupRule(rule_id=new_id(), direction=direction, **fields)


rule = _rule


def an_image(**changes):
    fields = {
        "image_id": new_id(),
        "blob_id": "blob-1",
        "disk_format": "qcow2",
        "size_bytes": 1 << 20,
        "sha512": "0" * 128,
        "virtual_size_bytes": 1 << 20,
    }
    return ImageSpec(**fields | changes)


def a_server(image=None, ports=(), wanted="running", boot=1, disk_gib=1, memory_mib=96, **spec):
    image = image if image is not None else an_image()
    server_id = spec.pop("server_id", None) or new_id()
    server = Server(
        server_id=server_id,
        name="web",
        project_id=PROJECT,
        user_id="u" * 32,
        flavor=Flavor(
            flavor_id="1", name="tiny", vcpus=1, memory_mib=memory_mib, disk_gib=disk_gib
        ),
        image_id=image.image_id,
        created_at=1,
        updated_at=1,
        boot=boot,
    )
    return ServerSpec(server=server, wanted=wanted, ports=ports, image=image, boot=boot, **spec)


def changed(spec, **changes):
    return msgspec.structs.replace(spec, **changes)


class SimulatedHost:
    """Drivers that survive the agent, as a real host does."""

    def __init__(self):
        self.hypervisor = SimulatedHypervisor()
        self.storage = SimulatedStorage()
        self.networks = SimulatedNetworks()
        self.records = MemoryRecords()
        self.position = None

    @property
    def drivers(self):
        return Drivers(hypervisor=self.hypervisor, storage=self.storage, networks=self.networks)

    def agent(self, engine, position=None, **pace):
        return Agent(
            host_id=HOST,
            version="test",
            upstream=engine,
            drivers=self.drivers,
            records=self.records,
            position=position or Position(None),
            pace=Pace(**({"reconcile_s": 3600.0} | pace)),
        )
