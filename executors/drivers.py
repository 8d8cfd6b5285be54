"""Which drivers a host has: the one place where they are chosen."""

import os
import shutil
from collections.abc import Callable

from executors.commands import SEARCH_PATH
from executors.converge import Drivers
from executors.errors import HostError
from executors.hypervisor.simulated import SimulatedHypervisor
from executors.layout import Layout
from executors.network.simulated import SimulatedNetworks
from executors.records import FileRecords, MemoryRecords, Records
from executors.storage.simulated import SimulatedStorage
from schemas.config import Config

# What a real host runs; the first found of each line is taken. The package names are Debian's.
PROGRAMS: dict[tuple[str, ...], str] = {
    ("qemu-system-x86_64",): "qemu-system-x86",
    ("qemu-img",): "qemu-utils",
    ("libvirtd", "virtqemud"): "libvirt-daemon-system",
    ("dnsmasq",): "dnsmasq-base",
    ("nft",): "nftables",
    ("ip",): "iproute2",
    ("prlimit",): "util-linux",
}


def missing() -> list[str]:
    """Return what keeps this machine from being a real host, as sentences; empty if nothing."""
    found = [
        f"{' or '.join(programs)} is not installed (package {package})"
        for programs, package in PROGRAMS.items()
        if not any(shutil.which(program, path=SEARCH_PATH) for program in programs)
    ]
    if os.geteuid() != 0:
        found.append("network namespaces, bridges and guests need root")
    return found


def _simulated(config: Config) -> tuple[Drivers, Records]:  # noqa: ARG001  # as the other's
    drivers = Drivers(
        hypervisor=SimulatedHypervisor(),
        storage=SimulatedStorage(),
        networks=SimulatedNetworks(),
    )
    return drivers, MemoryRecords()


def _libvirt(config: Config) -> tuple[Drivers, Records]:
    # Imported here: a simulated host needs neither libvirt nor pyroute2.
    from executors.hypervisor.libvirt_host import LibvirtHypervisor  # noqa: PLC0415
    from executors.network.linux import LinuxNetworks  # noqa: PLC0415
    from executors.storage.files import FileStorage  # noqa: PLC0415

    if lacks := missing():
        raise HostError("this machine cannot run guests: " + "; ".join(lacks))
    layout = Layout.of(config.state_dir)
    drivers = Drivers(
        hypervisor=LibvirtHypervisor(layout, accelerator=config.accelerator),
        storage=FileStorage(layout, check_images=config.check_images),
        networks=LinuxNetworks(layout),
    )
    return drivers, FileRecords(layout)


DRIVERS: dict[str, Callable[[Config], tuple[Drivers, Records]]] = {
    "simulated": _simulated,
    "libvirt": _libvirt,
}


def choose(config: Config) -> tuple[Drivers, Records]:
    """Return the drivers that the configuration asks for, and where their records are kept.

    Raises:
        HostError: this machine lacks what the drivers need; the text says what.
    """
    return DRIVERS[config.driver](config)
