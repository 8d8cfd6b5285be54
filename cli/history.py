"""Commands about sealed history, and those that fold the log anew."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Column, Output, when
from cli.problem import REFUSED, USAGE, Problem
from cli.proofs import PROOF_S, show_proof
from cli.session import Session, command, group, single

replay_app = single()
history_app = group("The log as sealed files: how far, which, whole?")

SEGMENT_COLUMNS: list[Column] = [
    ("FIRST", "first"),
    ("LAST", "last"),
    ("FROM", lambda row: when(row["first_at"])),
    ("TO", lambda row: when(row["last_at"])),
    ("COMMITS", "commits"),
    ("BYTES", "bytes"),
    ("SHA-256", lambda row: row["sha256"][:16] + "…"),
]


@command(replay_app, "replay")
def replay(
    session: Session,
    *,
    verify_: Annotated[
        bool, typer.Option("--verify", help="Compare with what the engine holds.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(metavar="TIME|ORDINAL", help="Up to this moment (ISO 8601: UTC)."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="A new directory for the cloud of that moment.")
    ] = None,
    serve: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Serve such a directory until Ctrl-C.")
    ] = None,
    listen: Annotated[
        str, typer.Option(help="With --serve, host:port to serve at.")
    ] = "127.0.0.1:8790",
) -> None:
    """Fold the log anew: to compare with the engine's state, or to have a cloud of a moment.

    --verify folds all of it and ends with 1 if the engine's state differs.

    --to and --into lay down a read-only cloud of a moment beside the cloud that runs in
    --state-dir. Whoever could sign in then can sign in there, with the password of then, and reads
    what was there; nothing can be changed in it. Its tokens are of no use elsewhere.

    \b
    cumulog replay --verify
    cumulog replay --to 2026-11-28T12:00:00Z --into then
    cumulog replay --serve then &
    OS_CLIENT_CONFIG_FILE=then/clouds.yaml openstack --os-cloud then server list
    """  # noqa: D301  # click's mark for lines that stay as they are
    if [verify_, to is not None or into is not None, serve is not None].count(True) != 1:
        raise Problem(
            "say --verify, --to and --into, or --serve",
            hint="`cumulog replay --help` tells what each does.",
            exit_code=USAGE,
        )
    if serve is not None:
        from cli import then

        then.serve(serve, listen)
    elif verify_:
        session.client.timeout_s = PROOF_S
        show_proof(session, session.client.post("/v1/replay/verify", {}), "matches")
    elif to is None or into is None:
        raise Problem("--to and --into go together", exit_code=USAGE)
    else:
        from cli import then

        then.lay_down(session, to, into)


@command(history_app, "status")
def status(session: Session) -> None:
    """Show up to which ordinal the log is sealed and copied, and where the log ends."""
    told = session.client.get("/v1/history")
    copies = session.client.get("/v1/history/copies")
    if copies["store"]:
        told["copies"] = copies
    if session.output is Output.TABLE:
        told |= {name: copies[name] for name in ("store", "copied", "waiting") if copies["store"]}
        told.pop("copies", None)
    session.show(told)


@command(history_app, "copy")
def copy(session: Session) -> None:
    """Copy what is not in the store yet (`history_store`), without waiting for its turn."""
    session.client.timeout_s = PROOF_S
    session.show(session.client.post("/v1/history/copies", {}))


@command(history_app, "restore")
def restore(session: Session) -> None:
    """Put back files that are damaged or gone from the store. Exit code 1 if any are missing still.

    What the store has counts only once it is proven: by the checksums that are kept here, and by
    the hash chain up to something that is ours. What was damaged stays, as damaged-….parquet.
    """
    session.client.timeout_s = PROOF_S
    told = session.client.post("/v1/history/restore", {})
    if session.output is Output.TABLE:
        session.show_all(told["restored"], SEGMENT_COLUMNS)
        said = f"history is {'whole' if told['whole'] else 'not whole'}"
        print(f"{said}: {len(told['restored'])} put back, up to ordinal {told['ordinal']}")
        if told["why"]:
            print(told["why"])
    else:
        session.show(told)
    if not told["whole"]:
        raise typer.Exit(REFUSED)


@command(history_app, "segments")
def segments(session: Session) -> None:
    """List the files: Parquet, named by their first and last ordinal, in order."""
    session.show_all(session.client.get("/v1/history/segments")["segments"], SEGMENT_COLUMNS)


@command(history_app, "seal")
def seal(session: Session) -> None:
    """Seal what was acknowledged before this, without waiting for the time or the size."""
    session.client.timeout_s = PROOF_S
    told = session.client.post("/v1/history/seal", {})
    if session.output is Output.TABLE:
        session.say(f"sealed up to ordinal {told['ordinal']}, {len(told['segments'])} segments")
    else:
        session.show({"ordinal": told["ordinal"], "segments": len(told["segments"])})


@command(history_app, "verify")
def verify(session: Session) -> None:
    """Compare sealed history with the log, byte for byte. Exit code 1 if they differ.

    `cumulog audit verify` checks both against all that was signed; this shows that they are one.
    """
    session.client.timeout_s = PROOF_S
    show_proof(session, session.client.post("/v1/history/verify", {}), "agree")
