"""What an attacker sends: every route refuses it, none falls over, nothing is half understood."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote, urlsplit

import pytest

from api.app import SURFACES
from api.routing import JSON_TYPE
from tests.api.conftest import Api, Cloud, Reply, fresh

NET = "/network/v2.0"
IDENTITY = "/identity/v3"
SERVERS = "/compute/v2.1/servers"

ROUTES = sorted(
    {
        (method, surface.prefix + path)
        for surface in SURFACES
        for method, path, _ in surface.routes.listing()
    }
)
WITH_IDS = [(method, path) for method, path in ROUTES if "{}" in path]
WITH_BODIES = sorted(
    {
        (method, surface.prefix + path, media)
        for surface in SURFACES
        for method, path, route in surface.routes.listing()
        for media in route.takes
        if route.body is not None or media != JSON_TYPE
        if media != "application/octet-stream"
    }
)
IDS = {
    "nul": "%00",
    "nul inside": "a%00b",
    "line ends": "%0D%0AX-Injected:%201",
    "control characters": "%01%02%1B%5B31m%7F",
    "no UTF-8": "%FF%FE%80",
    "overlong UTF-8": "%C0%AE%C0%AE",
    "surrogate": "%ED%A0%80",
    "up": "%2E%2E",
    "up and away": "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
    "slash": "%2F",
    "backslash": "..%5C..%5C",
    "encoded twice": "%252e%252e%252f",
    "half an escape": "%",
    "half an escape more": "%4",
    "no escape": "%zz",
    "parameters": ";jsessionid=1",
    "long": "a" * 7000,
    "long and escaped": "%61" * 2500,
    "deep in digits": "9" * 5000,
    "negative": "-9223372036854775809",
    "exponent": "1e400",
    "SQL": "'%20OR%201=1--",
    "pattern": "(a+)+$",
    "look-alike": quote("аdmin"),  # noqa: RUF001  # the first letter is Cyrillic
    "right to left": quote("\u202etxt.exe"),
    "combining": quote("e" + "\u0301" * 500),
    "full width": quote("／．．／"),  # noqa: RUF001  # which compatibility forms turn into a path
    "template": quote("{{7*7}}${7*7}#{7*7}"),
    "nothing visible": quote("\u200b\ufeff\u2060"),
}


def calm(reply: Reply, *more: int) -> None:
    """Check that something was refused as wrong or missing, and in the service's own words."""
    assert reply.status in {400, 404, 405, 413, 414, *more}, reply
    assert "x-injected" not in reply.headers
    assert reply.headers["x-openstack-request-id"].startswith("req-")
    text = reply.raw.decode()
    assert "Traceback" not in text
    json.loads(text)


# What every project has where it has nothing of its own: the same for whatever is named.
DEFAULTS = re.compile(
    r"/(os-quota-sets|quotas)/\{\}/defaults?(\.json)?\Z|/os-simple-tenant-usage/\{\}\Z"
)


@pytest.mark.parametrize(("method", "path"), WITH_IDS, ids=[f"{m} {p}" for m, p in WITH_IDS])
def test_ids_that_are_none(cloud: Cloud, method: str, path: str):
    body = {} if method in {"POST", "PUT", "PATCH"} else None
    for odd in IDS.values():
        reply = cloud.admin(method, path.replace("{}", odd), body)
        if DEFAULTS.search(path):
            assert reply.status in {200, 400, 404}
        else:
            # A body or a call that is not there at all; ways to sign in say only that (401).
            calm(reply, 415, 501, *([401] if "/auth/" in path else []))


DEEP = 100_000
DOCUMENTS = {
    "deep lists": b"[" * DEEP,
    "deep lists that end": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a million keys": b"{" + b",".join(b'"%d":1' % n for n in range(70_000)) + b"}",
    "one key very often": b"{" + b",".join([b'"a":1'] * 100_000) + b"}",
    "a long key": b'{"' + b"k" * 900_000 + b'":1}',
    "a long text": b'"' + b"x" * 1_000_000 + b'"',
    "a huge integer": b'{"a":' + b"9" * 900_000 + b"}",
    "a huge exponent": b'{"a":1e999999999}',
    "a tiny exponent": b'{"a":1e-999999999}',
    "digits after the point": b'{"a":0.' + b"3" * 900_000 + b"}",
    "not a number": b'{"a":NaN,"b":Infinity,"c":-Infinity}',
    "lone surrogate": rb'{"\ud800":"\udfff"}',
    "nul": b'{"a":"\\u0000"}\x00',
    "raw control characters": b'{"a":"\x01\x02"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "no UTF-8": b'{"a":"\xff\xfe"}',
    "two documents": b"{}{}",
    "a comment": b"/* */{}",
    "one quote": b"{'a':1}",
    "a trailing comma": b'{"a":1,}',
    "compressed": bytes.fromhex("1f8b08000000000000034bcd49cec82f4a010062b2f1f506000000"),
    "prototype": b'{"__proto__":{"admin":true},"constructor":{"prototype":{}}}',
    "python": b'{"__class__":"os.system","py/object":"os.system","$type":"x"}',
}


@pytest.mark.parametrize(("method", "path", "media"), WITH_BODIES, ids=str)
def test_documents_that_are_bombs(cloud: Cloud, method: str, path: str, media: str):
    for name, document in DOCUMENTS.items():
        filled = path.replace("{}", "00000000-0000-4000-8000-000000000000")
        reply = cloud.admin(method, filled, raw=document, headers={"Content-Type": media})
        assert reply.status in {400, 404, 413}, (name, reply)
        calm(reply)


TEXTS = {
    "plain": "plain",
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "cyrillic": "c\u0430fe",
    "full width": "ｃａｆｅ",  # noqa: RUF001  # looks alike, and is another name
    "sharp s": "stra\u00dfe",
    "dotless i": "ad\u0131min",
    "beyond the first plane": "\U0001f4a5\U0010ffff",
    "right to left": "\u202enimda",
    "nothing visible": "\u200bplain",
    "markup": "<script>alert(1)</script>",
    "quotes": "\"'`;--",
    "percent": "%00%2e%2e/..",
    "braces": "{{7*7}}",
    "line ends": "a\r\nb",
    "tab": "a\tb",
    "escape": "\x1b[31mred",
    "nul": "a\x00b",
    "delete": "a\x7fb",
    "not a character": "\ufffe\uffff",
}


def kept(cloud: Cloud, path: str, kind: str, wish: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Make one thing for each text; yield (its id, the text) of those that were taken."""
    for name, text in TEXTS.items():
        reply = cloud.admin("POST", path, {kind: wish | {"name": text}})
        assert reply.status in {200, 201, 400}, (name, reply)
        if reply.status != 400:
            yield reply.body[kind]["id"], text


@pytest.mark.parametrize(
    ("path", "kind", "wish", "gone"),
    [
        (f"{NET}/networks", "network", {}, 204),
        (f"{IDENTITY}/projects", "project", {}, 204),
        (f"{IDENTITY}/users", "user", {}, 204),
        ("/compute/v2.1/flavors", "flavor", {"ram": 1, "vcpus": 1, "disk": 0}, 202),
    ],
)
def test_names_are_kept_as_they_were_sent_or_refused(cloud: Cloud, path, kind, wish, gone):
    """Look-alikes are different names; none is changed, cut or taken for another."""
    made = dict(kept(cloud, path, kind, wish))
    assert len(made) >= len(TEXTS) // 2

    for ident, text in made.items():
        assert cloud.admin("GET", f"{path}/{ident}").body[kind]["name"] == text
        found = cloud.admin("GET", f"{path}?name={quote(text, safe='')}").body[f"{kind}s"]
        assert [one["id"] for one in found] == [ident]
        assert cloud.admin("DELETE", f"{path}/{ident}").status == gone


def test_names_of_images_and_metadata_of_servers_too(cloud: Cloud):
    network = cloud.network(cloud.demo, "10.55.0.0/24")
    for text in TEXTS.values():
        image = {"name": text, "disk_format": "raw", "tags": [text], "mine": text}
        made = cloud.demo("POST", "/image/v2/images", image)
        assert made.status in {201, 400}, made
        if made.status == 201:
            path = f"/image/v2/images/{made.body['id']}"
            shown = cloud.demo("GET", path).body
            assert (shown["name"], shown["tags"], shown["mine"]) == (text, [text], text)
            tagged = quote(text, safe="")
            assert cloud.demo("DELETE", f"{path}/tags/{tagged}").status == 204
            assert cloud.demo("DELETE", path).status == 204
    texts = {f"{at}-{text}": text for at, text in enumerate(TEXTS.values())}
    server = cloud.server(cloud.demo, network["id"], name=fresh("texts"), metadata=texts)
    assert server["metadata"] == texts
    for key, text in texts.items():
        shown = cloud.demo("GET", f"{SERVERS}/{server['id']}/metadata/{quote(key, safe='')}")
        assert shown.body == {"meta": {key: text}}
    cloud.gone(cloud.demo, server["id"])


NUMBERS = [
    -1,
    -(2**63),
    2**31,
    2**53,
    2**63,
    2**64,
    10**400,
    1e308,
    1.5,
    -0.5,
    True,
    "7",
    None,
    [7],
]


@pytest.mark.parametrize("key", ["ram", "vcpus", "disk"])
def test_numbers_out_of_range(cloud: Cloud, key: str):
    for number in NUMBERS:
        wish = {"name": fresh("size"), "ram": 1, "vcpus": 1, "disk": 1} | {key: number}
        reply = cloud.admin("POST", "/compute/v2.1/flavors", {"flavor": wish})
        if reply.status == 200:  # lax there: clients send numbers as text
            assert number == "7", number
            assert reply.body["flavor"][key] == 7
        else:
            calm(reply)
    exponent = b'{"flavor":{"name":"x","ram":1e400,"vcpus":1,"disk":1}}'
    calm(cloud.admin("POST", "/compute/v2.1/flavors", raw=exponent, headers=_JSON))


_JSON = {"Content-Type": JSON_TYPE}

PATHS = [
    "//identity/v3", "///identity/v3", "/identity//v3", "/identity/v3//users",
    "/compute/v2.1/./servers",
    "/compute/v2.1/../v2.1/servers", "/compute/%2e/v2.1/servers", "/%2e%2e/identity/v3/users",
    "/compute/%2E%2E/identity/v3/users", "/compute%2Fv2.1/servers", "/compute/v2.1/servers;a=b",
    "/compute;a=b/v2.1/servers", "/compute/v2.1/servers%3Flimit=1", "/compute/v2.1/servers%23",
    "/compute/v2.1/servers/%20", "/COMPUTE/v2.1/servers", "/compute/V2.1/servers",
    "/compute/v2.1/servers%00", "/compute/v2.1/servers/detail/", "/compute\\v2.1\\servers",
    "/v1/../identity/v3/users", "/v1/%2e%2e/metrics", "/identity/v3/users%2F",
    "/image/v2/images/..%2f..%2f..%2fetc%2fpasswd/file", "/static/..%2f..%2fetc/passwd",
    "/" + "a/" * 3000, "/compute/v2.1/" + "x" * 7000,
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p[:40])
def test_paths_that_try_to_be_others(cloud: Cloud, path: str):
    for api in (cloud.admin, cloud.anyone):
        reply = api("GET", path)
        assert reply.status in {400, 401, 404, 414}, reply
        assert "location" not in reply.headers


QUERIES = [
    "name=%00", "name=%FF%FE", "name=%ED%A0%80", "name=" + "a" * 6000, "name=%0D%0AX-Injected:1",
    "marker=%00", "limit=%00", "limit=" + "9" * 400, "sort_key=%00", "sort_dir=%00", "&&&&", "=",
    "%", "a" * 6000, "limit=1&limit=2&limit=%FF", "sort_key=id%3BDROP", "fields=%00", "id=%00",
    "status=%00", "ip=%00", "changes-since=%00", "changes-since=99999-01-01T00:00:00Z",
    "changes-since=0000-00-00", "name=(a%2B)%2B%24", "name=" + "(" * 2000, "name=%5B",
    "tag=%00", "size_min=" + "9" * 400, "project_id=%00", "after=" + "9" * 400, "before=-1",
    "since=%00", "until=" + "9" * 400, "start=1e400", "end=%FF", "minRam=" + "9" * 400,
    "created_at=gt%3A%00", "user.id=%00", "is_public=%00", "all_tenants=%00", "price_list=%00",
]  # fmt: skip
LISTS = [(m, p) for m, p in ROUTES if m == "GET" and "{}" not in p and not p.endswith("/export")]


@pytest.mark.parametrize("path", [p for _, p in LISTS])
def test_queries_that_are_none(cloud: Cloud, path: str):
    for query in QUERIES:
        reply = cloud.admin("GET", f"{path}?{query}")
        assert reply.status < 500 or reply.status == 501, (query, reply)
        assert "x-injected" not in reply.headers


def raw(cloud: Cloud, sent: bytes, *, ends: bool = True) -> bytes:
    """Return what comes back for bytes on a connection of their own, which we may end first."""
    place = urlsplit(cloud.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(sent)
        if ends:
            with suppress(OSError):  # it may have been closed already, at what was sent
                connection.shutdown(socket.SHUT_WR)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
    return found


HEAD = b"GET /identity HTTP/1.1\r\nHost: h\r\n"
POST = b"POST /identity/v3/auth/tokens HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
BYTES = {
    "a nul in a header": HEAD + b"X-Auth-Token: a\x00b\r\n\r\n",
    "a nul in the path": b"GET /ident\x00ity HTTP/1.1\r\nHost: h\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
    "a length and chunks": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    "a huge length": POST + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "a huge chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
    "no version": b"GET /identity\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "very long headers": HEAD + b"X-Long: " + b"a" * 10_000_000 + b"\r\n\r\n",
    "very many headers": HEAD + b"".join(b"X-%d: 1\r\n" % n for n in range(20_000)) + b"\r\n",
}


@pytest.mark.parametrize("sent", BYTES.values(), ids=BYTES.keys())
def test_bytes_that_are_no_request(cloud: Cloud, sent: bytes):
    """Refused, or the connection closed; and never a second request out of one."""
    try:
        answer = raw(cloud, sent)
    except ConnectionError:
        answer = b""  # Closed while we were still sending.
    statuses = re.findall(rb"HTTP/1\.1 (\d{3})", answer)
    assert len(statuses) <= 1
    assert not statuses or 400 <= int(statuses[0]) < 500, answer[:500]
    assert b"x-injected" not in answer.lower()
    assert cloud.anyone("GET", "/healthz").status == 200


def test_after_all_that_the_cloud_is_as_it_was(cloud: Cloud):
    ready = cloud.anyone("GET", "/readyz")
    assert ready.status == 200, ready
    name = fresh("after")
    made = cloud.demo.made(f"{NET}/networks", {"network": {"name": name}})
    assert Api(cloud.url, cloud.demo.token)("GET", f"{NET}/networks/{made['id']}").status == 200
    assert b"request_failed" not in cloud.up.output.encode()


def test_a_bare_line_feed_ends_a_header_and_does_no_more(cloud: Cloud):
    """RFC 9112 section 2.2 lets a server read it so; nothing of it comes back."""
    head = HEAD + b"Connection: close\r\nX-Auth-Token: a\nX-Injected: 1\r\n\r\n"

    found = raw(cloud, head, ends=False)

    assert found.startswith(b"HTTP/1.1 300 ")
    assert found.count(b"HTTP/1.1") == 1
    assert b"x-injected" not in found.lower()
