"""The cloud under test: started as a person would, killed as a person would not.

Only what `cumulog up` writes for everybody is used: the files under ``DIR/run`` tell the process
ids. Between the cloud's processes and its broker stands the proxy: the broker's port is chosen
beforehand, and ``settings.nats_url`` in ``cell.json`` names the proxy's.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CUMULOG = str(Path(sys.executable).with_name("cumulog"))
READY_S = 180.0
END_S = 90.0
POLL_S = 0.02
FIRST_PORT, LAST_PORT = 10_000, 30_000


class CampaignFailed(Exception):
    """The campaign cannot go on; the message says why."""


class Proxy:
    """The process between the cloud and its broker."""

    def __init__(self, port: int, broker: int, subject: str) -> None:
        command = [sys.executable, "-m", "tests.crash.proxy", "--subject", subject]
        self.port = port
        self._process = subprocess.Popen(
            [*command, "--listen", str(port), "--broker", str(broker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._await("listening", 30.0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))

    def _await(self, name: str, seconds: float) -> dict[str, Any] | None:
        try:
            event = self._events.get(timeout=seconds)
        except queue.Empty:
            return None
        if event["event"] != name:
            raise CampaignFailed(f"the proxy said {event}, not {name}")
        return event

    def _tell(self, command: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + b"\n")

    def hold(self, seconds: float, *, stored: bool = True) -> dict[str, Any] | None:
        """Hold the answer to the next commit, or the commit itself, so that it is not stored.

        Returns whose it is; None if none came in time.
        """
        while not self._events.empty():
            self._events.get()
        self._tell(b"hold" if stored else b"block")
        return self._await("held", seconds)

    def release(self) -> None:
        """Let go."""
        self._tell(b"release")

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait(END_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Cloud:
    """A cloud in a directory of its own."""

    def __init__(self, directory: Path, driver: str) -> None:
        self.state_dir = directory / "state"
        self.driver = driver
        self._ready = directory / "ready.json"
        self._log = directory / "up.log"
        self._process: subprocess.Popen[bytes] | None = None
        broker, own, api = _free_ports(3)
        self._prepare(broker, own, api)
        self.proxy = Proxy(own, broker, "embedded.log")
        told = subprocess.run(
            [CUMULOG, "up", "--help"], capture_output=True, text=True, timeout=60, check=True
        )
        self.standby = "--standby" in told.stdout

    def _prepare(self, broker: int, own: int, api: int) -> None:
        """Say where the broker is to listen, and where the others are to look for it."""
        self.state_dir.mkdir(mode=0o700, parents=True)
        (self.state_dir / "nats").mkdir(mode=0o700)
        (self.state_dir / "nats" / "port").write_text(f"{broker}\n")
        cell: dict[str, Any] = {
            "cell": "embedded",
            "node": "node-1",
            "host_id": "host-1",
            "driver": self.driver,
        }
        cell["listen"] = f"127.0.0.1:{api}"
        cell["settings"] = {"nats_url": f"nats://127.0.0.1:{own}"}
        (self.state_dir / "cell.json").write_text(json.dumps(cell, indent=1) + "\n")

    def start(self) -> None:
        """Run ``cumulog up`` and wait until it is ready.

        Raises:
            CampaignFailed: it ended, or is not ready in time.
        """
        self._ready.unlink(missing_ok=True)
        command = [CUMULOG, "up", "--state-dir", str(self.state_dir), "--driver", self.driver]
        command += ["--listen", "127.0.0.1:0", "--ready-file", str(self._ready), "--no-demo"]
        if self.standby:
            command.append("--standby")
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={k: v for k, v in os.environ.items() if not k.startswith(("OS_", "CUMULOG_"))},
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CampaignFailed(f"cumulog up did not get ready; {self._log} says more")
            time.sleep(POLL_S)

    def pids(self) -> dict[str, int]:
        """Return the ids of all processes that live, by name; ``up`` is the supervisor."""
        found = {"up": self._process.pid} if self._process and self._process.poll() is None else {}
        for path in (self.state_dir / "run").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(path.read_text())
                if alive(pid):
                    found[path.stem] = pid
        return found

    def kill(self, *names: str) -> dict[str, int]:
        """Kill these processes with SIGKILL, at once; return what they were."""
        pids = self.pids()
        killed = {name: pids[name] for name in names if name in pids}
        for pid in killed.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in killed.values():
            _wait_gone(pid)
        if "up" in killed and self._process is not None:
            self._process.wait(END_S)
        return killed

    def pause(self, name: str, seconds: float, then: Callable[[], None]) -> threading.Timer | None:
        """Stop a process, to wake up and call ``then`` after a while; None if there was none."""
        pid = self.pids().get(name)
        if pid is None:
            return None
        os.kill(pid, signal.SIGSTOP)

        def wake() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            then()

        waking = threading.Timer(seconds, wake)
        waking.start()
        return waking

    def behind(self, port: int) -> str:
        """Return which process has this end of a connection to the proxy; "" if none of ours."""
        inodes = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            ends = [int(end.partition(":")[2], 16) for end in words[1:3]]
            if ends == [port, self.proxy.port]:
                inodes.add(f"socket:[{words[9]}]")
        for name, pid in self.pids().items():
            with contextlib.suppress(OSError):
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if str(descriptor.readlink()) in inodes:
                            return name
        return ""

    def stop(self) -> None:
        """Stop the cloud as one should. Servers stay."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(END_S)
        self.proxy.close()

    def destroy(self) -> None:
        """Remove all that is there because of the cloud.

        Raises:
            CampaignFailed: something could not be removed.
        """
        done = subprocess.run(
            [CUMULOG, "destroy", "--yes", "--state-dir", str(self.state_dir)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode != 0:
            raise CampaignFailed(f"the cloud could not be removed: {done.stderr}")


def alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + END_S
    while alive(pid):
        if time.monotonic() > deadline:
            raise CampaignFailed(f"process {pid} does not die")
        time.sleep(0.001)


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that the kernel gives to outgoing connections."""
    found: list[int] = []
    start = FIRST_PORT + os.getpid() * 7 % (LAST_PORT - FIRST_PORT)
    for port in range(start, start + 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise CampaignFailed("no free port on 127.0.0.1")
