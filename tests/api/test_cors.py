"""Which pages a browser lets read our answers: those listed, and never with credentials."""

import pytest

from api.cors import BadOrigins, Cors
from tests.api.conftest import Api, Cloud
from tests.api.edges import EdgeProcess

PAGE = "https://dashboard.example"
SERVERS = "/compute/v2.1/servers"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-auth-token"}


@pytest.fixture(scope="module")
def edge(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory):
    settings = {"cors_origins": [PAGE, "http://127.0.0.1:9000"]}
    with EdgeProcess(cloud, tmp_path_factory.mktemp("cors"), **settings) as edge:
        yield edge


@pytest.mark.parametrize("path", [SERVERS, "/identity/v3/auth/tokens", "/v1/events", "/nothing"])
def test_a_preflight_needs_no_token(edge: EdgeProcess, path: str):
    reply = Api(edge.url)("OPTIONS", path, headers=ASKED | {"Origin": PAGE})

    assert (reply.status, reply.raw) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == PAGE
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert "x-auth-token" in reply.headers["access-control-allow-headers"]
    assert "origin" in reply.headers["vary"]
    assert "access-control-allow-credentials" not in reply.headers
    assert reply.headers["x-openstack-request-id"].startswith("req-")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", f"{PAGE}.evil.example", f"{PAGE}:443", "null", "*", "",
     "http://dashboard.example", "https://DASHBOARD.example"],
)  # fmt: skip
def test_a_page_that_is_not_listed_is_told_nothing(edge: EdgeProcess, origin: str):
    anyone = Api(edge.url)
    preflight = anyone("OPTIONS", SERVERS, headers=ASKED | {"Origin": origin})
    assert preflight.status == 401
    answer = edge.as_demo()("GET", SERVERS, headers={"Origin": origin})
    assert answer.status == 200
    for reply in (preflight, answer):
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["vary"] == "origin"


def test_a_page_that_is_listed_reads_answers_and_errors(edge: EdgeProcess):
    demo = edge.as_demo()
    for path, status in ((SERVERS, 200), (f"{SERVERS}/none", 404), ("/healthz", 200)):
        reply = demo("GET", path, headers={"Origin": PAGE})
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "x-openstack-request-id" in reply.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in reply.headers
    assert Api(edge.url)("GET", SERVERS, headers={"Origin": PAGE}).status == 401


def test_without_a_list_no_page_reads_anything(cloud: Cloud):
    reply = cloud.demo("GET", SERVERS, headers={"Origin": PAGE})
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert cloud.anyone("OPTIONS", SERVERS, headers=ASKED | {"Origin": PAGE}).status == 401


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "dashboard.example", "https://dashboard.example/", "https://*.example",
     "https://a b", "https://A.example", "ftp://a.example", "https://a.example\n", ""],
)  # fmt: skip
def test_what_is_no_origin_is_refused_at_the_start(origin: str):
    with pytest.raises(BadOrigins):
        Cors([origin])
