"""What an uploaded image really is, read from its bytes by ourselves.

A tenant's image may name other files of the host (a backing file, a data file, a VMDK's extents),
and a program that opens the image may open those. So nothing of QEMU sees an image before this
module has: it reads at most the first 64 KiB, follows nothing, and trusts no number it finds.
Layouts: QEMU's docs/interop/qcow2.txt; the signatures are those of QEMU's own probes.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from executors.errors import ImageRefused

HEAD_BYTES = 64 * 1024

# (offset, signature, what people call it)
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"LUKS\xba\xbe", "luks"),
    (257, b"ustar", "a tar archive (perhaps an OVA)"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
)

_INCOMPATIBLE_DIRTY = 1 << 0
_INCOMPATIBLE_CORRUPT = 1 << 1
_INCOMPATIBLE_DATA_FILE = 1 << 2
_INCOMPATIBLE_COMPRESSION = 1 << 3
_INCOMPATIBLE_EXTENDED_L2 = 1 << 4
_INCOMPATIBLE_KNOWN = (
    _INCOMPATIBLE_DIRTY
    | _INCOMPATIBLE_CORRUPT
    | _INCOMPATIBLE_DATA_FILE
    | _INCOMPATIBLE_COMPRESSION
    | _INCOMPATIBLE_EXTENDED_L2
)
_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_ENCRYPTION = 0x0537BE77
_EXTENSIONS_MOST = 64


@dataclass(frozen=True)
class Qcow2Header:
    """The part of a qcow2 header that says what else would be opened, and how large it is."""

    version: int
    virtual_size_bytes: int


def recognize(head: bytes) -> str:
    """Return what a file's beginning looks like; ``raw`` if like nothing known."""
    for offset, signature, name in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return name
    return "raw"


def inspect(path: Path, declared: str) -> int | None:
    """Refuse an image that is not what it is declared, or that refers to anything outside.

    Returns the virtual size that a qcow2 header claims, None for raw.

    Raises:
        ImageRefused: with the reason, for the image's owner.
    """
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise ImageRefused("the image is empty")
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    found = recognize(head)
    if found != declared:
        raise ImageRefused(f"the image is declared as {declared}, but its content is {found}")
    if declared == "qcow2":
        return read_qcow2(head, size_bytes).virtual_size_bytes
    return None


def read_qcow2(head: bytes, size_bytes: int) -> Qcow2Header:
    """Read a qcow2 header.

    Raises:
        ImageRefused: it is damaged, encrypted, or refers to another file.
    """
    if len(head) < 72:
        raise ImageRefused("the image is truncated: it ends within its header")
    (version, backing_offset, backing_size, cluster_bits, virtual_size, crypt, l1_size) = (
        struct.unpack(">IQIIQII", head[4:40])
    )
    if version not in {2, 3}:
        raise ImageRefused(f"the image has qcow2 version {version}, which is not known")
    if not 9 <= cluster_bits <= 21:
        raise ImageRefused("the image is damaged: its header gives an impossible cluster size")
    if backing_offset or backing_size:
        raise ImageRefused("the image has a backing file; flatten it before uploading")
    if crypt:
        raise ImageRefused("the image is encrypted")
    l1_offset = int.from_bytes(head[40:48])
    if l1_offset + 8 * l1_size > size_bytes:
        raise ImageRefused("the image is truncated: its tables lie beyond its end")
    if version == 3:
        _read_features(head, size_bytes)
    return Qcow2Header(version=version, virtual_size_bytes=virtual_size)


def _read_features(head: bytes, size_bytes: int) -> None:
    if len(head) < 104:
        raise ImageRefused("the image is truncated: it ends within its header")
    incompatible = int.from_bytes(head[72:80])
    if incompatible & _INCOMPATIBLE_DATA_FILE:
        raise ImageRefused("the image keeps its data in another file")
    if incompatible & _INCOMPATIBLE_CORRUPT:
        raise ImageRefused("the image is marked as corrupt")
    if incompatible & ~_INCOMPATIBLE_KNOWN:
        raise ImageRefused("the image uses qcow2 features that are not known")
    header_length = int.from_bytes(head[100:104])
    if not 104 <= header_length <= min(len(head), size_bytes):
        raise ImageRefused("the image is damaged: its header gives an impossible length")
    _read_extensions(head, header_length)


def _read_extensions(head: bytes, at: int) -> None:
    for _ in range(_EXTENSIONS_MOST):
        if at + 8 > len(head):
            return
        kind, length = struct.unpack(">II", head[at : at + 8])
        if kind == _EXTENSION_END:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise ImageRefused("the image keeps its data in another file")
        if kind == _EXTENSION_BACKING_FORMAT:
            raise ImageRefused("the image has a backing file; flatten it before uploading")
        if kind == _EXTENSION_ENCRYPTION:
            raise ImageRefused("the image is encrypted")
        at += 8 + (length + 7) // 8 * 8
    raise ImageRefused("the image is damaged: its header has too many extensions")
