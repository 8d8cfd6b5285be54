"""A clock that tests set: a cloud's processes, and commands given to it, read the time it shows.

Months pass in seconds, with nothing of the product replaced: libfaketime stands between the
processes and the system's wall clock. Time that is only measured (monotonic) goes on as it does.
"""

import sys
import time
from datetime import datetime
from pathlib import Path

LIBRARY = "libfaketime/vendor/libfaketime/src/libfaketime.so.1"


class Clock:
    """A wall clock that goes on from wherever it is set to."""

    def __init__(self, directory: Path, at: datetime) -> None:
        self._file = directory / "clock"
        self.set_to(at)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is given that shall read this clock."""
        library = next(path for path in map(Path, sys.path) if (path / LIBRARY).exists()) / LIBRARY
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_to(self, at: datetime) -> None:
        """Let it be this time (with its zone) now, for whoever looks."""
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{at.timestamp() - time.time():+.6f}\n")
        beside.replace(self._file)
