"""What every command that talks to a cloud has: an account, a client, a format to print in.

``@command(app, "list")`` adds -o, --os-cloud and --state-dir to a function's own parameters and
gives it a Session in their place, so that all commands have them and none repeats them. Those that
only read take --as-of too.
"""

import contextlib
import inspect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Concatenate

import typer
from typer.core import TyperGroup

from cli.client import Client
from cli.credentials import find_cloud
from cli.output import Column, Output, Row, show_item, show_rows
from cli.parameters import HELP_NAMES

if TYPE_CHECKING:
    from typer._click import Context

type Body[**P] = Callable[Concatenate["Session", P], None]


class Session:
    """One run of one command. The client signs in when it is first used."""

    def __init__(
        self,
        output: Output,
        os_cloud: str | None,
        state_dir: str | None,
        as_of: str | None = None,
    ) -> None:
        self.output = output
        self.as_of = as_of
        self.os_cloud = os_cloud
        self.state_dir = state_dir

    @cached_property
    def client(self) -> Client:
        """The client of the chosen cloud."""
        return Client(find_cloud(self.os_cloud, self.state_dir), as_of=self.as_of)

    @cached_property
    def now(self) -> datetime:
        """The time that is asked about: that of the moment, or of now. UTC."""
        if self.as_of is None:
            return datetime.now(UTC)
        if not self.as_of.isdecimal():
            with contextlib.suppress(ValueError):  # the cloud says what is wrong with it
                at = datetime.fromisoformat(self.as_of)
                return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        told = self.client.get("/v1/events", limit=1)
        return datetime.fromtimestamp(told["at"] // 1_000_000, UTC)

    def show(self, item: Row) -> None:
        """Print one thing."""
        show_item(self.output, item)

    def show_all(self, rows: Sequence[Row], columns: Sequence[Column]) -> None:
        """Print a list."""
        show_rows(self.output, rows, columns)

    def say(self, text: str) -> None:
        """Tell a person something; programs that asked for JSON or YAML are not told."""
        if self.output is Output.TABLE:
            print(text, flush=True)


def _common(
    *,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    os_cloud: Annotated[str | None, typer.Option(help="A cloud of clouds.yaml.")] = None,
    state_dir: Annotated[str | None, typer.Option(help="The state directory of `up`.")] = None,
) -> None:
    """Hold the options that every command has."""


def _reading(
    *,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="TIME|ORDINAL", help="Answer as at this moment (ISO 8601: UTC)."),
    ] = None,
) -> None:
    """Hold the options that every command has which only reads."""


def command[**P](
    app: typer.Typer, name: str, *, reads: bool = False, about: str | None = None
) -> Callable[[Body[P]], Body[P]]:
    """Register a function as a command that gets a Session first.

    ``reads``: it changes nothing, and can be asked about the past. ``about`` is its help, where
    that is not the function's docstring.
    """

    def register(body: Body[P]) -> Body[P]:
        def call(**values: Any) -> None:
            session = Session(
                values.pop("output"),
                values.pop("os_cloud"),
                values.pop("state_dir"),
                values.pop("as_of", None),
            )
            body(session, **values)  # type: ignore[call-arg]  # Typer has checked them by the signature

        own = list(inspect.signature(body).parameters.values())[1:]
        common = [
            parameter
            for options in ((_reading, _common) if reads else (_common,))
            for parameter in inspect.signature(options).parameters.values()
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature([p.replace(kind=keyword) for p in (*own, *common)])
        call.__signature__ = signature  # type: ignore[attr-defined]  # inspect and so Typer read it
        call.__doc__ = about or body.__doc__
        app.command(name)(call)
        return body

    return register


def group(text: str) -> typer.Typer:
    """Return an app for a group of commands, as plain as the root."""
    app = typer.Typer(
        help=text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": HELP_NAMES},
    )
    # With a callback it stays a group even when it has one command only.
    app.callback()(lambda: None)
    return app


class _OrShow(TyperGroup):
    """A group whose command is ``show`` where none is named."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Put ``show`` before options that are its own."""
        named = bool(args) and not args[0].startswith("-")
        if not named and not {*args} & {*HELP_NAMES}:
            args = ["show", *args]
        return super().parse_args(ctx, args)


def shown_by_default(text: str) -> typer.Typer:
    """Return an app for a group of commands, of which ``show`` is meant where none is named."""
    app = group(text)
    app.info.cls = _OrShow
    return app


def single() -> typer.Typer:
    """Return an app whose one command is the command itself."""
    return typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": HELP_NAMES},
    )
