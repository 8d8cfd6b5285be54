"""A project's meters as numbers of a moment: what is held, and what was used this month."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from projections.holdings import Holdings
from projections.metering import usage
from projections.rating import shown
from schemas.errors import InvalidInput
from schemas.metering import ADDITIVE, Dimensions
from schemas.units import SECOND, Micros, Ordinal

type Handler = Callable[[bytes], Awaitable[Struct]]
type Key = tuple[str, tuple[tuple[str, str], ...]]


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose numbers."""

    project: str


class Number(Struct, frozen=True, kw_only=True):
    """Of one meter and combination of dimensions, all resources together.

    ``held`` is what its values add up to now (None where nothing can be held), ``used`` what was
    used since the month began, in ``unit``.
    """

    meter: str
    unit: str
    dimensions: Dimensions
    held: int | None
    used: str


class NumbersAnswer(Struct, frozen=True, kw_only=True):
    """By meter and dimensions. ``since`` is when the month began (UTC)."""

    as_of: Ordinal
    since: Micros
    numbers: tuple[Number, ...]


_decode = msgspec.json.Decoder(Asked).decode


def project_numbers(holdings: Holdings, project_id: str, now: Micros) -> NumbersAnswer:
    """Return a project's numbers at a time."""
    month = datetime.fromtimestamp(now // SECOND, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    since = int(month.timestamp()) * SECOND
    with holdings.look() as there:
        found = there.intervals(since, now, project_id=project_id)
    definitions = there.definitions
    held: defaultdict[Key, int] = defaultdict(int)
    used: defaultdict[Key, int] = defaultdict(int)
    for each in found:
        if each.start <= now and each.aggregation == "integral":
            still = each.end is None or each.end > now
            held[each.meter, tuple(each.dimensions.items())] += each.value if still else 0
    for row in usage(found, since, now):
        if definitions[row.meter].aggregation in ADDITIVE:
            used[row.meter, tuple(row.dimensions.items())] += row.quantity
    return NumbersAnswer(
        as_of=there.as_of,
        since=since,
        numbers=tuple(
            Number(
                meter=key[0],
                unit=definitions[key[0]].unit,
                dimensions=dict(key[1]),
                held=held.get(key),
                used=shown(definitions[key[0]], used.get(key, 0)),
            )
            for key in sorted(held.keys() | used.keys())
        ),
    )


def questions(holdings: Holdings, now: Callable[[], Micros]) -> dict[str, Handler]:
    """Return what the archiver answers about it."""

    async def answer(payload: bytes) -> Struct:
        try:
            asked = _decode(payload)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"the question cannot be read: {error}") from error
        return await asyncio.to_thread(project_numbers, holdings, asked.project, now())

    return {"project_numbers": answer}
