"""Rules, DHCP and metadata: what is rendered, and what strangers get."""

import asyncio
import socket

import pytest

from executors.errors import NetworkError
from executors.network import rules
from executors.network.dhcp import service_of
from executors.network.metadata import MetadataListener
from executors.network.numbers import NumberBook
from executors.network.rules import Numbers, render, rule_text
from schemas.work import MetadataReply
from tests.executors import world
from tests.executors.golden import matches
from tests.executors.world import Cloud, changed, rule


@pytest.fixture
def clouds():
    world.ids.seed(7)
    return Cloud("10.20.0", 100), Cloud("10.30.0", 101)


def test_the_rules_of_three_ports_on_two_networks(clouds):
    first, second = clouds
    second.group = changed(
        second.group,
        rules=(rule("ingress", remote_group_id=second.group.security_group_id), rule("egress")),
    )
    specs = [first.port(), first.port(), second.port()]
    numbers = Numbers(
        ports={spec.port.port_id: n for n, spec in enumerate(specs, 1)},
        networks={first.network.network_id: 1, second.network.network_id: 2},
    )

    matches("rules.nft", render(specs, numbers))
    assert render(reversed(specs), numbers) == render(specs, numbers)


def test_without_ports_everything_is_closed():
    matches("rules-none.nft", render([], Numbers(ports={}, networks={})))


V4 = "meta nfproto ipv4"


def _range(low, high):
    return {"port_range_min": low, "port_range_max": high}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, V4),
        ({"protocol": "any"}, V4),
        ({"ethertype": "IPv6"}, None),
        ({"protocol": "tcp", **_range(22, 23)}, f"{V4} meta l4proto 6 th dport 22-23"),
        ({"protocol": "udp", "port_range_min": 53}, f"{V4} meta l4proto 17 th dport 53-65535"),
        ({"protocol": "TCP"}, f"{V4} meta l4proto 6"),
        ({"protocol": "47"}, f"{V4} meta l4proto 47"),
        ({"protocol": "icmp", **_range(8, 0)}, f"{V4} meta l4proto 1 icmp type 8 icmp code 0"),
        ({"protocol": "256"}, None),
        ({"protocol": "tcp; flush ruleset"}, None),
        ({"remote_ip_prefix": "0.0.0.0/0"}, V4),
        ({"remote_ip_prefix": "10.1.2.3/8"}, f"{V4} ip saddr 10.0.0.0/8"),
        ({"remote_ip_prefix": "10.1.2.3"}, f"{V4} ip saddr 10.1.2.3/32"),
        ({"remote_ip_prefix": "::/0"}, None),
        ({"remote_ip_prefix": "10.0.0.0/8 accept"}, None),
        ({"remote_group_id": "a-b c"}, f"{V4} ip saddr @group_a_b_c"),
    ],
)
def test_a_rule_opens_what_it_says_or_nothing(asked, text):
    assert rule_text(rule("ingress", **asked)) == text


def test_numbers_stay_with_their_ports_and_are_used_again(tmp_path):
    book = NumberBook(tmp_path / "numbers.json")
    assert book.assign(["a", "b"], ["n"]).ports == {"a": 1, "b": 2}
    assert book.assign(["b"], ["n"]).ports == {"b": 2}

    again = NumberBook(tmp_path / "numbers.json")
    assert again.assign(["b", "c"], ["n"]).ports == {"b": 2, "c": 1}
    with pytest.raises(NetworkError, match="no room for more than 4095 ports"):
        again.assign([str(n) for n in range(rules.PORTS_MOST + 1)], [])


def test_a_networks_dhcp_service(clouds):
    cloud, _ = clouds
    cloud.subnet = changed(cloud.subnet, dns_nameservers=("9.9.9.9", "1.1.1.1"))
    service = service_of([cloud.port(), cloud.port()])

    assert service.addresses == (("10.20.0.2", 24), ("169.254.169.254", 32))
    matches("dnsmasq.conf", service.conf)
    matches("dnsmasq.hosts", service.hosts)


def test_a_subnet_without_a_gateway_gives_no_default_route(clouds):
    cloud, _ = clouds
    cloud.subnet = changed(cloud.subnet, gateway_ip=None)
    conf = service_of([cloud.port()]).conf

    assert "dhcp-option=tag:s0,3\n" in conf
    assert "dhcp-option=tag:s0,121,169.254.169.254/32,10.20.0.2\n" in conf


def test_a_subnet_without_dhcp_has_no_service(clouds):
    cloud, _ = clouds
    cloud.subnet = changed(cloud.subnet, enable_dhcp=False)
    assert service_of([cloud.port()]) is None


# Metadata


@pytest.fixture
async def guest():
    """Ask a listener as a guest would; returns everything it said until it closed."""
    asked = []

    async def answer(ask):
        asked.append(ask)
        if ask.path == "/broken":
            raise RuntimeError
        return MetadataReply(status=200, content_type="text/plain", body=b"web-1")

    ear = socket.create_server(("127.0.0.1", 0))
    ear.setblocking(False)
    listener = MetadataListener("net-1", answer)
    await listener.start(ear)
    port = ear.getsockname()[1]

    async def talk(sent):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(30):
            said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said

    talk.asked = asked
    yield talk
    await listener.close()


ASK = b"GET /latest/meta-data/hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_guest_is_told_what_the_edge_answers(guest):
    said = await guest(ASK.replace(b"Host", b"X-Forwarded-For: 10.0.0.9\r\nHost"))

    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert said.endswith(b"\r\n\r\nweb-1")
    asked = guest.asked[0]
    assert (asked.network_id, asked.address, asked.path, asked.method) == (
        "net-1",
        "127.0.0.1",
        "/latest/meta-data/hostname",
        "GET",
    )


async def test_two_questions_on_one_connection(guest):
    said = await guest(ASK.replace(b"Connection: close\r\n", b"") + ASK)
    assert said.count(b"web-1") == 2


async def test_a_head_request_has_no_body(guest):
    said = await guest(ASK.replace(b"GET", b"HEAD"))
    assert b"content-length: 5\r\n" in said
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 no http at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99_999,
    ],
)
async def test_nonsense_is_dropped_without_asking_anybody(guest, sent):
    try:
        said = await guest(sent)
    except ConnectionResetError:
        said = b""
    assert said == b""
    assert guest.asked == []


async def test_a_path_too_long_is_refused(guest):
    said = await guest(ASK.replace(b"hostname", b"x" * 5000))
    assert b" 414 " in said


async def test_an_edge_that_breaks_is_an_error_and_not_the_end(guest):
    said = await guest(ASK.replace(b"latest/meta-data/hostname", b"broken"))
    assert b" 500 " in said
    assert await guest(ASK)
