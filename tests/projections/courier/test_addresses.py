"""Where a webhook may lead: what is not plainly public is refused, however it is written."""

import socket
from ipaddress import ip_address

import pytest

from projections.courier.addresses import (
    AddressRefused,
    addresses_of,
    is_public,
    networks,
    passes,
    read_address,
    target_of,
)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://example.org/hook", "example.org", 443, "/hook"),
        ("http://example.org", "example.org", 80, "/"),
        ("https://example.org:8443/a?b=c", "example.org", 8443, "/a?b=c"),
        ("https://EXAMPLE.org/A", "example.org", 443, "/A"),
        ("http://[2606:4700::1111]:8080/", "2606:4700::1111", 8080, "/"),
        ("http://192.0.2.1/", "192.0.2.1", 80, "/"),
    ],
)
def test_a_url_is_taken_apart(url, host, port, path):
    target = target_of(url)
    assert (target.host, target.port, target.path) == (host, port, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "//example.org/",
        "https://",
        "https:///hook",
        "https://user@example.org/",
        "https://user:word@example.org/",
        "https://example.org@127.0.0.1/",
        "https://example.org\\@127.0.0.1/",
        "https://example.org/#fragment",
        "https://example.org/#",
        "https://exam ple.org/",
        "https://example.org/\r\nX-Injected: 1",
        "https://example.org/\x00",
        "https://ex\N{LATIN SMALL LETTER A WITH DIAERESIS}mple.org/",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:port/",
        "https://[::1%25lo]/",
        "https://[fe80::1%eth0]/",
        "https://[not-v6]/",
        "https://example.org/" + "a" * 2048,
    ],
)
def test_what_is_no_plain_url_is_refused(url):
    with pytest.raises(AddressRefused):
        target_of(url)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",  # a metadata service
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",  # the metadata service
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",  # Teredo
        "2001:db8::1",
        "2002:7f00:1::1",  # 6to4 of 127.0.0.1
        "2002:a9fe:a9fe::1",
        "fc00::1",
        "fd00:ec2::254",  # a metadata service
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_what_is_not_public_is_refused(text):
    address = read_address(text)
    assert address is not None
    assert not is_public(address)
    assert not passes(address, ())


@pytest.mark.parametrize("text", ["fe80::1%eth0", "::1%lo", "localhost", "", "1.2.3"])
def test_what_is_no_address_of_its_own_is_none(text):
    assert read_address(text) is None


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111"])
def test_what_is_public_passes(text):
    assert passes(ip_address(text), ())


def test_ours_in_public_clothes_is_refused(monkeypatch):
    """A machine's own public address reaches what its firewall hides from the internet."""
    bound = []

    class Ours(socket.socket):
        def bind(self, at):
            bound.append(at[0])  # as if an interface had it

    monkeypatch.setattr(socket, "socket", Ours)
    assert not passes(ip_address("1.1.1.1"), ())
    assert bound == ["1.1.1.1"]


def test_an_operator_may_let_networks_pass():
    allow = networks(["127.0.0.0/8", "fd00::/8"])
    assert passes(read_address("127.0.0.1"), allow)
    assert passes(read_address("::ffff:127.0.0.1"), allow)
    assert passes(read_address("fd12::1"), allow)
    assert not passes(read_address("10.0.0.1"), allow)
    assert not passes(read_address("::1"), allow)
    with pytest.raises(ValueError, match="192"):
        networks(["192.168.0.1/16"])


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "0"]
)
async def test_a_name_is_judged_by_where_it_leads(host):
    """However an address is written, what counts is what the connection would be made to."""
    target = target_of(f"http://{host}:8080/")
    with pytest.raises(AddressRefused):
        await addresses_of(target, ())


async def test_a_name_that_leads_nowhere_is_refused():
    with pytest.raises(AddressRefused):
        await addresses_of(target_of("http://no-such-name.invalid/"), ())


async def test_of_several_addresses_only_those_that_pass_are_used(monkeypatch):
    import asyncio

    async def rebound(*_args, **_fields):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%2", 80, 0, 2)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebound, raising=False)
    found = await addresses_of(target_of("http://example.org/"), ())
    assert [str(address) for address in found] == ["1.1.1.1"]
