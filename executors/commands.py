"""Run another program, with a deadline and nothing inherited by accident.

Blocks the calling thread, and so runs in whatever network namespace that thread is in.
"""

import os
import subprocess
from collections.abc import Sequence

from executors.errors import CommandFailed

_OUTPUT_KEPT = 600
# Some distributions leave these out of PATH for users.
SEARCH_PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin:/usr/local/sbin"
_ENVIRONMENT = {"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/", "TZ": "UTC"}


def run(
    arguments: Sequence[str],
    *,
    deadline_s: float,
    stdin: str | None = None,
    accept: frozenset[int] = frozenset({0}),
) -> str:
    """Run a program to its end and return its standard output.

    Raises:
        CommandFailed: it is not installed, ended with a status not in ``accept``, or was still
            running at the deadline (and was killed).
    """
    program = arguments[0]
    try:
        done = subprocess.run(
            arguments,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=deadline_s,
            env=_ENVIRONMENT,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandFailed(program, "is not installed", status=None) from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(program, f"gave no result in {deadline_s:g} s", status=None) from error
    if done.returncode not in accept:
        said = " ".join((done.stderr or done.stdout).split())[-_OUTPUT_KEPT:]
        why = said or f"ended with status {done.returncode}"
        raise CommandFailed(program, why, status=done.returncode, output=done.stdout)
    return done.stdout
