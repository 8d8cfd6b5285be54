"""A whole cloud on a simulated host, and HTTP clients of it with nothing in between."""

import http.client
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from engine.domain.quota import DEFAULTS
from schemas.quota import UNLIMITED
from tests.api.loaded import Loaded
from tests.api_coverage import TESTS_AGENT
from tests.cli.running import Up, eventually

_names = itertools.count(1)


class Reply:
    """An answer as it came: headers in lower case, the body as bytes."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = {k.lower(): v for k, v in answer.getheaders()}
        self.raw = answer.read()

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def __repr__(self) -> str:
        return f"{self.status} {self.raw[:500]!r}"


class Api:
    """An HTTP client with one token."""

    def __init__(self, url: str, token: str = "", *, timeout_s: float = 60.0) -> None:
        self.url = url
        self.token = token
        self.timeout_s = timeout_s

    def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        sent = {"User-Agent": TESTS_AGENT}
        if self.token:
            sent["X-Auth-Token"] = self.token
        if body is not None:
            raw = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=self.timeout_s)
        try:
            connection.request(method, path, raw, sent | (headers or {}))
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def made(self, path: str, body: dict) -> dict:
        """POST, expect success, and return what is inside the one key of the answer."""
        reply = self("POST", path, body)
        assert reply.status in {200, 201, 202}, reply
        ((_, inner),) = reply.body.items()
        return inner


class Cloud:
    """A running cloud, its accounts, and what tests make in it."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.clouds = yaml.safe_load((up.state_dir / "clouds.yaml").read_text())["clouds"]
        self.url = self.clouds["cumulog"]["auth"]["auth_url"].removesuffix("/identity/v3")
        self.anyone = Api(self.url)
        self.admin = self.sign_in("cumulog")
        self.demo = self.sign_in("cumulog-demo")
        # Tests share projects, and are not to be in each other's way.
        limits = dict.fromkeys(DEFAULTS, UNLIMITED)
        told = self.admin("POST", "/v1/actions", {"type": "SetQuotaClass", "limits": limits})
        assert told.status == 200, told

    def sign_in(self, name: str) -> Api:
        auth = self.clouds[name]["auth"]
        return self.login(auth["username"], auth["password"], auth["project_name"])

    def login(self, user: str, password: str, project: str = "") -> Api:
        reply = self.anyone(
            "POST", "/identity/v3/auth/tokens", credentials(user, password, project)
        )
        assert reply.status == 201, reply
        return Api(self.url, reply.headers["x-subject-token"])

    def stranger(self) -> Api:
        """Return a member of a project of its own."""
        name = fresh("stranger")
        project = self.admin.made("/identity/v3/projects", {"project": {"name": name}})
        user = self.admin.made("/identity/v3/users", {"user": {"name": name, "password": "pw"}})
        role = self.admin("GET", "/identity/v3/roles?name=member").body["roles"][0]
        path = f"/identity/v3/projects/{project['id']}/users/{user['id']}/roles/{role['id']}"
        assert self.admin("PUT", path).status == 204
        return self.login(name, "pw", name)

    def network(self, api: Api, cidr: str = "10.77.0.0/24") -> dict:
        """Make a network with a subnet."""
        name = fresh("net")
        network = api.made("/network/v2.0/networks", {"network": {"name": name}})
        wish = {"network_id": network["id"], "cidr": cidr, "ip_version": 4}
        subnet = api.made("/network/v2.0/subnets", {"subnet": wish})
        return network | {"subnet": subnet}

    def image_id(self) -> str:
        return self.demo("GET", "/image/v2/images?name=tiny-guest").body["images"][0]["id"]

    def server(self, api: Api, network_id: str, **more: object) -> dict:
        """Make a server and wait until it runs."""
        wish = {
            "name": fresh("server"),
            "imageRef": self.image_id(),
            "flavorRef": "42",
            "networks": [{"uuid": network_id}],
        }
        made = api.made("/compute/v2.1/servers", {"server": wish | more})
        return self.settled(api, made["id"])

    def settled(self, api: Api, server_id: str) -> dict:
        """Wait until nothing is under way on a server, and return it."""
        found: dict = {}

        def rests() -> bool:
            nonlocal found
            found = api("GET", f"/compute/v2.1/servers/{server_id}").body["server"]
            return found["OS-EXT-STS:task_state"] is None

        eventually(rests, f"server {server_id} settles")
        return found

    def gone(self, api: Api, server_id: str) -> None:
        """Delete a server and wait until it is gone."""
        path = f"/compute/v2.1/servers/{server_id}"
        assert api("DELETE", path).status == 204
        eventually(lambda: api("GET", path).status == 404, f"server {server_id} goes")


def fresh(kind: str) -> str:
    """Return a name nobody else has."""
    return f"{kind}-{next(_names)}"


def credentials(user: str, password: str, project: str = "") -> dict:
    """Return the body that asks for a token."""
    domain = {"name": "Default"}
    identity = {
        "methods": ["password"],
        "password": {"user": {"name": user, "password": password, "domain": domain}},
    }
    auth: dict[str, Any] = {"identity": identity}
    if project:
        auth["scope"] = {"project": {"name": project, "domain": domain}}
    return {"auth": auth}


@contextmanager
def started(state_dir: Path, *options: str) -> Iterator[Cloud]:
    """Run a cloud for as long as it is needed."""
    up = Up(state_dir)
    try:
        up.start("--no-demo", *options)
        yield Cloud(up)
    finally:
        if up.process is not None:
            up.stop()


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    """The ``openstack`` command, loaded once for a file of tests."""
    with Loaded() as command:
        yield command


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A running cloud, shared by the tests of a file: none sees what those of another have made."""
    with started(tmp_path_factory.mktemp("api") / "state") as cloud:
        yield cloud


@pytest.fixture
def admin(cloud: Cloud) -> Api:
    return cloud.admin


@pytest.fixture
def demo(cloud: Cloud) -> Api:
    return cloud.demo
