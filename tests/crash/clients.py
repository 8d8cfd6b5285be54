"""The load: clients that ask for servers, networks, keypairs and images, each in its own thread.

A client knows nothing of the faults. It sends each change under an Idempotency-Key of its own, and
sends it again under the same key until it has an answer or its patience is at an end. Half of it
goes by native actions, half by OpenStack's calls.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.record import Record

TIMEOUT_S = 15.0
PATIENCE_S = 90.0
AGAIN_S = 0.1
TWINS, REPEATS = 0.04, 0.05
ACTIONS = "/v1/actions"
SERVERS = "/compute/v2.1/servers"
KEYPAIRS = "/compute/v2.1/os-keypairs"
NETWORKS = "/network/v2.0/networks"
SUBNETS = "/network/v2.0/subnets"
IMAGES = "/image/v2/images"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVoyk2XUtGlg+N1wTdTNmOzWvKhDYAKJ3i1QUyIyVkH x"


class Unreached(Exception):
    """No answer, or one that says "not now"."""


@dataclass(frozen=True)
class Place:
    """What a load works with."""

    image_id: str
    flavor_id: str
    network_id: str
    servers_each: int
    pause_s: float


@dataclass
class Told:
    """An answer."""

    status: int
    body: Any
    headers: dict[str, str]


class Caller:
    """HTTP as one account, keeping its connection and its token while they last."""

    def __init__(self, state_dir: Path, account: str = "demo") -> None:
        self._state_dir = state_dir
        self._account = account
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""
        self.timeout_s = TIMEOUT_S

    def send(
        self, method: str, path: str, body: Any = None, *, key: str = "", raw: bytes | None = None
    ) -> Told:
        """Send once.

        Raises:
            Unreached: there was no answer, or one that asks to come again.
        """
        headers = {"X-Auth-Token": self._token or self._sign_in()}
        if key:
            headers["Idempotency-Key"] = key
        if raw is not None:
            headers["Content-Type"] = "application/octet-stream"
        told = self._exchange(method, path, body, headers, raw)
        if told.status == 401:
            self._token = ""
            raise Unreached("the token no longer counts")
        if told.status in {429, 500, 502, 503, 504}:
            raise Unreached(f"{told.status} {told.body}")
        return told

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _sign_in(self) -> str:
        account = json.loads((self._state_dir / "credentials.json").read_text())[self._account]
        domain = {"name": "Default"}
        user = {"name": account["username"], "domain": domain, "password": account["password"]}
        scope = {"project": {"name": account["project_name"], "domain": domain}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        told = self._exchange("POST", "/identity/v3/auth/tokens", {"auth": auth}, {}, None)
        if told.status != 201:
            raise Unreached(f"cannot sign in: {told.status}")
        self._token = told.headers["x-subject-token"]
        return self._token

    def _exchange(
        self, method: str, path: str, body: Any, headers: dict[str, str], raw: bytes | None
    ) -> Told:
        payload = raw if raw is not None else json.dumps(body).encode() if body else None
        try:
            if self._connection is None:
                listen = json.loads((self._state_dir / "cell.json").read_text())["listen"]
                self._connection = http.client.HTTPConnection(listen, timeout=self.timeout_s)
            headers = {"Content-Type": "application/json", "Accept": "application/json"} | headers
            self._connection.request(method, path, payload, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreached(repr(error)) from error
        try:
            decoded = json.loads(content) if content else None
        except ValueError:
            decoded = content.decode(errors="replace")
        return Told(answer.status, decoded, {k.lower(): v for k, v in answer.getheaders()})


@dataclass(frozen=True)
class Ask:
    """A call as it is sent, each time the same."""

    ident: str
    method: str
    path: str
    body: Any
    key: str
    raw: bytes | None


@dataclass
class Client:
    """One client and what it believes to have."""

    name: str
    caller: Caller
    record: Record
    place: Place
    random: random.Random
    stop: threading.Event
    twin: Caller | None = None  # a second connection, to ask the same at the same moment
    patience_s: float = PATIENCE_S
    servers: list[str] = field(default_factory=list)
    keypairs: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    _count: int = 0

    def run(self) -> None:
        """Ask for things until told to stop; what was asked last is seen to its end."""
        steps: list[tuple[int, Callable[[], None]]] = [
            (60, self._server),
            (20, self._keypair),
            (10, self._network),
            (6, self._image),
            (4, self._refused),
        ]
        weights = [weight for weight, _ in steps]
        while not self.stop.is_set():
            (step,) = self.random.choices([step for _, step in steps], weights)
            step()
            self.stop.wait(self.random.uniform(0, 2 * self.place.pause_s))
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for caller in (self.caller, self.twin):
            if caller is not None:
                caller.close()

    # What it asks for

    def _server(self) -> None:
        if len(self.servers) < self.place.servers_each:
            self._create_server()
            return
        server_id = self.random.choice(self.servers)
        status, task = self._status(server_id)
        if task is not None and self.random.random() < 0.8:
            return
        choices = {"ACTIVE": ("stop", "reboot", "delete"), "SHUTOFF": ("start", "start", "delete")}
        what = self.random.choice(choices.get(status, ("delete",)))
        native = self.random.random() < 0.5
        if what == "delete":
            self.servers.remove(server_id)
            if native:
                self.native("DeleteServer", server_id=server_id)
            else:
                self.openstack("DELETE", f"{SERVERS}/{server_id}", "DeleteServer")
        elif native:
            more = {"grace_s": 1} if what == "stop" else {"hard": True} if what == "reboot" else {}
            self.native(f"{what.title()}Server", server_id=server_id, **more)
        else:
            body = {"reboot": {"type": "HARD"}} if what == "reboot" else {f"os-{what}": None}
            path = f"{SERVERS}/{server_id}/action"
            self.openstack("POST", path, f"{what.title()}Server", body)

    def _create_server(self) -> None:
        name, place = self._fresh("server"), self.place
        if self.random.random() < 0.5:
            networks = [{"network_id": place.network_id}]
            told = self.native(
                "CreateServer",
                name=name,
                flavor_id=place.flavor_id,
                image_id=place.image_id,
                networks=networks,
            )
            made = told and told.status < 300 and told.body["reply"]["server_id"]
        else:
            wish = {
                "name": name,
                "flavorRef": place.flavor_id,
                "imageRef": place.image_id,
                "networks": [{"uuid": place.network_id}],
            }
            told = self.openstack("POST", SERVERS, "CreateServer", {"server": wish}, name=name)
            made = told and told.status < 300 and told.body["server"]["id"]
        if made:
            self.servers.append(made)

    def _status(self, server_id: str) -> tuple[str, str | None]:
        try:
            told = self.caller.send("GET", f"{SERVERS}/{server_id}")
        except Unreached:
            return "", "unknown"
        if told.status != 200:
            return "", None  # a read model that lags; deleting it will be refused or done
        server = told.body["server"]
        return server["status"], server["OS-EXT-STS:task_state"]

    def _keypair(self) -> None:
        if len(self.keypairs) < 3:
            name = self._fresh("key")
            if self.random.random() < 0.5:
                self.native("CreateKeypair", name=name, public_key=PUBLIC_KEY)
            else:
                body = {"keypair": {"name": name, "public_key": PUBLIC_KEY}}
                self.openstack("POST", KEYPAIRS, "CreateKeypair", body, name=name)
            self.keypairs.append(name)
            return
        name = self.keypairs.pop(0)
        if self.random.random() < 0.5:
            self.native("DeleteKeypair", name=name)
        else:
            self.openstack("DELETE", f"{KEYPAIRS}/{name}", "DeleteKeypair", name=name)

    def _network(self) -> None:
        if len(self.networks) >= 2:
            network_id = self.networks.pop(0)
            if self.random.random() < 0.5:
                self.native("DeleteNetwork", network_id=network_id)
            else:
                self.openstack("DELETE", f"{NETWORKS}/{network_id}", "DeleteNetwork")
            return
        name = self._fresh("net")
        body = {"network": {"name": name}}
        told = self.openstack("POST", NETWORKS, "CreateNetwork", body, name=name)
        if told and told.status < 300:
            network_id = told.body["network"]["id"]
            self.networks.append(network_id)
            subnet = {"network_id": network_id, "cidr": "10.99.0.0/24", "ip_version": 4}
            self.openstack("POST", SUBNETS, "CreateSubnet", {"subnet": subnet})

    def _image(self) -> None:
        if len(self.images) >= 2:
            self.openstack("DELETE", f"{IMAGES}/{self.images.pop(0)}", "DeleteImage")
            return
        name = self._fresh("image")
        body = {"name": name, "disk_format": "raw", "container_format": "bare"}
        told = self.openstack("POST", IMAGES, "CreateImage", body, name=name)
        if told and told.status < 300:
            image_id = told.body["id"]
            self.images.append(image_id)
            content = self.random.randbytes(4096)
            self._call("PUT", f"{IMAGES}/{image_id}/file", "UploadImage", None, raw=content)

    def _refused(self) -> None:
        """Ask for what this account may not do: a refusal is an answer, too."""
        self.native("DeleteFlavor", flavor_id=self.place.flavor_id)

    # How it asks

    def _fresh(self, kind: str) -> str:
        return f"crash-{kind}-{self.name}-{self._count + 1}"

    def native(self, what: str, **fields: Any) -> Told | None:
        return self._call(
            "POST", ACTIONS, what, {"type": what, **fields}, name=fields.get("name", "")
        )

    def openstack(
        self, method: str, path: str, what: str, body: Any = None, *, name: str = ""
    ) -> Told | None:
        return self._call(method, path, what, body, name=name)

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        body: Any,
        *,
        name: str = "",
        raw: bytes | None = None,
    ) -> Told | None:
        """Ask under a fresh key until there is an answer.

        Sometimes it is asked twice at the same moment, sometimes once more after the answer.
        """
        self._count += 1
        ident = f"{self.name}-{self._count}"
        key = f"{ident}-{self.random.getrandbits(64):016x}"
        ask = Ask(ident, method, path, body, key, raw)
        asked = {"client": self.name, "key": key, "user": "demo", "method": method, "path": path}
        self.record.write("asked", id=ident, what=what, name=name, **asked)
        twin = None
        # What is deleted or filled only once may be answered otherwise the second time.
        if self.twin is not None and method == "POST" and self.random.random() < TWINS:
            twin = threading.Thread(target=self._until_answered, args=(ask, self.twin, True))
            twin.start()
        told = self._until_answered(ask, self.caller)
        if twin is not None:
            twin.join()
        elif told is not None and self.random.random() < REPEATS:
            self._until_answered(ask, self.caller, again=True)
        return told

    def _until_answered(self, ask: Ask, caller: Caller, again: bool | None = None) -> Told | None:
        deadline = time.monotonic() + self.patience_s
        attempts, why = 0, ""
        while time.monotonic() < deadline:
            attempts += 1
            try:
                told = caller.send(ask.method, ask.path, ask.body, key=ask.key, raw=ask.raw)
            except Unreached as error:
                why = str(error)
                time.sleep(random.uniform(0, 2 * AGAIN_S))
                continue
            said = outcome(told, native=ask.path == ACTIONS)
            self.record.write("answered", id=ask.ident, attempts=attempts, again=again, **said)
            return told
        self.record.write("gave_up", id=ask.ident, attempts=attempts, error=why, again=again)
        return None


def outcome(told: Told, *, native: bool) -> dict[str, Any]:
    """Return what an answer says, as the record keeps it."""
    said: dict[str, Any] = {"status": told.status}
    body = told.body
    if told.status >= 400:
        return said | {"error": json.dumps(body)[:300]}
    if native:
        reply = body["reply"]
        said |= {"request_id": body["request_id"], "ordinal": body["ordinal"]}
        ids = ("server_id", "network_id", "name")
        return said | {"resource": next((reply[i] for i in ids if i in reply), None)}
    if isinstance(body, dict):
        inner = next(
            (body[k] for k in ("server", "network", "subnet", "keypair") if k in body), body
        )
        said["resource"] = inner.get("id") or inner.get("name")
    return said
