"""The bytes of images: taken in with bounded memory, checked by a host, given out again.

Invariant: bytes that were refused, or that no image speaks of, do not stay in the blob store. What
a client says about content is never believed: a host checks it before the image is active.
"""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from time import monotonic

from api.dry_run import Tried
from api.errors import BodyTooLarge, Denied, UnsupportedMediaType
from api.exchange import Answer, Call, Header
from api.image.records import find, find_own
from api.routing import Routes
from api.writing import reply_of, write
from executors.storage.blob import Blobs, BlobTooLarge
from projections.answers import OperationState
from schemas.envelope import Refused
from schemas.errors import ContentQuotaExceeded, IncorrectImageState, KeyReused, NotFound
from schemas.image import Image, UploadImage
from schemas.quota import UNLIMITED

CHECKED_S = 120.0
CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?\Z")


async def upload(call: Call) -> Answer:
    """PUT /images/{id}/file: answered once a host has found the content good, or not."""
    kind = call.header(b"content-type").partition(";")[0].strip().lower()
    if kind != "application/octet-stream":
        raise UnsupportedMediaType("an image's content is sent as application/octet-stream")
    image = find_own(call)
    if call.earlier is not None:
        await _same(call, image)
        return await _checked(call, reply_of(call.earlier)["operation_id"], None)
    if image.status != "queued":
        raise IncorrectImageState(f"the image is {image.status}, content is taken while queued")
    edge = call.edge
    largest = edge.config.image_bytes_max
    used, allowed = _quota(call, image)
    limit = largest if allowed == UNLIMITED else min(largest, max(0, allowed - used))
    try:
        written = await edge.blobs.write(_large(call.chunks(limit)), limit_bytes=limit)
    except (BodyTooLarge, BlobTooLarge) as error:
        if limit == largest:
            raise BodyTooLarge(f"an image may have at most {limit} bytes", limit=limit) from error
        raise ContentQuotaExceeded(
            f"quota exceeded: the content has more bytes than are left, {used} of {allowed} "
            "image_bytes are used",
            resource="image_bytes",
            used=used,
            asked=limit + 1,  # at least: the rest was not read
            limit=allowed,
        ) from error
    try:
        reply = await write(
            call,
            UploadImage(
                image_id=image.image_id,
                blob_id=written.blob_id,
                size_bytes=written.size_bytes,
                md5=written.md5,
                sha512=written.sha512,
            ),
        )
    except (Denied, Tried):
        await edge.blobs.delete(written.blob_id)
        raise
    return await _checked(call, reply["operation_id"], written.blob_id)


async def _same(call: Call, image: Image) -> None:
    """Read content that is sent again, and compare it with what the image was given.

    Raises:
        KeyReused: it is other content, under the key of the first.
    """
    hasher = hashlib.sha512()
    async for chunk in call.chunks(call.edge.config.image_bytes_max):
        hasher.update(chunk)
    if image.sha512 not in {None, hasher.hexdigest()}:
        raise KeyReused(f"the key {call.key!r} was used for other content")


async def _checked(call: Call, operation_id: str, blob_id: str | None) -> Answer:
    """Answer once a host has looked at the content; what it refuses does not stay."""
    state = await _ended(call, operation_id)
    if state is None:
        return Answer(202)  # Accepted, and still being checked; the image's status will tell.
    if state.status == "succeeded":
        return Answer(204)
    if blob_id is not None:
        await call.edge.blobs.delete(blob_id)
    raise Denied(
        Refused(
            code="ContentRefused",
            status=400 if state.status == "failed" else 409,
            reason=f"the content was refused: {state.cause or state.status}",
            hint="The image waits for other content (queued), or can be deleted.",
        )
    )


def _quota(call: Call, image: Image) -> tuple[int, int]:
    """Return the bytes that the image's project holds, and may hold, as far as is known here.

    What it has no room for need not be taken in; what it has is the engine's to decide.
    """
    reader = call.edge.reader
    with reader.snapshot():
        used = reader.quota_use(image.project_id)["image_bytes"]
        return used, reader.quota_limits(image.project_id)["image_bytes"]


async def _large(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join small chunks, since each costs a way into a thread and back."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _ended(call: Call, operation_id: str) -> OperationState | None:
    """Return the operation once it has ended; None if it takes too long."""
    edge = call.edge
    deadline = monotonic() + CHECKED_S
    position = call.position
    while True:
        state = edge.reader.operation(operation_id)
        if state is not None and state.status != "running":
            call.position = max(call.position, position)
            return state
        left = deadline - monotonic()
        if left <= 0:
            return None
        position = await edge.waiter.changed(position, left)


async def download(call: Call) -> Answer:
    """GET /images/{id}/file, or a range of it."""
    image = find(call)
    if image.status != "active" or image.blob_id is None or image.size_bytes is None:
        return Answer(204)
    blobs = call.edge.blobs
    if not blobs.path(image.blob_id).is_file():
        raise NotFound("the image's content is not on this node")
    start, end = _span(call.header(b"range"), image)
    headers: list[Header] = [(b"accept-ranges", b"bytes")]
    whole = (start, end) == (0, image.size_bytes)
    headers.append((b"content-length", b"%d" % (end - start)))
    if whole:
        headers.append((b"content-md5", (image.md5 or "").encode()))  # hex, as Glance sends it
    else:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, image.size_bytes)))
    return Answer(
        200 if whole else 206,
        content_type=b"application/octet-stream",
        headers=headers,
        stream=_read(blobs, image.blob_id, start, end),
    )


async def _read(blobs: Blobs, blob_id: str, start: int, end: int) -> AsyncGenerator[bytes]:
    async with blobs.open(blob_id) as blob:
        async for chunk in blob.read(start, end):
            yield chunk


def _span(text: str, image: Image) -> tuple[int, int]:
    """Return the half-open range asked for; a header that cannot be read asks for all."""
    size = image.size_bytes or 0
    match = _RANGE.match(text) if text else None
    if match is None or not any(match.groups()):
        return 0, size
    first, last = match.groups()
    if first is None:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if last is None else min(int(last) + 1, size)
    if start >= end:
        raise Denied(
            Refused(
                code="RangeNotSatisfiable",
                status=416,
                reason=f"the content has {size} bytes",
            )
        )
    return start, end


def add(routes: Routes) -> None:
    """Route what this module answers."""
    binary = "application/octet-stream"
    routes.add(
        "PUT",
        "/v2/images/{}/file",
        upload,
        "UploadImage",
        takes=(binary,),
        status=(204, 202),
        bare=(202,),
    )
    routes.add(
        "GET", "/v2/images/{}/file", download, "image:content:read", gives=binary,
        status=(200, 204, 206), present=True,
    )  # fmt: skip
