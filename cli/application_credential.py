"""Commands about application credentials: one's own, on the project of the account."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from cli.identity import IDENTITY, Description, Name
from cli.problem import USAGE, Problem
from cli.resource import Reference, References, Resource
from cli.session import Session, command, group

application_credential_app = group("Secrets with which programs act for their users.")

_RESOURCE = Resource(
    word="application-credential",
    path="",
    key="application_credential",
    keys="application_credentials",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("PROJECT", "project_id"),
        ("EXPIRES", "expires_at"),
        ("UNRESTRICTED", "unrestricted"),
    ],
)


def _mine(session: Session) -> Resource:
    user_id = session.client.issued()["user"]["id"]
    return replace(_RESOURCE, path=f"{IDENTITY}/users/{user_id}/application_credentials")


@command(application_credential_app, "list", reads=True)
def list_(session: Session) -> None:
    """List your application credentials."""
    session.show_all(_mine(session).list(session.client), _RESOURCE.columns)


@command(application_credential_app, "show", reads=True)
def show(session: Session, reference: Reference) -> None:
    """Show one of your application credentials; its secret is shown only when it is made."""
    session.show(_mine(session).find(session.client, reference))


@command(application_credential_app, "create")
def create(
    session: Session,
    name: Name,
    *,
    description: Description = "",
    role: Annotated[
        list[str] | None, typer.Option(help="A role to give it; without, all that you have.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="When it ends, as 2027-01-31T00:00:00Z.")
    ] = None,
    unrestricted: Annotated[
        bool, typer.Option("--unrestricted", help="Let it make others of its kind.")
    ] = False,
    access_rule: Annotated[
        list[str] | None,
        typer.Option(help="A call it may make, as 'compute GET /v2.1/servers'; no others."),
    ] = None,
) -> None:
    """Make one for the account's project, and show its secret once."""
    body: dict[str, Any] = {
        "name": name,
        "description": description,
        "unrestricted": unrestricted,
        "expires_at": expires,
    }
    if role:
        body["roles"] = [{"name": one} for one in role]
    if access_rule:
        body["access_rules"] = [_rule(text) for text in access_rule]
    made = session.client.post(_mine(session).path, {_RESOURCE.key: body})
    session.show(made[_RESOURCE.key])


def _rule(text: str) -> dict[str, str]:
    match text.split():
        case [service, method, path]:
            return {"service": service, "method": method.upper(), "path": path}
        case _:
            raise Problem(
                f"{text!r} is no access rule",
                hint="One is a service, a method and a path: 'compute GET /v2.1/servers/*'.",
                exit_code=USAGE,
            )


@command(application_credential_app, "delete")
def delete(session: Session, references: References) -> None:
    """Delete application credentials; their tokens end."""
    mine = _mine(session)
    for reference in references:
        identity = mine.identify(session.client, reference)
        session.client.delete(f"{mine.path}/{identity}")
        session.say(f"deleted application-credential {reference}")
