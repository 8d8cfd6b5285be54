"""The feed as CloudEvents: valid for the SDK, always the same, and only what one may see."""

import http.client
import json
import re
from datetime import datetime
from urllib.parse import urlsplit

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat

from projections.cloudevents import requested
from schemas.envelope import action_types, fact_types
from tests.api.conftest import Cloud, fresh

EVENTS = "/v1/events"
ONE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
# CloudEvents 1.0.2, "Naming conventions".
NAME = re.compile(r"[a-z0-9]{1,20}\Z")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def batch(api, query: str = "limit=1000") -> list[dict]:
    reply = api("GET", f"{EVENTS}?{query}", headers={"Accept": BATCH})
    assert reply.status == 200
    assert reply.headers["content-type"] == BATCH
    return reply.body


def made_server(cloud: Cloud) -> tuple[str, str, int]:
    """Make a server in a trace; return its id, its request's id, and where the log ended before."""
    before = int(cloud.demo("GET", f"{EVENTS}?limit=1").headers["x-cumulog-ordinal"])
    network = cloud.network(cloud.demo)
    wish = {
        "name": fresh("server"),
        "imageRef": cloud.image_id(),
        "flavorRef": "42",
        "networks": [{"uuid": network["id"]}],
    }
    sent = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "rojo=1"}
    reply = cloud.demo("POST", "/compute/v2.1/servers", {"server": wish}, headers=sent)
    server_id = reply.body["server"]["id"]
    cloud.settled(cloud.demo, server_id)
    return server_id, reply.headers["x-openstack-request-id"], before


def parsed(body: bytes):
    """Return an event as the SDK reads it; it raises for what is not valid."""
    message = HTTPMessage(headers={"content-type": ONE}, body=body)
    return from_structured_event(message, JSONFormat())


def test_every_event_is_valid_and_says_where_it_comes_from(cloud: Cloud):
    _, _, before = made_server(cloud)

    found = batch(cloud.demo, f"after={before}&limit=1000")
    plain = cloud.demo("GET", f"{EVENTS}?after={before}&limit=1000").body["events"]

    assert len(found) >= len(plain) > 0
    for event, said in zip(found, plain, strict=False):
        read = parsed(json.dumps(event).encode())
        assert read.get_specversion() == "1.0"
        assert all(NAME.match(name) for name in event)
        assert event["sequence"] == f"{said['ordinal']:020}"
        assert event["data"] == said["body"]
        assert event["source"] == "urn:cumulog:embedded:RegionOne:engine"
        subject = [said["project_id"], said["resource_kind"], said["resource_id"]]
        assert event["subject"].split("/") == [part or "-" for part in subject]
        assert event.get("partitionkey", "") == said["project_id"]
        micros = datetime.fromisoformat(event["recordedtime"]).timestamp() * 1_000_000
        assert round(micros) == said["at"]
        assert event["recordedtime"].endswith("Z")
    ids = [event["id"] for event in found]
    assert len(set(ids)) == len(ids)


def test_a_server_s_events_tell_what_led_to_what(cloud: Cloud):
    server_id, request_id, before = made_server(cloud)

    about = {e["type"]: e for e in batch(cloud.demo, f"after={before}&resource_id={server_id}")}

    asked = about["cumulog.compute.server.create.requested.v1"]
    started = about["cumulog.compute.server.started.v1"]
    report = about["cumulog.operation.operation.report.requested.v1"]
    assert asked["id"] == asked["correlationid"] == request_id
    assert "causationid" not in asked
    assert asked["traceparent"][3:35] == TRACE
    assert asked["tracestate"] == "rojo=1"
    assert asked["authtype"] == "user"
    assert report["causationid"] == report["correlationid"] == request_id
    assert report["authtype"] == "service_account"
    # The fact follows from the report, and that from the request; its trace is the same.
    assert started["causationid"] == report["id"]
    assert started["correlationid"] == request_id
    assert started["id"] == f"{report['id']}.{int(started['sequence'])}"
    assert started["traceparent"] == report["traceparent"]
    assert started["traceparent"][3:35] == TRACE
    assert started["time"] <= started["recordedtime"]
    # A fact whose request is not on the page has the same attributes.
    alone = batch(cloud.demo, f"after={int(started['sequence']) - 1}&limit=1")
    assert alone == [started]


def test_one_event_is_asked_for_by_its_own_type(cloud: Cloud):
    made_server(cloud)
    reply = cloud.demo("GET", f"{EVENTS}?after=0", headers={"Accept": ONE})
    assert reply.headers["content-type"] == ONE
    read = parsed(reply.raw)
    assert read.get_type().startswith("cumulog.")
    end = reply.headers["x-cumulog-ordinal"]
    none = cloud.demo("GET", f"{EVENTS}?after={int(end) + 10**6}", headers={"Accept": ONE})
    assert none.status == 204


@pytest.mark.parametrize("asked", ["xml", "CloudEvents", "cloudevents,cumulog"])
def test_another_format_is_refused(cloud: Cloud, asked: str):
    assert cloud.demo("GET", f"{EVENTS}?format={asked}").status == 400


def test_a_feed_has_cloud_events_when_asked(cloud: Cloud):
    connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=60)
    path = f"{EVENTS}?follow=1&format=cloudevents"
    connection.request("GET", path, headers={"X-Auth-Token": cloud.demo.token})
    answer = connection.getresponse()
    name = fresh("fed")
    cloud.demo.made("/network/v2.0/networks", {"network": {"name": name}})

    while True:
        line = answer.readline()
        if line.startswith(b"id: "):
            ordinal = int(line[4:])
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            parsed(line[6:])
            assert event["sequence"] == f"{ordinal:020}"
            created = event["type"] == "cumulog.network.network.created.v1"
            if created and event["data"]["network"]["name"] == name:
                break
    answer.close()
    connection.close()


def test_nobody_is_told_of_another_project(cloud: Cloud):
    made_server(cloud)
    stranger = cloud.stranger()
    stranger.made("/network/v2.0/networks", {"network": {"name": fresh("mine")}})
    own = {e["partitionkey"] for e in batch(stranger) if "partitionkey" in e}
    assert len(own) == 1
    project = cloud.demo("GET", f"{EVENTS}?limit=1").body["events"][0]["project_id"]
    asked = stranger("GET", f"{EVENTS}?project={project}", headers={"Accept": BATCH})
    assert asked.status == 403


def test_no_ciphertext_is_told(cloud: Cloud):
    made = {"user": {"name": fresh("sealed"), "password": "a-password"}}
    cloud.admin.made("/identity/v3/users", made)
    reply = cloud.admin("GET", f"{EVENTS}?limit=1000&format=cloudevents")
    assert b"ciphertext" not in reply.raw
    assert b"key_id" in reply.raw


def test_every_type_has_a_name_of_its_own():
    names = [requested(action) for action in action_types()]
    assert len(set(names)) == len(names)
    for name in (*names, *fact_types()):
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+){1,3}\.v[0-9]+", name), name
