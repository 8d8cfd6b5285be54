"""One trace from a client to a host and back; logs that can be followed and hold no secret."""

import json
from collections.abc import Iterator

import pytest

from tests.api.conftest import Cloud, credentials, fresh, started
from tests.cli.running import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "rojo=1,congo=2"}
NETWORKS = "/network/v2.0/networks"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A running cloud whose processes log all they can."""
    state_dir = tmp_path_factory.mktemp("trace") / "state"
    with started(state_dir, "--log-level", "debug") as cloud:
        yield cloud


def lines(cloud: Cloud, process: str) -> list[dict]:
    """Return what a process has logged; each line must be JSON."""
    text = (cloud.up.state_dir / "log" / f"{process}.log").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_servers_trace_leads_from_the_client_to_the_hosts_report(talkative: Cloud):
    cloud = talkative
    network = cloud.network(cloud.demo)
    wish = {
        "name": fresh("traced"),
        "imageRef": cloud.image_id(),
        "flavorRef": "42",
        "networks": [{"uuid": network["id"]}],
    }
    reply = cloud.demo("POST", "/compute/v2.1/servers", {"server": wish}, headers=SENT)
    assert reply.status == 202, reply
    request_id = reply.headers["x-openstack-request-id"]
    span = request_id.replace("-", "")[-16:]
    cloud.settled(cloud.demo, reply.body["server"]["id"])

    # The client is told of the span that is its request.
    assert reply.headers["traceparent"] == f"00-{TRACE}-{span}-01"
    # The log holds it with the request.
    events = cloud.demo("GET", f"/v1/audit/{request_id}").body["events"]
    asked = [e["body"]["request"] for e in events if e["kind"] == "request"]
    assert asked[0]["client"]["trace"] == f"00-{TRACE}-{span}-01"
    assert asked[0]["client"]["trace_state"] == "rojo=1,congo=2"
    # The host's report has the trace, and a span of its own: that of its own request id.
    report = next(r for r in asked if r["action"]["type"] == "ReportOperation")
    own = report["request_id"].replace("-", "")[-16:]
    assert report["client"]["trace"] == f"00-{TRACE}-{own}-01"
    assert own != span
    # So do the lines of the edge and of the agent.
    for process, event in (("api", "request_done"), ("agent", "operation.succeeded")):
        (line,) = [
            found
            for found in lines(cloud, process)
            if found.get("request_id") == request_id and found["event"] == event
        ]
        assert line["trace_id"] == TRACE
        assert line["project_id"] == events[0]["project_id"]
    # And whoever asks for the request's way is told.
    shown = cloud.up.run("audit", "show", request_id, cloud="cumulog-demo")
    assert ["trace", TRACE] in [line.split() for line in shown.output.splitlines()]


def test_a_question_about_history_is_followed_to_the_archiver(talkative: Cloud):
    reply = talkative.demo("GET", "/v1/usage", headers=SENT)
    assert reply.status == 200
    request_id = reply.headers["x-openstack-request-id"]

    def told() -> list[dict]:
        return [x for x in lines(talkative, "archiver") if x.get("request_id") == request_id]

    eventually(lambda: len(told()) > 1, "the archiver's lines are written")
    assert [(x["event"], x["question"], x["trace_id"]) for x in told()] == [
        ("asked", "usage", TRACE),
        ("answered", "usage", TRACE),
    ]


def test_a_request_without_a_trace_begins_one(talkative: Cloud):
    for sent in ({}, {"traceparent": "00-broken"}, {"tracestate": "rojo=1"}):
        made = {"network": {"name": fresh("net")}}
        reply = talkative.demo("POST", NETWORKS, made, headers=sent)
        request_id = reply.headers["x-openstack-request-id"]
        name = request_id.removeprefix("req-").replace("-", "")
        assert reply.headers["traceparent"] == f"00-{name}-{name[16:]}-01"
        event = talkative.demo("GET", f"/v1/audit/{request_id}").body["events"][0]
        client = event["body"]["request"]["client"]
        assert client["trace"] == reply.headers["traceparent"]
        assert "trace_state" not in client


def test_a_failure_has_one_line_that_says_who_and_which(talkative: Cloud):
    reply = talkative.demo("GET", f"{NETWORKS}/nothing", headers=SENT)
    request_id = reply.headers["x-openstack-request-id"]

    def told() -> list[dict]:
        return [x for x in lines(talkative, "api") if x.get("request_id") == request_id]

    eventually(told, "the edge's line is written")
    (line,) = told()
    assert line["event"] == "request_refused"
    assert (line["status"], line["code"]) == (404, "NotFound")
    assert line["trace_id"] == TRACE
    assert line["user_id"]
    assert line["project_id"]
    assert line["process"] == "api"


def test_no_secret_is_in_any_log(talkative: Cloud):
    secrets = [fresh("a-secret-password-") for _ in range(5)]
    first, second, wrong, guest, odd = secrets
    cloud, name = talkative, fresh("careful")
    made = {"user": {"name": name, "password": first}}
    user = cloud.admin.made("/identity/v3/users", made)
    token = cloud.login(name, first).token
    changed = {"user": {"password": second, "original_password": first}}
    path = f"/identity/v3/users/{user['id']}/password"
    assert cloud.login(name, first)("POST", path, changed).status == 204
    assert cloud.anyone("POST", "/identity/v3/auth/tokens", credentials(name, wrong)).status == 401
    for body in ({"user": {"name": name, "password": {odd: odd}}}, {"user": odd}, [odd]):
        assert cloud.admin("POST", "/identity/v3/users", body).status == 400
    action = {"type": "CreateServer", "name": "x", "user_data": guest, "admin_pass": odd}
    assert cloud.demo("POST", "/v1/actions", action).status == 400
    accounts = json.loads((cloud.up.state_dir / "credentials.json").read_text())
    known = [account["password"] for account in accounts.values()]
    tokens = [token, cloud.admin.token, cloud.demo.token]
    # All that came before this line is in the file.
    last = cloud.demo("GET", NETWORKS).headers["x-openstack-request-id"]
    eventually(
        lambda: any(x.get("request_id") == last for x in lines(cloud, "api")), "the log is written"
    )

    texts = {
        path.name: path.read_text(errors="replace")
        for path in (cloud.up.state_dir / "log").iterdir()
    }

    assert {"api.log", "engine.log", "agent.log"} <= texts.keys()
    assert name not in texts["api.log"]
    for file, text in texts.items():
        for secret in (*secrets, *known, *tokens):
            assert secret not in text, f"{file} has {secret[:12]}…"
