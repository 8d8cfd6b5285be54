"""Whether KVM really runs a guest here: found out by running one.

A device node proves nothing: there are machines where /dev/kvm opens and every guest then hangs
in its first instructions, or creeps through them many times slower than under emulation. So a boot
sector is started that writes one number to a port, and KVM is used only if QEMU ends with the
status that this number makes, in time. The same is run under emulation first, to know how busy the
machine is. The answer is kept until the machine or QEMU changes.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal

import msgspec
import structlog
from msgspec import Struct

from executors.commands import SEARCH_PATH
from executors.errors import HypervisorError
from executors.layout import Layout
from executors.processes import machine_boot

log = structlog.get_logger(__name__)

type Accelerator = Literal["kvm", "tcg"]

_PROBE_S = 30.0
# KVM where it works takes a fraction of the time of emulation, not a multiple of it.
_KVM_LEAST_S = 1.0
_KVM_TIMES_EMULATION = 3.0
_PORT = 0xF4
_NUMBER = 0x2A
_STATUS = _NUMBER << 1 | 1  # what isa-debug-exit makes of the number
# mov al, NUMBER; out PORT, al; then halt for ever.
_CODE = bytes((0xB0, _NUMBER, 0xE6, _PORT, 0xFA, 0xF4, 0xEB, 0xFD))
_SECTOR = _CODE.ljust(510, b"\0") + b"\x55\xaa"


class _Kept(Struct, frozen=True):
    machine_boot: str
    emulator_changed_ns: int
    accelerator: Accelerator


def emulator() -> str:
    """Return QEMU's path.

    Raises:
        HypervisorError: it is not installed.
    """
    path = shutil.which("qemu-system-x86_64", path=SEARCH_PATH)
    if path is None:
        raise HypervisorError("qemu-system-x86_64 is not installed (package qemu-system-x86)")
    return path


def choose(layout: Layout, wanted: Literal["auto", "kvm", "tcg"]) -> Accelerator:
    """Return how guests shall run. Blocks, for seconds where KVM hangs and nothing is kept.

    Raises:
        HypervisorError: KVM is demanded, and does not run a guest.
    """
    if wanted == "tcg":
        return "tcg"
    found = _remembered(layout)
    if wanted == "kvm" and found != "kvm":
        raise HypervisorError(
            "accelerator kvm is asked for, but a guest does not start under KVM here"
        )
    return found


def kvm_is_useful() -> bool:
    """Return whether a guest runs under KVM, and is not slower there than emulated. Blocks."""
    began = time.monotonic()
    boots("tcg")
    emulated_s = time.monotonic() - began
    return boots("kvm", deadline_s=max(_KVM_LEAST_S, _KVM_TIMES_EMULATION * emulated_s))


def boots(accelerator: Accelerator, *, deadline_s: float = _PROBE_S) -> bool:
    """Return whether a guest runs with this accelerator within the deadline. Blocks."""
    with tempfile.TemporaryDirectory(prefix="probe-") as directory:
        disk = Path(directory) / "boot"
        disk.write_bytes(_SECTOR.ljust(1 << 20, b"\0"))
        command = [
            emulator(),
            *(
                "-accel",
                accelerator,
                "-machine",
                "pc",
                "-m",
                "16",
                "-nodefaults",
                "-no-user-config",
            ),
            *("-display", "none", "-no-reboot", "-drive", f"file={disk},format=raw,if=ide"),
            *("-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=0x04"),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == _STATUS


def _remembered(layout: Layout) -> Accelerator:
    note = layout.host / "accelerator.json"
    changed_ns = Path(emulator()).stat().st_mtime_ns
    try:
        kept = msgspec.json.decode(note.read_bytes(), type=_Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        kept = None
    if kept and (kept.machine_boot, kept.emulator_changed_ns) == (machine_boot(), changed_ns):
        return kept.accelerator
    found: Accelerator = "tcg"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        log.info("accelerator", found=found, why="there is no /dev/kvm that we may use")
    elif kvm_is_useful():
        found = "kvm"
        log.info("accelerator", found=found, why="a guest started under KVM")
    else:
        log.warning("accelerator", found=found, why="a guest under KVM did not get anywhere")
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    note.write_bytes(
        msgspec.json.encode(
            _Kept(machine_boot=machine_boot(), emulator_changed_ns=changed_ns, accelerator=found)
        )
    )
    return found
