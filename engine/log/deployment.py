"""The files of a broker that runs on machines of its own: what each node and each process is given.

A password is in clear in the one file of the component that says it, and as a bcrypt hash on the
nodes. No component is given another's; no private key leaves the node it was made for, but the
authority's, which stays where the files were made.
"""

import ipaddress
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

import bcrypt
from msgspec import Struct

from engine.log.accounts import SERVICES, accounts, agent_user
from engine.log.certificates import Pair, make_authority, make_server
from engine.log.configuration import Membership, Tls, render, server_config

# A password is 256 random bits: no number of rounds would make it harder to guess, while each round
# delays a thousand agents that come back at once after a node was lost.
BCRYPT_ROUNDS = 6
AUTHORITY = "ca.pem"
AUTHORITY_KEY = "ca.key"
REPLICAS = 3


class Node(Struct, frozen=True, kw_only=True):
    """A node of the broker: how clients dial it, and where other nodes do."""

    name: str
    host: str
    port: int
    cluster_port: int

    def at(self, port: int) -> str:
        """Return host:port."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


class Plan(Struct, frozen=True, kw_only=True):
    """What is wanted. Directories are those on the machines that the files are copied to.

    In ``nats_dir`` and ``store_dir``, ``{node}`` stands for the node's name.
    """

    cell: str
    nodes: Sequence[Node]
    hosts: Sequence[str]
    nats_dir: str
    store_dir: str
    state_dir: str
    store_bytes_max: int
    days: int

    @property
    def replicas(self) -> int:
        """On how many nodes each stream lies."""
        return REPLICAS if len(self.nodes) >= REPLICAS else 1

    @property
    def url(self) -> str:
        """All nodes' addresses, as clients are told them."""
        return ",".join(f"nats://{node.at(node.port)}" for node in self.nodes)


class Made(Struct, frozen=True, kw_only=True):
    """One file. ``copy_to`` is where it belongs ("": it stays), on machines of ``whose``."""

    path: str
    text: str
    whose: str
    copy_to: tuple[str, ...] = ()
    secret: bool = True


class Secrets(Struct, frozen=True, kw_only=True):
    """The authority, and each component's password by user."""

    authority: Pair
    passwords: Mapping[str, str]


# Which processes log in as which component; see docs/cluster.md.
PROCESSES = {
    "engine": ("engine",),
    "edge": ("api",),
    "history": ("projector", "archiver"),
    "courier": ("courier",),
    "admin": ("bootstrap",),
}


def make_secrets(plan: Plan, known: Secrets | None, now: datetime) -> Secrets:
    """Return secrets for the plan: those that are known, and new ones for what is new."""
    users = [*SERVICES, *map(agent_user, plan.hosts)]
    passwords = known.passwords if known else {}
    return Secrets(
        authority=known.authority if known else make_authority(plan.cell, now),
        passwords={user: passwords.get(user) or secrets.token_urlsafe(32) for user in users},
    )


def make_files(plan: Plan, given: Secrets, now: datetime) -> list[Made]:
    """Return all files, in the order in which to tell of them."""
    files = [
        Made(path=AUTHORITY, text=given.authority.certificate, whose="", secret=False),
        Made(path=AUTHORITY_KEY, text=given.authority.key, whose=""),
    ]
    hashed = {user: _hashed(password) for user, password in given.passwords.items()}
    hashed |= {f"{user}-store": hashed[user] for user in ("engine", "admin")}
    allowed = accounts(plan.cell, {agent_user(host): host for host in plan.hosts}, hashed)
    for node in plan.nodes:
        files += _node_files(plan, node, given.authority, allowed, now)
    for component, processes in PROCESSES.items():
        files.append(_component(plan, component, given.passwords[component], processes))
    files += [
        _component(plan, agent_user(host), given.passwords[agent_user(host)], ("agent",), host)
        for host in plan.hosts
    ]
    return files


def component_file(user: str) -> str:
    """Return where the password of a user lies, below the directory of the files."""
    return f"components/{user.replace('.', '-')}.json"


def _hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_ROUNDS)).decode()


def _node_files(
    plan: Plan, node: Node, authority: Pair, allowed: Mapping[str, object], now: datetime
) -> list[Made]:
    there = plan.nats_dir.replace("{node}", node.name)
    store = plan.store_dir.replace("{node}", node.name)
    server = make_server(authority, node.name, node.host, now, plan.days)
    tls = Tls(
        certificate=f"{there}/server.pem",
        key=f"{there}/server.key",
        authority=f"{there}/{AUTHORITY}",
    )
    membership = Membership(
        cluster=f"cumulog-{plan.cell}",
        node=node.name,
        listen=_listen(node, node.cluster_port),
        routes=[other.at(other.cluster_port) for other in plan.nodes],
        tls=tls,
    )
    config = server_config(
        name=node.name,
        listen=_listen(node, node.port),
        store=store,
        store_bytes_max=plan.store_bytes_max,
        accounts=allowed,
        # A single node is no cluster: it would wait for others to elect it.
        membership=membership if len(plan.nodes) > 1 else None,
        tls=tls,
    )
    texts = {
        "nats.conf": render(config),
        "server.pem": server.certificate,
        "server.key": server.key,
        AUTHORITY: authority.certificate,
    }
    return [
        Made(
            path=f"nodes/{node.name}/{name}",
            text=text,
            whose=f"node {node.name}",
            copy_to=(f"{there}/{name}",),
            secret=not name.endswith(".pem"),
        )
        for name, text in texts.items()
    ]


def _listen(node: Node, port: int) -> str:
    """Return where to listen: at the address, or everywhere where a name is given for it.

    A machine's own name is often on its loopback, where nobody else would reach it.
    """
    try:
        ipaddress.ip_address(node.host)
    except ValueError:
        return f"0.0.0.0:{port}"
    return node.at(port)


def _component(
    plan: Plan, user: str, password: str, processes: Sequence[str], host: str = ""
) -> Made:
    config = {
        "state_dir": plan.state_dir,
        "cell": plan.cell,
        "nats_url": plan.url,
        "nats_user": user,
        "nats_password": password,
        "nats_ca": f"{plan.state_dir}/{AUTHORITY}",
        "replicas": plan.replicas,
    }
    if host:
        config |= {"host_id": host, "node": host}
    return Made(
        path=component_file(user),
        text=json.dumps(config, indent=1) + "\n",
        whose=f"host {host}" if host else user,
        copy_to=tuple(f"{plan.state_dir}/run/{process}.config.json" for process in processes),
    )
