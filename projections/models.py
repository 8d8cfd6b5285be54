"""All read models of a node together: what a new file holds, and how one commit changes it.

A fact that no read model knows stops the fold: skipping it would silently show an old truth.
"""

import functools
import hashlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec
from msgspec import Struct

from engine.domain.fold import explain
from engine.domain.usage import Change
from engine.fingerprint import fingerprint
from projections import (
    alarm,
    billing,
    catalog,
    compute,
    credential,
    federation,
    host,
    identity,
    image,
    meter,
    network,
    operation,
    policy,
    quota,
    timeline,
    usage,
    webhook,
)
from projections.answers import Position
from projections.store import MadeBy, Table, Writer
from schemas.engine import LeaderElected, LogRolled
from schemas.envelope import Accepted, Fact, Refused, Request, fact_types
from schemas.units import Micros, Ordinal

AREAS: tuple[ModuleType, ...] = (
    credential,
    federation,
    identity,  # which notes what those before it change of who may what
    catalog,
    compute,
    image,
    network,
    host,
    operation,
    billing,
    meter,
    alarm,
    policy,
    quota,
    usage,
    webhook,
)
VERSIONS: dict[str, int] = {area.NAME: area.VERSION for area in (*AREAS, timeline)}
STATEMENTS: tuple[str, ...] = tuple(
    statement for area in (*AREAS, timeline) for statement in area.STATEMENTS
)
TABLES: tuple[Table[Any], ...] = tuple(
    {
        value.name: value
        for area in (*AREAS, timeline)
        for value in vars(area).values()
        if isinstance(value, Table)
    }.values()
)
# All of our code that has a part in what a log is projected to.
CODE: tuple[str, ...] = (
    "schemas",
    "engine.domain",
    "engine.fingerprint",
    "engine.log.commit",
    "projections.answers",
    "projections.models",
    "projections.store",
    *(area.__name__ for area in (*AREAS, timeline)),
)

type Apply = Callable[[Writer, Any, Ordinal, Micros], None]


def _nothing_to_read(
    _writer: Writer, _fact: LeaderElected | LogRolled, _ordinal: Ordinal, _at: Micros
) -> None:
    """Who leads is in the timeline."""


APPLY: dict[type, Apply] = {LeaderElected: _nothing_to_read, LogRolled: _nothing_to_read}
for _area in AREAS:
    APPLY |= _area.APPLY
assert set(APPLY) == set(fact_types().values()), "every fact has a read model"


@functools.cache
def layout() -> str:
    """Return the SHA-256 (hex) of what readers must agree on: tables, and what lies in them."""
    _, bodies = msgspec.json.schema_components([table.of for table in TABLES])
    parts = (VERSIONS, STATEMENTS, [(table.name, table.of.__name__) for table in TABLES], bodies)
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


@functools.cache
def made_by() -> MadeBy:
    """Return what a read model says that the code which runs here has made."""
    return MadeBy(layout=layout(), code=fingerprint(*CODE))


class StoredRecord(Struct, frozen=True):
    """A record with its parts as they lie in the log, not yet looked into."""

    request: msgspec.Raw
    verdict: msgspec.Raw
    facts: tuple[msgspec.Raw, ...] = ()


class StoredCommit(Struct, frozen=True):
    """A commit whose records keep their bytes."""

    first: Ordinal
    prev: str
    hash: str
    at: Micros
    records: tuple[StoredRecord, ...]


decode_stored = msgspec.json.Decoder(StoredCommit).decode
decode_fact = msgspec.json.Decoder(Fact).decode
decode_request = msgspec.json.Decoder(Request).decode
decode_verdict = msgspec.json.Decoder(Accepted | Refused).decode


def last_ordinal(commit: StoredCommit) -> Ordinal:
    """Return the last ordinal that a commit takes."""
    return commit.first - 1 + sum(1 + len(record.facts) for record in commit.records)


class LogDiffers(Exception):
    """The log does not go on where the read model ends: another log, or a part is missing."""


def apply_commit(writer: Writer, seq: int, data: bytes) -> Position:
    """Fold one commit into the pending batch and return where that leads.

    A commit that is folded already changes nothing.

    Args:
        writer: the read model; ``writer.position`` must be that of the commit before.
        seq: the commit's place in the stream.
        data: the commit as it lies in the log.

    Raises:
        LogDiffers: it does not follow.
        engine.domain.fold.UnknownFact: it holds a fact that this version does not know.
        msgspec.ValidationError: a value is malformed.
    """
    commit = decode_stored(data)
    before = writer.position
    if commit.first != before.ordinal + 1 or (before.hash and commit.prev != before.hash):
        if commit.first <= before.ordinal and seq <= before.seq:
            return before
        raise LogDiffers(
            f"commit {seq} begins at ordinal {commit.first} after {commit.prev[:12]}…, "
            f"the read model ends at {before.ordinal} with {before.hash[:12]}…"
        )
    ordinal, at = commit.first, commit.at
    try:
        for record in commit.records:
            ordinal = _apply_record(writer, record, ordinal, at)
    except msgspec.ValidationError as error:
        explain(data, error)
        raise
    writer.position = Position(ordinal=ordinal - 1, seq=seq, hash=commit.hash, at=at)
    return writer.position


def _apply_record(writer: Writer, record: StoredRecord, first: Ordinal, at: Micros) -> Ordinal:
    request, verdict = decode_request(record.request), decode_verdict(record.verdict)
    facts = [timeline.Recorded(decode_fact(raw), raw) for raw in record.facts]
    if writer.tells:
        body = timeline.request_body(record.request, record.verdict)
        for row in timeline.rows(writer.find, request, verdict, body, facts, first, at):
            writer.add(timeline.INSERT, row)
    ordinal = first
    changes: list[Change] = []
    for said in facts:
        ordinal += 1
        changes += usage.changes(writer, said.fact)
        APPLY[type(said.fact)](writer, said.fact, ordinal, at)
    if changes:
        usage.add(writer, changes, ordinal)
    return ordinal + 1
