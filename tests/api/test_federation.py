"""Users of other identity providers: with their tokens, with a browser, and those who only say so.

A provider from elsewhere (oidc-provider-mock) and an issuer that signs what a test wants, each a
process of its own.
"""

import base64
import html
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from tests.api.conftest import Api, Cloud, Reply, fresh
from tests.api.edges import EdgeProcess
from tests.api.issuer import Remote, running
from tests.cli.running import clean_environment, eventually

TOKENS = "/identity/v3/auth/tokens"
FEDERATION = "/identity/v3/OS-FEDERATION"
WEBSSO = "/identity/v3/auth/OS-FEDERATION"
DASHBOARD = "https://dashboard.example.org/auth/websso/"
RULES = [
    {
        "local": [
            {"user": {"name": "{0}", "email": "{1}"}},
            {"groups": "{2}", "domain": {"name": "Default"}},
        ],
        "remote": [{"type": "name"}, {"type": "email"}, {"type": "groups"}],
    }
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def edge(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeProcess]:
    """An edge that trusts a dashboard."""
    directory = tmp_path_factory.mktemp("federation")
    with EdgeProcess(cloud, directory, trusted_dashboards=[DASHBOARD]) as process:
        yield process


@pytest.fixture(scope="module")
def issuer() -> Iterator[Remote]:
    with running(free_port()) as remote:
        yield remote


class Trust:
    """An identity provider that a cloud trusts, with a group of members of a project."""

    def __init__(self, cloud: Cloud, edge: EdgeProcess, issuer: str) -> None:
        self.cloud, self.edge, self.issuer = cloud, edge, issuer
        self.idp, self.group = fresh("idp"), fresh("crew")
        self.path = f"{FEDERATION}/identity_providers/{self.idp}"
        admin = cloud.admin
        oidc = {"issuer": issuer, "client_id": "cloud", "client_secret": "hush-hush!"}
        self.put(self.path, {"identity_provider": {"enabled": True, "oidc": oidc}})
        self.put(f"{FEDERATION}/mappings/{self.idp}", {"mapping": {"rules": RULES}})
        self.put(f"{self.path}/protocols/openid", {"protocol": {"mapping_id": self.idp}})
        self.project = admin.made("/identity/v3/projects", {"project": {"name": fresh("lab")}})
        group = admin.made("/identity/v3/groups", {"group": {"name": self.group}})
        role = admin("GET", "/identity/v3/roles?name=member").body["roles"][0]["id"]
        grant = f"/identity/v3/projects/{self.project['id']}/groups/{group['id']}/roles/{role}"
        assert admin("PUT", grant).status == 204

    def put(self, path: str, body: dict) -> None:
        reply = self.cloud.admin("PUT", path, body)
        assert reply.status == 201, reply

    def claims(self, **other: Any) -> dict[str, Any]:
        claims = {
            "iss": self.issuer,
            "aud": "cloud",
            "sub": "s-1",
            "exp": int(time.time()) + 600,
            "iat": int(time.time()),
            "name": "ann",
            "email": "ann@example.org",
            "groups": [self.group, "elsewhere"],
        }
        told = claims | other
        return {name: value for name, value in told.items() if value is not None}

    def sign_in(self, token: str, method: str = "POST") -> Reply:
        path = f"{self.path}/protocols/openid/auth"
        headers = {"Authorization": f"Bearer {token}"}
        return Api(self.edge.url)(method, path, headers=headers)

    def scoped(self, unscoped: str) -> Reply:
        identity = {"methods": ["token"], "token": {"id": unscoped}}
        scope = {"project": {"id": self.project["id"]}}
        body = {"auth": {"identity": identity, "scope": scope}}
        return Api(self.edge.url)("POST", TOKENS, body)


@pytest.fixture
def trust(cloud: Cloud, edge: EdgeProcess, issuer: Remote) -> Trust:
    return Trust(cloud, edge, issuer.url)


def message(reply: Reply) -> str:
    return reply.body["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_providers_token_gives_one_of_here(trust: Trust, issuer: Remote, method: str):
    reply = trust.sign_in(issuer.token(trust.claims()), method)

    assert reply.status == 201, reply
    token = reply.body["token"]
    user = token["user"]
    assert token["methods"] == ["openid"]
    assert (user["name"], user["domain"]["name"]) == ("ann", trust.idp)
    assert user["OS-FEDERATION"]["identity_provider"] == {"id": trust.idp}
    assert user["OS-FEDERATION"]["protocol"] == {"id": "openid"}
    assert len(user["OS-FEDERATION"]["groups"]) == 1
    assert "project" not in token
    scoped = trust.scoped(reply.headers["x-subject-token"])
    assert scoped.status == 201, scoped
    assert {role["name"] for role in scoped.body["token"]["roles"]} == {"member", "reader"}
    api = Api(trust.edge.url, scoped.headers["x-subject-token"])
    assert api("GET", "/compute/v2.1/servers").status == 200
    network = api("POST", "/network/v2.0/networks", {"network": {"name": "lab"}})
    assert network.status == 201, "the engine gives the role, too"
    projects = api("GET", "/identity/v3/auth/projects").body["projects"]
    assert [project["id"] for project in projects] == [trust.project["id"]]


def test_the_same_user_comes_again_and_groups_are_those_said_last(trust: Trust, issuer: Remote):
    first = trust.sign_in(issuer.token(trust.claims()))
    scoped = trust.scoped(first.headers["x-subject-token"])
    ask = f"/v1/policy/who-can/CreateServer?resource={trust.project['id']}"
    assert first.body["token"]["user"]["id"] in str(trust.cloud.admin("GET", ask).body)
    again = trust.sign_in(issuer.token(trust.claims(name="anna", groups=["elsewhere"])))
    assert first.body["token"]["user"]["id"] not in str(trust.cloud.admin("GET", ask).body)

    assert again.body["token"]["user"]["id"] == first.body["token"]["user"]["id"]
    assert again.body["token"]["user"]["name"] == "anna"
    assert trust.scoped(again.headers["x-subject-token"]).status == 401
    api = Api(trust.edge.url, scoped.headers["x-subject-token"])
    assert api("GET", "/compute/v2.1/servers").status == 401, "who left a group has left it"


HOUR = 3600
LIES = {
    "another issuer": ({"iss": "https://evil.example.org"}, {}),
    "an issuer that begins alike": ({"iss": "http://127.0.0.1"}, {}),
    "another audience": ({"aud": "somebody-else"}, {}),
    "no audience": ({"aud": None}, {}),
    "given to another": ({"aud": ["cloud", "other"], "azp": "other"}, {}),
    "expired": ({"exp": int(time.time()) - HOUR}, {}),
    "without an end": ({"exp": None}, {}),
    "an end that is no time": ({"exp": "never"}, {}),
    "not yet": ({"nbf": int(time.time()) + HOUR}, {}),
    "from the future": ({"iat": int(time.time()) + HOUR}, {}),
    "nobody": ({"sub": None}, {}),
    "another key of the same name": ({}, {"hidden": True}),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_not_the_providers_word_for_us_lets_nobody_in(
    trust: Trust, issuer: Remote, lie: str
):
    claims, wish = LIES[lie]

    reply = trust.sign_in(issuer.token(trust.claims(**claims), **wish))

    assert reply.status == 401, reply
    assert "x-subject-token" not in reply.headers


def forged(head: dict, claims: dict, signature: bytes = b"") -> str:
    parts = (json.dumps(head).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_tokens_that_nobody_signed_let_nobody_in(trust: Trust, issuer: Remote):
    """Unsigned ones, and those whose signature is a MAC with the public key (CVE-2015-9235)."""
    good = issuer.token(trust.claims())
    body = good.split(".")[1]
    forgeries = [
        forged({"alg": alg}, trust.claims()) for alg in ("none", "None", "nOnE", "HS256", "RS1")
    ]
    forgeries += [
        forged({"alg": "HS256", "kid": "k1"}, trust.claims(), b"x" * 32),
        forged({"alg": "RS256", "kid": "k1", "crit": ["exp"]}, trust.claims(), b"x" * 256),
        f"{good.split('.')[0]}.{body}.",
        f"{good.split('.')[0]}.{body[:-4]}AAAA.{good.split('.')[2]}",
        "a.b.c",
        "a.b.c.d.e",
        "x" * 20_000,
        ".." * 5,
    ]

    for text in forgeries:
        assert trust.sign_in(text).status == 401, text[:80]
    assert Api(trust.edge.url)("POST", f"{trust.path}/protocols/openid/auth").status == 401


def test_rotated_keys_are_found_and_unknown_ones_do_not_make_questions(
    cloud: Cloud, tmp_path: Path
):
    with running(free_port()) as issuer, EdgeProcess(cloud, tmp_path) as edge:
        trust = Trust(cloud, edge, issuer.url)
        first = issuer.token(trust.claims())
        assert trust.sign_in(first).status == 201
        assert issuer.asked == 1

        for number in range(30):
            token = issuer.token(trust.claims(), head={"kid": f"unknown-{number}"}, hidden=True)
            assert trust.sign_in(token).status == 401
        assert issuer.asked <= 2, "keys are asked for once in a while"

        issuer.rotate("k2")
        rotated = issuer.token(trust.claims())
        eventually(lambda: trust.sign_in(rotated).status == 201, "the new key is found")
        assert trust.sign_in(first).status == 401, "the old one is gone"


def test_a_provider_that_does_not_answer_is_no_reason_to_let_in(cloud: Cloud, edge: EdgeProcess):
    with running(free_port()) as issuer:
        trust = Trust(cloud, edge, issuer.url)
        token = issuer.token(trust.claims())

    assert trust.sign_in(token).status == 503


@pytest.mark.parametrize("how", ["disabled", "protocol", "provider"])
def test_tokens_end_with_the_trust_in_a_provider(trust: Trust, issuer: Remote, how: str):
    first = trust.sign_in(issuer.token(trust.claims()))
    scoped = trust.scoped(first.headers["x-subject-token"])
    api = Api(trust.cloud.url, scoped.headers["x-subject-token"])
    assert api("GET", "/compute/v2.1/servers").status == 200
    admin = trust.cloud.admin

    match how:
        case "disabled":
            body = {"identity_provider": {"enabled": False}}
            assert admin("PATCH", trust.path, body).status == 200
        case "protocol":
            assert admin("DELETE", f"{trust.path}/protocols/openid").status == 204
        case "provider":
            assert admin("DELETE", trust.path).status == 204

    assert api("GET", "/compute/v2.1/servers").status == 401
    eventually(
        lambda: trust.sign_in(issuer.token(trust.claims())).status in {401, 404},
        "the other edge sees it, too",
    )


def test_providers_mappings_and_protocols_are_kept_as_keystone_does(trust: Trust):
    admin, demo = trust.cloud.admin, trust.cloud.demo

    shown = admin("GET", trust.path)
    assert b"hush-hush" not in shown.raw
    provider = shown.body["identity_provider"]
    assert provider["oidc"]["client_id"] == "cloud"
    assert "client_secret" not in provider["oidc"]
    events = admin("GET", f"/v1/events?resource_id={trust.idp}").raw
    assert b"hush-hush" not in events
    assert trust.idp.encode() in events
    assert demo("GET", trust.path).status == 403
    assert demo("PUT", f"{trust.path}x", {"identity_provider": {}}).status == 403
    again = admin("PUT", trust.path, {"identity_provider": {}})
    assert again.status == 409
    mapping = f"{FEDERATION}/mappings/{trust.idp}"
    assert admin("GET", mapping).body["mapping"]["rules"] == RULES
    assert admin("DELETE", mapping).status == 409, "a protocol uses it"
    protocols = admin("GET", f"{trust.path}/protocols").body["protocols"]
    assert [(p["id"], p["mapping_id"]) for p in protocols] == [("openid", trust.idp)]
    listed = admin("GET", f"{FEDERATION}/identity_providers?id={trust.idp}").body
    assert [p["id"] for p in listed["identity_providers"]] == [trust.idp]
    plain = {"issuer": "http://idp.example.org", "client_id": "cloud"}
    told = admin("PATCH", trust.path, {"identity_provider": {"oidc": plain}})
    assert told.status == 400, "only over TLS"
    unsound = [{"local": [{"user": {"name": "{1}"}}], "remote": [{"type": "name"}]}]
    assert admin("PATCH", mapping, {"mapping": {"rules": unsound}}).status == 400


def test_nobody_says_in_an_edges_place_who_was_vouched_for(trust: Trust):
    action = {
        "type": "SignInFederated",
        "idp_id": trust.idp,
        "protocol_id": "openid",
        "unique_id": "s-1",
        "claims": {"name": ["ann"], "email": ["a"], "groups": [trust.group]},
    }

    for api in (trust.cloud.admin, trust.cloud.demo):
        assert api("POST", "/v1/actions", action).status == 403


class Browser:
    """Follows no redirect, keeps one cookie."""

    def __init__(self, url: str) -> None:
        self.api = Api(url)
        self.cookie = ""

    def get(self, path: str) -> Reply:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        reply = self.api("GET", path, headers=headers)
        if given := reply.headers.get("set-cookie"):
            assert "HttpOnly" in given
            assert "SameSite=Lax" in given
            self.cookie = given.partition(";")[0]
        return reply


def begun(trust: Trust, origin: str = DASHBOARD) -> tuple[Browser, Reply]:
    browser = Browser(trust.edge.url)
    path = f"{WEBSSO}/identity_providers/{trust.idp}/protocols/openid/websso"
    return browser, browser.get(f"{path}?{urlencode({'origin': origin})}")


def asked(reply: Reply) -> dict[str, str]:
    assert reply.status == 302, reply
    return dict(parse_qsl(urlsplit(reply.headers["location"]).query))


def agreed(trust: Trust, issuer: Remote, told: dict[str, str], **other: Any) -> str:
    """Let the issuer give a code for what was asked, and return the way back."""
    code = fresh("code")
    wish = {
        "code": code,
        "challenge": told["code_challenge"],
        "redirect_uri": told["redirect_uri"],
        "secret": "hush-hush!",
        "claims": trust.claims(nonce=told["nonce"]),
    }
    issuer.code(**(wish | other))
    assert told["redirect_uri"] == f"{trust.edge.url}{WEBSSO}/callback"
    return f"{WEBSSO}/callback?{urlencode({'code': code, 'state': told['state']})}"


def test_a_browser_comes_back_with_a_token_for_the_dashboard(trust: Trust, issuer: Remote):
    browser, sent = begun(trust)
    told = asked(sent)
    assert told["code_challenge_method"] == "S256"
    assert "openid" in told["scope"].split()

    page = browser.get(agreed(trust, issuer, told))

    assert page.status == 200, page
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    text = page.raw.decode()
    assert re.search(r'action="([^"]*)"', text)[1] == html.escape(DASHBOARD)
    token = re.search(r'name="token" value="([^"]*)"', text)[1]
    assert trust.scoped(token).status == 201


def test_a_journey_ends_once_and_for_the_browser_that_began_it(trust: Trust, issuer: Remote):
    browser, sent = begun(trust)
    told = asked(sent)
    back = agreed(trust, issuer, told)
    cookie = browser.cookie

    stranger = Browser(trust.edge.url).get(back)
    other, _ = begun(trust)
    crossed = other.get(back)
    page = browser.get(back)
    browser.cookie = cookie
    issuer_again = agreed(trust, issuer, told)
    again, replayed = browser.get(back), None
    browser.cookie = cookie
    replayed = browser.get(issuer_again)

    assert (stranger.status, crossed.status, page.status) == (401, 401, 200)
    assert (again.status, replayed.status) == (401, 401)


@pytest.mark.parametrize(
    "other",
    [
        {"challenge": "another"},
        {"secret": "another"},
        {"redirect_uri": "https://elsewhere.example.org/"},
    ],
)
def test_a_code_that_is_not_good_lets_nobody_in(trust: Trust, issuer: Remote, other: dict):
    browser, sent = begun(trust)

    assert browser.get(agreed(trust, issuer, asked(sent), **other)).status == 401


def test_an_answer_to_another_question_lets_nobody_in(trust: Trust, issuer: Remote):
    for nonce in ("another", None):
        browser, sent = begun(trust)
        claims = trust.claims(nonce=nonce)

        reply = browser.get(agreed(trust, issuer, asked(sent), claims=claims))

        assert reply.status == 401
        assert "x-subject-token" not in reply.headers


def test_a_provider_that_refuses_lets_nobody_in(trust: Trust):
    browser, sent = begun(trust)
    back = {"error": "access_denied", "state": asked(sent)["state"]}

    assert browser.get(f"{WEBSSO}/callback?{urlencode(back)}").status == 401


ELSEWHERE = [
    "https://evil.example.org/",
    "",
    DASHBOARD + "evil",
    DASHBOARD.replace("https:", "http:"),
    "https://dashboard.example.org@evil.example.org/auth/websso/",
    "https://dashboard.example.org.evil.example.org/auth/websso/",
    "javascript:alert(1)",
    DASHBOARD.upper(),
]


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_nobody_is_sent_to_where_no_operator_trusts(trust: Trust, origin: str):
    _, reply = begun(trust, origin)

    assert reply.status == 401
    assert "location" not in reply.headers
    assert not origin or origin.encode() not in reply.raw
    path = f"{WEBSSO}/identity_providers/{trust.idp}/protocols/openid/websso"
    assert Api(trust.edge.url)("GET", path).status == 401


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A provider that others have written."""
    port = free_port()
    claims = {"sub": "bob-1", "name": "bob", "email": "bob@example.org", "groups": ["bobs"]}
    process = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "oidc-provider-mock"),
            "--port", str(port), "--require-nonce", "true", "--user-claims", json.dumps(claims),
        ],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return Api(url)("GET", "/.well-known/openid-configuration").status == 200
        except OSError:
            return False

    try:
        eventually(answers, "the provider answers")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_a_browser_signs_in_by_a_provider_of_others(
    cloud: Cloud, edge: EdgeProcess, elsewhere: str
):
    trust = Trust(cloud, edge, elsewhere)
    browser, sent = begun(trust)
    there = urlsplit(sent.headers["location"])
    connection = http.client.HTTPConnection(there.netloc, timeout=30)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", f"{there.path}?{there.query}", urlencode({"sub": "bob-1"}), form)
    agreed_there = connection.getresponse()
    assert agreed_there.status == 302
    back = urlsplit(agreed_there.getheader("location"))
    connection.close()
    assert parse_qs(back.query)["state"] == [asked(sent)["state"]]

    page = browser.get(f"{back.path}?{back.query}")

    assert page.status == 200, page
    token = re.search(r'name="token" value="([^"]*)"', page.raw.decode())[1]
    shown = Api(trust.edge.url, token)("GET", TOKENS, headers={"X-Subject-Token": token})
    assert shown.body["token"]["user"]["name"] == "bob"
    assert browser.get(f"{back.path}?{back.query}").status == 401, "a code is good once"
