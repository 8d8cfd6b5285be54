"""Every request leaves a trace: reads, those who are not let in, refusals; and what is missing."""

import os
import random
import secrets
import signal

import pytest

from tests.api.conftest import Api, Cloud, credentials, fresh, started
from tests.cli.running import alive, eventually

SERVERS = "/compute/v2.1/servers"


def entries(api: Api, request_id: str) -> list[dict]:
    """Wait until a request's entry is kept, and return all there are."""
    found: list[dict] = []

    def told() -> bool:
        reply = api("GET", f"/v1/audit/{request_id}")
        found[:] = reply.body["access"] if reply.status == 200 else []
        return found != []

    eventually(told, f"an entry of {request_id}")
    return found


def alone_of_its_kind() -> dict[str, str]:
    """Return headers that no other request has, so that it is counted by itself."""
    return {"User-Agent": fresh("agent")}


def asked(reply) -> str:
    return reply.headers["x-openstack-request-id"]


def test_a_read_is_told_with_who_whence_which_and_how_long(cloud: Cloud, demo: Api):
    agent = {"User-Agent": "auditor/1", "OpenStack-API-Version": "compute 2.1"}
    server = fresh("nothing")
    reply = demo("GET", f"{SERVERS}/{server}", headers=agent)

    (entry,) = entries(cloud.admin, asked(reply))

    token = demo("GET", "/identity/v3/auth/tokens", headers={"X-Subject-Token": demo.token})
    assert entry["user_id"] == token.body["token"]["user"]["id"]
    assert entry["project_id"] == token.body["token"]["project"]["id"]
    assert "member" in entry["roles"]
    assert (entry["source"], entry["status"], entry["count"]) == ("access", 404, 1)
    assert (entry["address"], entry["agent"]) == ("127.0.0.1", "auditor/1")
    assert (entry["api"], entry["version"], entry["method"]) == ("compute", "2.1", "GET")
    assert (entry["route"], entry["tag"]) == ("/v2.1/servers/{}", "compute:servers:read")
    assert entry["rule"] == "compute:servers:read: reader in project"
    assert entry["about"] == [server]
    assert 0 < entry["max_us"] == entry["total_us"]
    # Its project reads it too, and to read it is a request like any other.
    (seen,) = entries(demo, asked(reply))
    assert seen == entry
    reading = demo("GET", f"/v1/audit/{asked(reply)}", headers=alone_of_its_kind())
    (entry,) = entries(cloud.admin, asked(reading))
    assert (entry["route"], entry["about"]) == ("/v1/audit/{}", [asked(reply)])


def test_reads_that_are_alike_are_counted(cloud: Cloud, demo: Api):
    network = fresh("alike")
    path = f"/network/v2.0/networks/{network}"
    for _ in range(10):
        assert demo("GET", path).status == 404

    def counted() -> bool:
        found = demo("GET", f"/v1/audit?show=reads&resource_id={network}").body["requests"]
        return sum(entry["count"] for entry in found) == 10

    eventually(counted, "ten reads are counted")


@pytest.mark.parametrize(
    ("token", "reason"),
    [("", "this call needs a token (X-Auth-Token)"), ("gAAAAAsecret", "the token is not valid")],
)
def test_who_is_not_let_in_is_told_without_what_was_shown(cloud: Cloud, token: str, reason: str):
    agent = {"User-Agent": fresh("stranger")}
    reply = Api(cloud.url, token)("GET", SERVERS, headers=agent)
    assert reply.status == 401

    (entry,) = entries(cloud.admin, asked(reply))

    assert (entry["status"], entry["reason"], entry["user_id"]) == (401, reason, "")
    assert (entry["agent"], entry["route"]) == (agent["User-Agent"], "/v2.1/servers")
    assert "gAAAAA" not in str(entry)
    # No project's business.
    assert cloud.demo("GET", f"/v1/audit/{asked(reply)}").status == 404


def test_a_wrong_password_is_told_and_not_written_down(cloud: Cloud):
    body = {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {
                    "user": {"name": "demo", "domain": {"name": "Default"}, "password": "hunter2"}
                },
            }
        }
    }
    reply = cloud.anyone("POST", "/identity/v3/auth/tokens", body, headers=alone_of_its_kind())
    assert reply.status == 401

    (entry,) = entries(cloud.admin, asked(reply))

    assert (entry["method"], entry["route"]) == ("POST", "/v3/auth/tokens")
    assert "hunter2" not in str(entry)


def test_who_signs_in_is_told_by_name(cloud: Cloud):
    auth = cloud.clouds["cumulog-demo"]["auth"]
    body = credentials(auth["username"], auth["password"], auth["project_name"])
    reply = cloud.anyone("POST", "/identity/v3/auth/tokens", body, headers=alone_of_its_kind())

    (entry,) = entries(cloud.admin, asked(reply))

    assert entry["user_id"] == reply.body["token"]["user"]["id"]
    assert entry["status"] == 201


def test_a_read_that_is_forbidden_is_told_with_the_rule(cloud: Cloud, demo: Api):
    reply = demo("GET", "/v1/audit/gaps", headers=alone_of_its_kind())
    assert reply.status == 403

    (entry,) = entries(cloud.admin, asked(reply))

    assert (entry["status"], entry["tag"]) == (403, "log:gaps:read")
    assert entry["rule"] == "log:gaps:read: admin in cloud | reader in system"
    denied = cloud.admin("GET", "/v1/audit?show=all&denied=1").body["requests"]
    assert asked(reply) in {row["request_id"] for row in denied}
    assert {row["status"] for row in denied} <= {401, 403}


def test_a_mutation_is_listed_once_with_how_long_it_took(cloud: Cloud, demo: Api):
    reply = demo("POST", "/network/v2.0/networks", {"network": {"name": fresh("net")}})
    network = reply.body["network"]["id"]

    (entry,) = entries(demo, asked(reply))

    assert entry["ordinal"] == int(reply.headers["x-cumulog-ordinal"])
    assert entry["rule"] == "CreateNetwork: member in project"
    found = demo("GET", f"/v1/audit?show=all&request_id={asked(reply)}").body["requests"]
    (row,) = found
    assert (row["source"], row["tag"], row["resource_id"]) == ("log", "CreateNetwork", network)
    assert (row["total_us"], row["status"]) == (entry["total_us"], 201)
    assert (row["address"], row["rule"]) == ("127.0.0.1", "CreateNetwork: member in project")


def test_a_dry_run_is_told(cloud: Cloud, demo: Api):
    action = {"type": "CreateNetwork", "name": "maybe"}
    reply = demo("POST", "/v1/actions?dry_run=1", action, headers=alone_of_its_kind())

    (entry,) = entries(demo, asked(reply))

    assert (entry["dry_run"], entry["ordinal"], entry["tag"]) == (True, 0, "CreateNetwork")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/nowhere"])
def test_what_is_asked_of_the_process_is_told(cloud: Cloud, path: str):
    reply = cloud.anyone("GET", path, headers=alone_of_its_kind())

    (entry,) = entries(cloud.admin, asked(reply))

    assert (entry["api"], entry["status"]) == ("process", reply.status)


def test_pages_of_both_kinds_follow_each_other(cloud: Cloud, demo: Api):
    name = fresh("pages")
    agent = {"User-Agent": name}
    ids: list[str] = []
    for n in range(4):
        made = demo("POST", "/network/v2.0/networks", {"network": {"name": f"{name}-{n}"}})
        ids += [asked(made), asked(demo("GET", f"{SERVERS}/{name}-{n}", headers=agent))]
    for request_id in ids:
        entries(demo, request_id)
    seen: list[dict] = []
    before = ""

    while True:
        page = demo("GET", f"/v1/audit?show=all&limit=3&before={before}").body
        seen += page["requests"]
        if set(ids) <= {row["request_id"] for row in seen}:
            break
        before = page["next_before"]

    listed = [row["request_id"] for row in seen]
    assert len(listed) == len(set(listed))
    assert [row["at"] for row in seen] == sorted((row["at"] for row in seen), reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        "show=some",
        "before=x",
        "before=1-2",
        "before=-1",
        "before=9999999999999999999",
        "denied=maybe",
        "since=then",
    ],
)
def test_questions_that_make_no_sense_are_refused(demo: Api, query: str):
    assert demo("GET", f"/v1/audit?{query}").status == 400


def test_a_project_does_not_see_what_others_asked(cloud: Cloud, demo: Api):
    stranger = cloud.stranger()
    reply = demo("GET", SERVERS, headers=alone_of_its_kind())
    entries(demo, asked(reply))

    assert stranger("GET", f"/v1/audit/{asked(reply)}").status == 404
    rows = stranger("GET", f"/v1/audit?show=all&request_id={asked(reply)}").body["requests"]
    assert rows == []
    project = cloud.admin("GET", "/identity/v3/projects?name=demo").body["projects"][0]["id"]
    assert stranger("GET", f"/v1/audit?show=all&project={project}").status == 403


def test_the_command_line_shows_both(cloud: Cloud, demo: Api):
    reply = demo("GET", f"{SERVERS}/{fresh('nothing')}")
    entries(cloud.admin, asked(reply))
    wanted = ("--request-id", asked(reply))

    rows = cloud.up.json("audit", "log", "--all", "--user", "demo", "--project", "demo", *wanted)
    table = cloud.up.run("audit", "log", "--reads", "--address", "127.0.0.1", *wanted)
    shown = cloud.up.run("audit", "show", asked(reply))

    assert [row["request_id"] for row in rows] == [asked(reply)]
    for done in (table, shown):
        assert done.code == 0, done.errors
        assert "GET compute /v2.1/servers/{}" in done.output
        assert "404" in done.output
    assert cloud.up.json("audit", "log", "--reads", "--since", "2099-01-01T00:00:00Z") == []
    assert cloud.up.json("audit", "gaps")["gaps"] == []


@pytest.fixture
def alone(tmp_path_factory: pytest.TempPathFactory):
    """A cloud that a test may break."""
    with started(tmp_path_factory.mktemp("audit") / "state") as cloud:
        yield cloud


def test_an_edge_that_is_killed_leaves_a_gap_that_is_seen(alone: Cloud):
    kept = alone.demo("GET", SERVERS)
    entries(alone.admin, asked(kept))
    before = alone.up.pids()["api"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: alone.up.pids().get("api") not in {None, before}, "the edge is back")
    eventually(lambda: reaches(alone), "it answers")

    def gap() -> bool:
        gaps = alone.admin("GET", "/v1/audit/gaps").body["gaps"]
        return [g["what"] for g in gaps] == ["ended"]

    eventually(gap, "the gap is noted")
    assert len(entries(alone.admin, asked(kept))) == 1
    new = alone.demo("GET", SERVERS)
    assert entries(alone.admin, asked(new))


def test_an_edge_that_is_replaced_leaves_no_gap(alone: Cloud):
    before = alone.up.pids()["api"]
    assert alone.up.process is not None
    alone.up.process.send_signal(signal.SIGHUP)
    eventually(lambda: alone.up.pids()["api"] != before, "another edge has begun")
    eventually(lambda: not alive(before), "the one before has ended")
    reply = alone.demo("GET", SERVERS, headers=alone_of_its_kind())

    assert entries(alone.admin, asked(reply))
    assert alone.admin("GET", "/v1/audit/gaps").body["gaps"] == []


def test_a_flood_of_strangers_takes_nobodys_place_and_stays_out_of_the_log(alone: Cloud):
    ordinal = alone.admin("GET", "/v1/status").body["engine"]["ordinal"]
    statuses = [
        Api(alone.url, secrets.token_hex(100))(
            "POST",
            f"/{random.choice(['compute/v2.1', 'image/v2', 'v1'])}/{secrets.token_hex(20)}",
            {},
            headers={"User-Agent": secrets.token_hex(40)},
        ).status
        for _ in range(600)
    ]
    reply = alone.demo("GET", SERVERS, headers=alone_of_its_kind())

    assert entries(alone.admin, asked(reply))
    assert set(statuses) <= {401, 429}
    rows = alone.admin("GET", "/v1/audit?show=reads&limit=1000").body["requests"]
    strangers = [row for row in rows if row["user_id"] == "" and row["status"] in {401, 429}]
    assert sum(row["count"] for row in strangers) == 600
    assert len(strangers) < 600
    assert any(row["gathered"] == "owner" for row in strangers)
    assert {row["route"] for row in strangers} == {""}
    requests = alone.admin("GET", f"/v1/events?after={ordinal}").body["events"]
    assert [e for e in requests if e["user_id"] not in {"", "system"}] == []


def reaches(cloud: Cloud) -> bool:
    try:
        return cloud.anyone("GET", "/readyz").status == 200
    except OSError:
        return False


def test_reads_do_not_wait_for_a_broker_that_is_away_and_are_told_later(alone: Cloud):
    broker = alone.up.pids()["nats"]
    os.kill(broker, signal.SIGSTOP)
    try:
        replies = [alone.demo("GET", f"{SERVERS}/away-{n}") for n in range(20)]
        assert {reply.status for reply in replies} == {404}
    finally:
        os.kill(broker, signal.SIGCONT)

    for reply in replies:
        assert entries(alone.admin, asked(reply))
    assert alone.admin("GET", "/v1/audit/gaps").body["gaps"] == []
