"""Runs `cumulog` as processes of its own, as a person would."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api_coverage import ASKED_FOR, note
from tests.clock import Clock

CUMULOG = str(Path(sys.executable).with_name("cumulog"))
READY_S = 120.0


def clean_environment() -> dict[str, str]:
    """Return our environment without what would choose a cloud."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OS_", "CUMULOG_", "SUDO_"))}


class Up:
    """A running ``cumulog up`` and the commands given to its cloud."""

    def __init__(self, state_dir: Path, clock: Clock | None = None) -> None:
        """``clock`` is the one that its processes and commands read; None: the system's."""
        self.state_dir = state_dir
        self.environment = {} if clock is None else clock.environment
        self.ready_file = state_dir.with_suffix(".ready")
        self.process: subprocess.Popen[str] | None = None
        self.output = ""

    def start(self, *options: str) -> None:
        """Start it and wait until it says that it is ready."""
        self.process = subprocess.Popen(
            [
                *(CUMULOG, "up", "--state-dir", str(self.state_dir), "--listen", "127.0.0.1:0"),
                *("--ready-file", str(self.ready_file), "--driver", "simulated", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment() | self.environment,
        )
        self.read_until(r"^ready http")

    def read_until(self, pattern: str) -> None:
        """Read what it prints until a line matches; fail when it ends or takes too long."""
        assert self.process is not None
        stream = self.process.stdout
        assert stream is not None
        deadline = time.monotonic() + READY_S
        seen = ""
        while not re.search(pattern, seen, re.MULTILINE):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                pytest.fail(f"{pattern!r} was not printed:\n{self.output}")
            chunk = os.read(stream.fileno(), 65536).decode()
            if not chunk:
                pytest.fail(f"up ended with {self.process.wait(10)}:\n{self.output}")
            seen += chunk
            self.output += chunk

    def ready(self) -> dict:
        return json.loads(self.ready_file.read_text())

    def pids(self) -> dict[str, int]:
        return self.ready()["pids"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            if (record := os.environ.get(ASKED_FOR)) and self.ready_file.is_file():
                note(self.state_dir, self.ready()["urls"]["api"], Path(record))
            self.process.send_signal(number)
        self.output += self.process.communicate(timeout=60)[0]
        return self.process.returncode

    def run(self, *arguments: str, cloud: str = "cumulog", text: str = "") -> "Done":
        """Run a command against the cloud."""
        return run(
            *arguments,
            text=text,
            OS_CLIENT_CONFIG_FILE=str(self.state_dir / "clouds.yaml"),
            OS_CLOUD=cloud,
            **self.environment,
        )

    def json(self, *arguments: str, cloud: str = "cumulog") -> dict | list:
        """Run a command that must succeed, and return what it prints as JSON."""
        done = self.run(*arguments, "-o", "json", cloud=cloud)
        assert done.code == 0, done.errors
        return json.loads(done.output)


class Done:
    """How a command ended."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.code = done.returncode
        self.output = done.stdout
        self.errors = done.stderr


def run(*arguments: str, text: str = "", **environment: str) -> Done:
    """Run ``cumulog`` as a process of its own."""
    done = subprocess.run(
        [CUMULOG, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment() | environment,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done)


def eventually(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds; fail with ``what`` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
