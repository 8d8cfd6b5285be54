"""A clock that tests set: a cloud's processes, and commands given to it, read the time it shows.

Months pass in seconds, with nothing of the product replaced: libfaketime stands between the
processes and the system's wall clock. Time that is only measured (monotonic) goes on as it does.

What libfaketime shares between processes is made here. By itself each first process makes it, names
it after its own id and takes it away at its end: a child whose id is that of a killed one, or whose
parent has ended, finds none and ends.
"""

import struct
import sys
import time
from _multiprocessing import SemLock, sem_unlink
from datetime import datetime
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

# Of libfaketime's `ft_shared_s`: two counters, then four times (seconds, ns); -1 says not set.
NOTHING = struct.pack("QQ" + "qq" * 4, 0, 0, *(0, -1) * 4)
ANY_NUMBER = 2**20  # of processes at once: nobody waits for one that was killed
LIBRARY = "libfaketime/vendor/libfaketime/src/libfaketime.so.1"


class Clock:
    """A wall clock that goes on from wherever it is set to."""

    def __init__(self, directory: Path, at: datetime) -> None:
        self._file = directory / "clock"
        self._shared = SharedMemory(create=True, size=len(NOTHING))
        self._shared.buf[: len(NOTHING)] = NOTHING
        self._lock = SemLock(1, ANY_NUMBER, ANY_NUMBER, f"/{self._shared.name}", False)
        self.set_to(at)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is given that shall read this clock."""
        library = next(path for path in map(Path, sys.path) if (path / LIBRARY).exists()) / LIBRARY
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_SHARED": f"/{self._shared.name} /{self._shared.name}",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_to(self, at: datetime) -> None:
        """Let it be this time (with its zone) now, for whoever looks."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{at.timestamp() - time.time():+.6f}\n")
        beside.replace(self._file)

    def close(self) -> None:
        """Give back what processes shared."""
        sem_unlink(f"/{self._shared.name}")
        self._shared.close()
        self._shared.unlink()
