"""What projectors and archivers count, and how far behind the log they are."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from engine.bus.client import BusError
from engine.bus.metrics import Reading, counter
from engine.log.port import LogError, StoredCommit
from projections.models import TABLES, decode_stored, last_ordinal
from projections.reader import Reader
from schemas.errors import Unavailable
from schemas.metering import BUILT_IN
from schemas.units import SECOND, Micros, Ordinal

GAPS = counter("cumulog_log_gap_total")
USAGE_ROWS = counter("cumulog_usage_rows_total")
for _meter in BUILT_IN:
    USAGE_ROWS.labels(_meter)
HEAD_S = 0.3
_BEGAN: Micros = time.time_ns() // 1000  # this process
COUNT_EVERY_S = 15.0
# What grows for ever, and what is no resource.
_NOT_COUNTED = frozenset(
    {"billing_settings", "credits_used", "operations", "payers", "policy", "quotas", "usage"}
)


async def lag(
    projection: str,
    position: Ordinal,
    at: Micros,
    head: Callable[[], Awaitable[StoredCommit | None]],
) -> list[Reading]:
    """Return how far a projection is behind the log; nothing if the log cannot be asked.

    ``position`` and ``at`` are of the newest commit that it holds; 0 if it holds none.
    """
    try:
        async with asyncio.timeout(HEAD_S):
            newest = await head()
    except (LogError, BusError, TimeoutError):
        return []
    events = 0 if newest is None else max(0, last_ordinal(decode_stored(newest.data)) - position)
    since = at or _BEGAN
    seconds = max(0.0, (time.time_ns() // 1000 - since) / SECOND) if events else 0.0
    return [
        ("cumulog_projection_lag_events", (projection,), events),
        ("cumulog_projection_lag_seconds", (projection,), seconds),
    ]


class Resources:
    """How many resources there are, counted in a thread and no more often than every so often."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._counted: list[Reading] = []
        self._due = 0.0
        self._counting = asyncio.Lock()

    async def readings(self) -> list[Reading]:
        """Return the newest count."""
        async with self._counting:
            if time.monotonic() >= self._due:
                try:
                    self._counted = await asyncio.to_thread(lambda: list(count(self._reader)))
                except Unavailable:  # there is no read model yet, or it is made anew
                    self._counted = []
                self._due = time.monotonic() + COUNT_EVERY_S
            return self._counted


def count(reader: Reader) -> Iterator[Reading]:
    """Yield the number of each kind of resource, by state where it has one.

    Raises:
        Unavailable: there is no read model.
    """
    db = reader.db()
    for table in TABLES:
        if table.name in _NOT_COUNTED:
            continue
        state = "status" if "status" in table.columns else "''"
        where = "WHERE deleted = 0" if "deleted" in table.columns else ""
        sql = f"SELECT {state}, count(*) FROM {table.name} {where} GROUP BY 1"  # noqa: S608  # our own names
        for value, number in db.execute(sql):
            yield "cumulog_resources", (table.name.removesuffix("s"), value), number
