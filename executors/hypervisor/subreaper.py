"""Start a daemon in namespaces of its own, and collect whatever it leaves behind.

Run by itself (``python -I -S subreaper.py``), and imports nothing but the standard library, since
it lives as long as the guests. QEMU is an orphan of libvirt's daemon; where process 1 collects
orphans late, libvirt takes the dead for living and every stop is slow. A subreaper that waits for
all gets them at once. It must be a process of its own: waiting for any child would steal the
statuses that others wait for.

    subreaper.py NETNS LOG SOURCE:TARGET... -- PROGRAM ARGUMENT...

Detaches, enters the network namespace NETNS, makes a mount namespace in which each SOURCE
lies over TARGET, starts PROGRAM, and ends when it has no child left. SIGTERM is passed on.
"""

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19  # later unmounts outside, of network namespaces above all, reach us


def check(result: int) -> None:
    """Raise what a C library call has left in errno."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main() -> None:
    """Do as the module says."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace, log, *rest = sys.argv[1:]
    split = rest.index("--")
    binds, command = rest[:split], rest[split + 1 :]

    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, descriptor)

    with open(namespace, "rb") as file:  # noqa: PTH123  # pathlib would double our memory
        os.setns(file.fileno(), os.CLONE_NEWNET)
    os.unshare(os.CLONE_NEWNS)
    check(libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None))
    for bind in binds:
        source_path, _, target = bind.rpartition(":")
        check(libc.mount(source_path.encode(), target.encode(), None, MS_BIND, None))

    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    pid = os.fork()
    if not pid:
        os.execvp(command[0], command)  # noqa: S606  # an argument list, and no shell

    def pass_on(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break


if __name__ == "__main__":
    main()
