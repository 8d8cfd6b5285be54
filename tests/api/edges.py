"""More edges of the test's cloud, each with its own settings, and sockets to talk to them with."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.api.conftest import Api, Cloud
from tests.cli.running import clean_environment, eventually

ANSWER_S = 60.0


class EdgeProcess:
    """One more `cumulog serve api` on the read model and the broker of a running cloud."""

    def __init__(self, cloud: Cloud, directory: Path, **settings: object) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listening.getsockname()[1]
        self.address = ("127.0.0.1", self.port)
        scheme = "https" if settings.get("tls_certificate") else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        config = json.loads((cloud.up.state_dir / "run" / "api.config.json").read_text())
        config |= {"listen": f"127.0.0.1:{self.port}"} | settings
        self.root = directory / f"edge-{secrets.token_hex(4)}"
        (self.root / "run").mkdir(parents=True)
        self.config_file = self.root / "run" / "api.config.json"
        self.config_file.write_text(json.dumps(config))
        self.log_file = self.root / "api.log"
        self.cloud = cloud
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start a process on the socket, beside those that serve it already."""
        fd = self.listening.fileno()
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.serve", "api", str(self.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(fd,),
                env=clean_environment() | {"CUMULOG_LISTEN_FD": str(fd)},
            )

    def __enter__(self) -> Self:
        eventually(lambda: self.events("serving"), f"an edge serves: {self.log()}")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.listening.close()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def log(self) -> str:
        return self.log_file.read_text()

    def events(self, name: str) -> list[dict]:
        """Return what was logged under a name."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [told for line in lines if (told := json.loads(line)).get("event") == name]

    def has_served(self, times: int) -> bool:
        """Return whether so many processes have begun to serve."""
        return len(self.events("serving")) == times

    def as_demo(self) -> Api:
        return Api(self.url, self.cloud.demo.token)

    def connect(self) -> "Raw":
        return Raw(self.address)

    def memory(self) -> int:
        """Return the process' resident memory in bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


class Raw:
    """A connection that sends what it is told and shows what came back."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=ANSWER_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def everything(self) -> bytes:
        """Return all that comes until the other side closes."""
        parts: list[bytes] = []
        try:
            while part := self.socket.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass  # it had not read all that we sent, and said so
        except TimeoutError:
            pytest.fail(f"the connection stays open; so far came {b''.join(parts)[:2000]!r}")
        return b"".join(parts)

    def until(self, end: bytes) -> bytes:
        """Return what comes, up to and with ``end``."""
        got = b""
        while end not in got:
            part = self.socket.recv(65536)
            assert part, f"closed before {end!r} came: {got[:2000]!r}"
            got += part
        return got

    def closed(self) -> bool:
        """Return whether the other side has closed, without waiting."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(65536) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            self.socket.settimeout(ANSWER_S)


def statuses(answers: bytes) -> list[int]:
    """Return the status of each answer of HTTP/1 in what came."""
    return [int(part[2:5]) for part in answers.split(b"HTTP/1.")[1:]]


@contextmanager
def held(edge: EdgeProcess, count: int, first: bytes = b"") -> Iterator[Sequence[Raw]]:
    """Open connections, send the same on each, and hold them."""
    with ExitStack() as stack:
        made = [stack.enter_context(edge.connect()) for _ in range(count)]
        if first:
            for connection in made:
                connection.send(first)
        yield made
