"""What a guest said on its serial console: read from the end, and kept from growing for ever.

The hypervisor appends to the file and holds it open for appending, so cutting it to nothing is
safe: the next bytes simply begin at its start. What was cut is kept once, in ``console.log.1``.
"""

import os
from pathlib import Path

# One answer must fit into a message of the bus, even if every byte is escaped in JSON.
_ANSWER_BYTES = 1 << 20
_GROWN_BYTES = 4 << 20
_KEPT_BYTES = 1 << 20


def read_console(path: Path, lines: int | None) -> str:
    """Return the last ``lines`` lines of a console (None: all that one answer holds).

    Bytes that are no UTF-8 are replaced. A console that was cut short goes on in what was kept.

    Raises:
        OSError: there is no console.
    """
    if lines is not None and lines <= 0:
        return ""
    text = _end_of(path, _ANSWER_BYTES)
    kept = path.with_name(path.name + ".1")
    if len(text) < _ANSWER_BYTES and kept.exists():
        text = _end_of(kept, _ANSWER_BYTES - len(text)) + text
    decoded = text.decode("utf-8", "replace")
    if lines is None:
        return decoded
    return "".join(decoded.splitlines(keepends=True)[-lines:])


def trim_console(path: Path) -> None:
    """Keep the end of a console that has grown too long, and let it begin anew."""
    try:
        if path.stat().st_size <= _GROWN_BYTES:
            return
        kept = path.with_name(path.name + ".1")
        part = kept.with_suffix(".part")
        part.write_bytes(_end_of(path, _KEPT_BYTES))
        part.replace(kept)
        os.truncate(path, 0)
    except FileNotFoundError:
        return


def _end_of(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - count))
        return file.read(count)
