"""Commands about quotas: what a project may hold of each thing, and what it holds."""

from typing import Annotated, Any

import typer

from cli.client import quoted
from cli.identity import PROJECTS
from cli.output import Output, Row
from cli.problem import USAGE, Problem
from cli.session import Session, command, group

quota_app = group("How much a project may hold, and holds.")

UNLIMITED = -1
NONE = "none"  # how people write it
LISTED = ("servers", "vcpus", "memory_mib", "disk_gib", "ports", "networks", "images")
COLUMNS = [("QUOTA", "quota"), ("USED", "used"), ("LIMIT", "limit"), ("OF EACH", "each")]

OfProject = Annotated[
    str | None, typer.Option(help="Of this project (administrators); none: your own.")
]
Default = Annotated[
    bool, typer.Option("--default", help="Of all projects that have no limit of their own.")
]


@command(quota_app, "show", reads=True)
def show(session: Session, *, project: OfProject = None, default: Default = False) -> None:
    """Show what a project holds of each thing, and its limit.

    Example: cumulog quota show --project demo
    """
    if default:
        limits = session.client.get("/v1/quota-classes/default")["quota_class"]["limits"]
        quotas = {name: {"limit": limit} for name, limit in limits.items()}
        _show(session, {"quota_class": "default", "quotas": quotas}, quotas)
        return
    path = f"/v1/quotas/{quoted(_project(session, project))}" if project else "/v1/quota"
    told = session.client.get(path)["quota"]
    # What nothing can be had of is left to those who read JSON.
    _show(session, told, {n: q for n, q in told["quotas"].items() if "used" in q or "each" in q})


def _show(session: Session, told: Row, quotas: dict[str, Any]) -> None:
    if session.output is not Output.TABLE:
        session.show(told)
        return
    rows = [
        {"quota": name, **quota, "limit": _limit(quota["limit"])} for name, quota in quotas.items()
    ]
    session.show_all(rows, COLUMNS)


def _limit(limit: int) -> str:
    return NONE if limit == UNLIMITED else str(limit)


@command(quota_app, "list", reads=True)
def list_(session: Session) -> None:
    """List what each project that you may see holds, and its limits."""
    rows: list[Row] = []
    marker = None
    while page := session.client.get("/v1/quotas", marker=marker)["quotas"]:
        rows += page
        marker = page[-1]["project_id"]
    columns = [(name.upper(), lambda row, name=name: _used(row, name)) for name in LISTED]
    session.show_all(rows, [("PROJECT", "project_name"), ("ID", "project_id"), *columns])


def _used(row: Row, name: str) -> str:
    quota = row["quotas"][name]
    return f"{quota['used']}/{_limit(quota['limit'])}"


@command(quota_app, "set")
def set_(
    session: Session,
    limits: Annotated[
        list[str], typer.Argument(metavar="NAME=LIMIT...", help=f"As servers=20; {NONE} for none.")
    ],
    *,
    project: OfProject = None,
    default: Default = False,
    check: Annotated[
        bool, typer.Option("--check", help="Refuse limits below what the project holds.")
    ] = False,
) -> None:
    """Set limits; those not named stay. What a project holds stays too, however low they are.

    Example: cumulog quota set --project demo servers=20 vcpus=none
    """
    wanted = dict(_parsed(text) for text in limits)
    if default:
        if project or check:
            raise Problem("--default is of no project: it takes no other option", exit_code=USAGE)
        session.client.submit({"type": "SetQuotaClass", "limits": wanted})
        show(session, default=True)
        return
    action = {
        "type": "SetQuota",
        "project_id": _project(session, project),
        "limits": wanted,
        "check_limit": check,
    }
    session.client.submit(action)
    show(session, project=project)


def _parsed(text: str) -> tuple[str, int]:
    """Return a name and its limit.

    Raises:
        Problem: the text is not NAME=LIMIT.
    """
    name, _, limit = text.partition("=")
    try:
        return name, UNLIMITED if limit == NONE else int(limit)
    except ValueError:
        raise Problem(
            f"{text!r} is not NAME=LIMIT with a whole number or {NONE!r}",
            hint="`cumulog quota show` has the names.",
            exit_code=USAGE,
        ) from None


@command(quota_app, "reset")
def reset(
    session: Session,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Which; all if none is named.")
    ] = None,
    *,
    project: OfProject = None,
) -> None:
    """Take a project's own limits away: the default ones hold again."""
    project_id = _project(session, project)
    session.client.submit({"type": "ResetQuota", "project_id": project_id, "names": names or []})
    show(session, project=project)


def _project(session: Session, project: str | None) -> str:
    """Return the id of the project that is meant."""
    if project:
        return PROJECTS.identify(session.client, project)
    return str(session.client.get("/v1/quota")["quota"]["project_id"])
