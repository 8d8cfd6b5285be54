"""`cumulog undo`: a plan that takes requests back, shown first, then carried out step by step."""

from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.output import Column, Output, Row, cell
from cli.problem import REFUSED, Problem
from cli.progress import Waiting, poll
from cli.rollover import confirm
from cli.session import Session, command, single

OPERATION_S = 900.0  # longer than any operation's deadline

undo_app = single()


def _does(step: Row) -> str:
    if step["action"] is None:
        return f"nothing: {step['cannot']}"
    fields = {k: v for k, v in step["action"].items() if k != "type" and v not in step["key"]}
    return f"{step['action']['type']} {cell(fields)}".rstrip()


def _changed(step: Row) -> str:
    by = step["changed_by"]
    if by is None:
        return ""
    return f"{by['ordinal']} {by['tag']}, {by['cause'] or by['request_id']}"


PLAN_COLUMNS: list[Column] = [
    ("UNDOES", lambda step: f"{step['undoes']['ordinal']} {step['undoes']['tag']}"),
    ("OF", "table"),
    ("WHICH", lambda step: " ".join(map(str, step["key"]))),
    ("BY", _does),
    ("CHANGED SINCE", _changed),
]


@command(undo_app, "undo")
def undo(
    session: Session,
    what: Annotated[str, typer.Argument(help="A request's id, as req-…, or ordinals: FROM..TO.")],
    *,
    user: Annotated[
        str | None, typer.Option(help="Of a range, only this user's requests (name or id).")
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="Of a range, only this project's (administrators).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even where somebody has changed a thing since.")
    ] = False,
) -> None:
    """Take requests back: show what undoes what, the newest thing first, and do it once you say so.

    Each step is a request of your own, with your own rights, that names the undone one as its
    cause. What nothing brings back is said. Where a thing was changed by others since, nothing is
    done without --force, which sets back only what the undone requests had set. -o json without
    --yes prints the plan and does nothing.

    \b
    cumulog undo req-0197c2a4-5b3e-7cc1-9d0e-5f6a7b8c9d0e
    cumulog undo 4711..4790 --user mallory --yes
    """  # noqa: D301  # click's mark for lines that stay as they are
    from cli.audit import identified

    client = session.client
    plan = client.get(
        f"/v1/undo/{quoted(what)}",
        user_id=identified("user", client, user),
        project=identified("project", client, project),
    )
    steps = [step for step in plan["steps"] if step["action"] is not None]
    if session.output is not Output.TABLE and not yes:
        session.show(plan)
        return
    if session.output is Output.TABLE:
        _show(session, plan)
    if not steps:
        session.say("There is nothing to do.")
        return
    changed = [step for step in steps if step["changed_by"]]
    if changed and not force:
        raise Problem(
            f"{len(changed)} of {len(steps)} things were changed since, by other requests",
            hint="Look at them; --force undoes them all the same.",
        )
    if not yes:
        confirm(f"\nSubmit {len(steps)} requests?")
    done = _carry_out(session, steps)
    if session.output is not Output.TABLE:
        session.show({**plan, "done": done})


def _carry_out(session: Session, steps: list[Row]) -> list[Any]:
    """Submit the steps one after another, each once the work of the one before has ended.

    Raises:
        Problem: one was refused, or failed; those before it are done.
    """
    done: list[Any] = []
    for number, step in enumerate(steps, 1):
        action = step["action"]
        try:
            outcome = session.client.submit(action, cause=step["undoes"]["request_id"])
            operation = outcome["reply"].get("operation_id")
            if operation:
                _wait(session, action["type"], operation)
        except Problem as problem:
            raise Problem(
                f"step {number} of {len(steps)}, {action['type']}: {problem.what}",
                hint=f"{len(done)} steps are done; ask again for what is left.",
                request_id=problem.request_id,
                exit_code=problem.exit_code,
            ) from problem
        session.say(f"{outcome['ordinal']}  {action['type']} {_about(step)}  {outcome['verdict']}")
        done.append(outcome)
    return done


def _wait(session: Session, what: str, operation_id: str) -> None:
    with Waiting(what):
        for _ in poll(OPERATION_S):
            state = session.client.get(f"/v1/operations/{quoted(operation_id)}")
            if state["status"] == "succeeded":
                return
            if state["status"] != "running":
                raise Problem(f"it {state['status']}: {state['cause']}", exit_code=REFUSED)
    raise Problem("it did not end in time", hint=f"Look at operation {operation_id}.")


def _show(session: Session, plan: Row) -> None:
    session.show_all(plan["steps"], PLAN_COLUMNS)


def _about(step: Row) -> str:
    return " ".join(map(str, step["key"]))
