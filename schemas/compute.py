"""Compute: flavors, keypairs, servers (OpenStack Compute API v2.1).

A fact is never edited: a new shape is a new type with a new tag. Names ending in Requested record a
wish, all others an outcome. Only outcomes that an executor observed are metered.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import (
    FlavorId,
    FreeId,
    HostId,
    Id,
    ImageId,
    OperationId,
    PortId,
    ProjectId,
    ServerId,
    UserId,
)
from schemas.sealed import Sealed
from schemas.units import DiskGib, IpAddress, MemoryMib, Micros, Name, Text, Vcpus

KeypairName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9 _.@-]+\Z")]
PublicKey = Annotated[str, Meta(min_length=16, max_length=16384)]
Metadata = Annotated[dict[Text, Text], Meta(max_length=128)]
type ServerStatus = Literal[
    "BUILD",
    "ACTIVE",
    "SHUTOFF",
    "REBOOT",
    "HARD_REBOOT",
    "RESIZE",
    "VERIFY_RESIZE",
    "REVERT_RESIZE",
    "ERROR",
]
type DiskConfig = Literal["AUTO", "MANUAL"]
type StopCause = Literal["request", "guest", "crash", "host"]

# Resources


class Flavor(Struct, frozen=True, kw_only=True):
    """A size a server can have. Immutable: a change is another flavor."""

    flavor_id: FlavorId
    name: Name
    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib  # root disk; 0 means as large as the image
    is_public: bool = True
    description: Text = ""


class Keypair(Struct, frozen=True, kw_only=True):
    """A public key of a user (not of a project)."""

    name: str
    user_id: UserId
    public_key: str
    fingerprint: str
    created_at: Micros


class Fault(Struct, frozen=True, kw_only=True):
    """Why a server is in ERROR, as its owner reads it."""

    code: int
    message: str
    created: Micros


class Resize(Struct, frozen=True, kw_only=True):
    """A resize that is neither confirmed nor reverted: either flavor may be the one that stays.

    ``boot`` is the number under which it began, and names it; the disks are in GiB, as they are.
    """

    old: Flavor
    new: Flavor
    old_disk_gib: int
    new_disk_gib: int
    boot: int


class Server(Struct, frozen=True, kw_only=True):
    """A virtual machine, as everybody reads it: the decider, the read model, the host's agent.

    ``boot`` counts starts of its domain from 1, and reports carry it, so that a late one is told
    from a new one. ``task_state`` is None exactly when nothing is under way. ``resized_boot`` names
    the resize that was confirmed last, 0 if none was.
    """

    server_id: ServerId
    name: Name
    project_id: ProjectId
    user_id: UserId
    flavor: Flavor  # as it was when the server was made or resized
    image_id: ImageId | None
    created_at: Micros
    updated_at: Micros
    status: ServerStatus = "BUILD"
    vm_state: str = "building"
    task_state: str | None = "scheduling"
    power_state: int = 0  # 0 none, 1 running, 4 shut down
    key_name: str | None = None
    public_key: str | None = None  # as it was when the server was made
    user_data: Sealed | None = None
    metadata: dict[str, str] = {}
    security_groups: tuple[str, ...] = ("default",)
    port_ids: tuple[PortId, ...] = ()
    host_id: HostId | None = None
    boot: int = 0
    operation_id: OperationId | None = None
    launched_at: Micros | None = None
    terminated_at: Micros | None = None
    fault: Fault | None = None
    availability_zone: str = ""
    request_id: str = ""  # the request that made it
    disk_config: str = "MANUAL"
    config_drive: bool = False
    resize: Resize | None = None
    resized_boot: int = 0


class Removed(Struct, frozen=True, kw_only=True):
    """A host that a placement filter removed, and why, in numbers."""

    host_id: HostId
    filter: str
    reason: str


class Weighed(Struct, frozen=True, kw_only=True):
    """A host that passed all filters, and its score (higher is better; thousandths)."""

    host_id: HostId
    score: int


# Actions


class CreateFlavor(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a flavor; ``flavor_id`` may be given, any string."""

    name: Name
    vcpus: Vcpus
    memory_mib: MemoryMib
    disk_gib: DiskGib = 0
    flavor_id: FreeId | None = None
    is_public: bool = True
    description: Text = ""


class DeleteFlavor(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a flavor. Servers keep the size they were made with."""

    flavor_id: FreeId


class CreateKeypair(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Store a public key. A private key never reaches the log: the edge makes and forgets it."""

    name: KeypairName
    public_key: PublicKey
    fingerprint: Annotated[str, Meta(max_length=128)] = ""


class DeleteKeypair(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a keypair of the caller. Servers made with it keep the public key."""

    name: FreeId


class NetworkRequest(Struct, frozen=True, kw_only=True):
    """One interface asked for: a network, or an existing port; perhaps a fixed address."""

    network_id: Id | None = None
    port_id: Id | None = None
    fixed_ip: IpAddress | None = None


class CreateServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a server and start it.

    ``networks`` None means: the project's only network, none if it has none, refused if several.
    """

    name: Name
    flavor_id: FreeId
    image_id: Id
    networks: Annotated[tuple[NetworkRequest, ...], Meta(max_length=16)] | None = None
    key_name: FreeId | None = None
    user_data: Sealed | None = None
    metadata: Metadata = {}
    security_groups: Annotated[tuple[FreeId, ...], Meta(max_length=16)] | None = None
    availability_zone: Annotated[str, Meta(max_length=255)] | None = None
    disk_config: Literal["AUTO", "MANUAL"] = "MANUAL"
    config_drive: bool = False


class RenameServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Give a server another name; the guest's own host name stays."""

    server_id: Id
    name: Name


class DeleteServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Delete a server, in whatever state it is."""

    server_id: Id


class StartServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Start a server that is SHUTOFF."""

    server_id: Id


class StopServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Stop a server: ACPI power button first, power off after ``grace_s`` seconds."""

    server_id: Id
    grace_s: Annotated[int, Meta(ge=0, le=3600)] = 60


class RebootServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Reboot a server; hard means reset, also from SHUTOFF and ERROR."""

    server_id: Id
    hard: bool = False


class ResizeServer(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Give a server another flavor, on its host; to be confirmed or reverted afterwards."""

    server_id: Id
    flavor_id: FreeId
    disk_config: DiskConfig | None = None


class ConfirmServerResize(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Keep the flavor a server was resized to, and let go of what the old one held."""

    server_id: Id


class RevertServerResize(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Give a server back the flavor, and the disk, that it had before it was resized."""

    server_id: Id


class ReportServerState(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """An agent saw a server change without being asked: the guest powered off, or crashed.

    ``observed_at`` is the agent's clock. ``boot`` is the start the observation is about.
    """

    server_id: Id
    boot: int
    running: bool
    observed_at: Micros
    cause: StopCause = "guest"


type ComputeAction = (
    CreateFlavor
    | DeleteFlavor
    | CreateKeypair
    | DeleteKeypair
    | CreateServer
    | RenameServer
    | DeleteServer
    | StartServer
    | StopServer
    | RebootServer
    | ResizeServer
    | ConfirmServerResize
    | RevertServerResize
    | ReportServerState
)

# Facts


class FlavorCreated(
    Struct, frozen=True, kw_only=True, tag="compute.flavor.created.v1", tag_field="type"
):
    """A flavor can be chosen. Not metered."""

    flavor: Flavor


class FlavorDeleted(
    Struct, frozen=True, kw_only=True, tag="compute.flavor.deleted.v1", tag_field="type"
):
    """A flavor can no longer be chosen. Not metered."""

    flavor_id: FlavorId


class KeypairCreated(
    Struct, frozen=True, kw_only=True, tag="compute.keypair.created.v1", tag_field="type"
):
    """A public key can be put into servers. Not metered."""

    keypair: Keypair


class KeypairDeleted(
    Struct, frozen=True, kw_only=True, tag="compute.keypair.deleted.v1", tag_field="type"
):
    """The key can no longer be chosen. Not metered."""

    user_id: UserId
    name: KeypairName


class ServerCreated(
    Struct, frozen=True, kw_only=True, tag="compute.server.created.v1", tag_field="type"
):
    """A server was asked for and its room, ports and addresses are being found. Not metered yet."""

    server: Server


class ServerPlaced(
    Struct, frozen=True, kw_only=True, tag="compute.server.placed.v1", tag_field="type"
):
    """Placement holds room on a host. Records who else was considered. Not metered."""

    server_id: ServerId
    host_id: HostId
    weighed: tuple[Weighed, ...]
    removed: tuple[Removed, ...]


class ServerBuildStarted(
    Struct, frozen=True, kw_only=True, tag="compute.server.build_started.v1", tag_field="type"
):
    """The host was told to make the disk, plug the ports and start the domain. Not metered."""

    server_id: ServerId
    operation_id: OperationId
    boot: int


class ServerRenamed(
    Struct, frozen=True, kw_only=True, tag="compute.server.renamed.v1", tag_field="type"
):
    """The server has another name. Not metered."""

    server_id: ServerId
    name: Name


class ServerStartRequested(
    Struct, frozen=True, kw_only=True, tag="compute.server.start_requested.v1", tag_field="type"
):
    """Its owner wants the server to run. Not metered: nothing runs yet."""

    server_id: ServerId
    operation_id: OperationId
    boot: int


class ServerStarted(
    Struct, frozen=True, kw_only=True, tag="compute.server.started.v1", tag_field="type"
):
    """The domain runs. vCPU and memory are metered from ``observed_at`` on, disk from the first.

    ``observed_at`` is the agent's, clamped between the operation's acceptance and this commit.
    """

    server_id: ServerId
    boot: int
    observed_at: Micros


class ServerStopRequested(
    Struct, frozen=True, kw_only=True, tag="compute.server.stop_requested.v1", tag_field="type"
):
    """Its owner wants the server off. It still runs, and is still metered."""

    server_id: ServerId
    operation_id: OperationId
    grace_s: int


class ServerStopped(
    Struct, frozen=True, kw_only=True, tag="compute.server.stopped.v1", tag_field="type"
):
    """The domain is off: from ``observed_at`` on, disk is metered, vCPU and memory are not."""

    server_id: ServerId
    boot: int
    cause: StopCause
    observed_at: Micros


class ServerRebootRequested(
    Struct, frozen=True, kw_only=True, tag="compute.server.reboot_requested.v1", tag_field="type"
):
    """Its owner wants the server rebooted. Metering goes on."""

    server_id: ServerId
    operation_id: OperationId
    hard: bool
    boot: int


class ServerRebooted(
    Struct, frozen=True, kw_only=True, tag="compute.server.rebooted.v1", tag_field="type"
):
    """The server runs again under the boot number of the request. Metering went on all the time."""

    server_id: ServerId
    boot: int
    observed_at: Micros


class ServerResizeRequested(
    Struct, frozen=True, kw_only=True, tag="compute.server.resize_requested.v1", tag_field="type"
):
    """Its owner wants another flavor. Metered by the old one until the host has the new one."""

    server_id: ServerId
    operation_id: OperationId
    flavor: Flavor
    old_disk_gib: int
    new_disk_gib: int
    boot: int
    disk_config: DiskConfig | None = None


class ServerResized(
    Struct, frozen=True, kw_only=True, tag="compute.server.resized.v1", tag_field="type"
):
    """The host has it as the new flavor says. Metered by that one from ``observed_at`` on.

    What was off stays off (``running``), and then only its disk is metered. ``disk_gib`` is the
    root disk's size now.
    """

    server_id: ServerId
    flavor: Flavor
    disk_gib: int
    boot: int
    running: bool
    observed_at: Micros


class ServerResizeConfirmed(
    Struct, frozen=True, kw_only=True, tag="compute.server.resize_confirmed.v1", tag_field="type"
):
    """Its owner keeps the new flavor. Metering goes on."""

    server_id: ServerId
    running: bool


class ServerResizeRevertRequested(
    Struct,
    frozen=True,
    kw_only=True,
    tag="compute.server.resize_revert_requested.v1",
    tag_field="type",
):
    """Its owner wants the old flavor back. Metered by the new one until the host has the old."""

    server_id: ServerId
    operation_id: OperationId
    boot: int


class ServerResizeReverted(
    Struct, frozen=True, kw_only=True, tag="compute.server.resize_reverted.v1", tag_field="type"
):
    """The host has it as before the resize. Metered by the old flavor from ``observed_at`` on."""

    server_id: ServerId
    flavor: Flavor
    disk_gib: int
    boot: int
    running: bool
    observed_at: Micros


class ServerTaskFailed(
    Struct, frozen=True, kw_only=True, tag="compute.server.task_failed.v1", tag_field="type"
):
    """What was under way did not happen; the server is as the host saw it (``running``).

    Metering follows ``running``: a stop that failed leaves the server metered.
    """

    server_id: ServerId
    running: bool
    message: str


class ServerFailed(
    Struct, frozen=True, kw_only=True, tag="compute.server.failed.v1", tag_field="type"
):
    """The server is in ERROR. Whatever was metered stops being metered at this commit's time."""

    server_id: ServerId
    code: int
    message: str
    removed: tuple[Removed, ...] = ()


class ServerDeleteRequested(
    Struct, frozen=True, kw_only=True, tag="compute.server.delete_requested.v1", tag_field="type"
):
    """Its owner wants the server gone. It is metered until it is."""

    server_id: ServerId
    operation_id: OperationId | None


class ServerDeleted(
    Struct, frozen=True, kw_only=True, tag="compute.server.deleted.v1", tag_field="type"
):
    """Domain, disk and taps are gone. Nothing of it is metered from ``observed_at`` on."""

    server_id: ServerId
    observed_at: Micros


type ComputeFact = (
    FlavorCreated
    | FlavorDeleted
    | KeypairCreated
    | KeypairDeleted
    | ServerCreated
    | ServerPlaced
    | ServerBuildStarted
    | ServerRenamed
    | ServerStartRequested
    | ServerStarted
    | ServerStopRequested
    | ServerStopped
    | ServerRebootRequested
    | ServerRebooted
    | ServerResizeRequested
    | ServerResized
    | ServerResizeConfirmed
    | ServerResizeRevertRequested
    | ServerResizeReverted
    | ServerTaskFailed
    | ServerFailed
    | ServerDeleteRequested
    | ServerDeleted
)
