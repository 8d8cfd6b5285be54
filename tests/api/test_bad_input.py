"""What is wrong with a request gets the right status and one clear message with its id."""

import http.client
import json
import re
import socket
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet

from tests.api.conftest import Api, Cloud, Reply, credentials, fresh
from tests.cli.running import eventually

SERVERS = "/compute/v2.1/servers"
NET = "/network/v2.0"
IMAGES = "/image/v2/images"
IDENTITY = "/identity/v3"
UUID = "00000000-0000-4000-8000-000000000000"
REQUEST_ID = re.compile(r"req-[0-9a-f-]{36}")


def message_of(reply: Reply) -> str:
    """Return the one message of an error, in its service's shape."""
    body = reply.body
    if "detail" in body:
        assert body["request_id"] == reply.headers["x-openstack-request-id"]
        return body["detail"] + body["request_id"]
    if "NeutronError" in body:
        assert body["NeutronError"].keys() == {"type", "message", "detail"}
        return body["NeutronError"]["message"]
    if "title" in body:
        assert body.keys() == {"message", "code", "title"}
        return body["message"]
    ((_, inner),) = body.items()
    assert inner["code"] == reply.status
    return inner["message"]


def refused(reply: Reply, status: int) -> str:
    """Check that a reply is an error as all should be, and return its message."""
    assert reply.status == status, reply
    native = "detail" in reply.body
    kind = "application/problem+json" if native else "application/json"
    assert reply.headers["content-type"] == kind
    text = message_of(reply)
    assert reply.headers["x-openstack-request-id"] in text
    assert "Traceback" not in text
    assert "/work" not in text
    return text


POSTS = [
    (f"{IDENTITY}/projects", "project", {"name": "x"}),
    (f"{IDENTITY}/users", "user", {"name": "x"}),
    (f"{IDENTITY}/auth/tokens", "auth", credentials("x", "x")["auth"]),
    (SERVERS, "server", {"name": "x", "imageRef": UUID, "flavorRef": "42"}),
    ("/compute/v2.1/flavors", "flavor", {"name": "x", "ram": 1, "vcpus": 1, "disk": 1}),
    ("/compute/v2.1/os-keypairs", "keypair", {"name": "x"}),
    (f"{NET}/networks", "network", {"name": "x"}),
    (f"{NET}/subnets", "subnet", {"network_id": UUID, "cidr": "10.0.0.0/24", "ip_version": 4}),
    (f"{NET}/ports", "port", {"network_id": UUID}),
]


OPTIONAL = {("network", "name")}
KEPT = {"project", "user"}  # attributes that are not known are kept


@pytest.mark.parametrize(("path", "kind", "wish"), POSTS, ids=[p for p, _, _ in POSTS])
def test_malformed_bodies(admin: Api, path: str, kind: str, wish: dict):
    """Not JSON, not an object, wrong types, unknown keys, and nothing at all: 400, each."""
    bodies: list[bytes] = [
        b"", b"{", b"not json", b"[]", b"null", b"5", b'{"a": 1}', b"\xff\xfe", b"{}",
        b"[" * 5000, b'{"a":' * 2000 + b"1" + b"}" * 2000,
        json.dumps({kind: None}).encode(),
        json.dumps({kind: []}).encode(),
        *([] if kind in KEPT else [json.dumps({kind: wish | {"no_such_key": 1}}).encode()]),
        json.dumps({kind: wish, "no_such_key": 1}).encode(),
        *(json.dumps({kind: wish | {k: [{}]}}).encode() for k in wish),
        *(json.dumps({kind: {k: v for k, v in wish.items() if k != left}}).encode()
          for left in wish if (kind, left) not in OPTIONAL),
    ]  # fmt: skip
    for body in bodies:
        reply = admin("POST", path, raw=body, headers={"Content-Type": "application/json"})
        refused(reply, 400)


@pytest.mark.parametrize("path", [p for p, _, _ in POSTS])
def test_bodies_are_json(admin: Api, path: str):
    refused(admin("POST", path, raw=b"<xml/>", headers={"Content-Type": "text/xml"}), 415)


LONG = "x" * 256
VALUES = [
    (SERVERS, {"server": {"name": LONG, "imageRef": UUID, "flavorRef": "42"}}),
    (SERVERS, {"server": {"name": "  ", "imageRef": UUID, "flavorRef": "42"}}),
    (SERVERS, {"server": {"name": 5, "imageRef": UUID, "flavorRef": "42"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "no-uuid", "flavorRef": "42"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": UUID, "flavorRef": "42"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "nothing"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": ""}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42", "key_name": "no"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42", "networks": [{}]}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "networks": [{"uuid": UUID}]}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "metadata": {"k": LONG}}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "metadata": {"k": 5}}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "user_data": "not base64!"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "user_data": "QUFB" * 20000}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "security_groups": [{"name": "nothing"}]}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "availability_zone": "moon"}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42", "max_count": 2}}),
    (SERVERS, {"server": {"name": "x", "imageRef": "IMAGE", "flavorRef": "42",
                          "adminPass": "x"}}),
    ("/compute/v2.1/flavors", {"flavor": {"name": "x", "ram": -1, "vcpus": 1, "disk": 1}}),
    ("/compute/v2.1/flavors", {"flavor": {"name": "x", "ram": 10**30, "vcpus": 1, "disk": 1}}),
    ("/compute/v2.1/flavors", {"flavor": {"name": "x", "ram": 1, "vcpus": 0, "disk": 1}}),
    ("/compute/v2.1/flavors", {"flavor": {"name": "", "ram": 1, "vcpus": 1, "disk": 1}}),
    ("/compute/v2.1/os-keypairs", {"keypair": {"name": "no/slash"}}),
    ("/compute/v2.1/os-keypairs", {"keypair": {"name": LONG}}),
    ("/compute/v2.1/os-keypairs", {"keypair": {"name": "x", "public_key": "nonsense"}}),
    ("/compute/v2.1/os-keypairs", {"keypair": {"name": "x", "public_key": "ssh-rsa AAAA x"}}),
    ("/compute/v2.1/os-keypairs", {"keypair": {"name": "x", "public_key": "ssh-ed25519 AAAAC3NzaC1l"
        "ZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x\nssh-rsa more"}}),
    (f"{NET}/networks", {"network": {"name": LONG}}),
    (f"{NET}/networks", {"network": {"mtu": 10}}),
    (f"{NET}/networks", {"network": {"router:external": True}}),
    (f"{NET}/subnets", {"subnet": {"network_id": UUID, "cidr": "10.0.0.0/24", "ip_version": 4}}),
    (f"{NET}/subnets", {"subnet": {"network_id": "NET", "cidr": "10.0.0.0/33", "ip_version": 4}}),
    (f"{NET}/subnets", {"subnet": {"network_id": "NET", "cidr": "fd00::/64", "ip_version": 6}}),
    (f"{NET}/subnets", {"subnet": {"network_id": "NET", "cidr": "10.9.0.0/24", "ip_version": 4,
                                   "gateway_ip": "10.8.0.1"}}),
    (f"{NET}/subnets", {"subnet": {"network_id": "NET", "cidr": "10.9.0.0/24", "ip_version": 4,
                                   "dns_nameservers": ["x"]}}),
    (f"{NET}/ports", {"port": {"network_id": UUID}}),
    (f"{NET}/ports", {"port": {"network_id": "NET", "mac_address": "zz"}}),
    (f"{NET}/ports", {"port": {"network_id": "NET", "fixed_ips": [{"ip_address": "1.2.3.4"}]}}),
    (f"{NET}/ports", {"port": {"network_id": "NET", "security_groups": [UUID]}}),
    (IMAGES, {"name": "x", "disk_format": "vmdk"}),
    (IMAGES, {"name": "x", "disk_format": "raw", "container_format": "ovf"}),
    (IMAGES, {"name": LONG, "disk_format": "raw"}),
    (IMAGES, {"name": "x", "disk_format": "raw", "id": "short"}),
    (IMAGES, {"name": "x", "disk_format": "raw", "visibility": "secret"}),
    (IMAGES, {"name": "x", "disk_format": "raw", "min_disk": -1}),
    (IMAGES, {"name": "x", "disk_format": "raw", "min_ram": "much"}),
    (IMAGES, {"name": "x", "disk_format": "raw", "my_property": 5}),
    (IMAGES, {"name": "x", "disk_format": "raw", "tags": [LONG]}),
    (f"{IDENTITY}/users", {"user": {"name": LONG}}),
    (f"{IDENTITY}/users", {"user": {"name": ""}}),
    (f"{IDENTITY}/users", {"user": {"name": "x", "password": ""}}),
    (f"{IDENTITY}/users", {"user": {"name": "x", "domain_id": "nothing"}}),
    (f"{IDENTITY}/users", {"user": {"name": "x", "default_project_id": "nothing"}}),
    (f"{IDENTITY}/projects", {"project": {"name": "x" * 65}}),
    (f"{IDENTITY}/projects", {"project": {"name": "x", "parent_id": "nothing"}}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), VALUES)
def test_values_out_of_range(cloud: Cloud, path: str, body: dict):
    """Each is refused with 400, and nothing of it is made."""
    (network, *_) = cloud.admin("GET", f"{NET}/networks?name=bad-input").body["networks"] or [
        cloud.admin.made(f"{NET}/networks", {"network": {"name": "bad-input"}})
    ]
    text = json.dumps(body).replace("IMAGE", cloud.image_id()).replace("NET", network["id"])

    refused(cloud.admin("POST", path, json.loads(text)), 400)


ODD = ["-1", "xxx", "9" * 400, "%00", "%FF", "..%2F..", "'; drop", "a b", "é"]
PATHS = [
    f"{SERVERS}/{{}}", f"{SERVERS}/{{}}/os-instance-actions", "/compute/v2.1/flavors/{}",
    "/compute/v2.1/os-keypairs/{}", "/compute/v2.1/os-hypervisors/{}", f"{IMAGES}/{{}}",
    f"{IMAGES}/{{}}/file", f"{NET}/networks/{{}}", f"{NET}/subnets/{{}}", f"{NET}/ports/{{}}",
    f"{NET}/security-groups/{{}}", f"{NET}/extensions/{{}}", f"{IDENTITY}/projects/{{}}",
    f"{IDENTITY}/users/{{}}", f"{IDENTITY}/roles/{{}}", f"{IDENTITY}/domains/{{}}",
    "/v1/why/{}", "/v1/audit/{}", "/v1/operations/{}",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_odd_ids_are_not_found(admin: Api, path: str):
    for odd in ODD:
        refused(admin("GET", path.format(odd.replace(" ", "%20").replace("é", "%C3%A9"))), 404)


@pytest.mark.parametrize("path", [p for p in PATHS if "actions" not in p and "v1" not in p])
def test_what_is_not_there_cannot_be_deleted(admin: Api, path: str):
    reply = admin("DELETE", path.format(UUID))

    assert reply.status in {404, 405, 501}, reply


@pytest.mark.parametrize(
    "path",
    [f"{SERVERS}/", "/compute/v2.1/flavors/", f"{IMAGES}/", f"{NET}/networks/", "/v1/why/",
     f"{IDENTITY}/projects/", "/compute/v2.1//servers", "/compute/v3/servers", "/network/v2.0/x",
     "/v1", "/v1/x", "/image/v1/images", "/compute/v2.1/servers/x/y/z"],
)  # fmt: skip
def test_paths_are_taken_as_they_are(admin: Api, path: str):
    """An empty id is no list, and nobody is redirected."""
    refused(admin("GET", path), 404)


@pytest.mark.parametrize("prefix", ["/%63ompute", "/compute%2Fx", "/compute%2F"])
def test_a_service_has_one_prefix(admin: Api, prefix: str):
    # Whoever is in front of us, or an access rule, would take it for another path.
    assert admin("GET", "/compute/v2.1/servers").status == 200
    assert admin("GET", f"{prefix}/v2.1/servers").status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", SERVERS), ("PATCH", f"{SERVERS}/{UUID}"), ("POST", f"{NET}/networks/{UUID}"),
     ("DELETE", IMAGES), ("PUT", f"{IDENTITY}/users"), ("COPY", SERVERS), ("OPTIONS", SERVERS)],
)  # fmt: skip
def test_methods_that_are_not(admin: Api, method: str, path: str):
    reply = admin(method, path)

    refused(reply, 405)
    assert "GET" in reply.headers["allow"]


GUARDED = [SERVERS, IMAGES, f"{NET}/networks", f"{IDENTITY}/users", "/v1/events", f"{NET}/x"]


@pytest.mark.parametrize("path", GUARDED)
def test_tokens_that_are_not(cloud: Cloud, path: str):
    forged = Fernet(Fernet.generate_key()).encrypt(b'{"user_id": "x"}').decode()
    cut = cloud.admin.token[:-2]
    changed = cloud.admin.token[:50] + ("A" if cloud.admin.token[50] != "A" else "B")
    changed += cloud.admin.token[51:]
    for token in ("", "x", "gAAAAA", forged, cut, changed, "y" * 5000, "a.b.c", "é"):
        reply = Api(cloud.url)(
            "GET", path, headers={"X-Auth-Token": token.encode().decode("latin-1")}
        )
        refused(reply, 401)
        assert reply.headers["www-authenticate"] == f'Keystone uri="{cloud.url}/identity"'


def test_a_body_over_the_limit(demo: Api):
    limit = 2**20
    announced = demo("POST", f"{NET}/networks", raw=b" " * (limit + 1), headers=_JSON)
    refused(announced, 413)

    def chunks():
        for _ in range(20):
            yield b" " * (limit // 10)

    refused(demo("POST", f"{NET}/networks", raw=chunks(), headers=_JSON), 413)
    assert (
        demo("POST", f"{NET}/networks", raw=b" " * (limit - 50) + b"{}", headers=_JSON).status
        == 400
    )


_JSON = {"Content-Type": "application/json"}


def test_an_early_answer_reaches_a_client_that_is_still_sending(cloud: Cloud):
    body = b"x" * (4 * 2**20)
    reply = Api(cloud.url)("PUT", f"{IMAGES}/{UUID}/file", raw=body, headers={"X-Auth-Token": "x"})
    refused(reply, 401)
    refused(cloud.demo("PUT", f"{IMAGES}/{UUID}/file", raw=body, headers=_OCTETS), 404)


_OCTETS = {"Content-Type": "application/octet-stream"}


def test_an_upload_that_breaks_off_leaves_nothing(cloud: Cloud):
    image = cloud.demo("POST", IMAGES, {"name": fresh("cut"), "disk_format": "raw"}).body
    blobs = set((cloud.up.state_dir / "blobs").iterdir())
    connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=30)
    connection.putrequest("PUT", f"{IMAGES}/{image['id']}/file")
    connection.putheader("X-Auth-Token", cloud.demo.token)
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", "5000000")
    connection.endheaders(b"x" * 2_000_000)
    connection.close()

    def removed() -> bool:
        return set((cloud.up.state_dir / "blobs").iterdir()) == blobs

    eventually(removed, "the unfinished write is removed")
    assert cloud.demo("GET", f"{IMAGES}/{image['id']}").body["status"] == "queued"


def test_too_many_query_fields(demo: Api):
    query = "&".join(f"a{n}=1" for n in range(1100))

    refused(demo("GET", f"{SERVERS}?{query}"), 400)


@pytest.mark.parametrize(
    "action",
    [{}, {"os-start": None, "os-stop": None}, {"nonsense": None}, {"reboot": {}},
     {"reboot": {"type": "GENTLE"}}, {"os-stop": {"now": True}}, {"reboot": None},
     {"os-getConsoleOutput": {"length": "many"}}, {"os-getConsoleOutput": {"lines": 1}}],
)  # fmt: skip
def test_server_actions_that_are_not(cloud: Cloud, action: dict):
    (server, *_) = cloud.demo("GET", f"{SERVERS}?name=bad-actions").body["servers"] or [
        cloud.server(cloud.demo, cloud.network(cloud.demo)["id"], name="bad-actions")
    ]

    refused(cloud.demo("POST", f"{SERVERS}/{server['id']}/action", action), 400)


def test_actions_that_are_not_offered_say_so(cloud: Cloud):
    (server, *_) = cloud.demo("GET", f"{SERVERS}?name=bad-actions").body["servers"] or [
        cloud.server(cloud.demo, cloud.network(cloud.demo)["id"], name="bad-actions")
    ]

    text = refused(cloud.demo("POST", f"{SERVERS}/{server['id']}/action", {"suspend": None}), 501)

    assert "suspend is not offered" in text


def test_a_reader_may_only_read(cloud: Cloud):
    name = fresh("reader")
    admin = cloud.admin
    user = admin.made(f"{IDENTITY}/users", {"user": {"name": name, "password": "pw"}})
    project = admin("GET", f"{IDENTITY}/projects?name=demo").body["projects"][0]
    role = admin("GET", f"{IDENTITY}/roles?name=reader").body["roles"][0]
    path = f"{IDENTITY}/projects/{project['id']}/users/{user['id']}/roles/{role['id']}"
    assert admin("PUT", path).status == 204
    reader = cloud.login(name, "pw", "demo")

    assert reader("GET", SERVERS).status == 200
    text = refused(reader("POST", f"{NET}/networks", {"network": {}}), 403)
    assert "member in project" in text


def test_a_body_whose_chunks_are_malformed_is_refused(cloud: Cloud):
    address = urlsplit(cloud.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/actions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"X-Auth-Token: " + cloud.demo.token.encode() + b"\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n"
        )
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        refused(Reply(answer), 400)
