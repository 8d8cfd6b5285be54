"""Another project's things are as if they were not there, whatever is asked of them."""

import json

import pytest

from tests.api.conftest import Api, Cloud, fresh

NET = "/network/v2.0"


@pytest.fixture(scope="module")
def theirs(cloud: Cloud) -> dict[str, str]:
    """One of each thing that belongs to a project or a user, of demo's."""
    network = cloud.network(cloud.demo)
    server = cloud.server(cloud.demo, network["id"])
    port = cloud.demo("GET", f"{NET}/ports?device_id={server['id']}").body["ports"][0]
    group = cloud.demo("GET", f"{NET}/security-groups").body["security_groups"][0]
    image = cloud.demo(
        "POST", "/image/v2/images", {"name": fresh("private"), "disk_format": "raw"}
    ).body
    keypair = cloud.demo.made("/compute/v2.1/os-keypairs", {"keypair": {"name": fresh("pair")}})
    request = cloud.demo("GET", f"/v1/why/{server['id']}").body["events"][0]["request_id"]
    return {
        "server": server["id"],
        "network": network["id"],
        "subnet": network["subnet"]["id"],
        "port": port["id"],
        "group": group["id"],
        "rule": group["security_group_rules"][0]["id"],
        "image": image["id"],
        "keypair": keypair["name"],
        "request": request,
        "address": next(iter(server["addresses"].values()))[0]["addr"],
    }


@pytest.fixture(scope="module")
def stranger(cloud: Cloud) -> Api:
    return cloud.stranger()


SERVER = "/compute/v2.1/servers/{server}"
ROUTES = [
    ("GET", SERVER, None),
    ("PUT", SERVER, {"server": {"name": "mine"}}),
    ("DELETE", SERVER, None),
    ("POST", f"{SERVER}/action", {"os-stop": None}),
    ("POST", f"{SERVER}/action", {"reboot": {"type": "HARD"}}),
    ("POST", f"{SERVER}/action", {"os-getConsoleOutput": {}}),
    ("GET", f"{SERVER}/metadata", None),
    ("GET", f"{SERVER}/ips", None),
    ("GET", f"{SERVER}/os-security-groups", None),
    ("GET", f"{SERVER}/os-volume_attachments", None),
    ("GET", f"{SERVER}/os-instance-actions", None),
    ("GET", f"{SERVER}/os-instance-actions/{{request}}", None),
    ("GET", "/compute/v2.1/os-keypairs/{keypair}", None),
    ("DELETE", "/compute/v2.1/os-keypairs/{keypair}", None),
    ("GET", "/image/v2/images/{image}", None),
    ("DELETE", "/image/v2/images/{image}", None),
    ("GET", "/image/v2/images/{image}/file", None),
    ("PUT", "/image/v2/images/{image}/tags/x", None),
    ("GET", f"{NET}/networks/{{network}}", None),
    ("DELETE", f"{NET}/networks/{{network}}", None),
    ("GET", f"{NET}/subnets/{{subnet}}", None),
    ("DELETE", f"{NET}/subnets/{{subnet}}", None),
    ("GET", f"{NET}/ports/{{port}}", None),
    ("DELETE", f"{NET}/ports/{{port}}", None),
    ("GET", f"{NET}/security-groups/{{group}}", None),
    ("GET", f"{NET}/security-group-rules/{{rule}}", None),
    ("GET", "/v1/why/{server}", None),
    ("GET", "/v1/audit/{request}", None),
    ("GET", "/v1/audit/blast-radius/request/{request}", None),
    ("GET", "/v1/audit/blast-radius/image/{image}", None),
    ("GET", "/v1/audit/blast-radius/network/{network}", None),
    ("GET", "/v1/undo/{request}", None),
    ("POST", "/v1/actions", {"type": "DeleteServer", "server_id": "{server}"}),
    ("POST", "/v1/actions", {"type": "StopServer", "server_id": "{server}"}),
    ("POST", "/v1/actions", {"type": "DeleteNetwork", "network_id": "{network}"}),
    ("POST", "/v1/actions", {"type": "DeletePort", "port_id": "{port}"}),
    ("POST", "/v1/actions", {"type": "DeleteImage", "image_id": "{image}"}),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_a_stranger_finds_nothing(theirs: dict, stranger: Api, method, path, body):
    if body is not None:
        body = {k: v.format(**theirs) if isinstance(v, str) else v for k, v in body.items()}

    reply = stranger(method, path.format(**theirs), body)

    assert reply.status == 404, reply


REFERENCES = [
    (f"{NET}/subnets", {"subnet": {"network_id": "{network}", "cidr": "10.5.0.0/24"}}),
    (f"{NET}/ports", {"port": {"network_id": "{network}"}}),
    ("/compute/v2.1/servers", {"server": {"networks": [{"uuid": "{network}"}]}}),
    ("/compute/v2.1/servers", {"server": {"networks": [{"port": "{port}"}]}}),
    ("/compute/v2.1/servers", {"server": {"imageRef": "{image}"}}),
    ("/compute/v2.1/servers", {"server": {"key_name": "{keypair}"}}),
    ("/compute/v2.1/servers", {"server": {"security_groups": [{"name": "{group}"}]}}),
]


@pytest.mark.parametrize(("path", "body"), REFERENCES)
def test_a_stranger_cannot_refer_to_it(cloud: Cloud, theirs: dict, stranger: Api, path, body):
    """As if it were not there: 400, as for any unknown reference in a body."""

    def filled(value):
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [filled(v) for v in value]
        return value.format(**theirs)

    wish = filled(body)
    if "server" in wish:
        base = {"name": "x", "imageRef": cloud.image_id(), "flavorRef": "42"}
        wish = {"server": base | wish["server"]}

    reply = stranger("POST", path, wish)

    assert reply.status == 400, reply


LISTS = [
    "/compute/v2.1/servers/detail?name=.", "/compute/v2.1/servers?uuid={server}",
    "/compute/v2.1/servers?project_id=x", "/compute/v2.1/servers?ip={address}",
    "/compute/v2.1/os-keypairs", "/image/v2/images", "/image/v2/images?id=in:{image}",
    f"{NET}/networks", f"{NET}/networks?id={{network}}", f"{NET}/subnets",
    f"{NET}/ports", f"{NET}/ports?device_id={{server}}", f"{NET}/security-groups",
    f"{NET}/security-group-rules", "/v1/events?limit=1000", "/v1/events?resource_id={server}",
    "/v1/audit?limit=1000", "/v1/audit?resource_id={server}", "/v1/operations",
    "/v1/operations?resource_id={server}",
]  # fmt: skip


@pytest.fixture(scope="module")
def quiet(cloud: Cloud) -> Api:
    """Another stranger: the first one's own log has the ids it asked about."""
    return cloud.stranger()


@pytest.mark.parametrize("path", LISTS)
def test_a_stranger_lists_nothing_of_it(theirs: dict, quiet: Api, path: str):
    reply = quiet("GET", path.format(**theirs))

    assert reply.status == 200, reply
    shown = json.dumps({k: v for k, v in reply.body.items() if k != "first"})
    for kind, ident in theirs.items():
        assert kind == "address" or ident not in shown


@pytest.mark.parametrize("thing", ["networks", "subnets", "ports", "security-groups"])
def test_another_projects_things_are_not_listed_by_naming_it(cloud: Cloud, stranger: Api, thing):
    project = cloud.admin("GET", "/identity/v3/projects?name=demo").body["projects"][0]["id"]

    for name in ("project_id", "tenant_id"):
        reply = stranger("GET", f"{NET}/{thing}?{name}={project}")
        assert next(iter(reply.body.values())) == []
