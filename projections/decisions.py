"""What another policy would have decided about requests that were made.

Before, by what is recorded: what was accepted had been let pass, and of a refusal the rule says
whether it was the policy's. After, by the other policy, for the scope and roles that the request
came with. Nothing is written. Invariant: a request counts once, and only if the two differ.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec import Struct

from engine.domain.context import Reach
from engine.policy import Policy, matches, scope_of
from projections.answers import Event
from schemas.envelope import Actor
from schemas.policy import BadEntry, Who, parse

EXAMPLES_MAX = 5
NOBODY = "nobody"

type Change = Literal["refused", "allowed"]


class Verdict(Struct, frozen=True):
    """What is recorded of how a request ended."""

    code: str = ""
    status: int = 200
    reason: str = ""
    rule: str = ""


class _Asked(Struct, frozen=True):
    actor: Actor


class Recorded(Struct, frozen=True):
    """What is recorded of a request, as far as a policy could matter to it."""

    request: _Asked
    verdict: Verdict


decode_recorded = msgspec.json.Decoder(Recorded).decode


class Difference(Struct, kw_only=True):
    """Requests of one kind that another policy would have decided otherwise."""

    action: str
    persona: str
    count: int = 0
    examples: list[str] = []  # request ids, the first ones


def named(rule: str) -> tuple[str, list[Who]]:
    """Return the action and the entries that a recorded rule names; none if it is no rule."""
    action, _, text = rule.partition(": ")
    try:
        return action, [parse(part) for part in text.split(" | ") if part and part != NOBODY]
    except BadEntry:
        return action, []


def persona(actor: Actor) -> str:
    """Return what a policy knows an actor by: its strongest role, and where it has it."""
    if not actor.scope:
        return "user without a scope"
    return f"{actor.roles[0] if actor.roles else 'no role'} in {actor.scope}"


class Comparison:
    """Compares what was decided with what a policy would have, over events in their order."""

    def __init__(self, proposed: Policy) -> None:
        self._proposed = proposed
        self._found: dict[tuple[Change, str, str], Difference] = {}
        self._last: tuple[Event, Recorded, str, Reach] | None = None
        self.requests = 0
        self.undecided = 0  # requests of before rules were recorded

    def see(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        for event in events:
            if event.kind == "request":
                self._last = None
                self._request(event)
            elif self._last is not None:
                self._fact(event, *self._last)

    def differences(self, change: Change) -> list[Difference]:
        """Return what would have been newly refused or allowed, the most frequent first."""
        found = [one for (kind, _, _), one in self._found.items() if kind == change]
        return sorted(found, key=lambda one: (-one.count, one.action, one.persona))

    def _request(self, event: Event) -> None:
        recorded = decode_recorded(event.body)
        actor, verdict = recorded.request.actor, recorded.verdict
        if actor.kind != "user":
            return
        self.requests += 1
        if not verdict.rule:
            self.undecided += 1
            return
        action, entries = named(verdict.rule)
        scope, roles = scope_of(actor), frozenset(actor.roles)
        reach = self._proposed.reach(action, scope, roles)
        if event.outcome == "accepted":
            if reach is None:
                self._note("refused", action, event, actor)
            else:
                self._last = (event, recorded, action, reach)
        elif (
            verdict.code == "Forbidden"
            and reach is not None
            and not any(matches(who, scope, roles) for who in entries)
        ):
            self._note("allowed", action, event, actor)

    def _fact(
        self, fact: Event, request: Event, recorded: Recorded, action: str, reach: Reach
    ) -> None:
        """See whether an accepted request reached further than it would have been let."""
        actor = recorded.request.actor
        own_alone = reach.project and not (reach.any or reach.domain or reach.user)
        if own_alone and fact.project_id not in {"", actor.project_id}:
            self._note("refused", action, request, actor)
            self._last = None

    def _note(self, change: Change, action: str, event: Event, actor: Actor) -> None:
        who = persona(actor)
        key = (change, action, who)
        one = self._found.setdefault(key, Difference(action=action, persona=who))
        one.count += 1
        if len(one.examples) < EXAMPLES_MAX:
            one.examples.append(event.request_id)
