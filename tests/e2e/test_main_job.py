"""One request travels the whole house to a real guest and back into what is read and billed."""

import json
import subprocess
from decimal import Decimal

import openstack
import pytest
from openstack.config import OpenStackConfig

from tests.cli.running import eventually
from tests.e2e.conftest import RealCloud

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

USER_DATA = "#!/bin/sh\necho @@ mine\n"


@pytest.fixture(scope="module")
def network(real: RealCloud) -> str:
    made = real.show("network", "create", "net")
    subnet = real.show(
        *("subnet", "create", "sub", "--network", "net", "--subnet-range", "10.20.0.0/24")
    )
    assert subnet["gateway_ip"] == "10.20.0.1"
    return made["id"]


@pytest.fixture(scope="module")
def server(real: RealCloud, network: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A server made with an image and a key of its own, by the unmodified client."""
    directory = tmp_path_factory.mktemp("files")
    image = real.show(
        *("image", "create", "mine", "--disk-format", "qcow2"),
        *("--file", str(real.state_dir / "tiny-guest.qcow2")),
    )
    assert image["status"] == "active"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "key")], check=True
    )
    real.openstack("keypair", "create", "--public-key", str(directory / "key.pub"), "mine")
    (directory / "user-data").write_text(USER_DATA)
    return real.show(
        *("server", "create", "web-1", "--image", "mine", "--flavor", "m1.nano"),
        *("--network", "net", "--key-name", "mine", "--wait"),
        *("--user-data", str(directory / "user-data")),
    )


def test_the_client_finds_its_way(real):
    assert real.show("token", "issue")["project_id"]
    types = {entry["Type"] for entry in json.loads(real.openstack("catalog", "list", "-f", "json"))}
    assert {"identity", "compute", "image", "network"} <= types
    assert "m1.nano" in real.openstack("flavor", "list")


def test_the_guest_boots_with_its_address_name_key_and_user_data(real, server):
    console = real.wait_for_console("web-1", "@@ ready")

    address = server["addresses"]["net"][0]
    assert f"@@ dhcp if=eth0 ip={address}/24 gw=10.20.0.1" in console
    meta = next(line for line in console.splitlines() if "@@ meta" in line)
    assert f"src=ec2 id={server['id']} hostname=web-1" in meta
    assert not meta.endswith("key=0")
    assert "@@ mine" in console
    assert "@@ userdata rc=0" in console


def test_ping_and_ssh_are_let_in_and_http_is_not(real, network, server):
    """The guest serves HTTP on 80 and refuses 22; only the rules make 80 silent."""
    real.wait_for_console("web-1", "@@ ready")
    address = server["addresses"]["net"][0]

    assert real.inside(network, "ping", "-c", "3", "-W", "5", address).returncode == 0
    ssh = real.inside(network, "timeout", "5", "bash", "-c", f"echo > /dev/tcp/{address}/22")
    assert "refused" in ssh.stderr
    http = real.inside(network, "timeout", "5", "bash", "-c", f"echo > /dev/tcp/{address}/80")
    assert http.returncode == 124


def test_stop_start_and_reboot(real, server):
    real.wait_for_console("web-1", "@@ ready")

    real.openstack("server", "stop", "web-1")
    eventually(lambda: real.show("server", "show", "web-1")["status"] == "SHUTOFF", "SHUTOFF", 120)
    assert real.inventory().domains == ()
    real.openstack("server", "start", "web-1")
    eventually(lambda: real.show("server", "show", "web-1")["status"] == "ACTIVE", "ACTIVE", 120)
    real.wait_for_console("web-1", "@@ boot n=2")
    real.openstack("server", "reboot", "--hard", "--wait", "web-1")
    real.wait_for_console("web-1", "@@ boot n=3")
    assert len(real.inventory().domains) == 1


# The SDK warns of what it will drop itself.
@pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning")
@pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning")
def test_the_sdk_sees_the_same(real, server):
    config = OpenStackConfig(config_files=[str(real.state_dir / "clouds.yaml")])
    cloud = openstack.connection.Connection(config=config.get_one("cumulog-demo"))
    try:
        found = cloud.compute.find_server("web-1", ignore_missing=False)
        assert found.id == server["id"]
        shown = cloud.compute.get_server(found)
        assert shown.addresses["net"][0]["addr"] == server["addresses"]["net"][0]
        assert [n.name for n in cloud.network.networks()] == ["net"]
        assert {i.name for i in cloud.image.images()} == {"mine", "tiny-guest"}
    finally:
        cloud.close()


def test_delete_leaves_nothing(real, server):
    real.openstack("server", "delete", "--wait", "web-1")

    eventually(lambda: real.inventory().of_servers() == {}, "nothing is left on the host", 60)
    assert json.loads(real.openstack("server", "list", "-f", "json")) == []
    assert "No Server found" in real.openstack("server", "show", "web-1", code=1)


def test_the_log_explains_verifies_replays_and_bills(real, server):
    """Right after: the chain, the replay, the explanation and the bill agree."""
    assert real.json("audit", "verify")["intact"] is True
    replay = real.json("replay", "--verify")
    assert replay["matches"] is True
    why = real.run("why", server["id"], cloud="cumulog-demo")
    assert "compute.server.placed.v1" in why.output
    (bill,) = real.json("bill", cloud="cumulog-demo")["bills"]
    lines = [line for line in bill["lines"] if line["resource_id"] == server["id"]]
    assert len(lines) == 1
    assert lines[0]["first_ordinal"] < lines[0]["last_ordinal"]
    assert Decimal(bill["subtotal"]) == sum(Decimal(line["amount"]) for line in bill["lines"])
    adjustment = Decimal(bill["adjustment"]["amount"])
    assert Decimal(bill["total"]) == Decimal(bill["subtotal"]) + adjustment


def test_status_is_well(real):
    assert real.run("status", "--state-dir", str(real.state_dir)).code == 0
