"""Progress that a person can follow: one live line on a terminal, plain lines elsewhere.

Written to standard error, so that standard output stays what was asked for.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
POLL_FIRST_S = 0.05
POLL_MOST_S = 0.5


class Waiting:
    """One thing waited for. On a terminal its line changes in place and is wiped at the end.

    Elsewhere each change is a line, or with ``plain`` false nothing at all.
    """

    def __init__(self, name: str, *, plain: bool = True) -> None:
        self.name = name
        self._plain = plain
        self.started = time.monotonic()
        self._live = sys.stderr.isatty()
        self._frame = 0
        self._said = ""

    def say(self, text: str) -> None:
        """Show the state it is in now; elsewhere than on a terminal only changes are printed."""
        elapsed = time.monotonic() - self.started
        if self._live:
            self._frame = (self._frame + 1) % len(FRAMES)
            self._write(f"\r\x1b[K{FRAMES[self._frame]} {self.name}: {text}  {elapsed:.0f} s")
        elif self._plain and text != self._said:
            self._write(f"{self.name}: {text}\n")
        self._said = text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Clear the live line."""
        if self._live:
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a terminal that was closed must not end what is under way
            sys.stderr.write(text)
            sys.stderr.flush()


def poll(seconds: float) -> Iterator[float]:
    """Yield the seconds left, at once and then after growing pauses, until none are left."""
    deadline = time.monotonic() + seconds
    pause = POLL_FIRST_S
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, POLL_MOST_S)
