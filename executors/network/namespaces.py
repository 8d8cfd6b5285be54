"""Network namespaces: made, removed, and worked in from threads.

A thread can be in another namespace than its process. The threads here live in the host namespace
of one cloud; programs that they start, and sockets that they open, are in it. The machine's own
namespace is never touched.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from executors.commands import run
from executors.errors import CommandFailed, NetworkError
from executors.layout import namespace_path
from executors.waiting import in_thread

_COMMAND_S = 30.0
_STEP_S = 60.0
_THREADS = 4


def exists(name: str) -> bool:
    """Return whether a namespace has this name; a file that a crash left behind is none."""
    path = namespace_path(name)
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def ensure(name: str) -> bool:
    """Have a namespace of this name, with only lo in it, up; True if it was made now. Blocks.

    Raises:
        NetworkError: the kernel refused.
    """
    if exists(name):
        return False
    try:
        namespace_path(name).unlink(missing_ok=True)
        run(["ip", "netns", "add", name], deadline_s=_COMMAND_S)
    except (OSError, CommandFailed) as error:
        raise NetworkError("a network namespace cannot be made") from error
    return True


def remove(name: str) -> bool:
    """Remove a namespace's name, and with it what no process holds; False if it was not there."""
    if not namespace_path(name).exists():
        return False
    try:
        if exists(name):
            run(["ip", "netns", "delete", name], deadline_s=_COMMAND_S)
        else:
            namespace_path(name).unlink(missing_ok=True)
    except (OSError, CommandFailed) as error:
        raise NetworkError("a network namespace cannot be removed") from error
    return True


def named(prefix: str) -> list[str]:
    """Return the names of all namespaces that begin so."""
    directory = namespace_path("")
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if path.name.startswith(prefix))


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Work in a namespace, in this thread, and come back.

    Raises:
        NetworkError: there is no such namespace.
    """
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            there = os.open(namespace_path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NetworkError(f"there is no network namespace {name}") from error
        try:
            os.setns(there, os.CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            os.setns(back, os.CLONE_NEWNET)
    finally:
        os.close(back)


def without_ipv6() -> None:
    """Let links of this thread's namespace have no IPv6, so that they say nothing by themselves."""
    for which in ("all", "default"):
        path = Path("/proc/sys/net/ipv6/conf") / which / "disable_ipv6"
        with contextlib.suppress(FileNotFoundError):
            path.write_text("1")


class Threads:
    """A few threads that live in one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._pool = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="network", initializer=self._enter
        )

    async def run[T](self, work: Callable[[], T]) -> T:
        """Run blocking work in the namespace."""
        return await in_thread(self._pool, work, deadline_s=_STEP_S)

    def close(self) -> None:
        """Let the threads end. Nothing may be under way."""
        self._pool.shutdown(wait=True)

    def _enter(self) -> None:
        there = os.open(namespace_path(self._namespace), os.O_RDONLY | os.O_CLOEXEC)
        os.setns(there, os.CLONE_NEWNET)
        os.close(there)
