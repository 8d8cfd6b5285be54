"""`/metrics`: every number of the table, of every process, in both formats; no tenant's data."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from schemas.metrics import METRICS
from tests.api.conftest import Api, Cloud, started
from tests.cli.running import eventually

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROCESSES = {"engine", "projector", "archiver", "courier", "agent", "api"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud whose processes may be stopped."""
    with started(tmp_path_factory.mktemp("metrics") / "state") as cloud:
        yield cloud


def scrape(cloud: Cloud, accept: str = "") -> dict:
    """Return the families by the name that the table has for them."""
    reply = cloud.anyone("GET", "/metrics", headers={"Accept": accept} if accept else {})
    assert reply.status == 200
    parse = openmetrics if accept == OPENMETRICS else prometheus
    found = {}
    for family in parse(reply.raw.decode()):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        name = family.name if family.name in METRICS else family.name + suffix
        assert name not in found, f"{name} is said twice"
        found[name] = family
    return found


def number(families: dict, name: str, **labels: str) -> float:
    (value,) = [s.value for s in families[name].samples if s.labels == labels]
    return value


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_number_of_the_table_is_told_as_it_says(cloud: Cloud, accept: str):
    network = cloud.network(cloud.demo)
    server = cloud.server(cloud.demo, network["id"])
    assert cloud.demo("GET", "/v1/usage").status == 200
    families: dict = {}

    def all_answer() -> bool:
        nonlocal families
        families = scrape(cloud, accept)
        samples = families["cumulog_process_up"].samples
        return {s.labels["process"]: s.value for s in samples} == dict.fromkeys(PROCESSES, 1.0)

    eventually(all_answer, "every process answers")

    assert families.keys() == set(METRICS)
    for name, family in families.items():
        about = METRICS[name]
        assert family.documentation == about.help
        # What is but labels is a gauge in the older format.
        assert family.type == ("gauge" if about.kind == "info" and not accept else about.kind)
        for sample in family.samples:
            assert set(sample.labels) <= {*about.labels, "le"}
    cloud.gone(cloud.demo, server["id"])


def test_numbers_are_those_of_what_happened(alone: Cloud):
    before = scrape(alone)
    network = alone.network(alone.demo)
    alone.server(alone.demo, network["id"])
    refused = {"type": "DeleteServer", "server_id": "nothing"}
    assert alone.demo("POST", "/v1/actions", refused).status == 404
    denied = {"type": "CreateFlavor", "name": "x", "vcpus": 1, "memory_mib": 1, "disk_gib": 1}
    assert alone.stranger()("POST", "/v1/actions", denied).status == 403
    ordinal = int(alone.demo("GET", "/v1/events?limit=1").headers["x-cumulog-ordinal"])
    # What is told may be a second old.
    eventually(
        lambda: number(scrape(alone), "cumulog_log_last_sequence") >= ordinal, "it is told anew"
    )

    after = scrape(alone)

    def grown(name: str, **labels: str) -> float:
        old = before[name].samples if name in before else []
        return number(after, name, **labels) - sum(s.value for s in old if s.labels == labels)

    assert grown("cumulog_schedule_decisions_total", result="placed", reason="") == 1
    assert grown("cumulog_agent_operations_total", kind="build", result="succeeded") == 1
    assert grown("cumulog_request_decided_total", outcome="refused") >= 1
    assert grown("cumulog_policy_decisions_total", effect="deny") >= 1
    assert grown("cumulog_agent_servers") == 1
    assert grown("cumulog_capacity_used", resource="vcpus") >= 1
    assert number(after, "cumulog_quota_used", resource="servers") >= 0
    assert number(after, "cumulog_quota_limit", resource="disk_gib") == float("inf")
    assert number(after, "cumulog_projection_lag_events", projection="read_model") == 0
    served = {"api": "network", "method": "POST", "status": "201"}
    assert number(after, "cumulog_api_requests_total", **served) >= 1
    count = [
        s.value
        for s in after["http_server_request_duration_seconds"].samples
        if s.name.endswith("_count")
        and s.labels == {"api": "network", "method": "POST", "status": "2xx"}
    ]
    assert count == [number(after, "cumulog_api_requests_total", **served)]


def test_a_process_that_does_not_answer_is_told_as_down(alone: Cloud):
    pid = alone.up.pids()["projector"]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(
            lambda: number(scrape(alone), "cumulog_process_up", process="projector") == 0,
            "the projector is seen to be down",
        )
        assert number(scrape(alone), "cumulog_process_up", process="engine") == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(
        lambda: number(scrape(alone), "cumulog_process_up", process="projector") == 1,
        "the projector is seen to be up",
    )


def test_no_tenant_s_data_is_told(cloud: Cloud):
    mine = cloud.demo("GET", "/network/v2.0/networks").body["networks"]
    servers = cloud.demo("GET", "/compute/v2.1/servers").body["servers"]
    projects = cloud.admin("GET", "/identity/v3/projects").body["projects"]
    users = cloud.admin("GET", "/identity/v3/users").body["users"]

    text = cloud.anyone("GET", "/metrics").raw.decode()

    for thing in (*mine, *servers, *projects, *users):
        assert thing["id"] not in text


def test_who_scrapes_often_is_given_the_same_answer(cloud: Cloud):
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda _: cloud.anyone("GET", "/metrics"), range(64)))

    # Each answer but one a second is one that was made before: the others are not asked again.
    assert {reply.status for reply in replies} == {200}
    assert len({reply.raw for reply in replies}) < len(replies)


def test_a_token_may_be_asked_for(tmp_path):
    token_file = str(_token_file(tmp_path))
    with started(tmp_path / "state", "--metrics-token-file", token_file) as cloud:
        assert cloud.anyone("GET", "/metrics").status == 401
        wrong = {"Authorization": "Bearer wrong"}
        assert cloud.anyone("GET", "/metrics", headers=wrong).status == 401
        assert Api(cloud.url, cloud.demo.token)("GET", "/metrics").status == 401
        right = {"Authorization": "Bearer scrape-me-1234567890"}
        assert cloud.anyone("GET", "/metrics", headers=right).status == 200


def _token_file(directory):
    path = directory / "token"
    path.write_text("scrape-me-1234567890\n")
    return path
