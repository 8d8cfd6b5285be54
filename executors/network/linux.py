"""Networks as Linux bridges, in a namespace of the cloud's own.

The host namespace has a bridge per network, the guests' taps and all packet rules. Each network has
a namespace more, for DHCP and metadata, joined to its bridge. The machine's own namespace is left
as it was found. What is plugged is known in memory and told anew by the desired state after a
start; what is really there is looked at whenever it is not known to have been put right.
"""

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import structlog

from executors.commands import run
from executors.errors import CommandFailed, NetworkError
from executors.hypervisor.port import Nic
from executors.layout import Layout, bridge_name, dhcp_link_name, tap_name
from executors.network import links, namespaces, rules
from executors.network.dhcp import Dnsmasq, Service, service_of
from executors.network.flows import forget_flows
from executors.network.metadata import MetadataListener, open_socket
from executors.network.numbers import NumberBook
from executors.network.port import AskMetadata
from schemas.host import DriftFound
from schemas.ids import NetworkId, ServerId
from schemas.work import PortSpec

log = structlog.get_logger(__name__)

_NFT_S = 30.0
_MODPROBE_S = 30.0
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


class LinuxNetworks:
    """This cloud's networks on this machine."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._threads = namespaces.Threads(layout.host_namespace)
        self._numbers: NumberBook
        self._ask: AskMetadata
        self._ports: dict[ServerId, tuple[PortSpec, ...]] = {}
        # Held while bridges, namespaces and services are made, changed or removed.
        self._structure = asyncio.Lock()
        self._bridged: set[NetworkId] = set()  # known to have a bridge
        self._served: dict[NetworkId, Service] = {}  # known to be served so
        self._listeners: dict[NetworkId, MetadataListener] = {}
        self._rules_lock = asyncio.Lock()
        self._rules_wanted = 0  # counts changes of ports
        self._rules_applied = 0
        self._rules_text: str | None = None
        self._rules_listed: str | None = None  # as the kernel lists what we applied

    async def start(self, ask_metadata: AskMetadata) -> None:
        """Have the host namespace, able to judge bridged packets.

        Raises:
            NetworkError: the kernel lacks something; the text says what.
        """
        self._ask = ask_metadata
        self._layout.network.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._numbers = NumberBook(self._layout.network / "numbers.json")
        await asyncio.to_thread(namespaces.ensure, self._layout.host_namespace)
        await self._threads.run(_prepare)

    async def close(self) -> None:
        """Stop answering for metadata. All else stays."""
        for listener in self._listeners.values():
            await listener.close()
        self._listeners.clear()
        await asyncio.to_thread(self._threads.close)

    async def plug(self, server_id: ServerId, ports: tuple[PortSpec, ...]) -> tuple[Nic, ...]:
        """Have bridges and packet rules for a server's ports.

        Raises:
            NetworkError: the kernel refused.
        """
        if self._ports.get(server_id) != ports:
            self._ports[server_id] = ports
            self._rules_wanted += 1
        for spec in ports:
            if spec.network.network_id not in self._bridged:
                async with self._structure:
                    await self._ensure_bridge(spec)
        await self._apply_rules()
        return tuple(
            Nic(
                tap=tap_name(spec.port.port_id),
                bridge=bridge_name(spec.network.network_id),
                mac_address=spec.port.mac_address,
                mtu=spec.network.mtu,
            )
            for spec in ports
        )

    async def serve(self, ports: tuple[PortSpec, ...]) -> None:
        """Have DHCP and metadata for the networks of these ports.

        Raises:
            NetworkError: the kernel or dnsmasq refused.
        """
        for network_id in {spec.network.network_id: None for spec in ports}:
            async with self._structure:
                await self._serve(network_id)

    async def unplug(self, server_id: ServerId) -> None:
        """Forget a server's ports, and take down networks that have none left here.

        Raises:
            NetworkError: something could not be taken down.
        """
        ports = self._ports.pop(server_id, None)
        if ports is None:
            return
        self._rules_wanted += 1
        zones = self._numbers.networks()
        await self._apply_rules()
        await self._threads.run(partial(forget_flows, zones, ports))
        for network_id in {spec.network.network_id: None for spec in ports}:
            async with self._structure:
                if self._on(network_id):
                    await self._serve(network_id)
                else:
                    await self._take_down(network_id)

    async def reconcile(
        self, wanted: Mapping[ServerId, tuple[PortSpec, ...]]
    ) -> tuple[DriftFound, ...]:
        """Make what is really there equal to the ports wanted; return what differed.

        Raises:
            NetworkError: something could not be put right; the next time may do better.
        """
        if self._ports != wanted:
            self._ports = dict(wanted)
            self._rules_wanted += 1
        drift: list[DriftFound] = []
        async with self._structure:
            found = await self._threads.run(links.all_links)
            for network_id in self._networks():
                drift += await self._audit(network_id, found)
            drift += await self._remove_strays(found)
        drift += await self._audit_rules()
        return tuple(drift)

    # One network. Callers hold the lock of the structure.

    def _on(self, network_id: NetworkId) -> list[PortSpec]:
        """Return the ports of this host on a network."""
        return [s for s in self._all_ports() if s.network.network_id == network_id]

    def _all_ports(self) -> list[PortSpec]:
        return [spec for ports in self._ports.values() for spec in ports]

    def _networks(self) -> set[NetworkId]:
        return {spec.network.network_id for spec in self._all_ports()}

    async def _ensure_bridge(self, spec: PortSpec) -> None:
        network_id, mtu = spec.network.network_id, spec.network.mtu
        await self._threads.run(partial(links.ensure_bridge, network_id, mtu))
        self._bridged.add(network_id)

    async def _serve(self, network_id: NetworkId) -> None:
        specs = self._on(network_id)
        service = service_of(specs) if specs else None
        if service is None or self._served.get(network_id) == service:
            return
        namespace = self._layout.network_namespace(network_id)
        before = self._served.get(network_id)
        dnsmasq = Dnsmasq(self._layout, namespace)
        if before is None or before.addresses != service.addresses:
            mtu, addresses = service.network.mtu, list(service.addresses)
            await self._threads.run(lambda: namespaces.ensure(namespace))
            await self._threads.run(
                partial(links.ensure_service_link, network_id, namespace, mtu, addresses)
            )
        await self._threads.run(lambda: dnsmasq.ensure(service))
        if network_id not in self._listeners:
            await self._listen(network_id, namespace)
        self._served[network_id] = service

    async def _listen(self, network_id: NetworkId, namespace: str) -> None:
        def listen() -> socket.socket:
            with links.kernel("listening for metadata requests"), namespaces.inside(namespace):
                return open_socket()

        listener = MetadataListener(network_id, self._ask)
        await listener.start(await self._threads.run(listen))
        self._listeners[network_id] = listener

    async def _take_down(self, network_id: NetworkId) -> None:
        self._served.pop(network_id, None)
        self._bridged.discard(network_id)
        if (listener := self._listeners.pop(network_id, None)) is not None:
            await listener.close()
        await self._remove_namespace(self._layout.network_namespace(network_id))
        for name in (dhcp_link_name(network_id), bridge_name(network_id)):
            await self._threads.run(partial(links.remove, name))

    async def _remove_namespace(self, namespace: str) -> bool:
        dnsmasq = Dnsmasq(self._layout, namespace)
        await self._threads.run(dnsmasq.remove)
        return await self._threads.run(lambda: namespaces.remove(namespace))

    # Rules

    async def _apply_rules(self) -> None:
        """Let the kernel's rules be those of the ports known now. Callers may share one change."""
        mine = self._rules_wanted
        async with self._rules_lock:
            if self._rules_applied >= mine and self._rules_text is not None:
                return
            counted = self._rules_wanted
            text = self._render()
            if text != self._rules_text:
                await self._load(text)
            self._rules_applied = counted

    def _render(self) -> str:
        ports = self._all_ports()
        numbers = self._numbers.assign((s.port.port_id for s in ports), self._networks())
        return rules.render(ports, numbers)

    async def _load(self, text: str) -> None:
        self._rules_text = self._rules_listed = None
        try:
            await self._threads.run(lambda: run(["nft", "-f", "-"], stdin=text, deadline_s=_NFT_S))
        except CommandFailed as error:
            raise NetworkError("the packet rules were refused") from error
        self._rules_text = text

    async def _list(self) -> str:
        command = ["nft", "--stateless", "list", "ruleset"]
        try:
            return await self._threads.run(lambda: run(command, deadline_s=_NFT_S))
        except CommandFailed as error:
            raise NetworkError("the packet rules cannot be listed") from error

    # What is really there

    async def _audit(
        self, network_id: NetworkId, found: Mapping[str, str | None]
    ) -> list[DriftFound]:
        """Put a wanted network right: what a start or a stranger may have taken away."""
        drift: list[DriftFound] = []
        bridge, namespace = bridge_name(network_id), self._layout.network_namespace(network_id)
        specs = self._on(network_id)
        if not specs:
            return drift
        if bridge not in found:
            drift.append(_drift("bridge", bridge, "missing", "made"))
        await self._ensure_bridge(specs[0])
        for spec in specs:
            tap = tap_name(spec.port.port_id)
            if tap in found and found[tap] != bridge:
                drift.append(_drift("tap", tap, f"in {found[tap]}", f"put into {bridge}"))
                await self._threads.run(partial(links.put_into, tap, bridge))
        drift += await self._audit_service(network_id, namespace, found)
        return drift

    async def _audit_service(
        self, network_id: NetworkId, namespace: str, found: Mapping[str, str | None]
    ) -> list[DriftFound]:
        service = service_of(self._on(network_id))
        if service is None:
            return []
        drift: list[DriftFound] = []
        whole = namespaces.exists(namespace)
        if not whole:
            drift.append(_drift("netns", namespace, "missing", "made"))
        joined = found.get(dhcp_link_name(network_id)) == bridge_name(network_id)
        if whole and not joined:
            drift.append(_drift("link", dhcp_link_name(network_id), "not joined", "joined"))
        dnsmasq = Dnsmasq(self._layout, namespace)
        if whole and await self._threads.run(dnsmasq.pid) is None:
            drift.append(_drift("dnsmasq", namespace, "not running", "started"))
        if drift:
            self._served.pop(network_id, None)
            if not (whole and joined) and (one := self._listeners.pop(network_id, None)):
                await one.close()  # it listens in a namespace that is gone
        await self._serve(network_id)
        return drift

    async def _remove_strays(self, found: Mapping[str, str | None]) -> list[DriftFound]:
        """Remove namespaces and links of networks and ports that nobody wants here."""
        drift: list[DriftFound] = []
        self._bridged &= self._networks()
        listed = set(namespaces.named(f"{self._layout.prefix}-"))
        directories = {p.name for p in self._layout.network.iterdir() if p.is_dir()}
        for namespace in sorted(listed | directories):
            if namespace in {self._layout.network_namespace(i) for i in self._networks()}:
                continue
            await self._remove_namespace(namespace)
            kind = "netns" if namespace in listed else "dnsmasq"
            drift.append(_drift(kind, namespace, "not wanted", "removed"))
        for name in found:
            kind = links.KINDS.get(name.partition("-")[0], "")
            if not kind or name in self._wanted_links():
                continue
            if await self._threads.run(partial(links.remove, name)):
                drift.append(_drift(kind, name, "not wanted", "removed"))
        return drift

    def _wanted_links(self) -> set[str]:
        wanted = {name(i) for i in self._networks() for name in (bridge_name, dhcp_link_name)}
        return wanted | {tap_name(spec.port.port_id) for spec in self._all_ports()}

    async def _audit_rules(self) -> list[DriftFound]:
        """Compare the kernel's rules with ours, by loading ours where that is not sure."""
        async with self._rules_lock:
            counted, text = self._rules_wanted, self._render()
            before = await self._list()
            if text == self._rules_text and before == self._rules_listed:
                return []
            were_ours = text == self._rules_text
            await self._load(text)
            self._rules_applied = counted
            self._rules_listed = await self._list()
            if not were_ours or self._rules_listed == before:
                return []
        return [_drift("nft", rules.TABLE, "changed", "replaced")]


def _prepare() -> None:
    """Make the host namespace fit: lo up, no IPv6, bridged packets judged by inet rules.

    Raises:
        NetworkError: the kernel cannot do that.
    """
    namespaces.without_ipv6()
    links.up("lo")
    if not _BRIDGED.exists():
        try:
            run(["modprobe", "br_netfilter"], deadline_s=_MODPROBE_S)
        except CommandFailed as error:
            raise NetworkError(
                "security groups need the kernel module br_netfilter, which cannot be loaded"
            ) from error
    _BRIDGED.write_text("1")


def _drift(kind: str, name: str, found: str, done: str) -> DriftFound:
    return DriftFound(kind=kind, name=name, found=found, done=done)
