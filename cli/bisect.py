"""Finds the event after which a question was answered otherwise, by halving the log."""

import difflib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli.events import EVENT_COLUMNS
from cli.output import Output, Row, when
from cli.problem import REFUSED, USAGE, Problem
from cli.session import Session, command, single

bisect_app = single()

PROBE_S = 120.0
EVENTS_MAX = 1000
SHOWN_LINES_MAX = 40
_SELECT = re.compile(r"\s*(select|with|from)\b", re.IGNORECASE)
_REQUEST_ID = re.compile(r" ?\((request id )?req-[0-9a-f-]+\)")


@dataclass(frozen=True)
class Answer:
    """What a probe came to: its exit code, and what it printed or was refused with."""

    code: int
    text: str


@command(bisect_app, "bisect")
def bisect(
    session: Session,
    *,
    probe: Annotated[
        str, typer.Option(help="A command that reads, without `cumulog`; or a SELECT.")
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="T1", help="A time (ISO 8601: UTC) or an ordinal.")
    ],
    end: Annotated[
        str | None, typer.Option("--to", metavar="T2", help="A later one; none: now.")
    ] = None,
) -> None:
    """Find the event between two moments after which a probe is answered otherwise.

    The probe is asked as of moments between the two, each time of half as many. Compared is what it
    prints as JSON, or why it is refused. If its answer changed more than once, one of the changes
    is found. Ends with 1 if the answer is the same at both ends.

    \b
    cumulog bisect --from 1204 --to 1377 --probe "server show web-1"
    cumulog bisect --from 2026-11-28T12:00:00Z --probe "select count(*) > 3 from requests"
    """  # noqa: D301  # click's mark for lines that stay as they are
    words = _words(session, probe)
    client = session.client
    low, high = _position(client, start), _position(client, end)
    if low >= high:
        raise Problem("--from is not before --to", exit_code=USAGE)
    asked: dict[int, Answer] = {}

    def ask(ordinal: int) -> Answer:
        asked[ordinal] = asked.get(ordinal) or _ask(words, ordinal)
        return asked[ordinal]

    before, after = ask(low), ask(high)
    if before == after:
        raise Problem(
            f"the probe is answered the same at ordinal {low} and at ordinal {high}",
            hint="Name other moments, or ask another question.",
            exit_code=REFUSED,
        )
    found = halve(low, high, lambda ordinal: ask(ordinal) == before)
    _show(session, client, found, before, ask(found), len(asked))


def halve(low: int, high: int, as_before: Callable[[int], bool]) -> int:
    """Return an ordinal after which it is not as before, while it is so after the one before it.

    It must be as before at ``low``, and not at ``high``.
    """
    while high - low > 1:
        middle = (low + high) // 2
        if as_before(middle):
            low = middle
        else:
            high = middle
    return high


def _words(session: Session, probe: str) -> list[str]:
    """Return the arguments that ask the probe, but for the moment.

    Raises:
        Problem: it is no command line.
    """
    if _SELECT.match(probe):
        words = ["sql", probe]
    else:
        try:
            words = shlex.split(probe)
        except ValueError as error:
            raise Problem(f"the probe cannot be read: {error}", exit_code=USAGE) from error
        if words[:1] == ["cumulog"]:
            del words[0]
    if not words or "--as-of" in words:
        raise Problem(
            "the probe is a command that reads, or a SELECT, without --as-of",
            hint="As `server show web-1`.",
            exit_code=USAGE,
        )
    if not {"-o", "--output"}.intersection(words):
        words += ["-o", "json"]
    if session.os_cloud:
        words += ["--os-cloud", session.os_cloud]
    if session.state_dir:
        words += ["--state-dir", session.state_dir]
    return words


def _ask(words: list[str], ordinal: int) -> Answer:
    """Ask the probe as of an ordinal, in a process of its own.

    Raises:
        Problem: it is wrongly called, or the cloud cannot be reached.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *words, "--as-of", str(ordinal)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Problem(f"the probe took longer than {PROBE_S:.0f} s") from error
    said = _REQUEST_ID.sub("", done.stderr.strip())
    if done.returncode not in {0, REFUSED}:
        lines = said.splitlines() or ["it failed"]
        raise Problem(
            f"the probe cannot be asked: {lines[-1].removeprefix('cumulog: ')}",
            hint="`--help` of a command that can be asked about the past has --as-of.",
            exit_code=done.returncode if done.returncode > 0 else REFUSED,
        )
    return Answer(done.returncode, done.stdout if done.returncode == 0 else said)


def _position(client: Any, moment: str | None) -> int:
    """Return the ordinal that answers at a moment: where a commit ends."""
    told = client.get("/v1/events", limit=1, as_of=moment)
    return int(told["ordinal"])


def _show(
    session: Session, client: Any, found: int, before: Answer, after: Answer, probes: int
) -> None:
    begins = _position(client, str(found - 1))
    events = client.get("/v1/events", after=begins, limit=min(EVENTS_MAX, found - begins))["events"]
    people: dict[str, Row] = {}
    for event in events:
        request_id = event["cause"] or event["request_id"]
        if request_id not in people:
            people[request_id] = _asker(client, request_id)
    if session.output is not Output.TABLE:
        session.show(
            {
                "ordinal": found,
                "probes": probes,
                "events": events,
                "requests": list(people.values()),
                "before": before.text,
                "after": after.text,
            }
        )
        return
    session.say(f"changed at ordinal {found}, found by asking {probes} times\n")
    if events:
        session.show_all(events, EVENT_COLUMNS)
    else:
        session.say("by an event of another project, which you may not see")
    for asker in people.values():
        if asker.get("tag"):
            who = asker["name"] or asker["user_id"] or "the cloud itself"
            session.say(f"\n{asker['tag']} of {who} at {when(asker['at'])}: {asker['request_id']}")
    session.say("\n" + _difference(before.text, after.text))


def _asker(client: Any, request_id: str) -> Row:
    """Return who asked for something, as far as the account may see it."""
    from cli.client import quoted

    try:
        told = client.get(f"/v1/audit/{quoted(request_id)}")
    except Problem as problem:
        if problem.status not in {403, 404}:
            raise
        return {"request_id": request_id}
    request = next((e for e in told["events"] if e["kind"] == "request"), None)
    if request is None:
        return {"request_id": request_id}
    names = told.get("names", {})
    return {
        "request_id": request_id,
        "tag": request["tag"],
        "ordinal": request["ordinal"],
        "at": request["at"],
        "user_id": request["user_id"],
        "name": names.get(request["user_id"], ""),
    }


def _difference(before: str, after: str) -> str:
    """Return what differs between two answers, as a unified diff."""
    lines = list(
        difflib.unified_diff(
            before.splitlines(), after.splitlines(), "before", "after", n=1, lineterm=""
        )
    )
    if len(lines) > SHOWN_LINES_MAX:
        lines = [*lines[:SHOWN_LINES_MAX], f"… and {len(lines) - SHOWN_LINES_MAX} lines more"]
    return "\n".join(lines)
