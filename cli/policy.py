"""Commands about the policy: what it says, what another would mean, why and who.

A file of rules is TOML as ``schemas/policy.toml`` is: an action and whom it is for, in a line each.
What is found wrong in it is told with its line, before anything is sent.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.output import Output, Row
from cli.problem import USAGE, Problem
from cli.session import Session, command, group, single

policy_app = group("Who may do what: shown, tried, set.")
why_denied_app = single()
who_can_app = single()

type Rules = dict[str, list[str]]

File = Annotated[Path, typer.Argument(help="Rules: TOML, a line an action.")]
COLUMNS = [("ACTION", "action"), ("FOR", "for"), ("CHANGED", "changed")]


def read_rules(path: Path) -> Rules:
    """Return the rules that a file has.

    Raises:
        Problem: it cannot be read, or is wrong; each fault with its line.
    """
    from schemas.policy import DEFAULT, BadEntry, parse

    try:
        text = path.read_text()
        told = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"{path} cannot be read: {error}", exit_code=USAGE) from error
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"{path} is not TOML: {error}", exit_code=USAGE) from error
    rules: Rules = {}
    faults: list[str] = []

    def fault(action: str, what: str, entry: str = "") -> None:
        faults.append(f"{path}:{_line(text, action, entry)}: {what}")

    for action, entries in _flat(told):
        if action in rules:
            fault(action, f"{action} has a rule already")
        elif action not in DEFAULT:
            fault(action, f"there is no action {action!r}{_near(action, DEFAULT)}")
        elif not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
            fault(action, f'{action} needs a list of entries, as ["member in project"]')
        else:
            rules[action] = entries
            for entry in entries:
                try:
                    parse(entry)
                except BadEntry as error:
                    fault(action, str(error), entry)
    if faults:
        raise Problem("\n".join(faults), hint="docs/policy.md tells the grammar.", exit_code=USAGE)
    return rules


def _flat(told: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return actions with what is said of them; sections only part them."""
    found: list[tuple[str, Any]] = []
    for name, value in told.items():
        found += value.items() if isinstance(value, dict) else [(name, value)]
    return found


def _line(text: str, action: str, entry: str) -> int:
    """Return the line of an action, or of an entry in its list."""
    named = re.search(rf"^\s*[\"']?{re.escape(action)}[\"']?\s*=", text, re.MULTILINE)
    at = named.end() if named else 0
    if entry:
        within = text.find(entry, at)
        at = within if within >= 0 else at
    return text.count("\n", 0, at) + 1


def _near(action: str, known: Any) -> str:
    import difflib

    near = difflib.get_close_matches(action, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


@command(policy_app, "show", reads=True)
def show(
    session: Session,
    action: Annotated[str | None, typer.Argument(help="This action alone.")] = None,
    *,
    changed: Annotated[
        bool, typer.Option("--changed/--effective", help="What differs from the defaults alone.")
    ] = False,
    as_cedar: Annotated[
        bool, typer.Option("--cedar", help="As Cedar policies, for those who analyse them.")
    ] = False,
) -> None:
    """Show who may do what, as it is now.

    Example: cumulog policy show --changed
    """
    told = session.client.get("/v1/policy")["policy"]
    rules = {
        name: rule
        for name, rule in told["rules"].items()
        if action in {None, name} and (rule["changed"] or not changed)
    }
    if action is not None and not rules and not changed:
        raise Problem(f"there is no action {action}{_near(action, told['rules'])}", exit_code=USAGE)
    if as_cedar:
        from engine.cedar import cedar

        print(cedar({name: tuple(rule["entries"]) for name, rule in rules.items()}))
        return
    if session.output is not Output.TABLE:
        session.show({**told, "rules": rules})
        return
    rows: list[Row] = [
        {
            "action": name,
            "for": " | ".join(rule["entries"]) or "nobody",
            "changed": "yes" if rule["changed"] else "",
        }
        for name, rule in rules.items()
    ]
    session.show_all(rows, COLUMNS)


@command(policy_app, "check")
def check(session: Session, file: File) -> None:
    """Say what is wrong with a file of rules, and who would gain and lose by it.

    Example: cumulog policy check policy.toml
    """
    rules = read_rules(file)
    told = session.client.post("/v1/policy/check", {"rules": rules, "whole": True})
    if session.output is not Output.TABLE:
        session.show(told)
        return
    if not told["changes"]:
        print("Nothing would change.")
    for change in told["changes"]:
        print(change["action"])
        print(f"  now    {' | '.join(change['before']) or 'nobody'}")
        print(f"  then   {' | '.join(change['after']) or 'nobody'}")
        for word in ("gains", "loses"):
            for persona in change[word]:
                print(f"  {word:6} {persona}")


@command(policy_app, "set")
def set_(
    session: Session,
    file: File,
    *,
    keep: Annotated[
        bool, typer.Option(help="Leave rules that the file does not name as they are.")
    ] = False,
) -> None:
    """Make a file of rules what differs from the defaults. It is recorded as one event.

    Example: cumulog policy set policy.toml
    """
    rules: dict[str, list[str] | None] = dict(read_rules(file))
    if not keep:
        held = session.client.get("/v1/policy")["policy"]["rules"]
        changed = {name for name, rule in held.items() if rule["changed"]}
        rules |= dict.fromkeys(changed - rules.keys())
    _submit(session, rules)


@command(policy_app, "reset")
def reset(
    session: Session,
    actions: Annotated[list[str], typer.Argument(metavar="ACTION...", help="As DeleteServer.")],
) -> None:
    """Put rules back to their defaults.

    Example: cumulog policy reset DeleteServer
    """
    _submit(session, dict.fromkeys(actions))


def _submit(session: Session, rules: dict[str, Any]) -> None:
    from cli.submit import show_outcome

    if not rules:
        print("Nothing to change.")
        return
    show_outcome(session, session.client.submit({"type": "SetPolicy", "rules": rules}, None))


@command(policy_app, "what-if")
def what_if(
    session: Session,
    file: File,
    *,
    since: Annotated[str, typer.Option(help="From this time on, of ISO 8601.")] = "",
    until: Annotated[str, typer.Option(help="Until this time, of ISO 8601.")] = "",
) -> None:
    """Say which requests of the past a file of rules would have refused, and which allowed.

    Example: cumulog policy what-if policy.toml --since 2026-11-01
    """
    asked = {"rules": read_rules(file), "whole": True, "since": since, "until": until}
    told = session.client.post("/v1/policy/what-if", asked)
    while not told["complete"]:
        more = session.client.post("/v1/policy/what-if", asked | {"after": told["next_after"]})
        told = _joined(told, more)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    print(f"Of {told['requests']} requests:")
    for word in ("refused", "allowed"):
        found = told[word]
        print(f"{sum(one['count'] for one in found)} would have been newly {word}")
        for one in found:
            print(f"  {one['count']:6} {one['action']} by {one['persona']}")
            print(f"         as {', '.join(one['examples'])}")
    if told["without_rule"]:
        print(f"{told['without_rule']} are of before rules were recorded, and not counted")


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return two parts of an answer as one."""
    joined = dict(other)
    for name in ("requests", "without_rule"):
        joined[name] = one[name] + other[name]
    for name in ("refused", "allowed"):
        kept = {(d["action"], d["persona"]): dict(d) for d in one[name]}
        for more in other[name]:
            held = kept.setdefault((more["action"], more["persona"]), {**more, "count": 0})
            held["count"] += more["count"]
        joined[name] = sorted(kept.values(), key=lambda d: -d["count"])
    return joined


@command(why_denied_app, "why-denied", reads=True)
def why_denied(
    session: Session,
    request_id: Annotated[str, typer.Argument(help="As the refusal named it: req-….")],
) -> None:
    """Say why a request was refused, what would have let it pass, and who can grant that.

    Example: cumulog why-denied req-0197c2a4-5b3e-7cc1-9d0e-5f6a7b8c9d0e
    """
    told = session.client.get(f"/v1/policy/why-denied/{quoted(request_id)}")["why_denied"]
    if session.output is not Output.TABLE:
        session.show(told)
        return
    scope = " ".join(f"{k} {v}" for k, v in told["scope"].items()) or "no scope"
    print(f"{told['action']} by user {told['user_id']}: {told['status']} {told['code']}")
    if told["reason"]:
        print(told["reason"])
    print(f"The token had the roles {', '.join(told['roles']) or 'none'} ({scope}).")
    if not told["by_policy"]:
        print(f"The policy was not what refused it. Rule: {told['rule'] or 'not recorded'}")
        return
    print(f"Rule: {told['rule']}")
    for one in told["would_have_let_pass"]:
        print(f"  «{one['entry']}» would have needed {one['lacks']}, from {one['from']}")
    if told.get("can_grant"):
        print(f"Who can grant roles there: {', '.join(told['can_grant'])}")
    print(f"Now it {'would pass' if told['now']['allowed'] else 'would be refused again'}.")


@command(who_can_app, "who-can", reads=True)
def who_can(
    session: Session,
    action: Annotated[str, typer.Argument(help="As DeleteServer or compute:servers:read.")],
    resource: Annotated[
        str | None, typer.Argument(help="The id of a thing, a project, a domain, a user.")
    ] = None,
) -> None:
    """Say who can do a thing, and by which grants: groups, inherited and implied roles too.

    Example: cumulog who-can DeleteServer 0b6f6f4e-1a6f-4a3b-9d6a-4d8d8c1f2a3b
    """
    told = session.client.get(f"/v1/policy/who-can/{quoted(action)}", resource=resource)
    if session.output is not Output.TABLE:
        session.show(told)
        return
    rows: list[Row] = []
    for entry in told["entries"]:
        if entry["everybody"]:
            rows.append({"entry": entry["entry"], "user": "everybody signed in"})
        rows += [
            {
                "entry": entry["entry"],
                "user": one["user_name"],
                "role": " → ".join(one["path"]),
                "where": f"{'below ' if one.get('below') else ''}{one['scope']}"
                f" {one.get('target', '')}",
                "group": one.get("group_name", ""),
            }
            for one in entry["holders"]
        ]
    columns = [("ENTRY", "entry"), ("USER", "user"), ("ROLE", "role"), ("WHERE", "where")]
    session.show_all(rows, [*columns, ("THROUGH GROUP", "group")])
