"""Reads as of a moment: what was answered then is answered now, to those who might ask then."""

import os
import signal
import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from api.app import SURFACES
from tests.api.conftest import Api, Cloud, fresh
from tests.cli.running import eventually

# Of each service; what is named is filled in from what the test makes.
READS = (
    "/compute/v2.1/servers/detail",
    "/compute/v2.1/servers/{server}",
    "/compute/v2.1/servers/{server}/os-instance-actions",
    "/compute/v2.1/servers/{server}/ips",
    "/compute/v2.1/flavors/detail",
    "/compute/v2.1/os-keypairs",
    "/compute/v2.1/limits",
    "/compute/v2.1/os-quota-sets/{project}/detail",
    "/image/v2/images",
    "/network/v2.0/networks",
    "/network/v2.0/subnets",
    "/network/v2.0/ports",
    "/network/v2.0/security-groups",
    "/network/v2.0/quotas/{project}/details.json",
    "/identity/v3/auth/projects",
    "/identity/v3/projects/{project}",
    "/v1/events?limit=1000",
    "/v1/operations",
    "/v1/quota",
    "/v1/why/{server}",
    "/v1/webhooks",
)
OF_ALL = (
    "/compute/v2.1/servers/detail?all_tenants=1",
    "/compute/v2.1/os-hypervisors/detail",
    "/compute/v2.1/os-services",
    "/identity/v3/users",
    "/identity/v3/projects",
    "/identity/v3/role_assignments",
    "/identity/v3/roles",
    "/v1/policy",
    "/v1/audit?limit=1000",
    "/v1/quotas",
)


# What was used by the time that the last commit was made, and its cost.
USED = ("/v1/usage?end={end}", "/v1/bill?end={end}")
USED_BY_ALL = (
    "/v1/usage?end={end}",
    "/v1/bill?end={end}",
    "/v1/reports/cost?by=user,meter&end={end}",
    "/v1/reports/orphans?end={end}",
    "/compute/v2.1/os-simple-tenant-usage?start=2020-01-01&end={end}",
)


# What ACCESS adds to a request, a second after it was answered.
TOLD_LATER = {"method", "route", "status", "total_us", "max_us"}


def answers(api: Api, paths: tuple[str, ...], ids: dict[str, str], as_of: str = "") -> dict:
    found = {}
    for template in paths:
        path = template.format(**ids)
        headers = {"X-Cumulog-As-Of": as_of} if as_of else {}
        reply = api("GET", path, headers=headers)
        assert reply.status == 200, (path, reply)
        body = reply.body
        if path.startswith("/v1/audit"):
            rows = body["requests"]
            body["requests"] = [{k: row[k] for k in row.keys() - TOLD_LATER} for row in rows]
        found[path] = (reply.headers["x-cumulog-ordinal"], body)
    return found


def settled(cloud: Cloud) -> int:
    """Return the log's end, once nothing is under way in it."""
    seen = -1

    def rests() -> bool:
        nonlocal seen
        before, seen = seen, int(cloud.admin("GET", "/v1/quota").headers["x-cumulog-ordinal"])
        return before == seen

    eventually(rests, "the log rests")
    return seen


def stamp(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat().replace("+00:00", "Z")


@pytest.fixture(scope="module")
def story(cloud):
    """What was answered at several moments of a small story, by (ordinal, time)."""
    demo, admin = cloud.demo, cloud.admin
    network = cloud.network(demo)
    server = cloud.server(demo, network["id"])
    project = server["tenant_id"]
    ids = {"server": server["id"], "project": project}
    recorded = []

    def record() -> None:
        ordinal = settled(cloud)
        ids["end"] = stamp(admin("GET", "/v1/events?limit=1").body["at"])
        mine, all_ = answers(demo, READS + USED, ids), answers(admin, OF_ALL + USED_BY_ALL, ids)
        assert {int(at) for at, _ in (mine | all_).values()} == {ordinal}
        recorded.append((ordinal, time.time_ns() // 1000, mine, all_, ids["end"]))

    record()
    demo("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": fresh("key")}})
    demo("PUT", f"/compute/v2.1/servers/{server['id']}", {"server": {"name": "renamed"}})
    demo("POST", f"/compute/v2.1/servers/{server['id']}/action", {"os-stop": None})
    cloud.settled(demo, server["id"])
    record()
    cloud.stranger()
    rules = {"compute:zones:read": ["admin in cloud"]}
    assert admin("POST", "/v1/actions", {"type": "SetPolicy", "rules": rules}).status == 200
    cloud.network(demo, "10.78.0.0/24")
    cloud.gone(demo, server["id"])
    settled(cloud)
    return recorded, ids


def test_what_was_answered_then_is_answered_now(cloud, story):
    """For routes of every service, by ordinal and by time: the same bodies, the same ordinal."""
    recorded, ids = story
    gone = f"/compute/v2.1/servers/{ids['server']}"
    assert cloud.demo("GET", gone).status == 404

    for ordinal, at, mine, all_, end in recorded:
        ids["end"] = end
        for as_of in (str(ordinal), stamp(at)):
            then = answers(cloud.demo, READS + USED, ids, as_of)
            assert then == mine, as_of
            then = answers(cloud.admin, OF_ALL + USED_BY_ALL, ids, as_of)
            assert then == all_, as_of
    assert all(mine[f"/v1/usage?end={end}"][1]["usage"] for _, _, mine, _, end in recorded)


def test_any_list_of_any_service_is_the_same_as_of_now(cloud, story):
    """Whatever route comes: as of the head it is answered as now, or says that it has no past."""
    head = settled(cloud)
    end = stamp(cloud.admin("GET", "/v1/events?limit=1").body["at"])
    asked = 0
    for surface in SURFACES:
        for method, path, route in surface.routes.listing():
            if method != "GET" or "{}" in path or route.public or route.older is not None:
                continue
            # Of what is told up to now, now has gone on.
            window = f"start=2020-01-01&end={end}&" if "end" in route.query else ""
            where = f"{surface.prefix}{path}{'&' if '?' in path else '?'}{window}"
            then = cloud.admin("GET", f"{where}as_of={head}")
            if route.present:
                assert then.status == 400, (where, then)
                continue
            now = cloud.admin("GET", where)
            assert (then.status, then.headers["content-type"]) == (
                now.status,
                now.headers["content-type"],
            ), (where, then, now)
            assert then.headers["x-cumulog-ordinal"] == str(head)
            if now.headers["content-type"] == "application/json" and now.status == 200:
                # Links repeat the query; durations come a second later.
                assert told_by(then.body) == told_by(now.body), where
            asked += 1
    assert asked > 50


def told_by(value: object) -> object:
    """Return JSON without links, what is measured and told later, and the clock's own time."""
    match value:
        case dict():
            dropped = {"links", "first", "next", "before", *TOLD_LATER}
            return {k: told_by(v) for k, v in value.items() if k not in dropped}
        case list():
            return [told_by(v) for v in value]
        case _:
            return value


def test_the_parameter_is_no_filter_and_goes_on_to_the_next_page(cloud, story):
    (ordinal, *_), *_ = story[0]
    for path, links in (
        ("/network/v2.0/security-group-rules", "security_group_rules_links"),
        ("/compute/v2.1/flavors", "flavors_links"),
    ):
        whole = cloud.demo("GET", f"{path}?as_of={ordinal}").body
        first = cloud.demo("GET", f"{path}?as_of={ordinal}&limit=1").body
        href = next(one["href"] for one in first[links] if one["rel"] == "next")
        second = cloud.demo("GET", href.removeprefix(cloud.url))
        assert f"as_of={ordinal}" in href
        assert second.headers["x-cumulog-ordinal"] == str(ordinal)
        key = path.rpartition("/")[2].replace("-", "_")
        assert [first[key][0]["id"], second.body[key][0]["id"]] == [
            one["id"] for one in whole[key][:2]
        ]


@pytest.mark.parametrize(
    ("as_of", "code"),
    [
        ("0", "BeforeFirstEvent"),
        ("1", "BeforeFirstEvent"),  # a commit that elects a leader has more than that
        ("2001-01-01", "BeforeFirstEvent"),
        ("999999999999", "InTheFuture"),
        ("2999-01-01T00:00:00Z", "InTheFuture"),
        ("yesterday", "InvalidInput"),
        ("-4", "InvalidInput"),
        ("1e3", "InvalidInput"),
        ("1969-12-31T23:59:59Z", "InvalidInput"),
        ("9" * 40, "InvalidInput"),
        ("", "InvalidInput"),
        ("٣", "InvalidInput"),  # a digit, and none of ours
    ],
)
def test_what_is_no_moment_of_the_log_is_refused(cloud, as_of, code):
    reply = cloud.demo("GET", f"/v1/quota?as_of={quote(as_of)}")

    assert (reply.status, reply.body["code"]) == (400, code), reply


def test_one_moment_is_asked_for_at_once(cloud):
    head = cloud.demo("GET", "/v1/quota").headers["x-cumulog-ordinal"]
    as_of = {"X-Cumulog-As-Of": head}

    assert cloud.demo("GET", f"/v1/quota?as_of={head}", headers=as_of).status == 200
    assert cloud.demo("GET", "/v1/quota?as_of=7", headers=as_of).status == 400
    assert cloud.demo("GET", f"/v1/quota?as_of=7&as_of={head}").status == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/network/v2.0/networks"),
        ("DELETE", "/compute/v2.1/servers/nothing"),
        ("POST", "/v1/policy/what-if"),
        ("GET", "/v1/status"),
        ("GET", "/v1/log/key"),
        ("GET", "/identity/v3"),
        ("GET", "/v1/events?follow=1"),
    ],
)
def test_what_has_no_past_is_refused_and_never_answered_with_the_present(cloud, method, path):
    head = cloud.admin("GET", "/v1/quota").headers["x-cumulog-ordinal"]
    body = {"network": {"name": "never"}} if method == "POST" else None

    reply = cloud.admin(method, path, body, headers={"X-Cumulog-As-Of": head})

    assert reply.status == 400, reply
    assert "as of" in reply.raw.decode() or "as_of" in reply.raw.decode()
    assert cloud.admin("GET", "/network/v2.0/networks?name=never").body["networks"] == []


def test_the_rights_of_then_count_as_well_as_those_of_now(cloud, story):
    """Who came later sees nothing of before; who was let in later, what is open since."""
    (before, *_), *_ = story[0]
    network = cloud.network(cloud.demo, "10.80.0.0/24")["id"]
    newcomer = cloud.stranger()

    early = newcomer("GET", f"/network/v2.0/networks?as_of={before}")
    later = newcomer("GET", f"/network/v2.0/networks/{network}?as_of={settled(cloud)}")

    assert early.status == 403, early
    assert "not there then" in early.raw.decode()
    assert later.status == 404  # as now: it is another project's


def test_a_role_that_was_given_later_opens_nothing_of_before(cloud):
    """An administrator of today, who was a member then, may do then what a member might."""
    name = fresh("rises")
    project = cloud.admin.made("/identity/v3/projects", {"project": {"name": name}})
    user = cloud.admin.made("/identity/v3/users", {"user": {"name": name, "password": "pw"}})
    roles = cloud.admin("GET", "/identity/v3/roles").body["roles"]
    role = {r["name"]: r["id"] for r in roles}
    path = f"/identity/v3/projects/{project['id']}/users/{user['id']}/roles"
    assert cloud.admin("PUT", f"{path}/{role['member']}").status == 204
    before = settled(cloud)
    assert cloud.admin("PUT", f"{path}/{role['admin']}").status == 204
    after = settled(cloud)
    risen = cloud.login(name, "pw", name)

    assert risen("GET", "/identity/v3/users").status == 200
    assert risen("GET", f"/identity/v3/users?as_of={after}").status == 200
    early = risen("GET", f"/identity/v3/users?as_of={before}")
    assert (early.status, "might not then" in early.raw.decode()) == (403, True), early
    servers = f"/compute/v2.1/servers?all_tenants=1&as_of={before}"
    assert risen("GET", servers).status == 403
    assert risen("GET", f"/network/v2.0/networks?as_of={before}").status == 200

    assert cloud.admin("DELETE", f"{path}/{role['admin']}").status == 204
    settled(cloud)
    fallen = cloud.login(name, "pw", name)
    assert fallen("GET", f"/identity/v3/users?as_of={after}").status == 403


def test_reads_of_the_past_are_told_of_like_others(cloud, story):
    (ordinal, *_), *_ = story[0]
    reply = cloud.demo("GET", f"/v1/webhooks?as_of={ordinal}", headers={"User-Agent": "then/1"})
    assert reply.status == 200

    def told() -> bool:
        rows = cloud.admin("GET", "/v1/audit?show=reads&action=webhook:webhooks:read").body
        return any(row["agent"] == "then/1" for row in rows["requests"])

    eventually(told, "the read is told of")


def test_commands_that_read_go_back_too(cloud, story):
    (ordinal, _, mine, *_), (later, *_) = story[0]
    server = story[1]["server"]

    def names(as_of: int) -> list[str]:
        listed = cloud.up.json("server", "list", "--as-of", str(as_of), cloud="cumulog-demo")
        return [row["name"] for row in listed]

    assert names(ordinal) == [mine[f"/compute/v2.1/servers/{server}"][1]["server"]["name"]]
    assert names(later) == ["renamed"]
    assert cloud.up.json("server", "list", cloud="cumulog-demo") == []
    refused = cloud.up.run("server", "list", "--as-of", "2999-01-01", cloud="cumulog-demo")
    assert (refused.code, "yet to come" in refused.errors) == (1, True)
    assert "--as-of" not in cloud.up.run("server", "delete", "--help").output
    used = cloud.up.json("usage", "--as-of", str(ordinal), cloud="cumulog-demo")
    assert used["as_of"] == ordinal
    assert {row["last_ordinal"] for row in used["usage"]} <= {*range(ordinal + 1)}
    assert {row["resource_id"] for row in used["usage"]} >= {server}


def test_what_changed_is_told_with_who_was_behind_it(cloud, story):
    """To a project its own, field by field; in pages as whole; by the command as by the route."""
    (since, *_), (through, *_) = story[0]
    server = story[1]["server"]
    path = f"/v1/diff?from={since}&to={through}"

    told = cloud.demo("GET", path).body

    by_row = {(one["table"], one["key"][0]): one for one in told["changes"]}
    renamed = by_row["servers", server]
    fields = {one["field"]: one for one in renamed["fields"]}
    assert (renamed["change"], fields["name"]["after"]) == ("changed", "renamed")
    assert fields["name"]["by"]["tag"] == "compute.server.renamed.v1"
    assert fields["vm_state"]["by"]["cause"], "a person's request stands behind the report"
    user = cloud.demo("GET", f"/v1/audit/{fields['name']['by']['request_id']}").body["events"][0]
    assert user["user_id"] == fields["vm_state"]["by"]["user_id"]
    assert {one["project_id"] for one in told["changes"]} == {story[1]["project"]}

    whole = cloud.admin("GET", path).body
    assert {(one["table"], one["change"]) for one in whole["changes"]} >= {("keypairs", "created")}
    pages, marker = [], 0
    while marker is not None:
        page = cloud.admin("GET", f"{path}&limit=1&marker={marker}").body
        pages += page["changes"]
        marker = page.get("next_marker")
    assert pages == whole["changes"]
    command = cloud.up.json("diff", str(since), str(through), cloud="cumulog-demo")
    assert command["changes"] == told["changes"]
    table = cloud.up.run("diff", str(since), str(through), cloud="cumulog-demo").output
    assert "compute.server.renamed.v1" in table
    assert cloud.admin("GET", f"/v1/diff?from={through}&to={since}").status == 400
    assert cloud.admin("GET", "/v1/diff?from=1").body["code"] == "BeforeFirstEvent"
    assert cloud.admin("GET", f"/v1/diff?as_of={through}").status == 400
    later = cloud.admin("GET", f"/v1/diff?from={through}").body
    assert ("servers", "deleted") in {(c["table"], c["change"]) for c in later["changes"]}
    assert {"policy"} <= {c["table"] for c in later["changes"]}


@pytest.mark.parametrize(
    ("probe", "before", "after"),
    [
        ("server show {server}", '"name": "server-', '"name": "renamed"'),
        (
            "select count(*) as n from events where tag = 'compute.server.renamed.v1'",
            '"n": 0',
            '"n": 1',
        ),
    ],
)
def test_the_event_that_changed_an_answer_is_found(cloud, story, probe, before, after):
    """Of a server's name: the request that renamed it, whose it was, and both answers."""
    (low, *_), (high, *_) = story[0]
    told = cloud.demo("GET", f"/v1/diff?from={low}&to={high}").body["changes"]
    (field,) = (
        f for c in told for f in c["fields"] if c["table"] == "servers" and f["field"] == "name"
    )
    by = field["by"]
    low = max(low, by["ordinal"] - 5)
    span = ("--from", str(low), "--to", str(by["ordinal"] + 3))
    arguments = (*span, "--probe", probe.format(**story[1]))

    found = cloud.up.json("bisect", *arguments, cloud="cumulog-demo")

    assert found["ordinal"] == by["ordinal"]
    assert "compute.server.renamed.v1" in {event["tag"] for event in found["events"]}
    (asker,) = found["requests"]
    assert (asker["request_id"], asker["user_id"]) == (by["request_id"], by["user_id"])
    assert before in found["before"]
    assert after in found["after"]
    assert found["probes"] <= 2 + (8).bit_length()


@pytest.mark.parametrize(
    ("probe", "code", "said"),
    [
        ("flavor list", 1, "answered the same"),
        ("server delete x", 2, "No such option"),
        ("server show 'x", 2, "cannot be read"),
        ("flavor list --as-of 3", 2, "without --as-of"),
    ],
)
def test_a_probe_that_finds_nothing_says_so(cloud, story, probe, code, said):
    (low, *_), (high, *_) = story[0]

    done = cloud.up.run("bisect", "--from", str(low), "--to", str(high), "--probe", probe)

    assert done.code == code, done.errors
    assert said in done.errors


def test_sql_as_of_a_moment_holds_what_had_happened(cloud, story):
    """Sealed or not; nothing that came later is in any view."""
    (low, *_), (high, *_) = story[0]
    sql = "SELECT max(ordinal) AS last, count(*) AS n FROM events"

    def at(as_of: object) -> dict:
        reply = cloud.admin("POST", "/v1/sql", {"sql": sql, "as_of": str(as_of)})
        assert reply.status == 200, reply
        assert reply.headers["x-cumulog-as-of"] == str(as_of)
        return reply.body["rows"][0]

    unsealed = at(low), at(high)
    cloud.up.json("history", "seal")

    assert (at(low), at(high)) == unsealed == ({"last": low, "n": low}, {"last": high, "n": high})
    asked = {"sql": "SELECT DISTINCT resource_id AS id FROM usage", "as_of": str(low)}
    used = {row["id"] for row in cloud.demo("POST", "/v1/sql", asked).body["rows"]}
    told = cloud.demo("GET", f"/v1/usage?as_of={low}").body["usage"]
    assert used == {row["resource_id"] for row in told} >= {story[1]["server"]}
    early = cloud.stranger()("POST", "/v1/sql", asked)
    assert (early.status, "not there then" in early.raw.decode()) == (403, True), early
    future = cloud.admin("POST", "/v1/sql", {"sql": sql, "as_of": "99999999"})
    assert (future.status, future.body["code"]) == (400, "InTheFuture")


def test_what_other_rules_would_have_decided_is_told_and_nothing_written(cloud, story):
    """With a quota of no network, none would have been made; nothing, with nothing changed."""
    end = settled(cloud)
    project = story[1]["project"]
    asked = {"quota": {"networks": 0}, "project": project, "to": str(end)}

    told = cloud.admin("POST", "/v1/what-if", asked).body

    refused = [one for one in told["differences"] if one["what"] == "refused"]
    assert {one["action"] for one in refused} == {"CreateNetwork"}
    assert {one["project_id"] for one in refused} == {project}
    assert {one["would"]["code"] for one in refused} == {"OverQuota"}
    assert told["refused"] == len(refused) >= 2
    assert told["followed"] >= 1
    assert told["ordinal"] == end

    span = ("--from", str(end - 20), "--to", str(end))
    same = cloud.up.json("what-if", "--hosts", "spread", *span)
    assert (same["differences"], same["reports"]) == ([], 0)
    assert 0 < same["requests"] < told["requests"]
    assert cloud.demo("POST", "/v1/what-if", asked).status == 403
    for wrong in ({}, {"quota": {"moons": 1}}, {"rules": {"Nonsense": []}}, {"hosts": "random"}):
        assert cloud.admin("POST", "/v1/what-if", wrong).status == 400
    assert settled(cloud) >= end
    assert cloud.demo("GET", "/network/v2.0/networks").body["networks"]


def test_a_moment_whose_file_was_removed_for_others_is_built_anew(cloud, story):
    """Whoever has it open reads on; what is asked in another thread is answered all the same."""
    (ordinal, *_), *_ = story[0]
    read = cloud.up.state_dir / "read"
    assert cloud.demo("GET", f"/v1/quota?as_of={ordinal - 3}").status == 200
    files = list(read.glob("*.moments/moment-*.sqlite"))
    assert files
    for file in files:
        file.unlink()

    told = cloud.demo("GET", f"/v1/why/{story[1]['project']}?as_of={ordinal - 3}")

    assert told.status == 200, told


def test_the_projector_may_die_and_moments_are_there_again(cloud, story):
    """Its files of moments are removed at its start, and built anew when they are asked for."""
    (ordinal, _, mine, *_), *_ = story[0]
    path = next(iter(mine))
    killed = cloud.up.pids()["projector"]
    os.kill(killed, signal.SIGKILL)

    def answered() -> bool:
        replies = [cloud.demo("GET", f"{path}?as_of={at}") for at in (ordinal, ordinal - 1)]
        assert {reply.status for reply in replies} <= {200, 503}, replies
        if cloud.up.pids().get("projector", killed) == killed:
            return False
        return replies[0].status == replies[1].status == 200 and replies[0].body == mine[path][1]

    eventually(answered, "moments are read again")
