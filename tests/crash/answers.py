"""Compares what clients were told with what the log holds.

Part of the checker. The clients' record is a file of JSON lines that they wrote themselves, each
line synced before they went on:

``{"line": "asked", "id", "client", "key", "user", "method", "path", "what", "name"}``
    before the first attempt; ``key`` is the Idempotency-Key, ``what`` the action it amounts to.
``{"line": "answered", "id", "attempts", "status", "resource", "request_id", "ordinal", "error"}``
    the answer. ``ordinal`` and ``request_id`` are there when the API says them in the body (native
    calls); ``resource`` is the id of what was made. A call that was answered may be made once more
    under the same key, and then has a second line, marked ``"again": true``.
``{"line": "gave_up", "id", "attempts"}``
    no answer within the client's patience. It may have happened or not, but not twice.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.chain import Entry
from tests.crash.truth import Truth

# Here an edge only passes on, so that every refusal is the engine's, and recorded.
NATIVE = "/v1/actions"
MEANING = {
    "chain": "the log is not what was written to it",
    "lost": "acknowledged, and not in the log with that outcome",
    "doubled": "done twice",
    "contradicted": "refused to the client, and done",
    "unfinished": "operations without an end",
    "failed_inside": "requests that the engine or an edge could not handle (500)",
    "orphans": "there, though nothing in the log says that it should be",
    "missing": "not there, though the log says that it should be",
}


@dataclass
class Findings:
    """Evidence, by kind of fault. All empty is what is promised."""

    evidence: dict[str, list[str]] = field(default_factory=lambda: {k: [] for k in MEANING})
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, text: str) -> None:
        """Note a piece of evidence, once."""
        if text not in self.evidence[kind]:
            self.evidence[kind].append(text)

    @property
    def well(self) -> bool:
        """Whether nothing was found."""
        return not any(self.evidence.values())


@dataclass
class Asked:
    """A call as the client's record tells it."""

    asked: dict[str, Any]
    answers: list[dict[str, Any]] = field(default_factory=list)


def read_record(path: Path) -> list[Asked]:
    """Return the calls in the order in which they were asked; a last line cut short is left out."""
    calls: dict[str, Asked] = {}
    lines = path.read_text().split("\n")
    for line in lines[:-1]:
        row = json.loads(line)
        if row["line"] == "asked":
            calls[row["id"]] = Asked(row)
        elif row["line"] == "answered":
            calls[row["id"]].answers.append(row)
    return list(calls.values())


def compare_answers(calls: list[Asked], truth: Truth, findings: Findings) -> None:
    """Check each call against the log, and the log against itself."""
    counts = findings.counts
    counts["sent"] = len(calls)
    counts["acknowledged"] = sum(any(a["status"] < 300 for a in c.answers) for c in calls)
    counts["refused"] = sum(any(400 <= a["status"] < 500 for a in c.answers) for c in calls)
    counts["unanswered"] = sum(not c.answers for c in calls)
    counts["retried"] = sum(any(a["attempts"] > 1 for a in c.answers) for c in calls)
    counts["answered_again"] = sum(a.get("again", False) for c in calls for a in c.answers)
    counts["gone_when_repeated"] = 0
    for call in calls:
        _compare(call, truth, findings)
    _doubled(truth, findings)


def _compare(call: Asked, truth: Truth, findings: Findings) -> None:
    asked = call.asked
    entries = _under_key(truth, asked)
    who = f"{asked['id']} {asked['what']} {asked['name']} (key {asked['key']})"
    for answer in call.answers:
        status, said = answer["status"], f"{who}: answered {answer['status']}"
        if status >= 500:
            findings.add("failed_inside", f"{said} {answer.get('error')}")
        elif status < 300 and not entries:
            findings.add("lost", f"{said}, no record in the log")
        elif status < 300:
            for why in _differs(answer, asked, entries[0]):
                findings.add("lost", f"{said}, record at ordinal {entries[0].first}: {why}")
        elif entries and entries[0].record["verdict"]["verdict"] == "accepted":
            _refused_yet_done(answer, asked, entries[0], said, findings)
        elif entries and entries[0].record["verdict"]["status"] != status:
            told = entries[0].record["verdict"]["status"]
            findings.add("contradicted", f"{said}, the log says {told}")
        elif not entries and asked["path"] == NATIVE:
            findings.add("lost", f"{said}, no record of the refusal in the log")
    made = {a["resource"] for a in call.answers if a["status"] < 300 and a.get("resource")}
    if len(made) > 1:
        findings.add("doubled", f"{who}: answered with {' and then '.join(sorted(made))}")


def _under_key(truth: Truth, asked: dict[str, Any]) -> list[Entry]:
    user = truth.users.get(asked["user"], "")
    project = truth.projects.get(asked["user"], "")
    return truth.by_key.get((user, project, asked["key"]), [])


def _differs(answer: dict[str, Any], asked: dict[str, Any], entry: Entry) -> list[str]:
    """Return in what an acknowledgement and the record under its key differ."""
    request, verdict = entry.record["request"], entry.record["verdict"]
    reply = verdict.get("reply", {})
    found = []
    if verdict["verdict"] != "accepted":
        found.append(f"the log says {verdict['verdict']}: {verdict.get('reason')}")
    if request["action"]["type"] != asked["what"]:
        found.append(f"it is of {request['action']['type']}")
    if answer.get("ordinal") is not None and answer["ordinal"] != entry.last:
        found.append(f"told ordinal {answer['ordinal']}, it has {entry.last}")
    if answer.get("request_id") and answer["request_id"] != request["request_id"]:
        found.append(f"told {answer['request_id']}, it has {request['request_id']}")
    if answer.get("resource") and answer["resource"] not in reply.values():
        found.append(f"told {answer['resource']}, it has {reply}")
    return found


def _refused_yet_done(
    answer: dict[str, Any],
    asked: dict[str, Any],
    entry: Entry,
    said: str,
    findings: Findings,
) -> None:
    """Judge a refusal whose key has an accepted record.

    A deletion whose first answer was lost may find nothing when it is asked for again; and content
    that was taken in may find that the image has it. Anything else contradicts the log.
    """
    gone = asked["method"] == "DELETE" and answer["status"] == 404
    has_it = asked["what"] == "UploadImage" and answer["status"] == 409
    if (gone or has_it) and (answer["attempts"] > 1 or answer.get("again")):
        findings.counts["gone_when_repeated"] += 1
    else:
        why = f"accepted at ordinal {entry.first}"
        findings.add("contradicted", f"{said} {answer.get('error')}, {why}")


def _doubled(truth: Truth, findings: Findings) -> None:
    for request_id, entries in truth.by_request.items():
        if len(entries) > 1:
            places = ", ".join(str(e.first) for e in entries)
            findings.add("doubled", f"request {request_id} is at ordinals {places}")
    for (_, _, key), entries in truth.by_key.items():
        if len(entries) > 1:
            places = ", ".join(f"{e.first} ({e.record['request']['request_id']})" for e in entries)
            findings.add("doubled", f"key {key} was carried out at ordinals {places}")
    for (kind, _, name), times in truth.created.items():
        if times > 1 and name.startswith("crash-"):
            findings.add("doubled", f"{kind} {name} was made {times} times")
    for operation_id, ends in truth.ended.items():
        if len(ends) > 1:
            findings.add("doubled", f"operation {operation_id} ended {len(ends)} times: {ends}")
        if operation_id not in truth.started:
            findings.add("chain", f"operation {operation_id} ended and never began")
    for operation_id in truth.unfinished():
        operation = truth.started[operation_id]
        findings.add(
            "unfinished",
            f"operation {operation_id} ({operation['kind']} of {operation['resource_id']}, "
            f"asked for by {operation['request_id']})",
        )
    for entry in (e for found in truth.by_request.values() for e in found):
        verdict = entry.record["verdict"]
        if verdict.get("status", 0) >= 500 and verdict.get("code") == "InternalError":
            request_id = entry.record["request"]["request_id"]
            findings.add("failed_inside", f"{request_id} at ordinal {entry.first}")
