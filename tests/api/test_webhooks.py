"""Webhooks of a running cloud, with receivers that are real servers."""

import base64
import hashlib
import hmac
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat

from tests.api.conftest import Api, Cloud, fresh, started
from tests.cli.running import eventually

WEBHOOKS = "/v1/webhooks"
NETWORKS = "/network/v2.0/networks"
CREATED = "cumulog.network.network.created.v1"
ATTEMPTS = 3
GIVE_UP = 3
# As cell.json has it: what is tried is tried quickly.
CELL = {
    "cell": "embedded",
    "node": "node-1",
    "host_id": "host-1",
    "driver": "simulated",
    "listen": "nowhere:0",  # so that a free port is looked for
    "settings": {
        "webhook_attempts": ATTEMPTS,
        "webhook_backoff_s": 0.02,
        "webhook_backoff_max_s": 0.1,
        "webhook_timeout_s": 1.0,
        "webhook_give_up": GIVE_UP,
    },
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud that lets webhooks lead to this machine."""
    state_dir = tmp_path_factory.mktemp("webhooks") / "state"
    state_dir.mkdir(mode=0o700)
    (state_dir / "cell.json").write_text(json.dumps(CELL))
    with started(state_dir, "--webhook-allow", "127.0.0.0/8") as cloud:
        yield cloud


class Received:
    """One request as it came in."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.event: dict[str, Any] = json.loads(body)

    @property
    def ordinal(self) -> int:
        return int(self.event["sequence"])

    def signed_by(self, secret: str) -> bool:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        ident, at = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{ident}.{at}.".encode() + self.body
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return self.headers["webhook-signature"] == f"v1,{wanted}"


class Receiver:
    """A server that keeps what it is sent. ``answer`` says with which status, or breaks."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], int | tuple[int, dict[str, str]]] = lambda _: 204
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {k.lower(): v for k, v in self.headers.items()}
                request = Received(self.path, headers, body)
                receiver.received.append(request)
                answer = receiver.answer(request)
                status, more = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # whoever sends has gone, as it does when it waits no longer

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def names(self) -> list[str]:
        """Return the names of networks whose making was told, in the order it came in."""
        told = [r.event for r in self.received if r.event["type"] == CREATED]
        return [event["data"]["network"]["name"] for event in told]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def api(cloud: Cloud) -> Api:
    """A member of a project of its own."""
    return cloud.stranger()


def hook(api: Api, url: str, *types: str) -> dict:
    reply = api("POST", WEBHOOKS, {"name": fresh("hook"), "url": url, "types": list(types)})
    assert reply.status == 201, reply
    return reply.body["webhook"]


def shown(api: Api, webhook: dict) -> dict:
    reply = api("GET", f"{WEBHOOKS}/{webhook['id']}")
    assert reply.status == 200, reply
    return reply.body["webhook"]


def network(api: Api) -> str:
    name = fresh("net")
    api.made(NETWORKS, {"network": {"name": name}})
    return name


def test_events_arrive_in_order_signed_and_as_cloud_events(api: Api, receiver: Receiver):
    webhook = hook(api, receiver.url)
    names = [network(api) for _ in range(5)]
    eventually(lambda: receiver.names() == names, "all are delivered")

    ordinals = [r.ordinal for r in receiver.received]
    assert ordinals == sorted(set(ordinals))
    for request in receiver.received:
        assert request.signed_by(webhook["secret"])
        assert request.headers["webhook-id"] == request.event["id"]
        assert request.headers["content-type"].startswith("application/cloudevents+json")
        message = HTTPMessage(headers=request.headers, body=request.body)
        assert from_structured_event(message, JSONFormat()).get_id() == request.event["id"]
    # They are those of the feed, byte for byte, from the one after its own making on.
    first = min(ordinals) - 1
    feed = api("GET", f"/v1/events?after={first}&format=cloudevents&limit=1000").body
    eventually(lambda: len(receiver.received) >= len(feed), "the rest is delivered")
    assert [r.event for r in receiver.received][: len(feed)] == feed
    assert not any(e["type"].startswith("cumulog.webhook.webhook.created") for e in feed)
    state = shown(api, webhook)["delivery"]
    assert state["failures"] == state["dead_letters"] == 0
    assert state["delivered"] >= len(feed)


def test_only_types_that_were_asked_for_arrive(api: Api, receiver: Receiver):
    hook(api, receiver.url, "network.network.created", "cumulog.webhook.")
    network(api)
    last = network(api)
    eventually(lambda: last in receiver.names(), "it is delivered")
    assert {r.event["type"] for r in receiver.received} == {CREATED}


def test_nobody_is_told_of_another_project(cloud: Cloud, api: Api, receiver: Receiver):
    webhook = hook(api, receiver.url)
    other = cloud.stranger()
    network(other)
    network(cloud.demo)
    last = network(api)
    eventually(lambda: last in receiver.names(), "its own is delivered")

    assert receiver.names() == [last]
    assert {r.event["partitionkey"] for r in receiver.received} == {webhook["project_id"]}
    assert other("GET", WEBHOOKS).body["webhooks"] == []
    path = f"{WEBHOOKS}/{webhook['id']}"
    for method, more, body in (
        ("GET", "", None),
        ("GET", "/dead-letters", None),
        ("PATCH", "", {"name": "mine"}),
        ("DELETE", "", None),
        ("POST", "/redeliver", {}),
    ):
        assert other(method, path + more, body).status == 404, method
    assert other("GET", f"{WEBHOOKS}?project={webhook['project_id']}").status == 403
    assert cloud.admin("GET", path).status == 200


def test_what_fails_is_tried_again_and_keeps_its_place(api: Api, receiver: Receiver):
    failed: set[str] = set()

    def once(request: Received) -> int:
        if request.event["type"] != CREATED or request.event["id"] in failed:
            return 200
        failed.add(request.event["id"])
        return 503

    receiver.answer = once
    hook(api, receiver.url, "network.network.created")
    names = [network(api) for _ in range(3)]
    eventually(lambda: len(receiver.received) == 6, "each is delivered the second time")

    assert receiver.names() == [name for name in names for _ in range(2)]
    ids = [r.headers["webhook-id"] for r in receiver.received]
    assert ids[0::2] == ids[1::2]
    assert len(set(ids)) == 3


def test_what_nobody_takes_is_put_aside_and_can_be_sent_again(api: Api, receiver: Receiver):
    refused = fresh("bad")
    receiver.answer = lambda r: 500 if r.event["data"]["network"]["name"] == refused else 204
    webhook = hook(api, receiver.url, "network.network.created")
    api.made(NETWORKS, {"network": {"name": refused}})
    after = network(api)
    eventually(lambda: after in receiver.names(), "the next one is delivered")

    assert receiver.names() == [refused] * ATTEMPTS + [after]
    path = f"{WEBHOOKS}/{webhook['id']}"
    (dead,) = api("GET", f"{path}/dead-letters").body["dead_letters"]
    assert dead["ordinal"] == receiver.received[0].ordinal
    assert dead["attempts"] == ATTEMPTS
    assert dead["error"] == "the receiver answered 500"
    assert shown(api, webhook)["delivery"]["dead_letters"] == 1

    receiver.answer = lambda _: 204
    assert api("POST", f"{path}/redeliver", {}).status == 202
    eventually(lambda: receiver.names()[-1] == refused, "it is sent again")
    eventually(lambda: shown(api, webhook)["delivery"]["dead_letters"] == 0, "it is noted")
    assert api("GET", f"{path}/dead-letters").body["dead_letters"] == []


def test_all_from_a_position_on_can_be_sent_again(api: Api, receiver: Receiver):
    webhook = hook(api, receiver.url, "network.network.created")
    names = [network(api) for _ in range(3)]
    eventually(lambda: receiver.names() == names, "all are delivered")
    after = receiver.received[0].ordinal

    path = f"{WEBHOOKS}/{webhook['id']}/redeliver"
    assert api("POST", path, {"after": after}).status == 202

    eventually(lambda: receiver.names() == names + names[1:], "the later ones come again")


def test_a_courier_that_is_killed_goes_on_where_it_was(cloud: Cloud, receiver: Receiver):
    api = cloud.stranger()
    hook(api, receiver.url, "network.network.created")
    names = [network(api)]
    for _ in range(3):
        count = len(receiver.received)
        pid = cloud.up.pids()["courier"]
        os.kill(pid, signal.SIGKILL)
        names += [network(api) for _ in range(4)]
        eventually(lambda pid=pid: cloud.up.pids()["courier"] not in {0, pid}, "it runs again")
        eventually(lambda count=count: len(receiver.received) > count, "it sends again")
    eventually(lambda: names[-1] in receiver.names(), "the last is delivered")

    # Each at least once and in order; one that was under way at a kill may have come twice.
    once = list(dict.fromkeys(receiver.names()))
    assert once == names
    ordinals = [r.ordinal for r in receiver.received]
    assert ordinals == sorted(ordinals)
    assert len(ordinals) <= len(names) + 3


def test_an_alarm_is_delivered_each_time_it_rings_whatever_dies(cloud: Cloud, receiver: Receiver):
    """Under one id each time it is sent: when it was taken and that was not noted, twice."""
    api = cloud.stranger()
    webhook = hook(api, receiver.url, "alarm.alarm.raised", "alarm.alarm.cleared")
    condition = {
        "kind": "state",
        "since": ["network.network.created.v1"],
        "until": ["network.network.deleted.v1"],
        "for_s": 0,
        "above": "0",
    }
    alarm = {"type": "DefineAlarm", "name": "any-network", "condition": condition}
    made = api("POST", "/v1/actions", alarm)
    assert made.status == 200, made
    killed = cloud.up.pids()["courier"]

    def answer(request: Received) -> int:
        first = len(receiver.received) == 1
        if request.event["type"].endswith("raised.v1"):
            if first:
                return 500  # it is down; tried again, it takes it
            if cloud.up.pids()["courier"] == killed:
                os.kill(killed, signal.SIGKILL)  # taken, and nobody is left to note it
        return 204

    receiver.answer = answer
    one = api.made(NETWORKS, {"network": {"name": fresh("net")}})
    eventually(lambda: len(receiver.received) == 3, "it is told that it rings")
    assert api("DELETE", f"{NETWORKS}/{one['id']}").status == 204
    eventually(lambda: len(receiver.received) == 4, "it is told that it rings no more")

    # Down, taken and not noted, taken and noted; then the end.
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    *raised, cleared = receiver.received
    assert all(request.event == raised[0].event for request in raised)
    assert all(request.signed_by(webhook["secret"]) for request in receiver.received)
    tail = [request.event["type"].removeprefix("cumulog.") for request in (raised[0], cleared)]
    assert tail == ["alarm.alarm.raised.v1", "alarm.alarm.cleared.v1"]
    (shown_alarm,) = api("GET", "/v1/alarms").body["alarms"]
    for request in receiver.received:
        assert request.event["data"]["alarm_id"] == shown_alarm["id"]
    assert raised[0].event["data"]["since"] < cleared.event["data"]["since"]
    eventually(lambda: shown(api, webhook)["delivery"]["delivered"] == 2, "both are noted")


def test_a_receiver_that_is_slow_holds_up_nobody_else(cloud: Cloud, receiver: Receiver):
    slow, quick = cloud.stranger(), cloud.stranger()
    held = threading.Event()
    with receiving() as other:
        receiver.answer = lambda _: (held.wait(60), 204)[1]
        hooks = [hook(slow, receiver.url) for _ in range(8)]
        hook(quick, other.url, "network.network.created")
        network(slow)
        eventually(lambda: receiver.received, "the slow one has something to do")
        names = [network(quick) for _ in range(5)]
        eventually(lambda: other.names() == names, "the other is told all the same")
        held.set()
    for webhook in hooks:
        assert slow("DELETE", f"{WEBHOOKS}/{webhook['id']}").status == 204


def test_a_receiver_that_never_answers_is_left_at_the_deadline(api: Api, receiver: Receiver):
    held = threading.Event()
    receiver.answer = lambda _: (held.wait(60), 204)[1]
    webhook = hook(api, receiver.url, "network.network.created")
    network(api)
    eventually(lambda: shown(api, webhook)["delivery"]["failures"], "an attempt ends")
    assert shown(api, webhook)["delivery"]["error"] == "no answer in 1 s"
    held.set()


def test_a_redirect_is_not_followed(api: Api, receiver: Receiver):
    with receiving() as elsewhere:
        receiver.answer = lambda _: (302, {"location": elsewhere.url})
        webhook = hook(api, receiver.url, "network.network.created")
        network(api)
        eventually(lambda: shown(api, webhook)["delivery"]["dead_letters"] == 1, "it is given up")
        assert elsewhere.received == []
    (dead,) = api("GET", f"{WEBHOOKS}/{webhook['id']}/dead-letters").body["dead_letters"]
    assert dead["error"] == "the receiver answered 302"


def test_one_that_says_it_is_gone_is_disabled_as_a_fact(api: Api, receiver: Receiver):
    receiver.answer = lambda _: 410
    webhook = hook(api, receiver.url, "network.network.created")
    first = network(api)
    eventually(lambda: not shown(api, webhook)["enabled"], "it is disabled")

    assert "gone" in shown(api, webhook)["cause"]
    why = api("GET", f"/v1/why/{webhook['id']}").body["events"]
    assert why[-1]["tag"] == "webhook.webhook.disabled.v1"
    receiver.answer = lambda _: 204
    reply = api("PATCH", f"{WEBHOOKS}/{webhook['id']}", {"enabled": True})
    assert reply.body["webhook"]["cause"] == ""
    # What was not taken is sent: nothing is lost meanwhile.
    eventually(lambda: receiver.names() == [first, first], "it goes on where it ended")


def test_one_that_takes_nothing_is_disabled_in_the_end(api: Api, receiver: Receiver):
    receiver.answer = lambda _: 500
    webhook = hook(api, receiver.url, "network.network.created")
    for _ in range(GIVE_UP):
        network(api)
    eventually(lambda: not shown(api, webhook)["enabled"], "it is disabled")
    assert shown(api, webhook)["cause"].startswith(f"{GIVE_UP} events in a row were not taken")
    assert shown(api, webhook)["delivery"]["dead_letters"] == GIVE_UP


def test_one_that_is_disabled_or_deleted_is_sent_nothing(api: Api, receiver: Receiver):
    webhook = hook(api, receiver.url, "network.network.created")
    path = f"{WEBHOOKS}/{webhook['id']}"
    assert api("PATCH", path, {"enabled": False}).body["webhook"]["enabled"] is False
    missed = network(api)
    with receiving() as other:
        witness = hook(api, other.url, "network.network.created")
        seen = network(api)
        eventually(lambda: other.names() == [seen], "another is told")
        assert receiver.received == []
        assert api("PATCH", path, {"enabled": True}).status == 200
        eventually(lambda: receiver.names() == [missed, seen], "it is told what it missed")
        assert api("DELETE", path).status == 204
        last = network(api)
        eventually(lambda: other.names()[-1] == last, "another is told")
        assert last not in receiver.names()
        assert api("DELETE", f"{WEBHOOKS}/{witness['id']}").status == 204
    assert api("GET", path).status == 404


def test_a_project_that_is_disabled_is_told_nothing_until_it_is_enabled(
    cloud: Cloud, api: Api, receiver: Receiver
):
    webhook = hook(api, receiver.url, "network.network.created")
    first = network(api)
    eventually(lambda: receiver.names() == [first], "it is delivered")
    project_id = webhook["project_id"]
    path = f"/identity/v3/projects/{project_id}"
    assert cloud.admin("PATCH", path, {"project": {"enabled": False}}).status == 200
    asked = {"after": 0}
    again = f"{WEBHOOKS}/{webhook['id']}/redeliver"
    assert cloud.admin("POST", again, asked).status == 202
    with receiving() as other:
        witness = cloud.stranger()
        hook(witness, other.url, "network.network.created")
        seen = network(witness)
        eventually(lambda: other.names() == [seen], "another project is told")
    assert receiver.names() == [first]

    assert cloud.admin("PATCH", path, {"project": {"enabled": True}}).status == 200
    eventually(lambda: receiver.names() == [first, first], "it is told what it missed")


def test_webhooks_go_with_their_project(cloud: Cloud, api: Api, receiver: Receiver):
    webhook = hook(api, receiver.url, "network.network.created")
    first = network(api)
    eventually(lambda: receiver.names() == [first], "it is delivered")
    path = f"/identity/v3/projects/{webhook['project_id']}"
    assert cloud.admin("DELETE", path).status == 204
    assert cloud.admin("GET", f"{WEBHOOKS}/{webhook['id']}").status == 404


def test_going_ahead_of_what_was_sent_passes_nothing_over(api: Api, receiver: Receiver):
    opened, taken = threading.Event(), set()

    def answer(request: Received) -> int:
        if not opened.is_set():
            return 503
        taken.add(request.ordinal)
        return 204

    receiver.answer = answer
    webhook = hook(api, receiver.url, "network.network.created")
    network(api)
    eventually(lambda: receiver.received, "it is tried")
    first = receiver.received[0].ordinal
    again = f"{WEBHOOKS}/{webhook['id']}/redeliver"
    assert api("POST", again, {"after": 10**9}).status == 202
    opened.set()
    last = network(api)
    eventually(lambda: last in receiver.names(), "the last is delivered")
    path = f"{WEBHOOKS}/{webhook['id']}/dead-letters"
    dead = {d["ordinal"] for d in api("GET", path).body["dead_letters"]}
    assert first in taken | dead


def test_a_secret_is_told_once_and_can_be_replaced(cloud: Cloud, api: Api, receiver: Receiver):
    webhook = hook(api, receiver.url)
    path = f"{WEBHOOKS}/{webhook['id']}"
    own = "whsec_" + base64.b64encode(b"k" * 32).decode()
    changed = api("PATCH", path, {"secret": own})
    assert changed.body["webhook"]["secret"] == own
    made = api("PATCH", path, {"secret": ""}).body["webhook"]["secret"]
    assert made not in {own, webhook["secret"]}
    last = network(api)
    eventually(lambda: last in receiver.names(), "it is delivered")
    assert receiver.received[-1].signed_by(made)

    told = [
        api("GET", path).raw,
        api("GET", WEBHOOKS).raw,
        api("GET", "/v1/events?limit=1000").raw,
        *(r.body for r in receiver.received),
        *(p.read_bytes() for p in (cloud.up.state_dir / "log").iterdir()),
        *(p.read_bytes() for p in (cloud.up.state_dir / "webhooks").iterdir()),
    ]
    for text in told:
        for secret in (webhook["secret"], own, made):
            assert secret.encode() not in text
        assert b'"ciphertext"' not in text


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:8780/",
        "http://[::ffff:10.0.0.1]/",
        "http://[fd00:ec2::254]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "https://user:word@example.org/",
        "ftp://example.org/",
        "http://no-such-name.invalid/",
    ],
)
def test_an_address_that_nothing_is_sent_to_is_refused(api: Api, receiver: Receiver, url: str):
    assert api("POST", WEBHOOKS, {"name": "x", "url": url}).status == 400
    webhook = hook(api, receiver.url)
    assert api("PATCH", f"{WEBHOOKS}/{webhook['id']}", {"url": url}).status == 400
    action = {"type": "UpdateWebhook", "webhook_id": webhook["id"], "url": url}
    assert api("POST", "/v1/actions", action).status == 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "", "url": "http://127.0.0.1/"},
        {"name": "x", "url": "http://127.0.0.1/", "types": ["NO"]},
        {"name": "x", "url": "http://127.0.0.1/", "types": ["a"] * 65},
        {"name": "x", "url": "http://127.0.0.1/", "secret": "short"},
        {"name": "x", "url": "http://127.0.0.1/", "more": 1},
    ],
)
def test_what_is_malformed_is_refused(api: Api, body: dict):
    assert api("POST", WEBHOOKS, body).status == 400


def test_a_project_has_so_many_and_no_more(api: Api, receiver: Receiver):
    for _ in range(20):
        hook(api, receiver.url)
    reply = api("POST", WEBHOOKS, {"name": "x", "url": receiver.url})
    assert reply.status == 409


def test_an_idempotency_key_makes_one_and_tells_its_secret_once(api: Api, receiver: Receiver):
    key = {"Idempotency-Key": fresh("key")}
    body = {"name": "once", "url": receiver.url}
    first = api("POST", WEBHOOKS, body, headers=key).body["webhook"]
    again = api("POST", WEBHOOKS, body, headers=key).body["webhook"]
    assert again["id"] == first["id"]
    assert first["secret"]
    assert "secret" not in again


def test_the_commands_do_the_same(cloud: Cloud, receiver: Receiver):
    def command(*arguments: str) -> Any:
        return cloud.up.json("webhook", *arguments, cloud="cumulog-demo")

    name = fresh("cli")
    made = command("create", name, receiver.url, "--type", "network.network.created")
    assert made["secret"].startswith("whsec_")
    told = network(cloud.demo)
    eventually(lambda: told in receiver.names(), "it is delivered")
    assert name in [row["name"] for row in command("list")]
    assert command("show", name)["id"] == made["id"]
    assert command("update", name, "--disable")["enabled"] is False
    assert command("update", name, "--enable", "--new-secret")["secret"] != made["secret"]
    assert command("dead-letters", name) == []
    done = cloud.up.run("webhook", "redeliver", name, "--after", "0", cloud="cumulog-demo")
    assert done.code == 0, done.errors
    eventually(lambda: receiver.names().count(told) == 2, "it comes again")
    assert cloud.up.run("webhook", "delete", name, cloud="cumulog-demo").code == 0
    assert made["id"] not in [row["id"] for row in command("list")]
