"""What the engine tells hosts: work items and the whole desired state."""

from typing import Literal

import msgspec
from msgspec import Struct

from schemas.compute import Server
from schemas.host import Executor
from schemas.ids import HostId, ImageId
from schemas.image import DiskFormat
from schemas.network import Network, Port, SecurityGroup, Subnet
from schemas.operation import Operation
from schemas.units import Ordinal

type Wanted = Literal["running", "stopped", "absent"]


class PortSpec(Struct, frozen=True, kw_only=True):
    """A port of a server with all that a host needs to plug it."""

    port: Port
    network: Network
    subnets: tuple[Subnet, ...]  # of the network
    security_groups: tuple[SecurityGroup, ...]
    dhcp_port: Port | None


class ImageSpec(Struct, frozen=True, kw_only=True):
    """An image's bytes: where they lie and what they are said to be."""

    image_id: ImageId
    blob_id: str
    disk_format: DiskFormat
    size_bytes: int
    sha512: str
    virtual_size_bytes: int | None


class ServerSpec(Struct, frozen=True, kw_only=True):
    """How a server shall be on its host.

    ``wanted`` is the state to reach; ``boot`` the number of the start it shall run under;
    ``grace_s`` how long a guest may take to shut down. ``reboot`` says that the domain shall be
    started anew ("hard") or asked to reboot ("soft") if it still runs under an older boot.

    ``server.flavor`` is the one to have. ``resize`` names the last resize that its disk went
    through; what was put aside by a later one is put back, by an earlier one let go of.
    ``revertible`` says that the disk from before ``resize`` is kept.
    """

    server: Server
    wanted: Wanted
    ports: tuple[PortSpec, ...]
    image: ImageSpec | None
    boot: int
    grace_s: int = 60
    reboot: Literal["", "soft", "hard"] = ""
    resize: int = 0
    revertible: bool = False


class WorkItem(Struct, frozen=True, kw_only=True):
    """An operation to carry out, with the desired state of what it is about.

    Items of an older (epoch, ordinal) than one seen for the same resource are dropped. Subject
    ``work.<host>.<executor>``; message id
    ``<ordinal>.<host>.<executor>.<operation>``.
    """

    epoch: int
    ordinal: Ordinal
    operation: Operation
    server: ServerSpec | None = None
    image: ImageSpec | None = None


class DesiredState(Struct, frozen=True, kw_only=True):
    """All that a host shall have, as of an ordinal; what is not named shall not be there.

    ``operations`` are those under way that this host owns: after converging, the agent reports
    each. ``blobs`` are images whose bytes this host may keep in its cache.
    """

    epoch: int
    ordinal: Ordinal
    host_id: HostId
    servers: tuple[ServerSpec, ...]
    operations: tuple[Operation, ...]
    checks: tuple[ImageSpec, ...] = ()
    blobs: tuple[str, ...] = ()


class Heartbeat(Struct, frozen=True, kw_only=True):
    """Sent every few seconds on core NATS; never stored."""

    host_id: HostId
    domains: int
    load_milli: int  # one-minute load average, thousandths
    disk_free_gib: int
    position: Ordinal = 0  # newest desired state or work item applied


class ConsoleAsk(Struct, frozen=True, kw_only=True):
    """The last ``lines`` lines of a server's console; None means all that is kept."""

    server_id: str
    lines: int | None = None


class ConsoleReply(Struct, frozen=True, kw_only=True):
    """``output`` is text; ``error`` says why there is none."""

    output: str = ""
    error: str = ""


class MetadataAsk(Struct, frozen=True, kw_only=True):
    """A guest asks 169.254.169.254: from which network and address, for which path."""

    network_id: str
    address: str
    path: str
    method: str = "GET"


class MetadataReply(Struct, frozen=True, kw_only=True):
    """What to answer the guest."""

    status: int
    content_type: str = "text/plain"
    body: bytes = b""


encode = msgspec.json.Encoder().encode
decode_work_item = msgspec.json.Decoder(WorkItem).decode
decode_desired_state = msgspec.json.Decoder(DesiredState).decode
decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode

OPERATION_OWNER: dict[str, Executor] = {"check": "storage"}


def owner_of(kind: str) -> Executor:
    """Return the executor that owns operations of this kind."""
    return OPERATION_OWNER.get(kind, "hypervisor")
