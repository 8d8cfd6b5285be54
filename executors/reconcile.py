"""Compare the whole desired state with what is really on the host, and put right what differs.

What is not desired is removed, unless a work item newer than the desired state wants it. Nothing
is removed on the word of a leader that has been replaced.
"""

from collections.abc import Callable, Iterable

import structlog

from executors.converge import Drivers
from executors.errors import HostError, StaleState, reason
from executors.lanes import Lanes
from executors.position import Position, Version
from executors.records import Records
from executors.reports import Reports
from executors.upstream import Upstream
from executors.wish import Wish
from schemas.host import DriftFound
from schemas.operation import Operation
from schemas.work import DesiredState, ImageSpec, PortSpec

log = structlog.get_logger(__name__)

_SETTLE_S = 180.0


class Reconciler:
    """One host's comparison of desired and real. Runs one at a time."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        reports: Reports,
        lanes: Lanes,
        drivers: Drivers,
        records: Records,
        position: Position,
        on_applied: Callable[[], None],
    ) -> None:
        self._upstream = upstream
        self._reports = reports
        self._lanes = lanes
        self._drivers = drivers
        self._records = records
        self._position = position
        self._on_applied = on_applied
        # Work items up to here are contained in a desired state that was applied.
        self.applied: Version | None = None

    async def fetch(self) -> DesiredState:
        """Ask for the desired state.

        Raises:
            UpstreamError: nobody answers.
            StaleState: who answered knows less than what this host was sent before it asked.
        """
        known = self._position.highest
        desired = await self._upstream.desired_state()
        version = Version(desired.epoch, desired.ordinal)
        if version < known:
            raise StaleState(
                f"desired state {tuple(version)} is older than {tuple(known)}, seen before"
            )
        self._position.see(version)
        return desired

    async def apply(self, desired: DesiredState) -> None:
        """Offer every wish, remove what nobody wishes, and report what differed."""
        version = Version(desired.epoch, desired.ordinal)
        audited = self._offer_all(desired, version)
        self.applied = version
        self._on_applied()
        audited |= await self._orphans(version, audited)
        drift = await self._lanes.settled(frozenset(audited), within_s=_SETTLE_S)
        drift += await self._audit_network()
        await self._evict(desired)
        if drift:
            for one in drift:
                log.info("drift", kind=one.kind, name=one.name, found=one.found, done=one.done)
            await self._reports.drift(drift)

    def _offer_all(self, desired: DesiredState, version: Version) -> set[str]:
        operations = _by_resource(desired.operations)
        audited: set[str] = set()
        for spec in desired.servers:
            server_id = spec.server.server_id
            audited.add(server_id)
            self._lanes.offer(
                Wish(
                    resource_id=server_id,
                    version=version,
                    server=spec,
                    operations=operations.pop(server_id, ()),
                    audited=True,
                )
            )
        images: dict[str, ImageSpec] = {image.image_id: image for image in desired.checks}
        for resource_id, waiting in operations.items():
            image = images.get(resource_id)
            if image is None and waiting[0].resource_kind == "image":
                continue  # A check of an image that is gone: the engine ends it.
            wish = Wish(
                resource_id=resource_id,
                version=version,
                image=image,
                operations=waiting,
                audited=True,
            )
            if self._lanes.offer(wish):
                audited.add(resource_id)
        return audited

    async def _orphans(self, version: Version, known: set[str]) -> set[str]:
        """Wish away the servers that are here and that nobody wants."""
        here = set(await self._drivers.hypervisor.domains()) | await self._drivers.storage.servers()
        here |= {r for r, wish in self._lanes.wishes().items() if wish.image is None}
        orphans: set[str] = set()
        for server_id in here - known:
            if self._lanes.newest(server_id) > version:
                continue  # Wanted by a work item that this desired state does not know yet.
            if self._lanes.offer(Wish(resource_id=server_id, version=version, audited=True)):
                orphans.add(server_id)
        return orphans

    async def _audit_network(self) -> list[DriftFound]:
        wanted: dict[str, tuple[PortSpec, ...]] = {
            resource_id: wish.server.ports
            for resource_id, wish in self._lanes.wishes().items()
            if wish.server is not None
            and wish.server.wanted != "absent"
            and self._records.load(resource_id) is not None  # a build that failed left none
        }
        try:
            return list(await self._drivers.networks.reconcile(wanted))
        except HostError as error:
            log.warning("network.unreconciled", why=reason(error))
            return []

    async def _evict(self, desired: DesiredState) -> None:
        keep = set(desired.blobs)
        for wish in self._lanes.wishes().values():
            if wish.server is not None and wish.server.image is not None:
                keep.add(wish.server.image.blob_id)
        try:
            gone = await self._drivers.storage.evict(frozenset(keep))
        except HostError as error:
            log.warning("images.unreconciled", why=reason(error))
            return
        for blob_id in gone:
            log.info("image.evicted", blob=blob_id)


def _by_resource(operations: Iterable[Operation]) -> dict[str, tuple[Operation, ...]]:
    found: dict[str, tuple[Operation, ...]] = {}
    for operation in operations:
        found[operation.resource_id] = (*found.get(operation.resource_id, ()), operation)
    return found
