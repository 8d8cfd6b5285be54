"""The state directory of an embedded cloud: what lies where, and who may read it.

Invariant: secrets are in files of mode 0600 under a directory of mode 0700, and every file that a
crash could cut short is written beside and renamed. On the standard library alone: the supervisor
imports this.
"""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.problem import USAGE, Problem

# In the order in which they start; they stop the other way round.
PROCESSES = ("engine", "projector", "archiver", "courier", "agent", "api")
# A second engine, if asked for: follows the log and takes over.
STANDBY = "standby"
# The identity that each process has on the bus (see engine/log/accounts.py).
IDENTITIES = {
    "engine": "engine",
    STANDBY: "engine",
    "projector": "history",
    "archiver": "history",
    "courier": "courier",
    "agent": "agent",
    "api": "edge",
    "bootstrap": "admin",
}
# All that `destroy` removes, and nothing else.
CONTENT = (
    "access",
    "blobs",
    "checkpoints",
    "clouds.yaml",
    "credentials.json",
    "history",
    "host",
    "keys",
    "log",
    "nats",
    "openrc",
    "read",
    "restore",
    "run",
    "snapshots",
    "tiny-guest.qcow2",
    "webhooks",
    "cell.json",  # last: it is what says that this is a state directory
)


@dataclass(frozen=True)
class State:
    """Paths under a state directory."""

    root: Path

    @classmethod
    def at(cls, directory: str | Path) -> "State":
        """Return the state directory at this path, made absolute."""
        return cls(Path(directory).expanduser().resolve())

    @property
    def cell_file(self) -> Path:
        """What the cloud is: cell, node, host, address, driver; says that this is a cloud's."""
        return self.root / "cell.json"

    @property
    def credentials_file(self) -> Path:
        """The accounts ``admin`` and ``demo`` with their passwords."""
        return self.root / "credentials.json"

    @property
    def clouds_file(self) -> Path:
        """The accounts as OpenStack's clients read them."""
        return self.root / "clouds.yaml"

    @property
    def openrc_file(self) -> Path:
        """The administrator's account as variables for a shell."""
        return self.root / "openrc"

    @property
    def run(self) -> Path:
        """What is true while the cloud runs: process ids and configurations."""
        return self.root / "run"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor as long as it lives."""
        return self.run / "up.lock"

    @property
    def up_file(self) -> Path:
        """What the supervisor says of itself."""
        return self.run / "up.json"

    @property
    def guest_image(self) -> Path:
        """The tiny guest, once it is built."""
        return self.root / "tiny-guest.qcow2"

    @property
    def nats(self) -> Path:
        """The broker's store, and with it the log."""
        return self.root / "nats"

    def config_file(self, process: str) -> Path:
        """Return what a process is told at its start."""
        return self.run / f"{process}.config.json"

    def pid_file(self, process: str) -> Path:
        """Return where a process' id is written."""
        return self.run / f"{process}.pid"

    def log_file(self, process: str) -> Path:
        """Return where a process writes its log."""
        return self.root / "log" / f"{process}.log"

    def exists(self) -> bool:
        """Return whether a cloud has been made here."""
        return self.cell_file.exists()

    def cell(self) -> dict[str, Any]:
        """Return what the cloud is.

        Raises:
            Problem: there is none here.
        """
        try:
            cell: dict[str, Any] = json.loads(self.cell_file.read_text())
        except FileNotFoundError as error:
            raise Problem(
                f"no cloud in {self.root}",
                hint="`script/up` makes one; --state-dir names another place.",
                exit_code=USAGE,
            ) from error
        except PermissionError as error:
            raise Problem(
                f"cannot read {self.cell_file}: {error.strerror}",
                hint="Run the command as the user who started the cloud.",
                exit_code=USAGE,
            ) from error
        return cell

    def credentials(self) -> dict[str, dict[str, str]]:
        """Return the accounts by user name: username, password, project_name."""
        known: dict[str, dict[str, str]] = json.loads(self.credentials_file.read_text())
        return known

    def supervisor(self) -> dict[str, Any] | None:
        """Return what the supervisor says of itself; None if none runs here."""
        try:
            told: dict[str, Any] = json.loads(self.up_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return told if is_alive(told["pid"]) and locked(self.lock_file) else None

    def pid(self, process: str) -> int:
        """Return a process' id; 0 if it has none or is not alive."""
        try:
            pid = int(self.pid_file(process).read_text())
        except (OSError, ValueError):
            return 0
        return pid if is_alive(pid) else 0


def make_directories(state: State) -> None:
    """Make the state directory, or what is missing of it.

    Raises:
        Problem: the directory holds something that is no cloud's.
    """
    root = state.root
    if root.exists() and not state.exists():
        strange = sorted({entry.name for entry in root.iterdir()} - set(CONTENT))
        if strange:
            raise Problem(
                f"{root} is not empty and no cloud's (it holds {', '.join(strange[:3])})",
                hint="Name an empty or new directory with --state-dir.",
                exit_code=USAGE,
            )
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.chmod(0o700)
    for name in ("run", "log", "read", "history", "blobs", "host", "nats"):
        (root / name).mkdir(mode=0o700, exist_ok=True)


def make_cell(state: State, *, listen: str, driver: str) -> dict[str, Any]:
    """Give the cloud its identity and passwords, or find them; return the cell.

    Raises:
        Problem: the cloud here was made with another driver.
    """
    if not state.credentials_file.exists():
        accounts = {
            user: {
                "username": user,
                "password": secrets.token_urlsafe(18),
                "project_name": user,
            }
            for user in ("admin", "demo")
        }
        write_private(state.credentials_file, json.dumps(accounts, indent=1) + "\n")
    if state.exists():
        cell = state.cell()
        if cell["driver"] != driver:
            raise Problem(
                f"the cloud in {state.root} has driver {cell['driver']}, not {driver}",
                hint="Name another --state-dir for a second cloud.",
                exit_code=USAGE,
            )
    else:
        cell = {"cell": "embedded", "node": "node-1", "host_id": "host-1", "driver": driver}
    write_private(state.cell_file, json.dumps(cell | {"listen": listen}, indent=1) + "\n")
    return state.cell()


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, all of it or nothing, whatever happens in between."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    beside.rename(path)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended but is not yet collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def locked(path: Path) -> bool:
    """Return whether another process holds the lock."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
