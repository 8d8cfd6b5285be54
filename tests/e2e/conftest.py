"""A whole cloud with a real host, started as a person would, and removed without a trace."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors.inventory import Inventory, take
from tests.cli.running import Up, clean_environment, eventually, run

OPENSTACK = str(Path(sys.executable).with_name("openstack"))


class RealCloud(Up):
    """``cumulog up`` with libvirt, and the `openstack` client against it."""

    def start(self, *options: str) -> None:
        super().start("--driver", "libvirt", "--no-demo", *options)

    def openstack(self, *arguments: str, code: int = 0, cloud: str = "cumulog-demo") -> str:
        """Run the client; it must end as told, with neither warning nor traceback."""
        done = subprocess.run(
            [OPENSTACK, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            env=clean_environment()
            | {"OS_CLIENT_CONFIG_FILE": str(self.state_dir / "clouds.yaml"), "OS_CLOUD": cloud},
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        if code == 0:
            assert done.stderr == "", f"{arguments}: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def show(self, *arguments: str) -> dict:
        return json.loads(self.openstack(*arguments, "-f", "json"))

    def inventory(self) -> Inventory:
        return take(self.state_dir)

    def console(self, server: str) -> str:
        return self.openstack("console", "log", "show", server)

    def wait_for_console(self, server: str, text: str) -> str:
        eventually(lambda: text in self.console(server), f"{text!r} on {server}'s console", 180)
        return self.console(server)

    def inside(self, network_id: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace from which a network's guests get their addresses."""
        from executors.layout import Layout

        namespace = Layout.of(self.state_dir).network_namespace(network_id)
        return subprocess.run(
            ["ip", "netns", "exec", namespace, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def root_namespace() -> str:
    """Return the links, addresses and rules that embedded mode must not touch."""
    commands = (
        ["ip", "-o", "link"],
        ["ip", "-o", "-4", "addr"],
        ["ip", "route"],
        ["nft", "list", "ruleset"],
    )
    return "\n".join(
        subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCloud]:
    """A running cloud for a module's tests; afterwards nothing of it may be left."""
    if os.geteuid() != 0:
        pytest.skip("a real host needs root")
    before = root_namespace()
    cloud = RealCloud(tmp_path_factory.mktemp("real") / "state")
    try:
        cloud.start()
        yield cloud
    finally:
        if cloud.process is not None:
            cloud.stop()
        gone = run("destroy", "--yes", "--state-dir", str(cloud.state_dir))
    assert gone.code == 0, gone.errors
    assert cloud.inventory().everything() == {}
    assert not cloud.state_dir.exists()
    assert root_namespace() == before
