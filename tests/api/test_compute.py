"""Compute over HTTP: servers and what is done to them, flavors, keypairs, hosts."""

import base64

import pytest

from tests.api.conftest import Cloud, fresh

SERVERS = "/compute/v2.1/servers"


@pytest.fixture(scope="module")
def network(cloud: Cloud) -> dict:
    return cloud.network(cloud.demo)


def test_creating_a_server_answers_with_exactly_what_clients_expect(cloud: Cloud, network: dict):
    wish = {
        "name": "web",
        "imageRef": cloud.image_id(),
        "flavorRef": "42",
        "networks": [{"uuid": network["id"]}],
    }
    reply = cloud.demo("POST", SERVERS, {"server": wish})

    assert reply.status == 202
    server = reply.body["server"]
    assert server.keys() == {"id", "links", "OS-DCF:diskConfig", "security_groups"}
    assert reply.headers["location"] == server["links"][0]["href"]
    assert reply.headers["x-compute-request-id"] == reply.headers["x-openstack-request-id"]
    assert int(reply.headers["x-cumulog-ordinal"]) > 0

    shown = cloud.demo("GET", f"{SERVERS}/{server['id']}")
    assert shown.status == 200, "it can be read the moment it was made"
    cloud.settled(cloud.demo, server["id"])
    actions = cloud.demo("GET", f"{SERVERS}/{server['id']}/os-instance-actions").body
    (create,) = actions["instanceActions"]
    assert create["action"] == "create"
    assert create["request_id"] == reply.headers["x-compute-request-id"]
    cloud.gone(cloud.demo, server["id"])


VIEW = {
    "id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor",
    "created", "updated", "addresses", "accessIPv4", "accessIPv6", "links", "progress",
    "OS-DCF:diskConfig", "OS-EXT-AZ:availability_zone", "config_drive", "key_name",
    "OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at", "OS-EXT-STS:task_state",
    "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state", "os-extended-volumes:volumes_attached",
    "security_groups",
}  # fmt: skip


def test_a_server_has_the_keys_of_its_microversion_and_no_others(cloud: Cloud, network: dict):
    server = cloud.server(cloud.demo, network["id"], metadata={"a": "b"})

    assert server.keys() == VIEW
    assert server["status"] == "ACTIVE"
    assert server["metadata"] == {"a": "b"}
    ((name, (address,)),) = server["addresses"].items()
    assert name == network["name"]
    assert address["OS-EXT-IPS:type"] == "fixed"
    as_admin = cloud.admin("GET", f"{SERVERS}/{server['id']}").body["server"]
    extra = {"host", "hypervisor_hostname", "instance_name"}
    assert as_admin.keys() - VIEW == {f"OS-EXT-SRV-ATTR:{name}" for name in extra}

    path = f"{SERVERS}/{server['id']}"
    assert cloud.demo("GET", f"{path}/metadata").body == {"metadata": {"a": "b"}}
    assert cloud.demo("GET", f"{path}/metadata/a").body == {"meta": {"a": "b"}}
    assert cloud.demo("GET", f"{path}/metadata/x").status == 404
    ips = cloud.demo("GET", f"{path}/ips").body["addresses"]
    assert ips[name] == [{"version": 4, "addr": address["addr"]}]
    groups = cloud.demo("GET", f"{path}/os-security-groups").body["security_groups"]
    assert [g["name"] for g in groups] == ["default"]
    cloud.gone(cloud.demo, server["id"])


def test_a_server_is_stopped_started_rebooted_renamed_and_deleted(cloud: Cloud, network: dict):
    demo = cloud.demo
    ident = cloud.server(demo, network["id"])["id"]
    path = f"{SERVERS}/{ident}"

    def act(action: dict) -> int:
        return demo("POST", f"{path}/action", action).status

    assert act({"os-start": None}) == 409
    assert act({"os-stop": None}) == 202
    stopped = cloud.settled(demo, ident)
    assert (stopped["status"], stopped["OS-EXT-STS:power_state"]) == ("SHUTOFF", 4)
    assert "progress" not in stopped
    assert act({"os-stop": None}) == 409
    assert act({"reboot": {"type": "SOFT"}}) == 409
    assert act({"os-start": None}) == 202
    assert cloud.settled(demo, ident)["status"] == "ACTIVE"
    for kind in ("SOFT", "HARD"):
        assert act({"reboot": {"type": kind}}) == 202
        assert cloud.settled(demo, ident)["status"] == "ACTIVE"
    console = demo("POST", f"{path}/action", {"os-getConsoleOutput": {"length": 10}})
    assert console.status == 200
    assert console.body["output"]

    renamed = demo("PUT", path, {"server": {"name": "another"}})
    assert renamed.status == 200
    assert renamed.body["server"]["name"] == "another"
    assert "OS-EXT-STS:vm_state" not in renamed.body["server"]

    done = demo("GET", f"{path}/os-instance-actions").body["instanceActions"]
    words = [a["action"] for a in done]
    assert words == ["reboot", "reboot", "start", "stop", "create"], words
    one = demo("GET", f"{path}/os-instance-actions/{done[0]['request_id']}").body
    assert "events" not in one["instanceAction"]
    as_admin = cloud.admin("GET", f"{path}/os-instance-actions/{done[0]['request_id']}").body
    assert as_admin["instanceAction"]["events"][0]["result"] == "Success"
    cloud.gone(demo, ident)
    assert demo("DELETE", path).status == 404


def test_an_action_shows_in_the_very_next_read(cloud: Cloud, network: dict):
    ident = cloud.server(cloud.demo, network["id"])["id"]
    path = f"{SERVERS}/{ident}"

    cloud.demo("POST", f"{path}/action", {"os-stop": None})

    server = cloud.demo("GET", path).body["server"]
    resting = (server["status"], server["OS-EXT-STS:task_state"])
    assert resting in {("ACTIVE", "powering-off"), ("SHUTOFF", None)}
    cloud.settled(cloud.demo, ident)
    cloud.gone(cloud.demo, ident)


def test_lists_come_in_pages_with_links_that_work(cloud: Cloud, network: dict):
    api = cloud.stranger()
    own = cloud.network(api)
    made = [cloud.server(api, own["id"], name=f"page-{n}")["id"] for n in range(4)]

    pages, href = [], f"{SERVERS}?limit=2&name=page"
    while href:
        body = api("GET", href.removeprefix(cloud.url)).body
        pages.append([s["id"] for s in body["servers"]])
        links = body.get("servers_links", [])
        href = links[0]["href"] if links else ""
        assert not href or href.startswith(f"{cloud.url}{SERVERS}?")

    assert pages == [made[:1:-1], made[1::-1], []], "newest first, and a link after each full page"
    assert api("GET", f"{SERVERS}?limit=0").body == {"servers": []}
    assert api("GET", f"{SERVERS}?limit=-1").status == 400
    assert api("GET", f"{SERVERS}?limit=many").status == 400
    assert api("GET", f"{SERVERS}?marker=nothing").status == 400
    for ident in made:
        cloud.gone(api, ident)


def test_lists_are_filtered(cloud: Cloud, network: dict):
    demo = cloud.demo
    server = cloud.server(demo, network["id"], name="needle-1")

    def names(query: str) -> list[str]:
        reply = demo("GET", f"{SERVERS}/detail?{query}")
        assert reply.status == 200, reply
        return [s["name"] for s in reply.body["servers"]]

    assert names("name=eedle-.") == ["needle-1"]
    assert names("name=eedle-.&status=active") == ["needle-1"]
    assert names("name=needle&status=SHUTOFF") == []
    assert names("status=NONSENSE") == []
    assert names(f"image={cloud.image_id()}&name=needle") == ["needle-1"]
    assert names("flavor=no-such&name=needle") == []
    address = server["addresses"][network["name"]][0]["addr"]
    assert names(f"ip={address}&name=needle") == ["needle-1"]
    assert names("name=needle&changes-since=2020-01-01T00:00:00Z") == ["needle-1"]
    assert names("name=needle&unknown=filter") == ["needle-1"]
    assert demo("GET", f"{SERVERS}?changes-since=yesterday").status == 400
    assert demo("GET", f"{SERVERS}?name=(((").status == 400
    assert demo("GET", f"{SERVERS}?sort_key=nonsense").status == 400
    assert demo("GET", f"{SERVERS}?all_tenants=1").status == 403
    everywhere = cloud.admin("GET", f"{SERVERS}?all_tenants=1&name=needle").body["servers"]
    assert [s["name"] for s in everywhere] == ["needle-1"]
    assert cloud.admin("GET", f"{SERVERS}?name=needle").body["servers"] == []
    cloud.gone(demo, server["id"])


def test_a_server_that_fits_nowhere_says_what_was_missing(cloud: Cloud, network: dict):
    flavor = {"name": fresh("vast"), "vcpus": 1, "ram": 16 * 2**20, "disk": 2**20}
    flavor_id = cloud.admin.made("/compute/v2.1/flavors", {"flavor": flavor})["id"]
    wish = {"name": "big", "imageRef": cloud.image_id(), "flavorRef": flavor_id}
    wishes = wish | {"networks": [{"uuid": network["id"]}]}

    made = [cloud.demo.made(SERVERS, {"server": wishes})["id"] for _ in range(10)]

    last = cloud.settled(cloud.demo, made[-1])
    assert last["status"] == "ERROR"
    assert "GiB" in last["fault"]["message"] or "MiB" in last["fault"]["message"]
    assert last["hostId"] == ""
    for ident in made:
        cloud.gone(cloud.demo, ident)


def test_user_data_is_sealed_and_a_repeated_request_is_done_once(cloud: Cloud, network: dict):
    secret = base64.b64encode(b"#!/bin/sh\necho hush").decode()
    wish = {
        "name": fresh("keyed"),
        "imageRef": cloud.image_id(),
        "flavorRef": "42",
        "networks": [{"uuid": network["id"]}],
        "user_data": secret,
    }
    key = {"Idempotency-Key": fresh("key")}

    first = cloud.demo("POST", SERVERS, {"server": wish}, headers=key)
    again = cloud.demo("POST", SERVERS, {"server": wish}, headers=key)
    other = cloud.demo("POST", SERVERS, {"server": wish | {"name": "x"}}, headers=key)

    ident = first.body["server"]["id"]
    assert again.body["server"]["id"] == ident
    assert other.status == 409
    told = cloud.demo("GET", f"/v1/why/{ident}").raw
    assert secret.encode() not in told
    assert b"hush" not in told
    cloud.settled(cloud.demo, ident)
    cloud.gone(cloud.demo, ident)


def test_flavors(cloud: Cloud):
    wish = {"id": fresh("flavor"), "name": fresh("size"), "vcpus": 1, "ram": "64", "disk": 1}
    made = cloud.admin("POST", "/compute/v2.1/flavors", {"flavor": wish})
    assert made.status == 200
    assert made.body["flavor"].keys() == {
        "id", "name", "ram", "vcpus", "disk", "swap", "OS-FLV-EXT-DATA:ephemeral",
        "OS-FLV-DISABLED:disabled", "os-flavor-access:is_public", "rxtx_factor", "links",
    }  # fmt: skip
    assert cloud.admin("POST", "/compute/v2.1/flavors", {"flavor": wish}).status == 409
    assert cloud.demo("POST", "/compute/v2.1/flavors", {"flavor": wish}).status == 403
    shown = cloud.demo("GET", f"/compute/v2.1/flavors/{wish['id']}").body["flavor"]
    assert shown["ram"] == 64
    listed = cloud.demo("GET", "/compute/v2.1/flavors/detail?minRam=100").body["flavors"]
    assert all(f["ram"] >= 100 for f in listed)
    assert listed
    assert cloud.demo("GET", "/compute/v2.1/flavors?minRam=lots").status == 400
    assert cloud.admin("DELETE", f"/compute/v2.1/flavors/{wish['id']}").status == 202
    assert cloud.demo("GET", f"/compute/v2.1/flavors/{wish['id']}").status == 404


def test_private_flavors_are_for_administrators(cloud: Cloud):
    wish = {"name": fresh("private"), "vcpus": 1, "ram": 64, "disk": 1}
    wish["os-flavor-access:is_public"] = False
    flavor = cloud.admin.made("/compute/v2.1/flavors", {"flavor": wish})

    assert cloud.demo("GET", f"/compute/v2.1/flavors/{flavor['id']}").status == 404
    listed = cloud.demo("GET", "/compute/v2.1/flavors?is_public=None").body["flavors"]
    assert flavor["id"] not in {f["id"] for f in listed}
    every = cloud.admin("GET", "/compute/v2.1/flavors?is_public=None").body["flavors"]
    assert flavor["id"] in {f["id"] for f in every}


def test_keypairs(cloud: Cloud):
    name = fresh("pair")
    made = cloud.demo("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": name}})
    assert made.status == 200
    pair = made.body["keypair"]
    assert pair["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")

    shown = cloud.demo("GET", f"/compute/v2.1/os-keypairs/{name}").body["keypair"]
    assert shown["fingerprint"] == pair["fingerprint"]
    assert "private_key" not in shown
    wish = {"keypair": {"name": name, "public_key": pair["public_key"]}}
    assert cloud.demo("POST", "/compute/v2.1/os-keypairs", wish).status == 409
    assert cloud.admin("GET", f"/compute/v2.1/os-keypairs/{name}").status == 404
    assert pair["private_key"].encode() not in cloud.admin("GET", "/v1/events?limit=1000").raw
    assert cloud.demo("DELETE", f"/compute/v2.1/os-keypairs/{name}").status == 202
    assert cloud.demo("DELETE", f"/compute/v2.1/os-keypairs/{name}").status == 404


def test_what_administrators_see_of_hosts(cloud: Cloud):
    (host,) = cloud.admin("GET", "/compute/v2.1/os-hypervisors/detail").body["hypervisors"]
    assert host["hypervisor_hostname"] == "host-1"
    assert host["state"] == "up"
    shown = cloud.admin("GET", f"/compute/v2.1/os-hypervisors/{host['id']}").body["hypervisor"]
    assert shown["vcpus"] == host["vcpus"]
    (service,) = cloud.admin("GET", "/compute/v2.1/os-services").body["services"]
    assert service["host"] == "host-1"
    (zone,) = cloud.demo("GET", "/compute/v2.1/os-availability-zone").body["availabilityZoneInfo"]
    assert zone == {"zoneName": "nova", "zoneState": {"available": True}, "hosts": None}
    for path in ("os-hypervisors", "os-services", "os-availability-zone/detail"):
        assert cloud.demo("GET", f"/compute/v2.1/{path}").status == 403
