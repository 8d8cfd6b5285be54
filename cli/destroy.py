"""`cumulog destroy`: nothing of a cloud stays on this machine.

Invariant: only what belongs to this state directory is touched, and the file that says that there
is a cloud goes last, so that a destroy that was cut short can be run again.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from cli.problem import USAGE, Problem
from cli.state import CONTENT, State, is_alive
from cli.steps import line, step

STOP_S = 120.0
HOST_S = 300.0


def destroy_cloud(state_dir: str, *, sure: bool) -> None:
    """Stop the control plane, clear the host, remove the files.

    Raises:
        Problem: there is no cloud, nobody said yes, or something could not be removed.
    """
    state = State.at(state_dir)
    cell = state.cell()
    if not sure:
        _ask(state)
    if cell["driver"] == "libvirt" and os.geteuid() != 0:
        raise Problem("removing servers and networks needs root", hint="Use sudo.", exit_code=USAGE)
    with step("Control plane") as current:
        current.result = _stop(state)
    with step("Servers and networks of this host") as current:
        current.result = _clear_host(state)
    with step("Files") as current:
        _remove_files(state)
        current.result = str(state.root)
    line("Nothing of this cloud is left.")


def _ask(state: State) -> None:
    if not sys.stdin.isatty():
        raise Problem(
            f"this removes every server and all data in {state.root}",
            hint="Say --yes.",
            exit_code=USAGE,
        )
    print(f"This removes every server and all data in {state.root}. Type yes to go on: ", end="")
    if input().strip() != "yes":
        raise Problem("nothing was removed")


def _stop(state: State) -> str:
    supervisor = state.supervisor()
    pid = supervisor["pid"] if supervisor else 0
    if pid:
        os.kill(pid, signal.SIGTERM)
        _wait_gone(pid)
    # What a killed supervisor left over ends by itself; the broker does not.
    command = [sys.executable, "-P", "-m", "cli.serve", "end-broker", str(state.nats)]
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=STOP_S, check=True)
    from cli.up import end_orphans

    end_orphans(state)
    return "stopped" if pid else "was not running"


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + STOP_S
    while is_alive(pid):
        if time.monotonic() > deadline:
            raise Problem(f"the cloud (pid {pid}) does not stop", hint="Its logs say why.")
        time.sleep(0.05)


def _clear_host(state: State) -> str:
    """Run the executors' own clearing in a process of its own, which may need root."""
    command = [sys.executable, "-P", "-m", "executors.destroy", str(state.root)]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HOST_S,
        check=False,
    )
    if done.returncode != 0:
        raise Problem(
            f"the host could not be cleared: {done.stderr.strip()[-500:]}",
            hint="Run the command again; it goes on where it stopped.",
        )
    removed = len(done.stdout.splitlines())
    return f"{removed} things removed" if removed else "nothing was there"


def _remove_files(state: State) -> None:
    for name in CONTENT:
        path = state.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    _remove_if_empty(state.root)


def _remove_if_empty(directory: Path) -> None:
    if not any(directory.iterdir()):
        directory.rmdir()
