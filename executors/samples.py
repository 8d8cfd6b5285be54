"""Samples of guests' counters, rolled up by the hour.

Invariant: what a counter grew by is counted once. The rate is taken before anything is added up:
a reading below the one before, or of another boot, is of a counter that began anew. What is known
lies in a file, so that an agent that is started again goes on where it ended; without it, what
counters say at first is where counting begins.
"""

import asyncio
import importlib.metadata
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from msgspec import Struct

from executors.errors import HostError, reason
from executors.hypervisor.port import Domain, Hypervisor
from executors.reports import Clock, Reports
from schemas.envelope import Refused
from schemas.errors import ClockAhead
from schemas.ids import ServerId
from schemas.samples import ROLLUPS_MAX, Monitor, ReportSamples, Rollup
from schemas.units import HOUR, Micros

log = structlog.get_logger(__name__)

ENTRY_POINTS = "cumulog.monitors"
PLUGIN_S = 10.0  # after which a plugin is not waited for
BOOTS_MAX = 1000
COUNT_MAX = 2**53 - 1  # the schema's bound


class Sample(NamedTuple):
    """What a counter of a server says; it starts from nothing with each boot."""

    server_id: ServerId
    boot: int
    monitor: str
    value: int


# What a plugin is: asked once a minute, in a thread of its own unless it is a coroutine.
type Plugin = Callable[[Mapping[ServerId, Domain]], Iterable[Sample] | Awaitable[Iterable[Sample]]]


class Counter(Struct):
    """One counter in one hour. ``last`` and ``boot`` are of the newest reading, of any hour."""

    hour: Micros
    boot: int
    last: int
    first: int = 0
    count: int = 0
    minimum: int = 0
    maximum: int = 0
    increase: int = 0
    boots: list[int] = []


class _Kept(Struct):
    counters: dict[str, Counter]
    due: list[Rollup]


class Rollups:
    """The roll-ups of one host: give it samples, take what is due."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._counters: dict[str, Counter] = {}
        self._begun = False  # whether counters that are new began while somebody looked
        self.due: list[Rollup] = []
        if path is not None and path.exists():
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                log.warning("samples.lost", why=str(error))
            else:
                self._counters, self.due, self._begun = kept.counters, kept.due, True

    def add(self, samples: Iterable[Sample], at: Micros) -> None:
        """Take what all counters say at a time; hours that are over become due."""
        hour = at - at % HOUR
        self._end_hours(hour)
        for sample in samples:
            self._read(sample, hour)
        self._begun = True

    def reported(self, rollups: Sequence[Rollup]) -> None:
        """Forget what was brought home."""
        self.due = self.due[len(rollups) :]

    def forget(self, servers: Iterable[ServerId]) -> None:
        """Forget counters of servers that are not there any more, once their hour is told."""
        there = set(servers)
        for key, counter in list(self._counters.items()):
            if key.partition(" ")[0] not in there and not counter.count:
                del self._counters[key]

    def keep(self) -> None:
        """Write down what is known; a kill leaves the old file or the new."""
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(
            msgspec.json.encode(_Kept(counters=self._counters, due=self.due), order="sorted")
        )
        temporary.replace(self._path)

    def _read(self, sample: Sample, hour: Micros) -> None:
        key = f"{sample.server_id} {sample.monitor}"
        counter = self._counters.get(key)
        if counter is None:
            counter = Counter(hour=hour, boot=sample.boot, last=0 if self._begun else sample.value)
            self._counters[key] = counter
        anew = sample.boot != counter.boot or sample.value < counter.last
        grown = sample.value if anew else sample.value - counter.last
        if not counter.count:
            counter.first = counter.minimum = counter.maximum = sample.value
        counter.hour, counter.boot, counter.last = hour, sample.boot, sample.value
        counter.count += 1
        counter.increase = min(counter.increase + grown, COUNT_MAX)
        counter.minimum = min(counter.minimum, sample.value)
        counter.maximum = max(counter.maximum, sample.value)
        if sample.boot not in counter.boots and len(counter.boots) < BOOTS_MAX:
            counter.boots.append(sample.boot)

    def _end_hours(self, hour: Micros) -> None:
        for key, counter in self._counters.items():
            if counter.count and counter.hour < hour:
                server_id, _, monitor = key.partition(" ")
                self.due.append(
                    Rollup(
                        server_id=server_id,
                        monitor=monitor,
                        hour=counter.hour,
                        count=counter.count,
                        first=counter.first,
                        last=counter.last,
                        minimum=counter.minimum,
                        maximum=counter.maximum,
                        increase=counter.increase,
                        boots=tuple(counter.boots),
                    )
                )
                counter.count = counter.increase = 0
                counter.boots = []


def plugins() -> dict[str, Plugin]:
    """Return the monitors that installed packages bring; one that cannot be loaded is told."""
    found: dict[str, Plugin] = {}
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            found[entry.name] = entry.load()
        except Exception:
            log.exception("monitor.not_loaded", monitor=entry.name)
    return found


class Sampler:
    """Looks at this host's guests, and reports what an hour came to."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        reports: Reports,
        rollups: Rollups,
        clock: Clock,
        more: Mapping[str, Plugin] | None = None,
    ) -> None:
        self._hypervisor = hypervisor
        self._reports = reports
        self._rollups = rollups
        self._clock = clock
        self._plugins = plugins() if more is None else dict(more)

    async def run(self, every_s: float) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except (HostError, OSError) as error:
                log.warning("samples.missed", why=reason(error))
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Read all counters once; report what is due.

        Raises:
            HostError: the hypervisor does not answer.
            OSError: what is known cannot be written down.
        """
        domains = await self._hypervisor.domains()
        samples = [
            Sample(server_id, domains[server_id].boot, monitor, value)
            for server_id, counters in (await self._hypervisor.counters()).items()
            if server_id in domains
            for monitor, value in counters.items()
        ]
        for name, plugin in self._plugins.items():
            samples += await self._asked(name, plugin, domains)
        rollups = self._rollups
        rollups.add(samples, self._clock())
        rollups.forget(domains)
        rollups.keep()
        while rollups.due:
            part = rollups.due[:ROLLUPS_MAX]
            outcome = await self._reports.send(ReportSamples(rollups=tuple(part)))
            if isinstance(outcome.verdict, Refused) and outcome.verdict.code == ClockAhead.code:
                return  # this host's clock is ahead: told again by the next look
            rollups.reported(part)
            rollups.keep()

    async def _asked(
        self, name: str, plugin: Plugin, domains: Mapping[ServerId, Domain]
    ) -> list[Sample]:
        """Return what a plugin says; what it does wrong is its own."""
        try:
            async with asyncio.timeout(PLUGIN_S):
                if inspect.iscoroutinefunction(plugin):
                    told = await plugin(domains)
                else:
                    told = await asyncio.to_thread(lambda: list(plugin(domains)))  # type: ignore[arg-type]  # no coroutine
            return [_sound(Sample(*each), domains) for each in told]
        except Exception:
            log.exception("monitor.failed", monitor=name)
            return []


def _sound(sample: Sample, domains: Mapping[ServerId, Domain]) -> Sample:
    """Return a sample that can be rolled up.

    Raises:
        ValueError: it is of no server here, or is no count.
    """
    if sample.server_id not in domains or not 0 <= sample.value <= COUNT_MAX:
        raise ValueError(f"{sample} is no sample of a server here")
    msgspec.convert(sample.monitor, Monitor)
    return sample
