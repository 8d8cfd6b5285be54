"""The edge's parts by themselves: tokens, passwords, waiting, errors, routes, pages, times."""

import asyncio
import json
from datetime import UTC, datetime
from zlib import crc32

import pytest
from argon2 import extract_parameters
from cryptography.fernet import Fernet

from api import times
from api.auth import ordered
from api.compute.keypairs import fingerprint, generate
from api.errors import (
    Problem,
    render_compute,
    render_identity,
    render_image,
    render_native,
    render_network,
)
from api.exchange import Call
from api.forwarded import Proxies
from api.pagination import flag, next_href, page_of, sort_of
from api.passwords import Passwords
from api.routing import Routes
from api.sealing_inbound import USER_DATA_CHARS_MAX
from api.tokens import Token, TokenRing
from api.waiting import Waiter
from engine.bus.keys import TokenKeys
from engine.domain.identity.directory import with_ranked
from schemas.config import Config
from schemas.errors import InvalidInput

TOKEN = Token(
    user_id="u", project_id="p", audit_id="a", issued_at=1, expires_at=2, methods=("password",)
)


class Ring:
    """A key ring that can be changed, and counts how often it was read."""

    def __init__(self) -> None:
        self.keys = [Fernet.generate_key()]
        self.reads = 0

    async def __call__(self) -> TokenKeys:
        self.reads += 1
        seq = crc32(b"".join(self.keys))  # another ring, another number
        return TokenKeys(keys=tuple(self.keys), seq=seq, made_at=datetime.now(UTC))


async def test_a_token_says_what_was_sealed():
    ring = TokenRing(Ring())
    await ring.refresh()

    assert await ring.open(ring.seal(TOKEN)) == TOKEN


async def test_tokens_outlive_a_rotation_and_end_with_their_key():
    source = Ring()
    ring = TokenRing(source)
    await ring.refresh()
    text = ring.seal(TOKEN)

    source.keys.insert(0, Fernet.generate_key())
    rotated = TokenRing(source)
    await rotated.refresh()
    assert await rotated.open(text) == TOKEN
    del source.keys[1]
    later = TokenRing(source)
    await later.refresh()
    assert await later.open(text) is None


async def test_an_edge_that_missed_a_rotation_reads_the_ring_again():
    source = Ring()
    signer, edge = TokenRing(source), TokenRing(source)
    await signer.refresh()

    assert await edge.open(signer.seal(TOKEN)) == TOKEN


async def test_forged_tokens_do_not_make_the_edge_read_keys_each_time():
    source = Ring()
    ring = TokenRing(source)

    for number in range(100):
        assert await ring.open(f"forged-{number}") is None

    assert source.reads == 1


@pytest.mark.parametrize("text", ["", "x", "é", "A" * 5000, "gAAAAA=="])
async def test_what_is_no_token(text: str):
    ring = TokenRing(Ring())
    await ring.refresh()

    assert await ring.open(text) is None


async def test_a_sealed_thing_that_is_no_token_is_none():
    source = Ring()
    ring = TokenRing(source)
    await ring.refresh()
    text = Fernet(source.keys[0]).encrypt(b'{"user_id": 5}').decode()

    assert await ring.open(text) is None


async def test_passwords():
    passwords = Passwords()
    encoded = await passwords.hash("secret")

    assert encoded.startswith("$argon2id$")
    assert await passwords.verify(encoded, "secret")
    assert not await passwords.verify(encoded, "Secret")
    assert not await passwords.verify(None, "secret")
    assert not await passwords.verify("nonsense", "secret")
    assert not await passwords.verify(encoded, "s" * 5000)
    for wrong in ("", "s" * 5000):
        with pytest.raises(InvalidInput):
            await passwords.hash(wrong)


async def test_nobodys_password_costs_as_much_to_check_as_anybodys():
    passwords = Passwords()

    somebody = extract_parameters(await passwords.hash("secret"))

    assert extract_parameters(passwords._nobody) == somebody


def test_roles_imply_each_other():
    assert with_ranked("admin") == ("admin", "manager", "member", "reader")
    assert with_ranked("member") == ("member", "reader")
    assert with_ranked("service") == ("service",)
    assert ordered(frozenset({"reader", "own", "admin"})) == ("admin", "reader", "own")


class Model:
    """A read model's position, moved by hand."""

    def __init__(self) -> None:
        self.ordinal = 0

    def __call__(self) -> int:
        return self.ordinal


async def test_waiters_are_woken_by_announcements_in_order():
    waiter = Waiter(Model())
    first, second = (asyncio.create_task(waiter.reached(n, 10)) for n in (5, 9))
    await asyncio.sleep(0)

    waiter.announced(4)
    waiter.announced(5)
    assert await first
    assert not second.done()
    waiter.announced(20)
    assert await second
    assert await waiter.reached(20, 0)
    await waiter.close()


async def test_waiters_notice_what_was_not_announced():
    model = Model()
    waiter = Waiter(model)
    waiting = asyncio.create_task(waiter.reached(7, 10))
    await asyncio.sleep(0)

    model.ordinal = 7

    assert await waiting
    await waiter.close()


async def test_waiters_give_up():
    waiter = Waiter(Model())

    assert not await waiter.reached(7, 0.01)
    await waiter.close()


NOT_FOUND = Problem(status=404, code="NotFound", reason="there is no such thing", hint="Look.")


def test_each_service_says_it_in_its_own_shape():
    text = "There is no such thing. Look. (request id req-1)"

    def shape(render, problem=NOT_FOUND, path="/network/v2.0/ports/x"):
        return json.loads(render(problem, "req-1", path))

    assert shape(render_identity) == {"error": {"code": 404, "title": "Not Found", "message": text}}
    assert shape(render_compute) == {"itemNotFound": {"code": 404, "message": text}}
    assert shape(render_image) == {
        "message": text,
        "code": "404 Not Found",
        "title": "Not Found",
    }
    assert shape(render_network) == {
        "NeutronError": {"type": "PortNotFound", "message": text, "detail": ""}
    }
    native = shape(render_native)
    assert native["type"] == "urn:cumulog:error:NotFound"
    assert (native["detail"], native["hint"]) == ("There is no such thing.", "Look.")
    conflict = Problem(status=409, code="InUse", reason="in use")
    assert list(shape(render_compute, conflict)) == ["conflictingRequest"]
    big = Problem(status=413, code="BodyTooLarge", reason="too big")
    assert shape(render_compute, big)["overLimit"]["retryAfter"] == 0
    gone = Problem(status=401, code="Unauthorized", reason="no")
    assert shape(render_network, gone).keys() == {"error"}


async def nothing(_call):
    raise NotImplementedError


def test_paths_are_matched_as_they_are():
    routes = Routes()
    routes.add("GET", "/v1/things", nothing, "things:read")
    routes.add("GET", "/v1/things/{}", nothing, "things:read")
    routes.add("POST", "/v1/things/special", nothing, "things:read")

    assert routes.find("/v1/things") is not None
    methods, args = routes.find("/v1/things/a%2Fb%20c") or ({}, ())
    assert (list(methods), args) == (["GET"], ("a/b c",))
    methods, args = routes.find("/v1/things/special") or ({}, ())
    assert (list(methods), args) == (["POST"], ())
    for path in ("/v1/things/", "/v1", "/v1//things", "v1/things", "", "/v1/things/a/b"):
        assert routes.find(path) is None, path


class _Edge:
    config = Config(state_dir="/nowhere", listen="127.0.0.1:1")
    proxies = Proxies(config.trusted_proxies)


def a_call(query: str = "", peer: str = "127.0.0.1", **headers: str) -> Call:
    scope = {
        "method": "GET",
        "path": "/compute/v2.1/servers",
        "raw_path": b"/compute/v2.1/servers",
        "query_string": query.encode(),
        "scheme": "http",
        "client": (peer, "40000"),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }
    return Call(_Edge(), "compute", scope, nothing)


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"host": "cloud.example:8780"}, "http://cloud.example:8780"),
        ({"host": "[::1]:80"}, "http://[::1]:80"),
        ({"host": "a", "x_forwarded_host": "b", "x_forwarded_proto": "https"}, "https://b"),
        ({"host": "evil.example/path?"}, "http://127.0.0.1:1"),
        ({"host": "a", "x_forwarded_proto": "javascript"}, "http://127.0.0.1:1"),
        ({}, "http://127.0.0.1:1"),
    ],
)
def test_links_lead_where_the_client_came_in(headers: dict, base: str):
    assert a_call(**headers).base == base


def test_pages():
    call = a_call("limit=5000&name=a%20b&marker=old", host="h")

    page = page_of(call)

    assert (page.limit, page.marker, page.asked) == (1000, "old", True)
    href = next_href(call, "last")
    assert href == "http://h/compute/v2.1/servers?limit=5000&name=a+b&marker=last"
    for wrong in ("limit=-1", "limit=x", "limit=1.5", "limit=\u0661"):
        with pytest.raises(InvalidInput):
            page_of(a_call(wrong))


@pytest.mark.parametrize(
    ("query", "sort"),
    [
        ("", [("created_at", True)]),
        ("sort=name:asc,id", [("name", False), ("id", True)]),
        ("sort_key=name&sort_dir=asc", [("name", False)]),
        ("sort_key=name&sort_key=id&sort_dir=asc&sort_dir=desc", [("name", False), ("id", True)]),
        ("sort_dir=asc", [("created_at", False)]),
    ],
)
def test_sorts(query: str, sort: list):
    columns = {"name": "name", "id": "id", "created_at": "created_at"}

    assert sort_of(a_call(query), columns, [("created_at", True)]) == sort
    with pytest.raises(InvalidInput):
        sort_of(a_call("sort=secret"), columns, [("created_at", True)])
    with pytest.raises(InvalidInput):
        sort_of(a_call("sort=name:sideways"), columns, [("created_at", True)])


def test_flags():
    assert [flag(a_call(f"x={v}"), "x") for v in ("True", "1", "false", "0")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert flag(a_call(), "x") is None
    with pytest.raises(InvalidInput):
        flag(a_call("x=maybe"), "x")


def test_times():
    micros = 1_767_323_045_000_001

    assert times.seconds_z(micros) == "2026-01-02T03:04:05Z"
    assert times.micros_z(micros) == "2026-01-02T03:04:05.000001Z"
    assert times.micros_naive(micros) == "2026-01-02T03:04:05.000001"
    assert times.parse_time("2026-01-02T03:04:05.000001Z") == micros
    assert times.parse_time("2026-01-02T04:04:05.000001+01:00") == micros
    assert times.parse_time("2026-01-02T03:04:05.000001") == micros
    for wrong in ("", "yesterday", "1969-12-31T00:00:00Z"):
        with pytest.raises(ValueError):
            times.parse_time(wrong)


def test_generated_keys_are_openssh_keys():
    private, public = generate("somebody")

    assert private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    kind, _, comment = public.split()
    assert (kind, comment) == ("ssh-ed25519", "somebody")
    assert len(fingerprint(public)) == 47
    for wrong in ("", "ssh-rsa", "ssh-rsa !!!", f"ssh-rsa {public.split()[1]}"):
        with pytest.raises(InvalidInput):
            fingerprint(wrong)


def test_user_data_may_be_as_long_as_in_nova():
    assert USER_DATA_CHARS_MAX == 65535
