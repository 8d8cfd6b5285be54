"""Commands about domains, projects, users, groups and tokens. Those about roles: ``cli.role``."""

from typing import Annotated, Any

import typer

from cli.problem import USAGE, Problem
from cli.resource import Reference, Resource, add_delete, add_reads
from cli.session import Session, command, group

IDENTITY = "/identity/v3"

DOMAINS = Resource(
    word="domain",
    path=f"{IDENTITY}/domains",
    key="domain",
    keys="domains",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("ENABLED", "enabled"),
        ("DESCRIPTION", "description"),
    ],
)
PROJECTS = Resource(
    word="project",
    path=f"{IDENTITY}/projects",
    key="project",
    keys="projects",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("DOMAIN", "domain_id"),
        ("ENABLED", "enabled"),
        ("DESCRIPTION", "description"),
    ],
)
USERS = Resource(
    word="user",
    path=f"{IDENTITY}/users",
    key="user",
    keys="users",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("DOMAIN", "domain_id"),
        ("ENABLED", "enabled"),
        ("EMAIL", "email"),
    ],
)
GROUPS = Resource(
    word="group",
    path=f"{IDENTITY}/groups",
    key="group",
    keys="groups",
    columns=[
        ("ID", "id"),
        ("NAME", "name"),
        ("DOMAIN", "domain_id"),
        ("DESCRIPTION", "description"),
    ],
)
ROLES = Resource(
    word="role",
    path=f"{IDENTITY}/roles",
    key="role",
    keys="roles",
    columns=[("ID", "id"), ("NAME", "name"), ("DOMAIN", "domain_id")],
)

domain_app = group("Namespaces of projects, users and groups.")
project_app = group("What owns resources and is billed for them.")
user_app = group("Who signs in.")
group_app = group("Users who get roles together.")
token_app = group("Tokens for the API.")
for app, resource in (
    (domain_app, DOMAINS),
    (project_app, PROJECTS),
    (user_app, USERS),
    (group_app, GROUPS),
):
    add_reads(app, resource)
    add_delete(app, resource)

Name = Annotated[str, typer.Argument(help="What to call it.")]
NewName = Annotated[str | None, typer.Option("--name", help="Call it so from now on.")]
Description = Annotated[str, typer.Option(help="A sentence about it.")]
NewDescription = Annotated[str | None, typer.Option("--description", help="A sentence about it.")]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it counts.")]
Domain = Annotated[str, typer.Option(help="In which domain.")]
User = Annotated[str, typer.Argument(metavar="USER", help="Name or id of a user.")]


@command(domain_app, "create")
def create_domain(session: Session, name: Name, *, description: Description = "") -> None:
    """Make a domain."""
    body = {"name": name, "description": description}
    session.show(session.client.post(DOMAINS.path, {"domain": body})["domain"])


def change(session: Session, resource: Resource, reference: str, **given: Any) -> None:
    """Change what is given of a thing, and show it."""
    path = f"{resource.path}/{resource.identify(session.client, reference)}"
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise Problem("nothing to change", hint="See the options with --help.", exit_code=USAGE)
    session.show(session.client.request("PATCH", path, {resource.key: body}).body[resource.key])


@command(domain_app, "set")
def set_domain(
    session: Session,
    reference: Reference,
    *,
    name: NewName = None,
    description: NewDescription = None,
    enabled: Enabled = None,
) -> None:
    """Change a domain; nobody of one that is disabled signs in."""
    change(session, DOMAINS, reference, name=name, description=description, enabled=enabled)


@command(project_app, "create")
def create_project(
    session: Session,
    name: Name,
    *,
    description: Description = "",
    domain: Domain = "default",
    parent: Annotated[str | None, typer.Option(help="In which project it is to lie.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
) -> None:
    """Make a project with its default security group."""
    client = session.client
    body: dict[str, Any] = {"name": name, "description": description, "tags": tag or []}
    body["domain_id"] = DOMAINS.identify(client, domain)
    if parent:
        body["parent_id"] = PROJECTS.identify(client, parent)
    session.show(client.post(PROJECTS.path, {"project": body})["project"])


@command(project_app, "set")
def set_project(
    session: Session,
    reference: Reference,
    *,
    name: NewName = None,
    description: NewDescription = None,
    enabled: Enabled = None,
    tag: Annotated[list[str] | None, typer.Option(help="All its tags from now on.")] = None,
) -> None:
    """Change a project; tokens of one that is disabled are good for nothing."""
    given = {"description": description, "enabled": enabled, "tags": tag}
    change(session, PROJECTS, reference, name=name, **given)


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
    domain: Domain = "default",
    email: Annotated[str, typer.Option(help="Where to write to them.")] = "",
) -> None:
    """Make a user; the password is read from a file, or asked for on a terminal."""
    client = session.client
    body: dict[str, Any] = {
        "name": name,
        "description": description,
        "email": email,
        "domain_id": DOMAINS.identify(client, domain),
        "password": _password(password_file),
    }
    project_id = PROJECTS.identify(client, project) if project else None
    if project_id:
        body["default_project_id"] = project_id
    made = client.post(USERS.path, {"user": body})["user"]
    if project_id:
        grant_role(session, made["id"], project_id, role)
    session.show(made)


@command(user_app, "set")
def set_user(
    session: Session,
    reference: Reference,
    *,
    name: NewName = None,
    description: NewDescription = None,
    enabled: Enabled = None,
    email: Annotated[str | None, typer.Option(help="Where to write to them.")] = None,
    password_file: Annotated[
        str | None, typer.Option(help="A file with a new password, - for standard input.")
    ] = None,
) -> None:
    """Change a user; a new password and --disable end all their tokens."""
    given = {"description": description, "enabled": enabled, "email": email}
    if password_file is not None:
        given["password"] = _password(password_file)
    change(session, USERS, reference, name=name, **given)


@command(group_app, "create")
def create_group(
    session: Session, name: Name, *, description: Description = "", domain: Domain = "default"
) -> None:
    """Make a group."""
    body = {"name": name, "description": description}
    body["domain_id"] = DOMAINS.identify(session.client, domain)
    session.show(session.client.post(GROUPS.path, {"group": body})["group"])


@command(group_app, "set")
def set_group(
    session: Session,
    reference: Reference,
    *,
    name: NewName = None,
    description: NewDescription = None,
) -> None:
    """Change a group."""
    change(session, GROUPS, reference, name=name, description=description)


@command(group_app, "members", reads=True)
def list_members(session: Session, reference: Reference) -> None:
    """List the users in a group."""
    path = f"{GROUPS.path}/{GROUPS.identify(session.client, reference)}/users"
    session.show_all(session.client.get(path)["users"], USERS.columns)


@command(group_app, "add")
def add_member(session: Session, reference: Reference, user: User) -> None:
    """Put a user into a group."""
    session.client.request("PUT", _member(session, reference, user))
    session.say(f"{user} is in {reference}")


@command(group_app, "remove")
def remove_member(session: Session, reference: Reference, user: User) -> None:
    """Take a user out of a group."""
    session.client.delete(_member(session, reference, user))
    session.say(f"{user} is no longer in {reference}")


def _member(session: Session, reference: str, user: str) -> str:
    group_id = GROUPS.identify(session.client, reference)
    return f"{GROUPS.path}/{group_id}/users/{USERS.identify(session.client, user)}"


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
