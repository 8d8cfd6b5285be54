"""Commands about the audit log: who asked for what, what came of it, and proofs of that."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import proofs
from cli.blast_radius import blast_radius
from cli.client import quoted, with_query
from cli.events import about, outcome_of
from cli.output import Column, Output, Row, when
from cli.problem import UNREACHABLE, USAGE, Problem
from cli.session import Session, command, group
from cli.tree import Node, drawn

if TYPE_CHECKING:
    from cli.client import Client

audit_app = group("Who asked for what, and what came of it.")


def _asked(row: Row) -> str:
    """Return what was asked: an action of the log, or how a read was called."""
    if row["source"] == "log":
        return str(row["tag"])
    if row["gathered"]:
        return "…"  # more than were told apart
    where = row["route"] or ("(by a guest)" if row["api"] == "metadata" else "(no such path)")
    called = f"{row['method'] or '?'} {row['api']} {where}"
    return f"{called} (dry run)" if row["dry_run"] else called


def _came_of_it(row: Row) -> str:
    if row["source"] == "log":
        return outcome_of(row)
    return f"{row['status']} {row['reason']}".rstrip()


def _took(row: Row) -> str:
    return "" if row["max_us"] is None else f"{row['max_us'] / 1000:.1f}"


AUDIT_COLUMNS: list[Column] = [
    ("ORDINAL", lambda row: row["ordinal"] or ""),
    ("AT", lambda row: when(row["at"])),
    ("WHAT", _asked),
    ("ABOUT", about),
    ("OUTCOME", _came_of_it),
    ("TIMES", "count"),
    ("MS", _took),
    ("USER", "user_id"),
    ("ADDRESS", "address"),
    ("REQUEST", "request_id"),
]
GAP_COLUMNS: list[Column] = [
    ("EDGE", "edge"),
    ("SINCE", lambda gap: when(gap["since"])),
    ("UNTIL", lambda gap: when(gap["until"])),
    ("WHAT", "what"),
    ("REQUESTS", lambda gap: "?" if gap["requests"] is None else gap["requests"]),
    ("MESSAGES", lambda gap: "" if gap["messages"] is None else gap["messages"]),
]
PAGE_MAX = 1000
EXPORT_S = 600.0  # each wait: what is rare is looked for in all there is


class Format(enum.StrEnum):
    """What an export may be written as."""

    JSONL = "jsonl"
    CSV = "csv"
    CADF = "cadf"
    CLOUDEVENTS = "cloudevents"


Reads = Annotated[
    bool, typer.Option("--reads", help="What changed nothing, and who was not let in.")
]
Everything = Annotated[bool, typer.Option("--all", help="Both: mutations, and what --reads lists.")]
Denied = Annotated[
    bool, typer.Option("--denied", help="Only what the policy or the token forbade.")
]
User = Annotated[str | None, typer.Option(help="Only by this user (name or id).")]
Project = Annotated[str | None, typer.Option(help="Only of this project (name or id).")]
Address = Annotated[str | None, typer.Option(help="Only from this address.")]
Action = Annotated[
    str | None, typer.Option(help="Only this action, as CreateServer or compute:servers:read.")
]
RequestId = Annotated[str | None, typer.Option(help="Only this request, as req-….")]
Outcome = Annotated[str | None, typer.Option(help="accepted or refused.")]
Resource = Annotated[str | None, typer.Option(help="Only about this id.")]
Since = Annotated[str | None, typer.Option(help="From this time on (ISO 8601).")]
Until = Annotated[str | None, typer.Option(help="Before this time (ISO 8601).")]
People = Annotated[bool, typer.Option(help="Leave out agents and the system.")]


@command(audit_app, "log", reads=True)
def log(
    session: Session,
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    reads: Reads = False,
    everything: Everything = False,
    denied: Denied = False,
    user: User = None,
    project: Project = None,
    address: Address = None,
    action: Action = None,
    request_id: RequestId = None,
    outcome: Outcome = None,
    resource: Resource = None,
    since: Since = None,
    until: Until = None,
    people: People = False,
) -> None:
    """List requests with what was decided, newest first.

    Mutations are in the log for ever. Reads, and who was not let in, are kept for 90 days at most,
    counted by the second; `cumulog audit gaps` says what of them is missing.

    \b
    cumulog audit log --denied --since 2026-11-01T00:00:00Z
    cumulog audit log --all --resource SERVER
    """  # noqa: D301  # click's mark for lines that stay as they are
    client = session.client
    query = _query(
        client,
        reads=reads,
        everything=everything,
        denied=denied,
        user=user,
        project=project,
        people=people,
        address=address,
        action=action,
        request_id=request_id,
        outcome=outcome,
        resource_id=resource,
        since=since,
        until=until,
    )
    rows: list[Row] = []
    before: str | int | None = None
    while len(rows) < limit:
        page = client.get(
            "/v1/audit", limit=min(PAGE_MAX, limit - len(rows)), before=before, **query
        )
        rows += page["requests"]
        before = page.get("next_before")
        if before is None:
            break
    session.show_all(rows, AUDIT_COLUMNS)


@command(audit_app, "export")
def export(
    session: Session,
    *,
    format_: Annotated[
        Format, typer.Option("--format", help="In which form: each is told in the docs.")
    ] = Format.JSONL,
    file: Annotated[
        Path | None, typer.Option(help="Into this file, whole or not at all; none: printed.")
    ] = None,
    reads: Reads = False,
    everything: Everything = False,
    denied: Denied = False,
    user: User = None,
    project: Project = None,
    address: Address = None,
    action: Action = None,
    request_id: RequestId = None,
    outcome: Outcome = None,
    resource: Resource = None,
    since: Since = None,
    until: Until = None,
    people: People = False,
) -> None:
    """Write all that `audit log` would list, oldest first: CloudEvents, CADF, JSON lines or CSV.

    A line is a record: with cloudevents a request or one of its facts, else a request. It streams,
    however much there is, and ends with what was there when it was asked for.

    \b
    cumulog audit export --format cadf --since 2026-11-01T00:00:00Z --file november.jsonl
    cumulog audit export --format csv --all --user alice > alice.csv
    """  # noqa: D301  # click's mark for lines that stay as they are
    client = session.client
    client.timeout_s = EXPORT_S
    query = _query(
        client,
        reads=reads,
        everything=everything,
        denied=denied,
        user=user,
        project=project,
        people=people,
        address=address,
        action=action,
        request_id=request_id,
        outcome=outcome,
        resource_id=resource,
        since=since,
        until=until,
    )
    lines = client.lines(with_query("/v1/audit/export", query | {"format": format_.value}))
    if file is None:
        for line in lines:
            print(line.decode().removesuffix("\r"))
        return
    part = file.with_name(f"{file.name}.part")
    count = 0
    try:
        with part.open("wb") as out:
            for line in lines:
                out.write(line + b"\n")
                count += 1
        part.replace(file)
    except OSError as error:
        raise Problem(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    session.show({"file": str(file), "format": format_.value, "lines": count})


def _query(
    client: "Client",
    *,
    reads: bool,
    everything: bool,
    denied: bool,
    user: str | None,
    project: str | None,
    people: bool,
    **exact: str | None,
) -> dict[str, Any]:
    """Return the parameters that narrow the audit log down as the options say."""
    if reads and everything:
        raise Problem("say --reads or --all", exit_code=USAGE)
    everything = everything or (denied and not reads)
    return {
        "show": "all" if everything else "reads" if reads else None,
        "denied": 1 if denied else None,
        "user_id": identified("user", client, user),
        "project": identified("project", client, project),
        "people": 1 if people else None,
        **exact,
    }


def identified(word: str, client: "Client", reference: str | None) -> str | None:
    """Return the id of a user or a project that is named or identified; as it is if unknown.

    Whoever may not list them knows their ids, and records stay when what they name is gone.
    """
    if reference is None:
        return None
    from cli.identity import PROJECTS, USERS

    resource = USERS if word == "user" else PROJECTS
    try:
        return resource.identify(client, reference)
    except Problem as problem:
        if problem.exit_code == UNREACHABLE:
            raise
        return reference


@command(audit_app, "gaps")
def gaps(
    session: Session,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
) -> None:
    """List what was asked and is not in the record of reads, newest first.

    lost: requests that were only counted, while the broker was away. missing: messages that did not
    arrive. ended: an edge was killed, and what it answered in its last second may be missing.
    """
    told = session.client.get("/v1/audit/gaps", limit=limit)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    if told["kept_since"]:
        session.say(f"reads are kept since {when(told['kept_since'])}")
    session.show_all(told["gaps"], GAP_COLUMNS)


@command(audit_app, "show", reads=True)
def show(
    session: Session,
    request_id: Annotated[str, typer.Argument(help="A request's id, as req-….")],
) -> None:
    """Show one request with all it led to, as a tree: facts, the work they began, reports on it.

    Each line has its ordinal and the milliseconds since the request was sent; -o json has it
    nested, with every body.
    """
    told = session.client.get(f"/v1/audit/{quoted(request_id)}")
    if session.output is not Output.TABLE:
        session.show(told)
        return
    for request in told["tree"]:
        _show_request(session, request, told["names"])
    if not told["complete"]:
        print("… and more: `cumulog events tail --after` lists all of it")
    if not told["tree"]:
        session.show_all(told["access"], AUDIT_COLUMNS)


def _show_request(session: Session, request: Row, names: Row) -> None:
    client = request["body"]["request"].get("client", {})
    session.show(
        {
            "request": request["request_id"],
            "who": _who(request, names),
            "from": request["address"],
            "by": " ".join(filter(None, (request["api"], request["agent"]))),
            "submitted": when(request["submitted_at"]),
            "decided": when(request["at"]),
            "outcome": outcome_of(request),
            "rule": request["rule"],
            "reason": request["reason"],
            "cause": request["cause"],
            "trace": client.get("trace", "")[3:35],
        }
    )
    print()
    for line in drawn(_request_node(request, request["submitted_at"], names)):
        print(line)


def _who(request: Row, names: Row) -> str:
    """Return who asked: a person with the roles of the token, a host, or the cloud itself."""
    user = request["user_id"]
    name = names.get(user)
    who = f"{name} ({user})" if name else user or request["host_id"] or request["actor"]
    return f"{who} as {', '.join(request['roles'])}" if request["roles"] else who


def _request_node(request: Row, since: int, names: Row) -> Node:
    who = names.get(request["user_id"]) or request["user_id"] or request["host_id"]
    line = (
        f"{request['ordinal']}  {_after(request, since)}  {request['tag']}  {about(request)}  "
        f"{outcome_of(request)}  by {who or request['actor']}"
    )
    facts = [_fact_node(fact, since, names) for fact in request["facts"]]
    return Node(line, [*facts, *(_request_node(r, since, names) for r in request["caused"])])


def _fact_node(fact: Row, since: int, names: Row) -> Node:
    line = f"{fact['ordinal']}  {_after(fact, since)}  {fact['tag']}  {about(fact)}"
    work = fact["work"]
    if work is None:
        return Node(line)
    ended = "" if work["ended_at"] is None else f"  {(work['ended_at'] - since) / 1000:+.1f} ms"
    how = f"work: {work['kind']} on {work['host_id']} ({work['executor']}) {work['status']}{ended}"
    if work["cause"]:
        how += f": {work['cause']}"
    reports = [_request_node(report, since, names) for report in work["reports"]]
    return Node(line, [Node(how, reports)])


def _after(event: Row, since: int) -> str:
    return f"{(event['at'] - since) / 1000:+.1f} ms"


command(audit_app, "blast-radius", reads=True)(blast_radius)
for _name, _body in proofs.COMMANDS.items():
    command(audit_app, _name)(_body)
