"""What the client makes of answers, against a server that answers as it is told."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.client import Client, refusal
from cli.credentials import Cloud
from cli.problem import Problem


class Answers(ThreadingHTTPServer):
    """Gives each request the next answer: status, headers, body; None breaks the connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, dict[str, str], bytes] | None] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_GET  # noqa: N815 (http.server looks for these names)

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def answers() -> Iterator[Answers]:
    server = Answers()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(answers: Answers) -> Iterator[Client]:
    url = f"http://127.0.0.1:{answers.server_port}"
    client = Client(Cloud(url=url, token="a-token"), timeout_s=10)
    yield client
    client.close()


def test_a_token_is_asked_for_once_and_sent_with_each_request(answers):
    issued = (201, {"X-Subject-Token": "fresh"}, b'{"token": {"user": {"name": "u"}}}')
    answers.answers = [issued, (200, {}, b"{}"), (200, {}, b"{}")]
    url = f"http://127.0.0.1:{answers.server_port}"
    client = Client(Cloud(url=url, username="u", password="p", project="x"))

    client.get("/a", limit=1, marker=None)
    client.get("/b")
    client.close()

    assert [path for _, path, _, _ in answers.asked] == [
        "/identity/v3/auth/tokens",
        "/a?limit=1",
        "/b",
    ]
    assert [headers.get("X-Auth-Token") for _, _, headers, _ in answers.asked] == [
        None, "fresh", "fresh",
    ]  # fmt: skip
    assert client.issued() == {"user": {"name": "u"}}


def test_a_refusal_carries_the_services_words_and_the_request_id(answers, client):
    answers.answers = [
        (409, {"x-openstack-request-id": "req-7"}, b'{"conflictingRequest": {"message": "busy"}}')
    ]

    with pytest.raises(Problem) as raised:
        client.post("/x", {})

    assert raised.value.line() == "busy (req-7)"
    assert (raised.value.status, raised.value.exit_code) == (409, 1)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_cloud_that_is_not_ready_cannot_be_reached(answers, client, status):
    answers.answers = [(status, {}, b"")]

    with pytest.raises(Problem) as raised:
        client.get("/x")

    assert raised.value.exit_code == 3


def test_a_broken_connection_is_tried_again_where_that_is_harmless(answers, client):
    answers.answers = [None, (200, {}, b'{"a": 1}')]
    assert client.get("/x") == {"a": 1}

    answers.answers = [None, (200, {}, b'{"ordinal": 5}')]
    assert client.submit({"type": "CreateNetwork"}) == {"ordinal": 5}
    first, second = answers.asked[-2:]
    assert first[2]["Idempotency-Key"] == second[2]["Idempotency-Key"]


def test_a_node_that_says_when_to_come_back_is_asked_again_where_that_is_harmless(answers, client):
    busy = 503, {"Retry-After": "0"}, b'{"detail": "not now"}'
    done = 200, {}, b"{}"
    answers.answers = [busy, busy, done, busy, done, busy, done, busy]

    assert client.get("/v1/x") == {}
    for act in (lambda: client.submit({"type": "X"}), lambda: client.post("/v1/x", {})):
        assert act() == {}
        first, second = answers.asked[-2:]
        assert first[2]["Idempotency-Key"] == second[2]["Idempotency-Key"]
    with pytest.raises(Problem, match="not now"):
        client.upload("/v1/x", io.BytesIO(b"x"), 1)


def test_a_node_that_wants_to_be_left_alone_for_long_is_not_waited_for(answers, client):
    answers.answers = [(503, {"Retry-After": "3600"}, b'{"detail": "not today"}')]

    with pytest.raises(Problem, match="not today"):
        client.get("/v1/x")


def test_a_broken_connection_is_told_where_trying_again_might_do_it_twice(answers, client):
    answers.answers = [None]

    with pytest.raises(Problem) as raised:
        client.post("/servers", {})

    assert raised.value.exit_code == 3
    assert len(answers.asked) == 1


def test_server_sent_events_are_put_together(answers, client):
    body = b": hello\n\nid: 1\ndata: one\n\ndata: two\ndata: lines\n\n: still here\n\n"
    answers.answers = [(200, {"Content-Type": "text/event-stream"}, body)]

    assert list(client.events("/v1/events")) == ["one", "two\nlines"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": {"message": "Keystone's", "code": 401}}, ("Keystone's", "")),
        ({"itemNotFound": {"message": "Nova's", "code": 404}}, ("Nova's", "")),
        ({"NeutronError": {"type": "X", "message": "Neutron's", "detail": ""}}, ("Neutron's", "")),
        ({"title": "t", "detail": "native", "hint": "do this"}, ("native", "do this")),
        ("plain\n text", ("plain text", "")),
        ({"odd": 1}, ('{"odd": 1}', "")),
        (None, ("", "")),
    ],
)
def test_every_services_error_shape_is_read(body, told):
    assert refusal(body) == told
