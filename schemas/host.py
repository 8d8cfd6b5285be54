"""Hosts: what runs servers, how much room they have, whether they are heard of."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import GivenHostId, HostId
from schemas.units import Micros

type Executor = Literal["hypervisor", "storage", "network"]
type HostStatus = Literal["up", "down"]


class Capacity(Struct, frozen=True, kw_only=True):
    """What a host offers to servers: ``vcpus`` already multiplied by its overcommit."""

    vcpus: Annotated[int, Meta(ge=0, le=1_000_000)]
    memory_mib: Annotated[int, Meta(ge=0, le=2**40)]
    disk_gib: Annotated[int, Meta(ge=0, le=2**40)]


class Host(Struct, frozen=True, kw_only=True):
    """A machine whose agent has registered. ``accelerator`` is what a probe showed to work."""

    host_id: HostId
    capacity: Capacity
    hypervisor: Annotated[str, Meta(max_length=64)]  # QEMU, simulated
    accelerator: Annotated[str, Meta(max_length=64)]  # kvm, tcg, none
    executors: tuple[Executor, ...]
    version: Annotated[str, Meta(max_length=64)] = ""
    address: Annotated[str, Meta(max_length=64)] = ""
    status: HostStatus = "up"
    registered_at: Micros = 0
    updated_at: Micros = 0


class RegisterHost(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """An agent says what its host is. Sent at each start; only a difference becomes a fact."""

    capacity: Capacity
    hypervisor: Annotated[str, Meta(max_length=64)]
    accelerator: Annotated[str, Meta(max_length=64)]
    executors: Annotated[tuple[Executor, ...], Meta(max_length=8)]
    version: Annotated[str, Meta(max_length=64)] = ""
    address: Annotated[str, Meta(max_length=64)] = ""


class MarkHost(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """The engine's clock has (not) heard of a host for too long. From the system only."""

    host_id: GivenHostId
    status: HostStatus
    reason: str = ""


class DriftFound(Struct, frozen=True, kw_only=True):
    """One difference between desired and real that an agent found, and what it did about it."""

    kind: Annotated[str, Meta(max_length=64)]  # domain, disk, tap, netns, bridge, nft, dnsmasq
    name: Annotated[str, Meta(max_length=255)]
    found: Annotated[str, Meta(max_length=255)]
    done: Annotated[str, Meta(max_length=255)]


class ReportDrift(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """An agent reconciled its host and found differences."""

    drift: Annotated[tuple[DriftFound, ...], Meta(max_length=1000)]
    observed_at: Micros


type HostAction = RegisterHost | MarkHost | ReportDrift


class HostRegistered(
    Struct, frozen=True, kw_only=True, tag="host.host.registered.v1", tag_field="type"
):
    """A host offers room, or offers another amount than before. Not metered."""

    host: Host


class HostMarked(Struct, frozen=True, kw_only=True, tag="host.host.marked.v1", tag_field="type"):
    """A host went silent, or was heard of again. Its servers stay metered: they may well run."""

    host_id: HostId
    status: HostStatus
    reason: str


class HostDriftDetected(
    Struct, frozen=True, kw_only=True, tag="host.host.drift_detected.v1", tag_field="type"
):
    """What was real differed from what was desired, and was put right. Not metered."""

    host_id: HostId
    drift: tuple[DriftFound, ...]
    observed_at: Micros


type HostFact = HostRegistered | HostMarked | HostDriftDetected
