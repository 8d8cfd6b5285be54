"""Keeps the processes of an embedded cloud running: starts them, starts them again, stops them.

Invariant: a process that ends without being told to is started again, after a pause that grows
while it keeps ending and is bounded; a process that was told to stop is gone within a bound. Single
threaded, on the standard library alone, so that it costs little and cannot fail in many ways.

The socket that clients connect to is the supervisor's: while the API is started again they wait
instead of being refused, and a new one takes over from the one before it without losing a request.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from cli.problem import LOG_UNAVAILABLE, Problem
from cli.state import PROCESSES, STANDBY, State, write_private

BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 10.0
SETTLED_S = 5.0  # one that ran so long has earned a quick restart
HOPELESS = 8  # ends in a row while the cloud comes up
STOP_S = 10.0
BROKER_START_S = 60.0
LOG_BYTES_MAX = 64 * 2**20
TICK_S = 0.1
DISK_FREE_MIN = 32 * 2**20
BROKER = "nats"
API = "api"
API_READY_S = 60.0
# What its process is told by; see api/listening.py.
LISTEN_FD = "CUMULOG_LISTEN_FD"
READY_FD = "CUMULOG_READY_FD"


@dataclass
class Child:
    """One process and how it has been doing. ``pidfd`` becomes readable when it has ended."""

    name: str
    pid: int = 0
    pidfd: int = -1
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    pause: float = BACKOFF_FIRST_S
    due: float | None = None  # when to start it again
    ends_in_a_row: int = 0

    def ended(self) -> bool:
        """Return whether it has ended since it was started."""
        return self.pidfd >= 0 and bool(select.select([self.pidfd], [], [], 0)[0])


@dataclass
class Change:
    """A new API process that has not come to serve yet, and the one that it is to replace."""

    old: Child
    cell: dict[str, Any]  # what the old one was told
    ready: int  # where it says that it serves; it ends when the process does
    deadline: float


@dataclass
class Supervisor:
    """The processes of one state directory."""

    state: State
    cell: dict[str, Any]
    say: Callable[[str], None]
    changed: Callable[[], None] = lambda: None
    children: dict[str, Child] = field(default_factory=dict)
    broker: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)  # settings of the command line
    stopping: bool = False
    listening: socket.socket | None = None
    change: Change | None = None
    replaced: list[Child] = field(default_factory=list)  # they end by themselves

    def __post_init__(self) -> None:
        """Take over the signals: each wakes the loop, none interrupts it."""
        self._wake, wake_up = socket.socketpair()
        wake_up.setblocking(False)
        self._wake_up = wake_up  # kept open; the interpreter writes a byte for each signal
        self._wake.setblocking(False)
        self.stops = 0
        self.reload_asked = False
        self._has_terminal = _terminal()
        signal.set_wakeup_fd(wake_up.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self.stops += 1

    def _on_hangup(self, _number: int, _frame: object) -> None:
        """Stop if our terminal was closed; else somebody wants the configuration read anew."""
        if self._has_terminal and not _terminal():
            self.stops += 1
        else:
            self.reload_asked = True

    def start_broker(self) -> None:
        """Start nats-server; blocking, bounded.

        Raises:
            Problem: it did not start; the message says why.
        """
        state, cell = self.state, self.cell
        arguments = [str(state.nats), cell["cell"], cell["host_id"], str(state.log_file(BROKER))]
        with state.log_file("up").open("ab") as errors:
            try:
                done = subprocess.run(
                    self._python("cli.serve", "broker", *arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    timeout=BROKER_START_S,
                    start_new_session=True,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise Problem("nats-server did not start in time") from error
        if done.returncode != 0:
            raise Problem(
                "nats-server did not start",
                hint=f"{state.log_file('up')} and {state.log_file(BROKER)} say why.",
            )
        self.broker = json.loads(done.stdout)
        child = self.children.setdefault(BROKER, Child(BROKER))
        self._follow(child, self.broker["pid"])

    def start(self, name: str, *, ready: int | None = None) -> None:
        """Start one of our own processes; if it is the API, it tells ``ready`` when it serves."""
        child = self.children.setdefault(name, Child(name))
        self._write_config(name)
        handed: dict[str, int] = {}
        if name == API and self.listening is not None:
            handed[LISTEN_FD] = self.listening.fileno()
            if ready is not None:
                handed[READY_FD] = ready
        log_path = self.state.log_file(name)
        with log_path.open("ab") as log:
            os.fchmod(log.fileno(), 0o600)
            child.process = subprocess.Popen(
                self._python("cli.serve", name, str(self.state.root)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment() | {key: str(fd) for key, fd in handed.items()},
                cwd=self.state.root,
                pass_fds=tuple(handed.values()),
                start_new_session=True,  # a Ctrl-C reaches us alone, who know the order
            )
        self._follow(child, child.process.pid)

    def replace_api(self) -> None:
        """Start a new API process; it takes over once it serves, and the one before it ends."""
        self.reload_asked = False
        old = self.children.get(API)
        if old is None or old.pidfd < 0:
            self.say("the API is being started, and takes its configuration from there")
            return
        try:
            cell = self.state.cell()
        except (Problem, ValueError) as error:
            self.say(f"the API stays as it is: {self.state.cell_file}: {error}")
            return
        before, self.cell = self.cell, cell | {"settings": cell.get("settings", {}) | self.given}
        readable, writable = os.pipe()
        self.change = Change(old, before, readable, time.monotonic() + API_READY_S)
        del self.children[API]
        try:
            self.start(API, ready=writable)
        except OSError as error:
            self.say(f"the new API cannot be started: {error}")
            self.children[API] = Child(API)
        finally:
            os.close(writable)

    def _take_over(self, change: Change) -> None:
        """Look whether the new API serves, or will not; the old one stays until it does."""
        new, old = self.children[API], change.old
        told = bool(select.select([change.ready], [], [], 0)[0])
        if not told and time.monotonic() < change.deadline:
            return
        serves = told and os.read(change.ready, 1) == b"1"
        os.close(change.ready)
        self.change = None
        if serves:
            self._signal(old, signal.SIGHUP)
            self.replaced.append(old)
            self.say(f"the API was replaced (pid {old.pid} by {new.pid})")
            self.changed()
            return
        self.say(f"the new API does not serve ({self._last_words(API)}); the old one stays")
        if new.pidfd >= 0:
            self._signal(new, signal.SIGTERM)
            self.replaced.append(new)
        self.children[API], self.cell = old, change.cell
        self._write_config(API)
        self.state.pid_file(API).write_text(f"{old.pid}\n")

    def _end(self, child: Child) -> None:
        """Have a process end, whatever it takes."""
        self._signal(child, signal.SIGTERM)
        if not self._wait_end(child, STOP_S, self.stops):
            self._signal(child, signal.SIGKILL)
            self._wait_end(child, STOP_S, self.stops)
        self._forget(child)

    def _forget(self, child: Child) -> None:
        if child.process is not None:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(STOP_S)
        os.close(child.pidfd)
        child.pidfd = -1

    def _follow(self, child: Child, pid: int) -> None:
        child.pid = pid
        child.pidfd = os.pidfd_open(pid)
        child.started = time.monotonic()
        child.due = None
        self.state.pid_file(child.name).write_text(f"{pid}\n")

    def _write_config(self, name: str) -> None:
        from cli.state import IDENTITIES

        user = IDENTITIES[name]
        passwords = json.loads((self.state.nats / "credentials.json").read_text())
        config = {
            "state_dir": str(self.state.root),
            **{key: self.cell[key] for key in ("cell", "node", "host_id", "listen", "driver")},
            "nats_url": self.broker["url"],
            **self.cell.get("settings", {}),  # of cell.json and of the command line
            "nats_user": user,
            "nats_password": passwords[user],
        }
        if name == STANDBY:
            config["node"] = f"{config['node']}-{STANDBY}"  # each candidate has its own name
        write_private(self.state.config_file(name), json.dumps(config, indent=1) + "\n")

    def helper(self, module: str, *arguments: str, output: IO[bytes] | None = None) -> int:
        """Run a module to its end while watching the children; return its exit code.

        A request to stop ends it early. Its output goes where ours goes, or to ``output``.

        Raises:
            Problem: a child ends each time it is started; the message says why.
        """
        if module == "cli.bootstrap":
            self._write_config("bootstrap")
        process = subprocess.Popen(
            self._python(module, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            env=self._environment(),
            cwd=self.state.root,
            start_new_session=True,
        )
        while process.poll() is None:
            self.tick()
            hopeless = [c.name for c in self.children.values() if c.ends_in_a_row >= HOPELESS]
            if self.stops or hopeless:
                process.terminate()
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            if hopeless:
                raise Problem(
                    f"{hopeless[0]} ends each time it is started: {self._last_words(hopeless[0])}",
                    hint=f"{self.state.log_file(hopeless[0])} says more.",
                )
        return process.wait()

    def tick(self, pause_s: float = TICK_S) -> None:
        """Wait a moment, or for something to happen, and start again what has ended."""
        children = [*self.children.values(), *self.replaced]
        watched = [child.pidfd for child in children if child.pidfd >= 0]
        if self.change is not None:
            watched.append(self.change.ready)
        watched.append(self._wake.fileno())
        now = time.monotonic()
        due = [child.due - now for child in self.children.values() if child.due is not None]
        if self.change is not None:
            due.append(self.change.deadline - now)
        select.select(watched, [], [], max(0.0, min([pause_s, *due])))
        with suppress(BlockingIOError):
            self._wake.recv(4096)
        if self.change is not None:
            self._take_over(self.change)
        elif self.reload_asked and not self.stops:
            self.replace_api()
        for child in [child for child in self.replaced if child.ended()]:
            self._forget(child)
            self.replaced.remove(child)
        for child in list(self.children.values()):
            if child.ended():
                self._note_end(child)
            if child.due is not None and time.monotonic() >= child.due and not self.stops:
                self._start_again(child)

    def _note_end(self, child: Child) -> None:
        code = child.process.wait() if child.process is not None else None
        os.close(child.pidfd)
        child.pidfd = -1
        if time.monotonic() - child.started >= SETTLED_S:
            child.pause = BACKOFF_FIRST_S
            child.ends_in_a_row = 0
        child.ends_in_a_row += 1
        child.due = time.monotonic() + child.pause
        how = "ended" if code is None else _how(code)
        if code and code > 0 and (words := self._last_words(child.name)):
            how = f"{how} ({words})"
        self.say(f"{child.name} (pid {child.pid}) {how}; starting it again in {child.pause:.1f} s")
        if child.name == "engine" and code == LOG_UNAVAILABLE:
            self._renew_broker()
        child.pid = 0
        child.pause = min(child.pause * 2, BACKOFF_MOST_S)

    def _renew_broker(self) -> None:
        """End a broker that takes no commits; it is started again as if it had ended by itself.

        A JetStream that once could not write, as on a full disk, refuses from then on, whatever
        room is made. Until there is room it is left alone, for what can be read.
        """
        broker = self.children.get(BROKER)
        status = os.statvfs(self.state.nats)
        free = status.f_bavail * status.f_frsize
        if free < DISK_FREE_MIN:
            self.say(f"the disk of {self.state.root} is full ({free // 2**20} MiB are free)")
        elif broker is not None and broker.pidfd >= 0:
            self.say(
                "the event log takes no commits; starting nats-server again. Should this repeat "
                "itself, the log's files are damaged: stop this, and run "
                f"`cumulog log restore --state-dir {self.state.root}`"
            )
            self._signal(broker, signal.SIGTERM)

    def _start_again(self, child: Child) -> None:
        try:
            if child.name == BROKER:
                self.start_broker()
            else:
                self.start(child.name)
        except (OSError, Problem) as error:
            self.say(
                f"{child.name} cannot be started: {error}; trying again in {child.pause:.1f} s"
            )
            child.due = time.monotonic() + child.pause
            child.pause = min(child.pause * 2, BACKOFF_MOST_S)
            return
        self.say(f"{child.name} runs again (pid {child.pid})")
        self.changed()

    def stop(self) -> None:
        """Stop all, in the order that leaves nobody waiting for somebody who has gone."""
        self.stopping = True
        seen = self.stops
        if self.listening is not None:
            self.listening.close()  # the API has its own descriptor of it
        if self.change is not None:
            self.replaced.append(self.change.old)
        for replaced in self.replaced:
            self._end(replaced)
        for name in (STANDBY, *reversed(PROCESSES), BROKER):
            child = self.children.get(name)
            if child is None:
                continue
            if child.pidfd < 0:
                self.state.pid_file(name).unlink(missing_ok=True)
                continue
            self._signal(child, signal.SIGTERM)
            patience_s = STOP_S + (self._drain_s() if name == API else 0.0)
            if not self._wait_end(child, patience_s, seen):
                self.say(f"{name} does not stop; killing it")
                self._signal(child, signal.SIGKILL)
                self._wait_end(child, STOP_S, self.stops)
            if child.process is not None:
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(STOP_S)
            self.state.pid_file(name).unlink(missing_ok=True)

    def _drain_s(self) -> float:
        """Return how long the API goes on listening after it was told to stop."""
        return float(self.cell.get("settings", {}).get("drain_s", 0.0))

    def _signal(self, child: Child, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, number)

    def _wait_end(self, child: Child, seconds: float, stops: int) -> bool:
        """Wait until it has ended; give up early when somebody asks to stop once more."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.stops == stops:
            if select.select([child.pidfd], [], [], min(left, TICK_S))[0]:
                return True
        return child.ended()

    def pids(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {name: child.pid for name, child in self.children.items()}

    def _last_words(self, name: str) -> str:
        """Return the last line of a process' log, which after a crash is the error."""
        try:
            with self.state.log_file(name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((text.strip() for text in reversed(lines) if text.strip()), "")[:300]

    def trim_logs(self) -> None:
        """Keep each log below its bound: the older half of two is what is lost."""
        for path in self.state.log_file("").parent.glob("*.log"):
            if path.stat().st_size > LOG_BYTES_MAX:
                # Its writer appends, so emptying the file under it loses at most a line.
                older = path.with_suffix(".log.1")
                older.write_bytes(b"")
                with path.open("r+b") as full, older.open("ab") as copy:
                    while block := full.read(2**20):
                        copy.write(block)
                    full.truncate(0)

    def _python(self, module: str, *arguments: str) -> list[str]:
        # -P: a folder called "cli" or "api" where the user happens to be is not ours.
        return [sys.executable, "-P", "-m", module, *arguments]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "CUMULOG_SUPERVISOR": str(os.getpid()),
            # Fewer malloc arenas: threads are few, and each arena keeps megabytes.
            "MALLOC_ARENA_MAX": "2",
            # nft and dnsmasq lie where a plain user's shell does not look.
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin",
        }


def _terminal() -> bool:
    """Return whether this process has a terminal that is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
