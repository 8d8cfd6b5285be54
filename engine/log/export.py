"""The log as one file: its commits byte for byte, one a line, and signed checkpoints among them.

A line that begins with ``{"at":`` is a commit, as it lies in the log; the first is sequence 1, and
none is left out. A line that begins with ``{"signature":`` is a checkpoint (see ``checkpoint``) of
the commit before it. The last line is a checkpoint, so that a file that was cut is known for one.
With a name that ends in ``.gz`` the file is compressed. What is published was checked on its way.
"""

import gzip
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO

from msgspec import Struct

from engine.log.checkpoint import LINE_START, Checkpoint, CheckpointBroken, Loss, read_statement
from engine.log.commit import ChainBroken
from engine.log.signing import PublicKeys
from engine.log.verify import Walk
from schemas.units import Micros, Ordinal

# A commit is at most what the broker carries (8 MiB); a longer line was joined by a damage.
LINE_BYTES_MAX = 16 * 2**20


class ExportReport(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an export holds. ``signed`` says whether the signatures were checked with keys."""

    commits: int
    ordinals: Ordinal
    last_hash: str
    last_at: Micros
    checkpoints: int
    signed: bool
    losses: tuple[tuple[Ordinal, Ordinal], ...] = ()


def export_lines(
    commits: Iterable[tuple[int, bytes]], statements: Iterable[tuple[int, bytes]]
) -> Iterator[bytes]:
    """Yield the lines of an export, up to the last statement.

    ``statements`` are (sequence of the commit that it is about, line), in order.
    """
    messages = iter(commits)
    at = 0
    for sequence, line in statements:
        while at < sequence:
            following = next(messages, None)
            if following is None:
                return
            at, data = following
            yield data
        yield line


def check_lines(
    lines: Iterable[bytes], keys: PublicKeys | None, known: Iterable[Checkpoint] = ()
) -> ExportReport:
    """Check an export line by line.

    ``keys`` None leaves signatures unchecked. ``known`` are checkpoints that were kept elsewhere,
    in order, which the export must contain.

    Raises:
        ChainBroken: names the first ordinal that does not hold.
    """
    report = None
    for report in walk_lines(lines, keys, known):  # noqa: B007  # the last one is it
        pass
    assert not isinstance(report, bytes)
    assert report is not None
    return report


def walk_lines(
    lines: Iterable[bytes], keys: PublicKeys | None, known: Iterable[Checkpoint] = ()
) -> Generator[bytes | ExportReport]:
    """Yield each line once it is checked, and the report at the end; see ``check_lines``."""
    due = tuple(known)
    walk = Walk(checkpoints=due)
    checkpoints = 0
    losses: list[tuple[int, int]] = []
    last_is_signed = False
    try:
        for line in lines:
            last_is_signed = line.startswith(LINE_START)
            if not last_is_signed:
                walk.add(walk.commits + 1, line)
            else:
                try:
                    statement = read_statement(line, keys)
                except CheckpointBroken as error:
                    raise ChainBroken(walk.vouched + 1, str(error)) from error
                walk.vouch(statement)
                checkpoints += 1
                if isinstance(statement, Loss):
                    losses.append((statement.ordinal + 1, statement.lost))
            yield line
    except (EOFError, OSError, zlib.error) as error:
        raise ChainBroken(walk.ordinal + 1, f"cannot be read: {error}") from error
    last = due[-1].ordinal if due else 0
    if last > walk.ordinal:
        raise ChainBroken(walk.ordinal + 1, f"cut off: a checkpoint signs ordinal {last}")
    if not last_is_signed:
        raise ChainBroken(walk.ordinal + 1, "cut off: no checkpoint signs the export's end")
    yield ExportReport(
        commits=walk.commits,
        ordinals=walk.ordinal,
        last_hash=walk.hash,
        last_at=walk.at,
        checkpoints=checkpoints,
        signed=keys is not None,
        losses=tuple(losses),
    )


def write_export(path: Path, lines: Iterable[bytes], keys: PublicKeys | None) -> ExportReport:
    """Write an export, checked, under another name first; what was at ``path`` is replaced.

    Raises:
        ChainBroken: what came is not the whole log; nothing was published.
        OSError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    report: ExportReport | None = None
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file, _packed(file, path) as packed:
            for checked in walk_lines(lines, keys):
                if isinstance(checked, ExportReport):
                    report = checked
                else:
                    packed.write(checked + b"\n")
            if packed is not file:
                packed.close()
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    assert report is not None, "it ends with one, or raises"
    return report


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines without their ends; never more than one of them in memory.

    Raises:
        EOFError: the last line has no end.
        OSError: it cannot be read, or is not compressed as its name says.
    """
    with path.open("rb") as raw, _unpacked(raw, path) as file:
        while line := file.readline(LINE_BYTES_MAX):
            if not line.endswith(b"\n"):
                raise EOFError("a line has no end")
            yield line[:-1]


def _packed(file: IO[bytes], path: Path) -> IO[bytes] | gzip.GzipFile:
    # Without name and time in it, so that the same log gives the same file.
    return gzip.GzipFile("", "wb", 6, file, mtime=0) if path.suffix == ".gz" else file


def _unpacked(file: IO[bytes], path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.GzipFile(fileobj=file, mode="rb") if path.suffix == ".gz" else file
