"""Version documents: exactly what clients look for, with or without slash and token."""

import pytest

from tests.api.conftest import Cloud

IDENTITY = {
    "id": "v3.14",
    "status": "stable",
    "updated": "2020-04-07T00:00:00Z",
    "links": [{"rel": "self", "href": "{}/identity/v3/"}],
    "media-types": [
        {
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }
    ],
}
COMPUTE_2_0 = {
    "id": "v2.0",
    "status": "SUPPORTED",
    "version": "",
    "min_version": "",
    "updated": "2011-01-21T11:33:21Z",
    "links": [{"rel": "self", "href": "{}/compute/v2/"}],
}
COMPUTE = {
    "id": "v2.1",
    "status": "CURRENT",
    "version": "2.2",
    "min_version": "2.1",
    "updated": "2013-07-23T11:33:21Z",
    "links": [{"rel": "self", "href": "{}/compute/v2.1/"}],
}
COMPUTE_MEDIA = [
    {
        "base": "application/json",
        "type": "application/vnd.openstack.compute+json;version=2.1",
    }
]
IMAGE = [
    {
        "id": f"v2.{minor}",
        "status": "CURRENT" if minor == 9 else "SUPPORTED",
        "links": [{"rel": "self", "href": "{}/image/v2/"}],
    }
    for minor in (9, 7, 6, 5, 4, 3, 2, 1, 0)
]
NETWORK = {
    "id": "v2.0",
    "status": "CURRENT",
    "links": [{"rel": "self", "href": "{}/network/v2.0/"}],
}
DOCUMENTS = [
    ("/identity", 300, {"versions": {"values": [IDENTITY]}}),
    ("/identity/v3", 200, {"version": IDENTITY}),
    ("/compute", 200, {"versions": [COMPUTE_2_0, COMPUTE]}),
    ("/compute/v2.1", 200, {"version": COMPUTE | {"media-types": COMPUTE_MEDIA}}),
    ("/image", 300, {"versions": IMAGE}),
    ("/image/v2", 300, {"versions": IMAGE}),
    ("/network", 200, {"versions": [NETWORK]}),
]
SLASHES = ["", "/"]


def based(value: object, base: str) -> object:
    """Return a document whose links lead below ``base``."""
    match value:
        case dict():
            return {k: based(v, base) for k, v in value.items()}
        case list():
            return [based(v, base) for v in value]
        case str():
            return value.replace("{}", base)
        case _:
            return value


@pytest.mark.parametrize("slash", SLASHES)
@pytest.mark.parametrize(("path", "status", "document"), DOCUMENTS)
def test_a_document_is_exactly_as_specified(cloud: Cloud, path, status, document, slash):
    reply = cloud.anyone("GET", path + slash)

    assert reply.status == status
    assert reply.body == based(document, cloud.url)
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("slash", SLASHES)
@pytest.mark.parametrize(("path", "status", "_document"), DOCUMENTS)
def test_no_token_and_no_version_changes_a_document(cloud: Cloud, path, status, _document, slash):
    plain = cloud.anyone("GET", path + slash).raw

    for headers in (
        {"X-Auth-Token": cloud.demo.token},
        {"X-Auth-Token": cloud.admin.token},
        {"X-Auth-Token": "nonsense"},
        {"OpenStack-API-Version": "compute 2.999"},
        {"OpenStack-API-Version": "compute nonsense"},
        {"X-OpenStack-Nova-API-Version": "latest"},
    ):
        reply = cloud.anyone("GET", path + slash, headers=headers)
        assert (reply.status, reply.raw) == (status, plain)
    bare = cloud.anyone("HEAD", path + slash)
    assert (bare.status, bare.raw) == (status, b"")


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"Host": "cloud.example:8780"}, "http://cloud.example:8780"),
        ({"X-Forwarded-Host": "cloud.example"}, "http://cloud.example"),
        ({"X-Forwarded-Host": "a.example, b", "X-Forwarded-Proto": "https, http"},
         "https://a.example"),
        ({"X-Forwarded-Host": "cloud.example/x", "X-Forwarded-Proto": "https"}, None),
        ({"X-Forwarded-Host": "h", "X-Forwarded-Proto": "javascript"}, None),
        ({"X-Forwarded-Host": '"><script>'}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("path", "status", "document"), DOCUMENTS)
def test_links_lead_where_the_client_came_in(cloud: Cloud, path, status, document, headers, base):
    """A host that is none is not repeated to anybody."""
    reply = cloud.anyone("GET", path, headers=headers)

    assert reply.status == status
    assert reply.body == based(document, base or cloud.url)


def test_versioned_roots_of_the_network_ask_for_a_token(cloud: Cloud):
    for slash in SLASHES:
        assert cloud.anyone("GET", f"/network/v2.0{slash}").status == 401
        listed = cloud.demo("GET", f"/network/v2.0{slash}").body["resources"]
        for resource in listed:
            (link,) = resource["links"]
            reply = cloud.demo("GET", link["href"].removeprefix(cloud.url))
            assert reply.status == 200
            assert reply.body.keys() == {resource["collection"]}


@pytest.mark.parametrize(
    "path", ["/identity/v2.0", "/identity/v4", "/compute/v2", "/compute/v3", "/image/v1",
             "/network/v3", "/identityx", "/volume", "/v2"]
)  # fmt: skip
def test_what_is_not_on_offer_is_not_found(cloud: Cloud, path: str):
    assert cloud.demo("GET", path).status == 404
