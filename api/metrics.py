"""``/metrics``: the numbers of this node's processes and of its cell, in one scrape.

The edge asks the engine that leads and its own node's projector, archiver and agent, all at once
and for a short while; who does not answer is told as ``cumulog_process_up 0``. Invariants:
however often it is scraped the others are asked once a second at most; nothing of a tenant is told,
whatever another process says, since labels are those of ``schemas.metrics`` and no others.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from engine.bus.client import BusError
from engine.bus.metrics import Reading, histogram, told
from schemas.metrics import METRICS, Sample, Told, decode_told

if TYPE_CHECKING:
    from api.edge import Edge

KEPT_S = 1.0  # how long one answer serves all who ask
ASK_S = 2.0  # well within what scrapers wait
CLOSED = ("silent", "slow", "idle", "address", "full")  # why connections are closed
UNITS = ("seconds", "bytes")

DURATIONS = histogram(
    "http_server_request_duration_seconds",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

log = structlog.get_logger(__name__)

type Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class _Families(CollectorRegistry):
    """Families that are known already, for the library's writers to write down."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


class Scrape:
    """What one edge answers to whoever scrapes it."""

    def __init__(self, edge: "Edge") -> None:
        """Read the token that is asked for, if one is.

        Raises:
            OSError: its file cannot be read.
            ValueError: there is none in it.
        """
        self._edge = edge
        file = edge.config.metrics_token_file
        self._token = Path(file).read_text(encoding="utf-8").strip() if file else ""
        if file and not self._token:
            raise ValueError(f"there is no token in {file}")
        self._gathering: asyncio.Task[_Families] | None = None
        self._gathered_at = float("-inf")
        self._written: dict[str, bytes] = {}

    def may(self, authorization: str) -> bool:
        """Return whether whoever sends this may read the numbers."""
        return not self._token or compare_digest(
            authorization.encode(), f"Bearer {self._token}".encode()
        )

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the numbers and their media type, as OpenMetrics text if that is accepted."""
        encoder, media_type = choose_encoder(accept)
        families = await self._families()
        written = self._written.get(media_type)
        if written is None:
            written = self._written[media_type] = encoder(families)
        return written, media_type

    async def _families(self) -> _Families:
        at = time.monotonic()
        if self._gathering is None or (self._gathering.done() and at - self._gathered_at >= KEPT_S):
            self._gathering = asyncio.create_task(self._gather())
            self._gathered_at = at
            self._written = {}
        # Who goes away does not end it for those who wait as well.
        return await asyncio.shield(self._gathering)

    async def _gather(self) -> _Families:
        asked = self._others()
        answers = await asyncio.gather(*(self._ask(subject) for subject in asked.values()))
        own = await told("api", self._own)
        up: list[Reading] = [
            ("cumulog_process_up", (process,), float(answer is not None))
            for process, answer in zip(asked, answers, strict=True)
        ]
        up.append(("cumulog_process_up", ("api",), 1.0))
        for name, (process,), number in up:
            own.setdefault(name, []).append(Sample("", {"process": process}, number))
        return _Families(_merged([own, *(answer for answer in answers if answer is not None)]))

    def _others(self) -> dict[str, str]:
        """Return the subjects on which this node's processes and the cell's answer."""
        edge, subjects = self._edge, self._edge.bus.subjects
        others = {
            "engine": subjects.engine("metrics"),
            "archiver": subjects.metrics(f"archiver-{edge.config.node}"),
            "projector": subjects.metrics(f"projector-{edge.config.node}"),
        }
        if edge.reader.position():
            others["courier"] = subjects.courier("metrics")
        if edge.position() and edge.reader.host(edge.config.host_id) is not None:
            others["agent"] = subjects.agent_metrics(edge.config.host_id)
        return others

    async def _ask(self, subject: str) -> Told | None:
        try:
            return decode_told(await self._edge.bus.request(subject, b"", timeout_s=ASK_S))
        except (BusError, msgspec.DecodeError) as error:
            log.debug("metrics_not_answered", subject=subject, error=str(error))
            return None

    async def _own(self) -> Iterable[Reading]:
        edge = self._edge
        readings: list[Reading] = [
            ("cumulog_projection_ordinal", (), edge.position()),
            ("cumulog_bus_connected", (), int(edge.bus.connected)),
            ("cumulog_api_streams", (), edge.streams.total()),
            ("cumulog_access_lost_total", (), edge.access.lost_total),
            ("cumulog_access_waiting_bytes", (), edge.access.waiting_bytes),
            ("cumulog_api_connections", (), edge.connections.open),
            ("cumulog_password_checks_total", (), edge.passwords.checks),
            ("cumulog_sign_in_lockouts_total", (), edge.lockouts.begun),
            ("cumulog_sign_ins_locked_out_total", (), edge.lockouts.refused),
        ]
        for why in CLOSED:
            closed = edge.connections.closed[why]
            readings.append(("cumulog_api_connections_closed_total", (why,), closed))
        for (api, method, status), count in edge.answered.items():
            readings.append(("cumulog_api_requests_total", (api, method, str(status)), count))
        for api, seconds in edge.seconds.items():
            readings.append(("cumulog_api_request_seconds_total", (api,), seconds))
        for api, count in edge.active.items():
            readings.append(("http_server_active_requests", (api,), count))
        for effect, count in edge.decisions.items():
            readings.append(("cumulog_policy_decisions_total", (effect,), count))
        return readings


def _merged(answers: list[Told]) -> list[Metric]:
    """Return one family for each name; what several count under the same labels is added up."""
    merged: defaultdict[str, Numbers] = defaultdict(dict)
    for answer in answers:
        for name, samples in answer.items():
            about = METRICS.get(name)
            if about is None:
                continue  # of a process of another version
            allowed = {*about.labels, "le"}
            for sample in samples:
                if not sample.labels.keys() <= allowed:
                    continue
                numbers = merged[name]
                key = sample.suffix, tuple(sample.labels.items())
                value = math.inf if sample.value is None else sample.value
                numbers[key] = numbers.get(key, 0.0) + value
    return [_family(name, merged[name]) for name in METRICS if name in merged]


def _family(name: str, numbers: Numbers) -> Metric:
    about = METRICS[name]
    base = name.removesuffix("_total" if about.kind == "counter" else "")
    base = base.removesuffix("_info" if about.kind == "info" else "")
    unit = next((unit for unit in UNITS if base.endswith(f"_{unit}")), "")
    family = Metric(base, about.help, about.kind, unit)
    for (suffix, labels), value in numbers.items():
        family.add_sample(name + suffix, dict(labels), value)
    return family
