"""What another policy would have decided about what was recorded."""

import msgspec
import pytest

from engine.decider import refusal
from engine.policy import Policy, authorize, merged
from projections.answers import Event
from projections.decisions import EXAMPLES_MAX, Comparison
from schemas.envelope import Accepted, Actor
from schemas.errors import Forbidden, NotFound
from schemas.policy import PolicyTable

MEMBER = Actor(kind="user", user_id="u", project_id="p", roles=("member", "reader"))
READER = Actor(kind="user", user_id="r", project_id="p", roles=("reader",))
DEFAULTS = merged(PolicyTable())


def event(ordinal: int, actor: Actor, action: str, policy: Policy = DEFAULTS, **more) -> Event:
    """Return a request as the timeline has it, decided by a policy."""
    failed = more.pop("failed", None)
    try:
        rule = authorize(policy, actor, frozenset(actor.roles), action).rule
        verdict = Accepted(reply={}, rule=rule) if failed is None else refusal(failed, rule)
    except Forbidden as error:
        verdict = refusal(error)
    told = msgspec.to_builtins(verdict)
    accepted = isinstance(verdict, Accepted)
    return Event(
        ordinal=ordinal,
        kind="request",
        tag=action,
        resource_kind="",
        resource_id="",
        project_id=actor.project_id,
        user_id=actor.user_id,
        request_id=f"req-{ordinal}",
        cause="",
        at=ordinal,
        outcome="accepted" if accepted else "refused",
        code=told.get("code", ""),
        body=msgspec.Raw(msgspec.json.encode({"request": {"actor": actor}, "verdict": verdict})),
    )


def fact(ordinal: int, project_id: str) -> Event:
    return msgspec.structs.replace(
        event(ordinal, MEMBER, "DeleteServer"), kind="fact", project_id=project_id
    )


def compared(rules: dict, *events: Event) -> Comparison:
    comparison = Comparison(merged(PolicyTable(rules=rules)))
    comparison.see(events)
    return comparison


def told(comparison: Comparison, change) -> list[tuple[str, str, int]]:
    return [(d.action, d.persona, d.count) for d in comparison.differences(change)]


def test_the_same_policy_changes_nothing():
    found = compared({}, event(1, MEMBER, "DeleteServer"), event(2, READER, "DeleteServer"))

    assert (found.requests, told(found, "refused"), told(found, "allowed")) == (2, [], [])


def test_what_was_accepted_and_would_be_refused_is_counted_with_examples():
    many = [event(n, MEMBER, "DeleteServer") for n in range(1, EXAMPLES_MAX + 4)]

    found = compared({"DeleteServer": ("manager in project",)}, *many)

    assert told(found, "refused") == [("DeleteServer", "member in project", EXAMPLES_MAX + 3)]
    examples = found.differences("refused")[0].examples
    assert examples == [f"req-{n}" for n in range(1, EXAMPLES_MAX + 1)]


def test_what_the_policy_refused_and_would_be_allowed_is_counted():
    found = compared({"DeleteServer": ("reader in project",)}, event(1, READER, "DeleteServer"))

    assert told(found, "allowed") == [("DeleteServer", "reader in project", 1)]


def test_what_was_refused_for_another_reason_is_no_decision_of_the_policy():
    gone = event(1, MEMBER, "DeleteServer", failed=NotFound("there is none"))
    other = event(2, MEMBER, "DeleteServer", failed=Forbidden("the image is protected"))

    for rules in ({"DeleteServer": ()}, {"DeleteServer": ("user over any",)}):
        found = compared(rules, gone, other)
        assert (told(found, "refused"), told(found, "allowed")) == ([], [])


def test_the_rule_of_then_counts_and_not_the_default():
    once = merged(PolicyTable(rules={"DeleteServer": ("reader in project",)}))

    found = compared({}, event(1, READER, "DeleteServer", once))

    assert told(found, "refused") == [("DeleteServer", "reader in project", 1)]


@pytest.mark.parametrize(("owner", "refused"), [("p", 0), ("other", 1), ("", 0)])
def test_a_rule_that_reaches_less_refuses_what_was_done_to_others(owner: str, refused: int):
    admin = msgspec.structs.replace(MEMBER, roles=("admin", "manager", "member", "reader"))

    found = compared(
        {"DeleteServer": ("member in project",)},
        event(1, admin, "DeleteServer"),
        fact(2, owner),
        fact(3, owner),
    )

    assert sum(count for _, _, count in told(found, "refused")) == refused


def test_the_clock_and_agents_are_not_looked_at_and_old_records_counted_apart():
    clock = Actor(kind="system")
    old = event(2, MEMBER, "DeleteServer")
    bare = msgspec.json.encode({"request": {"actor": MEMBER}, "verdict": {"verdict": "accepted"}})

    found = compared(
        {"DeleteServer": (), "MarkHost": ()},
        event(1, clock, "MarkHost"),
        msgspec.structs.replace(old, body=msgspec.Raw(bare)),
    )

    assert (found.requests, found.undecided, told(found, "refused")) == (1, 1, [])
