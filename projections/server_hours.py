"""How long servers existed in a time, exactly: what compute's own usage API is made of."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Struct

from projections.answers import Position
from projections.holdings import Holdings
from projections.metering import usage
from schemas.errors import InvalidInput
from schemas.units import Micros, Ordinal

METER = "compute.instance"
PAGE_MAX = 1000

type Handler = Callable[[bytes], Awaitable[Struct]]


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which servers: of one project or all, those with ids after ``marker``, so many at most.

    ``as_of`` is where the log ended then; None means where it ends now.
    """

    start: Micros
    end: Micros
    project: str | None = None
    marker: str = ""
    limit: int = PAGE_MAX
    as_of: Position | None = None


class ServerHours(Struct, frozen=True, kw_only=True):
    """For how many microseconds a server existed."""

    server_id: str
    project_id: str
    held_us: int


class ServerHoursAnswer(Struct, frozen=True, kw_only=True):
    """Servers by id. ``as_of`` is the last ordinal that was looked at."""

    as_of: Ordinal
    servers: tuple[ServerHours, ...]


_decode = msgspec.json.Decoder(Asked).decode


def server_hours(holdings: Holdings, asked: Asked) -> ServerHoursAnswer:
    """Return how long each server existed between two times."""
    held: dict[tuple[str, str], int] = {}
    with holdings.look() as now:
        there = now if asked.as_of is None else now.then(asked.as_of.ordinal)
        found = there.intervals(asked.start, asked.end, project_id=asked.project, meter=METER)
    for row in usage(found, asked.start, asked.end):
        key = row.resource_id, row.project_id
        held[key] = held.get(key, 0) + row.quantity
    after = sorted(key for key in held if key[0] > asked.marker)
    return ServerHoursAnswer(
        as_of=there.as_of,
        servers=tuple(
            ServerHours(server_id=key[0], project_id=key[1], held_us=held[key])
            for key in after[: max(0, min(asked.limit, PAGE_MAX))]
        ),
    )


def questions(holdings: Holdings) -> dict[str, Handler]:
    """Return what the archiver answers about it."""

    async def answer(payload: bytes) -> Struct:
        try:
            asked = _decode(payload)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"the question cannot be read: {error}") from error
        return await asyncio.to_thread(server_hours, holdings, asked)

    return {"server_hours": answer}
