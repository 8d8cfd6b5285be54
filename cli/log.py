"""`cumulog log`: the log itself, as a file to take away, and put back when its store is broken."""

from pathlib import Path
from typing import Annotated

import typer

from cli.cloud import STATE_DIR, StateDir
from cli.output import Output, show_item
from cli.problem import USAGE, Problem
from cli.session import Session, command, group
from cli.state import State

EXPORT_S = 600.0  # each wait; the first is for the log's end to be signed

log_app = group("The log itself: take a copy, put it back.")


@command(log_app, "export")
def export(
    session: Session,
    file: Annotated[Path, typer.Argument(help="Where to; with .gz at its end, compressed.")],
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="From the state directory, not over HTTP.")
    ] = False,
) -> None:
    """Write the whole log into a file: each commit byte for byte, a line each, and checkpoints.

    The file is checked on its way and is there whole or not at all. It shows that it is whole to
    anybody who has the public key, and nothing else of this cloud:

    \b
    cumulog log export log.jsonl.gz
    cumulog audit key > cell.pub
    cumulog audit verify --export log.jsonl.gz --key cell.pub

    With --offline it is read from sealed history and from the broker, which is started for it if
    the cloud is down.
    """  # noqa: D301  # click's mark for lines that stay as they are
    from cli.integrity import report_of
    from cli.offline import export_offline
    from engine.log.commit import ChainBroken
    from engine.log.export import write_export
    from engine.log.signing import read_public
    from projections.segment import HistoryBroken

    if not file.absolute().parent.is_dir():
        raise Problem(f"there is no folder {file.absolute().parent}", exit_code=USAGE)
    try:
        if offline:
            report = export_offline(State.at(session.state_dir or STATE_DIR), file)
        else:
            client = session.client
            client.timeout_s = EXPORT_S
            keys = read_public(client.get("/v1/log/key")["keys"].encode())
            report = write_export(file, client.lines("/v1/log/export"), keys)
    except HistoryBroken as error:
        raise Problem(
            f"nothing was written: {error}", hint="`cumulog audit verify` says more."
        ) from error
    except ChainBroken as error:
        raise Problem(
            f"nothing was written: what was read of the log is not whole; {error}",
            hint="`cumulog audit verify` walks it.",
        ) from error
    except OSError as error:
        raise Problem(f"cannot write {file}: {error}") from error
    session.show({"file": str(file), **report_of(report)})


@log_app.command("restore")
def restore(
    *,
    state_dir: StateDir = STATE_DIR,
    force: Annotated[
        bool, typer.Option("--force", help="Rebuild it even if nothing is wrong with it.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on without what cannot be had back.")
    ] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """Rebuild a damaged log from sealed history and what the broker's files still hold.

    Run it while the cloud is down. Every commit is put back byte for byte under its own sequence,
    checked by the hash chain, the signed checkpoints and the last acknowledged commit. The old
    files are moved to DIR/restore, never deleted. It can be cut short and run again.

    Exit code 1 if something that was acknowledged is lost. The cloud then does not start, until it
    is found (put history/ or nats/ back from a copy and run this again), or given up: with
    --accept-loss, which is signed and kept with the checkpoints.

    Example: cumulog log restore --state-dir var
    """
    from cli.restoring import restore_log

    told = restore_log(
        State.at(state_dir),
        force=force,
        accept_loss=accept_loss,
        tell=print if output is Output.TABLE else lambda _: None,
    )
    show_item(output, told)
    if told["lost"] and not told["accepted"]:
        raise Problem(
            f"ordinals {told['lost']} were acknowledged and are lost; the cloud does not start",
            hint="Put history/ back from a copy and run this again, or say --accept-loss.",
        )
