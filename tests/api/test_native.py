"""The native API: actions as events, the feed, the audit log, usage and proofs."""

import contextlib
import http.client
import json
import re
from decimal import Decimal
from urllib.parse import urlsplit

import pytest

from api.native.log import STREAMS_MAX
from tests.api.conftest import Api, Cloud, fresh
from tests.cli.running import eventually

ACTIONS = "/v1/actions"


def test_an_action_is_answered_with_its_ordinal(demo: Api):
    name = fresh("native")
    reply = demo("POST", ACTIONS, {"type": "CreateNetwork", "name": name})

    assert reply.status == 200
    body = reply.body
    assert body["verdict"] == "accepted"
    assert body["ordinal"] > 0
    assert body["request_id"] == reply.headers["x-openstack-request-id"]
    shown = demo("GET", f"/network/v2.0/networks/{body['reply']['network_id']}").body
    assert shown["network"]["name"] == name


def test_an_operation_is_answered_with_202_and_followed(cloud: Cloud):
    network = cloud.network(cloud.demo)
    action = {
        "type": "CreateServer",
        "name": fresh("native"),
        "image_id": cloud.image_id(),
        "flavor_id": "42",
        "networks": [{"network_id": network["id"]}],
        "user_data": "aGVsbG8=",
    }
    reply = cloud.demo("POST", ACTIONS, action)

    assert reply.status == 202, reply
    made = reply.body["reply"]
    cloud.settled(cloud.demo, made["server_id"])
    state = cloud.demo("GET", f"/v1/operations/{made['operation_id']}").body
    assert state["status"] == "succeeded"
    mine = cloud.demo("GET", f"/v1/operations?resource_id={made['server_id']}").body["operations"]
    assert [o["operation"]["kind"] for o in mine] == ["build"]
    assert cloud.stranger()("GET", f"/v1/operations/{made['operation_id']}").status == 404
    cloud.gone(cloud.demo, made["server_id"])


def test_a_key_makes_a_repetition_harmless(demo: Api):
    key = {"Idempotency-Key": fresh("key")}
    action = {"type": "CreateNetwork", "name": fresh("once")}

    first = demo("POST", ACTIONS, action, headers=key)
    again = demo("POST", ACTIONS, action, headers=key)
    other = demo("POST", ACTIONS, action | {"name": "other"}, headers=key)

    assert again.body["reply"] == first.body["reply"]
    assert (first.body["repeated"], again.body["repeated"]) == (False, True)
    assert (other.status, other.body["code"]) == (409, "KeyReused")
    long = demo("POST", ACTIONS, action, headers={"Idempotency-Key": "k" * 256})
    assert long.status == 400


def test_a_dry_run_changes_nothing(demo: Api):
    before = demo("GET", "/network/v2.0/networks").body

    reply = demo("POST", f"{ACTIONS}?dry_run=1", {"type": "CreateNetwork", "name": "maybe"})

    assert reply.status == 200
    assert reply.body["facts"][0]["type"] == "network.network.created.v1"
    assert demo("GET", "/network/v2.0/networks").body == before


def test_a_dry_run_says_where_what_and_how_much(cloud: Cloud):
    network = cloud.network(cloud.demo, "10.93.0.0/24")
    before = cloud.admin("GET", "/v1/audit?limit=1").body["requests"]
    action = {
        "type": "CreateServer",
        "name": "maybe",
        "flavor_id": "42",
        "image_id": cloud.image_id(),
        "networks": [{"network_id": network["id"]}],
    }

    body = cloud.demo("POST", f"{ACTIONS}?dry_run=1", action).body

    assert (body["verdict"], body["ordinal"], body["dry_run"]) == ("accepted", 0, True)
    assert any("host-1 is chosen" in reason for reason in body["reasons"])
    assert body["quota_after"]["servers"]["used"] >= 1
    assert {use["limit"] for use in body["quota_after"].values()} == {-1}
    cost = body["cost_per_month"]
    assert (cost["hours"], cost["saved"]) == (730, "0")
    assert sum(Decimal(line["amount"]) for line in cost["lines"]) == Decimal(cost["added"]) > 0
    people = cloud.admin("GET", "/v1/audit?limit=1&people=1").body["requests"]
    assert all(event["tag"] != "CreateServer" or event in before for event in people)


def test_a_dry_run_of_what_would_be_refused_shows_the_refusal(demo: Api):
    action = {"type": "DeleteNetwork", "network_id": fresh("nothing")}

    reply = demo("POST", f"{ACTIONS}?dry_run=1", action)

    assert reply.status == 200
    body = reply.body
    assert (body["verdict"], body["code"], body["status"]) == ("refused", "NotFound", 404)
    assert body["reasons"] == [body["reason"]]
    assert body["facts"] == []
    assert demo("GET", f"/v1/audit/{body['request_id']}").status == 404
    malformed = demo("POST", f"{ACTIONS}?dry_run=1", {"type": "CreateNetwork", "name": 5})
    assert malformed.status == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "fact"),
    [
        ("POST", "/network/v2.0/networks", {"network": {}}, "network.network.created.v1"),
        ("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "m"}},
         "compute.keypair.created.v1"),
        ("DELETE", "/image/v2/images/{image}", None, None),
    ],
)  # fmt: skip
def test_a_header_makes_any_write_a_dry_run(
    cloud: Cloud, method: str, path: str, body: dict | None, fact: str | None
):
    header = {"X-Cumulog-Dry-Run": "1"}

    reply = cloud.demo(method, path.format(image=cloud.image_id()), body, headers=header)

    assert reply.status == 200, reply
    assert reply.body["dry_run"] is True
    assert [f["type"] for f in reply.body["facts"]] == ([fact] if fact else [])
    assert "private_key" not in reply.raw.decode()
    assert cloud.demo("GET", f"/v1/audit/{reply.body['request_id']}").status == 404


REFUSED = [
    ({"type": "Nonsense"}, 400, "InvalidInput"),
    ({"name": "x"}, 400, "InvalidInput"),
    ({"type": "CreateNetwork", "name": 5}, 400, "InvalidInput"),
    ({"type": "CreateNetwork", "nmae": "x"}, 400, "InvalidInput"),
    ({"type": "CreateNetwork", "name": "x" * 256}, 400, "InvalidInput"),
    ({"type": "CreateServer", "name": "x", "flavor_id": "42", "image_id": "x",
      "networks": [{"network": "x"}]}, 400, "InvalidInput"),
    ({"type": "CreateUser", "name": "x", "password": ""}, 400, "InvalidInput"),
    ({"type": "CreateUser", "name": "x", "password": "pw"}, 403, "Forbidden"),
    ({"type": "CreateProject", "name": "x", "key_id": "project-other"}, 400, "InvalidInput"),
    ({"type": "UploadImage", "image_id": "x", "blob_id": "x", "size_bytes": 1, "md5": "0" * 32,
      "sha512": "0" * 128}, 403, "Forbidden"),
    ({"type": "UpdateUser", "user_id": "x", "password": "pw"}, 403, "Forbidden"),
    ({"type": "MarkHost", "host_id": "host-1", "status": "down"}, 403, "Forbidden"),
    ({"type": "ReportDrift", "drift": [], "observed_at": 1}, 403, "Forbidden"),
    ({"type": "ElectLeader", "epoch": 9, "node": "x"}, 403, "Forbidden"),
    ({"type": "RevokeToken", "audit_id": "another", "expires_at": 1}, 403, "Forbidden"),
    ({"type": "DeleteNetwork", "network_id": "nothing"}, 404, "NotFound"),
]  # fmt: skip


@pytest.mark.parametrize(("action", "status", "code"), REFUSED)
def test_refusals_are_problem_documents(demo: Api, action: dict, status: int, code: str):
    reply = demo("POST", ACTIONS, action)

    assert (reply.status, reply.body["status"], reply.body["code"]) == (status, status, code)
    assert reply.body["request_id"] == reply.headers["x-openstack-request-id"]
    assert reply.body["detail"].endswith(".")


def test_one_refused_by_the_engine_is_in_the_audit_log(demo: Api):
    reply = demo("POST", ACTIONS, {"type": "DeleteNetwork", "network_id": fresh("nothing")})

    told = demo("GET", f"/v1/audit/{reply.body['request_id']}").body["events"]

    assert (told[0]["outcome"], told[0]["code"]) == ("refused", "NotFound")
    refused = demo("GET", "/v1/audit?outcome=refused&limit=1").body
    assert refused["requests"][0]["request_id"] == reply.body["request_id"]


def test_members_read_their_own_projects_records(cloud: Cloud):
    made = cloud.demo("POST", ACTIONS, {"type": "CreateNetwork", "name": fresh("mine")}).body
    ident, request_id = made["reply"]["network_id"], made["request_id"]
    stranger = cloud.stranger()

    assert cloud.demo("GET", f"/v1/why/{ident}").status == 200
    assert cloud.admin("GET", f"/v1/why/{ident}").status == 200
    for path in (f"/v1/why/{ident}", f"/v1/audit/{request_id}"):
        assert stranger("GET", path).status == 404
    for path in ("/v1/events", "/v1/audit"):
        assert ident.encode() not in stranger("GET", f"{path}?limit=1000").raw
        assert stranger("GET", f"{path}?project=admin").status == 403
    for path in ("/v1/usage", "/v1/bill"):
        assert stranger("GET", f"{path}?project=admin").status == 403
    for path in ("/v1/audit/verify", "/v1/replay/verify"):
        assert stranger("POST", path, {}).status == 403


def test_the_feed_follows_the_log(cloud: Cloud):
    head = cloud.demo("GET", "/v1/events?limit=1").body["ordinal"]
    connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=30)
    connection.request(
        "GET", f"/v1/events?after={head}&follow=1", headers={"X-Auth-Token": cloud.demo.token}
    )
    stream = connection.getresponse()
    assert stream.getheader("content-type") == "text/event-stream"
    made = [
        cloud.demo("POST", ACTIONS, {"type": "CreateNetwork", "name": fresh("fed")}).body
        for _ in range(3)
    ]

    seen = []
    while len(seen) < 6:
        line = stream.readline().decode()
        assert line, "the stream ended"
        if line.startswith("data: "):
            seen.append(json.loads(line[6:]))
    connection.close()

    ordinals = [e["ordinal"] for e in seen]
    assert ordinals == sorted(ordinals)
    assert {e["request_id"] for e in seen} == {m["request_id"] for m in made}
    assert {e["project_id"] for e in seen} == {seen[0]["project_id"]}


def test_a_reader_can_wait_for_what_was_written_elsewhere(demo: Api):
    made = demo("POST", ACTIONS, {"type": "CreateNetwork", "name": fresh("far")}).body
    wanted = {"X-Cumulog-Min-Ordinal": str(made["ordinal"])}

    reply = demo("GET", "/network/v2.0/networks", headers=wanted)

    assert int(reply.headers["x-cumulog-ordinal"]) >= made["ordinal"]
    assert "x-cumulog-awaited" not in reply.headers
    far = demo("GET", "/network/v2.0/networks", headers={"X-Cumulog-Min-Ordinal": "9" * 15})
    assert (far.status, far.headers["x-cumulog-awaited"]) == (200, "9" * 15)
    odd = demo("GET", "/network/v2.0/networks", headers={"X-Cumulog-Min-Ordinal": "soon"})
    assert odd.status == 400


def test_usage_and_proofs_are_passed_on(cloud: Cloud):
    network = cloud.network(cloud.demo, "10.91.0.0/24")
    server = cloud.server(cloud.demo, network["id"])

    usage = cloud.demo("GET", "/v1/usage").body
    assert server["id"] in {row["resource_id"] for row in usage["usage"]}
    assert cloud.stranger()("GET", "/v1/usage").body["usage"] == []
    bill = cloud.demo("GET", "/v1/bill")
    assert bill.status == 200, bill
    assert cloud.demo("GET", "/v1/bill?price_list=nothing").status == 404
    assert cloud.demo("GET", "/v1/usage?start=2&end=1").status == 400
    assert cloud.demo("GET", "/v1/usage?start=whenever").status == 400
    assert cloud.admin("POST", "/v1/audit/verify", {}).body["intact"] is True
    assert cloud.admin("POST", "/v1/replay/verify", {}).body["commits"] > 0
    cloud.gone(cloud.demo, server["id"])


def test_status_and_description(cloud: Cloud):
    status = cloud.admin("GET", "/v1/status").body
    assert status["engine"]["hosts"] == {"host-1": "up"}
    assert status["bus"] == {"connected": True}
    assert cloud.demo("GET", "/v1/status").body.keys() == {"projection", "lag"}
    described = cloud.anyone("GET", "/v1/openapi.json").body
    assert described["openapi"] == "3.1.0"
    assert "CreateServer" in described["components"]["schemas"]


def test_operators_pages(cloud: Cloud):
    assert cloud.anyone("GET", "/healthz").body == {"status": "ok"}
    ready = cloud.anyone("GET", "/readyz")
    assert (ready.status, ready.body["reasons"]) == (200, [])
    metrics = cloud.anyone("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for line in metrics.raw.decode().splitlines():
        assert re.fullmatch(r"# .*|[a-z_]+(\{[^}]*\})? ([0-9.e+-]+|[+]Inf)", line), line
    for path in ("/", "/nothing"):
        assert "x-openstack-request-id" in cloud.anyone("GET", path).headers
    for path in ("/nothing", "//compute/v2.1/servers"):
        missing = cloud.anyone("GET", path)
        assert (missing.status, missing.body["code"]) == (404, "NotFound")
        assert missing.body["request_id"] == missing.headers["x-openstack-request-id"]


def test_counters_do_not_grow_with_what_is_sent(cloud: Cloud):
    assert cloud.anyone("MADEUP", "/network/v2.0/networks").status == 401

    metrics = b""

    def told() -> bool:
        nonlocal metrics
        metrics = cloud.anyone("GET", "/metrics").raw  # gathered once a second at most
        return b'method="other"' in metrics

    eventually(told, "it is counted")
    assert b"MADEUP" not in metrics


SEALED = {"key_id": "user-x", "wrapped_key": "AA==", "nonce": "AA==", "ciphertext": "AA=="}


@pytest.mark.parametrize(
    "action",
    [
        {"type": "CreateServer", "name": "x", "flavor_id": "42", "image_id": "x",
         "user_data": SEALED},
        {"type": "CreateUser", "name": "x", "password": SEALED},
        {"type": "UpdateUser", "user_id": "x", "password": SEALED},
    ],
)  # fmt: skip
def test_what_is_sealed_already_is_not_taken(admin: Api, action: dict):
    """It may be another's: it would be opened for the caller's guest, or become a password."""
    reply = admin("POST", ACTIONS, action)

    assert (reply.status, reply.body["code"]) == (400, "InvalidInput")
    assert "given as text" in reply.body["detail"]


@pytest.mark.parametrize(
    "action",
    [
        {"type": "CreateApplicationCredential", "name": "x", "secret": SEALED},
        {"type": "CreateCredential", "user_id": "x", "kind": "cert", "blob": SEALED},
        {"type": "UpdateCredential", "credential_id": "x", "blob": SEALED},
    ],
    ids=lambda action: action["type"],
)
def test_a_credential_is_made_by_the_call_that_seals_it(admin: Api, action: dict):
    """A sealed value may be another's, and its credential would show it in clear."""
    reply = admin("POST", ACTIONS, action)

    assert (reply.status, reply.body["code"]) == (403, "Forbidden")
    assert "/identity/v3/" in reply.body["detail"]


def test_a_token_is_ended_for_as_long_as_it_lasts(cloud: Cloud):
    """A revocation that ends before its token would bring the token back."""
    someone = cloud.stranger()
    shown = someone("GET", "/identity/v3/auth/tokens", headers={"X-Subject-Token": someone.token})
    audit_id = shown.body["token"]["audit_ids"][0]

    action = {"type": "RevokeToken", "audit_id": audit_id, "expires_at": 1}

    assert someone("POST", ACTIONS, action).status == 403
    assert someone("GET", "/network/v2.0/networks").status == 200


def test_ciphertext_is_not_shown(cloud: Cloud):
    network = cloud.network(cloud.demo, "10.92.0.0/24")
    server = cloud.server(cloud.demo, network["id"], user_data="aGVsbG8=")
    why = cloud.demo("GET", f"/v1/why/{server['id']}")
    request_id = next(e["request_id"] for e in why.body["events"] if e["tag"] == "CreateServer")
    action = {
        "type": "CreateServer",
        "name": "x",
        "flavor_id": "42",
        "image_id": cloud.image_id(),
        "networks": [{"network_id": network["id"]}],
        "user_data": "aGVsbG8=",
    }

    replies = [
        why,
        cloud.demo("GET", f"/v1/events?resource_id={server['id']}"),
        cloud.demo("GET", f"/v1/audit?resource_id={server['id']}"),
        cloud.demo("GET", f"/v1/audit/{request_id}"),
        cloud.demo("POST", f"{ACTIONS}?dry_run=1", action),
    ]

    for reply in replies:
        assert b'"user_data":{"key_id":"' in reply.raw
        assert b"ciphertext" not in reply.raw
        assert b"wrapped_key" not in reply.raw
    cloud.gone(cloud.demo, server["id"])


def test_one_user_cannot_hold_all_connections(cloud: Cloud):
    someone = cloud.stranger()
    path, headers = "/v1/events?follow=1", {"X-Auth-Token": someone.token}
    with contextlib.ExitStack() as held:
        for _ in range(STREAMS_MAX):
            connection = http.client.HTTPConnection(urlsplit(cloud.url).netloc, timeout=30)
            held.callback(connection.close)
            connection.request("GET", path, headers=headers)
            assert connection.getresponse().readline() == b": connected\n"

        refused = someone("GET", path)

        assert (refused.status, refused.body["code"]) == (429, "TooManyStreams")
        assert someone("GET", "/v1/events").status == 200
