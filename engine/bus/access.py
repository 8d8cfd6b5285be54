"""Stream ``ACCESS``: edges append to it, nodes read it, the administrator alone can take from it.

It lies beside the log in the same account, so nobody can make the server delete it either, and has
the limits of ``schemas.access``: what is over them goes, the oldest first. Unlike the log it is not
truth: nothing is worked out of it but who asked what.
"""

import contextlib
from typing import Any

import msgspec

from engine.bus.client import STATUS, Bus, BusError
from engine.bus.stored import decode_ack
from engine.log.stream import call, ensure_stream
from schemas.access import BYTES_MAX, DAYS_MAX

ATTEMPT_S = 2.0
BATCH_MAX = 256
BATCH_BYTES_MAX = 4 * 2**20
# A message that is sent again within this is stored once.
DUPLICATE_NS = 120 * 1_000_000_000
DAY_NS = 86_400 * 1_000_000_000
NOTHING = frozenset({"404", "204"})  # (NATS ADR-31)
# An operator may choose other limits; they are kept.
_CHOSEN = frozenset({"max_bytes", "max_age"})


async def ensure_access_stream(bus: Bus, *, replicas: int = 1) -> None:
    """Create the stream unless it is there, and set right what was altered but for its limits.

    For ``admin``. Can be repeated.

    Raises:
        BusError: no server answers, or it refuses.
    """
    wanted = _config(bus, replicas)
    found = await ensure_stream(bus, wanted)
    altered = {
        name: value
        for name, value in wanted.items()
        if name not in _CHOSEN and found.get(name, type(value)()) != value
    }
    if altered:
        await call(bus, f"STREAM.UPDATE.{wanted['name']}", found | altered)


def _config(bus: Bus, replicas: int) -> dict[str, Any]:
    names = bus.subjects
    return {
        "name": names.access_stream,
        "subjects": [names.access("*")],
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_age": DAYS_MAX * DAY_NS,
        "max_bytes": BYTES_MAX,
        "num_replicas": replicas,
        "duplicate_window": DUPLICATE_NS,
        "compression": "s2",
        "allow_direct": True,
        "deny_delete": True,  # no holes; all before a moment may be purged
    }


async def append_access(bus: Bus, edge: str, message_id: str, data: bytes) -> int:
    """Store one message of an edge and return its sequence. The same id again is stored once.

    Raises:
        BusError: it may have been stored, or not; send it again.
    """
    subject = bus.subjects.access(edge)
    headers = {"Nats-Msg-Id": message_id}
    answer = await bus.ask(subject, data, timeout_s=ATTEMPT_S, headers=headers)
    ack = decode_ack(answer.payload)
    if ack.error is not None:
        raise BusError(f"access: {ack.error}")
    return ack.seq


async def read_access(bus: Bus, after_seq: int) -> list[tuple[int, bytes]]:
    """Return what follows a sequence, oldest first, bounded in number and bytes.

    What was dropped over the stream's limits is passed over.

    Raises:
        BusError: nobody answers.
    """
    names = bus.subjects
    question = {
        "seq": after_seq + 1,
        "next_by_subj": names.access("*"),
        "batch": BATCH_MAX,
        "max_bytes": BATCH_BYTES_MAX,
    }
    return await _direct(bus, question)


async def first_access(bus: Bus) -> int:
    """Return the sequence of the oldest message that is kept; 0 if there is none.

    Raises:
        BusError: nobody answers.
    """
    question = {"seq": 1, "next_by_subj": bus.subjects.access("*"), "batch": 1}
    found = await _direct(bus, question)
    return found[0][0] if found else 0


async def _direct(bus: Bus, question: dict[str, Any]) -> list[tuple[int, bytes]]:
    store = bus.store
    found: list[tuple[int, bytes]] = []
    answers = store.ask_many(
        f"$JS.API.DIRECT.GET.{bus.subjects.access_stream}",
        msgspec.json.encode(question),
        timeout_s=ATTEMPT_S,
    )
    async with contextlib.aclosing(answers):
        async for answer in answers:
            status = answer.headers.get(STATUS)
            if status in NOTHING:
                break
            if status is not None:
                raise BusError(f"access: {status} {answer.headers.get('Description', '')}")
            found.append((int(answer.headers["Nats-Sequence"]), answer.payload))
    return found
