"""`cumulog projection`: what people read, built anew from the log.

Works on this machine's files, beside a running cloud: readers keep the old read model until the new
one is complete.
"""

from typing import Annotated

import typer

from cli.cloud import STATE_DIR, StateDir
from cli.output import Output
from cli.parameters import HELP_NAMES
from cli.problem import Problem
from cli.state import State

projection_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": HELP_NAMES},
    help="What people read, built anew from the log.",
)


@projection_app.callback()
def root() -> None:
    """Read models follow from the log, and can be built anew from it at any time."""


@projection_app.command()
def rebuild(
    *,
    state_dir: StateDir = STATE_DIR,
    output: Annotated[Output, typer.Option("-o", "--output", help="How to print.")] = Output.TABLE,
) -> None:
    """Build this node's read model anew, compare it with the old one, and switch to it.

    The log must be running: `cumulog up`. Ends with 1 if a table differs.

    Example: cumulog projection rebuild --state-dir var
    """
    import json

    import msgspec

    from engine.log.port import LogError
    from engine.log.replay_all import replay_log
    from projections.files import LogEnded
    from projections.files import rebuild as build
    from projections.history import History, history_path
    from projections.models import LogDiffers
    from projections.runner import read_model_path
    from schemas.config import Config

    path = State.at(state_dir).config_file("projector")
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise Problem(
            f"cannot read {path}: {error.strerror}", hint="Name the state directory of `up`."
        ) from error
    history = History(history_path(config))
    try:
        rebuilt = build(
            read_model_path(config),
            lambda after: replay_log(
                config.nats_url,
                config.nats_user,
                config.nats_password,
                config.cell,
                after,
                authority=config.nats_ca,
                archived=history.commits_after,
            ),
        )
    except (LogError, LogEnded, LogDiffers) as error:
        raise Problem(f"the read model was not rebuilt: {error}") from error
    told = {
        "ordinal": rebuilt.ordinal,
        "identical": rebuilt.identical,
        "before": rebuilt.before,
        "after": rebuilt.after,
    }
    if output is Output.TABLE:
        same = "equal to the old one" if rebuilt.identical is not False else "NOT equal to it"
        print(f"Rebuilt up to ordinal {rebuilt.ordinal}; {same}.")
    else:
        print(json.dumps(told, indent=2))
    if rebuilt.identical is False:
        raise typer.Exit(1)
