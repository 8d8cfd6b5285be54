"""Going on in the next stream, and dropping one that is archived. For the administrator alone.

The engine decides that the log goes on (``LogRolled``, its stream's last commit) but may make no
stream: one could be configured to publish anywhere. Both steps look at what there is and do what is
left to do, so each can be cut short anywhere and done again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engine.bus.client import Bus
from engine.log.checkpoint import Checkpoint
from engine.log.commit import check_commit, open_commit
from engine.log.stream import (
    NOT_FOUND,
    StreamApiError,
    call,
    compare,
    ensure_stream,
    log_config,
    log_numbers,
    patiently,
    stream_info,
)
from engine.log.streams import rolls_to
from engine.log.verify import VerifyReport, Walk
from schemas.subjects import LOG_STREAMS_MAX
from schemas.units import Ordinal

# Messages after a sequence.
type Read = Callable[[int], Iterable[tuple[int, bytes]]]

NO_MESSAGE = 10037


class Undroppable(Exception):
    """A stream must stay; the message says why, and what would have to be done before."""


class _Message(Struct, frozen=True):
    seq: int
    data: bytes = b""


class Droppable(Struct, frozen=True, kw_only=True):
    """A stream that was found whole in the archive: what it holds, and what signs it."""

    number: int
    first: int
    last: int
    ordinal: Ordinal
    signed: Ordinal
    bytes: int


async def open_next(bus: Bus, *, replicas: int = 1) -> tuple[int, bool]:
    """Make the next stream if the newest is closed. Return the newest's number, and if it was made.

    Raises:
        LogConfigDiffers: it is there and not as it must be.
        BusError: nobody answers.
    """
    names = bus.subjects
    numbers = await log_numbers(bus)
    newest = numbers[-1]
    last = await _last(bus, newest)
    number = rolls_to(last.data) if last is not None else 0
    if last is None or number != newest + 1:
        return newest, False
    wanted = log_config(
        names.log_stream_of(number), names.log_subject(number), replicas, last.seq + 1
    )
    compare(wanted, await ensure_stream(bus, wanted))
    return number, True


async def next_number(bus: Bus) -> int:
    """Return the number to go on with.

    Raises:
        Undroppable: there is none left.
        BusError: nobody answers.
    """
    number = (await log_numbers(bus))[-1] + 1
    if number > LOG_STREAMS_MAX:
        raise Undroppable(f"the broker's permissions provide for {LOG_STREAMS_MAX} streams")
    return number


async def _last(bus: Bus, number: int) -> _Message | None:
    """Return a stream's last message, as its leader has it."""
    names = bus.subjects
    request = {"last_by_subj": names.log_subject(number)}
    try:
        found = await patiently(
            lambda: call(bus, f"STREAM.MSG.GET.{names.log_stream_of(number)}", request)
        )
    except StreamApiError as error:
        if error.code != NO_MESSAGE:
            raise
        return None
    return msgspec.convert(found["message"], _Message, strict=False)


async def candidate(bus: Bus, number: int) -> dict[str, Any] | None:
    """Return what the broker says of a stream that may be dropped; None if it was dropped.

    Raises:
        Undroppable: it is not the oldest, or not closed, or the next one holds nothing yet.
        BusError: nobody answers.
    """
    numbers = await log_numbers(bus)
    if number < numbers[0]:
        return None
    if number not in numbers:
        raise Undroppable(f"there is no stream {number}; there are {_listed(numbers)}")
    if number != numbers[0]:
        raise Undroppable(f"stream {numbers[0]} is older: drop that one first")
    if len(numbers) == 1:
        raise Undroppable(f"stream {number} takes commits: `cumulog admin log-roll` closes it")
    following = await stream_info(bus, numbers[1])
    if not following["state"]["messages"]:
        raise Undroppable(f"stream {numbers[1]} holds nothing yet: a commit has to go on from here")
    info = await stream_info(bus, number)
    last = await _last(bus, number)
    closed = last is not None and rolls_to(last.data) == numbers[1]
    if not closed or following["state"]["first_seq"] != info["state"]["last_seq"] + 1:
        raise Undroppable(f"stream {numbers[1]} does not go on where stream {number} ends")
    return info


def require_archived(
    number: int,
    info: dict[str, Any],
    stream: Iterable[tuple[int, bytes]],
    archived: Read,
    following: Read,
    checkpoints: Sequence[Checkpoint],
) -> Droppable:
    """Compare a stream with the archive, byte for byte and by the chain. Blocking.

    Args:
        number: the stream.
        info: what the broker says of it.
        stream: all its messages.
        archived: yields what the archive holds after a sequence.
        following: yields what the log holds after a sequence, beyond the stream.
        checkpoints: what was signed, in the order of ordinals.

    Raises:
        Undroppable: the archive does not hold it all, or nothing signed covers its end.
        ChainBroken: one of the two is not what was written.
    """
    first, last = int(info["state"]["first_seq"]), int(info["state"]["last_seq"])
    start = _start(archived, first)
    known = start.ordinals if start else 0
    walk = Walk(start, [said for said in checkpoints if said.ordinal > known])
    copies = iter(archived(first - 1))
    size = 0
    for seq, data in stream:
        copy = next(copies, None)
        if copy is None:
            raise Undroppable(
                f"sealed history ends at ordinal {walk.ordinal}, within stream {number}; "
                "the archiver has to seal the rest"
            )
        if copy != (seq, data):
            raise Undroppable(f"sealed history and stream {number} differ at commit {seq}")
        walk.add(seq, data)
        size += len(data)
    if walk.commits != last:
        raise Undroppable(f"stream {number} was read to commit {walk.commits}, it ends at {last}")
    ordinal = walk.ordinal
    signed = [said.ordinal for said in checkpoints if said.ordinal >= ordinal]
    if not signed:
        raise Undroppable(
            f"no checkpoint covers ordinal {ordinal}, with which stream {number} ends; "
            "`cumulog audit checkpoint` signs one"
        )
    # What is signed may lie beyond the stream: the chain shows that it vouches for it, too.
    for seq, data in following(last):
        if walk.vouched >= ordinal:
            break
        walk.add(seq, data)
    if walk.vouched < ordinal:
        raise Undroppable(f"the log does not reach the checkpoint of ordinal {min(signed)}")
    return Droppable(
        number=number, first=first, last=last, ordinal=ordinal, signed=walk.vouched, bytes=size
    )


def _start(archived: Read, first: int) -> VerifyReport | None:
    """Return how far the archive has come before a stream; None before the log's first."""
    if first <= 1:
        return None
    seq, data = next(iter(archived(first - 2)), (0, b""))
    if seq != first - 1:
        raise Undroppable(f"sealed history does not hold commit {first - 1}")
    sealed = open_commit(data)
    head = check_commit(data, sealed.prev, sealed.first)
    return VerifyReport(
        commits=seq,
        ordinals=head.next_first - 1,
        last_hash=head.hash,
        last_at=head.at,
        epoch=head.epoch,
    )


async def drop(bus: Bus, number: int) -> None:
    """Delete a stream from the broker, for ever. Only after ``require_archived``.

    Raises:
        BusError: it was not done, or its outcome is not known; it can be repeated.
    """
    try:
        await call(bus, f"STREAM.DELETE.{bus.subjects.log_stream_of(number)}")
    except StreamApiError as error:
        if error.code != NOT_FOUND:
            raise


def _listed(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}"
