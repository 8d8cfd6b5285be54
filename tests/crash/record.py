"""The clients' own record: what they asked, and what they were told.

Invariant: a line is on the disk before its writer goes on, so that what a client was told is known
whatever is killed next. See ``tests/crash/answers.py`` for the lines.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any


class Record:
    """A file that grows. For several threads."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self.asked = 0
        self.answered = 0

    def write(self, line: str, **values: Any) -> None:
        """Write a line and have it on the disk."""
        text = json.dumps({"line": line, **{k: v for k, v in values.items() if v is not None}})
        with self._lock:
            os.write(self._file, text.encode() + b"\n")
            self.asked += line == "asked"
            self.answered += line == "answered"
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
