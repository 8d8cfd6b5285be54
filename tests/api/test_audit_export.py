"""Exports of the audit log: whole, in order, valid, one's own alone, and themselves on record."""

import csv
import io
import json

import pytest

from api.native.audit_export import COLUMNS, PAGE
from tests.api.conftest import Api, Cloud, fresh
from tests.api.test_audit import asked, entries
from tests.api.test_cloudevents import parsed
from tests.projections.test_cadf import validated

EXPORT = "/v1/audit/export"
FORMS = ("jsonl", "csv", "cadf", "cloudevents")


def lines(api: Api, query: str = "") -> list[dict]:
    reply = api("GET", f"{EXPORT}?{query}")
    assert reply.status == 200, reply
    return [json.loads(line) for line in reply.raw.splitlines()]


def network(api: Api, **headers: str) -> str:
    """Make a network; return the request's id."""
    body = {"network": {"name": fresh("net")}}
    return asked(api("POST", "/network/v2.0/networks", body, headers=headers))


@pytest.fixture
def many(cloud: Cloud) -> Api:
    """A project with more requests than a page has."""
    api = cloud.stranger()
    for _ in range(PAGE // 2 + 5):
        network(api)
        reply = api("POST", "/v1/actions", {"type": "DeleteNetwork", "network_id": "nothing"})
        assert reply.status == 404
    return api


def test_an_export_is_the_whole_list_the_oldest_first(many: Api):
    listed: list[dict] = []
    before = ""
    while before is not None:
        page = many("GET", f"/v1/audit?limit=1000{before and f'&before={before}'}").body
        listed += page["requests"]
        before = page.get("next_before")
    listed = [row["ordinal"] for row in reversed(listed)]

    assert len(listed) > PAGE
    assert [row["ordinal"] for row in lines(many)] == listed
    refused = lines(many, "outcome=refused&action=DeleteNetwork")
    assert len(refused) == PAGE // 2 + 5
    assert {row["code"] for row in refused} == {"NotFound"}
    assert lines(many, f"since={refused[0]['at'] // 10**6 - 10**6}&until=1000000000") == []
    # Both records in one, in order of time, each once.
    both = lines(many, "show=all")
    assert [row["at"] for row in both] == sorted(row["at"] for row in both)
    assert [row["ordinal"] for row in both if row["source"] == "log"] == listed
    assert {row["source"] for row in both} == {"log", "access"}


def test_every_form_holds_the_same_requests(cloud: Cloud, demo: Api):
    request_id = network(demo, **{"User-Agent": "=cmd|' /C calc'!A0"})
    only = f"request_id={request_id}"

    (row,) = lines(demo, f"format=jsonl&{only}")
    (record,) = lines(demo, f"format=cadf&{only}")
    told = lines(demo, f"format=cloudevents&{only}")
    table = demo("GET", f"{EXPORT}?format=csv&{only}")

    validated(record)
    assert (record["action"], record["outcome"]) == ("create", "success")
    assert record["reason"]["policyId"] == row["rule"] == "CreateNetwork: member in project"
    assert record["initiator"]["host"]["address"] == "127.0.0.1"
    for event in told:
        parsed(json.dumps(event).encode())
    feed = demo("GET", f"/v1/events?format=cloudevents&after={row['ordinal'] - 1}&limit=2").body
    assert told == feed, "the request and its fact, as the feed tells them"
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    head, *cells = csv.reader(io.StringIO(table.raw.decode(), newline=""))
    assert tuple(head) == COLUMNS
    (cells,) = [dict(zip(head, line, strict=True)) for line in cells]
    assert (cells["request_id"], cells["ordinal"]) == (request_id, str(row["ordinal"]))
    assert cells["agent"] == "'=cmd|' /C calc'!A0", "which no spreadsheet computes"
    assert cells["at"].endswith("Z")


@pytest.mark.parametrize("form", ["jsonl", "csv", "cadf"])
def test_reads_are_exported_too(cloud: Cloud, demo: Api, form: str):
    reply = demo("GET", f"/compute/v2.1/servers/{fresh('nothing')}")
    entries(demo, asked(reply))

    told = demo("GET", f"{EXPORT}?show=reads&format={form}&request_id={asked(reply)}")

    assert told.status == 200
    assert "compute:servers:read" in told.raw.decode()
    if form == "cadf":
        record = json.loads(told.raw)
        validated(record)
        assert (record["action"], record["outcome"]) == ("read", "failure")
        assert record["reason"]["reasonCode"] == "404"


@pytest.mark.parametrize("form", FORMS)
def test_nobody_exports_what_is_not_theirs(cloud: Cloud, demo: Api, form: str):
    request_id = network(demo)
    stranger = cloud.stranger()

    whole = stranger("GET", f"{EXPORT}?format={form}")
    auditors = cloud.admin("GET", f"{EXPORT}?format={form}")

    assert (whole.status, auditors.status) == (200, 200)
    assert request_id.encode() not in whole.raw
    assert request_id.encode() in auditors.raw
    project = cloud.admin("GET", "/identity/v3/projects?name=demo").body["projects"][0]["id"]
    assert stranger("GET", f"{EXPORT}?format={form}&project={project}").status == 403


@pytest.mark.parametrize(
    "query",
    ["format=xml", "show=some", "format=cloudevents&show=all", "since=then", "denied=perhaps"],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(demo: Api, query: str):
    assert demo("GET", f"{EXPORT}?{query}").status == 400


def test_whoever_exports_is_on_record(cloud: Cloud, demo: Api):
    agent = {"User-Agent": fresh("exporter")}
    reply = demo("GET", f"{EXPORT}?format=cadf", headers=agent)

    (entry,) = entries(cloud.admin, asked(reply))

    assert (entry["route"], entry["tag"]) == ("/v1/audit/export", "log:events:read")
    assert (entry["status"], entry["agent"]) == (200, agent["User-Agent"])


def test_the_command_line_writes_a_file_or_prints(cloud: Cloud, demo: Api, tmp_path):
    request_id = network(demo)
    only = ("--request-id", request_id)
    file = tmp_path / "export.jsonl"

    told = cloud.up.json("audit", "export", "--format", "cadf", "--file", str(file), *only)
    printed = cloud.up.run("audit", "export", "--format", "csv", *only)
    both = cloud.up.run("audit", "export", "--reads", "--all")

    assert told == {"file": str(file), "format": "cadf", "lines": 1}
    validated(json.loads(file.read_text()))
    assert [path.name for path in tmp_path.iterdir()] == ["export.jsonl"]
    head, row = csv.DictReader(io.StringIO(printed.output)).fieldnames, printed.output
    assert tuple(head) == COLUMNS
    assert request_id in row
    assert both.code == 2
