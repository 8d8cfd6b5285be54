"""Commands about projects, users and tokens."""

from typing import Annotated, Any

import typer

from cli.problem import USAGE, Problem
from cli.resource import Reference, Resource, add_delete, add_reads
from cli.session import Session, command, group

IDENTITY = "/identity/v3"

PROJECTS = Resource(
    word="project",
    path=f"{IDENTITY}/projects",
    key="project",
    keys="projects",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("ENABLED", "enabled"),
        ("DESCRIPTION", "description"),
    ],
)
USERS = Resource(
    word="user",
    path=f"{IDENTITY}/users",
    key="user",
    keys="users",
    columns=[("ID", "id"), ("NAME", "name"), ("ENABLED", "enabled"), ("EMAIL", "email")],
)
ROLES = Resource(
    word="role",
    path=f"{IDENTITY}/roles",
    key="role",
    keys="roles",
    columns=[("ID", "id"), ("NAME", "name")],
)

project_app = group("What owns resources and is billed for them.")
user_app = group("Who signs in.")
token_app = group("Tokens for the API.")
for app, resource in ((project_app, PROJECTS), (user_app, USERS)):
    add_reads(app, resource)
    add_delete(app, resource)

Description = Annotated[str, typer.Option(help="A sentence about it.")]


@command(project_app, "create")
def create_project(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    description: Description = "",
) -> None:
    """Make a project with its default security group."""
    body = {"name": name, "description": description, "domain_id": "default"}
    session.show(session.client.post(PROJECTS.path, {"project": body})["project"])


@command(user_app, "create")
def create_user(
    session: Session,
    name: Annotated[str, typer.Argument(help="What to call them.")],
    *,
    password_file: Annotated[
        str | None, typer.Option(help="A file with the password, - for standard input.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Give them a role on this project.")] = None,
    role: Annotated[str, typer.Option(help="Which role: member, reader or admin.")] = "member",
    description: Description = "",
) -> None:
    """Make a user; the password is read from a file, or asked for on a terminal."""
    client = session.client
    body: dict[str, Any] = {
        "name": name,
        "description": description,
        "domain_id": "default",
        "password": _password(password_file),
    }
    project_id = PROJECTS.identify(client, project) if project else None
    if project_id:
        body["default_project_id"] = project_id
    made = client.post(USERS.path, {"user": body})["user"]
    if project_id:
        grant_role(session, made["id"], project_id, role)
    session.show(made)


@command(user_app, "grant")
def grant(
    session: Session,
    reference: Reference,
    *,
    project: Annotated[str, typer.Option(help="On which project.")],
    role: Annotated[str, typer.Option(help="Which role: member, reader or admin.")] = "member",
) -> None:
    """Give a user a role on a project."""
    user_id = USERS.identify(session.client, reference)
    grant_role(session, user_id, PROJECTS.identify(session.client, project), role)
    session.say(f"{reference} is {role} of {project}")


def grant_role(session: Session, user_id: str, project_id: str, role: str) -> None:
    """Give a role; repeating it changes nothing."""
    role_id = ROLES.identify(session.client, role)
    path = f"{PROJECTS.path}/{project_id}/users/{user_id}/roles/{role_id}"
    session.client.request("PUT", path)


def _password(source: str | None) -> str:
    import getpass
    import sys
    from pathlib import Path

    try:
        if source is None:
            if not sys.stdin.isatty():
                raise Problem("no password", hint="Give one with --password-file.", exit_code=USAGE)
            return getpass.getpass("Password: ")
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
    except OSError as error:
        raise Problem(f"cannot read {source}: {error.strerror}", exit_code=USAGE) from error
    return text.rstrip("\n")


@command(token_app, "issue")
def issue(session: Session) -> None:
    """Get a token and show whom it stands for."""
    told = session.client.issued()
    session.show(
        {
            "id": session.client.token(),
            "expires_at": told.get("expires_at"),
            "user": told.get("user", {}).get("name"),
            "user_id": told.get("user", {}).get("id"),
            "project": told.get("project", {}).get("name"),
            "project_id": told.get("project", {}).get("id"),
            "roles": ", ".join(role["name"] for role in told.get("roles", [])),
        }
    )
