"""A process' numbers: counted where things happen, told when somebody asks.

``counter`` and ``histogram`` are made once, at import, of what ``schemas.metrics`` says of them.
What can be looked up (a queue's length, a lag) is not kept but read when it is asked for. Whoever
asks on behalf of others asks at most once a second (``api.metrics``).
"""

import platform
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from importlib.metadata import version

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from engine.bus.client import Bus, BusError, Message, Subscription
from schemas.metrics import METRICS, Sample, Told, encode_told

log = structlog.get_logger(__name__)

# A reading: a family's name, its labels' values in their order, the number.
type Reading = tuple[str, tuple[str, ...], float]
type Read = Callable[[], Awaitable[Iterable[Reading]]]

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not say
_REGISTRY = CollectorRegistry()
_PROCESS = ProcessCollector(registry=None)


def counter(name: str) -> Counter:
    """Return a counter of this process."""
    about = METRICS[name]
    assert about.kind == "counter", name
    return Counter(name, about.help, about.labels, registry=_REGISTRY)


def histogram(name: str, bounds: tuple[float, ...]) -> Histogram:
    """Return a histogram of this process; ``bounds`` are its buckets' upper ends."""
    about = METRICS[name]
    assert about.kind == "histogram", name
    return Histogram(name, about.help, about.labels, registry=_REGISTRY, buckets=bounds)


async def told(process: str, read: Read | None = None) -> Told:
    """Return all numbers of this process, which is called ``process``."""
    answer: Told = {}
    for family in _REGISTRY.collect():
        for sample in family.samples:
            name = _family(sample.name)
            suffix = sample.name[len(name) :]
            answer.setdefault(name, []).append(Sample(suffix, sample.labels, sample.value))
    readings = [*_of_process(process), *(await read() if read is not None else ())]
    for name, values, number in readings:
        labels = dict(zip(METRICS[name].labels, values, strict=True))
        answer.setdefault(name, []).append(Sample("", labels, number))
    return answer


async def answer_for(
    bus: Bus, subject: str, process: str, read: Read | None = None
) -> Subscription | None:
    """Tell this process' numbers whenever they are asked for on ``subject``.

    Returns None where the broker does not let us listen: no work depends on it.
    """

    async def tell(message: Message) -> None:
        await message.respond(encode_told(await told(process, read)))

    try:
        return await bus.subscribe(subject, tell)
    except BusError as error:
        log.warning("metrics_not_told", subject=subject, error=str(error))
        return None


def _of_process(process: str) -> Iterable[Reading]:
    for family in _PROCESS.collect():
        for sample in family.samples:
            if sample.name in METRICS:
                yield sample.name, (process,), sample.value
    yield "cumulog_build_info", (process, _version(), platform.python_version()), 1


@cache
def _version() -> str:
    return version("cumulog")


@cache
def _family(sample: str) -> str:
    """Return the family that a sample belongs to."""
    if sample in METRICS:
        return sample
    for suffix in ("_bucket", "_sum", "_count"):
        if sample.endswith(suffix) and sample.removesuffix(suffix) in METRICS:
            return sample.removesuffix(suffix)
    raise AssertionError(f"{sample} is not in the table of metrics")
