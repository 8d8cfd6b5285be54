"""Who may say what on the broker: accounts, users and their permissions.

Many accounts, because a permission on a subject does not bound what a *reply* may reach. Whoever
may ask anybody anything (a stream for a message, a service for an answer) chooses the subject that
the answer is published to, and the answer's own sender may publish anywhere in that account: into
the log's subject, or to ``$JS.API.STREAM.DELETE.…``. The same goes for whoever may make a consumer
or a stream, which publish where their configuration says. So everybody has an account of its own,
in which there is nothing but what it may do itself, and answers never leave it:

- ``STORE`` holds what cannot be made again: the log, the keys, and who asked what of the edges
  (``ACCESS``). Only ``admin-store`` logs in.
- ``DERIVED`` holds what can: work items and the lease, in memory. Nobody logs in.
- ``ENGINE``: ``engine-store``, the engine's hands on the streams.
- ``CELL``: ``engine``, which answers, and ``admin``.
- ``EDGE``: ``edge``. ``HISTORY``: ``history``. ``COURIER``: ``courier``.
  ``HOST-<host>``: the agent of that host.
- ``SYS`` is the server's own. Of it one question is exported: how each server keeps its streams.

None of the last five kinds holds a stream. What they need of others is imported, call by call.

Each user has an inbox prefix of its own, ``_INBOX_<user>.>``. An agent is ``agent.<host>``;
embedded, where there is one host, it is ``agent``. See NATS documentation, "Accounts" and
"Authorization".
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from schemas.subjects import LOG_STREAMS_MAX, Subjects

SERVICES = ("engine", "edge", "history", "courier", "admin")
# A process with two connections has one secret for both.
STORE_SIDE = ("engine-store", "admin-store")
AGENT = "agent"
USERS = ("engine", "edge", AGENT, "history", "courier", "admin", *STORE_SIDE)
EXECUTORS = ("hypervisor", "storage", "network")
# Answered by every server: its version, and how it keeps streams (nats-server, JSInfo).
SERVERS = "$SYS.REQ.SERVER.PING.JSZ"
# Which streams there are; tells names alone.
STREAMS = "$JS.API.STREAM.NAMES"
EVERYTHING = {"publish": ">", "subscribe": ">"}


def agent_user(host: str) -> str:
    """Return the user that the agent of a host logs in as, in a cluster."""
    return f"{AGENT}.{host}"


def feed(cell: str) -> str:
    """Return the subject prefix on which commits are announced: ``<cell>.feed.<sequence>``."""
    return f"{cell}.feed"


def work_consumer(host: str, executor: str) -> str:
    """Return the name of the consumer that hands a host's executor its work items."""
    return f"{host}-{executor}"


def accounts(cell: str, agents: Mapping[str, str], passwords: Mapping[str, str]) -> dict[str, Any]:
    """Return the ``accounts`` block of a nats-server configuration.

    ``agents`` maps the user of each agent to its host. ``passwords`` has an entry for each agent,
    and for each of ``USERS`` but ``agent``; they may be given as bcrypt hashes.
    """
    names = Subjects(cell=cell)
    made = {
        "SYS": {"exports": [_service(SERVERS, many=True)]},
        "STORE": _store(names),
        "DERIVED": _derived(names),
        "ENGINE": _engine_hands(names),
        "CELL": _cell(names, agents.values()),
        "EDGE": _edge(names, agents.values()),
        "HISTORY": _history(names),
        "COURIER": _courier(names),
        **{_host_account(host): _host(names, user, host) for user, host in agents.items()},
    }
    for account in made.values():
        for user in account.get("users", []):
            user["password"] = passwords[user["user"]]
    return made


def _store(names: Subjects) -> dict[str, Any]:
    calls = [*_keys(names), *_store_calls(names), names.log_all, names.access("*")]
    return {
        "jetstream": "enabled",
        "users": [{"user": "admin-store", "permissions": EVERYTHING}],
        "exports": [
            *(_service(read, many=True) for read in (*_log_reads(names), _access_read(names))),
            *(_service(subject) for subject in calls),
        ],
        "imports": [_import("SYS", SERVERS)],
    }


def _derived(names: Subjects) -> dict[str, Any]:
    calls = [*_derived_calls(names), *_derived_writes(names)]
    return {
        "jetstream": "enabled",
        "exports": [
            _service(f"$JS.API.CONSUMER.MSG.NEXT.{names.work_stream}.*", many=True),
            _service(f"$JS.ACK.{names.work_stream}.>"),
            *(_service(subject) for subject in calls),
        ],
    }


def _engine_hands(names: Subjects) -> dict[str, Any]:
    """Append and read the log, but never make or alter it; make what work and lease lie in."""
    direct = [*_log_reads(names), *_keys(names), names.log_all]
    store, derived = _store_calls(names), _derived_calls(names)
    mapped = [_mapped(call) for call in [*store, *derived]]
    may = [SERVERS, *direct, *_derived_writes(names), *mapped]
    return {
        "users": [_user("engine-store", may, [])],
        "mappings": {call: _mapped(call) for call in [*store, *derived]},
        "imports": [
            _import("SYS", SERVERS),
            *(_import("STORE", subject) for subject in direct),
            *(_import("STORE", call, to=_mapped(call)) for call in store),
            *(_import("DERIVED", subject) for subject in _derived_writes(names)),
            *(_import("DERIVED", call, to=_mapped(call)) for call in derived),
        ],
    }


def _cell(names: Subjects, hosts: Collection[str]) -> dict[str, Any]:
    """The engine answers here, and tells of each commit; the administrator may ask and hear all."""
    return {
        "users": [
            _user("engine", [f"{names.cell}.>", *_answers("admin")], [f"{names.cell}.>"]),
            {"user": "admin", "permissions": EVERYTHING},
        ],
        "exports": [
            *(_service(subject) for subject in [names.submit_api, names.engine("*")]),
            *(_service(subject) for subject in [names.submit_agents, names.desired("*")]),
            _service(names.submit_courier),
            _service(names.submit_history),
            _stream(f"{feed(names.cell)}.*"),
        ],
        "imports": [
            _import("HISTORY", names.history("*")),
            _hear("HISTORY", names.projected("*")),
            *(_import(_host_account(host), _asked(names, host)) for host in hosts),
            *(_hear(_host_account(host), names.heartbeat(host)) for host in hosts),
        ],
    }


def _edge(names: Subjects, hosts: Collection[str]) -> dict[str, Any]:
    """Submits for people who have shown a token, and tells of all who asked; reads the log."""
    reads = [*_log_reads(names), *_keys(names)]
    asks = [names.submit_api, names.engine("*")]
    feeds = f"{feed(names.cell)}.*"
    told = [names.projected("*"), names.proven("*")]
    hears = [*told, names.heartbeat("*"), names.metadata("*"), feeds]
    key_found = f"$JS.API.STREAM.MSG.GET.KV_{names.keys_bucket}"
    history = [names.history("*"), names.metrics("*"), names.moment("*")]
    asked = [*history, names.courier("*")]
    questions = [f"{names.cell}.ask.>", *asked]
    says = [*asks, *questions, *reads, names.access("*")]
    mapped = {call: _mapped(call) for call in (key_found, STREAMS)}
    edge = _user(
        "edge",
        [*says, *mapped.values(), *_answers()],
        hears,
        never=[names.engine("bootstrap")],  # the administrator's
    )
    return {
        "users": [edge],
        "mappings": mapped,
        "exports": [_service(names.metadata("*"))],
        "imports": [
            *(_import("STORE", call, to=to) for call, to in mapped.items()),
            *(_import("STORE", subject) for subject in (*reads, names.access("*"))),
            *(_import("CELL", subject) for subject in asks),
            _hear("CELL", feeds),
            *(_import("HISTORY", subject) for subject in history),
            _import("COURIER", names.courier("*")),
            *(_hear("HISTORY", subject) for subject in told),
            *(_import(_host_account(host), _asked(names, host)) for host in hosts),
            *(_hear(_host_account(host), names.heartbeat(host)) for host in hosts),
        ],
    }


def _history(names: Subjects) -> dict[str, Any]:
    """Projectors and archivers: read the log, tell how far they are, answer about the past."""
    asks = [names.engine("digest"), names.submit_history]
    feeds = f"{feed(names.cell)}.*"
    reads = [*_log_reads(names), _access_read(names)]
    calls = [STREAMS, *_log_infos(names)]
    told = [names.projected("*"), names.proven("*")]
    # Before these answers come signs of life, each of which keeps the way back open.
    long = [names.history("*"), names.moment("*")]
    answers = [names.history("*"), names.metrics("*"), names.moment("*")]
    history = _user(
        "history",
        [*told, *asks, *reads, *(_mapped(call) for call in calls), *_answers()],
        [*answers, *told, feeds],
    )
    return {
        "users": [history],
        "mappings": {call: _mapped(call) for call in calls},
        "exports": [
            *(_service(subject, many=subject in long) for subject in answers),
            *(_stream(subject) for subject in told),
        ],
        "imports": [
            *(_import("STORE", read) for read in reads),
            *(_import("STORE", call, to=_mapped(call)) for call in calls),
            *(_import("CELL", subject) for subject in asks),
            _hear("CELL", feeds),
        ],
    }


def _courier(names: Subjects) -> dict[str, Any]:
    """Sends events to strangers: hears how far readers are, and opens what they are signed with."""
    key_read, _ = _keys(names)
    key_found = f"$JS.API.STREAM.MSG.GET.KV_{names.keys_bucket}"
    says = [names.submit_courier, key_read, _mapped(key_found), *_answers()]
    return {
        "users": [_user("courier", says, [names.courier("*"), names.projected("*")])],
        "mappings": {key_found: _mapped(key_found)},
        "exports": [_service(names.courier("*"))],
        "imports": [
            _import("STORE", key_found, to=_mapped(key_found)),
            _import("STORE", key_read),
            _import("CELL", names.submit_courier),
            _hear("HISTORY", names.projected("*")),
        ],
    }


def _host(names: Subjects, user: str, host: str) -> dict[str, Any]:
    """An agent takes its own host's work and speaks for its own host."""
    queues = [f"{names.work_stream}.{work_consumer(host, executor)}" for executor in EXECUTORS]
    work = [
        *(f"$JS.API.CONSUMER.MSG.NEXT.{queue}" for queue in queues),
        *(f"$JS.ACK.{queue}.>" for queue in queues),
    ]
    reports = [names.submit_agent(host), names.desired(host)]
    says = [*work, *reports, names.metadata(host), names.heartbeat(host)]
    return {
        "users": [_user(user, [*says, *_answers()], [_asked(names, host)])],
        "exports": [_service(_asked(names, host)), _stream(names.heartbeat(host))],
        "imports": [
            *(_import("DERIVED", subject) for subject in work),
            *(_import("CELL", subject) for subject in reports),
            _import("EDGE", names.metadata(host)),
        ],
    }


def _host_account(host: str) -> str:
    return f"HOST-{host}"


def _asked(names: Subjects, host: str) -> str:
    return f"{names.cell}.ask.{host}.>"


def _user(
    name: str, publish: Sequence[str], subscribe: Sequence[str], never: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "user": name,
        "permissions": {
            "publish": {"allow": list(publish), "deny": list(never)},
            "subscribe": {"allow": [*subscribe, f"_INBOX_{name}.>"]},
        },
    }


def _answers(*neighbours: str) -> list[str]:
    """Return where answers go: to what the server put in place of the asker's own subject.

    And, to ``neighbours`` in the same account, to their inbox.
    """
    return ["_R_.>", *(f"_INBOX_{user}.>" for user in neighbours)]


def _log_streams(names: Subjects) -> list[str]:
    """Return the streams that the log lies in, by and by: names that no wildcard singles out."""
    return [names.log_stream_of(number) for number in range(1, LOG_STREAMS_MAX + 1)]


def _log_reads(names: Subjects) -> list[str]:
    return [f"$JS.API.DIRECT.GET.{stream}" for stream in _log_streams(names)]


def _log_infos(names: Subjects) -> list[str]:
    """Return the questions where each stream of the log ends; its leader alone answers."""
    return [f"$JS.API.STREAM.INFO.{stream}" for stream in _log_streams(names)]


def _access_read(names: Subjects) -> str:
    return f"$JS.API.DIRECT.GET.{names.access_stream}"


def _keys(names: Subjects) -> list[str]:
    return [
        f"$JS.API.DIRECT.GET.KV_{names.keys_bucket}.>",
        f"$KV.{names.keys_bucket}.>",
    ]


def _store_calls(names: Subjects) -> list[str]:
    """Return what the engine may ask about the log and the keys."""
    keys = f"KV_{names.keys_bucket}"
    return [
        STREAMS,
        *(*_log_infos(names), f"$JS.API.STREAM.INFO.{keys}"),
        *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in (*_log_streams(names), keys)),
        f"$JS.API.STREAM.MSG.DELETE.{keys}",  # erases a destroyed key from the disk
    ]


def _derived_calls(names: Subjects) -> list[str]:
    """Return what the engine may ask about work and lease: it makes them, when they are gone."""
    lease = f"KV_{names.lease_bucket}"
    return [
        *(
            f"$JS.API.STREAM.{call}.{stream}"
            for call in ("CREATE", "INFO", "MSG.GET")
            for stream in (names.work_stream, lease)
        ),
        f"$JS.API.CONSUMER.CREATE.{names.work_stream}.>",
        f"$JS.API.CONSUMER.INFO.{names.work_stream}.>",
        f"$JS.API.CONSUMER.DELETE.{names.work_stream}.>",
    ]


def _derived_writes(names: Subjects) -> list[str]:
    return [names.work_all, f"$KV.{names.lease_bucket}.>"]


def _mapped(call: str) -> str:
    """Return the subject that stands for a call of the API elsewhere, in an account without one.

    Under its own the server would answer that there is no JetStream here. The server replaces what
    a client says by it before it looks at permissions.
    """
    return f"API.{call.removeprefix('$JS.API.')}"


def _service(subject: str, *, many: bool = False) -> dict[str, Any]:
    return {"service": subject} | ({"response_type": "stream"} if many else {})


def _stream(subject: str) -> dict[str, Any]:
    return {"stream": subject}


def _import(account: str, subject: str, *, to: str = "") -> dict[str, Any]:
    return {"service": {"account": account, "subject": subject}} | ({"to": to} if to else {})


def _hear(account: str, subject: str) -> dict[str, Any]:
    return {"stream": {"account": account, "subject": subject}}
