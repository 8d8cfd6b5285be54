"""Three nats-servers on the loopback as one cluster, and what can happen to each."""

import asyncio
import os
import secrets
import signal
from pathlib import Path

from engine.bus.client import Bus
from engine.log import server
from engine.log.configuration import Membership

NAMES = ("n1", "n2", "n3")


class Cluster:
    """Nodes by name. All have the same users and passwords; each has a store of its own."""

    def __init__(self, root: Path, cell: str) -> None:
        self.cell = cell
        self._root = root
        self._route_ports = {name: server.free_port() for name in NAMES}
        self._route_password = secrets.token_urlsafe(32)
        self.ports = dict.fromkeys(NAMES, 0)
        self.nodes: dict[str, server.NatsServer] = {}
        self.paused: set[str] = set()
        self.passwords: dict[str, str] = {}

    @property
    def url(self) -> str:
        """All nodes' addresses."""
        return ",".join(f"nats://127.0.0.1:{self.ports[name]}" for name in NAMES)

    def url_of(self, name: str) -> str:
        return f"nats://127.0.0.1:{self.ports[name]}"

    def start(self, name: str) -> None:
        membership = Membership(
            cluster=self.cell,
            node=name,
            listen=f"127.0.0.1:{self._route_ports[name]}",
            routes=[f"127.0.0.1:{port}" for port in self._route_ports.values()],
            password=self._route_password,
        )
        started = server.start(
            self._root / name,
            self.ports[name],
            cell=self.cell,
            membership=membership,
            passwords=self.passwords,
        )
        self.ports[name] = started.port
        self.passwords = started.credentials
        self.nodes[name] = started

    def kill(self, name: str) -> None:
        """End it as kill -9 does."""
        self.nodes[name].process.kill()
        self.nodes[name].process.wait(10)

    def pause(self, name: str) -> None:
        os.kill(self.nodes[name].pid, signal.SIGSTOP)
        self.paused.add(name)

    def resume(self, name: str) -> None:
        os.kill(self.nodes[name].pid, signal.SIGCONT)
        self.paused.discard(name)

    def stop(self) -> None:
        for name in list(self.paused):
            self.resume(name)
        for node in self.nodes.values():
            node.process.kill()
            node.process.wait(10)

    async def connect(self, user: str = "admin", *, node: str = "", name: str = "test") -> Bus:
        """Connect to all nodes, or to one of them only."""
        return await Bus.connect(
            self.url_of(node) if node else self.url,
            user=user,
            password=self.passwords[user],
            name=name,
            cell=self.cell,
        )


async def started(root: Path, cell: str) -> Cluster:
    """Return a cluster whose nodes all answer; its streams may take a moment more."""
    cluster = Cluster(root, cell)
    try:
        for name in NAMES:
            await asyncio.to_thread(cluster.start, name)
    except BaseException:
        cluster.stop()
        raise
    return cluster
