"""The libvirt daemon of one cloud: started by hand, in namespaces of its own, and left running.

It works in the host namespace (where the bridges are) and takes directories under ``DIR/host`` for
/etc/libvirt, /run/libvirt and so on, so it meets neither the machine's own libvirt nor another
cloud's. It outlives the agent, as guests must; the next agent finds it by its socket.
"""

import grp
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

import structlog

from executors.commands import SEARCH_PATH
from executors.errors import HypervisorError
from executors.hypervisor import subreaper
from executors.layout import Layout, namespace_path
from executors.processes import Process, end, machine_boot, pid_in

log = structlog.get_logger(__name__)

_START_S = 60.0
_POLL_S = 0.01
_SOCKET_PATH_BYTES = 100  # of the 108 of sockaddr_un
# Ours, under DIR/host/libvirt, and what it lies over in the daemon's mount namespace.
BINDS = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "run": "/run/libvirt",
}

# libvirt looks these up before it reads which user we name instead, and fails without; the package
# that makes them also starts services. The number is the one Debian reserves for that user.
_ACCOUNT = "libvirt-qemu"
_ACCOUNT_ID = 64055
_GROUPS = (_ACCOUNT, "kvm")

# The monolithic daemon first, then the one that takes its place on newer systems.
_SOCKETS = {"libvirtd": "libvirt-sock", "virtqemud": "virtqemud-sock"}

_DAEMON_CONF = """\
listen_tls = 0
listen_tcp = 0
unix_sock_group = "root"
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host_uuid}"
log_outputs = "3:stderr"
max_clients = 50
"""

_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
namespaces = [ ]
remember_owner = 0
stdio_handler = "file"
"""


class Daemon:
    """Finds or starts the daemon. All methods block."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directory = layout.libvirt
        self._socket_directory = -1

    @property
    def pid_file(self) -> Path:
        """Return where the daemon writes its number."""
        return self._directory / "libvirtd.pid"

    def uri(self) -> str:
        """Return the URI to open, short enough for a socket's name however deep DIR lies."""
        path = self._socket()
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            if self._socket_directory < 0:
                self._socket_directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            path = Path(f"/proc/self/fd/{self._socket_directory}") / path.name
        return f"qemu+unix:///system?socket={quote(str(path))}"

    def ensure(self) -> None:
        """Have a daemon that answers.

        Raises:
            HypervisorError: it does not start; the end of its log is in the text.
        """
        if self._answers():
            return
        self._end_stale()
        self._prepare()
        log.info("libvirt.starting", directory=str(self._directory))
        self._start()
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if time.monotonic() > deadline:
                raise HypervisorError(f"the libvirt daemon does not start: {self._last_words()}")
            time.sleep(_POLL_S)

    def is_ours(self, process: Process) -> bool:
        """Return whether a process is this cloud's daemon."""
        return str(self.pid_file) in process.arguments

    def _socket(self) -> Path:
        return self._directory / "run" / _SOCKETS[_program().name]

    def _answers(self) -> bool:
        try:
            path = unquote(self.uri().partition("socket=")[2])
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(path)
        except OSError:
            return False
        return True

    def _end_stale(self) -> None:
        """End a daemon that lives but does not answer. Guests run on."""
        pid = pid_in(self.pid_file)
        if pid is not None:
            end(pid, self.is_ours, grace_s=0.0)

    def _prepare(self) -> None:
        for name in BINDS:
            (self._directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget_before_machine_boot()
        conf = _DAEMON_CONF.format(host_uuid=uuid.uuid5(uuid.NAMESPACE_OID, self._layout.prefix))
        for name in ("libvirtd.conf", "virtqemud.conf"):
            (self._directory / "etc" / name).write_text(conf)
        (self._directory / "etc/qemu.conf").write_text(_QEMU_CONF)
        self._prepare_accounts()
        for target in BINDS.values():
            if not Path(target).is_dir():
                Path(target).mkdir(mode=0o755, parents=True)
                self._note_made(target)

    def _prepare_accounts(self) -> None:
        """Give the daemon, and it alone, the accounts it insists on where there are none."""
        for name in ("passwd", "group"):
            (self._directory / name).unlink(missing_ok=True)
        if not _known(pwd.getpwnam, _ACCOUNT):
            line = f"{_ACCOUNT}:x:{_ACCOUNT_ID}:{_ACCOUNT_ID}::/nonexistent:/usr/sbin/nologin\n"
            text = Path("/etc/passwd").read_text() + line
            (self._directory / "passwd").write_text(text)
        groups = [name for name in _GROUPS if not _known(grp.getgrnam, name)]
        if groups:
            lines = "".join(f"{name}:x:{_ACCOUNT_ID + n}:\n" for n, name in enumerate(groups))
            (self._directory / "group").write_text(Path("/etc/group").read_text() + lines)

    def _binds(self) -> dict[str, str]:
        """Return what lies over what in the daemon's mount namespace."""
        accounts = {n: f"/etc/{n}" for n in ("passwd", "group") if (self._directory / n).exists()}
        return BINDS | accounts

    def _forget_before_machine_boot(self) -> None:
        """Clear what would be in /run: after a restart of the machine it speaks of no process."""
        note = self._directory / "machine-boot"
        boot = machine_boot()
        if not note.exists() or note.read_text() != boot:
            shutil.rmtree(self._directory / "run")
            (self._directory / "run").mkdir(mode=0o700)
            note.write_text(boot)

    def _note_made(self, target: str) -> None:
        """Remember a directory of the machine that we made, for ``destroy``."""
        with (self._directory / "made").open("a") as file:
            file.write(target + "\n")

    def _start(self) -> None:
        log_path = self._directory / "log" / "daemon.log"
        command = [
            *(sys.executable, "-I", "-S", subreaper.__file__),
            *(str(namespace_path(self._layout.host_namespace)), str(log_path)),
            *(f"{self._directory / name}:{target}" for name, target in self._binds().items()),
            *("--", str(_program()), "--pid-file", str(self.pid_file)),
            *("--config", str(self._directory / "etc" / f"{_program().name}.conf")),
        ]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": SEARCH_PATH, "LC_ALL": "C", "HOME": "/root"},
            timeout=_START_S,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace")[-400:]
            raise HypervisorError(f"the libvirt daemon cannot be started: {said}")

    def _last_words(self) -> str:
        try:
            lines = (self._directory / "log/daemon.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "it wrote no log"
        return " / ".join(lines[-3:])[-600:] or "it said nothing"


def _known(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except KeyError:
        return False
    return True


def _program() -> Path:
    """Return the daemon's path."""
    for name in _SOCKETS:
        if found := shutil.which(name, path=SEARCH_PATH):
            return Path(found)
    raise HypervisorError("libvirtd is not installed (package libvirt-daemon)")
