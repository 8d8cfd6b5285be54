"""Microversions: what is asked for is what is spoken, and only what is honoured is on offer."""

import asyncio
import json
from collections import Counter
from types import SimpleNamespace
from typing import ClassVar

import pytest

from api.discovery import COMPUTE
from api.errors import NotAcceptable, render_compute
from api.exchange import Call, json_answer
from api.forwarded import Proxies
from api.freshness import Freshness
from api.limits import Limits
from api.microversions import Versions, written
from api.routing import PUBLIC, Routes, Service, Surface
from engine.policy import Policy
from schemas.config import Config
from schemas.errors import InvalidInput
from tests.api.conftest import Cloud, fresh
from tests.api.test_declarations import ROUTES

THINGS = Versions(service="things", minimum=(1, 0), maximum=(1, 3), legacy="X-Things-Version")


THINGS_POLICY = Policy(
    {"things:things:read": ("user over any",), "things:things:make": ("user over any",)}
)


class _Edge:
    """What a service needs of an edge to answer; whoever has a token is somebody."""

    config = Config(state_dir="/nowhere", listen="127.0.0.1:1")
    active: ClassVar[Counter[str]] = Counter()
    closing = asyncio.Event()
    decisions: ClassVar[Counter[str]] = Counter()
    freshness: ClassVar[Freshness] = Freshness(lambda: 0)
    freshness.proven(0)
    limits = Limits(config)
    past = 0
    proxies = Proxies(config.trusted_proxies)

    @property
    def access(self) -> "_Edge":
        return self

    def note(self, *_what: object) -> None:
        """What was answered is told by the answer here."""

    def position(self) -> int:
        return 7

    async def authenticate(self, call: Call) -> tuple[SimpleNamespace, int]:
        who = {"project_id": "p", "user_id": "u", "rules": None}
        who |= {"scope": "project", "role_set": frozenset()}
        return SimpleNamespace(**who), 7

    def policy(self) -> Policy:
        return THINGS_POLICY

    def count(self, *_what: object) -> None:
        """As above."""


def a_call(*headers: tuple[str, str]) -> Call:
    scope = {
        "method": "GET",
        "path": "/",
        "scheme": "http",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers],
    }
    return Call(_Edge(), "things", scope, None)  # type: ignore[arg-type]


STANDARD, LEGACY = "OpenStack-API-Version", "X-Things-Version"


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ([], "1.0"),
        ([(STANDARD, "things 1.2")], "1.2"),
        ([(STANDARD, "THINGS 1.2")], "1.2"),
        ([(STANDARD, "things latest")], "1.3"),
        ([(STANDARD, "things Latest")], "1.3"),
        ([(STANDARD, "volume 3.59, things 1.1 ,placement 1.36")], "1.1"),
        ([(STANDARD, "volume 3.59")], "1.0"),
        ([(STANDARD, "volume latest"), (STANDARD, "things 1.1")], "1.1"),
        ([(STANDARD, "things 1.1"), (STANDARD, "volume latest")], "1.1"),
        ([(STANDARD, "things 1.1, things 1.2")], "1.2"),
        ([(LEGACY, "1.2")], "1.2"),
        ([(LEGACY, "latest")], "1.3"),
        ([(LEGACY, "1.2"), (STANDARD, "things 1.1")], "1.1"),
        ([(LEGACY, "1.2"), (STANDARD, "volume 3.0")], "1.2"),
        ([(STANDARD, "")], "1.0"),
    ],
)
def test_the_version_asked_for_is_found(headers: list[tuple[str, str]], asked: str):
    assert written(THINGS.asked(a_call(*headers))) == asked


@pytest.mark.parametrize(
    "text",
    ["x", "1", "1.", ".1", "1.2.3", "01.2", "1.02", "-1.2", "1.-2", "1. 2", "1.2x", "1e1.0",
     "", "latest1", "1,0", "9999999.0", "1.9999999", "\N{SUPERSCRIPT ONE}.2", "1.2;1.3"],
)  # fmt: skip
def test_what_is_no_version_is_refused_as_such(text: str):
    header = (STANDARD, f"things {text}".encode().decode("latin-1"))

    with pytest.raises(InvalidInput):
        THINGS.asked(a_call(header))


@pytest.mark.parametrize("text", ["0.9", "0.0", "1.4", "2.0", "999999.0"])
def test_a_version_out_of_range_is_refused_with_the_range(text: str):
    with pytest.raises(NotAcceptable) as refused:
        THINGS.asked(a_call((LEGACY, text)))

    assert refused.value.fields == {"min_version": "1.0", "max_version": "1.3"}


async def plain(call: Call):
    return json_answer({"plain": written(call.microversion)})


async def tall(call: Call):
    return json_answer({"tall": written(call.microversion)}, 201)


def things() -> Service:
    """A service whose list has two shapes, one call that came and one that went."""
    routes = Routes()
    routes.add("GET", "/", plain, PUBLIC)
    routes.add("GET", "/list", plain, "things:things:read", until="1.1")
    routes.add("GET", "/list", tall, "things:things:read", status=201, since="1.2")
    routes.add("POST", "/new", plain, "things:things:make", since="1.2")
    routes.add("GET", "/old", plain, "things:things:read", until="1.1")
    routes.add("PUT", "/old", plain, "things:things:make")
    routes.add("PUT", "/either", plain, ("things:things:make", "things:things:read"))
    routes.add("PUT", "/secret", plain, "things:secrets:read")
    routes.add("PUT", "/secrets", plain, ("things:secrets:read", "things:secrets:make"))
    surface = Surface(
        name="things", prefix="/things", routes=routes, render=render_compute, versions=THINGS
    )
    return Service(_Edge(), surface)  # type: ignore[arg-type]


async def ask(method: str, path: str, *headers: tuple[str, str]) -> tuple[int, dict, dict]:
    """Return status, headers and body of what the service of this test answers."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": f"/things{path}",
        "scheme": "http",
        "http_version": "2",
        "query_string": b"",
        "headers": [(k.lower().encode(), v.encode()) for k, v in (("host", "x"), *headers)],
    }
    await things()(scope, receive, send)
    start, *rest = sent
    found = {k.decode(): v.decode() for k, v in start["headers"]}
    body = b"".join(m.get("body", b"") for m in rest)
    return start["status"], found, json.loads(body) if body else {}


@pytest.mark.parametrize(
    ("method", "path", "version", "status", "body"),
    [
        ("GET", "/list", "1.0", 200, {"plain": "1.0"}),
        ("GET", "/list", "1.1", 200, {"plain": "1.1"}),
        ("GET", "/list", "1.2", 201, {"tall": "1.2"}),
        ("GET", "/list", "latest", 201, {"tall": "1.3"}),
        ("HEAD", "/list", "1.3", 201, {}),
        ("POST", "/new", "1.1", 404, None),
        ("POST", "/new", "1.2", 200, {"plain": "1.2"}),
        ("GET", "/new", "1.1", 404, None),
        ("GET", "/new", "1.2", 405, None),
        ("GET", "/old", "1.1", 200, {"plain": "1.1"}),
        ("GET", "/old", "1.2", 404, None),
        ("PUT", "/old", "1.2", 200, {"plain": "1.2"}),
        ("DELETE", "/old", "1.3", 405, None),
        ("GET", "/nothing", "1.3", 404, None),
        ("GET", "/list", "1.4", 406, None),
        ("GET", "/list", "x", 400, None),
        ("GET", "/", "1.4", 200, {"plain": "1.0"}),  # discovery is not hindered by the question
        ("GET", "/", "1.2", 200, {"plain": "1.2"}),
    ],
)
async def test_a_request_reaches_what_its_version_has(method, path, version, status, body):
    found, headers, answered = await ask(method, path, (STANDARD, f"things {version}"))

    assert found == status
    if body is not None:
        assert answered == body
    spoken = {"latest": "1.3", "1.4": "1.0", "x": "1.0"}.get(version, version)
    assert headers["openstack-api-version"] == f"things {spoken}"
    assert headers["x-things-version"] == spoken
    assert headers["vary"] == "OpenStack-API-Version, X-Things-Version"
    if path == "/old" and status == 405:
        assert headers["allow"] == "PUT"


@pytest.mark.parametrize("path", ["/secret", "/secrets"])
async def test_what_has_no_rule_is_for_nobody(path: str):
    status, _, body = await ask("PUT", path)

    assert status == 403
    assert "Nobody may things:secrets:read" in body["forbidden"]["message"]


async def test_no_answer_is_given_that_nobody_decided_about():
    status, _, body = await ask("PUT", "/either")

    assert status == 500
    assert "plain" not in body


async def test_the_range_is_told_to_who_misses_it():
    _, _, body = await ask("GET", "/list", (STANDARD, "things 7.0"))

    assert body["computeFault"]["code"] == 406
    assert "minimum is 1.0, the maximum 1.3" in body["computeFault"]["message"]


def test_a_route_cannot_be_declared_twice_for_a_version():
    routes = Routes()
    routes.add("GET", "/", plain, PUBLIC, until="1.1")
    with pytest.raises(AssertionError):
        routes.add("GET", "/", tall, PUBLIC, since="1.1")
    with pytest.raises(AssertionError):
        routes.add("POST", "/", tall, PUBLIC, since="one")


def test_no_route_is_out_of_its_services_range():
    for service, _, path, route in ROUTES:
        low, high = (COMPUTE.minimum, COMPUTE.maximum) if service == "compute" else ((0, 0),) * 2
        assert route.first <= high, path
        assert route.last >= low, path


PAIRS = "/compute/v2.1/os-keypairs"


@pytest.mark.parametrize(
    ("asked", "spoken", "status"),
    [("", "2.1", 200), ("2.1", "2.1", 200), ("2.2", "2.2", 200), ("latest", "2.2", 200),
     ("2.0", "2.1", 406), ("2.3", "2.1", 406), ("3.0", "2.1", 406), ("x", "2.1", 400)],
)  # fmt: skip
def test_compute_speaks_the_version_asked_for(cloud: Cloud, asked: str, spoken: str, status: int):
    version = {STANDARD: f"compute {asked}"} if asked else {}
    for path, expected in (("servers", status), ("nothing", 404 if status == 200 else status)):
        reply = cloud.demo("GET", f"/compute/v2.1/{path}", headers=version)

        assert reply.status == expected
        assert reply.headers["openstack-api-version"] == f"compute {spoken}"
        assert reply.headers["x-openstack-nova-api-version"] == spoken
        assert reply.headers["vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"

    nobody = cloud.anyone("GET", "/compute/v2.1/servers", headers=version)
    assert nobody.status == 401
    assert nobody.headers["openstack-api-version"] == f"compute {spoken}"


@pytest.mark.parametrize(
    ("version", "made_as", "gone_as", "typed"), [("2.1", 200, 202, False), ("2.2", 201, 204, True)]
)
def test_keypairs_have_the_shape_of_their_version(cloud: Cloud, version, made_as, gone_as, typed):
    headers = {STANDARD: f"compute {version}"}
    name = fresh("pair")
    wish: dict = {"name": name} | ({"type": "ssh"} if typed else {})

    made = cloud.demo("POST", PAIRS, {"keypair": wish}, headers=headers)
    shown = cloud.demo("GET", f"{PAIRS}/{name}", headers=headers).body["keypair"]
    listed = cloud.demo("GET", PAIRS, headers=headers).body["keypairs"]
    gone = cloud.demo("DELETE", f"{PAIRS}/{name}", headers=headers)

    kind = {"type"} if typed else set()
    brief = {"name", "public_key", "fingerprint"} | kind
    assert made.status == made_as
    assert made.body["keypair"].keys() == brief | {"user_id", "private_key"}
    times = {"created_at", "updated_at", "deleted", "deleted_at"}
    assert shown.keys() == brief | {"id", "user_id"} | times
    assert all(one["keypair"].keys() == brief for one in listed)
    assert gone.status == gone_as


def test_a_body_is_judged_by_its_version(cloud: Cloud):
    typed = {"keypair": {"name": fresh("pair"), "type": "ssh"}}
    x509 = {"keypair": {"name": fresh("pair"), "type": "x509"}}
    newest = {STANDARD: "compute latest"}

    assert cloud.demo("POST", PAIRS, typed).status == 400
    assert cloud.demo("POST", PAIRS, x509, headers=newest).status == 501


def test_discovery_tells_the_range_that_is_honoured(cloud: Cloud):
    newest = cloud.anyone("GET", "/compute/v2.1/").body["version"]

    for version in (newest["min_version"], newest["version"]):
        headers = {STANDARD: f"compute {version}"}
        assert cloud.demo("GET", "/compute/v2.1/servers", headers=headers).status == 200
    assert (newest["min_version"], newest["version"]) == ("2.1", "2.2")
