"""Other processes of this machine: whose they are, and how to end them.

A process is recognised by what its command line says, never by its number alone, and ended
through a descriptor of it: so that a number used again never costs a stranger's life. A dead
process that nobody has collected yet counts as gone.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A living process and its command line."""

    pid: int
    arguments: tuple[str, ...]


def read(pid: int) -> Process | None:
    """Return a process, None if there is none, or it is dead."""
    directory = Path("/proc") / str(pid)
    try:
        line = (directory / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    if not line:  # kernel threads, and the dead that nobody has collected
        return None
    return Process(pid, tuple(os.fsdecode(line).rstrip("\0").split("\0")))


def processes() -> Iterator[Process]:
    """Yield every living process of this machine but our own."""
    for name in os.listdir("/proc"):  # noqa: PTH208  # a thousand names, and most are numbers
        if name.isdecimal() and int(name) != os.getpid():
            found = read(int(name))
            if found is not None:
                yield found


def in_namespace(pid: int, namespace: Path) -> bool:
    """Return whether a process is in a named network namespace."""
    try:
        own = Path(f"/proc/{pid}/ns/net").stat()
        other = namespace.stat()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)


def end(
    pid: int, is_it: Callable[[Process], bool], *, grace_s: float, kill_s: float = 10.0
) -> bool:
    """End a process: SIGTERM, and after its grace SIGKILL; wait until it is gone.

    ``is_it`` is asked once the process cannot be mixed up any more. Returns False if it was not
    there, or was another one, or is still there ``kill_s`` after SIGKILL.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return False
    try:
        found = read(pid)
        if found is None or not is_it(found):
            return False
        if grace_s > 0:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            if _gone(descriptor, grace_s):
                return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return _gone(descriptor, kill_s)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def _gone(descriptor: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return True
    return False


def pid_in(path: Path) -> int | None:
    """Return the number in a pid file, None if there is no file or no number."""
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def machine_boot() -> str:
    """Return what changes each time this machine starts."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
