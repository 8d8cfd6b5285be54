"""What a nats-server is told: the part of its configuration that the log's promises hang on.

One place for the embedded server and for the nodes of a cluster, so that both sync every append
before it is acknowledged (``sync_interval: always``) and take messages of the same size.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
MEMORY_BYTES_MAX = 256 * 1024 * 1024
LOG_FILE_BYTES_MAX = 64 * 1024 * 1024
TLS_S = 5


class Tls(Struct, frozen=True, kw_only=True):
    """Where a server finds its certificate, its key and the authority of its cluster."""

    certificate: str
    key: str
    authority: str


class Membership(Struct, frozen=True, kw_only=True):
    """A node's place in its cluster.

    ``node`` is its name, unique there. ``listen`` is host:port for the other nodes, ``routes`` are
    all nodes' ``host:port``, its own may be among them. Nodes know each other by their certificates
    (``tls``), or, on one machine, by a ``password``.
    """

    cluster: str
    node: str
    listen: str
    routes: Sequence[str]
    password: str = ""
    tls: Tls | None = None


def server_config(
    *,
    name: str,
    listen: str,
    store: str,
    store_bytes_max: int,
    accounts: Mapping[str, Any],
    log_file: str = "",
    membership: Membership | None = None,
    tls: Tls | None = None,
) -> dict[str, Any]:
    """Return a nats-server's configuration, for ``render``.

    Without a ``log_file`` it logs to standard error.

    See NATS documentation, "Server configuration" and "JetStream clustering".
    """
    config: dict[str, Any] = {
        "server_name": membership.node if membership else name,
        "listen": listen,
        "max_payload": PAYLOAD_BYTES_MAX,
        "max_pending": 256 * 1024 * 1024,
        "write_deadline": "30s",
        "ping_interval": "30s",
        "jetstream": {
            "store_dir": store,
            "sync_interval": "always",
            "max_memory_store": MEMORY_BYTES_MAX,
            "max_file_store": store_bytes_max,
        },
        "system_account": "SYS",
        "accounts": dict(accounts),
    }
    if log_file:
        config |= {"log_file": log_file, "log_size_limit": LOG_FILE_BYTES_MAX, "log_max_num": 2}
    if tls is not None:
        # The handshake comes first of all: a client never says its password to whom it does not
        # know, whatever the other side claims to require.
        config["tls"] = _tls(tls) | {"handshake_first": True}
    if membership is not None:
        config["cluster"] = _cluster(membership)
    return config


def _cluster(membership: Membership) -> dict[str, Any]:
    login = f"route:{membership.password}@" if membership.password else ""
    cluster: dict[str, Any] = {
        "name": membership.cluster,
        "listen": membership.listen,
        "routes": [f"nats-route://{login}{route}" for route in membership.routes],
        # Clients are told of all nodes, by the names that are in the certificates.
        "no_advertise": True,
        # A node that is paused keeps its connections; until it is given up on, requests go there.
        "ping_interval": "2s",
        "ping_max": 2,
    }
    if membership.password:
        cluster["authorization"] = {"user": "route", "password": membership.password}
    if membership.tls is not None:
        cluster["tls"] = _tls(membership.tls) | {"verify": True}
    return cluster


def _tls(tls: Tls) -> dict[str, Any]:
    return {
        "cert_file": tls.certificate,
        "key_file": tls.key,
        "ca_file": tls.authority,
        "min_version": "1.3",
        "timeout": TLS_S,
    }


def render(config: Mapping[str, Any]) -> str:
    """Return a nats-server configuration file; the format is a superset of JSON."""
    return json.dumps(config, indent=1, ensure_ascii=False) + "\n"
