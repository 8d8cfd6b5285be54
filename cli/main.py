"""The `cumulog` command: a table of command groups, each a module imported when it is used.

Invariant: importing this module and printing its help imports nothing heavy (no HTTP, no msgspec,
no rich), so that `cumulog --help` stays below 150 ms of CPU; tests/cli/test_start.py watches it.
"""

import importlib
from typing import TYPE_CHECKING, Annotated, Never

import typer
from typer.core import TyperGroup

from cli.parameters import HELP_NAMES, quicken
from cli.problem import run_to_exit

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

# name: (module and the Typer app in it, what the help says)
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("cli.cloud:up_app", "Run the whole cloud on this machine, in the foreground."),
    "status": ("cli.cloud:status_app", "Show each part, its lag and the log's head."),
    "destroy": ("cli.cloud:destroy_app", "Remove this machine's cloud and every trace of it."),
    "serve": ("cli.cloud:serve_app", "Run one process of a cloud (what `up` starts)."),
    "admin": ("cli.admin:admin_app", "Set up the broker of a cell on machines of its own."),
    "server": ("cli.compute:server_app", "Virtual machines."),
    "flavor": ("cli.compute:flavor_app", "Sizes that servers can have."),
    "keypair": ("cli.compute:keypair_app", "SSH keys to put into servers."),
    "host": ("cli.compute:host_app", "Machines that run servers."),
    "image": ("cli.image:image_app", "Disks to boot from."),
    "network": ("cli.network:network_app", "Networks."),
    "subnet": ("cli.network:subnet_app", "Ranges of addresses on networks."),
    "port": ("cli.network:port_app", "Places on networks where servers plug in."),
    "domain": ("cli.identity:domain_app", "Namespaces of projects, users and groups."),
    "project": ("cli.identity:project_app", "What owns resources and is billed for them."),
    "quota": ("cli.quota:quota_app", "How much a project may hold, and holds."),
    "policy": ("cli.policy:policy_app", "Who may do what: shown, tried, set."),
    "why-denied": ("cli.policy:why_denied_app", "Why a request was refused, and who can help."),
    "who-can": ("cli.policy:who_can_app", "Who can do a thing, and by which grants."),
    "user": ("cli.identity:user_app", "Who signs in."),
    "group": ("cli.identity:group_app", "Users who get roles together."),
    "role": ("cli.role:role_app", "Named rights, and who has which where."),
    "application-credential": (
        "cli.application_credential:application_credential_app",
        "Secrets with which programs act for their users.",
    ),
    "token": ("cli.identity:token_app", "Tokens for the API."),
    "submit": ("cli.submit:submit_app", "Submit any action as an event."),
    "events": ("cli.events:events_app", "The log's requests and facts, as they happen."),
    "webhook": ("cli.webhook:webhook_app", "Where events are sent as they happen."),
    "audit": ("cli.audit:audit_app", "Who asked for what, and what came of it."),
    "log": ("cli.log:log_app", "The log itself: take a copy, put it back."),
    "history": ("cli.history:history_app", "The log as sealed files: how far, which, whole?"),
    "sql": ("cli.sql:sql_app", "Ask history in SQL."),
    "diff": ("cli.diff:diff_app", "What changed between two moments, and by whom."),
    "what-if": ("cli.what_if:what_if_app", "What other rules would have decided."),
    "bisect": ("cli.bisect:bisect_app", "Which event changed what a question is answered with."),
    "undo": ("cli.undo:undo_app", "Take requests back, as far as can be."),
    "why": ("cli.why:why_app", "Why a resource is as it is."),
    "replay": ("cli.history:replay_app", "Fold the log anew and compare."),
    "projection": ("cli.projection:projection_app", "What people read, built anew."),
    "meter": ("cli.meter:meter_app", "What is measured, and from which facts."),
    "alarm": ("cli.alarm:alarm_app", "What to be told of, and how often that would have been."),
    "usage": ("cli.billing:usage_app", "What was used, as exact integrals over time."),
    "price-list": ("cli.price_list:price_list_app", "What is charged for what, since when."),
    "customer": ("cli.customer:customer_app", "Who pays for which projects, by which terms."),
    "budget": ("cli.budget:budget_app", "What customers mean to spend, and when to be told."),
    "invoice": ("cli.invoice:invoice_app", "What customers owe: drafts, invoices, and why."),
    "report": ("cli.report:report_app", "What costs, who spends most, what is idle or left."),
    "bill": ("cli.billing:bill_app", "What it costs, one line per resource."),
}


class LazyGroup(TyperGroup):
    """Knows its commands' names and help; imports a command's module when it is called."""

    def list_commands(self, ctx: "Context") -> list[str]:  # noqa: ARG002 (Click's signature)
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":  # noqa: ARG002
        """Import the command's module and return its Click command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        group = getattr(importlib.import_module(module), attribute)
        command: Command = quicken(typer.main.get_command(group))
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: "Context", args: list[str]
    ) -> tuple[str | None, "Command | None", list[str]]:
        """Say which commands are near when the one asked for is unknown."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:  # noqa: ARG002
        """Write the table, importing none of its modules."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


app = typer.Typer(
    name="cumulog",
    cls=LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_NAMES},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cumulog {version('cumulog')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Cumulog: a cloud you can replay.

    Commands that only read take --as-of TIME|ORDINAL, and answer as they would have done then.
    Commands that talk to a cloud take --os-cloud, --state-dir and -o table|json|yaml. Without
    them, OS_CLOUD and OS_* variables count, then the cloud `cumulog` of ./clouds.yaml,
    ./var/clouds.yaml or ~/.config/openstack/clouds.yaml.
    """


def main(arguments: list[str] | None = None) -> Never:
    """Run the command line and exit."""
    command = quicken(typer.main.get_command(app))
    run_to_exit(lambda: command(args=arguments, prog_name="cumulog"))


if __name__ == "__main__":
    main()
