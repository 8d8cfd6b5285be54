"""Remove every trace of a cloud from this machine's hypervisor, network and ``DIR/host``.

Goes by what is really there, so it also clears what a crash or an older run has left. May be run
again at any time; what is not there is passed over. Blobs, log and read models are not the host's,
and stay.

    python -m executors.destroy STATE_DIR
"""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from executors.errors import HostError, reason
from executors.inventory import CGROUPS, cgroups_of, domain_of, is_daemon, is_dnsmasq
from executors.layout import Layout
from executors.network import namespaces
from executors.processes import Process, end, processes

_DAEMON_GRACE_S = 10.0
_DNSMASQ_GRACE_S = 2.0


def destroy(state_dir: Path | str) -> list[str]:
    """Remove everything; return what was removed, one sentence each. Blocks.

    Raises:
        HostError: an agent is still at work, or something could not be removed.
    """
    layout = Layout.of(state_dir)
    with _no_agent(layout):
        done = [
            # The daemon first, so that it does not clean up under our hands.
            *_end("libvirt daemon", lambda p: _is_libvirtd(p, layout), _DAEMON_GRACE_S),
            *_end("guest", lambda p: domain_of(p, layout) is not None, 0.0),
            *_end("subreaper", lambda p: is_daemon(p, layout), 0.0),
            *_end("DHCP service", lambda p: is_dnsmasq(p, layout), _DNSMASQ_GRACE_S),
            *_remove_namespaces(layout),
            *_remove_cgroups(layout),
            *_remove_made_directories(layout),
        ]
        if layout.host.exists():
            shutil.rmtree(layout.host)
            done.append(f"removed {layout.host}")
    return done


@contextlib.contextmanager
def _no_agent(layout: Layout) -> Iterator[None]:
    """Make sure that no agent makes anew what we remove."""
    try:
        lock = os.open(layout.host / "agent.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(f"an agent is at work in {layout.host}; stop it first") from error
        yield
    finally:
        os.close(lock)


def _is_libvirtd(process: Process, layout: Layout) -> bool:
    return is_daemon(process, layout) and Path(process.arguments[0]).name.endswith("d")


def _end(kind: str, is_it: Callable[[Process], bool], grace_s: float) -> Iterator[str]:
    for process in processes():
        if not is_it(process):
            continue
        if not end(process.pid, is_it, grace_s=grace_s) and _lives(process.pid, is_it):
            raise HostError(f"{kind} {process.pid} cannot be ended")
        yield f"ended {kind} {process.pid}"


def _lives(pid: int, is_it: Callable[[Process], bool]) -> bool:
    return any(p.pid == pid and is_it(p) for p in processes())


def _remove_namespaces(layout: Layout) -> Iterator[str]:
    for name in namespaces.named(layout.prefix):
        if name == layout.prefix or name.startswith(f"{layout.prefix}-"):
            namespaces.remove(name)
            yield f"removed network namespace {name}"


def _remove_cgroups(layout: Layout) -> Iterator[str]:
    for path in cgroups_of(layout):
        with contextlib.suppress(FileNotFoundError):
            path.rmdir()
            yield f"removed cgroup {path}"
    for path in (*CGROUPS.glob("machine"), *CGROUPS.glob("*/machine")):
        with contextlib.suppress(OSError):  # other guests are in it
            path.rmdir()


def _remove_made_directories(layout: Layout) -> Iterator[str]:
    """Remove directories of the machine that were made only to lie under ours, if still empty."""
    note = layout.libvirt / "made"
    if not note.exists():
        return
    for line in note.read_text().splitlines():
        with contextlib.suppress(OSError):
            Path(line).rmdir()
            yield f"removed {line}"


def main() -> None:
    """Destroy the cloud named on the command line, saying what is removed."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m executors.destroy STATE_DIR")
    try:
        for line in destroy(sys.argv[1]):
            print(line)  # noqa: T201  # that is what it is run for
    except (HostError, OSError) as error:
        sys.exit(reason(error))


if __name__ == "__main__":
    main()
