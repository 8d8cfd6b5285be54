"""Blobs that no image speaks of any more: what a killed edge left behind.

Invariant: a blob is removed only if the read model has long known it, or long known of none, so
that nothing under way is touched.
"""

import time
from pathlib import Path

from executors.storage.blob import Blobs
from projections.reader import Reader

AGE_S = 3600.0


async def sweep(blobs: Blobs, reader: Reader, *, older_than_s: float = AGE_S) -> int:
    """Remove unfinished writes and unreferenced blobs of that age; return how many."""
    removed = await blobs.sweep(older_than_s=older_than_s)
    candidates = [i for i in await blobs.ids() if _age_s(blobs.path(i)) > older_than_s]
    if not candidates:
        return removed
    held = {image.blob_id for image in reader.images()}
    for blob_id in candidates:
        if blob_id not in held and await blobs.delete(blob_id):
            removed += 1
    return removed


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
