"""`cumulog up`: the whole cloud on this machine, in the foreground.

The command replaces itself with this module run on its own (``replace_with``), so that what stays
for as long as the cloud runs has nothing in it but the supervisor. Every step may be repeated: a
second run finds what the first one made, and completes what a kill between two steps left open.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Never

from cli.problem import UNREACHABLE, USAGE, Problem, run_to_exit
from cli.state import (
    PROCESSES,
    STANDBY,
    State,
    is_alive,
    make_cell,
    make_directories,
    write_private,
)
from cli.steps import line, step
from cli.supervisor import Supervisor

ORPHANS_S = 15.0
TRIM_S = 60.0
BACKLOG = 1024  # connections that wait for the API
NEEDS_ROOT = "network namespaces, bridges, packet rules (nft) and libvirt"
# What each real host must have, and the Debian package that has it.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "libvirtd": "libvirt-daemon",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "ip": "iproute2",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said. ``driver`` "" means the cloud's own, or what the user may run."""

    state_dir: str
    listen: str = "127.0.0.1:8780"
    ready_file: str = ""
    driver: str = ""
    demo: bool = False
    image: str = ""
    standby: bool = False
    settings: dict[str, Any]


def replace_with(options: Options) -> Never:
    """Become the supervisor; this process' id stays."""
    sys.stdout.flush()
    arguments = [sys.executable, "-P", "-m", "cli.up", json.dumps(asdict(options))]
    os.execv(sys.executable, arguments)  # noqa: S606 (ourselves, with arguments of our own)


def main(options: Options) -> int:
    """Run the cloud until told to stop; return the exit code."""
    started = time.monotonic()
    state = State.at(options.state_dir)
    check_listen(options.listen)
    driver = _driver(options, state)
    make_directories(state)
    with hold(state):
        _require_restored(state)
        options = replace(options, listen=_choose_port(options.listen, state))
        cell = make_cell(state, listen=options.listen, driver=driver)
        cell["settings"] = cell.get("settings", {}) | options.settings
        supervisor = Supervisor(state, cell, say=_announce, given=options.settings)
        try:
            with step("Leftovers of an earlier run") as current:
                current.result = end_orphans(state)
            return _run(options, supervisor, started)
        finally:
            _stop(options, supervisor)


def _run(options: Options, supervisor: Supervisor, started: float) -> int:
    state = supervisor.state
    supervisor.listening = listening_on(options.listen)
    write_private(state.up_file, json.dumps({"pid": os.getpid(), "listen": options.listen}) + "\n")
    if options.ready_file:
        Path(options.ready_file).unlink(missing_ok=True)
    with step("Event log") as current:
        supervisor.start_broker()
        current.result = f"nats-server {supervisor.broker['version']}, {supervisor.broker['url']}"
    for name in (*PROCESSES, *([STANDBY] if options.standby else [])):
        supervisor.start(name)
    code = supervisor.helper("cli.bootstrap", str(state.root), options.image)
    if supervisor.stops:
        return 0
    if code != 0:
        line(f"cumulog: the cloud did not come up; {state.log_file('engine').parent} says more")
        return code
    _own_files(state)
    supervisor.changed = lambda: _write_ready(options, supervisor)
    supervisor.changed()
    took = time.monotonic() - started
    address = url(options.listen, supervisor.cell["settings"])
    line(f"ready {address} in {took:.1f} s; accounts in {state.clouds_file}")
    if options.demo:
        supervisor.helper("cli.demo", str(state.root), str(Path.cwd()))
    _supervise(supervisor)
    return 0


def _supervise(supervisor: Supervisor) -> None:
    trimmed = time.monotonic()
    while not supervisor.stops:
        supervisor.tick(TRIM_S)
        if time.monotonic() - trimmed > TRIM_S:
            supervisor.trim_logs()
            trimmed = time.monotonic()


def _stop(options: Options, supervisor: Supervisor) -> None:
    if options.ready_file:
        Path(options.ready_file).unlink(missing_ok=True)
    if supervisor.children:
        with step("Stopping the control plane") as current:
            supervisor.stop()
            if supervisor.cell["driver"] == "libvirt":
                current.result = "servers keep running; the same command finds them again"
    supervisor.state.up_file.unlink(missing_ok=True)


def url(listen: str, settings: Mapping[str, Any] | None = None) -> str:
    """Return the address of the API as clients on this machine reach it.

    With TLS that is the public one, if there is one, which the certificate is for.
    """
    settings = settings or {}
    if not settings.get("tls_certificate"):
        scheme = "http"
    elif settings.get("public_url"):
        return str(settings["public_url"]).rstrip("/")
    else:
        scheme = "https"
    host, _, port = listen.rpartition(":")
    return f"{scheme}://{'127.0.0.1' if host in {'0.0.0.0', ''} else host}:{port}"  # noqa: S104 (compared)


def _write_ready(options: Options, supervisor: Supervisor) -> None:
    state = supervisor.state
    address = url(options.listen, supervisor.cell["settings"])
    told = {
        "urls": {
            "api": address,
            "identity": f"{address}/identity/v3",
            "nats": supervisor.broker["url"],
        },
        "pids": {"up": os.getpid(), **supervisor.pids()},
        "credentials": str(state.credentials_file),
        "clouds": str(state.clouds_file),
        "openrc": str(state.openrc_file),
        "state_dir": str(state.root),
        "driver": supervisor.cell["driver"],
    }
    text = json.dumps(told, indent=1) + "\n"
    write_private(
        state.up_file, json.dumps({"pid": os.getpid(), "listen": options.listen, **told}) + "\n"
    )
    if options.ready_file:
        write_private(Path(options.ready_file).absolute(), text)


def _announce(text: str) -> None:
    with suppress(OSError):  # see cli.steps.line
        print(f"cumulog: {text}", file=sys.stderr, flush=True)


def _driver(options: Options, state: State) -> str:
    """Return which host to run: what was asked for, what the cloud has, or what we may run.

    Raises:
        Problem: real servers were asked for and cannot be had.
    """
    wanted = options.driver or (state.cell()["driver"] if state.exists() else "")
    if wanted == "simulated":
        return wanted
    root = os.geteuid() == 0
    if wanted == "libvirt" and not root:
        raise Problem(
            f"driver libvirt needs root, for {NEEDS_ROOT}",
            hint="Run the command with sudo, or with --driver simulated.",
            exit_code=USAGE,
        )
    if not root:
        line(f"Not root, so servers are simulated. Real ones need root for {NEEDS_ROOT}: use sudo.")
        return "simulated"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = {
        program: package
        for program, package in PROGRAMS.items()
        if shutil.which(program, path=path) is None
    }
    if missing:
        raise Problem(
            f"this machine has no {', '.join(missing)} (packages {', '.join(missing.values())})",
            hint="`script/bootstrap` installs them; --driver simulated does without.",
            exit_code=USAGE,
        )
    return "libvirt"


def hold(state: State) -> IO[str]:
    """Take the directory's lock, which lives as long as this process.

    Raises:
        Problem: another one has it.
    """
    file = state.lock_file.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = state.supervisor() or {}
        pid = f" (pid {other['pid']})" if other else ""
        raise Problem(
            f"a cloud already runs in {state.root}{pid}",
            hint="`cumulog status` shows it; Ctrl-C in its terminal, or SIGTERM, stops it.",
        ) from None
    return file


def _require_restored(state: State) -> None:
    """Refuse to start on a log that is only partly put back.

    Raises:
        Problem: a restore was cut short.
    """
    if (state.root / "restore" / "building").exists():
        raise Problem(
            "the log is only partly restored",
            hint=f"Run `cumulog log restore --state-dir {state.root}` to its end.",
        )


def check_listen(listen: str) -> None:
    """Return if a text says where to listen.

    Raises:
        Problem: it does not.
    """
    host, _, port = listen.rpartition(":")
    if not host or not (
        port.isascii() and port.isdecimal() and len(port) < 6 and int(port) < 2**16
    ):
        raise Problem(
            f"--listen takes HOST:PORT, not {listen!r}", hint="As 127.0.0.1:8780.", exit_code=USAGE
        )


def _choose_port(listen: str, state: State) -> str:
    """Return the address with a port that is free; for port 0 the one used before, if it is.

    Raises:
        Problem: the port is taken.
    """
    host, _, port = listen.rpartition(":")
    if port != "0":
        _listen(host, int(port))
        return listen
    if state.exists():
        before_host, _, before = str(state.cell()["listen"]).rpartition(":")
        if before_host == host:
            with suppress(Problem):
                _listen(host, int(before))
                return f"{host}:{before}"
    return f"{host}:{_free_port(host)}"


def _free_port(host: str) -> int:
    """Return a free port below those that the kernel gives to outgoing connections.

    One of those could be taken by somebody's connection while the API is started again.
    """
    for _ in range(100):
        with suppress(Problem):
            return _listen(host, 10_000 + secrets.randbelow(20_000))
    raise Problem(f"no free port on {host}", exit_code=UNREACHABLE)


def _listen(host: str, port: int) -> int:
    """Listen for a moment, to see whether one can; return the port."""
    with listening_on(f"{host}:{port}") as server:
        return int(server.getsockname()[1])


def listening_on(listen: str) -> socket.socket:
    """Listen on an address, alone.

    Raises:
        Problem: one cannot.
    """
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Problem(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="Name a free address with --listen.",
            exit_code=UNREACHABLE,
        ) from error


def end_orphans(state: State) -> str:
    """Wait for, then end, processes that outlived a killed supervisor; return how many."""
    orphans = {
        name: pid
        for name in (STANDBY, *PROCESSES)
        if (pid := state.pid(name)) and _is_ours(pid, name, state)
    }
    for number, patience_s in ((0, 2.0), (signal.SIGTERM, ORPHANS_S), (signal.SIGKILL, ORPHANS_S)):
        for pid in orphans.values():
            if number and is_alive(pid):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while any(is_alive(pid) for pid in orphans.values()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return f"{len(orphans)} ended" if orphans else "none"
    raise Problem(f"processes {sorted(orphans.values())} of an earlier run do not end")


def _is_ours(pid: int, name: str, state: State) -> bool:
    """Return whether the process with this id still is the one that we once started."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return arguments[-4:-1] == [b"cli.serve", name.encode(), str(state.root).encode()]


def _own_files(state: State) -> None:
    """Give what a person reads to the person who called sudo."""
    user = int(os.environ.get("SUDO_UID", "0"))
    if os.geteuid() != 0 or not user:
        return
    for path in (
        state.root,
        state.run,
        state.cell_file,
        state.credentials_file,
        state.clouds_file,
        state.openrc_file,
        state.up_file,
        state.lock_file,
    ):
        if path.exists():
            os.chown(path, user, int(os.environ.get("SUDO_GID", "0")))


if __name__ == "__main__":
    run_to_exit(lambda: main(Options(**json.loads(sys.argv[1]))))
