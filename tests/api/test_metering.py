"""Metering as people and clients meet it: meters, and usage by them."""

import pytest
import yaml

from tests.api.conftest import Cloud

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
