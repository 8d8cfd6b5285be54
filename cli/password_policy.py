"""`cumulog admin password-policy`: what passwords must be, and what failed sign-ins do."""

from typing import Annotated, Any

import typer

from cli.problem import USAGE, Problem
from cli.session import Session, command, group

policy_app = group("What passwords must be, and what failed sign-ins do.")


def _number(text: str) -> Any:
    return typer.Option(help=f"{text}; 0 for no such rule.", show_default=False, min=0)


@command(policy_app, "show", reads=True)
def show(session: Session) -> None:
    """Show the password policy.

    Example: cumulog admin password-policy show
    """
    session.show(_policy(session))


def _policy(session: Session) -> dict[str, Any]:
    policy: dict[str, Any] = session.client.get("/v1/password-policy")["password_policy"]
    return policy


@command(policy_app, "set")
def set_(
    session: Session,
    *,
    length_min: Annotated[int | None, _number("How long a password must be")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help='A regular expression that it must match; "" for none.'),
    ] = None,
    pattern_hint: Annotated[
        str | None, typer.Option(help="What the pattern asks for, in words for people.")
    ] = None,
    history: Annotated[int | None, _number("How many of the last must not come again")] = None,
    expires_days: Annotated[int | None, _number("How many days one is good")] = None,
    age_min_days: Annotated[int | None, _number("How many days one must be kept")] = None,
    change_upon_first_use: Annotated[
        bool | None,
        typer.Option(help="Whether one that somebody else has set must be changed at once."),
    ] = None,
    lockout_attempts: Annotated[
        int | None, _number("After how many failures in a row a user is locked out")
    ] = None,
    lockout_s: Annotated[int | None, _number("For how many seconds")] = None,
) -> None:
    """Set rules; those not named stay. Passwords that there are stay good as they are.

    A pattern is in RE2's syntax, and may begin with lookaheads. Failures are counted by each edge
    for itself.

    Example: cumulog admin password-policy set --length-min 10 --lockout-attempts 5 --lockout-s 900
    """
    given = {
        "length_min": length_min,
        "pattern": pattern,
        "pattern_hint": pattern_hint,
        "history": history,
        "expires_days": expires_days,
        "age_min_days": age_min_days,
        "change_upon_first_use": change_upon_first_use,
        "lockout_attempts": lockout_attempts,
        "lockout_s": lockout_s,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise Problem("name a rule to set", hint="`--help` lists them.", exit_code=USAGE)
    policy = {**_policy(session), **changes}
    session.client.submit({"type": "SetPasswordPolicy", "policy": policy})
    show(session)
