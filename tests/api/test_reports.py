"""Reports tell what the bill tells, grouped; what is idle; and what was left by which event."""

from decimal import Decimal

import pytest

from cli.output import when
from tests.api.conftest import Cloud, fresh

COST = "/v1/reports/cost"


@pytest.fixture(scope="module")
def spent(cloud: Cloud):
    """A project with a server that was stopped, where a second costs something."""
    prices = [
        {"sku": meter, "meter": meter, "unit": unit, "price": "100000"}
        for meter, unit in (
            ("compute.vcpu", "Core-Hours"),
            ("compute.memory", "GiB-Hours"),
            ("compute.disk", "GiB-Hours"),
        )
    ]
    dear = {"type": "PublishPriceList", "currency": "EUR", "rules": prices, "free": ["image.size"]}
    assert cloud.admin("POST", "/v1/actions", dear).status == 200
    api = cloud.stranger()
    network = cloud.network(api)
    server = cloud.server(api, network["id"])
    path = f"/compute/v2.1/servers/{server['id']}/action"
    assert api("POST", path, {"os-stop": None}).status == 202
    return api, cloud.settled(api, server["id"])


def test_costs_add_up_to_the_bill(cloud: Cloud, spent):
    api, server = spent

    bill = api("GET", "/v1/bill?end=2099-01-01").body["bills"][0]
    window = f"end={when(bill['end'])}"
    bill = api("GET", f"/v1/bill?{window}").body["bills"][0]
    for by in ("project", "day,meter", "kind,resource,user"):
        told = api("GET", f"{COST}?by={by}&{window}")
        assert told.status == 200, told
        summed = sum(Decimal(cost["amount"]) for cost in told.body["costs"])
        assert summed == Decimal(bill["subtotal"]) == Decimal(told.body["totals"]["EUR"])
        assert tuple(told.body["costs"][0]["group"]) == tuple(by.split(","))
    by_user = api("GET", f"{COST}?by=user").body
    assert list(by_user["names"]) == [cost["group"]["user"] for cost in by_user["costs"]]
    assert server["id"] in str(api("GET", f"{COST}?by=resource").body)
    everybody = cloud.admin("GET", f"{COST}?by=project").body
    assert [cost["share"] for cost in everybody["costs"]][:1] == ["100.0"], "nobody else spends"
    stranger = cloud.stranger()
    assert stranger("GET", COST).body["costs"] == []


@pytest.mark.parametrize("query", ["by=colour", "by=day,day", "by=", "top=1e3", "start=x"])
def test_what_nothing_is_grouped_by_is_refused(cloud: Cloud, query: str):
    status = 200 if query == "by=" else 400
    assert cloud.demo("GET", f"{COST}?{query}").status == status


def test_a_stopped_server_is_idle_and_costs(cloud: Cloud, spent):
    api, server = spent

    (one,) = api("GET", "/v1/reports/idle?days=0").body["idle"]
    later = api("GET", "/v1/reports/idle").body["idle"]

    assert (one["id"], one["why"]) == (server["id"], "is stopped")
    assert one["ordinal"] > 0
    assert Decimal(one["cost"].get("EUR", "0")) >= 0
    assert later == [], "not for a week"
    table = cloud.up.run("report", "idle", "--days", "0")
    assert server["id"] in table.output


def test_what_a_project_leaves_is_found_with_its_event(cloud: Cloud):
    api = cloud.stranger()
    network = cloud.network(api)
    project = api("GET", "/network/v2.0/networks").body["networks"][0]["project_id"]
    assert cloud.admin("DELETE", f"/identity/v3/projects/{project}").status == 204

    told = cloud.admin("GET", "/v1/reports/orphans").body
    rows = {one["id"]: one for one in told["orphans"]}
    table = cloud.up.run("report", "orphans")

    left = rows[network["id"]]
    assert (left["parent_kind"], left["parent_id"]) == ("project", project)
    assert left["left_by"]["tag"] == "identity.project.deleted.v1"
    request = cloud.admin("GET", f"/v1/audit/{left['left_by']['request_id']}").body["tree"][0]
    assert request["tag"] == "DeleteProject"
    assert f"{left['left_by']['ordinal']} identity.project.deleted.v1" in table.output
    assert cloud.demo("GET", "/v1/reports/orphans").body["orphans"] == []


def test_the_command_line_draws(cloud: Cloud, spent, tmp_path):
    chart = tmp_path / f"{fresh('chart')}.svg"

    drawn = cloud.up.run("report", "cost", "--by", "day,meter", "--plot", "--chart", str(chart))
    used, billed = tmp_path / "usage.png", tmp_path / "bill.svg"
    usage = cloud.up.run("usage", "--plot", "--chart", str(used))
    bill = cloud.up.run("bill", "--plot", "--chart", str(billed))
    top = cloud.up.json("report", "top-spenders", "--of", "resource", "--top", "1")

    assert drawn.code == 0, drawn.errors
    assert "█" in drawn.output
    assert "compute.vcpu" in drawn.output
    assert b"compute.vcpu" in chart.read_bytes()
    assert len(top["costs"]) == 1
    assert usage.code == bill.code == 0, usage.errors + bill.errors
    assert usage.output.count("\ncompute.vcpu\n") == 1
    assert used.read_bytes().startswith(b"\x89PNG")
    assert b"EUR" in billed.read_bytes()
