"""A network of nothing: ports are entries in a table. See ``hypervisor/simulated.py`` for why."""

from collections.abc import Mapping

from executors.hypervisor.port import Nic
from executors.layout import bridge_name, tap_name
from executors.network.port import AskMetadata
from schemas.host import DriftFound
from schemas.ids import ServerId
from schemas.work import PortSpec


class SimulatedNetworks:
    """Remembers whose ports are plugged, and no more."""

    def __init__(self) -> None:
        self.plugged: dict[ServerId, tuple[PortSpec, ...]] = {}

    async def start(self, ask_metadata: AskMetadata) -> None:
        """No guest will ask."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def plug(self, server_id: ServerId, ports: tuple[PortSpec, ...]) -> tuple[Nic, ...]:
        """Remember the ports."""
        self.plugged[server_id] = ports
        return tuple(
            Nic(
                tap=tap_name(spec.port.port_id),
                bridge=bridge_name(spec.network.network_id),
                mac_address=spec.port.mac_address,
                mtu=spec.network.mtu,
            )
            for spec in ports
        )

    async def serve(self, ports: tuple[PortSpec, ...]) -> None:
        """Nobody needs an address."""

    async def unplug(self, server_id: ServerId) -> None:
        """Forget the ports."""
        self.plugged.pop(server_id, None)

    async def reconcile(
        self, wanted: Mapping[ServerId, tuple[PortSpec, ...]]
    ) -> tuple[DriftFound, ...]:
        """Take what is wanted as what is there: a simulated network has no other traces."""
        self.plugged = dict(wanted)
        return ()
