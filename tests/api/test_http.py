"""What the edge makes of bytes: one answer to one request, whatever is done to hide a second."""

import json
import re

import pytest

from tests.api.conftest import Cloud
from tests.api.edges import EdgeProcess, Raw, statuses

HOST = b"Host: x\r\n"
POST = b"POST /v1/actions HTTP/1.1\r\n" + HOST
GET = b"GET /compute HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
HIDDEN = b"GET /v1/hidden HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def edge(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory):
    with EdgeProcess(cloud, tmp_path_factory.mktemp("http"), keep_alive_s=1.0) as edge:
        yield edge


def ask(edge: EdgeProcess, data: bytes) -> bytes:
    with edge.connect() as connection:
        return connection.send(data).everything()


SMUGGLED = {
    "length and chunks": POST + b"Content-Length: 4\r\n" + CHUNKED + b"0\r\n\r\n",
    "chunks and length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length in hex": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length beyond all numbers": POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a folded header": GET + HOST + b"X-A: b\r\n Content-Length: 40\r\n\r\n",
    "a bare CR": GET + b"Host: x\rContent-Length: 40\r\n\r\n",
    "a NUL": GET + b"Host: x\r\nX: a\0b\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
    ),
    "a coding with a control character": (
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"
    ),
    "chunks in HTTP/1.0": b"POST /v1/actions HTTP/1.0\r\n" + HOST + CHUNKED + b"0\r\n\r\n",
    "a chunk's size overflows": POST + CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
    "a chunk's size is negative": POST + CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n",
    "a chunk's size is no number": POST + CHUNKED + b"ZZ\r\n{}\r\n0\r\n\r\n",
    "a chunk is longer than it says": POST + CHUNKED + b"2\r\n{}X0\r\n\r\n",
    "a chunk's line ends in LF": POST + CHUNKED + b"2\n{}\n0\n\n",
    "a chunk's extension has a LF": POST + CHUNKED + b"2;\nxx\r\n{}\r\n0\r\n\r\n",
    "a chunk's extension is endless": POST + CHUNKED + b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n",
    "a version that is none": b"GET /compute HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2 in a line of HTTP/1": b"GET /compute HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /compute\r\n\r\n",
    "a method that is none": b"G@T /compute HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path that is none": b"GET /compute/\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS where none is": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50,
}


@pytest.mark.parametrize("data", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_a_request_that_can_be_read_in_two_ways_is_answered_once_and_the_last(
    edge: EdgeProcess, data: bytes
):
    """It is refused, and the connection closed: what follows is never taken for a request."""
    answer = ask(edge, data + HIDDEN * 2)

    (status,) = statuses(answer)
    assert status in {400, 401}, answer  # 401: its head was good, and had no token
    assert b"hidden" not in answer


def test_after_a_body_the_next_request_is_what_follows_it(edge: EdgeProcess):
    """Bodies are read to their end also where nobody wants them."""
    hidden = b"GET /v1/hidden"
    get = b"GET /healthz HTTP/1.1\r\n" + HOST
    for body in (
        b"Content-Length: %d\r\n\r\n%b" % (len(hidden), hidden),
        CHUNKED + b"%x;name=value\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (len(hidden), hidden),
    ):
        answer = ask(edge, get + body + b"GET /compute HTTP/1.1\r\n" + HOST + b"\r\n")
        assert statuses(answer) == [200, 200]
        assert b"hidden" not in answer


def test_requests_in_a_row_are_answered_in_order(edge: EdgeProcess):
    answer = ask(edge, (GET + HOST + b"\r\n" + HIDDEN) * 3)
    assert statuses(answer) == [200, 401] * 3


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"Host: x\r\nHost: y\r\n", "host"),
        (b"Host: x\r\nX-Auth-Token: a\r\nX-Auth-Token: b\r\n", "x-auth-token"),
        (b"Host: x\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n", "content-type"),
        (b"", "host"),
        (b"Host: \r\n", "host"),
    ],
)
def test_a_head_that_says_two_things_or_no_host_is_refused(edge: EdgeProcess, head, named):
    answer = ask(edge, GET + head + b"Connection: close\r\n\r\n")
    assert statuses(answer) == [400]
    fault = json.loads(answer.partition(b"\r\n\r\n")[2])["badRequest"]
    assert named in fault["message"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /compute/%b HTTP/1.1\r\n" % (b"a" * 20_000), 414),
        (b"GET /compute?%b HTTP/1.1\r\n" % (b"a" * 20_000), 414),
        (b"GET /compute/%b HTTP/1.1\r\n" % (b"a" * 140_000), 431),
        (b"GET /compute HTTP/1.1\r\nX: %b\r\n" % (b"a" * 140_000), 431),
        (b"GET /compute HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(101)), 431),
        (b"GET /compute HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(90)), 200),
        (b"GET /compute?%b HTTP/1.1\r\n" % (b"a" * 16_000), 200),
    ],
    ids=["path", "query", "huge path", "huge header", "many headers", "enough headers", "fits"],
)
def test_how_long_a_head_may_be(edge: EdgeProcess, data: bytes, status: int):
    answer = ask(edge, data + HOST + b"Connection: close\r\n\r\n")
    assert statuses(answer) == [status]
    if status == 414:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["computeFault"]["code"] == 414


def test_older_clients_and_short_answers(edge: EdgeProcess):
    old = ask(edge, b"GET /compute HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.0 200")
    assert b"transfer-encoding" not in old
    last = ask(edge, GET + HOST + b"Connection: close\r\n\r\n")
    assert b"connection: close" in last.partition(b"\r\n\r\n")[0]
    head = ask(edge, b"HEAD /compute HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert statuses(head) == [200]
    assert head.endswith(b"\r\n\r\n")
    with edge.connect() as kept:
        keep = b"GET /compute HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        assert statuses(kept.send(keep).until(b"]}") + kept.send(keep).until(b"]}")) == [200, 200]


def test_a_body_is_asked_for_before_it_is_sent(edge: EdgeProcess, cloud: Cloud):
    head = (
        POST + b"X-Auth-Token: " + cloud.demo.token.encode() + b"\r\nContent-Length: 2\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )  # fmt: skip
    with edge.connect() as connection:
        assert connection.send(head).until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert statuses(connection.send(b"{}").everything()) == [400]


def test_links_cannot_be_forged_by_a_host_that_is_none(edge: EdgeProcess):
    for host in (b'a"b<c', b"a/b", b"user@host", b"a b", b"x" * 300, b"a%0d%0ab", b"\xffx"):
        head = b"GET /image HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
        answer = ask(edge, head)
        (status,) = statuses(answer)
        assert status in {300, 400}
        if status == 300:
            assert f"http://127.0.0.1:{edge.port}/image/v2/".encode() in answer
            assert host not in answer


@pytest.mark.parametrize(
    "data",
    [b"OPTIONS * HTTP/1.1\r\n", b"TRACE /compute HTTP/1.1\r\n",
     b"CONNECT a.example:80 HTTP/1.1\r\n", b"GET http://evil.example/compute/x HTTP/1.1\r\n",
     b"GET /compute/%0d%0aSet-Cookie:x HTTP/1.1\r\n", b"%b /compute HTTP/1.1\r\n" % (b"A" * 5000)],
    ids=["options *", "trace", "connect", "absolute", "encoded line ends", "long method"],
)  # fmt: skip
def test_odd_requests_are_refused_with_a_request_id(edge: EdgeProcess, data: bytes):
    with edge.connect() as connection:
        answer = connection.send(data + HOST + b"Connection: close\r\n\r\n").until(b"\r\n\r\n")
    (status,) = statuses(answer)
    assert status in {401, 404, 405}
    assert re.search(rb"x-openstack-request-id: req-[0-9a-f-]{36}\r\n", answer)
    assert b"set-cookie" not in answer.lower()


BODIES = [
    b'{"type": "X", "n": ' + b"9" * 5000 + b"}",
    b'{"type": "X", "n": 1e400}',
    b'{"type": "X", "n": 1e' + b"9" * 5000 + b"}",
    b'{"type": "X", "n": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    b'{"type": "X", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"type": "\\ud800"}',
    b'{"type": "\xff"}',
    b'{"type": NaN}',
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("body", BODIES, ids=[repr(body[:30]) for body in BODIES])
@pytest.mark.parametrize("path", ["/v1/actions", "/network/v2.0/networks"])
def test_numbers_and_nesting_without_end_are_refused(cloud: Cloud, path: str, body: bytes):
    headers = {"Content-Type": "application/json"}
    assert cloud.demo("POST", path, raw=body, headers=headers).status == 400


def test_nothing_is_redirected(cloud: Cloud):
    for path in ("/compute/", "/compute//", "//compute", "/compute/v2.1/servers/", "/healthz/"):
        reply = cloud.demo("GET", path)
        assert reply.status in {200, 404}, reply
        assert "location" not in reply.headers


def test_a_raw_connection_says_when_it_is_closed(edge: EdgeProcess):
    """The helper of these tests can fail: a kept connection is open, and has one answer."""
    with Raw(edge.address) as connection:
        connection.send(GET + HOST + b"\r\n").until(b"]}")
        assert not connection.closed()
