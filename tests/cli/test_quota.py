"""``cumulog quota``: what a project may hold, told and set."""

import pytest

DEMO = "cumulog-demo"


@pytest.fixture
def project(cloud):
    made = cloud.json("project", "create", "limited")
    yield made["id"]
    assert cloud.run("project", "delete", "limited").code == 0


def rows(done) -> dict[str, list[str]]:
    """Return a table's rows by their first word."""
    assert done.code == 0, done.errors
    return {line.split()[0]: line.split()[1:] for line in done.output.splitlines()}


def test_a_fresh_cloud_has_openstacks_defaults(cloud):
    own = rows(cloud.run("quota", "show", cloud=DEMO))

    assert own["QUOTA"] == ["USED", "LIMIT", "OF", "EACH"]
    assert own["servers"] == ["0", "10"]
    assert own["disk_gib"] == ["0", "none"]
    assert own["keypairs"][1:] == ["100", "user"]
    assert own["security_group_rules"] == ["4", "100"]
    assert own["server_metadata"] == ["128", "server"]
    assert "server_groups" not in own
    told = cloud.json("quota", "show", cloud=DEMO)
    assert (told["project_name"], told["quotas"]["server_groups"]) == ("demo", {"limit": 0})


def test_limits_are_set_and_reset(cloud, project):
    changed = rows(cloud.run("quota", "set", "servers=2", "vcpus=none", "--project", "limited"))
    assert (changed["servers"], changed["vcpus"]) == (["0", "2"], ["0", "none"])

    listed = rows(cloud.run("quota", "list"))
    assert listed["limited"][:3] == [project, "0/2", "0/none"]
    assert {"admin", "demo"} <= listed.keys()

    part = rows(cloud.run("quota", "reset", "servers", "--project", project))
    assert (part["servers"], part["vcpus"]) == (["0", "10"], ["0", "none"])
    whole = rows(cloud.run("quota", "reset", "--project", "limited"))
    assert whole["vcpus"] == ["0", "20"]


def test_defaults_hold_where_a_project_has_none_of_its_own(cloud, project):
    cloud.run("quota", "set", "ports=7", "--project", "limited")
    try:
        changed = rows(cloud.run("quota", "set", "--default", "ports=9", "networks=8"))
        assert (changed["ports"], changed["networks"]) == (["9"], ["8"])
        limited = rows(cloud.run("quota", "show", "--project", "limited"))
        assert (limited["ports"], limited["networks"]) == (["0", "7"], ["0", "8"])
    finally:
        cloud.run("quota", "set", "--default", "ports=500", "networks=100")


def test_what_cannot_be_set_is_told_with_its_reason(cloud, project):
    for arguments, code, said in [
        (("servers",), 2, "NAME=LIMIT"),
        (("servers=many",), 2, "NAME=LIMIT"),
        (("servers=-2",), 1, "-1"),
        (("banana=1",), 1, "no quota named 'banana'"),
        (("servers=1", "--default"), 2, "--default"),
        (("security_groups=0", "--check"), 1, "0 security_groups is below the 1"),
    ]:
        done = cloud.run("quota", "set", *arguments, "--project", "limited")
        assert (done.code, said in done.errors) == (code, True), (arguments, done.errors)
    assert cloud.run("quota", "set", "servers=1", "--project", "nothing").code == 1


def test_a_member_sees_its_own_and_sets_none(cloud, project):
    assert list(rows(cloud.run("quota", "list", cloud=DEMO))) == ["PROJECT", "demo"]
    done = cloud.run("quota", "set", "servers=99", cloud=DEMO)
    assert done.code == 1
    assert "SetQuota" in done.errors
    assert cloud.run("quota", "show", "--project", project, cloud=DEMO).code == 1
