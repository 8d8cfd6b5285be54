"""What proxies say of a request counts if they are trusted, and cannot forge a link if not."""

import pytest

from api.forwarded import KEPT_MAX, BadProxies, Origin, Proxies, base, site
from tests.api.conftest import Api, Cloud
from tests.api.edges import EdgeProcess

TRUSTED = ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "chain", "address", "limited", "trusted"),
    [
        ("192.0.2.1", "", "192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "198.51.100.1", "192.0.2.1", "192.0.2.1", False),
        ("127.0.0.1", "", "127.0.0.1", "", True),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1", "198.51.100.1", True),
        # What the client wrote itself stands before what our proxy has added.
        ("127.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1", "198.51.100.1", True),
        ("127.0.0.1", "127.0.0.1, 198.51.100.1", "198.51.100.1", "198.51.100.1", True),
        ("127.0.0.1", "198.51.100.1, 10.0.0.9", "198.51.100.1", "198.51.100.1", True),
        ("127.0.0.1", "10.0.0.9", "10.0.0.9", "", True),
        ("127.0.0.1", "nonsense", "127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "1.1.1.1, nonsense, 10.0.0.9", "10.0.0.9", "10.0.0.9", True),
        ("127.0.0.1", "x" * 5000 + ", 198.51.100.1", "198.51.100.1", "198.51.100.1", True),
        ("fd00::1", "2001:db8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1:2::/64", True),
        ("::ffff:10.0.0.1", "[2001:db8::1]", "2001:db8::1", "2001:db8::/64", True),
        ("", "198.51.100.1", "", "", False),
    ],
)
def test_where_a_request_came_from(peer, chain, address, limited, trusted):
    assert Proxies(TRUSTED).origin(peer, chain) == Origin(address, limited, trusted=trusted)


def test_what_is_remembered_of_origins_is_bounded():
    proxies = Proxies(TRUSTED)
    for n in range(3 * KEPT_MAX):
        proxies.origin("127.0.0.1", f"198.51.{n // 250}.{n % 250}")
    assert len(proxies._origins) <= KEPT_MAX


def test_a_site_is_an_address_or_a_network_of_ipv6():
    assert site("192.0.2.1") == site("::ffff:192.0.2.1") == "192.0.2.1"
    assert site("fe80::1%eth0") == "fe80::/64"
    assert site("") == ""


def test_a_proxy_that_is_no_address_is_an_error():
    with pytest.raises(BadProxies, match="trusted_proxies"):
        Proxies(("proxy.example",))


@pytest.mark.parametrize(
    ("scheme", "host", "prefix", "link"),
    [
        ("https", "cloud.example", "", "https://cloud.example"),
        ("http", "[::1]:8780", "/", "http://[::1]:8780"),
        ("https", "cloud.example", "/a/b-1/", "https://cloud.example/a/b-1"),
        ("https", "cloud.example", "a", ""),
        ("https", "cloud.example", "//evil.example", ""),
        ("https", "cloud.example", "/..", ""),
        ("https", "cloud.example", "/a\r\nSet-Cookie: x", ""),
        ("https", "cloud.example\r\nX: y", "", ""),
        ("https", "cloud.example/path", "", ""),
        ("https", "user@cloud.example", "", ""),
        ("https", "cloud.example\n", "", ""),
        ("javascript", "cloud.example", "", ""),
        ("https", "", "", ""),
    ],
)
def test_links_begin_with_what_has_the_right_form(scheme, host, prefix, link):
    assert base(scheme, host, prefix) == link


PASSED_ON = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "cloud.example",
    "X-Forwarded-Prefix": "/iaas",
    "X-Forwarded-For": "203.0.113.9",
}


def test_behind_a_trusted_proxy_links_and_the_log_name_what_the_client_saw(cloud: Cloud):
    reply = cloud.anyone("GET", "/image", headers=PASSED_ON)
    assert reply.body["versions"][0]["links"][0]["href"] == "https://cloud.example/iaas/image/v2/"

    made = cloud.admin("POST", "/identity/v3/projects", {"project": {"name": "forwarded"}},
                       headers=PASSED_ON)  # fmt: skip
    assert made.body["project"]["links"]["self"].startswith("https://cloud.example/iaas/identity")
    request_id = made.headers["x-openstack-request-id"]
    told = cloud.admin("GET", f"/v1/audit/{request_id}").raw
    assert b"203.0.113.9" in told


def test_nobody_else_can_say_where_links_lead(cloud: Cloud, tmp_path):
    with EdgeProcess(cloud, tmp_path, trusted_proxies=["192.0.2.1"]) as edge:
        reply = Api(edge.url)("GET", "/image", headers=PASSED_ON)
        assert reply.body["versions"][0]["links"][0]["href"] == f"{edge.url}/image/v2/"


def test_a_configured_address_goes_before_all_headers(cloud: Cloud, tmp_path):
    with EdgeProcess(cloud, tmp_path, public_url="https://a.example/x/") as edge:
        reply = Api(edge.url)("GET", "/image", headers=PASSED_ON | {"Host": "evil.example"})
        assert reply.body["versions"][0]["links"][0]["href"] == "https://a.example/x/image/v2/"
