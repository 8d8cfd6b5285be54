"""An embedded cloud with a simulated host, for measuring."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.accounting import cpu_s, descendants
from benchmarks.http import Connection, Sample
from engine.domain.quota import DEFAULTS
from schemas.quota import UNLIMITED

HERE = Path(__file__).resolve().parent.parent


class Cloud:
    """Starts ``cumulog up`` in a temporary directory and takes it down again."""

    def __init__(self, driver: str = "simulated", *options: str) -> None:
        self.driver = driver
        self.options = options
        self.directory = Path(tempfile.mkdtemp(prefix="cumulog-bench-"))
        self.token = ""
        self.project = ""

    async def __aenter__(self) -> Self:
        ready = self.directory / "ready.json"
        state = self.directory / "state"
        cumulog = Path(sys.executable).with_name("cumulog")
        self.log = (self.directory / "up.log").open("wb")
        self.process = subprocess.Popen(  # noqa: ASYNC220  # starts at once
            [
                str(cumulog),
                "up",
                "--state-dir",
                str(state),
                "--listen",
                "127.0.0.1:0",
                "--ready-file",
                str(ready),
                "--driver",
                self.driver,
                "--no-demo",
                *self.options,
            ],
            stdout=self.log,
            stderr=self.log,
            cwd=HERE,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        )
        async with asyncio.timeout(180):
            while not ready.exists():
                if self.process.poll() is not None:
                    raise RuntimeError((self.directory / "up.log").read_text())
                await asyncio.sleep(0.05)
        self.ready: dict[str, Any] = json.loads(ready.read_text())
        url = self.ready["urls"]["api"]
        host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        self.address = (host, int(port))
        self.connection = Connection(*self.address)
        await self._sign_in(self._credentials())
        limits = dict.fromkeys(DEFAULTS, UNLIMITED)
        await self.call("POST", "/v1/actions", {"type": "SetQuotaClass", "limits": limits})
        return self

    def _credentials(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(self.ready["credentials"]).read_text())
        return found

    async def _sign_in(self, credentials: dict[str, Any]) -> None:
        admin = credentials["admin"]
        user = {
            "name": admin["username"],
            "domain": {"id": "default"},
            "password": admin["password"],
        }
        project = {"name": admin["project_name"], "domain": {"id": "default"}}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            }
        }
        answer = await self.connection.request(
            "POST", "/identity/v3/auth/tokens", {}, json.dumps(body).encode()
        )
        assert answer.status == 201, answer.body
        self.token = answer.headers["x-subject-token"]
        self.project = json.loads(answer.body)["token"]["project"]["id"]

    async def __aexit__(self, *error: object) -> None:
        self.connection.close()
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if self.driver != "simulated":
            cumulog = Path(sys.executable).with_name("cumulog")
            state = str(self.directory / "state")
            destroy = [str(cumulog), "destroy", "--yes", "--state-dir", state]
            await asyncio.to_thread(subprocess.run, destroy, check=True)
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Auth-Token": self.token, "Content-Type": "application/json"}

    async def call(self, method: str, path: str, body: object = None) -> Sample:
        """Make one call that must succeed."""
        data = b"" if body is None else json.dumps(body).encode()
        sample = await self.connection.request(method, path, self.headers, data)
        if sample.status >= 300:
            raise RuntimeError(f"{method} {path}: {sample.status} {sample.body!r}")
        return sample

    def pids(self) -> list[int]:
        """Return every process of the cloud; the broker is nobody's child, so all are asked for."""
        roots = [self.process.pid, *self.ready["pids"].values()]
        return sorted({pid for root in roots for pid in descendants(root)})

    @contextlib.contextmanager
    def agent_paused(self) -> Iterator[None]:
        """Keep the host's agent from working, so that only the accepting of requests is measured.

        Work waits meanwhile. Shorter than the time after which a host counts as silent.
        """
        agent = self.ready["pids"]["agent"]
        os.kill(agent, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(agent, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes so far."""
        return cpu_s(self.pids())
