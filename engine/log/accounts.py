"""Who may say what on the broker: accounts, users and their permissions.

Two accounts, because a permission on a subject does not bound what a *reply* may reach. Whoever may
ask JetStream anything (read a message, acknowledge one) chooses the subject that the server itself
then publishes the answer to, and the server may publish anywhere in that account: into the log's
subject, or to ``$JS.API.STREAM.DELETE.…``. So:

- ``STORE`` holds the streams (log, work, keys). Only ``engine-store`` and ``admin-store`` log in.
- ``CELL`` holds everybody and no stream at all: ``engine``, ``edge``, ``agent``, ``history``,
  ``admin``. What these need of the streams is imported, call by call; answers come back here.

Each user has an inbox prefix of its own, ``_INBOX_<user>.>``, that no other may listen to.
See NATS documentation, "Accounts" and "Authorization".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.subjects import Subjects

USERS = ("engine", "edge", "agent", "history", "admin", "engine-store", "admin-store")
EXECUTORS = ("hypervisor", "storage", "network")


def feed(cell: str) -> str:
    """Return the subject prefix on which commits are announced: ``<cell>.feed.<sequence>``."""
    return f"{cell}.feed"


def work_consumer(host: str, executor: str) -> str:
    """Return the name of the consumer that hands a host's executor its work items."""
    return f"{host}-{executor}"


def accounts(cell: str, host: str, passwords: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``accounts`` block of a nats-server configuration.

    ``passwords`` has an entry for each of ``USERS``; ``engine`` and ``engine-store`` may share one.
    """
    names = Subjects(cell=cell)
    keys_stream = f"KV_{names.keys_bucket}"
    keys_read = f"$JS.API.DIRECT.GET.{keys_stream}.>"
    keys_write = f"$KV.{names.keys_bucket}.>"
    log_read = f"$JS.API.DIRECT.GET.{names.log_stream}"
    queues = [f"{names.work_stream}.{work_consumer(host, e)}" for e in EXECUTORS]
    work_next = [f"$JS.API.CONSUMER.MSG.NEXT.{queue}" for queue in queues]
    work_ack = [f"$JS.ACK.{queue}.>" for queue in queues]

    def user(
        name: str, publish: Sequence[str], subscribe: Sequence[str], never: Sequence[str] = ()
    ) -> dict[str, Any]:
        return {
            "user": name,
            "password": passwords[name],
            "permissions": {
                "publish": {"allow": list(publish), "deny": list(never)},
                "subscribe": {"allow": [*subscribe, f"_INBOX_{name}.>"]},
            },
        }

    def answers(*users: str) -> list[str]:
        return [f"_INBOX_{name}.>" for name in (*users, "admin")]

    edge = user(
        "edge",
        [
            names.submit_api,
            names.engine("*"),
            f"{cell}.ask.>",
            names.history("*"),
            keys_read,
            keys_write,
            log_read,
            *answers("agent"),
        ],
        [names.projected("*"), names.heartbeat("*"), names.metadata("*"), f"{feed(cell)}.*"],
        never=[names.engine("bootstrap")],  # the administrator's
    )
    agent = user(
        "agent",
        [
            names.submit_agent(host),
            names.desired(host),
            names.heartbeat(host),
            names.metadata(host),
            *work_next,
            *work_ack,
            *answers("edge"),
        ],
        [f"{cell}.ask.{host}.>"],
    )
    history = user(
        "history",
        [names.projected("*"), names.engine("digest"), log_read, *answers("edge")],
        [names.history("*"), names.projected("*"), f"{feed(cell)}.*"],
    )
    engine = user(
        "engine",
        [f"{cell}.>", log_read, *answers("engine", "edge", "agent", "history")],
        [f"{cell}.>"],
    )
    everything = {"publish": ">", "subscribe": ">"}
    admin = {"user": "admin", "password": passwords["admin"], "permissions": everything}
    admin_store = {
        "user": "admin-store",
        "password": passwords["admin-store"],
        "permissions": everything,
    }
    shared = [
        *({"service": subject, "response_type": "stream"} for subject in (log_read, *work_next)),
        *({"service": subject} for subject in (*work_ack, keys_read, keys_write)),
    ]
    return {
        "STORE": {
            "jetstream": "enabled",
            "users": [_engine_store(names, passwords["engine-store"]), admin_store],
            "exports": [entry | {"accounts": ["CELL"]} for entry in shared],
        },
        "CELL": {
            "users": [engine, edge, agent, history, admin],
            "imports": [
                {"service": {"account": "STORE", "subject": entry["service"]}} for entry in shared
            ],
        },
    }


def _engine_store(names: Subjects, password: str) -> dict[str, Any]:
    """The engine's hands on the streams: append and read the log, but never alter it."""
    keys = f"KV_{names.keys_bucket}"
    may = [
        "$JS.API.INFO",
        *(
            f"$JS.API.STREAM.{call}.{stream}"
            for call in ("CREATE", "INFO", "MSG.GET")
            for stream in (names.log_stream, names.work_stream, keys)
        ),
        *(
            f"$JS.API.DIRECT.GET.{stream}{rest}"
            for stream in (names.log_stream, names.work_stream, keys)
            for rest in ("", ".>")
        ),
        f"$JS.API.STREAM.MSG.DELETE.{keys}",  # erases a destroyed key from the disk
        f"$JS.API.STREAM.UPDATE.{names.work_stream}",
        f"$JS.API.STREAM.PURGE.{names.work_stream}",
        *(
            f"$JS.API.CONSUMER.{call}.{stream}.{rest}"
            for call, rest in (("CREATE", ">"), ("INFO", "*"), ("DELETE", "*"), ("MSG.NEXT", "*"))
            for stream in (names.log_stream, names.work_stream)
        ),
        names.log,
        names.work_all,
        f"$KV.{names.keys_bucket}.>",
    ]
    return {
        "user": "engine-store",
        "password": password,
        "permissions": {
            "publish": {"allow": may},
            "subscribe": {"allow": ["_INBOX_engine-store.>"]},
        },
    }


def render(config: Mapping[str, Any]) -> str:
    """Return a nats-server configuration file; the format is a superset of JSON."""
    return json.dumps(config, indent=1, ensure_ascii=False) + "\n"
