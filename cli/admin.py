"""`cumulog admin`: what only the operator of a cell does, with the keys of the house.

Nothing here talks to the API. Files with secrets are made readable by their owner only, and a file
that is there is never replaced unless that is asked for.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Column, Output, show_item, show_rows
from cli.parameters import HELP_NAMES, AuthorityOption, ConfigArgument
from cli.password_policy import policy_app
from cli.problem import USAGE, Problem
from cli.session import Session, command
from cli.token_keys import keys_app

if TYPE_CHECKING:
    from pathlib import Path

    from engine.log.deployment import Node, Plan, Secrets

admin_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": HELP_NAMES},
    help="What only the operator of a cell does.",
)

admin_app.add_typer(policy_app, name="password-policy")
admin_app.add_typer(keys_app, name="token-keys")

GIB = 2**30
COLUMNS: Sequence[Column] = (
    ("FILE", "file"),
    ("BELONGS TO", "whose"),
    ("COPY TO", lambda row: " and ".join(row["copy_to"])),
)
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]


@admin_app.callback()
def root() -> None:
    """Set up the broker of a cell on machines of its own."""


@admin_app.command("nats-config")
def nats_config(
    directory: Annotated[str, typer.Argument(help="Where to write the files.", metavar="DIR")],
    *,
    cell: Annotated[str, typer.Option(help="The cell's name.")],
    node: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=HOST:PORT[/CLUSTER_PORT]",
            help="A node of the broker, as clients dial it; repeat it. One, or three and more.",
        ),
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A machine that runs servers; repeat it."),
    ] = None,
    cluster_port: Annotated[int, typer.Option(help="Where nodes talk to each other.")] = 6222,
    nats_dir: Annotated[
        str, typer.Option(help="Where the files will lie on a node; {node} is its name.")
    ] = "/etc/cumulog-nats",
    store_dir: Annotated[
        str, typer.Option(help="Where a node stores the log; {node} is its name.")
    ] = "/var/lib/cumulog-nats",
    state_dir: Annotated[
        str, typer.Option(help="The state directory of Cumulog's own processes.")
    ] = "/var/lib/cumulog",
    store_gib: Annotated[int, typer.Option(min=1, help="How much a node may store.")] = 200,
    days: Annotated[int, typer.Option(min=1, help="How long a node's certificate is good.")] = 825,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files; keep the secrets that are in DIR.")
    ] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="With --force: make all secrets anew, too.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write all that the broker of a cell needs: servers' configuration, certificates, identities.

    Each component gets an identity of its own, which may do its work and nothing else: engine,
    edge (the API), history (projector and archiver), admin, and one agent for each --host.
    Everything is said under TLS; nodes know each other by their certificates.

    To add a host later, give all options again with one --host more and --force: what is known
    stays, and each node takes it up with `nats-server --signal reload`.

    Example: cumulog admin nats-config ./broker --cell a --node n1=10.0.0.1:4222
    --node n2=10.0.0.2:4222 --node n3=10.0.0.3:4222 --host h1 --host h2
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from cli.state import write_private
    from engine.log.deployment import Plan, make_files, make_secrets

    root = Path(directory).absolute()
    plan = Plan(
        cell=_name("--cell", cell, 32),
        nodes=[_node(text, cluster_port) for text in node],
        hosts=[_name("--host", name, 63) for name in host or []],
        nats_dir=nats_dir,
        store_dir=store_dir,
        state_dir=state_dir,
        store_bytes_max=store_gib * GIB,
        days=days,
    )
    _check(plan)
    now = datetime.now(UTC)
    known = None if rotate and force else _known_secrets(root, plan)
    files = make_files(plan, make_secrets(plan, known, now), now)
    there = [made.path for made in files if (root / made.path).exists()]
    if there and not force:
        raise Problem(
            f"{root} holds {', '.join(there[:3])} already",
            hint="Name another directory, or give --force to replace them, keeping the secrets.",
            exit_code=USAGE,
        )
    for made in files:
        path = root / made.path
        for parent in reversed([p for p in path.parents if p == root or root in p.parents]):
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, made.text)
    rows = [
        {
            "file": str(root / made.path),
            "whose": made.whose or "keep it here",
            "copy_to": list(made.copy_to),
            "secret": made.secret,
        }
        for made in files
    ]
    show_rows(output, rows, COLUMNS)
    if output is Output.TABLE:
        print(_next_steps(plan, root))


@admin_app.command()
def prepare(
    config: Annotated[
        str, typer.Argument(help="The admin component's file.", metavar="ADMIN.JSON")
    ],
    *,
    authority: Annotated[
        str, typer.Option(help="The authority's file, when not where ADMIN.JSON says.")
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Make the log and the keys of a cell on its broker, and check how it keeps them.

    Once, before the first engine starts; it can be repeated, and then only checks. Ends with 1 if
    a server does not sync every append, or the log is not as it must be.

    Example: cumulog admin prepare ./broker/components/admin.json --authority ./broker/ca.pem
    """
    import asyncio
    from pathlib import Path

    import msgspec

    from engine.bus.client import BusError
    from engine.log.prepare import prepare_cell
    from engine.log.stream import LogConfigDiffers
    from schemas.config import Config

    try:
        told = msgspec.json.decode(Path(config).read_bytes(), type=Config)
        told = msgspec.structs.replace(told, nats_ca=authority or told.nats_ca)
        servers = asyncio.run(prepare_cell(told))
    except OSError as error:
        raise Problem(
            f"cannot read {error.filename or told.nats_ca}: {error.strerror or error}",
            exit_code=USAGE,
        ) from error
    except msgspec.MsgspecError as error:
        raise Problem(f"{config} is not a configuration: {error}", exit_code=USAGE) from error
    except (BusError, LogConfigDiffers) as error:
        raise Problem(f"the broker is not fit for the log: {error}") from error
    show_item(
        output,
        {"cell": told.cell, "servers": servers, "replicas": told.replicas, "log": "as it must be"},
    )


@command(admin_app, "log-roll")
def log_roll(
    session: Session,
    config: ConfigArgument = "",
    *,
    authority: AuthorityOption = "",
    to: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Do nothing if it is there already.")
    ] = None,
) -> None:
    """Close the stream that the log lies in, and let the log go on in the next one.

    A stream of the log only grows. Closed ones can be dropped once history holds them (`log-drop`),
    so roll over now and then, before the broker's disk is full. The cloud goes on meanwhile:
    requests wait for a tenth of a second. Nothing changes for who reads; ordinals and the hash
    chain go on.

    It asks the engine, then makes the stream, both as the broker's administrator: nobody else may.
    If it is cut short in between, requests wait until it is run again, or the broker is started
    again.

    Example: cumulog admin log-roll --state-dir var

    In a cluster: cumulog admin log-roll ./broker/components/admin.json
    """
    from cli.cloud import STATE_DIR
    from cli.rollover import admin_config, roll

    told = admin_config(config, authority, "" if config else session.state_dir or STATE_DIR)
    session.show(roll(told, to))


@command(admin_app, "log-drop")
def log_drop(
    session: Session,
    number: Annotated[
        int, typer.Argument(help="The oldest stream of the log.", metavar="NUMBER", min=1)
    ],
    config: ConfigArgument = "",
    *,
    authority: AuthorityOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Drop the log's oldest stream from the broker, once sealed history holds all of it.

    History is then the only place that has these commits, so have a copy of it elsewhere. The
    archiver is asked to seal and sign what it has not yet. Then every commit of the stream is
    compared with history, byte for byte, the hash chain is walked, and a signed checkpoint must
    cover the stream's end; if anything is missing, nothing is dropped. Read models, replays,
    exports and `audit verify` go on as before: what is no longer in the log is read from history.

    Run it where the archiver's state directory is.

    Example: cumulog admin log-drop 1 --state-dir var

    In a cluster: cumulog admin log-drop 1 ./broker/components/admin.json
    --state-dir /var/lib/cumulog
    """
    from cli.cloud import STATE_DIR
    from cli.rollover import admin_config, confirm, drop_stream, find_droppable

    told = admin_config(config, authority, session.state_dir or ("" if config else STATE_DIR))
    found = find_droppable(told, number)
    if found is None:
        session.show({"stream": number, "result": "it was dropped before"})
        return
    size = f"{found.last - found.first + 1} commits, {found.bytes / 2**20:.1f} MiB"
    if not yes:
        confirm(f"Stream {number} ({size}) is in sealed history. This drops it from the broker.")
    drop_stream(told, number)
    session.show(
        {
            "stream": number,
            "result": "dropped",
            "held": size,
            "through_ordinal": found.ordinal,
            "signed_ordinal": found.signed,
        }
    )


def _node(text: str, cluster_port: int) -> "Node":
    from urllib.parse import urlsplit

    from engine.log.deployment import Node

    name, _, address = text.partition("=")
    at = urlsplit(f"nats://{address}")
    try:
        host, port = at.hostname, at.port
        route = int(at.path.strip("/") or cluster_port)
    except ValueError:
        host = port = None
    if not name or not host or not port:
        raise Problem(
            f"--node takes NAME=HOST:PORT, not {text!r}",
            hint="As --node n1=10.0.0.1:4222.",
            exit_code=USAGE,
        )
    return Node(name=_name("--node", name, 32), host=host, port=port, cluster_port=route)


def _name(option: str, text: str, longest: int) -> str:
    import re

    if len(text) <= longest and re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text):
        return text
    raise Problem(
        f"{option} takes a name of small letters, digits and dashes, at most {longest}, "
        f"not {text!r}",
        exit_code=USAGE,
    )


def _check(plan: "Plan") -> None:
    for what, names in (
        ("--node", [node.name for node in plan.nodes]),
        ("--node address", [node.at(node.port) for node in plan.nodes]),
        ("--host", list(plan.hosts)),
    ):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise Problem(f"{what} {twice[0]} is there twice", exit_code=USAGE)
    if len(plan.nodes) == 2:
        raise Problem(
            "two nodes are no safer than one: without either of them nothing can be stored",
            hint="Give one --node, or three.",
            exit_code=USAGE,
        )


def _known_secrets(root: "Path", plan: "Plan") -> "Secrets | None":
    """Read what an earlier run made here; None if there is nothing."""
    import json

    from engine.log.certificates import Pair
    from engine.log.deployment import AUTHORITY, AUTHORITY_KEY, Secrets

    try:
        authority = Pair((root / AUTHORITY).read_text(), (root / AUTHORITY_KEY).read_text())
    except FileNotFoundError:
        return None
    passwords: dict[str, str] = {}
    for path in (root / "components").glob("*.json"):
        told = json.loads(path.read_text())
        if told["cell"] != plan.cell:
            raise Problem(
                f"{root} holds the files of cell {told['cell']}",
                hint="Name another directory for another cell.",
                exit_code=USAGE,
            )
        passwords[told["nats_user"]] = told["nats_password"]
    return Secrets(authority=authority, passwords=passwords)


def _next_steps(plan: "Plan", root: "Path") -> str:
    return f"""
Copy each file to its place, owned by who reads it and by nobody else readable (mode 0600), and
ca.pem to {plan.state_dir}/ca.pem wherever a component runs. Keep {root}/ca.key away from them all.
On each node:  nats-server -t -c nats.conf  and then  nats-server -c nats.conf
Once:          cumulog admin prepare {root}/components/admin.json --authority {root}/ca.pem
Then:          cumulog serve engine --state-dir {plan.state_dir}
               and so api, projector, archiver, agent"""
