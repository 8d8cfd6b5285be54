"""A network's DHCP service: dnsmasq in the network's own namespace, static leases only.

Two files: what is served (a change means a restart) and who is served (a change means a signal).
dnsmasq outlives the agent, since guests renew their leases; the next agent finds it by its pid
file, and believes in it only if it reads our files in the right namespace.
"""

import os
import shutil
import signal
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from executors.commands import run
from executors.errors import CommandFailed, NetworkError
from executors.layout import Layout, namespace_path
from executors.network import namespaces
from executors.network.links import SERVICE_LINK
from executors.network.rules import METADATA_ADDRESS
from executors.processes import Process, end, in_namespace, pid_in, read
from schemas.network import Network, Subnet
from schemas.work import PortSpec

_START_S = 30.0
_END_S = 2.0
_LEASE = "1h"


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a network's namespace offers, worked out from the ports of this host."""

    network: Network
    addresses: tuple[tuple[str, int], ...]  # of the namespace, with prefix lengths
    conf: str  # without the paths
    hosts: str


def service_of(specs: list[PortSpec]) -> Service | None:
    """Return the service for ports of one network, None if none of its subnets has DHCP. Pure."""
    first = specs[0]
    if first.dhcp_port is None:
        return None
    own = {fixed.subnet_id: fixed.ip_address for fixed in first.dhcp_port.fixed_ips}
    subnets = [s for s in first.subnets if s.enable_dhcp and s.subnet_id in own]
    if not subnets:
        return None
    tags = {subnet.subnet_id: f"s{n}" for n, subnet in enumerate(subnets)}
    lines = [_GENERAL.strip()]
    for subnet in subnets:
        lines += _subnet(subnet, tags[subnet.subnet_id], own[subnet.subnet_id], first.network.mtu)
    leases = [
        f"{spec.port.mac_address},{IPv4Address(fixed.ip_address)},{_name(fixed.ip_address)}"
        for spec in sorted(specs, key=lambda s: s.port.port_id)
        for fixed in spec.port.fixed_ips
        if fixed.subnet_id in tags
    ]
    addresses = [(own[s.subnet_id], IPv4Network(s.cidr, strict=False).prefixlen) for s in subnets]
    return Service(
        network=first.network,
        addresses=(*addresses, (METADATA_ADDRESS, 32)),
        conf="\n".join(lines) + "\n",
        hosts="".join(f"{lease}\n" for lease in leases),
    )


_GENERAL = f"""
interface={SERVICE_LINK}
bind-interfaces
except-interface=lo
port=0
no-resolv
no-hosts
no-ping
user=root
leasefile-ro
quiet-dhcp
dhcp-authoritative
dhcp-lease-max=65536
"""


def _subnet(subnet: Subnet, tag: str, own: str, mtu: int) -> list[str]:
    """Return a subnet's options (RFC 2132; 121 is RFC 3442, and replaces 3 for who knows it)."""
    network = IPv4Network(subnet.cidr, strict=False)
    routes = f"{METADATA_ADDRESS}/32,{IPv4Address(own)}"
    router = ""
    if subnet.gateway_ip:
        router = f",{IPv4Address(subnet.gateway_ip)}"
        routes += f",0.0.0.0/0{router}"
    lines = [
        f"dhcp-range=set:{tag},{network.network_address},static,{network.netmask},{_LEASE}",
        f"dhcp-option=tag:{tag},3{router}",
        f"dhcp-option=tag:{tag},26,{mtu}",
        f"dhcp-option=tag:{tag},121,{routes}",
    ]
    if subnet.dns_nameservers:
        servers = ",".join(str(IPv4Address(a)) for a in subnet.dns_nameservers)
        lines.append(f"dhcp-option=tag:{tag},6,{servers}")
    return lines


def _name(address: str) -> str:
    return "host-" + str(IPv4Address(address)).replace(".", "-")


class Dnsmasq:
    """One network's dnsmasq. All methods block."""

    def __init__(self, layout: Layout, namespace: str) -> None:
        self._namespace = namespace
        self._directory = layout.network / namespace
        self._conf = self._directory / "dnsmasq.conf"
        self._hosts = self._directory / "hosts"
        self._pid_file = self._directory / "dnsmasq.pid"

    def ensure(self, service: Service) -> bool:
        """Have it serve this; True if it had to be started.

        Raises:
            NetworkError: it does not start; what it said is in the cause.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        conf = service.conf + "".join(
            f"{option}={path}\n"
            for option, path in (
                ("dhcp-hostsfile", self._hosts),
                ("pid-file", self._pid_file),
                ("log-facility", self._directory / "dnsmasq.log"),
            )
        )
        hosts_changed = _write(self._hosts, service.hosts)
        same_conf = not _write(self._conf, conf)
        pid = self.pid()
        if pid is not None and same_conf:
            if hosts_changed:
                os.kill(pid, signal.SIGHUP)
            return False
        self._end()
        self._start()
        return True

    def pid(self) -> int | None:
        """Return the number of the process that serves this network, None if none does."""
        pid = pid_in(self._pid_file)
        if pid is None or not in_namespace(pid, namespace_path(self._namespace)):
            return None
        process = read(pid)
        return pid if process is not None and self._is_ours(process) else None

    def remove(self) -> None:
        """End it and remove its files. NetworkError."""
        self._end()
        try:
            shutil.rmtree(self._directory, ignore_errors=False)
        except FileNotFoundError:
            return
        except OSError as error:
            raise NetworkError("a DHCP service's files cannot be removed") from error

    def _start(self) -> None:
        try:
            with namespaces.inside(self._namespace):
                run(["dnsmasq", f"--conf-file={self._conf}"], deadline_s=_START_S)
        except CommandFailed as error:
            raise NetworkError("the DHCP service does not start") from error

    def _end(self) -> None:
        pid = pid_in(self._pid_file)
        if pid is not None:
            end(pid, self._is_ours, grace_s=_END_S)

    def _is_ours(self, process: Process) -> bool:
        return f"--conf-file={self._conf}" in process.arguments


def _write(path: Path, text: str) -> bool:
    """Write a file whole, if it says something else; True if so."""
    try:
        if path.read_text() == text:
            return False
    except FileNotFoundError:
        pass
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
    return True
