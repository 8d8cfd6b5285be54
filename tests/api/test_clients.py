"""The clients people have, unmodified: the ``openstack`` command and openstacksdk.

Each command is a process of its own, and must end well without a warning or a traceback.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.conftest import Cloud
from tests.api.loaded import Loaded
from tests.cli.running import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Cli:
    """The ``openstack`` command as one account."""

    def __init__(self, loaded: Loaded, cloud: Cloud, name: str, directory: Path) -> None:
        self.loaded = loaded
        self.environment = clean_environment() | {
            "OS_CLIENT_CONFIG_FILE": str(cloud.up.state_dir / "clouds.yaml"),
            "OS_CLOUD": name,
        }
        self.directory = directory

    def run(self, line: str) -> tuple[int, str, str]:
        """Run a command; return its code and what it said."""
        return self.loaded.run(line, self.directory, self.environment)

    def __call__(self, line: str, *, code: int = 0) -> str:
        ended, out, errors = self.run(line)
        assert ended == code, f"{line}: {out}{errors}"
        if code == 0:
            ours = [n for n in errors.splitlines() if not _of_the_client(n)]
            assert ours == [], f"{line}: {errors}"
        return out

    def json(self, line: str) -> dict | list:
        return json.loads(self(f"{line} -f json"))


def _of_the_client(line: str) -> bool:
    """Return whether a line warns about the client's own code, whatever the cloud."""
    return "site-packages" in line or line.startswith("  ") or "Progress:" in line or not line


@pytest.fixture
def member(loaded: Loaded, cloud: Cloud, tmp_path: Path) -> Cli:
    return Cli(loaded, cloud, "cumulog-demo", tmp_path)


@pytest.fixture
def operator(loaded: Loaded, cloud: Cloud, tmp_path: Path) -> Cli:
    return Cli(loaded, cloud, "cumulog", tmp_path)


def test_a_members_day(member: Cli, tmp_path: Path):
    """From a token to a server and back to nothing."""
    content = os.urandom(200_000)
    (tmp_path / "disk.raw").write_bytes(content)

    assert member.json("token issue").keys() >= {"id", "expires", "project_id", "user_id"}
    offered = [service["Name"] for service in member.json("catalog list")]
    assert sorted(offered) == ["compute", "identity", "image", "network"]
    assert "m1.nano" in member("flavor list")
    image = member.json("image create --file disk.raw --disk-format raw --property a=b cli-image")
    assert image["status"] == "active"
    assert member.json("image show cli-image")["size"] == len(content)
    assert "cli-image" in member("image list")
    member("image set --name cli-image-2 --property c=d cli-image")
    member("image save --file back.raw cli-image-2")
    assert (tmp_path / "back.raw").read_bytes() == content

    assert member.json("network create cli-net")["status"] == "ACTIVE"
    member("subnet create --network cli-net --subnet-range 10.44.0.0/24 cli-sub")
    assert "cli-net" in member("network list")
    assert member.json("network show cli-net")["name"] == "cli-net"
    assert "10.44.0.0/24" in member("subnet list")
    assert member.json("subnet show cli-sub")["gateway_ip"] == "10.44.0.1"
    assert member.json("port create --network cli-net cli-port")["status"] == "DOWN"
    assert "cli-port" in member("port list")
    assert member.json("port show cli-port")["name"] == "cli-port"
    assert "default" in member("security group list")
    member("keypair create --private-key cli-key.pem cli-key")
    assert "OPENSSH PRIVATE KEY" in (tmp_path / "cli-key.pem").read_text()
    assert "cli-key" in member("keypair list")

    server = member.json(
        "server create --wait --image cli-image-2 --flavor m1.nano --network cli-net"
        " --key-name cli-key --property k=v cli-server"
    )
    assert server["status"] == "ACTIVE"
    (listed,) = [s for s in member.json("server list") if s["Name"] == "cli-server"]
    assert (listed["Image"], listed["Flavor"]) == ("cli-image-2", "m1.nano")
    assert member.json("server show cli-server")["key_name"] == "cli-key"
    member("server stop cli-server")
    assert member.json("server show cli-server")["status"] in {"ACTIVE", "SHUTOFF"}
    member("server start cli-server")
    member("server reboot --wait cli-server")
    member("server reboot --hard --wait cli-server")
    assert "guest" in member("console log show cli-server")
    resized = "server show cli-server -c status -c flavor"
    member("server resize --flavor m1.tiny --wait cli-server")
    assert member.json(resized)["status"] == "VERIFY_RESIZE"
    member("server resize confirm cli-server")
    settled = member.json(resized)
    assert settled["status"] == "ACTIVE"
    assert "m1.tiny" in str(settled["flavor"])
    assert len(member.json("server event list cli-server")) == 7
    member("server set --name cli-server-2 cli-server")
    member("server delete --wait cli-server-2")
    assert "cli-server" not in member("server list")

    member("port delete cli-port")
    member("subnet delete cli-sub")
    member("network delete cli-net")
    member("keypair delete cli-key")
    member("image delete cli-image-2")
    assert "nova" in member("availability zone list")
    member("limits show --absolute")
    member("extension list")
    member("versions show")
    assert "No Server found for nothing" in _failure(member, "server show nothing")


def _failure(cli: Cli, line: str) -> str:
    code, _, errors = cli.run(line)
    assert code == 1
    assert "Traceback" not in errors
    return errors


def test_an_operators_day(operator: Cli):
    """Projects, users, roles, flavors, hosts."""
    project = operator.json("project create --description why cli-project")
    user = operator.json("user create --password secret --project cli-project cli-user")
    assert user["default_project_id"] == project["id"]
    operator("role add --user cli-user --project cli-project member")
    assert "cli-project" in operator("role assignment list --names --user cli-user")
    operator("role remove --user cli-user --project cli-project member")
    operator("user set --password other cli-user")
    assert operator.json("user show cli-user")["name"] == "cli-user"
    roles = {role["Name"] for role in operator.json("role list")}
    assert roles == {"admin", "manager", "member", "reader", "service"}
    assert "cli-user" in operator("user list")
    assert "cli-project" in operator("project list")
    operator("user delete cli-user")
    operator("project delete cli-project")
    flavor = operator.json("flavor create --id cli-1 --ram 64 --disk 1 --vcpus 1 cli-flavor")
    assert flavor["ram"] == 64
    assert operator.json("flavor show cli-flavor")["id"] == "cli-1"
    operator("flavor delete cli-flavor")
    assert [h["State"] for h in operator.json("hypervisor list")] == ["up"]
    assert operator.json("hypervisor show host-1")["state"] == "up"
    assert "nova-compute" in operator("compute service list")
    assert "host-1" in operator("availability zone list --long")
    operator("server list --all-projects")
    operator("service list")
    operator("endpoint list")
    assert "built in" in _failure(operator, "role delete member")
    for line in (
        "domain show default",
        "group create cli-group",
        "group delete cli-group",
        "role create cli-role",
        "implied role create --implied-role reader cli-role",
        "role delete cli-role",
        "application credential create cli-credential",
        "application credential delete cli-credential",
        "ec2 credentials create",
        "ec2 credentials list",
        "credential list",
        "trust list",
        "access rule list",
        "region show RegionOne",
        "service show identity",
        "endpoint list --service identity",
        "catalog show identity",
        "role assignment list --names --effective",
    ):
        operator(line)


def test_quotas_as_an_operator_sets_them(operator: Cli, member: Cli):
    """Of all services at once; a member reads its own, and is refused what is too much."""

    def quotas(cli: Cli, line: str = "quota show", project: str = "") -> dict:
        return {row["Resource"]: row for row in cli.json(f"{line} {project}".strip())}

    project = operator.json("project create cli-quota")["id"]
    operator("quota set --instances 3 --cores 4 --ram 2048 --key-pairs 5 cli-quota")
    operator("quota set --networks 2 --ports -1 --secgroups 1 --secgroup-rules 4 cli-quota")
    limits = {n: q["Limit"] for n, q in quotas(operator, project="cli-quota").items()}
    assert limits.items() >= {
        "instances": 3, "cores": 4, "ram": 2048, "key-pairs": 5, "networks": 2, "ports": -1,
        "security_groups": 1, "security_group_rules": 4,
    }.items()  # fmt: skip
    usage = quotas(operator, "quota show --usage", "cli-quota")
    assert [usage[f"security_group{s}"]["In Use"] for s in ("s", "_rules")] == [1, 4]
    assert usage["instances"] == {
        "Resource": "instances", "Limit": 3, "In Use": 0, "Reserved": 0
    }  # fmt: skip
    for service in ("compute", "network"):
        listed = {row["Project ID"]: row for row in operator.json(f"quota list --{service}")}
        assert project in listed
    assert listed[project]["Networks"] == 2
    assert quotas(operator, "quota show --default", "cli-quota")["instances"]["Limit"] == -1

    assert "below the 1" in _failure(operator, "quota set --secgroups 0 cli-quota")
    operator("quota set --force --secgroups 0 cli-quota")
    operator("quota set --default --injected-files 6")
    assert quotas(operator, project="cli-quota")["injected-files"]["Limit"] == 6
    operator("quota delete --network cli-quota")
    assert quotas(operator, project="cli-quota")["networks"]["Limit"] == -1
    assert quotas(operator, project="cli-quota")["instances"]["Limit"] == 3
    operator("quota delete cli-quota")
    assert quotas(operator, project="cli-quota")["instances"]["Limit"] == -1
    operator("project delete cli-quota")

    absolute = {row["Name"]: row["Value"] for row in member.json("limits show --absolute")}
    assert (absolute["max_total_instances"], absolute["total_security_groups_used"]) == (-1, 1)
    assert quotas(member, "quota show --usage")["security_groups"]["In Use"] == 1
    assert "SetQuota" in _failure(member, "quota set --instances 99")
    held = absolute["total_instances_used"]
    operator(f"quota set --instances {held} --key-pairs 0 demo")
    try:
        refused = _failure(member, "keypair create --private-key cli-many.pem cli-many")
    finally:
        operator("quota delete demo")
    assert "1 keypairs asked for where" in refused


SDK = """
import os
import openstack
cloud = openstack.connect(
    cloud=os.environ["OS_CLOUD"], app_name="sdk-tests", app_version="1")
token = cloud.authorize()
with open("disk.raw", "wb") as f:
    f.write(os.urandom(100_000))
image = cloud.create_image("sdk-image", filename="disk.raw", disk_format="raw", wait=True)
assert image.status == "active", image
network = cloud.network.create_network(name="sdk-net")
subnet = cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.45.0.0/24")
flavor = cloud.compute.find_flavor("m1.nano", ignore_missing=False)
keypair = cloud.compute.create_keypair(name="sdk-key")
assert keypair.private_key
server = cloud.compute.create_server(
    name="sdk-server", image_id=image.id, flavor_id=flavor.id,
    networks=[{"uuid": network.id}], key_name=keypair.name)
server = cloud.compute.wait_for_server(server)
assert server.status == "ACTIVE"
assert [s.id for s in cloud.compute.servers(name="sdk-server")] == [server.id]
cloud.compute.stop_server(server)
server = cloud.compute.wait_for_server(server, status="SHUTOFF")
cloud.compute.start_server(server)
server = cloud.compute.wait_for_server(server)
cloud.compute.reboot_server(server, "HARD")
server = cloud.compute.wait_for_server(server)
cloud.compute.stop_server(server)
server = cloud.compute.wait_for_server(server, status="SHUTOFF")
larger = cloud.compute.find_flavor("m1.tiny", ignore_missing=False)
cloud.compute.resize_server(server, larger)
server = cloud.compute.wait_for_server(server, status="VERIFY_RESIZE")
assert server.vm_state == "resized" and server.power_state == 4, server
cloud.compute.revert_server_resize(server)
server = cloud.compute.wait_for_server(server, status="SHUTOFF")
cloud.compute.resize_server(server, larger)
server = cloud.compute.wait_for_server(server, status="VERIFY_RESIZE")
cloud.compute.confirm_server_resize(server)
server = cloud.compute.get_server(server)
assert server.status == "SHUTOFF" and server.flavor.id == larger.id, server
cloud.compute.start_server(server)
server = cloud.compute.wait_for_server(server)
assert cloud.compute.get_server_console_output(server)["output"]
assert len(list(cloud.compute.server_actions(server))) == 10
cloud.compute.delete_server(server)
cloud.compute.wait_for_delete(server)
cloud.compute.delete_keypair(keypair)
assert list(cloud.image.images(name="sdk-image"))[0].id == image.id
cloud.image.update_image(image, name="sdk-image-2", colour="blue")
assert cloud.image.get_image(image.id).properties["colour"] == "blue"
cloud.image.delete_image(image)
cloud.network.delete_subnet(subnet)
cloud.network.delete_network(network)
assert cloud.network.find_network("sdk-net") is None
assert cloud.list_servers(filters={"name": "sdk-server"}) == []
print("well")
"""


def test_the_sdk(member: Cli, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", SDK],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=member.environment | {"PYTHONWARNINGS": ""},
        check=False,
    )

    assert done.stdout.strip() == "well", done.stderr
    assert done.returncode == 0
