"""Samples: what can only be measured by looking, as bytes through a port and processor time.

Hosts look every minute at counters that start anew with each boot. Single samples never enter the
log; an hour's are rolled up into one fact a server and monitor, with all that it takes to check it.
"""

from typing import Annotated

from msgspec import Meta, Struct

from schemas.ids import Id, ProjectId
from schemas.units import Micros

ROLLUPS_MAX = 1000
Monitor = Annotated[str, Meta(max_length=64, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Boots = Annotated[tuple[Count, ...], Meta(min_length=1, max_length=1000)]


class Rollup(Struct, frozen=True, kw_only=True):
    """An hour of samples of one counter of one server.

    ``hour`` is when it begins. ``first`` to ``maximum`` are the counter's readings as they were,
    ``count`` how many; ``boots`` the boots they were of. ``increase`` is by how much it grew since
    the last reading of the hour before; a counter that began anew has grown by what it says.
    """

    server_id: Id
    monitor: Monitor
    hour: Micros
    count: Count
    first: Count
    last: Count
    minimum: Count
    maximum: Count
    increase: Count
    boots: Boots


class ReportSamples(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """An agent has rolled up hours that are over. What was reported before is not again."""

    rollups: Annotated[tuple[Rollup, ...], Meta(min_length=1, max_length=ROLLUPS_MAX)]


type SamplesAction = ReportSamples


class SamplesRolledUp(
    Struct, frozen=True, kw_only=True, tag="metering.samples.rolled_up.v1", tag_field="type"
):
    """What a server's counter grew by in an hour: metered as of the hour's beginning."""

    project_id: ProjectId
    rollup: Rollup


type SamplesFact = SamplesRolledUp
