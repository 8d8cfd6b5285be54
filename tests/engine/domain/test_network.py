"""Networks: ranges that do not overlap, addresses that are given once."""

import pytest
from msgspec import ValidationError, convert

from engine.domain.state import digest
from schemas.network import (
    AllocationPool,
    CreateNetwork,
    CreatePort,
    CreateSubnet,
    DeleteNetwork,
    DeletePort,
    DeleteSubnet,
    FixedIpRequest,
)
from tests.engine.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"cidr": "10.0.0.0/25"}, "SubnetOverlap"),
        ({"cidr": "10.0.0.0/16"}, "SubnetOverlap"),
        ({"cidr": "10.0.1.1/24"}, "InvalidInput"),
        ({"cidr": "banana"}, "InvalidInput"),
        ({"cidr": "fd00::/64"}, "InvalidInput"),
        ({"cidr": "10.0.1.0/31"}, "InvalidInput"),
        ({"cidr": "0.0.0.0/0"}, "InvalidInput"),
        ({"cidr": "127.0.0.0/24"}, "InvalidInput"),
        ({"cidr": "169.254.0.0/16"}, "InvalidInput"),
        ({"cidr": "10.0.1.0/24", "gateway_ip": "10.0.2.1"}, "InvalidInput"),
        ({"cidr": "10.0.1.0/24", "gateway_ip": "10.0.1.255"}, "InvalidInput"),
        ({"cidr": "10.0.1.0/24", "dns_nameservers": ("x",)}, "InvalidInput"),
        (
            {
                "cidr": "10.0.1.0/24",
                "allocation_pools": (AllocationPool(start="10.0.1.1", end="10.0.1.9"),),
            },
            "Conflict",
        ),
        (
            {
                "cidr": "10.0.1.0/24",
                "allocation_pools": (AllocationPool(start="10.0.1.9", end="10.0.1.5"),),
            },
            "InvalidInput",
        ),
    ],
)
def test_a_bad_subnet_is_refused(world, fields, code):
    network = world.network(world.admin)

    assert world.refused(world.admin, CreateSubnet(network_id=network, **fields)).code == code


def test_the_overlap_message_has_the_words_clients_search_for(world):
    network = world.network(world.admin)

    refusal = world.refused(world.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/24"))

    assert "overlaps with another subnet" in refusal.reason


def test_addresses_are_given_once_and_come_back(world):
    network = world.ok(world.admin, CreateNetwork())["network_id"]
    world.ok(world.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/29"))
    ports = [world.ok(world.admin, CreatePort(network_id=network))["port_id"] for _ in range(4)]
    addresses = {world.cell.state.ports[p].fixed_ips[0].ip_address for p in ports}
    assert addresses == {f"10.0.0.{n}" for n in range(3, 7)}

    assert world.refused(world.admin, CreatePort(network_id=network)).code == "NoAddressLeft"
    world.ok(world.admin, DeletePort(port_id=ports[1]))
    again = world.ok(world.admin, CreatePort(network_id=network))["port_id"]
    assert world.cell.state.ports[again].fixed_ips[0].ip_address == "10.0.0.4"


def test_a_certain_address_can_be_asked_for_once(world):
    network = world.network(world.admin)
    ask = CreatePort(network_id=network, fixed_ips=(FixedIpRequest(ip_address="10.0.0.77"),))

    world.ok(world.admin, ask)

    assert world.refused(world.admin, ask).code == "AddressInUse"


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.0", "10.0.0.255", "10.9.0.1", "x"])
def test_an_address_that_cannot_be_had_is_refused(world, address):
    network = world.network(world.admin)
    ask = CreatePort(network_id=network, fixed_ips=(FixedIpRequest(ip_address=address),))

    assert world.refused(world.admin, ask).status in (400, 409)


def test_what_is_in_use_stays(world):
    network = world.network(world.admin)
    subnet = next(iter(world.cell.index.network_subnets[network]))
    port = world.ok(world.admin, CreatePort(network_id=network))["port_id"]

    assert world.refused(world.admin, DeleteSubnet(subnet_id=subnet)).code == "InUse"
    assert world.refused(world.admin, DeleteNetwork(network_id=network)).code == "InUse"
    world.ok(world.admin, DeletePort(port_id=port))
    world.ok(world.admin, DeleteNetwork(network_id=network))
    assert not world.cell.state.ports
    assert not world.cell.state.subnets


def test_the_default_group_lets_ping_and_ssh_in(world):
    group = next(iter(world.cell.state.security_groups.values()))

    ingress = [(r.protocol, r.port_range_min) for r in group.rules if r.direction == "ingress"]

    assert ingress == [("icmp", None), ("tcp", 22)]


def test_another_projects_network_is_not_there(world):
    network = world.network(world.admin)
    other = world.member("other")

    assert world.refused(other, CreatePort(network_id=network)).status == 400
    assert world.refused(other, DeleteNetwork(network_id=network)).status == 404


def test_refusals_leave_the_resources_as_they_were(world):
    network = world.network(world.admin)
    before = dict(world.cell.state.subnets)

    world.refused(world.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/24"))

    assert world.cell.state.subnets == before
    assert digest(world.cell)


@pytest.mark.parametrize(
    "mac", ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "00:00:00:00:00:00"]
)
def test_a_mac_address_is_of_one_interface(world, mac):
    network = world.network(world.admin)

    refusal = world.refused(world.admin, CreatePort(network_id=network, mac_address=mac))

    assert refusal.code == "InvalidInput"


def test_a_mac_address_ends_where_it_ends():
    """A line break behind it would be a line of its own in files that name it."""
    for text, good in (("fa:16:3e:00:00:01", True), ("fa:16:3e:00:00:01\n", False)):
        try:
            convert({"network_id": "n", "mac_address": text, "type": "CreatePort"}, CreatePort)
        except ValidationError:
            assert not good
        else:
            assert good


def test_addresses_on_a_shared_network_are_chosen_by_its_owner(world):
    """Others could take an address that somebody still trusts to be its last holder's."""
    network = world.ok(world.admin, CreateNetwork(name="all", shared=True))["network_id"]
    world.ok(world.admin, CreateSubnet(network_id=network, cidr="10.0.0.0/24"))
    other = world.member("other")
    address = FixedIpRequest(ip_address="10.0.0.9")

    for ask in (
        CreatePort(network_id=network, fixed_ips=(address,)),
        CreatePort(network_id=network, mac_address="fa:16:3e:00:00:01"),
    ):
        assert world.refused(other, ask).code == "Forbidden"
        world.ok(world.admin, ask)
    subnet = next(iter(world.cell.index.network_subnets[network]))
    ask = CreatePort(network_id=network, fixed_ips=(FixedIpRequest(subnet_id=subnet),))
    world.ok(other, ask)
