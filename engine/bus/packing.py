"""Answers that grow with the cloud, made small enough for the bus.

A host's desired state and a bill have kilobytes for each server; what the bus carries in one
message is bounded. JSON of many like things packs to a twentieth. Invariant: what is not packed
begins as JSON does, so the two cannot be taken for each other.
"""

import asyncio
import zlib

PACKED_FROM = 1 * 2**20
# Against an answer that unpacks to more than there is memory.
UNPACKED_MAX = 512 * 2**20
MAGIC = b"\x1f\x8b"
_GZIP = 31  # zlib's window bits for its largest window in gzip's format


async def packed(payload: bytes) -> bytes:
    """Return a payload as it is sent: gzip if it is large."""
    if len(payload) < PACKED_FROM:
        return payload
    return await asyncio.to_thread(zlib.compress, payload, 1, _GZIP)


async def unpacked(payload: bytes) -> bytes:
    """Return a payload as it was given to ``packed``.

    Raises:
        ValueError: it is damaged, or larger than ``UNPACKED_MAX``.
    """
    if not payload.startswith(MAGIC):
        return payload
    return await asyncio.to_thread(_unpack, payload)


def _unpack(payload: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    try:
        data = unpacker.decompress(payload, UNPACKED_MAX)
    except zlib.error as error:
        raise ValueError(f"the answer is damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError(f"the answer is cut short, or larger than {UNPACKED_MAX} bytes")
    return data
