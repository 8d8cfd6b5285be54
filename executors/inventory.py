"""What is really on this machine because of a cloud: for `cumulog status`, tests, and destroy.

Looks at the machine alone: processes, namespaces, links, rules, cgroups, files. Neither the agent
nor libvirt is asked, so it also finds what they have forgotten. Changes nothing.
"""

import json
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

from executors.commands import run
from executors.errors import CommandFailed
from executors.layout import Layout, namespace_path
from executors.network import namespaces
from executors.network.rules import TABLE
from executors.processes import Process, processes

_COMMAND_S = 30.0
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Everything real that belongs to a state directory.

    The first group is there because of servers, and is empty when there are none. The second is
    there because an agent was, until ``destroy``.
    """

    domains: tuple[str, ...] = ()  # names, by their QEMU processes
    disks: tuple[str, ...] = ()  # servers that have files
    taps: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()
    network_namespaces: tuple[str, ...] = ()
    dnsmasqs: tuple[int, ...] = ()
    leases: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()  # taps that packet rules know
    cgroups: tuple[str, ...] = ()

    images: tuple[str, ...] = ()
    host_namespace: tuple[str, ...] = ()
    daemons: tuple[int, ...] = ()  # libvirt's, and its subreaper
    tables: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    directory: tuple[str, ...] = ()

    def of_servers(self) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
        """Return what is there because of servers, by kind, without the kinds that are empty."""
        return self._some([f.name for f in fields(self)][:9])

    def everything(self) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
        """Return all that is there, by kind, without the kinds that are empty."""
        return self._some([f.name for f in fields(self)])

    def _some(self, names: list[str]) -> dict[str, tuple[str, ...] | tuple[int, ...]]:
        return {name: found for name in names if (found := getattr(self, name))}


def take(state_dir: Path | str) -> Inventory:
    """Return what there is of a cloud. Blocks for some tens of milliseconds.

    Without root it sees less: namespaces and rules are left out.
    """
    layout = Layout.of(state_dir)
    running = list(processes())
    links = _links(layout.host_namespace)
    return Inventory(
        domains=tuple(sorted(name for p in running if (name := domain_of(p, layout)))),
        disks=_names(layout.servers),
        taps=tuple(name for name in links if name.startswith("tap-")),
        bridges=tuple(name for name in links if name.startswith("br-")),
        network_namespaces=tuple(namespaces.named(f"{layout.prefix}-")),
        dnsmasqs=tuple(p.pid for p in running if is_dnsmasq(p, layout)),
        leases=_leases(layout),
        guarded=_guarded(layout.host_namespace),
        cgroups=tuple(str(path) for path in cgroups_of(layout)),
        images=tuple(n for n in _names(layout.images) if not n.endswith(".json")),
        host_namespace=tuple(n for n in namespaces.named(layout.prefix) if n == layout.prefix),
        daemons=tuple(p.pid for p in running if is_daemon(p, layout)),
        tables=_tables(layout.host_namespace),
        mounts=_mounts(layout),
        directory=(str(layout.host),) if layout.host.exists() else (),
    )


def domain_of(process: Process, layout: Layout) -> str | None:
    """Return the domain that a process is the QEMU of, None if of none of this cloud's."""
    for option, value in pairwise(process.arguments):
        if option == "-name" and value.startswith(f"guest={layout.prefix}-"):
            return value.removeprefix("guest=").partition(",")[0]
    return None


def is_dnsmasq(process: Process, layout: Layout) -> bool:
    """Return whether a process is a DHCP service of this cloud."""
    return any(a.startswith(f"--conf-file={layout.network}/") for a in process.arguments)


def is_daemon(process: Process, layout: Layout) -> bool:
    """Return whether a process is this cloud's libvirt daemon or its subreaper."""
    return str(layout.libvirt / "libvirtd.pid") in process.arguments


def cgroups_of(layout: Layout, domain: str = "") -> list[Path]:
    """Return the cgroup directories of a domain, or of all of this cloud's, deepest first."""
    name = domain or layout.prefix
    found = {
        path
        for pattern in (f"machine*/*{name}*", f"*/machine*/*{name}*")
        for path in CGROUPS.glob(pattern)
    }
    deep = {child for path in found for child in path.rglob("*") if child.is_dir()}
    return sorted(found | deep, key=lambda path: len(path.parts), reverse=True)


def _names(directory: Path) -> tuple[str, ...]:
    if not directory.is_dir():
        return ()
    return tuple(sorted(p.name for p in directory.iterdir() if not p.name.startswith(".")))


def _leases(layout: Layout) -> tuple[str, ...]:
    if not layout.network.is_dir():
        return ()
    return tuple(
        line for path in layout.network.glob("*/hosts") for line in path.read_text().splitlines()
    )


def _mounts(layout: Layout) -> tuple[str, ...]:
    targets = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return tuple(target for target in targets if target.startswith(f"{layout.host}/"))


def _links(namespace: str) -> list[str]:
    said = _inside(namespace, "ip", "-json", "link", "show")
    return [link["ifname"] for link in json.loads(said or "[]")]


def _tables(namespace: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in _inside(namespace, "nft", "list", "tables").splitlines())


def _guarded(namespace: str) -> tuple[str, ...]:
    said = _inside(namespace, "nft", "-j", "list", "set", "bridge", TABLE, "guarded")
    found: list[str] = []
    for entry in json.loads(said or "{}").get("nftables", ()):
        found += entry.get("set", {}).get("elem", ())
    return tuple(found)


def _inside(namespace: str, *command: str) -> str:
    """Return what a program says in a namespace; nothing if it cannot be run there."""
    if not namespaces.exists(namespace):
        return ""
    try:
        enter = ("nsenter", f"--net={namespace_path(namespace)}")
        return run([*enter, *command], deadline_s=_COMMAND_S)
    except CommandFailed:
        return ""
