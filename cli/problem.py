"""How a command ends badly: one clear line that says what, why and what to do next.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the cloud cannot be reached.
"""

import io
import sys
from collections.abc import Callable
from typing import Never

REFUSED = 1
USAGE = 2
UNREACHABLE = 3
LOG_UNAVAILABLE = 75  # of a process, to its supervisor; sysexits.h: EX_TEMPFAIL


class Problem(Exception):
    """Ends the command with one line on standard error and an exit code.

    ``hint`` says what to do next; ``request_id`` lets an operator find the request in the log.
    ``status`` is the HTTP status it came with, 0 for none.
    """

    def __init__(
        self,
        what: str,
        *,
        hint: str = "",
        request_id: str = "",
        status: int = 0,
        exit_code: int = REFUSED,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.request_id = request_id
        self.status = status
        self.exit_code = exit_code

    def line(self) -> str:
        """Return the whole line, without a line break in it."""
        text = " ".join(self.what.split())
        if self.hint:
            end = "" if text.endswith(("?", "!")) else "."
            text = f"{text.rstrip('.')}{end} {' '.join(self.hint.split())}"
        if self.request_id and self.request_id not in text:
            text = f"{text} ({self.request_id})"
        return text


def run_to_exit(program: Callable[[], int | None]) -> Never:
    """Run a program and exit with its code; a Problem becomes its line and its code.

    What a terminal cannot show (a tick on one that is not UTF-8) is replaced, never an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        sys.exit(program() or 0)
    except Problem as problem:
        print(f"cumulog: {problem.line()}", file=sys.stderr)
        sys.exit(problem.exit_code)
