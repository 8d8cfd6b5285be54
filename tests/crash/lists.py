"""Compares the lists that the API serves with what the log's facts say there is.

Part of the checker. Plain HTTP (OpenStack's calls) as the account under which the load ran; the
edges' blob store is looked at as files.
"""

import http.client
import json
import time
from pathlib import Path
from typing import Any

from tests.crash.answers import Findings
from tests.crash.truth import Truth

TIMEOUT_S = 20.0


class Api:
    """One account of the cloud, by HTTP."""

    def __init__(self, state_dir: Path, account: str) -> None:
        host, _, port = json.loads((state_dir / "cell.json").read_text())["listen"].rpartition(":")
        self._at = host, int(port)
        self._account = json.loads((state_dir / "credentials.json").read_text())[account]
        self._token = ""

    def get(self, path: str) -> Any:
        """Return the body of a GET.

        Raises:
            OSError: the API cannot be reached, or answers otherwise than 200.
        """
        if not self._token:
            self._token = self._sign_in()
        status, _, body = self._send("GET", path, None, {"X-Auth-Token": self._token})
        if status != 200:
            raise OSError(f"GET {path}: {status} {body[:300]!r}")
        return json.loads(body)

    def pages(self, path: str, name: str) -> list[dict[str, Any]]:
        """Return all entries of a list that comes in pages (``<name>_links``, or ``next``)."""
        found: list[dict[str, Any]] = []
        more = f"{path}{'&' if '?' in path else '?'}limit=500"
        while more:
            body = self.get(more)
            found += body[name]
            links = [
                link["href"] for link in body.get(f"{name}_links", ()) if link["rel"] == "next"
            ]
            more = links[0] if links else body.get("next", "")
            more = more and "/" + more.split("://")[-1].partition("/")[2] if "://" in more else more
            if more and not more.startswith("/image") and name == "images":
                more = "/image" + more
        return found

    def _sign_in(self) -> str:
        account = self._account
        domain = {"name": "Default"}
        user = {"name": account["username"], "domain": domain, "password": account["password"]}
        scope = {"project": {"name": account["project_name"], "domain": domain}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        status, headers, body = self._send("POST", "/identity/v3/auth/tokens", {"auth": auth}, {})
        if status != 201:
            raise OSError(f"cannot sign in: {status} {body[:300]!r}")
        return headers["x-subject-token"]

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*self._at, timeout=TIMEOUT_S)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(
                method, path, payload, headers | {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            told = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, told, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()


def compare_lists(
    state_dir: Path, truth: Truth, findings: Findings, *, account: str, patience_s: float
) -> None:
    """Check that lists show what the facts say and no more, once readers have caught up."""
    deadline = time.monotonic() + patience_s
    while True:
        found: list[tuple[str, str]] = []
        try:
            found = _differences(Api(state_dir, account), truth, account)
        except OSError as error:
            found = [("missing", f"an answer of the API: {error}")]
        if not found or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    for kind, text in found:
        findings.add(kind, text)
    for image_id, image in truth.images.items():
        blob = image["blob_id"]
        if blob and not list((state_dir / "blobs").rglob(blob)):
            findings.add("missing", f"the content of image {image_id}, blob {blob}")


def _differences(api: Api, truth: Truth, account: str) -> list[tuple[str, str]]:
    user, project = truth.users.get(account, ""), truth.projects.get(account, "")
    wanted = {
        "server": {f"{i} {s.status}" for i, s in truth.servers.items() if s.project_id == project},
        "network": {i for i, owner in truth.networks.items() if owner == project},
        "port": {i for i, port in truth.ports.items() if port["project_id"] == project},
        "keypair": {name for owner, name in truth.keypairs if owner == user},
        "image": {
            f"{i} {m['status']}" for i, m in truth.images.items() if m["project_id"] == project
        },
    }
    servers = api.pages("/compute/v2.1/servers/detail", "servers")
    images = api.pages("/image/v2/images", "images")
    listed = {
        "server": {f"{s['id']} {s['status']}" for s in servers},
        "network": {n["id"] for n in api.pages("/network/v2.0/networks", "networks")},
        "port": {p["id"] for p in api.pages("/network/v2.0/ports", "ports")},
        "keypair": {
            row["keypair"]["name"] for row in api.get("/compute/v2.1/os-keypairs")["keypairs"]
        },
        "image": {f"{m['id']} {m['status']}" for m in images if m["owner"] == project},
    }
    found = []
    for kind, there in listed.items():
        found += [("orphans", f"{kind} {one} in the API's list") for one in there - wanted[kind]]
        found += [("missing", f"{kind} {one} in the API's list") for one in wanted[kind] - there]
    return found
