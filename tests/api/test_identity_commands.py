"""The ``openstack`` commands of identity, unmodified, as a member and as an operator use them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import Cloud, fresh
from tests.api.openstack import OpenStack
from tests.cli.running import clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def operator(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    with OpenStack(cloud, tmp_path_factory.mktemp("operator"), OS_CLOUD="cumulog") as running:
        yield running


@pytest.fixture(scope="module")
def member(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    with OpenStack(cloud, tmp_path_factory.mktemp("member"), OS_CLOUD="cumulog-demo") as running:
        yield running


def as_user(cloud: Cloud, user: str, **more: str) -> dict[str, str]:
    """Return the environment of a user with the password pw."""
    return {
        "OS_AUTH_URL": f"{cloud.url}/identity/v3",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_USERNAME": user,
        "OS_PASSWORD": "pw",
        "OS_USER_DOMAIN_NAME": "Default",
        **more,
    }


def on_project(cloud: Cloud, user: str, project: str) -> dict[str, str]:
    return as_user(cloud, user, OS_PROJECT_NAME=project, OS_PROJECT_DOMAIN_NAME="Default")


def test_domains(operator: OpenStack):
    name = fresh("domain")

    made = operator.json(f"domain create --description why {name}")
    assert (made["name"], made["description"], made["enabled"]) == (name, "why", True)
    assert name in operator("domain list")
    operator(f"domain set --name {name}-2 --disable {name}")
    assert operator.json(f"domain show {name}-2")["enabled"] is False
    operator(f"domain delete {name}-2")
    assert "No Domain" in operator.refused(f"domain show {name}-2")


def test_projects(operator: OpenStack):
    name = fresh("project")

    made = operator.json(f"project create --tag a --property colour=blue {name}")
    assert (made["tags"], made["domain_id"]) == (["a"], "default")
    inner = operator.json(f"project create --parent {name} {name}-inner")
    assert inner["parent_id"] == made["id"]
    operator(f"project set --description why --tag b --property size=7 {name}")
    shown = operator.json(f"project show --children {name}")
    assert sorted(shown["tags"]) == ["a", "b"]
    assert (shown["colour"], shown["size"], shown["description"]) == ("blue", "7", "why")
    assert inner["id"] in str(shown["subtree"])
    assert made["id"] in str(operator.json(f"project show --parents {name}-inner"))
    assert name in operator("project list --tags a,b")
    assert name in operator("project list --domain default --long")
    operator(f"project set --remove-tag a {name}")
    assert operator.json(f"project show {name}")["tags"] == ["b"]
    operator(f"project delete {name}-inner {name}")
    assert name not in operator("project list")


def test_users_and_groups(operator: OpenStack):
    user, group = fresh("user"), fresh("group")

    made = operator.json(f"user create --password pw --email a@b.c --ignore-password-expiry {user}")
    assert made["email"] == "a@b.c"
    assert made["options"] == {"ignore_password_expiry": True}
    operator(f"user set --description why --disable {user}")
    assert operator.json(f"user show {user}")["enabled"] is False
    operator(f"user set --enable --password other {user}")
    assert user in operator("user list --long")
    operator(f"group create --description why {group}")
    operator(f"group add user {group} {user}")
    assert f"{user} in group {group}" in operator(f"group contains user {group} {user}")
    assert user in operator(f"user list --group {group}")
    assert group in operator(f"group list --user {user}")
    operator(f"group set --name {group}-2 {group}")
    assert operator.json(f"group show {group}-2")["description"] == "why"
    operator(f"group remove user {group}-2 {user}")
    assert user not in operator(f"user list --group {group}-2")
    operator(f"group delete {group}-2")
    operator(f"user delete {user}")


def test_roles_are_given_on_everything(operator: OpenStack):
    user, group, project, domain, role = map(fresh, ("user", "group", "project", "domain", "role"))
    operator(f"user create --password pw {user}")
    operator(f"group create {group}")
    operator(f"project create {project}")
    operator(f"domain create {domain}")
    operator(f"role create --description why {role}")
    assert operator.json(f"role show {role}")["description"] == "why"
    operator(f"role set --name {role}-2 {role}")

    for holder in (f"--user {user}", f"--group {group}"):
        for target in (
            f"--project {project}",
            f"--domain {domain}",
            "--system all",
            f"--project {project} --inherited",
            f"--domain {domain} --inherited",
        ):
            operator(f"role add {holder} {target} {role}-2")
            assert f"{role}-2" in operator(f"role assignment list --names {holder} {target}")
            operator(f"role remove {holder} {target} {role}-2")
            assert f"{role}-2" not in operator(f"role assignment list --names {holder} {target}")
    operator(f"role add --user {user} --project {project} {role}-2")
    operator(f"implied role create --implied-role reader {role}-2")
    assert f"{role}-2" in operator("implied role list")
    effective = operator.json(f"role assignment list --effective --names --user {user}")
    assert {a["Role"] for a in effective} == {f"{role}-2", "reader"}
    assert {a["Project"] for a in effective} == {f"{project}@Default"}
    operator(f"implied role delete --implied-role reader {role}-2")
    operator(f"role delete {role}-2")
    operator(f"domain set --disable {domain}")
    operator(f"domain delete {domain}")
    assert "built in" in operator.refused("role delete member")


def test_application_credentials(cloud: Cloud, member: OpenStack, tmp_path: Path):
    name = fresh("credential")

    made = member.json(f"application credential create --role member --description why {name}")

    assert name in member("application credential list")
    assert member.json(f"application credential show {name}")["Description"] == "why"
    with OpenStack(cloud, tmp_path, **by_credential(cloud, made)) as program:
        assert program.json("token issue")["project_id"] == made["Project ID"]
        program("server list")
        refused = program.refused(f"application credential create {name}-2")
        assert "restricted application credential" in refused
    rules = json.dumps([{"service": "compute", "method": "GET", "path": "/v2.1/servers/**"}])
    bound = member.json(
        f"application credential create --unrestricted --access-rules '{rules}' {name}-3"
    )
    with OpenStack(cloud, tmp_path, **by_credential(cloud, bound)) as program:
        assert "access rule" in program.refused("network list")
    (rule,) = [r for r in member.json("access rule list") if r["Path"] == "/v2.1/servers/**"]
    member(f"application credential delete {name} {name}-3")
    member(f"access rule delete {rule['ID']}")


def by_credential(cloud: Cloud, made: dict) -> dict[str, str]:
    """Return the environment of a program with an application credential."""
    return {
        "OS_AUTH_TYPE": "v3applicationcredential",
        "OS_AUTH_URL": f"{cloud.url}/identity/v3",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_APPLICATION_CREDENTIAL_ID": made["ID"],
        "OS_APPLICATION_CREDENTIAL_SECRET": made["Secret"],
    }


def test_keys(operator: OpenStack, member: OpenStack):
    made = member.json("ec2 credentials create")

    assert made["access"] in member("ec2 credentials list")
    assert member.json(f"ec2 credentials show {made['access']}")["secret"] == made["secret"]
    member(f"ec2 credentials delete {made['access']}")
    user = operator.json("token issue")["user_id"]
    blob = operator.json(f"credential create --type cert {user} a-secret")
    assert blob["blob"] == "a-secret"
    assert blob["id"] in operator("credential list --type cert")
    operator(f"credential set --user {user} --type cert --data another {blob['id']}")
    assert operator.json(f"credential show {blob['id']}")["blob"] == "another"
    operator(f"credential delete {blob['id']}")


def test_trusts(cloud: Cloud, operator: OpenStack, member: OpenStack, tmp_path: Path):
    trustee = fresh("trustee")
    operator(f"user create --password pw {trustee}")
    trustee_id = operator.json(f"user show {trustee}")["id"]
    me = member.json("token issue")

    parties = f"{me['user_id']} {trustee_id}"
    made = member.json(f"trust create --project {me['project_id']} --role member {parties}")

    assert made["id"] in member(f"trust list --trustor {me['user_id']}")
    assert member.json(f"trust show {made['id']}")["trustee_user_id"] == trustee_id
    with OpenStack(cloud, tmp_path, **as_user(cloud, trustee, OS_TRUST_ID=made["id"])) as acting:
        assert acting.json("token issue")["project_id"] == me["project_id"]
        acting("server list")
        member(f"trust delete {made['id']}")
        assert "401" in acting.refused("token issue")


def test_the_catalog(operator: OpenStack, member: OpenStack):
    region, service = fresh("region"), fresh("service")

    operator(f"region create --description why {region}")
    operator(f"region set --description because {region}")
    assert operator.json(f"region show {region}")["description"] == "because"
    assert "RegionOne" in operator("region list")
    operator(f"service create --name {service} --description why toaster")
    assert operator.json(f"service show {service}")["type"] == "toaster"
    url = "http://toaster.example/%(project_id)s"
    made = operator.json(f"endpoint create --region {region} {service} public '{url}'")
    assert made["url"] == url
    assert service in operator(f"endpoint list --service {service}")
    operator(f"endpoint set --url http://other.example/ {made['id']}")
    assert operator.json(f"endpoint show {made['id']}")["url"] == "http://other.example/"
    assert "http://other.example/" in member("catalog list")
    assert "http://other.example/" in member("catalog show toaster")
    operator(f"service set --disable {service}")
    assert "other.example" not in member("catalog list")
    operator(f"endpoint delete {made['id']}")
    operator(f"service delete {service}")
    operator(f"region delete {region}")
    assert "the cloud's own" in operator.refused("region delete RegionOne")
    assert "the cloud's own" in operator.refused("service delete compute")


def test_tokens(cloud: Cloud, member: OpenStack, tmp_path: Path):
    token = member.json("token issue")
    using = {"OS_AUTH_TYPE": "token", "OS_TOKEN": token["id"]}
    using |= {"OS_AUTH_URL": f"{cloud.url}/identity/v3", "OS_IDENTITY_API_VERSION": "3"}

    with OpenStack(cloud, tmp_path, **using, OS_PROJECT_ID=token["project_id"]) as holder:
        holder("server list")
        member(f"token revoke {token['id']}")
        assert "401" in holder.refused("server list")
    assert member.json("token issue")["id"] != token["id"]


def test_members_see_themselves(member: OpenStack):
    me = member.json("token issue")

    assert member.json(f"user show {me['user_id']}")["name"] == "demo"
    assert member.json(f"project show {me['project_id']}")["name"] == "demo"
    assert "403" in member.refused("user show demo")  # as in Keystone: names need a list
    assert "demo" in member("project list --my-projects")
    assert "member" in member("role assignment list --names --auth-user --auth-project")
    assert "RegionOne" in member("region list")
    assert {"admin", "reader"} <= {role["Name"] for role in member.json("role list")}
    member("limits show --absolute")


def test_two_users_in_two_projects_and_an_auditor(
    cloud: Cloud, operator: OpenStack, tmp_path: Path
):
    users = [fresh("alice"), fresh("bob")]
    projects = [fresh("alpha"), fresh("beta")]
    nets = [f"{project}-net" for project in projects]
    auditor = fresh("auditor")
    operator(f"user create --password pw {auditor}")
    operator(f"role add --user {auditor} --system all reader")

    for user, project, net in zip(users, projects, nets, strict=True):
        operator(f"project create {project}")
        operator(f"user create --password pw --project {project} {user}")
        operator(f"role add --user {user} --project {project} member")
        with OpenStack(cloud, tmp_path, **on_project(cloud, user, project)) as one:
            one(f"network create {net}")
            seen = one("network list")
            assert [name for name in nets if name in seen] == [net]
            assert "403" in one.refused("user list")
            one.run(f"role add --user {user} --project {project} admin")  # says nothing if refused
        held = operator.json(f"role assignment list --names --user {user}")
        assert [a["Role"] for a in held] == ["member"]

    with OpenStack(cloud, tmp_path, **as_user(cloud, auditor, OS_SYSTEM_SCOPE="all")) as auditing:
        for command, wanted in (("user list", users), ("project list", projects)):
            seen = auditing(command)
            assert all(name in seen for name in wanted)
        auditing("role assignment list --names")
        auditing("server list --all-projects")
        auditing("image list")
        seen = auditing("network list")
        assert all(name in seen for name in nets)
        for change in (
            f"user delete {users[0]}",
            f"project delete {projects[0]}",
            f"project create {fresh('project')}",
            f"domain create {fresh('domain')}",
            f"network delete {nets[0]}",
        ):
            auditing.refused(change)
        auditing.run(f"role add --user {users[0]} --project {projects[1]} member")
        auditing.run(f"role remove --user {users[0]} --project {projects[0]} member")
    held = operator.json(f"role assignment list --names --user {users[0]}")
    assert [(a["Role"], a["Project"]) for a in held] == [("member", f"{projects[0]}@Default")]
    assert all(name in operator("network list") for name in nets)
    assert all(name in operator("user list") for name in users)


SDK = """
import os
import openstack
cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])
identity = cloud.identity
domain = identity.create_domain(name="sdk-domain")
project = identity.create_project(name="sdk-project", domain_id=domain.id, tags=["a"])
assert identity.find_project("sdk-project", domain_id=domain.id).id == project.id
user = identity.create_user(name="sdk-user", domain_id=domain.id, password="pw")
group = identity.create_group(name="sdk-group", domain_id=domain.id)
identity.add_user_to_group(user, group)
assert identity.check_user_in_group(user, group)
assert [u.id for u in identity.group_users(group)] == [user.id]
role = identity.create_role(name="sdk-role")
identity.assign_project_role_to_user(project, user, role)
assert identity.validate_user_has_project_role(project, user, role)
identity.assign_domain_role_to_group(domain, group, role)
identity.assign_system_role_to_user(user, role, "all")
found = list(identity.role_assignments(user_id=user.id))
assert len(found) == 2, found
assert [p.id for p in identity.user_projects(user)] == [project.id]
identity.unassign_project_role_from_user(project, user, role)
assert not identity.validate_user_has_project_role(project, user, role)
identity.update_user(user, description="why")
assert identity.get_user(user.id).description == "why"
me = cloud.current_user_id
credential = identity.create_application_credential(me, "sdk-credential")
assert credential.secret
assert [c.id for c in identity.application_credentials(me)] == [credential.id]
program = openstack.connect(
    load_yaml_config=False, load_envvars=False,
    auth_type="v3applicationcredential", auth_url=cloud.config.auth["auth_url"],
    application_credential_id=credential.id, application_credential_secret=credential.secret)
assert program.authorize()
list(program.compute.servers())
identity.delete_application_credential(me, credential)
region = identity.create_region(id="sdk-region", description="why")
service = identity.create_service(name="sdk-service", type="toaster")
endpoint = identity.create_endpoint(
    service_id=service.id, interface="public", url="http://x.example", region_id=region.id)
assert identity.find_endpoint(endpoint.id).url == "http://x.example"
for delete, thing in (
    (identity.delete_endpoint, endpoint), (identity.delete_service, service),
    (identity.delete_region, region), (identity.delete_role, role),
    (identity.delete_group, group), (identity.delete_user, user),
    (identity.delete_project, project)):
    delete(thing, ignore_missing=False)
identity.update_domain(domain, enabled=False)
identity.delete_domain(domain, ignore_missing=False)
assert identity.find_domain("sdk-domain") is None
assert cloud.list_users() and cloud.list_projects() and cloud.list_roles()
print("well")
"""


def test_the_sdk_of_identity(cloud: Cloud, tmp_path: Path):
    environment = clean_environment() | {
        "OS_CLIENT_CONFIG_FILE": str(cloud.up.state_dir / "clouds.yaml"),
        "OS_CLOUD": "cumulog",
        "PYTHONWARNINGS": "",
    }

    done = subprocess.run(
        [sys.executable, "-c", SDK],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=environment,
        check=False,
    )

    assert done.stdout.strip() == "well", done.stderr
