"""What the network must do for the agent: servers' ports plugged, guarded and served.

A network is on a host exactly while a server of that host has a port on it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from executors.hypervisor.port import Nic
from schemas.host import DriftFound
from schemas.ids import ServerId
from schemas.work import MetadataAsk, MetadataReply, PortSpec

type AskMetadata = Callable[[MetadataAsk], Awaitable[MetadataReply]]


class Networks(Protocol):
    """One host's networks. Every method may be repeated, and killed at any moment."""

    async def start(self, ask_metadata: AskMetadata) -> None:
        """Get ready; guests' metadata requests then go to ``ask_metadata``. NetworkError."""
        ...

    async def close(self) -> None:
        """Let go. Bridges, rules and DHCP stay; metadata is not answered until the next start."""
        ...

    async def plug(self, server_id: ServerId, ports: tuple[PortSpec, ...]) -> tuple[Nic, ...]:
        """Have bridges and packet rules for a server's ports, before it starts. NetworkError."""
        ...

    async def serve(self, ports: tuple[PortSpec, ...]) -> None:
        """Have DHCP and metadata for the networks of plugged ports. NetworkError."""
        ...

    async def unplug(self, server_id: ServerId) -> None:
        """Forget a server's ports, and take down networks that have none left here."""
        ...

    async def reconcile(
        self, wanted: Mapping[ServerId, tuple[PortSpec, ...]]
    ) -> tuple[DriftFound, ...]:
        """Make what is really there equal to the ports wanted; return what differed."""
        ...
