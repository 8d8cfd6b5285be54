"""Metering as people and clients meet it: meters, and usage by them."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import Cloud
from tests.api.openstack import OpenStack
from tests.cli.running import eventually

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
STARTS = {
    "key": "ops.starts",
    "resource_kind": "server",
    "aggregation": "count",
    "unit": "Starts",
    "base_per_unit": 1,
    "rules": [
        {
            "fact": "compute.server.created.v1",
            "effect": "set",
            "resource": "server.server_id",
            "project": "server.project_id",
            "dimensions": {"flavor": "server.flavor.name"},
        },
        {
            "fact": "compute.server.started.v1",
            "effect": "add",
            "resource": "server_id",
            "at": "observed_at",
        },
    ],
}


@pytest.fixture(scope="module")
def server(cloud: Cloud) -> dict:
    return cloud.server(cloud.demo, cloud.network(cloud.demo)["id"])


def test_a_meter_that_somebody_defines_measures_what_was(cloud, server, tmp_path):
    file = tmp_path / "starts.yaml"
    file.write_text(yaml.safe_dump(STARTS))
    up = cloud.up

    assert up.json("meter", "define", str(file), "--dry-run")["verdict"] == "accepted"
    assert cloud.demo("GET", "/v1/meters/ops.starts").status == 404
    assert up.run("meter", "define", str(file)).output == "defined ops.starts, version 1\n"

    told = cloud.demo("GET", "/v1/usage?meter=ops.starts").body
    (row,) = [row for row in told["usage"] if row["resource_id"] == server["id"]]
    assert (row["quantity"], row["unit"]) == ("1.000000000000", "Starts")
    assert (row["dimensions"], row["meter_version"]) == ({"flavor": "m1.nano"}, 1)
    file.write_text(yaml.safe_dump({**STARTS, "unit": "Others"}))
    refused = up.run("meter", "define", str(file), "--dry-run")
    assert (refused.code, refused.output[:9]) == (1, "refused: ")
    table = up.run("usage", "--meter", "ops.starts", cloud="cumulog-demo").output
    assert "flavor=m1.nano" in table
    assert cloud.stranger()("GET", "/v1/usage?meter=ops.starts").body["usage"] == []
    listed = {meter["key"]: meter for meter in up.json("meter", "list")}
    assert listed["ops.starts"]["dimensions"] == ["flavor"]
    assert not listed["ops.starts"]["built_in"]
    assert listed["compute.vcpu"]["built_in"]
    assert "running=False" in up.run("meter", "show", "compute.vcpu").output


def test_only_administrators_define_meters(cloud):
    refused = cloud.demo("POST", "/v1/actions", {"type": "DefineMeter", **STARTS})

    assert refused.status == 403


def test_what_a_definition_lacks_is_told(cloud):
    wrong = {**STARTS, "key": "ops.wrong", "rules": STARTS["rules"][1:]}
    refused = cloud.admin("POST", "/v1/actions", {"type": "DefineMeter", **wrong})

    assert refused.status == 400
    assert "whose the resource is" in refused.body["detail"]
    assert cloud.demo("GET", "/v1/usage?meter=ops.none").status == 404


# os-simple-tenant-usage

USAGE = "/compute/v2.1/os-simple-tenant-usage"


def project_of(server):
    return server["tenant_id"]


def test_clients_read_usage_of_projects(cloud, server, tmp_path):
    with OpenStack(cloud, tmp_path, OS_CLOUD="cumulog") as openstack:
        listed = openstack.json("usage list")
        shown = openstack.json(f"usage show --project {project_of(server)}")

    (row,) = [row for row in listed if row["Project"] == project_of(server)]
    assert [each["instance_id"] for each in row["Servers"]] == [server["id"]]
    assert shown["RAM MB-Hours"] >= row["RAM MB-Hours"] > shown["CPU Hours"] >= 0


def test_hours_are_those_of_exact_intervals(cloud, server):
    window = "start=2020-01-01T00:00:00&end=2100-01-01"
    told = cloud.demo("GET", f"{USAGE}/{project_of(server)}?{window}").body["tenant_usage"]
    (seen,) = told["server_usages"]
    until = told["stop"]
    exact = cloud.demo("GET", f"/v1/usage?meter=compute.instance&end={until}").body["usage"]

    (row,) = [row for row in exact if row["resource_id"] == server["id"]]
    assert seen["hours"] == int(row["base_quantity"]) / 3.6e9 == told["total_hours"]
    assert seen["instance_id"] == server["id"]
    assert (seen["flavor"], seen["state"], seen["ended_at"]) == ("m1.nano", "active", None)
    assert told["total_memory_mb_usage"] == seen["memory_mb"] * seen["hours"]
    assert told["start"] == "2020-01-01T00:00:00.000000"


def test_details_come_when_asked_for(cloud, server):
    told = cloud.admin("GET", f"{USAGE}?start=2020-01-01").body["tenant_usages"]
    assert all("server_usages" not in usage for usage in told)

    told = cloud.admin("GET", f"{USAGE}?start=2020-01-01&detailed=1").body["tenant_usages"]
    servers = [each for usage in told for each in usage["server_usages"]]
    assert server["id"] in {each["instance_id"] for each in servers}


def test_a_time_without_servers_is_empty_and_a_wrong_one_refused(cloud, server):
    path = f"{USAGE}/{project_of(server)}"
    assert cloud.demo("GET", f"{path}?start=2020-01-01&end=2020-02-01").body == {"tenant_usage": {}}
    assert cloud.demo("GET", path).body == {"tenant_usage": {}}  # from now on until now
    refused = cloud.demo("GET", f"{path}?start=2020-02-01&end=2020-01-01")
    assert refused.status == 400
    assert "cannot occur after" in refused.body["badRequest"]["message"]
    assert cloud.demo("GET", f"{path}?start=yesterday").status == 400


# Prometheus


def test_a_project_scrapes_its_own_numbers(cloud, server):
    reply = cloud.demo("GET", "/v1/metrics/project")

    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(reply.raw.decode()):
        for sample in family.samples:
            labels = [v for k, v in sorted(sample.labels.items()) if k != "unit"]
            found[sample.name, *labels] = sample.value
    assert found["cumulog_project_held", "m1.nano", "compute.vcpu"] == 1
    assert found["cumulog_project_servers", "ACTIVE"] == 1
    assert found["cumulog_project_quota_used", "servers"] == 1
    assert found["cumulog_project_month_usage", "m1.nano", "compute.instance"] > 0
    assert found["cumulog_project_ordinal",] > 0
    told = cloud.stranger()("GET", "/v1/metrics/project").raw.decode()
    assert "compute.vcpu" not in told


def test_the_dashboard_asks_for_numbers_that_there_are(cloud, server):
    told = cloud.demo("GET", "/v1/metrics/project").raw.decode()
    there = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text())["panels"]

    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"cumulog_\w+", target["expr"])
    }
    assert asked
    assert asked <= there


# Alarms


def server_network(cloud, server):
    (name,) = server["addresses"]
    return cloud.demo("GET", f"/network/v2.0/networks?name={name}").body["networks"][0]["id"]


RUNS = {
    "kind": "state",
    "since": ["compute.server.started.v1"],
    "until": ["compute.server.deleted.v1"],
    "above": "0",
}


def test_an_alarm_rings_and_ceases_and_tells_how_often_it_would_have(cloud, server, tmp_path):
    up, demo = cloud.up, cloud.demo
    file = tmp_path / "second.yaml"
    second = {**RUNS, "above": "1"}
    file.write_text(yaml.safe_dump({"name": "second", "condition": second}))
    assert up.run("alarm", "define", str(file), cloud="cumulog-demo").code == 0

    def state():
        (alarm,) = [a for a in demo("GET", "/v1/alarms").body["alarms"] if a["name"] == "second"]
        return alarm

    assert not state()["ringing"]
    other = cloud.server(demo, server_network(cloud, server))
    eventually(lambda: state()["ringing"], "the alarm rings")
    cloud.gone(demo, other["id"])
    eventually(lambda: not state()["ringing"], "the alarm ceases")

    events = demo("GET", "/v1/events?limit=1000").body["events"]
    tags = [event["tag"] for event in events if event["tag"].startswith("alarm.")]
    assert tags == ["alarm.alarm.defined.v1", "alarm.alarm.raised.v1", "alarm.alarm.cleared.v1"]
    told = up.json("alarm", "what-if", "second", cloud="cumulog-demo")
    assert told["times"] == 1
    (rang,) = told["rang"]
    assert rang["until"] == state()["changed_at"]
    assert up.json("alarm", "what-if", str(file), cloud="cumulog-demo")["rang"] == told["rang"]
    assert "quiet" in up.run("alarm", "list", cloud="cumulog-demo").output
    assert cloud.stranger()("GET", f"/v1/alarms/{state()['id']}").status == 404
    assert up.run("alarm", "delete", "second", cloud="cumulog-demo").code == 0
    assert demo("GET", "/v1/alarms").body["alarms"] == []
