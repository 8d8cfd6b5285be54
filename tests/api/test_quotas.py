"""Quotas as clients meet them: read, set, and kept however many ask at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from api.compute.quotas import CLASS_SET, MAXIMA, SET, TOTALS, picked
from engine.domain.quota import DEFAULTS
from tests.api.conftest import Api, Cloud, fresh

SETS, CLASSES = "/compute/v2.1/os-quota-sets", "/compute/v2.1/os-quota-class-sets"
LIMITS = "/compute/v2.1/limits"
NETWORK = "/network/v2.0/quotas"
IN_2_1 = {
    "cores", "fixed_ips", "floating_ips", "injected_file_content_bytes",
    "injected_file_path_bytes", "injected_files", "instances", "key_pairs", "metadata_items",
    "ram", "security_group_rules", "security_groups", "server_group_members", "server_groups",
}  # fmt: skip
NETWORKS = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}
FILES = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
GROUPS = {"server_groups", "server_group_members"}


@pytest.fixture
def member(cloud: Cloud) -> Api:
    """A member of a project of its own; ``project`` is its id."""
    stranger = cloud.stranger()
    stranger.project = stranger("GET", f"{NETWORK}/project").body["project"]["project_id"]
    return stranger


def allow(cloud: Cloud, project: str, **limits: int) -> None:
    """Give a project limits by the engine's own names."""
    action = {"type": "SetQuota", "project_id": project, "limits": limits}
    assert cloud.admin("POST", "/v1/actions", action).status == 200


def used(api: Api, name: str) -> int:
    return api("GET", "/v1/quota").body["quota"]["quotas"][name]["used"]


# What clients read


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ((2, 1), IN_2_1),
        ((2, 35), IN_2_1),
        ((2, 36), IN_2_1 - NETWORKS),
        ((2, 56), IN_2_1 - NETWORKS),
        ((2, 57), IN_2_1 - NETWORKS - FILES),
        ((2, 96), IN_2_1 - NETWORKS - FILES),
    ],
)
def test_a_quota_set_has_the_names_of_its_microversion(version, names):
    assert picked(SET, dict(DEFAULTS), version).keys() == names


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ((2, 1), IN_2_1 - GROUPS),
        ((2, 49), IN_2_1 - GROUPS),
        ((2, 50), IN_2_1 - NETWORKS),
        ((2, 57), IN_2_1 - NETWORKS - FILES),
    ],
)
def test_a_quota_class_has_the_names_of_its_microversion(version, names):
    assert picked(CLASS_SET, dict(DEFAULTS), version).keys() == names


def test_limits_lose_what_compute_no_longer_has():
    def names(version):
        return set(picked(MAXIMA, {}, version)) | set(picked(TOTALS, {}, version))

    assert len(names((2, 1))) == 19
    assert names((2, 1)) - names((2, 36)) == {
        "maxSecurityGroups", "maxSecurityGroupRules", "maxTotalFloatingIps",
        "totalSecurityGroupsUsed", "totalFloatingIpsUsed",
    }  # fmt: skip
    assert names((2, 36)) - names((2, 39)) == {"maxImageMeta"}
    assert names((2, 39)) - names((2, 57)) == {"maxPersonality", "maxPersonalitySize"}


def test_a_member_reads_its_projects_quota_and_use(cloud: Cloud, member: Api):
    allow(cloud, member.project, servers=3, vcpus=4, security_groups=7)
    cloud.network(member)

    shown = member("GET", f"{SETS}/{member.project}").body["quota_set"]
    detail = member("GET", f"{SETS}/{member.project}/detail").body["quota_set"]
    network = member("GET", f"{NETWORK}/{member.project}").body["quota"]
    details = member("GET", f"{NETWORK}/{member.project}/details.json").body["quota"]
    absolute = member("GET", LIMITS).body["limits"]["absolute"]

    assert shown.keys() == detail.keys() == IN_2_1 | {"id"}
    assert (shown["id"], shown["instances"], shown["cores"]) == (member.project, 3, 4)
    assert detail["instances"] == {"limit": 3, "in_use": 0, "reserved": 0}
    assert network.keys() == details.keys()
    assert network["security_group"] == 7
    assert details["security_group"] == {"limit": 7, "used": 1, "reserved": 0}
    assert details["security_group_rule"]["used"] == 4
    assert [details[n]["used"] for n in ("network", "subnet", "port")] == [1, 1, 1]
    assert (absolute["maxTotalInstances"], absolute["totalSecurityGroupsUsed"]) == (3, 1)
    # As the network service says it, whoever asks for it.
    for path in (f"{NETWORK}/{member.project}.json", f"{NETWORK}/{member.project}"):
        assert member("GET", path).body["quota"] == network


def test_what_is_used_follows_what_is_made_and_removed(cloud: Cloud, member: Api):
    network = cloud.network(member)
    server = cloud.server(member, network["id"])
    absolute = member("GET", LIMITS).body["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalCoresUsed"]) == (1, 1)
    assert used(member, "ports") == 2

    cloud.gone(member, server["id"])

    absolute = member("GET", LIMITS).body["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalRAMUsed"]) == (0, 0)
    assert used(member, "ports") == 1


def test_defaults_are_those_of_the_class(cloud: Cloud, member: Api):
    body = {"quota_class_set": {"injected_files": 6}}
    told = cloud.admin("PUT", f"{CLASSES}/default", body)

    assert told.status == 200, told
    assert told.body["quota_class_set"].keys() == IN_2_1 - GROUPS
    shown = member("GET", f"{CLASSES}/default").body["quota_class_set"]
    assert (shown["id"], shown["injected_files"]) == ("default", 6)
    defaults = member("GET", f"{SETS}/{member.project}/defaults").body["quota_set"]
    assert (defaults["id"], defaults["injected_files"]) == (member.project, 6)
    assert member("GET", f"{SETS}/{member.project}").body["quota_set"]["injected_files"] == 6
    assert member("GET", "/v1/quota-classes/default").body["quota_class"]["limits"][
        "injected_files"
    ] == 6  # fmt: skip
    assert member("GET", f"{NETWORK}/{member.project}/default").body["quota"]["port"] == -1
    assert member("GET", f"{CLASSES}/other").status == 404


def test_another_projects_quota_is_not_readable(cloud: Cloud, member: Api):
    """Nor is it told whether there is such a project."""
    other = cloud.stranger()
    project = other("GET", f"{NETWORK}/project").body["project"]["project_id"]
    for path in (
        f"{SETS}/{{}}", f"{SETS}/{{}}/detail", f"{LIMITS}?tenant_id={{}}",
        f"{NETWORK}/{{}}", f"{NETWORK}/{{}}/details.json", "/v1/quotas/{}",
    ):  # fmt: skip
        replies = [member("GET", path.format(one)) for one in (project, "f" * 32)]
        assert [reply.status for reply in replies] == [403, 403], path
        assert cloud.admin("GET", path.format(project)).status == 200, path
        assert cloud.admin("GET", path.format("f" * 32)).status == 404, path
    listed = member("GET", "/v1/quotas").body["quotas"]
    assert [quota["project_id"] for quota in listed] == [member.project]
    everybodys = cloud.admin("GET", "/v1/quotas").body["quotas"]
    assert {project, member.project} <= {quota["project_id"] for quota in everybodys}


def test_only_projects_with_limits_of_their_own_are_listed_by_network(cloud: Cloud, member: Api):
    assert member("GET", NETWORK).body == {"quotas": []}

    allow(cloud, member.project, ports=9)

    (listed,) = member("GET", NETWORK).body["quotas"]
    assert (listed["project_id"], listed["port"]) == (member.project, 9)
    assert member.project in {q["project_id"] for q in cloud.admin("GET", NETWORK).body["quotas"]}


# What administrators set


def test_members_set_nothing(member: Api):
    attempts = [
        ("PUT", f"{SETS}/{member.project}", {"quota_set": {"instances": 99}}),
        ("DELETE", f"{SETS}/{member.project}", None),
        ("PUT", f"{CLASSES}/default", {"quota_class_set": {"instances": 99}}),
        ("PUT", f"{NETWORK}/{member.project}", {"quota": {"port": 99}}),
        ("DELETE", f"{NETWORK}/{member.project}", None),
    ]

    assert [member(*attempt).status for attempt in attempts] == [403] * len(attempts)


def test_compute_quotas_are_set_and_reset(cloud: Cloud, member: Api):
    path = f"{SETS}/{member.project}"
    wish = {"instances": 45, "ram": "10240", "server_groups": 11, "security_groups": 20}
    told = cloud.admin("PUT", path, {"quota_set": wish | {"force": True}})

    assert told.status == 200, told
    assert told.body["quota_set"].keys() == IN_2_1
    assert told.body["quota_set"].items() >= {**wish, "ram": 10240}.items()
    shown = member("GET", path).body["quota_set"]
    assert (shown["instances"], shown["ram"], shown["cores"]) == (45, 10240, -1)

    assert cloud.admin("DELETE", path).status == 202
    shown = member("GET", path).body["quota_set"]
    assert (shown["instances"], shown["server_groups"]) == (-1, -1)
    assert shown["security_groups"] == 20  # the network service's to reset


def test_network_quotas_are_set_and_reset(cloud: Cloud, member: Api):
    path = f"{NETWORK}/{member.project}"
    allow(cloud, member.project, servers=3)
    told = cloud.admin("PUT", path, {"quota": {"network": 5, "port": -1}})

    assert told.status == 200, told
    assert (told.body["quota"]["network"], told.body["quota"]["port"]) == (5, -1)
    assert member("GET", path).body == told.body

    assert cloud.admin("DELETE", path).status == 204
    assert member("GET", path).body["quota"]["network"] == -1
    assert member("GET", f"{SETS}/{member.project}").body["quota_set"]["instances"] == 3


@pytest.mark.parametrize(
    "value", [-2, -(10**30), 2**31, 10**30, 1.5, True, None, "x", "-2", "1.5", "", "9" * 20, [], {}]
)
def test_what_is_no_limit_is_refused(cloud: Cloud, member: Api, value):
    bodies = [
        (f"{SETS}/{member.project}", {"quota_set": {"instances": value}}),
        (f"{CLASSES}/default", {"quota_class_set": {"instances": value}}),
        (f"{NETWORK}/{member.project}", {"quota": {"port": value}}),
    ]

    assert [cloud.admin("PUT", path, body).status for path, body in bodies] == [400] * 3


def test_unknown_names_and_projects_are_refused(cloud: Cloud, member: Api):
    admin = cloud.admin
    for path, word in ((SETS, "quota_set"), (NETWORK, "quota")):
        assert admin("PUT", f"{path}/{member.project}", {word: {"banana": 1}}).status == 400
        assert admin("PUT", f"{path}/{member.project}", {"banana": {}}).status == 400
        assert admin("PUT", f"{path}/{'f' * 32}", {word: {}}).status == 404
        assert admin("DELETE", f"{path}/{'f' * 32}").status == 404
        assert admin("PUT", f"{path}/..%2F..", {word: {}}).status in {400, 404}
    body = {"type": "SetQuota", "project_id": member.project, "limits": {"banana": 1}}
    assert admin("POST", "/v1/actions", body).status == 400


def test_one_users_quota_cannot_be_set(cloud: Cloud, member: Api):
    """It would be the project's that changed."""
    path = f"{SETS}/{member.project}?user_id=somebody"

    assert member("GET", path).status == 200
    assert cloud.admin("PUT", path, {"quota_set": {"instances": 1}}).status == 501
    assert cloud.admin("DELETE", path).status == 501


def test_a_limit_goes_below_what_is_used_only_by_force(cloud: Cloud, member: Api):
    cloud.network(member)
    server = {
        "name": fresh("server"), "imageRef": cloud.image_id(), "flavorRef": "42", "networks": "none"
    }  # fmt: skip
    server["networks"] = []
    made = member.made("/compute/v2.1/servers", {"server": server})
    path, body = f"{SETS}/{member.project}", {"quota_set": {"instances": 0}}
    network = f"{NETWORK}/{member.project}"

    refused = cloud.admin("PUT", path, body)
    assert refused.status == 400, refused
    assert "0 servers is below the 1" in refused.body["badRequest"]["message"]
    checked = {"quota": {"network": 0, "check_limit": True}}
    assert cloud.admin("PUT", network, checked).status == 400

    body["quota_set"]["force"] = True
    assert cloud.admin("PUT", path, body).status == 200
    assert cloud.admin("PUT", network, {"quota": {"network": 0}}).status == 200
    another = member("POST", "/compute/v2.1/servers", {"server": server})
    assert another.status == 403, another
    assert member("POST", "/network/v2.0/networks", {"network": {}}).status == 409
    cloud.settled(member, made["id"])
    cloud.gone(member, made["id"])
    for subnet in member("GET", "/network/v2.0/subnets").body["subnets"]:
        assert member("DELETE", f"/network/v2.0/subnets/{subnet['id']}").status == 204


# What is refused


def test_each_service_refuses_as_its_clients_expect(cloud: Cloud, member: Api):
    allow(cloud, member.project, **dict.fromkeys(("keypairs", "networks", "images"), 0))

    compute = member("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "k"}})
    network = member("POST", "/network/v2.0/networks", {"network": {}})
    image = member("POST", "/image/v2/images", {"disk_format": "raw", "container_format": "bare"})
    native = member("POST", "/v1/actions", {"type": "CreateNetwork"})

    text = "asked for where 0 of 0 are used"
    assert (compute.status, list(compute.body)) == (403, ["forbidden"])
    assert f"1 keypairs {text}" in compute.body["forbidden"]["message"]
    assert (network.status, network.body["NeutronError"]["type"]) == (409, "OverQuota")
    assert f"1 networks {text}" in network.body["NeutronError"]["message"]
    assert (image.status, image.body["code"][:3]) == (413, "413")
    assert f"1 images {text}" in image.body["message"]
    assert native.status == 409
    numbers = {"resource": "networks", "used": 0, "asked": 1, "limit": 0}
    assert native.body.items() >= {**numbers, "code": "OverQuota", "status": 409}.items()


def test_what_would_be_refused_is_shown_by_a_dry_run(cloud: Cloud, member: Api):
    allow(cloud, member.project, networks=1)

    dry = member("POST", "/v1/actions?dry_run=1", {"type": "CreateNetwork"}).body
    assert dry["quota_after"]["networks"] == {"used": 1, "limit": 1}
    member.made("/network/v2.0/networks", {"network": {}})
    dry = member("POST", "/v1/actions?dry_run=1", {"type": "CreateNetwork"}).body
    assert (dry["verdict"], dry["code"]) == ("refused", "OverQuota")
    assert used(member, "networks") == 1


@pytest.mark.parametrize("announced", [True, False])
def test_content_that_there_is_no_room_for_is_not_taken_in(cloud: Cloud, member: Api, announced):
    allow(cloud, member.project, image_bytes=1000)
    wish = {"name": "i", "disk_format": "raw", "container_format": "bare"}
    image = member("POST", "/image/v2/images", wish).body["id"]
    blobs = cloud.up.state_dir / "blobs"
    before = sorted(blobs.rglob("*"))
    content = b"x" * 1001
    raw = content if announced else iter([content[:500], content[500:]])
    headers = {"Content-Type": "application/octet-stream"}

    refused = member("PUT", f"/image/v2/images/{image}/file", raw=raw, headers=headers)

    assert refused.status == 413, refused
    assert "0 of 1000 image_bytes are used" in refused.body["message"]
    assert sorted(blobs.rglob("*")) == before
    assert blobs.is_dir()
    path = f"/image/v2/images/{image}"
    assert member("GET", path).body["status"] == "queued"
    fits = member("PUT", f"{path}/file", raw=b"x" * 1000, headers=headers)
    assert fits.status == 204, fits
    assert used(member, "image_bytes") == 1000


AT_ONCE, ALLOWED = 64, 9


@pytest.mark.parametrize(
    ("quota", "path", "body", "refused"),
    [
        ("servers", "/compute/v2.1/servers", "server", 403),
        ("networks", "/network/v2.0/networks", {"network": {"name": "n"}}, 409),
        ("images", "/image/v2/images", {"disk_format": "raw", "container_format": "bare"}, 413),
    ],
)
def test_of_many_at_once_exactly_as_many_as_are_allowed_are_made(
    cloud: Cloud, member: Api, quota, path, body, refused
):
    if body == "server":
        image = cloud.image_id()
        server = {"name": "s", "imageRef": image, "flavorRef": "42", "networks": []}
        body = {"server": server}
    allow(cloud, member.project, **{quota: ALLOWED})

    with ThreadPoolExecutor(AT_ONCE) as clients:
        replies = list(clients.map(lambda _: member("POST", path, body), range(AT_ONCE)))

    statuses = [reply.status for reply in replies]
    assert statuses.count(refused) == AT_ONCE - ALLOWED
    assert sum(status < 300 for status in statuses) == ALLOWED
    assert used(member, quota) == ALLOWED
    if quota == "servers":
        for one in member("GET", "/compute/v2.1/servers").body["servers"]:
            cloud.settled(member, one["id"])
            cloud.gone(member, one["id"])
        assert used(member, "servers") == 0
