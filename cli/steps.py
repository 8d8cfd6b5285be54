"""The steps of starting a cloud, as a person follows them.

On a terminal the step under way has a live line; elsewhere each step is one line when it is done,
so that a log of it reads well.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cli.progress import Waiting


class Step:
    """What a step tells of itself: its state while it runs, its result at the end."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self.result = ""

    def say(self, text: str) -> None:
        """Show what it is doing now."""
        self._waiting.say(text)


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Show a step while it runs and how long it took; one that fails is marked, and raises."""
    started = time.monotonic()
    mark = "✗"
    with Waiting(name, plain=False) as waiting:
        current = Step(waiting)
        current.say("…")
        try:
            yield current
            mark = "✓"
        finally:
            waiting.wipe()
            detail = f": {current.result}" if current.result else ""
            line(f"{mark} {name}{detail} ({time.monotonic() - started:.1f} s)")


def line(text: str) -> None:
    """Print a line about what is going on, if somebody still listens."""
    with suppress(OSError):  # a terminal that was closed must not end the cloud
        print(text, flush=True)
