"""Networks, subnets, ports and security groups over HTTP."""

import pytest

from tests.api.conftest import Cloud, fresh

NET = "/network/v2.0"


@pytest.fixture(scope="module")
def network(cloud: Cloud) -> dict:
    return cloud.network(cloud.demo, "10.80.0.0/24")


def test_a_subnet_gets_gateway_and_pools(network: dict):
    subnet = network["subnet"]

    assert subnet["gateway_ip"] == "10.80.0.1"
    assert subnet["allocation_pools"] == [{"start": "10.80.0.2", "end": "10.80.0.254"}]
    assert subnet["tenant_id"] == subnet["project_id"]


def test_no_gateway_is_asked_for_by_null(cloud: Cloud):
    network = cloud.demo.made(f"{NET}/networks", {"network": {}})
    wish = {"network_id": network["id"], "cidr": "10.81.0.0/29", "ip_version": 4}

    subnet = cloud.demo.made(f"{NET}/subnets", {"subnet": wish | {"gateway_ip": None}})

    assert subnet["gateway_ip"] is None
    assert subnet["allocation_pools"] == [{"start": "10.81.0.1", "end": "10.81.0.6"}]
    assert cloud.demo("DELETE", f"{NET}/networks/{network['id']}").status == 204
    assert cloud.demo("GET", f"{NET}/subnets/{subnet['id']}").status == 404


def test_overlap_is_said_in_the_words_that_clients_search_for(cloud: Cloud, network: dict):
    wish = {"network_id": network["id"], "cidr": "10.80.0.128/25", "ip_version": 4}

    reply = cloud.demo("POST", f"{NET}/subnets", {"subnet": wish})

    assert reply.status == 400
    assert "overlaps with another subnet" in reply.body["NeutronError"]["message"]


def test_ports(cloud: Cloud, network: dict):
    subnet_id = network["subnet"]["id"]
    fixed = [{"subnet_id": subnet_id, "ip_address": "10.80.0.77"}]
    wish = {"network_id": network["id"], "name": fresh("port"), "fixed_ips": fixed}
    port = cloud.demo.made(f"{NET}/ports", {"port": wish})
    path = f"{NET}/ports/{port['id']}"

    assert port["fixed_ips"] == fixed
    assert port["status"] == "DOWN"
    assert "binding:host_id" not in port
    assert "binding:host_id" in cloud.admin("GET", path).body["port"]
    taken = cloud.demo("POST", f"{NET}/ports", {"port": wish})
    assert taken.status == 409
    assert taken.body["NeutronError"]["type"] == "IpAddressInUse"

    def ids(query: str) -> list[str]:
        return [p["id"] for p in cloud.demo("GET", f"{NET}/ports?{query}").body["ports"]]

    assert ids(f"name={port['name']}") == [port["id"]]
    assert ids("fixed_ips=ip_address%3D10.80.0.77") == [port["id"]]
    assert ids(f"mac_address={port['mac_address']}") == [port["id"]]
    assert port["id"] in ids(f"network_id={network['id']}&device_id=")
    assert ids("name=nothing-like-it") == []
    in_use = cloud.demo("DELETE", f"{NET}/subnets/{subnet_id}")
    assert in_use.status == 409
    assert in_use.body["NeutronError"]["type"] == "SubnetInUse"
    assert cloud.demo("DELETE", path).status == 204
    assert cloud.demo("GET", path).status == 404


def test_a_port_of_a_server_is_active_and_stays_until_it_goes(cloud: Cloud, network: dict):
    wish = {"network_id": network["id"], "name": fresh("kept")}
    port = cloud.demo.made(f"{NET}/ports", {"port": wish})
    server = cloud.server(cloud.demo, "", networks=[{"port": port["id"]}])

    def now() -> dict:
        return cloud.demo("GET", f"{NET}/ports/{port['id']}").body["port"]

    assert (now()["status"], now()["device_id"]) == ("ACTIVE", server["id"])
    assert cloud.demo("DELETE", f"{NET}/ports/{port['id']}").status == 409
    again = {"name": "x", "imageRef": cloud.image_id(), "flavorRef": "42"}
    again["networks"] = [{"port": port["id"]}]
    assert cloud.demo("POST", "/compute/v2.1/servers", {"server": again}).status == 409
    cloud.gone(cloud.demo, server["id"])
    assert (now()["status"], now()["device_id"]) == ("DOWN", "")


def test_a_network_in_use_stays(cloud: Cloud, network: dict):
    port = cloud.demo.made(f"{NET}/ports", {"port": {"network_id": network["id"]}})

    refused = cloud.demo("DELETE", f"{NET}/networks/{network['id']}")

    assert refused.status == 409
    assert refused.body["NeutronError"]["type"] == "NetworkInUse"
    assert cloud.demo("DELETE", f"{NET}/ports/{port['id']}").status == 204


def test_fields_cut_and_pages_link(cloud: Cloud):
    names = [fresh("paged") for _ in range(3)]
    for name in names:
        cloud.demo.made(f"{NET}/networks", {"network": {"name": name, "description": "paged"}})

    seen, href = [], f"{NET}/networks?limit=1&description=paged&fields=name&fields=id"
    while href:
        body = cloud.demo("GET", href.removeprefix(cloud.url)).body
        assert all(n.keys() == {"id", "name"} for n in body["networks"])
        seen += [n["name"] for n in body["networks"]]
        links = body.get("networks_links", [])
        href = links[0]["href"] if links else ""

    assert sorted(seen) == sorted(names)
    assert cloud.demo("GET", f"{NET}/networks?marker=nothing").status == 404
    whole = cloud.demo("GET", f"{NET}/networks").body
    assert "networks_links" not in whole
    assert "provider:segmentation_id" not in whole["networks"][0]
    first = cloud.admin("GET", f"{NET}/networks").body["networks"][0]
    assert first["provider:network_type"] == "vxlan"


def test_every_project_has_one_security_group(cloud: Cloud):
    stranger = cloud.stranger()

    (group,) = stranger("GET", f"{NET}/security-groups").body["security_groups"]

    assert group["name"] == "default"
    assert len(group["security_group_rules"]) == 4
    rule = group["security_group_rules"][0]
    shown = stranger("GET", f"{NET}/security-group-rules/{rule['id']}").body
    assert shown["security_group_rule"] == rule
    rules = stranger("GET", f"{NET}/security-group-rules").body["security_group_rules"]
    assert {r["id"] for r in rules} == {r["id"] for r in group["security_group_rules"]}
    ingress = stranger("GET", f"{NET}/security-group-rules?direction=ingress").body
    assert {r["direction"] for r in ingress["security_group_rules"]} == {"ingress"}
    path = f"{NET}/security-groups/{group['id']}"
    assert cloud.demo("GET", path).status == 404
    assert stranger("DELETE", path).status == 501


def test_shared_networks_are_seen_and_used_but_not_changed(cloud: Cloud):
    network = cloud.admin.made(f"{NET}/networks", {"network": {"shared": True, "name": "all"}})
    path = f"{NET}/networks/{network['id']}"

    assert cloud.demo("GET", path).status == 200
    assert cloud.demo("DELETE", path).status == 403
    assert cloud.demo("POST", f"{NET}/networks", {"network": {"shared": True}}).status == 403
    assert cloud.admin("DELETE", path).status == 204


def test_only_extensions_that_work_are_named(cloud: Cloud):
    aliases = {e["alias"] for e in cloud.demo("GET", f"{NET}/extensions").body["extensions"]}

    assert "security-group" in aliases
    assert "router" not in aliases
    missing = cloud.demo("GET", f"{NET}/extensions/router")
    assert missing.status == 404
    assert missing.body["NeutronError"]["type"] == "ExtensionNotFound"
    names = [r["name"] for r in cloud.demo("GET", f"{NET}/").body["resources"]]
    assert names == ["network", "subnet", "port", "security_group", "security_group_rule"]
