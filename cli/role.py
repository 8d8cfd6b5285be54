"""Commands about roles: which there are, what they imply, and who has which where."""

from typing import Annotated, Any

import typer

from cli.identity import (
    DOMAINS,
    GROUPS,
    IDENTITY,
    PROJECTS,
    ROLES,
    USERS,
    Description,
    Name,
)
from cli.problem import USAGE, Problem
from cli.resource import Reference, add_delete, add_reads
from cli.session import Session, command, group

role_app = group("Named rights, and who has which where.")
add_reads(role_app, ROLES)
add_delete(role_app, ROLES)

User = Annotated[str | None, typer.Option(help="To this user.")]
Group = Annotated[str | None, typer.Option(help="To this group.")]
Project = Annotated[str | None, typer.Option(help="On this project.")]
Domain = Annotated[str | None, typer.Option(help="On this domain.")]
System = Annotated[bool, typer.Option("--system", help="In the whole system.")]
Inherited = Annotated[
    bool, typer.Option("--inherited", help="Not there, but on all projects below.")
]
Implied = Annotated[str, typer.Argument(metavar="IMPLIED", help="The role that follows.")]


@command(role_app, "create")
def create(
    session: Session,
    name: Name,
    *,
    description: Description = "",
    domain: Annotated[str | None, typer.Option(help="Of which domain it is to be.")] = None,
) -> None:
    """Make a role; it gives nothing until it implies another, or the policy names it."""
    body = {"name": name, "description": description}
    if domain:
        body["domain_id"] = DOMAINS.identify(session.client, domain)
    session.show(session.client.post(ROLES.path, {"role": body})["role"])


@command(role_app, "imply")
def imply(session: Session, reference: Reference, implied: Implied) -> None:
    """Let whoever has one role have another as well."""
    session.client.request("PUT", _pair(session, reference, implied))
    session.say(f"{reference} implies {implied}")


@command(role_app, "unimply")
def unimply(session: Session, reference: Reference, implied: Implied) -> None:
    """Let a role no longer imply another."""
    session.client.delete(_pair(session, reference, implied))
    session.say(f"{reference} no longer implies {implied}")


def _pair(session: Session, prior: str, implied: str) -> str:
    ids = [ROLES.identify(session.client, role) for role in (prior, implied)]
    return f"{ROLES.path}/{ids[0]}/implies/{ids[1]}"


@command(role_app, "grant")
def grant(
    session: Session,
    reference: Reference,
    *,
    user: User = None,
    group: Group = None,
    project: Project = None,
    domain: Domain = None,
    system: System = False,
    inherited: Inherited = False,
) -> None:
    """Give a role to a user or a group: on a project, on a domain, or in the system."""
    path = _place(session, reference, user, group, project, domain, system, inherited)
    session.client.request("PUT", path)
    session.say(f"{user or group} has {reference} on {project or domain or 'the system'}")


@command(role_app, "revoke")
def revoke(
    session: Session,
    reference: Reference,
    *,
    user: User = None,
    group: Group = None,
    project: Project = None,
    domain: Domain = None,
    system: System = False,
    inherited: Inherited = False,
) -> None:
    """Take a role away that was given so."""
    path = _place(session, reference, user, group, project, domain, system, inherited)
    session.client.delete(path)
    where = project or domain or "the system"
    session.say(f"{user or group} no longer has {reference} on {where}")


def _place(  # what the options say, each by itself
    session: Session,
    role: str,
    user: str | None,
    group: str | None,
    project: str | None,
    domain: str | None,
    system: bool,  # see above
    inherited: bool,
) -> str:
    """Return the path of a grant.

    Raises:
        Problem: it is not told to whom, or where.
    """
    client = session.client
    if bool(user) == bool(group):
        raise Problem("name one of --user and --group", exit_code=USAGE)
    if [bool(project), bool(domain), system].count(True) != 1:
        raise Problem("name one of --project, --domain and --system", exit_code=USAGE)
    if inherited and system:
        raise Problem("nothing is inherited from the system", exit_code=USAGE)
    if project:
        where = f"projects/{PROJECTS.identify(client, project)}"
    else:
        where = f"domains/{DOMAINS.identify(client, domain)}" if domain else "system"
    if user:
        who = f"users/{USERS.identify(client, user)}"
    else:
        who = f"groups/{GROUPS.identify(client, group or '')}"
    path = f"{where}/{who}/roles/{ROLES.identify(client, role)}"
    if inherited:
        return f"{IDENTITY}/OS-INHERIT/{path}/inherited_to_projects"
    return f"{IDENTITY}/{path}"


@command(role_app, "assignments", reads=True)
def assignments(
    session: Session,
    *,
    user: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    project: Annotated[str | None, typer.Option(help="Those on this project.")] = None,
    effective: Annotated[
        bool, typer.Option("--effective", help="What follows from them, users only.")
    ] = False,
) -> None:
    """List who has which role where."""
    client = session.client
    query: dict[str, Any] = {"include_names": "true"}
    if effective:
        query["effective"] = "true"
    if user:
        query["user.id"] = USERS.identify(client, user)
    if project:
        query["scope.project.id"] = PROJECTS.identify(client, project)
    rows = client.get(f"{IDENTITY}/role_assignments", **query)["role_assignments"]
    session.show_all(
        [_row(row) for row in rows],
        [
            ("ROLE", "role"),
            ("USER", "user"),
            ("GROUP", "group"),
            ("ON", "on"),
            ("INHERITED", "inherited"),
        ],
    )


def _row(row: dict[str, Any]) -> dict[str, Any]:
    scope = row["scope"]
    if "system" in scope:
        on = "system"
    else:
        kind = "project" if "project" in scope else "domain"
        on = f"{kind} {scope[kind].get('name', scope[kind]['id'])}"
    return {
        "role": row["role"].get("name", row["role"]["id"]),
        "user": row.get("user", {}).get("name"),
        "group": row.get("group", {}).get("name"),
        "on": on,
        "inherited": "OS-INHERIT:inherited_to" in scope,
    }
