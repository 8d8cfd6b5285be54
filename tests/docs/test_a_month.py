"""The walk-through of a month: its commands run as printed, at the times that it tells."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.running import Up, clean_environment
from tests.clock import Clock

PAGE = Path(__file__).parents[2] / "docs" / "a-month.md"
HEADING = re.compile(r"^## (\d{4}-\d\d-\d\d \d\d:\d\d) (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

# By hand: hours x prices, as the page tells them. Commands take their time, so to a few cents.
OWED = {
    "Aurora": Decimal("54.53"),
    "Borealis": Decimal("65.57"),
    "Cirrus": Decimal("23.50"),
}
SOON = Decimal("0.05")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def sections() -> Iterator[tuple[datetime, str, list[str]]]:
    """Yield when, the heading, and the commands of each section."""
    _, *parts = HEADING.split(PAGE.read_text())
    for at, title, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        yield datetime.fromisoformat(at).replace(tzinfo=UTC), title, BLOCK.findall(text)


class Shell:
    """One shell that stays, as a person's does."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment() | environment,
        )

    def run(self, commands: str) -> str:
        """Run commands, each of which must end well; return what they print."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"set -euo pipefail\n{commands}\nset +eu\necho done-$?\n")
        self._shell.stdin.flush()
        said = ""
        for line in self._shell.stdout:
            if line == "done-0\n":
                return said
            said += line
        pytest.fail(f"{commands}\nended with {self._shell.wait(10)}:\n{said}")

    def close(self) -> None:
        """End it."""
        self._shell.kill()
        self._shell.communicate()


def test_a_month_goes_by_as_told(tmp_path: Path):
    told = list(sections())
    clock = Clock(tmp_path, told[0][0])
    cloud = Up(tmp_path / "state", clock)
    (tmp_path / "var").symlink_to(cloud.state_dir)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    shell = Shell(tmp_path, clock.environment)
    try:
        cloud.start("--no-demo")
        for at, title, commands in told:
            clock.set_to(at)
            for block in commands:
                print(f"--- {at:%Y-%m-%d %H:%M} {title}\n{block}{shell.run(block)}")
        found = json.loads(shell.run("cumulog invoice list --month 2026-10 -o json"))
        owed = {each["customer_name"]: Decimal(each["total"]) for each in found}
        assert owed.keys() == OWED.keys()
        for customer, total in OWED.items():
            assert abs(owed[customer] - total) < SOON, customer
    finally:
        shell.close()
        if cloud.process is not None:
            cloud.stop()
