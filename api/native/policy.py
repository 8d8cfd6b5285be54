"""The policy: what it says, what a change of it would mean, why something was refused, who can.

Invariant: nothing here changes anything; a policy is set by the action ``SetPolicy``.
"""

import asyncio
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.auth import now
from api.exchange import Answer, Call, json_answer
from api.routing import Routes
from api.times import time_asked
from engine.domain.context import Reach
from engine.domain.identity.directory import roles_on, with_ranked
from engine.domain.policy import replaced
from engine.policy import Policy, matches, merged
from projections.access import Filters
from projections.decisions import Comparison, Verdict, decode_recorded, named
from projections.holders import Holder, holders
from schemas.envelope import Actor
from schemas.errors import NotFound
from schemas.identity import RANKED, SYSTEM
from schemas.policy import DEFAULT, ActionName, Entry, PolicyTable, Who, parse
from schemas.units import Ordinal, Text

HOLDERS_MAX = 1000
GRANTORS_MAX = 20
BATCH = 1000
ROWS_MAX = 200_000  # of one answer; whoever asks goes on where it ended
SCOPES = ("system", "domain", "project")

type Rules = dict[ActionName, Annotated[tuple[Entry, ...], Meta(max_length=32)] | None]


class Wish(Struct, frozen=True, forbid_unknown_fields=True):
    """Rules in the form of ``SetPolicy``; ``whole``: all others go back to their defaults."""

    rules: Annotated[Rules, Meta(max_length=1000)]
    whole: bool = False


class WhatIf(Wish, frozen=True, forbid_unknown_fields=True):
    """And the requests to look at: from ``since`` (or the ordinal ``after``) until ``until``."""

    since: Text = ""
    until: Text = ""
    after: Ordinal = 0


_wish = msgspec.json.Decoder(Wish)
_what_if = msgspec.json.Decoder(WhatIf)


async def show(call: Call) -> Answer:
    """GET /v1/policy: each action with whom it is for, and which rules are an operator's."""
    policy = call.edge.policy()
    rules = {
        action: {"entries": entries, "changed": entries != DEFAULT.get(action)}
        for action, entries in sorted(policy.rules.items())
    }
    return json_answer({"policy": {"version": policy.version, "rules": rules}})


async def check(call: Call) -> Answer:
    """POST /v1/policy/check: whether rules could be set, and who would gain and lose by them."""
    wish = await call.decode(_wish)
    before, after = call.edge.policy(), merged(_proposed(call, wish))
    changes = [
        {"action": action, "before": before.rules[action], "after": after.rules[action]}
        | _difference(before, after, action)
        for action in sorted(after.rules)
        if after.rules[action] != before.rules.get(action)
    ]
    return json_answer({"version": before.version, "changes": changes})


def _proposed(call: Call, wish: Wish) -> PolicyTable:
    """Return the table that would come of it.

    Raises:
        InvalidInput, Conflict: as ``SetPolicy`` would be refused.
    """
    table = call.edge.policy_table
    if wish.whole:
        table = PolicyTable(version=table.version)
    return replaced(table, wish.rules)


def personas() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield those whom a policy can tell apart by built-in roles: name, scope and roles."""
    for scope in SCOPES:
        for role in (*RANKED, "service"):
            yield f"{role} in {scope}", scope, frozenset(with_ranked(role))
    yield "anybody signed in", "", frozenset()


def _difference(before: Policy, after: Policy, action: str) -> dict[str, list[str]]:
    gains, loses = [], []
    for name, scope, roles in personas():
        old = _width(before.reach(action, scope, roles))
        new = _width(after.reach(action, scope, roles))
        if new - old:
            gains.append(f"{name} (over {', '.join(sorted(new - old))})")
        if old - new:
            loses.append(f"{name} (over {', '.join(sorted(old - new))})")
    return {"gains": gains, "loses": loses}


def _width(reach: Reach | None) -> set[str]:
    if reach is None:
        return set()
    if reach.any:
        return {"any", "domain", "project", "self"}
    return {
        name
        for name, is_so in (
            ("domain", reach.domain),
            ("project", reach.project),
            ("self", reach.user),
        )
        if is_so
    }


class Refusal(Struct, frozen=True, kw_only=True):
    """A request that was refused, from the log or, for reads, from ACCESS."""

    at: int
    actor: Actor
    action: str
    verdict: Verdict
    source: str


async def why_denied(call: Call) -> Answer:
    """GET /v1/policy/why-denied/{request id}: the rule, what the asker had, and what it lacked.

    Members of a project ask about their own requests, auditors about everybody's.
    """
    request_id = call.args[0]
    found = _refusal(call, request_id)
    if found is None:
        raise NotFound(f"there is no refused request {request_id[:64]!r}")
    actor, verdict = found.actor, found.verdict
    scope, roles = actor.scope, frozenset(actor.roles)
    action, entries = named(verdict.rule)
    passed = [who for who in entries if matches(who, scope, roles)]
    by_policy = verdict.code == "Forbidden" and bool(verdict.rule) and not passed
    view: dict[str, Any] = {
        "request_id": request_id,
        "at": found.at,
        "source": found.source,
        "user_id": actor.user_id,
        "action": action or found.action,
        "scope": _scope_view(actor),
        "roles": actor.roles,
        "status": verdict.status,
        "code": verdict.code,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "by_policy": by_policy,
        "would_have_let_pass": [_lack(who, actor) for who in entries] if by_policy else [],
        "now": _now(call, actor, action),
    }
    if by_policy and call.reach.any:
        view["can_grant"] = _grantors(call, actor)
    return json_answer({"why_denied": view})


def _refusal(call: Call, request_id: str) -> Refusal | None:
    """Return a refused request that the caller may know of; None if there is none."""
    reach, own = call.reach, call.principal.user_id
    for event in call.edge.reader.audit_show(request_id, project_id=call.sight)[:1]:
        if event.outcome != "refused" or not (reach.any or event.user_id == own):
            return None
        recorded = decode_recorded(event.body)
        return Refusal(
            at=event.at,
            actor=recorded.request.actor,
            action=event.tag,
            verdict=recorded.verdict,
            source="log",
        )
    asked = Filters(
        request_id=request_id, project_id=call.sight, user_id=None if reach.any else own
    )
    for one in call.edge.audit.entries(asked, 1):
        entry = one.entry
        if entry.status < 400 or not entry.user_id:
            return None
        return Refusal(
            at=entry.at,
            actor=Actor(
                kind="user",
                user_id=entry.user_id,
                project_id=entry.project_id,
                roles=entry.roles,
            ),
            action=entry.action,
            verdict=Verdict(
                code="Forbidden" if entry.status == 403 else "",
                status=entry.status,
                reason=entry.reason,
                rule=entry.rule,
            ),
            source="access",
        )
    return None


def _scope_view(actor: Actor) -> dict[str, Any]:
    match actor.scope:
        case "project":
            return {"project_id": actor.project_id}
        case "domain":
            return {"domain_id": actor.domain_id}
        case "system":
            return {"system": True}
        case _:
            return {}


def _lack(who: Who, actor: Actor) -> dict[str, str]:
    """Say what an entry would have needed, and who can give that."""
    if not who.role:
        return {"entry": who.text, "lacks": "a user's token", "from": "signing in"}
    scope = actor.scope
    scopes = {"cloud": ("system", "project")}.get(who.scope, (who.scope,))
    if scope in scopes:
        where = f"the {scope}" if scope == "system" else f"the token's {scope}"
        lacks = f"the role {who.role} in {where}"
    else:
        wanted = " or ".join(f"a {one}" if one != "system" else "the system" for one in scopes)
        lacks = f"a token scoped to {wanted}, with the role {who.role} there"
    given_by = "administrators of the cloud"
    if who.scope in {"project", "domain"} and who.role in {"manager", "member", "reader"}:
        given_by += ", and managers of the domain"
    return {"entry": who.text, "lacks": lacks, "from": given_by}


def _now(call: Call, actor: Actor, action: str) -> dict[str, Any]:
    """Return the roles that the asker has there by now, and whether they would do."""
    target = SYSTEM if actor.system else actor.project_id or actor.domain_id
    roles = roles_on(call.edge.reader, actor.user_id, target) if target else frozenset()
    allowed = call.edge.policy().reach(action, actor.scope, frozenset(roles)) is not None
    return {"roles": sorted(roles), "allowed": allowed}


def _grantors(call: Call, actor: Actor) -> list[str]:
    """Return the names of users who can grant what the asker lacked in its scope."""
    reader, rule = call.edge.reader, call.edge.policy().rules["GrantRole"]
    project = reader.project(actor.project_id) if actor.project_id else None
    domain_id = project.domain_id if project is not None else actor.domain_id
    names = {
        holder.user_name
        for who in map(parse, rule)
        if who.scope != "domain" or domain_id
        for holder in holders(reader, who, domain_id=domain_id)
    }
    return sorted(names)[:GRANTORS_MAX]


async def who_can(call: Call) -> Answer:
    """GET /v1/policy/who-can/{action}: users by the entry and the grant that lets them.

    ``resource`` is the id of what it would be done to: a project, or what belongs to one.
    """
    action, reader = call.args[0], call.edge.reader
    entries = call.edge.policy().rules.get(action)
    if entries is None:
        raise NotFound(f"there is no action {action[:64]!r} in the policy")
    resource = call.param("resource")
    project_id, domain_id, owner = _place(call, resource) if resource else ("", "", "")
    found: list[dict[str, Any]] = []
    with reader.snapshot():
        for text in entries:
            who = parse(text)
            every = holders(reader, who, project_id=project_id, domain_id=domain_id)
            told: list[Holder] = list(islice(every, HOLDERS_MAX))
            found.append(
                {"entry": text, "everybody": not who.role and not who.internal, "holders": told}
            )
    body: dict[str, Any] = {"action": action, "entries": found}
    if resource:
        body |= {"project_id": project_id, "domain_id": domain_id, "user_id": owner}
    return json_answer(body)


def _place(call: Call, resource: str) -> tuple[str, str, str]:
    """Return the project, domain and user that a thing belongs to.

    Raises:
        NotFound: nothing is known of it.
    """
    reader = call.edge.reader
    if (user := reader.user(resource)) is not None:
        return "", user.domain_id, user.user_id
    if reader.domain(resource) is not None:
        return "", resource, ""
    project = reader.project(resource)
    if project is None:
        why = reader.why(resource, limit=1)
        event = why.events[-1] if why is not None and why.events else None
        project = reader.project(event.project_id) if event is not None else None
    if project is None:
        raise NotFound(f"nothing is known of {resource[:64]!r}, or it belongs to no project")
    return project.project_id, project.domain_id, ""


async def what_if(call: Call) -> Answer:
    """POST /v1/policy/what-if: which recorded requests other rules would have decided otherwise.

    Long histories come in parts: ``next_after`` is the next one's ``after``.
    """
    wish = await call.decode(_what_if)
    proposed = merged(_proposed(call, wish))
    since, until = _time(wish.since, "since"), _time(wish.until, "until") or now()
    comparison, after, complete = await asyncio.to_thread(
        _walk, call, proposed, wish.after, since, until
    )
    body: dict[str, Any] = {
        "requests": comparison.requests,
        "without_rule": comparison.undecided,
        "refused": comparison.differences("refused"),
        "allowed": comparison.differences("allowed"),
        "complete": complete,
    }
    if not complete:
        body["next_after"] = after
    return json_answer(body)


def _walk(
    call: Call, proposed: Policy, after: int, since: int | None, until: int
) -> tuple[Comparison, int, bool]:
    """Compare events up to a bound; in a thread of its own, with its own connection."""
    reader, comparison = call.edge.reader, Comparison(proposed)
    if since is not None:
        after = max(after, reader.first_at(since) - 1)
    for _ in range(ROWS_MAX // BATCH):
        events = reader.events(after=after, limit=BATCH)
        within = [event for event in events if event.at < until]
        comparison.see(within)
        if len(within) < BATCH:
            return comparison, after, True
        after = within[-1].ordinal
    # The facts of the last request belong to it; none has as many as a batch.
    following = reader.events(after=after, limit=BATCH)
    rest = list(takewhile(lambda event: event.kind == "fact", following))
    comparison.see(rest)
    return comparison, rest[-1].ordinal if rest else after, False


def _time(text: str, name: str) -> int | None:
    return time_asked(text, name) if text else None


def add(routes: Routes) -> None:
    """Route what this module answers."""
    rules = "policy:rules:read"
    routes.add("GET", "/v1/policy", show, rules)
    routes.add("POST", "/v1/policy/check", check, rules, body=_wish)
    routes.add("POST", "/v1/policy/what-if", what_if, "policy:history:read", body=_what_if)
    routes.add("GET", "/v1/policy/why-denied/{}", why_denied, "policy:decisions:read")
    routes.add("GET", "/v1/policy/who-can/{}", who_can, "policy:holders:read", query=("resource",))
