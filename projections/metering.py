"""Metering: from facts to intervals of held state, and from intervals to exact quantities.

Usage is what was held, not what was sampled: a meter opens at the fact that says a thing is held
and closes at the fact that says it is not. Intervals are half-open, in integer microseconds, and
never overlap for one resource and meter: a claimed time earlier than one already seen of the same
resource counts as that one. Quantities are integers of value times microseconds, so splitting a
window in two never changes a sum. All is a pure function of facts in the order of the log.

===================  ==========================  ==============================================
``compute.vcpu``     virtual CPUs                while the server runs
``compute.memory``   MiB                         while the server runs
``compute.disk``     GiB                         from the first start until deleted or failed
``image.size``       bytes                       while the image is active
===================  ==========================  ==============================================
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from schemas import compute as c
from schemas import image as i
from schemas.billing import Meter
from schemas.units import Micros, Ordinal

GIB = 2**30
BASE_UNITS: dict[Meter, str] = {
    "compute.vcpu": "vcpu*us",
    "compute.memory": "MiB*us",
    "compute.disk": "GiB*us",
    "image.size": "byte*us",
}
FACTS: tuple[type[Struct], ...] = (
    c.ServerCreated,
    c.ServerStarted,
    c.ServerStopped,
    c.ServerRebooted,
    c.ServerTaskFailed,
    c.ServerFailed,
    c.ServerDeleted,
    i.ImageCreated,
    i.ImageUploaded,
    i.ImageActivated,
    i.ImageUpdated,
    i.ImageDeleted,
)
TAGS: tuple[str, ...] = tuple(str(fact.__struct_config__.tag) for fact in FACTS)
_RUNNING: tuple[Meter, ...] = ("compute.vcpu", "compute.memory")
_SERVER: tuple[Meter, ...] = ("compute.vcpu", "compute.memory", "compute.disk")


class Interval(Struct, frozen=True, kw_only=True):
    """A stretch during which a resource held ``value`` of a meter.

    ``end`` and ``last_ordinal`` are None while it is held. Zero-length ones are kept: they prove
    that something was and went.
    """

    resource_kind: str
    resource_id: str
    project_id: str
    meter: Meter
    value: int
    start: Micros
    end: Micros | None
    first_ordinal: Ordinal
    last_ordinal: Ordinal | None


class Usage(Struct, frozen=True, kw_only=True):
    """What of an interval lies in a window: ``quantity`` is ``value`` times ``end - start``.

    The ordinals name the facts that bound it. A stretch that goes on beyond the window was ended by
    no fact in it, so its last ordinal is its first: asking again later gives the same row.
    """

    resource_kind: str
    resource_id: str
    project_id: str
    meter: Meter
    value: int
    quantity: int
    start: Micros
    end: Micros
    first_ordinal: Ordinal
    last_ordinal: Ordinal


class _Held(Struct):
    """What is known of a server: whose, how big, and the latest time seen of it."""

    project_id: str
    values: dict[Meter, int]
    latest: Micros


class Meters:
    """The fold: give it facts in the order of the log, then read ``intervals``."""

    def __init__(self) -> None:
        self._closed: list[Interval] = []
        self._open: dict[tuple[str, Meter], Interval] = {}
        self._servers: dict[str, _Held] = {}
        self._images: dict[str, i.Image] = {}
        self._virtual_bytes: dict[str, int] = {}

    def intervals(self) -> list[Interval]:
        """Return all intervals so far, closed and open, in the order in which they began."""
        everything = [*self._closed, *self._open.values()]
        return sorted(everything, key=lambda x: (x.first_ordinal, x.resource_id, x.meter))

    def apply(self, ordinal: Ordinal, at: Micros, fact: object) -> None:
        """Fold one fact; those that are not metered change nothing.

        ``at`` is the commit's time, which counts where the fact claims none.
        """
        match fact:
            case c.ServerCreated():
                self._server_created(fact.server)
            case c.ServerStarted() | c.ServerRebooted():
                self._hold(ordinal, fact.server_id, fact.observed_at, _SERVER)
            case c.ServerStopped():
                self._release(ordinal, fact.server_id, fact.observed_at, _RUNNING)
            case c.ServerTaskFailed():
                if fact.running:
                    self._hold(ordinal, fact.server_id, at, _SERVER)
                else:
                    self._release(ordinal, fact.server_id, at, _RUNNING)
            case c.ServerFailed():
                self._release(ordinal, fact.server_id, at, _SERVER)
            case c.ServerDeleted():
                self._release(ordinal, fact.server_id, fact.observed_at, _SERVER)
                self._servers.pop(fact.server_id, None)
            case i.ImageCreated() | i.ImageUpdated():
                self._images[fact.image.image_id] = fact.image
            case i.ImageUploaded():
                image = self._images[fact.image_id]
                self._images[fact.image_id] = replace(image, size_bytes=fact.size_bytes)
            case i.ImageActivated():
                self._image_activated(ordinal, at, fact)
            case i.ImageDeleted():
                self._close(ordinal, fact.image_id, at, "image.size")
                self._images.pop(fact.image_id, None)
                self._virtual_bytes.pop(fact.image_id, None)
            case _:
                pass

    def _server_created(self, server: c.Server) -> None:
        flavor = server.flavor
        virtual_bytes = self._virtual_bytes.get(server.image_id or "", 0)
        self._servers[server.server_id] = _Held(
            project_id=server.project_id,
            values={
                "compute.vcpu": flavor.vcpus,
                "compute.memory": flavor.memory_mib,
                # A flavor without a disk size takes the image's, rounded up.
                "compute.disk": flavor.disk_gib or -(-virtual_bytes // GIB),
            },
            latest=0,
        )

    def _hold(
        self, ordinal: Ordinal, server_id: str, at: Micros, meters: tuple[Meter, ...]
    ) -> None:
        held = self._servers[server_id]
        held.latest = at = max(at, held.latest)
        for meter in meters:
            if (server_id, meter) not in self._open and held.values[meter]:
                self._open[server_id, meter] = Interval(
                    resource_kind="server",
                    resource_id=server_id,
                    project_id=held.project_id,
                    meter=meter,
                    value=held.values[meter],
                    start=at,
                    end=None,
                    first_ordinal=ordinal,
                    last_ordinal=None,
                )

    def _release(
        self, ordinal: Ordinal, server_id: str, at: Micros, meters: tuple[Meter, ...]
    ) -> None:
        held = self._servers[server_id]
        held.latest = at = max(at, held.latest)
        for meter in meters:
            self._close(ordinal, server_id, at, meter)

    def _image_activated(self, ordinal: Ordinal, at: Micros, fact: i.ImageActivated) -> None:
        image = self._images[fact.image_id]
        self._virtual_bytes[fact.image_id] = fact.virtual_size_bytes
        self._open[fact.image_id, "image.size"] = Interval(
            resource_kind="image",
            resource_id=fact.image_id,
            project_id=image.project_id,
            meter="image.size",
            value=image.size_bytes or 0,
            start=at,
            end=None,
            first_ordinal=ordinal,
            last_ordinal=None,
        )

    def _close(self, ordinal: Ordinal, resource_id: str, at: Micros, meter: Meter) -> None:
        interval = self._open.pop((resource_id, meter), None)
        if interval is not None:
            self._closed.append(replace(interval, end=at, last_ordinal=ordinal))


def intervals(facts: Iterable[tuple[Ordinal, Micros, object]]) -> list[Interval]:
    """Return the intervals of (ordinal, commit's time, fact), in the order in which they began."""
    meters = Meters()
    for ordinal, at, fact in facts:
        meters.apply(ordinal, at, fact)
    return meters.intervals()


def usage(
    held: Iterable[Interval], start: Micros, end: Micros, project_id: str | None = None
) -> Iterator[Usage]:
    """Yield what of the intervals lies in [start, end), of one project or of all."""
    for interval in held:
        if project_id not in {None, interval.project_id}:
            continue
        ended = interval.end if interval.end is not None and interval.end <= end else None
        first = max(start, interval.start)
        last = end if ended is None else ended
        if not (first < last or (start <= interval.start == last < end)):
            continue
        last_ordinal = interval.first_ordinal if ended is None else interval.last_ordinal
        assert last_ordinal is not None, "an interval that ended was ended by a fact"
        yield Usage(
            resource_kind=interval.resource_kind,
            resource_id=interval.resource_id,
            project_id=interval.project_id,
            meter=interval.meter,
            value=interval.value,
            quantity=interval.value * (last - first),
            start=first,
            end=last,
            first_ordinal=interval.first_ordinal,
            last_ordinal=last_ordinal,
        )
