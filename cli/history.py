"""Commands about the log: the feed, the audit log, why a thing is as it is, and proofs."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import quoted, with_query
from cli.output import Column, Output, Row, show_item, when
from cli.problem import UNREACHABLE, USAGE, Problem
from cli.session import Session, command, group, single

if TYPE_CHECKING:
    from cli.client import Client

RECONNECT_S = 1.0
PROOF_S = 3600.0  # a long log takes its time

events_app = group("The log's requests and facts, as they happen.")
audit_app = group("Who asked for what, and what came of it.")
why_app = single()
replay_app = single()


def _about(event: Row) -> str:
    return " ".join(part for part in (event["resource_kind"], event["resource_id"]) if part)


def _outcome(event: Row) -> str:
    return " ".join(part for part in (event["outcome"], event["code"]) if part)


EVENT_COLUMNS: list[Column] = [
    ("ORDINAL", "ordinal"),
    ("AT", lambda event: when(event["at"])),
    ("WHAT", "tag"),
    ("ABOUT", _about),
    ("OUTCOME", _outcome),
    ("REQUEST", "request_id"),
]


def journey(events: list[Row]) -> list[dict[str, Any]]:
    """Return a request's way through the log with the milliseconds since it was submitted.

    The first row is the moment the edge took it; the others are commits.
    """
    request = next((event for event in events if event["kind"] == "request"), None)
    if request is None:
        return []
    submitted = request["body"]["request"]["submitted_at"]
    rows: list[dict[str, Any]] = [
        {"ordinal": None, "at": when(submitted), "ms": 0.0, "what": f"{request['tag']} submitted"}
    ]
    for event in events:
        what = event["tag"]
        if event["kind"] == "request":
            what = f"{what} {_outcome(event)}"
        rows.append(
            {
                "ordinal": event["ordinal"],
                "at": when(event["at"]),
                "ms": (event["at"] - submitted) / 1000,
                "what": what,
            }
        )
    return rows


JOURNEY_COLUMNS: list[Column] = [
    ("ORDINAL", "ordinal"),
    ("AT", "at"),
    ("AFTER MS", lambda row: f"{row['ms']:.1f}"),
    ("WHAT", "what"),
]


@command(events_app, "tail")
def tail(
    session: Session,
    *,
    after: Annotated[int | None, typer.Option(min=0, help="Begin after this ordinal.")] = None,
    lines: Annotated[int, typer.Option(min=1, max=1000, help="How many of the last.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they happen.")] = False,
    resource: Annotated[str | None, typer.Option(help="Only what is about this id.")] = None,
) -> None:
    """Print the newest events; with --follow, go on for as long as you listen.

    Example: cumulog events tail --follow -o json
    """
    client = session.client
    if after is None:
        head = client.get("/v1/events", limit=1)["ordinal"]
        after = max(0, head - lines)
    if follow:
        for event in _feed(session, after, resource):
            _print_event(session.output, event)
        return
    found = client.get("/v1/events", after=after, limit=lines, resource_id=resource)["events"]
    session.show_all(found, EVENT_COLUMNS)


def _feed(session: Session, after: int, resource: str | None) -> Iterator[Row]:
    """Yield events for ever; a connection that is lost is taken up where it broke."""
    seen = False
    while True:
        path = with_query("/v1/events", {"after": after, "follow": 1, "resource_id": resource})
        try:
            for data in session.client.events(path):
                event = json.loads(data)
                if not isinstance(event, dict):  # the token has ended; the next one is asked for
                    session.client.forget_token()
                    break
                seen = True
                after = event["ordinal"]
                yield event
        except Problem as problem:
            if problem.exit_code != UNREACHABLE or not seen:
                raise
        session.client.close()
        time.sleep(RECONNECT_S)


def _print_event(output: Output, event: Row) -> None:
    match output:
        case Output.JSON:
            print(json.dumps(event, ensure_ascii=False))
        case Output.YAML:
            print("---")
            show_item(output, event)
        case Output.TABLE:
            outcome = _outcome(event)
            print(
                f"{event['ordinal']:>8}  {when(event['at'])}  {event['tag']}  {_about(event)}"
                + (f"  {outcome}" if outcome else "")
            )
    sys.stdout.flush()


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
        return _outcome(row)
    return f"{row['status']} {row['reason']}".rstrip()


def _took(row: Row) -> str:
    return "" if row["max_us"] is None else f"{row['max_us'] / 1000:.1f}"


AUDIT_COLUMNS: list[Column] = [
    ("ORDINAL", lambda row: row["ordinal"] or ""),
    ("AT", lambda row: when(row["at"])),
    ("WHAT", _asked),
    ("ABOUT", _about),
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


@command(audit_app, "log")
def log(
    session: Session,
    *,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 50,
    reads: Annotated[
        bool, typer.Option("--reads", help="What changed nothing, and who was not let in.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Both: mutations, and what --reads lists.")
    ] = False,
    denied: Annotated[
        bool, typer.Option("--denied", help="Only what the policy or the token forbade.")
    ] = False,
    user: Annotated[str | None, typer.Option(help="Only by this user (name or id).")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project (name or id).")] = None,
    address: Annotated[str | None, typer.Option(help="Only from this address.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action, as CreateServer or compute:servers:read.")
    ] = None,
    request_id: Annotated[str | None, typer.Option(help="Only this request, as req-….")] = None,
    outcome: Annotated[str | None, typer.Option(help="accepted or refused.")] = None,
    resource: Annotated[str | None, typer.Option(help="Only about this id.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time (ISO 8601).")] = None,
    people: Annotated[bool, typer.Option(help="Leave out agents and the system.")] = False,
) -> None:
    """List requests with what was decided, newest first.

    Mutations are in the log for ever. Reads, and who was not let in, are kept for 90 days at most,
    counted by the second; `cumulog audit gaps` says what of them is missing.

    \b
    cumulog audit log --denied --since 2026-11-01T00:00:00Z
    cumulog audit log --all --resource SERVER
    """  # noqa: D301  # click's mark for lines that stay as they are
    if reads and everything:
        raise Problem("say --reads or --all", exit_code=USAGE)
    client = session.client
    query: dict[str, Any] = {
        "show": "all" if everything or (denied and not reads) else "reads" if reads else None,
        "denied": 1 if denied else None,
        "user_id": _identified("user", client, user),
        "project": _identified("project", client, project),
        "address": address,
        "action": action,
        "request_id": request_id,
        "outcome": outcome,
        "resource_id": resource,
        "since": since,
        "until": until,
        "people": 1 if people else None,
    }
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


def _identified(word: str, client: "Client", reference: str | None) -> str | None:
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


@command(audit_app, "show")
def show(
    session: Session,
    request_id: Annotated[str, typer.Argument(help="A request's id, as req-….")],
) -> None:
    """Show one request's way: who asked, what was decided, what followed, and when."""
    told = session.client.get(f"/v1/audit/{quoted(request_id)}")
    if session.output is not Output.TABLE:
        session.show(told)
        return
    if told["events"]:
        session.show_all(journey(told["events"]), JOURNEY_COLUMNS)
    else:
        session.show_all(told["access"], AUDIT_COLUMNS)
    if trace := _trace(told["events"]):
        print(f"trace {trace}")


def _trace(events: list[Row]) -> str:
    """Return the trace that a request belongs to (W3C), "" if it was recorded without one."""
    request = next((event for event in events if event["kind"] == "request"), None)
    said = request["body"]["request"].get("client", {}).get("trace", "") if request else ""
    return said[3:35]


@command(audit_app, "verify")
def verify(
    session: Session,
    *,
    export: Annotated[
        Path | None, typer.Option(help="Check this export of the log; no cloud is needed.")
    ] = None,
    proof: Annotated[
        Path | None, typer.Option(help="Check this proof of a record; no cloud is needed.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The public keys of `audit key`.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Checkpoints you have kept, that an export must contain.")
    ] = None,
) -> None:
    """Check every byte of the log: its hash chain, its checkpoints, sealed history.

    The first ordinal that does not hold is named, and the exit code is then 1. An export and a
    proof are checked with nothing but themselves and the public key:

    \b
    cumulog audit verify
    cumulog audit verify --export log.jsonl.gz --key cell.pub
    cumulog audit verify --proof proof.json --key cell.pub
    """  # noqa: D301  # click's mark for lines that stay as they are
    if export is not None or proof is not None:
        from cli.integrity import verify_export, verify_proof

        if export is not None:
            _proof(session, verify_export(export, key, checkpoints), "intact")
        if proof is not None:
            _proof(session, verify_proof(proof, key), "proven")
        return
    if key is not None or checkpoints is not None:
        raise Problem("--key and --checkpoints go with --export or --proof", exit_code=USAGE)
    session.client.timeout_s = PROOF_S
    _proof(session, session.client.post("/v1/audit/verify", {}), "intact")


@command(audit_app, "checkpoint")
def checkpoint(session: Session) -> None:
    """Sign how far the log has come, now. The archiver does it hourly and with every segment.

    Checkpoints lie in DIR/checkpoints/checkpoints.jsonl; `cumulog up --checkpoint-dir` keeps a
    second copy where you want it.
    """
    session.client.timeout_s = PROOF_S
    session.show(session.client.post("/v1/log/checkpoint", {}))


@command(audit_app, "key")
def key(
    session: Session,
    *,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Sign with a new key from now on; on this machine.")
    ] = False,
) -> None:
    """Print the public keys that checkpoints are checked with: keep them elsewhere.

    Every key that was ever signed with is among them, the newest last. --rotate makes a new one in
    the state directory and forgets the old private key.

    Example: cumulog audit key > cell.pub
    """
    if rotate:
        from cli.cloud import STATE_DIR
        from cli.state import State
        from engine.log.signing import SigningKeys

        state = State.at(session.state_dir or STATE_DIR)
        state.cell()
        keys = SigningKeys(state.root / "keys")
        told = {"key": keys.rotate(), "keys": keys.public_pem().decode()}
    else:
        told = session.client.get("/v1/log/key")
    if session.output is Output.TABLE:
        print(told["keys"], end="")
    else:
        session.show(told)


@command(audit_app, "proof")
def proof(
    session: Session,
    what: Annotated[str, typer.Argument(help="A request's id, as req-…, or an ordinal.")],
) -> None:
    """Print the proof that one record is in the log: JSON, which shows nothing of other records.

    It holds the record, the hashes that lead from it to a signed checkpoint, and the checkpoint.

    Example: cumulog audit proof req-… > proof.json
    """
    session.client.timeout_s = PROOF_S
    print(json.dumps(session.client.get(f"/v1/log/proof/{quoted(what)}"), ensure_ascii=False))


@command(why_app, "why")
def why(
    session: Session,
    resource: Annotated[str, typer.Argument(help="Any resource's id; a server's name will do.")],
) -> None:
    """Show all that made a resource what it is."""
    try:
        told = session.client.get(f"/v1/why/{quoted(resource)}")
    except Problem as problem:
        if problem.status != 404:
            raise
        from cli.compute import SERVERS

        identity = SERVERS.identify(session.client, resource)
        told = session.client.get(f"/v1/why/{quoted(identity)}")
    if session.output is not Output.TABLE:
        session.show(told)
        return
    session.show_all(told["events"], EVENT_COLUMNS)
    for event in told["events"]:
        for line in _reasons(event):
            print(f"{event['ordinal']}: {line}")


def _reasons(event: Row) -> Iterator[str]:
    """Yield what an event says of its own reasons: refusals, failures, placement."""
    body = event["body"]
    said = body.get("verdict", {}) if event["kind"] == "request" else body
    if reason := said.get("reason") or said.get("message") or said.get("cause"):
        yield str(reason)
    for host in said.get("removed", ()):
        yield f"host {host['host_id']} was left out by {host['filter']}: {host['reason']}"
    for host in said.get("weighed", ()):
        yield f"host {host['host_id']} was weighed {host['score'] / 1000:.3f}"


@command(replay_app, "replay")
def replay(
    session: Session,
    *,
    verify_: Annotated[
        bool, typer.Option("--verify", help="Compare with what the engine holds.")
    ] = False,
) -> None:
    """Fold the whole log anew and compare with the engine's state. Exit code 1 if it differs."""
    if not verify_:
        raise Problem("say --verify", hint="It folds the log and compares.", exit_code=USAGE)
    session.client.timeout_s = PROOF_S
    _proof(session, session.client.post("/v1/replay/verify", {}), "matches")


def _proof(session: Session, told: dict[str, Any], holds: str) -> None:
    """Show what was found; what the proof says under ``holds`` decides the exit code."""
    session.show(told)
    if told.get(holds) is None:
        raise Problem("there was nothing to compare with", hint="Is the engine up? Try again.")
    if told[holds] is not True:
        raise typer.Exit(1)
