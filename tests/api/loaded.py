"""The ``openstack`` command, loaded once: each command it runs is a fork of what is loaded.

Loading the command and its plugins takes longer than what most commands do.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.cli.running import clean_environment

LOADED = """
import json, os, sys
from importlib.metadata import entry_points
from openstackclient import shell
for group in entry_points().groups:
    if group.startswith("openstack."):
        for plugin in entry_points(group=group):
            plugin.load()
for line in sys.stdin:
    told = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.chdir(told["cwd"])
        os.environ.clear()
        os.environ.update(told["env"])
        for fd, name in enumerate((os.devnull, "out", "errors")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), fd)
        sys.argv = ["openstack", *told["arguments"]]
        sys.exit(shell.main())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Loaded:
    """The command, loaded and waiting to be told what to do."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOADED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment() | {"PYTHONWARNINGS": "default"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.communicate(timeout=30)
        self.process.kill()
        self.process.wait()

    def run(self, line: str, directory: Path, environment: dict[str, str]) -> tuple[int, str, str]:
        """Run a command as a process of its own; return its code and what it said."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        told = {"arguments": line.split(), "cwd": str(directory), "env": environment}
        self.process.stdin.write(json.dumps(told) + os.linesep)
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return code, (directory / "out").read_text(), (directory / "errors").read_text()
