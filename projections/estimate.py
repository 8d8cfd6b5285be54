"""What a change would cost a month, before it is made.

Invariant: the rules are those of the bill. What would be held is found by the same meters, from the
facts that would be written and the outcome they are meant to have, and charged by the same rates.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext

from msgspec import Struct
from msgspec.structs import replace

from engine.domain.compute import evolve_server
from projections.bill import DIGITS_MAX
from projections.metering import Interval, Meters, usage
from projections.pricing import text
from projections.rating import rate, shown
from schemas import compute as c
from schemas import image as i
from schemas.billing import PriceList
from schemas.envelope import Fact
from schemas.metering import BUILT_IN
from schemas.operation import Operation, OperationStarted
from schemas.units import HOUR, Micros

MONTH_HOURS = 730


class EstimateLine(Struct, frozen=True, kw_only=True):
    """What a month of one meter of one resource costs; negative if it would no longer be held."""

    resource_kind: str
    resource_id: str
    meter: str
    quantity: str
    unit: str
    unit_price: str
    amount: str


class Estimate(Struct, frozen=True, kw_only=True):
    """The cost of a month of 730 hours: ``added``, what would be held besides what is held now.

    ``saved`` is what would be held no longer. Decimal strings, not rounded to the currency's unit.
    """

    currency: str
    price_list: str
    price_list_version: int
    hours: int
    added: str
    saved: str
    lines: tuple[EstimateLine, ...]


def estimate(
    facts: Sequence[Fact],
    server: c.Server | None,
    images: Iterable[i.Image],
    price_list: PriceList | None,
    at: Micros,
) -> Estimate | None:
    """Return what the facts would change about a month's cost; None if no price list is in force.

    Args:
        facts: those that would be written; what they begin is taken to succeed.
        server: the one that exists and that they are about, if any.
        images: those that exist and that they are about, or a new server is made from.
        price_list: the version in force.
        at: when.
    """
    if price_list is None:
        return None
    meters = Meters()
    for image in images:
        _now(meters, image, at)
    if server is not None:
        _run(meters, server, at)
    before = _open(meters)
    wanted = server
    for fact in facts:
        if server is not None and isinstance(fact, c.ComputeFact.__value__):
            wanted = evolve_server(wanted, fact, at)
        meters.apply(1, at, fact)
        if isinstance(fact, OperationStarted):
            for outcome in _outcome(fact.operation, wanted, at):
                meters.apply(1, at, outcome)
    after = _open(meters)
    with localcontext(prec=DIGITS_MAX):
        lines = [
            *_lines(_other(after, before), price_list, at, 1),
            *_lines(_other(before, after), price_list, at, -1),
        ]
        lines.sort(key=lambda line: (line.resource_kind, line.resource_id, line.meter))
        amounts = [Decimal(line.amount) for line in lines]
        return Estimate(
            currency=price_list.currency,
            price_list=price_list.name,
            price_list_version=price_list.version,
            hours=MONTH_HOURS,
            added=text(sum((a for a in amounts if a > 0), Decimal(0))),
            saved=text(-sum((a for a in amounts if a < 0), Decimal(0))),
            lines=tuple(lines),
        )


def _now(meters: Meters, image: i.Image, at: Micros) -> None:
    """Bring the meters to where an image that exists has them."""
    meters.apply(1, at, i.ImageCreated(image=image))
    if image.status == "active":
        size = image.virtual_size_bytes or 0
        meters.apply(1, at, i.ImageActivated(image_id=image.image_id, virtual_size_bytes=size))


def _run(meters: Meters, server: c.Server, at: Micros) -> None:
    """Bring the meters to where a server that exists has them."""
    server_id, boot = server.server_id, server.boot
    meters.apply(1, at, c.ServerCreated(server=server))
    if server.launched_at is not None and server.status != "ERROR":
        meters.apply(1, at, c.ServerStarted(server_id=server_id, boot=boot, observed_at=at))
        if server.power_state != 1:
            stopped = c.ServerStopped(
                server_id=server_id, boot=boot, cause="request", observed_at=at
            )
            meters.apply(1, at, stopped)


def _outcome(operation: Operation, server: c.Server | None, at: Micros) -> list[Fact]:
    """Return what is metered of an operation that succeeds."""
    ident = operation.resource_id
    match operation.kind:
        case "build" | "start" | "reboot":
            return [c.ServerStarted(server_id=ident, boot=1, observed_at=at)]
        case "stop":
            return [c.ServerStopped(server_id=ident, boot=1, cause="request", observed_at=at)]
        case "resize" | "revert":
            assert server is not None, "what is resized is there"
            assert server.resize is not None, "it is being resized"
            resize = server.resize
            back = operation.kind == "revert"
            return [
                c.ServerResized(
                    server_id=ident,
                    flavor=resize.old if back else resize.new,
                    disk_gib=resize.old_disk_gib if back else resize.new_disk_gib,
                    boot=1,
                    running=server.power_state == 1,
                    observed_at=at,
                )
            ]
        case "delete":
            return [c.ServerDeleted(server_id=ident, observed_at=at)]
        case _:
            return [i.ImageActivated(image_id=ident, virtual_size_bytes=0)]


type Held = dict[tuple[str, str], Interval]


def _open(meters: Meters) -> Held:
    return {(x.resource_id, x.meter): x for x in meters.intervals() if x.end is None}


def _other(these: Held, those: Held) -> list[Interval]:
    """Return what the ones have that the others have not, or not as much of."""
    return [x for key, x in these.items() if key not in those or those[key].value != x.value]


def _lines(
    held: Iterable[Interval], price_list: PriceList, at: Micros, sign: int
) -> list[EstimateLine]:
    end = at + MONTH_HOURS * HOUR
    month = usage([replace(x, start=at) for x in held], at, end)
    # The version that is in force now, for the whole month: a later one is another question.
    rated = rate(month, [replace(price_list, valid_from=0)])
    return [
        EstimateLine(
            resource_kind=charge.resource_kind,
            resource_id=charge.resource_id,
            meter=charge.meter,
            quantity=shown(BUILT_IN[charge.meter], int(charge.base_quantity)),
            unit=charge.unit,
            unit_price=charge.unit_price,
            amount=text(sign * Decimal(charge.amount)),
        )
        for charge in rated.charges
    ]
