"""Network: networks, subnets, ports, security groups (OpenStack Network API v2.0)."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from schemas.ids import HostId, Id, NetworkId, PortId, ProjectId, SecurityGroupId, SubnetId
from schemas.units import Cidr, IpAddress, MacAddress, Micros, Text

type Direction = Literal["ingress", "egress"]
type Ethertype = Literal["IPv4", "IPv6"]
type PortStatus = Literal["DOWN", "ACTIVE"]
PortNumber = Annotated[int, Meta(ge=0, le=65535)]

# Resources


class Network(Struct, frozen=True, kw_only=True):
    """A layer-2 broadcast domain. ``vni`` is its number on hosts (VXLAN VNI, RFC 7348)."""

    network_id: NetworkId
    name: Text
    project_id: ProjectId
    vni: int
    mtu: int = 1450
    shared: bool = False
    admin_state_up: bool = True
    description: Text = ""
    created_at: Micros
    updated_at: Micros
    revision: int = 1


class AllocationPool(Struct, frozen=True, kw_only=True):
    """First and last address that ports are given."""

    start: IpAddress
    end: IpAddress


class Subnet(Struct, frozen=True, kw_only=True):
    """A range of addresses on a network."""

    subnet_id: SubnetId
    network_id: NetworkId
    project_id: ProjectId
    name: Text
    cidr: Cidr
    ip_version: Literal[4] = 4
    gateway_ip: IpAddress | None
    enable_dhcp: bool = True
    allocation_pools: tuple[AllocationPool, ...]
    dns_nameservers: tuple[IpAddress, ...] = ()
    description: Text = ""
    created_at: Micros
    updated_at: Micros
    revision: int = 1


class FixedIp(Struct, frozen=True, kw_only=True):
    """An address of a port."""

    subnet_id: SubnetId
    ip_address: IpAddress


class Port(Struct, frozen=True, kw_only=True):
    """A place on a network where something plugs in."""

    port_id: PortId
    network_id: NetworkId
    project_id: ProjectId
    name: Text
    mac_address: str
    fixed_ips: tuple[FixedIp, ...]
    security_group_ids: tuple[SecurityGroupId, ...] = ()
    device_id: Text = ""
    device_owner: Text = ""
    host_id: HostId | None = None
    status: PortStatus = "DOWN"
    admin_state_up: bool = True
    description: Text = ""
    # Made with a server, and so removed with it; a port given by the caller is only unbound.
    made_by_server: bool = False
    created_at: Micros
    updated_at: Micros
    revision: int = 1


class SecurityGroupRule(Struct, frozen=True, kw_only=True):
    """What a group lets through. Ports are TCP/UDP ports, or ICMP type and code."""

    rule_id: str
    direction: Direction
    ethertype: Ethertype = "IPv4"
    protocol: Annotated[str, Meta(max_length=32)] | None = None
    port_range_min: PortNumber | None = None
    port_range_max: PortNumber | None = None
    remote_ip_prefix: Cidr | None = None
    remote_group_id: SecurityGroupId | None = None
    description: Text = ""


class SecurityGroup(Struct, frozen=True, kw_only=True):
    """A set of rules for ports: what no rule lets through is dropped, replies excepted."""

    security_group_id: SecurityGroupId
    name: Text
    project_id: ProjectId
    description: Text = ""
    rules: tuple[SecurityGroupRule, ...] = ()
    created_at: Micros
    updated_at: Micros
    revision: int = 1


# Actions


class CreateNetwork(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a network. ``shared`` is for administrators."""

    name: Text = ""
    description: Text = ""
    admin_state_up: bool = True
    shared: bool = False
    mtu: Annotated[int, Meta(ge=576, le=1450)] = 1450


class DeleteNetwork(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a network with its subnets and DHCP ports; refused while another port is on it."""

    network_id: Id


class CreateSubnet(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make an IPv4 subnet.

    ``gateway_ip``: None chooses the first address, ``""`` means no gateway. ``allocation_pools``
    None means every address but network, broadcast and gateway.
    """

    network_id: Id
    cidr: Cidr
    name: Text = ""
    ip_version: Literal[4] = 4
    gateway_ip: Annotated[str, Meta(max_length=45)] | None = None
    enable_dhcp: bool = True
    allocation_pools: Annotated[tuple[AllocationPool, ...], Meta(max_length=32)] | None = None
    dns_nameservers: Annotated[tuple[IpAddress, ...], Meta(max_length=5)] = ()
    description: Text = ""


class DeleteSubnet(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a subnet; refused while a port other than its DHCP port has an address of it."""

    subnet_id: Id


class FixedIpRequest(Struct, frozen=True, kw_only=True):
    """An address asked for: any of a subnet, a certain one, or both said."""

    subnet_id: Id | None = None
    ip_address: IpAddress | None = None


class CreatePort(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Make a port. Without ``fixed_ips`` it is given one address of the network's first subnet."""

    network_id: Id
    name: Text = ""
    mac_address: MacAddress | None = None
    fixed_ips: Annotated[tuple[FixedIpRequest, ...], Meta(max_length=8)] | None = None
    security_group_ids: Annotated[tuple[Id, ...], Meta(max_length=16)] | None = None
    description: Text = ""
    admin_state_up: bool = True


class DeletePort(Struct, frozen=True, kw_only=True, tag=True, tag_field="type"):
    """Remove a port that no server uses."""

    port_id: Id


type NetworkAction = (
    CreateNetwork | DeleteNetwork | CreateSubnet | DeleteSubnet | CreatePort | DeletePort
)

# Facts


class NetworkCreated(
    Struct, frozen=True, kw_only=True, tag="network.network.created.v1", tag_field="type"
):
    """A network exists. Not metered."""

    network: Network


class NetworkDeleted(
    Struct, frozen=True, kw_only=True, tag="network.network.deleted.v1", tag_field="type"
):
    """The network is gone. Not metered."""

    network_id: NetworkId


class SubnetCreated(
    Struct, frozen=True, kw_only=True, tag="network.subnet.created.v1", tag_field="type"
):
    """A subnet exists. Not metered."""

    subnet: Subnet


class SubnetDeleted(
    Struct, frozen=True, kw_only=True, tag="network.subnet.deleted.v1", tag_field="type"
):
    """The subnet is gone. Not metered."""

    subnet_id: SubnetId


class PortCreated(
    Struct, frozen=True, kw_only=True, tag="network.port.created.v1", tag_field="type"
):
    """A port exists and holds its addresses. Not metered."""

    port: Port


class PortUpdated(
    Struct, frozen=True, kw_only=True, tag="network.port.updated.v1", tag_field="type"
):
    """The port as it is after binding, unbinding or a change of status. Not metered."""

    port: Port


class PortDeleted(
    Struct, frozen=True, kw_only=True, tag="network.port.deleted.v1", tag_field="type"
):
    """The port is gone and its addresses are free. Not metered."""

    port_id: PortId


class SecurityGroupCreated(
    Struct, frozen=True, kw_only=True, tag="network.security_group.created.v1", tag_field="type"
):
    """A security group exists. Not metered."""

    group: SecurityGroup


class SecurityGroupDeleted(
    Struct, frozen=True, kw_only=True, tag="network.security_group.deleted.v1", tag_field="type"
):
    """The security group is gone (with its project). Not metered."""

    security_group_id: SecurityGroupId


type NetworkFact = (
    NetworkCreated
    | NetworkDeleted
    | SubnetCreated
    | SubnetDeleted
    | PortCreated
    | PortUpdated
    | PortDeleted
    | SecurityGroupCreated
    | SecurityGroupDeleted
)
