"""Whether an image is whole and is what it says: our own look first, then QEMU's, on a short leash.

QEMU's tools always get the declared format and never probe, and run with little time and memory,
since what they parse was made by a stranger.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from executors.commands import run
from executors.errors import CommandFailed, ImageRefused, StorageError
from executors.storage.content import inspect

_INFO_S = 30.0
_CHECK_S = 300.0
# Address space, not use: what qemu-img maps at its start alone is several hundred MB.
_MEMORY_BYTES = 2 << 30
_CHECK_OK = 0
_CHECK_CORRUPT = 2
_CHECK_LEAKS = 3  # room lost, nothing wrong with what the guest reads


class _Info(Struct, kw_only=True, rename="kebab"):
    format: str
    virtual_size: int
    cluster_size: int = 0
    encrypted: bool = False
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    format_specific: dict[str, object] | None = None


class _Check(Struct, kw_only=True, rename="kebab"):
    check_errors: int = 0
    corruptions: int = 0
    image_end_offset: int = 0


_decode_info = msgspec.json.Decoder(_Info).decode
_decode_check = msgspec.json.Decoder(_Check).decode


def check_content(path: Path, declared: str, *, virtual_size_max_bytes: int) -> int:
    """Return an image's virtual size in bytes. Blocks; opens nothing but the file.

    Raises:
        ImageRefused: it is not what it is declared, damaged, too large, or refers to other files.
        StorageError: it could not be checked.
    """
    inspect(path, declared)
    info = _info(path, declared)
    if info.format != declared:
        raise ImageRefused(f"the image is declared as {declared}, but its content is {info.format}")
    if info.encrypted:
        raise ImageRefused("the image is encrypted")
    if info.backing_filename or info.full_backing_filename:
        raise ImageRefused("the image has a backing file; flatten it before uploading")
    specific = info.format_specific or {}
    data = specific.get("data")
    if isinstance(data, dict) and data.get("data-file"):
        raise ImageRefused("the image keeps its data in another file")
    if info.virtual_size <= 0:
        raise ImageRefused("the image is a disk of no size")
    if info.virtual_size > virtual_size_max_bytes:
        over_gib = -(-(info.virtual_size - virtual_size_max_bytes) // (1 << 30))
        raise ImageRefused(f"the image's disk is {over_gib} GiB larger than allowed")
    if declared == "qcow2":
        _check_clusters(path, info.cluster_size)
    return info.virtual_size


def _info(path: Path, declared: str) -> _Info:
    try:
        said = run(
            [
                *_leash(_INFO_S),
                *("qemu-img", "info", "--force-share", "-f", declared, "--output=json", str(path)),
            ],
            deadline_s=_INFO_S,
        )
        return _decode_info(said)
    except CommandFailed as error:
        if error.status is None:
            raise StorageError("the image could not be examined in time") from error
        raise ImageRefused(f"the image cannot be read as {declared}: {_short(error)}") from error
    except msgspec.MsgspecError as error:
        raise StorageError("qemu-img said something that cannot be read") from error


def _check_clusters(path: Path, cluster_bytes: int) -> None:
    """See that everything a qcow2 points to is in the file.

    Its last cluster may be there in part only: QEMU writes files like that itself.
    """
    accept = frozenset({_CHECK_OK, _CHECK_CORRUPT, _CHECK_LEAKS})
    try:
        said = run(
            [
                *_leash(_CHECK_S),
                *("qemu-img", "check", "--force-share", "-f", "qcow2", "--output=json", str(path)),
            ],
            deadline_s=_CHECK_S,
            accept=accept,
        )
        found = _decode_check(said)
    except CommandFailed as error:
        if error.status is None:
            raise StorageError("the image could not be checked in time") from error
        raise ImageRefused(f"the image is damaged: {_short(error)}") from error
    except msgspec.MsgspecError as error:
        raise StorageError("qemu-img said something that cannot be read") from error
    if found.image_end_offset - path.stat().st_size >= cluster_bytes:
        raise ImageRefused("the image is truncated: its data lie beyond its end")
    if found.corruptions or found.check_errors:
        count = found.corruptions + found.check_errors
        raise ImageRefused(f"the image is damaged or truncated ({count} errors in its tables)")


def _leash(cpu_s: float) -> tuple[str, ...]:
    return ("prlimit", f"--as={_MEMORY_BYTES}", f"--cpu={cpu_s:.0f}", "--core=0", "--")


def _short(error: CommandFailed) -> str:
    """Drop the host's paths from what qemu-img said."""
    return str(error).rpartition(": ")[2][:200]
