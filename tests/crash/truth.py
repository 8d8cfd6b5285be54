"""What the log's facts say there is: its own small fold, for the checker.

Deliberately another one than the engine's and the read models': only what can be compared with an
answer, a list or a thing on the host is kept. A fact that is not named here changes nothing that is
compared.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.crash.chain import Entry

TERMINAL = {
    f"operation.operation.{end}.v1" for end in ("succeeded", "failed", "cancelled", "timed_out")
}
# Statuses of a server that follow from a fact alone.
STATUS = {
    "compute.server.started.v1": "ACTIVE",
    "compute.server.rebooted.v1": "ACTIVE",
    "compute.server.stopped.v1": "SHUTOFF",
    "compute.server.failed.v1": "ERROR",
}


@dataclass
class Server:
    """A server as the facts leave it."""

    name: str
    project_id: str
    status: str = "BUILD"
    host_id: str = ""


@dataclass
class Truth:
    """The fold of all records."""

    by_request: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    by_key: dict[tuple[str, str, str], list[Entry]] = field(
        default_factory=lambda: defaultdict(list)
    )
    created: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # kind, owner, name
    servers: dict[str, Server] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)  # id: project
    ports: dict[str, dict[str, Any]] = field(default_factory=dict)
    keypairs: set[tuple[str, str]] = field(default_factory=set)  # user, name
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)  # name: id
    projects: dict[str, str] = field(default_factory=dict)  # name: id
    started: dict[str, dict[str, Any]] = field(default_factory=dict)  # operations
    ended: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    leaders: int = 0
    ordinal: int = 0

    def unfinished(self) -> list[str]:
        """Return the operations that have begun and not ended."""
        return sorted(self.started.keys() - self.ended.keys())

    def ends(self) -> Counter[str]:
        """Return how many operations ended how: succeeded, failed, cancelled, timed_out."""
        return Counter(end.split(".")[2] for ends in self.ended.values() for end in ends)


def fold(entries: Iterable[Entry]) -> Truth:
    """Return what all these records together say."""
    truth = Truth()
    for entry in entries:
        request = entry.record["request"]
        truth.by_request[request["request_id"]].append(entry)
        if request.get("key") is not None:
            actor = request["actor"]
            owner = actor.get("user_id", ""), actor.get("project_id", "")
            truth.by_key[*owner, request["key"]].append(entry)
        for ordinal, fact in enumerate(entry.record["facts"], entry.first + 1):
            _apply(truth, fact, ordinal)
        truth.ordinal = entry.last
    return truth


def _apply(truth: Truth, fact: dict[str, Any], ordinal: int) -> None:
    kind = fact["type"]
    area = kind.split(".")[1]
    if kind in TERMINAL:
        truth.ended[fact["operation_id"]].append(f"{kind} at {ordinal}")
    elif kind == "operation.operation.started.v1":
        truth.started[fact["operation"]["operation_id"]] = fact["operation"]
    elif kind == "engine.leader.elected.v1":
        truth.leaders += 1
    elif area == "server":
        _server(truth, kind, fact)
    elif area == "keypair":
        _keypair(truth, kind, fact)
    elif area == "image":
        _image(truth, kind, fact)
    elif kind == "network.network.created.v1":
        network = fact["network"]
        truth.networks[network["network_id"]] = network["project_id"]
        truth.created["network", network["project_id"], network["name"]] += 1
    elif kind == "network.network.deleted.v1":
        truth.networks.pop(fact["network_id"], None)
    elif kind in {"network.port.created.v1", "network.port.updated.v1"}:
        truth.ports[fact["port"]["port_id"]] = fact["port"]
    elif kind == "network.port.deleted.v1":
        truth.ports.pop(fact["port_id"], None)
    elif kind in {"identity.user.created.v1", "identity.user.updated.v1"}:
        truth.users[fact["user"]["name"]] = fact["user"]["user_id"]
    elif kind in {"identity.project.created.v1", "identity.project.updated.v1"}:
        truth.projects[fact["project"]["name"]] = fact["project"]["project_id"]


def _server(truth: Truth, kind: str, fact: dict[str, Any]) -> None:
    if kind == "compute.server.created.v1":
        made = fact["server"]
        truth.servers[made["server_id"]] = Server(made["name"], made["project_id"])
        truth.created["server", made["project_id"], made["name"]] += 1
        return
    if kind == "compute.server.deleted.v1":
        truth.servers.pop(fact["server_id"], None)
        return
    server = truth.servers.get(fact["server_id"])
    if server is None:
        return
    server.status = STATUS.get(kind, server.status)
    if kind == "compute.server.placed.v1":
        server.host_id = fact["host_id"]
    elif kind == "compute.server.reboot_requested.v1":
        server.status = "HARD_REBOOT" if fact["hard"] else "REBOOT"
    elif kind == "compute.server.task_failed.v1":
        server.status = "ACTIVE" if fact["running"] else "SHUTOFF"


def _keypair(truth: Truth, kind: str, fact: dict[str, Any]) -> None:
    if kind == "compute.keypair.created.v1":
        made = fact["keypair"]
        truth.keypairs.add((made["user_id"], made["name"]))
        truth.created["keypair", made["user_id"], made["name"]] += 1
    elif kind == "compute.keypair.deleted.v1":
        truth.keypairs.discard((fact["user_id"], fact["name"]))


def _image(truth: Truth, kind: str, fact: dict[str, Any]) -> None:
    if kind in {"image.image.created.v1", "image.image.updated.v1"}:
        made = fact["image"]
        if kind == "image.image.created.v1":
            truth.created["image", made["project_id"], made["name"]] += 1
        truth.images[made["image_id"]] = dict(made)
    elif kind == "image.image.deleted.v1":
        truth.images.pop(fact["image_id"], None)
    elif image := truth.images.get(fact["image_id"]):  # none: the commit before was taken out
        if kind == "image.image.uploaded.v1":
            image["blob_id"] = fact["blob_id"]
        elif kind == "image.image.activated.v1":
            image["status"] = "active"
        elif kind == "image.image.rejected.v1":
            image |= {"blob_id": None, "status": "queued"}
