"""Who may submit which action. Deny by default: an action without a rule is refused.

The table is ``schemas/policy.toml`` with what an operator has set over it. Whose thing it is, is
checked where the thing is looked up (``engine.domain``), with the reach that the rule gives, so
that another project's answers as if it were not there.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from engine.domain.context import Reach
from schemas.envelope import Actor, action_types
from schemas.errors import Forbidden
from schemas.policy import DEFAULT, PolicyTable, Who, parse

# Combinations of scope and roles that are remembered, each a few hundred bytes.
REMEMBERED_MAX = 16_384

assert action_types().keys() <= DEFAULT.keys(), "every action has its rule"

type Test = Callable[[str, frozenset[str]], bool]  # scope, roles


class Entry(Struct, frozen=True):
    """An entry made ready to be asked."""

    who: Who
    matches: Test


class Policy:
    """A table of rules made ready to be asked: the answer depends on scope and roles alone.

    Invariant: entries are asked in their order; the first that matches is the rule that decided,
    and what is reached is what all that match give together.
    """

    def __init__(self, rules: Mapping[str, tuple[str, ...]], version: int = 0) -> None:
        """Compile a table.

        Raises:
            BadEntry: an entry cannot be understood.
        """
        self.version = version
        self.rules = dict(rules)
        self._entries = {
            action: tuple(Entry(who, _compiled(who)) for who in map(parse, entries))
            for action, entries in self.rules.items()
        }
        self._remembered: dict[tuple[str, str, frozenset[str]], Reach | None] = {}

    def reach(self, action: str, scope: str, roles: frozenset[str]) -> Reach | None:
        """Return how far somebody may go; None if not at all.

        ``scope`` is an actor's (``scope_of``), ``roles`` those it has there, implied ones included.
        """
        asked = (action, scope, roles)
        try:
            return self._remembered[asked]
        except KeyError:
            pass
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        found = self._remembered[asked] = self._reach(action, scope, roles)
        return found

    def _reach(self, action: str, scope: str, roles: frozenset[str]) -> Reach | None:
        matching = [
            entry.who for entry in self._entries.get(action, ()) if entry.matches(scope, roles)
        ]
        if not matching:
            return None
        targets = {who.target for who in matching}
        return Reach(
            rule=f"{action}: {matching[0].text}",
            any="any" in targets,
            project="project" in targets,
            domain="domain" in targets,
            user="self" in targets,
        )

    def refusing(self, action: str) -> str:
        """Return the rule as a refusal names it: the action, and all whom it is for."""
        return f"{action}: {' | '.join(self.rules.get(action, ())) or 'nobody'}"


def _compiled(who: Who) -> Test:
    role = who.role
    match who.scope:
        case "cloud":
            return lambda scope, roles: scope in {"system", "project"} and role in roles
        case "user":
            return lambda scope, _: scope not in {"engine", "agent", "edge"}
        case "engine" | "agent" | "edge":
            return lambda scope, _: scope == who.scope
        case _:
            return lambda scope, roles: scope == who.scope and role in roles


def matches(who: Who, scope: str, roles: frozenset[str]) -> bool:
    """Return whether an entry lets somebody in, by the scope and the roles it has there."""
    return _compiled(who)(scope, roles)


def scope_of(actor: Actor) -> str:
    """Return what rules match an actor by: a user's scope ("" if none), engine, agent or edge."""
    if actor.kind == "user":
        return actor.scope
    return "engine" if actor.kind == "system" else actor.kind


def merged(table: PolicyTable) -> Policy:
    """Return the default rules with those that an operator has set over them."""
    return Policy({**DEFAULT, **table.rules}, table.version)


class Policies:
    """The policy of a table that changes rarely: compiled again only when it is another."""

    def __init__(self) -> None:
        self._table: PolicyTable | None = None
        self._policy: Policy | None = None

    def of(self, table: PolicyTable) -> Policy:
        """Return the compiled table."""
        if self._policy is None or self._table is not table:
            self._table, self._policy = table, merged(table)
        return self._policy


def authorize(policy: Policy, actor: Actor, roles: frozenset[str], action: str) -> Reach:
    """Return how far the actor may go with this action.

    ``roles`` are those the state grants, implied ones included.

    Raises:
        Forbidden: it may not; ``rule`` says whom it is for.
    """
    found = policy.reach(action, scope_of(actor), roles)
    if found is None:
        raise Forbidden(explained(policy, action), action=action, rule=policy.refusing(action))
    return found


def explained(policy: Policy, action: str) -> str:
    """Return in words who may."""
    entries = policy.rules.get(action)
    if entries is None:
        return f"nobody may {action}: it has no rule"
    if not entries:
        return f"the policy lets nobody {action}"
    parsed = [parse(entry) for entry in entries]
    if all(who.internal for who in parsed):
        return f"{action} is for the {parsed[0].scope} only"
    return f"the policy keeps {action} for {' or '.join(entries)}"
