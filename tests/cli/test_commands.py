"""Commands against a running cloud: what a person types in a day."""

import json
import subprocess

import pytest

DEMO = "cumulog-demo"


@pytest.fixture(scope="module")
def network(cloud):
    return cloud.json("network", "create", "web", "--cidr", "10.7.0.0/24", cloud=DEMO)


def test_a_server_lives_and_dies(cloud, network):
    made = cloud.json(
        "server", "create", "web-1", "--flavor", "m1.nano", "--image", "tiny-guest",
        "--network", "web", "--property", "role=front", "--wait",
        cloud=DEMO,
    )  # fmt: skip
    assert made["status"] == "ACTIVE"
    assert made["metadata"] == {"role": "front"}
    assert cloud.json("server", "show", "web-1", cloud=DEMO)["id"] == made["id"]
    assert [row["name"] for row in cloud.json("server", "list", cloud=DEMO)] == ["web-1"]
    for action, status in (("stop", "SHUTOFF"), ("start", "ACTIVE"), ("reboot", "ACTIVE")):
        done = cloud.run("server", action, "web-1", "--wait", cloud=DEMO)
        assert done.output == f"server web-1: {status}\n", done.errors
    for action, status in (
        (("resize", "web-1", "--flavor", "m1.small", "--wait"), "VERIFY_RESIZE"),
        (("resize-revert", "web-1", "--wait"), "ACTIVE"),
        (("resize", "web-1", "--flavor", "m1.tiny", "--wait"), "VERIFY_RESIZE"),
        (("resize-confirm", "web-1"), "ACTIVE"),
        (("reboot", "web-1", "--wait"), "ACTIVE"),
    ):
        done = cloud.run("server", *action, cloud=DEMO)
        assert done.output == f"server web-1: {status}\n", done.errors
    assert "simulated guest" in cloud.run("server", "console", "web-1", cloud=DEMO).output
    why = cloud.run("why", "web-1", cloud=DEMO)
    assert "compute.server.placed.v1" in why.output
    assert "host host-1 was weighed" in why.output
    status = next(line for line in why.output.splitlines() if line.startswith("status "))
    assert "ACTIVE" in status
    assert "compute.server.rebooted.v1" in status
    assert " demo " in status, "whose request it was, though an agent reported it"

    done = cloud.run("server", "delete", "web-1", "--wait", cloud=DEMO)

    assert (done.code, done.output) == (0, "server web-1: deleted\n")
    assert cloud.json("server", "list", cloud=DEMO) == []


def test_a_server_is_charged_from_its_start_to_its_end(cloud, network):
    bill = cloud.json("bill", cloud=DEMO)["bills"][0]
    usage = cloud.run("usage", cloud=DEMO)
    table = cloud.run("bill", cloud=DEMO)

    assert usage.code == table.code == 0
    assert "compute.vcpu" in usage.output
    assert bill["currency"] == "EUR"
    assert [line["resource_kind"] for line in bill["lines"]] == ["server"]
    # The server is gone, so what it cost stays what it is.
    assert f"Sum {bill['subtotal']}, rounding" in table.output


def test_any_action_can_be_submitted_as_an_event(cloud, tmp_path):
    (tmp_path / "action.json").write_text('{"name": "from-a-file"}')

    done = cloud.run("submit", "CreateNetwork", "--json", f"@{tmp_path}/action.json", cloud=DEMO)
    piped = cloud.run("submit", "CreateNetwork", "--json", "-", cloud=DEMO, text='{"name": "p"}')

    assert done.code == piped.code == 0
    assert done.output.startswith("ordinal ")
    assert "accepted" in done.output
    assert "network_id" in done.output


def test_an_action_can_be_tried_without_doing_it(cloud):
    before = cloud.json("network", "list", cloud=DEMO)

    done = cloud.run(
        "submit", "CreateNetwork", "--json", '{"name": "tried"}', "--dry-run", cloud=DEMO
    )

    assert done.code == 0, done.errors
    assert "network.network.created.v1" in done.output
    assert "networks" in done.output
    assert "A month (730 h) would cost 0 " in done.output
    assert cloud.json("network", "list", cloud=DEMO) == before


def test_trying_what_would_be_refused_says_why_and_exits_with_1(cloud):
    fields = '{"network_id": "nothing"}'

    done = cloud.run("submit", "DeleteNetwork", "--json", fields, "--dry-run", cloud=DEMO)

    assert done.code == 1
    assert "refused; nothing was changed. NotFound: there is no network nothing" in done.output
    assert done.errors == ""


def test_the_same_key_does_it_once(cloud):
    arguments = ["submit", "CreateNetwork", "--json", '{"name": "once"}', "--key", "k-1"]
    first = cloud.json(*arguments, cloud=DEMO)

    again = cloud.json(*arguments, cloud=DEMO)

    assert again["repeated"]
    assert again["reply"] == first["reply"]
    networks = cloud.json("network", "list", cloud=DEMO)
    assert len([row for row in networks if row["name"] == "once"]) == 1


def test_a_refused_event_is_one_line_with_its_request_and_is_in_the_audit_log(cloud):
    body = json.dumps({"name": "x", "flavor_id": "42", "image_id": "nope"})

    done = cloud.run("submit", "CreateServer", "--json", body, cloud=DEMO)

    assert done.code == 1
    assert done.errors.count("\n") == 1
    assert "nope" in done.errors
    refused = cloud.json("audit", "log", "--outcome", "refused", "--limit", "1", cloud=DEMO)
    assert refused[0]["request_id"] in done.errors


def test_a_requests_way_is_shown_with_times(cloud):
    request = cloud.json("audit", "log", "--action", "CreateNetwork", "--limit", "1")[0]

    shown = cloud.run("audit", "show", request["request_id"]).output
    nested = cloud.json("audit", "show", request["request_id"])["tree"][0]

    assert "submitted" in shown
    assert f"{request['ordinal']}  +" in shown
    assert "network.network.created.v1" in shown
    assert "as member" in shown
    assert (nested["tag"], nested["rule"]) == ("CreateNetwork", "CreateNetwork: member in project")
    assert nested["facts"][0]["tag"] == "network.network.created.v1"


def test_events_are_followed_as_they_happen(cloud):
    from tests.cli.running import CUMULOG, clean_environment

    follower = subprocess.Popen(
        [CUMULOG, "events", "tail", "--follow", "--lines", "1", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment() | {"OS_CLIENT_CONFIG_FILE": str(cloud.state_dir / "clouds.yaml")},
    )
    try:
        assert follower.stdout is not None
        before = json.loads(follower.stdout.readline())["ordinal"]
        cloud.json("network", "create", "seen", cloud=DEMO)
        after = [json.loads(follower.stdout.readline()) for _ in range(2)]
    finally:
        follower.terminate()
        follower.communicate(timeout=30)

    assert [event["ordinal"] for event in after] == [before + 1, before + 2]
    assert [event["tag"] for event in after] == ["CreateNetwork", "network.network.created.v1"]


def test_the_log_verifies_and_replays(cloud):
    for command in (["audit", "verify"], ["replay", "--verify"]):
        done = cloud.run(*command)
        assert done.code == 0, done.errors


def test_the_read_model_is_rebuilt_beside_the_running_cloud_and_is_the_same(cloud, network):
    done = cloud.run("projection", "rebuild", "--state-dir", str(cloud.state_dir), "-o", "json")

    assert done.code == 0, done.errors
    assert json.loads(done.output)["identical"] is True
    # The projector goes on with the new one.
    cloud.json("network", "create", "after-rebuild")
    assert "after-rebuild" in cloud.run("network", "list").output


def test_projects_users_and_roles(cloud):
    cloud.json("project", "create", "lab")
    made = cloud.run(
        "user", "create", "ann", "--project", "lab", "--password-file", "-", text="a good one\n"
    )
    assert made.code == 0, made.errors
    assert cloud.run("user", "grant", "ann", "--project", "demo", "--role", "reader").code == 0

    assert cloud.run("user", "delete", "ann").output == "deleted user ann\n"
    assert cloud.run("project", "delete", "lab").code == 0


def test_what_needs_the_administrator_is_refused_to_others(cloud):
    for command in (["host", "list"], ["flavor", "create", "mine"], ["audit", "verify"]):
        done = cloud.run(*command, cloud=DEMO)
        assert done.code == 1, command
        assert "admin in cloud" in done.errors


def test_a_name_that_two_have_is_refused_with_their_ids(cloud):
    ids = [cloud.json("network", "create", "twin", cloud=DEMO)["id"] for _ in range(2)]

    done = cloud.run("network", "show", "twin", cloud=DEMO)

    assert done.code == 1
    assert all(identity in done.errors for identity in ids)
    assert cloud.run("network", "delete", *ids, cloud=DEMO).code == 0


def test_what_is_not_there_is_told_with_what_to_do(cloud):
    done = cloud.run("server", "show", "nothing", cloud=DEMO)

    assert done.code == 1
    assert "there is no server 'nothing'. `cumulog server list` shows what there is" in done.errors


def test_ports_subnets_keypairs_and_images(cloud, network, tmp_path):
    port = cloud.json(
        "port", "create", "p", "--network", "web", "--fixed-ip", "10.7.0.50", cloud=DEMO
    )
    assert port["fixed_ips"][0]["ip_address"] == "10.7.0.50"
    assert cloud.run("port", "delete", "p", cloud=DEMO).code == 0
    overlapping = cloud.run(
        "subnet", "create", "s", "--network", "web", "--cidr", "10.7.0.0/16", cloud=DEMO
    )
    assert overlapping.code == 1
    private = cloud.run("keypair", "create", "k", cloud=DEMO)
    assert private.output.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert [row["name"] for row in cloud.json("keypair", "list", cloud=DEMO)] == ["k"]
    (tmp_path / "disk.raw").write_bytes(bytes(2**16))
    image = cloud.json(
        "image", "create", "blank", "--file", str(tmp_path / "disk.raw"), "--disk-format", "raw",
        cloud=DEMO,
    )  # fmt: skip
    assert image["status"] == "active"
    assert cloud.run("image", "delete", "blank", cloud=DEMO).code == 0


def test_status_shows_each_part(cloud):
    from tests.cli.running import run

    done = run("status", "--state-dir", str(cloud.state_dir), "-o", "json")

    told = json.loads(done.output)
    assert done.code == 0
    assert told["ok"]
    assert {part["part"] for part in told["parts"]} >= {"nats", "engine", "api", "agent"}


def test_status_of_a_cloud_that_is_down_says_so(tmp_path, cloud):
    from tests.cli.running import run

    (tmp_path / "cell.json").write_text((cloud.state_dir / "cell.json").read_text())
    (tmp_path / "clouds.yaml").write_text(
        "clouds: {cumulog: {auth: {auth_url: 'http://127.0.0.1:9/identity/v3'}}}"
    )

    done = run("status", "--state-dir", str(tmp_path))

    assert done.code == 1
    assert "Not all is well." in done.output
    assert "cannot reach" in done.output


def test_domains_groups_and_roles(cloud):
    cloud.json("domain", "create", "shire")
    project = cloud.json("project", "create", "bag-end", "--domain", "shire", "--tag", "hole")
    assert project["tags"] == ["hole"]
    cloud.json("group", "create", "hobbits", "--domain", "shire")
    done = cloud.run(
        *("user", "create", "sam", "--domain", "shire", "--password-file", "-"), text="a good one\n"
    )
    assert done.code == 0, done.errors
    assert cloud.json("user", "set", "sam", "--email", "sam@example.org")["email"]
    assert cloud.run("group", "add", "hobbits", "sam").output == "sam is in hobbits\n"
    assert [u["name"] for u in cloud.json("group", "members", "hobbits")] == ["sam"]
    cloud.json("role", "create", "gardener")
    assert cloud.run("role", "imply", "gardener", "reader").code == 0
    given = ("--group", "hobbits", "--domain", "shire", "--inherited")
    assert cloud.run("role", "grant", "gardener", *given).code == 0
    held = cloud.json("role", "assignments", "--user", "sam", "--effective")
    assert {(a["role"], a["on"]) for a in held} == {
        ("gardener", "project bag-end"),
        ("reader", "project bag-end"),
    }
    assert cloud.run("role", "revoke", "gardener", *given).code == 0
    assert cloud.run("role", "unimply", "gardener", "reader").code == 0
    assert cloud.run("group", "remove", "hobbits", "sam").code == 0
    assert cloud.run("role", "delete", "gardener").code == 0
    assert cloud.json("project", "set", "bag-end", "--disable")["enabled"] is False
    assert cloud.run("role", "grant", "reader", "--user", "sam").code == 2
    assert cloud.run("domain", "set", "shire").code == 2
    assert cloud.json("domain", "set", "shire", "--disable")["enabled"] is False
    assert cloud.run("domain", "delete", "shire").output == "deleted domain shire\n"


def test_application_credentials(cloud):
    made = cloud.json(
        *("application-credential", "create", "robot", "--role", "member"),
        *("--access-rule", "compute GET /v2.1/servers/**"),
        cloud=DEMO,
    )

    assert made["secret"]
    assert made["access_rules"][0]["path"] == "/v2.1/servers/**"
    (listed,) = cloud.json("application-credential", "list", cloud=DEMO)
    assert "secret" not in listed
    assert cloud.json("application-credential", "show", "robot", cloud=DEMO)["id"] == made["id"]
    assert cloud.run("application-credential", "delete", "robot", cloud=DEMO).code == 0
    assert cloud.json("application-credential", "list", cloud=DEMO) == []


def test_what_followed_from_a_user_is_drawn_and_counted(cloud):
    made = cloud.json("network", "create", "followed", cloud=DEMO)

    drawn = cloud.run("audit", "blast-radius", "user", "demo")
    told = cloud.json("audit", "blast-radius", "user", "demo")
    counted = cloud.run("audit", "blast-radius", "user", "demo", "--depth", "0")
    unknown = cloud.run("audit", "blast-radius", "image", "no-such", cloud=DEMO)

    assert drawn.code == counted.code == 0, drawn.errors
    assert f"made: network {made['id']}" in drawn.output
    assert made["id"] not in counted.output
    assert "made" in told["counts"]["network"]
    assert "hosts reported" in counted.output
    assert (unknown.code, unknown.output) == (1, "")
