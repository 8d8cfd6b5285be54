"""What was asked for is taken back by requests that say so, as far as the caller may."""

import pytest

from tests.api.conftest import Api, Cloud, fresh
from tests.api.test_audit import asked

SERVERS = "/compute/v2.1/servers"


def network(api: Api) -> tuple[str, str]:
    """Make a network; return its id and the request's."""
    reply = api("POST", "/network/v2.0/networks", {"network": {"name": fresh("net")}})
    return reply.body["network"]["id"], asked(reply)


def test_all_of_a_range_is_taken_back_in_order_and_on_record(cloud: Cloud):
    api = cloud.stranger()
    first = int(api("GET", "/v1/events?limit=1").headers["x-cumulog-ordinal"]) + 1
    made = cloud.network(api)
    server = cloud.server(api, made["id"])
    last = int(api("GET", "/v1/events?limit=1").headers["x-cumulog-ordinal"])
    owner = api("GET", f"/v1/audit?resource_id={server['id']}&people=1").body["requests"][0]

    plan = cloud.admin("GET", f"/v1/undo/{first}..{last}?project={owner['project_id']}").body
    asks = cloud.up.run("undo", f"{first}..{last}", "--project", owner["project_id"])
    done = cloud.up.run("undo", f"{first}..{last}", "--user", owner["user_id"], "--yes")
    again = cloud.up.run("undo", f"{first}..{last}", "--user", owner["user_id"], "--yes")

    assert [step["action"]["type"] for step in plan["steps"]] == [
        "DeleteServer",
        "DeleteSubnet",
        "DeleteNetwork",
    ]
    assert asks.code == 1, "nobody was there to say yes"
    assert "DeleteServer" in asks.output
    assert done.code == 0, done.errors
    assert api("GET", f"{SERVERS}/{server['id']}").status == 404
    assert api("GET", f"/network/v2.0/networks/{made['id']}").status == 404
    assert (again.code, "nothing to do" in again.output) == (0, True)
    # Whoever asks what became of the first request finds that it was undone, and by whom.
    (root,) = api("GET", f"/v1/audit/{owner['request_id']}").body["tree"]
    (caused,) = root["caused"]
    assert (caused["tag"], caused["cause"]) == ("DeleteServer", owner["request_id"])
    assert caused["user_id"] != owner["user_id"]


def test_what_others_have_changed_since_stays_unless_it_is_forced(cloud: Cloud, demo: Api):
    made = cloud.network(demo)
    server = cloud.server(demo, made["id"])
    path = f"{SERVERS}/{server['id']}"
    first = asked(demo("PUT", path, {"server": {"name": "first"}}))
    demo("PUT", path, {"server": {"name": "second"}})

    (step,) = demo("GET", f"/v1/undo/{first}").body["steps"]
    refused = cloud.up.run("undo", first, "--yes", cloud="cumulog-demo")
    named = demo("GET", path).body["server"]["name"]
    forced = cloud.up.json("undo", first, "--yes", "--force", cloud="cumulog-demo")

    assert step["changed_by"]["tag"] == "compute.server.renamed.v1"
    assert (refused.code, named) == (1, "second")
    assert demo("GET", path).body["server"]["name"] == server["name"]
    assert [one["verdict"] for one in forced["done"]] == ["accepted"]
    cloud.gone(demo, server["id"])
    deleted = demo("GET", f"/v1/audit?resource_id={server['id']}&action=DeleteServer").body
    (final,) = demo("GET", f"/v1/undo/{deleted['requests'][0]['request_id']}").body["steps"]
    assert (final["action"], "its disk" in final["cannot"]) == (None, True)


def test_nobody_plans_with_what_they_may_not_see(cloud: Cloud, demo: Api):
    _, request_id = network(demo)
    stranger = cloud.stranger()

    assert stranger("GET", f"/v1/undo/{request_id}").status == 404
    action = {"type": "CreateNetwork", "name": fresh("net")}
    caused = stranger("POST", f"/v1/actions?cause={request_id}", action)
    assert (caused.status, caused.body["code"]) == (400, "InvalidInput")
    own = demo("POST", f"/v1/actions?cause={request_id}", action)
    assert own.status == 200
    (row,) = demo("GET", f"/v1/audit?request_id={asked(own)}").body["requests"]
    assert row["cause"] == request_id


@pytest.mark.parametrize(
    ("what", "status"),
    [("req-unknown", 404), ("9..3", 400), ("1..99999999999999999", 404), ("..", 404)],
)
def test_what_is_no_request_is_said(demo: Api, what: str, status: int):
    assert demo("GET", f"/v1/undo/{what}").status == status
