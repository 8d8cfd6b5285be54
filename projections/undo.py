"""A plan that takes requests back: what undoes what, in which order, and what cannot be undone.

The facts about each resource that the requests touched are folded once more; between them lie the
states that a row had before and after. Invariant: planning changes nothing, and one log gives one
plan. A row that somebody else has changed since is marked, with the newest change. What a request
changed that has an undone one for its cause is no such change: it is a step of a plan that was cut.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from projections import audit
from projections.answers import Event
from projections.compensation import Cannot, Change, as_sent, undo
from projections.explanation import LEFT_OUT, Row, Scratch, SetBy, told_of
from projections.usage import USAGE

REQUESTS_MAX = 1_000
FACTS_MAX = 10_000  # about one resource
STORY_MAX = 100_000  # about all of them


class Step(Struct, frozen=True, kw_only=True):
    """One step back: the first fact it undoes, and the action that does so, or why none does.

    ``requests`` are all of the undone ones that touched the same thing: it goes back behind them.
    ``changed_by`` is the newest change of the same thing by anybody else, since.
    """

    undoes: SetBy
    requests: tuple[str, ...]
    table: str
    key: tuple[str | int, ...]
    action: dict[str, Any] | None
    cannot: str = ""
    changed_by: SetBy | None = None


class _Touched:
    """What the undone requests have done to one row."""

    def __init__(self, before: Any, first: Event) -> None:
        self.before = before
        self.after: Any = None
        self.first = first
        self.tags: list[str] = []
        self.requests: dict[str, None] = {}
        self.changed_by: Event | None = None


def plan(db: sqlite3.Connection, requests: Iterable[Event], caller: str) -> list[Step]:
    """Return the steps that take requests back, the newest thing first.

    Args:
        db: the read model.
        requests: the requests to be undone.
        caller: the user who wants it: some things are for their owner alone.
    """
    accepted = [event for event in requests if event.outcome == "accepted"]
    undone = {event.request_id for event in accepted}
    facts = [event for event in audit.records(db, accepted) if event.kind == "fact"]
    ordinals = {fact.ordinal for fact in facts}
    steps: list[Step] = []
    touched: dict[Row, _Touched] = {}
    story: dict[int, Event] = {}
    for resource_id in dict.fromkeys(f.resource_id for f in facts if f.resource_id):
        told = audit.select(
            db,
            "resource_id = ? AND kind = 'fact' ORDER BY ordinal LIMIT ?",
            (resource_id, FACTS_MAX + 1),
        )
        if len(told) > FACTS_MAX or len(story) > STORY_MAX:
            first = next(fact for fact in facts if fact.resource_id == resource_id)
            steps.append(_step(first, first.resource_kind, (resource_id,), _TOO_MUCH, None))
            continue
        story |= {event.ordinal: event for event in told}
    in_order = [story[ordinal] for ordinal in sorted(story)]
    steps += [
        _step(fact, fact.resource_kind, (fact.resource_id,), _ALONE, None)
        for fact in _replay(in_order, ordinals, undone, touched)
    ]
    for (table, key), row in touched.items():
        parts = (key,) if isinstance(key, str) else key
        stored = db.execute(table.select, parts).fetchone()
        change = Change(
            table=table,
            before=row.before,
            after=row.after,
            now=None if stored is None else table.decode(stored[0]),
            tags=tuple(row.tags),
            caller=caller,
        )
        steps += [
            _step(row.first, table.name, parts, what, row.changed_by, tuple(row.requests))
            for what in undo(change)
        ]
    # A stable order: within a row as it was planned, and rows the newest first.
    steps.sort(key=lambda step: step.undoes.ordinal, reverse=True)
    return steps


_ALONE = Cannot("there is no action that takes it back")
_TOO_MUCH = Cannot("too many facts speak of it; ask about fewer requests")


def _replay(
    story: list[Event], ordinals: set[int], undone: set[str], touched: dict[Row, _Touched]
) -> list[Event]:
    """Fold the facts about all that was touched, and note what the undone ones have changed.

    Returns:
        Undone facts that rest on facts about something else.
    """
    scratch = Scratch()
    alone: list[Event] = []
    states: dict[Row, Any] = {}
    ours = set(undone)  # and the steps back from them
    try:
        for event in story:
            if event.cause in undone and event.user_id:
                ours.add(event.request_id)
            if not scratch.apply(event) and event.ordinal in ordinals:
                alone.append(event)
            for row in scratch.changed:
                table, key = row
                if table in LEFT_OUT or table is USAGE:
                    continue
                before, after = states.get(row), scratch.find(table, key)
                states[row] = after
                if event.ordinal in ordinals:
                    found = touched.setdefault(row, _Touched(before, event))
                    found.after = after
                    found.tags.append(event.tag)
                    found.requests[event.request_id] = None
                elif row in touched and not _follows(event, ours):
                    touched[row].changed_by = event
    finally:
        scratch.db.close()
    return alone


def _follows(event: Event, ours: set[str]) -> bool:
    """Return whether a fact is of a step back, or is how the work of a request of ours ended."""
    return event.request_id in ours or (event.cause in ours and not event.user_id)


def _step(
    first: Event,
    table: str,
    key: tuple[str | int, ...],
    what: Any,
    changed_by: Event | None,
    requests: tuple[str, ...] = (),
) -> Step:
    cannot = isinstance(what, Cannot)
    return Step(
        undoes=told_of(first, {}),
        requests=requests or (first.request_id,),
        table=table,
        key=key,
        action=None if cannot else as_sent(what),
        cannot=what.why if cannot else "",
        changed_by=None if changed_by is None or cannot else told_of(changed_by, {}),
    )
