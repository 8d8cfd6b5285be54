"""The ``openstack`` command without its start-up time: one process that runs many commands.

Loading the command and its plugins takes longer than what most of its commands do. They run one
after the other in a process of their own, each as ``openstack`` itself would run it.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from tests.api.conftest import Cloud
from tests.cli.running import clean_environment

RUNNER = """
import contextlib, io, json, sys
from openstackclient import shell
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = shell.OpenStackShell().run(json.loads(line))
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class OpenStack:
    """Commands of one account, one after the other."""

    def __init__(self, cloud: Cloud, directory: Path, **account: str) -> None:
        """``account`` are the variables that say who asks: the command reads them once only."""
        environment = clean_environment() | {
            "OS_CLIENT_CONFIG_FILE": str(cloud.up.state_dir / "clouds.yaml"),
            "PYTHONWARNINGS": "ignore",
            **account,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)

    def run(self, line: str) -> tuple[int, str, str]:
        """Run one command; return its code and what it said."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(shlex.split(line)) + os.linesep)
        self.process.stdin.flush()
        code, out, errors = json.loads(self.process.stdout.readline())
        return code, out, errors

    def __call__(self, line: str) -> str:
        """Run a command that must end well, and return what it prints."""
        code, out, errors = self.run(line)
        assert code == 0, f"openstack {line}: {out}{errors}"
        return out

    def json(self, line: str) -> Any:
        """Run a command that must end well, and return what it says."""
        return json.loads(self(f"{line} -f json"))

    def refused(self, line: str) -> str:
        """Run a command that must fail, and return why it did."""
        code, out, errors = self.run(line)
        assert code == 1, f"openstack {line}: {out}{errors}"
        assert "Traceback" not in errors
        return errors
