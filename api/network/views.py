"""What network's objects look like."""

from collections.abc import Sequence
from typing import Any

from api.times import seconds_z
from schemas.network import Network, Port, SecurityGroup, SecurityGroupRule, Subnet


def _common(thing: Network | Subnet | Port | SecurityGroup, ident: str) -> dict[str, Any]:
    """Return what every object has."""
    return {
        "id": ident,
        "name": thing.name,
        "tenant_id": thing.project_id,
        "project_id": thing.project_id,
        "description": thing.description,
        "created_at": seconds_z(thing.created_at),
        "updated_at": seconds_z(thing.updated_at),
        "revision_number": thing.revision,
        "tags": [],
    }


def network_view(network: Network, subnet_ids: Sequence[str], *, carried: bool) -> dict[str, Any]:
    """A network; ``carried``: with how it is carried between hosts."""
    view = {
        **_common(network, network.network_id),
        "admin_state_up": network.admin_state_up,
        "status": "ACTIVE",
        "shared": network.shared,
        "subnets": list(subnet_ids),
        "mtu": network.mtu,
        "router:external": False,
        "port_security_enabled": True,
        "availability_zones": [],
        "availability_zone_hints": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "is_default": False,
    }
    if carried:
        view["provider:network_type"] = "vxlan"
        view["provider:physical_network"] = None
        view["provider:segmentation_id"] = network.vni
    return view


def subnet_view(subnet: Subnet) -> dict[str, Any]:
    """A subnet."""
    return {
        **_common(subnet, subnet.subnet_id),
        "network_id": subnet.network_id,
        "ip_version": subnet.ip_version,
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip,
        "enable_dhcp": subnet.enable_dhcp,
        "allocation_pools": [{"start": p.start, "end": p.end} for p in subnet.allocation_pools],
        "dns_nameservers": list(subnet.dns_nameservers),
        "host_routes": [],
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        "subnetpool_id": None,
        "service_types": [],
        "segment_id": None,
    }


def port_view(port: Port, *, bound: bool) -> dict[str, Any]:
    """A port; ``bound``: with where it is bound."""
    view = {
        **_common(port, port.port_id),
        "network_id": port.network_id,
        "mac_address": port.mac_address,
        "fixed_ips": [
            {"subnet_id": f.subnet_id, "ip_address": f.ip_address} for f in port.fixed_ips
        ],
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "admin_state_up": port.admin_state_up,
        "status": port.status,
        "security_groups": list(port.security_group_ids),
        "port_security_enabled": bool(port.security_group_ids),
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "binding:vnic_type": "normal",
        "dns_name": "",
        "dns_assignment": [],
        "qos_policy_id": None,
    }
    if bound:
        view["binding:host_id"] = port.host_id or ""
        view["binding:profile"] = {}
        view["binding:vif_type"] = "bridge" if port.host_id else "unbound"
        view["binding:vif_details"] = {}
    return view


def rule_view(rule: SecurityGroupRule, group: SecurityGroup) -> dict[str, Any]:
    """A rule of a security group; it has the times of its group."""
    return {
        "id": rule.rule_id,
        "tenant_id": group.project_id,
        "project_id": group.project_id,
        "security_group_id": group.security_group_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_range_min,
        "port_range_max": rule.port_range_max,
        "remote_ip_prefix": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": None,
        "normalized_cidr": rule.remote_ip_prefix,
        "description": rule.description,
        "created_at": seconds_z(group.created_at),
        "updated_at": seconds_z(group.updated_at),
        "revision_number": group.revision,
        "tags": [],
    }


def group_view(group: SecurityGroup) -> dict[str, Any]:
    """A security group with its rules."""
    return {
        **_common(group, group.security_group_id),
        "stateful": True,
        "shared": False,
        "security_group_rules": [rule_view(r, group) for r in group.rules],
    }
