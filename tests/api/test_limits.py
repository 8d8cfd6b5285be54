"""Who asks too often is told to wait; nobody else notices, and memory stays bounded."""

import pytest

from api.forwarded import Origin
from api.limits import BURST_S, Buckets, Limits
from schemas.config import Config
from schemas.errors import Unavailable
from tests.api.conftest import Api, Cloud, credentials
from tests.api.edges import EdgeProcess, held
from tests.api.test_bad_input import refused

SERVERS = "/compute/v2.1/servers"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_a_burst_and_fills_at_its_rate():
    clock = Clock()
    buckets = Buckets(rate=2.0, burst_s=5.0, clock=clock)

    assert [buckets.take("a") for _ in range(10)] == [0.0] * 10
    assert buckets.take("a") == pytest.approx(0.5)
    assert buckets.take("b") == 0.0
    clock.now += 0.5
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0.0
    clock.now += 3600.0
    assert [buckets.take("a") for _ in range(11)].count(0.0) == 10


def test_a_refusal_takes_nothing():
    clock = Clock()
    buckets = Buckets(rate=1.0, burst_s=1.0, clock=clock)
    assert buckets.take("a") == 0.0
    assert {buckets.take("a") for _ in range(1000)} == {1.0}
    clock.now += 1.0
    assert buckets.take("a") == 0.0


def test_a_token_can_be_given_back():
    buckets = Buckets(rate=1.0, burst_s=2.0, clock=Clock())
    for _ in range(50):
        assert buckets.take("a") == 0.0
        buckets.give_back("a")
    assert [buckets.take("a") for _ in range(3)].count(0.0) == 2


def test_no_rate_is_no_limit():
    buckets = Buckets(rate=0.0, burst_s=1.0)
    assert not any(buckets.take("a") for _ in range(10_000))
    buckets.give_back("a")
    assert len(buckets) == 0


def test_many_addresses_take_bounded_memory_and_free_nobody_who_goes_on():
    buckets = Buckets(rate=1.0, burst_s=3.0, kept_max=100, clock=Clock())
    while buckets.take("busy") == 0.0:
        pass
    for n in range(10_000):
        buckets.take(f"address {n}")
        if n % 50 == 0:
            assert buckets.take("busy") > 0.0
    assert len(buckets) <= 200


def test_a_proxy_that_speaks_for_itself_is_not_limited():
    limits = Limits(Config(state_dir="/", requests_per_address_s=1.0, sign_ins_per_address_min=1.0))
    local = Origin("127.0.0.1", "", trusted=True)
    for _ in range(1000):
        limits.request(local)
        limits.sign_in(local)


def test_more_requests_at_once_than_can_be_answered_are_told_to_come_again():
    limits = Limits(Config(state_dir="/", requests_max=2))
    somebody = Origin("192.0.2.1", "192.0.2.1", trusted=False)
    limits.under_way = 2
    limits.request(somebody)
    limits.under_way = 3
    with pytest.raises(Unavailable):
        limits.request(somebody)
    limits.probe(somebody)


def test_who_follows_events_takes_nobody_s_place(cloud: Cloud, tmp_path):
    """Streams wait, and are not counted among the requests that are being answered."""
    ask = (
        b"GET /v1/events?follow=1&after=99999999 HTTP/1.1\r\nHost: x\r\nX-Auth-Token: "
        + cloud.demo.token.encode() + b"\r\n\r\n"
    )  # fmt: skip
    with EdgeProcess(cloud, tmp_path, requests_max=2) as edge, held(edge, 8) as feeds:
        for feed in feeds:  # one after the other: until it is connected each is a request
            feed.send(ask).until(b": connected")
        assert edge.as_demo()("GET", SERVERS).status == 200


def test_requests_over_the_most_get_503_and_the_others_are_answered(cloud: Cloud, tmp_path):
    waiting = (
        b"POST /identity/v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    with EdgeProcess(cloud, tmp_path, requests_max=2) as edge, held(edge, 2, waiting) as clients:
        for client in clients:
            client.until(b"100 Continue\r\n\r\n")
        reply = edge.as_demo()("GET", SERVERS)
        refused(reply, 503)
        assert reply.headers["retry-after"] == "1"
        assert Api(edge.url)("GET", "/healthz").status == 200
        for client in clients:
            assert b" 400 " in client.send(b"{}").until(b"\r\n\r\n")
        assert edge.as_demo()("GET", SERVERS).status == 200


SHAPES = [
    (SERVERS, lambda body: body["overLimit"]["retryAfter"] >= 1),
    ("/network/v2.0/networks", lambda body: body["NeutronError"]["type"] == "TooManyRequests"),
    ("/image/v2/images", lambda body: body["title"] == "Too Many Requests"),
    ("/identity/v3", lambda body: body["error"]["code"] == 429),
    ("/v1/events", lambda body: body["code"] == "TooManyRequests"),
    ("/healthz", lambda body: body["status"] == 429),
]


@pytest.fixture(scope="module")
def narrow(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory):
    """An edge with limits that a test can reach. It believes the loopback's X-Forwarded-For."""
    settings = {
        "requests_per_address_s": 0.01,
        "requests_per_project_s": 0.5,
        "sign_ins_per_address_min": 2.0,
    }
    with EdgeProcess(cloud, tmp_path_factory.mktemp("narrow"), **settings) as edge:
        yield edge


@pytest.mark.parametrize(("path", "right"), SHAPES, ids=[path for path, _ in SHAPES])
def test_an_address_that_asks_too_often_is_told_to_wait(narrow: EdgeProcess, path: str, right):
    anyone = Api(narrow.url)
    headers = {"X-Forwarded-For": f"192.0.2.{SHAPES.index((path, right))}"}

    assert anyone("GET", path, headers=headers).status != 429
    reply = anyone("GET", path, headers=headers)

    refused(reply, 429)
    assert 1 <= int(reply.headers["retry-after"]) <= 100
    assert right(reply.body), reply


def test_an_ipv6_customer_is_one_however_many_addresses_it_uses(narrow: EdgeProcess):
    anyone = Api(narrow.url)
    first = anyone("GET", "/compute", headers={"X-Forwarded-For": "2001:db8:7:7::1"})
    second = anyone("GET", "/compute", headers={"X-Forwarded-For": "2001:db8:7:7:ffff::2"})
    other = anyone("GET", "/compute", headers={"X-Forwarded-For": "2001:db8:7:8::1"})

    assert [first.status, second.status, other.status] == [200, 429, 200]


def test_a_project_that_asks_too_often_is_told_to_wait(narrow: EdgeProcess, cloud: Cloud):
    demo = narrow.as_demo()
    codes = [demo("GET", SERVERS).status for _ in range(int(0.5 * BURST_S) + 5)]

    assert codes[:5] == [200] * 5
    assert 429 in codes
    assert Api(narrow.url, cloud.admin.token)("GET", SERVERS).status == 200


def test_guessing_passwords_ends_soon_and_signing_in_rightly_does_not(
    narrow: EdgeProcess, cloud: Cloud, tmp_path
):
    account = cloud.clouds["cumulog-demo"]["auth"]
    right = credentials(account["username"], account["password"])
    wrong = credentials(account["username"], "guess")
    tokens = "/identity/v3/auth/tokens"
    with EdgeProcess(
        cloud, tmp_path, requests_per_address_s=0, sign_ins_per_address_min=2.0
    ) as edge:
        anyone = Api(edge.url)
        guesser, colleague = ({"X-Forwarded-For": f"203.0.113.{n}"} for n in (1, 2))
        assert [anyone("POST", tokens, right, headers=guesser).status for _ in range(5)] == (
            [201] * 5
        )
        codes = [anyone("POST", tokens, wrong, headers=guesser).status for _ in range(4)]
        assert codes[:2] == [401, 401]
        assert codes[3] == 429
        assert anyone("POST", tokens, right, headers=guesser).status == 429
        assert anyone("POST", tokens, right, headers=colleague).status == 201
        # Who has a token goes on from there.
        assert edge.as_demo()("GET", SERVERS, headers=guesser).status == 200
