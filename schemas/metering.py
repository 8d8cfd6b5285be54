"""Meters, as data: which facts open and close what is held, how much of it, and in which unit.

A meter is a key, a version and rules over facts. Each rule says what one kind of fact does to one
resource; all rules together are folded by ``projections.metering``, ours and those that somebody
defines alike. Invariant: what a meter gives depends on its own rules and the log alone, never on
which other meters there are. Quantities are integers of the base unit.

========  ====================================================================================
effect    what it does
========  ====================================================================================
``set``   nothing but to keep what the rule says: project, value, dimensions. While the
          resource is held, a change ends one interval and begins the next at the same instant.
``open``  the resource is held from then on, if it was not, and its value is not zero
``close`` it is held no longer
``end``   as ``close``, and it is gone: what was kept of it is forgotten
``seen``  it was seen at that time: what claims to have happened earlier counts from then on
``add``   it happened: one point, with the value (1 if the rule has none)
``note``  the value is kept for rules that look it up by this id (``Source.noted_of``)
``drop``  what was noted is forgotten
========  ====================================================================================
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas import compute as c
from schemas import image as i
from schemas.paths import Path, PathOrNone
from schemas.samples import SamplesRolledUp
from schemas.units import HOUR, Micros, Text

GIB = 2**30
RULES_MAX = 64
DIMENSIONS_MAX = 8

MeterKey = Annotated[
    str, Meta(max_length=64, pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}\Z")
]
# A word of FOCUS 1.4: capitalised plurals with hyphens between them (Core-Hours, Requests).
Unit = Annotated[str, Meta(max_length=64, pattern=r"^[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*){0,3}\Z")]
FactTag = Annotated[str, Meta(max_length=64, pattern=r"^[a-z_]+(\.[a-z0-9_]+){1,4}\Z")]
ResourceKind = Annotated[str, Meta(max_length=32, pattern=r"^[a-z][a-z0-9_]*\Z")]
BasePerUnit = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Rules = Annotated[tuple["MeterRule", ...], Meta(min_length=1, max_length=RULES_MAX)]
DimensionName = Annotated[str, Meta(max_length=32, pattern=r"^[a-z][a-z0-9_]*\Z")]
type Dimensions = dict[str, str]
type Aggregation = Literal["integral", "count", "sum", "max", "min", "latest", "unique_count"]
type Effect = Literal["set", "open", "close", "end", "seen", "add", "note", "drop"]
# Of these, what lies in two windows adds up to what lies in both; of others nothing can be priced.
ADDITIVE: frozenset[Aggregation] = frozenset({"integral", "count", "sum"})


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a field of the fact must be for the rule to apply."""

    path: Path
    equals: bool | int | Text


class Source(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a number is found: a constant, a field, or what was noted of a thing a field names.

    It is divided by ``divisor`` and rounded up. True counts as 1, and less than nothing as nothing.
    """

    constant: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    path: PathOrNone = ""
    noted_of: PathOrNone = ""
    divisor: Annotated[int, Meta(ge=1, le=2**53 - 1)] = 1


class MeterRule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one kind of fact does to a meter. Paths lead into the fact.

    ``at`` "" is the commit's time. ``value`` is the first source that gives anything but zero;
    where no rule of a meter has one, each resource counts as 1. ``unique`` is what ``unique_count``
    counts.
    """

    fact: FactTag
    effect: Effect
    resource: Path
    when: Annotated[tuple[Condition, ...], Meta(max_length=8)] = ()
    project: PathOrNone = ""
    at: PathOrNone = ""
    value: Annotated[tuple[Source, ...], Meta(max_length=4)] = ()
    unique: PathOrNone = ""
    dimensions: Annotated[dict[DimensionName, Path], Meta(max_length=DIMENSIONS_MAX)] = {}


class MeterDefinition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a meter. ``base_per_unit`` base units are one ``unit``.

    Base units are what a value counts, times microseconds where ``aggregation`` is ``integral``.
    ``keeps_zero`` says that a resource whose value is zero is held all the same. What is held is
    measured by this version from ``valid_from`` on, up to ``valid_until``.
    """

    key: MeterKey
    version: int = 1
    description: Text = ""
    resource_kind: ResourceKind
    aggregation: Aggregation
    unit: Unit
    base_unit: Text
    base_per_unit: BasePerUnit
    rules: Rules
    keeps_zero: bool = False
    valid_from: Micros = 0
    valid_until: Micros | None = None

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of its dimensions, sorted; every row of it has all of them."""
        return tuple(sorted({name for rule in self.rules for name in rule.dimensions}))


class DefineMeter(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Define a meter over facts, or the next version of one.

    A new one measures all of history. The next version measures from its definition on; it keeps
    the kind of resource, aggregation, unit and base unit, so that what was measured adds up.
    """

    key: MeterKey
    description: Text = ""
    resource_kind: ResourceKind
    aggregation: Aggregation
    unit: Unit
    base_unit: Text = ""
    base_per_unit: BasePerUnit
    rules: Rules
    keeps_zero: bool = False


class DeleteMeter(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Measure by a meter no longer. What it measured up to now stays."""

    key: MeterKey


type MeterAction = DefineMeter | DeleteMeter


class MeterDefined(
    Struct, frozen=True, kw_only=True, tag="metering.meter.defined.v1", tag_field="type"
):
    """There is a meter, or another version of it: usage is measured by it from its validity on."""

    meter: MeterDefinition


class MeterDeleted(
    Struct, frozen=True, kw_only=True, tag="metering.meter.deleted.v1", tag_field="type"
):
    """The meter measures nothing from this commit's time on."""

    key: MeterKey


type MeterFact = MeterDefined | MeterDeleted


def _tag(fact: type[Struct]) -> str:
    return str(fact.__struct_config__.tag)


_FLAVOR = {"flavor": "server.flavor.name"}


def _of_server(fact: type[Struct], effect: Effect, *when: Condition, at: str = "") -> MeterRule:
    return MeterRule(fact=_tag(fact), effect=effect, resource="server_id", when=when, at=at)


def _created(*value: Source) -> MeterRule:
    return MeterRule(
        fact=_tag(c.ServerCreated),
        effect="set",
        resource="server.server_id",
        project="server.project_id",
        value=value,
        dimensions=_FLAVOR,
    )


def _resized(*value: Source) -> tuple[MeterRule, ...]:
    """From when the host has it so, the same is held as another flavor."""
    facts = (c.ServerResized, c.ServerResizeReverted)
    return (
        *(
            MeterRule(
                fact=_tag(fact),
                effect="set",
                resource="server_id",
                at="observed_at",
                value=value,
                dimensions={"flavor": "flavor.name"},
            )
            for fact in facts
        ),
        *(_of_server(fact, "seen", at="observed_at") for fact in facts),
    )


_RUNS = Condition(path="running", equals=True)
_RUNS_NOT = Condition(path="running", equals=False)
_OPENED = (
    _of_server(c.ServerStarted, "open", at="observed_at"),
    _of_server(c.ServerRebooted, "open", at="observed_at"),
    _of_server(c.ServerTaskFailed, "open", _RUNS),
)
_GONE = (
    _of_server(c.ServerFailed, "close"),
    _of_server(c.ServerDeleted, "end", at="observed_at"),
)
# While the server runs.
_RUNNING = (
    *_OPENED,
    _of_server(c.ServerStopped, "close", at="observed_at"),
    _of_server(c.ServerTaskFailed, "close", _RUNS_NOT),
    *_GONE,
)
# From the first start until it is deleted or failed, also while it is off.
_EXISTING = (
    *_OPENED,
    _of_server(c.ServerStopped, "seen", at="observed_at"),
    _of_server(c.ServerTaskFailed, "seen", _RUNS_NOT),
    *_GONE,
)


def _of_image(fact: type[Struct], effect: Effect, *value: Source) -> MeterRule:
    return MeterRule(fact=_tag(fact), effect=effect, resource="image_id", value=value)


def _whole_image(fact: type[Struct]) -> MeterRule:
    return MeterRule(
        fact=_tag(fact),
        effect="set",
        resource="image.image_id",
        project="image.project_id",
        value=(Source(path="image.size_bytes"),),
    )


_DEFINITIONS = (
    MeterDefinition(
        key="compute.vcpu",
        description="Virtual CPUs, while the server runs",
        resource_kind="server",
        aggregation="integral",
        unit="Core-Hours",
        base_unit="vcpu*us",
        base_per_unit=HOUR,
        rules=(
            _created(Source(path="server.flavor.vcpus")),
            *_resized(Source(path="flavor.vcpus")),
            *_RUNNING,
        ),
    ),
    MeterDefinition(
        key="compute.memory",
        description="Memory, while the server runs",
        resource_kind="server",
        aggregation="integral",
        unit="GiB-Hours",
        base_unit="MiB*us",
        base_per_unit=HOUR * 1024,
        rules=(
            _created(Source(path="server.flavor.memory_mib")),
            *_resized(Source(path="flavor.memory_mib")),
            *_RUNNING,
        ),
    ),
    MeterDefinition(
        key="compute.disk",
        description="The root disk, from the first start until the server is deleted or failed",
        resource_kind="server",
        aggregation="integral",
        unit="GiB-Hours",
        base_unit="GiB*us",
        base_per_unit=HOUR,
        rules=(
            # A flavor without a disk size takes the image's, rounded up.
            _of_image(i.ImageActivated, "note", Source(path="virtual_size_bytes", divisor=GIB)),
            _of_image(i.ImageDeleted, "drop"),
            _created(
                Source(path="server.flavor.disk_gib"),
                Source(noted_of="server.image_id"),
            ),
            *_resized(Source(path="disk_gib")),
            *_EXISTING,
        ),
    ),
    MeterDefinition(
        key="compute.instance",
        description="The server itself, from the first start until it is deleted or failed",
        resource_kind="server",
        aggregation="integral",
        unit="Hours",
        base_unit="us",
        base_per_unit=HOUR,
        rules=(_created(Source(constant=1)), *_resized(), *_EXISTING),
    ),
    MeterDefinition(
        key="image.size",
        description="The image's bytes, while it is active",
        resource_kind="image",
        aggregation="integral",
        unit="GiB-Hours",
        base_unit="byte*us",
        base_per_unit=HOUR * GIB,
        keeps_zero=True,
        rules=(
            _whole_image(i.ImageCreated),
            _whole_image(i.ImageUpdated),
            _of_image(i.ImageUploaded, "set", Source(path="size_bytes")),
            _of_image(i.ImageActivated, "open"),
            _of_image(i.ImageDeleted, "end"),
        ),
    ),
)


def _sampled(key: str, description: str, unit: str, base_unit: str, per: int) -> MeterDefinition:
    """Return the meter of a counter that hosts look at: by how much it grew, hour by hour."""
    return MeterDefinition(
        key=key,
        description=description,
        resource_kind="server",
        aggregation="sum",
        unit=unit,
        base_unit=base_unit,
        base_per_unit=per,
        rules=(
            MeterRule(
                fact=_tag(SamplesRolledUp),
                effect="add",
                when=(Condition(path="rollup.monitor", equals=key),),
                resource="rollup.server_id",
                project="project_id",
                at="rollup.hour",
                value=(Source(path="rollup.increase"),),
            ),
        ),
    )


_GB = 10**9
_SAMPLED = (
    _sampled("compute.cpu_time", "Processor time that guests took", "Hours", "ns", 3600 * _GB),
    _sampled("compute.disk_read", "Bytes that guests read from disks", "GB", "byte", _GB),
    _sampled("compute.disk_write", "Bytes that guests wrote to disks", "GB", "byte", _GB),
    _sampled("network.egress", "Bytes that guests sent", "GB", "byte", _GB),
    _sampled("network.ingress", "Bytes that guests received", "GB", "byte", _GB),
)
BUILT_IN: dict[str, MeterDefinition] = {each.key: each for each in (*_DEFINITIONS, *_SAMPLED)}
# Each price list prices these. Others cost nothing unless a rule of the list names them.
ALWAYS_PRICED: tuple[str, ...] = ("compute.vcpu", "compute.memory", "compute.disk", "image.size")
