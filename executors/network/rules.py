"""Packet rules of a host's ports, as one nftables text that replaces all at once. Pure.

Everything that no rule lets in is dropped; replies pass. What a guest sends must come from its own
MAC and IP addresses. A tap without rules passes nothing, so a port is closed before its rules are
there and after they are gone.

The bridge family cannot follow connections on every kernel, so bridged IP packets are judged in the
inet family (br_netfilter). There the port is no longer known, only the bridge: so the bridge family
first writes the numbers of the sending port (bits 12 to 23) and of the receiving port (bits 0 to
11) into the packet's mark.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from executors.layout import bridge_name, tap_name
from schemas.network import SecurityGroup, SecurityGroupRule
from schemas.work import PortSpec

TABLE = "cumulog"
METADATA_ADDRESS = "169.254.169.254"
PORTS_MOST = 0xFFF
_SENDER_SHIFT = 12
_SENDER_MASK = 0x00FFF000
_RECEIVER_MASK = 0x00000FFF
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")

# Numbers of the names that OpenStack knows (IANA protocol numbers).
_PROTOCOLS = {
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "icmp": 1,
    "igmp": 2,
    "ipip": 4,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
_ICMP = _PROTOCOLS["icmp"]
_WITH_PORTS = {_PROTOCOLS[name] for name in ("dccp", "sctp", "tcp", "udp", "udplite")}


@dataclass(frozen=True)
class Numbers:
    """The number of each port, and of each network (its connection tracking zone), from 1."""

    ports: Mapping[str, int]
    networks: Mapping[str, int]


def render(ports: Iterable[PortSpec], numbers: Numbers) -> str:
    """Return the rules of these ports, all others being closed."""
    specs = sorted(ports, key=lambda spec: spec.port.port_id)
    lines = [
        f"add table bridge {TABLE}",
        f"delete table bridge {TABLE}",
        f"add table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table bridge {TABLE} {{",
        *_bridge_table(specs, numbers),
        "}",
        f"table inet {TABLE} {{",
        *_inet_table(specs, numbers),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _bridge_table(specs: list[PortSpec], numbers: Numbers) -> Iterable[str]:
    taps = {spec.port.port_id: tap_name(spec.port.port_id) for spec in specs}
    number = {port_id: numbers.ports[port_id] for port_id in taps}
    macs = [f'"{taps[s.port.port_id]}" . {_mac(s)}' for s in specs]
    addresses = [f'"{taps[s.port.port_id]}" . {_mac(s)} . {a}' for s in specs for a in _own(s)]
    senders = [f'"{tap}" : {number[i] << _SENDER_SHIFT:#x}' for i, tap in taps.items()]
    receivers = [f'"{tap}" : jump to_{number[i]}' for i, tap in taps.items()]
    yield from _set("guarded", "ifname", [f'"{tap}"' for tap in taps.values()])
    yield from _set("own_mac", "ifname . ether_addr", macs)
    yield from _set("own_address", "ifname . ether_addr . ipv4_addr", addresses)
    yield from _set("sender", "ifname : mark", senders, kind="map")
    yield from _chain(
        "prerouting",
        "type filter hook prerouting priority -300; policy accept;",
        "iifname @guarded jump spoof",
        'iifname "tap-*" iifname != @guarded drop',
        "meta mark set iifname map @sender",
    )
    yield from _chain(
        "spoof",
        "iifname . ether saddr != @own_mac drop",
        "ether type arp arp operation { request, reply } "
        "iifname . arp saddr ether . arp saddr ip @own_address accept",
        "ether type arp drop",
        "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
        "udp sport 67 udp dport 68 drop",
        "ether type ip iifname . ether saddr . ip saddr != @own_address drop",
        "ether type ip return",
        "drop",  # IPv6 too: no port has such an address yet
    )
    for port_id in taps:
        yield from _chain(f"to_{number[port_id]}", f"meta mark set mark | {number[port_id]:#x}")
    yield from _chain(
        "forward",
        "type filter hook forward priority -200; policy accept;",
        'oifname "tap-*" oifname != @guarded drop',
        f"meta mark set mark & {_SENDER_MASK:#x}",
        *([f"oifname vmap {{ {', '.join(receivers)} }}"] if receivers else []),
    )


def _inet_table(specs: list[PortSpec], numbers: Numbers) -> Iterable[str]:
    networks = {s.network.network_id: bridge_name(s.network.network_id) for s in specs}
    bridges = [f'"{bridge}"' for bridge in networks.values()]
    zones = [f'"{bridge}" : {numbers.networks[i]}' for i, bridge in networks.items()]
    number = [numbers.ports[s.port.port_id] for s in specs]
    senders = [f"{n << _SENDER_SHIFT:#x} : jump out_{n}" for n in number]
    receivers = [f"{n:#x} : jump in_{n}" for n in number]
    yield from _set("bridges", "ifname", bridges)
    for group_id, addresses in _members(specs).items():
        yield from _set(_group(group_id), "ipv4_addr", addresses)
    for spec in specs:
        n = numbers.ports[spec.port.port_id]
        yield from _chain(f"out_{n}", *_egress(spec))
        yield from _chain(f"in_{n}", *_ingress(spec))
    if zones:
        yield from _chain(
            "zones",
            "type filter hook prerouting priority raw; policy accept;",
            f"ct zone set iifname map {{ {', '.join(zones)} }}",  # networks may overlap
        )
    yield from _chain(
        "forward",
        "type filter hook forward priority 0; policy accept;",
        "iifname != @bridges drop",
        "ct state established,related accept",
        "ct state invalid drop",
        *([f"mark & {_SENDER_MASK:#x} vmap {{ {', '.join(senders)} }}"] if senders else []),
        *([f"mark & {_RECEIVER_MASK:#x} vmap {{ {', '.join(receivers)} }}"] if receivers else []),
    )


def _egress(spec: PortSpec) -> Iterable[str]:
    """What a port may send. Returns where it allows: the receiver's chain must be heard, too."""
    yield "meta nfproto ipv4 udp sport 68 udp dport 67 return"
    yield f"ip daddr {METADATA_ADDRESS} tcp dport 80 return"
    for rule in _rules(spec.security_groups, "egress"):
        yield f"{rule} return"
    yield "drop"


def _ingress(spec: PortSpec) -> Iterable[str]:
    yield "meta nfproto ipv4 udp sport 67 udp dport 68 accept"
    for rule in _rules(spec.security_groups, "ingress"):
        yield f"{rule} accept"
    yield "drop"


def _rules(groups: Iterable[SecurityGroup], direction: str) -> Iterable[str]:
    seen = set()
    for group in groups:
        for rule in group.rules:
            if rule.direction == direction and (text := rule_text(rule)) and text not in seen:
                seen.add(text)
                yield text


def rule_text(rule: SecurityGroupRule) -> str | None:
    """Return what a rule matches, None if it can match no packet of ours (so it opens nothing)."""
    if rule.ethertype != "IPv4":
        return None
    words = ["meta nfproto ipv4"]
    remote = "saddr" if rule.direction == "ingress" else "daddr"
    if rule.remote_ip_prefix is not None:
        try:
            network = IPv4Network(rule.remote_ip_prefix, strict=False)
        except (AddressValueError, NetmaskValueError, ValueError):
            return None
        if network.prefixlen:
            words.append(f"ip {remote} {network}")
    if rule.remote_group_id is not None:
        words.append(f"ip {remote} @{_group(rule.remote_group_id)}")
    if rule.protocol is None or rule.protocol in {"", "any"}:
        return " ".join(words)
    protocol = _protocol(rule.protocol)
    if protocol is None:
        return None
    words.append(f"meta l4proto {protocol}")
    low, high = rule.port_range_min, rule.port_range_max
    if protocol == _ICMP:
        if low is not None:
            words.append(f"icmp type {low}")
        if high is not None:
            words.append(f"icmp code {high}")
    elif protocol in _WITH_PORTS and (low is not None or high is not None):
        words.append(f"th dport {0 if low is None else low}-{0xFFFF if high is None else high}")
    return " ".join(words)


def _protocol(name: str) -> int | None:
    number = _PROTOCOLS.get(name.lower())
    if number is None and name.isdecimal() and int(name) <= 0xFF:
        return int(name)
    return number


def _members(specs: list[PortSpec]) -> dict[str, list[str]]:
    """Return the addresses of every group that a rule names: its ports on this host."""
    named = {
        rule.remote_group_id
        for spec in specs
        for group in spec.security_groups
        for rule in group.rules
        if rule.remote_group_id is not None
    }
    return {
        group_id: sorted(
            {a for s in specs if group_id in s.port.security_group_ids for a in _own(s)}
        )
        for group_id in sorted(named)
    }


def _own(spec: PortSpec) -> list[str]:
    found = []
    for fixed in spec.port.fixed_ips:
        try:
            found.append(str(IPv4Address(fixed.ip_address)))
        except AddressValueError:
            continue
    return found


def _mac(spec: PortSpec) -> str:
    assert _MAC.fullmatch(spec.port.mac_address), "the schema lets no other MAC through"
    return spec.port.mac_address


def _group(group_id: str) -> str:
    return "group_" + re.sub(r"[^0-9A-Za-z]", "_", group_id)


def _set(name: str, of: str, elements: list[str], *, kind: str = "set") -> Iterable[str]:
    yield f"  {kind} {name} {{"
    yield f"    type {of};"
    if elements:
        yield f"    elements = {{ {', '.join(elements)} }};"
    yield "  }"


def _chain(name: str, *statements: str) -> Iterable[str]:
    yield f"  chain {name} {{"
    for statement in statements:
        yield f"    {statement}"
    yield "  }"
